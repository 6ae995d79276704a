#include "tickwire/net/http_date.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>

namespace tickwire::net {
namespace {

constexpr std::array<std::string_view, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
/// '#' is a digit, '_' a digit or a space, 'A' three letters of a month; the rest is as it stands.
constexpr std::string_view kFixed = ", ## A #### ##:##:## GMT";
constexpr std::string_view kWithDashes = ", ##-A-## ##:##:## GMT";
constexpr std::string_view kOfC = " A _# ##:##:## ####";

struct Fields {
  std::array<int, 5> numbers{};  // In their order.
  unsigned month = 0;            // From 1.
};

std::optional<Fields> match(std::string_view text, std::string_view form) noexcept {
  Fields out;
  std::size_t at = 0;
  std::size_t field = 0;
  for (std::size_t i = 0; i < form.size(); ++i) {
    if (form[i] == 'A') {
      const std::string_view name = text.substr(std::min(at, text.size()), 3);
      const auto* const month = std::find(kMonths.begin(), kMonths.end(), name);
      if (month == kMonths.end()) return std::nullopt;
      out.month = static_cast<unsigned>(month - kMonths.begin()) + 1;
      at += 3;
      continue;
    }
    if (at == text.size()) return std::nullopt;
    const char c = text[at++];
    const bool digit = c >= '0' && c <= '9';
    if (form[i] == '#' || (form[i] == '_' && c != ' ')) {
      if (!digit) return std::nullopt;
      out.numbers[field] = out.numbers[field] * 10 + (c - '0');
      // A number goes on for as long as its form does.
      if (i + 1 == form.size() || form[i + 1] != '#') ++field;
    } else if (form[i] != '_' && c != form[i]) {
      return std::nullopt;
    }
  }
  return at == text.size() ? std::optional(out) : std::nullopt;
}

std::optional<std::int64_t> seconds_of(int year, unsigned month, int day, int hour, int minute,
                                       int second) noexcept {
  const std::chrono::year_month_day date(std::chrono::year(year), std::chrono::month(month),
                                         std::chrono::day(static_cast<unsigned>(day)));
  // A second 60 is a leap one.
  if (!date.ok() || hour > 23 || minute > 59 || second > 60) return std::nullopt;
  const std::int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  return days * 86'400 + hour * 3'600 + minute * 60 + second;
}

/// The year of these last two digits that is not more than fifty after now.
int whole_year(int two_digits, std::int64_t now_s) noexcept {
  const std::chrono::sys_days today{std::chrono::days(now_s / 86'400)};
  const int newest = static_cast<int>(std::chrono::year_month_day(today).year()) + 50;
  return newest - (newest - two_digits) % 100;
}

}  // namespace

std::optional<std::int64_t> parse_http_date(std::string_view text, std::int64_t now_s) noexcept {
  std::size_t letters = 0;
  while (letters < text.size() && ((text[letters] | 0x20) >= 'a' && (text[letters] | 0x20) <= 'z')) ++letters;
  if (letters < 3) return std::nullopt;
  text.remove_prefix(letters);
  if (const auto found = match(text, kFixed)) {
    const auto& [day, year, hour, minute, second] = found->numbers;
    return seconds_of(year, found->month, day, hour, minute, second);
  }
  if (const auto found = match(text, kWithDashes)) {
    const auto& [day, year, hour, minute, second] = found->numbers;
    return seconds_of(whole_year(year, now_s), found->month, day, hour, minute, second);
  }
  if (const auto found = match(text, kOfC)) {
    const auto& [day, hour, minute, second, year] = found->numbers;
    return seconds_of(year, found->month, day, hour, minute, second);
  }
  return std::nullopt;
}

}  // namespace tickwire::net

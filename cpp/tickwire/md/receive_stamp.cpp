#include "tickwire/md/receive_stamp.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

namespace tickwire::md {

namespace {

constexpr std::int64_t kYear2000 = 946'684'800;  // Seconds since 1970.
constexpr std::int64_t kYear2100 = 4'102'444'800;
constexpr TsNs kNsASecond = 1'000'000'000;

bool is_digit(char c) noexcept { return static_cast<unsigned char>(c - '0') < 10; }

struct Unit {
  StampForm form;
  std::int64_t in_a_second;
};
constexpr std::array<Unit, 4> kUnits{{{StampForm::Nanoseconds, 1'000'000'000},
                                      {StampForm::Microseconds, 1'000'000},
                                      {StampForm::Milliseconds, 1'000},
                                      {StampForm::Seconds, 1}}};

/// The unit in which a number lies between 2000 and 2100; null where there is none.
const Unit* unit_of(std::int64_t whole) noexcept {
  for (const Unit& unit : kUnits) {
    if (whole >= kYear2000 * unit.in_a_second && whole < kYear2100 * unit.in_a_second) return &unit;
  }
  return nullptr;
}

void set_number(std::int64_t whole, std::uint64_t billionths_squared, Stamp& out) noexcept {
  out.as_ns = whole;
  const Unit* const unit = unit_of(whole);
  out.form = unit != nullptr ? unit->form : StampForm::None;
  if (unit == nullptr) {
    out.ts = whole;
    return;
  }
  const std::int64_t scale = kNsASecond / unit->in_a_second;
  // 18 digits behind the point, cut to nanoseconds.
  const auto parts = static_cast<std::uint64_t>(1'000'000'000'000'000'000 / scale);
  out.ts = whole * scale + static_cast<std::int64_t>(billionths_squared / parts);
}

/// A number that no time is: it is known how long its text is, and no more.
bool no_time(std::size_t size, Stamp& out) noexcept {
  out.form = StampForm::None;
  out.ts = out.as_ns = 0;
  out.size = size;
  return true;
}

/// A number with a point or an exponent, or of more digits than a whole one can have.
bool parse_decimal_stamp(std::string_view text, Stamp& out) noexcept {
  std::array<char, 48> digits;
  std::size_t count = 0;
  std::int64_t point = -1;
  std::size_t at = 0;
  bool too_large = false;
  for (; at < text.size() && (is_digit(text[at]) || (text[at] == '.' && point < 0)); ++at) {
    if (text[at] == '.') {
      point = static_cast<std::int64_t>(count);
    } else if (count < digits.size()) {
      digits[count++] = text[at];
    } else if (point < 0) {
      too_large = true;
    }
  }
  if (count == 0) return false;
  if (point < 0) point = static_cast<std::int64_t>(count);
  if (at + 1 < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    std::size_t behind = at + 1;
    const bool negative = text[behind] == '-';
    if (negative || text[behind] == '+') ++behind;
    int exponent = 0;
    const auto [end, error] = std::from_chars(text.data() + behind, text.data() + text.size(), exponent);
    if (error == std::errc::invalid_argument || exponent < 0) return false;
    at = static_cast<std::size_t>(end - text.data());
    if (error != std::errc{} || exponent > 30) return no_time(at, out);
    point += negative ? -exponent : exponent;
  }
  if (too_large) return no_time(at, out);
  std::int64_t whole = 0;
  std::uint64_t behind = 0;
  for (std::int64_t i = 0; i < point; ++i) {
    const int digit = i < static_cast<std::int64_t>(count) ? digits[static_cast<std::size_t>(i)] - '0' : 0;
    if (__builtin_mul_overflow(whole, std::int64_t{10}, &whole) ||
        __builtin_add_overflow(whole, std::int64_t{digit}, &whole)) {
      return no_time(at, out);
    }
  }
  for (std::int64_t i = point; i < point + 18; ++i) {
    const bool there = i >= 0 && i < static_cast<std::int64_t>(count);
    behind = behind * 10 + static_cast<std::uint64_t>(there ? digits[static_cast<std::size_t>(i)] - '0' : 0);
  }
  out.size = at;
  set_number(whole, behind, out);
  return true;
}

/// `count` digits as a number between `least` and `most`; false where there is something else.
bool take(std::string_view& text, std::size_t count, int least, int most, int& out) noexcept {
  if (text.size() < count) return false;
  out = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (!is_digit(text[i])) return false;
    out = out * 10 + (text[i] - '0');
  }
  text.remove_prefix(count);
  return out >= least && out <= most;
}

bool take(std::string_view& text, char wanted) noexcept {
  if (text.empty() || text.front() != wanted) return false;
  text.remove_prefix(1);
  return true;
}

/// Days since 1970, in the Gregorian calendar.
std::int64_t days_of(int year, int month, int day) noexcept {
  // A year that begins with March has its leap day at its end.
  const std::int64_t y = year - (month <= 2 ? 1 : 0);
  const std::int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  return 365 * y + y / 4 - y / 100 + y / 400 + day_of_year - 719'468;
}

int days_in(int year, int month) noexcept {
  static constexpr std::array<int, 12> kDays{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  return kDays[static_cast<std::size_t>(month - 1)] + (month == 2 && leap ? 1 : 0);
}

/// 2024-08-08T23:54:13.9370857Z, or 20240808T235413.9370857Z in the basic form: `T` or, in the other one, a
/// space; a point or a comma, any number of digits behind it or none; the zone is Z, +hh:mm, +hhmm, +hh or
/// not named.
bool parse_iso(std::string_view text, bool basic, Stamp& out) noexcept {
  const std::size_t size = text.size();
  const auto mark = [&text, basic](char wanted) { return basic || take(text, wanted); };
  int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
  if (!take(text, 4, 1, 9999, year) || !mark('-') || !take(text, 2, 1, 12, month) || !mark('-') ||
      !take(text, 2, 1, 31, day) || day > days_in(year, month)) {
    return false;
  }
  if (!take(text, 'T') && !take(text, 't') && (basic || !take(text, ' '))) return false;
  // 60: a leap second is the first of the next minute.
  if (!take(text, 2, 0, 23, hour) || !mark(':') || !take(text, 2, 0, 59, minute) || !mark(':') ||
      !take(text, 2, 0, 60, second)) {
    return false;
  }
  std::int64_t ns = 0;
  if (take(text, '.') || take(text, ',')) {
    std::size_t digits = 0;
    for (; !text.empty() && is_digit(text.front()); text.remove_prefix(1), ++digits) {
      if (digits < 9) ns = ns * 10 + (text.front() - '0');
    }
    if (digits == 0) return false;
    for (; digits < 9; ++digits) ns *= 10;
  }
  std::int64_t ahead = 0;  // Minutes.
  out.no_zone = false;
  if (!take(text, 'Z') && !take(text, 'z')) {
    const bool east = take(text, '+');
    if (east || take(text, '-')) {
      int hours = 0, minutes = 0;
      if (!take(text, 2, 0, 23, hours)) return false;
      (void)take(text, ':');
      if (!text.empty() && is_digit(text.front()) && !take(text, 2, 0, 59, minutes)) return false;
      ahead = (east ? 1 : -1) * (hours * 60 + minutes);
    } else {
      out.no_zone = true;
    }
  }
  const std::int64_t seconds =
      days_of(year, month, day) * 86'400 + hour * 3'600 + minute * 60 + second - ahead * 60;
  out.size = size - text.size();
  const bool plausible = seconds >= kYear2000 && seconds < kYear2100;
  out.form = plausible ? StampForm::Iso : StampForm::None;
  out.ts = out.as_ns = plausible ? seconds * kNsASecond + ns : 0;
  return true;
}

}  // namespace

bool parse_stamp(std::string_view text, Stamp& out) noexcept {
  out.no_zone = false;
  out.whole = false;
  if (text.size() > 1 && text.front() == '-' && is_digit(text[1])) [[unlikely]] {
    // Of a clock that had not been set, or of a difference: what its digits say is no matter.
    Stamp positive;
    if (!parse_stamp(text.substr(1), positive)) return false;
    return no_time(1 + positive.size, out);
  }
  if (text.empty() || !is_digit(text.front())) return false;
  std::int64_t whole = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), whole);
  const auto size = static_cast<std::size_t>(end - text.data());
  const char next = size < text.size() ? text[size] : '\0';
  if (size == 8 && (next == 'T' || next == 't')) [[unlikely]]
    return parse_iso(text, true, out);
  if (error == std::errc{} && next != '.' && next != 'e' && next != 'E' && next != '-') [[likely]] {
    out.size = size;
    out.whole = true;
    set_number(whole, 0, out);
    return true;
  }
  return next == '-' ? parse_iso(text, false, out) : parse_decimal_stamp(text, out);
}

}  // namespace tickwire::md

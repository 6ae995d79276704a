#include "tickwire/core/decimal.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <limits>

#include "tickwire/core/digits.hpp"

namespace tickwire {
namespace {

bool is_digit(char c) noexcept TICKWIRE_HOT { return static_cast<unsigned char>(c - '0') < 10; }

/// Both halves of the test are needed: the first sees bytes below '0' and from 0x40 up, the second
/// the ones between '9' and 0x40.
bool all_digits(std::uint64_t word) noexcept TICKWIRE_HOT {
  return ((word & 0xF0F0F0F0F0F0F0F0U) | (((word + 0x0606060606060606U) & 0xF0F0F0F0F0F0F0F0U) >> 4U)) ==
         0x3333333333333333U;
}

/// Appends the digits in [text, end) to `value` and stops at the first byte that is none. Returns
/// that place, or nullptr when the value no longer fits 64 bits.
const char* append_digits(const char* text, const char* end, std::uint64_t& value) noexcept TICKWIRE_HOT {
  while (end - text >= 8) {
    const std::uint64_t word = load_eight(text);
    if (!all_digits(word)) break;
    if (__builtin_mul_overflow(value, std::uint64_t{100'000'000}, &value) ||
        __builtin_add_overflow(value, value_of_first(word, 8), &value)) [[unlikely]] {
      return nullptr;
    }
    text += 8;
  }
  for (; text != end && is_digit(*text); ++text) {
    if (__builtin_mul_overflow(value, std::uint64_t{10}, &value) ||
        __builtin_add_overflow(value, static_cast<std::uint64_t>(*text - '0'), &value)) [[unlikely]] {
      return nullptr;
    }
  }
  return text;
}

bool parse_plain(std::string_view token, int decimals, std::int64_t& out) noexcept TICKWIRE_HOT {
  const char* text = token.data();
  const char* const end = text + token.size();
  const bool negative = text != end && *text == '-';
  if (negative) ++text;

  std::uint64_t value = 0;
  const char* const whole = text;
  text = append_digits(text, end, value);
  if (text == nullptr || text == whole) return false;

  std::ptrdiff_t kept = 0;
  if (text != end) {
    if (*text != '.') return false;
    const char* const fraction = ++text;
    if (fraction == end) return false;
    // What is beyond the unit must be zero; it is not accumulated, so it cannot overflow either.
    const char* const cut = end - fraction > decimals ? fraction + decimals : end;
    text = append_digits(text, cut, value);
    if (text != cut) return false;  // Also where append_digits() gave up.
    kept = cut - fraction;
    for (; text != end; ++text) {
      if (*text != '0') return false;
    }
  }

  const std::uint64_t scale = kPowersOfTen[static_cast<std::size_t>(decimals - kept)];
  if (__builtin_mul_overflow(value, scale, &value) ||
      value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) [[unlikely]] {
    return false;
  }
  out = negative ? -static_cast<std::int64_t>(value) : static_cast<std::int64_t>(value);
  return true;
}

/// As a writer of JSON makes it of a double that is very small or very large. Rare: it is read digit by
/// digit.
[[gnu::noinline]] bool parse_with_exponent(std::string_view token, std::size_t at, int decimals,
                                           std::int64_t& out) noexcept TICKWIRE_HOT {
  std::string_view digits(token.data(), at);
  const bool negative = digits.starts_with('-');
  if (negative) digits.remove_prefix(1);
  const std::size_t point = digits.find('.');
  const std::size_t whole = std::min(point, digits.size());
  if (whole == 0 || whole + 1 == digits.size()) return false;

  int exponent = 0;
  std::string_view rest(token.data() + at + 1, token.size() - at - 1);
  const bool down = rest.starts_with('-');
  if (down || rest.starts_with('+')) rest.remove_prefix(1);
  if (rest.empty()) return false;
  for (const char c : rest) {
    if (!is_digit(c)) return false;
    exponent = std::min(exponent * 10 + (c - '0'), 10'000);
  }
  if (down) exponent = -exponent;

  // What is left of the point once the units are taken; a digit right of it must be zero.
  const int places = exponent + decimals;
  std::uint64_t value = 0;
  int left = static_cast<int>(std::min<std::size_t>(whole, 10'000)) + places;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i == point) continue;
    if (!is_digit(digits[i])) return false;
    const auto digit = static_cast<std::uint64_t>(digits[i] - '0');
    if (left-- <= 0) {
      if (digit != 0) return false;
    } else if (__builtin_mul_overflow(value, std::uint64_t{10}, &value) ||
               __builtin_add_overflow(value, digit, &value)) {
      return false;
    }
  }
  for (; left > 0 && value != 0; --left) {
    if (__builtin_mul_overflow(value, std::uint64_t{10}, &value)) return false;
  }
  if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return false;
  out = negative ? -static_cast<std::int64_t>(value) : static_cast<std::int64_t>(value);
  return true;
}

}  // namespace

bool parse_decimal(std::string_view token, int decimals, std::int64_t& out) noexcept {
  if (decimals < 0 || decimals > kMaxDecimals) return false;
  if (parse_plain(token, decimals, out)) [[likely]]
    return true;
  const std::size_t at = token.find_first_of("eE");
  return at != std::string_view::npos && parse_with_exponent(token, at, decimals, out);
}

bool parse_decimal_padded(std::string_view token, int decimals, std::int64_t& out) noexcept {
  if (token.empty() || token.size() > 17 || decimals < 0 || decimals > 8) [[unlikely]] {
    return parse_decimal(token, decimals, out);
  }
  const char* const text = token.data();
  const std::uint64_t head = load_eight(text);
  // The lowest zero byte of the difference is the first point; above it there may be false ones.
  const std::uint64_t from_point = head ^ 0x2E2E2E2E2E2E2E2EU;
  const std::uint64_t points = (from_point - 0x0101010101010101U) & ~from_point & 0x8080808080808080U;
  const std::size_t before_point = points == 0 ? 8 : static_cast<std::size_t>(std::countr_zero(points)) / 8;
  const std::size_t whole_digits = std::min(before_point, token.size());
  const std::uint64_t whole = (head & kLowBytes[whole_digits]) | (kEightZeros & ~kLowBytes[whole_digits]);
  if (whole_digits == 0 || !all_digits(whole)) [[unlikely]]
    return parse_decimal(token, decimals, out);
  const auto units = static_cast<std::size_t>(decimals);
  std::uint64_t value = value_of_first(head, whole_digits) * kPowersOfTen[units];

  if (whole_digits != token.size()) {
    const std::size_t digits = token.size() - whole_digits - 1;
    const std::uint64_t kept = kLowBytes[std::min<std::size_t>(digits, 8)];
    const std::uint64_t tail = load_eight(text + whole_digits + 1);
    const std::uint64_t fraction = (tail & kept) | (kEightZeros & ~kept);
    // A ninth digit, none at all, no point, a digit beyond the unit: rare or wrong.
    if (digits == 0 || digits > 8 || token[whole_digits] != '.' || !all_digits(fraction) ||
        ((fraction ^ kEightZeros) & ~kLowBytes[units]) != 0) [[unlikely]] {
      return parse_decimal(token, decimals, out);
    }
    if (units != 0) value += value_of_first(fraction, units);
  }
  out = static_cast<std::int64_t>(value);
  return true;
}

}  // namespace tickwire

#include "tickwire/core/decimal.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <optional>
#include <random>
#include <string>
#include <string_view>

namespace tickwire {
namespace {

/// The slow twin: works on digit strings alone, so it cannot share an overflow with the fast one.
std::optional<std::int64_t> slow_parse(const std::string& token, int decimals) {
  const auto is_digits = [](const std::string& text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
  };
  if (decimals < 0 || decimals > 18) return std::nullopt;
  const bool negative = token.starts_with('-');
  const std::string number = token.substr(negative ? 1 : 0);
  const std::size_t e = number.find_first_of("eE");
  const std::string body = number.substr(0, e);
  const std::size_t dot = body.find('.');
  std::string whole = body.substr(0, dot);
  std::string fraction;
  if (!is_digits(whole)) return std::nullopt;
  if (dot != std::string::npos) {
    fraction = body.substr(dot + 1);
    if (!is_digits(fraction)) return std::nullopt;
  }
  if (e != std::string::npos) {
    // Moves the point a digit at a time.
    std::string exponent = number.substr(e + 1);
    const bool down = exponent.starts_with('-');
    if (down || exponent.starts_with('+')) exponent.erase(0, 1);
    if (!is_digits(exponent)) return std::nullopt;
    exponent.erase(0, std::min(exponent.find_first_not_of('0'), exponent.size() - 1));
    const int moves = exponent.size() > 3 ? 1000 : std::stoi(exponent);
    for (int i = 0; i < moves; ++i) {
      std::string& from = down ? whole : fraction;
      const char digit = from.empty() ? '0' : down ? from.back() : from.front();
      if (!from.empty()) from.erase(down ? from.size() - 1 : 0, 1);
      if (down) {
        fraction.insert(fraction.begin(), digit);
      } else {
        whole.push_back(digit);
      }
    }
  }
  const auto units = static_cast<std::size_t>(decimals);
  if (fraction.size() > units) {
    if (fraction.find_first_not_of('0', units) != std::string::npos) return std::nullopt;
    fraction.resize(units);
  }
  fraction.append(units - fraction.size(), '0');
  std::string digits = whole + fraction;
  digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size()));
  if (digits.empty()) return 0;
  const std::string largest = "9223372036854775807";
  if (digits.size() > largest.size() || (digits.size() == largest.size() && digits > largest))
    return std::nullopt;
  std::int64_t value = 0;
  for (const char c : digits) value = value * 10 + (c - '0');
  return negative ? -value : value;
}

std::optional<std::int64_t> parse(const std::string& token, int decimals) {
  std::int64_t out = 424242;
  if (parse_decimal(token, decimals, out)) return out;
  EXPECT_EQ(out, 424242) << token;  // A refused token leaves the output alone.
  return std::nullopt;
}

TEST(Decimal, ScalesWhatVenuesSend) {
  EXPECT_EQ(parse("61837.63000000", 8), 6183763000000);
  EXPECT_EQ(parse("61837.63000000", 2), 6183763);
  EXPECT_EQ(parse("0.00000001", 8), 1);
  EXPECT_EQ(parse("0.001", 3), 1);
  EXPECT_EQ(parse("1200", 0), 1200);
  EXPECT_EQ(parse("1200", 8), 120000000000);
  EXPECT_EQ(parse("-1.5", 1), -15);
  EXPECT_EQ(parse("-0.0", 4), 0);
  EXPECT_EQ(parse("0", 18), 0);
}

TEST(Decimal, RefusesWhatIsNoPlainDecimal) {
  for (const char* token :
       {"",    "-",         ".",        "-.",       ".5",       "5.",        "+1",   "1e",
        "e3",  " 1",        "1 ",       "1,5",      "1.2.3",    "--1",       "0x10", "nan",
        "inf", "12345678x", "1234567:", "123456/8", "\xB1\xB2", "1.1234567x"}) {
    EXPECT_EQ(parse(token, 8), std::nullopt) << token;
  }
  EXPECT_EQ(parse(std::string("1\0", 2), 8), std::nullopt);
}

TEST(Decimal, ReadsAnExponent) {
  EXPECT_EQ(parse("1e3", 2), 100'000);
  EXPECT_EQ(parse("6.183763E4", 2), 6'183'763);
  EXPECT_EQ(parse("1e-05", 8), 1'000);
  EXPECT_EQ(parse("-2.50e+1", 1), -250);
  EXPECT_EQ(parse("100e-2", 0), 1);
  EXPECT_EQ(parse("1234.5e-2", 3), 12'345);
  EXPECT_EQ(parse("0e9999999", 8), 0);
  EXPECT_EQ(parse("0.0e-400", 8), 0);
  EXPECT_EQ(parse("9.223372036854775807e18", 0), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(parse("000000000000000000001e0", 0), 1);
  // Finer than the unit, or beyond 64 bits.
  for (const char* token : {"1e-9", "1.5e-8", "1e400", "1e11", "9.223372036854775808e10"}) {
    EXPECT_EQ(parse(token, 8), std::nullopt) << token;
  }
  for (const char* token :
       {"1e", "1e+", "1e1.5", "1e 3", ".5e1", "5.e1", "1ee3", "1e3e3", "--1e3", "1,5e3"}) {
    EXPECT_EQ(parse(token, 8), std::nullopt) << token;
  }
}

TEST(Decimal, ReadsAnExponentAsTheNumberWrittenOut) {
  std::mt19937 random(7);
  for (int i = 0; i < 20'000; ++i) {
    // `digits` with the point moved by `exponent`, once as an exponent and once written out.
    std::string digits(1 + random() % 12, '0');
    for (char& c : digits) c = static_cast<char>('0' + random() % (random() % 2 == 0 ? 1 : 10));
    const int exponent = static_cast<int>(random() % 21) - 10;
    const std::size_t point = 1 + random() % digits.size();
    std::string token = digits.substr(0, point);
    if (point != digits.size()) token += "." + digits.substr(point);
    token += "e" + std::to_string(exponent);
    const int shifted = static_cast<int>(point) + exponent;
    const std::string padded = std::string(24, '0') + digits + std::string(24, '0');
    const auto at = static_cast<std::size_t>(24 + shifted);
    const std::string written = padded.substr(0, at) + "." + padded.substr(at);
    const int decimals = static_cast<int>(random() % 9);
    EXPECT_EQ(parse(token, decimals), parse(written, decimals)) << token << " " << written;
  }
}

TEST(Decimal, RefusesAPriceFinerThanItsUnit) {
  EXPECT_EQ(parse("0.011", 2), std::nullopt);
  EXPECT_EQ(parse("0.010000000000000000000000000000", 2), 1);
  EXPECT_EQ(parse("0.010000000000000000000000000001", 2), std::nullopt);
  EXPECT_EQ(parse("7.000", 0), 7);
  EXPECT_EQ(parse("7.001", 0), std::nullopt);
}

TEST(Decimal, RefusesOverflowAndTakesTheLargest) {
  EXPECT_EQ(parse("9223372036854775807", 0), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(parse("9223372036854775808", 0), std::nullopt);
  EXPECT_EQ(parse("-9223372036854775807", 0), -std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(parse("-9223372036854775808", 0), std::nullopt);
  EXPECT_EQ(parse("92233720368.54775807", 8), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(parse("92233720368.54775808", 8), std::nullopt);
  EXPECT_EQ(parse("92233720369", 8), std::nullopt);
  EXPECT_EQ(parse("18446744073709551616", 0), std::nullopt);
  EXPECT_EQ(parse("99999999999999999999999999999999", 0), std::nullopt);
  EXPECT_EQ(parse("00000000000000000000000000000000000001", 0), 1);
}

TEST(Decimal, RefusesUnitsThatNoInteger64Holds) {
  EXPECT_EQ(parse("1", -1), std::nullopt);
  EXPECT_EQ(parse("1", 19), std::nullopt);
}

TEST(Decimal, AgreesWithTheSlowTwin) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto upto = [&random](std::uint32_t n) { return static_cast<std::uint32_t>(random() % (n + 1)); };
  const auto digits = [&](std::size_t count) {
    std::string text;
    // Runs of zeros and nines are where carries and limits lie.
    const std::uint32_t mode = upto(3);
    for (std::size_t i = 0; i < count; ++i) {
      text += mode == 0 ? '0' : mode == 1 ? '9' : static_cast<char>('0' + upto(9));
    }
    return text;
  };
  int accepted = 0;
  for (int i = 0; i < 200'000; ++i) {
    std::string token = upto(7) == 0 ? "-" : "";
    token += digits(upto(upto(3) == 0 ? 24 : 11));
    if (upto(3) != 0) token += '.' + digits(upto(12)) + std::string(upto(3) == 0 ? upto(12) : 0, '0');
    if (upto(15) == 0 && !token.empty())
      token[upto(static_cast<std::uint32_t>(token.size()) - 1)] = static_cast<char>(upto(255));
    const int units = static_cast<int>(upto(20)) - 1;
    const std::optional<std::int64_t> expected = slow_parse(token, units);
    ASSERT_EQ(parse(token, units), expected) << '"' << token << "\" decimals " << units;
    // Padding that goes on with the number, or with whatever else.
    const std::string padded = token + std::string(kDecimalPadding, "0.9\",x"[upto(5)]);
    std::int64_t value = 0;
    const bool parsed = parse_decimal_padded(std::string_view(padded).substr(0, token.size()), units, value);
    ASSERT_EQ(parsed ? std::optional(value) : std::nullopt, expected)
        << '"' << padded << "\" decimals " << units;
    accepted += expected.has_value();
  }
  EXPECT_GT(accepted, 20'000);  // Else the generator tests refusals alone.
}

}  // namespace
}  // namespace tickwire

#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "tickwire/core/hot.hpp"

/// Arithmetic whose bits do not depend on the machine.
///
/// A C library picks its log and exp2 by CPU (with or without fused multiply-add) and changes them
/// between versions, so a row computed with them is not the same row elsewhere. Everything here is
/// additions, multiplications, divisions and square roots of doubles, each rounded once
/// (-ffp-contract=off). log and exp2 are within two units in the last place.
///
/// What is a ratio of integers is rounded once in all, so that values that are equal in exact arithmetic are
/// equal: a window of them is seen to be flat, and a score of it is 0 and not the last bits blown up.
namespace tickwire::features {

__extension__ typedef __int128 Int128;
__extension__ typedef unsigned __int128 Uint128;

inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

namespace detail {

/// 2·atanh(s) for |s| <= 0.172, by its series: the next term is below 2^-56 of the sum.
inline double twice_atanh(double s) noexcept TICKWIRE_HOT {
  const double z = s * s;
  double series = 1.0 / 23.0;
  series = series * z + 1.0 / 21.0;
  series = series * z + 1.0 / 19.0;
  series = series * z + 1.0 / 17.0;
  series = series * z + 1.0 / 15.0;
  series = series * z + 1.0 / 13.0;
  series = series * z + 1.0 / 11.0;
  series = series * z + 1.0 / 9.0;
  series = series * z + 1.0 / 7.0;
  series = series * z + 1.0 / 5.0;
  series = series * z + 1.0 / 3.0;
  return 2.0 * s + 2.0 * s * z * series;
}

/// exp(y) - 1 for |y| <= 0.35, by its series.
inline double small_expm1(double y) noexcept TICKWIRE_HOT {
  double series = 1.0 / 87178291200.0;  // 1/14!
  series = series * y + 1.0 / 6227020800.0;
  series = series * y + 1.0 / 479001600.0;
  series = series * y + 1.0 / 39916800.0;
  series = series * y + 1.0 / 3628800.0;
  series = series * y + 1.0 / 362880.0;
  series = series * y + 1.0 / 40320.0;
  series = series * y + 1.0 / 5040.0;
  series = series * y + 1.0 / 720.0;
  series = series * y + 1.0 / 120.0;
  series = series * y + 1.0 / 24.0;
  series = series * y + 1.0 / 6.0;
  series = series * y + 1.0 / 2.0;
  return y + y * y * series;
}

inline constexpr double kLn2 = 0x1.62e42fefa39efp-1;
// ln 2 in two parts, the first short enough that its product with an exponent is exact.
inline constexpr double kLn2High = 0x1.62e42feep-1;
inline constexpr double kLn2Low = 0x1.a39ef35793c76p-33;

}  // namespace detail

/// 1 - 2^(-z) for z >= 0, accurate also where z is tiny.
inline double one_minus_exp2(double z) noexcept TICKWIRE_HOT {
  if (z <= 0.5) return -detail::small_expm1(-z * detail::kLn2);
  if (z > 100.0) return 1.0;
  const std::uint64_t k = static_cast<std::uint64_t>(z + 0.5);
  const double scale = std::bit_cast<double>((1023 - k) << 52);
  return 1.0 - (scale + scale * detail::small_expm1((static_cast<double>(k) - z) * detail::kLn2));
}

/// An unevaluated sum of two doubles: about 106 bits.
struct DoubleDouble {
  double high = 0.0;
  double low = 0.0;

  void add(double value, double value_low = 0.0) noexcept TICKWIRE_HOT {
    const double sum = high + value;  // Knuth's TwoSum.
    const double part = sum - high;
    const double error = (high - (sum - part)) + (value - part);
    const double rest = error + (low + value_low);
    high = sum + rest;
    low = rest - (high - sum);
  }
};

/// a + b, exactly (Knuth).
inline DoubleDouble two_sum(double a, double b) noexcept TICKWIRE_HOT {
  const double sum = a + b;
  const double part = sum - a;
  return {sum, (a - (sum - part)) + (b - part)};
}

/// a·b, exactly, by Veltkamp's splitting (Dekker 1971): no fused multiply-add.
inline DoubleDouble two_product(double a, double b) noexcept TICKWIRE_HOT {
  constexpr double kSplit = 134217729.0;  // 2^27 + 1
  const double product = a * b;
  const double a_scaled = kSplit * a;
  const double a_high = a_scaled - (a_scaled - a);
  const double a_low = a - a_high;
  const double b_scaled = kSplit * b;
  const double b_high = b_scaled - (b_scaled - b);
  const double b_low = b - b_high;
  return {product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low};
}

/// n·a, exactly, of a whole n below 2^26: its products with either half of a need no splitting.
inline DoubleDouble times_count(double n, double a) noexcept TICKWIRE_HOT {
  constexpr double kSplit = 134217729.0;
  const double product = n * a;
  const double scaled = kSplit * a;
  const double high = scaled - (scaled - a);
  return {product, (n * high - product) + n * (a - high)};
}

inline DoubleDouble square(const DoubleDouble& a) noexcept TICKWIRE_HOT {
  DoubleDouble product = two_product(a.high, a.high);
  product.low += 2.0 * a.high * a.low;
  return product;
}

/// a / b to about 100 bits, as what is nearest to it and what is left.
inline DoubleDouble divide_further(const DoubleDouble& a, const DoubleDouble& b) noexcept TICKWIRE_HOT {
  const double first = a.high / b.high;
  const DoubleDouble product = two_product(first, b.high);
  const double rest = ((a.high - product.high) - product.low) + (a.low - first * b.low);
  return {first, rest / b.high};
}

/// a / b, rounded once: quotients that are equal in exact arithmetic are the same bits, whatever a and b.
inline double divide(const DoubleDouble& a, const DoubleDouble& b) noexcept TICKWIRE_HOT {
  const DoubleDouble quotient = divide_further(a, b);
  return quotient.high + quotient.low;
}

/// A sum kept in three doubles, about 159 bits (Klein 2006): what is added and later taken away again leaves
/// 2^-159 of the largest sum on the way, which is less than any two samples of ours differ by.
struct LongSum {
  double high = 0.0;
  double middle = 0.0;
  double low = 0.0;

  void add(double value) noexcept TICKWIRE_HOT {
    const DoubleDouble first = two_sum(high, value);
    const DoubleDouble second = two_sum(middle, first.low);
    high = first.high;
    middle = second.high;
    low += second.low;
  }

  [[nodiscard]] DoubleDouble value() const noexcept TICKWIRE_HOT {
    const DoubleDouble sum = two_sum(high, middle);
    return two_sum(sum.high, sum.low + low);
  }
};

namespace detail {

/// By long division; also what two doubles cannot hold, and a quotient half-way between two doubles.
[[gnu::noinline]] inline double quotient_slow(Uint128 numerator, Uint128 denominator) noexcept TICKWIRE_HOT {
  if (numerator == 0) return 0.0;
  Uint128 whole = numerator / denominator;
  Uint128 rest = numerator % denominator;
  double scale = 1.0;
  bool inexact = false;
  for (; (whole >> 64) != 0; whole >>= 1, scale *= 2.0) inexact = inexact || (whole & 1) != 0;
  for (; (whole >> 63) == 0; scale *= 0.5) {
    const bool carry = (rest >> 127) != 0;
    rest <<= 1;
    whole <<= 1;
    if (carry || rest >= denominator) {
      rest -= denominator;
      whole |= 1;
    }
  }
  // 64 bits of it: the lowest is far below what is rounded, and stands for all behind it.
  std::uint64_t bits = static_cast<std::uint64_t>(whole);
  if (inexact || rest != 0) bits |= 1;
  return static_cast<double>(bits) * scale;
}

/// Exact below 2^106.
inline DoubleDouble to_double_double(Uint128 value) noexcept TICKWIRE_HOT {
  constexpr std::uint64_t kMask = (std::uint64_t{1} << 53) - 1;
  const double high = static_cast<double>(static_cast<std::int64_t>(value >> 53)) * 0x1p53;
  const double low =
      static_cast<double>(static_cast<std::int64_t>(static_cast<std::uint64_t>(value) & kMask));
  const double sum = high + low;
  return {sum, low - (sum - high)};
}

}  // namespace detail

/// numerator / denominator, rounded once: it depends on the ratio alone, and not on how it is written. NaN
/// where the denominator is 0.
inline double quotient(Int128 numerator, Uint128 denominator) noexcept TICKWIRE_HOT {
  if (denominator == 0) [[unlikely]]
    return kNan;
  const bool negative = numerator < 0;
  const Uint128 magnitude =
      negative ? Uint128{0} - static_cast<Uint128>(numerator) : static_cast<Uint128>(numerator);
  const Uint128 both = magnitude | denominator;
  if ((both >> 53) == 0) {  // Both are doubles.
    return static_cast<double>(static_cast<std::int64_t>(numerator)) /
           static_cast<double>(static_cast<std::int64_t>(denominator));
  }
  if ((both >> 106) == 0) [[likely]] {
    const DoubleDouble found =
        divide_further(detail::to_double_double(magnitude), detail::to_double_double(denominator));
    const double error = found.high * 0x1p-98;
    const double below = found.high + (found.low - error);
    // Is it one double whichever way the last bits of it err? It nearly always is (Ziv 1991).
    if (below == found.high + (found.low + error)) [[likely]]
      return negative ? -below : below;
  }
  const double exact = detail::quotient_slow(magnitude, denominator);
  return negative ? -exact : exact;
}

/// log(a / b), accurate also where they are nearly equal: it works on their difference and never on the
/// rounded quotient. It depends on the ratio alone, and changes its sign when they change places. NaN where
/// either is 0.
inline double log_ratio(std::uint64_t a, std::uint64_t b) noexcept TICKWIRE_HOT {
  constexpr double kReach = 0.1715728752538099;  // (sqrt(2) - 1) / (sqrt(2) + 1)
  if (a == 0 || b == 0) [[unlikely]]
    return kNan;
  const double s = quotient(Int128{a} - b, Uint128{a} + b);
  if (std::fabs(s) <= kReach) [[likely]]
    return detail::twice_atanh(s);
  const double ratio = a > b ? quotient(a, b) : quotient(b, a);
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(ratio);
  int exponent = static_cast<int>((bits >> 52) & 0x7ff) - 1023;
  double mantissa = std::bit_cast<double>((bits & 0xf'ffff'ffff'ffffULL) | (1023ULL << 52));
  if (mantissa > 1.4142135623730951) {
    mantissa *= 0.5;
    ++exponent;
  }
  const double k = exponent;
  const double log =
      k * detail::kLn2High + (k * detail::kLn2Low + detail::twice_atanh((mantissa - 1.0) / (mantissa + 1.0)));
  return a > b ? log : -log;
}

}  // namespace tickwire::features

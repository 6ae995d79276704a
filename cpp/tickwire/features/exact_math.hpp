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
/// (-ffp-contract=off). No function is within half a unit in the last place; all are within two.
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

/// log(a / b) of two positive numbers, accurate also where they are nearly equal: it works on their
/// difference and never on the rounded quotient. NaN where either is.
inline double log_ratio(double a, double b) noexcept TICKWIRE_HOT {
  constexpr double kReach = 0.1715728752538099;  // (sqrt(2) - 1) / (sqrt(2) + 1)
  const double s = (a - b) / (a + b);
  if (std::fabs(s) <= kReach) [[likely]]
    return detail::twice_atanh(s);
  if (s != s) return kNan;
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(a / b);
  int exponent = static_cast<int>((bits >> 52) & 0x7ff) - 1023;
  double mantissa = std::bit_cast<double>((bits & 0xf'ffff'ffff'ffffULL) | (1023ULL << 52));
  if (mantissa > 1.4142135623730951) {
    mantissa *= 0.5;
    ++exponent;
  }
  const double k = exponent;
  return k * detail::kLn2High +
         (k * detail::kLn2Low + detail::twice_atanh((mantissa - 1.0) / (mantissa + 1.0)));
}

/// 1 - 2^(-z) for z >= 0, accurate also where z is tiny.
inline double one_minus_exp2(double z) noexcept TICKWIRE_HOT {
  if (z <= 0.5) return -detail::small_expm1(-z * detail::kLn2);
  if (z > 100.0) return 1.0;
  const std::uint64_t k = static_cast<std::uint64_t>(z + 0.5);
  const double scale = std::bit_cast<double>((1023 - k) << 52);
  return 1.0 - (scale + scale * detail::small_expm1((static_cast<double>(k) - z) * detail::kLn2));
}

/// A sum kept in two doubles, about 104 bits: what is added and later taken away again leaves an
/// error of 2^-104 of the largest sum on the way, not 2^-53.
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

/// a·b as an unevaluated sum, by Veltkamp's splitting (Dekker 1971): no fused multiply-add.
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

}  // namespace tickwire::features

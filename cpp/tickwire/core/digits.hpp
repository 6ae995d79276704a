#pragma once

/// Decimal digits eight at a step, for those who parse prices by the hundred: a word holds eight
/// characters, the first in its lowest byte. Any thread; a few instructions each.

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "tickwire/core/hot.hpp"

namespace tickwire {

/// Eight times '0': what turns characters into digits and back.
inline constexpr std::uint64_t kEightZeros = 0x3030303030303030U;

/// The lowest bytes, as many as the index says.
inline constexpr std::array<std::uint64_t, 9> kLowBytes = [] {
  std::array<std::uint64_t, 9> masks{};
  for (std::size_t i = 1; i < masks.size(); ++i) masks[i] = masks[i - 1] << 8U | 0xFFU;
  return masks;
}();

/// All that 64 bits hold.
inline constexpr std::array<std::uint64_t, 20> kPowersOfTen = [] {
  std::array<std::uint64_t, 20> powers{};
  std::uint64_t power = 1;
  for (std::uint64_t& entry : powers) {
    entry = power;
    power *= 10;
  }
  return powers;
}();

inline std::uint64_t load_eight(const char* text) noexcept TICKWIRE_HOT {
  std::uint64_t word;
  std::memcpy(&word, text, sizeof word);
  if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
  return word;
}

/// The number that eight digits write, each a byte of 0 to 9: pairs, then fours, then all eight.
inline std::uint64_t value_of_digits(std::uint64_t digits) noexcept TICKWIRE_HOT {
  digits = digits * 10 + (digits >> 8U);
  return ((digits & 0x000000FF000000FFU) * 0x000F424000000064U +
          ((digits >> 16U) & 0x000000FF000000FFU) * 0x0000271000000001U) >>
         32U;
}

/// The number that the first `count` characters write, 1 to 8, whatever follows them.
inline std::uint64_t value_of_first(std::uint64_t characters, std::size_t count) noexcept TICKWIRE_HOT {
  return value_of_digits((characters ^ kEightZeros) << (8 * (8 - count)));
}

/// A whole number of digits alone, at least one. False, with `out` untouched, on anything else and on one
/// that does not fit. Eight bytes behind `text` are readable, whatever they are.
[[nodiscard]] inline bool parse_whole_padded(std::string_view text, std::uint64_t& out) noexcept
    TICKWIRE_HOT {
  std::uint64_t value = 0;
  const char* at = text.data();
  for (std::size_t left = text.size(); left != 0;) {
    const std::size_t count = left < 8 ? left : 8;
    const std::uint64_t digits = (load_eight(at) ^ kEightZeros) << (8 * (8 - count));
    // A byte above 9 has its high bit, or gets it.
    const bool good = ((digits | (digits + 0x7676767676767676U)) & 0x8080808080808080U) == 0;
    if (!good || __builtin_mul_overflow(value, kPowersOfTen[count], &value) ||
        __builtin_add_overflow(value, value_of_digits(digits), &value)) {
      return false;
    }
    at += count;
    left -= count;
  }
  if (text.empty()) return false;
  out = value;
  return true;
}

}  // namespace tickwire

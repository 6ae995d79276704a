#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>

#include "tickwire/core/hot.hpp"

namespace tickwire {

/// Integers in network byte order at any address. One load and one swap each; the caller has checked the
/// length.

namespace detail {
template <std::unsigned_integral T>
constexpr T from_big_endian(T value) noexcept TICKWIRE_HOT {
  if constexpr (std::endian::native == std::endian::big || sizeof(T) == 1) {
    return value;
  } else if constexpr (sizeof(T) == 2) {
    return __builtin_bswap16(value);
  } else if constexpr (sizeof(T) == 4) {
    return __builtin_bswap32(value);
  } else {
    static_assert(sizeof(T) == 8);
    return __builtin_bswap64(value);
  }
}
}  // namespace detail

template <std::unsigned_integral T>
inline T load_be(const char* at) noexcept TICKWIRE_HOT {
  T value;
  std::memcpy(&value, at, sizeof value);
  return detail::from_big_endian(value);
}

template <std::unsigned_integral T>
inline void store_be(char* at, T value) noexcept TICKWIRE_HOT {
  value = detail::from_big_endian(value);
  std::memcpy(at, &value, sizeof value);
}

}  // namespace tickwire

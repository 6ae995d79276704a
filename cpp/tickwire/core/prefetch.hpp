#pragma once

#include <cstddef>

#include "tickwire/core/hot.hpp"

namespace tickwire {

/// Asks memory for the cache line at `at`, to be written soon, and goes on; any address will do. The empty
/// statement is for g++, which takes a function of prefetches alone for one without effect and drops its
/// calls.
inline void prefetch(const void* at) noexcept TICKWIRE_HOT {
  __builtin_prefetch(at, 1);
  asm volatile("");
}

/// The same for each line of `bytes` from `begin` on.
inline void prefetch_lines(const void* begin, std::size_t bytes) noexcept TICKWIRE_HOT {
  constexpr std::size_t kLine = 64;
  for (std::size_t at = 0; at < bytes; at += kLine) prefetch(static_cast<const std::byte*>(begin) + at);
}

}  // namespace tickwire

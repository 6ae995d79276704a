#pragma once

#include "tickwire/core/hot.hpp"

namespace tickwire {

/// Asks memory for the cache line at `at`, to be written soon, and goes on; any address will do. The empty
/// statement is for g++, which takes a function of prefetches alone for one without effect and drops its
/// calls.
inline void prefetch(const void* at) noexcept TICKWIRE_HOT {
  __builtin_prefetch(at, 1);
  asm volatile("");
}

}  // namespace tickwire

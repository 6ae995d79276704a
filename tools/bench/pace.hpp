#pragma once

/// The clocks of the programs that send at a pace, and the wait for the next frame's turn.

#include <time.h>

#include <cerrno>
#include <cstdint>

namespace tickwire::bench {

inline constexpr std::int64_t kSecond = 1'000'000'000;

inline std::int64_t now_ns(clockid_t clock) {
  timespec t;
  ::clock_gettime(clock, &t);
  return t.tv_sec * kSecond + t.tv_nsec;
}

/// Sleeps until `spin_ns` before the time, then watches the clock: a wake-up comes late by tens of
/// microseconds, and a core that only spins would be missing elsewhere.
inline void wait_until(std::int64_t monotonic_ns, std::int64_t spin_ns) {
  const std::int64_t wake_ns = monotonic_ns - spin_ns;
  if (now_ns(CLOCK_MONOTONIC) < wake_ns) {
    const timespec wake{wake_ns / kSecond, wake_ns % kSecond};
    while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, nullptr) == EINTR) {
    }
  }
  while (now_ns(CLOCK_MONOTONIC) < monotonic_ns) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
}

}  // namespace tickwire::bench

#pragma once

#include <cstdint>
#include <ctime>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"

#if defined(__x86_64__) || defined(__i386__)
#include <x86intrin.h>
#endif

namespace tickwire {

/// The two clocks of the engine: ticks for durations, UtcClock for stamps.
///
/// Ticks are the CPU's time stamp counter where it runs at one rate on all cores in all power
/// states, else CLOCK_MONOTONIC nanoseconds behind the same names. Reading it costs some 10 ns and
/// no system call. The read is not serialised (no rdtscp, no fence): it may move by a few
/// instructions, which is less than a fence would cost every stage of every event.

namespace detail {
/// Decided once, when the library is loaded. Code that runs in static constructors before that sees
/// CLOCK_MONOTONIC.
extern const bool use_tsc;

inline std::int64_t read_clock_ns(clockid_t clock) noexcept {
  timespec ts;
  ::clock_gettime(clock, &ts);
  return static_cast<std::int64_t>(ts.tv_sec) * 1'000'000'000 + static_cast<std::int64_t>(ts.tv_nsec);
}
}  // namespace detail

/// True where ticks are the TSC.
inline bool tsc_invariant() noexcept { return detail::use_tsc; }

/// Any thread.
inline std::uint64_t tsc_now() noexcept TICKWIRE_HOT {
#if defined(__x86_64__) || defined(__i386__)
  if (detail::use_tsc) [[likely]]
    return __rdtsc();
#endif
  TICKWIRE_HOT_EXEMPT_BEGIN("no usable TSC on this host: the vDSO clock, no system call")
  return static_cast<std::uint64_t>(detail::read_clock_ns(CLOCK_MONOTONIC));
  TICKWIRE_HOT_EXEMPT_END
}

/// Nanoseconds a tick. The first call calibrates against CLOCK_MONOTONIC_RAW and takes 20 ms, so
/// setup makes it: every UtcClock and every AgentRunner does before a thread starts.
double tsc_ns_per_tick() noexcept;

/// Takes over what another process on this host has calibrated: 20 ms sooner, and the two agree. Setup,
/// before the first call of the function above; later it has no effect.
void adopt_tsc_ns_per_tick(double ns_per_tick) noexcept;

inline std::int64_t tsc_to_ns(std::uint64_t delta) noexcept TICKWIRE_HOT {
  TICKWIRE_HOT_EXEMPT_BEGIN("reads a guard and a constant: setup has calibrated")
  return static_cast<std::int64_t>(static_cast<double>(delta) * tsc_ns_per_tick());
  TICKWIRE_HOT_EXEMPT_END
}

/// From one reading to a later one; 0 where the later shows less. Two cores may be apart by some ticks, and
/// the read moves by some instructions: between two threads the later one can come out first.
inline std::int64_t tsc_span_ns(std::uint64_t from, std::uint64_t to) noexcept TICKWIRE_HOT {
  return to > from ? tsc_to_ns(to - from) : 0;
}

/// The inverse, for thresholds and intervals that are compared in ticks.
inline std::uint64_t ns_to_tsc(std::int64_t ns) noexcept TICKWIRE_HOT {
  TICKWIRE_HOT_EXEMPT_BEGIN("reads a guard and a constant: setup has calibrated")
  return static_cast<std::uint64_t>(static_cast<double>(ns) / tsc_ns_per_tick());
  TICKWIRE_HOT_EXEMPT_END
}

/// CLOCK_REALTIME itself, for setup and the control plane.
inline TsNs read_utc() noexcept { return detail::read_clock_ns(CLOCK_REALTIME); }

/// UTC from the TSC: a base taken from CLOCK_REALTIME plus the ticks since. One per thread, nothing
/// is shared. Between two resyncs it only goes forward; a resync follows the system clock wherever
/// it went, also back, because a stamp that hides a step cannot be compared with the venue's.
///
/// The rate comes from CLOCK_MONOTONIC between two resyncs: it is slewed as CLOCK_REALTIME is but
/// never stepped, so the clock stays within a microsecond although the TSC's nominal rate may be
/// wrong by 50 ppm, which would be 5 us after 100 ms.
class UtcClock {
 public:
  UtcClock() noexcept;

  /// About every 100 ms, from Agent::every_100ms(). Six vDSO reads, no system call.
  void resync() noexcept;

  TsNs now() const noexcept TICKWIRE_HOT { return at(tsc_now()); }

  /// The UTC time of a tick read on any core, before or after the last resync.
  TsNs at(std::uint64_t tsc) const noexcept TICKWIRE_HOT {
    const auto ticks = static_cast<std::int64_t>(tsc - base_tsc_);
    return base_utc_ + static_cast<std::int64_t>(static_cast<double>(ticks) * ns_per_tick_);
  }

 private:
  double ns_per_tick_;
  std::uint64_t base_tsc_ = 0;
  TsNs base_utc_ = 0;
  std::uint64_t rate_tsc_ = 0;  // Where the rate was last measured: ticks and CLOCK_MONOTONIC.
  std::int64_t rate_ns_ = 0;
};

}  // namespace tickwire

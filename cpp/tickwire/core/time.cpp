#include "tickwire/core/time.hpp"

#include <cmath>
#include <cstdio>
#include <cstring>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

namespace tickwire {
namespace {

#if defined(__x86_64__) || defined(__i386__)
bool cpu_promises_invariant_tsc() noexcept {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(0x80000007U, &eax, &ebx, &ecx, &edx) == 0) return false;
  return (edx & (1U << 8)) != 0;
}

/// The kernel watches the TSC against other timers and drops it from this list when it finds cores
/// that disagree, whatever the CPU promises.
bool kernel_distrusts_tsc() noexcept {
  std::FILE* file = std::fopen("/sys/devices/system/clocksource/clocksource0/available_clocksource", "re");
  if (file == nullptr) return false;
  char line[256] = {};
  const bool read = std::fgets(line, sizeof line, file) != nullptr;
  std::fclose(file);
  if (!read) return false;
  for (char *save = nullptr, *word = ::strtok_r(line, " \n", &save); word != nullptr;
       word = ::strtok_r(nullptr, " \n", &save)) {
    if (std::strcmp(word, "tsc") == 0) return false;
  }
  return true;
}

bool detect_tsc() noexcept { return cpu_promises_invariant_tsc() && !kernel_distrusts_tsc(); }
#else
bool detect_tsc() noexcept { return false; }
#endif

struct Reading {
  std::uint64_t tsc;
  std::int64_t ns;
};

/// A clock and the tick at which it was read: the narrowest of three brackets, so that one
/// interruption between the reads does not shift the result.
Reading read_bracketed(clockid_t clock) noexcept {
  Reading best{};
  std::uint64_t narrowest = UINT64_MAX;
  for (int attempt = 0; attempt < 3; ++attempt) {
    const std::uint64_t before = tsc_now();
    const std::int64_t ns = detail::read_clock_ns(clock);
    const std::uint64_t width = tsc_now() - before;
    if (width < narrowest) {
      narrowest = width;
      best = Reading{before + width / 2, ns};
    }
  }
  return best;
}

double adopted_ns_per_tick = 0.0;

double calibrate() noexcept {
  if (!detail::use_tsc) return 1.0;
  if (adopted_ns_per_tick > 0.0) return adopted_ns_per_tick;
  // 20 ms between readings that are good to about 50 ns: 3 ppm, a thousandth of a histogram bucket.
  const Reading first = read_bracketed(CLOCK_MONOTONIC_RAW);
  const timespec pause{0, 20'000'000};
  ::clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
  const Reading last = read_bracketed(CLOCK_MONOTONIC_RAW);
  return static_cast<double>(last.ns - first.ns) / static_cast<double>(last.tsc - first.tsc);
}

}  // namespace

namespace detail {
const bool use_tsc = detect_tsc();
}  // namespace detail

double tsc_ns_per_tick() noexcept {
  static const double ns_per_tick = calibrate();
  return ns_per_tick;
}

void adopt_tsc_ns_per_tick(double ns_per_tick) noexcept { adopted_ns_per_tick = ns_per_tick; }

UtcClock::UtcClock() noexcept : ns_per_tick_(tsc_ns_per_tick()) { resync(); }

void UtcClock::resync() noexcept {
  const Reading utc = read_bracketed(CLOCK_REALTIME);
  base_tsc_ = utc.tsc;
  base_utc_ = utc.ns;

  const Reading steady = read_bracketed(CLOCK_MONOTONIC);
  const std::int64_t elapsed_ns = steady.ns - rate_ns_;
  // 10 ms: below it the 50 ns of a reading are more than 5 ppm and would worsen the rate.
  if (rate_tsc_ != 0 && elapsed_ns < 10'000'000) return;
  if (rate_tsc_ != 0) {
    const double rate = static_cast<double>(elapsed_ns) / static_cast<double>(steady.tsc - rate_tsc_);
    // The kernel slews by at most 500 ppm. More is a suspended or migrated machine, where one of the
    // two clocks stood still: keep the rate that was good before.
    if (std::abs(rate / tsc_ns_per_tick() - 1.0) < 1e-3) ns_per_tick_ = rate;
  }
  rate_tsc_ = steady.tsc;
  rate_ns_ = steady.ns;
}

}  // namespace tickwire

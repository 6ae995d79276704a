#pragma once

#include <sched.h>

#include <algorithm>
#include <cstdint>

namespace tickwire::concurrent {

enum class IdleKind : std::uint8_t {
  Spin,     // Never gives the core away: for a core that nothing else wants.
  Yield,    // Offers the core after each empty turn: shared cores, still no sleep.
  Backoff,  // Spins, then yields, then parks: works on two cores and leaves an idle machine idle.
};

/// What a thread does after a turn that did nothing. One per thread.
class IdleStrategy {
 public:
  /// Some microseconds of spinning bridge the gap within a burst; yields let the other side of a queue
  /// run where it shares our core; only then is a wake-up of some 50 us worth its price.
  static constexpr std::uint32_t kSpins = 200;
  static constexpr std::uint32_t kYields = 50;
  static constexpr std::int64_t kFirstParkNs = 50'000;
  /// Bounds how late stop() and every_100ms() are noticed by an agent that waits to be woken.
  static constexpr std::int64_t kLongestParkNs = 20'000'000;

  explicit IdleStrategy(IdleKind kind) noexcept : kind_(kind) {}

  /// After an empty turn. `park(max_ns)` is called where the thread may sleep.
  template <typename Park>
  void idle(Park&& park) noexcept {
    switch (kind_) {
      case IdleKind::Spin: return pause();
      case IdleKind::Yield: ::sched_yield(); return;
      case IdleKind::Backoff: break;
    }
    if (turns_ < kSpins) {
      ++turns_;
      pause();
    } else if (turns_ < kSpins + kYields) {
      ++turns_;
      ::sched_yield();
    } else {
      park(park_ns_);
      park_ns_ = std::min(park_ns_ * 2, kLongestParkNs);
    }
  }

  /// After a turn that did something.
  void reset() noexcept {
    turns_ = 0;
    park_ns_ = kFirstParkNs;
  }

 private:
  static void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  IdleKind kind_;
  std::uint32_t turns_ = 0;
  std::int64_t park_ns_ = kFirstParkNs;
};

}  // namespace tickwire::concurrent

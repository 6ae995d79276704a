#pragma once

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <string_view>

namespace tickwire::concurrent {

/// A unit of work that a thread repeats. It knows no thread: AgentRunner calls it on one, a test calls
/// do_work() by hand. All but name() is called from that one thread.
class Agent {
 public:
  virtual ~Agent() = default;

  virtual std::string_view name() const noexcept = 0;

  /// Once, on the thread, already pinned: what must be allocated or touched there. May throw; the
  /// exception leaves AgentRunner::start().
  virtual void on_start() {}

  /// One turn; how much was done, 0 for nothing. Bounded, so that stop() and every_100ms() are
  /// served. An agent of the data plane overrides it `noexcept`; what another one throws ends its
  /// thread and leaves AgentRunner::join().
  virtual int do_work() = 0;

  /// Once, on the thread, after the last turn: drain, or say what is dropped.
  virtual void on_close() {}

  /// Nothing to do for at most `max_ns`. An agent that can be woken (a Waker, a socket) waits for that;
  /// the others sleep, never longer than a millisecond, because nobody tells them of new work.
  virtual void park(std::int64_t max_ns) noexcept {
    const timespec pause{0, static_cast<long>(std::min<std::int64_t>(max_ns, 1'000'000))};
    ::clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
  }

  /// After on_start() and then about ten times a second, between turns: resync the UtcClock, publish
  /// the heartbeat.
  virtual void every_100ms() noexcept {}
};

}  // namespace tickwire::concurrent

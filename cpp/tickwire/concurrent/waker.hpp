#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"

namespace tickwire::concurrent {

/// Wakes a consumer that sleeps, and costs the producer a system call only then. One consumer, any
/// number of producers. The consumer is a thread, which calls wait(), or an event loop, which watches
/// fd() and calls woke().
///
///     consumer                                         producer
///     if (waker.prepare_sleep(has_work))               queue.publish();
///       waker.wait(timeout_ns);                        waker.notify();
///
/// Why no wake-up is lost: both sides exchange the one flag, and exchanges of one flag have an order
/// that everybody agrees on. If the producer's comes second it finds the flag set and writes the
/// eventfd. If it comes first, the consumer's exchange reads from it and so sees what was published
/// before it, and has_work() says so. A plain store and load would need the queue's own index to be
/// sequentially consistent; a fence would do but is invisible to ThreadSanitizer.
///
/// Between processes the flag lies in memory that both map, and the eventfd is inherited: each has a
/// Waker of its own over the two. A consumer that died asleep costs the next producer one write.
class Waker {
 public:
  /// What both sides exchange; zeroed memory is a consumer that is awake.
  struct Flag {
    alignas(kFalseSharingBytes) std::atomic<bool> asleep;
    std::atomic<std::uint64_t> wakes;  // Several producers, so no Cell; touched only beside a system call.
  };
  static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<std::uint64_t>::is_always_lock_free);

  /// Setup; throws SetupError when the process is out of descriptors.
  Waker();
  /// Setup, with the flag in shared memory, which outlives this.
  explicit Waker(Flag& shared);
  /// Setup, in the other process: takes the inherited eventfd over.
  Waker(Flag& shared, int fd) noexcept;
  ~Waker();
  Waker(const Waker&) = delete;
  Waker& operator=(const Waker&) = delete;

  /// Any producer, after publishing.
  void notify() noexcept TICKWIRE_HOT {
    // seq_cst, pairs with the exchange in prepare_sleep(): see above.
    if (flag_->asleep.exchange(false, std::memory_order_seq_cst)) [[unlikely]] {
      TICKWIRE_HOT_EXEMPT_BEGIN("the consumer sleeps: one eventfd write wakes it, counted in wakes()")
      write_eventfd();
      TICKWIRE_HOT_EXEMPT_END
    }
  }

  /// The consumer only. Announces the sleep, then asks once more for work. True: sleep, with wait()
  /// or until fd() is readable. False: there is work, and the announcement is taken back.
  template <typename HasWork>
  [[nodiscard]] bool prepare_sleep(HasWork&& has_work) noexcept {
    // seq_cst, pairs with the exchange in notify(): see above.
    flag_->asleep.exchange(true, std::memory_order_seq_cst);
    if (!has_work()) return true;
    // seq_cst as well: a plain store could stand between a producer's exchange and our next one, which
    // then would not read from it.
    flag_->asleep.exchange(false, std::memory_order_seq_cst);
    return false;
  }

  /// The consumer only, after prepare_sleep() said true. Sleeps until notified, until one of
  /// `extra_fds` (at most 15) is readable or in error, or for `timeout_ns` (negative: no limit), then
  /// does woke(). True unless the time ran out. May also return early on a signal.
  bool wait(std::int64_t timeout_ns, std::span<const int> extra_fds = {}) noexcept;

  /// The consumer only, after fd() became readable in its event loop: clears the flag and the eventfd.
  void woke() noexcept;

  /// An eventfd, readable when notified.
  int fd() const noexcept { return fd_; }

  /// Any thread: system calls that notify() has made, of all producers.
  std::uint64_t wakes() const noexcept {
    // Relaxed: a statistic.
    return flag_->wakes.load(std::memory_order_relaxed);
  }

 private:
  void write_eventfd() noexcept;

  Flag own_{};  // Of a waker within one process.
  Flag* flag_ = &own_;
  int fd_ = -1;
};

}  // namespace tickwire::concurrent

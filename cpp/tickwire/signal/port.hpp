#pragma once

/// The writing end of a ring of signal records: to an inference agent or to the router.
///
/// One thread owns a port. A ring that is physically full drops the newest row and counts it; a
/// notice, the record that says an instrument has left valid, is never dropped: it waits in the
/// port and goes out before anything that comes after it. So a reader may be late, but it never
/// takes a book for valid that the writer has given up.

#include <cstddef>
#include <cstdint>
#include <span>

#include "tickwire/concurrent/spsc_queue.hpp"
#include "tickwire/concurrent/waker.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/signal/sent.hpp"
#include "tickwire/signal/signal.hpp"

namespace tickwire::signal {

class SignalPort {
 public:
  /// `reader` is the waker of the thread that drains `queue`. Room for one waiting notice an
  /// instrument is taken from the arena.
  SignalPort(concurrent::SpscQueue& queue, concurrent::Waker& reader, std::size_t instrument_count,
             Arena& arena);

  /// Setup: the reader is not trusted, so everything that goes out is noted there.
  void remember_in(Sent& sent) noexcept { sent_ = &sent; }

  /// A slot to fill and publish(), or nullptr when the ring is full: the row is then counted as dropped. Of
  /// `count` rows there is room for all or none; queue().claimed() has the slots.
  [[nodiscard]] std::byte* try_claim_row(std::size_t count = 1) noexcept TICKWIRE_HOT {
    if (waiting_count_ != 0 && !flush()) [[unlikely]] {
      dropped_ += count;
      return nullptr;
    }
    std::byte* slot = queue_.try_claim(count);
    if (slot == nullptr) [[unlikely]]
      dropped_ += count;
    return slot;
  }

  /// Before a claimed row is published. False where the record cannot be remembered: it is then dropped.
  [[nodiscard]] bool note(const SignalHeader& header) noexcept TICKWIRE_HOT {
    if (sent_ == nullptr || sent_->note(header, queue_.published())) [[likely]]
      return true;
    ++dropped_;
    return false;
  }

  /// Hands the claimed slots to the reader and wakes it if it sleeps.
  void publish(std::size_t count = 1) noexcept TICKWIRE_HOT {
    queue_.publish(count);
    reader_.notify();
  }

  /// Sends `header` as a record without scores, now or as soon as there is room. A notice that still
  /// waits for the same instrument is replaced by the newer one.
  void notice(const SignalHeader& header) noexcept TICKWIRE_HOT;

  /// Sends a notice only if there is room now: for a writer that can keep it itself.
  [[nodiscard]] bool try_notice(const SignalHeader& header) noexcept TICKWIRE_HOT {
    return flush() && send(header);
  }

  /// Sends the notices that wait. False when some still do.
  bool flush() noexcept TICKWIRE_HOT;

  /// Rows that can be claimed now without a drop, for a replay that waits instead of dropping.
  [[nodiscard]] std::size_t room() noexcept TICKWIRE_HOT {
    const std::size_t free = queue_.free_slots();
    return free > waiting_count_ ? free - waiting_count_ : 0;
  }

  /// Rows dropped because the ring was full.
  [[nodiscard]] std::uint64_t dropped() const noexcept { return dropped_; }
  [[nodiscard]] concurrent::SpscQueue& queue() noexcept { return queue_; }

 private:
  [[nodiscard]] bool send(const SignalHeader& header) noexcept TICKWIRE_HOT;

  concurrent::SpscQueue& queue_;
  concurrent::Waker& reader_;
  Sent* sent_ = nullptr;
  std::span<SignalHeader> waiting_;  // Oldest first.
  std::size_t waiting_count_ = 0;
  std::uint64_t dropped_ = 0;
};

}  // namespace tickwire::signal

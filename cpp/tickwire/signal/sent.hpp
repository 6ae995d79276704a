#pragma once

/// What was handed to a process that is not trusted, remembered where it cannot write.
///
/// The rings to and from a worker lie in memory that both processes map, so whatever comes back may be
/// anything: a record that was never asked for, one that comes twice, one that was changed. Each is held
/// against this memory, and belongs to an entry that no record before it had.
///
/// One thread notes, the one that writes the ring, and another one takes, the router's.

#include <cstddef>
#include <cstdint>
#include <iterator>

#include "tickwire/concurrent/spsc_queue.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/signal/signal.hpp"

namespace tickwire::signal {

class Sent {
 public:
  /// `most`: how many may be on their way at once.
  Sent(Arena& arena, std::size_t most) : queue_(arena, sizeof(Entry), most) {}

  /// Before the record can be seen by its reader, as the one of this number in its ring. False when there is
  /// no room: it is not to be sent.
  [[nodiscard]] bool note(const SignalHeader& header, std::uint64_t number) noexcept TICKWIRE_HOT {
    std::byte* const slot = queue_.try_claim();
    if (slot == nullptr) [[unlikely]]
      return false;
    *reinterpret_cast<Entry*>(slot) = entry_of(header, number);
    queue_.publish();
    return true;
  }

  /// Those below this number will have no answer any more.
  void forget_before(std::uint64_t number) noexcept {
    const std::size_t waiting = queue_.readable();
    std::size_t gone = 0;
    while (gone < waiting && reinterpret_cast<const Entry*>(queue_.slot(gone))->number < number) ++gone;
    queue_.release(gone);
  }
  /// Is so much noted that some of it should be forgotten?
  [[nodiscard]] bool filling() const noexcept { return queue_.readable() > queue_.capacity() / 2; }

  /// Does the record answer one that was sent, later than all that were answered before? Those between had
  /// no answer, and get none any more.
  [[nodiscard]] bool take(const SignalHeader& header) noexcept {
    const std::size_t waiting = queue_.readable();
    for (std::size_t i = 0; i < waiting; ++i) {
      if (!answers(header, *reinterpret_cast<const Entry*>(queue_.slot(i)))) continue;
      queue_.release(i + 1);
      return true;
    }
    return false;
  }

 private:
  struct Entry {
    std::uint64_t number;
    std::uint64_t row;
    std::uint64_t sequence;
    TsNs ts_event;
    TsNs ts_recv;
    InstrumentId instrument;
    std::uint32_t epoch;
    std::uint32_t missing_trades;
    std::uint32_t unseen_us;
    std::uint32_t stages;
    SignalState state;
    md::InvalidReason reason;
    RecvClock recv_clock;
  };
  static_assert(sizeof(Entry) <= kCacheLineBytes);

  static Entry entry_of(const SignalHeader& header, std::uint64_t number) noexcept TICKWIRE_HOT {
    return {.number = number,
            .row = header.row,
            .sequence = header.sequence,
            .ts_event = header.ts_event,
            .ts_recv = header.ts_recv,
            .instrument = header.instrument,
            .epoch = header.epoch,
            .missing_trades = header.missing_trades,
            .unseen_us = header.unseen_us,
            .stages = fold_stages(header),
            .state = header.state,
            .reason = header.reason,
            .recv_clock = header.recv_clock};
  }
  /// Of the stages that were over when it was sent. They are 32 bytes, and an entry is one cache line.
  static std::uint32_t fold_stages(const SignalHeader& header) noexcept TICKWIRE_HOT {
    constexpr std::uint64_t kFactors[] = {0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9,
                                          0xD6E8FEB86659FD93};
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < std::size(kFactors); ++i) {
      sum += static_cast<std::uint64_t>(header.stage_ns[i]) * kFactors[i];
    }
    return static_cast<std::uint32_t>(sum >> 32U);
  }
  static_assert(static_cast<std::size_t>(Stage::Queue) == 4, "the first of the stages that come after it");
  /// A row may come back with a state that is worse than its own, and with no better one.
  static bool answers(const SignalHeader& header, const Entry& sent) noexcept {
    return header.row == sent.row && header.instrument == sent.instrument && header.epoch == sent.epoch &&
           header.sequence == sent.sequence && header.ts_event == sent.ts_event &&
           header.ts_recv == sent.ts_recv && header.missing_trades == sent.missing_trades &&
           header.unseen_us == sent.unseen_us && header.recv_clock == sent.recv_clock &&
           header.reason == sent.reason && fold_stages(header) == sent.stages &&
           (header.state == sent.state || (header.row != 0 && header.state != SignalState::Valid));
  }

  concurrent::SpscQueue queue_;
};

}  // namespace tickwire::signal

#pragma once

/// Asks the control plane for the REST snapshots that an agent's books need, no more often than a venue takes
/// amiss, and takes in what comes back.
///
/// A feed says what happened to a book: it needs a snapshot, one did not fit, it became valid. The desk alone
/// knows whether one was asked for already, how often, and when the next may be. It knows no feed and no
/// book, so that who asks and who paces cannot get in each other's way: an answer is handed to whoever calls
/// take().
///
/// Live only. Made by the ingest agent and used on its thread, but for requests(), deliver() and
/// max_body_bytes(), which are the control plane's.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/concurrent/spsc_byte_ring.hpp"
#include "tickwire/concurrent/spsc_queue.hpp"
#include "tickwire/concurrent/waker.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/ingest/price_counters.hpp"
#include "tickwire/metrics/stat_file.hpp"

namespace tickwire::engine {

/// Asks the control plane to fetch a REST snapshot.
struct SnapshotRequest {
  std::uint32_t feed;
  InstrumentId instrument;
  std::uint32_t attempt;  // 1, 2, 3 … since the book was last valid.
};

/// What a message from the control plane begins with; the snapshot's body follows, or why there is none.
struct Command {
  enum class Kind : std::uint32_t { Snapshot, SnapshotFailed };
  Kind kind;
  InstrumentId instrument;
  /// SnapshotFailed: the venue has said that it is to be left alone for so long; 0 where it has not.
  std::int64_t pause_ns = 0;
};

class SnapshotDesk {
 public:
  /// No answer is longer. A full-depth snapshot is well under a megabyte.
  static constexpr std::size_t kMaxAnswerBytes = 8U << 20U;

  /// `control` is woken for a request, `agent` for an answer.
  SnapshotDesk(concurrent::Waker& control, concurrent::Waker& agent, const UtcClock& clock,
               metrics::ErrorLog& errors, Arena& arena);
  SnapshotDesk(const SnapshotDesk&) = delete;
  SnapshotDesk& operator=(const SnapshotDesk&) = delete;

  /// Set-up: a feed and its instruments, whose ids follow `first`. Its `counters` are counted in.
  void add(const FeedConfig& feed, std::uint32_t number, InstrumentId first, PriceCounters& counters);

  // The control plane's side of the rings.

  [[nodiscard]] concurrent::SpscQueue& requests() noexcept { return requests_; }
  /// False where there is no room now, or never is.
  [[nodiscard]] bool deliver(const Command& command, std::string_view body) noexcept;
  [[nodiscard]] std::size_t max_body_bytes() const noexcept {
    return answers_.max_record_bytes() - sizeof(Command) - kPaddingBytes;
  }

  // What happened to an instrument's book.

  /// It needs a snapshot now, whatever was before.
  void ask(InstrumentId instrument) noexcept TICKWIRE_HOT;
  /// It needs one. Nothing happens where one is awaited; one that breaks again and again waits for it.
  void need(InstrumentId instrument) noexcept TICKWIRE_HOT;
  /// It is valid, and its rows ask for more depth than it has.
  void need_depth(InstrumentId instrument) noexcept TICKWIRE_HOT;
  /// A snapshot came that could be read.
  void came(InstrumentId instrument) noexcept TICKWIRE_HOT;
  /// One could not be had, or used: the next is asked for after a pause.
  void refused(InstrumentId instrument) noexcept TICKWIRE_HOT;
  /// One fits, and joins a valid book.
  void joins(InstrumentId instrument) noexcept TICKWIRE_HOT { entry_of(instrument).attempts = 0; }
  /// It has joined it …
  void merged(InstrumentId instrument) noexcept TICKWIRE_HOT;
  /// … or contradicted it.
  void contradicted(InstrumentId instrument) noexcept TICKWIRE_HOT;
  /// The book became valid.
  void valid(InstrumentId instrument) noexcept TICKWIRE_HOT;
  /// Its connection was opened or lost: whatever was asked for is of no use.
  void forget(InstrumentId instrument) noexcept TICKWIRE_HOT;

  // The agent's turns.

  /// What the control plane has sent: `take(instrument, body, limit)` for each snapshot that is awaited.
  /// `kPaddingBytes` beyond the body's end are readable. Returns how many answers there were.
  template <typename Take>
  int take(Take&& take) noexcept TICKWIRE_HOT {
    int taken = 0;
    for (; has_answer(); ++taken) {
      const Answer answer = front();
      if (answer.awaited && answer.command.kind == Command::Kind::Snapshot) {
        take(answer.command.instrument, answer.body, answer.limit);
      } else if (answer.awaited) {
        failed(answer.command, answer.body);
      }
      answers_.pop();
    }
    return taken;
  }
  /// Answers that did not come, and pauses that are over; every hundred milliseconds or so.
  void check() noexcept;
  /// For who is about to sleep.
  [[nodiscard]] bool has_answer() noexcept TICKWIRE_HOT { return answers_.front().data() != nullptr; }

 private:
  enum class State : std::uint8_t { NotWanted, Requested, WaitingToRetry };

  /// One feed, as far as its pauses go.
  struct Feed {
    std::uint32_t number;
    std::uint32_t retries;
    std::int64_t backoff_ns;
    std::uint32_t limit;
    PriceCounters& counters;
  };
  /// One instrument. Times are on the clock that nobody sets.
  struct Entry {
    const Feed* feed = nullptr;  // Null: its feed asks for none.
    std::string symbol;
    State state = State::NotWanted;
    std::uint32_t attempts = 0;
    std::int64_t valid_since_ns = 0;
    std::int64_t due_ns = 0;        // Requested: when to give up waiting; WaitingToRetry: when to ask again.
    std::int64_t depth_due_ns = 0;  // When a snapshot for more depth may be asked for.
    std::int64_t depth_pause_ns = kDepthPauseNs;
  };
  struct Answer {
    Command command;
    std::span<const char> body;
    bool awaited;
    std::uint32_t limit;
  };

  static constexpr std::int64_t kDepthPauseNs = 5'000'000'000;  // Between two snapshots for more depth.
  static constexpr std::size_t kPaddingBytes = 64;  // Readable bytes that simdjson wants after a document.

  [[nodiscard]] Entry& entry_of(InstrumentId instrument) noexcept TICKWIRE_HOT {
    return entries_[instrument - first_];
  }
  [[nodiscard]] Answer front() noexcept TICKWIRE_HOT;
  void failed(const Command& command, std::span<const char> why) noexcept TICKWIRE_HOT;
  void held_back(Entry& entry, std::int64_t pause_ns) noexcept TICKWIRE_HOT;

  concurrent::Waker& control_;
  concurrent::Waker& agent_;
  const UtcClock& clock_;
  metrics::ErrorLog& errors_;
  std::vector<std::unique_ptr<Feed>> feeds_;
  std::vector<Entry> entries_;  // By instrument, from first_ on.
  InstrumentId first_ = 0;
  concurrent::SpscQueue requests_;
  concurrent::SpscByteRing answers_;
};

}  // namespace tickwire::engine

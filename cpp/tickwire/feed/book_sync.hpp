#pragma once

/// Decides, for one instrument, which diffs make up its book: the venue's rule for joining a REST
/// snapshot to a stream that was already running, and for noticing that an event is missing.
///
/// One thread, the one that decodes. It sees events alone, no socket and no clock of its own, so a
/// capture gives the same states, epochs and books as the run that recorded it. All memory comes from
/// the arena at setup; a diff that continues the book costs two comparisons before its levels are set.
///
/// The stream before the snapshot is kept in a ring that is always one unbroken chain: an event that
/// does not continue it starts it anew, and when room runs out the oldest go, because a snapshot that
/// is still to come will be newer than they are.
///
///     Empty ──open──> Buffering ──snapshot + bridge──> Valid ──gap, crossed, damage──> Suspect
///       ^                                                ^                                │
///       └──────── close, from anywhere                   └──────── snapshot + bridge ─────┘
///
/// A whole book can be out of use without being wrong: pause() says that nothing came for too long or that
/// trades are missing, block() that something which belongs beside the book, such as the instrument's
/// trades, does not come at all. Its diffs go on to be applied, so it needs no snapshot: it is valid again,
/// in a new epoch, with the first diff that continues it once it is not blocked.
///
/// A snapshot that is ahead of everything buffered is loaded and held until an event bridges it, however
/// long that takes; after two seconds wants_snapshot() asks for another beside it. The event that bridges it
/// belongs to what the epoch begins with, as those do that were buffered: it is no event of the epoch. One
/// that is behind, or that lies between two events (seen on USD-M, where ids have holes), is refused,
/// the buffer stays, and wants_snapshot() asks for another; how often is for the caller to bound.
/// A snapshot while the book is valid is ignored: it cannot say anything that the events did not, and
/// where it stands in a capture depends on the recorder alone.

#include <cstddef>
#include <cstdint>
#include <span>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/md/book_state.hpp"
#include "tickwire/md/event.hpp"
#include "tickwire/md/price_book.hpp"

namespace tickwire::feed {

/// How a venue numbers its events; see the venue's page on managing a local order book.
enum class SyncRule : std::uint8_t {
  /// Ids are contiguous: an event must begin at the last id + 1 or before. Events up to and with the
  /// snapshot's id are in it.
  Spot,
  /// Ids have holes, each event names the one before. An event that ends at the snapshot's id still
  /// bridges it, and so does one whose predecessor ends there.
  Futures,
};

enum class SyncResult : std::uint8_t {
  Applied,          // The event is in the book, and the book is valid.
  Ignored,          // Old, or a snapshot that nobody needs.
  Buffered,         // The event waits for a snapshot, alone or with others.
  SnapshotApplied,  // The book is valid by the snapshot and the events buffered behind it.
  SnapshotHeld,     // The snapshot waits for the event that bridges it.
  SnapshotRefused,  // It fits none of the buffered events, or is crossed.
  Invalid,          // The book left Valid, or did not reach it, for `reason`.
  Blocked,          // The event is in the book, which is whole but must not be used.
  StateChanged,     // A connection opened or closed.
};

/// What one call did. An event that left Valid by a gap is itself kept as the first of the new buffer.
struct SyncStep {
  SyncResult result;
  bool became_valid = false;
  /// The event is in the book, which was known before it: it may give a row. Not one that bridges a snapshot.
  bool event_applied = false;
  bool left_valid = false;
  md::InvalidReason reason = md::InvalidReason::None;
};

/// What happened so far, each counted once.
struct SyncCounts {
  std::uint64_t applied = 0;  // Events, those out of the buffer included.
  std::uint64_t ignored = 0;  // Old events and duplicates.
  std::uint64_t buffered = 0;
  std::uint64_t buffer_dropped = 0;   // Oldest events that had to make room.
  std::uint64_t buffer_restarts = 0;  // A gap between buffered events.
  std::uint64_t gaps = 0;             // While valid.
  std::uint64_t crossed = 0;          // Books, and snapshots by themselves.
  std::uint64_t paused = 0;           // While valid: by pause() and block().
  std::uint64_t snapshots_applied = 0;
  std::uint64_t snapshots_held = 0;
  std::uint64_t snapshots_refused = 0;  // Behind the buffer, or between two events.
  std::uint64_t snapshots_expired = 0;  // Held, but what came next does not follow it.
  std::uint64_t snapshots_ignored = 0;  // While valid, or no help beside the one that is held.
};

class BookSync {
 public:
  /// `max_event_levels` is the most levels a side that one message can hold.
  BookSync(SyncRule rule, md::PriceBook& book, Arena& arena, std::size_t buffer_events,
           std::size_t max_event_levels);

  SyncStep on_diff(const md::Event& event) noexcept TICKWIRE_HOT;
  SyncStep on_snapshot(const md::Event& event) noexcept TICKWIRE_HOT;
  /// A connection was opened: what came before it says nothing about what comes.
  SyncStep on_open() noexcept TICKWIRE_HOT;
  SyncStep on_close() noexcept TICKWIRE_HOT;
  /// A message of this instrument was lost on our side and may have been a diff. A valid book is
  /// valid no more; before that, the ids show the hole by themselves.
  SyncStep on_damaged(md::InvalidReason reason) noexcept TICKWIRE_HOT;

  /// The book is right, but rows of it would not be: nothing came for too long (Stale), or what belongs
  /// beside it is not whole (any other reason; Suspect). It is valid again with the next diff that continues
  /// it.
  SyncStep pause(md::InvalidReason reason = md::InvalidReason::Stale) noexcept TICKWIRE_HOT;
  /// What belongs beside this book is lost; until unblock() no book is valid, however whole.
  SyncStep block() noexcept TICKWIRE_HOT;
  void unblock() noexcept TICKWIRE_HOT { blocked_ = false; }

  [[nodiscard]] md::BookState state() const noexcept TICKWIRE_HOT { return state_; }
  /// Grows each time the book becomes valid; 0 before the first.
  [[nodiscard]] std::uint32_t epoch() const noexcept TICKWIRE_HOT { return epoch_; }
  /// Id of the last event in the book; of the snapshot while none is.
  [[nodiscard]] std::uint64_t last_id() const noexcept TICKWIRE_HOT { return last_id_; }
  /// True once an event is buffered, so that a snapshot taken from now on is not older than the buffer.
  [[nodiscard]] bool wants_snapshot() const noexcept TICKWIRE_HOT {
    return state_ != md::BookState::Valid && (!held_ || overdue_) && !whole_ && buffer_.size() != 0;
  }
  /// A snapshot is ahead of all events that came, and waits for the one that bridges it.
  [[nodiscard]] bool holds_snapshot() const noexcept TICKWIRE_HOT { return held_; }
  [[nodiscard]] std::size_t buffered_events() const noexcept TICKWIRE_HOT { return buffer_.size(); }
  [[nodiscard]] const SyncCounts& counts() const noexcept TICKWIRE_HOT { return counts_; }

 private:
  /// Events in the order they came, their levels behind one another in a ring of levels.
  class Buffer {
   public:
    struct Entry {
      std::uint64_t first_id;
      std::uint64_t last_id;
      std::uint64_t prev_id;
      std::span<const md::Level> bids;
      std::span<const md::Level> asks;
      std::size_t taken;  // Levels of the ring, with those left empty where it wraps.
    };

    Buffer(Arena& arena, std::size_t max_events, std::size_t max_levels);

    /// Returns how many of the oldest had to go.
    std::size_t push(const md::Event& event) noexcept TICKWIRE_HOT;
    void clear() noexcept TICKWIRE_HOT;
    [[nodiscard]] std::size_t size() const noexcept TICKWIRE_HOT { return size_; }
    [[nodiscard]] const Entry& operator[](std::size_t i) const noexcept TICKWIRE_HOT {
      const std::size_t at = first_ + i;
      return entries_[at < entries_.size() ? at : at - entries_.size()];
    }

   private:
    void pop() noexcept TICKWIRE_HOT;

    std::span<Entry> entries_;
    std::span<md::Level> levels_;
    std::size_t first_ = 0;
    std::size_t size_ = 0;
    std::size_t write_ = 0;  // Where the next event's levels go, unless they do not fit there.
    std::size_t taken_ = 0;
  };

  [[nodiscard]] bool follows(std::uint64_t first_id, std::uint64_t prev_id, std::uint64_t last) const noexcept
      TICKWIRE_HOT;
  [[nodiscard]] bool in_snapshot(std::uint64_t last_id, std::uint64_t snapshot_id) const noexcept
      TICKWIRE_HOT;
  [[nodiscard]] bool bridges(std::uint64_t first_id, std::uint64_t last_id, std::uint64_t prev_id,
                             std::uint64_t snapshot_id) const noexcept TICKWIRE_HOT;
  void apply(std::span<const md::Level> bids, std::span<const md::Level> asks) noexcept TICKWIRE_HOT;
  void load(const md::Event& snapshot) noexcept TICKWIRE_HOT;
  SyncStep invalidate(const md::Event* first_of_buffer, md::InvalidReason reason) noexcept TICKWIRE_HOT;
  SyncStep disconnect(md::BookState state) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool complete() noexcept TICKWIRE_HOT;
  SyncStep on_diff_slow(const md::Event& event, bool went_back) noexcept TICKWIRE_HOT;
  SyncStep bridge_held(const md::Event& event, bool went_back) noexcept TICKWIRE_HOT;
  SyncStep buffer(const md::Event& event, bool went_back) noexcept TICKWIRE_HOT;

  const SyncRule rule_;
  md::PriceBook& book_;
  Buffer buffer_;
  md::BookState state_ = md::BookState::Empty;
  bool held_ = false;     // The book is a snapshot that no event has bridged yet …
  bool overdue_ = false;  // … and it has been held for so long that another is asked for.
  bool whole_ = false;    // Not valid, but only because it was paused or is blocked.
  bool blocked_ = false;
  TsNs held_since_ = 0;
  TsNs hold_ns_;  // How long the next snapshot that is ahead may be held.
  std::uint32_t epoch_ = 0;
  std::uint64_t last_id_ = 0;
  // Of this connection's diffs, whatever became of them.
  TsNs newest_ts_event_ = kNoTime;
  std::uint64_t stream_id_ = 0;
  SyncCounts counts_;
};

}  // namespace tickwire::feed

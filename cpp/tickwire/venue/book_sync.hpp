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
/// A whole book can be out of use without being wrong: pause() says that nothing came for too long or
/// that trades are missing, block() that something which belongs beside the book, such as the instrument's
/// trades, does not come at all. Its diffs go on to be applied, so it needs no snapshot: it is valid again,
/// in a new epoch, with the first diff that continues it once it is not blocked.
///
/// Two more such states are Suspect:
/// - Shallow. A snapshot of so many levels says nothing of those behind its last one, which is the side's
///   horizon (see PriceBook). While fewer levels are known than the features look at, no row can be right.
///   The book is valid again when the market has come back, or when a further snapshot was merged.
/// - In doubt. An id that was passed already, of a message that repeats none of the recent ones, says that
///   the venue may have begun to number anew. The next diff that continues the book ends the doubt; a few
///   that follow each other decide that it was so, and the book is lost. A message's time decides neither,
///   because a venue's clock can be wrong.
///
/// A snapshot that is ahead of everything buffered is loaded and held until an event bridges it, however
/// long that takes; after two seconds wants_snapshot() asks for another beside it. The event that bridges it
/// belongs to what the epoch begins with, as those do that were buffered: it is no event of the epoch. One
/// that is behind, or that lies between two events (seen on USD-M, where ids have holes), is refused,
/// the buffer stays, and wants_snapshot() asks for another; how often is for the caller to bound. So is one
/// that cannot be a book.
///
/// While the book is valid and deep a snapshot is ignored: it cannot say anything that the events did not.
/// Once little is left within the horizon, wants_depth() asks for one and recent events are kept in the
/// buffer. Then a snapshot is merged (see BookMerge): its id says behind which of these events it belongs, on
/// futures also where it lies between two of them. merge() does a slice; it is called after each diff and
/// snapshot.
///
/// Where an instrument has no diffs, a stream of partial books may tell of it: each replaces the book.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/md/book_state.hpp"
#include "tickwire/md/event.hpp"
#include "tickwire/md/price_book.hpp"
#include "tickwire/venue/book_merge.hpp"

namespace tickwire::venue {

/// How a venue numbers its events; see the venue's page on managing a local order book.
enum class SyncRule : std::uint8_t {
  /// Ids are contiguous: an event begins at the last id + 1. Events up to and with the snapshot's id are in
  /// it, and the one behind them may begin before its end.
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
  SnapshotRefused,  // It fits none of the buffered events, or cannot be a book: see `fault`.
  SnapshotMerging,  // Its levels join those that are known, slice by slice.
  Invalid,          // The book left Valid, or did not reach it, for `reason`.
  Blocked,          // The event is in the book, which is whole but must not be used.
  Shallow,          // The event is in the book, of which too little is known.
  StateChanged,     // A connection opened or closed.
};

/// Why a snapshot cannot be believed, whatever its id.
enum class SnapshotFault : std::uint8_t {
  None,
  Empty,
  OneSided,  // Believed when the next one says so, too.
  Crossed,   // By itself, or with the events behind it.
  Unsorted,
  Duplicate,  // A price stands there twice.
  TooLong,    // More levels than were asked for.
};
inline constexpr std::size_t kSnapshotFaults = 7;

constexpr std::string_view name_of(SnapshotFault fault) noexcept {
  switch (fault) {
    case SnapshotFault::None: return "fits no event";
    case SnapshotFault::Empty: return "empty";
    case SnapshotFault::OneSided: return "one side is empty";
    case SnapshotFault::Crossed: return "crossed";
    case SnapshotFault::Unsorted: return "not in the order of prices";
    case SnapshotFault::Duplicate: return "a price twice";
    case SnapshotFault::TooLong: return "more levels than asked for";
  }
  return "unknown";
}

/// What one call did. An event that left Valid by a gap is itself kept as the first of the new buffer.
struct SyncStep {
  SyncResult result;
  bool became_valid = false;
  /// The event is in the book, which was known before it: it may give a row. Not one that bridges a snapshot.
  bool event_applied = false;
  bool left_valid = false;
  md::InvalidReason reason = md::InvalidReason::None;
  SnapshotFault fault = SnapshotFault::None;
};

/// How much of a book must be known.
struct DepthRule {
  std::size_t reach = 0;  // Levels a side that a row looks at.
  bool accept = false;    // Valid also where fewer are known.
  /// Most levels a side of a snapshot that can be merged; 0: none can.
  std::size_t snapshot_levels = 0;
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
  std::uint64_t doubted = 0;          // Old ids that repeat no recent message.
  std::uint64_t shallow = 0;          // Times that too few levels were known, while valid.
  std::uint64_t paused = 0;           // While valid: by pause() and block().
  std::uint64_t snapshots_applied = 0;
  std::uint64_t snapshots_held = 0;
  std::uint64_t snapshots_refused = 0;  // Behind the buffer, between two events, or no book.
  std::uint64_t snapshots_merged = 0;
  std::uint64_t snapshots_contradicted = 0;  // Merged, until a price differed.
  std::uint64_t snapshots_expired = 0;       // Held, but what came next does not follow it.
  std::uint64_t snapshots_ignored = 0;       // While valid, or no help beside the one that is held.
};

class BookSync {
 public:
  /// `max_event_levels` is the most levels a side that one message can hold.
  BookSync(SyncRule rule, md::PriceBook& book, Arena& arena, std::size_t buffer_events,
           std::size_t max_event_levels, DepthRule depth = {});

  SyncStep on_diff(const md::Event& event) noexcept TICKWIRE_HOT;
  /// A message of a stream of partial books. Ignored where the instrument has diffs.
  SyncStep on_partial(const md::Event& event) noexcept TICKWIRE_HOT;
  /// `event.limit` levels were asked for; 0 where nobody knows.
  SyncStep on_snapshot(const md::Event& event) noexcept TICKWIRE_HOT;
  /// A connection was opened: what came before it says nothing about what comes.
  SyncStep on_open() noexcept TICKWIRE_HOT;
  SyncStep on_close() noexcept TICKWIRE_HOT;
  /// A slice of the merge that is under way. What it changes is no event.
  SyncStep merge(TsNs ts_recv) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool merging() const noexcept TICKWIRE_HOT { return merge_.busy(); }
  /// The instrument has a stream of diffs, though none may have come yet.
  void expect_diffs() noexcept { expect_diffs_ = has_diffs_ = true; }
  [[nodiscard]] bool has_diffs() const noexcept TICKWIRE_HOT { return has_diffs_; }
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
  /// What time it is cannot be believed. A valid book is Suspect, though followed, until trust_clock() and
  /// the next diff that continues it.
  SyncStep doubt_clock() noexcept TICKWIRE_HOT;
  void trust_clock() noexcept TICKWIRE_HOT { clock_doubted_ = false; }

  [[nodiscard]] md::BookState state() const noexcept TICKWIRE_HOT { return state_; }
  /// Grows each time the book becomes valid; 0 before the first.
  [[nodiscard]] std::uint32_t epoch() const noexcept TICKWIRE_HOT { return epoch_; }
  /// Id of the last event in the book; of the snapshot while none is.
  [[nodiscard]] std::uint64_t last_id() const noexcept TICKWIRE_HOT { return last_id_; }
  /// True once an event is buffered, so that a snapshot taken from now on is not older than the buffer.
  [[nodiscard]] bool wants_snapshot() const noexcept TICKWIRE_HOT {
    return state_ != md::BookState::Valid && (!held_ || overdue_) && (!whole_ || doubted_) &&
           buffer_.size() != 0 && !partial_;
  }
  /// Not valid, though every event is in the book: it was paused.
  [[nodiscard]] bool followed() const noexcept TICKWIRE_HOT { return whole_; }
  /// Too little is left within the horizon.
  [[nodiscard]] bool wants_depth() const noexcept TICKWIRE_HOT { return recent_kept_ && !merge_.busy(); }
  /// Too little is known for a row.
  [[nodiscard]] bool shallow() const noexcept TICKWIRE_HOT { return shallow_; }
  /// Does a row look at what nobody has told of? Only where that is accepted.
  [[nodiscard]] bool beyond_depth() const noexcept TICKWIRE_HOT { return !reaches(); }
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
  void shown(md::Side side, std::size_t levels) noexcept TICKWIRE_HOT;
  [[nodiscard]] SnapshotFault judge(const md::Event& snapshot) noexcept TICKWIRE_HOT;
  SyncStep refuse(SnapshotFault fault) noexcept TICKWIRE_HOT;
  SyncStep invalidate(const md::Event* first_of_buffer, md::InvalidReason reason) noexcept TICKWIRE_HOT;
  SyncStep lose(md::InvalidReason reason) noexcept TICKWIRE_HOT;
  SyncStep disconnect(md::BookState state) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool complete() noexcept TICKWIRE_HOT;
  SyncStep completed(bool is_event) noexcept TICKWIRE_HOT;
  SyncStep on_diff_slow(const md::Event& event) noexcept TICKWIRE_HOT;
  SyncStep on_depth(const md::Event& event) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool follows_doubted(const md::Event& event) const noexcept TICKWIRE_HOT;
  SyncStep doubt(const md::Event& event) noexcept TICKWIRE_HOT;
  SyncStep bridge_held(const md::Event& event) noexcept TICKWIRE_HOT;
  SyncStep settle(const md::Event& event) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool goes_on_anew(const md::Event& event) const noexcept TICKWIRE_HOT;
  SyncStep buffer(const md::Event& event) noexcept TICKWIRE_HOT;
  SyncStep begin_merge(const md::Event& snapshot) noexcept TICKWIRE_HOT;
  void keep_recent(const md::Event& event) noexcept TICKWIRE_HOT;
  void forget_recent() noexcept TICKWIRE_HOT;

  /// Are the levels known that a row looks at?
  [[nodiscard]] bool reaches() const noexcept TICKWIRE_HOT {
    return book_.reaches(md::Side::Bid, depth_.reach) && book_.reaches(md::Side::Ask, depth_.reach);
  }
  /// And those that more should be asked for before?
  [[nodiscard]] bool deep() const noexcept TICKWIRE_HOT {
    return book_.reaches(md::Side::Bid, enough_[0]) && book_.reaches(md::Side::Ask, enough_[1]);
  }

  /// What tells a message from others. Ids alone would not: a venue that counts anew has them again. Nor
  /// would its stamp, as the venue's clock may have been set back with them; so it is also how many levels it
  /// names, and the first and last of them.
  struct Seen {
    std::uint64_t last_id;
    std::uint64_t rest;
    bool operator==(const Seen&) const = default;
  };
  static constexpr std::size_t kSeen = 512;
  [[nodiscard]] static Seen seen_of(const md::Event& event) noexcept TICKWIRE_HOT {
    std::uint64_t rest = mixed(event.first_id) + static_cast<std::uint64_t>(event.ts_event) + event.prev_id;
    for (const std::span<const md::Level> side : {event.bids, event.asks}) {
      rest = mixed(rest + side.size());
      if (side.empty()) continue;
      for (const md::Level& level : {side.front(), side.back()})
        rest = mixed(mixed(rest + static_cast<std::uint64_t>(level.price)) +
                     static_cast<std::uint64_t>(level.qty));
    }
    return {event.last_id, rest};
  }
  [[nodiscard]] static constexpr std::uint64_t mixed(std::uint64_t value) noexcept TICKWIRE_HOT {
    return (value ^ value >> 32U) * 0x9E3779B97F4A7C15U;
  }
  void remember(const md::Event& event) noexcept TICKWIRE_HOT {
    seen_[seen_count_++ % kSeen] = seen_of(event);
  }
  [[nodiscard]] bool repeats(const md::Event& event) const noexcept TICKWIRE_HOT;
  [[nodiscard]] bool is_book(const md::Event& event) const noexcept TICKWIRE_HOT;

  const SyncRule rule_;
  const DepthRule depth_;
  md::PriceBook& book_;
  Buffer buffer_;  // Also of the recent events of a book that is followed.
  BookMerge merge_;
  std::size_t merge_at_ = 0;  // The first of the recent events that the merge has not heard of.
  md::BookState state_ = md::BookState::Empty;
  bool held_ = false;     // The book is a snapshot that no event has bridged yet …
  bool overdue_ = false;  // … and it has been held for so long that another is asked for.
  bool whole_ = false;    // Not valid, but followed: it was paused, or is one of what follows.
  bool blocked_ = false;
  bool shallow_ = false;
  bool doubted_ = false;  // The buffer holds what may be another count of ids.
  bool clock_doubted_ = false;
  bool recent_kept_ = false;
  bool partial_ = false;  // The book is of a stream of partial books.
  bool has_diffs_ = false;
  bool expect_diffs_ = false;
  bool held_in_doubt_ = false;  // What is held may be of another count than what waits.
  std::size_t strays_ = 0;      // Old ids that followed each other while there was no book …
  std::uint64_t stray_id_ = 0;  // … up to this one.
  SnapshotFault last_fault_ = SnapshotFault::None;
  bool bids_were_empty_ = false;    // Where that was OneSided.
  std::size_t enough_[2] = {0, 0};  // Levels within the horizon, a side, that no more are asked for.
  TsNs held_since_ = 0;
  TsNs hold_ns_;  // How long the next snapshot that is ahead may be held before another is asked for.
  std::uint32_t epoch_ = 0;
  std::uint64_t last_id_ = 0;
  std::span<Seen> seen_;  // Of this connection's diffs, whatever became of them.
  std::uint64_t seen_count_ = 0;
  SyncCounts counts_;
};

}  // namespace tickwire::venue

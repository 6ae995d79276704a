#include "tickwire/venue/book_sync.hpp"

#include <algorithm>
#include <string>

#include "tickwire/core/error.hpp"

namespace tickwire::venue {

using md::BookState;
using md::InvalidReason;
using md::Side;

namespace {

/// A held snapshot is ahead of the stream by what the stream lags, a second at the worst. Where events are
/// still older than it after this long, they may be of another count of ids, so another snapshot is asked
/// for; the held one stays, and the next in a row has twice as long, up to the maximum.
constexpr TsNs kHoldNs = 2'000'000'000;
constexpr TsNs kMaxHoldNs = 64'000'000'000;

/// Levels of a usual diff. The ring of levels holds the largest message and buffer_events usual ones.
constexpr std::size_t kUsualLevels = 16;

/// Old ids that follow each other until they are another count: one may be a message that was late.
constexpr std::size_t kAnew = 3;

/// A snapshot to be merged that the stream has not reached after this long is of no use.
constexpr TsNs kMergeWaitNs = 10'000'000'000;

/// Does a snapshot show a side with all its levels? It does where it has fewer than were asked for; where
/// nobody knows how many were, only if the side is the shorter one.
bool shows_whole(const md::Event& snapshot, Side side) noexcept TICKWIRE_HOT {
  const std::size_t own = side == Side::Bid ? snapshot.bids.size() : snapshot.asks.size();
  const std::size_t other = side == Side::Bid ? snapshot.asks.size() : snapshot.bids.size();
  return own < (snapshot.limit != 0 ? snapshot.limit : other);
}

}  // namespace

// ---------------------------------------------------------------------------------------------------
// The buffer

BookSync::Buffer::Buffer(Arena& arena, std::size_t max_events, std::size_t max_levels)
    : entries_(arena.allocate<Entry>(max_events)), levels_(arena.allocate<md::Level>(max_levels)) {}

void BookSync::Buffer::clear() noexcept {
  first_ = size_ = 0;
  write_ = taken_ = 0;
}

void BookSync::Buffer::pop() noexcept {
  taken_ -= entries_[first_].taken;
  first_ = first_ + 1 == entries_.size() ? 0 : first_ + 1;
  if (--size_ == 0) clear();
}

std::size_t BookSync::Buffer::push(const md::Event& event) noexcept {
  const std::size_t count = event.bids.size() + event.asks.size();
  std::size_t popped = 0;
  // The levels of an event stay together: where the end of the ring is too short it is left empty.
  bool wraps = false;
  std::size_t skipped = 0;
  for (;; pop(), ++popped) {
    wraps = write_ + count > levels_.size();
    skipped = wraps ? levels_.size() - write_ : 0;
    const bool fits = size_ < entries_.size() && taken_ + skipped + count <= levels_.size();
    if (fits || size_ == 0) break;
  }
  // More levels than the whole ring; the decoder's limit is below.
  if (count > levels_.size()) [[unlikely]]
    return popped + 1;

  if (wraps) write_ = 0;
  md::Level* const place = levels_.data() + write_;
  std::copy(event.bids.begin(), event.bids.end(), place);
  std::copy(event.asks.begin(), event.asks.end(), place + event.bids.size());
  const std::size_t at = first_ + size_;
  entries_[at < entries_.size() ? at : at - entries_.size()] = {
      event.first_id,
      event.last_id,
      event.prev_id,
      {place, event.bids.size()},
      {place + event.bids.size(), event.asks.size()},
      skipped + count};
  ++size_;
  write_ += count;
  taken_ += skipped + count;
  return popped;
}

// ---------------------------------------------------------------------------------------------------
// The rule

BookSync::BookSync(SyncRule rule, md::PriceBook& book, Arena& arena, std::size_t buffer_events,
                   std::size_t max_event_levels, DepthRule depth)
    : rule_(rule),
      depth_(depth),
      book_(book),
      buffer_(arena, buffer_events, 2 * max_event_levels + kUsualLevels * buffer_events),
      merge_(arena, depth.snapshot_levels),
      hold_ns_(kHoldNs),
      seen_(arena.allocate<Seen>(kSeen)) {
  if (buffer_events == 0) throw SetupError("buffer_events", "a positive number", "0");
}

/// Does an event come right behind another? Nothing that was passed may be in it: what is, on spot, may be of
/// another count of ids.
bool BookSync::follows(std::uint64_t first_id, std::uint64_t prev_id, std::uint64_t last) const noexcept {
  // first_id - 1 may wrap where last + 1 would: an id of 0 is not in use.
  return (rule_ == SyncRule::Spot ? first_id - 1 : prev_id) == last;
}

bool BookSync::in_snapshot(std::uint64_t last_id, std::uint64_t snapshot_id) const noexcept {
  return rule_ == SyncRule::Spot ? last_id <= snapshot_id : last_id < snapshot_id;
}

/// For an event that is not in the snapshot, so that its end is known to be far enough.
bool BookSync::bridges(std::uint64_t first_id, std::uint64_t last_id, std::uint64_t prev_id,
                       std::uint64_t snapshot_id) const noexcept {
  if (in_snapshot(last_id, snapshot_id)) return false;
  return first_id <= snapshot_id || follows(first_id, prev_id, snapshot_id);
}

void BookSync::apply(std::span<const md::Level> bids, std::span<const md::Level> asks) noexcept {
  for (const md::Level& level : bids) book_.set(Side::Bid, level.price, level.qty);
  for (const md::Level& level : asks) book_.set(Side::Ask, level.price, level.qty);
  ++counts_.applied;
}

void BookSync::load(const md::Event& snapshot) noexcept {
  book_.clear();
  for (const md::Level& level : snapshot.bids) book_.set(Side::Bid, level.price, level.qty);
  for (const md::Level& level : snapshot.asks) book_.set(Side::Ask, level.price, level.qty);
  last_id_ = snapshot.last_id;
  for (const Side side : {Side::Bid, Side::Ask}) {
    const std::span<const md::Level> levels = side == Side::Bid ? snapshot.bids : snapshot.asks;
    if (!shows_whole(snapshot, side)) book_.limit(side, levels.back().price);
    shown(side, levels.size());
  }
}

/// A snapshot showed so many levels of a side: with fewer than twice what a row needs left of them, but no
/// more than half of what it showed, another is wanted.
void BookSync::shown(Side side, std::size_t levels) noexcept {
  const std::size_t early = std::min(2 * depth_.reach, levels / 2);
  enough_[static_cast<std::size_t>(side)] = std::max(depth_.reach, early);
}

SnapshotFault BookSync::judge(const md::Event& snapshot) noexcept {
  const std::span<const md::Level> bids = snapshot.bids;
  const std::span<const md::Level> asks = snapshot.asks;
  if (snapshot.limit != 0 && std::max(bids.size(), asks.size()) > snapshot.limit)
    return SnapshotFault::TooLong;
  if (bids.empty() && asks.empty()) return SnapshotFault::Empty;
  if (bids.empty() || asks.empty()) {
    const bool told_before = last_fault_ == SnapshotFault::OneSided && bids_were_empty_ == bids.empty();
    bids_were_empty_ = bids.empty();
    if (!told_before) return SnapshotFault::OneSided;
  }
  for (std::size_t i = 1; i < bids.size(); ++i) {
    if (bids[i].price == bids[i - 1].price) return SnapshotFault::Duplicate;
    if (bids[i].price > bids[i - 1].price) return SnapshotFault::Unsorted;
  }
  for (std::size_t i = 1; i < asks.size(); ++i) {
    if (asks[i].price == asks[i - 1].price) return SnapshotFault::Duplicate;
    if (asks[i].price < asks[i - 1].price) return SnapshotFault::Unsorted;
  }
  if (!bids.empty() && !asks.empty() && bids[0].price >= asks[0].price) return SnapshotFault::Crossed;
  return SnapshotFault::None;
}

SyncStep BookSync::refuse(SnapshotFault fault) noexcept {
  last_fault_ = fault;
  ++counts_.snapshots_refused;
  counts_.crossed += fault == SnapshotFault::Crossed ? 1 : 0;
  return {.result = SyncResult::SnapshotRefused,
          .reason = fault == SnapshotFault::None      ? InvalidReason::Gap
                    : fault == SnapshotFault::Crossed ? InvalidReason::Crossed
                                                      : InvalidReason::Malformed,
          .fault = fault};
}

// ---------------------------------------------------------------------------------------------------
// Diffs

SyncStep BookSync::on_diff(const md::Event& event) noexcept {
  if (state_ != BookState::Valid || event.last_id <= last_id_ ||
      !follows(event.first_id, event.prev_id, last_id_) || partial_) [[unlikely]] {
    return on_diff_slow(event);
  }
  remember(event);
  apply(event.bids, event.asks);
  last_id_ = event.last_id;
  if (book_.crossed()) [[unlikely]]
    return invalidate(&event, InvalidReason::Crossed);
  if (recent_kept_ || !deep()) [[unlikely]]
    return on_depth(event);
  return {.result = SyncResult::Applied, .event_applied = true};
}

/// An event is in a valid book that is at the end of what is known, or was a moment ago.
SyncStep BookSync::on_depth(const md::Event& event) noexcept {
  keep_recent(event);
  if (depth_.accept || reaches()) return {.result = SyncResult::Applied, .event_applied = true};
  state_ = BookState::Suspect;
  whole_ = shallow_ = true;
  ++counts_.shallow;
  return {.result = SyncResult::Shallow, .left_valid = true, .reason = InvalidReason::Depth};
}

/// Of a book that is followed: the event stays, as long as a snapshot may come that it has to be put on top
/// of.
void BookSync::keep_recent(const md::Event& event) noexcept {
  if (deep() && !merge_.busy()) return forget_recent();
  if (!recent_kept_) buffer_.clear();
  recent_kept_ = true;
  const std::size_t gone = buffer_.push(event);
  if (gone > merge_at_) merge_.cancel();
  merge_at_ -= std::min(gone, merge_at_);
}

void BookSync::forget_recent() noexcept {
  if (recent_kept_) buffer_.clear();
  recent_kept_ = false;
  merge_.cancel();
}

bool BookSync::repeats(const md::Event& event) const noexcept {
  const Seen seen = seen_of(event);
  const std::size_t count = std::min<std::size_t>(seen_count_, kSeen);
  return std::find(seen_.begin(), seen_.begin() + static_cast<std::ptrdiff_t>(count), seen) !=
         seen_.begin() + static_cast<std::ptrdiff_t>(count);
}

SyncStep BookSync::on_diff_slow(const md::Event& event) noexcept {
  if (repeats(event)) {
    ++counts_.ignored;
    return {.result = SyncResult::Ignored};
  }
  remember(event);
  has_diffs_ = true;
  if (partial_) {
    // There are diffs after all. Where the last partial book stands among them, nobody knows.
    const SyncStep lost = lose(InvalidReason::Gap);
    (void)buffer(event);
    return lost;
  }
  // A capture may begin without the line that says a connection was opened.
  if (state_ == BookState::Empty && !whole_) state_ = BookState::Buffering;
  if (state_ != BookState::Valid && !whole_) return held_ ? bridge_held(event) : buffer(event);

  const bool passed = event.last_id <= last_id_ || (rule_ == SyncRule::Spot && event.first_id <= last_id_);
  // In doubt, an event that goes on both counts decides nothing.
  if (passed || (doubted_ && follows_doubted(event))) return doubt(event);
  if (!follows(event.first_id, event.prev_id, last_id_)) return invalidate(&event, InvalidReason::Gap);
  // Not valid, but followed. An event that ends a pause alone is one of the epoch: what was before it is
  // known.
  const bool is_event = !shallow_ && !doubted_;
  if (doubted_) buffer_.clear();
  doubted_ = false;
  apply(event.bids, event.asks);
  last_id_ = event.last_id;
  if (book_.crossed()) return invalidate(&event, InvalidReason::Crossed);
  keep_recent(event);
  return completed(is_event);
}

bool BookSync::follows_doubted(const md::Event& event) const noexcept {
  const std::uint64_t last = buffer_[buffer_.size() - 1].last_id;
  return event.last_id > last && follows(event.first_id, event.prev_id, last);
}

/// An id that was passed, of a message that came for the first time, while the book is followed.
SyncStep BookSync::doubt(const md::Event& event) noexcept {
  const bool was_valid = state_ == BookState::Valid;
  if (doubted_) {
    if (!follows_doubted(event)) buffer_.clear();
    (void)buffer_.push(event);
    ++counts_.buffered;
    if (buffer_.size() < kAnew) return {.result = SyncResult::Buffered};
    doubted_ = whole_ = shallow_ = false;
    return {.result = SyncResult::Invalid, .reason = InvalidReason::Gap};
  }
  forget_recent();
  buffer_.clear();
  (void)buffer_.push(event);
  ++counts_.buffered;
  ++counts_.doubted;
  counts_.gaps += was_valid ? 1 : 0;
  state_ = BookState::Suspect;
  whole_ = doubted_ = true;
  return {.result = SyncResult::Invalid, .left_valid = was_valid, .reason = InvalidReason::Gap};
}

/// While a snapshot is held. What it already has is buffered all the same: an older snapshot may come that
/// the stream reaches sooner, or one of another count of ids.
SyncStep BookSync::bridge_held(const md::Event& event) noexcept {
  if (held_in_doubt_) return settle(event);
  if (in_snapshot(event.last_id, last_id_)) {
    overdue_ = overdue_ || event.ts_recv - held_since_ > hold_ns_;
    return buffer(event);
  }
  // Where the ids may have begun anew, the snapshot may be of those before.
  const bool anew = goes_on_anew(event);
  held_ = overdue_ = false;
  if (anew || !bridges(event.first_id, event.last_id, event.prev_id, last_id_)) {
    ++counts_.snapshots_expired;
    return buffer(event);
  }
  buffer_.clear();
  strays_ = 0;
  apply(event.bids, event.asks);
  last_id_ = event.last_id;
  if (book_.crossed()) return invalidate(&event, InvalidReason::Crossed);
  ++counts_.snapshots_applied;
  return completed(false);
}

/// The event behind a snapshot that what waits would continue, if it is of the same count.
SyncStep BookSync::settle(const md::Event& event) noexcept {
  const std::uint64_t last = buffer_[buffer_.size() - 1].last_id;
  const bool goes_on = event.last_id > last && follows(event.first_id, event.prev_id, last);
  held_ = held_in_doubt_ = false;
  if (!goes_on || goes_on_anew(event)) {
    ++counts_.snapshots_expired;
    return buffer(event);
  }
  // It is: the one between them was late.
  strays_ = 0;
  for (std::size_t i = 0; i < buffer_.size(); ++i) {
    if (!in_snapshot(buffer_[i].last_id, last_id_)) apply(buffer_[i].bids, buffer_[i].asks);
  }
  buffer_.clear();
  apply(event.bids, event.asks);
  last_id_ = event.last_id;
  if (book_.crossed()) return invalidate(&event, InvalidReason::Crossed);
  ++counts_.snapshots_applied;
  return completed(false);
}

/// Does an event go on from the old ids that came last? One that goes on from the buffer, too, decides
/// nothing.
bool BookSync::goes_on_anew(const md::Event& event) const noexcept {
  return strays_ != 0 && follows(event.first_id, event.prev_id, stray_id_);
}

SyncStep BookSync::buffer(const md::Event& event) noexcept {
  if (buffer_.size() != 0) {
    const std::uint64_t last = buffer_[buffer_.size() - 1].last_id;
    const bool anew = goes_on_anew(event);
    if (event.last_id <= last) {
      // One that was late, unless more follow it.
      strays_ = anew ? strays_ + 1 : 1;
      stray_id_ = event.last_id;
      if (strays_ < kAnew) {
        ++counts_.ignored;
        return {.result = SyncResult::Ignored};
      }
    }
    if (event.last_id <= last || anew || !follows(event.first_id, event.prev_id, last)) {
      ++counts_.buffer_restarts;
      buffer_.clear();
      // What is held was counted as the buffer was.
      if (anew && held_) {
        held_ = overdue_ = false;
        ++counts_.snapshots_expired;
      }
    }
    strays_ = 0;
  }
  ++counts_.buffered;
  counts_.buffer_dropped += buffer_.push(event);
  return {.result = SyncResult::Buffered};
}

// ---------------------------------------------------------------------------------------------------
// Snapshots

SyncStep BookSync::on_snapshot(const md::Event& event) noexcept {
  const bool followed = state_ == BookState::Valid || whole_;
  // A snapshot older than the one that is held helps where the stream is known not to have come so far.
  const bool older = held_ && event.last_id <= last_id_;
  if ((followed && !recent_kept_ && !doubted_) ||
      (older && (event.last_id == last_id_ || buffer_.size() == 0)) || partial_) {
    ++counts_.snapshots_ignored;
    return {.result = SyncResult::Ignored};
  }
  if (const SnapshotFault fault = judge(event); fault != SnapshotFault::None) return refuse(fault);
  last_fault_ = SnapshotFault::None;
  // A full book had to drop what a merge would have to learn again: it is better built anew.
  const bool rebuilt = shallow_ && (!merge_.possible() || book_.cut_by_drop());
  if (followed && !doubted_ && !rebuilt) return begin_merge(event);
  if (state_ == BookState::Empty) state_ = BookState::Buffering;

  std::size_t first = 0;
  while (first < buffer_.size() && in_snapshot(buffer_[first].last_id, event.last_id)) ++first;
  const bool ahead = first == buffer_.size();
  if (!ahead) {
    const Buffer::Entry& entry = buffer_[first];
    if (!bridges(entry.first_id, entry.last_id, entry.prev_id, event.last_id)) {
      return refuse(SnapshotFault::None);
    }
  }
  if (ahead && doubted_) {
    // Of which count of ids it is, nobody knows yet.
    ++counts_.snapshots_ignored;
    return {.result = SyncResult::Ignored};
  }

  if (held_ && overdue_) hold_ns_ = std::min(2 * hold_ns_, kMaxHoldNs);
  load(event);
  held_ = overdue_ = doubted_ = whole_ = shallow_ = recent_kept_ = false;
  merge_.cancel();
  // Where an old id came, what waits may be of another count than this: the next event says so.
  held_in_doubt_ = !ahead && strays_ != 0;
  for (; !held_in_doubt_ && first < buffer_.size(); ++first) {
    apply(buffer_[first].bids, buffer_[first].asks);
    last_id_ = buffer_[first].last_id;
  }
  // The buffer stays: a later snapshot covers whatever is wrong in it.
  if (book_.crossed()) return refuse(SnapshotFault::Crossed);
  if (ahead || held_in_doubt_) {
    held_ = true;
    held_since_ = event.ts_recv;
    ++counts_.snapshots_held;
    return {.result = SyncResult::SnapshotHeld};
  }
  buffer_.clear();
  ++counts_.snapshots_applied;
  return {.result = SyncResult::SnapshotApplied, .became_valid = complete()};
}

/// A snapshot for a book that is followed, whose recent events are in the buffer.
SyncStep BookSync::begin_merge(const md::Event& snapshot) noexcept {
  bool known = merge_.possible() && !merge_.busy();
  if (known && snapshot.last_id < last_id_) {
    // Every event behind it must be there.
    known = buffer_.size() != 0 && (rule_ == SyncRule::Spot ? buffer_[0].first_id <= snapshot.last_id + 1
                                                            : buffer_[0].prev_id <= snapshot.last_id);
  }
  if (!known) {
    ++counts_.snapshots_ignored;
    return {.result = SyncResult::Ignored};
  }
  merge_.begin(snapshot, shows_whole(snapshot, Side::Bid), shows_whole(snapshot, Side::Ask));
  merge_at_ = 0;
  return {.result = SyncResult::SnapshotMerging};
}

SyncStep BookSync::merge(TsNs ts_recv) noexcept {
  if (!merge_.busy()) return {.result = SyncResult::Ignored};
  while (merge_at_ < buffer_.size() && in_snapshot(buffer_[merge_at_].last_id, merge_.id())) ++merge_at_;
  if (last_id_ < merge_.id()) {
    // The stream has to reach it first.
    if (ts_recv - merge_.since() > kMergeWaitNs) {
      merge_.cancel();
      ++counts_.snapshots_ignored;
    }
    return {.result = SyncResult::SnapshotMerging};
  }
  std::size_t levels = BookMerge::kSlice;
  while (merge_at_ < buffer_.size() && levels != 0) {
    const Buffer::Entry& entry = buffer_[merge_at_++];
    if (!merge_.touch(entry.bids, entry.asks)) {
      merge_.cancel();
      ++counts_.snapshots_ignored;
      return {.result = SyncResult::Ignored};
    }
    levels -= std::min(levels, entry.bids.size() + entry.asks.size());
  }
  if (levels == 0 || merge_at_ < buffer_.size()) return {.result = SyncResult::SnapshotMerging};
  switch (merge_.step(book_, levels)) {
    case BookMerge::Progress::Running: return {.result = SyncResult::SnapshotMerging};
    case BookMerge::Progress::Contradicted:
      ++counts_.snapshots_contradicted;
      return invalidate(nullptr, InvalidReason::Gap);
    case BookMerge::Progress::Done: break;
  }
  ++counts_.snapshots_merged;
  for (const Side side : {Side::Bid, Side::Ask}) shown(side, merge_.shown(side));
  if (book_.crossed()) return invalidate(nullptr, InvalidReason::Crossed);
  if (deep()) forget_recent();
  if (!shallow_) return {.result = SyncResult::SnapshotApplied};
  return {.result = SyncResult::SnapshotApplied, .became_valid = complete()};
}

// ---------------------------------------------------------------------------------------------------
// Partial books

SyncStep BookSync::on_partial(const md::Event& event) noexcept {
  if (has_diffs_ || repeats(event) || (partial_ && event.last_id == last_id_)) {
    ++counts_.ignored;
    return {.result = SyncResult::Ignored};
  }
  remember(event);
  if (const SnapshotFault fault = judge(event); fault != SnapshotFault::None) {
    SyncStep step = lose(InvalidReason::Malformed);
    const SyncStep refused = refuse(fault);
    step.result = refused.result;
    step.reason = refused.reason;
    step.fault = fault;
    return step;
  }
  last_fault_ = SnapshotFault::None;
  // One that is older than the book, and new to us, may be late, or the venue may count anew: the next one
  // tells.
  const bool went_back = partial_ && event.last_id < last_id_;
  const bool valid = state_ == BookState::Valid;
  const bool is_event = valid || (whole_ && !shallow_);
  const bool repeated = partial_ && is_book(event);
  held_ = overdue_ = doubted_ = false;
  buffer_.clear();
  partial_ = true;
  if (repeated) {
    last_id_ = event.last_id;
  } else {
    load(event);
  }
  ++counts_.applied;
  if (went_back) {
    ++counts_.gaps;
    whole_ = shallow_ = false;
    state_ = BookState::Suspect;
    return {.result = SyncResult::Invalid, .left_valid = valid, .reason = InvalidReason::Gap};
  }
  if (!valid) return completed(is_event);
  if (depth_.accept || reaches()) return {.result = SyncResult::Applied, .event_applied = true};
  state_ = BookState::Suspect;
  whole_ = shallow_ = true;
  ++counts_.shallow;
  return {.result = SyncResult::Shallow, .left_valid = true, .reason = InvalidReason::Depth};
}

/// Does it say what the book says?
bool BookSync::is_book(const md::Event& event) const noexcept {
  const auto same = [this](Side side, std::span<const md::Level> levels) noexcept TICKWIRE_HOT {
    return book_.depth(side) == levels.size() &&
           std::all_of(levels.begin(), levels.end(), [&](const md::Level& level) noexcept TICKWIRE_HOT {
             return book_.qty(side, level.price) == level.qty;
           });
  };
  return same(Side::Bid, event.bids) && same(Side::Ask, event.asks);
}

// ---------------------------------------------------------------------------------------------------
// Everything else

/// The book is whole. True when that makes it valid.
bool BookSync::complete() noexcept {
  hold_ns_ = kHoldNs;
  shallow_ = !depth_.accept && !reaches();
  whole_ = shallow_ || blocked_ || clock_doubted_;
  state_ = shallow_         ? BookState::Suspect
           : blocked_       ? BookState::Empty
           : clock_doubted_ ? BookState::Suspect
                            : BookState::Valid;
  epoch_ += whole_ ? 0 : 1;
  return !whole_;
}

/// By an event, which is in the book.
SyncStep BookSync::completed(bool is_event) noexcept {
  if (complete()) return {.result = SyncResult::Applied, .became_valid = true, .event_applied = is_event};
  return {.result = shallow_ ? SyncResult::Shallow : SyncResult::Blocked};
}

/// The book is not known any more.
SyncStep BookSync::lose(InvalidReason reason) noexcept {
  const bool was_valid = state_ == BookState::Valid;
  state_ = BookState::Suspect;
  held_ = overdue_ = whole_ = shallow_ = doubted_ = partial_ = false;
  strays_ = 0;
  forget_recent();
  buffer_.clear();
  return {.result = SyncResult::Invalid, .left_valid = was_valid, .reason = reason};
}

SyncStep BookSync::invalidate(const md::Event* first_of_buffer, InvalidReason reason) noexcept {
  const SyncStep step = lose(reason);
  counts_.gaps += step.left_valid && reason == InvalidReason::Gap ? 1 : 0;
  counts_.crossed += reason == InvalidReason::Crossed ? 1 : 0;
  if (first_of_buffer != nullptr) {
    ++counts_.buffered;
    counts_.buffer_dropped += buffer_.push(*first_of_buffer);
  }
  return step;
}

SyncStep BookSync::on_damaged(InvalidReason reason) noexcept {
  if (state_ != BookState::Valid && !whole_) return {.result = SyncResult::Ignored};
  return invalidate(nullptr, reason);
}

SyncStep BookSync::pause(InvalidReason reason) noexcept {
  if (state_ != BookState::Valid) return {.result = SyncResult::Ignored};
  state_ = reason == InvalidReason::Stale ? BookState::Stale : BookState::Suspect;
  whole_ = true;
  ++counts_.paused;
  return {.result = SyncResult::Invalid, .left_valid = true, .reason = reason};
}

SyncStep BookSync::block() noexcept {
  blocked_ = true;
  if (state_ != BookState::Valid) return {.result = SyncResult::Ignored};
  state_ = BookState::Empty;
  whole_ = true;
  ++counts_.paused;
  return {.result = SyncResult::Invalid, .left_valid = true, .reason = InvalidReason::Disconnected};
}

SyncStep BookSync::doubt_clock() noexcept {
  clock_doubted_ = true;
  return pause(InvalidReason::Clock);
}

SyncStep BookSync::disconnect(BookState state) noexcept {
  const SyncStep lost = lose(InvalidReason::Disconnected);
  state_ = state;
  hold_ns_ = kHoldNs;
  seen_count_ = 0;
  has_diffs_ = expect_diffs_;
  last_fault_ = SnapshotFault::None;
  return {.result = SyncResult::StateChanged,
          .left_valid = lost.left_valid,
          .reason = lost.left_valid ? InvalidReason::Disconnected : InvalidReason::None};
}

SyncStep BookSync::on_open() noexcept { return disconnect(BookState::Buffering); }
SyncStep BookSync::on_close() noexcept { return disconnect(BookState::Empty); }

}  // namespace tickwire::venue

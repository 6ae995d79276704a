#include "tickwire/feed/book_sync.hpp"

#include <algorithm>
#include <string>

#include "tickwire/core/error.hpp"

namespace tickwire::feed {

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
                   std::size_t max_event_levels)
    : rule_(rule),
      book_(book),
      buffer_(arena, buffer_events, 2 * max_event_levels + kUsualLevels * buffer_events),
      hold_ns_(kHoldNs) {
  if (buffer_events == 0) throw SetupError("buffer_events", "a positive number", "0");
}

bool BookSync::follows(std::uint64_t first_id, std::uint64_t prev_id, std::uint64_t last) const noexcept {
  // first_id - 1 may wrap where last + 1 would: an id of 0 is not in use.
  return rule_ == SyncRule::Spot ? first_id <= last || first_id - 1 == last : prev_id == last;
}

bool BookSync::in_snapshot(std::uint64_t last_id, std::uint64_t snapshot_id) const noexcept {
  return rule_ == SyncRule::Spot ? last_id <= snapshot_id : last_id < snapshot_id;
}

/// For an event that is not in the snapshot, so that its end is known to be far enough.
bool BookSync::bridges(std::uint64_t first_id, std::uint64_t last_id, std::uint64_t prev_id,
                       std::uint64_t snapshot_id) const noexcept {
  if (in_snapshot(last_id, snapshot_id)) return false;
  if (rule_ == SyncRule::Spot) return follows(first_id, prev_id, snapshot_id);
  return first_id <= snapshot_id || prev_id == snapshot_id;
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
}

// ---------------------------------------------------------------------------------------------------
// Diffs

SyncStep BookSync::on_diff(const md::Event& event) noexcept {
  // A message sent later than all before it, with an id that was passed already, is no duplicate: the
  // venue counts anew.
  const bool newest = event.ts_event > newest_ts_event_;
  const bool went_back = newest && event.last_id <= stream_id_;
  if (newest) newest_ts_event_ = event.ts_event;
  if (event.last_id > stream_id_ || went_back) stream_id_ = event.last_id;

  if (state_ != BookState::Valid || event.last_id <= last_id_ ||
      !follows(event.first_id, event.prev_id, last_id_)) [[unlikely]] {
    return on_diff_slow(event, went_back);
  }
  apply(event.bids, event.asks);
  last_id_ = event.last_id;
  if (book_.crossed()) [[unlikely]]
    return invalidate(&event, InvalidReason::Crossed);
  return {.result = SyncResult::Applied, .event_applied = true};
}

SyncStep BookSync::on_diff_slow(const md::Event& event, bool went_back) noexcept {
  if (state_ == BookState::Valid) {
    if (event.last_id <= last_id_ && !went_back) {
      ++counts_.ignored;
      return {.result = SyncResult::Ignored};
    }
    return invalidate(&event, InvalidReason::Gap);
  }
  if (whole_) {
    if (event.last_id <= last_id_ && !went_back) {
      ++counts_.ignored;
      return {.result = SyncResult::Ignored};
    }
    if (went_back || !follows(event.first_id, event.prev_id, last_id_)) {
      return invalidate(&event, InvalidReason::Gap);
    }
    apply(event.bids, event.asks);
    last_id_ = event.last_id;
    if (book_.crossed()) return invalidate(&event, InvalidReason::Crossed);
    if (!complete()) return {.result = SyncResult::Blocked};
    return {.result = SyncResult::Applied, .became_valid = true, .event_applied = true};
  }
  // A capture may begin without the line that says a connection was opened.
  if (state_ == BookState::Empty) state_ = BookState::Buffering;
  return held_ ? bridge_held(event, went_back) : buffer(event, went_back);
}

/// While a snapshot is held. What it already has is buffered all the same: an older snapshot may come that
/// the stream reaches sooner, or one of another count of ids.
SyncStep BookSync::bridge_held(const md::Event& event, bool went_back) noexcept {
  if (in_snapshot(event.last_id, last_id_) && !went_back) {
    overdue_ = overdue_ || event.ts_recv - held_since_ > hold_ns_;
    return buffer(event, went_back);
  }
  if (went_back || !bridges(event.first_id, event.last_id, event.prev_id, last_id_)) {
    held_ = overdue_ = false;
    ++counts_.snapshots_expired;
    return buffer(event, went_back);
  }
  held_ = overdue_ = false;
  buffer_.clear();
  apply(event.bids, event.asks);
  last_id_ = event.last_id;
  if (book_.crossed()) return invalidate(&event, InvalidReason::Crossed);
  ++counts_.snapshots_applied;
  if (!complete()) return {.result = SyncResult::Blocked};
  return {.result = SyncResult::Applied, .became_valid = true};
}

SyncStep BookSync::buffer(const md::Event& event, bool went_back) noexcept {
  if (buffer_.size() != 0) {
    const std::uint64_t last = buffer_[buffer_.size() - 1].last_id;
    if (event.last_id <= last && !went_back) {
      ++counts_.ignored;
      return {.result = SyncResult::Ignored};
    }
    if (event.last_id <= last || !follows(event.first_id, event.prev_id, last)) {
      ++counts_.buffer_restarts;
      buffer_.clear();
    }
  }
  ++counts_.buffered;
  counts_.buffer_dropped += buffer_.push(event);
  return {.result = SyncResult::Buffered};
}

// ---------------------------------------------------------------------------------------------------
// Everything else

SyncStep BookSync::on_snapshot(const md::Event& event) noexcept {
  // A snapshot older than the one that is held helps where the stream is known not to have come so far.
  const bool older = held_ && event.last_id <= last_id_;
  if (state_ == BookState::Valid || whole_ || (older && (event.last_id == last_id_ || buffer_.size() == 0))) {
    ++counts_.snapshots_ignored;
    return {.result = SyncResult::Ignored};
  }
  if (state_ == BookState::Empty) state_ = BookState::Buffering;

  std::size_t first = 0;
  while (first < buffer_.size() && in_snapshot(buffer_[first].last_id, event.last_id)) ++first;
  const bool ahead = first == buffer_.size();
  if (!ahead) {
    const Buffer::Entry& entry = buffer_[first];
    if (!bridges(entry.first_id, entry.last_id, entry.prev_id, event.last_id)) {
      ++counts_.snapshots_refused;
      return {.result = SyncResult::SnapshotRefused, .reason = InvalidReason::Gap};
    }
  }

  if (held_ && overdue_) hold_ns_ = std::min(2 * hold_ns_, kMaxHoldNs);
  load(event);
  held_ = overdue_ = false;
  for (; first < buffer_.size(); ++first) {
    apply(buffer_[first].bids, buffer_[first].asks);
    last_id_ = buffer_[first].last_id;
  }
  if (book_.crossed()) {
    // The buffer stays: a later snapshot covers whatever is wrong in it.
    ++counts_.crossed;
    return {.result = SyncResult::SnapshotRefused, .reason = InvalidReason::Crossed};
  }
  if (ahead) {
    held_ = true;
    held_since_ = event.ts_recv;
    ++counts_.snapshots_held;
    return {.result = SyncResult::SnapshotHeld};
  }
  buffer_.clear();
  ++counts_.snapshots_applied;
  return {.result = SyncResult::SnapshotApplied, .became_valid = complete()};
}

/// The book is whole. True when that makes it valid.
bool BookSync::complete() noexcept {
  hold_ns_ = kHoldNs;
  whole_ = blocked_;
  state_ = blocked_ ? BookState::Empty : BookState::Valid;
  if (!blocked_) ++epoch_;
  return !blocked_;
}

SyncStep BookSync::invalidate(const md::Event* first_of_buffer, InvalidReason reason) noexcept {
  const bool was_valid = state_ == BookState::Valid;
  state_ = BookState::Suspect;
  held_ = overdue_ = whole_ = false;
  counts_.gaps += was_valid && reason == InvalidReason::Gap ? 1 : 0;
  counts_.crossed += reason == InvalidReason::Crossed ? 1 : 0;
  buffer_.clear();
  if (first_of_buffer != nullptr) {
    ++counts_.buffered;
    counts_.buffer_dropped += buffer_.push(*first_of_buffer);
  }
  return {.result = SyncResult::Invalid, .left_valid = was_valid, .reason = reason};
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

SyncStep BookSync::disconnect(BookState state) noexcept {
  const bool was_valid = state_ == BookState::Valid;
  state_ = state;
  held_ = overdue_ = whole_ = false;
  hold_ns_ = kHoldNs;
  newest_ts_event_ = kNoTime;
  stream_id_ = 0;
  buffer_.clear();
  return {.result = SyncResult::StateChanged,
          .left_valid = was_valid,
          .reason = was_valid ? InvalidReason::Disconnected : InvalidReason::None};
}

SyncStep BookSync::on_open() noexcept { return disconnect(BookState::Buffering); }
SyncStep BookSync::on_close() noexcept { return disconnect(BookState::Empty); }

}  // namespace tickwire::feed

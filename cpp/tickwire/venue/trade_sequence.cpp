#include "tickwire/venue/trade_sequence.hpp"

#include <algorithm>
#include <bit>

#include "tickwire/core/error.hpp"

namespace tickwire::venue {

namespace {

/// A venue writes stamps with what is below a millisecond or without.
constexpr TsNs kStampNs = 1'000'000;

/// Halves, because the difference of two times may be more than a time can be.
bool is_believed(const md::Event& event) noexcept TICKWIRE_HOT {
  return event.trade.ts_trade != kNoTime &&
         event.trade.ts_trade / 2 - event.ts_recv / 2 <= TradeSequence::kMostLeadNs / 2;
}

}  // namespace

TradeSequence::TradeSequence(Arena& arena, std::size_t remembered) : tags_(arena.allocate<Tag>(remembered)) {
  if (!std::has_single_bit(remembered)) throw SetupError("remembered", "a power of two", "another number");
}

void TradeSequence::forget() noexcept {
  std::fill(tags_.begin(), tags_.end(), Tag{0});
  newest_ = first_ = 0;
  newest_ts_ = kNoTime;
  any_ = resumed_ = false;
  old_ids_ = {};
  hole_count_ = 0;
}

void TradeSequence::remove_hole(std::size_t at) noexcept {
  std::copy(holes_.begin() + static_cast<std::ptrdiff_t>(at + 1),
            holes_.begin() + static_cast<std::ptrdiff_t>(hole_count_),
            holes_.begin() + static_cast<std::ptrdiff_t>(at));
  --hole_count_;
}

bool TradeSequence::take_overdue(TsNs now, Hole& out) noexcept {
  if (hole_count_ == 0 || (now - holes_[0].since <= kLateNs && hole_count_ != kHoles)) return false;
  out = holes_[0];
  remove_hole(0);
  return true;
}

/// Is this trade, which was missing, the last one of an open hole?
bool TradeSequence::fills(std::uint64_t id) noexcept {
  for (std::size_t i = 0; i < hole_count_; ++i) {
    if (id < holes_[i].first || id > holes_[i].last) continue;
    if (--holes_[i].left != 0) return false;
    remove_hole(i);
    return true;
  }
  return false;
}

void TradeSequence::note(const md::Event& event) noexcept {
  if (is_believed(event)) newest_ts_ = std::max(newest_ts_, event.trade.ts_trade);
  old_ids_.fresh(event.ts_recv);
  resumed_ = false;
}

/// Later than every trade so far: then nobody has sent it before.
bool TradeSequence::happened_later(const md::Event& event) const noexcept {
  return newest_ts_ != kNoTime && is_believed(event) &&
         event.trade.ts_trade / kStampNs > newest_ts_ / kStampNs;
}

TradeSequence::Step TradeSequence::begin(const md::Event& event, Tag tag, bool anew) noexcept {
  const bool was_resumed = resumed_;
  forget();
  any_ = true;
  newest_ = first_ = event.trade.id;
  place(newest_) = tag;
  note(event);
  // How many are missing between two numberings nobody can say.
  return {.anew = anew, .missing = anew && !was_resumed ? 1U : 0U};
}

TradeSequence::Step TradeSequence::on_trade(const md::Event& event) noexcept {
  const md::Trade& trade = event.trade;
  // Stamps of one trade may differ in what is below a millisecond.
  std::uint64_t mixed = (static_cast<std::uint64_t>(trade.ts_trade / kStampNs) * 0xFF51AFD7ED558CCDU) ^
                        (static_cast<std::uint64_t>(trade.price) * 0x9E3779B97F4A7C15U) ^
                        (static_cast<std::uint64_t>(trade.qty) * 0xC2B2AE3D27D4EB4FU) ^
                        static_cast<std::uint64_t>(trade.aggressor);
  mixed *= 0x9E3779B97F4A7C15U;
  const Tag tag = static_cast<Tag>(mixed >> 48U) | 1U;

  if (!any_) [[unlikely]]
    return begin(event, tag, false);
  if (trade.id <= newest_) [[unlikely]]
    return on_old(event, tag);
  const std::uint64_t skipped = trade.id - newest_ - 1;
  if (skipped != 0) [[unlikely]] {
    if (skipped > kMostMissing) return begin(event, tag, true);
    const std::uint64_t forgotten = std::min<std::uint64_t>(skipped, tags_.size());
    for (std::uint64_t i = 1; i <= forgotten; ++i) place(newest_ + i) = 0;
    // Those before a connection's first trade were never awaited.
    if (resumed_) first_ = trade.id;
  }
  const std::uint64_t missing = resumed_ ? 0 : skipped;
  if (missing != 0) [[unlikely]] {
    // Whoever asks for what is overdue leaves room; without, the oldest is one that nobody asks for.
    if (hole_count_ == kHoles) remove_hole(0);
    holes_[hole_count_++] = {trade.id - missing, trade.id - 1, missing, event.ts_recv};
  }
  newest_ = trade.id;
  place(newest_) = tag;
  note(event);
  return {.missing = missing};
}

TradeSequence::Step TradeSequence::on_old(const md::Event& event, Tag tag) noexcept {
  const md::Trade& trade = event.trade;
  const bool later = happened_later(event);
  if (newest_ - trade.id < tags_.size()) {
    Tag& taken = place(trade.id);
    if (taken == 0) {
      if (trade.id < first_ && later) return begin(event, tag, true);
      taken = tag;
      note(event);
      const bool late = trade.id > first_;
      return {.late = late, .filled = late && fills(trade.id)};
    }
    if (taken != tag) return begin(event, tag, true);
  } else if (later) {
    return begin(event, tag, true);
  }
  if (old_ids_.old(trade.id, event.ts_recv)) return begin(event, tag, true);
  return {.repeated = true};
}

}  // namespace tickwire::venue

#pragma once

/// Takes each trade of one instrument once, by the venue's id, and knows which ids never came.
///
/// A venue counts an instrument's trades by one. So an id that was taken already is a trade that came
/// again, over another connection or in another capture; one that is skipped is a trade that is missing,
/// until it comes late. Both are told from a table of what was taken of the newest ids: a few bits of each
/// trade's content, by id.
///
/// Trades may come in another order than their ids say, so a hole that was just seen says little. Whether it
/// is one is known once it has been open for kLateNs: the newest holes are kept until then, or until the last
/// of their trades has come.
///
/// A venue may begin its numbers anew. Then an old id is no repetition, and nothing may be dropped for
/// ever. In the order of how sure they are: the same id with other content or another time; an id
/// that nobody can have sent before, because its trade happened later than all others; and several old ones
/// in a row, each after the one before, while for a long time nothing new came. Venue stamps that lead the
/// receive time by more than a bound say nothing.
///
/// One thread, the one that decodes. It sees trades alone, so a capture gives the same as the run that
/// recorded it. A trade costs a few comparisons and one write into the table.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/md/event.hpp"

namespace tickwire::venue {

/// Several old ids in a row, for so long: the venue's numbers began anew.
class OldIds {
 public:
  static constexpr std::uint32_t kRun = 3;
  static constexpr TsNs kQuietNs = 10'000'000'000;  // Three times what one connection lags another.

  /// A new id came.
  void fresh(TsNs ts_recv) noexcept TICKWIRE_HOT {
    run_ = 0;
    last_fresh_ = ts_recv;
  }
  /// An old one came. True when it is of a new numbering.
  [[nodiscard]] bool old(std::uint64_t id, TsNs ts_recv) noexcept TICKWIRE_HOT {
    run_ = run_ == 0 || id <= id_ ? 1 : run_ + 1;
    id_ = id;
    return run_ >= kRun && ts_recv - last_fresh_ > kQuietNs;
  }

 private:
  std::uint32_t run_ = 0;
  std::uint64_t id_ = 0;
  TsNs last_fresh_ = 0;
};

class TradeSequence {
 public:
  /// What one trade is.
  struct Step {
    bool repeated = false;      // It came before, or is too old for anybody to know: it is not to be used.
    bool late = false;          // It was missing until now.
    bool filled = false;        // It was the last one of a hole that was still open.
    bool anew = false;          // The numbers begin anew with it.
    std::uint64_t missing = 0;  // Ids before it that have not come; 1 where the numbers begin anew.
  };

  /// Ids that have not come, between two that have.
  struct Hole {
    std::uint64_t first;
    std::uint64_t last;
    std::uint64_t left;  // How many of them are still missing.
    TsNs since;          // When the trade behind it was received.
  };

  /// A trade that comes later than this, by receive times, behind one with a greater id, is missing until it
  /// comes.
  static constexpr TsNs kLateNs = 1'000'000'000;
  /// A jump ahead by more is no hole: the numbers begin anew.
  static constexpr std::uint64_t kMostMissing = 1'000'000'000;
  /// A venue's stamp that leads the receive time by more is not believed.
  static constexpr TsNs kMostLeadNs = 3'600'000'000'000;

  /// `remembered`: of how many ids what came is kept; a power of two.
  TradeSequence(Arena& arena, std::size_t remembered);

  Step on_trade(const md::Event& event) noexcept TICKWIRE_HOT;
  /// A connection was opened: the ids before its first trade are not missing.
  void resume() noexcept TICKWIRE_HOT { resumed_ = true; }
  /// Did this trade come, or is it too late for it?
  [[nodiscard]] bool has(std::uint64_t id) const noexcept TICKWIRE_HOT {
    if (id > newest_) return false;
    return id <= first_ || newest_ - id >= tags_.size() || tags_[id & (tags_.size() - 1)] != 0;
  }
  [[nodiscard]] bool has_holes() const noexcept TICKWIRE_HOT { return hole_count_ != 0; }
  /// The oldest open hole, where it is no late trade any more at `now`, or where there is no room for one
  /// more. It is forgotten with that. False where there is none.
  [[nodiscard]] bool take_overdue(TsNs now, Hole& out) noexcept TICKWIRE_HOT;
  /// Nothing that was is to be gone by.
  void forget() noexcept TICKWIRE_HOT;

  /// Id of the newest trade; 0 before the first.
  [[nodiscard]] std::uint64_t newest() const noexcept TICKWIRE_HOT { return newest_; }

 private:
  using Tag = std::uint16_t;  // Of a trade's content; 0: none came.
  static constexpr std::size_t kHoles = 256;

  [[nodiscard]] Tag& place(std::uint64_t id) noexcept TICKWIRE_HOT { return tags_[id & (tags_.size() - 1)]; }
  Step begin(const md::Event& event, Tag tag, bool anew) noexcept TICKWIRE_HOT;
  Step on_old(const md::Event& event, Tag tag) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool fills(std::uint64_t id) noexcept TICKWIRE_HOT;
  void remove_hole(std::size_t at) noexcept TICKWIRE_HOT;
  void note(const md::Event& event) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool happened_later(const md::Event& event) const noexcept TICKWIRE_HOT;

  std::span<Tag> tags_;  // Of the ids up to newest_, as many as there is room for.
  std::uint64_t newest_ = 0;
  std::uint64_t first_ = 0;   // Ids below it were never awaited.
  TsNs newest_ts_ = kNoTime;  // When the latest trade happened, by the venue's clock.
  bool any_ = false;          // A trade came.
  bool resumed_ = false;
  OldIds old_ids_;
  std::array<Hole, kHoles> holes_{};  // Open ones, the oldest first.
  std::size_t hole_count_ = 0;
};

}  // namespace tickwire::venue

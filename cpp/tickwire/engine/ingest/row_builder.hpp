#pragma once

/// From the events of one instrument's valid book to its rows: window clock, kernels, trigger, history. Where
/// the book comes from, by price or by order, and whether it is valid is for the pipeline that owns this.
///
/// Owned by one ingest agent. It knows no wall clock: its time is the events' own.

#include <cstdint>
#include <span>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/ingest/row_history.hpp"
#include "tickwire/features/feature_engine.hpp"
#include "tickwire/md/book_state.hpp"
#include "tickwire/md/event.hpp"
#include "tickwire/venue/book_sync.hpp"

namespace tickwire::engine {

/// What an event asks of the agent. At most one row and one notice.
struct Step {
  bool row = false;  // A new row is the newest of history().
  bool became_valid = false;
  bool left_valid = false;        // Tell the reader, with `reason`.
  bool snapshot_refused = false;  // It fits none of the buffered events, or is no book for `fault`.
  venue::SnapshotFault fault = venue::SnapshotFault::None;
  bool repeated = false;  // The message came before: nothing was done.
  md::InvalidReason reason = md::InvalidReason::None;
  std::uint64_t tsc_book = 0;  // When the book was up to date and the kernels began.
};

class RowBuilder {
 public:
  /// What one event was, to the trigger.
  struct Happened {
    bool book = false;  // It changed the book, or ended a pause.
    bool top = false;   // It changed the best price or quantity, or ended a pause.
    bool trade = false;
  };

  RowBuilder(const FeaturesConfig& features, int qty_decimals, Arena& arena);

  void advance_clock(TsNs ts_event, TsNs ts_recv) noexcept TICKWIRE_HOT;
  /// What was is not to be gone by: the next event's time is the windows', also where it is earlier. An epoch
  /// must begin before the next row.
  void forget_clock() noexcept TICKWIRE_HOT { clock_ = kNoTime; }
  void begin_epoch(const features::TopOfBook& top) noexcept TICKWIRE_HOT;

  /// As FeatureEngine has them.
  void prepare_kernels() const noexcept TICKWIRE_HOT { features_.prepare_kernels(); }
  void prepare_entries() noexcept TICKWIRE_HOT { features_.prepare_entries(); }

  /// The parts of an event, as far as it has them, in this order.
  void on_orders(std::uint32_t arrived, std::uint32_t cancelled) noexcept TICKWIRE_HOT {
    features_.on_orders(arrived, cancelled, clock_);
  }
  void on_trade(const md::Trade& trade) noexcept TICKWIRE_HOT { features_.on_trade(trade, clock_); }
  /// Did the best price or quantity change?
  [[nodiscard]] bool on_book(const features::TopOfBook& top) noexcept TICKWIRE_HOT;
  /// At its end: does a row leave? It is the newest of history() then.
  [[nodiscard]] bool emit(const Happened& happened) noexcept TICKWIRE_HOT {
    return fires(happened) && write_row();
  }
  /// Would one, were all warm and the book valid? Asked instead of emit().
  [[nodiscard]] bool fires(const Happened& happened) noexcept TICKWIRE_HOT;
  /// Instead of on_book(), where the book is not valid: did the best price or quantity change?
  [[nodiscard]] bool follow(const features::TopOfBook& top) noexcept TICKWIRE_HOT;

  /// Room for the levels that the kernels and the trigger look at; at least one a side.
  [[nodiscard]] std::span<md::Level> bids() const noexcept TICKWIRE_HOT { return top_bids_; }
  [[nodiscard]] std::span<md::Level> asks() const noexcept TICKWIRE_HOT { return top_asks_; }
  /// Number of the newest row within the epoch.
  [[nodiscard]] std::uint64_t row() const noexcept TICKWIRE_HOT { return row_; }
  [[nodiscard]] const RowHistory& history() const noexcept TICKWIRE_HOT { return history_; }
  [[nodiscard]] TsNs clock() const noexcept { return clock_; }
  /// As FeatureEngine has it.
  [[nodiscard]] features::FeatureEngine::Last warm_last() const noexcept { return features_.warm_last(); }
  [[nodiscard]] std::uint64_t window_overflows() const noexcept { return features_.window_overflows(); }

 private:
  struct Best {
    md::Level bid;
    md::Level ask;
    bool operator==(const Best&) const = default;
  };

  [[nodiscard]] static Best best_of(const features::TopOfBook& top) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool boundary_passed() noexcept TICKWIRE_HOT;
  [[nodiscard]] bool write_row() noexcept TICKWIRE_HOT;

  const Trigger trigger_;
  const std::int64_t every_ns_;
  const WindowClock window_clock_;
  features::FeatureEngine features_;
  RowHistory history_;
  std::span<md::Level> top_bids_;
  std::span<md::Level> top_asks_;
  Best best_{};                     // After the last event; a missing side is all zero.
  TsNs clock_ = kNoTime;            // Running maximum: the clock of every window.
  std::int64_t next_boundary_ = 0;  // Of the Every trigger.
  std::uint64_t row_ = 0;
};

}  // namespace tickwire::engine

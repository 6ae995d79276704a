#pragma once

/// One instrument of a feed by price, from a decoded event to a feature row: sequence check, book, and what
/// makes rows of it. It knows no thread, no source, no model and no wall clock: its time is the
/// events' own, so a replay of the same events gives the same rows, bit for bit.
///
/// Owned by one ingest agent.

#include <cstdint>
#include <span>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/ingest/row_builder.hpp"
#include "tickwire/md/book_state.hpp"
#include "tickwire/md/event.hpp"
#include "tickwire/md/price_book.hpp"
#include "tickwire/venue/book_sync.hpp"
#include "tickwire/venue/trade_sequence.hpp"

namespace tickwire::engine {

class InstrumentPipeline {
 public:
  InstrumentPipeline(const FeedConfig& feed, const InstrumentConfig& instrument,
                     const FeaturesConfig& features, Arena& arena);

  Step on_diff(const md::Event& event) noexcept TICKWIRE_HOT;
  Step on_trade(const md::Event& event) noexcept TICKWIRE_HOT;
  Step on_partial(const md::Event& event) noexcept TICKWIRE_HOT;
  Step on_snapshot(const md::Event& event) noexcept TICKWIRE_HOT;
  /// After each of the above but a trade: the next slice of a snapshot that joins the book. No event, no row.
  [[nodiscard]] bool merging() const noexcept TICKWIRE_HOT { return sync_.merging(); }
  Step merge(TsNs ts_recv) noexcept TICKWIRE_HOT;
  Step on_open() noexcept TICKWIRE_HOT;
  Step on_close() noexcept TICKWIRE_HOT;
  /// Nothing came for too long: no row until an event continues the book.
  Step pause() noexcept TICKWIRE_HOT;
  /// What the last call of on_trade found in its trade's id.
  [[nodiscard]] const venue::TradeSequence::Step& trade_step() const noexcept TICKWIRE_HOT {
    return trade_step_;
  }
  /// Which trades have not come, for whoever tells of them.
  [[nodiscard]] venue::TradeSequence& trades() noexcept TICKWIRE_HOT { return trades_; }
  [[nodiscard]] const venue::TradeSequence& trades() const noexcept TICKWIRE_HOT { return trades_; }
  /// Does the epoch end at `ts_recv`, before whatever comes then is looked at, because trades that its rows
  /// need have not come late either?
  [[nodiscard]] bool lost_trades(TsNs ts_recv) const noexcept TICKWIRE_HOT {
    return awaits_trades() && state() == md::BookState::Valid &&
           ts_recv - short_since_ > venue::TradeSequence::kLateNs;
  }
  Step end_at_trade_gap() noexcept TICKWIRE_HOT;
  /// Rows that did not leave, because a trade before them might still come.
  [[nodiscard]] std::uint64_t rows_awaiting_trades() const noexcept { return rows_awaiting_trades_; }
  /// A connection was opened: of what comes only what follows its first message is awaited.
  void resume_trades() noexcept TICKWIRE_HOT { trades_.resume(); }
  /// The instrument's trades are lost: its rows would be short of them, so there are none until unblock().
  Step block() noexcept TICKWIRE_HOT;
  void unblock() noexcept TICKWIRE_HOT { sync_.unblock(); }
  /// What time it is cannot be believed, or was not: windows begin anew, and until trust_clock() nothing is
  /// valid.
  Step doubt_clock() noexcept TICKWIRE_HOT;
  void trust_clock() noexcept TICKWIRE_HOT { sync_.trust_clock(); }
  /// Nothing that was is to be gone by, neither book nor time.
  Step restart() noexcept TICKWIRE_HOT;
  /// A message for this instrument could not be used: its book can no longer be trusted.
  Step on_damaged(md::InvalidReason reason) noexcept TICKWIRE_HOT;

  [[nodiscard]] md::BookState state() const noexcept TICKWIRE_HOT { return sync_.state(); }
  [[nodiscard]] std::uint32_t epoch() const noexcept TICKWIRE_HOT { return sync_.epoch(); }
  [[nodiscard]] std::uint64_t sequence() const noexcept TICKWIRE_HOT { return sync_.last_id(); }
  [[nodiscard]] bool wants_snapshot() const noexcept TICKWIRE_HOT { return sync_.wants_snapshot(); }
  /// Id of the newest trade; 0 before the first.
  [[nodiscard]] std::uint64_t trade_id() const noexcept TICKWIRE_HOT { return trades_.newest(); }
  /// Trades of this epoch that never came.
  [[nodiscard]] std::uint64_t missing_trades() const noexcept TICKWIRE_HOT { return missing_trades_; }
  [[nodiscard]] bool wants_depth() const noexcept TICKWIRE_HOT { return sync_.wants_depth(); }
  /// Set-up: the instrument has a stream of diffs, so partial books are not for it.
  void expect_diffs() noexcept { sync_.expect_diffs(); }
  /// Rows that looked at levels which nobody has told of, where that is accepted; else those that did not
  /// leave because they would have.
  [[nodiscard]] std::uint64_t rows_beyond_depth() const noexcept { return rows_beyond_depth_; }
  /// Number of the newest row within the epoch.
  [[nodiscard]] std::uint64_t row() const noexcept TICKWIRE_HOT { return rows_.row(); }
  [[nodiscard]] const RowHistory& history() const noexcept TICKWIRE_HOT { return rows_.history(); }
  [[nodiscard]] const venue::BookSync& sync() const noexcept { return sync_; }
  [[nodiscard]] const md::PriceBook& book() const noexcept { return book_; }
  /// What time it is for the windows; kNoTime before the first event.
  [[nodiscard]] TsNs clock() const noexcept { return rows_.clock(); }
  /// Which feature is warm last, and when.
  [[nodiscard]] features::FeatureEngine::Last warm_last() const noexcept { return rows_.warm_last(); }
  [[nodiscard]] std::uint64_t window_overflows() const noexcept { return rows_.window_overflows(); }

 private:
  [[nodiscard]] features::TopOfBook read_top() noexcept TICKWIRE_HOT;
  void keep_top() noexcept TICKWIRE_HOT;
  void begin_epoch(const features::TopOfBook& top) noexcept TICKWIRE_HOT;
  Step on_book(const venue::SyncStep& synced) noexcept TICKWIRE_HOT;
  Step on_no_event(Step step, const venue::SyncStep& synced) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool emit(const RowBuilder::Happened& happened) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool withhold(const RowBuilder::Happened& happened) noexcept TICKWIRE_HOT;
  /// Rows would be short of trades that may still come.
  [[nodiscard]] bool awaits_trades() const noexcept TICKWIRE_HOT {
    return missing_trades_ != 0 && ends_at_trade_gap_;
  }

  md::PriceBook book_;
  venue::BookSync sync_;
  venue::TradeSequence trades_;
  RowBuilder rows_;
  // The top before an event that may end a pause. The epoch of that event begins with it.
  features::TopOfBook before_;
  std::span<md::Level> before_bids_;
  std::span<md::Level> before_asks_;
  const bool ends_at_trade_gap_;
  venue::TradeSequence::Step trade_step_;
  std::uint64_t missing_trades_ = 0;
  std::uint64_t missing_from_ = 0;  // Of ids above this.
  TsNs short_since_ = 0;            // Since when any are.
  std::uint64_t rows_awaiting_trades_ = 0;
  std::uint64_t book_changes_ = 0;  // Of the book, up to the last applied event.
  std::uint64_t rows_beyond_depth_ = 0;
};

}  // namespace tickwire::engine

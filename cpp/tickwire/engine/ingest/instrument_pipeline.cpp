#include "tickwire/engine/ingest/instrument_pipeline.hpp"

#include <algorithm>
#include <bit>

#include "tickwire/core/time.hpp"

namespace tickwire::engine {

namespace {

venue::SyncRule rule_of(venue::binance::Market market) noexcept {
  return market == venue::binance::Market::Spot ? venue::SyncRule::Spot : venue::SyncRule::Futures;
}

/// Of how many trades what came is remembered: as many as come in the time that one connection lags another.
std::size_t remembered_trades(const FeaturesConfig& features) noexcept {
  constexpr double kMostLagSeconds = 3;
  return std::bit_ceil(
      static_cast<std::size_t>(std::clamp(features.max_event_rate * kMostLagSeconds, 1024.0, 65536.0)));
}

}  // namespace

bool needs_trades(const FeaturesConfig& features) {
  if (features.trigger == Trigger::Trade || features.trigger == Trigger::Every) return true;
  return std::any_of(features.plan.nodes.begin(), features.plan.nodes.end(),
                     [](const auto& node) { return node.kernel->reads_any(features::Reads::Trades); });
}

InstrumentPipeline::InstrumentPipeline(const FeedConfig& feed, const InstrumentConfig& instrument,
                                       const FeaturesConfig& features, Arena& arena)
    : book_(arena, feed.max_levels),
      sync_(rule_of(*feed.market), book_, arena, feed.buffer_events, kMaxEventLevels,
            {.reach = std::max<std::size_t>(features.plan.reach(), features.trigger == Trigger::Top ? 1 : 0),
             .accept = features.accept_beyond_depth,
             .snapshot_levels = feed.snapshot_limit}),
      trades_(arena, remembered_trades(features)),
      rows_(features, instrument.qty_decimals, arena),
      before_bids_(arena.allocate<md::Level>(rows_.bids().size())),
      before_asks_(arena.allocate<md::Level>(rows_.asks().size())),
      ends_at_trade_gap_(features.trade_gaps == TradeGaps::Suspect && needs_trades(features)) {}

features::TopOfBook InstrumentPipeline::read_top() noexcept {
  const std::size_t bids = book_.top(md::Side::Bid, rows_.bids());
  const std::size_t asks = book_.top(md::Side::Ask, rows_.asks());
  return {rows_.bids().first(bids), rows_.asks().first(asks)};
}

/// What an event that ends a pause changes is told by the book before it, which was followed.
void InstrumentPipeline::keep_top() noexcept {
  before_ = {before_bids_.first(book_.top(md::Side::Bid, before_bids_)),
             before_asks_.first(book_.top(md::Side::Ask, before_asks_))};
}

void InstrumentPipeline::begin_epoch(const features::TopOfBook& top) noexcept {
  rows_.begin_epoch(top);
  missing_trades_ = 0;
  missing_from_ = trades_.newest();
}

Step InstrumentPipeline::on_diff(const md::Event& event) noexcept {
  if (sync_.followed()) [[unlikely]]
    keep_top();
  const venue::SyncStep synced = sync_.on_diff(event);
  // What came before says nothing, not even what time it is.
  if (synced.result == venue::SyncResult::Ignored) [[unlikely]]
    return {.repeated = true, .tsc_book = tsc_now()};
  rows_.advance_clock(event.ts_event, event.ts_recv);
  return on_book(synced);
}

Step InstrumentPipeline::on_partial(const md::Event& event) noexcept {
  if (sync_.followed()) [[unlikely]]
    keep_top();
  const venue::SyncStep synced = sync_.on_partial(event);
  if (synced.result == venue::SyncResult::Ignored) return {.repeated = true, .tsc_book = tsc_now()};
  rows_.advance_clock(event.ts_event, event.ts_recv);
  return on_book(synced);
}

Step InstrumentPipeline::on_book(const venue::SyncStep& synced) noexcept {
  Step step{.became_valid = synced.became_valid,
            .left_valid = synced.left_valid,
            .snapshot_refused = synced.result == venue::SyncResult::SnapshotRefused,
            .fault = synced.fault,
            .reason = synced.reason,
            .tsc_book = tsc_now()};
  if (!synced.event_applied) [[unlikely]]
    return on_no_event(step, synced);

  if (synced.became_valid) [[unlikely]]
    begin_epoch(before_);
  const features::TopOfBook top = read_top();
  const bool top_changed = rows_.on_book(top);
  // To become valid is a change, whatever the event said that ended a pause.
  step.row = emit({.book = book_.changes() != book_changes_ || synced.became_valid,
                   .top = top_changed || synced.became_valid});
  book_changes_ = book_.changes();
  return step;
}

/// At the end of an event of a valid book.
bool InstrumentPipeline::emit(const RowBuilder::Happened& happened) noexcept {
  if (awaits_trades()) [[unlikely]]
    return withhold(happened);
  const bool row = rows_.emit(happened);
  if (row && sync_.beyond_depth()) [[unlikely]]
    ++rows_beyond_depth_;
  return row;
}

bool InstrumentPipeline::withhold(const RowBuilder::Happened& happened) noexcept {
  if (rows_.fires(happened)) ++rows_awaiting_trades_;
  return false;
}

Step InstrumentPipeline::on_no_event(Step step, const venue::SyncStep& synced) noexcept {
  if (synced.became_valid) {
    // It bridged a snapshot, or showed what was beyond the horizon: it is part of what the epoch begins with.
    begin_epoch(read_top());
  } else if (synced.result == venue::SyncResult::Shallow) {
    const bool top_changed = rows_.follow(read_top());
    if (rows_.fires({.book = book_.changes() != book_changes_, .top = top_changed})) ++rows_beyond_depth_;
  }
  book_changes_ = book_.changes();
  return step;
}

Step InstrumentPipeline::on_trade(const md::Event& event) noexcept {
  trade_step_ = trades_.on_trade(event);
  Step step{.repeated = trade_step_.repeated, .tsc_book = tsc_now()};
  if (step.repeated) [[unlikely]]
    return step;
  rows_.advance_clock(event.ts_event, event.ts_recv);
  if (missing_trades_ == 0 && trade_step_.missing != 0) [[unlikely]]
    short_since_ = event.ts_recv;
  missing_trades_ += trade_step_.missing;
  if (trade_step_.anew) [[unlikely]]
    missing_from_ = event.trade.id;
  // Unless it was missing before the epoch began.
  if (trade_step_.late && event.trade.id > missing_from_) [[unlikely]]
    missing_trades_ -= std::min<std::uint64_t>(missing_trades_, 1);
  // What lies between two numberings cannot come late.
  if (trade_step_.anew && trade_step_.missing != 0 && ends_at_trade_gap_) [[unlikely]] {
    Step ended = end_at_trade_gap();
    ended.tsc_book = step.tsc_book;
    return ended;
  }
  if (!event.trade.printable) return step;
  if (sync_.state() != md::BookState::Valid) {
    if (sync_.shallow() && rows_.fires({.trade = true})) ++rows_beyond_depth_;
    return step;
  }
  rows_.on_trade(event.trade);
  step.row = emit({.trade = true});
  return step;
}

Step InstrumentPipeline::end_at_trade_gap() noexcept {
  const venue::SyncStep paused = sync_.pause(md::InvalidReason::TradeGap);
  return {.left_valid = paused.left_valid, .reason = paused.reason};
}

Step InstrumentPipeline::on_snapshot(const md::Event& event) noexcept {
  rows_.advance_clock(event.ts_event, event.ts_recv);
  return on_book(sync_.on_snapshot(event));
}

Step InstrumentPipeline::merge(TsNs ts_recv) noexcept { return on_book(sync_.merge(ts_recv)); }

Step InstrumentPipeline::on_open() noexcept {
  const venue::SyncStep synced = sync_.on_open();
  rows_.forget_clock();  // No row before another epoch, which begins with what comes now.
  return {.left_valid = synced.left_valid, .reason = synced.reason};
}

Step InstrumentPipeline::restart() noexcept {
  const Step step = on_open();
  unblock();
  trades_.forget();
  return step;
}

Step InstrumentPipeline::on_close() noexcept {
  const venue::SyncStep synced = sync_.on_close();
  return {.left_valid = synced.left_valid, .reason = synced.reason};
}

Step InstrumentPipeline::pause() noexcept {
  const venue::SyncStep synced = sync_.pause();
  return {.left_valid = synced.left_valid, .reason = synced.reason};
}

Step InstrumentPipeline::doubt_clock() noexcept {
  const venue::SyncStep synced = sync_.doubt_clock();
  rows_.forget_clock();
  return {.left_valid = synced.left_valid, .reason = synced.reason};
}

Step InstrumentPipeline::block() noexcept {
  const venue::SyncStep synced = sync_.block();
  return {.left_valid = synced.left_valid, .reason = synced.reason};
}

Step InstrumentPipeline::on_damaged(md::InvalidReason reason) noexcept {
  const venue::SyncStep synced = sync_.on_damaged(reason);
  return {.left_valid = synced.left_valid, .reason = synced.reason};
}

}  // namespace tickwire::engine

#include "tickwire/engine/instrument_pipeline.hpp"

#include "tickwire/core/time.hpp"

namespace tickwire::engine {

namespace {

feed::SyncRule rule_of(feed::binance::Market market) noexcept {
  return market == feed::binance::Market::Spot ? feed::SyncRule::Spot : feed::SyncRule::Futures;
}

}  // namespace

InstrumentPipeline::InstrumentPipeline(const FeedConfig& feed, const InstrumentConfig& instrument,
                                       const FeaturesConfig& features, Arena& arena)
    : book_(arena, feed.max_levels),
      sync_(rule_of(feed.market), book_, arena, feed.buffer_events, kMaxEventLevels),
      rows_(features, instrument.qty_decimals, arena) {}

features::TopOfBook InstrumentPipeline::read_top() noexcept {
  const std::size_t bids = book_.top(md::Side::Bid, rows_.bids());
  const std::size_t asks = book_.top(md::Side::Ask, rows_.asks());
  return {rows_.bids().first(bids), rows_.asks().first(asks)};
}

bool InstrumentPipeline::deep_enough(const features::TopOfBook& top) const noexcept {
  // A level that a full book had to drop may be one that the features would count.
  const bool bids = top.bids.size() == rows_.bids().size()
                        ? book_.complete_to(md::Side::Bid, top.bids.back().price)
                        : book_.complete(md::Side::Bid);
  const bool asks = top.asks.size() == rows_.asks().size()
                        ? book_.complete_to(md::Side::Ask, top.asks.back().price)
                        : book_.complete(md::Side::Ask);
  return bids && asks;
}

Step InstrumentPipeline::on_diff(const md::Event& event) noexcept {
  rows_.advance_clock(event.ts_event, event.ts_recv);
  const feed::SyncStep synced = sync_.on_diff(event);
  Step step{.became_valid = synced.became_valid,
            .left_valid = synced.left_valid,
            .reason = synced.reason,
            .tsc_book = tsc_now()};
  if (!synced.event_applied && !synced.became_valid) [[unlikely]]
    return step;

  const features::TopOfBook top = read_top();
  if (!deep_enough(top)) [[unlikely]] {
    const Step lost = on_damaged(md::InvalidReason::Depth);
    step.left_valid = lost.left_valid;
    step.reason = lost.reason;
    return step;
  }
  if (synced.became_valid) [[unlikely]]
    rows_.begin_epoch(top);
  if (!synced.event_applied) [[unlikely]] {
    // It bridged a snapshot, so it is part of what the epoch begins with.
    book_changes_ = book_.changes();
    return step;
  }
  const bool top_changed = rows_.on_book(top);
  // To become valid is a change, whatever the event said that ended a pause.
  step.row = rows_.emit({.book = book_.changes() != book_changes_ || synced.became_valid,
                         .top = top_changed || synced.became_valid});
  book_changes_ = book_.changes();
  return step;
}

Step InstrumentPipeline::on_trade(const md::Event& event) noexcept {
  rows_.advance_clock(event.ts_event, event.ts_recv);
  Step step{.tsc_book = tsc_now()};
  if (sync_.state() != md::BookState::Valid || !event.trade.printable) return step;
  rows_.on_trade(event.trade);
  step.row = rows_.emit({.trade = true});
  return step;
}

Step InstrumentPipeline::on_snapshot(const md::Event& event) noexcept {
  rows_.advance_clock(event.ts_event, event.ts_recv);
  const feed::SyncStep synced = sync_.on_snapshot(event);
  Step step{.became_valid = synced.became_valid,
            .left_valid = synced.left_valid,
            .snapshot_refused = synced.result == feed::SyncResult::SnapshotRefused,
            .reason = synced.reason};
  book_changes_ = book_.changes();
  if (!synced.became_valid) return step;
  const features::TopOfBook top = read_top();
  rows_.begin_epoch(top);
  if (!deep_enough(top)) {
    const Step lost = on_damaged(md::InvalidReason::Depth);
    step.left_valid = lost.left_valid;
    step.reason = lost.reason;
  }
  return step;
}

Step InstrumentPipeline::on_open() noexcept {
  const feed::SyncStep synced = sync_.on_open();
  return {.left_valid = synced.left_valid, .reason = synced.reason};
}

Step InstrumentPipeline::restart() noexcept {
  const Step step = on_open();
  unblock();
  rows_.forget_clock();
  return step;
}

Step InstrumentPipeline::on_close() noexcept {
  const feed::SyncStep synced = sync_.on_close();
  return {.left_valid = synced.left_valid, .reason = synced.reason};
}

Step InstrumentPipeline::pause() noexcept {
  const feed::SyncStep synced = sync_.pause();
  return {.left_valid = synced.left_valid, .reason = synced.reason};
}

Step InstrumentPipeline::block() noexcept {
  const feed::SyncStep synced = sync_.block();
  return {.left_valid = synced.left_valid, .reason = synced.reason};
}

Step InstrumentPipeline::on_damaged(md::InvalidReason reason) noexcept {
  const feed::SyncStep synced = sync_.on_damaged(reason);
  return {.left_valid = synced.left_valid, .reason = synced.reason};
}

}  // namespace tickwire::engine

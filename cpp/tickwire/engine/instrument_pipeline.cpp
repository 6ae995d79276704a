#include "tickwire/engine/instrument_pipeline.hpp"

#include <algorithm>

#include "tickwire/core/time.hpp"

namespace tickwire::engine {

namespace {

constexpr std::array<std::size_t, 8> kSnapshotLimits = {5, 10, 20, 50, 100, 500, 1000, 5000};

feed::SyncRule rule_of(feed::binance::Market market) noexcept {
  return market == feed::binance::Market::Spot ? feed::SyncRule::Spot : feed::SyncRule::Futures;
}

}  // namespace

InstrumentPipeline::InstrumentPipeline(const FeedConfig& feed, const InstrumentConfig& instrument,
                                       const FeaturesConfig& features, Arena& arena)
    : trigger_(features.trigger),
      every_ns_(features.every_ns),
      window_clock_(features.clock),
      book_(arena, feed.max_levels),
      sync_(rule_of(feed.market), book_, arena, feed.buffer_events, kMaxEventLevels),
      features_(features.plan, instrument.qty_decimals, features::FeatureLimits{features.max_event_rate},
                arena),
      history_(features.window_rows, features.plan.outputs.size(), arena) {
  // One level at least, for the Top trigger.
  const std::size_t levels = std::max<std::size_t>(1, features.plan.max_levels());
  top_bids_ = arena.allocate<md::Level>(levels);
  top_asks_ = arena.allocate<md::Level>(levels);
}

void InstrumentPipeline::advance_clock(const md::Event& event) noexcept {
  const TsNs ts = window_clock_ == WindowClock::Recv ? event.ts_recv : event.ts_event;
  // kNoTime is smaller than any time, so a message without a stamp takes the current value.
  clock_ = std::max(clock_, ts);
}

features::TopOfBook InstrumentPipeline::read_top() noexcept {
  const std::size_t bids = book_.top(md::Side::Bid, top_bids_);
  const std::size_t asks = book_.top(md::Side::Ask, top_asks_);
  return {top_bids_.first(bids), top_asks_.first(asks)};
}

void InstrumentPipeline::begin_epoch(const features::TopOfBook& top) noexcept {
  features_.start_epoch(top, clock_);
  history_.clear();
  row_ = 0;
  best_ = {top.bids.empty() ? md::Level{} : top.bids[0], top.asks.empty() ? md::Level{} : top.asks[0]};
  if (trigger_ == Trigger::Every) next_boundary_ = clock_ - clock_ % every_ns_ + every_ns_;
}

bool InstrumentPipeline::deep_enough(const features::TopOfBook& top) const noexcept {
  // A level that a full book had to drop may be one that the features would count.
  const bool bids = top.bids.size() == top_bids_.size()
                        ? book_.complete_to(md::Side::Bid, top.bids.back().price)
                        : book_.complete(md::Side::Bid);
  const bool asks = top.asks.size() == top_asks_.size()
                        ? book_.complete_to(md::Side::Ask, top.asks.back().price)
                        : book_.complete(md::Side::Ask);
  return bids && asks;
}

bool InstrumentPipeline::boundary_passed() noexcept {
  if (clock_ < next_boundary_) return false;
  next_boundary_ = clock_ - clock_ % every_ns_ + every_ns_;
  return true;
}

bool InstrumentPipeline::write_row() noexcept {
  if (!features_.warm(clock_)) return false;
  features_.write_row(clock_, history_.next().data());
  history_.commit();
  ++row_;
  return true;
}

Step InstrumentPipeline::on_diff(const md::Event& event) noexcept {
  advance_clock(event);
  const feed::SyncStep synced = sync_.on_diff(event);
  Step step{.became_valid = synced.became_valid,
            .left_valid = synced.left_valid,
            .reason = synced.reason,
            .tsc_book = tsc_now()};
  if (!synced.event_applied) [[unlikely]]
    return step;

  const features::TopOfBook top = read_top();
  if (!deep_enough(top)) [[unlikely]] {
    const Step lost = on_damaged(md::InvalidReason::Depth);
    step.left_valid = lost.left_valid;
    step.reason = lost.reason;
    return step;
  }
  if (synced.became_valid) [[unlikely]]
    begin_epoch(top);
  features_.on_book(top, clock_);

  const Best best{top.bids.empty() ? md::Level{} : top.bids[0], top.asks.empty() ? md::Level{} : top.asks[0]};
  bool fires = false;
  switch (trigger_) {
    // To become valid is a change, whatever the bridging event said.
    case Trigger::Book: fires = book_.changes() != book_changes_ || synced.became_valid; break;
    case Trigger::Top: fires = best != best_ || synced.became_valid; break;
    case Trigger::Trade: break;
    case Trigger::Every: fires = boundary_passed(); break;
  }
  best_ = best;
  book_changes_ = book_.changes();
  step.row = fires && write_row();
  return step;
}

Step InstrumentPipeline::on_trade(const md::Event& event) noexcept {
  advance_clock(event);
  Step step{.tsc_book = tsc_now()};
  if (sync_.state() != md::BookState::Valid || !event.trade.printable) return step;
  features_.on_trade(event.trade, clock_);
  const bool fires = trigger_ == Trigger::Trade || (trigger_ == Trigger::Every && boundary_passed());
  step.row = fires && write_row();
  return step;
}

Step InstrumentPipeline::on_snapshot(const md::Event& event) noexcept {
  advance_clock(event);
  const feed::SyncStep synced = sync_.on_snapshot(event);
  Step step{.became_valid = synced.became_valid,
            .left_valid = synced.left_valid,
            .snapshot_refused = synced.result == feed::SyncResult::SnapshotRefused,
            .reason = synced.reason};
  book_changes_ = book_.changes();
  if (!synced.became_valid) return step;
  const features::TopOfBook top = read_top();
  begin_epoch(top);
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

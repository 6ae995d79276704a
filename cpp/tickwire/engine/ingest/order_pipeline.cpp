#include "tickwire/engine/ingest/order_pipeline.hpp"

#include "tickwire/core/time.hpp"

namespace tickwire::engine {

using md::BookState;

features::TopOfBook OrderPipeline::read_top() noexcept {
  const std::size_t bids = market_.books().top(instrument_, md::Side::Bid, rows_.bids());
  const std::size_t asks = market_.books().top(instrument_, md::Side::Ask, rows_.asks());
  return {rows_.bids().first(bids), rows_.asks().first(asks)};
}

Step OrderPipeline::take_state() noexcept {
  const BookState before = state_;
  const bool blocked = blocked_ != md::InvalidReason::None;
  state_ = blocked ? BookState::Empty : market_.state(instrument_);
  const bool doubted = state_ == BookState::Valid && clock_doubted_;
  if (doubted) state_ = BookState::Suspect;
  Step step;
  if (state_ == BookState::Valid && before != BookState::Valid) {
    step.became_valid = true;
    ++epoch_;
    begin_ = read_top();
    begins_ = true;
  } else if (state_ != BookState::Valid && before == BookState::Valid) {
    step.left_valid = true;
    step.reason = blocked ? blocked_ : doubted ? md::InvalidReason::Clock : market_.reason(instrument_);
  }
  return step;
}

Step OrderPipeline::on_update(const venue::itch::Update& update, TsNs ts_event, TsNs ts_recv,
                              std::uint64_t sequence) noexcept {
  if (update.anew) [[unlikely]]
    rows_.forget_clock();
  rows_.advance_clock(ts_event, ts_recv);
  sequence_ = sequence;
  Step step;
  if (update.state) [[unlikely]]
    step = take_state();
  step.tsc_book = tsc_now();
  if (state_ != BookState::Valid) return step;
  if (begins_) [[unlikely]] {
    begins_ = false;
    rows_.begin_epoch(begin_);
    // A message that ends a halt or a cross is part of what the epoch begins with.
    if (step.became_valid) return step;
  }

  if (update.arrived || update.cancelled) rows_.on_orders(update.arrived ? 1 : 0, update.cancelled ? 1 : 0);
  if (update.traded) rows_.on_trade(update.trade);
  bool top_changed = false;
  if (update.book) top_changed = rows_.on_book(read_top());
  if (update.book || update.traded) {
    step.row = rows_.emit({.book = update.book, .top = top_changed, .trade = update.traded});
  }
  return step;
}

}  // namespace tickwire::engine

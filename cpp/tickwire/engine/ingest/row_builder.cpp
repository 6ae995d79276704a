#include "tickwire/engine/ingest/row_builder.hpp"

#include <algorithm>

namespace tickwire::engine {

RowBuilder::RowBuilder(const FeaturesConfig& features, int qty_decimals, Arena& arena)
    : trigger_(features.trigger),
      every_ns_(features.every_ns),
      window_clock_(features.clock),
      features_(features.plan, qty_decimals, features::FeatureLimits{features.max_event_rate}, arena),
      history_(features.window_rows, features.plan.outputs.size(), arena) {
  // One level at least, for the Top trigger.
  const std::size_t levels = std::max<std::size_t>(1, features.plan.max_levels());
  top_bids_ = arena.allocate<md::Level>(levels);
  top_asks_ = arena.allocate<md::Level>(levels);
}

void RowBuilder::advance_clock(TsNs ts_event, TsNs ts_recv) noexcept {
  // kNoTime is smaller than any time, so a message without a stamp takes the current value.
  clock_ = std::max(clock_, window_clock_ == WindowClock::Recv ? ts_recv : ts_event);
}

RowBuilder::Best RowBuilder::best_of(const features::TopOfBook& top) noexcept {
  return {top.bids.empty() ? md::Level{} : top.bids[0], top.asks.empty() ? md::Level{} : top.asks[0]};
}

void RowBuilder::begin_epoch(const features::TopOfBook& top) noexcept {
  features_.start_epoch(top, clock_);
  history_.clear();
  row_ = 0;
  best_ = best_of(top);
  if (trigger_ == Trigger::Every) next_boundary_ = clock_ - clock_ % every_ns_ + every_ns_;
}

bool RowBuilder::boundary_passed() noexcept {
  // No epoch has begun yet.
  if (next_boundary_ == 0) next_boundary_ = clock_ - clock_ % every_ns_ + every_ns_;
  if (clock_ < next_boundary_) return false;
  next_boundary_ = clock_ - clock_ % every_ns_ + every_ns_;
  return true;
}

bool RowBuilder::write_row() noexcept {
  if (!features_.warm(clock_)) return false;
  features_.write_row(clock_, history_.next().data());
  history_.commit();
  ++row_;
  return true;
}

bool RowBuilder::on_book(const features::TopOfBook& top) noexcept {
  features_.on_book(top, clock_);
  return follow(top);
}

bool RowBuilder::follow(const features::TopOfBook& top) noexcept {
  const Best best = best_of(top);
  const bool changed = best != best_;
  best_ = best;
  return changed;
}

bool RowBuilder::fires(const Happened& happened) noexcept {
  switch (trigger_) {
    case Trigger::Book: return happened.book;
    case Trigger::Top: return happened.top;
    case Trigger::Trade: return happened.trade;
    case Trigger::Every: return boundary_passed();
  }
  return false;
}

}  // namespace tickwire::engine

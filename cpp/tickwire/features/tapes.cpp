#include "tickwire/features/tapes.hpp"

#include <algorithm>
#include <utility>

namespace tickwire::features {

namespace {

void copy_padded(std::span<const md::Level> from, std::span<md::Level> to,
                 const md::Level& padding) noexcept {
  const std::size_t count = std::min(from.size(), to.size());
  std::copy_n(from.begin(), count, to.begin());
  std::fill(to.begin() + static_cast<std::ptrdiff_t>(count), to.end(), padding);
}

Int128 flow_of_level(const md::Level& bid, const md::Level& bid_before, const md::Level& ask,
                     const md::Level& ask_before) noexcept {
  Int128 flow = 0;
  if (bid.price >= bid_before.price) flow += bid.qty;
  if (bid.price <= bid_before.price) flow -= bid_before.qty;
  if (ask.price <= ask_before.price) flow -= ask.qty;
  if (ask.price >= ask_before.price) flow += ask_before.qty;
  return flow;
}

}  // namespace

void BookTape::take(const TopOfBook& top) noexcept {
  copy_padded(top.bids, bids, kNoBid);
  copy_padded(top.asks, asks, kNoAsk);
  mid = 0;
  if (!top.bids.empty() && !top.asks.empty()) {
    const Int128 sum = Int128{bids[0].price} + asks[0].price;
    if (sum > 0) mid = static_cast<std::uint64_t>(sum);
  }
}

void BookTape::start(const TopOfBook& top, TsNs t) noexcept {
  take(top);
  timeline.newest = 0;
  timeline.ts[0] = t;
  last_nan_return = last_move = 0;
  if (!mids.slots.empty()) mids[0] = mid;
}

void BookTape::push(const TopOfBook& top, TsNs t) noexcept {
  if (!flows.empty()) {
    std::swap(bids, bids_before);
    std::swap(asks, asks_before);
  }
  const std::uint64_t mid_before = mid;
  take(top);
  const std::uint64_t number = ++timeline.newest;
  timeline.ts[number] = t;
  if (!mids.slots.empty()) mids[number] = mid;
  if (!squared_returns.slots.empty()) {
    const double change = log_ratio(mid, mid_before);
    squared_returns[number] = change * change;
    if (change != change) last_nan_return = number;
    if (change != 0.0) last_move = number;
  }
  if (!flows.empty()) push_flow();
}

void BookTape::push_flow() noexcept {
  Int128 flow = 0;
  std::uint32_t level = 0;
  for (OrderFlow& series : flows) {
    for (; level < series.levels; ++level) {
      flow += flow_of_level(bids[level], bids_before[level], asks[level], asks_before[level]);
    }
    series.flow[timeline.newest] = flow;
  }
}

}  // namespace tickwire::features

#pragma once

/// What the kernels of an instrument read: the series that events make, each kept once, however many windows
/// look at it.

#include <cstdint>
#include <limits>
#include <span>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/exact_math.hpp"
#include "tickwire/features/rolling.hpp"
#include "tickwire/md/event.hpp"

namespace tickwire::features {

/// The best levels of a book, best first.
struct TopOfBook {
  std::span<const md::Level> bids;
  std::span<const md::Level> asks;
};

/// Order flow of each book event over the best `levels` levels, shared by all windows over it.
struct OrderFlow {
  std::uint32_t levels;
  Ring<Int128> flow;
};

/// What the kernels of the book read: the best levels now and before the last event, and the series
/// made of them. Entry 0 of the timeline is the state of the book that the epoch started with.
struct BookTape {
  Timeline timeline;
  std::span<md::Level> bids;         // Padded with kNoBid where the book has fewer levels.
  std::span<md::Level> asks;         // Padded with kNoAsk.
  std::span<md::Level> bids_before;  // Empty when nothing needs it.
  std::span<md::Level> asks_before;
  Ring<std::uint64_t> mids;      // No slots when nothing needs it; likewise the next.
  Ring<double> squared_returns;  // log(mid_i / mid_{i-1})², from entry 1.
  std::uint64_t last_nan_return = 0;
  std::uint64_t last_move = 0;  // The last entry whose return is not 0.
  std::span<OrderFlow> flows;   // By levels, ascending.
  std::uint64_t mid = 0;        // Twice the mid, bid plus ask; 0 where a side is empty.

  // A missing level is a quantity of 0 at a price that any price improves upon.
  static constexpr md::Level kNoBid{std::numeric_limits<std::int64_t>::min(), 0};
  static constexpr md::Level kNoAsk{std::numeric_limits<std::int64_t>::max(), 0};

  void start(const TopOfBook& top, TsNs t) noexcept TICKWIRE_HOT;
  void push(const TopOfBook& top, TsNs t) noexcept TICKWIRE_HOT;

 private:
  void take(const TopOfBook& top) noexcept TICKWIRE_HOT;
  void push_flow() noexcept TICKWIRE_HOT;
};

struct TradeEntry {
  std::int64_t price;
  std::int64_t qty;
  std::int64_t signed_qty;  // Buyer-initiated positive; 0 where nobody knows.
};

/// The printable trades, numbered from 1.
struct TradeTape {
  Timeline timeline;
  Ring<TradeEntry> trades;
};

}  // namespace tickwire::features

#pragma once

/// One instrument of a feed by price: its pipeline, what came of it, and its counters. A part of its feed,
/// on the thread of the ingest agent.

#include <cstdint>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/ingest/bare_books.hpp"
#include "tickwire/engine/ingest/instrument_pipeline.hpp"
#include "tickwire/engine/ingest/lane_counters.hpp"
#include "tickwire/metrics/counter_scope.hpp"
#include "tickwire/venue/trade_sequence.hpp"

namespace tickwire::engine {

struct PriceLane {
  PriceLane(InstrumentId id_, InstrumentId local_, const FeedConfig& feed, const InstrumentConfig& instrument,
            const FeaturesConfig& features, metrics::StatFile& stats, Arena& arena)
      : id(id_),
        local(local_),
        pipeline(feed, instrument, features, arena),
        of{stats, feed.name + "/" + instrument.symbol} {}

  const InstrumentId id;     // The engine's.
  const InstrumentId local;  // The feed's: its place among the feed's instruments.
  InstrumentPipeline pipeline;
  // Newest of each kind since its connection came up; which connection brought it does not matter.
  std::uint64_t diff_id = 0;
  std::uint64_t trade_id = 0;
  std::uint64_t quote_id = 0;
  std::uint64_t counted_from = 0;  // Of a warm capture: what is missing of these trades was not counted here.
  venue::OldIds old_quotes;
  TsNs fresh = 0;             // ts_recv of the newest diff, or of what made the book valid …
  std::int64_t fresh_ns = 0;  // … and when that came, on the clock that nobody sets.
  bool damaged = false;       // It left valid for a message that could not be used, and is not back.

  /// Of a capture: what no stream's name tells. A replay finds it out before the first line.
  struct Unnamed {
    std::uint32_t partial = 0;  // Its messages are partial books of so many levels.
    std::uint32_t refused = 0;  // Messages of so many levels a side are partial books beside changes.
    bool bare_partial = false;  // Bare snapshot lines are partial books.
    BareBooks bare_books;
  };
  Unnamed unnamed;

  metrics::CounterScope of;
  LaneCounters counters{of};
  metrics::Counter& heard = of("heard");  // 1: something of it came since the connection was opened.
  metrics::Counter& levels_dropped = of("levels_dropped");
  metrics::Counter& rows_beyond_depth = of("rows_beyond_depth");
  metrics::Counter& rows_awaiting_trades = of("rows_awaiting_trades");
};

}  // namespace tickwire::engine

#pragma once

/// What a feed by order counts, once in one list; of the feed's, which scope they are in, and of each of its
/// lines. Written by the thread of the ingest agent that has the feed.

#include <cstddef>
#include <cstdint>

#include "tickwire/metrics/counter_scope.hpp"

namespace tickwire::engine {

struct OrderCounters {
  metrics::CounterScope of;

  metrics::Counter& messages = of("messages");
  metrics::Counter& bytes = of("message_bytes");
  metrics::Counter& book_events = of("book_events");
  metrics::Counter& trades = of("trades");
  metrics::Counter& others = of("other_instruments");
  metrics::Counter& unknown_type = of("unknown_type");
  metrics::Counter& malformed = of("malformed");
  metrics::Counter& unknown_order = of("unknown_order");
  metrics::Counter& duplicate_order = of("duplicate_order");
  metrics::Counter& other_book = of("other_book");
  metrics::Counter& bad_qty = of("bad_qty");
  metrics::Counter& other_stock = of("other_stock");
  metrics::Counter& locate_moved = of("locate_moved");
  metrics::Counter& unnamed_locate = of("unnamed_locate");
  metrics::Counter& orders_full = of("orders_full");
  metrics::Counter& levels_full = of("levels_full");
  metrics::Counter& crossed = of("crossed");
  metrics::Counter& gaps = of("gaps");
  metrics::Counter& left_valid = of("left_valid");
  metrics::Counter& became_valid = of("became_valid");
  metrics::Counter& orders = of("live_orders");
  metrics::Counter& truncated = of("capture_truncated");
  metrics::Counter& clock_leaps = of("clock_leaps");  // Stamps that are not to be gone by: see StampWatch.
  metrics::Counter& stamps_capped = of("stamps_capped");  // Live: those that were ahead of their reading.
  metrics::Counter& input_ts = of("input_ts");            // Replay: when what was read last was received.
  metrics::Counter& sequence_gaps = of("sequence_gaps");
  metrics::Counter& lost_messages = of("lost_messages");
  metrics::Counter& requests = of("requests");
  metrics::Counter& request_timeouts = of("request_timeouts");
  metrics::Counter& requested_messages = of("requested_messages");
  metrics::Counter& snapshots = of("snapshots");
  metrics::Counter& snapshots_failed = of("snapshots_failed");
  metrics::Counter& snapshots_too_old = of("snapshots_too_old");
  metrics::Counter& sessions = of("sessions");
  metrics::Counter& other_session = of("other_session");
  metrics::Counter& window_full = of("window_full");
  metrics::Counter& implausible_datagrams = of("implausible_datagrams");
  metrics::Counter& malformed_datagrams = of("malformed_datagrams");
  metrics::Counter& other_groups = of("other_groups");
  metrics::Counter& packets_cut = of("packets_cut");
  metrics::Counter& lines_silent = of("lines_silent");
};

/// Of one line, or of the re-request server.
struct LineCounters {
  metrics::CounterScope of;

  metrics::Counter& datagrams = of("line_datagrams");
  metrics::Counter& received = of("line_received");
  metrics::Counter& won = of("line_won");
  metrics::Counter& duplicate = of("line_duplicate");
  metrics::Counter& late = of("line_late");
  metrics::Counter& gap = of("line_gap");
  metrics::Counter& overtaken = of("line_overtaken");
  metrics::Counter& heartbeats = of("line_heartbeats");
  metrics::Counter& socket_drops = of("socket_drops");
  metrics::Counter& cut = of("datagrams_cut");
  metrics::Counter& receive_errors = of("receive_errors");

  std::uint64_t errors_seen = 0;
  bool silent = false;
};

/// As many as the list has, which is references behind its scope.
inline constexpr std::size_t kOrderCounters =
    (sizeof(OrderCounters) - sizeof(metrics::CounterScope)) / sizeof(metrics::Counter*);

}  // namespace tickwire::engine

#pragma once

/// What a feed by price counts, once in one list; of the feed's, which scope they are in. A counter has one
/// writer, the thread of the ingest agent that has the feed: the feed itself, or one of those that work for
/// it there, the snapshot desk, a warm start and a replay.

#include <array>
#include <cstddef>

#include "tickwire/metrics/counter_scope.hpp"
#include "tickwire/venue/book_sync.hpp"

namespace tickwire::engine {

struct PriceCounters {
  metrics::CounterScope of;

  metrics::Counter& messages = of("messages");
  metrics::Counter& bytes = of("message_bytes");
  metrics::Counter& book_events = of("book_events");
  metrics::Counter& trades = of("trades");
  metrics::Counter& quotes = of("quotes");
  metrics::Counter& ignored = of("ignored");
  metrics::Counter& other_trades = of("other_trade_stream");
  metrics::Counter& unknown_symbol = of("unknown_symbol");
  metrics::Counter& malformed = of("malformed");
  metrics::Counter& bad_number = of("bad_number");
  metrics::Counter& too_many_levels = of("too_many_levels");
  metrics::Counter& partial_books = of("partial_books");
  metrics::Counter& partial_refused = of("partial_books_refused");  // Beside a stream of changes.
  metrics::Counter& other_streams = of("other_streams");
  metrics::Counter& other_symbol = of("other_symbol");  // The stream's name is another instrument's.
  metrics::Counter& subscribe_errors = of("subscribe_errors");
  metrics::Counter& clock_leaps = of("clock_leaps");  // Stamps that are not to be gone by: see StampWatch.
  metrics::Counter& stamps_capped = of("stamps_capped");  // The kernel's that were ahead of their reading.
  metrics::Counter& shutdown_notices = of("shutdown_notices");
  metrics::Counter& gaps = of("gaps");
  metrics::Counter& crossed = of("crossed");
  metrics::Counter& old_events = of("old_events");
  metrics::Counter& old_trades = of("old_trades");
  metrics::Counter& old_quotes = of("old_quotes");
  metrics::Counter& late_trades = of("late_trades");        // Came behind trades with greater ids.
  metrics::Counter& trade_gaps = of("trade_gaps");          // Holes in the trades' ids …
  metrics::Counter& missing_trades = of("missing_trades");  // … and how many trades they are, less late ones.
  metrics::Counter& left_valid = of("left_valid");
  metrics::Counter& became_valid = of("became_valid");
  metrics::Counter& books_damaged = of("books_damaged");    // Left valid for a message that was unusable …
  metrics::Counter& books_resynced = of("books_resynced");  // … and those of them that came back.
  metrics::Counter& snapshots = of("snapshots");
  metrics::Counter& snapshots_refused = of("snapshots_refused");
  std::array<metrics::Counter*, venue::kSnapshotFaults> snapshots_by_fault{
      // Of these.
      &of("snapshots_misfit"),   &of("snapshots_empty"),    &of("snapshots_one_sided"),
      &of("snapshots_crossed"),  &of("snapshots_unsorted"), &of("snapshots_duplicate"),
      &of("snapshots_too_long"),
  };
  metrics::Counter& snapshots_merged = of("snapshots_merged");
  metrics::Counter& snapshots_contradicted = of("snapshots_contradicted");
  metrics::Counter& ids_went_back = of("ids_went_back");
  metrics::Counter& snapshots_expired = of("snapshots_expired");
  metrics::Counter& snapshots_waiting = of("snapshots_waiting");  // At this moment: ahead of all events.
  // The snapshot desk's.
  metrics::Counter& snapshots_failed = of("snapshots_failed");
  metrics::Counter& snapshot_requests = of("snapshot_requests");
  metrics::Counter& snapshots_given_up = of("snapshots_given_up");
  // Of the connections.
  metrics::Counter& connects = of("connects");
  metrics::Counter& disconnects = of("disconnects");
  metrics::Counter& connect_failures = of("connect_failures");
  metrics::Counter& timeouts = of("timeouts");              // Of a look-up, an attempt to connect, a close.
  metrics::Counter& connections_up = of("connections_up");  // Now: subscribed, and something has come.
  metrics::Counter& handovers = of("handovers");
  metrics::Counter& silent = of("connections_silent");
  metrics::Counter& stale = of("data_stale");
  metrics::Counter& pings = of("pings");
  metrics::Counter& protocol_errors = of("protocol_errors");
  // Of captures.
  metrics::Counter& warm_messages = of("warm_messages");  // Before the first that may give a row.
  metrics::Counter& warm_repeats = of("warm_repeats");    // Of those, what had come before or was old.
  metrics::Counter& lines_skipped = of("capture_lines_skipped");
  metrics::Counter& truncated = of("capture_truncated");
  metrics::Counter& input_ts = of("input_ts");  // A replay's: when what is read next was received.
};

/// As many as the list has, which is references and pointers behind its scope.
inline constexpr std::size_t kPriceCounters =
    (sizeof(PriceCounters) - sizeof(metrics::CounterScope)) / sizeof(metrics::Counter*);

}  // namespace tickwire::engine

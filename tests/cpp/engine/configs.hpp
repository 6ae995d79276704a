#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tickwire/engine/config.hpp"

/// Configurations with defaults; a test changes what it is about.
namespace tickwire::engine::test {

/// Rows with each change of the book: the imbalance of the best `levels`.
inline FeaturesConfig features_config(std::uint32_t levels = 1) {
  return {.trigger = Trigger::Book,
          .every_ns = 0,
          .clock = WindowClock::Recv,
          .window_rows = 1,
          .max_event_rate = 100,
          .trade_gaps = TradeGaps::Count,
          .accept_beyond_depth = false,
          .max_age_ns = 0,
          .plan = {.nodes = {{features::find_kernel("imbalance"), -1, levels, 0, 0, 0, 0}}, .outputs = {0}}};
}

/// One worker that scores all rows, one at a time; without members, for a model of the test's own.
inline ModelConfig model_config(const std::string& name = "m", std::uint32_t id = 1,
                                std::vector<ModelMember> members = {}) {
  return {.name = name,
          .members = std::move(members),
          .id = id,
          .ort_library = "",
          .cache_dir = "",
          .provider = "cpu",
          .workers = 1,
          .cores = {},
          .assign = Assign::Instrument,
          .max_batch = 1,
          .max_age_ns = 0,
          .queue_slots = 64,
          .policy = QueuePolicy::Every,
          .queue_limit = 8,
          .shadow = false,
          .start_timeout_ns = 120'000'000'000};
}

/// Of USD-M; prices and quantities are whole numbers. Small, with pauses of a millisecond.
inline FeedConfig price_feed(const std::string& name, const std::vector<std::string>& symbols,
                             std::vector<std::string> inputs) {
  FeedConfig feed{};
  feed.name = name;
  feed.market = venue::binance::Market::UsdM;
  feed.trades = venue::binance::TradeStream::Trade;
  feed.inputs = std::move(inputs);
  for (const std::string& symbol : symbols) feed.instruments.push_back({symbol, 0, 0});
  feed.core = -1;
  feed.snapshot_retries = 2;
  feed.snapshot_backoff_ns = 1'000'000;
  feed.snapshot_limit = 1000;
  feed.max_levels = 64;
  feed.max_frame_bytes = 1U << 16U;
  feed.buffer_events = 64;
  feed.reconnect_min_ns = 1'000'000;
  feed.reconnect_max_ns = 1'000'000;
  return feed;
}

/// Without models.
inline EngineConfig engine_config(std::vector<FeedConfig> feeds, bool replay) {
  return {.layout = Layout::Threads,
          .idle = concurrent::IdleKind::Backoff,
          .huge_pages = HugePages::Off,
          .lock = LockMemory::Off,
          .output_slots = 4096,
          .stat_path = "",
          .replay = replay,
          .record_dir = "",
          .record_sync_ns = 0,
          .feeds = std::move(feeds),
          .features = features_config(),
          .models = {},
          .worker_program = ""};
}

}  // namespace tickwire::engine::test

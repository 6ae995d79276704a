#include <benchmark/benchmark.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "market.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/engine/ingest/instrument_pipeline.hpp"
#include "tickwire/md/instrument.hpp"
#include "tickwire/venue/binance/decoder.hpp"

/// What one thread does with a message between the socket and the model: decode, sequence check, book,
/// kernels, row. By the number of levels a side that the message changes.
namespace tickwire::engine {
namespace {

constexpr std::size_t kMessages = 4096;
constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kStart = 1'700'000'000 * kSecond;
constexpr std::int64_t kStepNs = 1'000'000;

FeaturesConfig features_config() {
  return {.trigger = Trigger::Book,
          .every_ns = 0,
          .clock = WindowClock::Recv,
          .window_rows = 1,
          .max_event_rate = 2000,
          .trade_gaps = TradeGaps::Count,
          .accept_beyond_depth = false,
          .max_age_ns = 0,
          .plan = {.nodes = {{features::find_kernel("imbalance"), -1, 5, 0, 0, 0, 0},
                             {features::find_kernel("microprice_offset"), -1, 0, 0, 0, 0, 0},
                             {features::find_kernel("ofi"), -1, 5, kSecond, 0, 0, 0},
                             {features::find_kernel("zscore"), 2, 0, 10 * kSecond, 0, 0, 0}},
                   .outputs = {0, 1, 3}}};
}

FeedConfig feed_config() {
  FeedConfig config{};
  config.name = "spot";
  config.market = venue::binance::Market::Spot;
  config.max_levels = 1024;
  config.max_frame_bytes = 1U << 20U;
  config.buffer_events = 16;
  return config;
}

void MessageToRow(benchmark::State& state) {
  bench::SyntheticBook market({.market = bench::Market::Spot,
                               .symbol = "BTCUSDT",
                               .levels = static_cast<std::size_t>(state.range(0)),
                               .seed = 1});
  std::string snapshot;
  market.snapshot(snapshot, 0);
  std::vector<std::string> messages;
  for (std::size_t i = 0; i < kMessages; ++i) {
    std::string message;
    market.next(message, 1'700'000'000'000);
    message.reserve(message.size() + venue::binance::Decoder::kPaddingBytes);
    messages.push_back(std::move(message));
  }
  snapshot.reserve(snapshot.size() + venue::binance::Decoder::kPaddingBytes);

  md::InstrumentTable table;
  table.add({"BTCUSDT", "spot", 8, 8});
  const FeedConfig feed = feed_config();
  venue::binance::Decoder decoder(table, {*feed.market, feed.trades, feed.max_frame_bytes, feed.max_levels});
  Arena arena;
  const FeaturesConfig features = features_config();
  InstrumentPipeline pipeline(feed, {"BTCUSDT", 8, 8}, features, arena);

  md::Event event{};
  TsNs ts = kStart;
  std::size_t next = kMessages;
  for (auto _ : state) {
    if (next == kMessages) [[unlikely]] {
      // The same messages again, from the same snapshot: a new epoch whose windows fill anew.
      state.PauseTiming();
      pipeline.on_open();
      if (decoder.decode_snapshot(snapshot, 0, RecvClock::Read, ts, event) !=
          venue::binance::Outcome::Event) {
        throw std::runtime_error("the snapshot is refused");
      }
      pipeline.on_snapshot(event);
      next = 0;
      state.ResumeTiming();
    }
    ts += kStepNs;
    if (decoder.decode(messages[next++], RecvClock::Read, ts, event) != venue::binance::Outcome::Event) {
      throw std::runtime_error("a message is refused");
    }
    benchmark::DoNotOptimize(pipeline.on_diff(event));
  }
  if (pipeline.state() != md::BookState::Valid) throw std::runtime_error("the book is not valid");
}
BENCHMARK(MessageToRow)->Arg(1)->Arg(5)->Arg(20)->Arg(50);

}  // namespace
}  // namespace tickwire::engine

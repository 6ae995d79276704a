// What a level update costs in the book, beside the same updates in two std::map, and what decoding a
// diff costs. Fed by recordings where they are there (TICKWIRE_DATA, else ../shared/data beside the
// repository), all levels decoded before the clock starts; the benchmark of a recording that is missing
// says so.
//
// The numbers behind a benchmark's name: which recording, how many levels a side are read after each
// event; of decoding, whether the scanner is on.

#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tickwire/core/arena.hpp"
#include "tickwire/md/capture.hpp"
#include "tickwire/md/instrument.hpp"
#include "tickwire/md/price_book.hpp"
#include "tickwire/venue/binance/decoder.hpp"

namespace tickwire {
namespace {

using md::Level;
using md::Side;
using venue::binance::Decoder;
using venue::binance::Market;

struct Source {
  const char* file;
  Market market;
  const char* symbol;
  int price_decimals;
  int qty_decimals;
};
constexpr std::array kSources{
    Source{"spot_btcusdt_20240808.log.gz", Market::Spot, "BTCUSDT", 2, 8},
    Source{"usdm_btcusdt_20240808.log.gz", Market::UsdM, "BTCUSDT", 2, 3},
    Source{"coinm_btcusd_perp_20240808.log.gz", Market::CoinM, "BTCUSD_PERP", 1, 0},
};

struct Update {
  Side side;
  Level level;
};
struct Recording {
  std::vector<Update> snapshot;
  std::vector<Update> updates;
  std::vector<std::size_t> event_ends;  // Into updates.
  std::vector<std::string> diffs;       // The messages, each with the decoder's padding.
  std::size_t message_bytes = 0;
};

struct Reader {
  explicit Reader(const Source& source_, bool scan = true) : source(source_) {
    table.add({source.symbol, "binance", source.price_decimals, source.qty_decimals});
    decoder = std::make_unique<Decoder>(
        table, venue::binance::DecoderConfig{source.market, venue::binance::TradeStream::Trade, 1U << 20U,
                                             5000, scan});
  }
  const Source& source;
  md::InstrumentTable table;
  std::unique_ptr<Decoder> decoder;
};

const Recording* recording(std::size_t index, benchmark::State& state) {
  static std::array<std::unique_ptr<Recording>, kSources.size()> cache;
  state.SetLabel(kSources[index].file);
  if (cache[index] != nullptr) return cache[index].get();
  const char* const root = std::getenv("TICKWIRE_DATA");
  const std::filesystem::path path =
      (root != nullptr ? std::filesystem::path(root)
                       : std::filesystem::path(__FILE__).parent_path() / "../../../../shared/data") /
      "binance" / kSources[index].file;
  if (!std::filesystem::exists(path)) {
    state.SkipWithError("no recorded data");
    return nullptr;
  }
  auto out = std::make_unique<Recording>();
  Reader reader(kSources[index]);
  const auto add = [](std::vector<Update>& to, const md::Event& event) {
    for (const Level& level : event.bids) to.push_back({Side::Bid, level});
    for (const Level& level : event.asks) to.push_back({Side::Ask, level});
  };
  md::CaptureReader capture({path.string()});
  while (const md::CaptureLine* line = capture.next()) {
    md::Event event;
    if (line->kind == md::CaptureKind::BareSnapshot) {
      if (reader.decoder->decode_snapshot(line->body, 0, RecvClock::Recorded, line->ts_recv, event) ==
          venue::binance::Outcome::Event) {
        add(out->snapshot, event);
      }
    } else if (!out->snapshot.empty() &&
               reader.decoder->decode(line->body, RecvClock::Recorded, line->ts_recv, event) ==
                   venue::binance::Outcome::Event &&
               event.kind == md::EventKind::BookDiff) {
      add(out->updates, event);
      out->event_ends.push_back(out->updates.size());
      out->diffs.emplace_back(line->body.data(), line->body.size());
      out->diffs.back().append(Decoder::kPaddingBytes, ' ');
      out->message_bytes += line->body.size();
    }
  }
  cache[index] = std::move(out);
  return cache[index].get();
}

class MapBook {
 public:
  void set(Side side, std::int64_t price, std::int64_t qty) {
    if (side == Side::Bid) {
      set_in(bids_, price, qty);
    } else {
      set_in(asks_, price, qty);
    }
  }
  std::size_t top(Side side, std::span<Level> out) const {
    return side == Side::Bid ? top_of(bids_, out) : top_of(asks_, out);
  }
  void clear() {
    bids_.clear();
    asks_.clear();
  }

 private:
  template <typename Map>
  static void set_in(Map& map, std::int64_t price, std::int64_t qty) {
    if (qty == 0) {
      map.erase(price);
    } else {
      map[price] = qty;
    }
  }
  template <typename Map>
  static std::size_t top_of(const Map& map, std::span<Level> out) {
    std::size_t n = 0;
    for (auto level = map.begin(); level != map.end() && n < out.size(); ++level)
      out[n++] = {level->first, level->second};
    return n;
  }
  std::map<std::int64_t, std::int64_t, std::greater<>> bids_;
  std::map<std::int64_t, std::int64_t> asks_;
};

/// Replays a recording's updates; `top` levels a side are read after each event.
template <typename Book>
void replay(Book& book, const Recording& recording, std::size_t top, benchmark::State& state) {
  std::array<Level, 20> levels{};
  const std::span<Level> out(levels.data(), top);
  for (auto _ : state) {
    state.PauseTiming();
    book.clear();
    for (const Update& update : recording.snapshot)
      book.set(update.side, update.level.price, update.level.qty);
    state.ResumeTiming();
    std::size_t i = 0;
    for (const std::size_t end : recording.event_ends) {
      for (; i < end; ++i) {
        const Update& update = recording.updates[i];
        book.set(update.side, update.level.price, update.level.qty);
      }
      if (top != 0) {
        benchmark::DoNotOptimize(book.top(Side::Bid, out));
        benchmark::DoNotOptimize(book.top(Side::Ask, out));
      }
    }
    benchmark::ClobberMemory();
  }
  const auto updates = static_cast<double>(recording.updates.size());
  state.counters["ns/update"] = benchmark::Counter(
      updates * 1e-9, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
  state.counters["levels"] = static_cast<double>(recording.snapshot.size());
}

void UpdatesPriceBook(benchmark::State& state) {
  const Recording* from = recording(static_cast<std::size_t>(state.range(0)), state);
  if (from == nullptr) return;
  Arena arena;
  md::PriceBook book(arena);
  replay(book, *from, static_cast<std::size_t>(state.range(1)), state);
}
void UpdatesStdMap(benchmark::State& state) {
  const Recording* from = recording(static_cast<std::size_t>(state.range(0)), state);
  if (from == nullptr) return;
  MapBook book;
  replay(book, *from, static_cast<std::size_t>(state.range(1)), state);
}
BENCHMARK(UpdatesPriceBook)->ArgsProduct({{0, 1, 2}, {0, 5, 20}});
BENCHMARK(UpdatesStdMap)->ArgsProduct({{0, 1, 2}, {0, 5, 20}});

/// Uniform updates over a book of 5,000 levels a side: the worst that a diff stream could be.
template <typename Book>
void uniform(Book& book, benchmark::State& state) {
  std::uint64_t random = 88172645463325252U;
  const auto next = [&random] {
    random ^= random << 13U;
    random ^= random >> 7U;
    return random ^= random << 17U;
  };
  for (std::int64_t i = 1; i <= 10000; i += 2) {
    book.set(Side::Bid, 20000 - i, 1);
    book.set(Side::Ask, 20000 + i, 1);
  }
  for (auto _ : state) {
    const std::uint64_t r = next();
    const auto away = static_cast<std::int64_t>(1 + (r >> 8U) % 10000);
    const auto qty = static_cast<std::int64_t>(r & 1U);
    if ((r & 2U) != 0) {
      book.set(Side::Bid, 20000 - away, qty);
    } else {
      book.set(Side::Ask, 20000 + away, qty);
    }
  }
}
void UniformPriceBook(benchmark::State& state) {
  Arena arena;
  md::PriceBook book(arena);
  uniform(book, state);
}
void UniformStdMap(benchmark::State& state) {
  MapBook book;
  uniform(book, state);
}
BENCHMARK(UniformPriceBook);
BENCHMARK(UniformStdMap);

void SnapshotPriceBook(benchmark::State& state) {
  Arena arena;
  md::PriceBook book(arena);
  for (auto _ : state) {
    book.clear();
    for (std::int64_t i = 1; i <= 5000; ++i) {
      book.set(Side::Bid, 20000 - i, 1);
      book.set(Side::Ask, 20000 + i, 1);
    }
  }
}
BENCHMARK(SnapshotPriceBook)->Unit(benchmark::kMicrosecond);

void DecodeDiffs(benchmark::State& state) {
  const auto index = static_cast<std::size_t>(state.range(0));
  const Recording* from = recording(index, state);
  if (from == nullptr) return;
  Reader reader(kSources[index], state.range(1) != 0);
  md::Event event;
  for (auto _ : state) {
    for (const std::string& diff : from->diffs) {
      benchmark::DoNotOptimize(reader.decoder->decode({diff.data(), diff.size() - Decoder::kPaddingBytes},
                                                      RecvClock::Recorded, 1, event));
    }
  }
  state.counters["ns/message"] =
      benchmark::Counter(static_cast<double>(from->diffs.size()) * 1e-9,
                         benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
  state.counters["bytes"] =
      static_cast<double>(from->message_bytes) / static_cast<double>(from->diffs.size());
  state.counters["levels"] =
      static_cast<double>(from->updates.size()) / static_cast<double>(from->diffs.size());
}
BENCHMARK(DecodeDiffs)->ArgsProduct({{0, 1, 2}, {0, 1}});

}  // namespace
}  // namespace tickwire

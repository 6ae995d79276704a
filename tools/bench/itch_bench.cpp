// What a whole exchange costs on one core: messages a second of ITCH decoded, with the books by order beside
// it, and with sixteen features and a row on every event. The day is tickwire-bench-itch-day's, all of it
// from its directory on.
//
//     itch_bench --day FILE [--rounds 1] [--instruments 8000] [--feature-instruments 8000]
//
// Time is the thread's own, of the processor. Each round makes its books anew.

#include <time.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "itch_market.hpp"
#include "options.hpp"

namespace {

using namespace tickwire;
using bench::DayFile;
using bench::table_of;
using bench::walk;
using bench::walk_prepared;

/// Of this thread alone: what others do on the machine costs caches but is not counted as time.
double seconds_now() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double seconds_since(double begin) { return seconds_now() - begin; }

void print(const char* what, std::size_t messages, double seconds, const std::string& more) {
  std::printf("%-28s %8.2f M messages/s %7.1f ns each%s\n", what,
              static_cast<double>(messages) / seconds / 1e6, seconds / static_cast<double>(messages) * 1e9,
              more.c_str());
}

void decode_alone(const DayFile& day) {
  venue::itch::Decoder decoder;
  venue::itch::Message message;
  std::uint64_t sum = 0;
  const double begin = seconds_now();
  const std::size_t count = walk(day.bytes(), [&](std::span<const std::byte> bytes) {
    (void)decoder.decode(bytes, message);
    sum += message.ref + message.qty;
  });
  print("decode", count, seconds_since(begin), sum == 0 ? " (nothing)" : "");
}

void decode_and_book(const DayFile& day, const md::InstrumentTable& instruments, std::size_t max_orders) {
  Arena arena;
  venue::itch::Market market(instruments, max_orders, arena);
  std::uint64_t changes = 0;
  const double begin = seconds_now();
  const std::size_t count = walk_prepared(
      day.bytes(), market, [](InstrumentId) {},
      [&](std::span<const std::byte> bytes) { changes += market.on_message(bytes).book ? 1 : 0; });
  const double seconds = seconds_since(begin);
  const md::OrderBooks& books = market.books();
  print("decode + book", count, seconds,
        ", " + std::to_string(changes) + " changes, " + std::to_string(books.orders()) + " live orders");
  const venue::itch::MarketCounts& counts = market.counts();
  if (counts.unknown_order + counts.duplicate_order + counts.orders_full + counts.levels_full != 0) {
    throw std::runtime_error("not every message fitted: the figure means nothing");
  }
  const auto orders = static_cast<double>(books.orders());
  const double cells = static_cast<double>(books.level_cells());
  std::printf(
      "memory: %.1f bytes for each order there is room for; %zu bytes and %.1f levels of 16 bytes an "
      "instrument, %.1f bytes of these a live order\n",
      books.bytes_per_order(), md::OrderBooks::bytes_per_book(),
      cells / static_cast<double>(instruments.size()), 16.0 * cells / orders);
}

void decode_book_and_features(const DayFile& day, std::size_t all, std::size_t ours, std::size_t max_orders) {
  const md::InstrumentTable some = table_of(ours);
  Arena arena;
  venue::itch::Market market(some, max_orders, arena);
  std::vector<std::unique_ptr<engine::OrderPipeline>> pipelines;
  for (InstrumentId i = 0; i < ours; ++i) {
    pipelines.push_back(
        std::make_unique<engine::OrderPipeline>(market, i, 0, bench::rows_on_every_event(), arena));
  }
  std::uint64_t sequence = 0;
  std::uint64_t rows = 0;
  std::uint64_t mine = 0;
  const double begin = seconds_now();
  engine::OrderLookahead lookahead;
  const auto expect = [&](InstrumentId instrument) {
    lookahead.expect(instrument, [&](InstrumentId i) -> engine::OrderPipeline& { return *pipelines[i]; });
  };
  walk_prepared(day.bytes(), market, expect, [&](std::span<const std::byte> bytes) {
    const venue::itch::Update update = market.on_message(bytes);
    ++sequence;
    if (update.instrument == kNoInstrument) return;
    ++mine;
    const auto step = pipelines[update.instrument]->on_update(update, update.ts_ns, update.ts_ns, sequence);
    rows += step.row ? 1 : 0;
  });
  const double seconds = seconds_since(begin);
  std::uint64_t overflows = 0;
  for (const auto& pipeline : pipelines) overflows += pipeline->window_overflows();
  print("decode + book + 16 features", mine, seconds,
        ", " + std::to_string(rows) + " rows of " + std::to_string(ours) + " of " + std::to_string(all) +
            " instruments, " + std::to_string(overflows) + " entries that windows had no room for");
  std::printf("memory: %.1f kB of windows an instrument\n",
              static_cast<double>(arena.report().used_bytes) / static_cast<double>(ours) / 1e3);
}

void run(int argc, char** argv) {
  const bench::Options options(argc, argv, 1,
                               {{"day", ""},
                                {"instruments", "8000"},
                                {"feature-instruments", "8000"},
                                {"max-orders", "4000000"},
                                {"rounds", "1"},
                                {"parts", "decode,book,features"}});
  const DayFile day(options.text("day"));
  const auto instruments = options.number<std::size_t>("instruments");
  const auto ours = std::min(options.number<std::size_t>("feature-instruments"), instruments);
  const auto max_orders = options.number<std::size_t>("max-orders");
  const std::string& parts = options.text("parts");
  const auto wanted = [&](const char* part) { return parts.find(part) != std::string::npos; };
  const md::InstrumentTable table = table_of(instruments);
  for (auto round = options.number<std::size_t>("rounds"); round != 0; --round) {
    if (wanted("decode")) decode_alone(day);
    if (wanted("book")) decode_and_book(day, table, max_orders);
    if (wanted("features")) decode_book_and_features(day, instruments, ours, max_orders);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "itch_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}

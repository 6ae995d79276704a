// What a whole exchange costs on one core: messages a second of ITCH decoded, with the books by order beside
// it, and with sixteen features and a row on every event of every instrument. The day is made up, from a
// seed.
//
//     itch_bench [--messages 4000000] [--instruments 8000] [--live 60] [--seed 1] [--feature-instruments 200]
//
// The day: 46 % adds, 42 % deletes, 5 % replaces, 4 % executions, 2 % partial cancels, 1 % trades against
// hidden orders. Time is the thread's own, of the processor. Instruments are busy by a power law, as a real
// day's are; most orders live among the newest of their instrument, and `live` orders an instrument are in
// the book to begin with, which is not timed.

#include <time.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/engine/order_pipeline.hpp"
#include "tickwire/feed/venue/itch/market.hpp"

namespace {

using namespace tickwire;

struct Options {
  std::size_t messages = 4'000'000;
  std::size_t instruments = 8000;
  std::size_t live = 60;
  std::uint64_t seed = 1;
  std::size_t feature_instruments = 200;
};

/// Length-prefixed messages behind one another, as a day file holds them.
class Day {
 public:
  explicit Day(const Options& options)
      : options_(options), random_(options.seed), stocks_(options.instruments) {
    bytes_.reserve((options.messages + options.live * options.instruments) * 34);
    std::vector<double> weights;
    for (std::size_t i = 0; i < stocks_.size(); ++i) {
      stocks_[i].mid = 50'000 + static_cast<std::uint32_t>(random_() % 3'000'000) / 100 * 100;
      weights.push_back(std::pow(static_cast<double>(i + 1), -0.9));
    }
    busy_ = std::discrete_distribution<std::size_t>(weights.begin(), weights.end());
    for (std::size_t i = 0; i < stocks_.size(); ++i) {
      begin('R', i);
      symbol(i);
      pad(39);
      begin('H', i);
      symbol(i);
      put('T', 1);
      pad(25);
    }
    for (std::size_t n = 0; n < options.live; ++n) {
      for (std::size_t i = 0; i < stocks_.size(); ++i) add(i);
    }
    opening_ = bytes_.size();
    for (std::size_t n = 0; n < options.messages; ++n) step();
  }

  [[nodiscard]] std::span<const std::byte> opening() const { return whole().first(opening_); }
  [[nodiscard]] std::span<const std::byte> day() const {
    return whole().subspan(opening_, bytes_.size() - opening_);
  }
  [[nodiscard]] static std::string name(std::size_t i) {
    std::string text = "S";
    for (std::size_t digit = 10'000; digit != 0; digit /= 10) text += static_cast<char>('0' + i / digit % 10);
    return text;
  }

 private:
  struct Order {
    std::uint64_t ref;
    std::uint32_t qty;
  };
  struct Stock {
    std::uint32_t mid = 0;
    std::array<std::vector<Order>, 2> orders;  // By side.
    std::vector<Order>& of(int side) { return orders[static_cast<std::size_t>(side)]; }
  };

  [[nodiscard]] std::span<const std::byte> whole() const {
    return {reinterpret_cast<const std::byte*>(bytes_.data()), bytes_.size()};
  }

  void put(std::uint64_t value, int bytes) {
    for (int i = bytes - 1; i >= 0; --i) bytes_.push_back(static_cast<unsigned char>(value >> (8 * i)));
  }
  void begin(char type, std::size_t i) {
    start_ = bytes_.size();
    put(0, 2);
    put(static_cast<unsigned char>(type), 1);
    put(i + 1, 2);
    put(0, 2);
    now_ += random_() % 20'000;
    put(34'200'000'000'000 + now_, 6);
  }
  void symbol(std::size_t i) {
    for (const char c : name(i)) put(static_cast<unsigned char>(c), 1);
    while ((bytes_.size() - start_ - 2 - 11) % 8 != 0) put(' ', 1);
  }
  void pad(std::size_t size) {
    while (bytes_.size() - start_ - 2 < size) put(' ', 1);
    end();
  }
  void end() {
    const std::size_t size = bytes_.size() - start_ - 2;
    bytes_[start_] = static_cast<unsigned char>(size >> 8U);
    bytes_[start_ + 1] = static_cast<unsigned char>(size);
  }

  std::uint32_t price(Stock& stock, int side) {
    // Close to the best price mostly, seldom far.
    std::uint32_t away = 1;
    while (away < 200 && random_() % 5 != 0) ++away;
    if (random_() % 64 == 0) away += static_cast<std::uint32_t>(random_() % 400);
    return side == 0 ? stock.mid - std::min(100 * away, stock.mid - 100) : stock.mid + 100 * away;
  }
  void add(std::size_t i) {
    Stock& stock = stocks_[i];
    const int side = static_cast<int>(random_() % 2);
    const Order order{++ref_, 100 * static_cast<std::uint32_t>(1 + random_() % 5)};
    begin('A', i);
    put(order.ref, 8);
    put(side == 0 ? 'B' : 'S', 1);
    put(order.qty, 4);
    put(0x2020202020202020U, 8);
    put(price(stock, side), 4);
    end();
    stock.of(side).push_back(order);
  }
  /// One of the newest, mostly.
  std::size_t pick(const std::vector<Order>& orders) {
    const std::size_t window = random_() % 8 == 0 ? orders.size() : std::min<std::size_t>(orders.size(), 12);
    return orders.size() - 1 - random_() % window;
  }
  static void drop(std::vector<Order>& orders, std::size_t at) {
    orders.erase(orders.begin() + static_cast<std::ptrdiff_t>(at));
  }

  void step() {
    const std::size_t i = busy_(random_);
    Stock& stock = stocks_[i];
    const int side = static_cast<int>(random_() % 2);
    std::vector<Order>& orders = stock.of(side);
    const std::uint64_t what = random_() % 100;
    if (what < 46 || orders.size() < 4) return add(i);
    const std::size_t at = pick(orders);
    Order& order = orders[at];
    if (what < 88) {
      begin('D', i);
      put(order.ref, 8);
      drop(orders, at);
    } else if (what < 93) {
      begin('U', i);
      put(order.ref, 8);
      put(++ref_, 8);
      put(order.qty, 4);
      put(price(stock, side), 4);
      const Order moved{ref_, order.qty};
      drop(orders, at);
      orders.push_back(moved);
    } else if (what < 97) {
      const std::uint32_t qty = random_() % 2 == 0 ? order.qty : std::max<std::uint32_t>(1, order.qty / 2);
      begin('E', i);
      put(order.ref, 8);
      put(qty, 4);
      put(++match_, 8);
      order.qty -= qty;
      if (order.qty == 0) drop(orders, at);
    } else if (what < 99 && order.qty > 1) {
      begin('X', i);
      put(order.ref, 8);
      put(order.qty / 2, 4);
      order.qty -= order.qty / 2;
    } else {
      begin('P', i);
      put(0, 8);
      put('B', 1);
      put(100, 4);
      put(0x2020202020202020U, 8);
      put(stock.mid, 4);
      put(++match_, 8);
    }
    end();
  }

  Options options_;
  std::mt19937_64 random_;
  std::vector<Stock> stocks_;
  std::discrete_distribution<std::size_t> busy_;
  std::vector<unsigned char> bytes_;
  std::size_t start_ = 0;
  std::size_t opening_ = 0;
  std::uint64_t now_ = 0;
  std::uint64_t ref_ = 1'000'000;
  std::uint64_t match_ = 0;
};

template <typename OnMessage>
std::size_t walk(std::span<const std::byte> bytes, OnMessage on_message) {
  std::size_t count = 0;
  for (const std::byte* at = bytes.data(); at < bytes.data() + bytes.size(); ++count) {
    const std::size_t size = static_cast<std::size_t>(at[0]) << 8U | static_cast<std::size_t>(at[1]);
    on_message(std::span<const std::byte>(at + 2, size));
    at += 2 + size;
  }
  return count;
}

features::FeaturePlan sixteen_features() {
  using K = features::KernelKind;
  constexpr std::int64_t kSecond = 1'000'000'000;
  return {.nodes = {{K::Imbalance, -1, 5, 0, 0, 0, 0},
                    {K::Spread, -1, 0, 0, 0, 0, 0},
                    {K::MicropriceOffset, -1, 0, 0, 0, 0, 0},
                    {K::MidReturn, -1, 0, kSecond, 0, 0, 0},
                    {K::Ofi, -1, 5, kSecond, 0, 0, 0},
                    {K::TradeFlow, -1, 0, kSecond, 0, 0, 0},
                    {K::TradeCount, -1, 0, kSecond, 0, 0, 0},
                    {K::VwapOffset, -1, 0, 10 * kSecond, 0, 0, 0},
                    {K::RealizedVol, -1, 0, 10 * kSecond, 0, 0, 0},
                    {K::QueueImbalance, -1, 0, 0, 0, 0, 0},
                    {K::OrderArrivalRate, -1, 0, kSecond, 0, 0, 0},
                    {K::CancelRate, -1, 0, kSecond, 0, 0, 0},
                    {K::Mean, 0, 0, 5 * kSecond, 0, 0, 0},
                    {K::Std, 4, 0, 10 * kSecond, 0, 0, 0},
                    {K::Zscore, 4, 0, 10 * kSecond, 0, 0, 0},
                    {K::Diff, 0, 0, 0, 0, 0, 10}},
          .outputs = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};
}

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

md::InstrumentTable table_of(std::size_t instruments) {
  md::InstrumentTable table;
  for (std::size_t i = 0; i < instruments; ++i) table.add({Day::name(i), "itch", 4, 0});
  return table;
}

void run(const Options& options) {
  const Day day(options);
  std::printf("%zu messages of %zu instruments after %zu orders, seed %lu\n", options.messages,
              options.instruments, options.live * options.instruments, options.seed);
  {
    feed::itch::Decoder decoder;
    feed::itch::Message message;
    std::uint64_t sum = 0;
    const auto begin = seconds_now();
    const std::size_t count = walk(day.day(), [&](std::span<const std::byte> bytes) {
      (void)decoder.decode(bytes, message);
      sum += message.ref + message.qty;
    });
    print("decode", count, seconds_since(begin), sum == 0 ? " (nothing)" : "");
  }
  // Twice what the day begins with: adds and what takes orders away are nearly balanced.
  const std::size_t max_orders = 2 * options.live * options.instruments + options.messages / 16;
  const md::InstrumentTable all = table_of(options.instruments);
  {
    Arena arena;
    feed::itch::Market market(all, max_orders, arena);
    walk(day.opening(), [&](std::span<const std::byte> bytes) { (void)market.on_message(bytes); });
    std::uint64_t changes = 0;
    const auto take = [&](std::span<const std::byte> bytes) {
      changes += market.on_message(bytes).book ? 1 : 0;
    };
    const auto begin = seconds_now();
    const std::size_t count = walk(day.day(), take);
    const double seconds = seconds_since(begin);
    print("decode + book", count, seconds,
          ", " + std::to_string(changes) + " changes, " + std::to_string(market.books().orders()) +
              " live orders");
    const feed::itch::MarketCounts& counts = market.counts();
    if (counts.unknown_order + counts.duplicate_order + counts.orders_full + counts.levels_full != 0) {
      std::printf("  but not every message fitted: the figure means nothing\n");
      std::exit(1);
    }
    const auto orders = static_cast<double>(market.books().orders());
    std::printf(
        "memory: %.1f bytes for each order there is room for; %zu bytes and %.1f levels of 16 bytes an "
        "instrument, %.1f bytes of these a live order\n",
        market.books().bytes_per_order(), md::OrderBooks::bytes_per_book(),
        static_cast<double>(market.books().level_cells()) / static_cast<double>(options.instruments),
        16.0 * static_cast<double>(market.books().level_cells()) / orders);
  }
  {
    // Of the busiest instruments, whose windows would not all fit into memory for the whole exchange: all
    // others are decoded and passed by, and the figure is of the messages that are not.
    const std::size_t ours = std::min(options.feature_instruments, options.instruments);
    const md::InstrumentTable some = table_of(ours);
    Arena arena;
    feed::itch::Market market(some, 1'000'000, arena);
    engine::FeaturesConfig config{.trigger = engine::Trigger::Book,
                                  .every_ns = 0,
                                  .clock = engine::WindowClock::Event,
                                  .window_rows = 1,
                                  .max_event_rate = 2000,
                                  .plan = sixteen_features()};
    std::vector<std::unique_ptr<engine::OrderPipeline>> pipelines;
    for (InstrumentId i = 0; i < ours; ++i) {
      pipelines.push_back(std::make_unique<engine::OrderPipeline>(market, i, 0, config, arena));
    }
    std::uint64_t sequence = 0;
    std::uint64_t rows = 0;
    std::uint64_t mine = 0;
    const auto take = [&](std::span<const std::byte> bytes) {
      const feed::itch::Update update = market.on_message(bytes);
      ++sequence;
      if (update.instrument == kNoInstrument) return;
      ++mine;
      rows +=
          pipelines[update.instrument]->on_update(update, update.ts_ns, update.ts_ns, sequence).row ? 1 : 0;
    };
    walk(day.opening(), take);
    mine = rows = 0;
    const auto begin = seconds_now();
    walk(day.day(), take);
    const double seconds = seconds_since(begin);
    print("decode + book + 16 features", mine, seconds,
          ", " + std::to_string(rows) + " rows of " + std::to_string(ours) + " instruments");
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view key = argv[i];
    const std::uint64_t value = std::strtoull(argv[i + 1], nullptr, 10);
    if (key == "--messages") {
      options.messages = value;
    } else if (key == "--instruments") {
      options.instruments = value;
    } else if (key == "--live") {
      options.live = value;
    } else if (key == "--seed") {
      options.seed = value;
    } else if (key == "--feature-instruments") {
      options.feature_instruments = value;
    } else {
      std::fprintf(stderr, "itch_bench: unknown option %s\n", argv[i]);
      return 2;
    }
  }
  if (argc % 2 == 0 || options.instruments == 0 || options.instruments > 60'000 || options.live < 1) {
    std::fprintf(stderr,
                 "itch_bench [--messages N] [--instruments N] [--live N] [--seed N] "
                 "[--feature-instruments N]\n");
    return 2;
  }
  run(options);
  return 0;
}

#include "tickwire/features/feature_engine.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "features/twin.hpp"
#include "tickwire/core/error.hpp"

namespace tickwire::features {
namespace {

using twin::Book;
using twin::Real;
using twin::Twin;

constexpr TsNs kStart = 1'700'000'000'000'000'000;
constexpr std::int64_t kMs = 1'000'000;
constexpr std::int64_t kSecond = 1'000 * kMs;

struct Duration {
  std::int64_t ns;
};
struct Count {
  std::uint32_t n;
};

/// Builds plans as the Python compiler does, in reading order.
class PlanBuilder {
 public:
  std::uint32_t add(NodeSpec node) {
    plan_.nodes.push_back(node);
    return static_cast<std::uint32_t>(plan_.nodes.size() - 1);
  }
  std::uint32_t now(const KernelEntry* kernel, std::uint32_t levels = 0) {
    return add({kernel, -1, levels, 0, 0, 0, 0});
  }
  std::uint32_t base(const KernelEntry* kernel, Duration window, std::uint32_t levels = 0) {
    return add({kernel, -1, levels, window.ns, 0, 0, 0});
  }
  std::uint32_t base(const KernelEntry* kernel, Count window, std::uint32_t levels = 0) {
    return add({kernel, -1, levels, 0, window.n, 0, 0});
  }
  std::uint32_t wrap(const KernelEntry* kernel, std::uint32_t input, Duration window) {
    return add({kernel, static_cast<std::int32_t>(input), 0, window.ns, 0, 0, 0});
  }
  std::uint32_t wrap(const KernelEntry* kernel, std::uint32_t input, Count window) {
    return add({kernel, static_cast<std::int32_t>(input), 0, 0, window.n, 0, 0});
  }
  std::uint32_t ema(std::uint32_t input, Duration halflife) {
    return add({find_kernel("ema"), static_cast<std::int32_t>(input), 0, 0, 0, halflife.ns, 0});
  }
  std::uint32_t diff(std::uint32_t input, std::uint32_t lag) {
    return add({find_kernel("diff"), static_cast<std::int32_t>(input), 0, 0, 0, 0, lag});
  }
  FeaturePlan output(std::vector<std::uint32_t> nodes) const {
    FeaturePlan plan = plan_;
    plan.outputs = std::move(nodes);
    return plan;
  }
  FeaturePlan output_all() const {
    std::vector<std::uint32_t> nodes(plan_.nodes.size());
    for (std::size_t i = 0; i < nodes.size(); ++i) nodes[i] = static_cast<std::uint32_t>(i);
    return output(nodes);
  }
  std::size_t size() const { return plan_.nodes.size(); }

 private:
  FeaturePlan plan_;
};

Arena small_arena() {
  return Arena(ArenaConfig{.chunk_bytes = 2 << 20, .huge_pages = HugePages::Off, .lock = LockMemory::Off});
}

md::Trade trade_of(std::int64_t price, std::int64_t qty, md::Aggressor aggressor, bool printable = true) {
  return {.id = 0, .price = price, .qty = qty, .aggressor = aggressor, .printable = printable};
}

Book book_of(std::int64_t bid, std::int64_t bid_qty, std::int64_t ask, std::int64_t ask_qty) {
  return {{{bid, bid_qty}}, {{ask, ask_qty}}};
}

/// An engine for each node of a plan (rows leave only when all of them are warm, so one engine would
/// hide the warm-up of the quick ones), one for all of them, and the twin.
class Race {
 public:
  Race(const PlanBuilder& builder, int price_decimals, int qty_decimals, double max_event_rate = 50'000)
      : twin_(builder.output_all(), price_decimals, qty_decimals),
        nodes_(builder.size()),
        arena_(small_arena()) {
    for (std::uint32_t i = 0; i < nodes_; ++i) {
      engines_.emplace_back(builder.output({i}), qty_decimals, FeatureLimits{max_event_rate}, arena_);
    }
    engines_.emplace_back(builder.output_all(), qty_decimals, FeatureLimits{max_event_rate}, arena_);
    arena_.seal();
  }

  void start_epoch(const Book& book, TsNs t) {
    twin_.start_epoch(book, t);
    for (FeatureEngine& engine : engines_) engine.start_epoch(book.top(), t);
  }
  void on_book(const Book& book, TsNs t) {
    twin_.on_book(book, t);
    for (FeatureEngine& engine : engines_) engine.on_book(book.top(), t);
  }
  void on_trade(const md::Trade& trade, TsNs t) {
    twin_.on_trade(trade, t);
    for (FeatureEngine& engine : engines_) engine.on_trade(trade, t);
  }
  void on_orders(std::uint32_t arrived, std::uint32_t cancelled, TsNs t) {
    twin_.on_orders(arrived, cancelled, t);
    for (FeatureEngine& engine : engines_) engine.on_orders(arrived, cancelled, t);
  }

  /// Compares every node at t; false at the first difference, so that a test stops there.
  bool agree(TsNs t) {
    bool all_warm = true;
    for (std::size_t i = 0; i < nodes_; ++i) {
      const bool warm = twin_.warm(i, t);
      all_warm = all_warm && warm;
      if (engines_[i].warm(t) != warm) {
        ADD_FAILURE() << "node " << i << " at " << t - kStart << ": warm should be " << warm;
        return false;
      }
      if (!warm) continue;
      float cell = 0;
      engines_[i].write_row(t, &cell);
      if (!same(i, cell, t)) return false;
    }
    FeatureEngine& whole = engines_.back();
    EXPECT_EQ(whole.warm(t), all_warm);
    if (all_warm) {
      std::vector<float> row(nodes_);
      whole.write_row(t, row.data());
      for (std::size_t i = 0; i < nodes_; ++i) {
        if (!same(i, row[i], t)) return false;
      }
      ++rows_;
    }
    return true;
  }

  std::size_t rows() const { return rows_; }
  std::size_t nans() const { return nans_; }
  std::uint64_t overflows() const { return engines_.back().window_overflows(); }

 private:
  bool same(std::size_t i, float cell, TsNs t) {
    const Real expected = twin_.value(i, t);
    if (std::isnan(expected) && std::isnan(cell)) {
      ++nans_;
      return true;
    }
    // Half a unit of a float, and what long double leaves of a price's difference.
    const Real tolerance = 1.2e-7L * std::fabs(expected) + 1e-11L;
    if (std::fabs(static_cast<Real>(cell) - expected) <= tolerance) return true;
    ADD_FAILURE() << "node " << i << " at " << t - kStart << " ns: " << cell << ", the twin says "
                  << static_cast<double>(expected);
    return false;
  }

  Twin twin_;
  std::size_t nodes_;
  Arena arena_;
  std::vector<FeatureEngine> engines_;
  std::size_t rows_ = 0;
  std::size_t nans_ = 0;
};

/// A seeded market: a random walk, five levels, bursts, equal stamps, gaps, sides that run empty.
class Market {
 public:
  explicit Market(std::uint64_t seed) : random_(seed) {}

  TsNs step(TsNs t) {
    const int kind = pick(0, 99);
    if (kind < 30) return t;                     // Same stamp.
    if (kind < 70) return t + pick(1, 200'000);  // A burst.
    if (kind < 98) return t + pick(1, 20) * kMs;
    return t + pick(50, 3'000) * kMs;  // Longer than the windows.
  }

  Book book() {
    if (pick(0, 2) == 0) mid_ += pick(-3, 3);
    if (empty_for_ > 0) --empty_for_;
    if (empty_for_ == 0 && pick(0, 149) == 0) empty_for_ = pick(1, 12);
    Book book;
    const int spread = pick(1, 3);
    std::int64_t bid = mid_ - spread;
    std::int64_t ask = mid_ + pick(1, 3);
    const int depth = pick(2, 6);
    for (int i = 0; i < depth; ++i) {
      book.bids.push_back({bid * 1'000'000, quantity()});
      book.asks.push_back({ask * 1'000'000, quantity()});
      bid -= pick(1, 2);
      ask += pick(1, 2);
    }
    if (empty_for_ > 0) (empty_for_ % 3 == 0 ? book.bids : book.asks).clear();
    if (empty_for_ == 7) book = {};
    return book;
  }

  md::Trade trade() {
    static constexpr md::Aggressor kWho[] = {md::Aggressor::Buyer, md::Aggressor::Seller,
                                             md::Aggressor::Unknown};
    return trade_of((mid_ + pick(-3, 3)) * 1'000'000, quantity(), kWho[pick(0, 2)], pick(0, 9) != 0);
  }

  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

 private:
  std::int64_t quantity() { return pick(0, 3) == 0 ? 100'000'000 : pick(1, 2'000'000'000); }

  std::mt19937_64 random_;
  std::int64_t mid_ = 6'000'000;  // 60,000.00 in cents.
  int empty_for_ = 0;
};

PlanBuilder everything() {
  PlanBuilder p;
  const auto imbalance = p.now(find_kernel("imbalance"), 3);
  p.now(find_kernel("imbalance"), 1);
  const auto spread = p.now(find_kernel("spread"));
  const auto micro = p.now(find_kernel("microprice_offset"));
  p.base(find_kernel("mid_return"), Duration{50 * kMs});
  const auto returns = p.base(find_kernel("mid_return"), Count{7});
  const auto ofi = p.base(find_kernel("ofi"), Duration{30 * kMs}, 5);
  p.base(find_kernel("ofi"), Duration{200 * kMs}, 5);
  const auto ofi_count = p.base(find_kernel("ofi"), Count{1}, 1);
  p.base(find_kernel("realized_vol"), Duration{60 * kMs});
  p.base(find_kernel("realized_vol"), Count{5});
  const auto trade_flow = p.base(find_kernel("trade_flow"), Duration{40 * kMs});
  const auto trade_flow_count = p.base(find_kernel("trade_flow"), Count{9});
  p.base(find_kernel("trade_count"), Duration{25 * kMs});
  p.base(find_kernel("vwap_offset"), Duration{35 * kMs});
  p.base(find_kernel("vwap_offset"), Count{4});
  p.now(find_kernel("queue_imbalance"));
  const auto arrivals = p.base(find_kernel("order_arrival_rate"), Duration{45 * kMs});
  p.base(find_kernel("order_arrival_rate"), Duration{5 * kMs});
  p.base(find_kernel("cancel_rate"), Duration{70 * kMs});
  p.wrap(find_kernel("mean"), arrivals, Count{8});
  for (const KernelEntry* const kernel : {find_kernel("mean"), find_kernel("std"), find_kernel("min"),
                                          find_kernel("max"), find_kernel("zscore")}) {
    p.wrap(kernel, imbalance, Duration{80 * kMs});
    p.wrap(kernel, spread, Count{13});
    p.wrap(kernel, ofi, Duration{400 * kMs});
    p.wrap(kernel, ofi_count, Count{1});
    p.wrap(kernel, trade_flow_count, Duration{20 * kMs});
  }
  p.ema(micro, Duration{15 * kMs});
  p.diff(returns, 3);
  const auto zscore = p.wrap(find_kernel("zscore"), trade_flow, Duration{50 * kMs});
  const auto smooth = p.ema(zscore, Duration{5 * kMs});
  const auto nested = p.wrap(find_kernel("mean"), smooth, Count{6});
  const auto change = p.diff(nested, 2);
  p.wrap(find_kernel("max"), change, Duration{30 * kMs});
  return p;
}

TEST(FeatureEngine, AgreesWithTwinOnRandomMarkets) {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Market market(seed);
    Race race(everything(), 8, 8);
    TsNs t = kStart;
    race.start_epoch(market.book(), t);
    for (int i = 0; i < 1500; ++i) {
      t = market.step(t);
      if (market.pick(0, 2) == 0) {
        race.on_trade(market.trade(), t);
      } else {
        // Also two of a kind: a venue's message may replace an order, an event of another one hold many.
        race.on_orders(static_cast<std::uint32_t>(market.pick(0, 2)),
                       static_cast<std::uint32_t>(market.pick(0, 1)), t);
        race.on_book(market.book(), t);
      }
      if (market.pick(0, 3) == 0) {
        ASSERT_TRUE(race.agree(t));
      }
      if (market.pick(0, 699) == 0) {
        t = market.step(t);
        race.start_epoch(market.book(), t);
        ASSERT_TRUE(race.agree(t));
      }
    }
    EXPECT_GT(race.rows(), 50u);
    EXPECT_GT(race.nans(), 50u);
    EXPECT_EQ(race.overflows(), 0u);
  }
}

TEST(FeatureEngine, RowBetweenEventsEvictsByItsOwnTime) {
  PlanBuilder p;
  const auto ofi = p.base(find_kernel("ofi"), Duration{10 * kMs}, 1);
  const auto mean = p.wrap(find_kernel("mean"), ofi, Duration{10 * kMs});
  Arena arena = small_arena();
  FeatureEngine engine(p.output({ofi, mean}), 0, FeatureLimits{1000}, arena);
  engine.start_epoch(book_of(100, 5, 102, 5).top(), 0);
  engine.on_book(book_of(100, 8, 102, 5).top(), 10 * kMs);  // +3
  engine.on_book(book_of(100, 9, 102, 5).top(), 20 * kMs);  // +1; the 3 is at t - w, outside.
  float row[2];
  ASSERT_TRUE(engine.warm(20 * kMs));
  engine.write_row(20 * kMs, row);
  EXPECT_EQ(row[0], 1.0F);
  EXPECT_EQ(row[1], 1.0F);  // The sample of 3 has left with its time, too.
  engine.on_trade(trade_of(101, 1, md::Aggressor::Buyer), 30 * kMs);
  engine.write_row(30 * kMs, row);
  EXPECT_EQ(row[0], 0.0F);
  EXPECT_EQ(row[1], 1.0F);  // The newest sample still holds.
}

TEST(FeatureEngine, BaseStateIsComparedButNeverSampled) {
  PlanBuilder p;
  const auto imbalance = p.now(find_kernel("imbalance"), 1);
  const auto mean = p.wrap(find_kernel("mean"), imbalance, Duration{1});
  const auto ofi = p.base(find_kernel("ofi"), Count{1}, 1);
  Arena arena = small_arena();
  FeatureEngine engine(p.output({mean, ofi}), 0, FeatureLimits{1000}, arena);
  EXPECT_FALSE(engine.warm(0));
  engine.start_epoch(book_of(100, 1, 102, 0).top(), 0);
  EXPECT_FALSE(engine.warm(100));
  engine.on_book(book_of(100, 1, 102, 3).top(), 100);
  ASSERT_TRUE(engine.warm(100));
  float row[2];
  engine.write_row(100, row);
  EXPECT_EQ(row[0], -0.5F);
  EXPECT_EQ(row[1], -3.0F);
}

TEST(FeatureEngine, OuterWarmUpStartsWhenInnerIsWarm) {
  PlanBuilder p;
  const auto ofi = p.base(find_kernel("ofi"), Duration{kSecond}, 1);
  const auto zscore = p.wrap(find_kernel("zscore"), ofi, Duration{30 * kSecond});
  Arena arena = small_arena();
  FeatureEngine engine(p.output({zscore}), 0, FeatureLimits{1000}, arena);
  const Book book = book_of(100, 1, 102, 1);
  engine.start_epoch(book.top(), kStart);
  engine.on_book(book.top(), kStart + 2 * kSecond);
  engine.on_book(book.top(), kStart + 31 * kSecond - 1);
  EXPECT_FALSE(engine.warm(kStart + 31 * kSecond - 1));
  EXPECT_TRUE(engine.warm(kStart + 31 * kSecond));
}

TEST(FeatureEngine, NewEpochForgetsTheOld) {
  PlanBuilder p;
  const auto ofi = p.base(find_kernel("ofi"), Count{2}, 1);
  const auto flow = p.base(find_kernel("trade_flow"), Count{1});
  const auto highest = p.wrap(find_kernel("max"), ofi, Count{2});
  Arena arena = small_arena();
  FeatureEngine engine(p.output({ofi, flow, highest}), 0, FeatureLimits{1000}, arena);
  float row[3];
  for (int epoch = 0; epoch < 3; ++epoch) {
    engine.start_epoch(book_of(100, 0, 200, 7).top(), kStart);
    for (int i = 1; i <= 3; ++i) {
      EXPECT_FALSE(engine.warm(kStart));
      engine.on_book(book_of(100, i * 10 - epoch, 200, 7).top(), kStart);
    }
    EXPECT_FALSE(engine.warm(kStart));
    engine.on_trade(trade_of(150, 4, md::Aggressor::Seller), kStart);
    ASSERT_TRUE(engine.warm(kStart));
    engine.write_row(kStart, row);
    EXPECT_EQ(row[0], 20.0F);
    EXPECT_EQ(row[1], -1.0F);
    EXPECT_EQ(row[2], 20.0F);
  }
}

TEST(FeatureEngine, FlowOfLevelsFollowsThePaper) {
  PlanBuilder p;
  const auto one = p.base(find_kernel("ofi"), Count{1}, 1);
  const auto two = p.base(find_kernel("ofi"), Count{1}, 2);
  Arena arena = small_arena();
  FeatureEngine engine(p.output({one, two}), 1, FeatureLimits{1000}, arena);
  float row[2];
  const auto after = [&](Book book) {
    engine.on_book(book.top(), kStart);
    engine.write_row(kStart, row);
  };
  engine.start_epoch(Book{{{100, 50}, {99, 20}}, {{102, 30}, {103, 10}}}.top(), kStart);
  after({{{101, 5}, {100, 50}}, {{102, 30}, {103, 10}}});  // Bids improve: +5, and +50 at the second.
  EXPECT_EQ(row[0], 0.5F);
  EXPECT_EQ(row[1], 5.5F);
  after({{{100, 50}},
         {{102, 25}, {103, 10}}});  // The bid falls back (-5), 5 asks go (+5); level 2 empties (-50).
  EXPECT_EQ(row[0], 0.0F);
  EXPECT_EQ(row[1], -5.0F);
  after({{{100, 50}}, {}});  // No ask left: +25, +10.
  EXPECT_EQ(row[0], 2.5F);
  EXPECT_EQ(row[1], 3.5F);
  after({{{100, 50}}, {{104, 8}}});  // And one is back: -8.
  EXPECT_EQ(row[0], -0.8F);
  EXPECT_EQ(row[1], -0.8F);
}

/// Makes ofi(window=1) take any value one likes: the bid improves each time, so its flow is its quantity.
class Dial {
 public:
  Dial(FeatureEngine& engine, TsNs t) : engine_(engine) {
    engine_.start_epoch(book_of(price_, 1, kAsk, 1).top(), t);
  }
  void set(std::int64_t value, TsNs t) { engine_.on_book(book_of(++price_, value, kAsk, 1).top(), t); }

 private:
  static constexpr std::int64_t kAsk = std::int64_t{1} << 60;
  FeatureEngine& engine_;
  std::int64_t price_ = 1;
};

TEST(FeatureEngine, TinyVarianceOnLargeMeanStaysRight) {
  PlanBuilder p;
  const auto x = p.base(find_kernel("ofi"), Count{1}, 1);
  const auto deviation = p.wrap(find_kernel("std"), x, Count{300});
  const auto zscore = p.wrap(find_kernel("zscore"), x, Count{300});
  Arena arena = small_arena();
  FeatureEngine engine(p.output({deviation, zscore}), 6, FeatureLimits{1000}, arena);
  Dial dial(engine, kStart);
  std::mt19937_64 random(7);
  std::vector<std::int64_t> all;
  for (int i = 0; i < 400'000; ++i) {
    // 60,000 ± 0.000003, with an outlier of a million now and then that must leave no trace.
    std::int64_t value = 60'000'000'000 + static_cast<std::int64_t>(random() % 7) - 3;
    if (i % 50'000 == 100) value = 1'000'000'000'000;
    all.push_back(value);
    dial.set(value, kStart);
    if (i < 300 || i % 331 != 0) continue;
    Real sum = 0;
    Real squares = 0;
    for (int k = i - 299; k <= i; ++k) {
      const Real d = static_cast<Real>(all[k] - all[i]) * 1e-6L;
      sum += d;
      squares += d * d;
    }
    const Real expected = std::sqrt(squares / 300 - sum / 300 * (sum / 300));
    float row[2];
    engine.write_row(kStart, row);
    // The samples are doubles: at 60,000 they are 7e-12 apart, a part in 1e5 of a step.
    ASSERT_NEAR(row[0] / static_cast<double>(expected), 1.0, 1e-5) << i;
    ASSERT_NEAR(row[1], static_cast<double>(-sum / 300 / expected), 1e-4) << i;
  }
}

TEST(FeatureEngine, HugeValuesLeaveNoResidue) {
  PlanBuilder p;
  const auto x = p.base(find_kernel("ofi"), Count{1}, 1);
  const auto deviation = p.wrap(find_kernel("std"), x, Count{700});
  const auto zscore = p.wrap(find_kernel("zscore"), x, Count{700});
  const auto mean = p.wrap(find_kernel("mean"), x, Count{700});
  Arena arena = small_arena();
  FeatureEngine engine(p.output({deviation, zscore, mean}), 0, FeatureLimits{1000}, arena);
  Dial dial(engine, kStart);
  std::mt19937_64 random(12);
  std::vector<std::int64_t> all;
  for (int i = 0; i < 9'000; ++i) {
    std::int64_t value = static_cast<std::int64_t>(random() % 9) + 1;
    // 10^18, as the first of all and within, alone and many at once: 4·10^17 deviations.
    if (i == 0 || i % 2'003 == 0 || (i > 5'000 && i < 5'400)) value = 1'000'000'000'000'000'000;
    all.push_back(value);
    dial.set(value, kStart);
    if (i < 700 || i % 7 != 0) continue;
    Real sum = 0;
    Real squares = 0;
    for (int k = i - 699; k <= i; ++k) {
      const Real d = static_cast<Real>(all[k] - all[i]);
      sum += d;
      squares += d * d;
    }
    const Real expected = std::sqrt(squares / 700 - sum / 700 * (sum / 700));
    float row[3];
    engine.write_row(kStart, row);
    ASSERT_NEAR(row[0] / static_cast<double>(expected), 1.0, 1e-6) << i;
    ASSERT_NEAR(row[1], static_cast<double>(-sum / 700 / expected), 1e-5) << i;
    const double centre = static_cast<double>(static_cast<Real>(all[i]) + sum / 700);
    ASSERT_NEAR(row[2] / centre, 1.0, 1e-6) << i;
  }
}

/// Every kernel of which values that are equal in exact arithmetic can be made from numbers that are not:
/// its windows must see them equal.
class EqualValues : public testing::Test {
 protected:
  EqualValues() : arena_(small_arena()), random_(21) {}

  /// `always`: it was never another value, which an average would not forget.
  void watch(PlanBuilder& p, std::uint32_t x, bool always = true) {
    std::vector<std::uint32_t> inners{x, p.wrap(find_kernel("mean"), x, Count{6}),
                                      p.wrap(find_kernel("max"), x, Count{2})};
    if (always) inners.push_back(p.ema(x, Duration{kMs}));
    for (const std::uint32_t inner : inners) {
      for (const KernelEntry* const kernel : {find_kernel("std"), find_kernel("zscore")}) {
        zeros_.push_back(p.wrap(kernel, inner, Count{3}));
        zeros_.push_back(p.wrap(kernel, inner, Duration{5 * kMs}));
      }
      zeros_.push_back(p.diff(inner, 1));
    }
  }
  FeatureEngine engine_of(const PlanBuilder& p) {
    return FeatureEngine(p.output(zeros_), 8, FeatureLimits{1000}, arena_);
  }
  void expect_zeros(FeatureEngine& engine, TsNs t) {
    if (!engine.warm(t)) return;
    std::vector<float> row(zeros_.size());
    engine.write_row(t, row.data());
    for (std::size_t i = 0; i < row.size(); ++i)
      ASSERT_EQ(row[i], 0.0F) << "column " << i << " at " << t - kStart;
    ++rows_;
  }
  /// From 1 to 2^bits.
  std::int64_t any(int bits) { return static_cast<std::int64_t>(random_() >> (64 - bits)) + 1; }

  Arena arena_;
  std::mt19937_64 random_;
  std::vector<std::uint32_t> zeros_;
  int rows_ = 0;
};

TEST_F(EqualValues, OfTheBook) {
  PlanBuilder p;
  watch(p, p.now(find_kernel("imbalance"), 2));
  watch(p, p.now(find_kernel("queue_imbalance")));
  watch(p, p.now(find_kernel("microprice_offset")));
  FeatureEngine engine = engine_of(p);
  TsNs t = kStart;
  engine.start_epoch(book_of(99, 1, 101, 1).top(), t);
  for (int i = 0; i < 3'000; ++i) {
    // Prices and quantities any times as large.
    const std::int64_t price = any(i % 2 == 0 ? 40 : 56);
    const std::int64_t qty = any(i % 3 == 0 ? 30 : 58);
    const Book book{{{99 * price, 7 * qty}, {98 * price, 3 * qty}},
                    {{101 * price, 2 * qty}, {102 * price, qty}}};
    engine.on_book(book.top(), t += kMs);
    expect_zeros(engine, t);
  }
  EXPECT_GT(rows_, 2'900);
}

TEST_F(EqualValues, OfTheBestPrices) {
  PlanBuilder p;
  const auto micro = p.now(find_kernel("microprice_offset"));
  watch(p, micro);
  FeatureEngine engine = engine_of(p);
  TsNs t = kStart;
  engine.start_epoch(book_of(99, 1, 101, 1).top(), t);
  for (int i = 0; i < 2'000; ++i) {
    const std::int64_t price = any(50);
    const std::int64_t qty = any(50);
    // 2 % of mid at a tilt of 3/5, 6 % at 1/5.
    engine.on_book(i % 2 == 0 ? book_of(99 * price, 4 * qty, 101 * price, qty).top()
                              : book_of(97 * price, 3 * qty, 103 * price, 2 * qty).top(),
                   t += kMs);
    expect_zeros(engine, t);
  }
  zeros_.clear();
  PlanBuilder of_spread;
  watch(of_spread, of_spread.now(find_kernel("spread")));
  FeatureEngine spreads = engine_of(of_spread);
  spreads.start_epoch(book_of(99, 1, 101, 1).top(), t);
  for (int i = 0; i < 2'000; ++i) {
    const std::int64_t price = any(i % 2 == 0 ? 30 : 54);
    spreads.on_book(book_of(299 * price, any(50), 307 * price, any(50)).top(), t += kMs);
    expect_zeros(spreads, t);
  }
  EXPECT_GT(rows_, 3'900);
}

TEST_F(EqualValues, OfTrades) {
  PlanBuilder p;
  watch(p, p.base(find_kernel("vwap_offset"), Count{4}));
  watch(p, p.base(find_kernel("vwap_offset"), Duration{7 * kMs}));
  watch(p, p.base(find_kernel("trade_flow"), Count{2}));
  FeatureEngine engine = engine_of(p);
  TsNs t = kStart;
  const Book book = book_of(2'500'00'000'000, 5, 2'500'50'000'000, 7);
  engine.start_epoch(book.top(), t);
  for (int i = 0; i < 3'000; ++i) {
    // One price, any quantities; two trades between any two book events, the second half the other way.
    const std::int64_t qty = any(i % 2 == 0 ? 30 : 55);
    t += kMs;
    engine.on_trade(trade_of(2'500'75'000'000, 2 * qty, md::Aggressor::Buyer), t);
    engine.on_trade(trade_of(2'500'75'000'000, qty, md::Aggressor::Seller), t);
    engine.on_book(book.top(), t);
    expect_zeros(engine, t);
  }
  EXPECT_GT(rows_, 2'900);
}

TEST_F(EqualValues, OfReturns) {
  PlanBuilder p;
  for (const std::uint32_t x :
       {p.base(find_kernel("mid_return"), Count{1}), p.base(find_kernel("mid_return"), Count{2}),
        p.base(find_kernel("realized_vol"), Count{1}), p.base(find_kernel("realized_vol"), Count{3})}) {
    zeros_.push_back(p.wrap(find_kernel("zscore"), x, Count{3}));
    zeros_.push_back(p.wrap(find_kernel("std"), p.wrap(find_kernel("mean"), x, Count{2}), Count{2}));
  }
  FeatureEngine engine = engine_of(p);
  for (int round = 0; round < 60; ++round) {
    // Up by the same 3 % each time, from another price.
    TsNs t = kStart;
    std::int64_t mid = any(8);
    for (int i = 0; i < 9; ++i) mid *= 50;
    engine.start_epoch(book_of(mid, 1, mid, 1).top(), t);
    for (int i = 0; i < 9; ++i) {
      mid = mid / 50 * (round % 2 == 0 ? 51 : 53);
      engine.on_book(book_of(mid - 1, any(9), mid + 1, 1).top(), t += kMs);
      expect_zeros(engine, t);
    }
  }
  EXPECT_GT(rows_, 60);
}

TEST_F(EqualValues, OfWhatReturns) {
  // Up and down by the same, and still after it: a move that has left leaves no volatility behind.
  PlanBuilder p;
  watch(p, p.base(find_kernel("realized_vol"), Count{4}), false);
  FeatureEngine engine = engine_of(p);
  PlanBuilder alone;
  FeatureEngine plain(alone.output({alone.base(find_kernel("realized_vol"), Count{4})}), 8,
                      FeatureLimits{1000}, arena_);
  TsNs t = kStart;
  engine.start_epoch(book_of(30, 1, 30, 1).top(), t);
  plain.start_epoch(book_of(30, 1, 30, 1).top(), t);
  float cell = -1;
  for (int i = 0; i < 400; ++i) {
    const std::int64_t mid = i < 200 ? (i % 2 == 0 ? 31 : 37) : 37;
    engine.on_book(book_of(mid, 1, mid, 1).top(), t += kMs);
    plain.on_book(book_of(mid, 1, mid, 1).top(), t);
    // The first move was another one, and so is a window that still has some of the moves.
    if ((i > 25 && i < 200) || i > 225) expect_zeros(engine, t);
  }
  plain.write_row(t, &cell);
  EXPECT_EQ(cell, 0.0F);
  EXPECT_GT(rows_, 300);
}

TEST_F(EqualValues, OfWindowsOfTheSameSamples) {
  // Three samples in turn: windows of three, six and nine hold the same ones in another order.
  PlanBuilder p;
  const auto x = p.base(find_kernel("ofi"), Count{1}, 1);
  for (const std::uint32_t count : {3u, 6u, 9u}) {
    for (const KernelEntry* const kernel : {find_kernel("mean"), find_kernel("std"), find_kernel("min")}) {
      const auto inner = p.wrap(kernel, x, Count{count});
      zeros_.push_back(p.wrap(find_kernel("zscore"), inner, Count{4}));
      zeros_.push_back(p.wrap(find_kernel("std"), inner, Duration{6 * kMs}));
    }
  }
  FeatureEngine engine = engine_of(p);
  Dial dial(engine, kStart);
  TsNs t = kStart;
  const std::int64_t values[] = {any(40), any(50), any(30)};
  for (int i = 0; i < 500; ++i) {
    dial.set(values[i % 3], t += kMs);
    expect_zeros(engine, t);
  }
  EXPECT_GT(rows_, 450);
}

TEST(FeatureEngine, FlatWindowHasNoDeviation) {
  PlanBuilder p;
  const auto x = p.base(find_kernel("ofi"), Count{1}, 1);
  const auto deviation = p.wrap(find_kernel("std"), x, Count{3});
  const auto zscore = p.wrap(find_kernel("zscore"), x, Count{3});
  const auto mean = p.wrap(find_kernel("mean"), x, Count{3});
  Arena arena = small_arena();
  FeatureEngine engine(p.output({deviation, zscore, mean}), 1, FeatureLimits{1000}, arena);
  Dial dial(engine, kStart);
  for (const std::int64_t value : std::initializer_list<std::int64_t>{900'000'000'001, 1, 1, 1})
    dial.set(value, kStart);
  float row[3];
  engine.write_row(kStart, row);
  EXPECT_EQ(row[0], 0.0F);
  EXPECT_EQ(row[1], 0.0F);
  EXPECT_EQ(row[2], 0.1F);
}

TEST(FeatureEngine, QuietTimeEmptiesWindowsAtOnce) {
  PlanBuilder p;
  const auto x = p.base(find_kernel("ofi"), Count{1}, 1);
  for (const KernelEntry* const kernel : {find_kernel("mean"), find_kernel("std"), find_kernel("min"),
                                          find_kernel("max"), find_kernel("zscore")})
    p.wrap(kernel, x, Duration{kSecond});
  p.base(find_kernel("ofi"), Duration{kSecond}, 1);
  p.base(find_kernel("realized_vol"), Duration{kSecond});
  p.base(find_kernel("vwap_offset"), Duration{kSecond});
  p.base(find_kernel("mid_return"), Duration{kSecond});
  Race race(p, 2, 3);
  Market market(11);
  TsNs t = kStart;
  race.start_epoch(book_of(100, 1, 101, 1), t);
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < 40; ++i) {
      t += market.pick(0, 40) * kMs;
      race.on_book(book_of(100 + market.pick(-5, 0), market.pick(1, 99), 101, market.pick(1, 99)), t);
      if (i % 3 == 0) race.on_trade(trade_of(100, market.pick(1, 9), md::Aggressor::Buyer), t);
      ASSERT_TRUE(race.agree(t));
    }
    ASSERT_TRUE(race.agree(t + kSecond - 1));
    ASSERT_TRUE(race.agree(t + kSecond));
    t += 5 * kSecond;
  }
}

TEST(FeatureEngine, FullRingEvictsEarlyAndCounts) {
  PlanBuilder p;
  const auto x = p.base(find_kernel("ofi"), Count{1}, 1);
  const auto lowest = p.wrap(find_kernel("min"), x, Duration{kSecond});
  const auto highest = p.wrap(find_kernel("max"), x, Duration{kSecond});
  const auto mean = p.wrap(find_kernel("mean"), x, Duration{kSecond});
  const auto returns = p.base(find_kernel("mid_return"), Duration{kSecond});
  Arena arena = small_arena();
  FeatureEngine engine(p.output({lowest, highest, mean, returns}), 0, FeatureLimits{1}, arena);
  Dial dial(engine, kStart);
  dial.set(0, kStart);  // Warms up x, and has left the window when the row does.
  for (int i = 1; i <= 10'000; ++i) dial.set(i, kStart + kSecond);
  float row[4];
  ASSERT_TRUE(engine.warm(kStart + kSecond));
  engine.write_row(kStart + kSecond, row);
  EXPECT_EQ(row[0], 10'000.0F - 4'094.0F);  // 4,095 entries are left.
  EXPECT_EQ(row[1], 10'000.0F);
  EXPECT_EQ(row[2], 10'000.0F - 2'047.0F);
  // Three windows had 10,000 samples to keep, mid_return one state more: the last at or before t - w.
  EXPECT_EQ(engine.window_overflows(), 3u * (10'000 - 4'095) + (10'001 - 4'095));
}

TEST(FeatureEngine, CellsHaveOneNanAndNoDenormals) {
  PlanBuilder p;
  const auto spread = p.now(find_kernel("spread"));
  const auto imbalance = p.now(find_kernel("imbalance"), 1);
  const auto smooth = p.ema(imbalance, Duration{1});
  Arena arena = small_arena();
  FeatureEngine engine(p.output({spread, imbalance, smooth}), 0, FeatureLimits{1000}, arena);
  engine.start_epoch(book_of(100, 1, 102, 1).top(), 0);
  engine.on_book(book_of(100, 3, 102, 1).top(), 0);
  engine.on_book(book_of(100, 1, 102, 1).top(), 140);
  float row[3];
  engine.write_row(140, row);
  EXPECT_EQ(row[1], 0.0F);
  EXPECT_EQ(row[2], 0.0F);  // 2^-141
  engine.on_book(Book{}.top(), 141);
  engine.write_row(141, row);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(row[0]), 0x7fc00000u);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(row[1]), 0x7fc00000u);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(row[2]), 0x7fc00000u);
}

TEST(FeatureEngine, ExtremeIntegersDoNotTrap) {
  PlanBuilder builder = everything();
  Arena arena = small_arena();
  FeatureEngine engine(builder.output_all(), 8, FeatureLimits{1000}, arena);
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
  std::vector<float> row(builder.size());
  engine.start_epoch(book_of(kLeast, kMost, kMost, kMost).top(), kLeast);
  for (TsNs t : {kLeast, TsNs{0}, kMost - 1, kMost}) {
    for (int i = 0; i < 20; ++i) {
      engine.on_book(book_of(i % 2 == 0 ? kMost : kLeast, kMost, kMost, i % 3 == 0 ? kMost : 1).top(), t);
      engine.on_trade(trade_of(kMost, kMost, md::Aggressor::Seller), t);
      engine.on_trade(trade_of(kLeast, kLeast, md::Aggressor::Seller), t);
      if (engine.warm(t)) engine.write_row(t, row.data());
    }
  }
}

void expect_setup_error(const FeaturePlan& plan, const std::string& part, double rate = 1000) {
  Arena arena = small_arena();
  try {
    FeatureEngine engine(plan, 8, FeatureLimits{rate}, arena);
    FAIL() << "accepted; expected an error with " << part;
  } catch (const SetupError& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(FeaturePlan, RefusesWhatMakesNoSense) {
  expect_setup_error({{{find_kernel("spread"), -1, 0, 0, 0, 0, 0}}, {}}, "features.outputs");
  expect_setup_error({{{find_kernel("spread"), -1, 0, 0, 0, 0, 0}}, {1}}, "features.outputs[0]");
  expect_setup_error({{{find_kernel("sprd"), -1, 0, 0, 0, 0, 0}}, {0}}, "features.nodes[0].kernel");
  expect_setup_error({{{find_kernel("imbalance"), -1, 0, 0, 0, 0, 0}}, {0}}, "features.nodes[0].levels");
  expect_setup_error({{{find_kernel("imbalance"), -1, 5000, 0, 0, 0, 0}}, {0}}, "features.nodes[0].levels");
  expect_setup_error({{{find_kernel("ofi"), -1, 1, 0, 0, 0, 0}}, {0}}, "features.nodes[0].window_ns");
  expect_setup_error({{{find_kernel("ofi"), -1, 1, 5, 5, 0, 0}}, {0}}, "features.nodes[0].window_ns");
  expect_setup_error({{{find_kernel("ofi"), -1, 1, -5, 0, 0, 0}}, {0}}, "features.nodes[0].window_ns");
  expect_setup_error({{{find_kernel("trade_count"), -1, 0, 0, 5, 0, 0}}, {0}}, "features.nodes[0].window_ns");
  expect_setup_error({{{find_kernel("mean"), 0, 0, 5, 0, 0, 0}}, {0}}, "features.nodes[0].input");
  expect_setup_error({{{find_kernel("spread"), 0, 0, 0, 0, 0, 0}}, {0}}, "features.nodes[0].input");
  expect_setup_error(
      {{{find_kernel("spread"), -1, 0, 0, 0, 0, 0}, {find_kernel("ema"), 0, 0, 0, 0, 0, 0}}, {1}},
      "features.nodes[1].halflife_ns");
  expect_setup_error(
      {{{find_kernel("spread"), -1, 0, 0, 0, 0, 0}, {find_kernel("diff"), 0, 0, 0, 0, 0, 0}}, {1}},
      "features.nodes[1].lag");
  expect_setup_error({{{find_kernel("realized_vol"), -1, 0, 3600 * kSecond, 0, 0, 0}}, {0}}, "max_event_rate",
                     1e6);
}

TEST(FeaturePlan, KnowsKernelsByName) {
  for (const KernelEntry& kernel : kernels()) EXPECT_EQ(find_kernel(kernel.name), &kernel) << kernel.name;
  EXPECT_EQ(find_kernel("imbalnce"), nullptr);
  EXPECT_EQ(find_kernel(""), nullptr);
}

// A kernel is in the test of all of them, or it has no twin.
TEST(FeaturePlan, EachKernelHasATwin) {
  const FeaturePlan plan = everything().output_all();
  for (const KernelEntry& kernel : kernels()) {
    EXPECT_TRUE(std::any_of(plan.nodes.begin(), plan.nodes.end(), [&](const NodeSpec& node) {
      return node.kernel == &kernel;
    })) << kernel.name;
    EXPECT_FALSE(kernel.formula.empty() || kernel.unit.empty() || kernel.description.empty()) << kernel.name;
    EXPECT_GT(kernel.version, 0U) << kernel.name;
  }
}

}  // namespace
}  // namespace tickwire::features

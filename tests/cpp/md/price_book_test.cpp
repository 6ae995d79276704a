#include "tickwire/md/price_book.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <random>
#include <vector>

#include "tickwire/core/error.hpp"

namespace tickwire::md {

namespace {

/// The same book on std::map, one obvious statement an operation.
class SlowBook {
 public:
  explicit SlowBook(std::size_t max_levels) : max_levels_(max_levels) {}

  bool set(Side side, std::int64_t price, std::int64_t qty) {
    return side == Side::Bid ? set_in(bids_, price, qty) : set_in(asks_, price, qty);
  }
  void clear() {
    bids_.clear();
    asks_.clear();
  }
  std::vector<Level> levels(Side side) const { return side == Side::Bid ? list(bids_) : list(asks_); }
  bool crossed() const {
    return !bids_.empty() && !asks_.empty() && bids_.begin()->first >= asks_.begin()->first;
  }
  std::uint64_t dropped = 0;

 private:
  template <typename Map>
  bool set_in(Map& map, std::int64_t price, std::int64_t qty) {
    if (qty == 0) {
      map.erase(price);
      return true;
    }
    map[price] = qty;
    if (map.size() <= max_levels_) return true;
    map.erase(std::prev(map.end()));
    ++dropped;
    return false;
  }
  template <typename Map>
  static std::vector<Level> list(const Map& map) {
    std::vector<Level> levels;
    for (const auto& [price, qty] : map) levels.push_back({price, qty});
    return levels;
  }

  std::size_t max_levels_;
  std::map<std::int64_t, std::int64_t, std::greater<>> bids_;
  std::map<std::int64_t, std::int64_t> asks_;
};

std::vector<Level> levels_of(const PriceBook& book, Side side) {
  std::vector<Level> levels(book.depth(side) + 1, Level{-7, -7});
  const std::size_t count = book.top(side, levels);
  EXPECT_EQ(count, book.depth(side));
  EXPECT_EQ(levels.back().price, -7) << "wrote beyond what it returned";
  levels.resize(count);
  return levels;
}

void expect_same(const PriceBook& book, const SlowBook& slow) {
  for (const Side side : {Side::Bid, Side::Ask}) {
    const std::vector<Level> expected = slow.levels(side);
    ASSERT_EQ(levels_of(book, side), expected);
    const Level* best = book.best(side);
    ASSERT_EQ(best == nullptr, expected.empty());
    if (best != nullptr) {
      ASSERT_EQ(*best, expected.front());
    }
  }
  ASSERT_EQ(book.crossed(), slow.crossed());
  ASSERT_EQ(book.dropped_levels(), slow.dropped);
}

TEST(PriceBook, KeepsBidsFromHighAndAsksFromLow) {
  Arena arena;
  PriceBook book(arena, 100);
  for (const std::int64_t price : {100, 103, 101}) EXPECT_TRUE(book.set(Side::Bid, price, price * 10));
  for (const std::int64_t price : {106, 104, 105}) EXPECT_TRUE(book.set(Side::Ask, price, price * 10));
  EXPECT_EQ(levels_of(book, Side::Bid), (std::vector<Level>{{103, 1030}, {101, 1010}, {100, 1000}}));
  EXPECT_EQ(levels_of(book, Side::Ask), (std::vector<Level>{{104, 1040}, {105, 1050}, {106, 1060}}));

  std::vector<Level> two(2);
  EXPECT_EQ(book.top(Side::Ask, two), 2U);
  EXPECT_EQ(two, (std::vector<Level>{{104, 1040}, {105, 1050}}));
  EXPECT_EQ(book.top(Side::Ask, {}), 0U);

  book.set(Side::Bid, 103, 0);
  book.set(Side::Bid, 102, 0);  // Never was there.
  book.set(Side::Bid, 101, 5);
  EXPECT_EQ(levels_of(book, Side::Bid), (std::vector<Level>{{101, 5}, {100, 1000}}));
  book.clear();
  EXPECT_EQ(book.depth(Side::Bid), 0U);
  EXPECT_EQ(book.best(Side::Ask), nullptr);
}

TEST(PriceBook, CountsAChangeExactlyWhereTheLevelsBecomeOthers) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  Arena arena;
  PriceBook book(arena, 20);  // Small, so that it is full at times.
  for (int i = 0; i < 20'000; ++i) {
    const Side side = random() % 2 == 0 ? Side::Bid : Side::Ask;
    const std::vector<Level> before = levels_of(book, side);
    const std::uint64_t changes = book.changes();
    book.set(side, 100 + static_cast<std::int64_t>(random() % 30), static_cast<std::int64_t>(random() % 3));
    ASSERT_EQ(book.changes() != changes, levels_of(book, side) != before) << "step " << i;
  }
}

TEST(PriceBook, IsCrossedWhenBidReachesAsk) {
  Arena arena;
  PriceBook book(arena, 100);
  EXPECT_FALSE(book.crossed());
  book.set(Side::Bid, 100, 1);
  EXPECT_FALSE(book.crossed()) << "one side alone crosses nothing";
  book.set(Side::Ask, 101, 1);
  EXPECT_FALSE(book.crossed());
  book.set(Side::Bid, 101, 1);
  EXPECT_TRUE(book.crossed());
  book.set(Side::Bid, 101, 0);
  EXPECT_FALSE(book.crossed());
}

TEST(PriceBook, DropsTheDeepestLevelWhenFull) {
  Arena arena;
  PriceBook book(arena, 3);
  for (const std::int64_t price : {100, 99, 98}) EXPECT_TRUE(book.set(Side::Bid, price, 1));
  EXPECT_FALSE(book.set(Side::Bid, 97, 1));
  EXPECT_EQ(levels_of(book, Side::Bid), (std::vector<Level>{{100, 1}, {99, 1}, {98, 1}}));
  EXPECT_FALSE(book.set(Side::Bid, 101, 1));
  EXPECT_EQ(levels_of(book, Side::Bid), (std::vector<Level>{{101, 1}, {100, 1}, {99, 1}}));
  EXPECT_TRUE(book.set(Side::Bid, 99, 7)) << "a change of a level needs no room";
  EXPECT_EQ(book.dropped_levels(), 2U);

  PriceBook tiny(arena, 1);
  tiny.set(Side::Ask, 5, 1);
  EXPECT_FALSE(tiny.set(Side::Ask, 4, 1));
  EXPECT_EQ(levels_of(tiny, Side::Ask), (std::vector<Level>{{4, 1}}));
}

TEST(PriceBook, HoldsExtremePrices) {
  Arena arena;
  PriceBook book(arena, 8);
  constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t price : {kMax, -kMax, std::int64_t{0}}) {
    book.set(Side::Bid, price, 1);
    book.set(Side::Ask, price, 1);
  }
  EXPECT_EQ(levels_of(book, Side::Bid), (std::vector<Level>{{kMax, 1}, {0, 1}, {-kMax, 1}}));
  EXPECT_EQ(levels_of(book, Side::Ask), (std::vector<Level>{{-kMax, 1}, {0, 1}, {kMax, 1}}));
}

TEST(PriceBook, TakesSnapshotsInEitherOrder) {
  Arena arena;
  for (const bool best_first : {true, false}) {
    PriceBook book(arena, 5000);
    SlowBook slow(5000);
    for (std::int64_t i = 0; i < 5000; ++i) {
      const std::int64_t away = best_first ? i : 4999 - i;
      ASSERT_TRUE(book.set(Side::Bid, 10000 - away, away + 1));
      ASSERT_TRUE(book.set(Side::Ask, 10001 + away, away + 1));
      slow.set(Side::Bid, 10000 - away, away + 1);
      slow.set(Side::Ask, 10001 + away, away + 1);
    }
    expect_same(book, slow);
  }
}

TEST(PriceBook, RefusesCapacityZero) {
  Arena arena;
  EXPECT_THROW(PriceBook(arena, 0), SetupError);
}

struct Shape {
  const char* name;
  std::size_t max_levels;
  std::int64_t width;    // Prices lie within this many of the moving centre.
  double removal;        // Share of removals.
  int operations;
};

class PriceBookTwin : public testing::TestWithParam<Shape> {};

TEST_P(PriceBookTwin, EqualsMapOnRandomOperations) {
  const Shape shape = GetParam();
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  Arena arena;
  PriceBook book(arena, shape.max_levels);
  SlowBook slow(shape.max_levels);
  std::int64_t centre = 1'000'000;
  std::vector<Level> known;
  for (int i = 0; i < shape.operations; ++i) {
    centre += static_cast<std::int64_t>(random() % 3) - 1;
    const Side side = random() % 2 == 0 ? Side::Bid : Side::Ask;
    // Near the best half of the time, anywhere otherwise.
    const std::int64_t width = random() % 2 == 0 ? std::min<std::int64_t>(20, shape.width) : shape.width;
    std::int64_t price = centre + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(2 * width)) - width;
    std::int64_t qty = static_cast<std::int64_t>(random() % 1000) + 1;
    if (std::uniform_real_distribution<>()(random) < shape.removal) {
      qty = 0;
      known = slow.levels(side);
      // Mostly a level that exists.
      if (!known.empty() && random() % 4 != 0) price = known[random() % known.size()].price;
    }
    ASSERT_EQ(book.set(side, price, qty), slow.set(side, price, qty));
    if (i % 64 == 0 || i + 1 == shape.operations) {
      expect_same(book, slow);
      if (HasFatalFailure()) return;
    }
    if (random() % 20'000 == 0) {
      book.clear();
      slow.clear();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, PriceBookTwin,
    testing::Values(Shape{"shallow", 1000, 60, 0.45, 30'000}, Shape{"deep", 4000, 3000, 0.05, 20'000},
                    Shape{"full", 200, 400, 0.1, 30'000}, Shape{"tiny", 2, 10, 0.4, 10'000},
                    Shape{"one", 1, 10, 0.4, 5'000}, Shape{"churn", 700, 600, 0.5, 30'000}),
    [](const testing::TestParamInfo<Shape>& shape) { return shape.param.name; });

// The bound on the number of blocks holds for the worst that removals can leave behind.
TEST(PriceBook, NeverRunsOutOfBlocks) {
  Arena arena;
  constexpr std::int64_t kLevels = 4096;
  PriceBook book(arena, kLevels);
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::vector<std::int64_t> prices(2 * kLevels);
  for (std::size_t i = 0; i < prices.size(); ++i) prices[i] = static_cast<std::int64_t>(i);
  for (int round = 0; round < 20; ++round) {
    std::shuffle(prices.begin(), prices.end(), random);
    for (std::size_t i = 0; i < prices.size(); ++i) book.set(Side::Ask, prices[i], 1);
    ASSERT_EQ(book.depth(Side::Ask), static_cast<std::size_t>(kLevels));
    for (std::int64_t price = 0; price < 2 * kLevels; ++price) {
      if (price % 33 != round) book.set(Side::Ask, price, 0);
    }
    for (std::int64_t price = 0; price < 2 * kLevels; ++price) book.set(Side::Ask, price, 2);
    ASSERT_EQ(book.depth(Side::Ask), static_cast<std::size_t>(kLevels));
    ASSERT_EQ(book.best(Side::Ask)->price, 0);
  }
}

}  // namespace
}  // namespace tickwire::md

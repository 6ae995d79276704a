#include "tickwire/md/price_book.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tickwire/core/error.hpp"
#include "tickwire/md/sorted_levels.hpp"

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

// Of each side: which levels are within the horizon, what stands at a price and what comes behind it, against
// lists that are searched from the front. The horizon moves in with limit() and with a level that had to go,
// and out with extend(), but not beyond what went.
TEST(PriceBook, CountsWhatIsWithinItsHorizon) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  Arena arena;
  PriceBook book(arena, 64);
  SlowBook truth(64);
  struct Horizon {
    bool whole = true;
    std::int64_t price = 0;  // The deepest that is known.
    bool dropped = false;
    std::int64_t drop = 0;  // The best that had to go.
  } horizons[2];
  const auto better = [](Side side, std::int64_t a, std::int64_t b) {
    return side == Side::Bid ? a > b : a < b;
  };
  std::size_t beyond = 0;
  for (int i = 0; i < 40'000; ++i) {
    const Side side = random() % 2 == 0 ? Side::Bid : Side::Ask;
    Horizon& horizon = horizons[side == Side::Bid ? 0 : 1];
    const std::int64_t price = 100'000 + static_cast<std::int64_t>(random() % 90) * 10 +
                               (random() % 100 == 0 ? static_cast<std::int64_t>(random() % 40'000) : 0);
    switch (random() % 40) {
      case 0:
        book.limit(side, price);
        if (horizon.whole || better(side, price, horizon.price))
          horizon = {false, price, horizon.dropped, horizon.drop};
        break;
      case 1: {
        const bool whole = random() % 2 == 0;
        book.extend(side, whole ? nullptr : &price);
        // Never beyond what went: one step before it is the farthest.
        std::int64_t told = price;
        bool none = whole;
        if (horizon.dropped && (none || !better(side, told, horizon.drop))) {
          told = horizon.drop + (side == Side::Bid ? 1 : -1);
          none = false;
        }
        if (!horizon.whole && (none || better(side, horizon.price, told))) {
          horizon.whole = none;
          horizon.price = told;
        }
        break;
      }
      case 2:
        if (random() % 20 != 0) break;
        book.clear();
        truth.clear();
        horizons[0] = horizons[1] = {};
        break;
      default: {
        std::vector<Level> before = truth.levels(side);
        const auto qty = static_cast<std::int64_t>(random() % 3);
        truth.set(side, price, qty);
        if (!book.set(side, price, qty)) {
          // The deepest of those there were, or the new one.
          std::int64_t gone = before.back().price;
          if (better(side, gone, price)) gone = price;
          if (!horizon.dropped || better(side, gone, horizon.drop)) horizon.drop = gone;
          horizon.dropped = true;
          const std::int64_t known = gone + (side == Side::Bid ? 1 : -1);
          if (horizon.whole || better(side, known, horizon.price)) horizon.price = known;
          horizon.whole = false;
        }
      }
    }
    for (const Side each : {Side::Bid, Side::Ask}) {
      const Horizon& of = horizons[each == Side::Bid ? 0 : 1];
      const std::vector<Level> levels = levels_of(book, each);
      std::size_t known = 0;
      for (const Level& level : levels) {
        const bool within = of.whole || !better(each, of.price, level.price);
        ASSERT_EQ(book.within(each, level.price), within) << "step " << i;
        known += within ? 1 : 0;
      }
      ASSERT_EQ(book.known(each), known) << "step " << i;
      ASSERT_EQ(book.whole(each), of.whole) << "step " << i;
      for (const std::size_t n : {std::size_t{0}, known, known + 1}) {
        ASSERT_EQ(book.reaches(each, n), of.whole || n <= known) << "step " << i;
      }
      beyond += levels.size() - known;
    }
    const std::int64_t at = 100'000 + static_cast<std::int64_t>(random() % 900);
    std::int64_t qty = 0;
    Level next{};
    bool has_next = false;
    for (const Level& level : levels_of(book, side)) {
      if (level.price == at) qty = level.qty;
      if (!has_next && better(side, at, level.price)) {
        next = level;
        has_next = true;
      }
    }
    ASSERT_EQ(book.qty(side, at), qty) << "step " << i;
    Level found{};
    ASSERT_EQ(book.next(side, at, found), has_next) << "step " << i;
    if (has_next) {
      ASSERT_EQ(found, next) << "step " << i;
    }
  }
  EXPECT_GT(beyond, 10'000U);
}

TEST(PriceBook, KnowsHowFarItIsCompleteAfterItWasFull) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  Arena arena;
  PriceBook book(arena, 20);
  SlowBook truth(1000);  // Never full.
  std::size_t complete = 0;
  std::size_t incomplete = 0;
  for (int i = 0; i < 20'000; ++i) {
    const Side side = random() % 2 == 0 ? Side::Bid : Side::Ask;
    // Irregular prices now and then, so that the levels do not all fit one window.
    const auto price = static_cast<std::int64_t>(random() % 50) * (random() % 50 == 0 ? 1'000'003 : 10);
    const auto qty = static_cast<std::int64_t>(random() % 3);
    book.set(side, price, qty);
    truth.set(side, price, qty);
    if (random() % 2000 == 0) {
      book.clear();
      truth.clear();
    }
    const std::vector<Level> kept = levels_of(book, side);
    const std::vector<Level> all = truth.levels(side);
    for (std::size_t k = 0; k < kept.size() && book.within(side, kept[k].price); ++k) {
      ASSERT_EQ(kept[k], all[k]) << "level " << k << " after step " << i;
      ++complete;
    }
    incomplete += !kept.empty() && !book.within(side, kept.back().price) ? 1 : 0;
  }
  EXPECT_GT(complete, 100'000U);
  EXPECT_GT(incomplete, 100U);
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

TEST(PriceBook, CountsChangesAndNotRepetitions) {
  Arena arena;
  PriceBook book(arena, 10);
  book.set(Side::Bid, 100, 5);
  book.set(Side::Ask, 101, 5);
  const std::uint64_t before = book.changes();
  book.set(Side::Bid, 100, 5);
  book.set(Side::Bid, 99, 0);
  book.set(Side::Ask, 102, 0);
  EXPECT_EQ(book.changes(), before);
  book.set(Side::Bid, 100, 6);
  book.set(Side::Bid, 99, 1);
  book.set(Side::Ask, 101, 0);
  EXPECT_EQ(book.changes(), before + 3);
}

TEST(PriceBook, LearnsThePriceStep) {
  Arena arena;
  PriceBook book(arena, 1000);
  SlowBook slow(1000);
  // A step of 1,000,000 would leave a window of 2048 units nothing to hold; then a half step, then one
  // that divides neither.
  for (const std::int64_t step : {1'000'000, 500'000, 3}) {
    for (std::int64_t i = 0; i < 150; ++i) {
      for (const Side side : {Side::Bid, Side::Ask}) {
        const std::int64_t price = 6'183'700'000'000 + (side == Side::Bid ? -i : i + 1) * step;
        book.set(side, price, i + 1);
        slow.set(side, price, i + 1);
      }
    }
    expect_same(book, slow);
  }
  book.clear();
  slow.clear();
  expect_same(book, slow);
  book.set(Side::Bid, 7, 1);
  slow.set(Side::Bid, 7, 1);
  expect_same(book, slow);
}

TEST(PriceBook, FollowsTheMarketUpAndDown) {
  Arena arena;
  PriceBook book(arena, 100);  // A window of 256 steps.
  SlowBook slow(100);
  std::int64_t centre = 0;
  for (int i = 0; i < 20'000; ++i) {
    centre += i / 2000 % 2 == 0 ? 3 : -3;
    for (const Side side : {Side::Bid, Side::Ask}) {
      const std::int64_t away = side == Side::Bid ? -1 : 1;
      // One level at the best price, the ones in between go, and the book thins out behind.
      for (const std::int64_t price : {centre + away, centre + 40 * away}) {
        book.set(side, price, i + 1);
        slow.set(side, price, i + 1);
      }
      for (std::int64_t back = 0; back < 4; ++back) {
        book.set(side, centre - back * away, 0);
        slow.set(side, centre - back * away, 0);
      }
    }
    if (i % 50 == 0) {
      expect_same(book, slow);
      if (HasFatalFailure()) return;
    }
  }
}

struct Shape {
  const char* name;
  std::size_t max_levels;
  std::int64_t width;  // Prices lie within this many steps of the moving centre.
  double removal;      // Share of removals.
  int operations;
  std::int64_t drift = 1;  // The centre moves up to this many steps an operation.
  std::int64_t step = 1;
  int off_grid_every = 0;  // One in so many prices lies between two steps.
};

class PriceBookTwin : public testing::TestWithParam<Shape> {};

TEST_P(PriceBookTwin, EqualsMapOnRandomOperations) {
  const Shape shape = GetParam();
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto below = [&random](std::int64_t bound) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(bound));
  };
  Arena arena;
  PriceBook book(arena, shape.max_levels);
  SlowBook slow(shape.max_levels);
  std::int64_t centre = 1'000'000;
  std::vector<Level> known;
  for (int i = 0; i < shape.operations; ++i) {
    centre += below(2 * shape.drift + 1) - shape.drift;
    const Side side = random() % 2 == 0 ? Side::Bid : Side::Ask;
    // Near the best half of the time, anywhere otherwise.
    const std::int64_t width = random() % 2 == 0 ? std::min<std::int64_t>(20, shape.width) : shape.width;
    std::int64_t price = (centre + below(2 * width) - width) * shape.step;
    if (shape.off_grid_every != 0 && below(shape.off_grid_every) == 0) price += below(shape.step);
    std::int64_t qty = below(1000) + 1;
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
                    Shape{"one", 1, 10, 0.4, 5'000}, Shape{"churn", 700, 600, 0.5, 30'000},
                    Shape{"wide", 300, 100'000, 0.45, 20'000}, Shape{"wide_full", 100, 100'000, 0.2, 20'000},
                    Shape{"drifting", 60, 100, 0.45, 30'000, 50},
                    Shape{"leaping", 200, 300, 0.5, 10'000, 2000},
                    Shape{"stepped", 500, 300, 0.45, 20'000, 2, 1000},
                    Shape{"off_grid", 500, 300, 0.45, 20'000, 2, 720'720, 3000},
                    Shape{"no_grid", 300, 300, 0.45, 20'000, 2, 1'000'003, 1}),
    [](const testing::TestParamInfo<Shape>& shape) { return shape.param.name; });

// The bound on the number of blocks holds for the worst that removals can leave behind.
TEST(SortedLevels, NeverRunsOutOfBlocks) {
  Arena arena;
  constexpr std::int64_t kLevels = 4096;
  SortedLevels levels(arena, kLevels);
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::vector<std::int64_t> keys(2 * kLevels);
  for (std::size_t i = 0; i < keys.size(); ++i) keys[i] = static_cast<std::int64_t>(i);
  const auto fill = [&levels](std::int64_t key) {
    if (levels.size() == kLevels && !levels.contains(key)) levels.pop_worst();
    levels.exchange(key, 1);
  };
  for (int round = 0; round < 20; ++round) {
    std::shuffle(keys.begin(), keys.end(), random);
    for (const std::int64_t key : keys) fill(key);
    ASSERT_EQ(levels.size(), static_cast<std::size_t>(kLevels));
    for (std::int64_t key = 0; key < 2 * kLevels; ++key) {
      if (key % 33 != round) levels.exchange(key, 0);
    }
    for (std::int64_t key = 0; key < 2 * kLevels; ++key) fill(key);
    ASSERT_EQ(levels.size(), static_cast<std::size_t>(kLevels));
    ASSERT_EQ(levels.best().price, 2 * kLevels - 1);
  }
}

TEST(SortedLevels, EqualsMapOnRandomOperations) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (const std::size_t max_levels : {std::size_t{1}, std::size_t{90}, std::size_t{2000}}) {
    Arena arena;
    SortedLevels levels(arena, max_levels);
    std::map<std::int64_t, std::int64_t> slow;
    for (int i = 0; i < 40'000; ++i) {
      const auto key = static_cast<std::int64_t>(random() % (2 * max_levels + 1));
      const auto qty = static_cast<std::int64_t>(i / 4000 % 2 == 0 ? random() % 4 : random() % 2);
      const auto known = slow.find(key);
      ASSERT_EQ(levels.contains(key), known != slow.end());
      switch (random() % 50) {
        case 0:
          if (!slow.empty()) {
            levels.pop_best();
            slow.erase(std::prev(slow.end()));
          }
          break;
        case 1:
          if (!slow.empty()) {
            levels.pop_worst();
            slow.erase(slow.begin());
          }
          break;
        default:
          if (known == slow.end() && slow.size() == max_levels) break;
          ASSERT_EQ(levels.exchange(key, qty), known != slow.end() ? known->second : 0);
          if (qty != 0) {
            slow[key] = qty;
          } else {
            slow.erase(key);
          }
      }
      ASSERT_EQ(levels.size(), slow.size());
      if (!slow.empty()) {
        ASSERT_EQ(levels.best().price, slow.rbegin()->first);
        ASSERT_EQ(levels.worst().price, slow.begin()->first);
      }
      if (i % 500 == 0) {
        std::vector<Level> all(slow.size() + 1);
        ASSERT_EQ(levels.top(all), slow.size());
        auto level = all.begin();
        for (auto expected = slow.rbegin(); expected != slow.rend(); ++expected, ++level) {
          ASSERT_EQ(level->price, expected->first);
          ASSERT_EQ(level->qty, expected->second);
        }
      }
    }
  }
}

}  // namespace
}  // namespace tickwire::md

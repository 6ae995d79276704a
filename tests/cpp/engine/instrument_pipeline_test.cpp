#include "tickwire/engine/ingest/instrument_pipeline.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <random>
#include <vector>

#include "engine/configs.hpp"

namespace tickwire::engine {
namespace {

/// One USD-M instrument whose rows are the imbalance of five levels, and its events.
class InstrumentPipelineTest : public ::testing::Test {
 protected:
  static FeaturesConfig features() { return test::features_config(5); }
  static FeedConfig feed() {
    FeedConfig feed{};
    feed.market = venue::binance::Market::UsdM;
    feed.max_levels = 10;
    feed.max_frame_bytes = 1U << 16U;
    feed.buffer_events = 16;
    return feed;
  }

  md::Event event(md::EventKind kind, const std::vector<md::Level>& bids,
                  const std::vector<md::Level>& asks) {
    ts_ += 1'000'000;
    md::Event event{};
    event.kind = kind;
    event.ts_event = event.ts_recv = ts_;
    event.bids = bids;
    event.asks = asks;
    return event;
  }

  Step diff(const std::vector<md::Level>& bids, const std::vector<md::Level>& asks) {
    md::Event diff = event(md::EventKind::BookDiff, bids, asks);
    diff.prev_id = id_;
    diff.first_id = id_ + 1;
    diff.last_id = id_ += 2;
    return pipeline_.on_diff(diff);
  }

  Step snapshot(const std::vector<md::Level>& bids, const std::vector<md::Level>& asks) {
    md::Event snapshot = event(md::EventKind::BookSnapshot, bids, asks);
    snapshot.last_id = snapshot.first_id = id_;
    return pipeline_.on_snapshot(snapshot);
  }

  static std::vector<md::Level> levels(std::int64_t best, std::int64_t step, std::size_t count) {
    std::vector<md::Level> levels;
    for (std::size_t i = 0; i < count; ++i) {
      levels.push_back({best + step * static_cast<std::int64_t>(i), 10 + static_cast<std::int64_t>(i)});
    }
    return levels;
  }

  Arena arena_{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  FeedConfig feed_ = feed();
  FeaturesConfig features_ = features();
  InstrumentPipeline pipeline_{feed_, {"BTCUSDT", 0, 0}, features_, arena_};
  TsNs ts_ = 1'700'000'000'000'000'000;
  std::uint64_t id_ = 100;
};

TEST_F(InstrumentPipelineTest, LeavesValidWhereTheFeaturesNeedALevelThatAFullBookDropped) {
  (void)pipeline_.on_open();
  (void)diff({}, {});
  ASSERT_TRUE(snapshot(levels(1000, -1, 10), levels(1001, 1, 7)).became_valid);
  EXPECT_FALSE(diff({{990, 5}}, {}).left_valid) << "the eleventh bid does not fit, and nobody needs it";
  EXPECT_TRUE(diff({{1000, 0}, {999, 0}, {998, 0}, {997, 0}, {996, 0}}, {}).row) << "five known bids remain";
  const Step step = diff({{995, 0}, {500, 7}}, {});
  EXPECT_FALSE(step.row) << "the fifth best bid would be 990, which was dropped";
  EXPECT_TRUE(step.left_valid);
  EXPECT_EQ(step.reason, md::InvalidReason::Depth);
  EXPECT_NE(pipeline_.state(), md::BookState::Valid);
}

// The book was followed through the pause, so what the event that ends it changed is known.
TEST_F(InstrumentPipelineTest, TellsAnEventThatEndsAPauseByTheBookBeforeIt) {
  FeaturesConfig flow = features();
  flow.plan = {.nodes = {{features::find_kernel("ofi"), -1, 1, 0, 1, 0, 0}}, .outputs = {0}};
  InstrumentPipeline pipeline(feed_, {"BTCUSDT", 0, 0}, flow, arena_);
  const auto told = [&](std::int64_t qty) {
    md::Level bid{1000, qty};
    md::Event diff = event(md::EventKind::BookDiff, {}, {});
    diff.bids = {&bid, 1};
    diff.prev_id = id_;
    diff.first_id = id_ + 1;
    diff.last_id = id_ += 2;
    return pipeline.on_diff(diff);
  };
  const auto flow_of = [&](const Step& step) {
    EXPECT_TRUE(step.row);
    return pipeline.history().newest()[0];
  };
  (void)pipeline.on_open();
  (void)told(10);
  const std::vector<md::Level> bids = levels(1000, -1, 10);
  const std::vector<md::Level> asks = levels(1001, 1, 10);
  md::Event snapshot = event(md::EventKind::BookSnapshot, bids, asks);
  snapshot.last_id = snapshot.first_id = id_;
  ASSERT_TRUE(pipeline.on_snapshot(snapshot).became_valid);
  EXPECT_EQ(flow_of(told(13)), 3.0F);
  const std::uint32_t epoch = pipeline.epoch();

  (void)pipeline.pause();
  EXPECT_EQ(flow_of(told(20)), 7.0F);
  EXPECT_EQ(pipeline.epoch(), epoch + 1);
  EXPECT_EQ(flow_of(told(15)), -5.0F);

  (void)pipeline.block();
  EXPECT_FALSE(told(30).row);
  pipeline.unblock();
  EXPECT_EQ(flow_of(told(31)), 1.0F);

  (void)pipeline.doubt_clock();
  EXPECT_FALSE(told(40).row);
  pipeline.trust_clock();
  EXPECT_EQ(flow_of(told(38)), -2.0F);
  EXPECT_EQ(pipeline.epoch(), epoch + 3);
}

// However few levels a book may keep, a row that leaves is the row of the whole book.
TEST_F(InstrumentPipelineTest, NoRowDiffersFromTheTruthHoweverSmallTheBook) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::map<std::int64_t, std::int64_t, std::greater<>> bids;
  std::map<std::int64_t, std::int64_t> asks;
  for (std::int64_t i = 0; i < 60; ++i) {
    bids[1000 - i] = 1 + static_cast<std::int64_t>(random() % 50);
    asks[1001 + i] = 1 + static_cast<std::int64_t>(random() % 50);
  }
  std::size_t rows = 0;
  std::size_t lost = 0;
  (void)pipeline_.on_open();
  for (int i = 0; i < 5000; ++i) {
    // Levels come and go; now and then a sweep takes the best six, so that what was dropped is reached.
    std::vector<md::Level> changed_bids;
    std::vector<md::Level> changed_asks;
    for (auto k = random() % 3; k-- != 0;) {
      const auto offset = static_cast<std::int64_t>(random() % 60);
      const std::int64_t qty = random() % 2 == 0 ? 0 : 1 + static_cast<std::int64_t>(random() % 50);
      (random() % 2 == 0 ? changed_bids : changed_asks).push_back({offset, qty});
    }
    if (i % 10 == 9) {
      for (const auto& [price, qty] : bids) {
        if (changed_bids.size() < 6) changed_bids.push_back({1000 - price, 0});
      }
    }
    for (md::Level& level : changed_bids) {
      level.price = 1000 - level.price;
      if (level.qty == 0)
        bids.erase(level.price);
      else
        bids[level.price] = level.qty;
    }
    for (md::Level& level : changed_asks) {
      level.price = 1001 + level.price;
      if (level.qty == 0)
        asks.erase(level.price);
      else
        asks[level.price] = level.qty;
    }
    const Step step = diff(changed_bids, changed_asks);
    lost += step.left_valid ? 1 : 0;
    if (step.row) {
      ++rows;
      const auto sum_of_five = [](const auto& side) {
        double sum = 0;
        std::size_t n = 0;
        for (auto level = side.begin(); level != side.end() && n < 5; ++level, ++n) {
          sum += static_cast<double>(level->second);
        }
        return sum;
      };
      const double b = sum_of_five(bids);
      const double a = sum_of_five(asks);
      ASSERT_FLOAT_EQ(pipeline_.history().newest()[0], static_cast<float>((b - a) / (b + a)))
          << "event " << i;
    }
    if (pipeline_.wants_snapshot() ||
        (pipeline_.wants_depth() && pipeline_.state() != md::BookState::Valid)) {
      std::vector<md::Level> top_bids;
      std::vector<md::Level> top_asks;
      for (const auto& [price, qty] : bids) top_bids.push_back({price, qty});
      for (const auto& [price, qty] : asks) top_asks.push_back({price, qty});
      (void)snapshot(top_bids, top_asks);
    }
  }
  EXPECT_GT(rows, 1000U);
  EXPECT_GT(lost, 3U) << "nothing that was dropped was ever reached: the test shows nothing";
}

}  // namespace
}  // namespace tickwire::engine

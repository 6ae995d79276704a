#include "tickwire/engine/ingest/row_builder.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "engine/configs.hpp"

namespace tickwire::engine {
namespace {

/// Rows are the imbalance of the best levels.
class RowBuilderTest : public ::testing::Test {
 protected:
  void build(Trigger trigger, std::int64_t every_ns = 0, WindowClock clock = WindowClock::Recv,
             std::int64_t mean_ns = 0) {
    FeaturesConfig features = test::features_config();
    features.trigger = trigger;
    features.every_ns = every_ns;
    features.clock = clock;
    if (mean_ns != 0) {
      features.plan.nodes.push_back({features::find_kernel("mean"), 0, 0, mean_ns, 0, 0, 0});
      features.plan.outputs = {1};
    }
    rows_.emplace(features, 0, arena_);
    book(100, 3, 101, 1);
  }
  void book(std::int64_t bid, std::int64_t bid_qty, std::int64_t ask, std::int64_t ask_qty) {
    bids_ = {{bid, bid_qty}};
    asks_ = {{ask, ask_qty}};
  }
  features::TopOfBook top() const { return {bids_, asks_}; }
  void begin(TsNs ts) {
    rows_->advance_clock(kNoTime, ts);
    rows_->begin_epoch(top());
  }
  /// An event of the book at a time: did a row leave?
  bool event(TsNs ts, bool changed = true) {
    rows_->advance_clock(kNoTime, ts);
    const bool best = rows_->on_book(top());
    return rows_->emit({.book = changed, .top = best});
  }
  bool trade(TsNs ts) {
    rows_->advance_clock(kNoTime, ts);
    md::Trade print{};
    print.price = 100;
    print.qty = 1;
    rows_->on_trade(print);
    return rows_->emit({.trade = true});
  }

  Arena arena_{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  std::vector<md::Level> bids_;
  std::vector<md::Level> asks_;
  std::optional<RowBuilder> rows_;
};

TEST_F(RowBuilderTest, EveryGivesARowToTheFirstEventOnOrBehindABoundary) {
  build(Trigger::Every, 100);
  begin(250);
  EXPECT_FALSE(event(299));
  EXPECT_TRUE(event(300)) << "on the boundary itself";
  EXPECT_FALSE(event(300)) << "once";
  EXPECT_FALSE(event(399, false));
  EXPECT_TRUE(event(400, false)) << "also where it changed nothing";
  EXPECT_TRUE(event(655)) << "several at once are one";
  EXPECT_FALSE(event(699));
  EXPECT_TRUE(trade(700)) << "by whatever comes";
  EXPECT_FALSE(event(650)) << "the clock never goes back";
  EXPECT_FALSE(trade(799));
  EXPECT_TRUE(event(900));
  EXPECT_EQ(rows_->row(), 5U);
  begin(1000);
  EXPECT_EQ(rows_->row(), 0U);
  EXPECT_FALSE(event(1000)) << "the boundary that the epoch begins on is its beginning";
  EXPECT_FALSE(event(1099));
  EXPECT_TRUE(event(1100));
  EXPECT_EQ(rows_->row(), 1U);
}

TEST_F(RowBuilderTest, ABoundaryPassesBeforeAnyEpochToo) {
  build(Trigger::Every, 100);
  rows_->advance_clock(kNoTime, 250);
  EXPECT_FALSE(rows_->fires({.book = true}));
  rows_->advance_clock(kNoTime, 299);
  EXPECT_FALSE(rows_->fires({.book = true}));
  rows_->advance_clock(kNoTime, 300);
  EXPECT_TRUE(rows_->fires({.book = true}));
  EXPECT_FALSE(rows_->fires({.book = true}));
  EXPECT_EQ(rows_->row(), 0U) << "fires() makes none";
}

TEST_F(RowBuilderTest, TopFiresWhereTheBestPriceOrQuantityChanged) {
  build(Trigger::Top);
  begin(0);
  EXPECT_FALSE(event(1)) << "as the epoch began";
  book(100, 4, 101, 1);
  EXPECT_TRUE(event(2));
  EXPECT_FALSE(event(3));
  book(100, 4, 102, 1);
  EXPECT_TRUE(event(4));
  book(99, 4, 102, 1);
  EXPECT_TRUE(event(5, false));
  asks_.clear();
  EXPECT_TRUE(event(6)) << "a side that is gone is a change";
  EXPECT_FALSE(event(7));
  EXPECT_FALSE(trade(8));
  EXPECT_EQ(rows_->row(), 4U);
}

TEST_F(RowBuilderTest, WhatWasFollowedIsNoChangeAnyMore) {
  build(Trigger::Top);
  begin(0);
  book(100, 4, 101, 1);
  EXPECT_TRUE(rows_->follow(top()));
  EXPECT_FALSE(rows_->follow(top()));
  EXPECT_FALSE(event(1));
  EXPECT_EQ(rows_->row(), 0U);
}

TEST_F(RowBuilderTest, BookAndTradeFireByTheirKindAlone) {
  build(Trigger::Book);
  begin(0);
  EXPECT_TRUE(event(1));
  EXPECT_FLOAT_EQ(rows_->history().newest()[0], 0.5F);
  EXPECT_FALSE(event(2, false));
  EXPECT_FALSE(trade(3));
  build(Trigger::Trade);
  begin(0);
  EXPECT_FALSE(event(1));
  EXPECT_TRUE(trade(2));
}

TEST_F(RowBuilderTest, NoRowLeavesBeforeItsWindowsAreFull) {
  build(Trigger::Book, 0, WindowClock::Recv, 100);
  begin(1000);
  EXPECT_FALSE(event(1050));
  EXPECT_FALSE(event(1099));
  EXPECT_EQ(rows_->row(), 0U);
  book(100, 1, 101, 3);  // (1 - 3) / 4; in (1000, 1100] stand two samples of +0.5 and this one.
  EXPECT_TRUE(event(1100));
  EXPECT_EQ(rows_->row(), 1U);
  EXPECT_FLOAT_EQ(rows_->history().newest()[0], static_cast<float>((0.5 + 0.5 - 0.5) / 3));
}

TEST_F(RowBuilderTest, TheClockIsTheGreatestStampOfTheChosenKind) {
  for (const WindowClock clock : {WindowClock::Recv, WindowClock::Event}) {
    build(Trigger::Book, 0, clock);
    rows_->advance_clock(500, 700);
    const TsNs own = clock == WindowClock::Recv ? 700 : 500;
    EXPECT_EQ(rows_->clock(), own);
    rows_->advance_clock(400, 600);
    EXPECT_EQ(rows_->clock(), own);
    rows_->advance_clock(kNoTime, kNoTime);
    EXPECT_EQ(rows_->clock(), own);
    rows_->forget_clock();
    rows_->advance_clock(3, 4);
    EXPECT_EQ(rows_->clock(), clock == WindowClock::Recv ? 4 : 3);
  }
}

}  // namespace
}  // namespace tickwire::engine

#include "tickwire/venue/trade_sequence.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <set>
#include <tuple>
#include <vector>

namespace tickwire::venue {
namespace {

constexpr TsNs kMillisecond = 1'000'000;
constexpr TsNs kSecond = 1'000'000'000;
constexpr TsNs kStart = 1'700'000'000 * kSecond;

class TradeSequenceTest : public testing::Test {
 protected:
  /// A trade that happened at `ts` and came then. What it says follows from `content`.
  static md::Event trade(std::uint64_t id, TsNs ts, std::int64_t content, bool stamped = true) {
    md::Event event{};
    event.kind = md::EventKind::Trade;
    event.ts_recv = kStart + ts;
    event.ts_event = event.ts_recv;
    event.trade = {.id = id,
                   .price = 100 + content,
                   .qty = 7,
                   .aggressor = md::Aggressor::Buyer,
                   .printable = true,
                   .ts_trade = stamped ? kStart + ts : kNoTime};
    return event;
  }
  TradeSequence::Step come(std::uint64_t id, TsNs ts, std::int64_t content) {
    return sequence.on_trade(trade(id, ts, content));
  }

  Arena arena{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  TradeSequence sequence{arena, 64};
};

TEST_F(TradeSequenceTest, TakesATradeOnceAndCountsWhatIsMissingUntilItComes) {
  EXPECT_EQ(come(10, 0, 0).missing, 0U) << "nothing before the first was awaited";
  EXPECT_FALSE(come(11, 1, 1).repeated);
  EXPECT_TRUE(come(10, 2, 0).repeated) << "within a millisecond it is the same time";
  EXPECT_TRUE(sequence.on_trade(trade(11, 1, 1)).repeated);
  const auto gap = come(15, 5 * kMillisecond, 5);
  EXPECT_FALSE(gap.repeated);
  EXPECT_EQ(gap.missing, 3U);
  const auto late = sequence.on_trade(trade(13, 3, 3));
  EXPECT_FALSE(late.repeated);
  EXPECT_TRUE(late.late);
  EXPECT_TRUE(sequence.on_trade(trade(13, 3, 3)).repeated) << "late once";
  EXPECT_EQ(come(16, 6 * kMillisecond, 6).missing, 0U);
  EXPECT_EQ(sequence.newest(), 16U);
}

TEST_F(TradeSequenceTest, KnowsWhichTradesCame) {
  EXPECT_FALSE(sequence.has(7));
  come(10, 0, 0);
  come(14, 5 * kMillisecond, 4);
  for (const std::uint64_t id : {1U, 9U, 10U, 14U}) EXPECT_TRUE(sequence.has(id)) << id;
  for (const std::uint64_t id : {11U, 12U, 13U, 15U}) EXPECT_FALSE(sequence.has(id)) << id;
  come(12, 6 * kMillisecond, 2);
  EXPECT_TRUE(sequence.has(12));
  EXPECT_FALSE(sequence.has(13));
  come(13 + 64, 7 * kMillisecond, 3);
  EXPECT_TRUE(sequence.has(13)) << "too long ago for it to come";
  EXPECT_FALSE(sequence.has(14 + 1));
}

TEST_F(TradeSequenceTest, AHoleIsOverdueAfterASecondUnlessLateTradesFillIt) {
  TradeSequence::Hole hole{};
  come(10, 0, 0);
  come(12, kMillisecond, 2);
  come(20, 2 * kMillisecond, 20);
  come(22, 3 * kMillisecond, 22);
  EXPECT_TRUE(sequence.on_trade(trade(11, 4 * kMillisecond, 1)).filled);
  EXPECT_FALSE(sequence.on_trade(trade(15, 4 * kMillisecond, 5)).filled) << "one of seven";
  EXPECT_TRUE(sequence.has_holes());
  EXPECT_FALSE(sequence.take_overdue(kStart + kSecond + 2 * kMillisecond, hole)) << "not later than a second";
  ASSERT_TRUE(sequence.take_overdue(kStart + kSecond + 2 * kMillisecond + 1, hole));
  EXPECT_EQ(std::tuple(hole.first, hole.last, hole.left), std::tuple(13U, 19U, 6U));
  EXPECT_FALSE(sequence.take_overdue(kStart + kSecond + 2 * kMillisecond + 1, hole)) << "each once";
  const auto late = sequence.on_trade(trade(16, 2 * kSecond, 6));
  EXPECT_TRUE(late.late);
  EXPECT_FALSE(late.filled) << "of a hole that was told of already";
  ASSERT_TRUE(sequence.take_overdue(kStart + 9 * kSecond, hole));
  EXPECT_EQ(std::tuple(hole.first, hole.last, hole.left), std::tuple(21U, 21U, 1U));
  EXPECT_FALSE(sequence.has_holes());
}

TEST_F(TradeSequenceTest, WhereHolesAreTooManyTheOldestIsOverdueAtOnce) {
  TradeSequence::Hole hole{};
  std::uint64_t told = 0;
  // More than there is room for, 256, within one moment: none of them is late yet.
  for (std::uint64_t id = 10; id < 10 + 2 * 600; id += 2) {
    while (sequence.take_overdue(kStart, hole)) {
      ASSERT_EQ(hole.first, 11 + 2 * told);
      ++told;
    }
    come(id, 0, 0);
  }
  EXPECT_EQ(told, 599U - 256U);
  while (sequence.take_overdue(kStart + 2 * kSecond, hole)) {
    ASSERT_EQ(hole.first, 11 + 2 * told);
    ++told;
  }
  EXPECT_EQ(told, 599U) << "no hole is passed over";
}

TEST_F(TradeSequenceTest, WhereNobodyAsksTheNewestHolesAreKept) {
  TradeSequence all(arena, 2048);
  const auto bring = [&](std::uint64_t id) {
    return all.on_trade(trade(id, static_cast<TsNs>(id), static_cast<std::int64_t>(id)));
  };
  for (std::uint64_t id = 10; id <= 10 + 2 * 300; id += 2) EXPECT_EQ(bring(id).missing, id == 10 ? 0U : 1U);
  // 300 holes, of which 44 found no room: their trades are late as all others, and fill no hole that is open.
  for (std::uint64_t id = 11; id < 11 + 2 * 300; id += 2) {
    const auto step = bring(id);
    ASSERT_TRUE(step.late) << id;
    ASSERT_EQ(step.filled, id >= 11 + 2 * 44) << id;
  }
  EXPECT_FALSE(all.has_holes());
}

TEST_F(TradeSequenceTest, AnIdOfZeroIsAnId) {
  EXPECT_FALSE(come(0, 0, 0).repeated);
  EXPECT_TRUE(come(0, 1, 0).repeated);
  EXPECT_EQ(come(1, 2, 1).missing, 0U);
}

TEST_F(TradeSequenceTest, AfterAConnectionOpensWhatLiesBeforeItsFirstTradeIsNotMissing) {
  come(10, 0, 0);
  sequence.resume();
  EXPECT_TRUE(sequence.on_trade(trade(10, 0, 0)).repeated);
  EXPECT_EQ(come(20, kSecond, 0).missing, 0U);
  EXPECT_EQ(come(22, kSecond, 0).missing, 1U);
  EXPECT_FALSE(sequence.on_trade(trade(15, kMillisecond, 5)).late) << "it was never missing";
}

TEST_F(TradeSequenceTest, NumbersThatBeginAnewAreTakenAtOnceWhereContentOrStampShowsIt) {
  for (std::uint64_t id = 1; id <= 40; ++id) come(id, static_cast<TsNs>(id) * kMillisecond, 0);
  // The same id, another trade, in the same millisecond.
  const auto other = sequence.on_trade(trade(1, 40 * kMillisecond, 9));
  EXPECT_TRUE(other.anew);
  EXPECT_EQ(other.missing, 1U);
  EXPECT_FALSE(other.repeated);
  for (std::uint64_t id = 2; id <= 40; ++id) {
    ASSERT_FALSE(come(id, static_cast<TsNs>(40 + id) * kMillisecond, 0).repeated) << id;
  }
  // The same content, but it happened later than all that came.
  const auto later = come(1, 100 * kMillisecond, 9);
  EXPECT_TRUE(later.anew);
  EXPECT_EQ(come(2, 101 * kMillisecond, 0).missing, 0U);
}

TEST_F(TradeSequenceTest, NumbersThatBeginAnewBelowAllThatWasSeenAreTakenAtOnce) {
  for (std::uint64_t id = 5000; id < 5100; ++id) come(id, static_cast<TsNs>(id) * kMillisecond, 0);
  EXPECT_TRUE(come(1, 6000 * kMillisecond, 0).anew);
  EXPECT_EQ(come(2, 6001 * kMillisecond, 0).missing, 0U);
}

TEST_F(TradeSequenceTest, NothingIsDroppedForEverWhateverOneStampSaid) {
  come(5000, 0, 0);
  md::Event wild = trade(5001, 1, 1);
  wild.trade.ts_trade = 4'102'444'800 * kSecond;  // 2100
  EXPECT_FALSE(sequence.on_trade(wild).repeated);
  EXPECT_FALSE(come(5002, 2 * kMillisecond, 2).repeated);
  EXPECT_TRUE(come(1, kSecond, 0).anew) << "a stamp that nobody believes does not hide what is new";
  for (std::uint64_t id = 2; id < 200; ++id) come(id, 2 * kSecond, 0);
  md::Event old = trade(3, 3 * kSecond, 0);
  old.trade.ts_trade = 4'102'444'800 * kSecond;
  EXPECT_TRUE(sequence.on_trade(old).repeated) << "and makes nothing new of what is forgotten";
}

TEST_F(TradeSequenceTest, WithoutStampsSeveralOldOnesInARowDecideOnceNothingNewCame) {
  for (std::uint64_t id = 1; id <= 500; ++id) sequence.on_trade(trade(id, 0, 0, false));
  // Another connection that lags: old ones, but new ones between them.
  for (std::uint64_t id = 501; id <= 600; ++id) {
    const TsNs ts = static_cast<TsNs>(id) * kSecond;
    ASSERT_FALSE(sequence.on_trade(trade(id, ts, 0, false)).repeated);
    ASSERT_TRUE(sequence.on_trade(trade(id - 300, ts, 0, false)).repeated);
    ASSERT_TRUE(sequence.on_trade(trade(id - 299, ts, 0, false)).repeated);
  }
  const TsNs end = 600 * kSecond;
  EXPECT_TRUE(sequence.on_trade(trade(1, end + kSecond, 0, false)).repeated);
  EXPECT_TRUE(sequence.on_trade(trade(2, end + 2 * kSecond, 0, false)).repeated);
  EXPECT_TRUE(sequence.on_trade(trade(3, end + 3 * kSecond, 0, false)).repeated);
  EXPECT_TRUE(sequence.on_trade(trade(4, end + 11 * kSecond, 0, false)).anew);
  EXPECT_FALSE(sequence.on_trade(trade(5, end + 11 * kSecond, 0, false)).repeated);
}

TEST_F(TradeSequenceTest, AnIdFarAheadIsAnotherNumberingAndNoHole) {
  come(10, 0, 0);
  const auto step = come(std::uint64_t{1} << 60U, kMillisecond, 0);
  EXPECT_TRUE(step.anew);
  EXPECT_EQ(step.missing, 1U);
  EXPECT_TRUE(come(11, 2 * kMillisecond, 0).anew) << "and the way back is not lost";
}

/// Two connections that each lose some, repeat some and lag by a few, against a set of what came.
TEST(TradeSequence, TakesEachIdOnceInAnyWeather) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  const auto chance = [&](double p) { return std::bernoulli_distribution(p)(random); };
  Arena arena{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  std::uint64_t repeated = 0;
  std::uint64_t missing = 0;
  for (int round = 0; round < 40; ++round) {
    TradeSequence sequence(arena, 1024);
    std::deque<md::Event> lines[2];
    std::set<std::uint64_t> came;
    std::int64_t balance = 0;
    std::uint64_t first = 0;
    TsNs now = kStart;
    const auto bring = [&](md::Event event) {
      event.ts_recv = now;
      const TradeSequence::Step step = sequence.on_trade(event);
      if (came.empty()) first = event.trade.id;
      ASSERT_EQ(step.repeated, !came.insert(event.trade.id).second) << event.trade.id;
      ASSERT_FALSE(step.anew);
      balance += static_cast<std::int64_t>(step.missing) - (step.late ? 1 : 0);
      repeated += step.repeated ? 1 : 0;
      missing += step.missing;
    };
    for (std::uint64_t id = 1000; id < 3000; ++id) {
      now += std::uniform_int_distribution<TsNs>(0, 3 * kMillisecond)(random);
      md::Event event{};
      event.kind = md::EventKind::Trade;
      event.trade = {.id = id,
                     .price = std::uniform_int_distribution<std::int64_t>(1, 3)(random),
                     .qty = 1,
                     .aggressor = md::Aggressor::Seller,
                     .printable = true,
                     .ts_trade = now};
      for (auto& line : lines) {
        if (chance(0.03)) continue;
        line.push_back(event);
        if (chance(0.05)) line.push_back(event);
        if (chance(0.5)) continue;
        for (std::size_t count = std::min<std::size_t>(line.size(), 4); count != 0; --count) {
          bring(line.front());
          line.pop_front();
        }
      }
    }
    for (auto& line : lines) {
      for (; !line.empty(); line.pop_front()) bring(line.front());
    }
    // What is still missing lies between the first that came and the last.
    const auto span = static_cast<std::int64_t>(*came.rbegin() - first + 1);
    const auto within = static_cast<std::int64_t>(std::distance(came.lower_bound(first), came.end()));
    ASSERT_EQ(balance, span - within);
  }
  EXPECT_GT(repeated, 10'000U) << "weather too good to show anything";
  EXPECT_GT(missing, 100U);
}

}  // namespace
}  // namespace tickwire::venue

#include "tickwire/engine/ingest/warm_join.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace tickwire::engine {
namespace {

using Verdict = WarmJoin::Verdict;

constexpr std::int64_t kSecond = 1'000'000'000;

/// Two instruments on one connection, which stands since second 0. Each message is its own id as text.
class WarmJoinTest : public testing::Test {
 protected:
  WarmJoinTest() { join.up(0, 0); }

  bool keep(LineEvent::Kind kind, std::uint32_t instrument, std::uint64_t previous, std::uint64_t last,
            std::int64_t now_ns) {
    std::string text = std::to_string(last);
    text.resize(text.size() + 64);  // What the source has behind it.
    const net::WebSocketMessage message{.payload = {text.data(), text.size() - 64},
                                        .is_text = true,
                                        .recv_clock = RecvClock::Read,
                                        .ts_recv = 1000 + now_ns,
                                        .tsc_read = 0};
    return join.keep(0, {kind, instrument, previous, last}, message, now_ns);
  }
  bool diff(std::uint32_t instrument, std::uint64_t previous, std::uint64_t last, std::int64_t now_ns) {
    return keep(LineEvent::Kind::Diff, instrument, previous, last, now_ns);
  }
  bool trade(std::uint32_t instrument, std::uint64_t id, std::int64_t now_ns) {
    return keep(LineEvent::Kind::Trade, instrument, id - 1, id, now_ns);
  }
  bool decide(WarmJoin::Captured one, WarmJoin::Captured two, std::int64_t captured_ns, std::int64_t now_ns) {
    const std::vector<WarmJoin::Captured> captured{one, two};
    return join.decide(captured, captured_ns, now_ns);
  }
  std::vector<std::string> kept() {
    std::vector<std::string> all;
    for (WarmJoin::Kept one; join.front(one); join.pop()) {
      all.emplace_back(one.message.payload.data(), one.message.payload.size());
    }
    return all;
  }

  Arena arena{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  WarmJoin join{2, 1, true, false, arena, 1U << 12U};
};

TEST_F(WarmJoinTest, ContinuesWhatTheCaptureReachedAndKeepsTheRest) {
  ASSERT_TRUE(diff(0, 10, 12, 1));
  ASSERT_TRUE(trade(0, 100, 2));
  ASSERT_TRUE(diff(1, 20, 25, 3));
  ASSERT_TRUE(trade(1, 200, 4));
  // The capture is behind, then at the feed's first, then in the middle of what the feed brought.
  EXPECT_FALSE(decide({true, 9, 98}, {true, 20, 199}, 5, 5));
  EXPECT_FALSE(decide({true, 10, 98}, {true, 20, 199}, 5, 5));
  EXPECT_TRUE(decide({true, 10, 99}, {true, 25, 200}, 6, 6));
  EXPECT_EQ(join.verdict(0), Verdict::Continues);
  EXPECT_EQ(join.verdict(1), Verdict::Continues);
  EXPECT_EQ(kept(), (std::vector<std::string>{"12", "100", "25", "200"}));
}

TEST_F(WarmJoinTest, ACaptureThatIsAheadMustBeCaughtUpWith) {
  ASSERT_TRUE(diff(0, 10, 12, 1));
  ASSERT_TRUE(trade(0, 100, 1));
  EXPECT_FALSE(decide({true, 14, 99}, {false, 0, 0}, 1, 1));
  ASSERT_TRUE(diff(0, 12, 14, 2));
  EXPECT_TRUE(decide({true, 14, 99}, {false, 0, 0}, 2, 2));
  EXPECT_EQ(join.verdict(0), Verdict::Continues);
  EXPECT_EQ(join.verdict(1), Verdict::NoBook);
}

TEST_F(WarmJoinTest, ACaptureThatNobodyWritesIsGivenUpSoon) {
  ASSERT_TRUE(diff(0, 10, 12, 1));
  ASSERT_TRUE(diff(1, 20, 25, 1));
  EXPECT_FALSE(decide({true, 9, 99}, {true, 19, 199}, 0, WarmJoin::kWriterLagNs));
  EXPECT_TRUE(decide({true, 9, 99}, {true, 19, 199}, 0, 1 + WarmJoin::kWriterLagNs));
  EXPECT_EQ(join.verdict(0), Verdict::BookGap);
  EXPECT_EQ(join.verdict(1), Verdict::BookGap);
  EXPECT_EQ(join.first_diff(0).previous_id, 10U);
  EXPECT_EQ(join.first_diff_ts(0), 1001);
}

TEST_F(WarmJoinTest, OneInstrumentsGapCostsTheOtherNothing) {
  ASSERT_TRUE(diff(0, 10, 12, 1));
  ASSERT_TRUE(trade(0, 100, 1));
  ASSERT_TRUE(diff(1, 20, 25, 1));
  ASSERT_TRUE(trade(1, 200, 1));
  // The capture goes on, with trades of the second missing.
  EXPECT_FALSE(decide({true, 12, 100}, {true, 25, 190}, kSecond, kSecond));
  EXPECT_FALSE(decide({true, 12, 100}, {true, 25, 190}, 2 * kSecond, 3 * kSecond - 1));
  EXPECT_TRUE(decide({true, 12, 100}, {true, 25, 190}, 3 * kSecond, 3 * kSecond));
  EXPECT_EQ(join.verdict(0), Verdict::Continues);
  EXPECT_EQ(join.verdict(1), Verdict::TradeGap);
}

TEST_F(WarmJoinTest, SilenceCountsOnceTheCaptureIsKnownToGoOn) {
  ASSERT_TRUE(diff(0, 10, 12, 1));
  EXPECT_FALSE(decide({true, 12, 100}, {true, 25, 200}, 2, 2));
  EXPECT_FALSE(decide({true, 12, 100}, {true, 25, 200}, 2, WarmJoin::kMostLagNs - 1));
  EXPECT_TRUE(decide({true, 12, 100}, {true, 25, 200}, 2, WarmJoin::kMostLagNs));
  EXPECT_EQ(join.verdict(0), Verdict::Continues);
  EXPECT_EQ(join.verdict(1), Verdict::Continues);
}

TEST_F(WarmJoinTest, SilenceOfADeadCapturesInstrumentIsNoProof) {
  ASSERT_TRUE(diff(0, 10, 12, 1));
  // It ends exactly where the feed begins, which says nothing of the other one, nor of trades.
  EXPECT_FALSE(decide({true, 10, 100}, {true, 25, 200}, 0, WarmJoin::kMostLagNs - 1));
  EXPECT_TRUE(decide({true, 10, 100}, {true, 25, 200}, 0, WarmJoin::kMostLagNs));
  EXPECT_EQ(join.verdict(0), Verdict::Silent);
  EXPECT_EQ(join.verdict(1), Verdict::Silent);
}

TEST_F(WarmJoinTest, WaitsForAFeedThatSaysNothing) {
  EXPECT_FALSE(decide({true, 10, 100}, {true, 25, 200}, 0, 3600 * kSecond));
  // Where no book is to be continued there is nothing to wait for.
  EXPECT_TRUE(decide({false, 0, 0}, {false, 0, 0}, 0, 3600 * kSecond));
  join.down(0, 3600 * kSecond);
  EXPECT_FALSE(decide({false, 0, 0}, {false, 0, 0}, 0, 3600 * kSecond));
}

TEST_F(WarmJoinTest, ForgetsWhatALostConnectionBrought) {
  ASSERT_TRUE(diff(0, 10, 12, 1));
  join.down(0, 2);
  join.up(0, 3);
  EXPECT_TRUE(kept().empty());
  ASSERT_TRUE(diff(0, 15, 17, 4));
  ASSERT_TRUE(trade(0, 100, 4));
  EXPECT_FALSE(decide({true, 12, 99}, {false, 0, 0}, 4, 4));
  EXPECT_TRUE(decide({true, 15, 99}, {false, 0, 0}, 5, 5));
  EXPECT_EQ(join.verdict(0), Verdict::Continues);
}

TEST_F(WarmJoinTest, WaitsAWhileForABookThatIsBeingSynchronised) {
  const WarmJoin::Captured invalid{.valid = false, .diff_id = 0, .trade_id = 199, .may_become_valid = true};
  const auto begin = [&] {
    ASSERT_TRUE(diff(0, 10, 12, 1));
    ASSERT_TRUE(trade(0, 100, 1));
    ASSERT_TRUE(diff(1, 20, 25, 1));
    ASSERT_TRUE(trade(1, 200, 1));
  };
  begin();
  EXPECT_FALSE(decide({true, 12, 100}, invalid, 5, 5));
  EXPECT_TRUE(decide({true, 12, 100}, {true, 25, 200}, 6, 6));
  EXPECT_EQ(join.verdict(1), Verdict::Continues);

  join.forget(10);
  begin();
  EXPECT_FALSE(decide({true, 12, 100}, invalid, 20, 20));
  EXPECT_FALSE(decide({true, 12, 100}, invalid, 20, 20 + WarmJoin::kWriterLagNs - 1));
  EXPECT_TRUE(decide({true, 12, 100}, invalid, 20, 20 + WarmJoin::kWriterLagNs));
  EXPECT_EQ(join.verdict(0), Verdict::Continues);
  EXPECT_EQ(join.verdict(1), Verdict::NoBook);
}

TEST_F(WarmJoinTest, WhatMetAnEpochMustMeetTheNextOneToo) {
  ASSERT_TRUE(diff(0, 10, 12, 1));
  ASSERT_TRUE(trade(0, 100, 1));
  // Trades have met, the book has not when the capture's own connection is replaced; its trades begin
  // anew beyond what the feed has brought.
  EXPECT_FALSE(decide({true, 9, 99, 1}, {false, 0, 0}, 2, 2));
  EXPECT_FALSE(decide({true, 12, 0, 2}, {false, 0, 0}, 3, 3));
  EXPECT_FALSE(decide({true, 12, 104, 2}, {false, 0, 0}, 4, 4));
  ASSERT_TRUE(trade(0, 104, 5));
  EXPECT_TRUE(decide({true, 12, 104, 2}, {false, 0, 0}, 5, 5));
  EXPECT_EQ(join.verdict(0), Verdict::Continues);
}

TEST_F(WarmJoinTest, ACaptureThatLacksTradesIsNotContinued) {
  ASSERT_TRUE(diff(0, 10, 12, 1));
  ASSERT_TRUE(trade(0, 100, 1));
  EXPECT_TRUE(
      decide({.valid = true, .diff_id = 12, .trade_id = 100, .lacks_trades = true}, {false, 0, 0}, 2, 2));
  EXPECT_EQ(join.verdict(0), Verdict::TradeHole);
}

// The stamps of an event that both have, whichever of the two had it first. kept() stamps by 1000 + now.
TEST_F(WarmJoinTest, AClockThatIsNotOursIsNotGoneBy) {
  for (const std::int64_t ahead_ns :
       {WarmJoin::kMostClockNs, -WarmJoin::kMostClockNs, 3600 * kSecond, -3600 * kSecond}) {
    for (const bool capture_first : {true, false}) {
      join.forget(0);
      if (capture_first) {
        join.captured_diff(0, 12, 1000 + ahead_ns);
        join.captured_diff(0, 14, 1002 + ahead_ns);
      }
      ASSERT_TRUE(trade(0, 100, 0));
      ASSERT_TRUE(diff(0, 10, 12, 1));
      ASSERT_TRUE(diff(0, 12, 14, 2));
      if (!capture_first) {
        join.captured_diff(0, 10, ahead_ns);
        join.captured_diff(0, 12, 1001 + ahead_ns);
        join.captured_diff(0, 14, 1009 + ahead_ns);
      }
      ASSERT_TRUE(decide({true, 14, 100}, {false, 0, 0}, 3, 3));
      const bool agree = ahead_ns == WarmJoin::kMostClockNs || ahead_ns == -WarmJoin::kMostClockNs;
      EXPECT_EQ(join.verdict(0), agree ? Verdict::Continues : Verdict::Clock) << ahead_ns << capture_first;
      EXPECT_EQ(join.clock_ahead_ns(0), ahead_ns);
      join.captured_diff(0, 10, 0);
    }
  }
}

TEST_F(WarmJoinTest, ASilentInstrumentsClockIsThatOfTheOthers) {
  ASSERT_TRUE(diff(0, 10, 12, 1));
  ASSERT_TRUE(trade(0, 100, 1));
  join.captured_diff(0, 12, 1001 - 3600 * kSecond);
  EXPECT_TRUE(decide({true, 12, 100}, {true, 25, 200}, 2, WarmJoin::kMostLagNs));
  EXPECT_EQ(join.verdict(0), Verdict::Clock);
  EXPECT_EQ(join.verdict(1), Verdict::Clock);
  EXPECT_EQ(join.clock_ahead_ns(1), -3600 * kSecond);
}

TEST_F(WarmJoinTest, NothingInACaptureIsFromTheFuture) {
  ASSERT_TRUE(diff(0, 10, 12, 1));
  ASSERT_TRUE(trade(0, 100, 1));
  join.captured_diff(0, 12, 1001);
  EXPECT_TRUE(decide({.valid = true, .diff_id = 12, .trade_id = 100, .ahead_ns = 3600 * kSecond},
                     {false, 0, 0}, 2, 2));
  EXPECT_EQ(join.verdict(0), Verdict::Clock);
  EXPECT_EQ(join.clock_ahead_ns(0), 3600 * kSecond);
}

// Of one instrument, without trades, and with the venue's stamps: 500 before ours.
class WarmJoinClocksTest : public testing::Test {
 protected:
  WarmJoinClocksTest() { join.up(0, 0); }

  void diff(std::uint64_t previous, std::uint64_t last, std::int64_t now_ns) {
    std::string text = std::to_string(last);
    text.resize(text.size() + 64);
    const net::WebSocketMessage message{.payload = {text.data(), text.size() - 64},
                                        .is_text = true,
                                        .recv_clock = RecvClock::Read,
                                        .ts_recv = 1000 + now_ns,
                                        .tsc_read = 0};
    ASSERT_TRUE(join.keep(0, {LineEvent::Kind::Diff, 0, previous, last, 500 + now_ns}, message, now_ns));
  }
  bool decide(std::uint64_t diff_id, std::int64_t captured_ns, std::int64_t now_ns) {
    const WarmJoin::Captured captured{.valid = true, .diff_id = diff_id, .trade_id = 0};
    return join.decide({&captured, 1}, captured_ns, now_ns);
  }

  Arena arena{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  WarmJoin join{1, 1, false, true, arena, 1U << 12U};
};

TEST_F(WarmJoinClocksTest, BelievesNoClockBeforeAnEventThatBothBrought) {
  for (const std::int64_t behind_ns : {std::int64_t{0}, 3600 * kSecond}) {
    join.forget(0);
    // The capture ends where the feed begins, and goes on: the next event will be in both.
    join.captured_diff(0, 10, 990 - behind_ns, 490);
    diff(10, 12, 1);
    EXPECT_FALSE(decide(10, 1, 2)) << behind_ns;
    EXPECT_FALSE(decide(10, kSecond, 2 * kSecond));
    join.captured_diff(0, 12, 1001 - behind_ns, 501);
    ASSERT_TRUE(decide(12, 2 * kSecond, 2 * kSecond));
    EXPECT_EQ(join.verdict(0), behind_ns == 0 ? Verdict::Continues : Verdict::Clock);
    EXPECT_EQ(join.clock_ahead_ns(0), -behind_ns);
  }
}

TEST_F(WarmJoinClocksTest, OfACaptureThatEndsWhereTheFeedBeginsTheVenuesStampsTell) {
  for (const std::int64_t behind_ns : {std::int64_t{0}, 3600 * kSecond}) {
    for (const bool stamped : {true, false}) {
      join.forget(0);
      join.captured_diff(0, 10, 990 - behind_ns, stamped ? 490 : kNoTime);
      diff(10, 12, 1);
      EXPECT_FALSE(decide(10, 0, WarmJoin::kMostLagNs - 1));
      ASSERT_TRUE(decide(10, 0, WarmJoin::kMostLagNs));
      EXPECT_EQ(join.verdict(0), behind_ns == 0 || !stamped ? Verdict::Continues : Verdict::Clock);
    }
  }
}

TEST_F(WarmJoinTest, KeepsNothingThatItCannotKeepWhole) {
  EXPECT_FALSE(keep(LineEvent::Kind::Damaged, 0, 0, 0, 1));
  int count = 0;
  for (std::uint64_t id = 100; diff(0, id - 1, id, 1); ++id) ++count;
  EXPECT_GT(count, 10);
  EXPECT_LT(count, 100);
  join.forget(2);
  EXPECT_TRUE(diff(0, 500, 501, 2));
  EXPECT_EQ(join.first_diff(0).previous_id, 500U);
  EXPECT_EQ(kept(), std::vector<std::string>{"501"});
}

}  // namespace
}  // namespace tickwire::engine

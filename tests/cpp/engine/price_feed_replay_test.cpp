/// What a replay of a price feed gives, record by record, for each kind of line and message.

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "engine/ingest_rig.hpp"
#include "net/mold_packets.hpp"
#include "tickwire/md/pcap.hpp"
#include "tickwire/md/stream_note.hpp"
#include "venue/itch_bytes.hpp"

namespace tickwire::engine {
namespace {

using test::Capture;
using test::diff;
using test::engine_config;
using test::in_stream;
using test::IngestRig;
using test::kMs;
using test::kStart;
using test::Log;
using test::price_feed;
using test::quote;
using test::snapshot_body;
using test::trade;

class PriceFeedReplay : public testing::Test {
 protected:
  /// A rig for a capture of the instruments AAA and BBB.
  IngestRig& rig(const Capture& capture, const std::function<void(EngineConfig&)>& change = {}) {
    const std::string file = folder_ / "a.log";
    capture.write(file);
    EngineConfig config = engine_config({price_feed("usdm", {"AAA", "BBB"}, {file})}, true);
    if (change) change(config);
    rig_ = std::make_unique<IngestRig>(std::move(config));
    return *rig_;
  }
  Log replay(const Capture& capture, const std::function<void(EngineConfig&)>& change = {}) {
    return rig(capture, change).replay();
  }
  [[nodiscard]] std::int64_t counted(std::string_view name) const { return rig_->counter("usdm", name); }
  [[nodiscard]] std::string error(ErrorKind kind) const { return rig_->error(kind); }
  [[nodiscard]] CaptureFacts facts() const { return rig_->agent().capture_facts().at(0); }

  test::Folder folder_;
  std::unique_ptr<IngestRig> rig_;
};

TEST_F(PriceFeedReplay, EachChangeOfAValidBookIsARowAndAGapEndsTheEpoch) {
  Capture capture;
  capture.open(0)
      .begin(10)
      .line(20, diff("AAA", 10, 12, "100:1", ""))
      .line(30, diff("AAA", 12, 14, "", "101:3"))
      .line(40, diff("AAA", 16, 18, "100:9", ""))  // 15 and 16 are missing.
      .snapshot(50, "AAA", snapshot_body(18, "100:3", "101:1"))
      .line(60, diff("AAA", 18, 20, "100:7", ""));
  EXPECT_EQ(replay(capture), (Log{"@20 AAA 1/1 #12 +0.00", "@30 AAA 1/2 #14 -0.50", "@40 AAA 1 gap suspect",
                                  "@60 AAA 2/1 #20 +0.75"}));
  EXPECT_EQ(counted("messages"), 5);
  EXPECT_EQ(counted("book_events"), 5);
  EXPECT_EQ(counted("gaps"), 1);
  EXPECT_EQ(counted("crossed"), 0);
  EXPECT_EQ(counted("left_valid"), 1);
  EXPECT_EQ(counted("became_valid"), 2);
  EXPECT_EQ(counted("snapshots"), 2);
  EXPECT_EQ(counted("books_damaged"), 0) << "the venue's own gap is no damage";
  EXPECT_EQ(rig_->counter("ingest0", "rows"), 3);
  EXPECT_EQ(rig_->counter("ingest0", "notices"), 1);
  EXPECT_EQ(rig_->counter("usdm/AAA", "rows"), 3);
  EXPECT_EQ(rig_->counter("usdm/AAA", "epoch"), 2);
  EXPECT_EQ(rig_->counter("usdm/AAA", "left_valid"), 1);
  EXPECT_EQ(rig_->counter("usdm/AAA", "book_reason"), static_cast<int>(md::InvalidReason::Gap));
  EXPECT_EQ(rig_->counter("usdm/AAA", "book_state"), static_cast<int>(md::BookState::Valid));
  EXPECT_EQ(rig_->counter("usdm/AAA", "heard"), 1);
  EXPECT_EQ(rig_->counter("usdm/BBB", "heard"), 0);
  EXPECT_EQ(rig_->counter("usdm/BBB", "book_state"), static_cast<int>(md::BookState::Buffering));
  EXPECT_EQ(facts().without_changes, std::vector<std::string>{"BBB"});
  EXPECT_EQ(facts().without_snapshot, std::vector<std::string>{"BBB"});
  EXPECT_TRUE(facts().lost.empty());
}

TEST_F(PriceFeedReplay, WhatRepeatsTheBookGivesNoRow) {
  Capture capture;
  capture.open(0)
      .begin(10)
      .line(20, diff("AAA", 10, 12, "100:3 99:5", "101:1"))  // As the snapshot has it.
      .line(30, diff("AAA", 12, 14, "100:4", ""))
      .line(40, diff("AAA", 14, 16, "100:4", "101:1"))
      .line(50, diff("AAA", 12, 14, "100:4", ""))  // Came before.
      .line(60, diff("AAA", 16, 18, "99:6", ""));  // Behind the best, and a change all the same.
  EXPECT_EQ(replay(capture), (Log{"@30 AAA 1/1 #14 +0.60", "@60 AAA 1/2 #18 +0.60"}));
  EXPECT_EQ(counted("old_events"), 1);
  EXPECT_EQ(counted("book_events"), 6);
}

TEST_F(PriceFeedReplay, ACrossedBookIsSuspectUntilItsSnapshot) {
  Capture capture;
  capture.open(0)
      .begin(10)
      .line(20, diff("AAA", 10, 12, "101:1", ""))  // At the best ask.
      .line(30, diff("AAA", 12, 14, "100:4", ""))
      .snapshot(40, "AAA", snapshot_body(14, "100:1", "101:1"))
      .line(50, diff("AAA", 14, 16, "100:3", ""));
  EXPECT_EQ(replay(capture), (Log{"@20 AAA 1 crossed suspect", "@50 AAA 2/1 #16 +0.50"}));
  EXPECT_EQ(counted("crossed"), 1);
  EXPECT_EQ(counted("gaps"), 0);
}

TEST_F(PriceFeedReplay, AMessageThatCannotBeUsedTakesItsBookAndSaysWhy) {
  Capture capture;
  capture.open(0)
      .begin(10)
      .begin(11, "BBB")
      .line(20, R"({"e":"depthUpdate","E":1,"s":"AAA","U":11,"u":12,"pu":10,"b":[["100",]],"a":[]})")
      .line(30, diff("BBB", 10, 12, "100:1", ""))  // The other one goes on.
      .snapshot(40, "AAA", snapshot_body(14, "100:3", "101:1"))
      .line(41, diff("AAA", 13, 15, "100:4", ""))
      .line(50, diff("AAA", 15, 17, "100.5:1", ""))  // No such price.
      .line(60, diff("AAA", 17, 19, "100:1", ""))
      .snapshot(61, "AAA", snapshot_body(19, "100:3", "101:1"))
      .line(70, diff("AAA", 19, 21, "100:-1", ""))
      .line(80, diff("AAA", 21, 23, "", ""))
      .snapshot(81, "AAA", snapshot_body(23, "100:3", "101:1"))
      .line(90, diff("AAA", 23, 25, "ten:1", ""));
  EXPECT_EQ(replay(capture),
            (Log{"@20 AAA 1 malformed suspect", "@30 BBB 1/1 #12 +0.00", "@50 AAA 2 bad_number suspect",
                 "@70 AAA 3 bad_number suspect", "@90 AAA 4 bad_number suspect"}));
  EXPECT_EQ(counted("malformed"), 1);
  EXPECT_EQ(counted("bad_number"), 3);
  EXPECT_EQ(counted("books_damaged"), 4);
  EXPECT_EQ(counted("books_resynced"), 3);
  EXPECT_TRUE(error(ErrorKind::MessageMalformed).starts_with("message_malformed: AAA: malformed: "))
      << error(ErrorKind::MessageMalformed);
  EXPECT_EQ(error(ErrorKind::MessageBadNumber),
            "message_bad_number: AAA: a price or quantity that does not fit price_decimals = 0, qty_decimals "
            "= 0: b = \"100.5\" (a.log:10) | message_bad_number: AAA: a price or quantity that is no number: "
            "b = \"ten\" (a.log:16)");
  const CaptureFacts found = facts();
  ASSERT_EQ(found.lost.size(), 1U);
  EXPECT_EQ(found.lost[0].instrument, "AAA");
  EXPECT_EQ(found.lost[0].state, "suspect");
  EXPECT_EQ(found.lost[0].reason, "bad_number");
  EXPECT_EQ(found.lost[0].place, (folder_ / "a.log") + ":16");
  EXPECT_EQ(found.lost[0].ts, kStart + 90 * kMs);
}

TEST_F(PriceFeedReplay, SaysWhichNumberIsBelowZeroAndHowManyDecimalsThereAre) {
  Capture capture;
  capture.open(0).begin(10).line(20, diff("AAA", 10, 12, "100:-1", ""));
  EXPECT_EQ(replay(capture), Log{"@20 AAA 1 bad_number suspect"});
  EXPECT_EQ(error(ErrorKind::MessageBadNumber),
            "message_bad_number: AAA: a price or quantity that is below zero: b = \"-1\" (a.log:4)");
  Capture fine;
  fine.open(0).begin(10).line(20, diff("AAA", 10, 12, "100.0000000000001:1", ""));
  EXPECT_EQ(replay(fine, [](EngineConfig& config) { config.feeds[0].instruments[0] = {"AAA", 12, 9}; }),
            Log{"@20 AAA 1 bad_number suspect"});
  EXPECT_EQ(error(ErrorKind::MessageBadNumber),
            "message_bad_number: AAA: a price or quantity that does not fit price_decimals = 12, "
            "qty_decimals = 9: b = \"100.0000000000001\" (a.log:4)");
}

TEST_F(PriceFeedReplay, AMessageOfTooManyLevelsIsNotBelieved) {
  std::string many;
  for (std::size_t i = 0; i <= kMaxEventLevels; ++i) many += "1:1 ";
  Capture capture;
  capture.open(0)
      .begin(10)
      .line(20, diff("AAA", 10, 12, many, ""))
      .line(30, diff("AAA", 12, 14, "100:1", ""));
  EXPECT_EQ(replay(capture), Log{"@20 AAA 1 too_many_levels suspect"});
  EXPECT_EQ(counted("too_many_levels"), 1);
  EXPECT_EQ(counted("books_damaged"), 1);
  EXPECT_EQ(counted("books_resynced"), 0);
  EXPECT_TRUE(
      error(ErrorKind::MessageTooManyLevels).starts_with("message_too_many_levels: AAA: too_many_levels: "))
      << error(ErrorKind::MessageTooManyLevels);
}

TEST_F(PriceFeedReplay, WhatIsNoneOfItsEventsIsCountedByKindAndTakesNoBook) {
  Capture capture;
  capture.open(0)
      .begin(10)
      .line(20, R"({"result":null,"id":1})")
      .line(21, R"({"e":"aggTrade","E":1,"T":1,"s":"AAA","a":1,"p":"1","q":"1","m":true})")
      .line(22, diff("CCC", 1, 2, "", ""))
      .line(23, diff("CCC", 2, 3, "", ""))
      .line(24, trade("DDD", 7))
      .line(25, in_stream("aaa@rpiDepth@500ms", diff("AAA", 10, 12, "100:9", "")))
      .line(26, in_stream("aaa@depth5", diff("AAA", 10, 12, "100:9", "101:9")))  // Beside changes.
      .line(27, R"({"error":{"code":2,"msg":"no such stream"},"id":1})")
      .line(28, R"({"e":"serverShutdown","E":1})")
      .line(29, quote("AAA", 5))
      .line(30, quote("AAA", 5))
      .line(31, quote("AAA", 6))
      .line(32, "{")
      .line(33, R"({"e":"trade","s":"AAA","t":1,"p":"1x","q":"1","m":true})")
      .note(34, "stale", "EEE")
      .line(40, diff("AAA", 10, 12, "100:1", ""));
  EXPECT_EQ(replay(capture), Log{"@40 AAA 1/1 #12 +0.00"});
  EXPECT_EQ(counted("ignored"), 1);
  EXPECT_EQ(counted("other_trade_stream"), 1);
  EXPECT_EQ(counted("unknown_symbol"), 4);
  EXPECT_EQ(counted("other_streams"), 1);
  EXPECT_EQ(counted("partial_books_refused"), 1);
  EXPECT_EQ(counted("subscribe_errors"), 1);
  EXPECT_EQ(counted("shutdown_notices"), 1);
  EXPECT_EQ(counted("quotes"), 3);
  EXPECT_EQ(counted("old_quotes"), 1);
  EXPECT_EQ(counted("malformed"), 1);
  EXPECT_EQ(counted("bad_number"), 1);
  EXPECT_EQ(counted("trades"), 0);
  EXPECT_EQ(counted("books_damaged"), 0);
  EXPECT_EQ(counted("handovers"), 0);
  EXPECT_EQ(error(ErrorKind::StreamRefused),
            "stream_refused: aaa@rpiDepth@500ms: book changes of another kind are not used (a.log:9) | "
            "stream_refused: aaa@depth5: partial books beside a stream of changes are not used (a.log:10)");
  EXPECT_EQ(error(ErrorKind::SubscribeRefused),
            R"(subscribe_refused: usdm: {"error":{"code":2,"msg":"no such stream"},"id":1})");
  EXPECT_EQ(error(ErrorKind::MessageMalformed),
            "message_malformed: usdm: a message that names none of its instruments: \"{\" (a.log:16)");
  EXPECT_EQ(error(ErrorKind::MessageBadNumber), "message_bad_number: usdm: p = \"1x\" (a.log:17)");
  EXPECT_EQ(facts().others, (std::vector<std::string>{"CCC", "DDD", "EEE"}));
  EXPECT_EQ(facts().others_count, 3U);
  EXPECT_EQ(facts().looks_like, "");
}

TEST_F(PriceFeedReplay, ARefusedSnapshotIsCountedByItsFaultAndLeavesTheBookAsItIs) {
  Capture capture;
  capture.open(0).line(5, diff("AAA", 9, 10, "", ""));
  const auto show = [&](std::int64_t ms, const char* bids, const char* asks, int limit = 1000) {
    capture.snapshot(ms, "AAA", snapshot_body(10, bids, asks), limit);
  };
  show(10, "", "");
  show(11, "100:1", "");
  show(12, "101:1", "100:1");
  show(13, "99:1 100:1", "101:1");
  show(14, "100:1 100:1", "101:1");
  show(15, "100:1 99:1 98:1", "101:1", 2);
  capture.snapshot(16, "AAA", snapshot_body(7, "100:1", "101:1"));  // Older than what is buffered.
  capture.snapshot(17, "AAA", R"({"code":-1121,"msg":"Invalid symbol."})");
  capture.snapshot(18, "AAA", snapshot_body(10, "100:x", "101:1"));
  show(20, "100:3", "101:1");
  capture.line(30, diff("AAA", 10, 12, "100:1", ""));
  EXPECT_EQ(replay(capture), Log{"@30 AAA 1/1 #12 +0.00"});
  for (const char* name :
       {"snapshots_empty", "snapshots_one_sided", "snapshots_crossed", "snapshots_unsorted",
        "snapshots_duplicate", "snapshots_too_long", "snapshots_misfit"}) {
    EXPECT_EQ(counted(name), 1) << name;
  }
  EXPECT_EQ(counted("snapshots_refused"), 9);
  EXPECT_EQ(counted("snapshots"), 8);
  EXPECT_TRUE(error(ErrorKind::SnapshotRefused).starts_with("snapshot_refused: AAA: "))
      << error(ErrorKind::SnapshotRefused);
  EXPECT_EQ(error(ErrorKind::SnapshotMalformed),
            "snapshot_malformed: AAA: it reads {\"code\":-1121,\"msg\":\"Invalid symbol.\"} | "
            "snapshot_malformed: AAA: a price or quantity that is no number: bids = \"x\" (a.log:11)");
}

TEST_F(PriceFeedReplay, ABookWithoutNewsIsGivenUpByTheNextEventATradeIncluded) {
  const auto stale = [](EngineConfig& config) { config.feeds[0].stale_after_ns = 100 * kMs; };
  Capture capture;
  capture.open(0)
      .begin(10)
      .line(20, diff("AAA", 10, 12, "100:1", ""))
      .line(120, diff("AAA", 12, 14, "100:2", ""))  // As old as it may be.
      .line(221, diff("AAA", 14, 16, "100:3", ""))  // A millisecond too old: the next epoch's first.
      .line(230, trade("AAA", 7))
      .line(322, trade("AAA", 8))  // Says nothing of the book, but what time it is.
      .line(330, diff("AAA", 16, 18, "100:1", ""));
  EXPECT_EQ(replay(capture, stale),
            (Log{"@20 AAA 1/1 #12 +0.00", "@120 AAA 1/2 #14 +0.33", "@221 AAA 1 stale stale",
                 "@221 AAA 2/1 #16 +0.50", "@322 AAA 2 stale stale", "@330 AAA 3/1 #18 +0.00"}));
  EXPECT_EQ(counted("data_stale"), 2);
  EXPECT_EQ(error(ErrorKind::DataStale), "data_stale: AAA | data_stale: AAA");
  EXPECT_EQ(replay(capture).size(), 4U) << "four changes, and nothing else without a limit";

  Capture noted;  // Live a timer had said it.
  noted.open(0).begin(10).note(20, "stale", "AAA").line(30, diff("AAA", 10, 12, "100:1", ""));
  EXPECT_EQ(replay(noted), (Log{"@20 AAA 1 stale stale", "@30 AAA 2/1 #12 +0.00"}));
  EXPECT_EQ(counted("data_stale"), 1);
}

TEST_F(PriceFeedReplay, AConnectionThatClosesEndsEveryBookOfTheFeed) {
  Capture capture;
  capture.open(0)
      .begin(10)
      .begin(11, "BBB")
      .line(20, diff("AAA", 10, 12, "100:1", ""))
      .close(30)
      .open(40)
      .begin(50)
      .line(60, diff("AAA", 10, 12, "100:1", ""));
  EXPECT_EQ(replay(capture), (Log{"@20 AAA 1/1 #12 +0.00", "@30 AAA 1 disconnected empty",
                                  "@30 BBB 1 disconnected empty", "@60 AAA 2/1 #12 +0.00"}));
  EXPECT_EQ(counted("left_valid"), 2);
}

TEST_F(PriceFeedReplay, WhileTheConnectionOfTheTradesIsDownNoBookIsValidAndNoneIsLost) {
  Capture capture;
  capture.open(0)
      .open(1, 1)
      .begin(10)
      .line(20, diff("AAA", 10, 12, "100:1", ""))
      .close(30, 1)
      .line(40, diff("AAA", 12, 14, "100:2", ""))
      .open(50, 1)
      .line(60, diff("AAA", 14, 16, "100:3", ""));
  EXPECT_EQ(replay(capture),
            (Log{"@20 AAA 1/1 #12 +0.00", "@30 AAA 1 disconnected empty", "@60 AAA 2/1 #16 +0.50"}));
  EXPECT_EQ(counted("snapshots"), 1);
}

TEST_F(PriceFeedReplay, ATriggerOfTradesGivesARowForEachNewOneAndSaysWhichAreMissing) {
  const auto trades = [](EngineConfig& config) { config.features.trigger = Trigger::Trade; };
  Capture capture;
  capture.open(0)
      .begin(10)
      .line(20, trade("AAA", 100))
      .line(30, trade("AAA", 101))
      .line(31, trade("AAA", 101))  // Again.
      .line(40, trade("AAA", 104))  // 102 and 103 are missing …
      .line(50, trade("AAA", 103))  // … and one comes late.
      .line(60, diff("AAA", 10, 12, "100:1", ""))
      .line(70, trade("AAA", 105));
  EXPECT_EQ(replay(capture, trades),
            (Log{"@20 AAA 1/1 #10 +0.50", "@30 AAA 1/2 #10 +0.50", "@40 AAA 1/3 #10 +0.50 lacks 2",
                 "@50 AAA 1/4 #10 +0.50 lacks 1", "@70 AAA 1/5 #12 +0.00 lacks 1"}));
  EXPECT_EQ(counted("trades"), 6);
  EXPECT_EQ(counted("old_trades"), 1);
  EXPECT_EQ(counted("trade_gaps"), 1);
  EXPECT_EQ(counted("missing_trades"), 1);
  EXPECT_EQ(error(ErrorKind::TradesMissing), "trades_missing: AAA: 1 of the ids 102 to 103");
}

TEST_F(PriceFeedReplay, HolesBeyondWhatIsKeptOfThemAreToldAsAllOthersAre) {
  const auto trades = [](EngineConfig& config) { config.features.trigger = Trigger::Trade; };
  constexpr std::uint64_t kMissing = 300;  // Within a second; 256 are kept.
  Capture capture;
  capture.open(0).begin(10);
  for (std::uint64_t i = 0; i <= kMissing; ++i)
    capture.line(20 + static_cast<std::int64_t>(i), trade("AAA", 100 + 2 * i));
  capture.line(400, trade("AAA", 101));  // Late; its hole was told of already.
  const Log log = replay(capture, trades);
  ASSERT_EQ(log.size(), kMissing + 2);
  EXPECT_EQ(log[kMissing], "@320 AAA 1/301 #10 +0.50 lacks 300");
  EXPECT_EQ(log.back(), "@400 AAA 1/302 #10 +0.50 lacks 299");
  EXPECT_EQ(rig_->errors(ErrorKind::TradesMissing), kMissing);
  EXPECT_EQ(error(ErrorKind::TradesMissing), "trades_missing: AAA: id 101 | trades_missing: AAA: id 699");
  EXPECT_EQ(counted("missing_trades"), 299);
  EXPECT_EQ(counted("late_trades"), 1);
}

TEST_F(PriceFeedReplay, TradesThatBeginAnewAreSaidToAndOneIsTakenAsMissing) {
  const auto trades = [](EngineConfig& config) { config.features.trigger = Trigger::Trade; };
  Capture capture;
  capture.open(0)
      .begin(10)
      .line(20, trade("AAA", 5'000'000, 100, 1, 20))
      .line(30, trade("AAA", 5, 100, 1, 30));  // Happened later than all before it.
  EXPECT_EQ(replay(capture, trades), (Log{"@20 AAA 1/1 #10 +0.50", "@30 AAA 1/2 #10 +0.50 lacks 1"}));
  EXPECT_EQ(error(ErrorKind::TradesMissing), "trades_missing: AAA: the venue's numbers begin anew with 5");
  EXPECT_EQ(counted("trade_gaps"), 1);
}

TEST_F(PriceFeedReplay, WithTradeGapsSuspectATradeThatNeverComesEndsTheEpochAndTheNextChangeBeginsAnother) {
  const auto suspect = [](EngineConfig& config) {
    config.features.trigger = Trigger::Trade;
    config.features.trade_gaps = TradeGaps::Suspect;
  };
  Capture capture;
  capture.open(0)
      .begin(10)
      .line(20, trade("AAA", 100))
      .line(30, trade("AAA", 102))  // 101 may still come: no row meanwhile.
      .line(40, trade("AAA", 103))
      .line(50, diff("AAA", 10, 12, "100:1", ""))
      .line(1100, trade("AAA", 104))  // It is a second late.
      .line(1110, diff("AAA", 12, 14, "100:7", ""))
      .line(1120, trade("AAA", 105));
  EXPECT_EQ(replay(capture, suspect),
            (Log{"@20 AAA 1/1 #10 +0.50", "@1100 AAA 1 trade_gap suspect", "@1120 AAA 2/1 #14 +0.75"}));
  EXPECT_EQ(error(ErrorKind::TradesMissing), "trades_missing: AAA: id 101");

  Capture late;  // And where it comes in time nothing is missing.
  late.open(0)
      .begin(10)
      .line(20, trade("AAA", 100))
      .line(30, trade("AAA", 102))
      .line(40, trade("AAA", 101))
      .line(50, trade("AAA", 103));
  const Log log = replay(late, suspect);
  EXPECT_EQ(log.back(), "@50 AAA 1/" + std::to_string(log.size()) + " #10 +0.50");
  EXPECT_EQ(counted("trade_gaps"), 0);
  EXPECT_EQ(counted("missing_trades"), 0);
  EXPECT_EQ(error(ErrorKind::TradesMissing), "");
}

TEST_F(PriceFeedReplay, AStampOfAnotherTimeTakesEveryBookUntilTheMessageBehindIt) {
  constexpr std::int64_t kHourMs = 3'600'000;
  Capture capture;
  capture.open(0)
      .begin(10)
      .begin(11, "BBB")
      .line(20, diff("AAA", 10, 12, "100:1", ""))
      .line(kHourMs, diff("AAA", 12, 14, "100:2", ""))
      .line(kHourMs + 10, diff("AAA", 14, 16, "100:3", ""))
      .line(kHourMs + 20, diff("BBB", 10, 12, "100:1", ""));
  const std::string at = "@" + std::to_string(kHourMs) + " ";
  EXPECT_EQ(replay(capture),
            (Log{"@20 AAA 1/1 #12 +0.00", at + "AAA 1 clock suspect", at + "BBB 1 clock suspect",
                 "@3600010 AAA 2/1 #16 +0.50", "@3600020 BBB 2/1 #12 +0.00"}));
  EXPECT_EQ(counted("clock_leaps"), 1);
  EXPECT_TRUE(error(ErrorKind::ClockLeap).starts_with("clock_leap: usdm: a receive stamp"))
      << error(ErrorKind::ClockLeap);
  EXPECT_EQ(counted("data_stale"), 0);
}

TEST_F(PriceFeedReplay, PartialBooksReplaceTheBookWhereAStreamSaysSo) {
  const auto partial = [](std::uint64_t id, const char* bids, const char* asks) {
    return in_stream("aaa@depth5@100ms", diff("AAA", id - 1, id, bids, asks));
  };
  Capture capture;
  capture.open(0)
      .line(10, partial(10, "100:3", "101:1"))
      .line(20, partial(12, "100:1", "101:1"))
      .line(25, partial(14, "100:1", "101:1"))  // As before.
      .line(30, partial(16, "99:3", "101:1"))
      .line(40, partial(18, "102:1", "101:1"))  // No book.
      .line(50, partial(20, "100:7", "101:1"))
      .line(60, partial(22, "100:3", "101:1"));
  EXPECT_EQ(replay(capture), (Log{"@20 AAA 1/1 #12 +0.00", "@30 AAA 1/2 #16 +0.50",
                                  "@40 AAA 1 crossed suspect", "@60 AAA 2/1 #22 +0.50"}));
  EXPECT_EQ(counted("partial_books"), 7);
  EXPECT_EQ(counted("book_events"), 0);
  EXPECT_EQ(counted("snapshots_crossed"), 1);
}

TEST_F(PriceFeedReplay, WhereNoStreamHasANameTheFirstMessagesTellAPartialBookFromAChange) {
  const auto five = [](std::uint64_t id, int best) {
    std::string bids;
    std::string asks;
    for (int i = 0; i < 5; ++i) {
      bids += std::to_string(100 - i) + ":" + std::to_string(i == 0 ? best : 5) + " ";
      asks += std::to_string(101 + i) + ":1 ";
    }
    return diff("AAA", id - 1, id, bids, asks);
  };
  Capture books;
  books.open(0).line(10, five(10, 3)).line(20, five(12, 1)).line(30, five(14, 7));
  EXPECT_EQ(replay(books), (Log{"@20 AAA 1/1 #12 +0.00", "@30 AAA 1/2 #14 +0.75"}));
  EXPECT_EQ(counted("partial_books"), 3);

  Capture few;  // Two of that shape may be chance.
  few.open(0).line(10, five(10, 3)).line(20, five(12, 1));
  EXPECT_EQ(replay(few), Log{});
  EXPECT_EQ(counted("partial_books"), 0);
  EXPECT_EQ(counted("book_events"), 2);

  Capture changes;  // One that is none decides for all.
  changes.open(0)
      .line(10, five(10, 3))
      .line(20, five(12, 1))
      .line(30, five(14, 7))
      .line(40, diff("AAA", 14, 16, "100:0", ""));
  EXPECT_EQ(replay(changes), Log{});
  EXPECT_EQ(counted("partial_books"), 0);
}

// Live they were applied: a recording of ours has what was subscribed to, whatever its messages look like.
TEST_F(PriceFeedReplay, ChangesOfARecordingOfOursAreNoPartialBooksHoweverManyLevelsTheyName) {
  Capture capture;
  capture.open(0).begin(10);
  Log expected;
  for (int i = 0; i < 6; ++i) {
    std::string bids;
    std::string asks;
    for (int level = 0; level < 5; ++level) {
      bids += std::to_string(100 - level) + ":3 ";
      asks += std::to_string(101 + level) + ":" + std::to_string(i % 2 == 0 ? 3 : 1) + " ";
    }
    const int id = 12 + 2 * i;
    capture.line(20 + i,
                 diff("AAA", static_cast<std::uint64_t>(id - 2), static_cast<std::uint64_t>(id), bids, asks));
    expected.push_back("@" + std::to_string(20 + i) + " AAA 1/" + std::to_string(i + 1) + " #" +
                       std::to_string(id) + (i % 2 == 0 ? " +0.00" : " +0.50"));
  }
  EXPECT_EQ(replay(capture), expected);
  EXPECT_EQ(counted("partial_books_refused"), 0);
  EXPECT_EQ(counted("book_events"), 7);
}

TEST_F(PriceFeedReplay, BareSnapshotsAreBooksWhereThereIsNothingElse) {
  const auto one = [](EngineConfig& config) { config.feeds[0].instruments.resize(1); };
  Capture capture;
  capture.line(10, snapshot_body(10, "100:3", "101:1"))
      .line(20, snapshot_body(12, "100:1", "101:1"))
      .line(30, snapshot_body(14, "100:7", "101:1"));
  EXPECT_EQ(replay(capture, one), (Log{"@20 AAA 1/1 #12 +0.00", "@30 AAA 1/2 #14 +0.75"}));
  EXPECT_EQ(counted("partial_books"), 3);
  EXPECT_EQ(counted("snapshots"), 0);

  Capture beside;  // Beside changes they are snapshots.
  beside.line(5, diff("AAA", 9, 10, "", ""))
      .line(10, snapshot_body(10, "100:3", "101:1"))
      .line(20, diff("AAA", 10, 12, "100:1", ""));
  EXPECT_EQ(replay(beside, one), Log{"@20 AAA 1/1 #12 +0.00"});
  EXPECT_EQ(counted("snapshots"), 1);

  EXPECT_EQ(replay(beside), Log{}) << "of which of two instruments?";
  EXPECT_EQ(counted("snapshots_refused"), 1);
  EXPECT_EQ(error(ErrorKind::SnapshotWithoutInstrument),
            "snapshot_without_instrument: a bare REST snapshot line is accepted in a feed of one instrument");
}

TEST_F(PriceFeedReplay, WhatARunReadOfAnotherIsMutedAndCountedAside) {
  Capture capture;
  capture.line(0, R"({"tickwire":"warm","conn":0})")
      .begin(10)
      .begin(11, "BBB")
      .line(20, diff("AAA", 10, 12, "100:1", ""))
      .line(21, diff("AAA", 10, 12, "100:1", ""))  // Again.
      .line(22, trade("AAA", 100))
      .line(23, trade("AAA", 100))
      .note(25, "cold", "BBB")
      .line(30, R"({"tickwire":"live","conn":0})")
      .line(40, diff("AAA", 12, 14, "100:2", ""))
      .line(50, diff("BBB", 12, 14, "100:2", ""))
      .note(60, "cold", "AAA")
      .line(70, diff("AAA", 14, 16, "100:2", ""));
  EXPECT_EQ(replay(capture), (Log{"@40 AAA 1/2 #14 +0.33", "@60 AAA 1 disconnected suspect"}));
  EXPECT_EQ(counted("warm_messages"), 6);
  EXPECT_EQ(counted("warm_repeats"), 2);
  EXPECT_EQ(counted("messages"), 3);
  EXPECT_EQ(counted("old_events"), 0);
  EXPECT_EQ(counted("old_trades"), 0);
  EXPECT_EQ(counted("became_valid"), 1) << "of whoever hears of it";
}

TEST_F(PriceFeedReplay, OfEqualReceiveTimesTheFeedThatIsConfiguredFirstComesFirst) {
  for (const bool swapped : {false, true}) {
    SCOPED_TRACE(swapped);
    Capture a;
    a.open(0).begin(10).line(20, diff("AAA", 10, 12, "100:1", "")).line(40, diff("AAA", 12, 14, "100:2", ""));
    Capture b;
    b.open(0, 0)
        .begin(10, "BBB")
        .line(20, diff("BBB", 10, 12, "100:7", ""))
        .line(30, diff("BBB", 12, 14, "100:8", ""));
    a.write(folder_ / "a.log");
    b.write(folder_ / "b.log");
    std::vector<FeedConfig> feeds = {price_feed("one", {"AAA"}, {folder_ / "a.log"}),
                                     price_feed("two", {"BBB"}, {folder_ / "b.log"})};
    if (swapped) std::swap(feeds[0], feeds[1]);
    IngestRig rig(engine_config(feeds, true));
    Log expected{"@20 AAA 1/1 #12 +0.00", "@20 BBB 1/1 #12 +0.75", "@30 BBB 1/2 #14 +0.78",
                 "@40 AAA 1/2 #14 +0.33"};
    if (swapped) std::swap(expected[0], expected[1]);
    EXPECT_EQ(rig.replay(), expected);
  }
}

TEST_F(PriceFeedReplay, AFeedByOrderIsMergedByTheSameRule) {
  namespace bytes = venue::itch::bytes;
  using Note = md::StreamNote::Kind;
  std::string day;
  md::format_pcap_header(day);
  const auto datagram = [&](std::int64_t ms, std::uint16_t port, const std::string& payload) {
    md::PcapDatagram out{.ts = kStart + ms * kMs, .source = {}, .destination = {}, .payload = payload};
    ASSERT_TRUE(md::parse_pcap_endpoint("0.0.0.0", port, out.source));
    ASSERT_TRUE(md::parse_pcap_endpoint("0.0.0.0", port, out.destination));
    md::format_pcap_datagram(day, out);
  };
  const auto note = [&](std::int64_t ms, Note kind) {
    std::array<char, md::kMaxStreamNote> text;
    datagram(ms, 0, std::string(md::format_stream_note(text, {kind})));
  };
  const auto message = [&](std::int64_t ms, std::uint64_t number, const std::string& text) {
    datagram(ms, 1, net::test::mold_datagram("S", number, {text}));
  };
  note(1, Note::Stream);
  note(1, Note::Session);
  message(2, 1, bytes::directory(1, 1, "ORD"));
  message(3, 2, bytes::trading_action(1, 1, "ORD", 'T'));
  message(4, 3, bytes::add(1, 1, 1, 'S', 1, "ORD", 101));
  message(20, 4, bytes::add(1, 1, 2, 'B', 7, "ORD", 100));
  message(40, 5, bytes::add(1, 1, 3, 'B', 1, "ORD", 100));
  std::ofstream(folder_ / "o.pcap", std::ios::binary) << day;
  Capture prices;
  prices.open(0)
      .begin(10)
      .line(20, diff("AAA", 10, 12, "100:1", ""))
      .line(40, diff("AAA", 12, 14, "100:3", ""));
  prices.write(folder_ / "a.log");
  FeedConfig orders = price_feed("nasdaq", {"ORD"}, {folder_ / "o.pcap"});
  orders.itch = ItchConfig{.max_orders = 100, .midnights = {kStart}, .multicast = std::nullopt};
  for (const bool orders_first : {false, true}) {
    SCOPED_TRACE(orders_first);
    std::vector<FeedConfig> feeds = {price_feed("usdm", {"AAA"}, {folder_ / "a.log"}), orders};
    if (orders_first) std::swap(feeds[0], feeds[1]);
    IngestRig rig(engine_config(feeds, true));
    Log expected{"@4 ORD 1/1 #3 -1.00", "@20 AAA 1/1 #12 +0.00", "@20 ORD 1/2 #4 +0.75",
                 "@40 AAA 1/2 #14 +0.50", "@40 ORD 1/3 #5 +0.78"};
    if (orders_first) {
      std::swap(expected[1], expected[2]);
      std::swap(expected[3], expected[4]);
    }
    EXPECT_EQ(rig.replay(), expected);
    EXPECT_EQ(rig.agent().capture_facts().size(), 2U);
    EXPECT_EQ(rig.counter("nasdaq", "became_valid"), 1);
    EXPECT_EQ(rig.counter("nasdaq", "book_events"), 3);
  }
}

TEST_F(PriceFeedReplay, AFullRingLosesNothing) {
  Capture capture;
  capture.open(0).begin(10);
  std::uint64_t id = 10;
  for (int i = 0; i < 1000; ++i, id += 2) {
    capture.line(20 + i, diff("AAA", id, id + 2, "100:" + std::to_string(1 + i % 7), ""));
    if (i % 100 == 99) capture.snapshot(20 + i, "AAA", snapshot_body(id, "100:9", "101:1"));
  }
  const Log all = replay(capture);
  ASSERT_EQ(all.size(), 1000U);
  capture.write(folder_ / "a.log");
  IngestRig small(engine_config({price_feed("usdm", {"AAA", "BBB"}, {folder_ / "a.log"})}, true), 2);
  EXPECT_EQ(small.replay(), all);
  EXPECT_EQ(small.counter("ingest0", "rows_dropped"), 0);
}

TEST_F(PriceFeedReplay, WhatIsWrongWithAFileIsToldAtItsEnd) {
  Capture capture;
  capture.open(0).begin(10).line(20, diff("AAA", 10, 12, "100:1", ""));
  const std::string file = folder_ / "a.log";
  const auto run = [&](const std::string& text) {
    std::ofstream(file) << text;
    rig_ = std::make_unique<IngestRig>(engine_config({price_feed("usdm", {"AAA", "BBB"}, {file})}, true));
    return rig_->replay();
  };
  EXPECT_EQ(run(capture.text() + "no stamp\n"), Log{"@20 AAA 1/1 #12 +0.00"});
  EXPECT_EQ(counted("capture_lines_skipped"), 1);
  EXPECT_EQ(counted("capture_truncated"), 0);
  EXPECT_TRUE(error(ErrorKind::CaptureLineSkipped).starts_with("capture_line_skipped: " + file + ":5"))
      << error(ErrorKind::CaptureLineSkipped);
  EXPECT_EQ(run(capture.text() + std::to_string(kStart) + R"( {"e":"dep)"), Log{"@20 AAA 1/1 #12 +0.00"});
  EXPECT_EQ(counted("capture_truncated"), 1);
  EXPECT_TRUE(error(ErrorKind::CaptureTruncated).starts_with("capture_truncated: " + file + ":5"))
      << error(ErrorKind::CaptureTruncated);
}

TEST_F(PriceFeedReplay, SaysWhichWindowWasNotFullAndWhatTheMessagesLookLike) {
  Capture capture;
  capture.open(0)
      .begin(10)
      .line(20, diff("AAA", 10, 12, "100:1", ""))
      .line(60, diff("AAA", 12, 14, "100:2", ""));
  const auto window = [](EngineConfig& config) {
    config.features.plan.nodes.push_back({features::find_kernel("mean"), 0, 0, 100 * kMs, 0, 0, 0});
    config.features.plan.outputs = {0, 1};
  };
  EXPECT_EQ(replay(capture, window), Log{});
  const CaptureFacts found = facts();
  ASSERT_EQ(found.not_warm.size(), 1U);
  EXPECT_EQ(found.not_warm[0].instrument, "AAA");
  EXPECT_EQ(found.not_warm[0].feature, 1U);
  EXPECT_EQ(found.not_warm[0].more_ns, 50 * kMs)
      << "100 ms from the first valid moment, at 10, of which 50 passed";

  Capture spot;
  for (int i = 0; i < 4; ++i) {
    spot.line(10 * i, R"({"e":"depthUpdate","E":1700000000000,"s":"AAA","U":1,"u":2,"b":[],"a":[]})");
  }
  EXPECT_EQ(replay(spot), Log{});
  EXPECT_EQ(counted("malformed"), 4);
  EXPECT_EQ(facts().looks_like, "Binance spot");
}

TEST_F(PriceFeedReplay, ARecordingOfAReplayGivesItsRowsAgain) {
  Capture capture;
  capture.open(0)
      .begin(10)
      .line(20, diff("AAA", 10, 12, "100:1", ""))
      .note(30, "stale", "AAA")
      .line(40, diff("AAA", 12, 14, "100:4", ""))
      .close(50)
      .open(60)
      .begin(70)
      .line(80, diff("AAA", 10, 12, "100:7", ""));
  const std::string run = folder_ / "run";
  const Log first = replay(capture, [&](EngineConfig& config) { config.record_dir = run; });
  EXPECT_EQ(first, (Log{"@20 AAA 1/1 #12 +0.00", "@30 AAA 1 stale stale", "@40 AAA 2/1 #14 +0.60",
                        "@50 AAA 2 disconnected empty", "@80 AAA 3/1 #12 +0.75"}));
  rig_ = std::make_unique<IngestRig>(
      engine_config({price_feed("usdm", {"AAA", "BBB"}, {run + "/capture/usdm/000001.log"})}, true));
  EXPECT_EQ(rig_->replay(), first);

  // The records themselves: as they left, with the verdict and the features.
  std::ifstream file(run + "/rows/ingest0/000001.bin", std::ios::binary);
  std::vector<std::byte> record(rig_->layout().record_bytes());
  Log recorded;
  while (file.read(reinterpret_cast<char*>(record.data()), static_cast<std::streamsize>(record.size()))) {
    recorded.push_back(rig_->text_of(record.data()));
  }
  EXPECT_EQ(recorded, first);
}

}  // namespace
}  // namespace tickwire::engine

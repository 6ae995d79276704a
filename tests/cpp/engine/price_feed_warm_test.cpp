/// A live feed that begins with what another process recorded: what goes on, what starts cold, and why.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/ingest_rig.hpp"
#include "tickwire/core/error.hpp"

namespace tickwire::engine {
namespace {

using net::test::Connection;
using test::Capture;
using test::diff;
using test::engine_config;
using test::IngestRig;
using test::Log;
using test::price_feed;
using test::snapshot_body;
using test::trade;
using test::Venue;

const std::string kAnswer = R"({"result":null,"id":1})";

class PriceFeedWarm : public testing::Test {
 protected:
  FeedConfig feed(std::vector<std::string> symbols = {"AAA"}) const {
    FeedConfig feed = price_feed("usdm", symbols, {});
    feed.url = venue_.url();
    feed.subscribe = {"all"};
    feed.warm = {file_};
    return feed;
  }
  /// Windows go by the venue's time, so that when the capture was made decides nothing.
  static EngineConfig on_event_time(FeedConfig feed) {
    EngineConfig config = engine_config({std::move(feed)}, false);
    config.features.clock = WindowClock::Event;
    return config;
  }
  IngestRig& start(EngineConfig config) {
    rig_ = std::make_unique<IngestRig>(std::move(config));
    return rig_->start();
  }
  Connection& open() {
    Connection& connection = venue_.accept(*rig_);
    Venue::say(connection, kAnswer);
    return connection;
  }
  Log log(std::size_t count) {
    EXPECT_TRUE(rig_->until_records(count));
    return rig_->take();
  }
  /// What became of each instrument, once all is decided.
  std::vector<std::string> verdicts() {
    std::vector<std::string> lines;
    EXPECT_TRUE(rig_->until([&] {
      lines = rig_->agent().warm_report();
      return !lines.empty() && lines[0] != "warm: usdm: waits for the feed";
    }));
    return lines;
  }
  static std::string why_not(const FeedConfig& feed) {
    try {
      const IngestRig rig(on_event_time(feed));
    } catch (const SetupError& error) {
      return error.what();
    }
    return "";
  }

  Venue venue_;
  test::Folder folder_;
  const std::string file_ = folder_ / "000001.log";
  std::unique_ptr<IngestRig> rig_;
};

TEST_F(PriceFeedWarm, ABookThatTheFeedContinuesGoesOnAndItsRecordingReplaysSo) {
  Capture()
      .open(0)
      .begin(10)
      .line(20, diff("AAA", 10, 12, "100:1", ""))
      .line(30, diff("AAA", 12, 14, "100:2", ""))
      .write(file_);
  const std::string run = folder_ / "run";
  EngineConfig config = on_event_time(feed({"AAA", "BBB"}));
  config.record_dir = run;
  IngestRig& rig = start(config);
  Connection& connection = open();
  EXPECT_EQ(rig.counter("usdm/AAA", "book_state"), static_cast<int>(md::BookState::Empty))
      << "of a book that nothing leaves from";
  Venue::say(connection, diff("AAA", 12, 14, "100:2", ""));  // The capture had it.
  Venue::say(connection, diff("AAA", 14, 16, "100:7", ""));  // What waits until it is decided gives no row.
  EXPECT_EQ(verdicts(), (std::vector<std::string>{
                            "warm: usdm AAA: continues the capture at id 14, in epoch 1 after row 3",
                            "warm: usdm BBB: the capture never names it, starts cold"}));
  EXPECT_EQ(rig.counter("usdm", "warm_messages"), 5) << "three of the capture, one of the feed, an answer";
  EXPECT_EQ(rig.counter("usdm", "became_valid"), 1);
  Venue::say(connection, diff("AAA", 16, 18, "100:3", ""));
  EXPECT_EQ(log(1), Log{"AAA 1/4 #18 +0.50"});
  Venue::say(connection, diff("BBB", 9, 10, "", ""));
  EXPECT_EQ(rig.request().instrument, 1U) << "whose book begins with a snapshot";
  EXPECT_EQ(rig.counter("usdm", "messages"), 2);
  rig.stop();

  config.record_dir.clear();
  config.replay = true;
  config.feeds[0].warm.clear();
  config.feeds[0].inputs = {run + "/capture/usdm/000001.log"};
  IngestRig again(config);
  Log replayed = again.replay();
  for (std::string& text : replayed) text.erase(0, text.find(' ') + 1);
  EXPECT_EQ(replayed, Log{"AAA 1/4 #18 +0.50"});
  EXPECT_EQ(again.counter("usdm", "warm_messages"), 5);
}

TEST_F(PriceFeedWarm, SaysOfEachBookThatStartsColdWhatIsMissing) {
  Capture()
      .begin(10, "GAP")
      .line(20, diff("GAP", 10, 14, "", ""))
      .line(30, diff("NOSNAP", 9, 10, "100:1", ""))
      .begin(40, "BROKEN")
      .line(50, diff("BROKEN", 20, 22, "", ""))
      .begin(60, "QUIET")
      .write(file_);
  IngestRig& rig = start(on_event_time(feed({"GAP", "NOSNAP", "BROKEN", "QUIET", "NEVER"})));
  Connection& connection = open();
  Venue::say(connection, diff("GAP", 20, 22, "", ""));
  const std::vector<std::string> lines = verdicts();
  ASSERT_EQ(lines.size(), 5U);
  EXPECT_TRUE(lines[0].starts_with("warm: usdm GAP: the capture ends at id 14, ")) << lines[0];
  EXPECT_TRUE(
      lines[0].ends_with(" s before the feed's first, which follows id 20; not contiguous, starts cold"))
      << lines[0];
  EXPECT_EQ(lines[1],
            "warm: usdm NOSNAP: the capture has no snapshot of its book (a run's later file, without its "
            "first?), starts cold");
  EXPECT_EQ(lines[2],
            "warm: usdm BROKEN: the capture ends while its book is suspect and waits for a snapshot, starts "
            "cold");
  EXPECT_EQ(lines[3],
            "warm: usdm QUIET: the capture ends at id 10, and the feed said nothing of its book that would "
            "continue it; not contiguous, starts cold");
  EXPECT_EQ(lines[4], "warm: usdm NEVER: the capture never names it, starts cold");
  EXPECT_EQ(rig.request().instrument, 0U);
  Venue::say(connection, diff("QUIET", 20, 22, "", ""));
  EXPECT_EQ(rig.request().instrument, 3U) << "once there is something for a snapshot to meet";
  EXPECT_EQ(rig.take(), Log{}) << "no news of books that nobody has heard of";
  rig.answer(0, snapshot_body(22, "100:3", "101:1"));
  ASSERT_TRUE(rig.until_counted("usdm", "became_valid", 1));
  Venue::say(connection, diff("GAP", 22, 24, "100:1", ""));
  EXPECT_EQ(log(1), Log{"GAP 2/1 #24 +0.00"});
}

TEST_F(PriceFeedWarm, TradesMustMeetWhereARowNeedsThem) {
  Capture capture;
  for (const char* symbol : {"FINE", "HOLE", "GAP", "NONE"}) capture.begin(10, symbol);
  capture.line(20, trade("FINE", 100))
      .line(21, trade("HOLE", 100))
      .line(22, trade("HOLE", 104))
      .line(23, trade("GAP", 1'000))
      .write(file_);
  EngineConfig config = on_event_time(feed({"FINE", "HOLE", "GAP", "NONE"}));
  config.features.trigger = Trigger::Trade;
  IngestRig& rig = start(config);
  Connection& connection = open();
  for (const char* symbol : {"FINE", "HOLE", "GAP", "NONE"}) {
    Venue::say(connection, diff(symbol, 10, 12, "100:1", ""));
  }
  Venue::say(connection, trade("FINE", 101));
  Venue::say(connection, trade("HOLE", 105));
  Venue::say(connection, trade("GAP", 2'000));
  Venue::say(connection, trade("NONE", 7));
  EXPECT_EQ(verdicts(),
            (std::vector<std::string>{
                "warm: usdm FINE: continues the capture at id 10, in epoch 1 after row 2",
                "warm: usdm HOLE: the capture lacks trades 101 to 103; not contiguous, starts cold",
                "warm: usdm GAP: the capture's last trade is 1,000, the feed's first is 2,000; not "
                "contiguous, starts cold",
                "warm: usdm NONE: the capture has no trade, the feed's first is 7; not contiguous, starts "
                "cold"}));
  EXPECT_EQ(rig.take(), Log{}) << "what waited until it was decided gives no row";
  Venue::say(connection, trade("FINE", 102));
  Venue::say(connection, trade("GAP", 2'001));
  EXPECT_EQ(log(1), Log{"FINE 1/3 #12 +0.00"});
}

TEST_F(PriceFeedWarm, ASingleTradeThatTheCaptureLacksIsNamed) {
  Capture().begin(10).line(20, trade("AAA", 100)).line(21, trade("AAA", 102)).write(file_);
  EngineConfig config = on_event_time(feed());
  config.features.trigger = Trigger::Trade;
  start(config);
  Connection& connection = open();
  Venue::say(connection, diff("AAA", 10, 12, "100:1", ""));
  Venue::say(connection, trade("AAA", 103));
  EXPECT_EQ(verdicts(), std::vector<std::string>{
                            "warm: usdm AAA: the capture lacks trade 101; not contiguous, starts cold"});
}

// It was missing in an epoch that ended, so a row of the next one lacks nothing.
TEST_F(PriceFeedWarm, ATradeOfTheFeedThatTheCaptureWentPastIsTakenAsLate) {
  Capture()
      .begin(10)
      .line(20, trade("AAA", 100))
      .line(21, trade("AAA", 102))
      .line(30, diff("AAA", 20, 22, "", ""))
      .snapshot(40, "AAA", snapshot_body(22, "100:3 99:5", "101:1 102:5"))
      .line(50, diff("AAA", 22, 24, "100:1", ""))
      .line(60, trade("AAA", 103))
      .write(file_);
  EngineConfig config = on_event_time(feed());
  config.features.trigger = Trigger::Trade;
  const std::string run = folder_ / "run";
  config.record_dir = run;
  IngestRig& rig = start(config);
  Connection& connection = open();
  Venue::say(connection, diff("AAA", 22, 24, "100:1", ""));
  for (const int id : {103, 101, 102}) Venue::say(connection, trade("AAA", id));
  Venue::say(connection, diff("AAA", 24, 26, "100:7", ""));
  EXPECT_EQ(
      verdicts(),
      std::vector<std::string>{"warm: usdm AAA: continues the capture at id 24, in epoch 2 after row 2"})
      << "trade 103 of the capture and 101 of the feed";
  Venue::say(connection, trade("AAA", 104));
  EXPECT_EQ(log(1), Log{"AAA 2/3 #26 +0.75"});
  rig.stop();

  config.record_dir.clear();
  config.replay = true;
  config.feeds[0].warm.clear();
  config.feeds[0].inputs = {run + "/capture/usdm/000001.log"};
  Log replayed = IngestRig(config).replay();
  for (std::string& text : replayed) text.erase(0, text.find(' ') + 1);
  EXPECT_EQ(replayed, Log{"AAA 2/3 #26 +0.75"});
}

TEST_F(PriceFeedWarm, WhatTheCaptureLackedIsNotTakenBackFromWhatWasCountedHere) {
  Capture()
      .begin(10)
      .line(20, trade("AAA", 100))
      .line(21, trade("AAA", 104))
      .line(30, diff("AAA", 10, 12, "100:1", ""))
      .write(file_);
  IngestRig& rig = start(on_event_time(feed()));  // Of the book alone: trades may be missing.
  Connection& connection = open();
  Venue::say(connection, diff("AAA", 10, 12, "100:1", ""));
  Venue::say(connection, diff("AAA", 12, 14, "100:7", ""));
  EXPECT_EQ(verdicts(), std::vector<std::string>{
                            "warm: usdm AAA: continues the capture at id 12, in epoch 1 after row 2"});
  const auto counts = [&rig] {
    return std::vector<std::int64_t>{rig.counter("usdm", "late_trades"),
                                     rig.counter("usdm", "missing_trades"),
                                     rig.counter("usdm", "trade_gaps")};
  };
  EXPECT_EQ(counts(), (std::vector<std::int64_t>{0, 0, 0})) << "101 to 103 were missing to somebody else";
  Venue::say(connection, trade("AAA", 102));
  Venue::say(connection, trade("AAA", 103));
  Venue::say(connection, trade("AAA", 101));
  ASSERT_TRUE(rig.until_counted("usdm", "late_trades", 3));
  EXPECT_EQ(counts(), (std::vector<std::int64_t>{3, 0, 0}));
  Venue::say(connection, trade("AAA", 107));
  ASSERT_TRUE(rig.until_counted("usdm", "trades", 4));
  EXPECT_EQ(counts(), (std::vector<std::int64_t>{3, 2, 1})) << "105 and 106 are missing to us";
  Venue::say(connection, trade("AAA", 105));
  ASSERT_TRUE(rig.until_counted("usdm", "late_trades", 4));
  EXPECT_EQ(counts(), (std::vector<std::int64_t>{4, 1, 1}));
  Venue::say(connection, trade("AAA", 106));
  ASSERT_TRUE(rig.until_counted("usdm", "late_trades", 5));
  EXPECT_EQ(counts(), (std::vector<std::int64_t>{5, 0, 0}));
}

TEST_F(PriceFeedWarm, WhereReceiveTimesDecideACaptureOfAnotherTimeStartsCold) {
  Capture().begin(10).line(20, diff("AAA", 10, 12, "", "")).write(file_);
  start(engine_config({feed()}, false));
  Connection& connection = open();
  Venue::say(connection, diff("AAA", 10, 12, "", ""));
  Venue::say(connection, diff("AAA", 12, 14, "100:1", ""));
  const std::vector<std::string> lines = verdicts();
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_TRUE(lines[0].starts_with("warm: usdm AAA: the capture's clock is ")) << lines[0];
  EXPECT_TRUE(lines[0].ends_with(" s behind ours, starts cold")) << lines[0];
}

TEST_F(PriceFeedWarm, FollowsTheCaptureAsItGrowsAndIntoItsNextFile) {
  Capture head;
  head.begin(10);
  head.write(file_);
  IngestRig& rig = start(on_event_time(feed()));
  Connection& connection = open();
  ASSERT_TRUE(rig.until([&] { return rig.agent().warm_report().size() == 1; }));
  EXPECT_EQ(rig.agent().warm_report()[0], "warm: usdm: waits for the feed");
  Venue::say(connection, diff("AAA", 14, 16, "100:7", ""));
  ASSERT_TRUE(rig.until([&] { return rig.agent().do_work() == 0; }));
  std::ofstream(file_, std::ios::app) << Capture().line(20, diff("AAA", 10, 12, "100:1", "")).text();
  Capture().line(30, diff("AAA", 12, 14, "100:2", "")).write(folder_ / "000002.log");
  EXPECT_EQ(verdicts(), std::vector<std::string>{
                            "warm: usdm AAA: continues the capture at id 14, in epoch 1 after row 3"});
  Venue::say(connection, diff("AAA", 16, 18, "100:3", ""));
  EXPECT_EQ(log(1), Log{"AAA 1/4 #18 +0.50"});
}

TEST_F(PriceFeedWarm, ACaptureThatEndsWithItsConnectionDownStartsCold) {
  Capture().begin(10).close(20).write(file_);
  start(on_event_time(feed()));
  Connection& connection = open();
  Venue::say(connection, diff("AAA", 10, 12, "", ""));
  EXPECT_EQ(verdicts(), std::vector<std::string>{
                            "warm: usdm AAA: the capture ends with its connection down, starts cold"});
}

TEST_F(PriceFeedWarm, ACaptureThatIsNotOfThisFeedIsRefused) {
  const std::string what = "warm capture " + file_ + ": expected ";
  Capture().line(10, R"({"e":"depthUpdate","E":1,"s":"AAA","U":1,"u":2,"b":[],"a":[]})").write(file_);
  EXPECT_EQ(why_not(feed()), what + "a futures market's messages, found the spot market's");
  FeedConfig spot = feed();
  spot.market = venue::binance::Market::Spot;
  Capture().begin(10).write(file_);
  EXPECT_EQ(why_not(spot), what + "the spot market's messages, found a futures market's");

  const std::string changes = what + "book changes of the instruments of the feed usdm, found ";
  Capture().open(1).write(file_);
  EXPECT_EQ(why_not(feed()), changes + "no message");
  Capture().line(10, diff("CCC", 1, 2, "", "")).line(20, trade("AAA", 1)).line(30, "{").write(file_);
  EXPECT_EQ(why_not(feed()), changes + "none in 3 messages; 1 are of other instruments; 1 cannot be read");
  Capture().line(10, trade("AAA", 1)).write(file_);
  EXPECT_EQ(why_not(feed()), changes + "none in 1 message");

  // The files of a run say it together; what was written last may say nothing yet.
  FeedConfig two = feed();
  two.warm = {file_, folder_ / "000002.log"};
  Capture().begin(10).write(folder_ / "000002.log");
  EXPECT_EQ(why_not(two), "");
  Capture().open(1).write(folder_ / "000002.log");
  EXPECT_EQ(why_not(two), "warm capture " + file_ +
                              " and what follows it: expected book changes of the instruments of the feed "
                              "usdm, found none");
}

TEST_F(PriceFeedWarm, ARunThatBeganWarmHasInItsOwnFilesWhatItRead) {
  // What stands before the file that begins with `warm` would be read twice.
  Capture().begin(10).line(20, diff("AAA", 10, 12, "100:1", "")).write(file_);
  Capture()
      .line(0, R"({"tickwire":"warm","conn":0})")
      .begin(10)
      .line(20, diff("AAA", 10, 12, "100:1", ""))
      .line(30, R"({"tickwire":"live","conn":0})")
      .line(40, diff("AAA", 12, 14, "100:2", ""))
      .write(folder_ / "000002.log");
  FeedConfig both = feed();
  both.warm = {file_, folder_ / "000002.log"};
  start(on_event_time(both));
  Connection& connection = open();
  Venue::say(connection, diff("AAA", 14, 16, "100:7", ""));
  EXPECT_EQ(verdicts(), std::vector<std::string>{
                            "warm: usdm AAA: continues the capture at id 14, in epoch 1 after row 3"});
  EXPECT_EQ(rig_->counter("usdm", "warm_messages"), 5)
      << "three of the second file, one of the feed, an answer";
  Venue::say(connection, diff("AAA", 16, 18, "100:3", ""));
  EXPECT_EQ(log(1), Log{"AAA 1/4 #18 +0.50"});
}

}  // namespace
}  // namespace tickwire::engine

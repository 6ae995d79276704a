/// A live price feed, turn by turn: a venue on loopback and a control plane that the test plays itself.

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "engine/ingest_rig.hpp"

namespace tickwire::engine {
namespace {

using net::test::Connection;
using test::diff;
using test::engine_config;
using test::IngestRig;
using test::Log;
using test::price_feed;
using test::snapshot_body;
using test::trade;
using test::Venue;

const std::string kAnswer = R"({"result":null,"id":1})";
const std::string kBook = snapshot_body(10, "100:3 99:5", "101:1 102:5");

class PriceFeedLive : public testing::Test {
 protected:
  FeedConfig feed(std::vector<std::string> symbols = {"AAA"}) const {
    FeedConfig feed = price_feed("usdm", symbols, {});
    feed.url = venue_.url();
    for (const std::string& symbol : symbols) feed.subscribe.push_back(symbol + "@depth");
    return feed;
  }
  IngestRig& start(FeedConfig feed, const std::function<void(EngineConfig&)>& change = {}) {
    EngineConfig config = engine_config({std::move(feed)}, false);
    if (change) change(config);
    rig_ = std::make_unique<IngestRig>(std::move(config));
    return rig_->start();
  }
  /// The next connection of the feed, whose subscription stands.
  Connection& open() {
    Connection& connection = venue_.accept(*rig_);
    Venue::say(connection, kAnswer);
    return connection;
  }
  /// A feed of AAA with a valid book at id 10, bids 100:3 and 99:5, asks 101:1 and 102:5.
  Connection& open_valid(FeedConfig config, const std::function<void(EngineConfig&)>& change = {}) {
    start(std::move(config), change);
    Connection& connection = open();
    begin(connection);
    return connection;
  }
  void begin(Connection& connection, const std::string& body = kBook) {
    EXPECT_EQ(rig_->request().instrument, 0U);
    const std::int64_t before = counted("book_events");
    Venue::say(connection, diff("AAA", 9, 10, "", ""));
    ASSERT_TRUE(rig_->until_counted("usdm", "book_events", before + 1));
    const std::int64_t valid = counted("became_valid");
    rig_->answer(0, body);
    ASSERT_TRUE(rig_->until_counted("usdm", "became_valid", valid + 1));
  }
  /// What left, once there is so much.
  Log log(std::size_t count) {
    EXPECT_TRUE(rig_->until_records(count));
    return rig_->take();
  }
  [[nodiscard]] std::int64_t counted(std::string_view name) const { return rig_->counter("usdm", name); }
  /// A replay of what was recorded, without its times.
  Log replay_of(const std::string& run, FeedConfig feed,
                const std::function<void(EngineConfig&)>& change = {}) const {
    feed.url.clear();
    feed.subscribe.clear();
    feed.inputs = {run + "/capture/usdm/000001.log"};
    EngineConfig config = engine_config({feed}, true);
    if (change) change(config);
    Log log = IngestRig(std::move(config)).replay();
    for (std::string& text : log) text.erase(0, text.find(' ') + 1);
    return log;
  }

  Venue venue_;
  test::Folder folder_;
  std::unique_ptr<IngestRig> rig_;
};

TEST_F(PriceFeedLive, AsksForASnapshotOfEachInstrumentAndGoesOnFromIt) {
  IngestRig& rig = start(feed({"AAA", "BBB"}));
  Connection& connection = venue_.accept(rig);
  EXPECT_EQ(venue_.subscription, R"({"method":"SUBSCRIBE","params":["AAA@depth","BBB@depth"],"id":1})");
  EXPECT_EQ(rig.agent().desk()->requests().readable(), 0U) << "nothing has come yet";
  Venue::say(connection, kAnswer);
  const SnapshotRequest first = rig.request();
  const SnapshotRequest second = rig.request();
  EXPECT_EQ(std::tie(first.feed, first.instrument, first.attempt), std::make_tuple(0U, 0U, 1U));
  EXPECT_EQ(std::tie(second.feed, second.instrument, second.attempt), std::make_tuple(0U, 1U, 1U));
  Venue::say(connection, diff("AAA", 9, 10, "", ""));
  ASSERT_TRUE(rig.until_counted("usdm", "book_events", 1));
  rig.answer(0, kBook);
  ASSERT_TRUE(rig.until_counted("usdm", "became_valid", 1));
  Venue::say(connection, diff("AAA", 10, 12, "100:1", ""));
  Venue::say(connection, diff("AAA", 12, 14, "100:7", ""));
  EXPECT_EQ(log(2), (Log{"AAA 1/1 #12 +0.00", "AAA 1/2 #14 +0.75"}));

  Venue::say(connection, diff("AAA", 20, 22, "100:1", ""));
  EXPECT_EQ(log(1), Log{"AAA 1 gap suspect"});
  const SnapshotRequest again = rig.request();
  EXPECT_EQ(again.instrument, 0U);
  EXPECT_EQ(again.attempt, 2U);
  rig.answer(0, snapshot_body(22, "100:3", "101:1"));
  ASSERT_TRUE(rig.until_counted("usdm", "became_valid", 2));
  Venue::say(connection, diff("AAA", 22, 24, "100:7", ""));
  EXPECT_EQ(log(1), Log{"AAA 2/1 #24 +0.75"});
  EXPECT_EQ(counted("snapshot_requests"), 3);
  EXPECT_EQ(counted("snapshots"), 2);
  EXPECT_EQ(counted("connects"), 1);
  EXPECT_EQ(counted("connections_up"), 1);
  EXPECT_EQ(rig.counter("usdm/BBB", "book_state"), static_cast<int>(md::BookState::Buffering));

  rig.stop();
  EXPECT_EQ(rig.take(), Log{"AAA 2 stopped empty"}) << "BBB never was valid";
}

TEST_F(PriceFeedLive, ASnapshotThatFailsIsAskedForAgainAndGivenUpInTheEnd) {
  IngestRig& rig = start(feed());
  open();
  EXPECT_EQ(rig.request().attempt, 1U);
  rig.fail(0, "HTTP 418");
  EXPECT_EQ(rig.request().attempt, 2U);
  EXPECT_EQ(counted("snapshots_failed"), 1);
  EXPECT_EQ(rig.error(ErrorKind::SnapshotFailed), "snapshot_failed: HTTP 418");
  EXPECT_EQ(counted("snapshots_given_up"), 0);
  rig.answer(0, "<html>");
  ASSERT_TRUE(rig.until_counted("usdm", "snapshots_given_up", 1));
  EXPECT_EQ(counted("snapshots_refused"), 1);
  EXPECT_EQ(rig.error(ErrorKind::SnapshotMalformed), "snapshot_malformed: AAA: it reads <html>");
  EXPECT_EQ(rig.error(ErrorKind::SnapshotGivenUp), "snapshot_given_up: AAA");
  // An answer that nobody waits for any more is older than what came since.
  rig.answer(0, kBook);
  rig.fail(0, "late");
  ASSERT_TRUE(rig.until([&] { return rig.agent().do_work() == 0; }));
  EXPECT_EQ(counted("snapshots"), 0);
  EXPECT_EQ(counted("snapshots_failed"), 1);
  EXPECT_EQ(counted("snapshot_requests"), 2);
}

TEST_F(PriceFeedLive, ASnapshotThatTheVenueHoldsBackIsNoTry) {
  IngestRig& rig = start(feed());
  open();
  // More often than would give it up, each time a pause that is over at once.
  for (int i = 1; i <= 5; ++i) {
    EXPECT_EQ(rig.request().attempt, 1U) << i;
    rig.fail(0, "HTTP 429", 1);
    ASSERT_TRUE(rig.until_counted("usdm", "snapshots_failed", i));
  }
  EXPECT_EQ(counted("snapshots_given_up"), 0);
  // One that fails otherwise is a try, whatever was before.
  EXPECT_EQ(rig.request().attempt, 1U);
  rig.fail(0, "HTTP 500");
  EXPECT_EQ(rig.request().attempt, 2U);
  rig.fail(0, "HTTP 429", 1);
  EXPECT_EQ(rig.request().attempt, 2U);
  EXPECT_EQ(counted("snapshots_given_up"), 0);
  rig.fail(0, "HTTP 500");
  ASSERT_TRUE(rig.until_counted("usdm", "snapshots_given_up", 1));
}

TEST_F(PriceFeedLive, ASnapshotThatIsHeldBackIsNotAskedForSooner) {
  IngestRig& rig = start(feed());
  open();
  EXPECT_EQ(rig.request().attempt, 1U);
  rig.fail(0, "HTTP 418", 3'600'000'000'000);
  ASSERT_TRUE(rig.until_counted("usdm", "snapshots_failed", 1));
  // As long as its pauses would be otherwise, many times over.
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
  while (std::chrono::steady_clock::now() < end) {
    rig.agent().do_work();
    rig.agent().every_100ms();
  }
  EXPECT_EQ(rig.agent().desk()->requests().readable(), 0U);
  EXPECT_EQ(counted("snapshot_requests"), 1);
}

TEST_F(PriceFeedLive, ARefusedSnapshotIsAskedForAgainAfterAPause) {
  IngestRig& rig = start(feed());
  Connection& connection = open();
  EXPECT_EQ(rig.request().attempt, 1U);
  Venue::say(connection, diff("AAA", 9, 10, "", ""));
  ASSERT_TRUE(rig.until_counted("usdm", "book_events", 1));
  rig.answer(0, snapshot_body(10, "", ""));
  EXPECT_EQ(rig.request().attempt, 2U);
  EXPECT_EQ(counted("snapshots_empty"), 1);
  rig.answer(0, kBook);
  ASSERT_TRUE(rig.until_counted("usdm", "became_valid", 1));
}

TEST_F(PriceFeedLive, ABookWithoutNewsIsGivenUpByATimerAndTheRecordingSaysSo) {
  FeedConfig config = feed();
  config.stale_after_ns = 1'000'000'000;
  const std::string run = folder_ / "run";
  Connection& connection = open_valid(config, [&](EngineConfig& engine) { engine.record_dir = run; });
  Venue::say(connection, diff("AAA", 10, 12, "100:1", ""));
  Log all = log(1);
  for (const std::string& text : log(1)) all.push_back(text);
  Venue::say(connection, diff("AAA", 12, 14, "100:7", ""));
  for (const std::string& text : log(1)) all.push_back(text);
  EXPECT_EQ(all, (Log{"AAA 1/1 #12 +0.00", "AAA 1 stale stale", "AAA 2/1 #14 +0.75"}));
  EXPECT_EQ(rig_->error(ErrorKind::DataStale), "data_stale: AAA");
  rig_->stop();
  Log replayed = replay_of(run, config);
  // The last of it may have become stale before the end.
  replayed.resize(std::min(replayed.size(), all.size()));
  EXPECT_EQ(replayed, all);
}

TEST_F(PriceFeedLive, AConnectionThatIsLostEndsTheEpochAndTheNextBeginsWithItsOwnSnapshot) {
  const std::string run = folder_ / "run";
  Connection& first = open_valid(feed(), [&](EngineConfig& engine) { engine.record_dir = run; });
  Venue::say(first, diff("AAA", 10, 12, "100:1", ""));
  Log all = log(1);
  first.send(net::test::server_close(1001, "maintenance"));
  for (const std::string& text : log(1)) all.push_back(text);
  Connection& second = open();
  begin(second);
  Venue::say(second, diff("AAA", 10, 12, "100:7", ""));
  for (const std::string& text : log(1)) all.push_back(text);
  EXPECT_EQ(all, (Log{"AAA 1/1 #12 +0.00", "AAA 1 disconnected empty", "AAA 2/1 #12 +0.75"}));
  EXPECT_EQ(counted("disconnects"), 1);
  EXPECT_EQ(counted("connects"), 2);
  EXPECT_EQ(rig_->error(ErrorKind::ConnectionClosed),
            "connection_closed: " + venue_.url() + ": maintenance (code 1001)");
  rig_->stop();
  EXPECT_EQ(replay_of(run, feed()), all);
}

TEST_F(PriceFeedLive, WhenTheVenueAnnouncesItsEndAnotherConnectionTakesOverAndTheBookGoesOn) {
  const std::string run = folder_ / "run";
  Connection& old = open_valid(feed(), [&](EngineConfig& engine) { engine.record_dir = run; });
  Venue::say(old, trade("AAA", 100));
  Venue::say(old, diff("AAA", 10, 12, "100:1", ""));
  Log all = log(1);
  Venue::say(old, R"({"e":"serverShutdown","E":1})");
  Connection& fresh = open();
  Venue::say(fresh, diff("AAA", 12, 14, "100:7", ""));
  Venue::say(fresh, trade("AAA", 101));
  ASSERT_TRUE(rig_->until_counted("usdm", "handovers", 1));
  for (const std::string& text : log(1)) all.push_back(text);
  Venue::say(fresh, diff("AAA", 14, 16, "100:3", ""));
  for (const std::string& text : log(1)) all.push_back(text);
  EXPECT_EQ(all, (Log{"AAA 1/1 #12 +0.00", "AAA 1/2 #14 +0.75", "AAA 1/3 #16 +0.50"}));
  EXPECT_EQ(counted("shutdown_notices"), 1);
  EXPECT_EQ(counted("trades"), 2);
  EXPECT_EQ(counted("snapshot_requests"), 1);
  rig_->stop();
  EXPECT_EQ(replay_of(run, feed()), all) << "each message once";
}

TEST_F(PriceFeedLive, ATradeThatIsLateThroughAReplacedConnectionIsTakenOnce) {
  const std::string run = folder_ / "run";
  const auto trades = [](EngineConfig& config) { config.features.trigger = Trigger::Trade; };
  Connection& old = open_valid(feed(), [&](EngineConfig& config) {
    trades(config);
    config.record_dir = run;
  });
  Venue::say(old, trade("AAA", 100));
  Venue::say(old, trade("AAA", 102));
  Log all = log(2);
  EXPECT_EQ(counted("missing_trades"), 1);
  Venue::say(old, R"({"e":"serverShutdown","E":1})");
  Connection& fresh = open();
  Venue::say(fresh, diff("AAA", 10, 12, "100:1", ""));
  for (const int id : {102, 101, 101, 103}) Venue::say(fresh, trade("AAA", id));
  ASSERT_TRUE(rig_->until_counted("usdm", "handovers", 1));
  for (const std::string& text : log(2)) all.push_back(text);
  EXPECT_EQ(
      all, (Log{"AAA 1/1 #10 +0.50", "AAA 1/2 #10 +0.50 lacks 1", "AAA 1/3 #12 +0.00", "AAA 1/4 #12 +0.00"}));
  EXPECT_EQ(counted("trades"), 4) << "what the old connection brought is no message of the new one's";
  EXPECT_EQ(counted("late_trades"), 1);
  EXPECT_EQ(counted("missing_trades"), 0);
  EXPECT_EQ(counted("trade_gaps"), 0);
  rig_->stop();
  EXPECT_EQ(replay_of(run, feed(), trades), all) << "each message once";
}

TEST_F(PriceFeedLive, NoBookIsValidWithoutTheConnectionOfTheTrades) {
  Venue trades;
  FeedConfig config = feed();
  config.trades_url = trades.url();
  config.subscribe_trades = {"AAA@trade"};
  IngestRig& rig = start(config);
  Connection& books = open();
  Connection& prints = trades.accept(rig);
  EXPECT_EQ(trades.subscription, R"({"method":"SUBSCRIBE","params":["AAA@trade"],"id":1})");
  EXPECT_EQ(rig.request().instrument, 0U);
  Venue::say(books, diff("AAA", 9, 10, "", ""));
  ASSERT_TRUE(rig.until_counted("usdm", "book_events", 1));
  rig.answer(0, kBook);
  ASSERT_TRUE(rig.until_counted("usdm", "snapshots", 1));
  Venue::say(books, diff("AAA", 10, 12, "100:1", ""));
  ASSERT_TRUE(rig.until_counted("usdm", "book_events", 2));
  EXPECT_EQ(rig.take(), Log{});
  EXPECT_EQ(counted("became_valid"), 0);

  Venue::say(prints, kAnswer);
  ASSERT_TRUE(rig.until_counted("usdm", "connections_up", 2));
  Venue::say(books, diff("AAA", 12, 14, "100:7", ""));
  EXPECT_EQ(log(1), Log{"AAA 1/1 #14 +0.75"}) << "it was followed meanwhile, so this is one of its events";

  prints.reset();
  EXPECT_EQ(log(1), Log{"AAA 1 disconnected empty"});
  EXPECT_TRUE(rig.error(ErrorKind::ConnectionClosed).starts_with("connection_closed: " + trades.url()));
  Connection& again = trades.accept(rig);
  Venue::say(again, kAnswer);
  ASSERT_TRUE(rig.until_counted("usdm", "connections_up", 2));
  Venue::say(books, diff("AAA", 14, 16, "100:3", ""));
  EXPECT_EQ(log(1), Log{"AAA 2/1 #16 +0.50"});
  EXPECT_EQ(counted("snapshots"), 1);
}

TEST_F(PriceFeedLive, AConnectionThatBringsNothingIsReplacedAndCalledSilent) {
  FeedConfig config = feed();
  config.liveness_timeout_ns = 1'500'000'000;
  open_valid(config);
  // No pong comes, because the test does not read.
  EXPECT_EQ(log(1), Log{"AAA 1 disconnected empty"});
  EXPECT_EQ(counted("connections_silent"), 1);
  EXPECT_EQ(rig_->error(ErrorKind::ConnectionSilent), "connection_silent: " + venue_.url());
  begin(open());
}

TEST_F(PriceFeedLive, SaysWhatIsWrongWithAConnectionByItsKind) {
  IngestRig& rig = start(feed());
  Connection& refusing = venue_.accept_raw(rig);
  (void)refusing.read_request();
  refusing.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
  ASSERT_TRUE(rig.until_counted("usdm", "connect_failures", 1));
  EXPECT_TRUE(rig.error(ErrorKind::ConnectionHandshake).starts_with("connection_handshake: "));
  EXPECT_NE(rig.error(ErrorKind::ConnectionHandshake).find("403"), std::string::npos);

  Connection& rude = open();
  ASSERT_TRUE(rig.until_counted("usdm", "connections_up", 1));
  rude.send(net::test::server_frame(0x83, "no such opcode"));
  ASSERT_TRUE(rig.until_counted("usdm", "protocol_errors", 1));
  EXPECT_TRUE(rig.error(ErrorKind::ConnectionProtocol).starts_with("connection_protocol: "));

  Connection& refused = venue_.accept(rig);
  Venue::say(refused, R"({"error":{"code":2,"msg":"no such stream"},"id":1})");
  ASSERT_TRUE(rig.until_counted("usdm", "subscribe_errors", 1));
  EXPECT_EQ(counted("connections_up"), 0) << "it brings nothing";
  EXPECT_EQ(rig.error(ErrorKind::SubscribeRefused),
            R"(subscribe_refused: usdm: {"error":{"code":2,"msg":"no such stream"},"id":1})");
  refused.send(net::test::server_frame(0x89, "ping"));
  ASSERT_TRUE(rig.until_counted("usdm", "pings", 1));
}

TEST_F(PriceFeedLive, AHostThatRefusesIsTriedAgain) {
  FeedConfig config = feed();
  {
    const Venue gone;
    config.url = gone.url();
  }
  IngestRig& rig = start(config);
  ASSERT_TRUE(rig.until_counted("usdm", "connect_failures", 2));
  EXPECT_TRUE(rig.error(ErrorKind::ConnectionRefused).starts_with("connection_refused: "))
      << rig.error(ErrorKind::ConnectionRefused);
  EXPECT_EQ(counted("connects"), 0);
}

TEST_F(PriceFeedLive, ALookUpThatFindsNothingIsSaidToBeOne) {
  FeedConfig config = feed();
  config.url = "ws://nowhere.invalid:1/ws";
  IngestRig& rig = start(config);
  ASSERT_TRUE(rig.until_counted("usdm", "connect_failures", 1));
  EXPECT_TRUE(rig.error(ErrorKind::ConnectionLookup).starts_with("connection_lookup: "))
      << rig.error(ErrorKind::ConnectionLookup);
}

TEST_F(PriceFeedLive, AsksForMoreDepthBeforeARowNeedsItAndAddsWhatItShows) {
  FeedConfig config = feed();
  config.snapshot_limit = 4;
  const std::string run = folder_ / "run";
  IngestRig& rig = start(config, [&](EngineConfig& engine) { engine.record_dir = run; });
  Connection& connection = open();
  begin(connection, snapshot_body(10, "100:3 99:5 98:5 97:5", "101:1 102:5 103:5 104:5"));
  Venue::say(connection, diff("AAA", 10, 12, "100:0 99:0", ""));
  Log all = log(1);
  EXPECT_EQ(rig.agent().desk()->requests().readable(), 0U) << "two levels are twice what a row needs";
  Venue::say(connection, diff("AAA", 12, 14, "98:0", ""));
  for (const std::string& text : log(1)) all.push_back(text);
  EXPECT_EQ(rig.request().instrument, 0U);
  rig.answer(0, snapshot_body(12, "98:5 97:5 96:3 95:5", "101:1 102:5 103:5 104:5"));
  ASSERT_TRUE(rig.until_counted("usdm", "snapshots", 2));
  Venue::say(connection, diff("AAA", 14, 16, "97:0", ""));  // What is shown now is known now.
  for (const std::string& text : log(1)) all.push_back(text);
  EXPECT_EQ(all, (Log{"AAA 1/1 #12 +0.67", "AAA 1/2 #14 +0.67", "AAA 1/3 #16 +0.50"}));
  ASSERT_TRUE(rig.until_counted("usdm", "snapshots_merged", 1));
  EXPECT_EQ(counted("became_valid"), 1);
  EXPECT_EQ(counted("left_valid"), 0);
  rig.stop();
  EXPECT_EQ(replay_of(run, config), all);
}

TEST_F(PriceFeedLive, ASnapshotForMoreDepthThatContradictsTheBookEndsTheEpoch) {
  FeedConfig config = feed();
  config.snapshot_limit = 4;
  IngestRig& rig = start(config);
  Connection& connection = open();
  begin(connection, snapshot_body(10, "100:3 99:5 98:5 97:5", "101:1 102:5 103:5 104:5"));
  Venue::say(connection, diff("AAA", 10, 12, "100:0 99:0 98:0", ""));
  EXPECT_EQ(log(1), Log{"AAA 1/1 #12 +0.67"});
  EXPECT_EQ(rig.request().instrument, 0U);
  rig.answer(0, snapshot_body(12, "97:6 96:3", "101:1 102:5 103:5 104:5"));
  EXPECT_EQ(log(1), Log{"AAA 1 gap suspect"});
  EXPECT_EQ(rig.error(ErrorKind::SnapshotContradicts), "snapshot_contradicts: AAA");
  ASSERT_TRUE(rig.until_counted("usdm", "snapshots_contradicted", 1));
  Venue::say(connection, diff("AAA", 12, 14, "97:1", ""));
  EXPECT_EQ(rig.request().instrument, 0U) << "one to begin anew with";
}

TEST_F(PriceFeedLive, ARowThatIsOlderThanAllowedLeavesAsStaleAndIsRecordedAsItWas) {
  const std::string run = folder_ / "run";
  Connection& connection = open_valid(feed(), [&](EngineConfig& engine) {
    engine.features.max_age_ns = 1;
    engine.record_dir = run;
  });
  Venue::say(connection, diff("AAA", 10, 12, "100:1", ""));
  EXPECT_EQ(log(1), Log{"AAA 1/1 #12 +0.00 stale"});
  EXPECT_EQ(rig_->counter("ingest0", "rows_stale"), 1);
  EXPECT_EQ(rig_->counter("ingest0", "rows"), 1);
  rig_->stop();
  EXPECT_EQ(replay_of(run, feed()), Log{"AAA 1/1 #12 +0.00"});
}

TEST_F(PriceFeedLive, ARingThatIsFullDropsTheNewestRowAndCountsItButKeepsTheNews) {
  EngineConfig config = engine_config({feed()}, false);
  rig_ = std::make_unique<IngestRig>(std::move(config), 2);
  rig_->start();
  Connection& connection = open();
  begin(connection);
  // Nobody drains the ring while these come.
  for (std::uint64_t id = 10; id < 20; id += 2) {
    Venue::say(connection, diff("AAA", id, id + 2, "100:" + std::to_string(id), ""));
  }
  Venue::say(connection, diff("AAA", 30, 32, "100:1", ""));
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (counted("gaps") == 0 && std::chrono::steady_clock::now() < end) rig_->agent().do_work();
  EXPECT_EQ(rig_->take(), (Log{"AAA 1/1 #12 +0.82", "AAA 1/2 #14 +0.85"}));
  EXPECT_EQ(rig_->counter("ingest0", "rows_dropped"), 3);
  EXPECT_EQ(rig_->counter("ingest0", "rows"), 5);
  EXPECT_EQ(log(1), Log{"AAA 1 gap suspect"}) << "with the next turn, once there is room";
}

}  // namespace
}  // namespace tickwire::engine

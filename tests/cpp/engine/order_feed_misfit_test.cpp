/// What an order feed says of a message that does not fit, and how a live one comes back from it.

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "engine/ingest_rig.hpp"
#include "net/mold_packets.hpp"
#include "net/mold_venue.hpp"
#include "tickwire/md/pcap.hpp"
#include "tickwire/md/stream_note.hpp"
#include "venue/itch_bytes.hpp"

namespace tickwire::engine {
namespace {

namespace bytes = venue::itch::bytes;
using net::test::big_endian;
using net::test::Connection;
using net::test::mold_datagram;
using net::test::TestServer;
using test::engine_config;
using test::IngestRig;
using test::kMs;
using test::kStart;
using test::Log;
using test::price_feed;
using Note = md::StreamNote::Kind;

FeedConfig order_feed(std::vector<std::string> inputs, std::size_t max_orders) {
  FeedConfig feed = price_feed("nasdaq", {"AAPL", "MSFT"}, std::move(inputs));
  feed.itch = ItchConfig{.max_orders = max_orders, .midnights = {kStart}, .multicast = std::nullopt};
  return feed;
}

std::vector<std::string> opening() {
  return {bytes::directory(1, 1, "AAPL"), bytes::trading_action(1, 1, "AAPL", 'T'),
          bytes::directory(2, 1, "MSFT"), bytes::trading_action(2, 1, "MSFT", 'T')};
}

class OrderMisfit : public testing::Test {
 protected:
  /// The books AAPL, bid 100:3 of order 1 and ask 101:1 of order 2, and MSFT, bid 50:1 of order 3; then
  /// these, each at a millisecond of its own, from 20 on.
  IngestRig& rig(const std::vector<std::string>& messages, std::size_t max_orders = 100) {
    std::string capture;
    md::format_pcap_header(capture);
    const auto datagram = [&](std::int64_t ms, std::uint16_t port, const std::string& payload) {
      md::PcapDatagram out{.ts = kStart + ms * kMs, .source = {}, .destination = {}, .payload = payload};
      EXPECT_TRUE(md::parse_pcap_endpoint("0.0.0.0", port, out.source));
      EXPECT_TRUE(md::parse_pcap_endpoint("0.0.0.0", port, out.destination));
      md::format_pcap_datagram(capture, out);
    };
    for (const Note kind : {Note::Stream, Note::Session}) {
      std::array<char, md::kMaxStreamNote> text;
      datagram(1, 0, std::string(md::format_stream_note(text, {kind})));
    }
    std::vector<std::string> all = opening();
    all.push_back(bytes::add(1, 1, 1, 'B', 3, "AAPL", 100));
    all.push_back(bytes::add(1, 1, 2, 'S', 1, "AAPL", 101));
    all.push_back(bytes::add(2, 1, 3, 'B', 1, "MSFT", 50));
    datagram(10, 1, mold_datagram("S", 1, all));
    std::uint64_t number = all.size() + 1;
    for (std::size_t i = 0; i < messages.size(); ++i) {
      datagram(20 + static_cast<std::int64_t>(i), 1, mold_datagram("S", number++, {messages[i]}));
    }
    const std::string file = folder_ / "o.pcap";
    std::ofstream(file, std::ios::binary) << capture;
    rig_ = std::make_unique<IngestRig>(engine_config({order_feed({file}, max_orders)}, true));
    return *rig_;
  }
  /// What left from 20 ms on.
  Log after(const std::vector<std::string>& messages, std::size_t max_orders = 100) {
    Log log = rig(messages, max_orders).replay();
    std::erase_if(log, [](const std::string& text) { return text.starts_with("@10 "); });
    return log;
  }
  [[nodiscard]] std::string said() const { return rig_->error(ErrorKind::OrderMisfit); }
  [[nodiscard]] std::int64_t counted(std::string_view name) const { return rig_->counter("nasdaq", name); }

  test::Folder folder_;
  std::unique_ptr<IngestRig> rig_;
};

TEST_F(OrderMisfit, ARowForEachMessageThatFits) {
  EXPECT_EQ(after({bytes::executed(1, 2, 1, 2, 9), bytes::add(2, 2, 4, 'S', 3, "MSFT", 51),
                   bytes::cancel(2, 2, 4, 2), bytes::remove(2, 2, 4), bytes::replace(1, 2, 1, 5, 7, 99)}),
            (Log{"@20 AAPL 1/3 #8 +0.00", "@21 MSFT 1/2 #9 -0.50", "@22 MSFT 1/3 #10 +0.00",
                 "@23 MSFT 1/4 #11 +1.00", "@24 AAPL 1/4 #12 +0.75"}));
  EXPECT_EQ(counted("messages"), 12);
  EXPECT_EQ(counted("book_events"), 8);
  EXPECT_EQ(counted("trades"), 1);
  EXPECT_EQ(counted("live_orders"), 3);
  EXPECT_EQ(counted("became_valid"), 2);
  EXPECT_EQ(said(), "");
}

TEST_F(OrderMisfit, EachKindIsCountedSaidAndEndsTheBooksThatItMayConcern) {
  struct Case {
    std::string message;
    Log left;
    std::string text;
    const char* counter;
    std::size_t max_orders = 100;
    std::int64_t count = 1;
  };
  const std::string until = "; suspect until the next session or start of day: ";
  const std::vector<Case> cases = {
      {bytes::remove(1, 2, 99),
       {"@20 AAPL 1 gap suspect"},
       "is about an order that is not there" + until + "AAPL",
       "unknown_order"},
      {bytes::add(1, 2, 2, 'B', 1, "AAPL", 90),
       {"@20 AAPL 1 gap suspect"},
       "adds an order that is there" + until + "AAPL",
       "duplicate_order"},
      {bytes::executed(1, 2, 1, 4, 9),
       {"@20 AAPL 1 bad_number suspect"},
       "has a quantity that its order has not" + until + "AAPL",
       "bad_qty"},
      {bytes::remove(1, 2, 3),
       {"@20 AAPL 1 gap suspect", "@20 MSFT 1 gap suspect"},
       "is about an order of another stock than its locate's" + until + "AAPL, MSFT",
       "other_book"},
      {bytes::add(1, 2, 9, 'B', 1, "MSFT", 90),
       {"@20 AAPL 1 gap suspect", "@20 MSFT 1 gap suspect"},
       "names another stock than its locate's" + until + "AAPL, MSFT",
       "other_stock"},
      {bytes::directory(1, 2, "ZZZZ"),
       {"@20 AAPL 1 gap suspect"},
       "gives a stock's locate away in the middle of a day" + until + "AAPL",
       "locate_moved"},
      {bytes::add(9, 2, 9, 'B', 1, "AAPL", 90),
       {"@20 AAPL 1 gap suspect"},
       "is of a locate that its stock was not named for" + until + "AAPL",
       "unnamed_locate"},
      {bytes::add(1, 2, 9, 'B', 1, "AAPL", 90),
       {"@20 AAPL 1 memory suspect"},
       "adds an order that finds no memory: raise feeds[].max_orders" + until + "AAPL",
       "orders_full",
       3,
       2},
      {bytes::remove(1, 2, 1).substr(0, 18),
       {"@20 AAPL 1 malformed suspect"},
       "cannot be read" + until + "AAPL",
       "malformed"},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.text);
    EXPECT_EQ(after({one.message, bytes::add(1, 3, 77, 'B', 1, "AAPL", 80)}, one.max_orders), one.left);
    EXPECT_EQ(said(), "order_misfit: nasdaq: message 8 " + one.text);
    EXPECT_EQ(counted(one.counter), one.count);
    EXPECT_EQ(counted("left_valid"), static_cast<std::int64_t>(one.left.size()));
  }
  EXPECT_EQ(rig_->error(ErrorKind::MessageMalformed),
            "message_malformed: nasdaq: a message of another length than its type has, or with a field that "
            "cannot be");
}

TEST_F(OrderMisfit, AStartOfDayMendsIt) {
  EXPECT_EQ(after({bytes::remove(1, 2, 99), bytes::system_event(3, 'O'), bytes::directory(5, 3, "AAPL"),
                   bytes::trading_action(5, 3, "AAPL", 'T'), bytes::add(5, 4, 1, 'B', 3, "AAPL", 100),
                   bytes::add(5, 4, 2, 'S', 1, "AAPL", 101)}),
            (Log{"@20 AAPL 1 gap suspect", "@21 MSFT 1 disconnected empty", "@24 AAPL 2/1 #12 +1.00",
                 "@25 AAPL 2/2 #13 +0.50"}));
}

TEST_F(OrderMisfit, AHaltAndACrossEndTheEpochAndWhatEndsThemIsNoRow) {
  EXPECT_EQ(
      after({bytes::trading_action(1, 2, "AAPL", 'H'), bytes::add(1, 2, 4, 'B', 4, "AAPL", 100),
             bytes::trading_action(1, 2, "AAPL", 'T'), bytes::cancel(1, 2, 4, 4),
             bytes::add(1, 3, 5, 'B', 1, "AAPL", 102), bytes::remove(1, 3, 5), bytes::cancel(1, 3, 1, 2)}),
      (Log{"@20 AAPL 1 halted halted", "@23 AAPL 2/1 #11 +0.50", "@24 AAPL 2 crossed suspect",
           "@26 AAPL 3/1 #14 +0.00"}));
  EXPECT_EQ(counted("crossed"), 1);
}

TEST_F(OrderMisfit, TellsWhatAReplayDidNotHave) {
  IngestRig& one = rig({bytes::directory(7, 2, "ZZZZ"), bytes::directory(8, 2, "IBM"),
                        bytes::directory(8, 2, "IBM"), bytes::remove(2, 2, 99)});
  (void)one.replay();
  const CaptureFacts facts = one.agent().capture_facts().at(0);
  EXPECT_EQ(facts.feed, "nasdaq");
  EXPECT_EQ(facts.others, (std::vector<std::string>{"IBM", "ZZZZ"}));
  ASSERT_EQ(facts.lost.size(), 1U);
  EXPECT_EQ(facts.lost[0].instrument, "MSFT");
  EXPECT_EQ(facts.lost[0].state, "suspect");
  EXPECT_EQ(facts.lost[0].reason, "gap");
  EXPECT_TRUE(facts.lost[0].place.ends_with("/o.pcap: message 11")) << facts.lost[0].place;
  EXPECT_EQ(facts.lost[0].ts, kStart + 23 * kMs);
  EXPECT_TRUE(facts.without_changes.empty());
  EXPECT_TRUE(facts.not_warm.empty());
}

// ---- Live ----

std::string packet(char type, const std::string& payload = "") {
  return big_endian(payload.size() + 1, 2) + type + payload;
}
std::string padded(const std::string& number) { return std::string(20 - number.size(), ' ') + number; }

/// A snapshot that ends before message `next` of then: AAPL with a bid of 3 and an ask of 1.
net::test::Script snapshot(const std::atomic<int>& next) {
  return [&next](Connection& c) {
    c.read_bytes(49);
    std::string all = packet('A', "    MONDAY" + padded("1"));
    std::vector<std::string> messages = opening();
    messages.push_back(bytes::add(1, 1, 1, 'B', 3, "AAPL", 100));
    messages.push_back(bytes::add(1, 1, 2, 'S', 1, "AAPL", 101));
    for (const std::string& message : messages) all += packet('S', message);
    c.send(all + packet('S', "G" + padded(std::to_string(next))));
    while (!c.read_bytes(1).empty()) {
    }
  };
}

TEST_F(OrderMisfit, ALiveFeedBeginsWithASnapshotAndAsksForOneAfterALossAndAfterAMisfit) {
  std::atomic<int> next = 5;
  TestServer server({snapshot(next)});
  const net::test::MoldVenue venue;
  FeedConfig config = order_feed({}, 100);
  net::MoldFeedConfig mold = net::test::mold_config(venue);
  mold.rerequest.peer.clear();
  mold.sequencer.request_attempts = 0;
  mold.glimpse.server = "127.0.0.1:" + std::to_string(server.port());
  mold.glimpse.login_timeout_ns = mold.glimpse.silence_timeout_ns = 20'000 * kMs;
  mold.glimpse.heartbeat_ns = 1'000 * kMs;
  mold.snapshot_retry_ns = kMs;
  const int port = mold.lines[0].port;
  config.itch->multicast = mold;
  EngineConfig settings = engine_config({config}, false);
  settings.record_dir = folder_ / "run";
  IngestRig live(settings);
  live.start();
  const auto say = [&](std::uint64_t number, const std::string& message) {
    venue.send(0, port, mold_datagram("MONDAY", number, {message}));
  };
  Log all;
  const auto until_all = [&](std::size_t count) {  // So many in all.
    EXPECT_TRUE(live.until_records(count - all.size()));
    for (std::string& text : live.take()) all.push_back(std::move(text));
  };
  say(5, bytes::add(1, 5, 3, 'B', 4, "AAPL", 100));
  until_all(1);
  next = 9;
  say(8, bytes::cancel(1, 6, 3, 1));  // 6 and 7 are on no line.
  until_all(3);
  ASSERT_TRUE(live.until_counted("nasdaq", "snapshots", 2));
  say(9, bytes::add(1, 7, 4, 'B', 2, "AAPL", 100));
  until_all(4);
  next = 11;
  say(10, bytes::remove(1, 8, 99));
  until_all(6);
  ASSERT_TRUE(live.until_counted("nasdaq", "snapshots", 3));
  say(11, bytes::add(1, 9, 5, 'S', 2, "AAPL", 101));
  until_all(7);
  EXPECT_EQ(all, (Log{"AAPL 1/1 #5 +0.75", "AAPL 1 gap suspect", "MSFT 1 gap suspect", "AAPL 2/1 #9 +0.67",
                      "AAPL 2 gap suspect", "MSFT 2 gap empty", "AAPL 3/1 #11 +0.00"}));
  EXPECT_EQ(live.error(ErrorKind::MessagesLost),
            "messages_lost: nasdaq: messages 6 to 7 came on no line and could not be had again");
  EXPECT_EQ(live.error(ErrorKind::OrderMisfit),
            "order_misfit: nasdaq: message 10 is about an order that is not there; suspect until a snapshot, "
            "which is asked for: AAPL");
  EXPECT_EQ(live.counter("nasdaq", "lost_messages"), 2);
  EXPECT_FALSE(live.agent().socket_report().empty());
  live.stop();

  EngineConfig again =
      engine_config({order_feed({(folder_ / "run") + "/capture/nasdaq/000001.pcap"}, 100)}, true);
  Log replayed = IngestRig(again).replay();
  for (std::string& text : replayed) text.erase(0, text.find(' ') + 1);
  EXPECT_EQ(replayed, all);
}

}  // namespace
}  // namespace tickwire::engine

#include "tickwire/net/moldudp64/mold_feed.hpp"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "net/mold_packets.hpp"
#include "net/mold_venue.hpp"
#include "net/websocket_test_server.hpp"
#include "tickwire/core/error.hpp"

namespace tickwire::net {
namespace {

using test::big_endian;
using test::Connection;
using test::mold_datagram;
using test::MoldVenue;
using test::TestServer;

using Log = std::vector<std::string>;

constexpr std::int64_t kMs = 1'000'000;
class Feed final : public MoldFeedHandler {
 public:
  Feed(const MoldFeedConfig& config) : feed(*this, config, "feeds[0]", arena) {}

  void on_run(const Run& run) noexcept override {
    std::uint64_t number = run.sequence;
    for (const MessageView& message : run.messages) {
      log.push_back(std::to_string(number++) + ' ' + std::string(message.begin(), message.end()));
    }
  }
  void on_session(const SessionId&) noexcept override { log.emplace_back("session"); }
  void on_end_of_session() noexcept override { log.emplace_back("end"); }
  void on_lost(std::uint64_t first, std::uint64_t count) noexcept override {
    log.push_back("lost " + std::to_string(first) + " + " + std::to_string(count));
  }
  void on_snapshot_begin() noexcept override { log.emplace_back("snapshot"); }
  void on_snapshot_message(MessageView message) noexcept override {
    log.push_back("in it " + std::string(message.begin(), message.end()));
  }
  void on_snapshot_end(std::uint64_t next) noexcept override {
    log.push_back("next " + std::to_string(next));
  }
  void on_snapshot_failed(std::string_view reason) noexcept override {
    log.push_back("failed " + std::string(reason.substr(
                                  reason.find(": ") == std::string_view::npos ? 0 : reason.find(": ") + 2)));
  }

  int turn() { return feed.poll(clock, detail::read_clock_ns(CLOCK_MONOTONIC)); }
  /// Fails the test after a time that no healthy run needs. `between` works the venue.
  template <typename Between>
  void run_until(std::size_t entries, Between between) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (log.size() < entries) {
      ASSERT_LT(std::chrono::steady_clock::now(), limit) << testing::PrintToString(log);
      turn();
      between();
    }
  }
  void run_until(std::size_t entries) {
    run_until(entries, [] {});
  }

  Arena arena;
  UtcClock clock;
  Log log;
  MoldFeed feed;
};

TEST(MoldFeed, GivesEachMessageOnceInOrderThroughLossOnBothLines) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const MoldVenue venue;
  MoldFeedConfig config = mold_config(venue);
  config.sequencer.start = SequencerConfig::Start::Beginning;
  Feed feed(config);
  const int port = config.lines[0].port;

  std::vector<std::string> stream{""};
  Log expected{"session"};
  std::string held;
  const auto lost = [&random] { return random() % 10 == 0; };
  for (int i = 0; i < 1000; ++i) {
    const std::size_t first = stream.size();
    std::vector<std::string> messages;
    for (std::size_t k = 0; k <= random() % 5; ++k) {
      messages.push_back(std::to_string(random() % 1000));
      expected.push_back(std::to_string(first + k) + ' ' + messages.back());
    }
    stream.insert(stream.end(), messages.begin(), messages.end());
    const std::string datagram = mold_datagram("MONDAY", first, messages);
    if (!lost()) venue.send(0, port, datagram);
    if (!held.empty() && !lost()) venue.send(1, port, held);  // B is a datagram behind.
    held = datagram;
    if (i % 100 == 0) venue.send(0, port, datagram.substr(0, datagram.size() - 1));  // Damaged.
    feed.turn();
    venue.answer(stream, 3);
  }
  venue.send(0, port, mold_datagram("MONDAY", stream.size(), {}, 0xFFFF));
  expected.emplace_back("end");
  feed.run_until(expected.size(), [&] { venue.answer(stream, 3); });
  EXPECT_EQ(feed.log, expected);
  EXPECT_EQ(feed.feed.stats().malformed, 10u);
  const Sequencer& sequencer = feed.feed.sequencer();
  EXPECT_GT(sequencer.stats().requests, 0u);
  EXPECT_EQ(sequencer.stats().lost, 0u);
  EXPECT_EQ(feed.feed.rerequest()->stats().sent, sequencer.stats().requests);
  std::uint64_t won = 0;
  for (std::uint32_t line = 0; line < 3; ++line) won += sequencer.line_stats(line).won;
  EXPECT_EQ(won, stream.size() - 1);
  EXPECT_FALSE(feed.feed.report().empty());
}

TEST(MoldFeed, ALineWasHeardWhenItsDatagramWasReadHoweverLongTheTurnHadSlept) {
  const MoldVenue venue;
  MoldFeedConfig config = mold_config(venue);
  Feed feed(config);
  for (int i = 0; i < 2; ++i) {
    const std::uint64_t sent = tsc_now();
    venue.send(0, config.lines[0].port, mold_datagram("MONDAY", 1, {}, 0));  // A heartbeat.
    // The turn began an hour ago.
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (feed.feed.sequencer().line_stats(0).heartbeats < static_cast<std::uint64_t>(i) + 1) {
      ASSERT_LT(std::chrono::steady_clock::now(), limit);
      feed.feed.poll(feed.clock, i * kMs);
    }
    EXPECT_GE(feed.feed.heard_tsc(0), sent);
    EXPECT_LE(feed.feed.heard_tsc(0), tsc_now());
    EXPECT_EQ(feed.feed.heard_tsc(1), 0U);
  }
}

std::string packet(char type, const std::string& payload = "") {
  return big_endian(payload.size() + 1, 2) + type + payload;
}
std::string padded(const std::string& text) { return std::string(20 - text.size(), ' ') + text; }

/// Serves one snapshot: "whole" and the number to go on from.
test::Script snapshot(const std::string& next, const std::string& session = "    MONDAY") {
  return [next, session](Connection& c) {
    c.read_bytes(49);
    c.send(packet('A', session + padded("1")) + packet('S', "whole") + packet('S', "G" + padded(next)));
    while (!c.read_bytes(1).empty()) {
    }
  };
}

TEST(MoldFeed, ComesBackBySnapshotWhereNobodyAnswers) {
  TestServer server({[](Connection& c) { c.read_bytes(49); },  // Gone without a word.
                     snapshot("1"),                            // Too old.
                     snapshot("5", "    SUNDAY"),              // The day before's.
                     snapshot("5")});
  const MoldVenue venue;
  MoldFeedConfig config = mold_config(venue);
  config.sequencer.request_attempts = 2;
  config.sequencer.request_timeout_ns = 2 * kMs;
  config.glimpse.server = "127.0.0.1:" + std::to_string(server.port());
  config.glimpse.login_timeout_ns = 5000 * kMs;
  config.glimpse.heartbeat_ns = 1000 * kMs;
  config.glimpse.silence_timeout_ns = 5000 * kMs;
  config.snapshot_retry_ns = kMs;
  Feed feed(config);
  const int port = config.lines[0].port;
  venue.send(0, port, mold_datagram("MONDAY", 1, {"one"}));
  venue.send(1, port, mold_datagram("MONDAY", 4, {"four", "five"}));
  feed.run_until(12);
  venue.send(1, port, mold_datagram("MONDAY", 6, {"six"}));
  feed.run_until(13);
  ASSERT_EQ(feed.log.size(), 13u);
  EXPECT_TRUE(feed.log[3] == "failed the server ended the connection" ||
              feed.log[3] == "failed Connection reset by peer")
      << feed.log[3];
  feed.log[3] = "failed";
  EXPECT_EQ(feed.log, (Log{"session", "1 one", "lost 2 + 2", "failed", "snapshot", "in it whole",
                           "failed it is older than the stream",
                           R"(failed it is of the session "SUNDAY" and the stream of "MONDAY")", "snapshot",
                           "in it whole", "next 5", "5 five", "6 six"}));
  EXPECT_EQ(feed.feed.stats().snapshot_tries, 4u);
  EXPECT_EQ(feed.feed.stats().snapshot_failures, 3u);
  EXPECT_EQ(feed.feed.sequencer().stats().requests, 2u);
  EXPECT_EQ(feed.feed.sequencer().state(), Sequencer::State::Live);
}

/// What the stream brings between a login and the end of its snapshot may be newer than the snapshot.
TEST(MoldFeed, WaitsForWhatIsMissingBeforeWhatCameWhileASnapshotWasTaken) {
  std::atomic<bool> heard = false;
  TestServer server({[&heard](Connection& c) {
                       c.read_bytes(49);
                       c.send(packet('A', "    MONDAY" + padded("1")) + packet('S', "whole"));
                       while (!heard) std::this_thread::sleep_for(std::chrono::milliseconds(1));
                       c.send(packet('S', "G" + padded("6")));
                       while (!c.read_bytes(1).empty()) {
                       }
                     },
                     snapshot("9")});
  const MoldVenue venue;
  MoldFeedConfig config = mold_config(venue);
  config.sequencer.request_attempts = 1;
  config.sequencer.request_timeout_ns = 2 * kMs;
  config.glimpse.server = "127.0.0.1:" + std::to_string(server.port());
  config.glimpse.login_timeout_ns = config.glimpse.silence_timeout_ns = 20'000 * kMs;
  config.glimpse.heartbeat_ns = 1000 * kMs;
  config.snapshot_retry_ns = kMs;
  Feed feed(config);
  const int port = config.lines[0].port;
  venue.send(0, port, mold_datagram("MONDAY", 1, {"one"}));
  venue.send(0, port, mold_datagram("MONDAY", 4, {"four"}));
  feed.run_until(5);  // The login has been answered.
  venue.send(0, port, mold_datagram("MONDAY", 8, {"eight"}));
  feed.run_until(10, [&] { heard = heard || feed.feed.sequencer().line_stats(0).received == 3; });
  heard = true;
  EXPECT_EQ(feed.log, (Log{"session", "1 one", "lost 2 + 2", "snapshot", "in it whole", "next 6",
                           "lost 6 + 2", "snapshot", "in it whole", "next 9"}));
  EXPECT_EQ(feed.feed.sequencer().stats().implausible, 0u);
}

/// The stream is not kept waiting for a snapshot that was asked for beside it.
TEST(MoldFeed, LooksOnceAMillisecondAtASnapshotThatIsBesideTheStream) {
  TestServer server({snapshot("2")});
  const MoldVenue venue;
  MoldFeedConfig config = mold_config(venue);
  config.glimpse.server = "127.0.0.1:" + std::to_string(server.port());
  config.glimpse.login_timeout_ns = config.glimpse.silence_timeout_ns = 20'000 * kMs;
  config.glimpse.heartbeat_ns = 1000 * kMs;
  config.snapshot_retry_ns = kMs;
  Feed feed(config);
  venue.send(0, config.lines[0].port, mold_datagram("MONDAY", 1, {"one"}));
  feed.run_until(2);
  std::int64_t now = detail::read_clock_ns(CLOCK_MONOTONIC);
  feed.feed.poll(feed.clock, now);
  feed.feed.ask_snapshot();
  // However often in one moment, it is begun and looked at once: there is no way to a login in that.
  for (int i = 0; i < 300; ++i) {
    feed.feed.poll(feed.clock, now);
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  EXPECT_EQ(feed.feed.stats().snapshot_tries, 1u);
  EXPECT_EQ(feed.feed.glimpse()->stats().logins, 0u);
  EXPECT_EQ(feed.log.size(), 2u);
  for (int i = 0; i < 10'000 && feed.log.size() < 5; ++i) {
    feed.feed.poll(feed.clock, now += kMs);
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  EXPECT_EQ(feed.log, (Log{"session", "1 one", "snapshot", "in it whole", "next 2"}));
}

TEST(MoldFeed, TakesASnapshotOfAnyNameWhereThatIsConfigured) {
  TestServer server({snapshot("5", "    SUNDAY")});
  const MoldVenue venue;
  MoldFeedConfig config = mold_config(venue);
  config.rerequest.peer.clear();
  config.any_glimpse_session = true;
  config.glimpse.server = "127.0.0.1:" + std::to_string(server.port());
  config.glimpse.login_timeout_ns = config.glimpse.silence_timeout_ns = 5000 * kMs;
  config.glimpse.heartbeat_ns = 1000 * kMs;
  config.snapshot_retry_ns = kMs;
  config.sequencer.start = SequencerConfig::Start::Snapshot;
  Feed feed(config);
  venue.send(0, config.lines[0].port, mold_datagram("MONDAY", 5, {"five"}));
  feed.run_until(5);
  EXPECT_EQ(feed.log, (Log{"session", "snapshot", "in it whole", "next 5", "5 five"}));
}

TEST(MoldFeed, NamesWhatIsWrongWithItsConfiguration) {
  const MoldVenue venue;
  const auto refused = [&](auto change) {
    MoldFeedConfig config = mold_config(venue);
    change(config);
    try {
      const Feed feed(config);
    } catch (const SetupError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(refused([](MoldFeedConfig& c) { c.sequencer.request_messages = 65535; }),
            "feeds[0].request_messages: expected 1 to 65534, found 65535");
  EXPECT_EQ(refused([](MoldFeedConfig& c) { c.glimpse.server = "127.0.0.1:1"; }),
            "feeds[0].snapshot_retry_ns: expected a positive number, found 0");
  EXPECT_EQ(refused([](MoldFeedConfig& c) { c.lines[1].batch = 0; }),
            "feeds[0].lines[1].batch: expected 1 to 1024, found 0");
  EXPECT_EQ(refused([](MoldFeedConfig& c) { c.lines.clear(); }),
            "feeds[0].lines: expected 1 or more, found 0");
  EXPECT_EQ(refused([](MoldFeedConfig&) {}), "accepted");
}

}  // namespace
}  // namespace tickwire::net

#include "tickwire/net/soupbintcp/soup_client.hpp"

#include <gtest/gtest.h>
#include <poll.h>

#include <chrono>
#include <cstring>
#include <string>
#include <vector>

#include "net/mold_packets.hpp"
#include "net/websocket_test_server.hpp"
#include "tickwire/core/error.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/net/soupbintcp/glimpse_client.hpp"

namespace tickwire::net {
namespace {

using test::big_endian;
using test::Connection;
using test::TestServer;

using Log = std::vector<std::string>;

constexpr std::int64_t kMs = 1'000'000;

std::string packet(char type, const std::string& payload = "") {
  return big_endian(payload.size() + 1, 2) + type + payload;
}

std::string right(const std::string& text, std::size_t width) {
  return std::string(width - text.size(), ' ') + text;
}

std::string accepted(const std::string& next) { return packet('A', "MONDAY    " + right(next, 20)); }

/// The login as the protocol has it: length, type, user 6, password 10, session 10, number 20.
std::string read_login(Connection& c) { return c.read_bytes(49); }

/// Until the client ends the connection.
void hold(Connection& c) {
  while (!c.read_bytes(1).empty()) {
  }
}

SoupConfig config_for(const TestServer& server) {
  SoupConfig config;
  config.server = "127.0.0.1:" + std::to_string(server.port());
  config.username = "user";
  config.password = "secret";
  config.login_timeout_ns = 5000 * kMs;
  config.heartbeat_ns = 1000 * kMs;
  config.silence_timeout_ns = 15000 * kMs;
  return config;
}

template <typename Log, typename Turn>
void run_until(std::size_t entries, const Log& log, Turn turn) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (log.size() < entries) {
    ASSERT_LT(std::chrono::steady_clock::now(), limit) << testing::PrintToString(log);
    if (turn() == 0) ::poll(nullptr, 0, 1);
  }
}

class Client final : public SoupHandler {
 public:
  explicit Client(const SoupConfig& config) : client(config, "feeds[0].snapshot", arena) {}

  void on_login(const SessionId& session, std::uint64_t next) noexcept override {
    log.push_back("login " + std::string(session.begin(), session.end()) + std::to_string(next));
  }
  void on_message(std::uint64_t sequence, MessageView message) noexcept override {
    log.push_back(std::to_string(sequence) + ' ' + std::string(message.begin(), message.end()));
    if (stop_at == sequence) client.stop();
  }
  void on_end_of_session() noexcept override { log.emplace_back("end of session"); }
  void on_close(std::string_view reason) noexcept override { log.push_back("close " + std::string(reason)); }

  void run_until_log(std::size_t entries) {
    run_until(entries, log, [&] { return client.poll(*this, detail::read_clock_ns(CLOCK_MONOTONIC)); });
  }
  void start(std::uint64_t sequence, const SessionId& session = {}) {
    client.start(session, sequence, detail::read_clock_ns(CLOCK_MONOTONIC));
  }

  Arena arena;
  SoupClient client;
  Log log;
  std::uint64_t stop_at = 0;
};

TEST(SoupParser, GivesTheSamePacketsHoweverTheStreamIsCut) {
  Arena arena;
  SoupParser parser(arena);
  std::string stream;
  Log expected;
  for (const std::size_t bytes : {0, 1, 5, 300, 65534, 2, 65534, 65534, 1000}) {
    const std::string payload(bytes, static_cast<char>('a' + bytes % 26));
    stream += packet('S', payload);
    expected.push_back('S' + payload);
  }
  for (const std::size_t piece : {1, 2, 3, 7, 1000, 65536, 1000000}) {
    parser.reset();
    Log got;
    for (std::size_t at = 0; at < stream.size();) {
      const auto room = parser.writable();
      ASSERT_FALSE(room.empty());
      const std::size_t count = std::min({piece, room.size(), stream.size() - at});
      std::memcpy(room.data(), stream.data() + at, count);
      parser.commit(count);
      at += count;
      SoupPacket out;
      while (parser.next(out) == SoupParser::Status::Packet) {
        got.push_back(out.type + std::string(out.payload.begin(), out.payload.end()));
      }
    }
    EXPECT_EQ(got, expected) << piece;
  }
}

TEST(SoupNumber, IsDigitsBetweenSpaces) {
  const auto read = [](const std::string& text) {
    std::uint64_t out = 999;
    return read_soup_number(text, out) ? std::to_string(out) : "none";
  };
  EXPECT_EQ(read("                  42"), "42");
  EXPECT_EQ(read("42                  "), "42");
  EXPECT_EQ(read("00000000000000000007"), "7");
  EXPECT_EQ(read("18446744073709551615"), "18446744073709551615");
  EXPECT_EQ(read("18446744073709551616"), "none");
  EXPECT_EQ(read("                    "), "none");
  EXPECT_EQ(read(""), "none");
  EXPECT_EQ(read("4 2"), "none");
  EXPECT_EQ(read("-1"), "none");
}

TEST(SoupClient, LogsInAndCountsTheMessages) {
  std::string login;
  TestServer server({[&](Connection& c) {
    login = read_login(c);
    c.send(packet('+', "welcome") + accepted("17") + packet('S', "one") + packet('H') + packet('U', "aside") +
           packet('S', "") + packet('S', "three") + packet('Z'));
    hold(c);
  }});
  Client client(config_for(server));
  client.start(17, {'M', 'O', 'N', 'D', 'A', 'Y', ' ', ' ', ' ', ' '});
  client.run_until_log(6);
  server.stop();
  EXPECT_EQ(login, big_endian(47, 2) + "Luser  secret    MONDAY    " + right("17", 20));
  EXPECT_EQ(client.log, (Log{"login MONDAY    17", "17 one", "18 ", "19 three", "end of session",
                             "close 127.0.0.1:" + std::to_string(server.port()) + ": end of session"}));
  EXPECT_EQ(client.client.next_sequence(), 20u);
  EXPECT_EQ(client.client.stats().other_packets, 2u);
  EXPECT_EQ(client.client.stats().heartbeats_received, 1u);
  EXPECT_EQ(client.client.state(), SoupClient::State::Idle);
}

TEST(SoupClient, SaysWhyALoginWasRejected) {
  TestServer server({[](Connection& c) {
                       read_login(c);
                       c.send(packet('J', "A"));
                     },
                     [](Connection& c) {
                       read_login(c);
                       c.send(packet('J', "S"));
                     }});
  Client client(config_for(server));
  client.start(1);
  client.run_until_log(1);
  client.start(1);
  client.run_until_log(2);
  const std::string name = "close 127.0.0.1:" + std::to_string(server.port());
  EXPECT_EQ(client.log, (Log{name + ": login rejected: user name or password is wrong",
                             name + ": login rejected: the session is not available"}));
  EXPECT_EQ(client.client.stats().rejected, 2u);
}

TEST(SoupClient, GoesOnWithTheNextMessageAfterALostConnection) {
  std::string second;
  TestServer server({[](Connection& c) {
                       read_login(c);
                       c.send(accepted("1") + packet('S', "one") + packet('S', "two").substr(0, 4));
                     },
                     [&](Connection& c) {
                       second = read_login(c);
                       c.send(accepted("2") + packet('S', "two"));
                       hold(c);
                     }});
  Client client(config_for(server));
  client.start(1);
  client.run_until_log(3);
  client.start(client.client.next_sequence());
  client.run_until_log(5);
  client.client.stop();
  server.stop();
  EXPECT_EQ(second.substr(29), right("2", 20));
  const std::string name = "127.0.0.1:" + std::to_string(server.port());
  EXPECT_EQ(client.log,
            (Log{"login MONDAY    1", "1 one", "close " + name + ": the server ended the connection",
                 "login MONDAY    2", "2 two"}));
}

TEST(SoupClient, SendsHeartbeatsAndNoticesSilence) {
  std::string heard;
  TestServer server({[&](Connection& c) {
    read_login(c);
    c.send(accepted("1"));
    heard = c.read_bytes(9);
    hold(c);
  }});
  Client client(config_for(server));
  // The test's own clock: a turn is half a second.
  std::int64_t now = 0;
  client.client.start({}, 1, now);
  run_until(1, client.log, [&] { return client.client.poll(client, now); });
  std::vector<std::int64_t> sent_at;
  while (client.log.size() < 2) {
    now += 500 * kMs;
    const std::uint64_t before = client.client.stats().heartbeats_sent;
    client.client.poll(client, now);
    if (client.client.stats().heartbeats_sent > before) sent_at.push_back(now / kMs);
    ASSERT_LE(now, 20000 * kMs);
  }
  server.stop();
  EXPECT_EQ(now, 15000 * kMs);
  EXPECT_EQ(sent_at.size(), 15u);
  EXPECT_EQ(sent_at[0], 1000);
  EXPECT_EQ(heard, packet('R') + packet('R') + packet('R'));
  EXPECT_TRUE(client.log[1].ends_with(": silent for 15.000 s")) << client.log[1];
}

TEST(SoupClient, GivesUpOnAServerThatDoesNotAnswer) {
  TestServer server({[](Connection& c) { hold(c); }});
  Client client(config_for(server));
  std::int64_t now = 0;
  client.client.start({}, 1, now);
  run_until(1, client.log, [&] { return client.client.poll(client, now += kMs); });
  EXPECT_TRUE(client.log[0].ends_with(": no login within 5.000 s")) << client.log[0];
}

TEST(SoupClient, RefusesWhatTheProtocolDoesNotAllow) {
  const auto answered = [](const std::string& bytes) {
    TestServer server({[&](Connection& c) {
      read_login(c);
      c.send(bytes);
      hold(c);
    }});
    Client client(config_for(server));
    client.start(1);
    client.run_until_log(bytes.starts_with(accepted("1")) ? 2 : 1);
    EXPECT_EQ(client.client.stats().malformed, 1u);
    return client.log.back().substr(client.log.back().find(": ") + 2);
  };
  EXPECT_EQ(answered(packet('S', "early")), "packet 'S' at the wrong time");
  EXPECT_EQ(answered(packet('A', "short")), "an answer to the login that cannot be read");
  EXPECT_EQ(answered(packet('A', "MONDAY    " + right("x", 20))),
            "an answer to the login that cannot be read");
  EXPECT_EQ(answered(accepted("1") + accepted("1")), "packet 'A' at the wrong time");
  EXPECT_EQ(answered(accepted("1") + std::string(2, '\0')), "a packet without a type");
}

TEST(SoupClient, SaysWhatIsWrongWithAServerThatIsNotThere) {
  SoupConfig config;
  {
    const TestServer server({[](Connection&) {}});
    config = config_for(server);
  }
  Client client(config);
  client.start(1);
  client.run_until_log(1);
  EXPECT_TRUE(client.log[0].ends_with("Connection refused")) << client.log[0];
}

TEST(SoupClient, NamesWhatIsWrongWithItsConfiguration) {
  const TestServer server({[](Connection&) {}});
  const auto refused = [&](auto change) {
    SoupConfig config = config_for(server);
    change(config);
    try {
      const Client client(config);
    } catch (const SetupError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(refused([](SoupConfig& c) { c.server = "nowhere"; }),
            "feeds[0].snapshot.server: expected HOST:PORT, found \"nowhere\"");
  EXPECT_EQ(refused([](SoupConfig& c) { c.server = "::1:80"; }),
            "feeds[0].snapshot.server: expected HOST:PORT, found \"::1:80\"");
  // Not the password itself.
  EXPECT_EQ(refused([](SoupConfig& c) { c.password = "elevenchars"; }),
            "feeds[0].snapshot.password: expected up to 10 characters, found 11");
  EXPECT_EQ(refused([](SoupConfig& c) { c.heartbeat_ns = 0; }),
            "feeds[0].snapshot.heartbeat_ns: expected a positive number, found 0");
  EXPECT_EQ(refused([](SoupConfig&) {}), "accepted");
}

class Glimpse final : public GlimpseHandler {
 public:
  explicit Glimpse(const SoupConfig& config) : client(config, "feeds[0].snapshot", arena) {}
  void on_snapshot_begin(const SessionId& /*session*/) noexcept override { log.emplace_back("begin"); }
  void on_snapshot_message(MessageView message) noexcept override {
    log.emplace_back(message.begin(), message.end());
  }
  void on_snapshot_end(std::uint64_t next) noexcept override {
    log.push_back("end, next " + std::to_string(next));
  }
  void on_snapshot_failed(std::string_view reason) noexcept override {
    log.push_back("failed " + std::string(reason.substr(reason.find(": ") + 2)));
  }
  void take(std::size_t entries) {
    client.start(detail::read_clock_ns(CLOCK_MONOTONIC));
    run_until(entries, log, [&] { return client.poll(*this, detail::read_clock_ns(CLOCK_MONOTONIC)); });
    EXPECT_FALSE(client.running());
  }

  Arena arena;
  GlimpseClient client;
  Log log;
};

TEST(GlimpseClient, GivesTheSnapshotAndWhereToGoOn) {
  std::string login;
  std::string last;
  TestServer server({[&](Connection& c) {
    login = read_login(c);
    c.send(accepted("1") + packet('S', "R one") + packet('S', "A two") +
           packet('S', "G" + right("123456", 20)) + packet('Z'));
    last = c.read_bytes(3);
  }});
  Glimpse glimpse(config_for(server));
  glimpse.take(4);
  server.stop();
  EXPECT_EQ(login.substr(29), right("1", 20));  // From the first message.
  EXPECT_EQ(last, packet('O'));
  EXPECT_EQ(glimpse.log, (Log{"begin", "R one", "A two", "end, next 123456"}));
}

TEST(GlimpseClient, FailsWhereASnapshotIsNotWhole) {
  TestServer server({[](Connection& c) {
                       read_login(c);
                       c.send(accepted("1") + packet('S', "A one"));
                     },
                     [](Connection& c) {
                       read_login(c);
                       c.send(accepted("1") + packet('S', "G" + right("x", 20)));
                       hold(c);
                     },
                     [](Connection& c) {
                       read_login(c);
                       c.send(accepted("5") + packet('S', "A one"));
                       hold(c);
                     }});
  Glimpse glimpse(config_for(server));
  glimpse.take(3);
  EXPECT_EQ(std::exchange(glimpse.log, {}),
            (Log{"begin", "A one", "failed the server ended the connection"}));
  glimpse.take(2);
  EXPECT_EQ(std::exchange(glimpse.log, {}).at(0), "begin");
  glimpse.take(1);
  EXPECT_EQ(glimpse.log.size(), 1u);  // No message behind a failure.
}

}  // namespace
}  // namespace tickwire::net

#include "tickwire/net/websocket/websocket_source.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <string>
#include <vector>

#include "net/websocket_test_server.hpp"
#include "tickwire/core/error.hpp"

namespace tickwire::net {
namespace {

using test::Connection;
using test::Script;
using test::server_close;
using test::server_frame;
using test::TestAuthority;
using test::TestServer;

constexpr std::int64_t kMs = 1'000'000;

WebSocketConfig config_for(const std::string& url) {
  WebSocketConfig config;
  config.url = url;
  config.max_frame_bytes = 1 << 20;
  config.send_buffer_bytes = 1 << 20;
  config.connect_timeout_ns = 5000 * kMs;
  config.close_timeout_ns = 5000 * kMs;
  config.reconnect_min_ns = kMs;
  config.reconnect_max_ns = 4 * kMs;
  config.healthy_after_ns = 1000 * kMs;
  return config;
}

/// Writes down what the source says and drives it as an agent would: poll, and park when idle.
class Client final : public WebSocketHandler {
 public:
  explicit Client(const WebSocketConfig& config) : source(config, "feeds[0]") { source.start(); }

  void on_open() noexcept override { log.push_back("open"); }
  void on_message(const WebSocketMessage& message) noexcept override {
    std::string text(message.payload.data(), message.payload.size());
    log.push_back((message.is_text ? "text " : "binary ") + text);
    messages.push_back({std::move(text), message.recv_clock, message.ts_recv, message.tsc_read});
    if (echo)
      message.is_text ? source.send_text(messages.back().text) : source.send_binary(messages.back().text);
    if (stop_after != 0 && messages.size() == stop_after) source.stop();
  }
  void on_close(std::uint16_t code, std::string_view reason) noexcept override {
    log.push_back("close " + std::to_string(code) + ' ' + std::string(reason));
  }

  /// Polls until `done` holds; fails the test after a time that no healthy run needs.
  template <typename Done>
  void run_until(Done done) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!done()) {
      ASSERT_LT(std::chrono::steady_clock::now(), limit)
          << "state " << static_cast<int>(source.state()) << ", last error: " << source.last_error()
          << ", log: " << testing::PrintToString(log);
      if (source.poll(*this, clock) > 0) continue;
      const std::int64_t wait_ns = std::min<std::int64_t>(source.ns_to_deadline(tsc_now()), 20 * kMs);
      pollfd ready{source.fd(), static_cast<short>(POLLIN | (source.wants_write() ? POLLOUT : 0)), 0};
      ::poll(&ready, source.fd() >= 0 ? 1 : 0, static_cast<int>((wait_ns + kMs - 1) / kMs));
    }
  }
  void run_until_log(std::size_t entries) {
    run_until([&] { return log.size() >= entries; });
  }
  void stop() {
    source.stop();
    run_until([&] { return source.stopped(); });
  }

  struct Message {
    std::string text;
    RecvClock recv_clock;
    TsNs ts_recv;
    std::uint64_t tsc_read;
  };

  UtcClock clock;
  WebSocketSource source;
  std::vector<std::string> log;
  std::vector<Message> messages;
  bool echo = false;
  std::size_t stop_after = 0;
};

using Log = std::vector<std::string>;

// The server's end of a close that the client begins.
void close_with_client(Connection& connection) {
  for (;;) {
    const auto frame = connection.read_frame();
    if (frame.opcode == 8) return connection.finish_close(frame.close_code());
    if (frame.opcode == 0) return;
  }
}

TEST(WebSocketSource, DeliversWholeMessages) {
  std::string pong;
  TestServer server({[&](Connection& c) {
    c.accept_websocket();
    c.send(server_frame(0x81, "one") + server_frame(0x01, "tw") + server_frame(0x89, "alive?") +
           server_frame(0x80, "o") + server_frame(0x82, std::string("\x00\xFF", 2)));
    const auto frame = c.read_frame();
    EXPECT_TRUE(frame.masked && frame.final);
    EXPECT_EQ(frame.opcode, 0xAu);
    pong = frame.payload;
    close_with_client(c);
  }});
  Client client(config_for(server.url()));
  client.run_until_log(4);
  client.stop();
  server.stop();
  EXPECT_EQ(pong, "alive?");
  EXPECT_EQ(client.log,
            (Log{"open", "text one", "text two", std::string("binary \x00\xFF", 9), "close 1000 stopped"}));
  const WebSocketStats& stats = client.source.stats();
  EXPECT_EQ(stats.messages, 3u);
  EXPECT_EQ(stats.message_bytes, 8u);
  EXPECT_EQ(stats.pings_received, 1u);
  EXPECT_EQ(stats.pongs_sent, 1u);
  EXPECT_EQ(stats.opens, 1u);
  EXPECT_EQ(stats.closes, 1u);
  EXPECT_EQ(stats.drops, 0u);
  EXPECT_EQ(stats.errors, 0u);
  EXPECT_EQ(client.source.fd(), -1);
}

TEST(WebSocketSource, GivesTheSameMessagesForBytesInPieces) {
  const std::string frames = server_frame(0x81, "one") + server_frame(0x01, "t\xE2\x82") +
                             server_frame(0x89, "p") + server_frame(0x80, "\xAC") +
                             server_frame(0x82, std::string(300, 'b')) + server_close(1001, "bye");
  TestServer server({[&](Connection& c) {
    const std::string answer = Connection::answer_to(c.read_request()) + frames;
    for (const char& byte : answer) c.send({&byte, 1});
    while (c.read_frame().opcode != 0) {
    }
  }});
  auto config = config_for(server.url());
  config.reconnect = false;
  config.close_timeout_ns = 50 * kMs;  // This server leaves the end of the connection to us.
  Client client(config);
  client.run_until([&] { return client.source.stopped(); });
  EXPECT_EQ(client.log, (Log{"open", "text one", "text t\xE2\x82\xAC", "binary " + std::string(300, 'b'),
                             "close 1001 bye"}));
}

TEST(WebSocketSource, TakesFramesThatComeWithTheHandshake) {
  TestServer server({[&](Connection& c) {
    c.send(Connection::answer_to(c.read_request()) + server_frame(0x81, "early") +
           server_frame(0x81, "bird"));
    close_with_client(c);
  }});
  Client client(config_for(server.url()));
  client.run_until_log(3);
  client.stop();
  EXPECT_EQ(client.log, (Log{"open", "text early", "text bird", "close 1000 stopped"}));
}

TEST(WebSocketSource, StampsWithTheKernelsClock) {
  TestServer server({[&](Connection& c) {
    c.accept_websocket();
    for (;;) {
      c.send(server_frame(0x81, "tick"));
      const auto frame = c.read_frame();
      if (frame.opcode == 8) return c.finish_close(frame.close_code());
      if (frame.opcode == 0) return;
    }
  }});
  Client client(config_for(server.url()));
  client.echo = true;
  const TsNs before = read_utc();
  // The kernel turns its stamps on a moment after the first socket asks; until then our clock stands in.
  client.run_until([&] {
    return client.messages.size() >= 20 &&
           (client.messages.back().recv_clock == RecvClock::Kernel || read_utc() > before + 2000 * kMs);
  });
  const TsNs after = read_utc();
  client.stop();
  const bool kernel_stamps = client.source.stats().kernel_stamps > 0;
  std::uint64_t last_tsc = 0;
  for (const auto& message : client.messages) {
    // Whichever clock it was, the stamp is UTC and of this moment (the two differ by some microseconds).
    EXPECT_GE(message.ts_recv, before - kMs);
    EXPECT_LE(message.ts_recv, after + kMs);
    EXPECT_GT(message.tsc_read, last_tsc);
    last_tsc = message.tsc_read;
    EXPECT_TRUE(message.recv_clock == RecvClock::Read || kernel_stamps);
  }
  if (!kernel_stamps) GTEST_SKIP() << "this kernel stamps no TCP receive";
  EXPECT_EQ(client.messages.back().recv_clock, RecvClock::Kernel);
}

TEST(WebSocketSource, AnswersEveryPingInOrder) {
  std::vector<std::string> pongs;
  TestServer server({[&](Connection& c) {
    c.accept_websocket();
    std::string pings;
    for (int i = 0; i < 50; ++i) pings += server_frame(0x89, std::string(static_cast<std::size_t>(i), 'p'));
    c.send(pings);
    for (int i = 0; i < 50; ++i) pongs.push_back(c.read_frame().payload);
    c.send(server_frame(0x81, "done"));
    close_with_client(c);
  }});
  Client client(config_for(server.url()));
  client.run_until_log(2);
  client.stop();
  server.stop();
  ASSERT_EQ(pongs.size(), 50u);
  for (std::size_t i = 0; i < pongs.size(); ++i) EXPECT_EQ(pongs[i], std::string(i, 'p'));
}

TEST(WebSocketSource, EchoesLargeMessagesThroughASlowSocket) {
  std::string large(3'000'000, '\0');
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>('a' + i * i % 26);
  TestServer server({[&](Connection& c) {
    c.accept_websocket();
    c.send(server_frame(0x82, large) + server_frame(0x81, "after"));
    // Let the client run into a full socket before anything is read.
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const auto first = c.read_frame();
    EXPECT_TRUE(first.masked);
    EXPECT_EQ(first.opcode, 2u);
    EXPECT_TRUE(first.payload == large);
    EXPECT_EQ(c.read_frame().payload, "after");
    close_with_client(c);
  }});
  auto config = config_for(server.url());
  config.max_frame_bytes = config.send_buffer_bytes = 4'000'000;
  Client client(config);
  client.echo = true;
  client.run_until([&] { return client.messages.size() == 2 && !client.source.wants_write(); });
  client.stop();
  server.stop();
}

TEST(WebSocketSource, SubscribesAgainAfterEachEnd) {
  std::vector<std::string> subscribed;
  const auto subscribe = [&](Connection& c) {
    c.accept_websocket();
    const std::string first = c.read_frame().payload;
    subscribed.push_back(first + '+' + c.read_frame().payload);
  };
  int echoed_code = 0;
  TestServer server({
      [&](Connection& c) {  // In order.
        subscribe(c);
        c.send(server_frame(0x81, "a") + server_close(1012, "restart"));
        EXPECT_EQ(c.read_frame().payload, "a");
        echoed_code = c.read_frame().close_code();
      },
      [&](Connection& c) {  // Without a word.
        subscribe(c);
        c.send(server_frame(0x81, "b"));
        EXPECT_EQ(c.read_frame().payload, "b");  // Bytes left unread would turn the end into a reset.
        c.end();
      },
      [&](Connection& c) {  // By a reset.
        subscribe(c);
        c.send(server_frame(0x81, "c"));
        EXPECT_EQ(c.read_frame().payload, "c");
        c.reset();
      },
      [&](Connection& c) {
        subscribe(c);
        c.send(server_frame(0x81, "d"));
        close_with_client(c);
      },
  });
  auto config = config_for(server.url());
  config.on_open = {"sub 1", "sub 2"};
  Client client(config);
  client.echo = true;
  client.run_until([&] { return client.messages.size() == 4; });
  client.stop();
  server.stop();
  EXPECT_EQ(echoed_code, 1012);
  EXPECT_EQ(subscribed, Log(4, "sub 1+sub 2"));
  ASSERT_EQ(client.log.size(), 12u);
  EXPECT_EQ(client.log[2], "close 1012 restart");
  EXPECT_EQ(client.log[5], "close 1006 connection to 127.0.0.1: ended without a close frame");
  EXPECT_EQ(client.log[8], "close 1006 connection to 127.0.0.1: Connection reset by peer");
  EXPECT_EQ(client.log[11], "close 1000 stopped");
  EXPECT_EQ(client.source.stats().opens, 4u);
  EXPECT_EQ(client.source.stats().closes, 4u);
  EXPECT_EQ(client.source.stats().drops, 2u);
  EXPECT_EQ(client.source.stats().closes_received, 1u);
}

TEST(WebSocketSource, RefusesViolationsWithTheirCodeAfterWhatCameBefore) {
  const std::vector<std::pair<std::string, int>> cases = {
      {server_frame(0xC1, "x"), 1002},
      {server_frame(0x81, "\xFF"), 1007},
      {server_frame(0x82, std::string((1 << 20) + 1, 'x')), 1009},
      {server_frame(0x88, "x"), 1002},
  };
  std::vector<int> codes;
  std::vector<Script> scripts;
  for (const auto& [bytes, code] : cases) {
    scripts.push_back([&, violation = bytes](Connection& c) {
      c.accept_websocket();
      c.send(server_frame(0x81, "good") + violation);
      EXPECT_EQ(c.read_frame().payload, "good");  // The echo goes out before the refusal.
      codes.push_back(c.read_frame().close_code());
    });
  }
  scripts.push_back([&](Connection& c) {
    c.accept_websocket();
    close_with_client(c);
  });
  TestServer server(std::move(scripts));
  Client client(config_for(server.url()));
  client.echo = true;
  client.run_until([&] { return client.source.stats().opens == 5; });
  client.stop();
  server.stop();
  EXPECT_EQ(codes, (std::vector<int>{1002, 1007, 1009, 1002}));
  EXPECT_EQ(client.log, (Log{"open", "text good", "close 1002 reserved bits set", "open", "text good",
                             "close 1007 text that is not UTF-8", "open", "text good",
                             "close 1009 frame above max_frame_bytes", "open", "text good",
                             "close 1002 close frame with half a code", "open", "close 1000 stopped"}));
  EXPECT_EQ(client.source.stats().protocol_errors, 4u);
  EXPECT_EQ(client.source.stats().bad_text, 1u);
  EXPECT_EQ(client.source.stats().too_large, 1u);
}

TEST(WebSocketSource, SurvivesEveryRefusalBeforeTheHandshakeIsDone) {
  TestServer server({
      [](Connection& c) {
        c.read_request();
        c.send("garbage\r\n\r\n");
      },
      [](Connection& c) {
        c.read_request();
        c.send("HTTP/1.1 503 Service Unavailable\r\n\r\n");
      },
      [](Connection& c) {
        std::string request = c.read_request();
        request[request.find("Key: ") + 5] ^= 1;
        c.send(Connection::answer_to(request));
      },
      [](Connection& c) { c.read_request(); },
      [](Connection& c) {
        c.read_request();
        c.reset();
      },
      [](Connection& c) {
        c.read_request();
        c.send("HTTP/1.1 101 Switching");
      },
      [](Connection& c) {
        c.accept_websocket();
        close_with_client(c);
      },
  });
  Client client(config_for(server.url()));
  std::vector<std::string> errors;
  client.run_until([&] {
    if (client.source.stats().errors > errors.size()) errors.emplace_back(client.source.last_error());
    return !client.log.empty();
  });
  client.stop();
  EXPECT_EQ(errors, (Log{
                        "handshake: expected an HTTP/1.1 answer, found \"garbage????\"",
                        "handshake: expected HTTP 101, found 503 Service Unavailable",
                        "handshake: expected Sec-WebSocket-Accept for our key, found another",
                        "handshake with 127.0.0.1: the connection ended before the answer",
                        "handshake with 127.0.0.1: Connection reset by peer",
                        "handshake with 127.0.0.1: the connection ended before the answer",
                    }));
  EXPECT_EQ(client.source.stats().handshake_failures, 6u);
  EXPECT_EQ(client.log, (Log{"open", "close 1000 stopped"}));
}

/// What a server sends without end while `run` lasts; the client must come to an end by itself.
template <typename Run>
void against_a_flood(const std::string& opening, const std::string& flood, std::chrono::microseconds pause,
                     const std::string& scheme, Run run) {
  std::atomic<bool> over{false};
  TestServer server({[&](Connection& c) {
    if (opening.empty()) {
      c.accept_websocket();
    } else {
      if (scheme == "ws") c.read_request();
      c.send(opening);
    }
    while (!over) {
      c.send(flood);
      if (pause.count() != 0) std::this_thread::sleep_for(pause);
    }
  }});
  auto config = config_for(scheme + server.url().substr(2));
  config.connect_timeout_ns = 100 * kMs;
  config.close_timeout_ns = 100 * kMs;
  Client client(config);
  run(client);
  over = true;
}

TEST(WebSocketSource, StopsInTimeThroughAFloodOfPings) {
  std::string pings;
  for (int i = 0; i < 1000; ++i) pings += server_frame(0x89, std::string(125, 'p'));
  against_a_flood("", pings, {}, "ws", [](Client& client) {
    client.run_until([&] { return client.source.stats().pings_received > 1000; });
    client.stop();
    EXPECT_EQ(client.source.stats().timeouts, 1u);
    EXPECT_EQ(client.log, (Log{"open", "close 1000 stopped"}));
  });
}

TEST(WebSocketSource, GivesUpAHandshakeThatTricklesWithoutEnd) {
  against_a_flood("HTTP/1.1 101 Switching Protocols\r\nX: ", "x", std::chrono::milliseconds(5), "ws",
                  [](Client& client) {
                    client.run_until([&] { return client.source.stats().timeouts > 0; });
                    EXPECT_EQ(client.source.last_error(), "handshake of 127.0.0.1: no result within 0.100 s");
                    client.stop();
                  });
}

TEST(WebSocketSource, GivesUpATlsHandshakeThatTricklesWithoutEnd) {
  // The head of a record of 16 KiB, and its bytes one by one.
  against_a_flood(std::string("\x16\x03\x03\x3F\xFF\x02", 6), "x", std::chrono::milliseconds(5), "wss",
                  [](Client& client) {
                    client.run_until([&] { return client.source.stats().timeouts > 0; });
                    EXPECT_EQ(client.source.last_error(),
                              "TLS handshake of 127.0.0.1: no result within 0.100 s");
                    client.stop();
                  });
}

TEST(WebSocketSource, WaitsAMomentForTheReasonOfARefusal) {
  TestServer server({
      [](Connection& c) {
        c.read_request();
        c.send("HTTP/1.1 451 No\r\nContent-Length: 10\r\n\r\n");
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        c.send("restricted");
        (void)c.at_end();
      },
      [](Connection& c) {
        c.read_request();
        c.send("HTTP/1.1 403 No\r\nContent-Length: 10\r\n\r\nforb");
      },
      [](Connection& c) {
        c.read_request();
        c.send("HTTP/1.1 429 No\r\nContent-Length: 10\r\n\r\nslow");
        (void)c.at_end();  // Until the client has waited enough.
      },
  });
  Client client(config_for(server.url()));
  std::vector<std::string> errors;
  client.run_until([&] {
    if (client.source.stats().errors > errors.size()) errors.emplace_back(client.source.last_error());
    return errors.size() == 3;
  });
  client.stop();
  EXPECT_EQ(errors, (Log{
                        "handshake: expected HTTP 101, found 451 No: restricted",
                        "handshake: expected HTTP 101, found 403 No: forb",
                        "handshake: expected HTTP 101, found 429 No: slow",
                    }));
}

TEST(WebSocketSource, CapsAStampThatIsAheadOfTheReading) {
  TestServer server({[](Connection& c) {
    c.accept_websocket();
    for (int i = 0; i < 400; ++i) {
      c.send(server_frame(0x81, "tick"));
      if (c.read_frame().opcode != 1) return;
    }
    close_with_client(c);
  }});
  auto config = config_for(server.url());
  Client client(config);
  client.echo = true;
  client.run_until([&] { return client.messages.size() >= 200; });
  for (const auto& message : client.messages) {
    EXPECT_LE(message.ts_recv, client.clock.at(message.tsc_read));
  }
  client.stop();
}

TEST(WebSocketSource, BacksOffFromAPortThatRefuses) {
  int port = 0;
  {
    TestServer server({[](Connection&) {}});
    port = server.port();
  }
  auto config = config_for("ws://127.0.0.1:" + std::to_string(port));
  config.reconnect_min_ns = 1000;
  config.reconnect_max_ns = 8000;
  Client client(config);
  client.run_until([&] {
    // Never parked beyond the ceiling.
    if (client.source.state() == WebSocketState::BackingOff) {
      EXPECT_LE(client.source.ns_to_deadline(tsc_now()), 8000);
    }
    return client.source.stats().connect_failures >= 20;
  });
  EXPECT_EQ(client.source.last_error(),
            "connect to 127.0.0.1:" + std::to_string(port) + ": Connection refused");
  EXPECT_EQ(client.source.stats().attempts, 20u);
  client.stop();
  EXPECT_TRUE(client.log.empty());
}

TEST(WebSocketSource, DoublesTheCeilingOfItsDelays) {
  int port = 0;
  {
    TestServer server({[](Connection&) {}});
    port = server.port();
  }
  // The delay is read off the source, not measured: far longer than the test waits.
  auto config = config_for("ws://127.0.0.1:" + std::to_string(port));
  const std::int64_t hour = std::int64_t{3'600'000} * kMs;
  config.reconnect_min_ns = hour;
  config.reconnect_max_ns = 100 * hour;
  std::int64_t largest = 0;
  std::int64_t sum = 0;
  const int tries = 200;
  for (int i = 1; i <= tries; ++i) {
    config.seed = static_cast<std::uint64_t>(i);
    Client client(config);
    client.run_until([&] { return client.source.stats().connect_failures == 1; });
    const std::int64_t delay = client.source.ns_to_deadline(tsc_now());
    EXPECT_LE(delay, hour);
    largest = std::max(largest, delay);
    sum += delay;
    client.source.stop();
  }
  // Uniform in [0, 1 h]: the mean of 200 is within five deviations (0.29 / sqrt(200)) of a half.
  EXPECT_NEAR(static_cast<double>(sum) / tries / static_cast<double>(hour), 0.5, 0.11);
  EXPECT_GT(largest, hour * 8 / 10);
}

TEST(WebSocketSource, StopsInOrder) {
  int code = 0;
  bool ended = false;
  TestServer server({[&](Connection& c) {
    c.accept_websocket();
    c.send(server_frame(0x81, "last") + server_frame(0x81, "never seen"));
    const auto frame = c.read_frame();
    code = frame.close_code();
    c.send(server_frame(0x81, "too late") + server_close(code));
    c.end();
    ended = true;
  }});
  Client client(config_for(server.url()));
  client.stop_after = 1;  // From within the handler.
  client.run_until([&] { return client.source.stopped(); });
  server.stop();
  EXPECT_EQ(code, 1000);
  EXPECT_TRUE(ended);
  EXPECT_EQ(client.log, (Log{"open", "text last", "close 1000 stopped"}));
  EXPECT_EQ(client.source.stats().timeouts, 0u);
  EXPECT_EQ(server.connections(), 1u);
}

TEST(WebSocketSource, CutsAServerThatDoesNotClose) {
  TestServer server({[&](Connection& c) {
    c.accept_websocket();
    while (c.read_frame().opcode != 0) {
    }
  }});
  auto config = config_for(server.url());
  config.close_timeout_ns = 20 * kMs;
  Client client(config);
  client.run_until_log(1);
  client.stop();
  EXPECT_EQ(client.source.stats().timeouts, 1u);
  EXPECT_EQ(client.source.last_error(), "close of 127.0.0.1: the server did not end the connection in time");
}

TEST(WebSocketSource, LeavesAServerAloneForAsLongAsItAsks) {
  const std::time_t then = std::time(nullptr) + 600;
  char date[64];
  std::tm parts;
  std::strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", ::gmtime_r(&then, &parts));
  for (const std::string& until :
       {std::string("600"), std::string(date)}) {  // By our clock, where it is a date: the answer has none.
    TestServer server({[&](Connection& c) {
      c.read_request();
      c.send("HTTP/1.1 429 Too Many Requests\r\nRetry-After: " + until + "\r\nContent-Length: 0\r\n\r\n");
    }});
    Client client(config_for("ws://127.0.0.1:" + std::to_string(server.port())));  // Delays of 4 ms.
    client.run_until([&] {
      return client.source.state() == WebSocketState::BackingOff && client.source.stats().errors > 0;
    });
    const std::int64_t delay = client.source.ns_to_deadline(tsc_now());
    EXPECT_GT(delay, 500'000 * kMs) << until;
    EXPECT_LE(delay, 600'000 * kMs) << until;
    client.source.stop();
  }
}

TEST(WebSocketSource, StopsAtOnceWhereNothingIsOpen) {
  auto config = config_for("ws://127.0.0.1:1");
  config.reconnect_min_ns = config.reconnect_max_ns = 1'000'000 * kMs;
  Client client(config);
  client.run_until([&] {
    return client.source.state() == WebSocketState::BackingOff && client.source.stats().errors > 0;
  });
  client.source.stop();
  EXPECT_TRUE(client.source.stopped());
  EXPECT_EQ(client.source.poll(client, client.clock), 0);
  EXPECT_EQ(client.source.ns_to_deadline(tsc_now()), std::numeric_limits<std::int64_t>::max());
}

TEST(WebSocketSource, ReopensWhenAsked) {
  const Script serve = [](Connection& c) {
    c.accept_websocket();
    c.send(server_frame(0x81, "x"));
    close_with_client(c);
  };
  TestServer server({serve});
  Client client(config_for(server.url()));
  client.run_until_log(2);
  client.source.reopen("no data for 10 s");
  client.run_until_log(5);
  client.stop();
  EXPECT_EQ(client.log,
            (Log{"open", "text x", "close 1000 no data for 10 s", "open", "text x", "close 1000 stopped"}));
}

TEST(WebSocketSource, DropsAPeerThatAnswersNoPing) {
  int pings = 0;
  TestServer server({
      [&](Connection& c) {  // Answers three, then only reads.
        c.accept_websocket();
        for (;;) {
          const auto frame = c.read_frame();
          if (frame.opcode == 0) return;
          EXPECT_EQ(frame.opcode, 9u);
          if (++pings <= 3) c.send(server_frame(0x8A, frame.payload));
          c.send(server_frame(0x8A, "unsolicited"));
        }
      },
      [&](Connection& c) {
        c.accept_websocket();
        close_with_client(c);
      },
  });
  auto config = config_for(server.url());
  config.ping_interval_ns = 2 * kMs;
  config.pong_timeout_ns = 300 * kMs;
  Client client(config);
  client.run_until([&] { return client.source.stats().opens == 2; });
  EXPECT_EQ(client.log[1], "close 1006 connection to 127.0.0.1: no pong within pong_timeout_ns");
  EXPECT_EQ(client.source.stats().pong_timeouts, 1u);
  EXPECT_GE(client.source.stats().pings_sent, 4u);
  client.stop();
}

TEST(WebSocketSource, RefusesToSendWithoutRoomOrConnection) {
  TestServer server({[&](Connection& c) {
    c.accept_websocket();
    close_with_client(c);
  }});
  auto config = config_for(server.url());
  config.send_buffer_bytes = 1000;
  Client client(config);
  EXPECT_FALSE(client.source.send_text("too early"));
  client.run_until_log(1);
  EXPECT_FALSE(client.source.send_text(std::string(1001, 'x')));
  EXPECT_TRUE(client.source.send_text(std::string(500, 'x')));
  EXPECT_FALSE(client.source.send_text(std::string(500, 'x')));
  EXPECT_EQ(client.source.stats().send_refused, 3u);
  EXPECT_EQ(client.source.stats().sent, 1u);
  client.stop();
}

TEST(WebSocketSource, TriesEveryAddressOfAName) {
  TestServer server({[&](Connection& c) {
    const std::string request = c.accept_websocket();
    EXPECT_NE(request.find("\r\nHost: localhost:"), std::string::npos);
    close_with_client(c);
  }});
  // Listens on 127.0.0.1 only; localhost is often ::1 first.
  Client client(config_for(server.url("localhost")));
  client.run_until_log(1);
  client.stop();
  EXPECT_EQ(client.log, (Log{"open", "close 1000 stopped"}));
}

TEST(WebSocketSource, ReportsANameThatDoesNotResolve) {
  auto config = config_for("ws://no-such-host.invalid/");
  config.connect_timeout_ns = 200 * kMs;  // Without a network the look-up may hang instead.
  Client client(config);
  client.run_until([&] { return client.source.stats().errors > 0; });
  EXPECT_EQ(client.source.stats().lookup_failures + client.source.stats().timeouts, 1u);
  EXPECT_NE(client.source.last_error().find("look-up of no-such-host.invalid: "), std::string_view::npos);
  client.stop();
}

TEST(WebSocketSource, GivesUpOnAServerThatAcceptsAndSaysNothing) {
  TestServer server({
      [&](Connection& c) {
        c.read_request();
        EXPECT_TRUE(c.at_end());
      },
      [&](Connection& c) {
        c.accept_websocket();
        close_with_client(c);
      },
  });
  auto config = config_for(server.url());
  config.connect_timeout_ns = 200 * kMs;
  Client client(config);
  client.run_until_log(1);
  EXPECT_EQ(client.source.last_error(), "handshake of 127.0.0.1: no result within 0.200 s");
  EXPECT_EQ(client.source.stats().timeouts, 1u);
  client.stop();
}

TEST(WebSocketSource, RunsTwoConnectionsAtOnce) {
  const Script serve = [](Connection& c) {
    c.accept_websocket();
    c.send(server_frame(0x81, "x"));
    close_with_client(c);
  };
  TestServer first({serve});
  TestServer second({serve});
  Client a(config_for(first.url()));
  Client b(config_for(second.url()));
  a.run_until([&] {
    (void)b.source.poll(b, b.clock);
    return a.messages.size() == 1 && b.messages.size() == 1;
  });
  a.stop();
  b.stop();
  EXPECT_EQ(b.log, (Log{"open", "text x", "close 1000 stopped"}));
}

TEST(WebSocketSource, RefusesAConfigurationThatCannotWork) {
  const auto message = [](auto change) {
    WebSocketConfig config = config_for("ws://host");
    change(config);
    try {
      WebSocketSource source(config, "feeds[2]");
    } catch (const SetupError& error) {
      return std::string(error.what());
    }
    return std::string("nothing thrown");
  };
  EXPECT_EQ(message([](WebSocketConfig&) {}), "nothing thrown");
  EXPECT_EQ(message([](WebSocketConfig& c) { c.url = "tcp://host"; }),
            "feeds[2].url: expected a URL that begins with ws:// or wss://, found \"tcp://\"");
  EXPECT_EQ(message([](WebSocketConfig& c) { c.max_frame_bytes = 0; }),
            "feeds[2].max_frame_bytes: expected at least 125, found 0");
  EXPECT_EQ(message([](WebSocketConfig& c) { c.connect_timeout_ns = -5; }),
            "feeds[2].connect_timeout_ns: expected a positive number, found -5");
  EXPECT_EQ(message([](WebSocketConfig& c) { c.reconnect_max_ns = 10; }),
            "feeds[2].reconnect_max_ns: expected at least reconnect_min_ns (1000000), found 10");
  EXPECT_EQ(message([](WebSocketConfig& c) { c.ping_interval_ns = 1; }),
            "feeds[2].pong_timeout_ns: expected a positive number, found 0");
  EXPECT_EQ(message([](WebSocketConfig& c) {
              c.on_open = {std::string(100, 'x')};
              c.send_buffer_bytes = 105;
            }),
            "feeds[2].send_buffer_bytes: expected at least 106 for what on_open sends, found 105");
  EXPECT_EQ(message([](WebSocketConfig& c) { c.ca_file = "ca.pem"; }),
            "feeds[2].ca_file: expected none, since the URL is not wss://, found ca.pem");
  EXPECT_NE(
      message([](WebSocketConfig& c) {
        c.url = "wss://host";
        c.ca_file = "/no/such/ca.pem";
      }).find("feeds[2].ca_file: expected a readable file of PEM certificates, found \"/no/such/ca.pem\""),
      std::string::npos);
}

// ---- TLS ----

class WebSocketSourceTls : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = testing::TempDir() + "tickwire-tls-" + std::to_string(::getpid());
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string directory_;
};

TEST_F(WebSocketSourceTls, DeliversAndEchoes) {
  TestAuthority authority("DNS:localhost,IP:127.0.0.1", directory_);
  std::string large(2'500'000, '\0');
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>('a' + i * 7 % 26);
  const Script serve = [&](Connection& c) {
    // A frame in the same record as the answer must not be lost.
    c.send(Connection::answer_to(c.read_request()) + server_frame(0x81, "first"));
    EXPECT_EQ(c.read_frame().payload, "hello");
    EXPECT_EQ(c.read_frame().payload, "first");
    c.send(server_frame(0x82, large));
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    EXPECT_TRUE(c.read_frame().payload == large);
    close_with_client(c);
  };
  TestServer server({serve}, authority.context());
  for (const std::string host : {"localhost", "127.0.0.1"}) {
    auto config = config_for(server.url(host));
    config.ca_file = authority.ca_file();
    config.max_frame_bytes = config.send_buffer_bytes = 4'000'000;
    config.on_open = {"hello"};
    Client client(config);
    client.echo = true;
    client.run_until([&] { return client.messages.size() == 2 && !client.source.wants_write(); });
    EXPECT_EQ(client.messages[0].text, "first");
    EXPECT_TRUE(client.messages[1].text == large);
    client.stop();
    EXPECT_EQ(client.log.back(), "close 1000 stopped");
    EXPECT_EQ(client.source.stats().tls_failures, 0u) << client.source.last_error();
    // Our own receive, so the kernel's stamps are there under TLS too.
    EXPECT_GT(client.source.stats().kernel_stamps, 0u);
  }
}

TEST_F(WebSocketSourceTls, ConnectsAgain) {
  TestAuthority authority("DNS:localhost", directory_);
  TestServer server({[](Connection& c) {
                       c.accept_websocket();
                       c.send(server_frame(0x81, "a"));
                       EXPECT_EQ(c.read_frame().payload, "a");
                       c.reset();
                     },
                     [](Connection& c) {
                       c.accept_websocket();
                       c.send(server_frame(0x81, "b"));
                       EXPECT_EQ(c.read_frame().payload, "b");
                       c.end();  // TLS ends in order, WebSocket does not.
                     },
                     [](Connection& c) {
                       c.accept_websocket();
                       c.send(server_frame(0x81, "c") + server_close(1001));
                       EXPECT_EQ(c.read_frame().payload, "c");
                       EXPECT_EQ(c.read_frame().close_code(), 1001);
                     },
                     [](Connection& c) {
                       c.accept_websocket();
                       close_with_client(c);
                     }},
                    authority.context());
  auto config = config_for(server.url("localhost"));
  config.ca_file = authority.ca_file();
  Client client(config);
  client.echo = true;
  client.run_until([&] { return client.source.stats().opens == 4; });
  client.stop();
  EXPECT_EQ(client.messages.size(), 3u);
  EXPECT_EQ(client.source.stats().drops, 2u);
  EXPECT_EQ(std::count(client.log.begin(), client.log.end(),
                       "close 1006 connection to localhost: ended TLS without a close frame"),
            1);
  EXPECT_EQ(std::count(client.log.begin(), client.log.end(), "close 1001 "), 1);
}

void expect_refused(const WebSocketConfig& config, const std::string& expected) {
  Client client(config);
  client.run_until([&] { return client.source.stats().tls_failures > 0; });
  EXPECT_EQ(client.source.last_error(), expected);
  EXPECT_EQ(client.source.stats().opens, 0u);
  client.stop();
  EXPECT_TRUE(client.log.empty());
}

TEST_F(WebSocketSourceTls, RefusesAnUnknownAuthority) {
  TestAuthority authority("DNS:localhost", directory_);
  TestServer server({[](Connection&) { ADD_FAILURE() << "the handshake went through"; }},
                    authority.context());
  expect_refused(config_for(server.url("localhost")),
                 "TLS: the certificate of localhost does not verify: unable to get local issuer certificate");
}

TEST_F(WebSocketSourceTls, RefusesACertificateOfAnotherHost) {
  TestAuthority authority("DNS:example.test,IP:10.0.0.1", directory_);
  TestServer server({[](Connection&) { ADD_FAILURE() << "the handshake went through"; }},
                    authority.context());
  auto config = config_for(server.url("localhost"));
  config.ca_file = authority.ca_file();
  expect_refused(config, "TLS: the certificate of localhost does not verify: hostname mismatch");
  config = config_for(server.url("127.0.0.1"));
  config.ca_file = authority.ca_file();
  expect_refused(config, "TLS: the certificate of 127.0.0.1 does not verify: IP address mismatch");
}

TEST_F(WebSocketSourceTls, ReportsAPeerThatSpeaksNoTls) {
  TestServer server({[](Connection& c) { c.send("HTTP/1.1 400 Bad Request\r\n\r\n"); }});
  auto config = config_for("wss://127.0.0.1:" + std::to_string(server.port()));
  Client client(config);
  client.run_until([&] { return client.source.stats().tls_failures > 0; });
  EXPECT_EQ(client.source.last_error(), "TLS handshake with 127.0.0.1: wrong version number");
  client.stop();
}

}  // namespace
}  // namespace tickwire::net

#include "tickwire/engine/ingest/feed_line.hpp"

#include <gtest/gtest.h>

#include <charconv>
#include <chrono>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "net/websocket_test_server.hpp"

namespace tickwire::engine {
namespace {

using net::test::Connection;

/// The numbers of a message: "D 3 4" is a diff that follows id 3 and ends at 4, "T 7" a trade; any other
/// text is no event, and "X" cannot be read.
LineEvent read_event(std::string_view text) {
  const auto number = [&](std::size_t at) {
    std::uint64_t value = 0;
    std::from_chars(text.data() + at, text.data() + text.size(), value);
    return value;
  };
  if (text.starts_with("D ")) {
    return {LineEvent::Kind::Diff, 0, number(2), number(text.find(' ', 2) + 1)};
  }
  if (text.starts_with("T ")) return {LineEvent::Kind::Trade, 0, number(2) - 1, number(2)};
  return {text == "X" ? LineEvent::Kind::Damaged : LineEvent::Kind::Control, 0, 0, 0};
}

class Owner final : public FeedLine::Owner {
 public:
  void line_up(std::uint32_t) noexcept override {
    said.emplace_back("up");
    diff_id = trade_id = 0;
  }
  void line_message(std::uint32_t, const net::WebSocketMessage& message) noexcept override {
    const std::string_view text(message.payload.data(), message.payload.size());
    said.emplace_back(text);
    const LineEvent event = read_event(text);
    if (event.kind == LineEvent::Kind::Diff) diff_id = event.last_id;
    if (event.kind == LineEvent::Kind::Trade) trade_id = event.last_id;
  }
  void line_down(std::uint32_t, std::string_view) noexcept override { said.emplace_back("down"); }
  void line_ended(std::uint32_t, std::string_view reason) noexcept override { ended.emplace_back(reason); }
  void line_silent(std::uint32_t) noexcept override { said.emplace_back("silent"); }
  LineEvent line_event(std::span<const char> message) noexcept override {
    return read_event({message.data(), message.size()});
  }
  bool line_has(const LineEvent& event) const noexcept override {
    return event.last_id <= (event.kind == LineEvent::Kind::Diff ? diff_id : trade_id);
  }
  bool line_reaches(const LineEvent& event) const noexcept override {
    return !valid || event.previous_id <= (event.kind == LineEvent::Kind::Diff ? diff_id : trade_id);
  }
  bool line_refused(std::span<const char> message) noexcept override {
    return std::string_view(message.data(), message.size()) == "refused";
  }

  std::vector<std::string> said;
  std::vector<std::string> ended;  // Why connections ended before their subscription stood.
  std::uint64_t diff_id = 0;
  std::uint64_t trade_id = 0;
  bool valid = true;
};

/// A line and the other end of its connections, both served by the test's own thread.
class FeedLineTest : public testing::Test {
 protected:
  explicit FeedLineTest(std::int64_t liveness_timeout_ns = 0) {
    listen_fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(listen_fd_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        ::listen(listen_fd_, 4) != 0 ||
        ::getsockname(listen_fd_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("no port");
    }
    line_ = std::make_unique<FeedLine>(
        owner,
        FeedLine::Config{.conn = 0,
                         .instruments = 1,
                         .diffs = true,
                         .trades = true,
                         .max_age_ns = 0,
                         .liveness_timeout_ns = liveness_timeout_ns},
        net::WebSocketConfig{.url = "ws://127.0.0.1:" + std::to_string(::ntohs(address.sin_port)) + "/ws",
                             .ca_file = "",
                             .on_open = {"subscribe"},
                             .headers = {},
                             .max_frame_bytes = 1U << 16U,
                             .send_buffer_bytes = 1U << 12U,
                             .connect_timeout_ns = 5'000'000'000,
                             .close_timeout_ns = 1'000'000'000,
                             .reconnect_min_ns = 1'000'000,
                             .reconnect_max_ns = 1'000'000,
                             .healthy_after_ns = 0},
        "test", arena_);
    line_->start();
  }
  ~FeedLineTest() override { ::close(listen_fd_); }

  FeedLine& line() { return *line_; }

  /// Turns of the line until it is so; false where that takes too long.
  bool until(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      if (line_->poll(clock_) == 0) line_->check(clock_);
    }
    return true;
  }
  /// The line's next connection, which has asked for its streams.
  Connection& accept() {
    const auto readable = [](int fd) {
      pollfd ready{fd, POLLIN, 0};
      return ::poll(&ready, 1, 0) > 0;
    };
    EXPECT_TRUE(until([&] { return readable(listen_fd_); }));
    const int fd = ::accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC);
    Connection& connection = connections_.emplace_back(fd, nullptr);
    EXPECT_TRUE(until([&] { return readable(fd); }));
    connection.accept_websocket();
    EXPECT_TRUE(until([&] { return readable(fd); }));
    EXPECT_EQ(connection.read_frame().payload, "subscribe");
    return connection;
  }
  static void say(Connection& connection, const std::string& text) {
    connection.send(net::test::server_frame(0x81, text));
  }
  /// Says something that goes through at once, so that all that was said before it has been read.
  void settle(Connection& connection) {
    const std::string mark = "mark " + std::to_string(++marks_);
    say(connection, mark);
    EXPECT_TRUE(until([&] { return !owner.said.empty() && owner.said.back() == mark; }));
    owner.said.pop_back();
  }
  std::vector<std::string> said() {
    std::vector<std::string> all;
    all.swap(owner.said);
    return all;
  }

  using Said = std::vector<std::string>;
  Owner owner;

 private:
  Arena arena_{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  UtcClock clock_;
  int listen_fd_ = -1;
  int marks_ = 0;
  std::deque<Connection> connections_;
  std::unique_ptr<FeedLine> line_;
};

TEST_F(FeedLineTest, IsUpWithTheFirstMessageAndDownWithTheConnection) {
  Connection& first = accept();
  EXPECT_FALSE(line().up());
  say(first, "refused");
  settle(first);
  // The mark is the first message that says that the subscription stands.
  EXPECT_EQ(said(), (Said{"refused", "up"}));
  EXPECT_TRUE(line().up());
  first.reset();
  ASSERT_TRUE(until([&] { return !line().up(); }));
  EXPECT_EQ(said(), Said{"down"});
  Connection& second = accept();
  say(second, "D 0 1");
  settle(second);
  EXPECT_EQ(said(), (Said{"up", "D 0 1"}));
  EXPECT_EQ(line().handovers(), 0U);
}

TEST_F(FeedLineTest, SaysWhyAConnectionEndedBeforeItsSubscriptionStood) {
  accept().send(net::test::server_close(1008, "Too many requests"));
  ASSERT_TRUE(until([&] { return !owner.ended.empty(); }));
  accept().send(net::test::server_close(1013, ""));
  ASSERT_TRUE(until([&] { return owner.ended.size() == 2; }));
  accept().reset();
  ASSERT_TRUE(until([&] { return owner.ended.size() == 3; }));
  EXPECT_EQ(owner.ended[0], "Too many requests (code 1008)");
  EXPECT_EQ(owner.ended[1], "closed with code 1013, without a reason");
  EXPECT_NE(owner.ended[2].find("Connection reset by peer"), std::string::npos) << owner.ended[2];
  EXPECT_FALSE(line().up());
  EXPECT_TRUE(said().empty());
}

TEST_F(FeedLineTest, AReplacementWaitsUntilTheOldConnectionHasComeToItsFirst) {
  Connection& old = accept();
  for (const char* text : {"D 0 2", "T 9"}) say(old, text);
  settle(old);
  EXPECT_EQ(said(), (Said{"up", "D 0 2", "T 9"}));
  line().replace();
  Connection& fresh = accept();
  for (const char* text : {"D 3 4", "T 11", "D 4 6"}) say(fresh, text);
  settle(fresh);
  say(old, "T 10");
  settle(old);
  EXPECT_EQ(said(), Said{"T 10"});
  EXPECT_EQ(line().handovers(), 0U);
  say(old, "D 2 3");
  ASSERT_TRUE(until([&] { return line().handovers() == 1; }));
  // What waited, in its order.
  EXPECT_EQ(said(), (Said{"D 2 3", "D 3 4", "T 11", "D 4 6"}));
  say(fresh, "D 6 7");
  settle(fresh);
  EXPECT_EQ(said(), Said{"D 6 7"});
  EXPECT_EQ(old.read_frame().opcode, 8U);  // A close.
}

TEST_F(FeedLineTest, LeavesOutWhatTheOldConnectionHadBrought) {
  Connection& old = accept();
  for (const char* text : {"D 0 2", "T 9", "D 2 3", "D 3 5"}) say(old, text);
  settle(old);
  (void)said();
  line().replace();
  Connection& fresh = accept();
  // Behind the old one.
  for (const char* text : {"D 0 2", "T 9", "D 2 3"}) say(fresh, text);
  ASSERT_TRUE(until([&] { return line().handovers() == 1; }));
  for (const char* text : {"D 3 5", "D 5 6", "T 10"}) say(fresh, text);
  settle(fresh);
  EXPECT_EQ(said(), (Said{"D 5 6", "T 10"}));
}

TEST_F(FeedLineTest, ABookThatIsNotValidIsNoReasonToWait) {
  Connection& old = accept();
  say(old, "D 0 2");
  settle(old);
  (void)said();
  owner.valid = false;
  line().replace();
  Connection& fresh = accept();
  for (const char* text : {"D 7 8", "T 20"}) say(fresh, text);
  ASSERT_TRUE(until([&] { return line().handovers() == 1; }));
  EXPECT_EQ(said(), (Said{"D 7 8", "T 20"}));
}

TEST_F(FeedLineTest, AnOldConnectionThatIsLostBeforeTheTradesAreProvenIsALoss) {
  Connection& old = accept();
  for (const char* text : {"D 0 2", "T 9"}) say(old, text);
  settle(old);
  (void)said();
  line().replace();
  Connection& fresh = accept();
  // Trade 10 is missing.
  for (const char* text : {"D 3 4", "T 11"}) say(fresh, text);
  settle(fresh);
  old.reset();
  ASSERT_TRUE(until([&] { return owner.said.size() >= 4; }));
  EXPECT_EQ(said(), (Said{"down", "up", "D 3 4", "T 11"}));
  EXPECT_EQ(line().handovers(), 0U);
  EXPECT_TRUE(line().up());
}

TEST_F(FeedLineTest, AnOldConnectionThatIsLostOnceTheTradesAreProvenIsNone) {
  Connection& old = accept();
  for (const char* text : {"D 0 2", "T 9"}) say(old, text);
  settle(old);
  (void)said();
  line().replace();
  Connection& fresh = accept();
  // The ids of diffs show by themselves what is missing.
  for (const char* text : {"D 3 4", "T 10"}) say(fresh, text);
  settle(fresh);
  old.reset();
  ASSERT_TRUE(until([&] { return line().handovers() == 1; }));
  EXPECT_EQ(said(), (Said{"D 3 4", "T 10"}));
}

TEST_F(FeedLineTest, WhatCannotBeReadOfAReplacementStartsItsProofAnew) {
  Connection& old = accept();
  for (const char* text : {"D 0 2", "T 9"}) say(old, text);
  settle(old);
  (void)said();
  line().replace();
  Connection& fresh = accept();
  for (const char* text : {"D 2 3", "X", "D 4 5", "T 10"}) say(fresh, text);
  settle(fresh);
  // It had been proven by its first diff; now the old one must come to 4.
  say(old, "D 2 3");
  settle(old);
  EXPECT_EQ(said(), Said{"D 2 3"});
  EXPECT_EQ(line().handovers(), 0U);
  say(old, "D 3 4");
  ASSERT_TRUE(until([&] { return line().handovers() == 1; }));
  EXPECT_EQ(said(), (Said{"D 3 4", "D 4 5", "T 10"}));
}

class SilentLineTest : public FeedLineTest {
 protected:
  SilentLineTest() : FeedLineTest(30'000'000) {}
};

TEST_F(SilentLineTest, AConnectionThatBringsNoByteIsGivenUp) {
  Connection& first = accept();
  settle(first);
  EXPECT_EQ(said(), Said{"up"});
  // Our pings are not answered: nobody reads them.
  ASSERT_TRUE(until([&] { return !line().up(); }));
  EXPECT_EQ(said(), (Said{"silent", "down"}));
}

}  // namespace
}  // namespace tickwire::engine

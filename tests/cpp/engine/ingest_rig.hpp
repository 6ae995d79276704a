#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <regex>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/configs.hpp"
#include "net/websocket_test_server.hpp"
#include "tickwire/engine/ingest/ingest_agent.hpp"
#include "tickwire/engine/score/work.hpp"

/// An ingest agent without threads: the test calls its turns, writes what it reads, and sees what leaves.
namespace tickwire::engine::test {

inline constexpr TsNs kStart = 1'700'000'000'000'000'000;
inline constexpr TsNs kMs = 1'000'000;

// ---- What a USD-M venue says; prices and quantities are whole numbers ----

/// Levels as JSON, from "100:3 99:2".
inline std::string levels(const std::string& text) {
  std::string out = "[";
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    const std::size_t colon = word.find(':');
    if (out.size() > 1) out += ',';
    out.append("[\"").append(word, 0, colon).append("\",\"").append(word, colon + 1).append("\"]");
  }
  return out + "]";
}
inline std::string diff(const std::string& symbol, std::uint64_t previous, std::uint64_t last,
                        const std::string& bids, const std::string& asks, std::int64_t ms = 0) {
  return R"({"e":"depthUpdate","E":)" + std::to_string(kStart / kMs + ms) + R"(,"s":")" + symbol +
         R"(","U":)" + std::to_string(previous + 1) + R"(,"u":)" + std::to_string(last) + R"(,"pu":)" +
         std::to_string(previous) + R"(,"b":)" + levels(bids) + R"(,"a":)" + levels(asks) + "}";
}
inline std::string in_stream(const std::string& name, const std::string& data) {
  return R"({"stream":")" + name + R"(","data":)" + data + "}";
}
inline std::string trade(const std::string& symbol, std::uint64_t id, int price = 100, int qty = 1,
                         std::int64_t ms = 0) {
  const std::string ts = std::to_string(kStart / kMs + ms);
  return R"({"e":"trade","E":)" + ts + R"(,"T":)" + ts + R"(,"s":")" + symbol + R"(","t":)" +
         std::to_string(id) + R"(,"p":")" + std::to_string(price) + R"(","q":")" + std::to_string(qty) +
         R"(","X":"MARKET","m":true})";
}
inline std::string quote(const std::string& symbol, std::uint64_t id) {
  return R"({"e":"bookTicker","u":)" + std::to_string(id) + R"(,"s":")" + symbol +
         R"(","b":"100","B":"3","a":"101","A":"1","T":1,"E":1})";
}
inline std::string snapshot_body(std::uint64_t last, const std::string& bids, const std::string& asks) {
  return R"({"lastUpdateId":)" + std::to_string(last) + R"(,"E":1,"T":1,"bids":)" + levels(bids) +
         R"(,"asks":)" + levels(asks) + "}";
}

/// A capture: the time of a line is given in milliseconds behind kStart.
class Capture {
 public:
  Capture& line(std::int64_t ms, const std::string& text) {
    text_ += std::to_string(kStart + ms * kMs) + " " + text + "\n";
    return *this;
  }
  Capture& open(std::int64_t ms, int conn = 0) {
    return line(ms, R"({"tickwire":"open","conn":)" + std::to_string(conn) + "}");
  }
  Capture& close(std::int64_t ms, int conn = 0) {
    return line(ms, R"({"tickwire":"close","conn":)" + std::to_string(conn) + "}");
  }
  Capture& note(std::int64_t ms, const std::string& kind, const std::string& symbol) {
    return line(ms, R"({"tickwire":")" + kind + R"(","conn":0,"instrument":")" + symbol + R"("})");
  }
  Capture& snapshot(std::int64_t ms, const std::string& symbol, const std::string& body, int limit = 1000) {
    return line(ms, R"({"tickwire":"snapshot","conn":0,"instrument":")" + symbol + R"(","limit":)" +
                        std::to_string(limit) + R"(,"body":)" + body + "}");
  }
  /// Opens, and makes the book of `symbol` valid at id 10: bids 100:3, asks 101:1.
  Capture& begin(std::int64_t ms, const std::string& symbol = "AAA") {
    return line(ms, diff(symbol, 9, 10, "", ""))
        .snapshot(ms, symbol, snapshot_body(10, "100:3 99:5", "101:1 102:5"));
  }
  [[nodiscard]] const std::string& text() const { return text_; }
  void write(const std::string& path) const { std::ofstream(path) << text_; }

 private:
  std::string text_;
};

// ---- The agent ----

/// What left, a text each. "@20 AAA 1/2 #12 +0.50" is row 2 of epoch 1 by event 12, received 20 ms after
/// kStart, with its value; "@30 AAA 1 gap suspect" the end of epoch 1. Live there are no times.
using Log = std::vector<std::string>;

class IngestRig {
 public:
  /// A ring out of the agent.
  struct Out {
    Out(std::size_t slot_bytes, std::size_t slots, std::size_t instruments, Arena& arena)
        : queue(arena, slot_bytes, slots), port(queue, waker, instruments, arena) {}
    concurrent::Waker waker;
    concurrent::SpscQueue queue;
    signal::SignalPort port;
  };

  explicit IngestRig(EngineConfig config, std::size_t slots = 4096)
      : config_(std::move(config)), layout_{0, config_.features.plan.outputs.size()} {
    for (const FeedConfig& feed : config_.feeds) {
      for (const InstrumentConfig& instrument : feed.instruments) symbols_.push_back(instrument.symbol);
    }
    if (!config_.record_dir.empty()) {
      recorder_ = std::make_unique<Recorder>(
          Recorder::Setup{.run_dir = config_.record_dir, .symbols = symbols_, .sync = nullptr, .sync_ns = 0},
          *stats_);
    }
    agent_ = std::make_unique<IngestAgent>(IngestAgent::Setup{.name = "ingest0",
                                                              .replay = config_.replay,
                                                              .config = config_,
                                                              .first_feed = 0,
                                                              .feeds = config_.feeds,
                                                              .first_instrument = 0,
                                                              .layout = layout_,
                                                              .recorder = recorder_.get(),
                                                              .control = control_,
                                                              .heartbeat = stats_.get()},
                                           *stats_, arena_);
    router_ = std::make_unique<Out>(layout_.record_bytes(), slots, symbols_.size(), arena_);
  }
  ~IngestRig() { stats_->remove(); }
  IngestRig(const IngestRig&) = delete;
  IngestRig& operator=(const IngestRig&) = delete;

  IngestAgent& agent() { return *agent_; }
  Out& router() { return *router_; }
  Arena& arena() { return arena_; }
  metrics::StatFile& stats() { return *stats_; }
  const signal::RecordLayout& layout() const { return layout_; }

  /// Rows leave to the router as they are.
  IngestRig& start() {
    agent_->outlet().send_rows_to(router_->port);
    return start_as_set_up();
  }
  IngestRig& start_as_set_up() {
    stats_->publish();
    agent_->on_start();
    return *this;
  }

  /// Replay: all of it. What has no room waits, as the agent does.
  Log replay() {
    start();
    while (!agent_->finished()) {
      const int done = agent_->do_work();
      const std::size_t before = log_.size();
      drain();
      if (done == 0 && log_.size() == before && !agent_->finished()) {
        ADD_FAILURE() << "the replay stands still";
        break;
      }
    }
    drain();
    finish_recording();
    return take();
  }

  void drain() {
    for (concurrent::SpscQueue& queue = router_->queue; queue.readable() != 0; queue.release(1)) {
      log_.push_back(text_of(queue.slot(0)));
    }
  }
  Log take() {
    drain();
    return std::exchange(log_, {});
  }
  std::string text_of(std::byte* record) const {
    const signal::RecordView view(record, layout_);
    const signal::SignalHeader& header = view.header();
    std::string text;
    if (config_.replay) text = "@" + std::to_string((header.ts_recv - kStart) / kMs) + " ";
    text += symbols_[header.instrument] + " " + std::to_string(header.epoch);
    const auto state = std::string(signal::kSignalStateNames[static_cast<std::size_t>(header.state)]);
    if (header.row == 0) return text + " " + std::string(name_of(header.reason)) + " " + state;
    text += "/" + std::to_string(header.row) + " #" + std::to_string(header.sequence);
    char value[32];
    std::snprintf(value, sizeof value, " %+.2f", static_cast<double>(view.features()[0]));
    text += value;
    if (header.state != signal::SignalState::Valid) text += " " + state;
    if (header.missing_trades != 0) text += " lacks " + std::to_string(header.missing_trades);
    return text;
  }

  [[nodiscard]] std::int64_t counter(std::string_view scope, std::string_view name) const {
    for (const auto& reading : metrics::StatReader(stats_->path()).counters()) {
      if (reading.scope == scope && reading.name == name) return reading.value;
    }
    ADD_FAILURE() << "no counter " << scope << " " << name;
    return -1;
  }
  /// The error log's texts of a kind: of the first and, where there were several, of the newest.
  /// A file stands in it without its folder, whose name differs from run to run.
  [[nodiscard]] std::string error(ErrorKind kind) const {
    const std::regex folder(R"( \([^()]*/(\w+\.\w+:\d+)\))");
    for (const auto& log : metrics::StatReader(stats_->path()).error_logs()) {
      if (log.scope != "ingest0") continue;
      for (const metrics::ErrorEntry& entry : log.entries) {
        if (entry.kind != static_cast<std::uint32_t>(kind)) continue;
        const std::string all = entry.count == 1 ? entry.text : entry.text + " | " + entry.newest;
        return std::regex_replace(all, folder, " ($1)");
      }
    }
    return "";
  }

  [[nodiscard]] std::uint64_t errors(ErrorKind kind) const {
    std::uint64_t count = 0;
    for (const auto& log : metrics::StatReader(stats_->path()).error_logs()) {
      for (const metrics::ErrorEntry& entry : log.entries) {
        if (entry.kind == static_cast<std::uint32_t>(kind)) count += entry.count;
      }
    }
    return count;
  }

  // ---- Live ----

  /// Turns of the agent until it is so; false where that takes too long.
  bool until(const std::function<bool()>& condition, int seconds = 20) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    auto tick = std::chrono::steady_clock::now();
    for (;;) {
      const int done = agent_->do_work();
      if (recorder_) recorder_->do_work();
      drain();
      if (condition()) return true;
      const auto now = std::chrono::steady_clock::now();
      if (now > end) return false;
      if (now - tick >= std::chrono::milliseconds(5)) {
        agent_->every_100ms();
        tick = now;
      }
      if (done == 0) agent_->park(1'000'000);
    }
  }
  bool until_records(std::size_t count) {
    return until([&] { return log_.size() >= count; });
  }
  bool until_counted(std::string_view scope, std::string_view name, std::int64_t value) {
    return until([&] {
      agent_->every_100ms();
      return counter(scope, name) >= value;
    });
  }
  /// The next snapshot that is asked for; of no instrument where none is in time.
  SnapshotRequest request() {
    SnapshotRequest request{0, kNoInstrument, 0};
    concurrent::SpscQueue& queue = agent_->desk()->requests();
    if (!until([&] { return queue.readable() != 0; })) return request;
    std::memcpy(&request, queue.slot(0), sizeof request);
    queue.release(1);
    return request;
  }
  void answer(InstrumentId instrument, const std::string& body) {
    ASSERT_TRUE(agent_->desk()->deliver({Command::Kind::Snapshot, instrument}, body));
  }
  void fail(InstrumentId instrument, const std::string& why, std::int64_t pause_ns = 0) {
    ASSERT_TRUE(agent_->desk()->deliver({Command::Kind::SnapshotFailed, instrument, pause_ns}, why));
  }
  void stop() {
    agent_->on_close();
    drain();
    finish_recording();
  }
  void finish_recording() {
    if (recorder_) recorder_->finish();
  }

 private:
  const EngineConfig config_;
  const signal::RecordLayout layout_;
  std::vector<std::string> symbols_;
  Arena arena_{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  std::unique_ptr<metrics::StatFile> stats_ =
      metrics::StatFile::create("", {.counters = 640, .histograms = 64, .error_logs = 8});
  concurrent::Waker control_;
  std::unique_ptr<Recorder> recorder_;
  std::unique_ptr<IngestAgent> agent_;
  std::unique_ptr<Out> router_;
  Log log_;
};

/// The other end of a live feed's connections, served by the test's own thread between the agent's turns.
class Venue {
 public:
  Venue() {
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
    port_ = ::ntohs(address.sin_port);
  }
  ~Venue() { ::close(listen_fd_); }
  Venue(const Venue&) = delete;
  Venue& operator=(const Venue&) = delete;

  [[nodiscard]] std::string url() const { return "ws://127.0.0.1:" + std::to_string(port_) + "/ws"; }

  /// The agent's next connection, whose request for an upgrade has come.
  net::test::Connection& accept_raw(IngestRig& rig) {
    EXPECT_TRUE(rig.until([&] { return readable(listen_fd_); }));
    fd_ = ::accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC);
    EXPECT_TRUE(rig.until([&] { return readable(fd_); }));
    return connections_.emplace_back(fd_, nullptr);
  }
  /// The same, upgraded; `subscription` is what it asked for.
  net::test::Connection& accept(IngestRig& rig) {
    net::test::Connection& connection = accept_raw(rig);
    connection.accept_websocket();
    EXPECT_TRUE(rig.until([&] { return readable(fd_); }));
    subscription = connection.read_frame().payload;
    return connection;
  }
  static void say(net::test::Connection& connection, const std::string& text) {
    connection.send(net::test::server_frame(0x81, text));
  }

  std::string subscription;

 private:
  static bool readable(int fd) {
    pollfd ready{fd, POLLIN, 0};
    return ::poll(&ready, 1, 0) > 0;
  }

  int listen_fd_ = -1;
  int fd_ = -1;  // Of the newest connection, which owns it.
  int port_ = 0;
  std::deque<net::test::Connection> connections_;
};

/// A folder for one test.
class Folder {
 public:
  Folder()
      : path_(std::filesystem::temp_directory_path() /
              ("tickwire-ingest-test-" + std::to_string(::getpid()) + "-" +
               ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace tickwire::engine::test

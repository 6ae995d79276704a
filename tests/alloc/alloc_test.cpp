#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "counting.hpp"
#include "infer/model_files.hpp"
#include "market.hpp"
#include "net/mold_venue.hpp"
#include "net/websocket_test_server.hpp"
#include "tickwire/engine/engine.hpp"
#include "venue/itch_bytes.hpp"

/// After start our code allocates nothing: counted over a whole replay and over a live connection, in
/// each layout, together with the rows that came out, because zero allocations over zero work would
/// prove nothing.
namespace tickwire::alloc_test {
namespace {

using bench::SyntheticBook;

constexpr TsNs kStart = 1'700'000'000'000'000'000;
constexpr TsNs kStepNs = 1'000'000;
constexpr std::size_t kEvents = 4000;
constexpr std::size_t kGapAt = 2000;  // The message that the replay's capture lacks.
constexpr std::int64_t kOfiNs = 200 * kStepNs;
constexpr std::int64_t kZscoreNs = 300 * kStepNs;
// In messages a millisecond apart: the outer window begins when the inner one has passed.
constexpr std::size_t kWarmUp = (kOfiNs + kZscoreNs) / kStepNs;
constexpr int kDeadlineS = 60;

features::FeaturePlan plan() {
  return {.nodes = {{features::find_kernel("imbalance"), -1, 5, 0, 0, 0, 0},
                    {features::find_kernel("spread"), -1, 0, 0, 0, 0, 0},
                    {features::find_kernel("ofi"), -1, 5, kOfiNs, 0, 0, 0},
                    {features::find_kernel("zscore"), 2, 0, kZscoreNs, 0, 0, 0}},
          .outputs = {0, 1, 2, 3}};
}

class AllocTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              ("tickwire-alloc-test-" + std::to_string(::getpid()) + "-" + std::to_string(++folders_));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  engine::EngineConfig config(engine::Layout layout, bool replay, const std::string& url) const {
    return {.layout = layout,
            .idle = concurrent::IdleKind::Backoff,
            .huge_pages = HugePages::Off,
            .lock = LockMemory::Off,
            // Small for a replay, so that almost all of it runs after start(); a live ring never fills.
            .output_slots = replay ? 64U : 16384U,
            .stat_path = (folder_ / "engine.stat").string(),
            .replay = replay,
            .record_dir = "",
            .record_sync_ns = 0,
            .feeds = {{.name = "spot",
                       .market = venue::binance::Market::Spot,
                       .itch = {},
                       .trades = venue::binance::TradeStream::Trade,
                       .url = url,
                       .subscribe = {"btcusdt@depth@100ms"},
                       .trades_url = "",
                       .subscribe_trades = {},
                       .inputs = {replay ? (folder_ / "capture.log").string() : ""},
                       .warm = {},
                       .instruments = {{"BTCUSDT", 8, 8}},
                       .core = -1,
                       .snapshot_retries = 3,
                       .snapshot_backoff_ns = kStepNs,
                       .snapshot_limit = 1000,
                       .max_levels = 1024,
                       .max_frame_bytes = 1U << 20U,
                       .buffer_events = 4096,
                       .ca_file = ca_file_,
                       .reconnect_min_ns = kStepNs,
                       .reconnect_max_ns = kStepNs,
                       .max_connection_age_ns = 0,
                       .liveness_timeout_ns = 0,
                       .stale_after_ns = 0}},
            .features = {.trigger = engine::Trigger::Book,
                         .every_ns = 0,
                         .clock = engine::WindowClock::Recv,
                         .window_rows = 1,
                         .max_event_rate = 2000,
                         .trade_gaps = engine::TradeGaps::Count,
                         .accept_beyond_depth = false,
                         .max_age_ns = 0,
                         .plan = plan()},
            .models = {},
            .worker_program = ""};
  }

  /// False where the model cannot run here.
  static bool add_model(engine::EngineConfig& config) {
    const std::string library = infer::testing::ort_library();
    if (library.empty()) return false;
    config.models = {{.name = "m",
                      .members = {{infer::testing::model_file("good_free_batch"), 1.0}},
                      .id = 1,
                      .ort_library = library,
                      .cache_dir = "",
                      .provider = "cpu",
                      .workers = 1,
                      .cores = {},
                      .assign = engine::Assign::Instrument,
                      .max_batch = 1,
                      .max_age_ns = 0,
                      .queue_slots = config.replay ? 16U : 4096U,
                      .policy = engine::QueuePolicy::Every,
                      .queue_limit = 8,
                      .shadow = false,
                      .start_timeout_ns = 0}};
    return true;
  }

  /// A capture of one instrument with all that a replay meets: a gap and its snapshot, trades, messages of
  /// others and what is no message. Returns the rows that must come out.
  std::size_t write_capture() const {
    SyntheticBook book({.market = bench::Market::Spot, .symbol = "BTCUSDT", .levels = 20, .seed = 7});
    std::string text = std::to_string(kStart) + R"( {"tickwire":"open","conn":0})" + "\n";
    const auto snapshot = [&](const std::string& ts) {
      text.append(ts).append(R"( {"tickwire":"snapshot","conn":0,"instrument":"BTCUSDT","body":)");
      book.snapshot(text, 1'700'000'000'000);
      text.append("}\n");
    };
    for (std::size_t i = 0; i < kEvents; ++i) {
      const std::string ts = std::to_string(kStart + static_cast<TsNs>(i) * kStepNs);
      std::string message;
      book.next(message, 1'700'000'000'000 + static_cast<std::int64_t>(i));
      if (i != kGapAt) text.append(ts).append(" ").append(message).append("\n");
      if (i == 0 || i == kGapAt + 1) snapshot(ts);
      if (i % 4 == 0) {
        text.append(ts).append(
            R"( {"stream":"btcusdt@trade","data":{"e":"trade","E":1700000000000,"s":"BTCUSDT","t":)");
        text.append(std::to_string(i + 1));
        text.append(R"(,"p":"61837.63000000","q":"0.01200000","T":1700000000000,"m":true,"M":true}})")
            .append("\n");
      }
      if (i % 1000 == 999) {
        text.append(ts).append(R"( {"result":null,"id":1})").append("\n");
        text.append(ts).append(
            R"( {"stream":"x","data":{"e":"depthUpdate","s":"OTHERUSDT","U":1,"u":2,"b":[],"a":[]}})");
        text.append("\n").append(ts).append(" [1,2\n");
      }
    }
    std::ofstream(folder_ / "capture.log") << text;
    // A snapshot is at the id of the message before it, so an epoch's first row could be that of the next
    // message; it comes when both windows have passed since then.
    const std::size_t first_epoch = kGapAt - 1 - kWarmUp;
    const std::size_t second_epoch = kEvents - (kGapAt + 2) - kWarmUp;
    return first_epoch + second_epoch;
  }

  struct Result {
    std::size_t rows = 0;
    std::size_t scored = 0;
    std::size_t notices = 0;
    Counts counts;
  };

  /// Runs until the replay is finished or `wanted_rows` have come.
  Result run(const engine::EngineConfig& config, std::size_t wanted_rows, const std::string& snapshot) {
    engine::Engine engine(config);
    engine.start();
    started_ = true;
    started_.notify_all();
    std::vector<pid_t> threads;
    for (const auto& [name, tid] : engine.threads()) threads.push_back(tid);
    // A replay has read its first messages in start(); the rest is counted. A connection is made by the
    // resolver and OpenSSL's first use, which allocate: what is counted is its life, from its first row on.
    if (config.replay) start_counting(threads);
    bool counted = config.replay;
    Result result;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(kDeadlineS);
    for (;;) {
      const bool finished = config.replay ? engine.finished() : result.rows >= wanted_rows;
      const engine::RecordBatch batch = engine.poll();
      for (std::size_t i = 0; i < batch.count; ++i) {
        signal::SignalHeader header;
        std::memcpy(&header, batch.records + i * batch.stride, sizeof header);
        if (header.row == 0) {
          ++result.notices;
        } else {
          ++result.rows;
          result.scored += header.scored;
        }
      }
      engine.release();
      while (const auto request = engine.poll_request()) {
        EXPECT_TRUE(engine.deliver_snapshot(request->feed, request->instrument, snapshot));
      }
      if (!counted && result.rows != 0) {
        start_counting(threads);
        counted = true;
      }
      if (batch.count != 0) continue;
      if (finished) break;
      if (std::chrono::steady_clock::now() > deadline) {
        ADD_FAILURE() << "not finished within " << kDeadlineS << " s";
        break;
      }
      std::this_thread::yield();
    }
    result.counts = stop_counting();
    EXPECT_FALSE(engine.failed().has_value()) << engine.failed().value_or("");
    engine.stop();
    std::printf("rows %zu, scored %zu; allocations: ours %llu, ONNX Runtime %llu, OpenSSL %llu\n",
                result.rows, result.scored, static_cast<unsigned long long>(result.counts.ours),
                static_cast<unsigned long long>(result.counts.onnx_runtime),
                static_cast<unsigned long long>(result.counts.openssl));
    return result;
  }

  void replay(engine::Layout layout, bool with_model) {
    engine::EngineConfig settings = config(layout, true, "");
    if (with_model && !add_model(settings)) GTEST_SKIP() << "no ONNX Runtime: run make setup";
    const std::size_t rows = write_capture();
    const Result result = run(settings, 0, "");
    EXPECT_EQ(result.rows, rows);
    EXPECT_EQ(result.scored, with_model ? rows : 0);
    EXPECT_EQ(result.notices, 1U) << "the gap";
    EXPECT_EQ(result.counts.ours, 0U) << first_callers();
    // The runtime allocates within its run, so the model has run where it was counted.
    EXPECT_EQ(result.counts.onnx_runtime != 0, with_model);
  }

  void live(engine::Layout layout, SSL_CTX* tls) {
    SyntheticBook book({.market = bench::Market::Spot, .symbol = "BTCUSDT", .levels = 20, .seed = 7});
    std::vector<std::string> frames;
    std::string snapshot;
    for (std::size_t i = 0; i < kEvents; ++i) {
      std::string message;
      book.next(message, 1'700'000'000'000);
      if (i == 0) book.snapshot(snapshot, 1'700'000'000'000);
      frames.push_back(net::test::server_frame(0x81, message));
    }
    net::test::TestServer server(
        {[&frames](net::test::Connection& client) {
          client.accept_websocket();
          client.read_frame();  // The subscription.
          for (const std::string& frame : frames) {
            client.send(frame);
            std::this_thread::sleep_for(std::chrono::microseconds(100));  // Slow enough for both to go idle.
          }
          client.read_frame();  // Its close.
        }},
        tls);
    engine::EngineConfig settings = config(layout, false, server.url());
    // Windows in messages: the receive times are this machine's.
    settings.features.plan.nodes[2].window_ns = settings.features.plan.nodes[3].window_ns = 0;
    settings.features.plan.nodes[2].window_count = settings.features.plan.nodes[3].window_count = 100;
    const bool with_model = add_model(settings);
    // Buffered messages give no row: how many there are depends on how soon the snapshot came.
    const std::size_t rows = kEvents / 2;
    const Result result = run(settings, rows, snapshot);
    server.stop();
    EXPECT_GE(result.rows, rows);
    EXPECT_EQ(result.scored, with_model ? result.rows : 0);
    EXPECT_EQ(result.notices, 0U);
    EXPECT_EQ(result.counts.ours, 0U) << first_callers();
  }

  /// Multicast: two lines, of which one loses now and then, so that gaps are kept and filled.
  void live_multicast(engine::Layout layout) {
    namespace bytes = venue::itch::bytes;
    std::vector<std::string> messages{bytes::directory(1, 1, "AAPL"),
                                      bytes::trading_action(1, 2, "AAPL", 'T')};
    for (std::uint32_t i = 1; i <= kEvents; ++i) {
      const bool bid = i % 2 == 0;
      messages.push_back(
          bytes::add(1, i, i, bid ? 'B' : 'S', 1 + i % 300, "AAPL", bid ? 1'000 - i % 20 : 1'001 + i % 20));
      if (i > 200) messages.push_back(bytes::remove(1, i, i - 200));
    }
    const net::test::MoldVenue venue;
    engine::EngineConfig settings = config(layout, false, "");
    settings.features.plan.nodes[2].window_ns = settings.features.plan.nodes[3].window_ns = 0;
    settings.features.plan.nodes[2].window_count = settings.features.plan.nodes[3].window_count = 100;
    engine::FeedConfig& feed = settings.feeds[0];
    feed.itch =
        engine::ItchConfig{.max_orders = 1000, .midnights = {}, .multicast = net::test::mold_config(venue)};
    feed.instruments = {{"AAPL", 4, 0}};
    feed.liveness_timeout_ns = 60'000 * kStepNs;
    settings.record_dir = folder_ / "run";
    const bool with_model = add_model(settings);
    const int port = feed.itch->multicast->lines[0].port;
    std::vector<std::string> by_number{""};
    by_number.insert(by_number.end(), messages.begin(), messages.end());
    std::thread sender([&] {
      started_.wait(false);  // Who joins later does not hear the first message.
      for (std::size_t i = 0; i < messages.size(); ++i) {
        venue.answer(by_number, 8);  // Whether the session is ours is asked first.
        const std::string datagram = net::test::mold_datagram("TICK000001", i + 1, {messages[i]});
        if (i % 50 != 49) venue.send(0, port, datagram);
        std::this_thread::sleep_for(std::chrono::microseconds(50));
        venue.send(1, port, datagram);
      }
    });
    const std::size_t rows = kEvents / 2;
    const Result result = run(settings, rows, "");
    sender.join();
    EXPECT_GE(result.rows, rows);
    EXPECT_EQ(result.scored, with_model ? result.rows : 0);
    EXPECT_EQ(result.notices, 0U);
    EXPECT_EQ(result.counts.ours, 0U) << first_callers();
  }

  std::filesystem::path folder_;
  std::string ca_file_;
  std::atomic<bool> started_{false};
  static inline int folders_ = 0;
};

TEST_F(AllocTest, TheCounterSeesWhatAThreadAllocates) {
  std::atomic<pid_t> tid{0};
  std::atomic<bool> go{false};
  std::atomic<bool> done{false};
  std::thread thread([&] {
    tid = ::gettid();
    while (!go) std::this_thread::yield();
    // Through volatile pointers: a compiler may leave out what nobody looks at.
    int* volatile one = new int(1);
    void* volatile two = std::malloc(10);
    void* volatile three = std::calloc(2, 10);
    three = std::realloc(three, 1000);
    char* volatile four = new char[100];
    delete one;
    std::free(two);
    std::free(three);
    delete[] four;
    done = true;
  });
  while (tid == 0) std::this_thread::yield();
  start_counting({tid});
  go = true;
  while (!done) std::this_thread::yield();
  const Counts counts = stop_counting();
  thread.join();
  EXPECT_EQ(counts.ours, 5U);
  EXPECT_EQ(counts.onnx_runtime, 0U);
  EXPECT_EQ(counts.openssl, 0U);
  EXPECT_FALSE(first_callers().empty());
}

TEST_F(AllocTest, ReplayInlineWithoutAModel) { replay(engine::Layout::Inline, false); }
TEST_F(AllocTest, ReplayInThreadsWithoutAModel) { replay(engine::Layout::Threads, false); }
TEST_F(AllocTest, ReplayInlineWithAModel) { replay(engine::Layout::Inline, true); }
TEST_F(AllocTest, ReplayInThreadsWithAModel) { replay(engine::Layout::Threads, true); }
TEST_F(AllocTest, LiveInline) { live(engine::Layout::Inline, nullptr); }
TEST_F(AllocTest, LiveInThreads) { live(engine::Layout::Threads, nullptr); }
TEST_F(AllocTest, LiveMulticastInline) { live_multicast(engine::Layout::Inline); }
TEST_F(AllocTest, LiveMulticastInThreads) { live_multicast(engine::Layout::Threads); }
TEST_F(AllocTest, LiveOverTls) {
  net::test::TestAuthority authority("IP:127.0.0.1", folder_.string());
  ca_file_ = authority.ca_file();
  live(engine::Layout::Inline, authority.context());
}

}  // namespace
}  // namespace tickwire::alloc_test

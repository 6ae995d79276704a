#include "tickwire/engine/ingest/order_feed.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "net/mold_packets.hpp"
#include "net/mold_venue.hpp"
#include "tickwire/engine/engine.hpp"
#include "tickwire/md/pcap.hpp"
#include "tickwire/md/stream_note.hpp"
#include "tickwire/metrics/stat_file.hpp"
#include "venue/itch_bytes.hpp"

namespace tickwire::engine {
namespace {

namespace bytes = venue::itch::bytes;
using net::test::mold_datagram;
using Note = md::StreamNote::Kind;

constexpr TsNs kSecond = 1'000'000'000;
constexpr TsNs kMidnight = 1'580'360'400 * kSecond;
const std::string kSession = "TICK000001";

/// What left, one text each: "AAPL 1/2 #7 +0.50" is row 2 of epoch 1 by message 7, "AAPL 1 gap at 30" the end
/// of epoch 1.
using Log = std::vector<std::string>;

class OrderFeedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              ("tickwire-order-feed-test-" + std::to_string(::getpid()) + "-" +
               ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(folder_);
    md::format_pcap_header(capture_);
    note(0, {Note::Stream});
    note(1, {Note::Session});
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void note(TsNs ts, const md::StreamNote& note) {
    std::array<char, md::kMaxStreamNote> text;
    write(ts, 0, std::string(md::format_stream_note(text, note)));
  }
  void messages(TsNs ts, std::uint64_t first, const std::vector<std::string>& all) {
    write(ts, 1, mold_datagram(kSession, first, all));
  }
  void write(TsNs ts, std::uint16_t port, const std::string& payload) {
    md::PcapDatagram out{.ts = ts, .source = {}, .destination = {}, .payload = payload};
    ASSERT_TRUE(md::parse_pcap_endpoint("0.0.0.0", port, out.source));
    ASSERT_TRUE(md::parse_pcap_endpoint("0.0.0.0", port, out.destination));
    md::format_pcap_datagram(capture_, out);
  }

  EngineConfig config(bool replay, const std::string& file) const {
    FeedConfig feed{};
    feed.name = "nasdaq";
    feed.itch = ItchConfig{.max_orders = 10'000, .midnights = {kMidnight}, .multicast = std::nullopt};
    if (replay) feed.inputs = {file};
    feed.instruments = {{"AAPL", 4, 0}, {"MSFT", 4, 0}};
    feed.core = -1;
    features::FeaturePlan plan;
    plan.nodes = {node_};
    plan.outputs = {0};
    return {.layout = Layout::Inline,
            .idle = concurrent::IdleKind::Backoff,
            .huge_pages = HugePages::Off,
            .lock = LockMemory::Off,
            .output_slots = replay ? 64U : 65536U,
            .stat_path = (folder_ / (replay ? "replay.stat" : "live.stat")).string(),
            .replay = replay,
            .record_dir = "",
            .record_sync_ns = 0,
            .feeds = {feed},
            .features = {.trigger = Trigger::Book,
                         .every_ns = 0,
                         .clock = clock_,
                         .window_rows = 1,
                         .max_event_rate = 1000,
                         .trade_gaps = TradeGaps::Count,
                         .accept_beyond_depth = false,
                         .max_age_ns = 0,
                         .plan = plan},
            .models = {},
            .worker_program = ""};
  }

  /// Takes what is there; false where nothing was.
  static bool drain(Engine& engine, Log& log) {
    const RecordBatch batch = engine.poll();
    for (std::size_t i = 0; i < batch.count; ++i) {
      // The slot holds until release(), and is not written to.
      const signal::RecordView view(const_cast<std::byte*>(batch.records + i * batch.stride),
                                    engine.layout());
      const signal::SignalHeader& header = view.header();
      std::string text = (header.instrument == 0 ? "AAPL " : "MSFT ") + std::to_string(header.epoch);
      if (header.row == 0) {
        if (header.reason == md::InvalidReason::Stopped) continue;
        text += ' ' + std::string(name_of(header.reason)) + " at " + std::to_string(header.ts_recv);
      } else {
        // A side that is empty has no imbalance.
        char value[32] = " nan";
        if (header.state != signal::SignalState::NonFinite) {
          EXPECT_EQ(header.state, signal::SignalState::Valid);
          std::snprintf(value, sizeof value, " %+.2f", static_cast<double>(view.features()[0]));
        }
        text += '/' + std::to_string(header.row) + " #" + std::to_string(header.sequence) + value;
      }
      log.push_back(text);
    }
    engine.release();
    return batch.count != 0;
  }

  static Log replay(const EngineConfig& config) {
    Engine engine(config);
    engine.start();
    Log log;
    for (bool finished = false; !finished || drain(engine, log);) {
      finished = engine.finished();
      if (!drain(engine, log)) std::this_thread::yield();
    }
    engine.stop();
    return log;
  }

  Log replay_capture() {
    const std::string file = folder_ / "000001.pcap";
    std::ofstream(file, std::ios::binary) << capture_;
    return replay(config(true, file));
  }

  std::vector<std::string> opening() const {
    return {bytes::directory(1, 1, "AAPL"), bytes::trading_action(1, 2, "AAPL", 'T')};
  }

  std::filesystem::path folder_;
  std::string capture_;
  features::NodeSpec node_{features::find_kernel("queue_imbalance"), -1, 1, 0, 0, 0, 0};
  WindowClock clock_ = WindowClock::Recv;
};

TEST_F(OrderFeedTest, GivesARowForEachMessageThatChangedTheBook) {
  messages(10, 1, opening());
  messages(20, 3, {bytes::add(1, 3, 1, 'B', 300, "AAPL", 100), bytes::add(1, 4, 2, 'S', 100, "AAPL", 110)});
  messages(30, 5, {bytes::executed(1, 5, 1, 200, 9)});
  EXPECT_EQ(replay_capture(), (Log{"AAPL 1/1 #3 nan", "AAPL 1/2 #4 +0.50", "AAPL 1/3 #5 +0.00"}));
}

TEST_F(OrderFeedTest, LostMessagesMakeEveryBookSuspectUntilASnapshotIsWhole) {
  messages(10, 1, opening());
  messages(20, 3, {bytes::directory(2, 1, "MSFT"), bytes::trading_action(2, 2, "MSFT", 'T')});
  messages(30, 5, {bytes::add(1, 3, 1, 'B', 300, "AAPL", 100)});
  note(40, {Note::Lost, 6, 2});
  note(50, {Note::Snapshot});
  messages(51, 1, opening());
  note(52, {Note::SnapshotFailed});  // What had come of it is no book.
  note(60, {Note::Snapshot});
  messages(61, 1, opening());
  messages(62, 3, {bytes::add(1, 3, 7, 'S', 50, "AAPL", 120)});
  note(63, {Note::SnapshotEnd, 9});
  messages(64, 9, {bytes::add(1, 4, 8, 'B', 50, "AAPL", 90)});
  messages(65, 10, {bytes::add(2, 5, 9, 'B', 50, "MSFT", 90)});  // Not in the snapshot: not heard of.
  EXPECT_EQ(replay_capture(),
            (Log{"AAPL 1/1 #5 nan", "AAPL 1 gap at 40", "MSFT 1 gap at 40", "AAPL 2/1 #9 +0.00"}));
}

TEST_F(OrderFeedTest, WithoutASnapshotBooksStaySuspectForTheSession) {
  messages(10, 1, opening());
  messages(20, 3, {bytes::add(1, 3, 1, 'B', 300, "AAPL", 100)});
  note(30, {Note::Lost, 4, 1});
  messages(40, 5, {bytes::add(1, 4, 2, 'S', 100, "AAPL", 110), bytes::trading_action(1, 5, "AAPL", 'T')});
  note(50, {Note::Session});
  messages(60, 1, opening());
  messages(70, 3, {bytes::add(1, 3, 1, 'S', 300, "AAPL", 100)});
  EXPECT_EQ(replay_capture(), (Log{"AAPL 1/1 #3 nan", "AAPL 1 gap at 30", "AAPL 2/1 #3 nan"}));
}

TEST_F(OrderFeedTest, NoBookIsValidWhileNoLineIsHeard) {
  messages(10, 1, opening());
  messages(20, 3, {bytes::add(1, 3, 1, 'B', 300, "AAPL", 100)});
  note(30, {Note::Close});
  note(40, {Note::Open});
  messages(50, 4, {bytes::add(1, 4, 2, 'S', 100, "AAPL", 110)});
  EXPECT_EQ(replay_capture(), (Log{"AAPL 1/1 #3 nan", "AAPL 1 disconnected at 30", "AAPL 2/1 #4 +0.50"}));
}

TEST_F(OrderFeedTest, NoBookIsValidInTheMiddleOfASnapshot) {
  messages(10, 1, opening());
  messages(20, 3, {bytes::add(1, 3, 1, 'B', 300, "AAPL", 100)});
  note(30, {Note::Lost, 4, 1});
  note(31, {Note::Close});
  note(40, {Note::Snapshot});
  messages(41, 1, opening());
  note(42, {Note::Open});  // Half of it has come.
  messages(43, 3, {bytes::add(1, 3, 7, 'S', 50, "AAPL", 120)});
  note(44, {Note::SnapshotFailed});
  note(50, {Note::Snapshot});
  messages(51, 1, opening());
  note(52, {Note::SnapshotEnd, 9});
  messages(53, 9, {bytes::add(1, 4, 8, 'B', 50, "AAPL", 90)});
  EXPECT_EQ(replay_capture(), (Log{"AAPL 1/1 #3 nan", "AAPL 1 gap at 30", "AAPL 2/1 #9 nan"}));
}

TEST_F(OrderFeedTest, AMessageThatDoesNotFitIsNamedByItsNumberWhereItHasOne) {
  messages(10, 1, opening());
  messages(20, 3, {bytes::executed(1, 3, 77, 200, 9)});
  note(30, {Note::Lost, 4, 5});
  note(40, {Note::Snapshot});
  messages(41, 1, opening());
  messages(41, 3, {bytes::executed(1, 3, 78, 200, 9)});
  note(42, {Note::SnapshotEnd, 9});
  const std::string file = folder_ / "000001.pcap";
  std::ofstream(file, std::ios::binary) << capture_;
  const EngineConfig all = config(true, file);
  Engine engine(all);
  engine.start();
  Log log;
  while (!engine.finished()) {
    if (!drain(engine, log)) std::this_thread::yield();
  }
  std::vector<std::string> told;
  for (const auto& error_log : metrics::StatReader(all.stat_path).error_logs()) {
    for (const auto& error : error_log.entries) {
      if (error.text.find("order_misfit") == std::string::npos) continue;
      for (const std::string& text : {error.text, error.newest}) {
        told.push_back(text.substr(0, text.find(" is about")));
      }
    }
  }
  engine.stop();
  EXPECT_EQ(told, (Log{"order_misfit: nasdaq: message 3", "order_misfit: nasdaq: a snapshot's message"}));
}

/// Windows of an epoch hold what was heard in it: they are full when their length has passed since the
/// stream goes on, however long nothing was heard.
TEST_F(OrderFeedTest, AWindowBeginsBehindASnapshotAndNotBeforeIt) {
  node_ = {features::find_kernel("order_arrival_rate"), -1, 0, 100, 0, 0, 0};
  for (const WindowClock clock : {WindowClock::Recv, WindowClock::Event}) {
    SCOPED_TRACE(static_cast<int>(clock));
    clock_ = clock;
    const auto at = [](TsNs ts) { return static_cast<std::uint64_t>(ts); };
    for (const bool joins : {true, false}) {
      SCOPED_TRACE(joins);
      capture_.clear();
      md::format_pcap_header(capture_);
      note(0, {Note::Stream});
      note(1, {Note::Session});
      if (!joins) {
        messages(kMidnight + 10, 1,
                 {bytes::directory(1, 10, "AAPL"), bytes::trading_action(1, 10, "AAPL", 'T')});
        messages(kMidnight + 20, 3, {bytes::add(1, 20, 1, 'B', 300, "AAPL", 100)});
        note(kMidnight + 30, {Note::Lost, 4, 5});
      }
      note(kMidnight + 1000, {Note::Snapshot});
      messages(kMidnight + 1001, 1, opening());
      note(kMidnight + 1002, {Note::SnapshotEnd, 9});
      std::uint64_t number = 9;
      for (const TsNs ts : {1010, 1060, 1109, 1110, 1111}) {
        messages(kMidnight + ts, number, {bytes::add(1, at(ts), number, 'B', 50, "AAPL", 90)});
        ++number;
      }
      Log log = replay_capture();
      std::erase_if(log, [](const std::string& text) { return text.find('/') == std::string::npos; });
      ASSERT_EQ(log.size(), 2U) << (log.empty() ? "" : log.front());
      EXPECT_TRUE(log.front().find(" #12 ") != std::string::npos) << log.front();
    }
  }
}

/// An hour ahead, whichever clock the windows go by, and back: nothing of one time is in a window of the
/// other.
TEST_F(OrderFeedTest, AStampOfAnotherTimeMakesBooksSuspectUntilTheMessageBehindIt) {
  constexpr TsNs kHour = 3600 * kSecond;
  for (const WindowClock clock : {WindowClock::Recv, WindowClock::Event}) {
    SCOPED_TRACE(static_cast<int>(clock));
    clock_ = clock;
    capture_.clear();
    md::format_pcap_header(capture_);
    note(0, {Note::Stream});
    note(1, {Note::Session});
    messages(kMidnight + 10, 1, opening());
    std::uint64_t number = 3;
    // The second but last is ten minutes from the one before it, which is no leap, and the last a little
    // more.
    for (const TsNs ts : {TsNs{20}, kHour + 30, TsNs{40}, TsNs{50}, TsNs{60}, TsNs{600} * kSecond + 60,
                          TsNs{1200} * kSecond + 61}) {
      messages(kMidnight + (clock == WindowClock::Recv ? ts : 20), number,
               {bytes::add(1, clock == WindowClock::Event ? static_cast<std::uint64_t>(ts) : 3, number, 'B',
                           50, "AAPL", 90)});
      ++number;
    }
    const std::string leapt = std::to_string(kMidnight + (clock == WindowClock::Recv ? kHour + 30 : 20));
    const std::string again =
        std::to_string(kMidnight + (clock == WindowClock::Recv ? TsNs{1200} * kSecond + 61 : 20));
    Log log = replay_capture();
    // By the venue's clock a book is tried between two leaps, and gives no row.
    std::erase(log, "AAPL 2 clock at " + leapt);
    const std::string epoch = clock == WindowClock::Recv ? "2" : "3";
    EXPECT_EQ(log, (Log{"AAPL 1/1 #3 nan", "AAPL 1 clock at " + leapt, "AAPL " + epoch + "/1 #6 nan",
                        "AAPL " + epoch + "/2 #7 nan", "AAPL " + epoch + "/3 #8 nan",
                        "AAPL " + epoch + " clock at " + again}));
  }
}

/// Nothing for an hour, and then on as before: where the venue's clock has moved on as well it was a silence.
TEST_F(OrderFeedTest, ASilenceOfBothClocksIsNoLeap) {
  constexpr TsNs kHour = 3600 * kSecond;
  for (const WindowClock clock : {WindowClock::Recv, WindowClock::Event}) {
    for (const bool both : {true, false}) {
      SCOPED_TRACE(testing::Message() << static_cast<int>(clock) << ' ' << both);
      clock_ = clock;
      capture_.clear();
      md::format_pcap_header(capture_);
      note(0, {Note::Stream});
      note(1, {Note::Session});
      messages(kMidnight + 10, 1, opening());
      std::uint64_t number = 3;
      for (const TsNs ts : {TsNs{20}, kHour, kHour + 10, 5 * kHour, 5 * kHour + 10}) {
        const TsNs sent = both || ts < kHour ? ts : 30;
        messages(kMidnight + ts, number,
                 {bytes::add(1, static_cast<std::uint64_t>(sent), number, 'B', 50, "AAPL", 90)});
        ++number;
      }
      const std::string leapt = " clock at " + std::to_string(kMidnight + kHour);
      const std::string again = " clock at " + std::to_string(kMidnight + 5 * kHour);
      EXPECT_EQ(replay_capture(), both ? (Log{"AAPL 1/1 #3 nan", "AAPL 1/2 #4 nan", "AAPL 1/3 #5 nan",
                                              "AAPL 1/4 #6 nan", "AAPL 1/5 #7 nan"})
                                       : (Log{"AAPL 1/1 #3 nan", "AAPL 1" + leapt, "AAPL 2/1 #5 nan",
                                              "AAPL 2" + again, "AAPL 3/1 #7 nan"}));
    }
  }
}

TEST_F(OrderFeedTest, AMessageWithoutATimeLeavesTheWindowsWhereTheyAre) {
  node_ = {features::find_kernel("order_arrival_rate"), -1, 0, 100, 0, 0, 0};
  clock_ = WindowClock::Event;
  const TsNs later = kMidnight + 3600 * kSecond;  // Than the venue's clock says.
  messages(later, 1, opening());
  messages(later, 3, {bytes::add(1, 10, 1, 'B', 300, "AAPL", 100)});
  messages(later, 4, {bytes::remove(1, 11, 1).substr(0, 18)});  // Its time is not to be read.
  note(later, {Note::Snapshot});
  messages(later, 1, opening());
  note(later, {Note::SnapshotEnd, 5});
  messages(later, 5, {bytes::add(1, 1000, 2, 'B', 300, "AAPL", 100)});
  messages(later, 6, {bytes::add(1, 1100, 3, 'B', 300, "AAPL", 100)});
  const Log log = replay_capture();
  ASSERT_EQ(log.size(), 2U);
  EXPECT_TRUE(log.back().starts_with("AAPL 2/1 #6 ")) << log.back();
}

TEST_F(OrderFeedTest, ARunThatEndedInSilenceLeavesNoneToTheNext) {
  messages(10, 1, opening());
  messages(20, 3, {bytes::add(1, 3, 1, 'B', 300, "AAPL", 100)});
  note(30, {Note::Close});
  note(0, {Note::Stream});  // Another run's.
  note(40, {Note::Session});
  messages(50, 1, opening());
  messages(60, 3, {bytes::add(1, 3, 1, 'B', 300, "AAPL", 100)});
  EXPECT_EQ(replay_capture(), (Log{"AAPL 1/1 #3 nan", "AAPL 1 disconnected at 30", "AAPL 2/1 #3 nan"}));
}

TEST_F(OrderFeedTest, ACaptureThatBeginsInTheMiddleIsNotBelieved) {
  messages(10, 3, {bytes::add(1, 3, 1, 'B', 300, "AAPL", 100)});
  std::vector<std::string> late = opening();
  late.push_back(bytes::add(1, 3, 2, 'B', 300, "AAPL", 100));
  messages(20, 4, late);
  EXPECT_EQ(replay_capture(), Log{});
}

/// What a server answers, and what was kept meanwhile, is no sign of life of a line.
TEST_F(OrderFeedTest, AnAnswerToARequestOpensNoBookWhileNoLineIsHeard) {
  const net::test::MoldVenue venue;
  EngineConfig settings = config(false, "");
  settings.feeds[0].liveness_timeout_ns = kSecond / 5;
  settings.feeds[0].itch->multicast = net::test::mold_config(venue);
  const int port = settings.feeds[0].itch->multicast->lines[0].port;
  std::vector<std::string> stream = opening();
  stream.push_back(bytes::add(1, 3, 1, 'B', 300, "AAPL", 100));
  stream.push_back(bytes::add(1, 4, 2, 'S', 100, "AAPL", 110));  // On no line.
  stream.push_back(bytes::add(1, 5, 3, 'S', 100, "AAPL", 109));
  std::vector<std::string> numbered{""};  // From 1, as the server is asked.
  numbered.insert(numbered.end(), stream.begin(), stream.end());

  Engine engine(settings);
  engine.start();
  Log log;
  const auto until = [&](std::size_t records) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (log.size() < records && std::chrono::steady_clock::now() < limit) {
      if (!drain(engine, log)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return log.size() >= records;
  };
  venue.send(0, port, mold_datagram(kSession, 1, {stream.begin(), stream.begin() + 3}));
  venue.send(0, port, mold_datagram(kSession, 5, {stream[4]}));
  ASSERT_TRUE(until(2)) << "a row, and the silence";
  EXPECT_TRUE(log[1].starts_with("AAPL 1 disconnected at ")) << log[1];
  for (int i = 0; i < 50; ++i) {
    venue.answer(numbered, 7);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    drain(engine, log);
  }
  EXPECT_EQ(log.size(), 2U) << log.back();
  stream.push_back(bytes::add(1, 6, 4, 'B', 50, "AAPL", 100));
  venue.send(1, port, mold_datagram(kSession, 6, {stream[5]}));
  ASSERT_TRUE(until(3)) << "a row of what is heard again";
  EXPECT_EQ(log[2], "AAPL 2/1 #6 +0.56");
  engine.stop();
}

/// Live: two lines that lose, a re-request server, and a sender in the test's thread; the recording must give
/// the same rows, and so must the messages by themselves.
TEST_F(OrderFeedTest, TheRecordingOfALiveFeedGivesItsRows) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::vector<std::string> stream = opening();
  std::vector<std::uint64_t> live;
  for (std::uint64_t ref = 1; ref <= 600; ++ref) {
    const std::uint64_t ts = ref * 1000;
    if (live.size() > 20 && random() % 2 == 0) {
      const std::size_t at = random() % live.size();
      stream.push_back(bytes::remove(1, ts, live[at]));
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(at));
    } else {
      const bool bid = random() % 2 == 0;
      const auto price = static_cast<std::uint32_t>(bid ? 1000 - random() % 9 : 1001 + random() % 9);
      stream.push_back(bytes::add(1, ts, ref, bid ? 'B' : 'S', static_cast<std::uint32_t>(1 + random() % 900),
                                  "AAPL", price));
      live.push_back(ref);
    }
  }

  const net::test::MoldVenue venue;
  EngineConfig settings = config(false, "");
  settings.record_dir = folder_ / "run";
  settings.feeds[0].itch->multicast = net::test::mold_config(venue);
  const int port = settings.feeds[0].itch->multicast->lines[0].port;
  Log log;
  {
    Engine engine(settings);
    engine.start();
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    std::vector<std::string> numbered{""};  // From 1, as the server is asked.
    numbered.insert(numbered.end(), stream.begin(), stream.end());
    std::size_t sent = 0;
    while (log.size() + 2 < stream.size()) {
      ASSERT_LT(std::chrono::steady_clock::now(), limit) << log.size() << " rows";
      if (sent < stream.size()) {
        const std::size_t count = std::min<std::size_t>(1 + random() % 5, stream.size() - sent);
        const std::string datagram =
            mold_datagram(kSession, sent + 1,
                          {stream.begin() + static_cast<std::ptrdiff_t>(sent),
                           stream.begin() + static_cast<std::ptrdiff_t>(sent + count)});
        for (const std::size_t line : {0U, 1U}) {
          if (random() % 10 != 0) venue.send(line, port, datagram);
        }
        sent += count;
      } else {
        // A heartbeat tells of what was lost at the end.
        venue.send(0, port, mold_datagram(kSession, stream.size() + 1, {}));
      }
      venue.answer(numbered, 7);
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      while (drain(engine, log)) {
      }
    }
    engine.stop();
    while (drain(engine, log)) {
    }
  }
  EXPECT_EQ(replay(config(true, folder_ / "run/capture/nasdaq/000001.pcap")), log);

  std::string day;
  for (const std::string& message : stream) day += net::test::big_endian(message.size(), 2) + message;
  std::ofstream(folder_ / "day", std::ios::binary) << day;
  EXPECT_EQ(replay(config(true, folder_ / "day")), log);
}

}  // namespace
}  // namespace tickwire::engine

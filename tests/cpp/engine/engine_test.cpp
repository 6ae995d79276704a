#include "tickwire/engine/engine.hpp"
#include "engine/configs.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "infer/model_files.hpp"
#include "tickwire/core/error.hpp"

namespace tickwire::engine {
namespace {

constexpr TsNs kStart = 1'700'000'000'000'000'000;

/// Writes a USD-M capture of two instruments and keeps the truth: the books in std::map, and what a row of
/// imbalance(levels=1), spread() has to be after each event that changed the book while it was valid.
class Market {
 public:
  struct Truth {
    InstrumentId instrument;
    std::uint32_t epoch;
    std::uint64_t row;
    std::uint64_t sequence;
    TsNs ts_recv;
    double imbalance;
    double spread;
  };

  explicit Market(unsigned seed) : random_(seed) {
    for (std::size_t i = 0; i < 2; ++i) {
      for (int k = 0; k < 30; ++k) {
        books_[i].bids[60000 - 1 - k] = 1 + static_cast<int>(random_() % 900);
        books_[i].asks[60000 + k] = 1 + static_cast<int>(random_() % 900);
      }
    }
  }

  void open() { line(R"({"tickwire":"open","conn":0})"); }

  void snapshot(std::size_t i) {
    std::string body = R"({"lastUpdateId":)" + std::to_string(books_[i].last_id) + R"(,"E":1,"T":1,"bids":[)";
    // Best first.
    const std::map<int, int, std::greater<>> bids(books_[i].bids.begin(), books_[i].bids.end());
    body += levels(bids) + R"(],"asks":[)" + levels(books_[i].asks) + "]}";
    line(R"({"tickwire":"snapshot","conn":0,"instrument":")" + symbol(i) + R"(","limit":1000,"body":)" +
         body + "}");
    books_[i].valid = true;
    books_[i].rows = 0;
    ++books_[i].epoch;
  }

  /// A diff that changes one to four levels; with `lose` the capture does not get it.
  void diff(std::size_t i, bool lose = false) {
    Book& book = books_[i];
    std::map<int, int> bids;
    std::map<int, int> asks;
    const auto count = 1 + random_() % 4;
    for (unsigned k = 0; k < count; ++k) {
      const int offset = static_cast<int>(random_() % 12);
      const int qty = random_() % 3 == 0 ? 0 : 1 + static_cast<int>(random_() % 900);
      // The tops at 59999 and 60000 never empty, so the sides never meet.
      if (random_() % 2 == 0) {
        bids[59999 - offset] = offset == 0 ? qty + 1 : qty;
      } else {
        asks[60000 + offset] = offset == 0 ? qty + 1 : qty;
      }
    }
    bool changed = false;
    const auto apply = [&changed](std::map<int, int>& side, const std::map<int, int>& changes) {
      for (const auto& [price, qty] : changes) {
        const auto old = side.find(price);
        changed = changed || (qty == 0 ? old != side.end() : old == side.end() || old->second != qty);
        if (qty == 0) {
          side.erase(price);
        } else {
          side[price] = qty;
        }
      }
    };
    apply(book.bids, bids);
    apply(book.asks, asks);
    const std::uint64_t first = book.last_id + 3;
    const std::uint64_t last = first + random_() % 5;
    const std::string text = R"({"stream":"x","data":{"e":"depthUpdate","E":1700000000000,"s":")" +
                             symbol(i) + R"(","U":)" + std::to_string(first) + R"(,"u":)" +
                             std::to_string(last) + R"(,"pu":)" + std::to_string(book.last_id) + R"(,"b":[)" +
                             levels(bids) + R"(],"a":[)" + levels(asks) + "]}}";
    book.last_id = last;
    if (lose) {
      ts_ += 1'000'000;
      return;
    }
    const TsNs ts = line(text);
    if (!book.seen_in_order) book.valid = false;
    if (!book.valid || !changed) return;
    const double bid = book.bids.rbegin()->second;
    const double ask = book.asks.begin()->second;
    const double bid_price = book.bids.rbegin()->first / 10.0;
    const double ask_price = book.asks.begin()->first / 10.0;
    const double mid = (bid_price + ask_price) / 2;
    truth.push_back({static_cast<InstrumentId>(i), book.epoch, ++book.rows, last, ts,
                     (bid - ask) / (bid + ask), (ask_price - bid_price) / mid * 1e4});
  }

  /// A diff is lost, the next one shows the gap; then a snapshot follows.
  void gap(std::size_t i) {
    diff(i, true);
    books_[i].valid = false;
    diff(i);  // Shows the gap and starts the new buffer.
    ++gaps;
    snapshot(i);  // The same last id as that diff: it bridges at once.
  }

  void write(const std::string& path) const { std::ofstream(path) << text_; }

  std::vector<Truth> truth;
  int gaps = 0;

 private:
  struct Book {
    std::map<int, int> bids;  // Price in tenths.
    std::map<int, int> asks;
    std::uint64_t last_id = 1000;
    std::uint32_t epoch = 0;
    std::uint64_t rows = 0;
    bool valid = false;
    bool seen_in_order = true;
  };

  static std::string symbol(std::size_t i) { return i == 0 ? "BTCUSDT" : "ETHUSDT"; }

  template <typename Side>
  static std::string levels(const Side& side) {
    std::string text;
    for (const auto& [price, qty] : side) {
      char level[64];
      std::snprintf(level, sizeof level, R"(%s["%d.%d","%d.%03d"])", text.empty() ? "" : ",", price / 10,
                    price % 10, qty / 1000, qty % 1000);
      text += level;
    }
    return text;
  }

  TsNs line(const std::string& message) {
    ts_ += 1'000'000;
    text_ += std::to_string(ts_) + " " + message + "\n";
    return ts_;
  }

  std::mt19937 random_;
  Book books_[2];
  TsNs ts_ = kStart;
  std::string text_;
};

class EngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              ("tickwire-engine-test-" + std::to_string(::getpid()) + "-" +
               ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  EngineConfig config(Layout layout) const {
    EngineConfig config =
        test::engine_config({test::price_feed("usdm", {}, {(folder_ / "capture.log").string()})}, true);
    config.layout = layout;
    config.output_slots = 64;  // Small, so that the rings fill and the stages wait for each other.
    config.stat_path = (folder_ / "engine.stat").string();
    config.feeds[0].instruments = {{"BTCUSDT", 8, 8}, {"ETHUSDT", 8, 8}};
    config.features.plan.nodes.push_back({features::find_kernel("spread"), -1, 0, 0, 0, 0, 0});
    config.features.plan.outputs = {0, 1};
    return config;
  }

  /// Built beside the tests.
  static std::string worker_program() {
    return std::filesystem::read_symlink("/proc/self/exe").parent_path() / "tools" / "tickwire-worker";
  }

  struct Output {
    std::vector<std::vector<std::byte>> rows;
    std::vector<signal::SignalHeader> notices;
    signal::RecordLayout layout;

    signal::RecordView row(std::size_t i) { return {rows[i].data(), layout}; }
  };

  static Output run(const EngineConfig& config) {
    Engine engine(config);
    engine.start();
    Output output{{}, {}, engine.layout()};
    for (;;) {
      const bool finished = engine.finished();
      const RecordBatch batch = engine.poll();
      for (std::size_t i = 0; i < batch.count; ++i) {
        const std::byte* record = batch.records + i * batch.stride;
        signal::SignalHeader header;
        std::memcpy(&header, record, sizeof header);
        if (header.row == 0) {
          output.notices.push_back(header);
        } else {
          output.rows.emplace_back(record, record + engine.layout().record_bytes());
        }
      }
      engine.release();
      if (batch.count == 0) {
        if (finished) break;
        std::this_thread::yield();
      }
      if (engine.failed()) ADD_FAILURE() << *engine.failed();
    }
    engine.stop();
    return output;
  }

  void check(Output& output, const Market& market) {
    ASSERT_EQ(output.rows.size(), market.truth.size());
    for (std::size_t i = 0; i < output.rows.size(); ++i) {
      const Market::Truth& truth = market.truth[i];
      const signal::SignalHeader& header = output.row(i).header();
      ASSERT_EQ(header.instrument, truth.instrument) << i;
      ASSERT_EQ(header.epoch, truth.epoch) << i;
      ASSERT_EQ(header.row, truth.row) << i;
      ASSERT_EQ(header.sequence, truth.sequence) << i;
      ASSERT_EQ(header.ts_recv, truth.ts_recv) << i;
      ASSERT_EQ(header.state, signal::SignalState::Valid) << i;
      ASSERT_FLOAT_EQ(output.row(i).features()[0], static_cast<float>(truth.imbalance)) << i;
      ASSERT_FLOAT_EQ(output.row(i).features()[1], static_cast<float>(truth.spread)) << i;
      std::int64_t total_ns = 0;
      for (const std::int64_t ns : header.stage_ns) total_ns += ns;
      ASSERT_EQ(header.ts_out, header.ts_recv + total_ns) << "the stages add up";
    }
    ASSERT_EQ(output.notices.size(), static_cast<std::size_t>(market.gaps));
    for (const signal::SignalHeader& notice : output.notices) {
      EXPECT_EQ(notice.state, signal::SignalState::Suspect);
      EXPECT_EQ(notice.reason, md::InvalidReason::Gap);
      EXPECT_EQ(notice.scored, 0);
    }
  }

  Market make_market(int events) {
    const unsigned seed = std::random_device{}();
    std::printf("seed %u\n", seed);
    Market market(seed);
    std::mt19937 random(seed + 1);
    market.open();
    market.diff(0);
    market.snapshot(0);
    market.diff(1);
    market.snapshot(1);
    for (int i = 0; i < events; ++i) {
      if (random() % 200 == 0) {
        market.gap(random() % 2);
      } else {
        market.diff(random() % 2);
      }
    }
    market.write((folder_ / "capture.log").string());
    return market;
  }

  std::filesystem::path folder_;
};

TEST_F(EngineTest, ReplayGivesARowForEachEventThatChangedAValidBook) {
  const Market market = make_market(5000);
  Output output = run(config(Layout::Threads));
  check(output, market);
}

TEST_F(EngineTest, LayoutsGiveTheSameRowsAndScoresBitForBit) {
  const std::string library = infer::testing::ort_library();
  if (library.empty()) GTEST_SKIP() << "no ONNX Runtime library: set TICKWIRE_ORT_LIBRARY or run make setup";
  const Market market = make_market(2000);
  EngineConfig with_model = config(Layout::Inline);
  with_model.features.plan.outputs = {0, 1, 0, 1};  // The model takes four.
  with_model.models = {test::model_config("m", 7, {{infer::testing::model_file("good_free_batch"), 1.0}})};
  with_model.models[0].ort_library = library;
  with_model.models[0].queue_slots = 16;
  Output in_line = run(with_model);
  check(in_line, market);
  with_model.layout = Layout::Threads;
  Output threads = run(with_model);
  check(threads, market);
  with_model.layout = Layout::Processes;
  with_model.worker_program = worker_program();
  Output processes = run(with_model);
  check(processes, market);
  for (std::size_t i = 0; i < in_line.rows.size(); ++i) {
    for (Output* other : {&threads, &processes}) {
      ASSERT_EQ(other->row(i).header().scored, 1);
      ASSERT_EQ(other->row(i).header().model_id, 7U);
      // The rest of the record is scores and features.
      ASSERT_EQ(std::memcmp(in_line.rows[i].data() + sizeof(signal::SignalHeader),
                            other->rows[i].data() + sizeof(signal::SignalHeader),
                            in_line.rows[i].size() - sizeof(signal::SignalHeader)),
                0)
          << "row " << i;
    }
  }
}

TEST_F(EngineTest, AConfigurationWithoutItsCaptureIsRefused) {
  EngineConfig missing = config(Layout::Inline);
  EXPECT_THROW(Engine{missing}, SetupError);
}

}  // namespace
}  // namespace tickwire::engine

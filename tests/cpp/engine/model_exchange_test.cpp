/// How agents go over to another model: all, or none, also where one of them stands still, on its way there
/// or on its way back. The models are made by hand.

#include "tickwire/engine/score/model_exchange.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/ingest_rig.hpp"
#include "tickwire/core/error.hpp"
#include "tickwire/engine/engine.hpp"

namespace tickwire::engine {
namespace {

using namespace std::chrono_literals;
using test::Capture;
using test::diff;
using test::engine_config;
using test::price_feed;

/// Until the condition holds; false when it does not within a minute.
bool wait_for(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + 60s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(100us);
  }
  return true;
}

/// Scores a row with its first cell times the number in its file. The models are numbered as they are made; a
/// run of the one that is held does not end before it is let go, or interrupted.
class Factor final : public infer::Model {
 public:
  static inline std::atomic<int> made{0};
  static inline std::atomic<int> held{-1};
  static inline std::atomic<bool> stands{false};

  Factor(const infer::ModelRequest& request, float factor) : number_(made++), factor_(factor) {
    info_.path = request.path;
    info_.rows = request.rows;
    info_.features = request.features;
    info_.max_batch = request.max_batch;
    info_.score_names = {"y"};
  }
  explicit Factor(float factor) : number_(-2), factor_(factor) {
    info_.rows = info_.features = info_.max_batch = 1;
    info_.score_names = {"y"};
  }
  std::size_t warm_up(std::size_t, std::int64_t) override { return 0; }
  bool run_batch(std::size_t handle, std::size_t count, std::span<float> scores) noexcept override {
    while (held == number_ && !interrupted_) {
      stands = true;
      std::this_thread::sleep_for(100us);
    }
    for (std::size_t i = 0; i < count; ++i) scores[i] = factor_ * inputs_[handle][i * info_.features];
    return !interrupted_;
  }
  void interrupt() noexcept override { interrupted_ = true; }
  std::string_view last_error() const noexcept override { return "interrupted"; }
  bool interrupted() const noexcept { return interrupted_; }

 protected:
  std::size_t add_binding(const float* inputs, std::span<float>) override {
    inputs_.push_back(inputs);
    return inputs_.size() - 1;
  }

 private:
  const int number_;
  const float factor_;
  std::atomic<bool> interrupted_{false};
  std::vector<const float*> inputs_;
};

constexpr infer::Executor kByHand{
    .name = "by_hand", .load = [](const infer::ModelRequest& request) -> infer::Made {
      const std::string text(reinterpret_cast<const char*>(request.bytes.data()), request.bytes.size());
      return std::make_unique<Factor>(request, std::stof(text));
    }};

// ---- Stages that are turned by hand ----

constexpr signal::RecordLayout kLayout{.score_count = 1, .feature_count = 1};

class ModelExchangeTest : public ::testing::Test {
 protected:
  struct Turned {
    std::unique_ptr<StageHistograms> stages;
    std::unique_ptr<ScoringStage> stage;
    std::atomic<bool> turns{false};  // Else it stands still.
    std::atomic<std::uint32_t> id{7};
  };

  void SetUp() override {
    for (std::size_t i = 0; i < 3; ++i) {
      Turned& one = turned_[i];
      const std::string scope = "agent" + std::to_string(i);
      one.stages = std::make_unique<StageHistograms>(*stats_, scope);
      auto model = std::make_unique<Factor>(1.0F);
      first_.push_back(model.get());
      exchange_.use(*model);
      one.stage = std::make_unique<ScoringStage>(ScoringStage::Setup{.scope = scope,
                                                                     .config = config_,
                                                                     .model = {std::move(model), 7},
                                                                     .layout = kLayout,
                                                                     .replay = true,
                                                                     .router = nullptr,
                                                                     .scores = nullptr},
                                                 *one.stages, stats_->error_log(scope), *stats_, arena_);
      all_.push_back(one.stage.get());
    }
    stats_->publish();
    agents_ = std::thread([this] {
      while (!over_) {
        for (Turned& one : turned_) {
          if (!one.turns) continue;
          one.stage->adopt();
          one.id = one.stage->model_id();
          // One that has gone over to that stands still from then on.
          if (one.id == stand_with_) one.turns = false;
        }
        std::this_thread::sleep_for(50us);
      }
    });
  }
  void TearDown() override {
    over_ = true;
    agents_.join();
    stats_->remove();
  }

  ModelExchange::Outcome go_over(std::uint32_t id, std::chrono::nanoseconds patience) {
    std::vector<std::unique_ptr<LoadedModel>> ready;
    newest_.clear();
    for (const ScoringStage* stage : all_) {
      auto model = std::make_unique<Factor>(2.0F);
      newest_.push_back(model.get());
      ready.push_back(std::make_unique<LoadedModel>(LoadedModel{std::move(model), id}));
      stage->prepare(*ready.back());
    }
    return exchange_.go_over(all_, std::move(ready), patience);
  }
  std::vector<std::uint32_t> ids() { return {turned_[0].id, turned_[1].id, turned_[2].id}; }
  using Ids = std::vector<std::uint32_t>;

  const ModelConfig config_ = test::model_config("m", 7);
  Arena arena_{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  std::unique_ptr<metrics::StatFile> stats_ = metrics::StatFile::create(
      metrics::default_stat_directory() + "/exchange-test-" + std::to_string(::getpid()) + ".stat",
      {.counters = 64, .histograms = 64, .error_logs = 4});
  ModelExchange exchange_;
  Turned turned_[3];
  std::vector<ScoringStage*> all_;
  std::vector<Factor*> first_;
  std::vector<Factor*> newest_;
  std::atomic<std::uint32_t> stand_with_{0};
  std::atomic<bool> over_{false};
  std::thread agents_;
};

TEST_F(ModelExchangeTest, AllGoOver) {
  for (Turned& one : turned_) one.turns = true;
  const ModelExchange::Outcome outcome = go_over(8, 60s);
  EXPECT_TRUE(outcome.went_over);
  EXPECT_TRUE(outcome.scored);
  EXPECT_EQ(outcome.why, "");
  ASSERT_TRUE(wait_for([this] { return ids() == Ids{8, 8, 8}; }));
  exchange_.interrupt();
  for (const Factor* model : newest_) EXPECT_TRUE(model->interrupted());
}

TEST_F(ModelExchangeTest, WhereNoneComesNoneHasScored) {
  const ModelExchange::Outcome outcome = go_over(8, 10ms);
  EXPECT_FALSE(outcome.went_over);
  EXPECT_FALSE(outcome.scored);
  EXPECT_EQ(outcome.why, "one that stands still");
  for (Turned& one : turned_) one.turns = true;
  ASSERT_TRUE(wait_for([this] { return !turned_[0].turns || ids() == Ids{7, 7, 7}; }));
  exchange_.interrupt();
  for (const Factor* model : first_) EXPECT_TRUE(model->interrupted());
}

TEST_F(ModelExchangeTest, ThoseThatWentOverGoBackWhereOneStandsStill) {
  turned_[0].turns = turned_[2].turns = true;
  const ModelExchange::Outcome outcome = go_over(8, 500ms);
  EXPECT_FALSE(outcome.went_over);
  EXPECT_TRUE(outcome.scored);
  EXPECT_EQ(ids(), (Ids{7, 7, 7}));
  turned_[1].turns = true;
  EXPECT_TRUE(go_over(9, 60s).went_over) << "another one, once it comes";
  ASSERT_TRUE(wait_for([this] { return ids() == Ids{9, 9, 9}; }));
}

TEST_F(ModelExchangeTest, OneThatStandsStillOnItsWayBackGoesBackBeforeAnythingElse) {
  stand_with_ = 8;
  turned_[0].turns = turned_[2].turns = true;
  const ModelExchange::Outcome outcome = go_over(8, 500ms);
  EXPECT_FALSE(outcome.went_over);
  EXPECT_TRUE(outcome.scored);
  ASSERT_EQ(ids(), (Ids{8, 7, 8})) << "they still stand in a run of the newer model";
  // What they run can be interrupted, and what they go back to.
  exchange_.interrupt();
  for (const std::size_t i : {0U, 2U}) EXPECT_TRUE(newest_[i]->interrupted());
  for (const Factor* model : first_) EXPECT_TRUE(model->interrupted());

  // Another exchange would have to pass the way back.
  const ModelExchange::Outcome early = go_over(9, 60s);
  EXPECT_FALSE(early.went_over);
  EXPECT_FALSE(early.scored);
  EXPECT_NE(early.why.find("has to go back"), std::string::npos);
  EXPECT_EQ(ids(), (Ids{8, 7, 8}));

  stand_with_ = 0;
  for (Turned& one : turned_) one.turns = true;
  ASSERT_TRUE(wait_for([this] { return ids() == Ids{7, 7, 7}; })) << "nobody asks them to";
  EXPECT_TRUE(go_over(9, 60s).went_over);
  ASSERT_TRUE(wait_for([this] { return ids() == Ids{9, 9, 9}; }));
}

// ---- A whole engine ----

constexpr std::uint64_t kRows = 1000;  // Of each instrument: more than the rings hold together.

class EngineExchange : public ::testing::Test {
 protected:
  void SetUp() override {
    Factor::made = 0;
    Factor::held = -1;
    Factor::stands = false;
  }
  void TearDown() override { Factor::held = -1; }

  struct Row {
    std::uint32_t model_id;
    float feature;
    float score;
  };

  std::string file(const std::string& factor) {
    std::ofstream(folder_ / factor) << factor;
    return folder_ / factor;
  }
  /// Rows of AAA and BBB by turns, whose only value is their own.
  EngineConfig config(Layout layout, std::size_t workers) {
    Capture capture;
    capture.open(0).begin(10, "AAA").begin(10, "BBB");
    for (std::uint64_t i = 1; i <= kRows; ++i) {
      for (const char* symbol : {"AAA", "BBB"}) {
        capture.line(20 + static_cast<std::int64_t>(i),
                     diff(symbol, 8 + 2 * i, 10 + 2 * i, "100:" + std::to_string(1 + i % 9), ""));
      }
    }
    capture.write(folder_ / "a.log");
    EngineConfig config = engine_config({price_feed("usdm", {"AAA", "BBB"}, {folder_ / "a.log"})}, true);
    config.layout = layout;
    config.output_slots = 64;
    config.stat_path = folder_ / "engine.stat";
    config.models = {test::model_config("m", 7, {{file("2"), 1.0}})};
    config.models[0].workers = workers;
    config.models[0].queue_slots = 16;
    return config;
  }
  std::size_t take(Engine& engine) {
    const RecordBatch batch = engine.poll();
    for (std::size_t i = 0; i < batch.count; ++i) {
      const signal::RecordView view(const_cast<std::byte*>(batch.records + i * batch.stride),
                                    engine.layout());
      const signal::SignalHeader& header = view.header();
      if (header.row == 0) continue;
      std::vector<Row>& rows = rows_[header.instrument];
      EXPECT_EQ(header.row, rows.size() + 1) << "each once, in its order";
      EXPECT_EQ(header.state, signal::SignalState::Valid);
      rows.push_back({header.model_id, view.features()[0], view.scores()[0]});
    }
    engine.release();
    return batch.count;
  }
  bool until_rows(Engine& engine, InstrumentId instrument, std::size_t count) {
    return wait_for([&] {
      (void)take(engine);
      return rows_[instrument].size() >= count;
    });
  }
  /// The rest; every row was scored by the model that it names, and counted as scored.
  void finish(Engine& engine, const std::map<std::uint32_t, float>& factors) {
    ASSERT_TRUE(wait_for([&] {
      (void)take(engine);
      return engine.finished();
    }));
    engine.stop();
    while (take(engine) != 0) {
    }
    for (const InstrumentId instrument : {0U, 1U}) {
      ASSERT_EQ(rows_[instrument].size(), kRows);
      for (std::uint64_t i = 0; i < kRows; ++i) {
        const Row& row = rows_[instrument][i];
        const auto qty = static_cast<float>(1 + (i + 1) % 9);
        ASSERT_FLOAT_EQ(row.feature, (qty - 1) / (qty + 1)) << i;
        ASSERT_TRUE(factors.contains(row.model_id)) << row.model_id;
        ASSERT_EQ(row.score, factors.at(row.model_id) * row.feature) << i;
      }
    }
    std::int64_t scored = 0;
    std::int64_t otherwise = 0;
    for (const auto& reading : metrics::StatReader(folder_ / "engine.stat").counters()) {
      if (reading.name == "scored") scored += reading.value;
      if (reading.name == "model_errors" || reading.name == "output_dropped") otherwise += reading.value;
    }
    EXPECT_EQ(scored, static_cast<std::int64_t>(2 * kRows));
    EXPECT_EQ(otherwise, 0);
  }
  std::string refusal(Engine& engine, const std::string& path, std::uint32_t id) {
    try {
      engine.swap_model(0, {{path, 1.0}}, id, 100ms);
    } catch (const SetupError& error) {
      return error.what();
    }
    return "";
  }

  test::Folder folder_;
  std::map<InstrumentId, std::vector<Row>> rows_;
};

constexpr infer::Executor kOnly[] = {kByHand};

TEST_F(EngineExchange, AHalfThatStandsStillLeavesAllWithTheOldModel) {
  for (const auto& [layout, workers] : {std::pair{Layout::Threads, 2U}, {Layout::Inline, 1U}}) {
    SCOPED_TRACE(workers);
    rows_.clear();
    SetUp();
    Engine engine(config(layout, workers), kOnly);
    EXPECT_EQ(engine.models()[0].executor, "by_hand");
    engine.start();
    ASSERT_TRUE(until_rows(engine, 0, 50));
    // The first was made to be described. Rows of BBB are the last worker's.
    Factor::held = static_cast<int>(workers);
    ASSERT_TRUE(wait_for([&] {
      (void)take(engine);
      return Factor::stands.load();
    }));
    EXPECT_NE(refusal(engine, file("3"), 8).find("found one that stands still"), std::string::npos);
    const ModelReport kept = engine.models()[0];
    EXPECT_EQ(kept.id, 7U);
    Factor::held = -1;
    ASSERT_TRUE(until_rows(engine, 0, 300));
    ASSERT_TRUE(until_rows(engine, 1, 300));
    for (const InstrumentId instrument : {0U, 1U}) {
      EXPECT_EQ(rows_[instrument].back().model_id, 7U);
      for (const Row& row : rows_[instrument]) {
        EXPECT_NE(std::find(kept.ids.begin(), kept.ids.end(), row.model_id), kept.ids.end()) << row.model_id;
      }
    }
    for (const Row& row : rows_[1]) ASSERT_EQ(row.model_id, 7U) << "it never went over";
    engine.swap_model(0, {{file("5"), 1.0}}, 9);
    EXPECT_EQ(engine.models()[0].id, 9U);
    finish(engine, {{7, 2.0F}, {8, 3.0F}, {9, 5.0F}});
    EXPECT_EQ(rows_[0].back().model_id, 9U);
    EXPECT_EQ(rows_[1].back().model_id, 9U);
  }
}

/// Python asks what the models are while another thread exchanges one.
TEST_F(EngineExchange, WhoAsksMeanwhileSeesAWholeAnswer) {
  Engine engine(config(Layout::Threads, 2), kOnly);
  engine.start();
  std::atomic<bool> over{false};
  std::atomic<int> wrong{0};
  std::thread asks([&] {
    while (!over) {
      const ModelReport report = engine.models()[0];
      if (report.ids.back() != report.id) ++wrong;
    }
  });
  for (std::uint32_t i = 1; i <= 50; ++i) {
    (void)take(engine);
    engine.swap_model(0, {{file(i % 2 == 0 ? "2" : "3"), 1.0}}, 7 + i);
  }
  over = true;
  asks.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(engine.models()[0].ids.size(), 51U);
  std::map<std::uint32_t, float> factors;
  for (std::uint32_t i = 0; i <= 50; ++i) factors[7 + i] = i % 2 == 0 ? 2.0F : 3.0F;
  finish(engine, factors);
}

TEST_F(EngineExchange, AModelThatThereIsNotIsNobodysToExchange) {
  Engine engine(config(Layout::Threads, 1), kOnly);
  EXPECT_THROW((void)engine.prepared(1), std::out_of_range);
  EXPECT_THROW(engine.went_over(1), std::out_of_range);
  EXPECT_THROW(engine.swap_model(1, {}, 8), std::out_of_range);
}

}  // namespace
}  // namespace tickwire::engine

/// From a row to a signal without ONNX Runtime: a model of ours says what a real one could.

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/configs.hpp"
#include "tickwire/engine/score/inference_agent.hpp"
#include "tickwire/engine/score/scoring_stage.hpp"
#include "tickwire/engine/score/work.hpp"

namespace tickwire::engine {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr signal::RecordLayout kLayout{.score_count = 1, .feature_count = 2};

/// Scores a row with the sum of its cells times `factor`; fails or blows up where a row's first cell says so.
class SumModel final : public infer::Model {
 public:
  static constexpr float kFail = -1.0F;
  static constexpr float kOverflow = -2.0F;

  /// The model's thread can be stopped: each run then takes `run_ns`.
  explicit SumModel(std::int64_t run_ns = 0, float factor = 1.0F, std::size_t max_batch = 1)
      : run_ns_(run_ns), factor_(factor) {
    info_.rows = 1;
    info_.features = 2;
    info_.max_batch = max_batch;
    info_.score_names = {"sum"};
  }
  std::size_t warm_up(std::size_t, std::int64_t) override {
    std::this_thread::sleep_for(std::chrono::nanoseconds(run_ns_));
    return 0;
  }
  bool run_batch(std::size_t handle, std::size_t count, std::span<float> scores) noexcept override {
    runs.push_back(count);
    if (run_ns_ != 0) std::this_thread::sleep_for(std::chrono::nanoseconds(run_ns_));
    for (std::size_t i = 0; i < count; ++i) {
      const float* input = inputs_[handle] + 2 * i;
      if (input[0] == kFail) return false;
      scores[i] =
          input[0] == kOverflow ? std::numeric_limits<float>::infinity() : factor_ * (input[0] + input[1]);
    }
    return true;
  }
  std::string_view last_error() const noexcept override { return "the model was told to fail"; }

  std::vector<std::size_t> runs;  // Rows of each run.

 protected:
  std::size_t add_binding(const float* input, std::span<float>) override {
    inputs_.push_back(input);
    return inputs_.size() - 1;
  }

 private:
  const std::int64_t run_ns_;
  const float factor_;
  std::vector<const float*> inputs_;
};

ModelConfig model_config(QueuePolicy policy, std::size_t limit = 2, std::int64_t max_age_ns = 0,
                         std::size_t max_batch = 1) {
  ModelConfig config = test::model_config("m", 42);
  config.max_batch = max_batch;
  config.max_age_ns = max_age_ns;
  config.queue_slots = 8;
  config.policy = policy;
  config.queue_limit = limit;
  return config;
}

class ScoringTest : public ::testing::Test {
 protected:
  struct Signal {
    signal::SignalHeader header;
    float score;
  };

  std::vector<Signal> drain() {
    std::vector<Signal> signals;
    for (; router_queue_.readable() != 0; router_queue_.release(1)) {
      const signal::RecordView view(router_queue_.slot(0), kLayout);
      signals.push_back({view.header(), view.scores()[0]});
    }
    return signals;
  }

  std::int64_t counter(std::string_view name) {
    // Names are given once, so a second one of the same file reads what the first wrote.
    for (const auto& reading : metrics::StatReader(stats_->path()).counters()) {
      if (reading.name == name) return reading.value;
    }
    ADD_FAILURE() << "no counter " << name;
    return -1;
  }

  static signal::SignalHeader row(std::uint64_t number, InstrumentId instrument = 0) {
    signal::SignalHeader header{};
    header.instrument = instrument;
    header.row = number;
    header.scored = 1;  // Wants a score.
    header.ts_recv = 1'000'000;
    return header;
  }

  std::string stat_path() const {
    return metrics::default_stat_directory() + "/scoring-test-" + std::to_string(::getpid()) + ".stat";
  }

  Arena arena_{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  std::unique_ptr<metrics::StatFile> stats_ =
      metrics::StatFile::create(stat_path(), {.counters = 32, .histograms = 16, .error_logs = 2});
  concurrent::Waker waker_;
  concurrent::SpscQueue router_queue_{arena_, kLayout.record_bytes(), 16};
  signal::SignalPort router_{router_queue_, waker_, 3, arena_};

  void TearDown() override { stats_->remove(); }
};

class ScoringStageTest : public ScoringTest {
 protected:
  void build(const ModelConfig& config, bool replay = false, bool shadow = false, std::int64_t run_ns = 0) {
    auto model = std::make_unique<SumModel>(run_ns, 1.0F, config.max_batch);
    model_ = model.get();
    stage_ = std::make_unique<ScoringStage>(ScoringStage::Setup{.scope = "agent",
                                                                .config = config,
                                                                .model = {std::move(model), config.id},
                                                                .layout = kLayout,
                                                                .replay = replay,
                                                                .router = shadow ? nullptr : &router_,
                                                                .scores = nullptr},
                                            stages_, stats_->error_log("agent"), *stats_, arena_);
    stats_->publish();
  }

  Signal score(float first, float second, signal::SignalHeader header, std::uint64_t age_ticks = 0) {
    const std::vector<float> input = {first, second};
    const std::uint64_t now = tsc_now();
    header.stage_ns[static_cast<std::size_t>(signal::Stage::Receive)] += tsc_to_ns(age_ticks);
    const ScoringStage::Job job{&header, input};
    stage_->process({&job, 1}, now);
    const std::vector<Signal> signals = drain();
    EXPECT_EQ(signals.size(), 1U);
    return signals.at(0);
  }

  /// Rows of one run, by their cells.
  std::vector<Signal> score_all(const std::vector<std::vector<float>>& inputs) {
    std::vector<signal::SignalHeader> headers;
    for (std::size_t i = 0; i < inputs.size(); ++i) headers.push_back(row(i + 1));
    std::vector<ScoringStage::Job> jobs;
    for (std::size_t i = 0; i < inputs.size(); ++i) jobs.push_back({&headers[i], inputs[i]});
    stage_->process(jobs, tsc_now());
    return drain();
  }

  StageHistograms stages_{*stats_, "agent"};
  SumModel* model_ = nullptr;
  std::unique_ptr<ScoringStage> stage_;
};

TEST_F(ScoringStageTest, GivesTheModelsScoreToAValidRow) {
  build(model_config(QueuePolicy::Every));
  const Signal signal = score(1.5F, 2.0F, row(7));
  EXPECT_EQ(signal.header.state, signal::SignalState::Valid);
  EXPECT_EQ(signal.header.scored, 1);
  EXPECT_EQ(signal.header.row, 7U);
  EXPECT_EQ(signal.header.model_id, 42U);
  EXPECT_EQ(signal.score, 3.5F);
  EXPECT_EQ(counter("scored"), 1);
}

TEST_F(ScoringStageTest, NeverCallsANumberThatIsNotFiniteValid) {
  build(model_config(QueuePolicy::Every));
  for (const float bad :
       {kNan, std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    const Signal signal = score(1.0F, bad, row(1));
    EXPECT_EQ(signal.header.state, signal::SignalState::NonFinite);
    EXPECT_EQ(signal.header.scored, 0);
    EXPECT_TRUE(std::isnan(signal.score));
  }
  EXPECT_TRUE(model_->runs.empty()) << "a row that is not finite is not worth a run";
  const Signal overflow = score(SumModel::kOverflow, 1.0F, row(2));
  EXPECT_EQ(overflow.header.state, signal::SignalState::NonFinite);
  EXPECT_TRUE(std::isnan(overflow.score));
  EXPECT_EQ(counter("nonfinite"), 4);
}

TEST_F(ScoringStageTest, ReportsARunThatFailedAndGoesOn) {
  build(model_config(QueuePolicy::Every));
  const Signal failed = score(SumModel::kFail, 1.0F, row(1));
  EXPECT_EQ(failed.header.state, signal::SignalState::ModelError);
  EXPECT_EQ(failed.header.scored, 0);
  EXPECT_TRUE(std::isnan(failed.score));
  EXPECT_EQ(score(1.0F, 1.0F, row(2)).score, 2.0F);
  EXPECT_EQ(counter("model_errors"), 1);
}

TEST_F(ScoringStageTest, DoesNotScoreARowThatIsTooOld) {
  build(model_config(QueuePolicy::Every, 2, 50'000'000));
  EXPECT_EQ(score(1.0F, 1.0F, row(1)).header.state, signal::SignalState::Valid);
  const Signal old = score(1.0F, 1.0F, row(2), ns_to_tsc(60'000'000));
  EXPECT_EQ(old.header.state, signal::SignalState::Stale);
  EXPECT_TRUE(std::isnan(old.score));
  EXPECT_EQ(model_->runs.size(), 1U);

  signal::SignalHeader late = row(3);  // It waited in the kernel before we saw it.
  late.stage_ns[static_cast<std::size_t>(signal::Stage::Receive)] = 60'000'000;
  EXPECT_EQ(score(1.0F, 1.0F, late).header.state, signal::SignalState::Stale);
  EXPECT_EQ(counter("stale"), 2);
}

TEST_F(ScoringStageTest, ARowThatGrowsTooOldWhileTheModelRunsLeavesAsStaleAndWithoutAScore) {
  build(model_config(QueuePolicy::Every, 2, 50'000'000), false, false, 60'000'000);
  const Signal late = score(1.0F, 1.0F, row(1));
  EXPECT_EQ(model_->runs.size(), 1U) << "before the run it was young enough";
  EXPECT_EQ(late.header.state, signal::SignalState::Stale);
  EXPECT_TRUE(std::isnan(late.score));
  EXPECT_EQ(counter("stale"), 1);
  EXPECT_EQ(counter("scored"), 0);
}

TEST_F(ScoringStageTest, AgeCountsFromTheEarliestThatAMessageMayHaveArrived) {
  build(model_config(QueuePolicy::Every, 2, 50'000'000));
  signal::SignalHeader unseen = row(1);
  unseen.unseen_us = 60'000;
  EXPECT_EQ(score(1.0F, 1.0F, unseen).header.state, signal::SignalState::Stale);
  EXPECT_TRUE(model_->runs.empty()) << "it is known before the run";
  unseen.unseen_us = 1'000;
  EXPECT_EQ(score(1.0F, 1.0F, unseen).header.state, signal::SignalState::Valid);
}

TEST_F(ScoringStageTest, WhatARowWaitedAndWhatTheModelTakesAddUp) {
  build(model_config(QueuePolicy::Every, 2, 1'000'000'000), false, false, 250'000'000);
  signal::SignalHeader unseen = row(1);
  unseen.unseen_us = 800'000;  // Each alone would be no reason.
  const Signal both = score(1.0F, 1.0F, unseen);
  EXPECT_EQ(model_->runs.size(), 1U);
  EXPECT_EQ(both.header.state, signal::SignalState::Stale);
  EXPECT_TRUE(std::isnan(both.score));
}

TEST_F(ScoringStageTest, AReplayTakesAsLongAsItLikes) {
  build(model_config(QueuePolicy::Every, 2, 50'000'000), true, false, 60'000'000);
  const Signal signal = score(1.0F, 1.0F, row(1));
  EXPECT_EQ(signal.header.state, signal::SignalState::Valid);
  EXPECT_EQ(signal.score, 2.0F);
}

TEST_F(ScoringStageTest, KeepsAQuickModelWarmAndNobodySeesIt) {
  build(model_config(QueuePolicy::Every));
  EXPECT_FALSE(stage_->keep_warm()) << "how long it takes is not known yet";
  stage_->warm_up();
  EXPECT_TRUE(stage_->keep_warm()) << "it has never run";
  EXPECT_EQ(model_->runs, (std::vector<std::size_t>{1}));
  EXPECT_TRUE(drain().empty());
  EXPECT_EQ(counter("scored"), 0);

  EXPECT_EQ(score(SumModel::kFail, 1.0F, row(1)).header.state, signal::SignalState::ModelError);
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(stage_->keep_warm()) << "its last run is a while ago";
  EXPECT_EQ(counter("model_errors"), 1) << "of a row alone";
  EXPECT_EQ(score(1.5F, 2.0F, row(2)).score, 3.5F);
}

TEST_F(ScoringStageTest, LeavesASlowModelAlone) {
  build(model_config(QueuePolicy::Every), false, false, 1'000'000);
  stage_->warm_up();
  EXPECT_FALSE(stage_->keep_warm()) << "a row that comes meanwhile would wait";
  EXPECT_TRUE(model_->runs.empty());
}

TEST_F(ScoringStageTest, AReplayKeepsNothingWarm) {
  build(model_config(QueuePolicy::Every), true);
  stage_->warm_up();
  EXPECT_FALSE(stage_->keep_warm());
}

TEST_F(ScoringStageTest, AReplayIgnoresAge) {
  build(model_config(QueuePolicy::Every, 2, 50'000'000), true);
  EXPECT_EQ(score(1.0F, 1.0F, row(1), ns_to_tsc(60'000'000)).header.state, signal::SignalState::Valid);
}

TEST_F(ScoringStageTest, PassesARowOnThatWantsNoScore) {
  build(model_config(QueuePolicy::Every));
  signal::SignalHeader header = row(1);
  header.scored = 0;
  const Signal signal = score(1.0F, 1.0F, header);
  EXPECT_EQ(signal.header.state, signal::SignalState::Valid);
  EXPECT_EQ(signal.header.scored, 0);
  EXPECT_TRUE(std::isnan(signal.score));
  EXPECT_TRUE(model_->runs.empty());
}

TEST_F(ScoringStageTest, StagesAddUpToTheTimeOfPublication) {
  build(model_config(QueuePolicy::Every));
  signal::SignalHeader header = row(1);
  for (std::size_t i = 0; i < 5; ++i) header.stage_ns[i] = static_cast<std::int64_t>(1000 * (i + 1));
  const Signal signal = score(1.0F, 1.0F, header);
  std::int64_t total_ns = 0;
  for (const std::int64_t ns : signal.header.stage_ns) total_ns += ns;
  EXPECT_GE(total_ns, 15'000);
  EXPECT_EQ(signal.header.ts_out, signal.header.ts_recv + total_ns);
}

// A thread that is moved to another core between two readings may see the later one come out first.
TEST_F(ScoringStageTest, AReadingOfAnotherCoreThatIsAheadMakesNoStageLessThanNothing) {
  build(model_config(QueuePolicy::Every, 2, 1'000'000'000));
  signal::SignalHeader header = row(1);
  const std::vector<float> input = {1.0F, 2.0F};
  const ScoringStage::Job job{&header, input};
  stage_->process({&job, 1}, tsc_now() + ns_to_tsc(3'600'000'000'000));
  const std::vector<Signal> signals = drain();
  ASSERT_EQ(signals.size(), 1U);
  EXPECT_EQ(signals[0].header.state, signal::SignalState::Valid) << "and nothing older than it is";
  EXPECT_EQ(signals[0].header.stage_ns[static_cast<std::size_t>(signal::Stage::Model)], 0);
  stages_.close(header, tsc_now() + ns_to_tsc(3'600'000'000'000));
  EXPECT_EQ(header.stage_ns[static_cast<std::size_t>(signal::Stage::Publish)], 0);
  EXPECT_EQ(header.ts_out, header.ts_recv);
}

TEST_F(ScoringStageTest, OneRunScoresSeveralRowsAndEachSaysOfHowMany) {
  build(model_config(QueuePolicy::Every, 2, 0, 4));
  const std::vector<Signal> signals =
      score_all({{1.0F, 2.0F}, {kNan, 1.0F}, {SumModel::kOverflow, 0.0F}, {3.0F, 4.0F}});
  ASSERT_EQ(signals.size(), 4U);
  EXPECT_EQ(model_->runs, std::vector<std::size_t>{3}) << "the row that is not finite was left out";
  const std::vector<signal::SignalState> states = {signal::SignalState::Valid, signal::SignalState::NonFinite,
                                                   signal::SignalState::NonFinite,
                                                   signal::SignalState::Valid};
  const std::vector<int> scored = {3, 0, 3, 3};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(signals[i].header.row, i + 1);
    EXPECT_EQ(signals[i].header.state, states[i]) << i;
    EXPECT_EQ(signals[i].header.scored, scored[i]) << i;
  }
  EXPECT_EQ(signals[0].score, 3.0F);
  EXPECT_TRUE(std::isnan(signals[1].score));
  EXPECT_TRUE(std::isnan(signals[2].score));
  EXPECT_EQ(signals[3].score, 7.0F);
  EXPECT_EQ(counter("scored"), 2);
  EXPECT_EQ(counter("nonfinite"), 2);
}

TEST_F(ScoringStageTest, ARunThatFailedFailsItsWholeBatch) {
  build(model_config(QueuePolicy::Every, 2, 0, 4));
  const std::vector<Signal> signals = score_all({{1.0F, 2.0F}, {SumModel::kFail, 1.0F}});
  ASSERT_EQ(signals.size(), 2U);
  for (const Signal& signal : signals) {
    EXPECT_EQ(signal.header.state, signal::SignalState::ModelError);
    EXPECT_EQ(signal.header.scored, 0);
    EXPECT_TRUE(std::isnan(signal.score));
  }
  EXPECT_EQ(counter("model_errors"), 2);
}

TEST_F(ScoringStageTest, AShadowScoresAndRoutesNothing) {
  build(model_config(QueuePolicy::Every), false, true);
  EXPECT_TRUE(score_all({{1.0F, 2.0F}}).empty());
  EXPECT_EQ(model_->runs.size(), 1U);
  EXPECT_EQ(counter("scored"), 1);
  EXPECT_EQ(counter("output_dropped"), 0);
}

TEST_F(ScoringStageTest, GoesOverToAnotherModelBetweenTwoRows) {
  build(model_config(QueuePolicy::Every));
  EXPECT_EQ(score(1.0F, 1.0F, row(1)).header.model_id, 42U);
  auto other = std::make_unique<LoadedModel>();
  other->model = std::make_unique<SumModel>(0, 10.0F);
  other->id = 43;
  stage_->prepare(*other);
  stage_->offer(std::move(other));
  EXPECT_EQ(score(1.0F, 1.0F, row(2)).score, 2.0F) << "not before it is adopted";
  EXPECT_EQ(stage_->former(), nullptr);
  stage_->adopt();
  const Signal after = score(1.0F, 1.0F, row(3));
  EXPECT_EQ(after.score, 20.0F);
  EXPECT_EQ(after.header.model_id, 43U);
  const std::unique_ptr<LoadedModel> former = stage_->former();
  ASSERT_NE(former, nullptr);
  EXPECT_EQ(former->id, 42U);
  EXPECT_EQ(former->model.get(), model_);
  EXPECT_EQ(model_->runs.size(), 2U);
}

TEST_F(ScoringStageTest, AnOfferThatNobodyTookCanBeTakenBack) {
  build(model_config(QueuePolicy::Every));
  auto other = std::make_unique<LoadedModel>();
  other->model = std::make_unique<SumModel>();
  stage_->prepare(*other);
  stage_->offer(std::move(other));
  EXPECT_TRUE(stage_->withdraw());
  EXPECT_FALSE(stage_->withdraw());
  stage_->adopt();
  EXPECT_EQ(stage_->model_id(), 42U);
}

class InferenceAgentTest : public ScoringTest {
 protected:
  void build(QueuePolicy policy, std::size_t limit = 2, std::int64_t run_ns = 0, std::size_t max_batch = 1) {
    config_ = model_config(policy, limit, 0, max_batch);
    auto model = std::make_unique<SumModel>(run_ns, 1.0F, max_batch);
    model_ = model.get();
    agent_ = std::make_unique<InferenceAgent>("infer",
                                              ScoringStage::Setup{.scope = "infer",
                                                                  .config = config_,
                                                                  .model = {std::move(model), config_.id},
                                                                  .layout = kLayout,
                                                                  .replay = false,
                                                                  .router = &router_,
                                                                  .scores = nullptr},
                                              AgentPost{.waker = agent_waker_, .ring_in_hand = ring_in_hand_},
                                              3, *stats_, arena_);
    agent_->add_input(work_);
    stats_->publish();
  }

  void push(signal::SignalHeader header, float value) {
    std::byte* slot = work_.try_claim();
    ASSERT_NE(slot, nullptr);
    WorkHead& head = work_head(slot);
    head.header = header;
    head.tsc_pushed = tsc_now() + ahead_;
    work_input(slot)[0] = value;
    work_input(slot)[1] = 0.5F;
    work_.publish();
  }
  void notice(InstrumentId instrument) {
    signal::SignalHeader header{};
    header.instrument = instrument;
    header.state = signal::SignalState::Suspect;
    push(header, 0.0F);
  }

  /// What left, as "instrument/row=score" or "instrument/!" for a notice.
  std::string run() {
    while (agent_->do_work() != 0) {
    }
    std::string text;
    for (const Signal& signal : drain()) {
      if (!text.empty()) text += ' ';
      text += std::to_string(signal.header.instrument) + '/';
      text += signal.header.row == 0 ? "!"
                                     : std::to_string(signal.header.row) + '=' +
                                           std::to_string(static_cast<int>(signal.score * 10));
    }
    return text;
  }

  std::uint64_t ahead_ = 0;  // Of the core that pushes.
  ModelConfig config_ = model_config(QueuePolicy::Every);
  concurrent::SpscQueue work_{arena_, work_slot_bytes(2), 8};
  SumModel* model_ = nullptr;
  concurrent::Waker agent_waker_;
  concurrent::Cell<std::uint32_t> ring_in_hand_;
  std::unique_ptr<InferenceAgent> agent_;
};

TEST_F(InferenceAgentTest, EveryScoresAllRowsInOrder) {
  build(QueuePolicy::Every);
  for (std::uint64_t i = 1; i <= 5; ++i) push(row(i), static_cast<float>(i));
  notice(0);
  push(row(1), 9.0F);
  EXPECT_EQ(run(), "0/1=15 0/2=25 0/3=35 0/4=45 0/5=55 0/! 0/1=95");
}

TEST_F(InferenceAgentTest, ARowThatWasPushedByAClockAheadHasNotWaitedInItsQueue) {
  build(QueuePolicy::Every);
  ahead_ = ns_to_tsc(3'600'000'000'000);
  push(row(1), 1.0F);
  while (agent_->do_work() != 0) {
  }
  const std::vector<Signal> signals = drain();
  ASSERT_EQ(signals.size(), 1U);
  EXPECT_EQ(signals[0].header.stage_ns[static_cast<std::size_t>(signal::Stage::Queue)], 0);
  EXPECT_GE(signals[0].header.ts_out, signals[0].header.ts_recv);
  EXPECT_LT(signals[0].header.ts_out - signals[0].header.ts_recv, 3'600'000'000'000);
}

TEST_F(InferenceAgentTest, ABatchIsWhatWaitsAlreadyUpToItsLimitAndNeverPassesANotice) {
  build(QueuePolicy::Every, 2, 0, 3);
  for (std::uint64_t i = 1; i <= 4; ++i) push(row(i), static_cast<float>(i));
  notice(0);
  push(row(1), 9.0F);
  push(row(2), 8.0F);
  EXPECT_EQ(run(), "0/1=15 0/2=25 0/3=35 0/4=45 0/! 0/1=95 0/2=85");
  EXPECT_EQ(model_->runs, (std::vector<std::size_t>{3, 1, 2}));
  push(row(3), 7.0F);
  EXPECT_EQ(run(), "0/3=75") << "a single row does not wait for others";
}

TEST_F(InferenceAgentTest, ConflateLeavesOutTheOutdatedFromABatch) {
  build(QueuePolicy::Conflate, 2, 0, 4);
  push(row(1, 0), 1.0F);
  push(row(1, 1), 2.0F);
  push(row(2, 0), 3.0F);
  push(row(1, 2), 4.0F);
  EXPECT_EQ(run(), "1/1=25 0/2=35 2/1=45");
  EXPECT_EQ(model_->runs, (std::vector<std::size_t>{3}));
  EXPECT_EQ(counter("unscored_conflated"), 1);
}

TEST_F(InferenceAgentTest, ANoticeThatFindsNoRoomStaysInTheRingAndAllBehindIt) {
  build(QueuePolicy::Every);
  const std::size_t room = router_.room();
  for (std::size_t i = 0; i < room; ++i) {
    ASSERT_NE(router_.try_claim_row(), nullptr);
    router_.publish();
  }
  notice(1);
  push(row(1), 1.0F);
  EXPECT_EQ(agent_->do_work(), 0);
  EXPECT_EQ(work_.readable(), 2U);
  router_queue_.release(room);
  EXPECT_EQ(run(), "1/! 0/1=15");
}

TEST_F(InferenceAgentTest, NoticesNameTheModelWhoseRowsTheyEnd) {
  build(QueuePolicy::Every);
  notice(2);
  while (agent_->do_work() != 0) {
  }
  const std::vector<Signal> signals = drain();
  ASSERT_EQ(signals.size(), 1U);
  EXPECT_EQ(signals[0].header.model_id, 42U);
}

TEST_F(InferenceAgentTest, DropOldestKeepsTheLimitAndCountsTheRest) {
  build(QueuePolicy::DropOldest, 2);
  for (std::uint64_t i = 1; i <= 6; ++i) push(row(i), static_cast<float>(i));
  EXPECT_EQ(run(), "0/5=55 0/6=65");
  EXPECT_EQ(counter("unscored_dropped_oldest"), 4);
  EXPECT_EQ(counter("scored"), 2);
}

TEST_F(InferenceAgentTest, ConflateScoresTheNewestRowOfEachInstrument) {
  build(QueuePolicy::Conflate);
  push(row(1, 0), 1.0F);
  push(row(1, 1), 2.0F);
  push(row(2, 0), 3.0F);
  push(row(3, 0), 4.0F);
  push(row(1, 2), 5.0F);
  push(row(2, 1), 6.0F);
  EXPECT_EQ(run(), "0/3=45 2/1=55 1/2=65");
  EXPECT_EQ(counter("unscored_conflated"), 3);
}

TEST_F(InferenceAgentTest, NoPolicyDropsANotice) {
  build(QueuePolicy::Conflate);
  push(row(1, 0), 1.0F);
  notice(0);
  push(row(1, 1), 2.0F);
  EXPECT_EQ(run(), "0/! 1/1=25") << "the row before the notice is not the newest thing said of instrument 0";
  push(row(2, 1), 3.0F);
  notice(2);
  EXPECT_EQ(run(), "1/2=35 2/!");
}

TEST_F(InferenceAgentTest, ATurnEndsThoughRowsWait) {
  build(QueuePolicy::DropOldest, 4, 20'000'000);
  for (std::uint64_t i = 1; i <= 4; ++i) push(row(i), static_cast<float>(i));
  EXPECT_EQ(agent_->do_work(), 1) << "one run is longer than a turn";
  for (std::uint64_t i = 5; i <= 8; ++i) push(row(i), static_cast<float>(i));
  EXPECT_EQ(run(), "0/1=15 0/5=55 0/6=65 0/7=75 0/8=85") << "the policy saw what came meanwhile";
  EXPECT_EQ(counter("unscored_dropped_oldest"), 3);
  EXPECT_EQ(counter("scored"), 5);
}

TEST_F(InferenceAgentTest, AStopScoresWhatWaits) {
  build(QueuePolicy::Every);
  for (std::uint64_t i = 1; i <= 3; ++i) push(row(i), static_cast<float>(i));
  agent_->on_close();
  EXPECT_EQ(run(), "0/1=15 0/2=25 0/3=35");
  EXPECT_EQ(counter("unscored_shutdown"), 0);
}

TEST_F(InferenceAgentTest, AStopDoesNotWaitForAModelThatIsFarBehindAndCountsWhatItLeft) {
  build(QueuePolicy::Every, 2, 800'000'000);
  for (std::uint64_t i = 1; i <= 6; ++i) push(row(i), static_cast<float>(i));
  notice(1);
  agent_->on_close();
  const std::int64_t scored = counter("scored");
  EXPECT_GE(scored, 1);
  EXPECT_LE(scored, 3);
  EXPECT_EQ(scored + counter("unscored_shutdown"), 6);
  EXPECT_TRUE(run().ends_with(" 1/!")) << "a notice is never lost";
}

}  // namespace
}  // namespace tickwire::engine

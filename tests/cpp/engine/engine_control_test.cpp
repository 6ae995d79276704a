/// What the control plane does to a running engine: exchanges models, replaces, ends and gives up workers.

#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/ingest_rig.hpp"
#include "infer/model_files.hpp"
#include "tickwire/core/error.hpp"
#include "tickwire/engine/engine.hpp"

namespace tickwire::engine {
namespace {

using infer::testing::has;
using infer::testing::model_file;
using infer::testing::ort_library;
using infer::testing::setup_error;
using test::Capture;
using test::diff;
using test::engine_config;
using test::price_feed;

constexpr std::uint64_t kRows = 2000;  // More than the rings hold together.

/// A record as it was polled.
struct Row {
  std::uint64_t row;
  std::uint32_t model_id;
  signal::SignalState state;
  float feature;
  float score;
};

class EngineControl : public testing::Test {
 protected:
  EngineConfig config(Layout layout) {
    Capture capture;
    capture.open(0).begin(10);
    std::uint64_t id = 10;
    for (std::uint64_t i = 1; i <= kRows; ++i, id += 2) {
      capture.line(20 + static_cast<std::int64_t>(i),
                   diff("AAA", id, id + 2, "100:" + std::to_string(i % 2 == 0 ? 7 : 1 + i % 5), ""));
    }
    capture.write(folder_ / "a.log");
    EngineConfig config = engine_config({price_feed("usdm", {"AAA", "BBB"}, {folder_ / "a.log"})}, true);
    config.layout = layout;
    config.output_slots = 64;  // Small, so that the replay waits for whoever polls.
    config.stat_path = folder_ / "engine.stat";
    config.features.plan.outputs = {0, 0, 0, 0};
    config.models = {model("m", 7)};
    config.worker_program =
        std::filesystem::read_symlink("/proc/self/exe").parent_path() / "tools" / "tickwire-worker";
    return config;
  }
  static ModelConfig model(const std::string& name, std::uint32_t id) {
    ModelConfig config = test::model_config(name, id, {{model_file("good_free_batch"), 1.0}});
    config.ort_library = ort_library();
    config.queue_slots = 16;
    return config;
  }

  /// Takes what there is; how many.
  std::size_t take(Engine& engine) {
    const RecordBatch batch = engine.poll();
    for (std::size_t i = 0; i < batch.count; ++i) {
      const signal::RecordView view(const_cast<std::byte*>(batch.records + i * batch.stride),
                                    engine.layout());
      if (view.header().row == 0) continue;
      rows_.push_back({view.header().row, view.header().model_id, view.header().state, view.features()[0],
                       view.scores()[0]});
    }
    engine.release();
    return batch.count;
  }
  bool until(Engine& engine, const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end || engine.failed()) return false;
      if (take(engine) == 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    return true;
  }
  bool until_rows(Engine& engine, std::size_t count) {
    return until(engine, [&] { return rows_.size() >= count; });
  }
  /// The rest, and the end of it.
  void finish(Engine& engine) {
    ASSERT_TRUE(until(engine, [&] { return engine.finished(); }));
    while (take(engine) != 0) {
    }
    engine.stop();
    while (take(engine) != 0) {
    }
  }
  /// Every row once, in its order; scores are a function of the feature alone, within a model's id.
  void expect_all_rows() {
    ASSERT_EQ(rows_.size(), kRows);
    std::map<std::pair<std::uint32_t, float>, float> scores;
    for (std::uint64_t i = 0; i < kRows; ++i) {
      ASSERT_EQ(rows_[i].row, i + 1);
      const auto qty = static_cast<float>((i + 1) % 2 == 0 ? 7 : 1 + (i + 1) % 5);
      ASSERT_FLOAT_EQ(rows_[i].feature, (qty - 1) / (qty + 1)) << i;
      if (rows_[i].state != signal::SignalState::Valid) {
        ASSERT_TRUE(std::isnan(rows_[i].score));
        continue;
      }
      const auto [known, fresh] = scores.try_emplace({rows_[i].model_id, rows_[i].feature}, rows_[i].score);
      ASSERT_EQ(known->second, rows_[i].score) << i;
    }
  }
  /// Which models scored, in the order of the rows: "7 8".
  std::string by_model() const {
    std::string text;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      if (i != 0 && rows_[i - 1].model_id == rows_[i].model_id) continue;
      if (i != 0) text += ' ';
      text += std::to_string(rows_[i].model_id);
    }
    return text;
  }
  static bool ended(const WorkerState& state) {
    pollfd end{state.pidfd, POLLIN, 0};
    return ::poll(&end, 1, 0) > 0;
  }

  test::Folder folder_;
  std::vector<Row> rows_;
};

TEST_F(EngineControl, AModelIsExchangedBetweenTwoRowsInEachLayoutOfThreads) {
  TICKWIRE_NEEDS_ORT();
  for (const Layout layout : {Layout::Inline, Layout::Threads}) {
    SCOPED_TRACE(static_cast<int>(layout));
    rows_.clear();
    EngineConfig settings = config(layout);
    settings.models.push_back(model("other", 20));
    settings.models[1].shadow = true;
    Engine engine(settings);
    engine.start();
    ASSERT_TRUE(until_rows(engine, 10));
    engine.swap_model(0, {{model_file("good_nameless_batch"), 1.0}}, 8);
    EXPECT_EQ(engine.models()[0].ids, (std::vector<std::uint32_t>{7, 8}));
    EXPECT_EQ(engine.models()[0].id, 8U);
    EXPECT_EQ(engine.models()[1].ids, std::vector<std::uint32_t>{20});
    ASSERT_TRUE(until_rows(engine, 300));
    EXPECT_TRUE(has(setup_error([&] { engine.swap_model(0, {{model_file("bad_two_inputs"), 1.0}}, 9); }),
                    {"bad_two_inputs"}));
    EXPECT_EQ(engine.models()[0].id, 8U) << "it goes on with what it has";
    finish(engine);
    expect_all_rows();
    EXPECT_EQ(by_model(), "7 8");
  }
}

TEST_F(EngineControl, SaysWhatItIsMadeOf) {
  TICKWIRE_NEEDS_ORT();
  EngineConfig settings = config(Layout::Threads);
  settings.models.push_back(model("other", 20));
  settings.models[1].shadow = true;
  settings.record_dir = folder_ / "run";
  settings.record_sync_ns = 1'000'000;
  Engine engine(settings);
  const auto says = [&](const std::string& text) {
    for (const std::string& line : engine.report()) {
      if (line.find(text) != std::string::npos) return true;
    }
    return false;
  };
  EXPECT_TRUE(says("memory: "));
  EXPECT_TRUE(says("clock: "));
  EXPECT_TRUE(says("model m: " + model_file("good_free_batch") + ", "));
  EXPECT_TRUE(says("a shadow: recorded, not routed"));
  EXPECT_TRUE(says("thread tw-ingest0: floats"));
  EXPECT_TRUE(says("thread tw-infer-m-0: floats"));
  engine.start();
  EXPECT_TRUE(has(setup_error([&] { engine.start(); }), {"engine", "a new engine"}));
  std::vector<std::string> names;
  for (const auto& [name, id] : engine.threads()) {
    EXPECT_GT(id, 0) << name;
    names.push_back(name);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"tw-sync", "tw-recorder", "tw-infer-m-0", "tw-infer-other-0",
                                             "tw-ingest0"}));
  EXPECT_TRUE(engine.capture_facts().empty()) << "not before the end";
  EXPECT_TRUE(engine.warm_report().empty());
  EXPECT_EQ(engine.max_snapshot_bytes(), 0U) << "a replay asks for none";
  EXPECT_EQ(engine.stat_path(), settings.stat_path);
  EXPECT_EQ(engine.stat_bytes_missing(), 0U);
  EXPECT_FALSE(engine.stat_view().empty());
  finish(engine);
  expect_all_rows();
  EXPECT_EQ(engine.capture_facts().size(), 1U);
  for (const DutyCycles& duty : engine.duty_cycles()) EXPECT_GE(duty.cycles, duty.busy) << duty.thread;
  EXPECT_FALSE(engine.poll_request().has_value());
  EXPECT_FALSE(engine.has_output());
  engine.finish_recording();
  std::map<std::string, std::uint64_t> files;
  for (const RecordedFile& file : engine.recorded_files()) files[file.file] = file.bytes;
  const std::uint64_t record = engine.layout().record_bytes();
  EXPECT_EQ(files["rows/ingest0/000001.bin"], kRows * record);
  EXPECT_EQ(files["scores/infer-m-0/000001.bin"], kRows * record);
  EXPECT_EQ(files["scores/infer-other-0/000001.bin"], kRows * record) << "a shadow's, too";
  EXPECT_GT(files["capture/usdm/000001.log"], 0U);
}

TEST(EngineSnapshots, AreRefusedForWhatNoFeedAsksFor) {
  FeedConfig first = price_feed("first", {"AAA", "BBB"}, {});
  FeedConfig second = price_feed("second", {"CCC"}, {});
  first.url = second.url = "ws://127.0.0.1:1/ws";
  EngineConfig settings = engine_config({first, second}, false);
  settings.output_slots = 64;
  Engine engine(settings);
  EXPECT_GT(engine.max_snapshot_bytes(), std::size_t{1} << 20U);
  for (const auto& [feed, instrument] : {std::pair{0U, 0U}, {0U, 1U}, {1U, 2U}}) {
    EXPECT_TRUE(engine.deliver_snapshot(feed, instrument, "{}"));
    EXPECT_TRUE(engine.fail_snapshot(feed, instrument, "no answer"));
  }
  const auto refusal = [](Engine& of, std::uint32_t feed, InstrumentId instrument) -> std::string {
    std::string both;
    for (const bool failed : {false, true}) {
      try {
        (void)(failed ? of.fail_snapshot(feed, instrument, "") : of.deliver_snapshot(feed, instrument, ""));
      } catch (const std::invalid_argument& error) {
        both += error.what();
      }
    }
    return both;
  };
  const auto twice = [](const std::string& text) { return text + text; };
  EXPECT_EQ(refusal(engine, 2, 0), twice("snapshot for feed 2, instrument 0: expected a feed from 0 to 1"));
  for (const std::uint32_t feed : {3U, ~0U}) EXPECT_NE(refusal(engine, feed, 0), "") << feed;
  EXPECT_EQ(refusal(engine, 0, 2),
            twice("snapshot for feed 0, instrument 2: expected an instrument of it, from 0 to 1"));
  EXPECT_EQ(refusal(engine, 1, 1),
            twice("snapshot for feed 1, instrument 1: expected an instrument of it, from 2 to 2"));
  EXPECT_NE(refusal(engine, 1, 3), "");
  EXPECT_NE(refusal(engine, 1, kNoInstrument), "");

  const test::Folder folder;
  Capture().begin(0).write(folder / "a.log");
  Engine replay(engine_config({price_feed("usdm", {"AAA"}, {folder / "a.log"})}, true));
  EXPECT_EQ(refusal(replay, 0, 0),
            twice("snapshot for feed 0, instrument 0: expected a live feed that asks for snapshots"));
}

TEST_F(EngineControl, AWorkerHandsOverToAnotherModelAndADeadOneIsFollowedByANewOne) {
  TICKWIRE_NEEDS_ORT();
  EngineConfig settings = config(Layout::Processes);
  settings.record_dir = folder_ / "run";
  Engine engine(settings);
  engine.start();
  WorkerHost& host = *engine.workers().at(0);
  EXPECT_EQ(host.name(), "infer0");
  EXPECT_EQ(host.state(false).phase, WorkerPhase::Running);
  EXPECT_EQ(host.state(true).pid, 0);
  ASSERT_TRUE(until_rows(engine, 10));

  EXPECT_TRUE(has(setup_error([&] { engine.prepare_model(0, {{model_file("bad_two_inputs"), 1.0}}, 9); }),
                  {"bad_two_inputs"}));
  engine.prepare_model(0, {{model_file("good_nameless_batch"), 1.0}}, 8);
  host.start_aside(engine.prepared(0));
  EXPECT_TRUE(has(setup_error([&] { host.start_aside(nullptr); }), {"no other replacement on its way"}));
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (host.state(true).phase != WorkerPhase::Ready && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_EQ(host.state(true).phase, WorkerPhase::Ready);
  engine.hand_over(0);
  ASSERT_TRUE(until(engine, [&] { return ended(host.state(false)); }));
  const std::optional<WorkerEnd> left = host.reap(false);
  ASSERT_TRUE(left.has_value());
  EXPECT_TRUE(left->in_order) << left->how;
  EXPECT_FALSE(left->killed_by_us);
  EXPECT_EQ(left->trouble, "");
  engine.went_over(0);
  EXPECT_EQ(engine.models()[0].ids, (std::vector<std::uint32_t>{7, 8}));
  EXPECT_EQ(host.model_id(), 8U);
  const std::size_t before = rows_.size();
  ASSERT_LT(before, kRows - 200);
  ASSERT_TRUE(until_rows(engine, before + 100));

  // It stops answering: it is killed, stock is taken, and another one goes on where it was.
  host.kill(false, true);
  ASSERT_TRUE(until(engine, [&] { return ended(host.state(false)); }));
  const std::optional<WorkerEnd> died = host.reap(false);
  ASSERT_TRUE(died.has_value());
  EXPECT_FALSE(died->in_order);
  EXPECT_TRUE(died->killed_by_us);
  EXPECT_EQ(died->how, "killed by signal 9 (Killed)");
  EXPECT_EQ(died->trouble, "");
  EXPECT_EQ(host.reap(false), std::nullopt) << "there is nobody";
  host.start();
  finish(engine);
  expect_all_rows();
  EXPECT_EQ(by_model(), "7 8");
  const metrics::StatReader reader(settings.stat_path);
  std::map<std::string, std::int64_t> counters;
  for (const auto& reading : reader.counters()) {
    if (reading.scope == "infer0") counters[reading.name] = reading.value;
  }
  EXPECT_EQ(counters["worker_replaced"], 1);
  EXPECT_EQ(counters["worker_hung"], 1);
  EXPECT_EQ(counters["worker_restarts"], 1);
  EXPECT_EQ(counters["untrusted_records"], 0);
  EXPECT_EQ(counters["scored"], static_cast<std::int64_t>(kRows));
  engine.finish_recording();
  std::map<std::string, std::uint64_t> files;
  for (const RecordedFile& file : engine.recorded_files()) files[file.file] = file.bytes;
  EXPECT_EQ(files["scores/infer0/000001.bin"], kRows * engine.layout().record_bytes());
}

TEST_F(EngineControl, AModelThatIsGivenUpLosesItsScoresAndNoRow) {
  TICKWIRE_NEEDS_ORT();
  Engine engine(config(Layout::Processes));
  engine.start();
  WorkerHost& host = *engine.workers().at(0);
  ASSERT_TRUE(until_rows(engine, 10));
  EXPECT_FALSE(host.given_up());
  EXPECT_FALSE(host.has_waiting());
  host.kill(false, false);
  ASSERT_TRUE(until(engine, [&] { return ended(host.state(false)); }));
  ASSERT_TRUE(host.reap(false).has_value());
  host.give_up("it died too often");
  EXPECT_TRUE(host.given_up());
  finish(engine);
  expect_all_rows();
  const auto first = std::find_if(rows_.begin(), rows_.end(), [](const Row& row) {
    return row.state == signal::SignalState::ModelError;
  });
  ASSERT_NE(first, rows_.end());
  EXPECT_TRUE(std::all_of(first, rows_.end(), [](const Row& row) {
    return row.state == signal::SignalState::ModelError && std::isnan(row.score) && row.model_id == 7;
  })) << "from there on none is scored";
}

TEST_F(EngineControl, AModelThatNoWorkerCanLoadIsAnErrorOfTheStart) {
  TICKWIRE_NEEDS_ORT();
  EngineConfig bad = config(Layout::Processes);
  bad.models[0].members = {{model_file("bad_unknown_operator"), 1.0}};
  EXPECT_TRUE(has(setup_error([&] { const Engine engine(bad); }), {"bad_unknown_operator"}));
  EngineConfig nowhere = config(Layout::Processes);
  nowhere.worker_program = folder_ / "no-such-program";
  EXPECT_TRUE(has(setup_error([&] { const Engine engine(nowhere); }),
                  {"a program that can be started", "no-such-program"}));
  EngineConfig hasty = config(Layout::Processes);
  hasty.models[0].start_timeout_ns = 1;
  EXPECT_TRUE(has(setup_error([&] { const Engine engine(hasty); }), {"model.start_timeout"}));
  EngineConfig missing = config(Layout::Processes);
  missing.models[0].members = {{folder_ / "none.onnx", 1.0}};
  EXPECT_TRUE(has(setup_error([&] { const Engine engine(missing); }), {"none.onnx"}));
}

}  // namespace
}  // namespace tickwire::engine

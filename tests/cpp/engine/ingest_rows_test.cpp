/// The ways of a row out of an ingest agent: to workers, through models of its own, and to the recorder.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "engine/ingest_rig.hpp"

namespace tickwire::engine {
namespace {

using test::Capture;
using test::diff;
using test::engine_config;
using test::IngestRig;
using test::Log;
using test::model_config;
using test::price_feed;
using test::snapshot_body;

/// Scores a window with the sum of its cells times a factor.
class SumModel final : public infer::Model {
 public:
  SumModel(std::size_t rows, float factor) : factor_(factor) {
    info_.rows = rows;
    info_.features = 1;
    info_.max_batch = 1;
    info_.score_names = {"sum"};
  }
  std::size_t warm_up(std::size_t, std::int64_t) override { return 0; }
  bool run_batch(std::size_t, std::size_t, std::span<float> scores) noexcept override {
    scores[0] = 0;
    for (std::size_t i = 0; i < info_.rows; ++i) scores[0] += factor_ * input_[i];
    return true;
  }
  std::string_view last_error() const noexcept override { return ""; }

 protected:
  std::size_t add_binding(const float* input, std::span<float>) override {
    input_ = input;
    return 0;
  }

 private:
  const float factor_;
  const float* input_ = nullptr;
};

class IngestRows : public testing::Test {
 protected:
  IngestRig& rig(const Capture& capture, const std::function<void(EngineConfig&)>& change = {}) {
    const std::string file = folder_ / "a.log";
    capture.write(file);
    EngineConfig config = engine_config({price_feed("usdm", {"AAA", "BBB", "CCC"}, {file})}, true);
    if (change) change(config);
    rig_ = std::make_unique<IngestRig>(std::move(config));
    return *rig_;
  }
  /// Rings to the workers of one model.
  std::vector<signal::SignalPort*> workers(std::size_t count, std::size_t floats, std::size_t slots = 64) {
    std::vector<signal::SignalPort*> ports;
    for (std::size_t i = 0; i < count; ++i) {
      outs_.push_back(std::make_unique<IngestRig::Out>(work_slot_bytes(floats), slots, 3, rig_->arena()));
      ports.push_back(&outs_.back()->port);
    }
    return ports;
  }
  void run() {
    rig_->start_as_set_up();
    for (int turn = 0; turn < 1000 && !rig_->agent().finished(); ++turn) rig_->agent().do_work();
    ASSERT_TRUE(rig_->agent().finished());
  }
  /// What a worker was sent: "AAA 1/2 +0.50" with its whole input, "AAA 1 gap" for a notice.
  Log sent(std::size_t worker, std::size_t floats) {
    static const std::string kNames[] = {"AAA", "BBB", "CCC"};
    Log log;
    for (concurrent::SpscQueue& queue = outs_[worker]->queue; queue.readable() != 0; queue.release(1)) {
      const signal::SignalHeader& header = work_head(queue.slot(0)).header;
      std::string text = kNames[header.instrument] + " " + std::to_string(header.epoch);
      if (header.row == 0) {
        log.push_back(text + " " + std::string(name_of(header.reason)));
        continue;
      }
      text += "/" + std::to_string(header.row);
      const float* const input = work_input(queue.slot(0));
      for (std::size_t i = header.scored != 0 ? 0 : floats - 1; i < floats; ++i) {
        char value[32];
        std::snprintf(value, sizeof value, " %+.2f", static_cast<double>(input[i]));
        text += value;
      }
      if (header.state != signal::SignalState::Valid) {
        text += " " + std::string(signal::kSignalStateNames[static_cast<std::size_t>(header.state)]);
      }
      log.push_back(text);
    }
    return log;
  }
  static Capture three() {
    Capture capture;
    capture.open(0).begin(10).begin(11, "BBB").begin(12, "CCC");
    return capture;
  }

  test::Folder folder_;
  std::unique_ptr<IngestRig> rig_;
  std::vector<std::unique_ptr<IngestRig::Out>> outs_;
};

TEST_F(IngestRows, WorkersThatShareInstrumentsAllHearOfABookThatLeftValid) {
  Capture capture = three();
  capture.line(20, diff("AAA", 10, 12, "100:1", ""))
      .line(21, diff("AAA", 12, 14, "100:7", ""))
      .line(30, diff("AAA", 20, 22, "", ""))  // A gap.
      .line(40, diff("BBB", 10, 12, "100:1", ""));
  rig(capture).agent().outlet().send_work_to(workers(3, 1), Assign::LeastLoaded, 1);
  run();
  // Each row goes to whoever has the most room, and the first of these: the first, then the second.
  EXPECT_EQ(sent(0, 1), (Log{"AAA 1/1 +0.00", "AAA 1 gap"}));
  EXPECT_EQ(sent(1, 1), (Log{"AAA 1/2 +0.75", "AAA 1 gap"}));
  EXPECT_EQ(sent(2, 1), (Log{"AAA 1 gap", "BBB 1/1 +0.00"}));
}

TEST_F(IngestRows, AWorkerOfItsOwnInstrumentsHearsOfTheseAlone) {
  Capture capture = three();
  capture.line(20, diff("AAA", 10, 12, "100:1", ""))
      .line(21, diff("BBB", 10, 12, "100:7", ""))
      .line(22, diff("CCC", 10, 12, "100:4", ""))
      .line(30, diff("AAA", 20, 22, "", ""))
      .line(31, diff("BBB", 20, 22, "", ""))
      .line(32, diff("CCC", 20, 22, "", ""));
  rig(capture).agent().outlet().send_work_to(workers(2, 1), Assign::Instrument, 1);
  run();
  EXPECT_EQ(sent(0, 1), (Log{"AAA 1/1 +0.00", "CCC 1/1 +0.60", "AAA 1 gap", "CCC 1 gap"}));
  EXPECT_EQ(sent(1, 1), (Log{"BBB 1/1 +0.75", "BBB 1 gap"}));
}

TEST_F(IngestRows, EachModelHasItsWorkersAndEachGetsTheRow) {
  Capture capture = three();
  capture.line(20, diff("BBB", 10, 12, "100:7", "")).line(30, diff("BBB", 20, 22, "", ""));
  IngestAgent& agent = rig(capture).agent();
  agent.outlet().send_work_to(workers(2, 1), Assign::Instrument, 1);
  agent.outlet().send_work_to(workers(1, 1), Assign::LeastLoaded, 1);
  run();
  EXPECT_EQ(sent(0, 1), Log{});
  EXPECT_EQ(sent(1, 1), (Log{"BBB 1/1 +0.75", "BBB 1 gap"}));
  EXPECT_EQ(sent(2, 1), (Log{"BBB 1/1 +0.75", "BBB 1 gap"}));
}

TEST_F(IngestRows, AWindowGoesOutWholeOrSaysThatItIsNot) {
  Capture capture = three();
  capture.line(20, diff("AAA", 10, 12, "100:1", ""))
      .line(21, diff("AAA", 12, 14, "100:7", ""))
      .line(22, diff("AAA", 14, 16, "100:3", ""))
      .line(30, diff("AAA", 20, 22, "", ""))
      .snapshot(31, "AAA", snapshot_body(22, "100:3", "101:1"))
      .line(40, diff("AAA", 22, 24, "100:1", ""));
  rig(capture, [](EngineConfig& config) { config.features.window_rows = 3; })
      .agent()
      .outlet()
      .send_work_to(workers(1, 3), Assign::Instrument, 3);
  run();
  EXPECT_EQ(sent(0, 3), (Log{"AAA 1/1 +0.00 warming", "AAA 1/2 +0.75 warming", "AAA 1/3 +0.00 +0.75 +0.50",
                             "AAA 1 gap", "AAA 2/1 +0.00 warming"}))
      << "a window is of one epoch";
}

TEST_F(IngestRows, AReplayWaitsForAWorkersRingAndDropsNothing) {
  Capture capture = three();
  for (std::uint64_t id = 10; id < 30; id += 2) {
    capture.line(static_cast<std::int64_t>(id), diff("AAA", id, id + 2, "100:" + std::to_string(id), ""));
  }
  rig(capture).agent().outlet().send_work_to(workers(1, 1, 4), Assign::Instrument, 1);
  rig_->start_as_set_up();
  std::size_t rows = 0;
  for (int turn = 0; turn < 1000 && !(rig_->agent().finished() && outs_[0]->queue.readable() == 0); ++turn) {
    rig_->agent().do_work();
    EXPECT_LE(outs_[0]->queue.readable(), 3U) << "the last place is for news";
    rows += sent(0, 1).size();
  }
  EXPECT_EQ(rows, 10U);
  EXPECT_EQ(rig_->counter("ingest0", "rows_dropped"), 0);
}

TEST_F(IngestRows, ModelsInlineScoreEachRowAndTheWindowsThatAreWhole) {
  Capture capture = three();
  capture.line(20, diff("AAA", 10, 12, "100:1", ""))
      .line(21, diff("AAA", 12, 14, "100:7", ""))
      .line(22, diff("AAA", 14, 16, "100:3", ""))
      .line(30, diff("AAA", 20, 22, "", ""));
  IngestRig& one = rig(capture, [](EngineConfig& config) { config.features.window_rows = 2; });
  const signal::RecordLayout layout{.score_count = 1, .feature_count = 1};
  IngestRig::Out out(layout.record_bytes(), 64, 3, one.arena());
  const ModelConfig first = model_config("first", 7);
  const ModelConfig second = model_config("second", 8);
  for (const ModelConfig* config : {&first, &second}) {
    one.agent().outlet().score_inline(
        {.scope = config->name,
         .config = *config,
         .model = {std::make_unique<SumModel>(2, config->id == 7 ? 1.0F : 10.0F), config->id},
         .layout = layout,
         .replay = true,
         .router = &out.port,
         .scores = nullptr},
        false, one.stats(), one.arena());
  }
  run();
  Log log;
  for (; out.queue.readable() != 0; out.queue.release(1)) {
    const signal::RecordView view(out.queue.slot(0), layout);
    const signal::SignalHeader& header = view.header();
    char text[64];
    if (header.row == 0) {
      std::snprintf(text, sizeof text, "news");
    } else {
      std::snprintf(text, sizeof text, "%u %lu %u %+.2f %s %+.2f", header.model_id, header.row, header.scored,
                    static_cast<double>(view.features()[0]),
                    std::string(signal::kSignalStateNames[static_cast<std::size_t>(header.state)]).c_str(),
                    header.scored != 0 ? static_cast<double>(view.scores()[0]) : 0.0);
      EXPECT_EQ(header.scored == 0, std::isnan(view.scores()[0]));
    }
    log.emplace_back(text);
  }
  EXPECT_EQ(log,
            (Log{"7 1 0 +0.00 warming +0.00", "8 1 0 +0.00 warming +0.00", "7 2 1 +0.75 valid +0.75",
                 "8 2 1 +0.75 valid +7.50", "7 3 1 +0.50 valid +1.25", "8 3 1 +0.50 valid +12.50", "news"}));
  EXPECT_EQ(one.agent().outlet().scoring(0).model_id(), 7U);
  EXPECT_EQ(one.agent().outlet().scoring(1).model_id(), 8U);
  EXPECT_EQ(one.counter("first", "scored"), 2);
  EXPECT_EQ(one.counter("second", "unscored_window"), 1);
}

TEST_F(IngestRows, ARowThatIsNotFiniteIsSaidToBe) {
  Capture capture;
  capture.open(0)
      .line(9, diff("AAA", 9, 10, "", ""))
      .snapshot(10, "AAA", snapshot_body(10, "100:3", ""))
      .snapshot(11, "AAA", snapshot_body(10, "100:3", ""))  // Believed the second time.
      .line(20, diff("AAA", 10, 12, "100:4", ""))
      .line(30, diff("AAA", 12, 14, "", "101:4"));
  IngestAgent& agent = rig(capture, [](EngineConfig& config) {
                         config.features.plan.nodes = {{features::find_kernel("spread"), -1, 0, 0, 0, 0, 0}};
                       }).agent();
  agent.outlet().send_work_to(workers(1, 1), Assign::Instrument, 1);
  run();
  const Log log = sent(0, 1);
  ASSERT_EQ(log.size(), 2U);
  EXPECT_TRUE(log[0].starts_with("AAA 1/1 ")) << log[0];
  EXPECT_TRUE(log[0].ends_with("nan nonfinite")) << log[0];
  EXPECT_EQ(log[1], "AAA 1/2 +99.50");  // 1 / 100.5, in basis points.
}

// A thread that is moved to another core between two readings may see the later one come out first.
TEST_F(IngestRows, ReadingsOfCoresThatDisagreeMakeNoStageLessThanNothing) {
  rig(three()).start();
  RowOutlet& outlet = rig_->agent().outlet();
  RowHistory history(1, 1, rig_->arena());
  history.next()[0] = 0.5F;
  history.commit();
  const std::uint64_t now = tsc_now();
  const std::uint64_t second = ns_to_tsc(1'000'000'000);
  const RowOutlet::Of of{
      .instrument = 0, .epoch = 1, .row = 1, .sequence = 1, .ts_event = 1, .missing_trades = 0};
  // Each reading is before the one that was made first, the newest an hour ahead of the next.
  const Arrival arrival{now - second, now - 2 * second, 1'000, RecvClock::Read};
  Step step;
  step.tsc_book = now - 3 * second;
  outlet.row(of, history, step, arrival);
  step.tsc_book = now + 3600 * second;
  outlet.row(of, history, step, arrival);
  RowOutlet::Of notice = of;
  notice.row = 0;
  outlet.notice(notice, md::BookState::Suspect, md::InvalidReason::Gap,
                {now + 3600 * second, now + 3600 * second, 1'000, RecvClock::Read});
  concurrent::SpscQueue& queue = rig_->router().queue;
  ASSERT_EQ(queue.readable(), 3U);
  const auto stage = [&queue, this](std::size_t record, signal::Stage which) {
    const signal::RecordView view(queue.slot(record), rig_->layout());
    return view.header().stage_ns[static_cast<std::size_t>(which)];
  };
  EXPECT_EQ(stage(0, signal::Stage::Decode), 0);
  EXPECT_EQ(stage(0, signal::Stage::Book), 0);
  EXPECT_GT(stage(0, signal::Stage::Features), 2'900'000'000);
  EXPECT_EQ(stage(1, signal::Stage::Features), 0);
  EXPECT_EQ(stage(2, signal::Stage::Book), 0);
  for (std::size_t i = 0; i < 3; ++i) {
    const signal::SignalHeader& header = signal::RecordView(queue.slot(i), rig_->layout()).header();
    std::int64_t total = 0;
    for (const std::int64_t ns : header.stage_ns) {
      EXPECT_GE(ns, 0);
      total += ns;
    }
    EXPECT_EQ(header.ts_out, header.ts_recv + total) << i;
  }
}

}  // namespace
}  // namespace tickwire::engine

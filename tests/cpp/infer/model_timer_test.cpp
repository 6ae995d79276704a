#include "tickwire/infer/model_timer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <set>
#include <thread>

#include "infer/model_files.hpp"

namespace tickwire::infer {
namespace {

using testing::has;
using testing::setup_error;

constexpr std::int64_t kMs = 1'000'000;

/// Notes what it is given, takes 2 ms for a run, and fails when told to.
class SlowModel final : public Model {
 public:
  explicit SlowModel(std::size_t max_batch) {
    info_.path = "slow.onnx";
    info_.rows = 1;
    info_.features = 3;
    info_.max_batch = max_batch;
    info_.score_names = {"y"};
  }
  const ModelInfo& info() const noexcept override { return info_; }
  std::size_t bind(const float* inputs) override {
    aligned = aligned && reinterpret_cast<std::uintptr_t>(inputs) % 64 == 0;
    return bound++;
  }
  std::size_t warm_up(std::size_t, std::int64_t) override { return 0; }
  bool run_batch(std::size_t handle, std::size_t count, std::span<float> scores) noexcept override {
    handles.insert(handle);
    counts.push_back(count);
    std::fill(scores.begin(), scores.end(), 0.0F);
    std::this_thread::sleep_for(std::chrono::nanoseconds(2 * kMs));
    return !fails;
  }
  std::string_view last_error() const noexcept override { return "told to fail"; }

  bool aligned = true;
  bool fails = false;
  std::size_t bound = 0;
  std::set<std::size_t> handles;
  std::vector<std::size_t> counts;

 private:
  ModelInfo info_;
};

TEST(ModelTimer, CountsARowsTimeFromItsArrival) {
  SlowModel model(2);
  ModelTimer timer(model);
  EXPECT_TRUE(model.aligned);
  // Five at once, in runs of 2, 2 and 1: the last waits for the runs before its own.
  const auto times =
      timer.time({.rows = 5, .interval_ns = 10 * kMs, .total_ns = 10 * kMs, .sleep = false, .cold = false});
  EXPECT_EQ(model.counts, (std::vector<std::size_t>{2, 2, 1}));
  ASSERT_EQ(times.size(), 5U);
  EXPECT_GE(times[0], 2 * kMs);
  EXPECT_EQ(times[0], times[1]) << "of one run";
  EXPECT_GE(times[2], times[1] + 2 * kMs);
  EXPECT_GE(times[4], times[3] + 2 * kMs);
}

TEST(ModelTimer, ChargesAStallToEveryRowItDelays) {
  SlowModel model(1);
  ModelTimer timer(model);
  // A row each millisecond, 2 ms a run: each is later than the one before it.
  const auto times =
      timer.time({.rows = 1, .interval_ns = kMs, .total_ns = 100 * kMs, .sleep = false, .cold = false});
  ASSERT_GE(times.size(), 2U);
  for (std::size_t i = 1; i < times.size(); ++i) EXPECT_GE(times[i], times[i - 1] + kMs - kMs / 10);
  EXPECT_LE(times.size(), 100U);
  EXPECT_EQ(times.size(), model.counts.size());
  EXPECT_GT(model.handles.size(), 1U) << "not the same row again and again";
}

TEST(ModelTimer, ChargesASleepersWakingToNobody) {
  SlowModel model(1);
  ModelTimer timer(model);
  for (const bool cold : {false, true}) {
    const auto times =
        timer.time({.rows = 1, .interval_ns = kMs, .total_ns = 1, .sleep = true, .cold = cold});
    ASSERT_EQ(times.size(), 1U) << "one arrival at least";
    EXPECT_GE(times[0], 2 * kMs);
  }
}

TEST(ModelTimer, RefusesAnEmptyLoadAndAModelThatFails) {
  SlowModel model(1);
  ModelTimer timer(model);
  EXPECT_TRUE(has(setup_error([&] { timer.time({0, kMs, kMs, false, false}); }), {"found 0 rows"}));
  EXPECT_TRUE(has(setup_error([&] { timer.time({1, 0, kMs, false, false}); }), {"each 0 ns"}));
  model.fails = true;
  EXPECT_TRUE(has(setup_error([&] { timer.time({1, kMs, kMs, false, false}); }),
                  {"slow.onnx: expected every run to succeed, found told to fail"}));
}

}  // namespace
}  // namespace tickwire::infer

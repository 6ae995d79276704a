#include "tickwire/infer/model_timer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <vector>

#include "infer/model_files.hpp"

namespace tickwire::infer {
namespace {

using testing::has;
using testing::setup_error;

constexpr std::int64_t kMs = 1'000'000;

/// Stands still but for what the test lets it do: no machine is too busy for it.
struct HandClock final : LoadClock {
  std::int64_t time = 7 * kMs;
  std::int64_t wakes_late = 0;
  std::size_t spins = 0;
  std::int64_t now() override { return time; }
  void spin_until(std::int64_t due) override {
    ++spins;
    time = std::max(time, due);
  }
  void sleep_until(std::int64_t due) override { time = std::max(time, due) + wakes_late; }
};

/// Notes what it is given, takes 2 ms of the clock's for a run, and fails when told to.
class SlowModel final : public Model {
 public:
  SlowModel(std::size_t max_batch, HandClock& clock) : clock_(clock) {
    info_.path = "slow.onnx";
    info_.rows = 1;
    info_.features = 3;
    info_.max_batch = max_batch;
    info_.score_names = {"y"};
  }
  std::size_t warm_up(std::size_t, std::int64_t) override { return 0; }
  bool run_batch(std::size_t handle, std::size_t count, std::span<float> scores) noexcept override {
    handles.insert(handle);
    counts.push_back(count);
    std::fill(scores.begin(), scores.end(), 0.0F);
    clock_.time += 2 * kMs;
    return !fails;
  }
  std::string_view last_error() const noexcept override { return "told to fail"; }

  bool aligned = true;
  bool fails = false;
  std::size_t bound = 0;
  std::set<std::size_t> handles;
  std::vector<std::size_t> counts;

 protected:
  std::size_t add_binding(const float* inputs, std::span<float>) override {
    aligned = aligned && reinterpret_cast<std::uintptr_t>(inputs) % 64 == 0;
    return bound++;
  }

 private:
  HandClock& clock_;
};

TEST(ModelTimer, CountsARowsTimeFromItsArrival) {
  HandClock clock;
  SlowModel model(2, clock);
  ModelTimer timer(model, clock);
  EXPECT_TRUE(model.aligned);
  // Five at once, in runs of 2, 2 and 1: the last waits for the runs before its own.
  const auto times =
      timer.time({.rows = 5, .interval_ns = 10 * kMs, .total_ns = 10 * kMs, .sleep = false, .cold = false});
  EXPECT_EQ(model.counts, (std::vector<std::size_t>{2, 2, 1}));
  EXPECT_EQ(times, (std::vector<std::int64_t>{2 * kMs, 2 * kMs, 4 * kMs, 4 * kMs, 6 * kMs}));
}

TEST(ModelTimer, ChargesAStallToEveryRowItDelays) {
  HandClock clock;
  SlowModel model(1, clock);
  ModelTimer timer(model, clock);
  // A row each millisecond, 2 ms a run: each is a millisecond later than the one before it.
  const auto times =
      timer.time({.rows = 1, .interval_ns = kMs, .total_ns = 100 * kMs, .sleep = false, .cold = false});
  ASSERT_EQ(times.size(), 50U) << "then the load's 100 ms are over";
  for (std::size_t i = 0; i < times.size(); ++i) {
    EXPECT_EQ(times[i], static_cast<std::int64_t>(i + 2) * kMs);
  }
  EXPECT_EQ(times.size(), model.counts.size());
  EXPECT_GT(model.handles.size(), 1U) << "not the same row again and again";
}

TEST(ModelTimer, ChargesASleepersWakingToNobody) {
  HandClock clock;
  clock.wakes_late = 5 * kMs;
  SlowModel model(1, clock);
  ModelTimer timer(model, clock);
  for (const bool cold : {false, true}) {
    const auto times =
        timer.time({.rows = 1, .interval_ns = kMs, .total_ns = 1, .sleep = true, .cold = cold});
    EXPECT_EQ(times, std::vector<std::int64_t>{2 * kMs}) << "one arrival at least";
  }
  EXPECT_EQ(clock.spins, 0U);
}

TEST(ModelTimer, RefusesAnEmptyLoadAndAModelThatFails) {
  HandClock clock;
  SlowModel model(1, clock);
  ModelTimer timer(model, clock);
  EXPECT_TRUE(has(setup_error([&] { timer.time({0, kMs, kMs, false, false}); }), {"found 0 rows"}));
  EXPECT_TRUE(has(setup_error([&] { timer.time({1, 0, kMs, false, false}); }), {"each 0 ns"}));
  model.fails = true;
  EXPECT_TRUE(has(setup_error([&] { timer.time({1, kMs, kMs, false, false}); }),
                  {"slow.onnx: expected every run to succeed, found told to fail"}));
}

}  // namespace
}  // namespace tickwire::infer

#include "tickwire/infer/trial.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "tickwire/core/error.hpp"
#include "tickwire/infer/aligned_floats.hpp"

namespace tickwire::infer {
namespace {

/// All digits of a score.
std::string digits(float score) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", static_cast<double>(score));
  return text;
}

bool close(float one, float other) {
  constexpr float kTolerance = 1e-3F;  // Far above another order of sums, far below another row's weight.
  if (!std::isfinite(one) || !std::isfinite(other)) return std::isfinite(one) == std::isfinite(other);
  return std::abs(one - other) <= kTolerance * std::max(1.0F, std::abs(one));
}

class Trial {
 public:
  explicit Trial(Model& model)
      : model_(model),
        info_(model.info()),
        block_(info_.rows * info_.features),
        input_(info_.max_batch * block_),
        states_(info_.state_floats()),
        handle_(model.bind(input_.data(), states_)) {}

  /// A row has one score, or live is not what a replay makes of it: a model that draws random numbers, or
  /// whose state outlives a run, gives another one each time. Two made-up rows by turns, again and again, for
  /// as long as that takes no time.
  void check_repeats() {
    constexpr std::size_t kRows = 2;
    constexpr std::size_t kMostPasses = 24;
    constexpr auto kEnough = std::chrono::milliseconds(50);
    const std::size_t scores = info_.score_names.size();
    std::vector<float> rows(kRows * block_);
    std::vector<float> first(kRows * scores);
    std::vector<float> again(scores);
    for (std::size_t i = 0; i < kRows; ++i) {
      make_up_rows();
      std::copy_n(input_.data(), block_, rows.data() + i * block_);
      // A run that fails is the warm-up's to report, and at run time counted.
      if (!run(1, {first.data() + i * scores, scores})) return;
    }
    const auto end = std::chrono::steady_clock::now() + kEnough;
    for (std::size_t pass = 0; pass < kMostPasses; ++pass) {
      if (pass > 0 && std::chrono::steady_clock::now() > end) return;
      for (std::size_t i = 0; i < kRows; ++i) {
        std::copy_n(rows.data() + i * block_, block_, input_.data());
        if (!run(1, again)) return;
        for (std::size_t k = 0; k < scores; ++k) check_same(k, first[i * scores + k], again[k]);
      }
    }
  }

  /// A row's scores must be its own: a model that normalises over the batch, or takes it for the time,
  /// would score a row by its neighbours. Each row of a made-up batch is also scored alone.
  void check_independence() {
    const std::size_t scores = info_.score_names.size();
    std::vector<float> together(info_.max_batch * scores);
    std::vector<float> alone(scores);
    make_up_rows();
    require_run(info_.max_batch, together);
    for (std::size_t i = 0; i < info_.max_batch; ++i) {
      std::copy_n(input_.data() + i * block_, block_, input_.data());
      require_run(1, alone);
      for (std::size_t k = 0; k < scores; ++k) {
        const float other = together[i * scores + k];
        if (close(alone[k], other)) continue;
        throw SetupError(info_.path, "scores that do not depend on the other rows of a batch",
                         info_.score_names[k] + " of " + std::to_string(other) + " in a batch of " +
                             std::to_string(info_.max_batch) + " and " + std::to_string(alone[k]) +
                             " alone (dynamic quantisation, or a sum over the batch); set max_batch = 1");
      }
    }
  }

 private:
  bool run(std::size_t count, std::span<float> scores) {
    std::fill(states_.begin(), states_.end(), 0.0F);
    return model_.run_batch(handle_, count, scores);
  }

  void require_run(std::size_t count, std::span<float> scores) {
    if (!run(count, scores)) {
      throw SetupError(info_.path, "a model that runs on a batch of " + std::to_string(count),
                       std::string(model_.last_error()));
    }
  }

  void check_same(std::size_t score, float first, float again) const {
    // A GPU's sums may take another order each time.
    if (info_.exact ? std::memcmp(&first, &again, sizeof first) == 0 : close(first, again)) return;
    throw SetupError(
        info_.path, "the same scores each time a row is scored",
        info_.score_names[score] + " of " + digits(first) + " and then of " + digits(again) +
            " for one row: the model draws random numbers, or its state outlives a run; export it "
            "for inference (model.eval()), without random operators");
  }

  /// Numbers in [-1, 1), other ones each time and the same ones in each process (xorshift64).
  void make_up_rows() noexcept {
    for (std::size_t i = 0; i < info_.max_batch * block_; ++i) {
      random_ ^= random_ << 13U;
      random_ ^= random_ >> 7U;
      random_ ^= random_ << 17U;
      input_.data()[i] = static_cast<float>(static_cast<std::int32_t>(random_ >> 32U)) * 0x1p-31F;
    }
  }

  Model& model_;
  const ModelInfo& info_;
  const std::size_t block_;
  AlignedFloats input_;
  std::vector<float> states_;
  const std::size_t handle_;
  std::uint64_t random_ = 0x9e3779b97f4a7c15;
};

}  // namespace

void try_out(Model& model) {
  Trial trial(model);
  trial.check_repeats();
  if (model.info().max_batch > 1) trial.check_independence();
}

}  // namespace tickwire::infer

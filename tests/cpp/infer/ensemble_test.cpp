#include "tickwire/infer/ensemble.hpp"

#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "infer/model_files.hpp"

namespace tickwire::infer {
namespace {

using testing::has;
using testing::model_file;
using testing::setup_error;

/// Scores each row of one number x with x * factor and with factor alone; fails where x says so.
class Line final : public Model {
 public:
  static constexpr float kFail = -1.0F;

  explicit Line(float factor, ModelInfo info = shape()) : Model(std::move(info)), factor_(factor) {}
  static ModelInfo shape() {
    ModelInfo info{};
    info.path = "line.onnx";
    info.rows = info.features = 1;
    info.max_batch = 3;
    info.score_names = {"y", "slope"};
    info.executor = "by hand";
    return info;
  }
  std::size_t warm_up(std::size_t runs, std::int64_t max_ns) override { return max_ns > 0 ? runs : 0; }
  bool run_batch(std::size_t handle, std::size_t count, std::span<float> scores) noexcept override {
    for (std::size_t i = 0; i < count; ++i) {
      const float x = inputs_[handle][i];
      if (x == kFail && factor_ > 100) return false;
      scores[2 * i] = x * factor_;
      scores[2 * i + 1] = factor_;
    }
    return true;
  }
  std::string_view last_error() const noexcept override { return "told to fail"; }

 protected:
  std::size_t add_binding(const float* input, std::span<float>) override {
    inputs_.push_back(input);
    return inputs_.size() - 1;
  }

 private:
  const float factor_;
  std::vector<const float*> inputs_;
};

template <typename... Members>
std::unique_ptr<Model> ensemble(std::vector<double> weights, Members... members) {
  std::vector<std::unique_ptr<Model>> list;
  (list.push_back(std::move(members)), ...);
  return make_ensemble(std::move(list), std::move(weights));
}

std::unique_ptr<Model> line(float factor) { return std::make_unique<Line>(factor); }

std::unique_ptr<Model> line(float factor, void (*change)(ModelInfo&)) {
  ModelInfo info = Line::shape();
  info.path = "other.onnx";
  change(info);
  return std::make_unique<Line>(factor, std::move(info));
}

TEST(Ensemble, IsTheMeanInDouble) {
  const auto model = ensemble({}, line(0.1F), line(0.2F), line(0.7F));
  const float x = 3.0F;
  std::array<float, 2> scores{};
  ASSERT_TRUE(model->run(model->bind(&x), scores));
  const auto mean = [](float a, float b, float c) {
    return static_cast<float>((static_cast<double>(a) + static_cast<double>(b) + static_cast<double>(c)) / 3);
  };
  EXPECT_EQ(scores[0], mean(3 * 0.1F, 3 * 0.2F, 3 * 0.7F));
  EXPECT_EQ(scores[1], mean(0.1F, 0.2F, 0.7F));
  EXPECT_EQ(model->info().executor, "mean of 3: by hand");
  EXPECT_EQ(model->info().path, "line.onnx + line.onnx + line.onnx");
}

TEST(Ensemble, SumsInDouble) {
  // In float the small one would vanish beside the large one.
  const auto model = ensemble({}, line(1e8F), line(1.0F), line(-1e8F));
  const float x = 1.0F;
  std::array<float, 2> scores{};
  ASSERT_TRUE(model->run(model->bind(&x), scores));
  EXPECT_EQ(scores[1], static_cast<float>(1.0 / 3));
}

TEST(Ensemble, WeighsByTheRatios) {
  const auto model = ensemble({3, 1}, line(8), line(-4));
  const float x = 2.0F;
  std::array<float, 2> scores{};
  ASSERT_TRUE(model->run(model->bind(&x), scores));
  EXPECT_EQ(scores, (std::array<float, 2>{10, 5}));
  EXPECT_EQ(model->info().executor, "weighted mean of 2 (3, 1): by hand");
}

TEST(Ensemble, RunsBatchesFromTheMemoryTheyWereBoundTo) {
  const auto model = ensemble({}, line(1), line(3));
  const std::array<float, 3> first{1, 2, 3};
  const std::array<float, 3> second{10, 20, 30};
  const std::size_t a = model->bind(first.data());
  const std::size_t b = model->bind(second.data());
  std::array<float, 6> scores{};
  ASSERT_TRUE(model->run_batch(b, 3, scores));
  EXPECT_EQ(scores, (std::array<float, 6>{20, 2, 40, 2, 60, 2}));
  scores.fill(0);
  ASSERT_TRUE(model->run_batch(a, 2, {scores.data(), 4}));
  EXPECT_EQ(scores, (std::array<float, 6>{2, 2, 4, 2, 0, 0}));
}

TEST(Ensemble, FailsAsAWholeAndSaysWhy) {
  const auto model = ensemble({}, line(1), line(101));
  const float x = Line::kFail;
  std::array<float, 2> scores{7, 7};
  EXPECT_FALSE(model->run(model->bind(&x), scores));
  EXPECT_EQ(scores, (std::array<float, 2>{7, 7}));
  EXPECT_EQ(model->last_error(), "told to fail");
}

TEST(Ensemble, WarmsUpEveryMember) {
  EXPECT_EQ(ensemble({}, line(1), line(2))->warm_up(5, 1'000'000'000), 5U);
  EXPECT_EQ(ensemble({}, line(1), line(2))->warm_up(5, 0), 0U);
}

TEST(Ensemble, OfOneIsThatOne) {
  auto one = line(1);
  const Model* const address = one.get();
  EXPECT_EQ(ensemble({2.0}, std::move(one)).get(), address);
}

TEST(Ensemble, RefusesMembersThatDoNotFit) {
  const auto refusal = [](void (*change)(ModelInfo&)) {
    return setup_error([&] { ensemble({}, line(1), line(2, change)); });
  };
  EXPECT_EQ(
      refusal([](ModelInfo& info) { info.features = 2; }),
      "other.onnx: expected 1 x 1 floats, batches of up to 3 as in line.onnx, found 1 x 2 floats, batches "
      "of up to 3");
  EXPECT_EQ(refusal([](ModelInfo& info) { info.score_names = {"y"}; }),
            "other.onnx: expected 2 scores as in line.onnx, found 1");
  EXPECT_EQ(refusal([](ModelInfo& info) { info.schema_sha256 = "ab"; }),
            "other.onnx: expected no schema as in line.onnx, found schema ab");
  EXPECT_EQ(refusal([](ModelInfo&) {}), "");
}

TEST(Ensemble, RefusesWeightsItCannotUse) {
  const auto refusal = [](std::vector<double> weights) {
    return setup_error([&] { ensemble(std::move(weights), line(1), line(2)); });
  };
  EXPECT_EQ(refusal({1}), "the ensemble of line.onnx: weights: expected 2, one a model, found 1");
  EXPECT_TRUE(has(refusal({1, 0}), {"weights: expected positive numbers, found 0"}));
  EXPECT_TRUE(has(refusal({1, -1}), {"found -1"}));
  EXPECT_TRUE(has(refusal({std::numeric_limits<double>::quiet_NaN(), 1}), {"found nan"}));
  EXPECT_TRUE(has(setup_error([] { ensemble({}); }), {"expected at least one model, found none"}));
}

TEST(Ensemble, NotesOtherNamesOfScores) {
  const auto model = ensemble({}, line(1), line(2, [](ModelInfo& info) { info.score_names = {"a", "b"}; }));
  EXPECT_EQ(model->info().score_names, (std::vector<std::string>{"y", "slope"}));
  ASSERT_EQ(model->info().notes.size(), 1U);
  EXPECT_EQ(model->info().notes[0],
            "other.onnx names its scores otherwise than line.onnx, whose names are used");
}

/// Files and all: the ensemble of two models is the mean of what each gives alone.
TEST(Ensemble, OfFilesIsTheMeanOfTheirScores) {
  TICKWIRE_NEEDS_ORT();
  const auto load = [](const std::string& name) { return testing::load_file(model_file(name), 1, 5); };
  alignas(64) const float input[5] = {0.1F, -2.0F, 0.7F, 1e-3F, 3.0F};
  const auto one = load("good_mlp");
  const auto other = load("good_mlp_batch");
  std::array<float, 3> a{};
  std::array<float, 3> b{};
  ASSERT_TRUE(one->run(one->bind(input), a));
  ASSERT_TRUE(other->run(other->bind(input), b));
  const auto both = ensemble({1, 3}, load("good_mlp"), load("good_mlp_batch"));
  std::array<float, 3> found{};
  both->warm_up(10, kWarmUpMaxNs);
  ASSERT_TRUE(both->run(both->bind(input), found));
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(found[i], static_cast<float>((static_cast<double>(a[i]) + 3 * static_cast<double>(b[i])) / 4));
  }
}

}  // namespace
}  // namespace tickwire::infer

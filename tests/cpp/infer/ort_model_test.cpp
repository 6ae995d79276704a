#include "tickwire/infer/onnxruntime/ort_model.hpp"

#include <gtest/gtest.h>
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "infer/model_files.hpp"
#include "tickwire/infer/onnxruntime/ort_api.hpp"
#include "tickwire/infer/onnxruntime/ort_provider.hpp"

namespace tickwire::infer {
namespace {

using testing::has;
using testing::load_file;
using testing::model_file;
using testing::ort_library;
using testing::repository;
using testing::setup_error;

std::unique_ptr<Model> load(const std::string& name, std::size_t rows, std::size_t features,
                            std::size_t max_batch = 1) {
  return load_file(model_file(name), rows, features, max_batch);
}

/// The message with which the file is refused; empty when it is not.
std::string refusal_of_file(const std::string& path, std::size_t rows, std::size_t features) {
  return setup_error([&] { static_cast<void>(load_file(path, rows, features)); });
}

std::string refusal(const std::string& name, std::size_t rows, std::size_t features) {
  return refusal_of_file(model_file(name), rows, features);
}

std::uint32_t bits(float value) { return std::bit_cast<std::uint32_t>(value); }

struct Case {
  std::vector<float> in;
  std::vector<double> out;
};
struct ModelCases {
  std::string name;
  std::size_t rows = 0;
  std::size_t features = 0;
  std::vector<std::string> scores;
  std::vector<Case> cases;
};

template <typename T>
std::vector<T> rest_of(std::istringstream& line) {
  std::vector<T> out;
  for (T value; line >> value;) out.push_back(value);
  return out;
}

/// tests/data/models/cases.txt: answers computed in NumPy float64, see make_models.py there.
std::vector<ModelCases> all_cases() {
  std::ifstream file(repository() / "tests" / "data" / "models" / "cases.txt");
  std::vector<ModelCases> out;
  for (std::string text; std::getline(file, text);) {
    std::istringstream line(text);
    std::string key;
    line >> key;
    if (key == "model") {
      ModelCases& model = out.emplace_back();
      line >> model.name >> model.rows >> model.features;
    } else if (key == "scores") {
      out.back().scores = rest_of<std::string>(line);
    } else if (key == "in") {
      out.back().cases.push_back({rest_of<float>(line), {}});
    } else if (key == "out") {
      out.back().cases.back().out = rest_of<double>(line);
    }
  }
  return out;
}

class OrtModelCases : public ::testing::TestWithParam<ModelCases> {};

TEST_P(OrtModelCases, ScoresAreThoseOfTheTwin) {
  TICKWIRE_NEEDS_ORT();
  const ModelCases& expected = GetParam();
  const auto model = load(expected.name, expected.rows, expected.features);
  EXPECT_EQ(model->info().rows, expected.rows);
  EXPECT_EQ(model->info().features, expected.features);
  ASSERT_EQ(model->info().score_names, expected.scores);
  ASSERT_FALSE(expected.cases.empty());

  alignas(64) float input[512] = {};
  const std::size_t handle = model->bind(input);
  std::vector<float> scores(expected.scores.size());
  for (const Case& one : expected.cases) {
    ASSERT_EQ(one.in.size(), expected.rows * expected.features);
    std::copy(one.in.begin(), one.in.end(), input);
    ASSERT_TRUE(model->run(handle, scores)) << model->last_error();
    for (std::size_t i = 0; i < scores.size(); ++i) {
      EXPECT_NEAR(scores[i], one.out[i], 1e-5 * std::max(1.0, std::abs(one.out[i]))) << expected.scores[i];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Files, OrtModelCases, ::testing::ValuesIn(all_cases()),
                         [](const auto& test) { return test.param.name; });

TEST(OrtModel, ReadsBoundMemoryAtEachRun) {
  TICKWIRE_NEEDS_ORT();
  const auto model = load("good_several_outputs", 1, 2);
  alignas(64) float first[2] = {1, 2};
  alignas(64) float second[2] = {30, 10};
  const std::size_t a = model->bind(first);
  const std::size_t b = model->bind(second);
  std::vector<float> scores(3);
  ASSERT_TRUE(model->run(b, scores));
  EXPECT_EQ(scores, (std::vector<float>{60, 20, 30}));
  ASSERT_TRUE(model->run(a, scores));
  EXPECT_EQ(scores, (std::vector<float>{2, 4, 2}));
  first[0] = -5;
  ASSERT_TRUE(model->run(a, scores));
  EXPECT_EQ(scores, (std::vector<float>{-10, 4, 2}));
  EXPECT_EQ(first[1], 2.0F) << "an input is only read";
}

/// A sequence window slides through one block of memory, row by row, without a copy.
TEST(OrtModel, ReadsASlidingWindowInPlace) {
  TICKWIRE_NEEDS_ORT();
  const auto model = load("good_window", 4, 3);
  constexpr std::size_t kSteps = 7;
  alignas(64) float ring[(kSteps + 3) * 3];
  for (std::size_t i = 0; i < std::size(ring); ++i) ring[i] = 0.25F * static_cast<float>(i % 11) - 1.0F;
  alignas(64) float copy[4 * 3];
  const std::size_t copied = model->bind(copy);
  for (std::size_t step = 0; step < kSteps; ++step) {
    const std::size_t in_place = model->bind(ring + step * 3);
    std::copy_n(ring + step * 3, std::size(copy), copy);
    float expected[2] = {};
    float found[2] = {};
    ASSERT_TRUE(model->run(copied, expected));
    ASSERT_TRUE(model->run(in_place, found));
    EXPECT_NEAR(found[0], expected[0], 1e-6);
    EXPECT_NEAR(found[1], expected[1], 1e-6);
  }
}

TEST(OrtModel, TellsWhatItIs) {
  TICKWIRE_NEEDS_ORT();
  const auto unbound = load("good_mlp", 1, 5);
  EXPECT_EQ(unbound->info().path, model_file("good_mlp"));
  EXPECT_EQ(unbound->info().input_name, "features");
  EXPECT_EQ(unbound->info().executor, "onnxruntime " + open_ort(ort_library()).version + " cpu");
  EXPECT_TRUE(unbound->info().schema_json.empty());
  EXPECT_TRUE(unbound->info().schema_sha256.empty());
  EXPECT_TRUE(unbound->info().notes.empty());

  const auto bound = load("good_bound", 1, 5);
  EXPECT_EQ(bound->info().schema_json, R"x({"rows":["spread()"]})x");
  EXPECT_EQ(bound->info().schema_sha256.substr(0, 4), "abab");
  EXPECT_EQ(bound->info().schema_sha256.size(), 64U);
}

TEST(OrtModel, LeavesOutOutputsThatAreNoScores) {
  TICKWIRE_NEEDS_ORT();
  const auto several = load("good_several_outputs", 1, 2);
  ASSERT_EQ(several->info().notes.size(), 1U);
  EXPECT_EQ(several->info().notes[0], "output label: int64[1] is left out: a score is float32");
  const auto zipmap = load("good_zipmap", 1, 3);
  ASSERT_EQ(zipmap->info().notes.size(), 2U);
  EXPECT_TRUE(has(zipmap->info().notes[0], {"output label: int64["}));
  EXPECT_EQ(
      zipmap->info().notes[1],
      "output by_class: not a tensor (a sequence or a map) is left out: a score is float32; convert it with "
      "options={'zipmap': False} (skl2onnx) or zipmap=False (onnxmltools), so that probabilities are a "
      "tensor");
}

TEST(OrtModel, ScoresTheSameBitsOnEveryThreadAndLoad) {
  TICKWIRE_NEEDS_ORT();
  alignas(64) float input[5] = {0.1F, -2.0F, 0.7F, 1e-3F, 3.0F};
  float here[3] = {};
  const auto model = load("good_mlp", 1, 5);
  ASSERT_TRUE(model->run(model->bind(input), here));
  float there[3] = {};
  std::thread([&] {
    const auto other = load("good_mlp", 1, 5);
    const std::size_t handle = other->bind(input);
    other->warm_up(50, kWarmUpMaxNs);
    ASSERT_TRUE(other->run(handle, there));
  }).join();
  for (std::size_t i = 0; i < std::size(here); ++i) EXPECT_EQ(bits(here[i]), bits(there[i])) << i;
}

/// What the engine's window ring relies on: bits repeat wherever the memory starts at the same place
/// within a cache line. Between other places they differ (this model shows it off a 16-byte boundary).
TEST(OrtModel, ScoresTheSameBitsFromTheSameAlignment) {
  TICKWIRE_NEEDS_ORT();
  const auto model = load("good_mean", 50, 7);
  constexpr std::size_t kFloats = std::size_t{50} * 7;
  alignas(64) static float memory[2][512];
  for (std::size_t start = 0; start < 16; ++start) {
    for (std::size_t i = 0; i < kFloats; ++i) {
      memory[0][start + i] = std::sin(static_cast<float>(i * i)) + 0.1F;
    }
    std::copy_n(memory[0] + start, kFloats, memory[1] + 64 + start);
    float scores[2] = {};
    ASSERT_TRUE(model->run(model->bind(memory[0] + start), {&scores[0], 1}));
    ASSERT_TRUE(model->run(model->bind(memory[1] + 64 + start), {&scores[1], 1}));
    EXPECT_EQ(bits(scores[0]), bits(scores[1])) << "start " << start;
  }
}

TEST(OrtModel, FlushesDenormalsAndLeavesTheThreadAsItWas) {
  TICKWIRE_NEEDS_ORT();
  volatile float smallest = std::numeric_limits<float>::min();
  // Also the first session of a process, which would otherwise leave its thread flushing.
  const auto model = load("good_denormal", 1, 1);
  EXPECT_GT(smallest * 0.5F, 0.0F);
  alignas(64) float input[1] = {1e-20F};
  float score[1] = {7};
  ASSERT_TRUE(model->run(model->bind(input), score));
  EXPECT_EQ(score[0], 0.0F) << "1e-20 * 1e-20 * 1e30 is 1e-10 unless the denormal between is flushed";
  EXPECT_GT(smallest * 0.5F, 0.0F);
}

TEST(OrtModel, PassesNonFiniteValuesThrough) {
  TICKWIRE_NEEDS_ORT();
  const auto model = load("good_free_batch", 1, 4);
  alignas(64) float input[4] = {1, std::numeric_limits<float>::quiet_NaN(), 0, 0};
  float score[1] = {};
  ASSERT_TRUE(model->run(model->bind(input), score));
  EXPECT_TRUE(std::isnan(score[0]));
}

TEST(OrtModel, WarmsUpForTheRunsAskedFor) {
  TICKWIRE_NEEDS_ORT();
  const auto model = load("good_mlp", 1, 5);
  EXPECT_EQ(model->warm_up(25, kWarmUpMaxNs), 25U);
  EXPECT_LT(model->warm_up(1'000'000'000, 1'000'000), 1'000'000'000U) << "bounded by time";
}

TEST(OrtModel, ReportsAFailedRunAndGoesOn) {
  TICKWIRE_NEEDS_ORT();
  const auto model = load("bad_shape_changes", 1, 5);
  ASSERT_EQ(model->info().score_names.size(), 10U);
  alignas(64) float input[5] = {0, 1, 0, 1, 0};
  const std::size_t handle = model->bind(input);
  std::vector<float> scores(10, 42.0F);
  EXPECT_FALSE(model->run(handle, scores));
  EXPECT_TRUE(has(std::string(model->last_error()), {"shape"}));
  EXPECT_EQ(scores, std::vector<float>(10, 42.0F)) << "no score of a failed run is ever seen";

  std::fill(std::begin(input), std::end(input), 0.0F);
  ASSERT_TRUE(model->run(handle, scores));
  EXPECT_EQ(scores, (std::vector<float>{0, 0, 0, 0, 0, 0, 1, 2, 3, 4}));
}

TEST(OrtModel, WarmUpFindsAnOutputWhoseShapeFollowsTheValues) {
  TICKWIRE_NEEDS_ORT();
  const auto model = load("bad_shape_changes", 1, 5);
  EXPECT_TRUE(has(setup_error([&] { model->warm_up(kWarmUpRuns, kWarmUpMaxNs); }),
                  {model_file("bad_shape_changes"), "expected every run to succeed"}));
}

TEST(OrtModel, RefusesAnotherShapeThanTheSchemaMakes) {
  TICKWIRE_NEEDS_ORT();
  const std::string advice = "; features.rows and features.window_rows must be what it was trained on";
  EXPECT_EQ(refusal("good_mlp", 1, 6),
            model_file("good_mlp") + ": expected one input of float32[1, 6], found features: float32[1, 5]" +
                advice);
  EXPECT_EQ(refusal("good_mlp", 2, 5),
            model_file("good_mlp") +
                ": expected one input of float32[1, 2, 5], found features: float32[1, 5]" + advice);
  EXPECT_EQ(refusal("good_window", 5, 3),
            model_file("good_window") +
                ": expected one input of float32[1, 5, 3], found window: float32[n, 4, 3]" + advice);
  EXPECT_EQ(refusal("good_window", 1, 12),
            model_file("good_window") +
                ": expected one input of float32[1, 12], found window: float32[n, 4, 3]" + advice);
}

TEST(OrtModel, RefusesInputsItCannotFeed) {
  TICKWIRE_NEEDS_ORT();
  EXPECT_TRUE(has(refusal("bad_two_inputs", 1, 5),
                  {"found 2 inputs: a: float32[1, 5]; b: float32[1, 5]; join them into one"}));
  EXPECT_TRUE(has(refusal("bad_string_input", 1, 5), {"found x: string[1, 5]; cast it inside the model"}));
  EXPECT_TRUE(has(refusal("bad_double_input", 1, 5), {"found x: float64[1, 5]; cast it inside the model"}));
  EXPECT_TRUE(
      has(refusal("bad_one_dimension", 1, 5), {"found x: float32[5]; export it with the shape [1, "}));
  EXPECT_TRUE(has(refusal("bad_free_features", 1, 5), {"found x: float32[1, F]; give every dimension but"}));
  EXPECT_TRUE(has(refusal("bad_free_rows", 4, 5), {"found x: float32[N, T, 5]; give every dimension but"}));
  EXPECT_TRUE(
      has(refusal("bad_batch_of_eight", 1, 5), {"found x: float32[8, 5]; export it with a batch of 1"}));
}

TEST(OrtModel, TakesTheShapeThatTheFileDeclares) {
  TICKWIRE_NEEDS_ORT();
  const auto window = load("good_window", 0, 0, 2);
  EXPECT_EQ(window->info().rows, 4U);
  EXPECT_EQ(window->info().features, 3U);
  const auto row = load("good_mlp", 0, 0);
  EXPECT_EQ(row->info().rows, 1U);
  EXPECT_EQ(row->info().features, 5U);
  EXPECT_TRUE(has(refusal("bad_free_rows", 0, 0),
                  {"expected one input of float32[1, features] or float32[1, rows, features], found x: "}));
}

/// An optimised file is the same model: other operators, the same bits, the metadata it had.
TEST(OrtModel, RunsWhatItOptimised) {
  TICKWIRE_NEEDS_ORT();
  alignas(64) const float input[5] = {0.1F, -2.0F, 0.7F, 1e-3F, 3.0F};
  const auto original = load("good_bound", 1, 5);
  std::vector<float> expected(3);
  ASSERT_TRUE(original->run(original->bind(input), expected));
  const ModelSource from = testing::source(model_file("good_bound"));
  for (const std::string format : {"onnx", "ort"}) {
    const std::string out = ::testing::TempDir() + "tickwire_optimized." + format;
    optimize_model(from, out, format);
    const auto made = load_file(out, 1, 5);
    EXPECT_EQ(made->info().schema_json, original->info().schema_json);
    EXPECT_EQ(made->info().schema_sha256, original->info().schema_sha256);
    std::vector<float> found(3);
    ASSERT_TRUE(made->run(made->bind(input), found));
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(bits(found[i]), bits(expected[i])) << format;
    std::filesystem::remove(out);
  }
  EXPECT_TRUE(has(setup_error([&] { optimize_model(from, "/tmp/x", "pt"); }), {"onnx or ort, found pt"}));
}

TEST(OrtModel, RefusesOutputsThatAreNoScores) {
  TICKWIRE_NEEDS_ORT();
  EXPECT_TRUE(has(refusal("bad_labels_only", 1, 5),
                  {"expected at least one output of float32, found label: int64[1]"}));
  EXPECT_TRUE(
      has(refusal("bad_many_scores", 1, 65), {"expected at most 64 scores in all, found y with 65 values"}));
  EXPECT_TRUE(has(refusal("bad_empty_output", 1, 5), {"found y with 0 values"}));
}

TEST(OrtModel, RefusesWhatTheRuntimeCannotRun) {
  TICKWIRE_NEEDS_ORT();
  EXPECT_TRUE(has(refusal("bad_unknown_operator", 1, 5),
                  {model_file("bad_unknown_operator") + ": expected an ONNX model that ONNX Runtime 1.",
                   "Prophesy", "; this ONNX Runtime lacks the operator"}));
  EXPECT_TRUE(has(refusal("bad_future_opset", 1, 5), {"999", "; export it with an older opset"}));
  EXPECT_EQ(refusal("bad_future_opset", 1, 5).find("onnxruntime_src"), std::string::npos);
}

TEST(OrtModel, RefusesBrokenFiles) {
  TICKWIRE_NEEDS_ORT();
  EXPECT_EQ(refusal("no_such_file", 1, 5),
            model_file("no_such_file") + ": expected an ONNX model, found no file that can be read");

  const std::string path = ::testing::TempDir() + "tickwire_broken.onnx";
  const auto refusal_of = [&](std::string_view bytes) {
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return refusal_of_file(path, 1, 5);
  };
  EXPECT_EQ(refusal_of(""), path + ": expected an ONNX model, found an empty file");
  EXPECT_TRUE(has(refusal_of("this is not a model"), {path + ": expected an ONNX model that ONNX Runtime",
                                                      "; the file is damaged or no ONNX model"}));
  EXPECT_EQ(refusal_of_file(::testing::TempDir(), 1, 5),
            ::testing::TempDir() + ": expected an ONNX model, found a folder");

  std::ifstream good(model_file("good_mlp"), std::ios::binary);
  std::stringstream bytes;
  bytes << good.rdbuf();
  const std::string whole = bytes.str();
  EXPECT_TRUE(refusal_of(whole).empty());
  // Cut anywhere, it is refused (or, cut at the end of a field, still a whole model) and never crashes.
  std::size_t refused = 0;
  for (std::size_t size = 1; size < whole.size(); size += 7) {
    refused += refusal_of(std::string_view(whole).substr(0, size)).empty() ? 0 : 1;
  }
  EXPECT_GT(refused, whole.size() / 7 - 5);
  // A large file that is all hole: refused by its size, before it is read.
  std::filesystem::resize_file(path, std::uintmax_t{1} << 31U);
  EXPECT_EQ(refusal_of_file(path, 1, 5),
            path +
                ": expected an ONNX model of less than 2 GiB, found 2147483648 bytes; quantise it, or take a "
                "smaller one");
  std::filesystem::remove(path);
}

/// The scores of a batch as ONNX Runtime's own C interface gives them, with nothing of ours in between.
class BareSession {
 public:
  explicit BareSession(const std::string& path) {
    check(api_.CreateEnv(ORT_LOGGING_LEVEL_FATAL, "test", &env_));
    check(api_.CreateSessionOptions(&options_));
    check(api_.SetIntraOpNumThreads(options_, 1));
    check(api_.SetSessionGraphOptimizationLevel(options_, ORT_ENABLE_ALL));
    check(api_.CreateSession(env_, path.c_str(), options_, &session_));
    check(api_.GetAllocatorWithDefaultOptions(&allocator_));
    check(api_.SessionGetInputName(session_, 0, allocator_, &input_name_));
    check(api_.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
  }
  ~BareSession() {
    api_.ReleaseMemoryInfo(memory_);
    allocator_->Free(allocator_, input_name_);
    api_.ReleaseSession(session_);
    api_.ReleaseSessionOptions(options_);
    api_.ReleaseEnv(env_);
  }
  BareSession(const BareSession&) = delete;
  BareSession& operator=(const BareSession&) = delete;

  std::vector<float> scores(const std::vector<std::int64_t>& shape, const float* input,
                            const std::string& output) {
    std::size_t floats = 1;
    for (const std::int64_t size : shape) floats *= static_cast<std::size_t>(size);
    OrtValue* value = nullptr;
    OrtValue* result = nullptr;
    OrtTensorTypeAndShapeInfo* info = nullptr;
    std::size_t count = 0;
    void* data = nullptr;
    const char* name = output.c_str();
    check(api_.CreateTensorWithDataAsOrtValue(memory_, const_cast<float*>(input), floats * sizeof(float),
                                              shape.data(), shape.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                                              &value));
    check(api_.Run(session_, nullptr, &input_name_, &value, 1, &name, 1, &result));
    check(api_.GetTensorTypeAndShape(result, &info));
    check(api_.GetTensorShapeElementCount(info, &count));
    check(api_.GetTensorMutableData(result, &data));
    const auto* from = static_cast<const float*>(data);
    std::vector<float> found(from, from + count);
    api_.ReleaseTensorTypeAndShapeInfo(info);
    api_.ReleaseValue(result);
    api_.ReleaseValue(value);
    return found;
  }

 private:
  void check(OrtStatus* status) const {
    if (status != nullptr) throw std::runtime_error(api_.GetErrorMessage(status));
  }

  const OrtApi& api_ = *open_ort(ort_library()).api;
  OrtEnv* env_ = nullptr;
  OrtSessionOptions* options_ = nullptr;
  OrtSession* session_ = nullptr;
  OrtAllocator* allocator_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
  char* input_name_ = nullptr;
};

struct BatchCase {
  std::string name;
  std::size_t rows;
  std::size_t features;
  std::string output;
};

class OrtModelBatches : public ::testing::TestWithParam<BatchCase> {};

TEST_P(OrtModelBatches, ScoresTheBitsOfABareRunOfTheSameBatch) {
  TICKWIRE_NEEDS_ORT();
  constexpr std::size_t kMaxBatch = 9;
  const auto& [name, rows, features, output] = GetParam();
  const auto model = load(name, rows, features, kMaxBatch);
  EXPECT_EQ(model->info().max_batch, kMaxBatch);
  EXPECT_EQ(model->warm_up(3 * kMaxBatch, kWarmUpMaxNs), 3 * kMaxBatch);
  const std::size_t block = rows * features;
  const std::size_t score_count = model->info().score_names.size();
  alignas(64) float input[2 * kMaxBatch * 64] = {};
  ASSERT_LE(2 * kMaxBatch * block, std::size(input));
  for (std::size_t i = 0; i < kMaxBatch * block; ++i) {
    input[i] = 2.0F * std::sin(static_cast<float>(i * i + 1));
  }
  BareSession bare(model_file(name));
  const std::size_t batch = model->bind(input);
  std::vector<std::size_t> alone;
  for (std::size_t i = 0; i < kMaxBatch; ++i) alone.push_back(model->bind(input + i * block));

  for (std::size_t count = 1; count <= kMaxBatch; ++count) {
    std::vector<std::int64_t> shape{static_cast<std::int64_t>(count), static_cast<std::int64_t>(features)};
    if (rows > 1) shape.insert(shape.begin() + 1, static_cast<std::int64_t>(rows));
    const std::vector<float> expected = bare.scores(shape, input, output);
    std::vector<float> found(count * score_count, 7.0F);
    ASSERT_TRUE(model->run_batch(batch, count, found)) << model->last_error();
    ASSERT_EQ(expected.size(), found.size());
    for (std::size_t i = 0; i < found.size(); ++i) EXPECT_EQ(bits(found[i]), bits(expected[i])) << count;
    // The batch's lines are its rows in order.
    std::vector<float> one(score_count);
    ASSERT_TRUE(model->run(alone[count - 1], one));
    for (std::size_t k = 0; k < score_count; ++k) {
      EXPECT_NEAR(found[(count - 1) * score_count + k], one[k], 1e-5) << count;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Files, OrtModelBatches,
    ::testing::Values(BatchCase{"good_mlp_batch", 1, 5, "p"}, BatchCase{"good_free_batch", 1, 4, "edge"},
                      BatchCase{"good_nameless_batch", 1, 4, "edge"}, BatchCase{"good_window", 4, 3, "move"},
                      BatchCase{"good_trees", 1, 3, "value"}, BatchCase{"good_zipmap", 1, 3, "prob"}),
    [](const auto& test) { return test.param.name; });

TEST(OrtModel, RefusesBatchesOfAModelForSingleRows) {
  TICKWIRE_NEEDS_ORT();
  const auto refused = [](const std::string& name, std::size_t features) {
    return setup_error([&] { load(name, 1, features, 4); });
  };
  EXPECT_EQ(
      refused("good_mlp", 5),
      model_file("good_mlp") +
          ": expected a free batch dimension, for batches of 4, found features: float32[1, 5]; export it "
          "with a dynamic batch axis, or set max_batch = 1");
  EXPECT_TRUE(
      has(refused("good_batch_mixed", 2),
          {"expected scores that do not depend on the other rows of a batch, found y_0 of ", "alone"}));
  EXPECT_TRUE(has(refused("good_batch_reduced", 2),
                  {"expected outputs with one line a row of the batch, found top of [] for a batch of 2"}));
  EXPECT_TRUE(has(refused("good_batch_fixed_inside", 2), {"expected a model that runs on a batch of 2"}));
  EXPECT_TRUE(has(setup_error([] { load("good_mlp_batch", 1, 5, 0); }), {"max_batch: expected 1 or more"}));
}

TEST(OrtModel, RefusesAProviderThatIsNotThere) {
  TICKWIRE_NEEDS_ORT();
  const auto refused = [](const std::string& provider) {
    return setup_error([&] {
      static_cast<void>(load_model(testing::source(model_file("good_mlp"), -1, provider), {1, 5, 1}));
    });
  };
  EXPECT_EQ(refused("gpu"), "provider: expected cpu, cuda or tensorrt, found gpu");
  const std::vector<std::string> available = available_providers(open_ort(ort_library()));
  EXPECT_EQ(available.front(), "cpu");
  for (const std::string provider : {"cuda", "tensorrt"}) {
    if (std::find(available.begin(), available.end(), provider) != available.end()) continue;
    EXPECT_TRUE(has(refused(provider), {"provider: expected cpu", ", which is what onnxruntime 1.",
                                        "found " + provider, "pip install onnxruntime-gpu"}));
  }
}

TEST(OrtModel, RefusesToBindNothing) {
  TICKWIRE_NEEDS_ORT();
  const auto model = load("good_mlp", 1, 5);
  EXPECT_TRUE(has(setup_error([&] { model->bind(nullptr); }), {"expected memory of floats, found null"}));
}

}  // namespace
}  // namespace tickwire::infer

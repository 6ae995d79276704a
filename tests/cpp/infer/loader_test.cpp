/// The way from a file to a model, with executors made by hand: what they are asked, whom the loader
/// believes, and a model that has state.

#include "tickwire/infer/loader.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "infer/model_files.hpp"

namespace tickwire::infer {
namespace {

using testing::has;
using testing::setup_error;

/// Sums up what it has been given: score y of a row x is h + x, and so is the next h; z is 2 × h. Without
/// state it is the row's own number.
class Integrator : public Model {
 public:
  Integrator(const ModelRequest& request, bool with_state) : with_state_(with_state) {
    info_.path = request.path;
    info_.rows = info_.features = 1;
    info_.max_batch = request.max_batch;
    info_.score_names = {"y", "z"};
    info_.executor = "scalar";
    info_.notes = {"made by hand"};
    if (with_state) info_.states = {{"h", {1, 1}}, {"twice", {1}}};
  }
  std::size_t warm_up(std::size_t runs, std::int64_t) override { return runs; }
  bool run_batch(std::size_t handle, std::size_t count, std::span<float> scores) noexcept override {
    const Bound& bound = bound_[handle];
    for (std::size_t i = 0; i < count; ++i) {
      float h = bound.inputs[i];
      if (with_state_) {
        h += bound.states[0];
        bound.states[0] = h;
        bound.states[1] = 2 * h;
      }
      scores[2 * i] = h;
      scores[2 * i + 1] = 2 * h + drift_;
    }
    if (drifts) drift_ += 1;
    return true;
  }
  std::string_view last_error() const noexcept override { return ""; }

  bool drifts = false;

 protected:
  std::size_t add_binding(const float* inputs, std::span<float> states) override {
    bound_.push_back({inputs, states});
    return bound_.size() - 1;
  }

 private:
  struct Bound {
    const float* inputs;
    std::span<float> states;
  };
  const bool with_state_;
  float drift_ = 0;
  std::vector<Bound> bound_;
};

constexpr Executor kPicky{.name = "picky", .load = [](const ModelRequest& request) -> Made {
                            const auto first = static_cast<char>(request.bytes[0]);
                            if (first != '!')
                              return Made::declined("it begins with " + std::string(1, first));
                            return std::make_unique<Integrator>(request, false);
                          }};
constexpr Executor kPlain{.name = "plain", .load = [](const ModelRequest& request) -> Made {
                            return std::make_unique<Integrator>(request, false);
                          }};
constexpr Executor kStateful{.name = "stateful", .load = [](const ModelRequest& request) -> Made {
                               return std::make_unique<Integrator>(request, true);
                             }};
/// Says that it runs models, and gives a row another score each time.
constexpr Executor kDrifting{.name = "drifting", .load = [](const ModelRequest& request) -> Made {
                               auto model = std::make_unique<Integrator>(request, false);
                               model->drifts = true;
                               return model;
                             }};

class Loader : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  ModelMember file(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return {.path = folder_ / name, .weight = 1.0};
  }
  static std::unique_ptr<Model> load(std::vector<ModelMember> members, const std::vector<Executor>& executors,
                                     std::size_t max_batch = 1, Tried tried = Tried::No,
                                     const std::string& provider = "cpu") {
    return load_model({.members = std::move(members), .library = "", .provider = provider, .cache_dir = ""},
                      {.rows = 1, .features = 1, .max_batch = max_batch}, tried, executors);
  }

  const std::filesystem::path folder_ =
      std::filesystem::path(::testing::TempDir()) / ("loader." + std::to_string(::getpid()));
};

TEST_F(Loader, AModelIsTheFirstExecutorsThatTakesIt) {
  const auto taken = load({file("a", "!1")}, {kPicky, kPlain});
  EXPECT_EQ(taken->info().executor, "picky scalar");
  EXPECT_EQ(taken->info().notes, std::vector<std::string>{"made by hand"});
  const auto left = load({file("b", "?1")}, {kPicky, kPlain});
  EXPECT_EQ(left->info().executor, "plain scalar");
  EXPECT_EQ(left->info().notes,
            (std::vector<std::string>{"made by hand", "not run by picky: it begins with ?"}));
  EXPECT_EQ(left->info().path, folder_ / "b");
}

TEST_F(Loader, WhatNoExecutorTakesIsRefusedWithTheReasonOfEach) {
  EXPECT_EQ(
      setup_error([&] { (void)load({file("a", "?")}, {kPicky, kPicky}); }),
      (folder_ / "a").string() +
          ": expected a model that can be run here, found not run by picky: it begins with ?; not run by "
          "picky: it begins with ?");
  EXPECT_TRUE(has(setup_error([&] { (void)load({file("a", "!")}, {}); }), {"found no executor"}));
}

TEST_F(Loader, AnExecutorWithoutProvidersIsOnlyAskedForTheCpu) {
  EXPECT_TRUE(has(setup_error([&] { (void)load({file("a", "!")}, {kPlain}, 1, Tried::No, "cuda"); }),
                  {"not run by plain: it runs on the cpu alone"}));
  EXPECT_EQ(model_providers("", std::vector<Executor>{kPlain, kPicky}), std::vector<std::string>{"cpu"});
  Executor far = kPlain;
  far.providers = [](const std::string& library) { return std::vector<std::string>{"cpu", library}; };
  EXPECT_EQ(model_providers("moon", std::vector<Executor>{kPicky, far, far}),
            (std::vector<std::string>{"cpu", "moon"}));
  EXPECT_EQ(load({file("a", "!")}, {far}, 1, Tried::No, "moon")->info().executor, "plain scalar");
}

TEST_F(Loader, NoExecutorIsBelieved) {
  EXPECT_TRUE(has(setup_error([&] { (void)load({file("a", "!")}, {kDrifting}); }),
                  {"the same scores each time a row is scored", "z of "}));
  EXPECT_EQ(load({file("a", "!")}, {kDrifting}, 1, Tried::Yes)->info().executor, "drifting scalar")
      << "what was tried before is not tried again";
}

TEST_F(Loader, MembersMayBeRunByDifferentExecutors) {
  const auto both = load({file("a", "!"), file("b", "?"), file("c", "!")}, {kPicky, kPlain});
  EXPECT_EQ(both->info().executor, "weighted mean of 3 (1, 1, 1): picky scalar, plain scalar");
  const float x = 3;
  std::array<float, 2> scores{};
  ASSERT_TRUE(both->run(both->bind(&x), scores));
  EXPECT_EQ(scores, (std::array<float, 2>{3, 6}));
}

TEST_F(Loader, AModelsStateIsTheCallersAndGoesFromRunToRun) {
  const auto model = load({file("a", "!")}, {kStateful});
  ASSERT_EQ(model->info().states.size(), 2U);
  EXPECT_EQ(model->info().states[0].name, "h");
  EXPECT_EQ(model->info().states[0].shape, (std::vector<std::size_t>{1, 1}));
  EXPECT_EQ(model->info().state_floats(), 2U);
  // Two instruments, by turns: neither knows of the other.
  float x[2] = {};
  std::array<float, 2> states[2] = {};
  const std::size_t handles[2] = {model->bind(&x[0], states[0]), model->bind(&x[1], states[1])};
  float sums[2] = {};
  std::array<float, 2> scores{};
  for (int i = 1; i <= 10; ++i) {
    for (int k = 0; k < 2; ++k) {
      x[k] = static_cast<float>(k == 0 ? i : 100 * i);
      sums[k] += x[k];
      ASSERT_TRUE(model->run(handles[k], scores));
      ASSERT_EQ(scores, (std::array<float, 2>{sums[k], 2 * sums[k]}));
    }
  }
  EXPECT_EQ(states[0], (std::array<float, 2>{55, 110}));
  EXPECT_EQ(states[1], (std::array<float, 2>{5500, 11000}));
  states[0] = {};  // An epoch begins.
  x[0] = 7;
  ASSERT_TRUE(model->run(handles[0], scores));
  EXPECT_EQ(scores[0], 7);
}

TEST_F(Loader, WhoKeepsNoStateForAModelIsRefused) {
  const auto model = load({file("a", "!")}, {kStateful});
  const float x = 0;
  std::array<float, 3> states{};
  EXPECT_EQ(setup_error([&] { (void)model->bind(&x); }),
            (folder_ / "a").string() + ": bind: expected memory for its state h[1, 1], twice[1], found none");
  EXPECT_TRUE(has(setup_error([&] { (void)model->bind(&x, states); }), {"found 3 floats"}));
  const auto without = load({file("a", "!")}, {kPlain});
  EXPECT_TRUE(has(setup_error([&] { (void)without->bind(&x, states); }),
                  {"expected no memory for states, of which it has none, found 3 floats"}));
  EXPECT_TRUE(has(setup_error([&] { (void)without->bind(nullptr); }), {"memory of floats, found null"}));
}

TEST_F(Loader, StateGoesFromRowToRowSoBatchesAndEnsemblesHaveNone) {
  EXPECT_TRUE(has(setup_error([&] { (void)load({file("a", "!")}, {kStateful}, 2); }),
                  {"max_batch = 1, since it has state", "found 2"}));
  EXPECT_TRUE(has(setup_error([&] { (void)load({file("a", "!"), file("b", "!")}, {kStateful}); }),
                  {"a model without state, in an ensemble", "the state h"}));
}

TEST(Executors, HaveNamesOfTheirOwnAndTheLastTakesWhateverIsOnnx) {
  std::set<std::string_view> names;
  for (const Executor& executor : kExecutors) {
    EXPECT_TRUE(names.insert(executor.name).second) << executor.name;
    EXPECT_EQ(executor.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_"),
              std::string_view::npos);
    EXPECT_NE(executor.load, nullptr);
  }
  EXPECT_EQ(kExecutors.back().name, "onnxruntime");
  EXPECT_NE(kExecutors.back().optimize, nullptr);
}

TEST(Executors, WhatOnnxRuntimeRunsHasNoState) {
  TICKWIRE_NEEDS_ORT();
  const auto model = testing::load_file(testing::model_file("good_mlp"), 1, 5);
  EXPECT_TRUE(model->info().states.empty());
  EXPECT_TRUE(model->info().exact);
  EXPECT_TRUE(model->info().executor.starts_with(std::string(kExecutors.back().name) + " "));
}

}  // namespace
}  // namespace tickwire::infer

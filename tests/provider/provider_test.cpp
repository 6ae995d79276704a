#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "infer/model_files.hpp"
#include "tickwire/infer/loader.hpp"
#include "tickwire/infer/onnxruntime/ort_api.hpp"
#include "tickwire/infer/onnxruntime/ort_provider.hpp"

/// What is asked of CUDA and TensorRT, and that a model behind a binding scores as it does without: on a
/// stand-in, so neither the copy to a device nor anything a GPU computes is tested here.
namespace tickwire::infer {
namespace {

using testing::has;
using testing::model_file;
using testing::setup_error;

class ProviderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    TICKWIRE_NEEDS_ORT();
    ::setenv("TICKWIRE_ORT_LIBRARY", testing::ort_library().c_str(), 1);
    ::unsetenv("TICKWIRE_STAND_IN_FAILS");
    open_ort(TICKWIRE_GPU_STAND_IN);
    notes();
  }

  static std::string notes() {
    void* handle = ::dlopen(TICKWIRE_GPU_STAND_IN, RTLD_NOW | RTLD_NOLOAD);
    using Notes = const char* (*)();
    return reinterpret_cast<Notes>(::dlsym(handle, "tickwire_stand_in_notes"))();
  }

  static std::unique_ptr<Model> load(const std::string& provider, const std::string& name, std::size_t rows,
                                     std::size_t features, std::size_t max_batch,
                                     const std::string& cache_dir = "") {
    return load_model({.members = {{.path = model_file(name), .weight = 1.0}},
                       .library = TICKWIRE_GPU_STAND_IN,
                       .provider = provider,
                       .cache_dir = cache_dir},
                      {.rows = rows, .features = features, .max_batch = max_batch});
  }
};

TEST_F(ProviderTest, ListsWhatTheLibraryHas) {
  EXPECT_EQ(available_providers(open_ort(TICKWIRE_GPU_STAND_IN)),
            (std::vector<std::string>{"cpu", "cuda", "tensorrt"}));
}

TEST_F(ProviderTest, ScoresThroughABindingAsWithoutOne) {
  constexpr std::size_t kMaxBatch = 4;
  alignas(64) float input[kMaxBatch * 12];
  for (std::size_t i = 0; i < std::size(input); ++i) input[i] = std::sin(static_cast<float>(i + 1));
  const auto cpu = load("cpu", "good_window", 4, 3, kMaxBatch);
  EXPECT_EQ(notes().find("append"), std::string::npos);
  for (const std::string provider : {"cuda", "tensorrt"}) {
    const auto gpu = load(provider, "good_window", 4, 3, kMaxBatch);
    EXPECT_TRUE(gpu->info().executor.ends_with(" " + provider)) << gpu->info().executor;
    EXPECT_EQ(gpu->warm_up(8, kWarmUpMaxNs), 8U);
    const std::size_t bound = gpu->bind(input);
    const std::size_t plain = cpu->bind(input);
    notes();
    for (std::size_t count = 1; count <= kMaxBatch; ++count) {
      std::vector<float> expected(count * 2);
      std::vector<float> found(count * 2);
      ASSERT_TRUE(cpu->run_batch(plain, count, expected));
      ASSERT_TRUE(gpu->run_batch(bound, count, found)) << gpu->last_error();
      for (std::size_t i = 0; i < found.size(); ++i) {
        EXPECT_EQ(std::bit_cast<std::uint32_t>(found[i]), std::bit_cast<std::uint32_t>(expected[i]));
      }
      EXPECT_EQ(notes(), "bind input\nrun with binding\n") << "once a run, with what the memory holds now";
      input[0] += 1.0F;
    }
  }
}

TEST_F(ProviderTest, KeepsScoresOfAFailedRunAndSaysWhy) {
  const auto model = load("cuda", "bad_shape_changes", 1, 5, 1);
  alignas(64) const float input[5] = {0, 1, 0, 1, 0};
  std::vector<float> scores(10, 42.0F);
  EXPECT_FALSE(model->run(model->bind(input), scores));
  EXPECT_TRUE(has(std::string(model->last_error()), {"shape"}));
  EXPECT_EQ(scores, std::vector<float>(10, 42.0F));
}

TEST_F(ProviderTest, AsksCudaForTheSameScoresEachTime) {
  load("cuda", "good_free_batch", 1, 4, 1);
  const std::string asked = notes();
  EXPECT_TRUE(has(asked, {"use_tf32=0", "cudnn_conv_algo_search=HEURISTIC", "append cuda",
                          "session.disable_cpu_ep_fallback=1"}));
  EXPECT_EQ(asked.find("tensorrt"), std::string::npos);
}

TEST_F(ProviderTest, TellsTensorRtItsShapesAndWhereToKeepItsEngines) {
  const std::string folder = ::testing::TempDir() + "tickwire_engines/of_a_model";
  std::filesystem::remove_all(folder);
  load("tensorrt", "good_window", 4, 3, 8, folder);
  const std::string asked = notes();
  EXPECT_TRUE(has(
      asked, {"trt_profile_min_shapes=window:1x4x3", "trt_profile_opt_shapes=window:8x4x3",
              "trt_profile_max_shapes=window:8x4x3", "trt_engine_cache_enable=1",
              "trt_engine_cache_path=" + folder, "trt_timing_cache_path=" + folder, "trt_fp16_enable=0"}));
  EXPECT_LT(asked.find("append tensorrt"), asked.find("append cuda")) << "what TensorRT leaves goes to CUDA";
  EXPECT_TRUE(std::filesystem::is_directory(folder));
  std::filesystem::remove_all(folder);

  load("tensorrt", "good_window", 4, 3, 1);
  EXPECT_EQ(notes().find("profile"), std::string::npos) << "one shape needs no range";
  EXPECT_TRUE(has(setup_error([&] { load("tensorrt", "good_window", 4, 3, 1, "/proc/none/engines"); }),
                  {"cache_dir: expected a folder that can be made, found /proc/none/engines"}));
}

TEST_F(ProviderTest, SaysWhatAProviderThatCannotStartNeeds) {
  ::setenv("TICKWIRE_STAND_IN_FAILS", "1", 1);
  for (const std::string provider : {"cuda", "tensorrt"}) {
    EXPECT_TRUE(has(setup_error([&] { load(provider, "good_mlp", 1, 5, 1); }),
                    {"provider: expected " + provider + " to start, found CUDA failure 35",
                     "pip install 'onnxruntime-gpu[cuda,cudnn]'"}));
  }
}

}  // namespace
}  // namespace tickwire::infer

#include "tickwire/infer/onnxruntime/ort_provider.hpp"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include <onnxruntime_c_api.h>
#include <onnxruntime_session_options_config_keys.h>

#include "tickwire/core/error.hpp"
#include "tickwire/infer/onnxruntime/ort_api.hpp"

namespace tickwire::infer {
namespace {

constexpr std::pair<const char*, const char*> kNames[] = {
    {"cpu", "CPUExecutionProvider"},
    {"cuda", "CUDAExecutionProvider"},
    {"tensorrt", "TensorrtExecutionProvider"},
};

constexpr const char* kNeeds =
    "; it needs an NVIDIA driver and the CUDA and cuDNN libraries that the release of onnxruntime-gpu was "
    "built for (pip install 'onnxruntime-gpu[cuda,cudnn]'), TensorRT also its own";

using Options = std::vector<std::pair<std::string, std::string>>;

void require(const OrtRuntime& runtime, const std::string& provider, OrtStatus* status) {
  if (status == nullptr) return;
  std::string why = runtime.api->GetErrorMessage(status);
  runtime.api->ReleaseStatus(status);
  while (why.ends_with('\n')) why.pop_back();
  throw SetupError("provider", provider + " to start", why + kNeeds);
}

/// Create, fill, append, release: the same four calls for either provider's opaque options.
template <typename Handle>
void append(const OrtRuntime& runtime, const std::string& provider, const Options& options,
            OrtSessionOptions& session, OrtStatusPtr(ORT_API_CALL* create)(Handle**),
            OrtStatusPtr(ORT_API_CALL* update)(Handle*, const char* const*, const char* const*, std::size_t),
            OrtStatusPtr(ORT_API_CALL* add)(OrtSessionOptions*, const Handle*),
            void(ORT_API_CALL* release)(Handle*)) {
  std::vector<const char*> keys;
  std::vector<const char*> values;
  for (const auto& [key, value] : options) {
    keys.push_back(key.c_str());
    values.push_back(value.c_str());
  }
  Handle* handle = nullptr;
  require(runtime, provider, create(&handle));
  const std::unique_ptr<Handle, void(ORT_API_CALL*)(Handle*)> owner(handle, release);
  require(runtime, provider, update(handle, keys.data(), values.data(), keys.size()));
  require(runtime, provider, add(&session, handle));
}

/// On the default stream, so that a run that has returned has its scores in our memory; in full float32,
/// because TF32 would keep ten bits of a factor; the convolution algorithms by rule and not by a race, so
/// that a restart does not choose others.
void append_cuda(const OrtRuntime& runtime, OrtSessionOptions& options) {
  const OrtApi& api = *runtime.api;
  append(runtime, "cuda",
         {{"device_id", "0"},
          {"do_copy_in_default_stream", "1"},
          {"use_tf32", "0"},
          {"cudnn_conv_algo_search", "HEURISTIC"}},
         options, api.CreateCUDAProviderOptions, api.UpdateCUDAProviderOptions,
         api.SessionOptionsAppendExecutionProvider_CUDA_V2, api.ReleaseCUDAProviderOptions);
}

/// "input:1x50x7"
std::string profile(const ProviderConfig& config, std::size_t batch) {
  std::string text = config.input_name + ":" + std::to_string(batch);
  for (std::size_t i = 1; i < config.shape.size(); ++i)
    text.append("x").append(std::to_string(config.shape[i]));
  return text;
}

void append_tensorrt(const OrtRuntime& runtime, const ProviderConfig& config, OrtSessionOptions& session) {
  Options options{{"device_id", "0"}, {"trt_fp16_enable", "0"}, {"trt_int8_enable", "0"}};
  if (config.max_batch > 1) {
    // One engine for every size of batch: without the range each new size would build another, seconds.
    options.emplace_back("trt_profile_min_shapes", profile(config, 1));
    options.emplace_back("trt_profile_opt_shapes", profile(config, config.max_batch));
    options.emplace_back("trt_profile_max_shapes", profile(config, config.max_batch));
  }
  if (!config.cache_dir.empty()) {
    std::error_code error;
    std::filesystem::create_directories(config.cache_dir, error);
    if (error) {
      throw SetupError("provider: cache_dir", "a folder that can be made",
                       config.cache_dir + " (" + error.message() + ")");
    }
    options.emplace_back("trt_engine_cache_enable", "1");
    options.emplace_back("trt_engine_cache_path", config.cache_dir);
    options.emplace_back("trt_timing_cache_enable", "1");
    options.emplace_back("trt_timing_cache_path", config.cache_dir);
  }
  const OrtApi& api = *runtime.api;
  append(runtime, "tensorrt", options, session, api.CreateTensorRTProviderOptions,
         api.UpdateTensorRTProviderOptions, api.SessionOptionsAppendExecutionProvider_TensorRT_V2,
         api.ReleaseTensorRTProviderOptions);
}

}  // namespace

std::vector<std::string> available_providers(const OrtRuntime& runtime) {
  const OrtApi& api = *runtime.api;
  char** list = nullptr;
  int count = 0;
  std::vector<std::string> found{"cpu"};
  if (OrtStatus* status = api.GetAvailableProviders(&list, &count); status != nullptr) {
    api.ReleaseStatus(status);
    return found;
  }
  for (const auto& [name, theirs] : kNames) {
    if (name != found.front() && std::find(list, list + count, std::string(theirs)) != list + count) {
      found.emplace_back(name);
    }
  }
  if (OrtStatus* status = api.ReleaseAvailableProviders(list, count)) api.ReleaseStatus(status);
  return found;
}

void append_provider(const OrtRuntime& runtime, const ProviderConfig& config, OrtSessionOptions& options) {
  const auto is_it = [&](const auto& names) { return names.first == config.name; };
  if (std::none_of(std::begin(kNames), std::end(kNames), is_it)) {
    throw SetupError("provider", "cpu, cuda or tensorrt", config.name);
  }
  if (config.name == "cpu") return;
  const std::vector<std::string> available = available_providers(runtime);
  if (std::find(available.begin(), available.end(), config.name) == available.end()) {
    std::string expected;
    for (const std::string& name : available) expected.append(expected.empty() ? "" : ", ").append(name);
    throw SetupError("provider", expected + ", which is what onnxruntime " + runtime.version + " here has",
                     config.name +
                         "; it comes with the package onnxruntime-gpu (pip uninstall onnxruntime, "
                         "then pip install onnxruntime-gpu)");
  }
  if (config.name == "tensorrt") append_tensorrt(runtime, config, options);
  append_cuda(runtime, options);  // Also behind TensorRT, for the operators that it leaves.
  const OrtApi& api = *runtime.api;
  require(runtime, config.name,
          api.AddSessionConfigEntry(&options, kOrtSessionOptionsDisableCPUEPFallback, "1"));
  require(runtime, config.name, api.SetDeterministicCompute(&options, true));
}

}  // namespace tickwire::infer

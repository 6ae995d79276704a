#pragma once

/// Where ONNX Runtime runs a model: the CPU, or an NVIDIA GPU through CUDA or TensorRT.
///
/// What there is depends on the wheel that is installed, not on this build. A provider that was asked
/// for and is not there, cannot start or cannot run all of a model is an error: falling back to the CPU
/// would change the scores' bits and the latency without a word. Which GPU, if there are several, is
/// CUDA_VISIBLE_DEVICES' business.
///
/// Setup only.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

struct OrtSessionOptions;

namespace tickwire::infer {

struct OrtRuntime;

/// The providers of `runtime` that we can use: "cpu" always, "cuda" and "tensorrt" where its wheel has
/// them. One that is listed may still lack its driver.
[[nodiscard]] std::vector<std::string> available_providers(const OrtRuntime& runtime);

/// What a provider must know of the model beforehand.
struct ProviderConfig {
  std::string name;                 // "cpu", "cuda" or "tensorrt".
  std::string cache_dir;            // Where TensorRT keeps what it built; empty: it builds at each load.
  std::string input_name;           // TensorRT builds for a range of shapes of this input:
  std::vector<std::int64_t> shape;  // this one, whose first dimension goes from 1 …
  std::size_t max_batch;            // … to this.
};

/// Throws SetupError, naming what there is and what to install, unless `options` now asks for it.
void append_provider(const OrtRuntime& runtime, const ProviderConfig& config, OrtSessionOptions& options);

}  // namespace tickwire::infer

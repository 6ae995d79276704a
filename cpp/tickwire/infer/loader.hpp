#pragma once

/// Loads models: the one way from files to a Model, for the engine, the worker program and Python.
///
/// Each file is read once and given to one executor after another, until one takes it. What an executor made
/// is tried: a row has one score, and no other row's. Several files are an ensemble.
///
/// Setup only; any thread.

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tickwire/infer/executor.hpp"
#include "tickwire/infer/executors.hpp"
#include "tickwire/infer/model.hpp"

namespace tickwire::infer {

/// One file of a model: a model of several is an ensemble, scored as their weighted mean.
struct ModelMember {
  std::string path;
  double weight;
  int fd = -1;  // Its bytes, where they are held already: `path` is then only its name. Else -1.
};

/// What a model is made of, and with what.
struct ModelSource {
  std::vector<ModelMember> members;
  std::string library;    // Path of libonnxruntime.so.
  std::string provider;   // "cpu", "cuda" or "tensorrt".
  std::string cache_dir;  // The provider's; may be empty.
};

/// What is asked of it.
struct ModelShape {
  std::size_t rows;       // What the feature schema makes: T rows …
  std::size_t features;   // … of F features. Both 0: whatever the file declares.
  std::size_t max_batch;  // Blocks in one run; more than one needs a free batch dimension.
};

/// These bytes were loaded before, on this machine: the trial runs need no repetition.
enum class Tried : bool { No, Yes };

/// Throws SetupError, naming the file, what was expected and what was found, where no executor can run it, or
/// where one does and a row's scores are not its own. An executor that declined is in the notes.
[[nodiscard]] std::unique_ptr<Model> load_model(const ModelSource& source, const ModelShape& shape,
                                                Tried tried = Tried::No,
                                                std::span<const Executor> executors = kExecutors);

/// Where models can be run here, "cpu" first. One that is listed may still lack its driver.
[[nodiscard]] std::vector<std::string> model_providers(const std::string& library,
                                                       std::span<const Executor> executors = kExecutors);

/// Writes to `out` the file's graph as it would be run, optimised for this machine and provider: a start
/// that loads it has less to do. `format` is "onnx" or "ort". The metadata stays.
void optimize_model(const ModelSource& source, const std::string& out, const std::string& format);

}  // namespace tickwire::infer

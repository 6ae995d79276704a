#pragma once

/// What runs models: ONNX Runtime is one, and there may be others that know fewer models and are faster at
/// them. Each has a folder of its own here, an entry in its `executor.hpp`, and a line in executors.hpp.
///
/// An executor gets a file's bytes and what the feature schema asks for, and gives a Model, or says why it
/// leaves that one to others. What comes of it is tried by the loader and not by the executor (see
/// trial.hpp). Setup only; any thread.

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tickwire/infer/model.hpp"

namespace tickwire::infer {

/// One file of a model, read, and what is asked of it.
struct ModelRequest {
  const std::string& path;           // Its name, for errors: it is not read again.
  std::span<const std::byte> bytes;  // All of it. They end with the call.
  std::size_t rows;                  // What the feature schema makes: T rows …
  std::size_t features;              // … of F features. Both 0: whatever the file declares.
  std::size_t max_batch;             // Blocks in one run, 1 or more.
  const std::string& provider;       // Where to run it: "cpu", …
  const std::string& cache_dir;      // Of the provider, for what it builds; may be empty.
  const std::string& library;        // Path of libonnxruntime.so.
};

/// A model, or why this executor leaves it to another one.
struct Made {
  template <typename Derived>
  Made(std::unique_ptr<Derived> made) : model(std::move(made)) {}
  static Made declined(std::string why) {
    Made none(std::unique_ptr<Model>{});
    none.why_not = std::move(why);
    return none;
  }

  std::unique_ptr<Model> model;
  std::string why_not;
};

struct Executor {
  /// Begins ModelInfo::executor, behind which the model says what it runs on: a version, an instruction set.
  std::string_view name;

  /// Throws SetupError for what no executor could run: a damaged file, an input that the schema does not
  /// make.
  Made (*load)(const ModelRequest& request);

  /// The providers that there are here, with the runtime in `library`; without it: "cpu" alone.
  std::vector<std::string> (*providers)(const std::string& library) = nullptr;

  /// Writes to `out` the graph as load() would run it; `format` is "onnx" or "ort". Where it can.
  void (*optimize)(const ModelRequest& request, const std::string& out, const std::string& format) = nullptr;
};

}  // namespace tickwire::infer

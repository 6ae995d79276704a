#pragma once

/// Loads an ONNX file into a Model that ONNX Runtime runs on the calling thread.
///
/// One session: one thread, sequential, every graph optimisation, denormals flushed. All values are
/// made at setup over fixed memory, and one set of run options serves every run, so a run is one call
/// into the runtime and a copy of the scores. What the runtime allocates inside that call is its own:
/// 14 and more small allocations that no option removes.
///
/// On a GPU the same memory is bound to the session: a run copies the input there, waits for the scores
/// and finds them in ours.

#include <cstddef>
#include <memory>
#include <string>

#include "tickwire/infer/model.hpp"

namespace tickwire::infer {

struct OrtModelConfig {
  std::string library;    // Path of libonnxruntime.so, see ort_api.hpp.
  std::string provider;   // "cpu", "cuda" or "tensorrt", see ort_provider.hpp.
  std::string cache_dir;  // Of the provider, for what it builds; may be empty.
  std::string path;       // The ONNX file. All of it: weights in files beside it are not read.
  std::size_t rows;       // What the feature schema makes: T rows …
  std::size_t features;   // … of F features. Both 0: whatever the file declares.
  std::size_t max_batch;  // Blocks in one run; more than one needs a free batch dimension.
  int fd = -1;            // The file's bytes, where they are held already; `path` is then only its name.
  bool tried = false;  // These bytes were loaded before, on this machine: the trial runs need no repetition.
};

/// Throws SetupError, naming the file, what was expected and what was found, unless the file has
///  - exactly one input: float32 of shape [1 or a free batch, F], or [1 or a free batch, T, F];
///  - at least one float32 output, kMaxScores scores in all, of a shape that does not depend on the
///    input. Outputs of other types (labels, ZipMap) are left out, with a note in the info.
/// and unless it gives a row the same scores each time it is asked (tried on made-up rows, bit for bit; on a
/// GPU to a thousandth). The file is ONNX, or ONNX Runtime's own format (.ort), as its bytes say. A free
/// batch is fixed to 1 before the graph is optimised, unless max_batch is more: then the batch must be free,
/// each output must have one line a block, and a block's scores must not depend on the others in its batch
/// (tried on made-up rows, to a thousandth).
[[nodiscard]] std::unique_ptr<Model> load_ort_model(const OrtModelConfig& config);

/// Writes to `out` the graph as load_ort_model() would run it, optimised for this machine and provider ("cpu"
/// or "cuda"; TensorRT has its own engines), its batch as free as it was: a start that loads it has less
/// to do. `format` is "onnx" or "ort". The metadata stays.
void optimize_ort_model(const OrtModelConfig& config, const std::string& out, const std::string& format);

}  // namespace tickwire::infer

#pragma once

/// Makes a Model of an ONNX file that ONNX Runtime runs on the calling thread.
///
/// One session: one thread, sequential, every graph optimisation, denormals flushed. All values are
/// made at setup over fixed memory, and one set of run options serves every run, so a run is one call
/// into the runtime and a copy of the scores. What the runtime allocates inside that call is its own:
/// 14 and more small allocations that no option removes.
///
/// On a GPU the same memory is bound to the session: a run copies the input there, waits for the scores
/// and finds them in ours.

#include <string>

#include "tickwire/infer/executor.hpp"

namespace tickwire::infer {

/// Throws SetupError, naming the file, what was expected and what was found, unless the file has
///  - exactly one input: float32 of shape [1 or a free batch, F], or [1 or a free batch, T, F];
///  - at least one float32 output, kMaxScores scores in all, of a shape that does not depend on the
///    input. Outputs of other types (labels, ZipMap) are left out, with a note in the info.
/// It never declines. The file is ONNX, or ONNX Runtime's own format (.ort), as its bytes say. A free batch
/// is fixed to 1 before the graph is optimised, unless max_batch is more: then the batch must be free, and
/// each output must have one line a block. A model has no state here.
[[nodiscard]] Made load_ort_model(const ModelRequest& request);

/// Writes to `out` the graph as load_ort_model() would run it, optimised for this machine and provider ("cpu"
/// or "cuda"; TensorRT has its own engines), its batch as free as it was: a start that loads it has less
/// to do. `format` is "onnx" or "ort". The metadata stays.
void optimize_ort_model(const ModelRequest& request, const std::string& out, const std::string& format);

}  // namespace tickwire::infer

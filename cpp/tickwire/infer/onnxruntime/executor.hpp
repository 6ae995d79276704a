#pragma once

/// ONNX Runtime as an executor: see ort_model.hpp.

#include <string>

#include "tickwire/infer/executor.hpp"
#include "tickwire/infer/onnxruntime/ort_api.hpp"
#include "tickwire/infer/onnxruntime/ort_model.hpp"
#include "tickwire/infer/onnxruntime/ort_provider.hpp"

namespace tickwire::infer {

inline constexpr Executor kOnnxRuntime{
    .name = "onnxruntime",
    .load = load_ort_model,
    .providers = [](const std::string& library) { return available_providers(open_ort(library)); },
    .optimize = optimize_ort_model,
};

}  // namespace tickwire::infer

#pragma once

/// The list of executors. A model is the first one's that takes it; the last takes whatever is ONNX.

#include <array>

#include "tickwire/infer/executor.hpp"
#include "tickwire/infer/onnxruntime/executor.hpp"

namespace tickwire::infer {

inline constexpr std::array kExecutors{
    kOnnxRuntime,
};

}  // namespace tickwire::infer

#include "tickwire/infer/model.hpp"

#include "tickwire/core/error.hpp"

namespace tickwire::infer {

std::size_t StateTensor::floats() const noexcept {
  std::size_t count = 1;
  for (const std::size_t size : shape) count *= size;
  return count;
}

std::size_t ModelInfo::state_floats() const noexcept {
  std::size_t count = 0;
  for (const StateTensor& state : states) count += state.floats();
  return count;
}

std::size_t Model::bind(const float* inputs, std::span<float> states) {
  const auto misaligned = [](const float* data) {
    return reinterpret_cast<std::uintptr_t>(data) % alignof(float) != 0;
  };
  if (inputs == nullptr || misaligned(inputs)) {
    throw SetupError(info_.path + ": bind", "memory of floats",
                     inputs == nullptr ? "null" : "a misaligned address");
  }
  if (states.size() != info_.state_floats() || misaligned(states.data())) {
    std::string expected;
    for (const StateTensor& state : info_.states) {
      expected.append(expected.empty() ? "memory for its state " : ", ").append(state.name).append("[");
      for (std::size_t i = 0; i < state.shape.size(); ++i) {
        expected.append(i == 0 ? "" : ", ").append(std::to_string(state.shape[i]));
      }
      expected.append("]");
    }
    throw SetupError(info_.path + ": bind",
                     expected.empty() ? "no memory for states, of which it has none" : expected,
                     states.empty() ? "none" : std::to_string(states.size()) + " floats");
  }
  return add_binding(inputs, states);
}

void Model::made_by(std::string_view executor, const std::vector<std::string>& notes) {
  info_.executor =
      info_.executor.empty() ? std::string(executor) : std::string(executor) + " " + info_.executor;
  info_.notes.insert(info_.notes.end(), notes.begin(), notes.end());
}

}  // namespace tickwire::infer

#include "tickwire/features/plan.hpp"

#include <algorithm>
#include <string>

#include "tickwire/core/error.hpp"

namespace tickwire::features {
namespace {

template <typename T>
void expect_range(const std::string& where, T value, T low, T high) {
  if (value < low || value > high) {
    throw SetupError(where, "an integer from " + std::to_string(low) + " to " + std::to_string(high),
                     std::to_string(value));
  }
}

void validate_window(const std::string& where, const NodeSpec& node, bool may_count) {
  if (may_count && (node.window_ns != 0) == (node.window_count != 0)) {
    throw SetupError(where + ".window_ns", "either a duration or a count",
                     std::to_string(node.window_ns) + " ns and " + std::to_string(node.window_count));
  }
  if (may_count && node.window_count != 0) {
    expect_range<std::uint32_t>(where + ".window_count", node.window_count, 1, kMaxWindowCount);
  } else {
    expect_range<std::int64_t>(where + ".window_ns", node.window_ns, 1, kMaxWindowNs);
    expect_range<std::uint32_t>(where + ".window_count", node.window_count, 0, 0);
  }
}

void validate_node(const NodeSpec& node, std::size_t index) {
  const std::string where = "features.nodes[" + std::to_string(index) + "]";
  if (node.kernel == nullptr) throw SetupError(where + ".kernel", "a kernel of the list", "none");
  const KernelEntry& kernel = *node.kernel;
  if (kernel.wraps() && (node.input < 0 || static_cast<std::size_t>(node.input) >= index)) {
    throw SetupError(where + ".input", "the index of an earlier node", std::to_string(node.input));
  }
  if (!kernel.wraps() && node.input != -1) {
    throw SetupError(where + ".input", "-1, " + std::string(kernel.name) + " wraps nothing",
                     std::to_string(node.input));
  }
  for (const Parameter& parameter : kernel.parameters) {
    if (parameter.name.empty()) continue;
    switch (parameter.kind) {
      case Parameter::Kind::Expression: break;
      case Parameter::Kind::Levels:
        expect_range<std::uint32_t>(where + ".levels", node.levels, 1, kMaxLevels);
        break;
      case Parameter::Kind::Window: validate_window(where, node, true); break;
      case Parameter::Kind::Duration: validate_window(where, node, false); break;
      case Parameter::Kind::Halflife:
        expect_range<std::int64_t>(where + ".halflife_ns", node.halflife_ns, 1, kMaxWindowNs);
        break;
      case Parameter::Kind::Lag:
        expect_range<std::uint32_t>(where + ".lag", node.lag, 1, kMaxWindowCount);
        break;
    }
  }
}

}  // namespace

std::size_t FeaturePlan::max_levels() const noexcept {
  std::size_t levels = 1;
  for (const NodeSpec& node : nodes) levels = std::max<std::size_t>(levels, node.levels);
  return levels;
}

std::size_t FeaturePlan::reach() const noexcept {
  std::size_t levels = 0;
  for (const NodeSpec& node : nodes) {
    switch (node.kernel->reach) {
      case Reach::None: break;
      case Reach::Best: levels = std::max<std::size_t>(levels, 1); break;
      case Reach::Levels: levels = std::max<std::size_t>(levels, node.levels); break;
    }
  }
  return levels;
}

void FeaturePlan::validate() const {
  if (outputs.empty()) throw SetupError("features.outputs", "at least one feature", "none");
  for (std::size_t i = 0; i < nodes.size(); ++i) validate_node(nodes[i], i);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i] >= nodes.size()) {
      throw SetupError("features.outputs[" + std::to_string(i) + "]", "the index of a node",
                       std::to_string(outputs[i]));
    }
  }
}

}  // namespace tickwire::features

#include "tickwire/features/plan.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "tickwire/core/error.hpp"

namespace tickwire::features {
namespace {

enum class Takes : std::uint8_t { Nothing, Levels, Window, Duration, Halflife, Lag, LevelsAndWindow };

/// The levels a side that a kernel's value depends on, by itself: what it wraps has its own.
enum class Reach : std::uint8_t { None, Best, Levels };

struct KernelTraits {
  std::string_view name;
  bool wraps;  // Is a kernel of another expression.
  Takes takes;
  Reach reach;
};

constexpr std::array<KernelTraits, 19> kTraits{{
    {"imbalance", false, Takes::Levels, Reach::Levels},
    {"spread", false, Takes::Nothing, Reach::Best},
    {"microprice_offset", false, Takes::Nothing, Reach::Best},
    {"mid_return", false, Takes::Window, Reach::Best},
    {"ofi", false, Takes::LevelsAndWindow, Reach::Levels},
    {"trade_flow", false, Takes::Window, Reach::None},
    {"trade_count", false, Takes::Duration, Reach::None},
    {"vwap_offset", false, Takes::Window, Reach::Best},
    {"realized_vol", false, Takes::Window, Reach::Best},
    {"queue_imbalance", false, Takes::Nothing, Reach::Best},
    {"order_arrival_rate", false, Takes::Duration, Reach::None},
    {"cancel_rate", false, Takes::Duration, Reach::None},
    {"mean", true, Takes::Window, Reach::None},
    {"std", true, Takes::Window, Reach::None},
    {"min", true, Takes::Window, Reach::None},
    {"max", true, Takes::Window, Reach::None},
    {"zscore", true, Takes::Window, Reach::None},
    {"ema", true, Takes::Halflife, Reach::None},
    {"diff", true, Takes::Lag, Reach::None},
}};

const KernelTraits& traits_of(KernelKind kernel) noexcept {
  return kTraits[static_cast<std::size_t>(kernel)];
}

template <typename T>
void expect_range(const std::string& where, T value, T low, T high) {
  if (value < low || value > high) {
    throw SetupError(where, "an integer from " + std::to_string(low) + " to " + std::to_string(high),
                     std::to_string(value));
  }
}

void validate_node(const NodeSpec& node, std::size_t index) {
  const std::string where = "features.nodes[" + std::to_string(index) + "]";
  if (static_cast<std::size_t>(node.kernel) >= kTraits.size()) {
    throw SetupError(where + ".kernel", "a known kernel", std::to_string(static_cast<unsigned>(node.kernel)));
  }
  const KernelTraits& traits = traits_of(node.kernel);
  if (traits.wraps && (node.input < 0 || static_cast<std::size_t>(node.input) >= index)) {
    throw SetupError(where + ".input", "the index of an earlier node", std::to_string(node.input));
  }
  if (!traits.wraps && node.input != -1) {
    throw SetupError(where + ".input", "-1, " + std::string(traits.name) + " wraps nothing",
                     std::to_string(node.input));
  }
  const Takes takes = traits.takes;
  if (takes == Takes::Levels || takes == Takes::LevelsAndWindow) {
    expect_range<std::uint32_t>(where + ".levels", node.levels, 1, kMaxLevels);
  }
  if (takes == Takes::Window || takes == Takes::LevelsAndWindow) {
    if ((node.window_ns != 0) == (node.window_count != 0)) {
      throw SetupError(where + ".window_ns", "either a duration or a count",
                       std::to_string(node.window_ns) + " ns and " + std::to_string(node.window_count));
    }
    if (node.window_count != 0) {
      expect_range<std::uint32_t>(where + ".window_count", node.window_count, 1, kMaxWindowCount);
    } else {
      expect_range<std::int64_t>(where + ".window_ns", node.window_ns, 1, kMaxWindowNs);
    }
  }
  if (takes == Takes::Duration) {
    expect_range<std::int64_t>(where + ".window_ns", node.window_ns, 1, kMaxWindowNs);
    expect_range<std::uint32_t>(where + ".window_count", node.window_count, 0, 0);
  }
  if (takes == Takes::Halflife) {
    expect_range<std::int64_t>(where + ".halflife_ns", node.halflife_ns, 1, kMaxWindowNs);
  }
  if (takes == Takes::Lag) expect_range<std::uint32_t>(where + ".lag", node.lag, 1, kMaxWindowCount);
}

}  // namespace

std::string_view name_of(KernelKind kernel) noexcept { return traits_of(kernel).name; }

std::optional<KernelKind> kernel_from_name(std::string_view name) noexcept {
  const auto found = std::find_if(kTraits.begin(), kTraits.end(),
                                  [name](const KernelTraits& traits) { return traits.name == name; });
  if (found == kTraits.end()) return std::nullopt;
  return static_cast<KernelKind>(found - kTraits.begin());
}

std::size_t FeaturePlan::max_levels() const noexcept {
  std::size_t levels = 1;
  for (const NodeSpec& node : nodes) levels = std::max<std::size_t>(levels, node.levels);
  return levels;
}

std::size_t FeaturePlan::reach() const noexcept {
  std::size_t levels = 0;
  for (const NodeSpec& node : nodes) {
    switch (traits_of(node.kernel).reach) {
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

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tickwire/features/kernel.hpp"

namespace tickwire::features {

/// More levels than any venue's snapshot needs for a feature; each costs a copy at every book event.
inline constexpr std::uint32_t kMaxLevels = 1000;
inline constexpr std::int64_t kMaxWindowNs = 7LL * 24 * 3600 * 1'000'000'000;
inline constexpr std::uint32_t kMaxWindowCount = 1'000'000;

/// One distinct expression. A field that the kernel does not take is ignored and by convention 0.
struct NodeSpec {
  const KernelEntry* kernel;  // Of the list of kernels.
  std::int32_t input;         // Index of the wrapped node, -1 where none is.
  std::uint32_t levels;
  std::int64_t window_ns;      // 0 when the window is a count.
  std::uint32_t window_count;  // Samples, book events or trades; 0 when the window is a duration.
  std::int64_t halflife_ns;
  std::uint32_t lag;  // Samples.
};

/// The expressions of a feature row, compiled: each distinct sub-expression once, a wrapped node
/// before the nodes that wrap it.
struct FeaturePlan {
  std::vector<NodeSpec> nodes;
  std::vector<std::uint32_t> outputs;  // Node of each cell of the row; a node may stand twice.

  /// How many levels a side of the book FeatureEngine wants to see; at least one.
  std::size_t max_levels() const noexcept;

  /// How many of them a value depends on: a row is right only where these are known. None for features of
  /// trades and orders alone.
  std::size_t reach() const noexcept;

  /// Throws SetupError that names the node and the field.
  void validate() const;
};

}  // namespace tickwire::features

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace tickwire::features {

/// The kernels, in the order of the table in plan.cpp. Their definitions stand in kernels.hpp; what
/// a user reads about them is the table KERNELS of py/tickwire/features.py.
enum class KernelKind : std::uint8_t {
  // Of the book and of trades.
  Imbalance,
  Spread,
  MicropriceOffset,
  MidReturn,
  Ofi,
  TradeFlow,
  TradeCount,
  VwapOffset,
  RealizedVol,
  QueueImbalance,
  OrderArrivalRate,
  CancelRate,
  // Of any expression.
  Mean,
  Std,
  Min,
  Max,
  Zscore,
  Ema,
  Diff,
};

/// The name in an expression: `KernelKind::MidReturn` is "mid_return".
std::string_view name_of(KernelKind kernel) noexcept;
std::optional<KernelKind> kernel_from_name(std::string_view name) noexcept;

/// More levels than any venue's snapshot needs for a feature; each costs a copy at every book event.
inline constexpr std::uint32_t kMaxLevels = 1000;
inline constexpr std::int64_t kMaxWindowNs = 7LL * 24 * 3600 * 1'000'000'000;
inline constexpr std::uint32_t kMaxWindowCount = 1'000'000;

/// One distinct expression. A field that the kernel does not take is ignored and by convention 0.
struct NodeSpec {
  KernelKind kernel;
  std::int32_t input;  // Index of the wrapped node, -1 for a kernel of the book or of trades.
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

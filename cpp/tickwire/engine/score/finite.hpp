#pragma once

#include <span>

#include "tickwire/core/hot.hpp"

namespace tickwire::engine {

/// No NaN and no infinity among the values.
inline bool all_finite(std::span<const float> values) noexcept TICKWIRE_HOT {
  // x·0 is 0 for a finite x and NaN for the others: one pass without a branch.
  float sum = 0.0F;
  for (const float value : values) sum += value * 0.0F;
  return sum == 0.0F;
}

}  // namespace tickwire::engine

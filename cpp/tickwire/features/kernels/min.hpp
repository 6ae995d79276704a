#pragma once

#include "tickwire/features/extreme.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

class Min final : public Extreme<false> {
 public:
  static constexpr KernelEntry kEntry{
      .name = "min",
      .parameters = {kX, kWindow},
      .formula = "min x",
      .unit = "as x",
      .description = "The smallest sample of x in the window.",
      .version = 2,
  };

  using Extreme::Extreme;
};

}  // namespace tickwire::features

#pragma once

#include "tickwire/features/extreme.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

class Max final : public Extreme<true> {
 public:
  static constexpr KernelEntry kEntry{
      .name = "max",
      .parameters = {kX, kWindow},
      .formula = "max x",
      .unit = "as x",
      .description = "The largest sample of x in the window.",
      .version = 2,
  };

  using Extreme::Extreme;
};

}  // namespace tickwire::features

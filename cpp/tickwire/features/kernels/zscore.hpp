#pragma once

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/moment_kernel.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

class Zscore final : public MomentKernel {
 public:
  static constexpr KernelEntry kEntry{
      .name = "zscore",
      .parameters = {kX, kWindow},
      .formula = "(x − mean) / std",
      .unit = "standard deviations",
      .description =
          "The newest sample of x against the window, itself included; 0 where all samples in it are equal.",
      .version = 2,
  };

  using MomentKernel::MomentKernel;
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    evict(t);
    if (has_nan()) return kNan;
    return flat() ? 0.0 : state().score(newest());
  }
};

}  // namespace tickwire::features

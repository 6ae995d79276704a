#pragma once

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/moment_kernel.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

class Std final : public MomentKernel {
 public:
  static constexpr KernelEntry kEntry{
      .name = "std",
      .parameters = {kX, kWindow},
      .formula = "√(Σ(x − mean)² / n)",
      .unit = "as x",
      .description =
          "Population standard deviation of the samples of x in the window; 0 where they are all equal.",
      .version = 2,
  };

  using MomentKernel::MomentKernel;
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    evict(t);
    if (has_nan()) return kNan;
    return flat() ? 0.0 : state().deviation();
  }
};

}  // namespace tickwire::features

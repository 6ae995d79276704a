#pragma once

#include <cstdint>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/exact_math.hpp"
#include "tickwire/features/sample_kernel.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

class Mean final : public SampleKernel {
 public:
  static constexpr KernelEntry kEntry{
      .name = "mean",
      .parameters = {kX, kWindow},
      .formula = "Σx / n",
      .unit = "as x",
      .description = "Mean of the samples of x in the window.",
      .version = 2,
  };

  explicit Mean(const Site& site) noexcept : SampleKernel(site) {}

  void start(TsNs t) noexcept TICKWIRE_HOT override {
    SampleKernel::start(t);
    state_ = {};
  }
  void on_book(TsNs t) noexcept TICKWIRE_HOT override {
    if (!arrived(t)) return;
    state_.add(newest());
    evict(t);
  }
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    evict(t);
    if (has_nan()) return kNan;
    if (flat()) return newest();
    return divide(state_.sum.value(), {static_cast<double>(window_.window.size()), 0.0});
  }

 private:
  void evict(TsNs t) noexcept TICKWIRE_HOT {
    window_.window.evict(
        t, [this](std::uint64_t number) noexcept { state_.remove(input_.samples->values[number]); },
        [this]() noexcept {
          state_ = {};
          state_.add(newest());
        });
  }

  SumState state_;
};

}  // namespace tickwire::features

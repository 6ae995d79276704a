#pragma once

#include <cstdint>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

class Diff final : public Kernel {
 public:
  static constexpr KernelEntry kEntry{
      .name = "diff",
      .parameters = {{kX, {"lag", Parameter::Kind::Lag}}},
      .formula = "x_k − x_{k−lag}",
      .unit = "as x",
      .description = "The newest sample of x less the one `lag` samples before.",
      .version = 2,
  };

  explicit Diff(const Site& site) noexcept : input_(site.input), lag_(site.node.lag) {}

  void start(TsNs) noexcept TICKWIRE_HOT override { warm_at_ = kNever; }
  void on_book(TsNs t) noexcept TICKWIRE_HOT override {
    if (warm_at_ == kNever && input_.started() && input_.timeline->newest - input_.samples->first >= lag_) {
      warm_at_ = t;
    }
  }
  double value(TsNs) noexcept TICKWIRE_HOT override {
    return input_.newest() - input_.samples->values[input_.timeline->newest - lag_];
  }

 private:
  Wrapped input_;
  std::uint64_t lag_;
};

}  // namespace tickwire::features

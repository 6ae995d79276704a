#pragma once

#include "tickwire/features/order_rate.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

class CancelRate final : public OrderRate {
 public:
  static constexpr KernelEntry kEntry{
      .name = "cancel_rate",
      .parameters = {{{"window", Parameter::Kind::Duration}}},
      .formula = "cancellations in (t − w, t] / w",
      .unit = "orders a second",
      .description =
          "Orders that were deleted, replaced, or reduced without being executed. Needs a feed by order.",
      .version = 2,
      .reads = Reads::Cancels,
  };

  using OrderRate::OrderRate;
};

}  // namespace tickwire::features

#pragma once

#include "tickwire/features/order_rate.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

class OrderArrivalRate final : public OrderRate {
 public:
  static constexpr KernelEntry kEntry{
      .name = "order_arrival_rate",
      .parameters = {{{"window", Parameter::Kind::Duration}}},
      .formula = "orders that came in (t − w, t] / w",
      .unit = "orders a second",
      .description =
          "Orders that entered the book; one that replaces another counts as one that came. Needs a feed by "
          "order.",
      .version = 2,
      .reads = Reads::Arrivals,
  };

  using OrderRate::OrderRate;
};

}  // namespace tickwire::features

#pragma once

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/exact_math.hpp"
#include "tickwire/features/site.hpp"
#include "tickwire/features/trade_kernel.hpp"

namespace tickwire::features {

class TradeFlow final : public TradeKernel {
 public:
  static constexpr KernelEntry kEntry{
      .name = "trade_flow",
      .parameters = {kWindow},
      .formula = "Σ signed qty / Σ qty",
      .unit = "−1 to 1",
      .description =
          "1 when every trade was started by a buyer, −1 by a seller, 0 when nothing traded. A trade of "
          "which the venue does not say who started it counts in the total alone. Prints that the venue "
          "marks as no trade do not count. A count is of trades.",
      .version = 2,
      .reads = Reads::Trades,
  };

  using TradeKernel::TradeKernel;
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    if (trades(t) == 0 || qty_ == 0) return 0.0;
    return quotient(static_cast<Int128>(signed_qty_), qty_);
  }
};

}  // namespace tickwire::features

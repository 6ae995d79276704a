#pragma once

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/site.hpp"
#include "tickwire/features/trade_kernel.hpp"

namespace tickwire::features {

class TradeCount final : public TradeKernel {
 public:
  static constexpr KernelEntry kEntry{
      .name = "trade_count",
      .parameters = {{{"window", Parameter::Kind::Duration}}},
      .formula = "number of trades in (t − w, t]",
      .unit = "trades",
      .description = "Prints that the venue marks as no trade do not count.",
      .version = 2,
      .reads = Reads::Trades,
  };

  using TradeKernel::TradeKernel;
  double value(TsNs t) noexcept TICKWIRE_HOT override { return static_cast<double>(trades(t)); }
};

}  // namespace tickwire::features

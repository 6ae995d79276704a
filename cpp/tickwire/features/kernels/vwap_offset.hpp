#pragma once

#include <cstdint>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/exact_math.hpp"
#include "tickwire/features/site.hpp"
#include "tickwire/features/trade_kernel.hpp"

namespace tickwire::features {

/// Σ(price·qty) - mid·Σqty is an exact integer.
class VwapOffset final : public TradeKernel {
 public:
  static constexpr KernelEntry kEntry{
      .name = "vwap_offset",
      .parameters = {kWindow},
      .formula = "(vwap − mid) / mid · 10⁴, vwap = Σ price·qty / Σ qty",
      .unit = "basis points of mid",
      .description =
          "Where trades happened against where the market is now; 0 when nothing traded. A count is of "
          "trades.",
      .version = 2,
      .reads = Reads::Trades | Reads::Book,
      .reach = Reach::Best,
  };

  explicit VwapOffset(const Site& site) noexcept : TradeKernel(site), book_(&site.book) {}
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    const std::uint64_t count = trades(t);
    if (book_->mid == 0) return kNan;
    if (count == 0 || qty_ == 0) return 0.0;
    const Uint128 at_mid = Uint128{book_->mid} * qty_;
    return 1e4 * quotient(static_cast<Int128>(notional_ + notional_ - at_mid), at_mid);
  }

 private:
  const BookTape* book_;
};

}  // namespace tickwire::features

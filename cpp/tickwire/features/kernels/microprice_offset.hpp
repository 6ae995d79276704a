#pragma once

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/exact_math.hpp"
#include "tickwire/features/site.hpp"
#include "tickwire/md/event.hpp"

namespace tickwire::features {

/// The difference reduces to (ask - bid)·(bid_qty - ask_qty) / 2(bid_qty + ask_qty), where nothing cancels.
class MicropriceOffset final : public Kernel {
 public:
  static constexpr KernelEntry kEntry{
      .name = "microprice_offset",
      .formula = "(micro − mid) / mid · 10⁴, micro = (bid·ask_qty + ask·bid_qty) / (bid_qty + ask_qty)",
      .unit = "basis points of mid",
      .description =
          "The mid weighted by what stands on the other side, less the plain mid: positive when more is bid.",
      .source = "Gatheral & Oomen (2010), Zero-intelligence realized variance estimation: the weighted mid",
      .version = 2,
      .reach = Reach::Best,
  };

  explicit MicropriceOffset(const Site& site) noexcept : book_(&site.book) {}
  void start(TsNs t) noexcept TICKWIRE_HOT override { warm_at_ = t; }
  double value(TsNs) noexcept TICKWIRE_HOT override {
    const md::Level& bid = book_->bids[0];
    const md::Level& ask = book_->asks[0];
    const Uint128 spread = static_cast<Uint128>(Int128{ask.price} - bid.price);
    const Uint128 tilt = static_cast<Uint128>(Int128{bid.qty} - ask.qty);
    const Uint128 qty = static_cast<Uint128>(Int128{bid.qty} + ask.qty);
    return 1e4 * quotient(static_cast<Int128>(spread * tilt), Uint128{book_->mid} * qty);
  }

 private:
  const BookTape* book_;
};

}  // namespace tickwire::features

#pragma once

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/exact_math.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

class QueueImbalance final : public Kernel {
 public:
  static constexpr KernelEntry kEntry{
      .name = "queue_imbalance",
      .formula = "(B − A) / (B + A)",
      .unit = "−1 to 1",
      .description =
          "How much more waits at the best bid than at the best ask. NaN where a side of the book is empty.",
      .source =
          "Gould & Bonart (2016), Queue imbalance as a one-tick-ahead price predictor in a limit "
          "order book",
      .version = 2,
      .reach = Reach::Best,
  };

  explicit QueueImbalance(const Site& site) noexcept : book_(&site.book) {}
  void start(TsNs t) noexcept TICKWIRE_HOT override { warm_at_ = t; }
  double value(TsNs) noexcept TICKWIRE_HOT override {
    const Int128 bid = book_->bids[0].qty;
    const Int128 ask = book_->asks[0].qty;
    if (bid == 0 || ask == 0) return kNan;
    return quotient(bid - ask, static_cast<Uint128>(bid + ask));
  }

 private:
  const BookTape* book_;
};

}  // namespace tickwire::features

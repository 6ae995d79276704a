#pragma once

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/exact_math.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

class Spread final : public Kernel {
 public:
  static constexpr KernelEntry kEntry{
      .name = "spread",
      .formula = "(ask − bid) / mid · 10⁴",
      .unit = "basis points of mid",
      .description =
          "The best ask less the best bid. NaN where a side of the book is empty, as all that needs mid.",
      .version = 2,
      .reach = Reach::Best,
  };

  explicit Spread(const Site& site) noexcept : book_(&site.book) {}
  void start(TsNs t) noexcept TICKWIRE_HOT override { warm_at_ = t; }
  double value(TsNs) noexcept TICKWIRE_HOT override {
    const Int128 spread = Int128{book_->asks[0].price} - book_->bids[0].price;
    return quotient(20'000 * spread, book_->mid);  // NaN where there is no mid.
  }

 private:
  const BookTape* book_;
};

}  // namespace tickwire::features

#pragma once

#include <cstdint>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/exact_math.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

class Imbalance final : public Kernel {
 public:
  static constexpr KernelEntry kEntry{
      .name = "imbalance",
      .parameters = {kLevels},
      .formula = "(ΣB − ΣA) / (ΣB + ΣA)",
      .unit = "−1 to 1",
      .description =
          "How much more is bid than offered, over the quantities of the best `levels` levels of each side "
          "(as many as there are). NaN where the book is empty.",
      .source = "Cao, Hansch & Wang (2009), The information content of an open limit-order book",
      .version = 2,
      .reach = Reach::Levels,
  };

  explicit Imbalance(const Site& site) noexcept : book_(&site.book), levels_(site.node.levels) {}
  void start(TsNs t) noexcept TICKWIRE_HOT override { warm_at_ = t; }
  double value(TsNs) noexcept TICKWIRE_HOT override {
    Int128 bid = 0;
    Int128 ask = 0;
    for (std::uint32_t i = 0; i < levels_; ++i) bid += book_->bids[i].qty;
    for (std::uint32_t i = 0; i < levels_; ++i) ask += book_->asks[i].qty;
    return quotient(bid - ask, static_cast<Uint128>(bid + ask));
  }

 private:
  const BookTape* book_;
  std::uint32_t levels_;
};

}  // namespace tickwire::features

#pragma once

#include <cstdint>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/exact_math.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

class Ofi final : public Kernel {
 public:
  static constexpr KernelEntry kEntry{
      .name = "ofi",
      .parameters = {{{"levels", Parameter::Kind::Levels, 1}, kWindow}},
      .formula = "Σ_events Σ_levels 1{Pb≥Pb′}·qb − 1{Pb≤Pb′}·qb′ − 1{Pa≤Pa′}·qa + 1{Pa≥Pa′}·qa′",
      .unit = "base quantity",
      .description =
          "Order flow imbalance: what was added to the bids and taken from the asks, less the opposite. "
          "Compares the book before (′) and after each whole venue message, level by level, without "
          "weights; a missing level is a quantity of 0 at the worst of prices. A count is of book events.",
      .source = "Cont, Kukanov & Stoikov (2014), The price impact of order book events",
      .version = 2,
      .reach = Reach::Levels,
      .series = Series::Flow,
  };

  explicit Ofi(const Site& site) noexcept
      : book_(&site.book), series_(&site.flow()), window_(site.window()), qty_scale_(site.qty_scale) {}

  void start(TsNs t) noexcept TICKWIRE_HOT override {
    warm_at_ = window_.start(t);
    sum_ = 0;
  }
  void on_book(TsNs t) noexcept TICKWIRE_HOT override {
    sum_ += flow(book_->timeline.newest);
    window_.fill(warm_at_, t);
    evict(t);
  }
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    evict(t);
    return static_cast<double>(static_cast<Int128>(sum_)) / qty_scale_;
  }

 private:
  Uint128 flow(std::uint64_t number) const noexcept TICKWIRE_HOT {
    return static_cast<Uint128>(series_->flow[number]);
  }
  void evict(TsNs t) noexcept TICKWIRE_HOT {
    window_.window.evict(
        t, [this](std::uint64_t number) noexcept { sum_ -= flow(number); },
        [this]() noexcept { sum_ = window_.window.size() == 0 ? 0 : flow(book_->timeline.newest); });
  }

  const BookTape* book_;
  const OrderFlow* series_;
  EntryWindow window_;
  double qty_scale_;
  Uint128 sum_ = 0;
};

}  // namespace tickwire::features

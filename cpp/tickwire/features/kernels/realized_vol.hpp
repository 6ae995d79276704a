#pragma once

#include <cmath>
#include <cstdint>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/exact_math.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

class RealizedVol final : public Kernel {
 public:
  static constexpr KernelEntry kEntry{
      .name = "realized_vol",
      .parameters = {kWindow},
      .formula = "√Σ ln(mid_i / mid_{i−1})²",
      .unit = "log return",
      .description =
          "Realized volatility of mid over the book events of the window, not annualised. A count is of "
          "these.",
      .source = "Andersen, Bollerslev, Diebold & Labys (2003), Modeling and forecasting realized volatility",
      .version = 2,
      .reach = Reach::Best,
      .series = Series::SquaredReturns,
  };

  explicit RealizedVol(const Site& site) noexcept : book_(&site.book), window_(site.window()) {}

  void start(TsNs t) noexcept TICKWIRE_HOT override {
    warm_at_ = window_.start(t);
    state_ = {};
  }
  void on_book(TsNs t) noexcept TICKWIRE_HOT override {
    state_.add(book_->squared_returns[book_->timeline.newest]);
    window_.fill(warm_at_, t);
    evict(t);
  }
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    evict(t);
    const std::uint64_t head = window_.window.head();
    if (window_.window.size() == 0) return 0.0;
    if (book_->last_nan_return >= head) return kNan;
    if (book_->last_move < head) return 0.0;
    const double sum = state_.sum.value().high;
    return sum > 0.0 ? std::sqrt(sum) : 0.0;
  }

 private:
  void evict(TsNs t) noexcept TICKWIRE_HOT {
    window_.window.evict(
        t, [this](std::uint64_t number) noexcept { state_.remove(book_->squared_returns[number]); },
        [this]() noexcept {
          state_ = {};
          if (window_.window.size() != 0) state_.add(book_->squared_returns[book_->timeline.newest]);
        });
  }

  const BookTape* book_;
  EntryWindow window_;
  SumState state_;
};

}  // namespace tickwire::features

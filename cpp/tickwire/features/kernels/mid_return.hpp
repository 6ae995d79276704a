#pragma once

#include <cstdint>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/exact_math.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

class MidReturn final : public Kernel {
 public:
  static constexpr KernelEntry kEntry{
      .name = "mid_return",
      .parameters = {kWindow},
      .formula = "ln(mid_t / mid_{t−w})",
      .unit = "log return",
      .description =
          "mid now over the mid of the last book state at or before t − w; with a count, over the mid that "
          "many book events ago. The book that the epoch began with counts as a state.",
      .version = 2,
      .reach = Reach::Best,
      .series = Series::Mids,
  };

  explicit MidReturn(const Site& site) noexcept
      : book_(&site.book), overflows_(&site.overflows), shape_(site.shape()) {}

  void start(TsNs t) noexcept TICKWIRE_HOT override {
    past_ = 0;
    warm_at_ = shape_.span_ns != 0 ? later(t, shape_.span_ns) : kNever;
  }
  void on_book(TsNs t) noexcept TICKWIRE_HOT override {
    advance(t);
    if (warm_at_ == kNever && shape_.span_ns == 0 && book_->timeline.newest >= shape_.count) warm_at_ = t;
  }
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    advance(t);
    return log_ratio(book_->mid, book_->mids[past_]);
  }

 private:
  void advance(TsNs t) noexcept TICKWIRE_HOT {
    const std::uint64_t newest = book_->timeline.newest;
    if (shape_.span_ns == 0) {
      if (newest > shape_.count) past_ = newest - shape_.count;
      return;
    }
    const TsNs horizon = horizon_of(t, shape_.span_ns);
    while (past_ < newest && book_->timeline.ts[past_ + 1] <= horizon) ++past_;
    if (newest - past_ + 1 > shape_.max_entries) [[unlikely]] {
      ++*overflows_;
      ++past_;
    }
  }

  const BookTape* book_;
  std::uint64_t* overflows_;
  Window::Shape shape_;
  std::uint64_t past_ = 0;
};

}  // namespace tickwire::features

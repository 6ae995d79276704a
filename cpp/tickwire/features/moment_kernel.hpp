#pragma once

#include <cstdint>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/exact_math.hpp"
#include "tickwire/features/sample_kernel.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

/// What std and zscore look at. Its cost is constant but where the window must be added up anew: when numbers
/// that were more than some ten thousand deviations away have left, at most once a level of magnitude.
class MomentKernel : public SampleKernel {
 public:
  explicit MomentKernel(const Site& site) noexcept : SampleKernel(site) {}

  void on_book(TsNs t) noexcept TICKWIRE_HOT override {
    if (!arrived(t)) return;
    const double x = newest();
    if (window_.window.size() == 1 || (state_.count == 0 && x == x)) state_.begin(x);
    state_.add(x);
    evict(t);
  }

 protected:
  ~MomentKernel() = default;

  void evict(TsNs t) noexcept TICKWIRE_HOT {
    const std::uint64_t head = window_.window.head();
    window_.window.evict(
        t, [this](std::uint64_t number) noexcept { state_.remove(input_.samples->values[number]); },
        [this]() noexcept {
          state_.begin(newest());
          state_.add(newest());
        });
    if (window_.window.head() != head && !flat() && !has_nan() && state_.worn()) [[unlikely]]
      add_up_anew();
  }
  const MomentState& state() const noexcept TICKWIRE_HOT { return state_; }

 private:
  [[gnu::noinline]] void add_up_anew() noexcept TICKWIRE_HOT {
    const Ring<double>& values = input_.samples->values;
    const std::uint64_t first = window_.window.head();
    const std::uint64_t last = input_.timeline->newest;
    LongSum sum;
    for (std::uint64_t i = first; i <= last; ++i) sum.add(values[i]);
    state_.begin(divide(sum.value(), {static_cast<double>(last + 1 - first), 0.0}));
    for (std::uint64_t i = first; i <= last; ++i) state_.add(values[i]);
  }

  MomentState state_;
};

}  // namespace tickwire::features

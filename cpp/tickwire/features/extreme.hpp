#pragma once

#include <cstdint>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/sample_kernel.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

/// The smallest or largest sample, by a monotonic queue: it holds the samples that no later one beats.
template <bool Largest>
class Extreme : public SampleKernel {
 public:
  explicit Extreme(Site& site) : SampleKernel(site), queue_(site.ring<std::uint64_t>()) {}

  void start(TsNs t) noexcept TICKWIRE_HOT override {
    SampleKernel::start(t);
    front_ = back_ = 0;
  }
  void on_book(TsNs t) noexcept TICKWIRE_HOT override {
    if (!arrived(t)) return;
    evict(t);  // First, so that the queue never holds more than its ring does.
    const double x = newest();
    if (x != x) return;
    while (back_ != front_ && !beats(sample(queue_[back_ - 1]), x)) --back_;
    queue_[back_++] = input_.timeline->newest;
  }
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    evict(t);
    return has_nan() ? kNan : sample(queue_[front_]);
  }

 protected:
  ~Extreme() = default;

 private:
  static bool beats(double a, double b) noexcept TICKWIRE_HOT { return Largest ? a > b : a < b; }
  double sample(std::uint64_t number) const noexcept TICKWIRE_HOT { return input_.samples->values[number]; }
  void evict(TsNs t) noexcept TICKWIRE_HOT {
    window_.window.evict(t, [](std::uint64_t) noexcept {}, []() noexcept {});
    while (front_ != back_ && queue_[front_] < window_.window.head()) ++front_;
  }

  Ring<std::uint64_t> queue_;
  std::uint64_t front_ = 0;
  std::uint64_t back_ = 0;
};

}  // namespace tickwire::features

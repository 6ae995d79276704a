#pragma once

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/kernel.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

/// A window over the samples. The warm-up of a duration begins where the wrapped expression is warm;
/// it is stated at the first sample, because a window without any has no value, warm or not.
class SampleKernel : public Kernel {
 public:
  void start(TsNs) noexcept TICKWIRE_HOT override {
    warm_at_ = kNever;
    started_ = false;
  }

 protected:
  explicit SampleKernel(const Site& site) noexcept : input_(site.input), window_(site.window()) {}
  ~SampleKernel() = default;

  /// At each book event: is there a sample?
  bool arrived(TsNs t) noexcept TICKWIRE_HOT {
    if (!input_.started()) return false;
    if (!started_) [[unlikely]] {
      started_ = true;
      window_.window.start(input_.samples->first);
      if (window_.span_ns != 0) warm_at_ = later(input_.kernel->warm_at(), window_.span_ns);
    }
    window_.fill(warm_at_, t);
    return true;
  }

  bool has_nan() const noexcept TICKWIRE_HOT { return input_.samples->last_nan >= window_.window.head(); }
  bool flat() const noexcept TICKWIRE_HOT { return input_.samples->last_change <= window_.window.head(); }
  double newest() const noexcept TICKWIRE_HOT { return input_.newest(); }

  Wrapped input_;
  EntryWindow window_;
  bool started_ = false;
};

}  // namespace tickwire::features

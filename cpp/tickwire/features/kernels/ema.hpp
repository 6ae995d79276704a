#pragma once

#include <cmath>
#include <cstdint>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/exact_math.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

/// A NaN sample makes the value NaN and leaves y and its time as they are.
class Ema final : public Kernel {
 public:
  static constexpr KernelEntry kEntry{
      .name = "ema",
      .parameters = {{kX, {"halflife", Parameter::Kind::Halflife}}},
      .formula = "y += (1 − 2^(−Δt/h))·(x − y)",
      .unit = "as x",
      .description =
          "Exponential moving average in time: a sample's weight halves every `halflife`. y starts as the "
          "first sample and is warm after five half-lives.",
      .version = 2,
  };

  /// After five half-lives 3 % of the start is left.
  static constexpr std::int64_t kWarmHalflives = 5;

  explicit Ema(const Site& site) noexcept : input_(site.input), halflife_ns_(site.node.halflife_ns) {}

  void start(TsNs) noexcept TICKWIRE_HOT override {
    warm_at_ = kNever;
    started_ = false;
  }
  void on_book(TsNs t) noexcept TICKWIRE_HOT override {
    if (!input_.started()) return;
    if (warm_at_ == kNever) warm_at_ = later(input_.kernel->warm_at(), kWarmHalflives * halflife_ns_);
    const double x = input_.newest();
    if (x != x) return;
    if (!started_) {
      started_ = true;
      y_ = x;
    } else {
      // Unsigned: t does not go back, but a venue's stamps may be anything.
      const std::uint64_t elapsed = static_cast<std::uint64_t>(t) - static_cast<std::uint64_t>(updated_);
      y_ += one_minus_exp2(static_cast<double>(elapsed) / static_cast<double>(halflife_ns_)) * (x - y_);
      // A long run of zeros would lead into denormals, which are slow, and which a thread that also
      // runs a model flushes while another does not.
      if (std::fabs(y_) < 1e-200) y_ = 0.0;
    }
    updated_ = t;
  }
  double value(TsNs) noexcept TICKWIRE_HOT override {
    const double x = input_.newest();
    return x != x ? kNan : y_;
  }

 private:
  Wrapped input_;
  std::int64_t halflife_ns_;
  double y_ = 0.0;
  TsNs updated_ = 0;
  bool started_ = false;
};

}  // namespace tickwire::features

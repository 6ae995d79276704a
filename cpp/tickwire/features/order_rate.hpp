#pragma once

#include <cstdint>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/kernel.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

/// Entries of a tape of orders in the window, a second.
class OrderRate : public Kernel {
 public:
  explicit OrderRate(const Site& site) noexcept
      : window_(site.window()), seconds_(static_cast<double>(site.node.window_ns) * 1e-9) {}

  void start(TsNs t) noexcept TICKWIRE_HOT override { warm_at_ = window_.start(t); }
  void on_order(TsNs t) noexcept TICKWIRE_HOT override { evict(t); }
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    evict(t);
    return static_cast<double>(window_.window.size()) / seconds_;
  }

 protected:
  ~OrderRate() = default;

 private:
  void evict(TsNs t) noexcept TICKWIRE_HOT {
    window_.window.evict(t, [](std::uint64_t) noexcept {}, []() noexcept {});
  }

  EntryWindow window_;
  double seconds_;
};

}  // namespace tickwire::features

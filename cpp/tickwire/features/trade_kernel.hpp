#pragma once

#include <cstdint>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/exact_math.hpp"
#include "tickwire/features/kernel.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {

/// Sums over the printable trades of the window.
class TradeKernel : public Kernel {
 public:
  explicit TradeKernel(const Site& site) noexcept : tape_(&site.trades), window_(site.window()) {}

  void start(TsNs t) noexcept TICKWIRE_HOT override {
    warm_at_ = window_.start(t);
    qty_ = signed_qty_ = notional_ = 0;
  }
  void on_trade(TsNs t) noexcept TICKWIRE_HOT override {
    add(tape_->timeline.newest);
    window_.fill(warm_at_, t);
    evict(t);
  }

 protected:
  ~TradeKernel() = default;

  std::uint64_t trades(TsNs t) noexcept TICKWIRE_HOT {
    evict(t);
    return window_.window.size();
  }

  // Wrapping, see the top of the file.
  Uint128 qty_ = 0;
  Uint128 signed_qty_ = 0;
  Uint128 notional_ = 0;

 private:
  void add(std::uint64_t number) noexcept TICKWIRE_HOT {
    const TradeEntry& trade = tape_->trades[number];
    qty_ += static_cast<Uint128>(trade.qty);
    signed_qty_ += static_cast<Uint128>(trade.signed_qty);
    notional_ += static_cast<Uint128>(trade.price) * static_cast<Uint128>(trade.qty);
  }
  void evict(TsNs t) noexcept TICKWIRE_HOT {
    window_.window.evict(
        t,
        [this](std::uint64_t number) noexcept {
          const TradeEntry& trade = tape_->trades[number];
          qty_ -= static_cast<Uint128>(trade.qty);
          signed_qty_ -= static_cast<Uint128>(trade.signed_qty);
          notional_ -= static_cast<Uint128>(trade.price) * static_cast<Uint128>(trade.qty);
        },
        [this]() noexcept {
          qty_ = signed_qty_ = notional_ = 0;
          if (window_.window.size() != 0) add(tape_->timeline.newest);
        });
  }

  const TradeTape* tape_;
  EntryWindow window_;
};

}  // namespace tickwire::features

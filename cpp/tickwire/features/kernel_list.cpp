#include <algorithm>
#include <array>

#include "tickwire/features/kernel.hpp"
#include "tickwire/features/kernels/cancel_rate.hpp"
#include "tickwire/features/kernels/diff.hpp"
#include "tickwire/features/kernels/ema.hpp"
#include "tickwire/features/kernels/imbalance.hpp"
#include "tickwire/features/kernels/max.hpp"
#include "tickwire/features/kernels/mean.hpp"
#include "tickwire/features/kernels/microprice_offset.hpp"
#include "tickwire/features/kernels/mid_return.hpp"
#include "tickwire/features/kernels/min.hpp"
#include "tickwire/features/kernels/ofi.hpp"
#include "tickwire/features/kernels/order_arrival_rate.hpp"
#include "tickwire/features/kernels/queue_imbalance.hpp"
#include "tickwire/features/kernels/realized_vol.hpp"
#include "tickwire/features/kernels/spread.hpp"
#include "tickwire/features/kernels/std.hpp"
#include "tickwire/features/kernels/trade_count.hpp"
#include "tickwire/features/kernels/trade_flow.hpp"
#include "tickwire/features/kernels/vwap_offset.hpp"
#include "tickwire/features/kernels/zscore.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {
namespace {

template <typename K>
consteval KernelEntry entry() {
  KernelEntry entry = K::kEntry;
  entry.make = [](Site& site) -> Kernel* { return site.make<K>(); };
  return entry;
}

/// In the order in which a user reads them.
constexpr std::array kKernels{
    entry<Imbalance>(),
    entry<Spread>(),
    entry<MicropriceOffset>(),
    entry<MidReturn>(),
    entry<Ofi>(),
    entry<TradeFlow>(),
    entry<TradeCount>(),
    entry<VwapOffset>(),
    entry<RealizedVol>(),
    entry<QueueImbalance>(),
    entry<OrderArrivalRate>(),
    entry<CancelRate>(),
    entry<Mean>(),
    entry<Std>(),
    entry<Min>(),
    entry<Max>(),
    entry<Zscore>(),
    entry<Ema>(),
    entry<Diff>(),
};

}  // namespace

std::span<const KernelEntry> kernels() noexcept { return kKernels; }

const KernelEntry* find_kernel(std::string_view name) noexcept {
  const auto found = std::find_if(kKernels.begin(), kKernels.end(),
                                  [name](const KernelEntry& kernel) { return kernel.name == name; });
  return found == kKernels.end() ? nullptr : &*found;
}

}  // namespace tickwire::features

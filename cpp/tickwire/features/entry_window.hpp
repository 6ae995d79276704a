#pragma once

#include <cstdint>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/kernel.hpp"
#include "tickwire/features/rolling.hpp"

namespace tickwire::features {

/// The window of a kernel that sums over entries of a tape, and its warm-up.
struct EntryWindow {
  Window window;
  std::int64_t span_ns;
  std::uint64_t count;

  TsNs start(TsNs t) noexcept TICKWIRE_HOT {
    window.start(1);
    return span_ns != 0 ? later(t, span_ns) : kNever;
  }
  /// Of a count: warm from the entry on that filled it.
  void fill(TsNs& warm_at, TsNs t) const noexcept TICKWIRE_HOT {
    if (warm_at == kNever && count != 0 && window.size() >= count) warm_at = t;
  }
};

}  // namespace tickwire::features

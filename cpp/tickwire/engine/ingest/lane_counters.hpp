#pragma once

/// What is counted of any instrument, in the scope FEED/SYMBOL.

#include <cstdint>

#include "tickwire/core/types.hpp"
#include "tickwire/md/book_state.hpp"
#include "tickwire/metrics/counter_scope.hpp"

namespace tickwire::engine {

struct LaneCounters {
  metrics::CounterScope of;

  metrics::Counter& state = of("book_state");
  metrics::Counter& epoch = of("epoch");
  metrics::Counter& rows = of("rows");
  metrics::Counter& left_valid = of("left_valid");
  metrics::Counter& reason = of("book_reason");  // InvalidReason of the last time that the book left Valid.
  metrics::Counter& since = of("book_since");    // When the state became what it is, to a tenth of a second.
  metrics::Counter& window_overflows = of("window_overflows");

  /// Of a book: now and then.
  void follow(md::BookState now_state, std::uint32_t now_epoch, TsNs now) noexcept {
    const auto number = static_cast<std::int64_t>(now_state);
    if (number != state.value() || now_epoch != epoch.value() || since.value() == 0) since.set(now);
    state.set(number);
    epoch.set(now_epoch);
  }
};

}  // namespace tickwire::engine

#pragma once

/// Makes the counters of one scope, so that a set of them is one list of {member, name}:
///
///     struct SomeCounters {
///       metrics::CounterScope of;
///       metrics::Counter& messages = of("messages");
///       metrics::Counter& bytes = of("message_bytes");
///     };
///
/// Set-up, before the file is published.

#include <string>
#include <string_view>

#include "tickwire/metrics/stat_file.hpp"

namespace tickwire::metrics {

struct CounterScope {
  StatFile& stats;
  std::string scope;

  [[nodiscard]] Counter& operator()(std::string_view name) const { return stats.counter(scope, name); }
};

}  // namespace tickwire::metrics

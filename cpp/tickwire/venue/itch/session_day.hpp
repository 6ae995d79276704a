#pragma once

/// Which day it is for a venue whose times count from midnight in New York, as NASDAQ's do.

#include <cstdint>
#include <limits>
#include <optional>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"

namespace tickwire::venue::itch {

/// The last midnight in New York at or before `utc`, as UTC nanoseconds.
///
/// By the rule in force since 2007 and not from a table of time zones, which not every machine has: daylight
/// saving time from the second Sunday of March to the first Sunday of November, both changes at two in the
/// morning, so that the day of a change still begins by the hour before it.
[[nodiscard]] TsNs new_york_midnight(TsNs utc) noexcept TICKWIRE_HOT;

/// From the messages' times to UTC. The day is the configured one, else the one that brings a message's time
/// next to when it was received: found with the first message, and again where one is half a day off. The
/// same messages with the same receive times give the same times. One thread.
class SessionDay {
 public:
  explicit SessionDay(std::optional<TsNs> midnight)
      : fixed_(midnight.has_value()), midnight_(midnight.value_or(kUnknown)) {}

  [[nodiscard]] TsNs at(std::int64_t since_midnight_ns, TsNs ts_recv) noexcept TICKWIRE_HOT {
    const TsNs ts = midnight_ + since_midnight_ns;
    if (fixed_ || (ts - ts_recv < kHalfDayNs && ts_recv - ts < kHalfDayNs)) [[likely]]
      return ts;
    midnight_ = new_york_midnight(ts_recv - since_midnight_ns + kHalfDayNs);
    return midnight_ + since_midnight_ns;
  }

 private:
  static constexpr std::int64_t kHalfDayNs = 43'200'000'000'000;
  /// Far from any receive time, and so that no difference to one overflows.
  static constexpr TsNs kUnknown = std::numeric_limits<TsNs>::min() / 4;

  const bool fixed_;
  TsNs midnight_;
};

}  // namespace tickwire::venue::itch

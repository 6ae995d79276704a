#pragma once

#include <cstdint>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/metrics/histogram.hpp"

namespace tickwire::metrics {

/// Times the stages of one pass one after another: the end of a stage is the start of the next, so the
/// stages add up to the pass and each costs one TSC read. Lives on the agent's thread.
class StageTimer {
 public:
  void start(std::uint64_t tsc = tsc_now()) noexcept TICKWIRE_HOT { last_ = tsc; }

  /// Ends the current stage, records it, and returns its nanoseconds.
  std::int64_t lap(Histogram& stage) noexcept TICKWIRE_HOT {
    const std::uint64_t now = tsc_now();
    const std::int64_t ns = tsc_to_ns(now - last_);
    last_ = now;
    stage.record(ns);
    return ns;
  }

  /// When the last stage ended; UtcClock::at() makes it a stamp without another read.
  std::uint64_t last_tsc() const noexcept TICKWIRE_HOT { return last_; }

 private:
  std::uint64_t last_ = 0;
};

}  // namespace tickwire::metrics

#pragma once

/// Where an agent writes the time of its stages. One set an agent: a histogram has one writer.

#include <array>
#include <cstdint>
#include <string_view>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/metrics/stat_file.hpp"
#include "tickwire/signal/signal.hpp"

namespace tickwire::engine {

/// When an event came and how far it is.
struct Arrival {
  std::uint64_t tsc_start;
  std::uint64_t tsc_decoded;
  TsNs ts_recv;
  RecvClock clock;
  std::uint32_t unseen_us = 0;  // As a record has it.
};

class StageHistograms {
 public:
  /// Creates the stages' histograms under `scope`, the agent's name.
  StageHistograms(metrics::StatFile& stats, std::string_view scope)
      : tick_to_signal_(stats.histogram(scope, "tick_to_signal")) {
    for (std::size_t i = 0; i < signal::kStageCount; ++i) {
      stages_[i] = &stats.histogram(scope, signal::kStageNames[i]);
    }
  }

  void record(signal::Stage stage, std::int64_t ns) noexcept TICKWIRE_HOT {
    stages_[static_cast<std::size_t>(stage)]->record(ns);
  }

  /// The time since ts_recv, as far as stages are known.
  [[nodiscard]] static std::int64_t total_ns(const signal::SignalHeader& header) noexcept TICKWIRE_HOT {
    std::int64_t total = 0;
    for (const std::int64_t ns : header.stage_ns) total += ns;
    return total;
  }

  /// Closes the books on a record about to be published: its Publish stage runs from `tsc_before` to
  /// now, and ts_out is ts_recv plus all stages.
  void close(signal::SignalHeader& header, std::uint64_t tsc_before) noexcept TICKWIRE_HOT {
    header.stage_ns[static_cast<std::size_t>(signal::Stage::Publish)] = tsc_span_ns(tsc_before, tsc_now());
    header.ts_out = header.ts_recv + total_ns(header);
  }

  /// Counts a published record's last stages.
  void count(const signal::SignalHeader& header) noexcept TICKWIRE_HOT {
    for (const signal::Stage stage : {signal::Stage::Queue, signal::Stage::Model, signal::Stage::Publish}) {
      record(stage, header.stage_ns[static_cast<std::size_t>(stage)]);
    }
    tick_to_signal_.record(header.ts_out - header.ts_recv);
  }

 private:
  std::array<metrics::Histogram*, signal::kStageCount> stages_{};
  metrics::Histogram& tick_to_signal_;
};

}  // namespace tickwire::engine

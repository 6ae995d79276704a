#pragma once

/// From a row to a published signal, the same code for every layout: age limit, finite inputs, the
/// model's run, finite outputs, stage stamps, the router's ring and the recorder's tap. Owned by the
/// one agent that runs the model: an ingest agent (inline) or an inference agent.

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/recorder.hpp"
#include "tickwire/engine/stages.hpp"
#include "tickwire/infer/model.hpp"
#include "tickwire/metrics/stat_file.hpp"
#include "tickwire/signal/port.hpp"

namespace tickwire::engine {

class ScoringStage {
 public:
  struct Setup {
    std::string_view scope;  // The agent's name, for counters.
    const ModelConfig& config;
    std::unique_ptr<infer::Model> model;
    signal::RecordLayout layout;
    bool replay;        // Age is not looked at.
    RecordTap* scores;  // Null: not recorded.
  };

  /// `stages` and `errors` are the agent's.
  ScoringStage(Setup setup, signal::SignalPort& router, StageHistograms& stages, metrics::ErrorLog& errors,
               metrics::StatFile& stats, Arena& arena);

  /// Set-up: a place the model will read from; the handle goes to process().
  [[nodiscard]] std::size_t bind(const float* input) { return model_->bind(input); }
  /// Set-up, on the thread that will run the model.
  void warm_up() { model_->warm_up(infer::kWarmUpRuns, infer::kWarmUpMaxNs); }

  /// Scores and publishes one row. `input` is the whole input, bound as `handle`; its last row is the
  /// feature row of `header`. With header.scored 0 the row is passed on without a run (a sequence
  /// model whose window is not full yet). `tsc_start` is when decoding of the event began, `tsc_before`
  /// when the Model stage begins.
  void process(signal::SignalHeader& header, std::size_t handle, std::span<const float> input,
               std::uint64_t tsc_start, std::uint64_t tsc_before) noexcept TICKWIRE_HOT;

  [[nodiscard]] signal::SignalPort& router() noexcept { return router_; }

 private:
  [[nodiscard]] signal::SignalState run(std::size_t handle, std::span<const float> input,
                                        std::uint64_t tsc_start, const signal::SignalHeader& header,
                                        std::span<float> scores) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool too_old(std::uint64_t tsc_start, const signal::SignalHeader& header) const noexcept
      TICKWIRE_HOT;
  void count_invalid(const signal::SignalHeader& header) noexcept TICKWIRE_HOT;

  std::unique_ptr<infer::Model> model_;
  const std::uint32_t model_id_;
  const std::int64_t max_age_ns_;  // 0: no limit.
  const signal::RecordLayout layout_;
  signal::SignalPort& router_;
  StageHistograms& stages_;
  RecordTap* scores_tap_;
  std::span<std::byte> scratch_;  // A record, where the router's ring has no room for it.
  // Each row that comes here counts once, as one of these; output_dropped_ is apart.
  metrics::Counter& scored_;
  metrics::Counter& window_short_;
  metrics::Counter& stale_;
  metrics::Counter& nonfinite_;
  metrics::Counter& model_errors_;
  metrics::Counter& output_dropped_;
  metrics::ErrorLog& errors_;
};

}  // namespace tickwire::engine

#pragma once

/// Drains rows from the ingest agents, runs the model on them and publishes signals. It has its own
/// session and its own ring to the router; ingestion never waits for it.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/concurrent/agent.hpp"
#include "tickwire/concurrent/spsc_queue.hpp"
#include "tickwire/concurrent/waker.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/scoring_stage.hpp"
#include "tickwire/engine/stages.hpp"
#include "tickwire/metrics/stat_file.hpp"

namespace tickwire::engine {

class InferenceAgent final : public concurrent::Agent {
 public:
  InferenceAgent(std::string name, ScoringStage::Setup scoring, signal::SignalPort& router,
                 std::size_t instrument_count, metrics::StatFile& stats, Arena& arena);

  /// Set-up: another ring to drain.
  void add_input(concurrent::SpscQueue& queue);

  /// The ingest agents wake this one through it.
  [[nodiscard]] concurrent::Waker& waker() noexcept { return waker_; }

  [[nodiscard]] std::string_view name() const noexcept override { return name_; }
  void on_start() override { scoring_.warm_up(); }
  int do_work() noexcept TICKWIRE_HOT override;
  void on_close() override;
  void park(std::int64_t max_ns) noexcept override;

 private:
  struct Input {
    concurrent::SpscQueue* queue;
    std::vector<std::size_t> handles;  // The model's, one a slot.
  };

  [[nodiscard]] int drain(Input& input) noexcept TICKWIRE_HOT;
  void handle(Input& input, std::byte* slot) noexcept TICKWIRE_HOT;

  const std::string name_;
  const QueuePolicy policy_;
  const std::size_t queue_limit_;
  const bool replay_;
  const std::size_t input_floats_;
  StageHistograms stages_;
  ScoringStage scoring_;
  concurrent::Waker waker_;
  std::vector<Input> inputs_;
  std::span<std::size_t> newest_;  // Conflate: position of each instrument's newest row of this turn.
  metrics::Counter& dropped_oldest_;
  metrics::Counter& conflated_;
  metrics::Counter& left_at_stop_;
};

}  // namespace tickwire::engine

#pragma once

/// Drains rows from the ingest agents, runs the model on them and publishes signals. It has its own
/// session and its own ring to the router; ingestion never waits for it, and it never waits for rows: a
/// batch is what is there already.
///
/// Each entry of a ring is dealt with in order: its record published or its loss counted, then the slot
/// released. A notice that finds no room at the router stays where it is, and all behind it.

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
  InferenceAgent(std::string name, ScoringStage::Setup scoring, std::size_t instrument_count,
                 metrics::StatFile& stats, Arena& arena);

  /// Set-up: another ring to drain.
  void add_input(concurrent::SpscQueue& queue) { inputs_.push_back(&queue); }

  /// The ingest agents wake this one through it.
  [[nodiscard]] concurrent::Waker& waker() noexcept { return waker_; }

  /// Control thread: for the exchange of models.
  [[nodiscard]] ScoringStage& scoring() noexcept { return scoring_; }

  [[nodiscard]] std::string_view name() const noexcept override { return name_; }
  void on_start() override { scoring_.warm_up(); }
  int do_work() noexcept TICKWIRE_HOT override;
  void on_close() override;
  void park(std::int64_t max_ns) noexcept override;

 private:
  [[nodiscard]] int drain(concurrent::SpscQueue& queue) noexcept TICKWIRE_HOT;
  void add_job(std::byte* slot, std::uint64_t tsc) noexcept TICKWIRE_HOT;
  std::size_t score(concurrent::SpscQueue& queue) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool pass_on(const signal::SignalHeader& notice) noexcept TICKWIRE_HOT;

  const std::string name_;
  const QueuePolicy policy_;
  const std::size_t queue_limit_;
  const bool replay_;
  StageHistograms stages_;
  ScoringStage scoring_;
  concurrent::Waker waker_;
  std::vector<concurrent::SpscQueue*> inputs_;
  std::span<ScoringStage::Job> jobs_;  // Room for the largest batch …
  std::size_t job_count_ = 0;          // … of which so many are the next run's.
  std::span<std::size_t> newest_;      // Conflate: position of each instrument's newest row of this turn.
  metrics::Counter& dropped_oldest_;
  metrics::Counter& conflated_;
  metrics::Counter& left_at_stop_;
};

}  // namespace tickwire::engine

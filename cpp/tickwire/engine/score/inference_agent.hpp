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
#include "tickwire/concurrent/cell.hpp"
#include "tickwire/concurrent/spsc_queue.hpp"
#include "tickwire/concurrent/waker.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/score/scoring_stage.hpp"
#include "tickwire/engine/stages.hpp"
#include "tickwire/metrics/stat_file.hpp"

namespace tickwire::engine {

/// What becomes of the entries that come to an inference agent and do not reach its stage.
struct InferenceCounters {
  InferenceCounters(metrics::StatFile& stats, std::string_view scope);

  /// Rows that were given up without a record.
  [[nodiscard]] std::int64_t given_up() const noexcept;

  metrics::Counter& dropped_oldest;
  metrics::Counter& conflated;
  metrics::Counter& left_at_stop;
  metrics::Counter& notices;  // Passed on.
};

/// The part of an agent that outlives it where it runs in a process of its own.
struct AgentPost {
  concurrent::Waker& waker;                       // By which the ingest agents wake it.
  concurrent::Cell<std::uint32_t>& ring_in_hand;  // Which of its rings it drains.
};

class InferenceAgent final : public concurrent::Agent {
 public:
  InferenceAgent(std::string name, ScoringStage::Setup scoring, AgentPost post, std::size_t instrument_count,
                 metrics::StatFile& stats, Arena& arena);

  /// Set-up: another ring to drain.
  void add_input(concurrent::SpscQueue& queue) { inputs_.push_back(&queue); }

  /// Control thread: for the exchange of models.
  [[nodiscard]] ScoringStage& scoring() noexcept { return scoring_; }

  [[nodiscard]] std::string_view name() const noexcept override { return name_; }
  void on_start() override { scoring_.warm_up(); }
  int do_work() noexcept TICKWIRE_HOT override;
  void on_close() override;
  /// What still waits after the end: rows are counted, notices passed on as far as there is room. Called by
  /// on_close(), and again by whoever polls the router's ring, once this agent's thread has ended.
  void settle() noexcept;
  void park(std::int64_t max_ns) noexcept override;

 private:
  [[nodiscard]] int drain(std::size_t ring) noexcept TICKWIRE_HOT;
  void add_job(std::byte* slot, std::uint64_t tsc) noexcept TICKWIRE_HOT;
  std::size_t score(concurrent::SpscQueue& queue) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool pass_on(const signal::SignalHeader& notice) noexcept TICKWIRE_HOT;
  /// The engine interrupts a model that takes too long for its end: further runs would fail as one did.
  [[nodiscard]] bool interrupted() const noexcept TICKWIRE_HOT {
    return closing_ && scoring_.model_errors() != failed_before_;
  }

  const std::string name_;
  const QueuePolicy policy_;
  const std::size_t queue_limit_;
  const bool replay_;
  StageHistograms stages_;
  ScoringStage scoring_;
  AgentPost post_;
  std::vector<concurrent::SpscQueue*> inputs_;
  std::span<ScoringStage::Job> jobs_;        // Room for the largest batch …
  std::span<signal::SignalHeader> headers_;  // … whose headers are copied: a slot stays as it came, …
  std::size_t job_count_ = 0;                // … and so many of them are the next run's.
  std::span<std::size_t> newest_;  // Conflate: position of each instrument's newest row of this turn.
  InferenceCounters counters_;
  bool closing_ = false;            // Live, what waits at the end is scored; …
  std::int64_t failed_before_ = 0;  // … and so many runs' rows had failed before.
};

}  // namespace tickwire::engine

#pragma once

/// From rows to published signals, the same code for every layout: age limit (before the run, which spares
/// it, and again when the record leaves, which decides), finite inputs, the
/// model's run, finite outputs, stage stamps, the router's ring and the recorder's tap. Owned by the
/// one agent that runs the model: an ingest agent (inline) or an inference agent.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "tickwire/concurrent/mailbox.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/record/recorder.hpp"
#include "tickwire/engine/stages.hpp"
#include "tickwire/infer/model.hpp"
#include "tickwire/metrics/stat_file.hpp"
#include "tickwire/signal/port.hpp"

namespace tickwire::engine {

/// A model, the name that signals give it, and where it reads its rows.
struct LoadedModel {
  std::unique_ptr<infer::Model> model;
  std::uint32_t id;
  std::size_t handle = 0;  // The stage's input, once the stage has bound it.
  bool quick = false;      // Once warm: a run is over so soon that one may be made for nothing.
};

/// What becomes of the rows that come to a stage. Each row counts once, output_dropped apart. One thread
/// writes: the stage's, or where that has died whoever takes stock after it.
struct ScoringCounters {
  ScoringCounters(metrics::StatFile& stats, std::string_view scope);

  void count(signal::SignalState state, bool wanted_score) noexcept TICKWIRE_HOT;
  /// The sum over all rows.
  [[nodiscard]] std::int64_t rows() const noexcept;

  metrics::Counter& scored;
  metrics::Counter& window_short;
  metrics::Counter& stale;
  metrics::Counter& nonfinite;
  metrics::Counter& model_errors;
  metrics::Counter& output_dropped;  // Of those, the ones that the router's ring had no room for.
};

class ScoringStage {
 public:
  struct Setup {
    std::string_view scope;  // The agent's name and, where it runs several models, the model's: for counters.
    const ModelConfig& config;
    LoadedModel model;
    signal::RecordLayout layout;
    bool replay;                 // Age is not looked at.
    signal::SignalPort* router;  // Null: a shadow, whose scores go to the recorder alone.
    RecordTap* scores;           // Null: not recorded.
    bool rows_wait = false;      // For this start: each size of batch is run once, and the rows do the rest.
  };

  /// A row on its way: what is known of it, and its whole input. The input's last row is the feature row of
  /// the header. With scored 0 it is passed on without a run (a sequence model whose window is not full yet).
  struct Job {
    signal::SignalHeader* header;
    std::span<const float> input;
  };

  /// `stages` and `errors` are the agent's.
  ScoringStage(Setup setup, StageHistograms& stages, metrics::ErrorLog& errors, metrics::StatFile& stats,
               Arena& arena);
  /// Set-up, on the thread that will run the model.
  void warm_up();

  /// Scores up to max_batch() rows in one run and publishes them in their order and all at once, so that a
  /// batch is never half out. `tsc_before` is when the Model stage begins.
  void process(std::span<const Job> jobs, std::uint64_t tsc_before) noexcept TICKWIRE_HOT;

  /// Live, in a turn without work: runs the model for nothing where its last run is a while ago, so that the
  /// next row does not find it gone from the caches: at a thousand rows a second a run of 2.5 us took 10.
  /// True when it ran. A slow model is left alone, since a row that comes meanwhile waits.
  bool keep_warm() noexcept TICKWIRE_HOT;

  /// Between two rows: goes over to the model that was offered, if one was.
  void adopt() noexcept TICKWIRE_HOT;

  /// Control thread: makes a model ready aside: bound to this stage's input, and run until it is warm.
  void prepare(LoadedModel& loaded) const;

  /// Control thread: a model that is ready. The agent goes over to it between two rows.
  void offer(std::unique_ptr<LoadedModel> model) noexcept { mailbox_.offer(std::move(model)); }
  /// Control thread: the model that the agent used before, once it has gone over; until then null.
  [[nodiscard]] std::unique_ptr<LoadedModel> former() noexcept { return mailbox_.collect(); }
  /// Control thread: takes the offer back; null when the agent was faster.
  [[nodiscard]] std::unique_ptr<LoadedModel> withdraw() noexcept { return mailbox_.withdraw(); }

  /// Null for a shadow.
  [[nodiscard]] signal::SignalPort* router() noexcept { return router_; }
  [[nodiscard]] std::size_t max_batch() const noexcept { return max_batch_; }
  /// Rows that the next run may take: no more than the router's ring has room for. Where it has none, all
  /// are lost to it anyway.
  [[nodiscard]] std::size_t batch_limit() noexcept TICKWIRE_HOT;
  [[nodiscard]] std::size_t input_floats() const noexcept { return input_floats_; }
  [[nodiscard]] std::uint32_t model_id() const noexcept { return current_->id; }
  /// Rows whose run failed.
  [[nodiscard]] std::int64_t model_errors() const noexcept TICKWIRE_HOT {
    return counters_.model_errors.value();
  }

 private:
  void warm_up(LoadedModel& loaded, std::size_t runs) const;
  [[nodiscard]] bool too_old(const Job& job, std::uint64_t tsc_before) const noexcept TICKWIRE_HOT;
  [[nodiscard]] signal::SignalState before_run(const Job& job, std::uint64_t tsc_before) const noexcept
      TICKWIRE_HOT;
  void fill(std::byte* record, const Job& job, std::span<const float> scores) const noexcept TICKWIRE_HOT;
  void close(std::byte* record, signal::SignalHeader& header, std::int64_t model_ns,
             std::uint64_t tsc_scored) noexcept TICKWIRE_HOT;

  std::unique_ptr<LoadedModel> current_;
  concurrent::Mailbox<LoadedModel> mailbox_;
  const bool replay_;
  const bool rows_wait_;
  const std::int64_t max_age_ns_;  // 0: no limit.
  const signal::RecordLayout layout_;
  const std::size_t max_batch_;
  const std::size_t input_floats_;
  const std::size_t score_count_;  // This model's; a record may have room for more.
  // The rows of a run, one after another from a cache line on: a runtime may sum in another order from
  // another alignment, and scores are to be the same bits in every layout.
  std::span<float> inputs_;
  std::span<float> scores_;
  std::span<std::uint8_t> ran_;  // Of the jobs at hand: does the run answer it?
  std::uint64_t last_run_tsc_ = 0;
  signal::SignalPort* const router_;
  StageHistograms& stages_;
  RecordTap* scores_tap_;
  std::span<std::byte> scratch_;   // Records, where the router's ring has no room for them.
  std::span<std::byte*> records_;  // Of the jobs at hand: in the router's ring, or in scratch_.
  ScoringCounters counters_;
  metrics::ErrorLog& errors_;
};

}  // namespace tickwire::engine

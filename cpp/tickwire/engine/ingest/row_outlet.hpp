#pragma once

/// Where an ingest agent's rows and notices go: to the router as they are, through models that run here
/// (layout `inline`), or to the workers of models; and to the recorder. Whoever makes rows knows none of
/// these.
///
/// Owned by one ingest agent, on its thread but for scoring(), which the control thread exchanges models
/// with.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/ingest/row_builder.hpp"
#include "tickwire/engine/ingest/row_history.hpp"
#include "tickwire/engine/record/recorder.hpp"
#include "tickwire/engine/score/scoring_stage.hpp"
#include "tickwire/engine/stages.hpp"
#include "tickwire/md/book_state.hpp"
#include "tickwire/metrics/stat_file.hpp"
#include "tickwire/signal/port.hpp"
#include "tickwire/signal/signal.hpp"

namespace tickwire::engine {

class RowOutlet {
 public:
  struct Setup {
    const std::string& scope;  // The agent's name.
    bool replay;
    std::int64_t max_age_ns;  // Of rows without a model; 0: no limit.
    signal::RecordLayout layout;
    const UtcClock& clock;
    StageHistograms& stages;
    metrics::ErrorLog& errors;
  };

  RowOutlet(const Setup& setup, metrics::StatFile& stats, Arena& arena);

  /// Set-up, one of the three, the last two once for each model.
  void send_rows_to(signal::SignalPort& router) noexcept { router_ = &router; }
  void score_inline(ScoringStage::Setup scoring, bool alone, metrics::StatFile& stats, Arena& arena);
  void send_work_to(std::vector<signal::SignalPort*> workers, Assign assign, std::size_t input_floats);
  /// Set-up: and to a recording.
  void record_to(RecordTap& tap) noexcept { tap_ = &tap; }

  [[nodiscard]] ScoringStage& scoring(std::size_t model) noexcept { return *scoring_[model]; }

  /// The thread begins.
  void warm_up();
  /// Each turn.
  void flush() noexcept TICKWIRE_HOT;
  /// Where there was nothing to do: keeps one model in the caches, for a message is not to wait for several.
  void keep_warm() noexcept TICKWIRE_HOT;
  /// Is there room for what one event makes?
  [[nodiscard]] bool has_room() const noexcept TICKWIRE_HOT;
  /// Our own stop is no part of the recording: notices are not recorded any more.
  void stop() noexcept { stopping_ = true; }

  /// What a row, or a notice, is of.
  struct Of {
    InstrumentId instrument;
    std::uint32_t epoch;
    std::uint64_t row;
    std::uint64_t sequence;
    TsNs ts_event;
    std::uint32_t missing_trades;
  };
  /// The newest row of a history. It is counted and leaves.
  void row(const Of& of, const RowHistory& history, const Step& step, const Arrival& arrival) noexcept
      TICKWIRE_HOT;
  /// The book is not valid any more. It leaves whatever else is lost.
  void notice(const Of& of, md::BookState state, md::InvalidReason reason, const Arrival& arrival) noexcept
      TICKWIRE_HOT;

 private:
  /// The ways to a model's workers.
  struct Workers {
    std::vector<signal::SignalPort*> ports;
    Assign assign;

    [[nodiscard]] signal::SignalPort& port_of(InstrumentId instrument) const noexcept TICKWIRE_HOT;
  };

  [[nodiscard]] signal::SignalHeader header_of(const Of& of, const Arrival& arrival) const noexcept
      TICKWIRE_HOT;
  void score(const signal::SignalHeader& header, std::span<const float> input, bool whole_window,
             std::uint64_t tsc_row) noexcept TICKWIRE_HOT;
  void send_work(signal::SignalPort& port, const signal::SignalHeader& header, std::span<const float> input,
                 bool whole_window) noexcept TICKWIRE_HOT;
  void send_row(signal::SignalHeader& header, std::span<const float> features, std::uint64_t tsc_row) noexcept
      TICKWIRE_HOT;
  void record(const signal::SignalHeader& header, signal::SignalState state,
              std::span<const float> features) noexcept TICKWIRE_HOT;

  const bool replay_;
  const std::int64_t max_age_ns_;
  const signal::RecordLayout layout_;
  const UtcClock& clock_;
  StageHistograms& stages_;
  metrics::ErrorLog& errors_;
  signal::SignalPort* router_ = nullptr;                // Without a model, and in the inline layout.
  std::vector<std::unique_ptr<ScoringStage>> scoring_;  // Inline layout alone: one a model.
  std::vector<std::unique_ptr<StageHistograms>> scoring_stages_;  // Of each, where there are several.
  std::span<float> model_input_;                                  // Of a window that is not full yet.
  std::vector<Workers> workers_;                                  // Other layouts: one a model.
  std::size_t work_floats_ = 0;   // A model's whole input, where rows go to its workers.
  std::span<std::byte> scratch_;  // A record for the recorder.
  RecordTap* tap_ = nullptr;
  bool stopping_ = false;
  metrics::Counter& rows_;
  metrics::Counter& rows_dropped_;
  metrics::Counter& rows_stale_;
  metrics::Counter& notices_;
};

}  // namespace tickwire::engine

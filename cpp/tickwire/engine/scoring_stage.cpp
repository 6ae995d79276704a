#include "tickwire/engine/scoring_stage.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "tickwire/core/time.hpp"
#include "tickwire/engine/error_kinds.hpp"
#include "tickwire/engine/finite.hpp"

namespace tickwire::engine {

ScoringStage::ScoringStage(Setup setup, signal::SignalPort& router, StageHistograms& stages,
                           metrics::ErrorLog& errors, metrics::StatFile& stats, Arena& arena)
    : model_(std::move(setup.model)),
      model_id_(setup.config.id),
      max_age_ns_(setup.replay ? 0 : setup.config.max_age_ns),
      layout_(setup.layout),
      router_(router),
      stages_(stages),
      scores_tap_(setup.scores),
      scratch_(arena.allocate<std::byte>(layout_.record_bytes())),
      scored_(stats.counter(setup.scope, "scored")),
      window_short_(stats.counter(setup.scope, "unscored_window")),
      stale_(stats.counter(setup.scope, "stale")),
      nonfinite_(stats.counter(setup.scope, "nonfinite")),
      model_errors_(stats.counter(setup.scope, "model_errors")),
      output_dropped_(stats.counter(setup.scope, "output_dropped")),
      errors_(errors) {}

bool ScoringStage::too_old(std::uint64_t tsc_start, const signal::SignalHeader& header) const noexcept {
  if (max_age_ns_ == 0) return false;
  const std::int64_t receive_ns = header.stage_ns[static_cast<std::size_t>(signal::Stage::Receive)];
  return receive_ns + tsc_to_ns(tsc_now() - tsc_start) > max_age_ns_;
}

signal::SignalState ScoringStage::run(std::size_t handle, std::span<const float> input,
                                      std::uint64_t tsc_start, const signal::SignalHeader& header,
                                      std::span<float> scores) noexcept {
  // A row that is too old already is not worth the model's time; one that grew too old during the run
  // is as useless to whom it is for.
  if (too_old(tsc_start, header)) return signal::SignalState::Stale;
  if (!all_finite(input)) return signal::SignalState::NonFinite;
  if (!model_->run(handle, scores)) return signal::SignalState::ModelError;
  if (!all_finite(scores)) return signal::SignalState::NonFinite;
  return too_old(tsc_start, header) ? signal::SignalState::Stale : signal::SignalState::Valid;
}

void ScoringStage::process(signal::SignalHeader& header, std::size_t handle, std::span<const float> input,
                           std::uint64_t tsc_start, std::uint64_t tsc_before) noexcept {
  // Scores are written straight into the router's slot. Without room the record goes to the recorder
  // alone, and the row counts as dropped.
  std::byte* record = router_.try_claim_row();
  const bool published = record != nullptr;
  if (!published) [[unlikely]] {
    record = scratch_.data();
    output_dropped_.add(1);
  }
  const signal::RecordView view(record, layout_);

  const bool wants_score = header.scored != 0;
  if (wants_score) {
    header.model_id = model_id_;
    header.state = run(handle, input, tsc_start, header, view.scores());
    header.scored = header.state == signal::SignalState::Valid ? 1 : 0;
  }
  if (header.scored != 0) {
    scored_.add(1);
  } else {
    std::fill(view.scores().begin(), view.scores().end(), std::numeric_limits<float>::quiet_NaN());
    if (wants_score) {
      count_invalid(header);
    } else {
      window_short_.add(1);
    }
  }
  const std::uint64_t tsc_scored = tsc_now();
  header.stage_ns[static_cast<std::size_t>(signal::Stage::Model)] = tsc_to_ns(tsc_scored - tsc_before);

  std::memcpy(view.features().data(), input.data() + input.size() - layout_.feature_count,
              layout_.feature_count * sizeof(float));
  stages_.close(header, tsc_scored);
  view.header() = header;
  if (published) {
    router_.publish();
    stages_.count(header);
  }
  if (scores_tap_ != nullptr) scores_tap_->put(record);
}

void ScoringStage::count_invalid(const signal::SignalHeader& header) noexcept {
  switch (header.state) {
    case signal::SignalState::Stale: stale_.add(1); break;
    case signal::SignalState::NonFinite: nonfinite_.add(1); break;
    case signal::SignalState::ModelError:
      model_errors_.add(1);
      report(errors_, ErrorKind::ModelRun, model_->last_error(), header.ts_recv);
      break;
    default: break;
  }
}

}  // namespace tickwire::engine

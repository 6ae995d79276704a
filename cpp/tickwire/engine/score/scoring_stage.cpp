#include "tickwire/engine/score/scoring_stage.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "tickwire/core/time.hpp"
#include "tickwire/engine/error_kinds.hpp"
#include "tickwire/engine/score/finite.hpp"

namespace tickwire::engine {

namespace {
// What became of a job before the run.
constexpr std::uint8_t kPassedOn = 0;  // It wants no score.
constexpr std::uint8_t kRefused = 1;   // Too old, or not finite.
constexpr std::uint8_t kRan = 2;

// A run for nothing: after so long without one …
constexpr std::int64_t kKeepWarmNs = 50'000;
// … and of a model that takes no longer than this.
constexpr std::int64_t kQuickNs = 10'000;
}  // namespace

ScoringCounters::ScoringCounters(metrics::StatFile& stats, std::string_view scope)
    : scored(stats.counter(scope, "scored")),
      window_short(stats.counter(scope, "unscored_window")),
      stale(stats.counter(scope, "stale")),
      nonfinite(stats.counter(scope, "nonfinite")),
      model_errors(stats.counter(scope, "model_errors")),
      output_dropped(stats.counter(scope, "output_dropped")) {}

void ScoringCounters::count(signal::SignalState state, bool wanted_score) noexcept {
  if (!wanted_score) return window_short.add(1);
  switch (state) {
    case signal::SignalState::Valid: return scored.add(1);
    case signal::SignalState::Stale: return stale.add(1);
    case signal::SignalState::NonFinite: return nonfinite.add(1);
    case signal::SignalState::ModelError: return model_errors.add(1);
    default: return;
  }
}

std::int64_t ScoringCounters::rows() const noexcept {
  return scored.value() + window_short.value() + stale.value() + nonfinite.value() + model_errors.value();
}

ScoringStage::ScoringStage(Setup setup, StageHistograms& stages, metrics::ErrorLog& errors,
                           metrics::StatFile& stats, Arena& arena)
    : current_(std::make_unique<LoadedModel>(std::move(setup.model))),
      replay_(setup.replay),
      rows_wait_(setup.rows_wait),
      max_age_ns_(setup.replay ? 0 : setup.config.max_age_ns),
      layout_(setup.layout),
      max_batch_(setup.config.max_batch),
      input_floats_(current_->model->info().rows * current_->model->info().features),
      score_count_(current_->model->info().score_names.size()),
      inputs_(arena.allocate<float>(max_batch_ * input_floats_)),
      scores_(arena.allocate<float>(max_batch_ * score_count_)),
      ran_(arena.allocate<std::uint8_t>(max_batch_)),
      router_(setup.router),
      stages_(stages),
      scores_tap_(setup.scores),
      scratch_(arena.allocate<std::byte>(max_batch_ * layout_.record_bytes())),
      records_(arena.allocate<std::byte*>(max_batch_)),
      counters_(stats, setup.scope),
      errors_(errors) {
  current_->handle = current_->model->bind(inputs_.data());
}

void ScoringStage::warm_up() { warm_up(*current_, rows_wait_ ? max_batch_ : infer::kWarmUpRuns); }

void ScoringStage::prepare(LoadedModel& loaded) const {
  loaded.handle = loaded.model->bind(inputs_.data());
  warm_up(loaded, infer::kWarmUpRuns);
}

void ScoringStage::warm_up(LoadedModel& loaded, std::size_t runs) const {
  loaded.model->warm_up(runs, infer::kWarmUpMaxNs);
  // Of several, since one may have been interrupted.
  for (int run = 0; run < 8 && !loaded.quick && !replay_; ++run) {
    const std::uint64_t tsc_before = tsc_now();
    loaded.model->warm_up(1, infer::kWarmUpMaxNs);
    loaded.quick = tsc_to_ns(tsc_now() - tsc_before) <= kQuickNs;
  }
}

bool ScoringStage::keep_warm() noexcept {
  if (!current_->quick || tsc_to_ns(tsc_now() - last_run_tsc_) < kKeepWarmNs) [[likely]]
    return false;
  // On the row before, and what it says goes nowhere.
  (void)current_->model->run_batch(current_->handle, 1, scores_.first(score_count_));
  last_run_tsc_ = tsc_now();
  return true;
}

void ScoringStage::adopt() noexcept {
  LoadedModel* const newer = mailbox_.take();
  if (newer == nullptr) [[likely]]
    return;
  LoadedModel* const older = current_.release();
  TICKWIRE_HOT_EXEMPT_BEGIN("it holds nothing now, so there is nothing to free")
  current_.reset(newer);
  TICKWIRE_HOT_EXEMPT_END
  mailbox_.give_back(older);
}

std::size_t ScoringStage::batch_limit() noexcept {
  if (max_batch_ == 1 || router_ == nullptr) return max_batch_;
  const std::size_t room = router_->room();
  return room == 0 ? max_batch_ : std::min(room, max_batch_);
}

/// By the record's own stages, so that whoever reads them later comes to the same verdict.
bool ScoringStage::too_old(const Job& job, std::uint64_t tsc_before) const noexcept {
  return max_age_ns_ != 0 && StageHistograms::total_ns(*job.header) +
                                     std::int64_t{job.header->unseen_us} * 1000 +
                                     tsc_span_ns(tsc_before, tsc_now()) >
                                 max_age_ns_;
}

signal::SignalState ScoringStage::before_run(const Job& job, std::uint64_t tsc_before) const noexcept {
  // Not worth the model's time.
  if (too_old(job, tsc_before)) return signal::SignalState::Stale;
  return all_finite(job.input) ? signal::SignalState::Valid : signal::SignalState::NonFinite;
}

void ScoringStage::process(std::span<const Job> jobs, std::uint64_t tsc_before) noexcept {
  std::size_t rows = 0;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    signal::SignalHeader& header = *jobs[i].header;
    header.model_id = current_->id;
    ran_[i] = kPassedOn;
    if (std::exchange(header.scored, std::uint8_t{0}) == 0) continue;
    header.state = before_run(jobs[i], tsc_before);
    ran_[i] = kRefused;
    if (header.state != signal::SignalState::Valid) continue;
    std::memcpy(inputs_.data() + rows * input_floats_, jobs[i].input.data(), input_floats_ * sizeof(float));
    ran_[i] = kRan;
    ++rows;
  }
  const bool ok =
      rows == 0 || current_->model->run_batch(current_->handle, rows, scores_.first(rows * score_count_));
  const std::uint64_t tsc_scored = tsc_now();
  if (rows != 0) last_run_tsc_ = tsc_scored;
  const std::int64_t model_ns = tsc_span_ns(tsc_before, tsc_scored);

  // All of a batch or none: who scores its rows again later needs every one.
  const bool published = router_ != nullptr && router_->try_claim_row(jobs.size()) != nullptr;
  const float* scores = scores_.data();
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const std::span<const float> mine{scores, score_count_};
    if (ran_[i] == kRan) {
      signal::SignalHeader& header = *jobs[i].header;
      header.state = !ok                ? signal::SignalState::ModelError
                     : all_finite(mine) ? signal::SignalState::Valid
                                        : signal::SignalState::NonFinite;
      header.scored = ok ? static_cast<std::uint8_t>(rows) : std::uint8_t{0};
      scores += score_count_;
    }
    records_[i] = published ? router_->queue().claimed(i) : scratch_.data() + i * layout_.record_bytes();
    fill(records_[i], jobs[i], mine);
  }
  for (std::size_t i = 0; i < jobs.size(); ++i) close(records_[i], *jobs[i].header, model_ns, tsc_scored);
  if (published) router_->publish(jobs.size());
  // In this order, so that whoever finds a worker dead can tell from the numbers how far it came.
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    concurrent::keep_order();
    counters_.count(jobs[i].header->state, ran_[i] != kPassedOn);
    if (!published && router_ != nullptr) {
      concurrent::keep_order();
      counters_.output_dropped.add(1);
    }
    if (ran_[i] == kRan && !ok) {
      report(errors_, ErrorKind::ModelRun, current_->model->last_error(), jobs[i].header->ts_recv);
    }
    if (published || router_ == nullptr) stages_.count(*jobs[i].header);
    if (scores_tap_ != nullptr) scores_tap_->put(records_[i]);
  }
}

/// Scores and features; its header comes last, with the time.
void ScoringStage::fill(std::byte* record, const Job& job, std::span<const float> scores) const noexcept {
  const signal::RecordView view(record, layout_);
  const std::span<float> places = view.scores();
  const bool usable = job.header->scored != 0 && job.header->state == signal::SignalState::Valid;
  const std::size_t used = usable ? scores.size() : 0;
  std::copy_n(scores.begin(), used, places.begin());
  std::fill(places.begin() + static_cast<std::ptrdiff_t>(used), places.end(),
            std::numeric_limits<float>::quiet_NaN());
  std::memcpy(view.features().data(), job.input.data() + job.input.size() - layout_.feature_count,
              layout_.feature_count * sizeof(float));
}

void ScoringStage::close(std::byte* record, signal::SignalHeader& header, std::int64_t model_ns,
                         std::uint64_t tsc_scored) noexcept {
  header.stage_ns[static_cast<std::size_t>(signal::Stage::Model)] = model_ns;
  stages_.close(header, tsc_scored);
  const signal::RecordView view(record, layout_);
  // One that grew too old on its way is as useless to whom it is for.
  if (max_age_ns_ != 0 && header.state == signal::SignalState::Valid && signal::age_ns(header) > max_age_ns_)
      [[unlikely]] {
    header.state = signal::SignalState::Stale;
    std::fill(view.scores().begin(), view.scores().end(), std::numeric_limits<float>::quiet_NaN());
  }
  view.header() = header;
}

}  // namespace tickwire::engine

#include "tickwire/engine/ingest/row_outlet.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "tickwire/engine/score/finite.hpp"
#include "tickwire/engine/score/work.hpp"

namespace tickwire::engine {

namespace {

std::size_t index_of(signal::Stage stage) noexcept { return static_cast<std::size_t>(stage); }

}  // namespace

RowOutlet::RowOutlet(const Setup& setup, metrics::StatFile& stats, Arena& arena)
    : replay_(setup.replay),
      max_age_ns_(setup.max_age_ns),
      layout_(setup.layout),
      clock_(setup.clock),
      stages_(setup.stages),
      errors_(setup.errors),
      scratch_(arena.allocate<std::byte>(layout_.record_bytes())),
      rows_(stats.counter(setup.scope, "rows")),
      rows_dropped_(stats.counter(setup.scope, "rows_dropped")),
      rows_stale_(stats.counter(setup.scope, "rows_stale")),
      notices_(stats.counter(setup.scope, "notices")) {}

void RowOutlet::score_inline(ScoringStage::Setup scoring, bool alone, metrics::StatFile& stats,
                             Arena& arena) {
  if (scoring.router != nullptr) router_ = scoring.router;
  StageHistograms* stages = &stages_;
  if (!alone) {
    scoring_stages_.push_back(std::make_unique<StageHistograms>(stats, scoring.scope));
    stages = scoring_stages_.back().get();
  }
  scoring_.push_back(std::make_unique<ScoringStage>(std::move(scoring), *stages, errors_, stats, arena));
  if (model_input_.empty()) model_input_ = arena.allocate<float>(scoring_.back()->input_floats());
}

void RowOutlet::send_work_to(std::vector<signal::SignalPort*> workers, Assign assign,
                             std::size_t input_floats) {
  workers_.push_back({std::move(workers), assign});
  work_floats_ = input_floats;
}

void RowOutlet::warm_up() {
  for (auto& scoring : scoring_) scoring->warm_up();
}

void RowOutlet::flush() noexcept {
  if (router_ != nullptr) router_->flush();
  for (auto& scoring : scoring_) scoring->adopt();
  for (const Workers& workers : workers_) {
    for (signal::SignalPort* port : workers.ports) port->flush();
  }
}

void RowOutlet::keep_warm() noexcept {
  (void)std::any_of(scoring_.begin(), scoring_.end(), [](auto& scoring) { return scoring->keep_warm(); });
}

bool RowOutlet::has_room() const noexcept {
  // An event makes at most one row, for each model, and one notice.
  if (router_ != nullptr && router_->room() < scoring_.size() + 2) return false;
  return std::all_of(workers_.begin(), workers_.end(), [](const Workers& workers) {
    return std::all_of(workers.ports.begin(), workers.ports.end(),
                       [](signal::SignalPort* port) { return port->room() >= 2; });
  });
}

signal::SignalPort& RowOutlet::Workers::port_of(InstrumentId instrument) const noexcept {
  if (assign == Assign::Instrument || ports.size() == 1) return *ports[instrument % ports.size()];
  // Where all are idle it is the first, whose caches are warm.
  signal::SignalPort* least = ports.front();
  std::size_t room = least->room();
  for (std::size_t i = 1; i < ports.size(); ++i) {
    const std::size_t other = ports[i]->room();
    if (other > room) {
      least = ports[i];
      room = other;
    }
  }
  return *least;
}

signal::SignalHeader RowOutlet::header_of(const Of& of, const Arrival& arrival) const noexcept {
  signal::SignalHeader header{};
  header.instrument = of.instrument;
  header.epoch = of.epoch;
  header.row = of.row;
  header.sequence = of.sequence;
  header.ts_event = of.ts_event;
  header.ts_recv = arrival.ts_recv;
  header.recv_clock = arrival.clock;
  header.missing_trades = of.missing_trades;
  return header;
}

void RowOutlet::row(const Of& of, const RowHistory& history, const Step& step,
                    const Arrival& arrival) noexcept {
  const bool whole_window = history.full();
  signal::SignalHeader header = header_of(of, arrival);
  // What the row is before a model has seen it.
  const bool wants_score = !scoring_.empty() || !workers_.empty();
  const signal::SignalState state = !all_finite(history.newest())  ? signal::SignalState::NonFinite
                                    : wants_score && !whole_window ? signal::SignalState::Warming
                                                                   : signal::SignalState::Valid;
  header.state = state;
  header.unseen_us = arrival.unseen_us;
  if (!replay_) {
    header.stage_ns[index_of(signal::Stage::Receive)] =
        std::max<std::int64_t>(0, clock_.at(arrival.tsc_start) - arrival.ts_recv);
    stages_.record(signal::Stage::Receive, header.stage_ns[index_of(signal::Stage::Receive)]);
  }
  header.stage_ns[index_of(signal::Stage::Decode)] = tsc_span_ns(arrival.tsc_start, arrival.tsc_decoded);
  header.stage_ns[index_of(signal::Stage::Book)] = tsc_span_ns(arrival.tsc_decoded, step.tsc_book);
  const std::uint64_t tsc_row = tsc_now();
  header.stage_ns[index_of(signal::Stage::Features)] = tsc_span_ns(step.tsc_book, tsc_row);
  stages_.record(signal::Stage::Features, header.stage_ns[index_of(signal::Stage::Features)]);
  rows_.add(1);

  const std::span<const float> input = whole_window ? history.window() : history.newest();
  if (!workers_.empty()) {
    for (const Workers& workers : workers_) {
      send_work(workers.port_of(of.instrument), header, input, whole_window);
    }
  } else if (!scoring_.empty()) {
    score(header, input, whole_window, tsc_row);
  } else {
    send_row(header, history.newest(), tsc_row);
  }
  if (tap_ != nullptr) [[unlikely]]
    record(header, state, history.newest());
}

void RowOutlet::score(const signal::SignalHeader& header, std::span<const float> input, bool whole_window,
                      std::uint64_t tsc_row) noexcept {
  std::span<const float> whole = input;
  if (!whole_window) {
    // Short of a whole window the row stands where the newest of a window does.
    std::memcpy(model_input_.data() + model_input_.size() - input.size(), input.data(), input.size_bytes());
    whole = model_input_;
  }
  for (auto& scoring : scoring_) {
    signal::SignalHeader mine = header;
    mine.scored = whole_window ? 1 : 0;
    const ScoringStage::Job job{&mine, whole};
    // Of several models a later one has waited for those before it.
    scoring->process({&job, 1}, tsc_row);
  }
}

void RowOutlet::send_work(signal::SignalPort& port, const signal::SignalHeader& header,
                          std::span<const float> input, bool whole_window) noexcept {
  std::byte* slot = port.try_claim_row();
  if (slot == nullptr || !port.note(header)) [[unlikely]]
    return rows_dropped_.add(1);
  WorkHead& head = work_head(slot);
  head.header = header;
  head.header.scored = whole_window ? 1 : 0;
  std::memcpy(work_input(slot) + work_floats_ - input.size(), input.data(), input.size_bytes());
  head.tsc_pushed = tsc_now();
  port.publish();
}

/// Without a model, to the router.
void RowOutlet::send_row(signal::SignalHeader& header, std::span<const float> features,
                         std::uint64_t tsc_row) noexcept {
  std::byte* slot = router_->try_claim_row();
  if (slot == nullptr) [[unlikely]]
    return rows_dropped_.add(1);
  const signal::RecordView view(slot, layout_);
  std::memcpy(view.features().data(), features.data(), features.size_bytes());
  stages_.close(header, tsc_row);
  if (max_age_ns_ != 0 && header.state == signal::SignalState::Valid && signal::age_ns(header) > max_age_ns_)
      [[unlikely]] {
    header.state = signal::SignalState::Stale;
    rows_stale_.add(1);
  }
  view.header() = header;
  router_->publish();
  stages_.count(header);
}

void RowOutlet::notice(const Of& of, md::BookState state, md::InvalidReason reason,
                       const Arrival& arrival) noexcept {
  notices_.add(1);
  signal::SignalHeader header = header_of(of, arrival);
  header.state = signal::signal_state(state);
  header.reason = reason;
  header.stage_ns[index_of(signal::Stage::Book)] = tsc_span_ns(arrival.tsc_start, tsc_now());
  header.ts_out = header.ts_recv + header.stage_ns[index_of(signal::Stage::Book)];
  if (router_ != nullptr) router_->notice(header);
  for (const Workers& workers : workers_) {
    // Each worker that may have rows of this epoch ends them with the notice.
    if (workers.assign == Assign::Instrument) {
      workers.port_of(of.instrument).notice(header);
    } else {
      for (signal::SignalPort* port : workers.ports) port->notice(header);
    }
  }
  if (tap_ != nullptr && !stopping_) record(header, header.state, {});
}

/// As it left its agent: without what a model said of it.
void RowOutlet::record(const signal::SignalHeader& header, signal::SignalState state,
                       std::span<const float> features) noexcept {
  const signal::RecordView view(scratch_.data(), layout_);
  std::fill(view.scores().begin(), view.scores().end(), std::numeric_limits<float>::quiet_NaN());
  std::fill(view.features().begin(), view.features().end(), std::numeric_limits<float>::quiet_NaN());
  std::copy(features.begin(), features.end(), view.features().begin());
  view.header() = header;
  view.header().state = state;
  view.header().scored = 0;
  tap_->put(scratch_.data());
}

}  // namespace tickwire::engine

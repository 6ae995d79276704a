#include "tickwire/engine/engine.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <thread>
#include <utility>

#include "tickwire/core/error.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/engine/work.hpp"
#include "tickwire/infer/ensemble.hpp"
#include "tickwire/infer/ort_model.hpp"

namespace tickwire::engine {

namespace {

// Records handed to the control plane at once: bounds how long one batch keeps its slots.
constexpr std::size_t kRecordsAPoll = 1024;
// For an agent to go over to another model: the longest run of a model that anybody would wait for.
constexpr std::chrono::seconds kGoOver{10};

/// Waits until the stage's agent has gone over; the model it used before. Null when it does not come.
std::unique_ptr<LoadedModel> exchange(ScoringStage& stage, std::unique_ptr<LoadedModel> model) {
  stage.offer(std::move(model));
  const auto end = std::chrono::steady_clock::now() + kGoOver;
  for (;;) {
    if (std::unique_ptr<LoadedModel> old = stage.former()) return old;
    if (std::chrono::steady_clock::now() > end && stage.withdraw()) return nullptr;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

std::string joined(const std::vector<std::string>& names) {
  std::string all;
  for (const std::string& name : names) all += (all.empty() ? "" : ", ") + name;
  return all;
}

std::size_t count_instruments(const EngineConfig& config) {
  std::size_t count = 0;
  for (const FeedConfig& feed : config.feeds) count += feed.instruments.size();
  return count;
}

metrics::StatCapacity stat_capacity(const EngineConfig& config) {
  const std::size_t feeds = config.feeds.size();
  std::size_t inference = 0;
  // Inline, each feed's agent runs each model.
  for (const ModelConfig& model : config.models) {
    inference += config.layout == Layout::Inline ? feeds : model.workers;
  }
  const std::size_t agents = feeds + inference + 1;
  return {.counters = static_cast<std::uint32_t>(64 * feeds + 8 * count_instruments(config) + 16 * agents),
          .histograms = static_cast<std::uint32_t>((signal::kStageCount + 1) * agents),
          .error_logs = static_cast<std::uint32_t>(agents)};
}

/// A place of this engine's own, where the configuration names none.
std::string stat_path_of(const EngineConfig& config) {
  static std::atomic<unsigned> engines{0};
  if (!config.stat_path.empty()) return config.stat_path;
  return metrics::default_stat_directory() + "/engine-" + std::to_string(::getpid()) + "-" +
         std::to_string(++engines) + ".stat";
}

}  // namespace

struct Engine::Ring {
  Ring(std::size_t slot_bytes, std::size_t slots, concurrent::Waker& reader, std::size_t instruments,
       Arena& arena)
      : queue(arena, slot_bytes, slots), port(queue, reader, instruments, arena) {}
  concurrent::SpscQueue queue;
  signal::SignalPort port;
};

Engine::Engine(EngineConfig config)
    : config_(std::move(config)),
      arena_(ArenaConfig{.huge_pages = config_.huge_pages, .lock = config_.lock}),
      stats_(metrics::StatFile::create(stat_path_of(config_), stat_capacity(config_))),
      instrument_count_(count_instruments(config_)) {
  config_.features.plan.validate();
  layout_.feature_count = config_.features.plan.outputs.size();
  for (const ModelConfig& settings : config_.models) {
    const std::unique_ptr<infer::Model> model = load_model(settings);
    const infer::ModelInfo& info = model->info();
    models_.push_back({.name = settings.name,
                       .id = settings.id,
                       .executor = info.executor,
                       .score_names = info.score_names,
                       .shadow = settings.shadow});
    for (const std::string& note : info.notes) model_notes_.push_back(settings.name + ": " + note);
    layout_.score_count = std::max(layout_.score_count, info.score_names.size());
  }
  if (!config_.record_dir.empty()) {
    std::vector<std::string> symbols;
    for (const FeedConfig& feed : config_.feeds) {
      for (const InstrumentConfig& instrument : feed.instruments) symbols.push_back(instrument.symbol);
    }
    recorder_ = std::make_unique<Recorder>(config_.record_dir, std::move(symbols), *stats_);
    add_runner(*recorder_, concurrent::kAnyCore);
  }
  build_ingest();
  build_models();
  for (std::size_t i = 0; i < ingest_.size(); ++i) {
    add_runner(*ingest_[i], config_.replay ? concurrent::kAnyCore : config_.feeds[i].core);
  }
  stats_->publish();
  arena_.seal();
}

Engine::~Engine() {
  try {
    stop();
  } catch (const std::exception&) {  // Whoever wants to know why an agent died calls stop() or failed().
  }
  // A file in the automatic place is of no use to anybody once its engine is gone.
  if (config_.stat_path.empty()) stats_->remove();
}

std::unique_ptr<infer::Model> Engine::load_model(const ModelConfig& config) const {
  std::vector<std::unique_ptr<infer::Model>> members;
  std::vector<double> weights;
  for (const ModelMember& member : config.members) {
    members.push_back(infer::load_ort_model({.library = config.ort_library,
                                             .provider = config.provider,
                                             .cache_dir = config.cache_dir,
                                             .path = member.path,
                                             .rows = config_.features.window_rows,
                                             .features = config_.features.plan.outputs.size(),
                                             .max_batch = config.max_batch}));
    weights.push_back(member.weight);
  }
  return infer::make_ensemble(std::move(members), std::move(weights));
}

void Engine::add_runner(concurrent::Agent& agent, int core) {
  runners_.push_back(std::make_unique<concurrent::AgentRunner>(
      agent, concurrent::RunnerConfig{
                 .thread_name = "tw-" + std::string(agent.name()), .core = core, .idle = config_.idle}));
}

signal::SignalPort& Engine::add_router_ring() {
  router_rings_.push_back(std::make_unique<Ring>(layout_.record_bytes(), config_.output_slots, waker_,
                                                 instrument_count_, arena_));
  return router_rings_.back()->port;
}

ScoringStage::Setup Engine::scoring_setup(const std::string& scope, const ModelConfig& model,
                                          signal::SignalPort* router) {
  return {.scope = scope,
          .config = model,
          .model = {.model = load_model(model), .id = model.id},
          .layout = layout_,
          .replay = config_.replay,
          .router = router,
          .scores = recorder_ ? &recorder_->add_scores(scope, layout_.record_bytes(), arena_) : nullptr};
}

void Engine::build_ingest() {
  // Live: one agent a feed, so that none waits for another. Replay: one for all, so that the captures
  // merge in one order.
  const std::size_t feeds_an_agent = config_.replay ? config_.feeds.size() : 1;
  InstrumentId first_instrument = 0;
  for (std::size_t first = 0; first < config_.feeds.size(); first += feeds_an_agent) {
    const std::string name = "ingest" + std::to_string(ingest_.size());
    const std::span<const FeedConfig> feeds{config_.feeds.data() + first, feeds_an_agent};
    ingest_.push_back(std::make_unique<IngestAgent>(
        IngestAgent::Setup{.name = name,
                           .replay = config_.replay,
                           .config = config_,
                           .first_feed = static_cast<std::uint32_t>(first),
                           .feeds = feeds,
                           .first_instrument = first_instrument,
                           .layout = layout_,
                           .recorder = recorder_.get(),
                           .control = waker_,
                           .heartbeat = ingest_.empty() ? stats_.get() : nullptr},
        *stats_, arena_));
    for (const FeedConfig& feed : feeds) {
      agent_of_feed_.push_back(static_cast<std::uint32_t>(ingest_.size() - 1));
      first_instrument += static_cast<InstrumentId>(feed.instruments.size());
    }
  }
}

void Engine::build_models() {
  if (config_.models.empty()) {
    for (auto& ingest : ingest_) ingest->send_rows_to(add_router_ring());
    return;
  }
  if (config_.layout != Layout::Inline) {
    for (std::size_t i = 0; i < config_.models.size(); ++i) build_workers(i);
    return;
  }
  const bool alone = config_.models.size() == 1;
  for (auto& ingest : ingest_) {
    signal::SignalPort& router = add_router_ring();
    for (const ModelConfig& model : config_.models) {
      const std::string scope = std::string(ingest->name()) + (alone ? "" : "-" + model.name);
      ingest->score_inline(scoring_setup(scope, model, model.shadow ? nullptr : &router), alone, *stats_,
                           arena_);
    }
  }
}

/// The inference agents of a model and the rings to them.
void Engine::build_workers(std::size_t index) {
  const ModelConfig& model = config_.models[index];
  const std::size_t first = inference_.size();
  for (std::size_t i = 0; i < model.workers; ++i) {
    const std::string name =
        "infer" + (config_.models.size() == 1 ? "" : "-" + model.name + "-") + std::to_string(i);
    inference_.push_back(std::make_unique<InferenceAgent>(
        name, scoring_setup(name, model, model.shadow ? nullptr : &add_router_ring()), instrument_count_,
        *stats_, arena_));
    add_runner(*inference_.back(), model.cores.empty() ? concurrent::kAnyCore : model.cores[i]);
  }
  const std::size_t input_floats = config_.features.window_rows * layout_.feature_count;
  for (auto& ingest : ingest_) {
    std::vector<signal::SignalPort*> ports;
    for (std::size_t i = first; i < inference_.size(); ++i) {
      work_rings_.push_back(std::make_unique<Ring>(work_slot_bytes(input_floats), model.queue_slots,
                                                   inference_[i]->waker(), instrument_count_, arena_));
      inference_[i]->add_input(work_rings_.back()->queue);
      ports.push_back(&work_rings_.back()->port);
    }
    ingest->send_work_to(std::move(ports), model.assign, input_floats);
  }
}

std::vector<ScoringStage*> Engine::stages_of(std::size_t model) {
  std::vector<ScoringStage*> stages;
  if (config_.layout == Layout::Inline) {
    for (auto& ingest : ingest_) stages.push_back(&ingest->scoring(model));
    return stages;
  }
  std::size_t first = 0;
  for (std::size_t i = 0; i < model; ++i) first += config_.models[i].workers;
  for (std::size_t i = 0; i < config_.models[model].workers; ++i) {
    stages.push_back(&inference_[first + i]->scoring());
  }
  return stages;
}

void Engine::swap_model(std::size_t model, const std::vector<ModelMember>& members, std::uint32_t id) {
  ModelConfig other = config_.models.at(model);
  other.members = members;
  ModelReport& report = models_[model];
  const std::vector<ScoringStage*> stages = stages_of(model);
  // All are made ready before the first goes over: one that cannot be leaves every agent as it is.
  std::vector<std::unique_ptr<LoadedModel>> ready;
  for (const ScoringStage* stage : stages) {
    ready.push_back(std::make_unique<LoadedModel>(LoadedModel{load_model(other), id}));
    const infer::ModelInfo& info = ready.back()->model->info();
    if (info.score_names != report.score_names) {
      throw SetupError(members.front().path,
                       "the scores of the model it replaces: " + joined(report.score_names),
                       joined(info.score_names));
    }
    stage->prepare(*ready.back());
  }
  std::vector<std::unique_ptr<LoadedModel>> older;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    std::unique_ptr<LoadedModel> old = exchange(*stages[i], std::move(ready[i]));
    if (old == nullptr) {
      // An agent that stands still: those before it go back, so that all score with the same model.
      for (std::size_t k = 0; k < i; ++k) (void)exchange(*stages[k], std::move(older[k]));
      throw SetupError(members.front().path, "every agent to go over to it", "one that stands still");
    }
    older.push_back(std::move(old));
  }
  report.id = id;
}

void Engine::start() {
  if (started_) throw SetupError("engine", "a new engine", "one that was started before");
  started_ = true;
  try {
    for (auto& runner : runners_) runner->start();
  } catch (...) {
    for (auto& runner : runners_) runner->stop();
    throw;
  }
}

void Engine::stop() {
  if (!started_ || stopped_) return;
  stopped_ = true;
  std::exception_ptr first;
  for (auto runner = runners_.rbegin(); runner != runners_.rend(); ++runner) {
    (*runner)->stop();
    try {
      (*runner)->join();
    } catch (...) {
      if (!first) first = std::current_exception();
    }
  }
  joined_.publish(true);
  stats_->end(read_utc());
  if (first) std::rethrow_exception(first);
}

std::vector<std::string> Engine::report() const {
  std::vector<std::string> lines = arena_.report().lines();
  lines.push_back(stats_->report_line());
  char text[160];
  std::snprintf(text, sizeof text, "clock: %s, %.4f ns a tick",
                tsc_invariant() ? "TSC" : "CLOCK_MONOTONIC (the TSC is not invariant here)",
                tsc_ns_per_tick());
  lines.emplace_back(text);
  for (std::size_t i = 0; i < models_.size(); ++i) {
    std::string files;
    for (const ModelMember& member : config_.models[i].members) {
      files += (files.empty() ? "" : " + ") + member.path;
    }
    lines.push_back("model " + models_[i].name + ": " + files + ", " + models_[i].executor +
                    (models_[i].shadow ? ", a shadow: recorded, not routed" : ""));
  }
  for (const std::string& note : model_notes_) lines.push_back("model " + note);
  for (const auto& runner : runners_) {
    const concurrent::RunnerConfig& config = runner->config();
    lines.push_back("thread " + config.thread_name + ": " +
                    (config.core == concurrent::kAnyCore ? std::string("floats")
                                                         : "pinned to core " + std::to_string(config.core)));
  }
  return lines;
}

std::vector<std::string> Engine::warm_report() const {
  std::vector<std::string> lines;
  for (const auto& ingest : ingest_) {
    for (std::string& line : ingest->warm_report()) lines.push_back(std::move(line));
  }
  return lines;
}

std::vector<std::pair<std::string, std::int32_t>> Engine::threads() const {
  std::vector<std::pair<std::string, std::int32_t>> threads;
  for (const auto& runner : runners_) threads.emplace_back(runner->config().thread_name, runner->tid());
  return threads;
}

std::vector<DutyCycles> Engine::duty_cycles() const {
  std::vector<DutyCycles> all;
  for (const auto& runner : runners_) {
    all.push_back({.thread = runner->config().thread_name,
                   .cycles = runner->cycles().load(),
                   .busy = runner->busy_cycles().load(),
                   .too_long = runner->long_cycles().load(),
                   .max_ns = runner->max_cycle_ns().load()});
  }
  return all;
}

bool Engine::has_output() const noexcept {
  return std::any_of(router_rings_.begin(), router_rings_.end(),
                     [](const auto& ring) { return ring->queue.readable() != 0; }) ||
         std::any_of(ingest_.begin(), ingest_.end(),
                     [](const auto& ingest) { return ingest->requests().readable() != 0; });
}

RecordBatch Engine::poll() noexcept {
  release();
  // Notices that found no room have nobody else to send them once the agents have ended.
  if (joined_.observe()) {
    for (auto& ring : router_rings_) ring->port.flush();
  }
  for (std::size_t tried = 0; tried < router_rings_.size(); ++tried) {
    const std::size_t index = next_ring_;
    next_ring_ = (next_ring_ + 1) % router_rings_.size();
    concurrent::SpscQueue& queue = router_rings_[index]->queue;
    const std::size_t count = queue.contiguous(std::min(queue.readable(), kRecordsAPoll));
    if (count == 0) continue;
    polled_ring_ = index;
    polled_count_ = count;
    return {queue.slot(0), count, queue.slot_bytes()};
  }
  return {nullptr, 0, 0};
}

void Engine::release() noexcept {
  if (polled_count_ != 0) router_rings_[polled_ring_]->queue.release(polled_count_);
  polled_count_ = 0;
}

std::optional<SnapshotRequest> Engine::poll_request() noexcept {
  for (auto& ingest : ingest_) {
    concurrent::SpscQueue& queue = ingest->requests();
    if (queue.readable() == 0) continue;
    SnapshotRequest request;
    std::memcpy(&request, queue.slot(0), sizeof request);
    queue.release(1);
    return request;
  }
  return std::nullopt;
}

bool Engine::deliver_snapshot(std::uint32_t feed, InstrumentId instrument, std::string_view body) noexcept {
  return ingest_[agent_of_feed_[feed]]->deliver({Command::Kind::Snapshot, instrument}, body);
}

bool Engine::fail_snapshot(std::uint32_t feed, InstrumentId instrument, std::string_view why) noexcept {
  return ingest_[agent_of_feed_[feed]]->deliver({Command::Kind::SnapshotFailed, instrument}, why);
}

std::size_t Engine::max_snapshot_bytes() const noexcept { return ingest_.front()->max_body_bytes(); }

bool Engine::finished() const noexcept {
  return std::all_of(ingest_.begin(), ingest_.end(), [](const auto& ingest) { return ingest->finished(); }) &&
         std::all_of(work_rings_.begin(), work_rings_.end(),
                     [](const auto& ring) { return ring->queue.drained(); });
}

std::optional<std::string> Engine::failed() const {
  for (const auto& runner : runners_) {
    if (std::optional<std::string> why = runner->failed()) return why;
  }
  return std::nullopt;
}

}  // namespace tickwire::engine

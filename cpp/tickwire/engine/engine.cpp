#include "tickwire/engine/engine.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "tickwire/core/error.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/engine/ingest/order_counters.hpp"
#include "tickwire/engine/ingest/price_counters.hpp"
#include "tickwire/engine/score/work.hpp"
#include "tickwire/infer/loader.hpp"

namespace tickwire::engine {

namespace {

// Records handed to the control plane at once: bounds how long one batch keeps its slots.
constexpr std::size_t kRecordsAPoll = 1024;
// A model that still runs so long after the end was asked for is interrupted: an agent takes two seconds for
// what waits.
constexpr std::chrono::milliseconds kInterruptAfter{2500};

/// Does something after a while, unless it goes before: for what may wait for ever.
class Otherwise {
 public:
  template <typename Act>
  Otherwise(std::chrono::nanoseconds after, Act act)
      : thread_([this, after, act] {
          std::unique_lock lock(mutex_);
          if (!ended_.wait_for(lock, after, [this] { return over_; })) act();
        }) {}
  ~Otherwise() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    ended_.notify_one();
    thread_.join();
  }
  Otherwise(const Otherwise&) = delete;
  Otherwise& operator=(const Otherwise&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  bool over_ = false;
  std::thread thread_;
};

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
  // A process has a second scope, for what we know of it.
  if (config.layout == Layout::Processes) inference *= 2;
  const std::size_t agents = feeds + inference + 1;
  std::size_t lines = 0;  // Of multicast feeds, the re-request servers with them.
  for (const FeedConfig& feed : config.feeds) {
    if (feed.itch) lines += 2 + (feed.itch->multicast ? feed.itch->multicast->lines.size() : 0);
  }
  // The recorder has one of each feed.
  constexpr std::size_t kFeedCounters = std::max(kPriceCounters, kOrderCounters) + 1;
  return {.counters = static_cast<std::uint32_t>(kFeedCounters * feeds + 12 * lines +
                                                 12 * count_instruments(config) + 16 * agents),
          .histograms = static_cast<std::uint32_t>((signal::kStageCount + 1) * agents),
          .error_logs = static_cast<std::uint32_t>(agents)};
}

/// A place of this engine's own, where the configuration names none. A replay is nobody's to look at while
/// it runs, unless its configuration says so, and no rival of the engine that runs with the same one.
std::string stat_path_of(const EngineConfig& config) {
  static std::atomic<unsigned> engines{0};
  if (config.replay) return metrics::StatFile::in_use(config.stat_path) ? std::string() : config.stat_path;
  if (!config.stat_path.empty()) return config.stat_path;
  const std::string directory = metrics::default_stat_directory();
  metrics::remove_dead_stat_files(directory);
  return directory + "/engine-" + std::to_string(::getpid()) + "-" + std::to_string(++engines) + ".stat";
}

std::unique_ptr<SharedRegion> waker_memory(const EngineConfig& config) {
  if (config.layout != Layout::Processes) return nullptr;
  return std::make_unique<SharedRegion>("tickwire-router", sizeof(concurrent::Waker::Flag), HugePages::Off,
                                        config.lock);
}

concurrent::Waker waker_over(const std::unique_ptr<SharedRegion>& memory) {
  if (memory == nullptr) return concurrent::Waker();
  return concurrent::Waker(*::new (static_cast<void*>(memory->data())) concurrent::Waker::Flag{});
}

}  // namespace

struct Engine::Ring {
  Ring(std::size_t slot_bytes, std::size_t slots, concurrent::Waker& reader, std::size_t instruments,
       Arena& arena)
      : queue(arena, slot_bytes, slots), port(queue, reader, instruments, arena) {}
  concurrent::SpscQueue queue;
  signal::SignalPort port;
};

Engine::Engine(EngineConfig config, std::span<const infer::Executor> executors)
    : config_(std::move(config)),
      executors_(executors),
      arena_(ArenaConfig{.huge_pages = config_.huge_pages, .lock = config_.lock}),
      stats_(metrics::StatFile::create(stat_path_of(config_), stat_capacity(config_))),
      instrument_count_(count_instruments(config_)),
      waker_memory_(waker_memory(config_)),
      waker_(waker_over(waker_memory_)) {
  config_.features.plan.validate();
  layout_.feature_count = config_.features.plan.outputs.size();
  if (config_.layout == Layout::Processes && !config_.models.empty()) spawner_ = std::make_unique<Spawner>();
  for (std::size_t i = 0; i < config_.models.size(); ++i) {
    const ModelConfig& model = config_.models[i];
    prepared_.push_back(spawner_ ? std::make_shared<const ModelImage>(model.members, model.id) : nullptr);
    models_.push_back(describe(i, prepared_.back().get()));
    layout_.score_count = std::max(layout_.score_count, models_.back().score_names.size());
  }
  if (!config_.record_dir.empty()) {
    std::vector<std::string> symbols;
    for (const FeedConfig& feed : config_.feeds) {
      for (const InstrumentConfig& instrument : feed.instruments) symbols.push_back(instrument.symbol);
    }
    if (config_.record_sync_ns != 0) {
      sync_ = std::make_unique<DiskSync>(DiskCalls::of_the_system());
      add_runner(*sync_, concurrent::kAnyCore);
    }
    recorder_ = std::make_unique<Recorder>(Recorder::Setup{.run_dir = config_.record_dir,
                                                           .symbols = std::move(symbols),
                                                           .sync = sync_.get(),
                                                           .sync_ns = config_.record_sync_ns},
                                           *stats_);
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

infer::ModelShape Engine::shape_of(const ModelConfig& model) const noexcept {
  return {.rows = config_.features.window_rows,
          .features = config_.features.plan.outputs.size(),
          .max_batch = model.max_batch};
}

std::unique_ptr<infer::Model> Engine::load_model(const ModelConfig& config) const {
  return infer::load_model(source_of(config), shape_of(config), infer::Tried::No, executors_);
}

ModelReport Engine::describe(std::size_t index, const ModelImage* image) {
  const ModelConfig& config = config_.models[index];
  ModelReport report{.name = config.name,
                     .id = config.id,
                     .ids = {config.id},
                     .executor = "",
                     .score_names = {},
                     .shadow = config.shadow};
  std::vector<std::string> notes;
  if (image != nullptr) {
    // Not here: what is in the file may take the process down that loads it.
    ModelFacts facts = describe_model(*spawner_, config_.worker_program, config, *image, shape_of(config));
    report.executor = std::move(facts.executor);
    report.score_names = std::move(facts.score_names);
    notes = std::move(facts.notes);
  } else {
    const std::unique_ptr<infer::Model> model = load_model(config);
    report.executor = model->info().executor;
    report.score_names = model->info().score_names;
    notes = model->info().notes;
  }
  for (const std::string& note : notes) model_notes_.push_back(config.name + ": " + note);
  return report;
}

void Engine::add_runner(concurrent::Agent& agent, int core) {
  runners_.push_back(std::make_unique<concurrent::AgentRunner>(
      agent, concurrent::RunnerConfig{
                 .thread_name = "tw-" + std::string(agent.name()), .core = core, .idle = config_.idle}));
}

signal::SignalPort& Engine::add_router_ring() {
  router_rings_.push_back(std::make_unique<Ring>(layout_.record_bytes(), config_.output_slots, waker_,
                                                 instrument_count_, arena_));
  Ring& ring = *router_rings_.back();
  outputs_.push_back({.queue = &ring.queue, .port = &ring.port, .scores = nullptr, .shadow = false});
  return ring.port;
}

ScoringStage::Setup Engine::scoring_setup(const std::string& scope, const ModelConfig& model,
                                          signal::SignalPort* router) {
  std::unique_ptr<infer::Model> loaded = load_model(model);
  exchange_.use(*loaded);
  return {.scope = scope,
          .config = model,
          .model = {.model = std::move(loaded), .id = model.id},
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
      agent_of_instrument_.insert(agent_of_instrument_.end(), feed.instruments.size(), agent_of_feed_.back());
      first_instrument += static_cast<InstrumentId>(feed.instruments.size());
    }
  }
}

void Engine::build_models() {
  if (config_.models.empty()) {
    for (auto& ingest : ingest_) ingest->outlet().send_rows_to(add_router_ring());
    return;
  }
  if (config_.layout != Layout::Inline) {
    for (std::size_t i = 0; i < config_.models.size(); ++i) {
      config_.layout == Layout::Processes ? build_processes(i) : build_workers(i);
    }
    return;
  }
  const bool alone = config_.models.size() == 1;
  for (auto& ingest : ingest_) {
    signal::SignalPort& router = add_router_ring();
    for (const ModelConfig& model : config_.models) {
      const std::string scope = std::string(ingest->name()) + (alone ? "" : "-" + model.name);
      ingest->outlet().score_inline(scoring_setup(scope, model, model.shadow ? nullptr : &router), alone,
                                    *stats_, arena_);
    }
  }
}

std::string Engine::worker_name(const ModelConfig& model, std::size_t number) const {
  return "infer" + (config_.models.size() == 1 ? "" : "-" + model.name + "-") + std::to_string(number);
}

/// The worker processes of a model, and the ports into their rings.
void Engine::build_processes(std::size_t index) {
  const ModelConfig& model = config_.models[index];
  const std::size_t first = workers_.size();
  for (std::size_t i = 0; i < model.workers; ++i) {
    const std::string name = worker_name(model, i);
    const WorkerShape shape{.score_count = layout_.score_count,
                            .feature_count = layout_.feature_count,
                            .window_rows = config_.features.window_rows,
                            .max_batch = model.max_batch,
                            .instrument_count = instrument_count_,
                            .work_rings = ingest_.size(),
                            .queue_slots = model.queue_slots,
                            .output_slots = config_.output_slots,
                            .queue_limit = model.queue_limit,
                            .max_age_ns = model.max_age_ns,
                            .tsc_ns_per_tick = tsc_ns_per_tick(),
                            .core = model.cores.empty() ? concurrent::kAnyCore : model.cores[i],
                            .policy = static_cast<std::uint32_t>(model.policy),
                            .replay = config_.replay ? 1U : 0U,
                            .idle = static_cast<std::uint32_t>(config_.idle),
                            .huge_pages = static_cast<std::uint32_t>(config_.huge_pages),
                            .lock = static_cast<std::uint32_t>(config_.lock)};
    workers_.push_back(std::make_unique<WorkerHost>(WorkerHost::Setup{.name = name,
                                                                      .model = index,
                                                                      .program = config_.worker_program,
                                                                      .config = model,
                                                                      .stat_path = stats_->path(),
                                                                      .shape = shape,
                                                                      .huge_pages = config_.huge_pages,
                                                                      .lock = config_.lock,
                                                                      .router = waker_,
                                                                      .router_flag = *waker_memory_,
                                                                      .spawner = *spawner_,
                                                                      .ingest_of = agent_of_instrument_},
                                                    prepared_[index], *stats_, arena_));
    outputs_.push_back(
        {.queue = &workers_.back()->channel().out(),
         .port = nullptr,
         .scores = recorder_ ? &recorder_->add_scores(name, layout_.record_bytes(), arena_) : nullptr,
         .shadow = model.shadow,
         .worker = workers_.back().get(),
         .believed = arena_.allocate<std::byte>(kRecordsAPoll * workers_.back()->channel().out().slot_bytes(),
                                                kCacheLineBytes)});
  }
  const std::size_t input_floats = config_.features.window_rows * layout_.feature_count;
  for (std::size_t ingest = 0; ingest < ingest_.size(); ++ingest) {
    std::vector<signal::SignalPort*> ports;
    for (std::size_t i = first; i < workers_.size(); ++i) {
      work_ports_.push_back(std::make_unique<signal::SignalPort>(
          workers_[i]->channel().work(ingest), workers_[i]->waker(), instrument_count_, arena_));
      work_ports_.back()->remember_in(workers_[i]->sent(ingest));
      ports.push_back(work_ports_.back().get());
    }
    ingest_[ingest]->outlet().send_work_to(std::move(ports), model.assign, input_floats);
  }
}

/// The inference agents of a model and the rings to them.
void Engine::build_workers(std::size_t index) {
  const ModelConfig& model = config_.models[index];
  const std::size_t first = inference_.size();
  for (std::size_t i = 0; i < model.workers; ++i) {
    const std::string name = worker_name(model, i);
    seats_.push_back(std::make_unique<AgentSeat>());
    inference_.push_back(std::make_unique<InferenceAgent>(
        name, scoring_setup(name, model, model.shadow ? nullptr : &add_router_ring()),
        AgentPost{.waker = seats_.back()->waker, .ring_in_hand = seats_.back()->ring_in_hand},
        instrument_count_, *stats_, arena_));
    add_runner(*inference_.back(), model.cores.empty() ? concurrent::kAnyCore : model.cores[i]);
  }
  const std::size_t input_floats = config_.features.window_rows * layout_.feature_count;
  for (auto& ingest : ingest_) {
    std::vector<signal::SignalPort*> ports;
    for (std::size_t i = first; i < inference_.size(); ++i) {
      work_rings_.push_back(std::make_unique<Ring>(work_slot_bytes(input_floats), model.queue_slots,
                                                   seats_[i]->waker, instrument_count_, arena_));
      inference_[i]->add_input(work_rings_.back()->queue);
      ports.push_back(&work_rings_.back()->port);
    }
    ingest->outlet().send_work_to(std::move(ports), model.assign, input_floats);
  }
}

std::vector<ScoringStage*> Engine::stages_of(std::size_t model) {
  std::vector<ScoringStage*> stages;
  if (config_.layout == Layout::Inline) {
    for (auto& ingest : ingest_) stages.push_back(&ingest->outlet().scoring(model));
    return stages;
  }
  std::size_t first = 0;
  for (std::size_t i = 0; i < model; ++i) first += config_.models[i].workers;
  for (std::size_t i = 0; i < config_.models[model].workers; ++i) {
    stages.push_back(&inference_[first + i]->scoring());
  }
  return stages;
}

void Engine::swap_model(std::size_t model, const std::vector<ModelMember>& members, std::uint32_t id,
                        std::chrono::nanoseconds patience) {
  ModelConfig other = config_.models.at(model);
  other.members = members;
  const std::vector<std::string>& expected = models_[model].score_names;
  const std::vector<ScoringStage*> stages = stages_of(model);
  // All are made ready before the first goes over: one that cannot be leaves every agent as it is.
  std::vector<std::unique_ptr<LoadedModel>> ready;
  for (const ScoringStage* stage : stages) {
    ready.push_back(std::make_unique<LoadedModel>(LoadedModel{load_model(other), id}));
    const infer::ModelInfo& info = ready.back()->model->info();
    if (info.score_names != expected) {
      throw SetupError(members.front().path, "the scores of the model it replaces: " + joined(expected),
                       joined(info.score_names));
    }
    stage->prepare(*ready.back());
  }
  const ModelExchange::Outcome outcome = exchange_.go_over(stages, std::move(ready), patience);
  {
    const std::lock_guard lock(models_mutex_);
    if (outcome.scored) models_[model].ids.push_back(id);
    if (outcome.went_over) models_[model].id = id;
  }
  if (!outcome.went_over) {
    throw SetupError(members.front().path, "every agent to go over to it", std::string(outcome.why));
  }
}

std::vector<ModelReport> Engine::models() const {
  const std::lock_guard lock(models_mutex_);
  return models_;
}

std::shared_ptr<const ModelImage> Engine::prepared(std::size_t model) const {
  const std::lock_guard lock(models_mutex_);
  return prepared_.at(model);
}

void Engine::went_over(std::size_t model) {
  const std::lock_guard lock(models_mutex_);
  const std::shared_ptr<const ModelImage>& image = prepared_.at(model);
  if (image == nullptr)
    throw SetupError("the model that agents went over to", "one that was prepared", "none");
  models_.at(model).id = image->id();
}

void Engine::hand_over(std::size_t worker) {
  WorkerHost& host = *workers_.at(worker);
  host.hand_over();
  const std::uint32_t id = host.model_id();
  const std::lock_guard lock(models_mutex_);
  std::vector<std::uint32_t>& ids = models_[host.model()].ids;
  if (ids.back() != id) ids.push_back(id);
}

void Engine::prepare_model(std::size_t model, const std::vector<ModelMember>& members, std::uint32_t id) {
  const ModelConfig& config = config_.models.at(model);
  if (!spawner_)
    throw SetupError("engine.layout", "processes, where a model is prepared for another one",
                     "a layout without");
  auto image = std::make_shared<const ModelImage>(members, id);
  const ModelFacts facts =
      describe_model(*spawner_, config_.worker_program, config, *image, shape_of(config));
  const std::vector<std::string>& expected = models_[model].score_names;
  if (facts.score_names != expected) {
    throw SetupError(members.front().path, "the scores of the model it replaces: " + joined(expected),
                     joined(facts.score_names));
  }
  const std::lock_guard lock(models_mutex_);
  prepared_[model] = std::move(image);
}

void Engine::start() {
  if (started_) throw SetupError("engine", "a new engine", "one that was started before");
  started_ = true;
  try {
    // Before anything is read: a model that cannot be run is an error of the configuration. All start at
    // once, then each is waited for.
    for (auto& worker : workers_) worker->start();
    for (auto& worker : workers_) {
      worker->await_running(config_.models[worker->model()].start_timeout_ns);
    }
    for (auto& runner : runners_) runner->start();
  } catch (...) {
    for (auto& runner : runners_) runner->stop();
    for (auto& worker : workers_) worker->kill(false, false);
    throw;
  }
}

void Engine::stop() {
  if (!started_ || stopped_) return;
  stopped_ = true;
  std::exception_ptr first;
  // Not in a replay, which may take as long as it likes for each row.
  std::optional<Otherwise> watchdog;
  if (!config_.replay) watchdog.emplace(kInterruptAfter, [this] { exchange_.interrupt(); });
  // All feeds at once: each may wait for its venue's end of a connection, but not one after the other.
  for (std::size_t i = 0; i < ingest_.size(); ++i) runners_[runners_.size() - 1 - i]->stop();
  // Worker processes end behind the feeds and before the recorder, which runs first of all.
  std::size_t feeds = workers_.empty() ? 0 : ingest_.size();
  for (auto runner = runners_.rbegin(); runner != runners_.rend(); ++runner) {
    (*runner)->stop();
    try {
      (*runner)->join();
    } catch (...) {
      if (!first) first = std::current_exception();
    }
    if (feeds != 0 && --feeds == 0) {
      for (auto& worker : workers_) worker->stop();
    }
  }
  joined_.publish(true);
  stats_->end(read_utc());
  if (first) std::rethrow_exception(first);
}

std::vector<std::string> Engine::report() const {
  ArenaReport memory = arena_.report();
  for (const auto& worker : workers_) worker->channel().region().add_to(memory);
  std::vector<std::string> lines = memory.lines();
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
  for (const auto& ingest : ingest_) {
    for (std::string& line : ingest->socket_report()) lines.push_back(std::move(line));
  }
  for (const auto& runner : runners_) {
    const concurrent::RunnerConfig& config = runner->config();
    lines.push_back("thread " + config.thread_name + ": " +
                    (config.core == concurrent::kAnyCore ? std::string("floats")
                                                         : "pinned to core " + std::to_string(config.core)));
  }
  for (const auto& worker : workers_) {
    const std::int32_t core = worker->channel().shape().core;
    lines.push_back(
        "worker " + worker->name() + ": process " + std::to_string(worker->state(false).pid) + ", " +
        (core == concurrent::kAnyCore ? std::string("floats") : "pinned to core " + std::to_string(core)));
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

std::vector<CaptureFacts> Engine::capture_facts() const {
  std::vector<CaptureFacts> all;
  for (const auto& ingest : ingest_) {
    for (CaptureFacts& facts : ingest->capture_facts()) all.push_back(std::move(facts));
  }
  return all;
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
  return std::any_of(outputs_.begin(), outputs_.end(),
                     [](const Output& output) {
                       return output.worker != nullptr ? output.worker->has_records()
                                                       : output.queue->readable() != 0;
                     }) ||
         std::any_of(ingest_.begin(), ingest_.end(),
                     [](const auto& ingest) {
                       SnapshotDesk* const desk = ingest->desk();
                       return desk != nullptr && desk->requests().readable() != 0;
                     }) ||
         std::any_of(workers_.begin(), workers_.end(),
                     [](const auto& worker) { return worker->has_waiting(); });
}

bool Engine::prepare_sleep() noexcept {
  // Of a model that was given up we drain the rings, so its ingest agents must wake us.
  for (auto& worker : workers_) {
    if (worker->given_up()) (void)worker->waker().prepare_sleep([] { return false; });
  }
  return waker_.prepare_sleep([this] { return has_output(); });
}

void Engine::woke() noexcept {
  waker_.woke();
  for (auto& worker : workers_) {
    if (worker->given_up()) worker->waker().woke();
  }
}

RecordBatch Engine::poll() noexcept {
  release();
  // What found no room when the agents ended has nobody else to send it.
  const bool ended = joined_.observe();
  if (ended) {
    for (auto& agent : inference_) agent->settle();
    for (const Output& output : outputs_) {
      if (output.port != nullptr) output.port->flush();
    }
  }
  for (auto& worker : workers_) worker->pass_on(ended);
  for (std::size_t tried = 0; tried < outputs_.size(); ++tried) {
    const Output& output = outputs_[next_output_];
    next_output_ = (next_output_ + 1) % outputs_.size();
    concurrent::SpscQueue& queue = *output.queue;
    if (output.worker != nullptr) {
      const std::size_t count = output.worker->take_records(output.believed);
      if (output.scores != nullptr) record(output, output.believed.data(), count);
      if (count == 0 || output.shadow) continue;
      return {output.believed.data(), count, queue.slot_bytes()};
    }
    const std::size_t count = queue.contiguous(std::min(queue.readable(), kRecordsAPoll));
    if (count == 0) continue;
    if (output.scores != nullptr) record(output, queue.slot(0), count);
    if (output.shadow) {
      queue.release(count);
      continue;
    }
    polled_ = &queue;
    polled_count_ = count;
    return {queue.slot(0), count, queue.slot_bytes()};
  }
  return {nullptr, 0, 0};
}

void Engine::record(const Output& output, const std::byte* records, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) {
    const std::byte* const record = records + i * output.queue->slot_bytes();
    if (reinterpret_cast<const signal::SignalHeader*>(record)->row != 0) output.scores->put(record);
  }
  // Its thread has ended: what is polled after that is written here.
  if (joined_.observe()) recorder_->on_close();
}

std::vector<RecordedFile> Engine::recorded_files() {
  return recorder_ != nullptr ? recorder_->take_finished() : std::vector<RecordedFile>();
}

void Engine::finish_recording() {
  if (recorder_ == nullptr || !joined_.observe()) return;
  release();
  // What nobody polled any more was scored all the same.
  for (const Output& output : outputs_) {
    if (output.scores == nullptr) continue;
    if (output.worker != nullptr) {
      for (std::size_t count = 0; (count = output.worker->take_records(output.believed)) != 0;) {
        record(output, output.believed.data(), count);
      }
      continue;
    }
    for (std::size_t count = 0; (count = output.queue->contiguous(output.queue->readable())) != 0;) {
      record(output, output.queue->slot(0), count);
      output.queue->release(count);
    }
  }
  recorder_->finish();
}

void Engine::release() noexcept {
  if (polled_count_ != 0) polled_->release(polled_count_);
  polled_count_ = 0;
}

std::optional<SnapshotRequest> Engine::poll_request() noexcept {
  for (auto& ingest : ingest_) {
    if (ingest->desk() == nullptr) continue;
    concurrent::SpscQueue& queue = ingest->desk()->requests();
    if (queue.readable() == 0) continue;
    SnapshotRequest request;
    std::memcpy(&request, queue.slot(0), sizeof request);
    queue.release(1);
    return request;
  }
  return std::nullopt;
}

/// Where the snapshots of a feed's instrument are awaited. Throws std::invalid_argument where nowhere.
SnapshotDesk& Engine::desk_of(std::uint32_t feed, InstrumentId instrument) const {
  const auto refuse = [&](const std::string& expected) {
    throw std::invalid_argument("snapshot for feed " + std::to_string(feed) + ", instrument " +
                                std::to_string(instrument) + ": expected " + expected);
  };
  if (feed >= config_.feeds.size()) refuse("a feed from 0 to " + std::to_string(config_.feeds.size() - 1));
  InstrumentId first = 0;
  for (std::uint32_t i = 0; i < feed; ++i) {
    first += static_cast<InstrumentId>(config_.feeds[i].instruments.size());
  }
  const std::size_t count = config_.feeds[feed].instruments.size();
  if (instrument < first || instrument - first >= count) {
    refuse("an instrument of it, from " + std::to_string(first) + " to " + std::to_string(first + count - 1));
  }
  SnapshotDesk* const desk = ingest_[agent_of_feed_[feed]]->desk();
  if (desk == nullptr || config_.feeds[feed].itch) refuse("a live feed that asks for snapshots");
  return *desk;
}

bool Engine::deliver_snapshot(std::uint32_t feed, InstrumentId instrument, std::string_view body) {
  return desk_of(feed, instrument).deliver({Command::Kind::Snapshot, instrument}, body);
}

bool Engine::fail_snapshot(std::uint32_t feed, InstrumentId instrument, std::string_view why,
                           std::int64_t pause_ns) {
  return desk_of(feed, instrument).deliver({Command::Kind::SnapshotFailed, instrument, pause_ns}, why);
}

std::size_t Engine::max_snapshot_bytes() const noexcept {
  for (const auto& ingest : ingest_) {
    if (const SnapshotDesk* const desk = ingest->desk()) return desk->max_body_bytes();
  }
  return 0;
}

bool Engine::finished() const noexcept {
  return std::all_of(ingest_.begin(), ingest_.end(), [](const auto& ingest) { return ingest->finished(); }) &&
         std::all_of(work_rings_.begin(), work_rings_.end(),
                     [](const auto& ring) { return ring->queue.drained(); }) &&
         std::all_of(workers_.begin(), workers_.end(), [](const auto& worker) { return worker->drained(); });
}

std::optional<std::string> Engine::failed() const {
  for (const auto& runner : runners_) {
    if (std::optional<std::string> why = runner->failed()) return why;
  }
  return std::nullopt;
}

}  // namespace tickwire::engine

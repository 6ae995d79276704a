#include "tickwire/engine/worker/worker.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <utility>

#include "tickwire/concurrent/agent_runner.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/error.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/engine/score/inference_agent.hpp"
#include "tickwire/engine/worker/confinement.hpp"
#include "tickwire/engine/worker/worker_channel.hpp"

namespace tickwire::engine {

namespace {

/// The arguments, one after another.
class Arguments {
 public:
  explicit Arguments(const std::vector<std::string>& all) : all_(all) {}

  [[nodiscard]] bool more() const { return next_ < all_.size(); }
  const std::string& text() {
    if (!more()) throw SetupError("arguments", "those of an engine of this version", "too few");
    return all_[next_++];
  }
  template <typename Number>
  Number number() {
    const std::string& from = text();
    Number value{};
    const auto [end, error] = std::from_chars(from.data(), from.data() + from.size(), value);
    if (error != std::errc{} || end != from.data() + from.size()) {
      throw SetupError("arguments", "a number", "'" + from + "'");
    }
    return value;
  }
  infer::ModelSource model() {
    infer::ModelSource model;
    model.library = text();
    model.provider = text();
    model.cache_dir = text();
    while (more()) {
      const int fd = number<int>();
      const double weight = number<double>();
      model.members.push_back({.path = text(), .weight = weight, .fd = fd});
    }
    return model;
  }

 private:
  const std::vector<std::string>& all_;
  std::size_t next_ = 1;  // The first is the command.
};

void append(std::vector<std::string>& to, const infer::ModelSource& model) {
  to.push_back(model.library);
  to.push_back(model.provider);
  to.push_back(model.cache_dir);
  for (const ModelMember& file : model.members) {
    char weight[32];
    std::snprintf(weight, sizeof weight, "%.17g", file.weight);
    to.insert(to.end(), {std::to_string(file.fd), weight, file.path});
  }
}

/// Ties this process to the engine's thread that started it, and leaves signals to the engine: what ends
/// a group of processes, as Ctrl-C does, is for the engine to answer in good order.
void be_a_child_of(std::int32_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // It may have ended before that call.
  if (::getppid() != parent) std::_Exit(1);
  sigset_t all;
  ::sigfillset(&all);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) ::sigdelset(&all, fault);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
}

/// Other providers' drivers open devices, and start threads, whenever they like.
bool can_be_confined(const infer::ModelSource& model) { return model.provider == "cpu"; }

std::int64_t monotonic_ns() noexcept { return detail::read_clock_ns(CLOCK_MONOTONIC); }

/// An inference agent that does as the engine tells it.
class WorkerAgent final : public concurrent::Agent {
 public:
  WorkerAgent(InferenceAgent& inference, WorkerChannel& channel, std::size_t seat,
              metrics::Histogram& recovery, bool confined)
      : inference_(inference),
        channel_(channel),
        confined_(confined),
        seat_(channel.seat(seat)),
        other_(channel.seat(1 - seat)),
        recovery_(recovery) {}

  void run_by(concurrent::AgentRunner& runner) { runner_ = &runner; }

  [[nodiscard]] std::string_view name() const noexcept override { return inference_.name(); }

  void on_start() override {
    seat_.heartbeat_ns.store(monotonic_ns());
    inference_.on_start();
    // What cannot be done here could not in describe() either, which says so.
    if (confined_) (void)confine();
    seat_.enter(WorkerPhase::Ready);
  }

  int do_work() noexcept TICKWIRE_HOT override {
    const WorkerCommand told = seat_.told();
    if (told >= WorkerCommand::HandOver) [[unlikely]] {
      runner_->stop();
      return 0;
    }
    if (!running_) [[unlikely]] {
      if (!may_run(told)) return 0;
      running_ = true;
      seat_.enter(WorkerPhase::Running);
      // Together with what the engine needed to notice: how long rows had to wait.
      if (const std::int64_t died_ns = channel_.died_ns().load(); died_ns != 0) recovered(died_ns);
    }
    return inference_.do_work();
  }

  void on_close() override {
    if (seat_.told() == WorkerCommand::Drain && running_) inference_.on_close();
    // Nothing of ours touches the rings from here on.
    seat_.enter(WorkerPhase::Left);
  }

  void park(std::int64_t max_ns) noexcept override {
    if (running_) return inference_.park(max_ns);
    // Soon enough to go on where another one leaves.
    Agent::park(50'000);
  }

  void every_100ms() noexcept override { seat_.heartbeat_ns.store(monotonic_ns()); }

 private:
  [[nodiscard]] bool may_run(WorkerCommand told) const noexcept TICKWIRE_HOT {
    if (told == WorkerCommand::Run) return true;
    // Pairs with the release in the other's enter(): what it did to the rings is visible.
    return told == WorkerCommand::RunAfterOther && other_.where() == WorkerPhase::Left;
  }

  void recovered(std::int64_t died_ns) noexcept TICKWIRE_HOT {
    TICKWIRE_HOT_EXEMPT_BEGIN("once in a worker's life: the vDSO clock, no system call")
    recovery_.record(monotonic_ns() - died_ns);
    TICKWIRE_HOT_EXEMPT_END
  }

  InferenceAgent& inference_;
  WorkerChannel& channel_;
  const bool confined_;
  WorkerSeat& seat_;
  const WorkerSeat& other_;
  metrics::Histogram& recovery_;
  concurrent::AgentRunner* runner_ = nullptr;
  bool running_ = false;
};

/// Runs until told to leave.
void work(const WorkerOrder& order, WorkerChannel& channel) {
  WorkerSeat& seat = channel.seat(order.seat);
  const WorkerShape& shape = channel.shape();
  adopt_tsc_ns_per_tick(shape.tsc_ns_per_tick);
  const SharedRegion router_memory(order.router_flag_fd);
  concurrent::Waker router(*std::launder(reinterpret_cast<concurrent::Waker::Flag*>(router_memory.data())),
                           order.router_fd);
  concurrent::Waker waker(channel.waker_flag(), order.waker_fd);
  const std::unique_ptr<metrics::StatFile> stats = metrics::StatFile::attach(order.stat_path);
  Arena arena({.chunk_bytes = std::size_t{2} << 20U,
               .huge_pages = static_cast<HugePages>(shape.huge_pages),
               .lock = static_cast<LockMemory>(shape.lock)});
  signal::SignalPort port(channel.out(), router, shape.instrument_count, arena);
  const ModelConfig config{.name = order.name,
                           .members = {},
                           .id = seat.model_id,
                           .ort_library = order.model.library,
                           .cache_dir = order.model.cache_dir,
                           .provider = order.model.provider,
                           .workers = 1,
                           .cores = {},
                           .assign = Assign::Instrument,
                           .max_batch = shape.max_batch,
                           .max_age_ns = shape.max_age_ns,
                           .queue_slots = shape.queue_slots,
                           .policy = static_cast<QueuePolicy>(shape.policy),
                           .queue_limit = shape.queue_limit,
                           .shadow = false,
                           .start_timeout_ns = 0};
  InferenceAgent agent(
      order.name,
      ScoringStage::Setup{.scope = order.name,
                          .config = config,
                          // The engine had it described before the first worker, from the same bytes.
                          .model = {.model = infer::load_model(order.model,
                                                               {.rows = shape.window_rows,
                                                                .features = shape.feature_count,
                                                                .max_batch = shape.max_batch},
                                                               infer::Tried::Yes),
                                    .id = seat.model_id},
                          .layout = {.score_count = shape.score_count, .feature_count = shape.feature_count},
                          .replay = shape.replay != 0,
                          .router = &port,
                          .scores = nullptr,
                          // Not of one that is made ready aside.
                          .rows_wait = seat.told() == WorkerCommand::Run && channel.died_ns().load() != 0},
      AgentPost{.waker = waker, .ring_in_hand = channel.ring_in_hand()}, shape.instrument_count, *stats,
      arena);
  for (std::size_t i = 0; i < channel.work_rings(); ++i) agent.add_input(channel.work(i));
  arena.seal();

  WorkerAgent worker(agent, channel, order.seat, stats->histogram(order.name, "worker_recovery"),
                     can_be_confined(order.model));
  concurrent::AgentRunner runner(worker, {.thread_name = "tw-" + order.name,
                                          .core = shape.core,
                                          .idle = static_cast<concurrent::IdleKind>(shape.idle)});
  worker.run_by(runner);
  runner.start();
  runner.join();
  // Left: the kernel takes back what remains, quicker and more surely than any destructor.
  std::_Exit(0);
}

int run(const WorkerOrder& order) {
  be_a_child_of(order.parent);
  if (can_be_confined(order.model)) (void)leave_network();  // As in describe().
  WorkerChannel channel(order.channel_fd);
  if (order.seat >= WorkerChannel::kSeats)
    throw SetupError("arguments", "a seat", std::to_string(order.seat));
  try {
    work(order, channel);
  } catch (const std::exception& error) {
    channel.seat(order.seat).fail(error.what());
  }
  std::_Exit(1);
}

int describe(const DescribeOrder& order) {
  be_a_child_of(order.parent);
  std::vector<std::string> kept;  // Why what a worker gives up was not given up.
  if (can_be_confined(order.model)) kept.push_back(leave_network());
  std::string lines;
  int status = 0;
  try {
    const std::unique_ptr<infer::Model> model = infer::load_model(order.model, order.shape);
    lines = "executor " + model->info().executor + '\n';
    for (const std::string& name : model->info().score_names) lines += "score " + name + '\n';
    for (const std::string& note : model->info().notes) lines += "note " + note + '\n';
    if (can_be_confined(order.model)) kept.push_back(confine());
    for (const std::string& why : kept) {
      if (!why.empty()) lines += "note its worker: " + why + '\n';
    }
  } catch (const std::exception& error) {
    lines = std::string("error ") + error.what() + '\n';
    status = 1;
  }
  (void)std::fputs(lines.c_str(), stdout);
  (void)std::fflush(stdout);
  std::_Exit(status);
}

}  // namespace

std::vector<std::string> arguments_of(const WorkerOrder& order) {
  std::vector<std::string> arguments = {"run",
                                        std::to_string(order.parent),
                                        order.name,
                                        order.stat_path,
                                        std::to_string(order.channel_fd),
                                        std::to_string(order.seat),
                                        std::to_string(order.waker_fd),
                                        std::to_string(order.router_fd),
                                        std::to_string(order.router_flag_fd)};
  append(arguments, order.model);
  return arguments;
}

std::vector<std::string> arguments_of(const DescribeOrder& order) {
  const infer::ModelShape& shape = order.shape;
  std::vector<std::string> arguments = {"describe", std::to_string(order.parent), std::to_string(shape.rows),
                                        std::to_string(shape.features), std::to_string(shape.max_batch)};
  append(arguments, order.model);
  return arguments;
}

int run_worker(const std::vector<std::string>& all) {
  Arguments arguments(all);
  const std::string command = all.empty() ? "" : all.front();
  if (command == "run") {
    WorkerOrder order{};
    order.parent = arguments.number<std::int32_t>();
    order.name = arguments.text();
    order.stat_path = arguments.text();
    order.channel_fd = arguments.number<int>();
    order.seat = arguments.number<std::size_t>();
    order.waker_fd = arguments.number<int>();
    order.router_fd = arguments.number<int>();
    order.router_flag_fd = arguments.number<int>();
    order.model = arguments.model();
    return run(order);
  }
  if (command == "describe") {
    DescribeOrder order{};
    order.parent = arguments.number<std::int32_t>();
    order.shape.rows = arguments.number<std::size_t>();
    order.shape.features = arguments.number<std::size_t>();
    order.shape.max_batch = arguments.number<std::size_t>();
    order.model = arguments.model();
    return describe(order);
  }
  throw SetupError("arguments", "'run' or 'describe' and what follows", "'" + command + "'");
}

}  // namespace tickwire::engine

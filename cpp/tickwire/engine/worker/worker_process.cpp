#include "tickwire/engine/worker/worker_process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <string_view>
#include <system_error>
#include <utility>

#include "tickwire/core/error.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/engine/error_kinds.hpp"
#include "tickwire/engine/score/work.hpp"

namespace tickwire::engine {

namespace {

// What a stage can be at the most, in ticks of any clock and in ns: a year, so that sums stay in range.
constexpr std::uint64_t kMostQueued = 1ULL << 55;
constexpr std::int64_t kMostStageNs = std::int64_t{1} << 55;
constexpr std::int64_t kRoundingNs = 1'000'000;  // Of ticks to nanoseconds, in a year.
// For a worker that drains what waits at the end: a little more than it allows itself.
constexpr std::int64_t kStopNs = 10'000'000'000;

std::string error_text(int error) { return std::generic_category().message(error); }

std::int64_t monotonic_ns() noexcept { return detail::read_clock_ns(CLOCK_MONOTONIC); }

int open_pidfd(std::int32_t pid) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); }

/// True once the process has ended.
bool await_end(int pidfd, std::int64_t timeout_ns) {
  pollfd end{pidfd, POLLIN, 0};
  const int wait_ms = static_cast<int>(std::clamp<std::int64_t>(timeout_ns / 1'000'000, 0, 1'000'000));
  return ::poll(&end, 1, wait_ms) > 0;
}

std::string how_it_ended(int status) {
  if (WIFEXITED(status)) return "ended with status " + std::to_string(WEXITSTATUS(status));
  if (!WIFSIGNALED(status)) return "ended";
  if (WTERMSIG(status) == SIGSYS) {
    return "killed by signal " + std::to_string(SIGSYS) +
           " (a system call that scoring has no use for: another program, a socket or the like)";
  }
  const char* const name = ::strsignal(WTERMSIG(status));
  return "killed by signal " + std::to_string(WTERMSIG(status)) + " (" + (name != nullptr ? name : "?") + ")";
}

infer::ModelSource model_of(const ModelConfig& config, const ModelImage& image) {
  infer::ModelSource source = source_of(config);
  source.members = image.members();
  return source;
}

std::vector<int> files_of(const ModelImage& image) {
  std::vector<int> fds;
  for (const ModelMember& member : image.members()) fds.push_back(member.fd);
  return fds;
}

/// The end of a pipe that is closed with this.
struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

/// posix_spawn's two objects.
struct SpawnPlan {
  SpawnPlan() {
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
  }
  ~SpawnPlan() {
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
  }
  SpawnPlan(const SpawnPlan&) = delete;
  SpawnPlan& operator=(const SpawnPlan&) = delete;
  posix_spawn_file_actions_t actions{};
  posix_spawnattr_t attributes{};
};

/// What of our environment a worker needs: how the loader, the C library, ONNX Runtime and its providers are
/// set up, and where a user's files are. Nothing else: it may hold passwords, and a model is somebody's code.
std::vector<std::string> worker_environment() {
  constexpr std::array<std::string_view, 24> kNeeded = {"PATH=",
                                                        "HOME=",
                                                        "TMPDIR=",
                                                        "TZ=",
                                                        "LANG=",
                                                        "LC_",
                                                        "LD_LIBRARY_PATH=",
                                                        "LD_PRELOAD=",
                                                        "ORT_",
                                                        "OMP_",
                                                        "KMP_",
                                                        "GOMP_",
                                                        "MKL_",
                                                        "CUDA_",
                                                        "CUDNN_",
                                                        "NVIDIA_",
                                                        "TENSORRT_",
                                                        "TRT_",
                                                        "MALLOC_",
                                                        "GLIBC_TUNABLES=",
                                                        "ASAN_",
                                                        "UBSAN_",
                                                        "LSAN_",
                                                        "TSAN_"};
  std::vector<std::string> kept = {"ORT_DISABLE_TELEMETRY=1"};
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (text.starts_with("ORT_DISABLE_TELEMETRY=")) continue;
    if (std::any_of(kNeeded.begin(), kNeeded.end(),
                    [&](std::string_view name) { return text.starts_with(name); })) {
      kept.emplace_back(text);
    }
  }
  return kept;
}

Process spawn(const std::string& program, const std::vector<std::string>& arguments,
              const std::vector<int>& inherited, int out_fd) {
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  std::vector<std::string> environment = worker_environment();
  std::vector<char*> envp;
  for (std::string& entry : environment) envp.push_back(entry.data());
  envp.push_back(nullptr);
  SpawnPlan plan;
  ::posix_spawn_file_actions_addopen(&plan.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  // Standard output may be a user's data.
  ::posix_spawn_file_actions_adddup2(&plan.actions, out_fd >= 0 ? out_fd : STDERR_FILENO, STDOUT_FILENO);
  // Onto itself: inherited, although it closes at an exec.
  for (const int fd : inherited) ::posix_spawn_file_actions_adddup2(&plan.actions, fd, fd);
  // From the first instruction on no signal but a fault reaches it: see worker.cpp.
  sigset_t all;
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&plan.attributes, &all);
  ::posix_spawnattr_setsigdefault(&plan.attributes, &all);
  ::posix_spawnattr_setflags(&plan.attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  Process process;
  const int error =
      ::posix_spawn(&process.pid, program.c_str(), &plan.actions, &plan.attributes, argv.data(), envp.data());
  if (error != 0) {
    throw SetupError("worker", "a program that can be started: " + program, error_text(error));
  }
  process.pidfd = open_pidfd(process.pid);
  if (process.pidfd < 0) {
    const int failed = errno;
    ::kill(process.pid, SIGKILL);
    ::waitpid(process.pid, nullptr, 0);
    throw SetupError("worker", "a kernel with pidfd_open (Linux 5.3), and a free descriptor",
                     error_text(failed));
  }
  return process;
}

}  // namespace

// ---------------------------------------------------------------------------------------------------
// Spawner

Spawner::Spawner() : thread_([this] { serve(); }) {}

Spawner::~Spawner() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Spawner::serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return task_ || ending_; });
    if (!task_) return;
    task_();
    task_ = nullptr;
    changed_.notify_all();
  }
}

Process Spawner::start(const std::string& program, const std::vector<std::string>& arguments,
                       const std::vector<int>& inherited, int out_fd) {
  Process process;
  std::exception_ptr failed;
  bool done = false;
  std::unique_lock lock(mutex_);
  // Somebody else's, on another thread: a model is described while a worker is started again.
  changed_.wait(lock, [this] { return !task_; });
  task_ = [&] {
    try {
      process = spawn(program, arguments, inherited, out_fd);
    } catch (...) {
      failed = std::current_exception();
    }
    done = true;
  };
  changed_.notify_all();
  changed_.wait(lock, [&done] { return done; });
  if (failed) std::rethrow_exception(failed);
  return process;
}

// ---------------------------------------------------------------------------------------------------
// Models

ModelImage::ModelImage(const std::vector<ModelMember>& members, std::uint32_t id) : id_(id) {
  try {
    for (const ModelMember& member : members) {
      int fd = -1;
      if (member.fd < 0) {
        fd = copy_to_memory(member.path);
      } else if ((fd = ::fcntl(member.fd, F_DUPFD_CLOEXEC, 3)) < 0) {
        throw SetupError(member.path, "a free descriptor", error_text(errno));
      }
      members_.push_back({.path = member.path, .weight = member.weight, .fd = fd});
    }
  } catch (...) {
    for (const ModelMember& member : members_) ::close(member.fd);
    throw;
  }
}

ModelImage::~ModelImage() {
  for (const ModelMember& member : members_) ::close(member.fd);
}

ModelFacts describe_model(Spawner& spawner, const std::string& program, const ModelConfig& model,
                          const ModelImage& image, const infer::ModelShape& shape) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw SetupError("worker", "a pipe", error_text(errno));
  const Descriptor reading{ends[0]};
  Process process;
  {
    const Descriptor writing{ends[1]};
    process = spawner.start(
        program,
        arguments_of(DescribeOrder{.parent = ::getpid(), .shape = shape, .model = model_of(model, image)}),
        files_of(image), writing.fd);
  }
  const Descriptor pidfd{process.pidfd};
  const std::int64_t end_ns = monotonic_ns() + model.start_timeout_ns;
  std::string text;
  bool late = false;
  for (;;) {
    pollfd readable{reading.fd, POLLIN, 0};
    const std::int64_t left_ns = end_ns - monotonic_ns();
    late = left_ns <= 0 || ::poll(&readable, 1, static_cast<int>(left_ns / 1'000'000 + 1)) == 0;
    if (late) break;
    char bytes[4096];
    const ssize_t got = ::read(reading.fd, bytes, sizeof bytes);
    if (got == 0) break;
    if (got > 0) text.append(bytes, static_cast<std::size_t>(got));
  }
  if (late) ::kill(process.pid, SIGKILL);
  int status = 0;
  ::waitpid(process.pid, &status, 0);
  const std::string& path = image.members().front().path;
  if (late) {
    throw SetupError(path, "a model that loads within model.start_timeout", "one that was not ready by then");
  }

  ModelFacts facts;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    const std::size_t space = std::min(line.find(' '), line.size() - (line.empty() ? 0 : 1));
    const std::string key = line.substr(0, space);
    const std::string value = line.substr(std::min(space + 1, line.size()));
    if (key == "executor") facts.executor = value;
    if (key == "score") facts.score_names.push_back(value);
    if (key == "note") facts.notes.push_back(value);
    if (key == "error") throw SetupError(value);
  }
  if (status != 0 || facts.score_names.empty()) {
    throw SetupError(path, "a model that a worker can load", "a worker that was " + how_it_ended(status));
  }
  return facts;
}

// ---------------------------------------------------------------------------------------------------
// One worker

WorkerHost::WorkerHost(Setup setup, std::shared_ptr<const ModelImage> image, metrics::StatFile& stats,
                       Arena& arena)
    : setup_(std::move(setup)),
      channel_(setup_.name, setup_.shape, setup_.huge_pages, setup_.lock),
      waker_(channel_.waker_flag()),
      released_(channel_.work_rings()),
      port_(channel_.out(), setup_.router, setup_.shape.instrument_count, arena),
      stages_(stats, setup_.name),
      scoring_(stats, setup_.name),
      inference_(stats, setup_.name),
      unscored_stopped_(stats.counter(setup_.name, "unscored_stopped")),
      restarts_(stats.counter(setup_.name, "worker_restarts")),
      hung_(stats.counter(setup_.name, "worker_hung")),
      replaced_(stats.counter(setup_.name, "worker_replaced")),
      stopped_(stats.counter(setup_.name, "worker_stopped")),
      untrusted_(stats.counter(setup_.name, "untrusted_records")),
      errors_(stats.error_log(setup_.name + "-process")) {
  // What is on its way lies in one of the two rings.
  const std::size_t most = channel_.work(0).capacity() + channel_.out().capacity();
  for (std::size_t i = 0; i < channel_.work_rings(); ++i) {
    sent_.push_back(std::make_unique<signal::Sent>(arena, most));
  }
  (void)stats.histogram(setup_.name, "worker_recovery");
  (void)stats.error_log(setup_.name);
  seats_[main_].image = std::move(image);
  if (seats_[main_].image != nullptr) ids_.push_back(seats_[main_].image->id());
}

WorkerHost::~WorkerHost() {
  for (Seat& seat : seats_) {
    if (seat.process.pid == 0) continue;
    ::kill(seat.process.pid, SIGKILL);
    ::waitpid(seat.process.pid, nullptr, 0);
    forget(seat);
  }
}

void WorkerHost::launch(std::size_t index, WorkerCommand command) {
  Seat& seat = seats_[index];
  WorkerSeat& shared = channel_.seat(index);
  shared.text_bytes = 0;
  shared.heartbeat_ns.store(0);
  shared.model_id = seat.image->id();
  shared.tell(command);
  shared.enter(WorkerPhase::Loading);
  seat.killed = false;
  std::vector<int> inherited = files_of(*seat.image);
  inherited.insert(inherited.end(),
                   {channel_.region().fd(), waker_.fd(), setup_.router.fd(), setup_.router_flag.fd()});
  seat.process =
      setup_.spawner.start(setup_.program,
                           arguments_of(WorkerOrder{.parent = ::getpid(),
                                                    .name = setup_.name,
                                                    .stat_path = setup_.stat_path,
                                                    .channel_fd = channel_.region().fd(),
                                                    .seat = index,
                                                    .waker_fd = waker_.fd(),
                                                    .router_fd = setup_.router.fd(),
                                                    .router_flag_fd = setup_.router_flag.fd(),
                                                    .model = model_of(setup_.config, *seat.image)}),
                           inherited);
}

void WorkerHost::start() {
  const std::lock_guard lock(mutex_);
  if (channel_.died_ns().load() != 0) restarts_.add(1);
  launch(main_, WorkerCommand::Run);
}

void WorkerHost::await_running(std::int64_t timeout_ns) {
  const std::int64_t end_ns = monotonic_ns() + timeout_ns;
  for (;;) {
    const WorkerSeat& seat = channel_.seat(main_);
    if (seat.where() == WorkerPhase::Running) return;
    if (await_end(seats_[main_].process.pidfd, 1'000'000)) {
      const std::string how = reap(false)->how;
      throw SetupError("worker " + setup_.name, "one that starts", how);
    }
    if (monotonic_ns() < end_ns) continue;
    kill(false, false);
    (void)await_end(seats_[main_].process.pidfd, kStopNs);
    (void)reap(false);
    throw SetupError("worker " + setup_.name, "one that is ready within model.start_timeout",
                     "one that still loads");
  }
}

void WorkerHost::start_aside(std::shared_ptr<const ModelImage> image) {
  const std::lock_guard lock(mutex_);
  const std::size_t aside = 1 - main_;
  if (seats_[aside].process.pid != 0) {
    throw SetupError("worker " + setup_.name, "no other replacement on its way", "one");
  }
  seats_[aside].image = image != nullptr ? std::move(image) : seats_[main_].image;
  const std::uint32_t id = seats_[aside].image->id();
  if (std::find(ids_.begin(), ids_.end(), id) == ids_.end()) ids_.push_back(id);
  launch(aside, WorkerCommand::Wait);
}

void WorkerHost::hand_over() {
  const std::lock_guard lock(mutex_);
  replaced_.add(1);
  // From here on the other one's files are the worker's, whichever of the two processes may die.
  seats_[main_].image = seats_[1 - main_].image;
  if (seats_[main_].process.pid == 0) {
    // The other one has died meanwhile, and stock was taken after it.
    main_ = 1 - main_;
    return channel_.seat(main_).tell(WorkerCommand::Run);
  }
  // No row has waited since an earlier death.
  if (channel_.seat(main_).where() == WorkerPhase::Running) channel_.died_ns().store(0);
  handed_over_ = true;
  channel_.seat(1 - main_).tell(WorkerCommand::RunAfterOther);
  channel_.seat(main_).tell(WorkerCommand::HandOver);
  waker_.notify();
}

WorkerState WorkerHost::state(bool aside) const {
  const std::lock_guard lock(mutex_);
  const std::size_t index = aside ? 1 - main_ : main_;
  const WorkerSeat& shared = channel_.seat(index);
  const Process& process = seats_[index].process;
  const std::int64_t heartbeat_ns = shared.heartbeat_ns.load();
  return {
      .pid = process.pid,
      .pidfd = process.pidfd,
      .phase = shared.where(),
      .heartbeat_age_ns = heartbeat_ns == 0 ? -1 : std::max<std::int64_t>(0, monotonic_ns() - heartbeat_ns),
      .why = shared.where() == WorkerPhase::Failed ? shared.why() : ""};
}

void WorkerHost::kill(bool aside, bool hung) {
  const std::lock_guard lock(mutex_);
  kill_held(aside, hung);
}

void WorkerHost::kill_held(bool aside, bool hung) noexcept {
  Seat& seat = seats_[aside ? 1 - main_ : main_];
  if (seat.process.pid == 0) return;
  seat.killed = true;
  // By descriptor: a number may be another process's by now.
  ::syscall(SYS_pidfd_send_signal, seat.process.pidfd, SIGKILL, nullptr, 0);
  if (!hung) return;
  hung_.add(1);
  log(ErrorKind::WorkerHung, "no sign of life from it; it was killed");
}

void WorkerHost::forget(Seat& seat) noexcept {
  if (seat.process.pidfd >= 0) ::close(seat.process.pidfd);
  seat.process = {};
}

std::optional<WorkerEnd> WorkerHost::reap(bool aside) {
  const std::lock_guard lock(mutex_);
  const std::size_t index = aside ? 1 - main_ : main_;
  Seat& seat = seats_[index];
  if (seat.process.pid == 0) return std::nullopt;
  int status = 0;
  const pid_t ended = ::waitpid(seat.process.pid, &status, WNOHANG);
  if (ended == 0) return std::nullopt;
  const WorkerSeat& shared = channel_.seat(index);
  const WorkerPhase phase = shared.where();
  WorkerEnd end{.in_order = phase == WorkerPhase::Left,
                .killed_by_us = seat.killed,
                // Where somebody else's code waited for our child there is no status.
                .how = phase == WorkerPhase::Failed ? shared.why()
                       : ended < 0                  ? "ended"
                                                    : how_it_ended(status),
                .trouble = ""};
  forget(seat);
  if (aside) {
    if (!std::exchange(handed_over_, false)) return end;
    // It never ran, but as the other one leaves there is nobody.
    channel_.died_ns().store(monotonic_ns());
    log(ErrorKind::WorkerDied, end.how);
    return end;
  }

  // One that was not handed anything yet stays aside: whether it shall go on is not decided.
  const bool replaced = std::exchange(handed_over_, false) && seats_[1 - main_].process.pid != 0;
  if (!distrusted_.empty()) {
    end.trouble = distrusted_;
    channel_.out().release(channel_.out().readable());  // Whatever they are, the indices meet again.
    log(ErrorKind::WorkerDied, end.how);
  } else if (!end.in_order) {
    end.trouble = take_stock();
    if (channel_.out().readable() > channel_.out().capacity())
      channel_.out().release(channel_.out().readable());
    channel_.died_ns().store(monotonic_ns());
    log(ErrorKind::WorkerDied, end.how);
    if (!end.trouble.empty()) log(ErrorKind::WorkerMemory, end.trouble);
  }
  if (replaced && end.trouble.empty() && !given_up_) {
    main_ = 1 - main_;
    // One that saw the other leave runs already.
    channel_.seat(main_).tell(WorkerCommand::Run);
  }
  return end;
}

std::string WorkerHost::take_stock() {
  concurrent::SpscQueue& out = channel_.out();
  const auto published = static_cast<std::int64_t>(out.published());
  std::int64_t released = 0;
  for (std::size_t i = 0; i < channel_.work_rings(); ++i) {
    released += static_cast<std::int64_t>(channel_.work(i).released());
  }
  const auto counted = [this] {
    return scoring_.rows() + unscored_stopped_.value() + inference_.notices.value();
  };
  // A row without a record was counted before it was counted as dropped, records after they were published,
  // those of a batch at once: so this is one off, or up to a batch the other way, and tells which.
  const std::int64_t balance = published + scoring_.output_dropped.value() - counted();
  if (balance == -1) scoring_.output_dropped.add(1);
  const std::int64_t done = published + scoring_.output_dropped.value() + inference_.given_up();
  const std::int64_t missing = done - released;
  const std::uint32_t ring = channel_.ring_in_hand().load();
  const auto most = static_cast<std::int64_t>(channel_.shape().max_batch);
  if (balance < -1 || balance > most || ring >= channel_.work_rings() ||
      missing < std::max<std::int64_t>(balance, 0) ||
      missing > static_cast<std::int64_t>(channel_.work(ring).readable()) ||
      channel_.work(ring).readable() > channel_.work(ring).capacity()) {
    return "its counters do not add up: " + std::to_string(published) + " records, " +
           std::to_string(counted()) + " counted, " + std::to_string(done) + " done, " +
           std::to_string(released) + " given back";
  }
  concurrent::SpscQueue& work = channel_.work(ring);
  for (std::int64_t back = balance; back-- > 0;) {
    const auto place = static_cast<std::size_t>(back);
    const signal::SignalHeader& last = *reinterpret_cast<const signal::SignalHeader*>(out.newest(place));
    if (last.row == 0) {
      inference_.notices.add(1);
    } else {
      const WorkHead& entry = work_head(work.slot(static_cast<std::size_t>(missing) - 1 - place));
      scoring_.count(last.state, entry.header.scored != 0);
    }
  }
  work.release(static_cast<std::size_t>(missing));
  return "";
}

void WorkerHost::give_up(std::string_view why) {
  const std::lock_guard lock(mutex_);
  given_up_ = true;
  stopped_.set(1);
  log(ErrorKind::WorkerStopped, why);
}

/// Why a record is not to be believed, or null.
const char* WorkerHost::fault_of(const signal::SignalHeader& header) noexcept {
  const bool notice = header.row == 0;
  if (header.instrument >= setup_.shape.instrument_count) return "of an instrument that there is not";
  if (static_cast<std::size_t>(header.state) >= signal::kSignalStateNames.size() ||
      static_cast<std::uint8_t>(header.reason) >= md::kInvalidReasons ||
      header.recv_clock > RecvClock::Recorded || header.scored > setup_.shape.max_batch) {
    return "of a state that there is not";
  }
  if (notice ? header.state == signal::SignalState::Valid || header.scored != 0
             : header.state == signal::SignalState::Valid && header.scored == 0) {
    return "that contradicts itself";
  }
  // Also one that was replaced meanwhile: what it gave may still wait here.
  if (std::find(ids_.begin(), ids_.end(), header.model_id) == ids_.end()) return "of another model";
  // Its own stages lie within our life. Those before them are held against what it was given, below.
  const std::int64_t life_ns = tsc_to_ns(tsc_now() - made_tsc_) + kRoundingNs;
  auto out =
      static_cast<std::uint64_t>(header.ts_recv);  // Unsigned, since whatever stands there may overflow.
  for (std::size_t i = 0; i < header.stage_ns.size(); ++i) {
    const std::int64_t stage = header.stage_ns[i];
    const bool own = i >= static_cast<std::size_t>(signal::Stage::Queue);
    if (stage < 0 || stage > (own ? life_ns : kMostStageNs)) return "with a time that cannot be";
    out += static_cast<std::uint64_t>(stage);
  }
  if (out != static_cast<std::uint64_t>(header.ts_out)) return "whose times do not add up";
  if (!sent_[setup_.ingest_of[header.instrument]]->take(header))
    return "that it was not given, or gave before";
  return nullptr;
}

void WorkerHost::distrust(std::string why) noexcept {
  distrusted_ = std::move(why);
  log(ErrorKind::WorkerMemory, distrusted_);
  kill_held(false, false);
  kill_held(true, false);
}

std::string WorkerHost::distrusted() const {
  const std::lock_guard lock(mutex_);
  return distrusted_;
}

bool WorkerHost::given_up() const {
  const std::lock_guard lock(mutex_);
  return given_up_;
}

bool WorkerHost::has_records() noexcept {
  const std::lock_guard lock(mutex_);
  return channel_.out().readable() != 0 && (distrusted_.empty() || given_up_);
}

std::size_t WorkerHost::take_records(std::span<std::byte> into) noexcept {
  concurrent::SpscQueue& out = channel_.out();
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < released_.size(); ++i) released_[i] = channel_.work(i).released();
  std::size_t good = 0;
  while (good == 0) {
    const std::size_t waiting = out.readable();
    // It is being ended, and what it still writes goes with it.
    if (!distrusted_.empty() && !given_up_) return 0;
    if (waiting == 0) {
      // All that was given back before has been answered, as far as it will be.
      for (std::size_t i = 0; i < released_.size(); ++i) {
        if (sent_[i]->filling()) sent_[i]->forget_before(released_[i]);
      }
      return 0;
    }
    if (waiting > out.capacity()) {
      out.release(waiting);  // The indices meet again.
      if (given_up_) return 0;
      untrusted_.add(1);
      distrust("it wrote over the places of its ring of records");
      return 0;
    }
    const std::size_t count = out.contiguous(std::min(waiting, into.size() / out.slot_bytes()));
    // Ours from here on: the worker may write there as long as it lives.
    std::memcpy(into.data(), out.slot(0), count * out.slot_bytes());
    for (std::size_t i = 0; i < count; ++i) {
      std::byte* const record = into.data() + i * out.slot_bytes();
      const auto& header = *reinterpret_cast<const signal::SignalHeader*>(record);
      if (const char* const fault = fault_of(header); fault != nullptr) [[unlikely]] {
        untrusted_.add(1);
        if (given_up_) continue;  // Its process was killed, or died, and left that behind.
        distrust("it gave a record " + std::string(fault) + ": instrument " +
                 std::to_string(header.instrument) + ", epoch " + std::to_string(header.epoch) + ", row " +
                 std::to_string(header.row));
        out.release(out.readable());
        return good;
      }
      if (good != i) std::memcpy(into.data() + good * out.slot_bytes(), record, out.slot_bytes());
      ++good;
    }
    out.release(count);
  }
  return good;
}

void WorkerHost::stop() {
  const std::int64_t end_ns = monotonic_ns() + kStopNs;
  // The router takes records meanwhile, and may end the worker for one of them: nothing is held while we
  // wait. Descriptors stay open until reap(), which nobody else calls any more.
  const auto pidfd_of = [this](bool aside) {
    const std::lock_guard lock(mutex_);
    return seats_[aside ? 1 - main_ : main_].process.pidfd;
  };
  const auto handed_over = [this] {
    const std::lock_guard lock(mutex_);
    return handed_over_;
  };
  // In the middle of a handing over: who has left is not who drains.
  if (handed_over() && await_end(pidfd_of(false), end_ns - monotonic_ns())) (void)reap(false);
  kill(true, false);
  {
    const std::lock_guard lock(mutex_);
    channel_.seat(main_).tell(WorkerCommand::Drain);
  }
  waker_.notify();
  for (const bool aside : {true, false}) {
    const int pidfd = pidfd_of(aside);
    if (pidfd < 0) continue;
    if (!await_end(pidfd, end_ns - monotonic_ns())) {
      kill(aside, true);
      (void)await_end(pidfd, kStopNs);
    }
    (void)reap(aside);
  }
}

bool WorkerHost::has_waiting() noexcept {
  const std::lock_guard lock(mutex_);
  if (!given_up_) return false;
  for (std::size_t i = 0; i < channel_.work_rings(); ++i) {
    if (channel_.work(i).readable() != 0) return true;
  }
  return false;
}

bool WorkerHost::drained() noexcept {
  for (std::size_t i = 0; i < channel_.work_rings(); ++i) {
    if (!channel_.work(i).drained()) return false;
  }
  return true;
}

void WorkerHost::pass_on(bool ended) noexcept {
  const std::lock_guard lock(mutex_);
  if (!ended && !given_up_) return;
  // As long as one lives, the rings are its own.
  if (seats_[0].process.pid != 0 || seats_[1].process.pid != 0) return;
  for (std::size_t i = 0; i < channel_.work_rings(); ++i) {
    concurrent::SpscQueue& queue = channel_.work(i);
    // Where the worker wrote over the indices, there is nothing to be passed on.
    if (queue.readable() > queue.capacity()) queue.release(queue.readable());
    for (; queue.readable() != 0; queue.release(1)) {
      std::byte* const slot = queue.slot(0);
      signal::SignalHeader header = work_head(slot).header;
      if (header.row == 0) {
        header.model_id = seats_[main_].image->id();
        if (!port_.try_notice(header)) return;
        inference_.notices.add(1);
      } else if (!given_up_) {
        inference_.left_at_stop.add(1);
      } else if (std::byte* const record = channel_.out().try_claim(); record != nullptr) {
        leave_unscored(record, slot);
      } else {
        return;
      }
    }
  }
}

void WorkerHost::leave_unscored(std::byte* record, std::byte* slot) noexcept {
  const WorkHead& head = work_head(slot);
  const signal::RecordLayout layout{setup_.shape.score_count, setup_.shape.feature_count};
  const signal::RecordView view(record, layout);
  signal::SignalHeader header = head.header;
  header.state = signal::SignalState::ModelError;
  header.scored = 0;
  header.model_id = seats_[main_].image->id();
  // What stands there may be anything, where the worker wrote over it.
  const std::uint64_t now = tsc_now();
  header.stage_ns[static_cast<std::size_t>(signal::Stage::Queue)] =
      head.tsc_pushed <= now ? tsc_to_ns(std::min(now - head.tsc_pushed, kMostQueued)) : 0;
  for (std::int64_t& stage : header.stage_ns) stage = std::clamp<std::int64_t>(stage, 0, kMostStageNs);
  std::fill(view.scores().begin(), view.scores().end(), std::numeric_limits<float>::quiet_NaN());
  const float* const newest = work_input(slot) + (setup_.shape.window_rows - 1) * layout.feature_count;
  std::copy_n(newest, layout.feature_count, view.features().begin());
  stages_.close(header, tsc_now());
  view.header() = header;
  port_.publish();
  unscored_stopped_.add(1);
}

void WorkerHost::log(ErrorKind kind, std::string_view text) { report(errors_, kind, text, read_utc()); }

}  // namespace tickwire::engine

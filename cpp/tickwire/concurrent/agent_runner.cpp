#include "tickwire/concurrent/agent_runner.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <stdexcept>
#include <utility>

#include "tickwire/core/time.hpp"

namespace tickwire::concurrent {
namespace {

constexpr std::int64_t kTickNs = 100'000'000;

/// Blocks signals for threads started within the scope. The agent's thread is born with this mask, so
/// there is no moment at which a signal could reach it; only its own faults still do.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    ::sigfillset(&all);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) ::sigdelset(&all, fault);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

AgentRunner::AgentRunner(Agent& agent, RunnerConfig config) : agent_(agent), config_(std::move(config)) {}

AgentRunner::~AgentRunner() {
  stop();
  if (thread_.joinable()) thread_.join();
}

void AgentRunner::start() {
  // Relaxed: the controlling thread alone leaves kIdle.
  if (state_.load(std::memory_order_relaxed) != kIdle) {
    throw std::logic_error("AgentRunner: start() a second time");
  }
  tsc_ns_per_tick();  // Calibrate here, not in the agent's first turn.
  // Relaxed: the thread does not exist yet; creating it orders this before all it does.
  state_.store(kStarting, std::memory_order_relaxed);
  {
    const SignalsBlocked blocked;
    thread_ = std::thread([this] { run(); });
  }
  // Pairs with the releases in run() and record_failure(): what on_start() wrote is visible here.
  state_.wait(kStarting, std::memory_order_acquire);
  // Not state_: that of an agent that started and died since is join()'s to tell.
  if (!started_) join();
}

void AgentRunner::stop() noexcept {
  // Pairs with the acquire in loop(): what we wrote before is visible to on_close().
  stop_.store(true, std::memory_order_release);
}

void AgentRunner::join() {
  if (thread_.joinable()) thread_.join();
  if (exception_) std::rethrow_exception(std::exchange(exception_, nullptr));
}

std::optional<std::string> AgentRunner::failed() const {
  // Pairs with the release in record_failure(): failure_ is written by then and stays.
  if (state_.load(std::memory_order_acquire) != kFailed) return std::nullopt;
  return failure_;
}

bool AgentRunner::running() const noexcept {
  // Acquire: pairs with the release that ended the thread's work, so that a caller who sees it ended
  // also sees what it did.
  return state_.load(std::memory_order_acquire) == kRunning;
}

void AgentRunner::run() noexcept {
  tid_.store(static_cast<std::int32_t>(::gettid()));
  try {
    name_this_thread(config_.thread_name);
    // The kernel's default lets every sleep run 50 us late, as long as our shortest one.
    ::prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    if (config_.core != kAnyCore) pin_this_thread(config_.core, "thread " + config_.thread_name);
    agent_.on_start();
    started_ = true;
    // Pairs with the acquires in start() and running().
    state_.store(kRunning, std::memory_order_release);
    state_.notify_all();
    loop();
  } catch (...) {
    record_failure();
  }
  if (started_) {
    try {
      agent_.on_close();
    } catch (...) {
      record_failure();
    }
  }
  // Relaxed: this thread wrote it last.
  if (state_.load(std::memory_order_relaxed) != kFailed) {
    // Pairs with the acquire in running().
    state_.store(kStopped, std::memory_order_release);
  }
}

void AgentRunner::loop() {
  IdleStrategy idle(config_.idle);
  const std::uint64_t long_cycle = ns_to_tsc(config_.long_cycle_ns);
  const std::uint64_t tick = ns_to_tsc(kTickNs);
  std::uint64_t longest = 0;
  std::uint64_t last_tick = tsc_now();
  agent_.every_100ms();
  // Pairs with the release in stop().
  while (!stop_.load(std::memory_order_acquire)) {
    const std::uint64_t before = tsc_now();
    const int done = agent_.do_work();
    const std::uint64_t after = tsc_now();
    const std::uint64_t length = after - before;
    cycles_.add(1);
    if (length > longest) [[unlikely]] {
      longest = length;
      max_cycle_ns_.store(tsc_to_ns(length));
    }
    if (length > long_cycle) [[unlikely]]
      long_cycles_.add(1);
    if (after - last_tick >= tick) [[unlikely]] {
      last_tick = after;
      agent_.every_100ms();
    }
    if (done != 0) {
      busy_cycles_.add(1);
      idle.reset();
    } else {
      idle.idle([this](std::int64_t max_ns) noexcept { agent_.park(max_ns); });
    }
  }
}

void AgentRunner::record_failure() noexcept {
  // The first failure is the cause; one of on_close() after it is a consequence. Relaxed: only this
  // thread writes kFailed.
  if (state_.load(std::memory_order_relaxed) == kFailed) return;
  exception_ = std::current_exception();
  try {
    failure_ = agent_.name();
    try {
      std::rethrow_exception(exception_);
    } catch (const std::exception& error) {
      failure_ += ": ";
      failure_ += error.what();
    } catch (...) {
      failure_ += ": an exception that is no std::exception";
    }
  } catch (...) {
    failure_.clear();  // No memory for the text; the exception itself is kept.
  }
  // Pairs with the acquires in start(), failed() and running().
  state_.store(kFailed, std::memory_order_release);
  state_.notify_all();
}

}  // namespace tickwire::concurrent

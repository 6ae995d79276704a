#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <thread>

#include "tickwire/concurrent/affinity.hpp"
#include "tickwire/concurrent/agent.hpp"
#include "tickwire/concurrent/cell.hpp"
#include "tickwire/concurrent/idle.hpp"
#include "tickwire/core/hot.hpp"

namespace tickwire::concurrent {

struct RunnerConfig {
  std::string thread_name;  // 15 characters reach the kernel.
  /// Core to run on; kAnyCore leaves the thread floating. If pinning fails, start() fails.
  int core = kAnyCore;
  IdleKind idle = IdleKind::Backoff;
  /// A turn longer than this is counted: on a pinned core it is somebody else's doing or a batch that
  /// is too large.
  std::int64_t long_cycle_ns = 1'000'000;
};

/// Owns the thread of one agent: its name, its core, its signals (all blocked: they are the control
/// plane's), what it does with no work, and the length of each turn. The agent and the runner must not
/// move and the agent must outlive the runner. start(), stop() and join() belong to one controlling
/// thread; the readings may be taken from any.
class AgentRunner {
 public:
  AgentRunner(Agent& agent, RunnerConfig config);

  /// stop(), then waits for the thread. What the thread threw is lost here, so join() first.
  ~AgentRunner();
  AgentRunner(const AgentRunner&) = delete;
  AgentRunner& operator=(const AgentRunner&) = delete;

  /// Starts the thread and returns when on_start() has. Throws what pinning or on_start() threw; then
  /// there is no thread. Once in a runner's life.
  void start();

  /// Asks the thread to finish after its turn. Idempotent, does not wait.
  void stop() noexcept TICKWIRE_HOT;

  /// Waits for the thread, then rethrows what it threw, once.
  void join();

  /// Any thread: why the agent died, with its name; nothing while it is well.
  std::optional<std::string> failed() const;

  /// Any thread: between start() and the thread's end.
  bool running() const noexcept;

  /// The kernel's id of the thread; 0 before start().
  std::int32_t tid() const noexcept { return tid_.load(); }

  // Any thread; written by the agent's.
  const Cell<std::uint64_t>& cycles() const noexcept { return cycles_; }
  const Cell<std::uint64_t>& busy_cycles() const noexcept { return busy_cycles_; }
  const Cell<std::uint64_t>& long_cycles() const noexcept { return long_cycles_; }
  const Cell<std::int64_t>& max_cycle_ns() const noexcept { return max_cycle_ns_; }

  const RunnerConfig& config() const noexcept { return config_; }

 private:
  enum State : int { kIdle, kStarting, kRunning, kStopped, kFailed };

  void run() noexcept;
  void loop();
  void record_failure() noexcept;

  Agent& agent_;
  RunnerConfig config_;
  std::thread thread_;
  bool started_ = false;          // Did on_start() return? Written before state_ leaves kStarting.
  std::exception_ptr exception_;  // Written by the thread, read after it was joined.
  std::string failure_;           // Written by the thread before state_ becomes kFailed.
  std::atomic<int> state_{kIdle};
  std::atomic<bool> stop_{false};

  Cell<std::int32_t> tid_;
  Cell<std::uint64_t> cycles_;
  Cell<std::uint64_t> busy_cycles_;
  Cell<std::uint64_t> long_cycles_;
  Cell<std::int64_t> max_cycle_ns_;
};

}  // namespace tickwire::concurrent

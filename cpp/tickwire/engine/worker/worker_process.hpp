#pragma once

/// The engine's side of the layout `processes`: starts workers, tells them what to do, takes stock after
/// them when they end, and takes their place where they are given up. What to do when is decided above
/// it, by py/tickwire/runtime/workers.py.
///
/// Set-up and control threads. Nothing here runs on the data plane: the ingest agents write into rings in
/// shared memory and never know who drains them.

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "tickwire/concurrent/waker.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/shared_region.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/error_kinds.hpp"
#include "tickwire/engine/record/recorder.hpp"
#include "tickwire/engine/score/inference_agent.hpp"
#include "tickwire/engine/score/scoring_stage.hpp"
#include "tickwire/engine/stages.hpp"
#include "tickwire/engine/worker/worker.hpp"
#include "tickwire/engine/worker/worker_channel.hpp"
#include "tickwire/metrics/stat_file.hpp"
#include "tickwire/signal/port.hpp"
#include "tickwire/signal/sent.hpp"

namespace tickwire::engine {

/// A started process.
struct Process {
  std::int32_t pid = 0;
  int pidfd = -1;  // Readable once it has ended.
};

/// Starts processes from a thread of its own that lives as long as the engine: a child that wants to die
/// with its parent dies with the thread that made it.
class Spawner {
 public:
  Spawner();
  ~Spawner();
  Spawner(const Spawner&) = delete;
  Spawner& operator=(const Spawner&) = delete;

  /// The child has its standard output in `out_fd` (else where errors go), no standard input, and of our
  /// other descriptors those `inherited`. Throws SetupError, naming the program.
  [[nodiscard]] Process start(const std::string& program, const std::vector<std::string>& arguments,
                              const std::vector<int>& inherited, int out_fd = -1);

 private:
  void serve();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> task_;  // Empty: none.
  bool ending_ = false;
  std::thread thread_;
};

/// Copies of a model's files, for as long as a worker may be started from them.
class ModelImage {
 public:
  ModelImage(const std::vector<ModelMember>& members, std::uint32_t id);
  ~ModelImage();
  ModelImage(const ModelImage&) = delete;
  ModelImage& operator=(const ModelImage&) = delete;

  /// With descriptors of the copies.
  [[nodiscard]] const std::vector<ModelMember>& members() const noexcept { return members_; }
  [[nodiscard]] std::uint32_t id() const noexcept { return id_; }

 private:
  std::vector<ModelMember> members_;
  std::uint32_t id_;
};

/// What a model is, told by a process that loaded it: a model that cannot be loaded takes nobody with it.
struct ModelFacts {
  std::string executor;
  std::vector<std::string> score_names;
  std::vector<std::string> notes;
};
[[nodiscard]] ModelFacts describe_model(Spawner& spawner, const std::string& program,
                                        const ModelConfig& model, const ModelImage& image,
                                        const infer::ModelShape& shape);

/// A worker as it is now.
struct WorkerState {
  std::int32_t pid;  // 0: there is none.
  int pidfd;
  WorkerPhase phase;
  std::int64_t heartbeat_age_ns;  // Negative while it loads.
  std::string why;                // Where it failed.
};

/// How a worker ended.
struct WorkerEnd {
  bool in_order;  // It left, as it was told to.
  bool killed_by_us;
  std::string how;      // "killed by signal 11 (Segmentation fault)", or why it could not start.
  std::string trouble;  // Not empty: the memory it shared with us is damaged, and must not be gone on with.
};

/// One inference agent in processes, one after another. Any thread may call it, but stop() belongs to one.
class WorkerHost {
 public:
  struct Setup {
    std::string name;
    std::size_t model;
    std::string program;
    const ModelConfig& config;
    std::string stat_path;
    WorkerShape shape;
    HugePages huge_pages;
    LockMemory lock;
    concurrent::Waker& router;
    const SharedRegion& router_flag;
    Spawner& spawner;
    /// By instrument, whose ring its rows come through.
    const std::vector<std::uint32_t>& ingest_of;
  };

  /// Registers what the worker will count under its name, and makes its channel.
  WorkerHost(Setup setup, std::shared_ptr<const ModelImage> image, metrics::StatFile& stats, Arena& arena);
  ~WorkerHost();
  WorkerHost(const WorkerHost&) = delete;
  WorkerHost& operator=(const WorkerHost&) = delete;

  [[nodiscard]] const std::string& name() const noexcept { return setup_.name; }
  [[nodiscard]] std::size_t model() const noexcept { return setup_.model; }
  [[nodiscard]] WorkerChannel& channel() noexcept { return channel_; }
  [[nodiscard]] concurrent::Waker& waker() noexcept { return waker_; }
  /// What the ingest agent `index` noted of what it sent.
  [[nodiscard]] signal::Sent& sent(std::size_t index) noexcept { return *sent_[index]; }
  [[nodiscard]] std::uint32_t model_id() const {
    const std::lock_guard lock(mutex_);
    return seats_[main_].image->id();
  }

  /// Starts the worker: at the start, or after one that ended.
  void start();
  /// Waits until it drains its rings. Throws SetupError with its reason, and ends it, when it does not.
  void await_running(std::int64_t timeout_ns);
  /// Starts another one beside it, with other files or, without an image, with the same.
  void start_aside(std::shared_ptr<const ModelImage> image);
  /// The one that is ready aside goes on as soon as the other one has done its turn and left. Its files are
  /// the worker's from here on, also after a death.
  void hand_over();
  [[nodiscard]] WorkerState state(bool aside) const;
  /// Ends a process at once: one that hangs, or one aside that is not wanted any more.
  void kill(bool aside, bool hung);
  /// After a pidfd became readable. Nothing while the process lives. Takes stock: what the worker had
  /// done is given back, so that the next one begins with what it had not done. Where it was handed over
  /// to the one aside, that one goes on.
  std::optional<WorkerEnd> reap(bool aside);
  /// Part of reap(): finishes what the numbers of a dead worker lack, and gives back what it had done.
  /// Empty, or why the numbers cannot be.
  std::string take_stock();
  /// The model is given up: from now on rows leave through pass_on().
  void give_up(std::string_view why);
  [[nodiscard]] bool given_up() const;
  /// Why no other process may go on with the memory; empty where one may.
  [[nodiscard]] std::string distrusted() const;

  /// The router's: copies records that wait and that may be believed, and gives them back; how many. A worker
  /// of which one is not is ended, and no other record of its process is looked at.
  [[nodiscard]] std::size_t take_records(std::span<std::byte> into) noexcept;
  [[nodiscard]] bool has_records() noexcept;

  /// Ends the worker in good order, or after a while the other way.
  void stop();

  /// In the place of a worker that will not come back. Given up: rows leave as records that say so. After
  /// the end of the feeds: rows are counted. Notices are passed on. As far as the router's ring has room.
  void pass_on(bool ended) noexcept;
  /// Given up, and rows wait for pass_on().
  [[nodiscard]] bool has_waiting() noexcept;
  [[nodiscard]] bool drained() noexcept;

 private:
  struct Seat {
    Process process;
    std::shared_ptr<const ModelImage> image;
    bool killed = false;
  };

  // With mutex_ held.
  void kill_held(bool aside, bool hung) noexcept;
  void launch(std::size_t seat, WorkerCommand command);
  void forget(Seat& seat) noexcept;
  void leave_unscored(std::byte* record, std::byte* slot) noexcept;
  [[nodiscard]] const char* fault_of(const signal::SignalHeader& header) noexcept;
  void distrust(std::string why) noexcept;
  void log(ErrorKind kind, std::string_view text);

  Setup setup_;
  const std::uint64_t made_tsc_ = tsc_now();
  /// Engine::stop() ends the worker on one thread while another one takes its records, and may distrust it.
  /// Held for moments: never while one waits for a process.
  mutable std::mutex mutex_;
  WorkerChannel channel_;
  concurrent::Waker waker_;
  std::vector<std::unique_ptr<signal::Sent>> sent_;  // By ingest agent.
  std::vector<std::uint64_t> released_;              // By ingest agent: rows that were given back.
  signal::SignalPort port_;                          // To the router, in the worker's place.
  std::size_t main_ = 0;                             // The seat of the worker that drains, or will next.
  bool given_up_ = false;
  std::vector<std::uint32_t> ids_;  // Of all models that a process of ours had.
  std::string distrusted_;          // Why what its process wrote is not to be believed.
  bool handed_over_ = false;        // The one aside goes on as soon as the one at main_ has left.
  Seat seats_[WorkerChannel::kSeats];
  StageHistograms stages_;  // The worker's: made here, written there.
  ScoringCounters scoring_;
  InferenceCounters inference_;
  metrics::Counter& unscored_stopped_;
  // Ours.
  metrics::Counter& restarts_;
  metrics::Counter& hung_;
  metrics::Counter& replaced_;
  metrics::Counter& stopped_;
  metrics::Counter& untrusted_;
  metrics::ErrorLog& errors_;
};

}  // namespace tickwire::engine

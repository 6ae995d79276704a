#pragma once

/// The whole data plane of one run: builds it from a configuration, starts its threads, and is what
/// the control plane drains. Live and replay differ in the source of bytes and in waiting instead of
/// dropping; all else is the same code.
///
/// Everything here is called by one control thread; the agents run on theirs.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tickwire/concurrent/agent_runner.hpp"
#include "tickwire/concurrent/cell.hpp"
#include "tickwire/concurrent/spsc_queue.hpp"
#include "tickwire/concurrent/waker.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/ingest/ingest_agent.hpp"
#include "tickwire/engine/record/recorder.hpp"
#include "tickwire/engine/score/inference_agent.hpp"
#include "tickwire/engine/score/model_exchange.hpp"
#include "tickwire/engine/worker/worker_process.hpp"
#include "tickwire/infer/executors.hpp"
#include "tickwire/infer/model.hpp"
#include "tickwire/metrics/stat_file.hpp"
#include "tickwire/signal/port.hpp"
#include "tickwire/signal/signal.hpp"

namespace tickwire::engine {

/// Records that lie one after another in a ring, `stride` bytes apart.
struct RecordBatch {
  const std::byte* records;
  std::size_t count;
  std::size_t stride;
};

/// How a thread's turns went so far.
struct DutyCycles {
  std::string thread;
  std::uint64_t cycles;
  std::uint64_t busy;      // Turns that did something.
  std::uint64_t too_long;  // Turns of more than a millisecond.
  std::int64_t max_ns;
};

/// A model as it was loaded.
struct ModelReport {
  std::string name;
  std::uint32_t id;
  std::vector<std::uint32_t> ids;  // Those whose scores there may be: also of one that was taken back.
  std::string executor;            // Scores compare bit for bit only within one.
  std::vector<std::string> score_names;
  bool shadow;
};

class Engine {
 public:
  /// Reserves everything: memory, sockets' buffers, sessions. Throws SetupError. `executors` run the models
  /// of this process; a worker's are those of its program.
  explicit Engine(EngineConfig config, std::span<const infer::Executor> executors = infer::kExecutors);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Starts the threads; models are warm when it returns. Throws what a thread's start threw.
  void start();
  /// Stops and joins the threads, sources first, so that what was read is scored and recorded.
  /// Idempotent. Rethrows what an agent died of.
  void stop();

  /// Lines of the start-up report: memory, clock, threads, model.
  [[nodiscard]] std::vector<std::string> report() const;
  /// What the feeds' warm starts came to; grows as they join.
  [[nodiscard]] std::vector<std::string> warm_report() const;
  /// Replay: what no counter tells of the captures, by feed; none before the end.
  [[nodiscard]] std::vector<CaptureFacts> capture_facts() const;
  /// Name and kernel id of each thread, once started.
  [[nodiscard]] std::vector<std::pair<std::string, std::int32_t>> threads() const;
  [[nodiscard]] std::vector<DutyCycles> duty_cycles() const;
  [[nodiscard]] const std::string& stat_path() const noexcept { return stats_->path(); }
  /// The statistics as they are mapped here, also where somebody has cut the file short; see StatFile.
  [[nodiscard]] std::span<const std::byte> stat_view() const noexcept { return stats_->view(); }
  [[nodiscard]] std::uint64_t stat_bytes_missing() const noexcept { return stats_->bytes_missing(); }
  [[nodiscard]] const signal::RecordLayout& layout() const noexcept { return layout_; }
  /// In the configuration's order, as they are now. Any thread.
  [[nodiscard]] std::vector<ModelReport> models() const;

  /// Exchanges a running model for another, with the same features and scores: loads and warms it aside,
  /// then each agent goes over between two rows, so that none is lost and none scored twice. Takes as long
  /// as loading does. Any thread, one at a time, between start() and stop(). Throws SetupError when the other
  /// cannot take its place, or when an agent does not come to it within `patience`, twice that at most: all
  /// agents then go on with what they had.
  void swap_model(std::size_t model, const std::vector<ModelMember>& members, std::uint32_t id,
                  std::chrono::nanoseconds patience = kGoOver);

  // Layout processes: the mechanism of its supervision, from the router's thread. `worker` counts over all
  // models' workers.

  [[nodiscard]] std::vector<std::unique_ptr<WorkerHost>>& workers() noexcept { return workers_; }
  /// Makes other files of a model ready for start_aside(): loads them in a process of their own and
  /// compares. Any thread, one at a time. Throws SetupError when they cannot take its place.
  void prepare_model(std::size_t model, const std::vector<ModelMember>& members, std::uint32_t id);
  /// What prepare_model() made last. Any thread.
  [[nodiscard]] std::shared_ptr<const ModelImage> prepared(std::size_t model) const;
  /// A worker goes over to what is ready aside.
  void hand_over(std::size_t worker);
  /// All workers of the model have gone over to what was prepared.
  void went_over(std::size_t model);

  // What the router does, from one thread.

  /// Announces the router's sleep; false when there is something to do instead. After waking, woke().
  [[nodiscard]] bool prepare_sleep() noexcept;
  void woke() noexcept;

  [[nodiscard]] concurrent::Waker& waker() noexcept { return waker_; }
  /// Is there anything to poll() or poll_request()? For the last look before a sleep.
  [[nodiscard]] bool has_output() const noexcept;
  /// The next records of one ring, none if there are none. They hold until release().
  [[nodiscard]] RecordBatch poll() noexcept;
  /// Gives back what the last poll() returned.
  void release() noexcept;
  [[nodiscard]] std::optional<SnapshotRequest> poll_request() noexcept;
  /// Hands a REST answer down. False when the feed's ring of answers is full (try again) or the body is
  /// larger than it can ever take (see max_snapshot_bytes()). Throws std::invalid_argument where the feed has
  /// no such instrument, or never asks for a snapshot.
  [[nodiscard]] bool deliver_snapshot(std::uint32_t feed, InstrumentId instrument, std::string_view body);
  /// Says why there is none. Where the venue has said for how long it is to be left alone (`pause_ns`), that
  /// is no try that failed, and it is asked for again after that, or after a minute. Throws as above.
  [[nodiscard]] bool fail_snapshot(std::uint32_t feed, InstrumentId instrument, std::string_view why,
                                   std::int64_t pause_ns = 0);
  /// 0 where no feed asks for any.
  [[nodiscard]] std::size_t max_snapshot_bytes() const noexcept;

  /// Replay: all inputs are read and all their records can be polled.
  [[nodiscard]] bool finished() const noexcept;
  /// The files of the recording that were closed since the last call. Any thread.
  [[nodiscard]] std::vector<RecordedFile> recorded_files();
  /// After stop(), when nothing is polled any more: writes what is left of the recording and closes its
  /// files. Without it the last ones have no end that anybody wrote down.
  void finish_recording();
  /// Why an agent died, if one did.
  [[nodiscard]] std::optional<std::string> failed() const;

 private:
  struct Ring;
  /// What AgentPost refers to, of an agent on a thread.
  struct AgentSeat {
    concurrent::Waker waker;
    concurrent::Cell<std::uint32_t> ring_in_hand;
  };
  /// A ring to the router.
  struct Output {
    concurrent::SpscQueue* queue;
    signal::SignalPort* port;  // Whose waiting notices are ours to send after the end; null: it keeps none.
    RecordTap* scores;         // Recorded as they are polled: a worker process has no other way out.
    bool shadow;               // Recorded, and not handed on.
    WorkerHost* worker = nullptr;        // A process, whose records are looked at before they are believed, …
    std::span<std::byte> believed = {};  // … and copied here.
  };

  void build_ingest();
  void build_models();
  [[nodiscard]] signal::SignalPort& add_router_ring();
  [[nodiscard]] ScoringStage::Setup scoring_setup(const std::string& scope, const ModelConfig& model,
                                                  signal::SignalPort* router);
  [[nodiscard]] infer::ModelShape shape_of(const ModelConfig& model) const noexcept;
  [[nodiscard]] std::unique_ptr<infer::Model> load_model(const ModelConfig& model) const;
  void build_workers(std::size_t model);
  void build_processes(std::size_t model);
  [[nodiscard]] std::string worker_name(const ModelConfig& model, std::size_t number) const;
  [[nodiscard]] ModelReport describe(std::size_t model, const ModelImage* image);
  void record(const Output& output, const std::byte* records, std::size_t count) noexcept;
  [[nodiscard]] std::vector<ScoringStage*> stages_of(std::size_t model);
  [[nodiscard]] SnapshotDesk& desk_of(std::uint32_t feed, InstrumentId instrument) const;
  void add_runner(concurrent::Agent& agent, int core);

  const EngineConfig config_;
  const std::span<const infer::Executor> executors_;
  Arena arena_;
  std::unique_ptr<metrics::StatFile> stats_;
  signal::RecordLayout layout_{};
  mutable std::mutex models_mutex_;  // Held for moments, by who exchanges a model and by who asks.
  std::vector<ModelReport> models_;  // Under it: `id` and `ids`; the rest is as it was made.
  std::vector<std::string> model_notes_;
  ModelExchange exchange_;
  std::size_t instrument_count_ = 0;
  std::vector<std::uint32_t> agent_of_feed_;
  std::vector<std::uint32_t> agent_of_instrument_;
  std::unique_ptr<SharedRegion> waker_memory_;  // Where worker processes wake the router as well.
  concurrent::Waker waker_;
  std::unique_ptr<DiskSync> sync_;
  std::unique_ptr<Recorder> recorder_;
  std::vector<std::unique_ptr<Ring>> router_rings_;
  std::vector<Output> outputs_;
  std::vector<std::unique_ptr<Ring>> work_rings_;
  std::vector<std::unique_ptr<InferenceAgent>> inference_;  // Each model's, one model after another.
  std::vector<std::unique_ptr<AgentSeat>> seats_;
  std::unique_ptr<Spawner> spawner_;
  std::vector<std::shared_ptr<const ModelImage>> prepared_;  // By model, under models_mutex_.
  std::vector<std::unique_ptr<WorkerHost>> workers_;
  std::vector<std::unique_ptr<signal::SignalPort>> work_ports_;  // Into the workers' rings.
  std::vector<std::unique_ptr<IngestAgent>> ingest_;
  // In the order of starting: readers before writers. Stopped the other way round.
  std::vector<std::unique_ptr<concurrent::AgentRunner>> runners_;
  std::size_t next_output_ = 0;
  concurrent::SpscQueue* polled_ = nullptr;
  std::size_t polled_count_ = 0;
  bool started_ = false;
  bool stopped_ = false;
  concurrent::Cell<bool> joined_;  // The agents have ended: what they wrote with is the poller's.
};

}  // namespace tickwire::engine

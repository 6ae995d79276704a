#pragma once

/// What an engine and one of its worker processes share, in one sealed memfd: the configuration in
/// integers, a ring of rows from each ingest agent, the ring of signals to the router, and the cells
/// through which the two sides tell each other how far they are.
///
/// Nothing in it is a pointer; where things lie follows from the integers, which the worker checks before
/// it touches anything behind them. Two seats, because a worker may be replaced by one that was made
/// ready beside it: one of the two drains the rings at any time, and which one is told by their phases.
///
/// Rings survive their worker. Whatever a consumer has done with an entry it tells in this order:
///
///     1. the record is published, with all of its batch, or one counter says that there is none
///     2. the entry is given back
///
/// so after its end at any moment, the records published plus what the counters say is what was done, and
/// what was done but not given back are the entries at the head of the ring it had in hand.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/concurrent/cell.hpp"
#include "tickwire/concurrent/spsc_queue.hpp"
#include "tickwire/concurrent/waker.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/shared_region.hpp"
#include "tickwire/core/types.hpp"

namespace tickwire::engine {

/// The configuration as far as it is numbers, and the engine's clock. Fixed before the worker starts.
struct WorkerShape {
  std::uint64_t score_count;  // Of a record.
  std::uint64_t feature_count;
  std::uint64_t window_rows;
  std::uint64_t max_batch;
  std::uint64_t instrument_count;
  std::uint64_t work_rings;
  std::uint64_t queue_slots;
  std::uint64_t output_slots;
  std::uint64_t queue_limit;
  std::int64_t max_age_ns;
  double tsc_ns_per_tick;  // As the engine calibrated it.
  std::int32_t core;
  std::uint32_t policy;
  std::uint32_t replay;
  std::uint32_t idle;
  std::uint32_t huge_pages;
  std::uint32_t lock;
};

/// How far a worker is. It writes, the engine reads.
enum class WorkerPhase : std::uint32_t {
  Loading,  // From the start of the process on.
  Ready,    // Warm; waits for its command.
  Running,  // Drains the rings.
  Left,     // Has given everything back, or did not touch the rings; ends.
  Failed,   // Could not start; the text says why.
};

/// What a worker shall do. The engine writes, the worker looks between two turns.
enum class WorkerCommand : std::uint32_t {
  Wait,           // Get ready, then wait.
  Run,            // Get ready, then drain.
  RunAfterOther,  // Drain as soon as the other seat's worker has left.
  HandOver,       // Leave after the turn at hand; another one goes on.
  Drain,          // The feeds have ended: score what waits, or count it, and leave.
};

struct WorkerSeat {
  static constexpr std::size_t kMaxText = 1000;

  // The worker's.
  alignas(kFalseSharingBytes) concurrent::Cell<std::uint32_t> phase;
  std::uint32_t text_bytes;
  concurrent::Cell<std::int64_t> heartbeat_ns;  // CLOCK_MONOTONIC, about ten times a second; 0 while loading.
  char text[kMaxText];
  // The engine's.
  alignas(kFalseSharingBytes) concurrent::Cell<std::uint32_t> command;
  std::uint32_t model_id;

  [[nodiscard]] WorkerPhase where() const noexcept { return static_cast<WorkerPhase>(phase.observe()); }
  void enter(WorkerPhase next) noexcept { phase.publish(static_cast<std::uint32_t>(next)); }
  [[nodiscard]] WorkerCommand told() const noexcept { return static_cast<WorkerCommand>(command.observe()); }
  void tell(WorkerCommand next) noexcept { command.publish(static_cast<std::uint32_t>(next)); }
  /// Why the worker failed. The memory is the worker's to write, so nothing about it is trusted.
  [[nodiscard]] std::string why() const;
  void fail(std::string_view why) noexcept;
};

class WorkerChannel {
 public:
  static constexpr std::size_t kSeats = 2;

  /// The engine's side. Throws SetupError.
  WorkerChannel(const std::string& name, const WorkerShape& shape, HugePages huge_pages, LockMemory lock);
  /// The worker's: takes the inherited descriptor over. Throws SetupError where what lies behind it was
  /// not made by an engine of this version, or is damaged.
  explicit WorkerChannel(int fd);

  [[nodiscard]] const SharedRegion& region() const noexcept { return region_; }
  [[nodiscard]] const WorkerShape& shape() const noexcept { return shape_; }
  [[nodiscard]] WorkerSeat& seat(std::size_t index) const noexcept;
  [[nodiscard]] concurrent::SpscQueue& out() noexcept { return *out_; }
  /// From the ingest agent `index`.
  [[nodiscard]] concurrent::SpscQueue& work(std::size_t index) noexcept { return *work_[index]; }
  [[nodiscard]] std::size_t work_rings() const noexcept { return work_.size(); }
  /// Of the waker by which the ingest agents wake the worker.
  [[nodiscard]] concurrent::Waker::Flag& waker_flag() const noexcept;
  /// The ring that the worker drains, written before anything is done with its entries.
  [[nodiscard]] concurrent::Cell<std::uint32_t>& ring_in_hand() const noexcept;
  /// When the worker before this one was found dead, CLOCK_MONOTONIC; 0: there was none.
  [[nodiscard]] concurrent::Cell<std::int64_t>& died_ns() const noexcept TICKWIRE_HOT;

 private:
  struct Header;

  void lay_out();
  [[nodiscard]] Header& header() const noexcept TICKWIRE_HOT;

  SharedRegion region_;
  WorkerShape shape_;  // Our copy: the worker may write where the other one lies.
  std::unique_ptr<concurrent::SpscQueue> out_;
  std::vector<std::unique_ptr<concurrent::SpscQueue>> work_;
};

}  // namespace tickwire::engine

#include "tickwire/engine/inference_agent.hpp"

#include <algorithm>
#include <utility>

#include "tickwire/core/time.hpp"
#include "tickwire/engine/work.hpp"

namespace tickwire::engine {

namespace {
// Rows taken from one ring before the next ring gets its turn.
constexpr std::size_t kRowsATurn = 64;
// A turn ends after this long, whatever waits: with a slow model the policy looks anew at what has come,
// and a stop is served.
constexpr std::int64_t kTurnNs = 10'000'000;
// For what waits when the engine stops: a model that is far behind would keep it from ending.
constexpr std::int64_t kDrainNs = 2'000'000'000;
}  // namespace

InferenceAgent::InferenceAgent(std::string name, ScoringStage::Setup scoring, signal::SignalPort& router,
                               std::size_t instrument_count, metrics::StatFile& stats, Arena& arena)
    : name_(std::move(name)),
      // A replay scores every row, whatever the live policy.
      policy_(scoring.replay ? QueuePolicy::Every : scoring.config.policy),
      queue_limit_(scoring.config.queue_limit),
      replay_(scoring.replay),
      input_floats_(scoring.model->info().rows * scoring.model->info().features),
      stages_(stats, name_),
      scoring_(std::move(scoring), router, stages_, stats.error_log(name_), stats, arena),
      newest_(arena.allocate<std::size_t>(instrument_count)),
      dropped_oldest_(stats.counter(name_, "unscored_dropped_oldest")),
      conflated_(stats.counter(name_, "unscored_conflated")),
      left_at_stop_(stats.counter(name_, "unscored_shutdown")) {}

void InferenceAgent::add_input(concurrent::SpscQueue& queue) {
  Input input{&queue, {}};
  for (std::size_t i = 0; i < queue.capacity(); ++i) {
    input.handles.push_back(scoring_.bind(work_input(queue.base() + i * queue.slot_bytes())));
  }
  inputs_.push_back(std::move(input));
}

int InferenceAgent::do_work() noexcept {
  scoring_.router().flush();
  int work = 0;
  for (Input& input : inputs_) work += drain(input);
  return work;
}

int InferenceAgent::drain(Input& input) noexcept {
  concurrent::SpscQueue& queue = *input.queue;
  const std::size_t waiting = queue.readable();
  if (waiting == 0) return 0;

  std::size_t taken = waiting;
  if (policy_ == QueuePolicy::Conflate) {
    for (std::size_t i = 0; i < taken; ++i) newest_[work_head(queue.slot(i)).header.instrument] = i;
  } else {
    taken = std::min(taken, kRowsATurn);
    // A replay never drops: it takes what the router's ring has room for.
    if (replay_) taken = std::min(taken, scoring_.router().room());
  }

  const std::uint64_t tsc_begin = tsc_now();
  for (std::size_t i = 0; i < taken; ++i) {
    if (i != 0 && tsc_to_ns(tsc_now() - tsc_begin) >= kTurnNs) return static_cast<int>(i);
    std::byte* slot = queue.slot(0);
    const signal::SignalHeader& header = work_head(slot).header;
    if (header.row == 0) [[unlikely]] {
      scoring_.router().notice(header);
    } else if (policy_ == QueuePolicy::DropOldest && waiting - i > queue_limit_) {
      dropped_oldest_.add(1);
    } else if (policy_ == QueuePolicy::Conflate && newest_[header.instrument] != i) {
      conflated_.add(1);
    } else {
      handle(input, slot);
    }
    queue.release(1);
  }
  return static_cast<int>(taken);
}

void InferenceAgent::handle(Input& input, std::byte* slot) noexcept {
  WorkHead& head = work_head(slot);
  const std::uint64_t tsc_popped = tsc_now();
  head.header.stage_ns[static_cast<std::size_t>(signal::Stage::Queue)] =
      tsc_to_ns(tsc_popped - head.tsc_pushed);
  const std::size_t index = static_cast<std::size_t>(slot - input.queue->base()) / input.queue->slot_bytes();
  scoring_.process(head.header, input.handles[index], {work_input(slot), input_floats_}, head.tsc_start,
                   tsc_popped);
}

void InferenceAgent::on_close() {
  // The ingest agents have stopped: what they left is scored before this thread ends, or counted.
  const std::uint64_t tsc_begin = tsc_now();
  while (replay_ || tsc_to_ns(tsc_now() - tsc_begin) < kDrainNs) {
    if (do_work() == 0) return;
  }
  for (Input& input : inputs_) {
    for (; input.queue->readable() != 0; input.queue->release(1)) {
      const signal::SignalHeader& header = work_head(input.queue->slot(0)).header;
      if (header.row == 0) {
        scoring_.router().notice(header);
      } else {
        left_at_stop_.add(1);
      }
    }
  }
}

void InferenceAgent::park(std::int64_t max_ns) noexcept {
  const auto has_work = [this] {
    return std::any_of(inputs_.begin(), inputs_.end(),
                       [](const Input& input) { return input.queue->readable() != 0; });
  };
  if (waker_.prepare_sleep(has_work)) waker_.wait(max_ns);
}

}  // namespace tickwire::engine

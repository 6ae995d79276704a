#include "tickwire/engine/score/inference_agent.hpp"

#include <algorithm>
#include <utility>

#include "tickwire/core/time.hpp"
#include "tickwire/engine/score/work.hpp"

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

InferenceCounters::InferenceCounters(metrics::StatFile& stats, std::string_view scope)
    : dropped_oldest(stats.counter(scope, "unscored_dropped_oldest")),
      conflated(stats.counter(scope, "unscored_conflated")),
      left_at_stop(stats.counter(scope, "unscored_shutdown")),
      notices(stats.counter(scope, "notices_passed")) {}

std::int64_t InferenceCounters::given_up() const noexcept {
  return dropped_oldest.value() + conflated.value() + left_at_stop.value();
}

InferenceAgent::InferenceAgent(std::string name, ScoringStage::Setup scoring, AgentPost post,
                               std::size_t instrument_count, metrics::StatFile& stats, Arena& arena)
    : name_(std::move(name)),
      // A replay scores every row, whatever the live policy.
      policy_(scoring.replay ? QueuePolicy::Every : scoring.config.policy),
      queue_limit_(scoring.config.queue_limit),
      replay_(scoring.replay),
      stages_(stats, name_),
      scoring_(std::move(scoring), stages_, stats.error_log(name_), stats, arena),
      post_(post),
      jobs_(arena.allocate<ScoringStage::Job>(scoring_.max_batch())),
      headers_(arena.allocate<signal::SignalHeader>(scoring_.max_batch())),
      newest_(arena.allocate<std::size_t>(instrument_count)),
      counters_(stats, name_) {}

int InferenceAgent::do_work() noexcept {
  scoring_.adopt();
  int work = 0;
  for (std::size_t ring = 0; ring < inputs_.size(); ++ring) work += drain(ring);
  if (work == 0) (void)scoring_.keep_warm();
  return work;
}

int InferenceAgent::drain(std::size_t ring) noexcept {
  concurrent::SpscQueue& queue = *inputs_[ring];
  const std::size_t waiting = queue.readable();
  if (waiting == 0 || interrupted()) return 0;
  post_.ring_in_hand.store(static_cast<std::uint32_t>(ring));
  concurrent::keep_order();

  std::size_t taken = waiting;
  if (policy_ == QueuePolicy::Conflate) {
    for (std::size_t i = 0; i < taken; ++i) newest_[work_head(queue.slot(i)).header.instrument] = i;
  } else {
    taken = std::min(taken, std::max(kRowsATurn, scoring_.max_batch()));
    // A replay never drops: it takes what the router's ring has room for.
    if (replay_ && scoring_.router() != nullptr) taken = std::min(taken, scoring_.router()->room());
  }

  // An entry is released only when all before it are done with, so that whoever takes over knows by
  // counting which are: a batch is scored before anything behind it is counted or passed on.
  const std::uint64_t tsc_begin = tsc_now();
  std::size_t done = 0;
  std::size_t batch_limit = 1;
  while (done < taken) {
    const std::uint64_t tsc = tsc_now();
    if (job_count_ == 0 && done != 0 && (tsc_to_ns(tsc - tsc_begin) >= kTurnNs || interrupted())) break;
    std::byte* slot = queue.slot(job_count_);
    const std::size_t at = done + job_count_;
    const signal::SignalHeader& header = work_head(slot).header;
    const bool notice = header.row == 0;
    const bool too_many = policy_ == QueuePolicy::DropOldest && waiting - at > queue_limit_;
    const bool outdated = policy_ == QueuePolicy::Conflate && newest_[header.instrument] != at;
    if (!notice && !too_many && !outdated) {
      if (job_count_ == 0) batch_limit = scoring_.batch_limit();
      add_job(slot, tsc);
      if (job_count_ == batch_limit || at + 1 == taken) done += score(queue);
      continue;
    }
    if (job_count_ != 0) done += score(queue);
    if (notice) {
      if (!pass_on(header)) break;
    } else {
      (too_many ? counters_.dropped_oldest : counters_.conflated).add(1);
    }
    concurrent::keep_order();
    queue.release(1);
    ++done;
  }
  return static_cast<int>(done);
}

void InferenceAgent::add_job(std::byte* slot, std::uint64_t tsc) noexcept {
  const WorkHead& head = work_head(slot);
  signal::SignalHeader& header = headers_[job_count_];
  header = head.header;
  header.stage_ns[static_cast<std::size_t>(signal::Stage::Queue)] = tsc_span_ns(head.tsc_pushed, tsc);
  jobs_[job_count_++] = {&header, {work_input(slot), scoring_.input_floats()}};
}

/// Runs the batch at hand and gives its slots back; how many they were.
std::size_t InferenceAgent::score(concurrent::SpscQueue& queue) noexcept {
  scoring_.process(jobs_.first(job_count_), tsc_now());
  queue.release(job_count_);
  return std::exchange(job_count_, 0);
}

/// False: the router's ring has no room for it now.
bool InferenceAgent::pass_on(const signal::SignalHeader& notice) noexcept {
  signal::SignalPort* const router = scoring_.router();
  if (router == nullptr) return true;
  signal::SignalHeader mine = notice;
  mine.model_id = scoring_.model_id();
  if (!router->try_notice(mine)) return false;
  concurrent::keep_order();
  counters_.notices.add(1);
  return true;
}

void InferenceAgent::on_close() {
  // The ingest agents have stopped: what they left is scored before this thread ends, or counted.
  const std::uint64_t tsc_begin = tsc_now();
  closing_ = !replay_;
  failed_before_ = scoring_.model_errors();
  while (replay_ || tsc_to_ns(tsc_now() - tsc_begin) < kDrainNs) {
    if (do_work() == 0) break;
  }
  settle();
}

void InferenceAgent::settle() noexcept {
  for (std::size_t ring = 0; ring < inputs_.size(); ++ring) {
    concurrent::SpscQueue& queue = *inputs_[ring];
    post_.ring_in_hand.store(static_cast<std::uint32_t>(ring));
    for (; queue.readable() != 0; queue.release(1)) {
      const signal::SignalHeader& header = work_head(queue.slot(0)).header;
      if (header.row != 0) {
        counters_.left_at_stop.add(1);
      } else if (!pass_on(header)) {
        return;
      }
      concurrent::keep_order();
    }
  }
}

void InferenceAgent::park(std::int64_t max_ns) noexcept {
  const auto has_work = [this] {
    return std::any_of(inputs_.begin(), inputs_.end(),
                       [](const concurrent::SpscQueue* queue) { return queue->readable() != 0; });
  };
  if (post_.waker.prepare_sleep(has_work)) post_.waker.wait(max_ns);
}

}  // namespace tickwire::engine

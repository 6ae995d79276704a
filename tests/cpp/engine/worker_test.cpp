/// What an engine finds in the memory it shared with a worker that died, at every instruction at which the
/// worker can die.

#include "tickwire/engine/worker/worker_channel.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "engine/configs.hpp"
#include "tickwire/core/error.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/engine/score/inference_agent.hpp"
#include "tickwire/engine/score/work.hpp"
#include "tickwire/engine/worker/worker_process.hpp"

namespace tickwire::engine {
namespace {

constexpr const char* kName = "infer0";

WorkerShape shape() {
  return {.score_count = 1,
          .feature_count = 2,
          .window_rows = 1,
          .max_batch = 2,
          .instrument_count = 3,
          .work_rings = 2,
          .queue_slots = 16,
          .output_slots = 8,  // Small: it fills, and rows are dropped.
          .queue_limit = 6,
          .max_age_ns = 0,
          .tsc_ns_per_tick = tsc_ns_per_tick(),
          .core = -1,
          .policy = static_cast<std::uint32_t>(QueuePolicy::DropOldest),
          .replay = 0,
          .idle = 0,
          .huge_pages = static_cast<std::uint32_t>(HugePages::Off),
          .lock = static_cast<std::uint32_t>(LockMemory::Off)};
}

/// Fails where the row says so, else says the sum of its cells.
class SumModel final : public infer::Model {
 public:
  SumModel() {
    info_.rows = 1;
    info_.features = 2;
    info_.score_names = {"sum"};
  }
  std::size_t warm_up(std::size_t, std::int64_t) override { return 0; }
  bool run_batch(std::size_t, std::size_t count, std::span<float> scores) noexcept override {
    for (std::size_t i = 0; i < count; ++i) {
      if (inputs_[2 * i] < 0) return false;
      scores[i] = inputs_[2 * i] + inputs_[2 * i + 1];
    }
    return true;
  }
  std::string_view last_error() const noexcept override { return "told to fail"; }

 protected:
  std::size_t add_binding(const float* inputs, std::span<float>) override {
    inputs_ = inputs;
    return 0;
  }

 private:
  const float* inputs_ = nullptr;
};

TEST(WorkerChannel, TheWorkerSeesWhatTheEngineMade) {
  WorkerChannel made("test", shape(), HugePages::Off, LockMemory::Off);
  WorkerChannel there(::dup(made.region().fd()));
  EXPECT_EQ(there.shape().queue_limit, 6U);
  EXPECT_EQ(there.work_rings(), 2U);
  std::byte* const slot = made.work(1).try_claim();
  ASSERT_NE(slot, nullptr);
  work_head(slot).header.row = 42;
  made.work(1).publish();
  EXPECT_EQ(there.work(0).readable(), 0U);
  ASSERT_EQ(there.work(1).readable(), 1U);
  EXPECT_EQ(work_head(there.work(1).slot(0)).header.row, 42U);
  there.seat(1).fail(std::string(5000, 'x'));
  EXPECT_EQ(made.seat(1).where(), WorkerPhase::Failed);
  EXPECT_EQ(made.seat(1).why().size(), WorkerSeat::kMaxText);
  EXPECT_EQ(made.seat(0).where(), WorkerPhase::Loading);
}

TEST(WorkerChannel, RefusesWhatAnEngineOfThisVersionDidNotMake) {
  const auto refusal = [](std::size_t offset, std::uint64_t value) -> std::string {
    WorkerChannel made("test", shape(), HugePages::Off, LockMemory::Off);
    std::memcpy(made.region().data() + offset, &value, sizeof value);
    try {
      const WorkerChannel there(::dup(made.region().fd()));
    } catch (const SetupError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(refusal(0, 1).find("other memory"), std::string::npos);
  EXPECT_NE(refusal(8, 77).find("another version"), std::string::npos);
  EXPECT_NE(refusal(24, 0).find("scores: expected a number from 1"), std::string::npos);
  EXPECT_NE(refusal(24 + 48, UINT64_MAX).find("slots of a ring of rows"), std::string::npos);
  EXPECT_NE(refusal(24 + 48, 1U << 20U).find("do not fit"), std::string::npos);
  WorkerShape nothing = shape();
  nothing.work_rings = 0;
  EXPECT_THROW(WorkerChannel("test", nothing, HugePages::Off, LockMemory::Off), SetupError);
}

using Key = std::tuple<InstrumentId, std::uint64_t>;

/// Rings with rows, notices, a failing row, a row without a whole window, and more than the router's ring
/// holds; an agent on them in a child process; and the engine's side.
class WorkerStock : public testing::Test {
 protected:
  void TearDown() override {
    if (stats_) stats_->remove();
  }

  void push(std::size_t ring, InstrumentId instrument, std::uint64_t row, float value, bool wanted = true) {
    concurrent::SpscQueue& queue = host_->channel().work(ring);
    std::byte* const slot = queue.try_claim();
    ASSERT_NE(slot, nullptr);
    WorkHead& head = work_head(slot);
    head.header = {};
    head.header.instrument = instrument;
    head.header.row = row;
    head.header.scored = wanted ? 1 : 0;
    head.header.state = row == 0 ? signal::SignalState::Suspect
                        : wanted ? signal::SignalState::Valid
                                 : signal::SignalState::Warming;
    head.tsc_pushed = tsc_now();
    work_input(slot)[0] = value;
    work_input(slot)[1] = 0.5F;
    queue.publish();
    if (row != 0) pushed_.insert({instrument, row});
  }

  /// The worker's life, short of the process: turns of the agent until nothing waits.
  void work() {
    const auto stats = metrics::StatFile::attach(stats_->path());
    WorkerChannel channel(::dup(host_->channel().region().fd()));
    Arena arena({.huge_pages = HugePages::Off, .lock = LockMemory::Off});
    concurrent::Waker waker;
    signal::SignalPort port(channel.out(), waker, 3, arena);
    ModelConfig config = test::model_config(kName, 7);
    config.max_batch = 2;
    config.queue_slots = 16;
    config.policy = QueuePolicy::DropOldest;
    config.queue_limit = 6;
    InferenceAgent agent(kName,
                         {.scope = kName,
                          .config = config,
                          .model = {std::make_unique<SumModel>(), 7},
                          .layout = {.score_count = 1, .feature_count = 2},
                          .replay = false,
                          .router = &port,
                          .scores = nullptr},
                         AgentPost{.waker = waker, .ring_in_hand = channel.ring_in_hand()}, 3, *stats, arena);
    agent.add_input(channel.work(0));
    agent.add_input(channel.work(1));
    ::raise(SIGSTOP);  // From here on the tests count instructions.
    // A turn ends after ten milliseconds, which are soon over step by step.
    while (channel.work(0).readable() + channel.work(1).readable() != 0) agent.do_work();
    ::raise(SIGSTOP);
  }

  void build() {
    const std::string path = metrics::default_stat_directory() + "/worker-test-" + std::to_string(::getpid());
    stats_ = metrics::StatFile::create(path, {.counters = 32, .histograms = 16, .error_logs = 4});
    host_ = std::make_unique<WorkerHost>(WorkerHost::Setup{.name = kName,
                                                           .model = 0,
                                                           .program = "",
                                                           .config = config_,
                                                           .stat_path = path,
                                                           .shape = shape(),
                                                           .huge_pages = HugePages::Off,
                                                           .lock = LockMemory::Off,
                                                           .router = router_,
                                                           .router_flag = flag_,
                                                           .spawner = spawner_,
                                                           .ingest_of = ingest_of_},
                                         nullptr, *stats_, arena_);
    stats_->publish();
    // The first ring has one too many for its limit and still fits the router's ring, its notice included;
    // the second has more than fits.
    for (std::uint64_t row = 1; row <= 5; ++row) push(0, 0, row, row == 5 ? -1.0F : 1.0F, row != 4);
    push(0, 0, 0, 0.0F);
    push(0, 0, 6, 2.0F);
    for (std::uint64_t row = 1; row <= 12; ++row) push(1, 1, row, 3.0F);
  }

  std::int64_t counter(const char* name) {
    for (const auto& reading : metrics::StatReader(stats_->path()).counters()) {
      if (reading.scope == kName && reading.name == name) return reading.value;
    }
    ADD_FAILURE() << "no counter " << name;
    return -1;
  }

  /// What holds after stock was taken, wherever the worker died.
  void check(std::size_t step) {
    WorkerChannel& channel = host_->channel();
    concurrent::SpscQueue& out = channel.out();
    // The records, each whole and none twice.
    std::set<Key> seen;
    std::int64_t notices = 0;
    std::int64_t scored = 0;
    std::int64_t window = 0;
    std::int64_t failed = 0;
    std::size_t of_batches = 0;
    for (std::size_t i = 0; i < out.readable(); ++i) {
      const signal::RecordLayout layout{.score_count = 1, .feature_count = 2};
      const signal::RecordView view(out.slot(i), layout);
      const signal::SignalHeader& header = view.header();
      ASSERT_EQ(header.model_id, 7U) << step;
      if (header.row == 0) {
        ++notices;
        continue;
      }
      ASSERT_TRUE(seen.insert({header.instrument, header.row}).second) << "twice, at step " << step;
      ASSERT_EQ(view.features()[1], 0.5F) << step;
      of_batches += header.scored == 2 ? 1 : 0;
      scored += header.state == signal::SignalState::Valid ? 1 : 0;
      window += header.state == signal::SignalState::Warming ? 1 : 0;
      failed += header.state == signal::SignalState::ModelError ? 1 : 0;
      if (header.state == signal::SignalState::Valid) {
        ASSERT_EQ(view.scores()[0], view.features()[0] + 0.5F) << step;
      }
    }
    ASSERT_EQ(of_batches % 2, 0U) << "half a batch, at step " << step;
    // What waits is what was neither published nor counted: rows of which no record is out.
    std::int64_t waiting = 0;
    for (std::size_t ring = 0; ring < 2; ++ring) {
      for (std::size_t i = 0; i < channel.work(ring).readable(); ++i) {
        const signal::SignalHeader& header = work_head(channel.work(ring).slot(i)).header;
        if (header.row == 0) continue;
        ++waiting;
        ASSERT_FALSE(seen.contains({header.instrument, header.row})) << "again, at step " << step;
      }
    }
    const std::int64_t answered =
        counter("scored") + counter("unscored_window") + counter("model_errors") + counter("nonfinite");
    const std::int64_t lost = counter("output_dropped") + counter("unscored_dropped_oldest");
    ASSERT_EQ(static_cast<std::int64_t>(seen.size()) + lost + waiting,
              static_cast<std::int64_t>(pushed_.size()))
        << step;
    ASSERT_EQ(answered - counter("output_dropped"), static_cast<std::int64_t>(seen.size())) << step;
    ASSERT_EQ(counter("notices_passed"), notices) << step;
    if (counter("output_dropped") == 0) {
      ASSERT_EQ(counter("scored"), scored) << step;
      ASSERT_EQ(counter("unscored_window"), window) << step;
      ASSERT_EQ(counter("model_errors"), failed) << step;
    }
  }

  concurrent::Waker router_;
  SharedRegion flag_{"flag", sizeof(concurrent::Waker::Flag), HugePages::Off, LockMemory::Off};
  std::vector<std::uint32_t> ingest_of_;
  Spawner spawner_;
  Arena arena_{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  ModelConfig config_ = test::model_config();
  std::unique_ptr<metrics::StatFile> stats_;
  std::unique_ptr<WorkerHost> host_;
  std::set<Key> pushed_;
};

/// The memory of both files as it was at one moment, put back afterwards.
class Snapshot {
 public:
  void add(std::byte* data, std::size_t bytes) { parts_.push_back({data, bytes, {}}); }
  bool changed() {
    bool any = parts_.front().copy.empty();
    for (Part& part : parts_) any = any || std::memcmp(part.data, part.copy.data(), part.bytes) != 0;
    return any;
  }
  void take() {
    for (Part& part : parts_) part.copy.assign(part.data, part.data + part.bytes);
  }
  void put_back() {
    for (Part& part : parts_) std::memcpy(part.data, part.copy.data(), part.bytes);
  }

 private:
  struct Part {
    std::byte* data;
    std::size_t bytes;
    std::vector<std::byte> copy;
  };
  std::vector<Part> parts_;
};

TEST_F(WorkerStock, AddsUpWhereverTheWorkerDies) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer's own instructions would be stepped through";
#endif
  build();
  const pid_t child = ::fork();
  if (child == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(2);
    work();
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  if (!WIFSTOPPED(status)) GTEST_SKIP() << "no ptrace here";

  // Both files are mapped: each time a step has changed them, stock is taken as if the worker had died
  // there, and then everything is as it was.
  Snapshot memory;
  const SharedRegion& region = host_->channel().region();
  memory.add(region.data(), region.bytes());
  const int file = ::open(stats_->path().c_str(), O_RDWR | O_CLOEXEC);
  const auto bytes = static_cast<std::size_t>(::lseek(file, 0, SEEK_END));
  void* const mapping = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  ASSERT_NE(mapping, MAP_FAILED);
  memory.add(static_cast<std::byte*>(mapping), bytes);
  std::size_t steps = 0;
  std::size_t states = 0;
  for (;; ++steps) {
    if (memory.changed()) {
      memory.take();
      ++states;
      ASSERT_EQ(host_->take_stock(), "") << "at step " << steps;
      check(steps);
      memory.put_back();
      if (HasFatalFailure()) break;
    }
    ::ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr);
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) break;
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::munmap(mapping, bytes);
  ::close(file);
  ASSERT_EQ(host_->take_stock(), "");
  check(steps);
  std::printf("%zu instructions, %zu states\n", steps, states);
  EXPECT_GT(states, 100U);
  EXPECT_GT(counter("scored"), 0);
  EXPECT_GT(counter("output_dropped"), 0);
  EXPECT_GT(counter("unscored_dropped_oldest"), 0);
  EXPECT_GT(counter("model_errors"), 0);
  EXPECT_EQ(counter("notices_passed"), 1);
}

/// An engine is stopped on a thread of its own, while the router's still takes records.
TEST_F(WorkerStock, OneThreadEndsTheWorkerWhileAnotherOneDistrustsIt) {
  build();
  concurrent::SpscQueue& out = host_->channel().out();
  std::atomic<bool> begun = false;
  std::thread stopping([&] {
    begun = true;
    for (int i = 0; i < 200; ++i) {
      host_->stop();
      host_->kill(false, false);
      (void)host_->reap(false);
      (void)host_->state(true);
      (void)host_->given_up();
      if (!host_->distrusted().empty()) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  while (!begun) std::this_thread::yield();
  std::vector<std::byte> into(4 * out.slot_bytes());
  EXPECT_EQ(host_->take_records(into), 0U);
  std::byte* const slot = out.try_claim();
  ASSERT_NE(slot, nullptr);
  reinterpret_cast<signal::SignalHeader*>(slot)->instrument = 99;
  out.publish();
  EXPECT_TRUE(host_->has_records());
  EXPECT_EQ(host_->take_records(into), 0U);
  EXPECT_FALSE(host_->has_records()) << "what it wrote goes with it";
  stopping.join();
  EXPECT_NE(host_->distrusted().find("instrument 99"), std::string::npos);
  EXPECT_EQ(counter("untrusted_records"), 1);
}

TEST_F(WorkerStock, SaysSoWhereTheNumbersCannotBe) {
  build();
  host_->channel().ring_in_hand().store(9);
  EXPECT_NE(host_->take_stock(), "");
  host_->channel().ring_in_hand().store(0);
  EXPECT_EQ(host_->take_stock(), "");
  host_->channel().work(0).release(100);
  EXPECT_NE(host_->take_stock().find("given back"), std::string::npos);
}

}  // namespace
}  // namespace tickwire::engine

/// tickwire-jitter: what this host takes from a thread that does nothing but read the clock.
///
///     tickwire-jitter [--cores LIST] [--seconds N] [--threshold-ns N] [--worst N] [--stat-file FILE]
///     [--json]
///
/// A thread spins on each core of LIST (2-3,8; default: all that this process may use but the lowest) and
/// notes every gap between two readings that is longer than the threshold (default: eight times the usual
/// distance, at least 200 ns). Ours is the time between; what a gap's cause costs us afterwards is not
/// counted.
///
/// Says for each core how many gaps there were, how long, which part of the time they took, and of the worst
/// ones when and by what, as far as this kernel counts it: context switches and faults of the thread exactly,
/// interrupts and stolen time of the tenth of a second around. The histogram of all gaps, cpuN/gap, is in a
/// statistics file, which `tickwire latency show` prints (default: jitter.stat where engines have theirs).
///
/// Ends with 0, with 1 when it could not measure, and with 2 for arguments that it does not understand.

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cinttypes>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <map>
#include <memory>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "tickwire/concurrent/affinity.hpp"
#include "tickwire/concurrent/agent.hpp"
#include "tickwire/concurrent/agent_runner.hpp"
#include "tickwire/concurrent/spsc_queue.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/error.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/metrics/stat_file.hpp"

namespace tickwire {
namespace {

constexpr std::string_view kUsage =
    "usage: tickwire-jitter [--cores LIST] [--seconds N] [--threshold-ns N] [--worst N] [--stat-file FILE] "
    "[--json]\n";

constexpr std::int64_t kMs = 1'000'000;
constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kSampleNs = 100 * kMs;
// Shorter gaps are a cache miss, a pipeline that was drained or the clock's own raggedness.
constexpr std::int64_t kLeastThresholdNs = 200;
// Gaps that may wait for the main thread; it comes ten times a second.
constexpr std::size_t kQueueSlots = 1 << 14;
// Only longer ones are looked at for a rhythm: the short ones would drown it.
constexpr std::int64_t kRhythmNs = 5'000;
constexpr std::size_t kMaxRhythm = 100'000;

volatile std::sig_atomic_t interrupted = 0;

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// One interruption of one thread, in ticks.
struct Gap {
  std::uint64_t begin;
  std::uint64_t ticks;
  std::int32_t switches;  // Involuntary: another task was given the core.
  std::int32_t faults;
};

/// Reads the clock on one core. The thread only adds up and hands on; the main thread looks for causes.
class SpinAgent final : public concurrent::Agent {
 public:
  SpinAgent(int core, std::int64_t threshold_ns, metrics::StatFile& stats, Arena& arena)
      : core_(core),
        name_("cpu" + std::to_string(core)),
        asked_threshold_ns_(threshold_ns),
        queue_(arena, sizeof(Gap), kQueueSlots),
        histogram_(stats.histogram(name_, "gap")),
        watched_ns_(stats.counter(name_, "watched_ns")),
        lost_ns_(stats.counter(name_, "lost_ns")),
        lost_to_tasks_ns_(stats.counter(name_, "lost_to_tasks_ns")),
        switches_(stats.counter(name_, "switches")),
        faults_(stats.counter(name_, "faults")),
        floor_ns_(stats.counter(name_, "floor_ns")),
        threshold_ns_(stats.counter(name_, "threshold_ns")),
        unexplained_(stats.counter(name_, "gaps_not_looked_at")) {}

  std::string_view name() const noexcept override { return name_; }

  void on_start() override {
    constexpr std::size_t kReads = 100'000;
    std::vector<std::uint64_t> distances(kReads);
    std::uint64_t last = tsc_now();
    for (std::uint64_t& distance : distances) {
      const std::uint64_t now = tsc_now();
      distance = now - last;
      last = now;
    }
    // The usual distance, not the least: two reads may stand within one nanosecond of each other.
    std::nth_element(distances.begin(), distances.begin() + kReads / 2, distances.end());
    const std::int64_t usual = tsc_to_ns(distances[kReads / 2]);
    const std::int64_t threshold =
        asked_threshold_ns_ > 0 ? asked_threshold_ns_ : std::max(8 * usual, kLeastThresholdNs);
    threshold_ = ns_to_tsc(threshold);
    floor_ns_.set(usual);
    threshold_ns_.set(threshold);
    read_usage();
    last_ = tsc_now();
  }

  int do_work() noexcept override {
    constexpr int kReadsATurn = 1 << 14;
    const std::uint64_t begin = last_;
    std::uint64_t handled = 0;
    for (int i = 0; i < kReadsATurn; ++i) {
      const std::uint64_t now = tsc_now();
      if (now - last_ >= threshold_) [[unlikely]] {
        on_gap(last_, now);
        last_ = tsc_now();
        handled += last_ - now;
      } else {
        last_ = now;
      }
    }
    watched_ns_.add(tsc_to_ns(last_ - begin - handled));
    return 1;
  }

  int core() const noexcept { return core_; }
  concurrent::SpscQueue& queue() noexcept { return queue_; }

 private:
  void on_gap(std::uint64_t begin, std::uint64_t end) noexcept {
    const std::int64_t ns = tsc_to_ns(end - begin);
    const auto [switches, faults] = read_usage();
    histogram_.record(ns);
    lost_ns_.add(ns);
    if (switches != 0) lost_to_tasks_ns_.add(ns);
    switches_.add(switches);
    faults_.add(faults);
    std::byte* const slot = queue_.try_claim();
    if (slot == nullptr) return unexplained_.add(1);
    ::new (slot) Gap{begin, end - begin, switches, faults};
    queue_.publish();
  }

  /// What the kernel has done to this thread since the last call. Half a microsecond, not counted.
  std::pair<std::int32_t, std::int32_t> read_usage() noexcept {
    rusage usage{};
    ::getrusage(RUSAGE_THREAD, &usage);
    const long faults = usage.ru_minflt + usage.ru_majflt;
    const std::pair<std::int32_t, std::int32_t> since{
        static_cast<std::int32_t>(usage.ru_nivcsw - last_switches_),
        static_cast<std::int32_t>(faults - last_faults_)};
    last_switches_ = usage.ru_nivcsw;
    last_faults_ = faults;
    return since;
  }

  int core_;
  std::string name_;
  std::int64_t asked_threshold_ns_;
  std::uint64_t threshold_ = 0;
  std::uint64_t last_ = 0;
  long last_switches_ = 0;
  long last_faults_ = 0;
  concurrent::SpscQueue queue_;
  metrics::Histogram& histogram_;
  metrics::Counter& watched_ns_;
  metrics::Counter& lost_ns_;
  metrics::Counter& lost_to_tasks_ns_;
  metrics::Counter& switches_;
  metrics::Counter& faults_;
  metrics::Counter& floor_ns_;
  metrics::Counter& threshold_ns_;
  metrics::Counter& unexplained_;
};

/// What the kernel has counted of one core up to one moment.
struct CoreCounts {
  std::map<std::string, std::uint64_t> interrupts;  // By name: LOC, RES, or a device's.
  std::uint64_t steal_ticks = 0;
};

struct Sample {
  std::uint64_t tsc = 0;
  std::map<int, CoreCounts> cores;
};

/// /proc/interrupts and the stolen time of /proc/stat. What cannot be read is empty.
Sample take_sample(const std::vector<int>& cores) {
  Sample sample;
  std::ifstream interrupts("/proc/interrupts");
  std::string line;
  std::vector<int> columns;
  if (std::getline(interrupts, line)) {
    std::istringstream heads(line);
    for (std::string head; heads >> head;) {
      int core = -1;  // Of a heading that is none: no core's.
      if (head.starts_with("CPU")) std::from_chars(head.data() + 3, head.data() + head.size(), core);
      columns.push_back(core);
    }
  }
  while (std::getline(interrupts, line)) {
    std::istringstream words(line);
    std::string row;
    words >> row;
    if (row.empty() || row.back() != ':') continue;
    row.pop_back();
    std::vector<std::uint64_t> counts(columns.size());
    bool whole = true;
    for (std::uint64_t& count : counts) whole = whole && static_cast<bool>(words >> count);
    if (!whole) continue;  // ERR and MIS have one count for all.
    std::string name = row;
    if (row.find_first_not_of("0123456789") == std::string::npos) {
      // A number says nothing: the device's name is the last word.
      for (std::string word; words >> word;) name = word;
    }
    for (std::size_t i = 0; i < columns.size(); ++i) {
      if (std::find(cores.begin(), cores.end(), columns[i]) != cores.end()) {
        sample.cores[columns[i]].interrupts[name] += counts[i];
      }
    }
  }
  std::ifstream stat("/proc/stat");
  while (std::getline(stat, line)) {
    int core = 0;
    std::uint64_t steal = 0;
    if (std::sscanf(line.c_str(), "cpu%d %*u %*u %*u %*u %*u %*u %*u %" SCNu64, &core, &steal) == 2 &&
        std::find(cores.begin(), cores.end(), core) != cores.end()) {
      sample.cores[core].steal_ticks = steal;
    }
  }
  sample.tsc = tsc_now();
  return sample;
}

struct WorstGap {
  TsNs ts = 0;
  double at_s = 0.0;
  std::int64_t ns = 0;
  std::string cause;
};

/// "LOC +25, eth0-rx-0 +3": what came to the core, the most frequent first.
std::string interrupts_between(const CoreCounts& before, const CoreCounts& now, bool tick) {
  std::vector<std::pair<std::uint64_t, std::string>> came;
  for (const auto& [name, count] : now.interrupts) {
    const auto earlier = before.interrupts.find(name);
    const std::uint64_t since = count - (earlier != before.interrupts.end() ? earlier->second : 0);
    if (since != 0 && (name == "LOC") == tick) came.emplace_back(since, name);
  }
  std::sort(came.rbegin(), came.rend());
  std::string text;
  for (std::size_t i = 0; i < std::min<std::size_t>(came.size(), 4); ++i) {
    text += (i != 0 ? ", " : "") + came[i].second + " +" + std::to_string(came[i].first);
  }
  return text;
}

/// The likeliest cause of a gap: what the kernel charges to the thread itself first, then what it counted on
/// the core in the tenth of a second around.
std::string cause_of(const Gap& gap, const CoreCounts& before, const CoreCounts& now) {
  if (gap.switches != 0)
    return "another task ran (" + std::to_string(gap.switches) + " involuntary switches)";
  if (gap.faults != 0) return "a page fault (" + std::to_string(gap.faults) + ")";
  const std::string devices = interrupts_between(before, now, false);
  const std::string tick = interrupts_between(before, now, true);
  if (now.steal_ticks > before.steal_ticks) return "the hypervisor ran somebody else (stolen time)";
  if (!devices.empty())
    return "perhaps an interrupt; around it: " + devices + (tick.empty() ? "" : ", " + tick);
  if (!tick.empty()) return "perhaps the timer tick; around it: " + tick;
  if (now.interrupts.empty()) return "unknown: /proc/interrupts cannot be read";
  return "nothing that this kernel counts: the hypervisor or the firmware";
}

/// What the main thread knows of one core.
class CoreLog {
 public:
  CoreLog(std::size_t worst, std::uint64_t begin_tsc)
      : worst_count_(worst), begin_(begin_tsc), quiet_from_(begin_tsc) {}

  void add(const Gap& gap, const CoreCounts& before, const CoreCounts& now, TsNs ts) {
    const std::int64_t ns = tsc_to_ns(gap.ticks);
    longest_quiet_ns_ = std::max(longest_quiet_ns_, tsc_to_ns(gap.begin - quiet_from_));
    quiet_from_ = gap.begin + gap.ticks;
    const std::int64_t at = tsc_to_ns(gap.begin - begin_);
    const auto second = static_cast<std::size_t>(at / kSecond);
    if (lost_a_second_.size() <= second) lost_a_second_.resize(second + 1);
    lost_a_second_[second] += ns;
    if (ns >= kRhythmNs && rhythm_.size() < kMaxRhythm) rhythm_.push_back(at);
    if (worst_.size() == worst_count_) {
      if (worst_.empty() || worst_.back().ns >= ns) return;
      worst_.pop_back();
    }
    WorstGap found{
        .ts = ts, .at_s = static_cast<double>(at) / 1e9, .ns = ns, .cause = cause_of(gap, before, now)};
    const auto place =
        std::upper_bound(worst_.begin(), worst_.end(), ns,
                         [](std::int64_t value, const WorstGap& other) { return value > other.ns; });
    worst_.insert(place, std::move(found));
  }

  void end(std::uint64_t tsc) {
    longest_quiet_ns_ = std::max(longest_quiet_ns_, tsc_to_ns(tsc - std::min(tsc, quiet_from_)));
  }

  const std::vector<WorstGap>& worst() const { return worst_; }
  std::int64_t longest_quiet_ns() const { return longest_quiet_ns_; }
  std::int64_t worst_second_ns() const {
    return lost_a_second_.empty() ? 0 : *std::max_element(lost_a_second_.begin(), lost_a_second_.end());
  }

  /// The period at which the longer gaps recur, 0 where they have none: the tick, a timer, the fair server.
  std::int64_t period_ns() const {
    constexpr std::size_t kLeast = 5;
    if (rhythm_.size() <= kLeast) return 0;
    std::vector<std::int64_t> distances;
    for (std::size_t i = 1; i < rhythm_.size(); ++i) distances.push_back(rhythm_[i] - rhythm_[i - 1]);
    const auto middle = distances.begin() + static_cast<std::ptrdiff_t>(distances.size() / 2);
    std::nth_element(distances.begin(), middle, distances.end());
    const std::int64_t period = *middle;
    const auto near = std::count_if(distances.begin(), distances.end(), [period](std::int64_t distance) {
      return std::abs(distance - period) <= period / 20;
    });
    return near * 4 >= static_cast<std::ptrdiff_t>(distances.size()) * 3 ? period : 0;
  }

 private:
  std::size_t worst_count_;
  std::uint64_t begin_;
  std::uint64_t quiet_from_;
  std::int64_t longest_quiet_ns_ = 0;
  std::vector<std::int64_t> lost_a_second_;
  std::vector<std::int64_t> rhythm_;
  std::vector<WorstGap> worst_;  // The longest first.
};

struct Arguments {
  std::vector<int> cores;
  double seconds = 5.0;
  std::int64_t threshold_ns = 0;  // 0: from the usual distance.
  std::size_t worst = 10;
  std::string stat_file;
  bool json = false;
};

template <typename T>
T number(std::string_view name, std::string_view text, T low, T high) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !(value >= low && value <= high)) {
    std::ostringstream expected;
    expected << name << ": expected a number from " << low << " to " << high << ", found " << text;
    throw UsageError(expected.str());
  }
  return value;
}

std::vector<int> core_list(std::string_view text) {
  std::vector<int> cores;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    const std::string_view part = text.substr(at, comma - at);
    const std::size_t dash = part.find('-');
    const int first = number("--cores", part.substr(0, dash), 0, 16383);
    const int last =
        dash == std::string_view::npos ? first : number("--cores", part.substr(dash + 1), first, 16383);
    for (int core = first; core <= last; ++core) cores.push_back(core);
    at = comma + 1;
  }
  std::sort(cores.begin(), cores.end());
  cores.erase(std::unique(cores.begin(), cores.end()), cores.end());
  return cores;
}

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--json") {
      arguments.json = true;
      continue;
    }
    if (!name.starts_with("--")) throw UsageError("expected an option, found " + std::string(name));
    if (i + 1 == argc) throw UsageError(std::string(name) + ": expected an option and its value");
    const std::string_view value = argv[++i];
    if (name == "--cores") {
      arguments.cores = core_list(value);
    } else if (name == "--seconds") {
      arguments.seconds = number(name, value, 0.1, 86400.0);
    } else if (name == "--threshold-ns") {
      arguments.threshold_ns = number<std::int64_t>(name, value, 1, kSecond);
    } else if (name == "--worst") {
      arguments.worst = number<std::size_t>(name, value, 0, 10'000);
    } else if (name == "--stat-file") {
      arguments.stat_file = value;
    } else {
      throw UsageError("unknown option " + std::string(name));
    }
  }
  const std::vector<int> allowed = concurrent::allowed_cores();
  if (arguments.cores.empty()) arguments.cores = allowed;
  if (arguments.cores.size() > 1 && arguments.cores == allowed)
    arguments.cores.erase(arguments.cores.begin());
  return arguments;
}

/// Takes the main thread off the cores that are measured; false where no other can be had.
bool step_aside(const std::vector<int>& cores) {
  cpu_set_t others;
  CPU_ZERO(&others);
  for (const int core : concurrent::allowed_cores()) {
    if (core < CPU_SETSIZE && std::find(cores.begin(), cores.end(), core) == cores.end())
      CPU_SET(core, &others);
  }
  return CPU_COUNT(&others) != 0 && ::sched_setaffinity(0, sizeof others, &others) == 0;
}

struct CoreResult {
  int core;
  std::map<std::string, std::int64_t> counters;
  metrics::HistogramSnapshot gaps;
  std::string interrupts;  // Over the whole time.
  std::uint64_t steal_ticks = 0;
};

double lost_share(const CoreResult& result) {
  const std::int64_t watched = result.counters.at("watched_ns");
  return watched > 0 ? static_cast<double>(result.counters.at("lost_ns")) / static_cast<double>(watched)
                     : 0.0;
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    // Names of devices are all that is not ours; anything below a blank has no place in one.
    out += static_cast<unsigned char>(c) < ' ' ? '?' : c;
  }
  return out + '"';
}

void print_json(const std::vector<CoreResult>& results, const std::vector<CoreLog>& logs, double seconds,
                bool aside, const std::string& stat_file) {
  std::printf("{\"version\": 1, \"seconds\": %.3f, \"stat_file\": %s, \"sampler_aside\": %s, \"cores\": [",
              seconds, quoted(stat_file).c_str(), aside ? "true" : "false");
  for (std::size_t i = 0; i < results.size(); ++i) {
    const CoreResult& result = results[i];
    std::printf("%s{\"core\": %d", i != 0 ? ", " : "", result.core);
    for (const auto& [name, value] : result.counters) std::printf(", \"%s\": %" PRId64, name.c_str(), value);
    std::printf(", \"gaps\": %" PRIu64 ", \"lost_share\": %.9f", result.gaps.count(), lost_share(result));
    for (const auto& [name, q] : {std::pair{"p50", 50.0}, {"p99", 99.0}, {"p999", 99.9}}) {
      std::printf(", \"%s_ns\": %" PRId64, name, result.gaps.percentile(q));
    }
    std::printf(", \"max_ns\": %" PRId64 ", \"longest_quiet_ns\": %" PRId64 ", \"worst_second_ns\": %" PRId64
                ", \"period_ns\": %" PRId64 ", \"steal_ticks\": %" PRIu64
                ", \"interrupts\": %s, \"worst\": [",
                result.gaps.max, logs[i].longest_quiet_ns(), logs[i].worst_second_ns(), logs[i].period_ns(),
                result.steal_ticks, quoted(result.interrupts).c_str());
    for (std::size_t j = 0; j < logs[i].worst().size(); ++j) {
      const WorstGap& gap = logs[i].worst()[j];
      std::printf("%s{\"ts\": %" PRId64 ", \"at_s\": %.6f, \"ns\": %" PRId64 ", \"cause\": %s}",
                  j != 0 ? ", " : "", gap.ts, gap.at_s, gap.ns, quoted(gap.cause).c_str());
    }
    std::printf("]}");
  }
  std::printf("]}\n");
}

void print_text(const std::vector<CoreResult>& results, const std::vector<CoreLog>& logs, double seconds,
                bool aside, const std::string& stat_file) {
  for (std::size_t i = 0; i < results.size(); ++i) {
    const CoreResult& result = results[i];
    const std::uint64_t count = result.gaps.count();
    std::printf("CPU %d: reading the clock takes %" PRId64 " ns; ", result.core,
                result.counters.at("floor_ns"));
    if (count == 0) {
      std::printf("no gap of %" PRId64 " ns or more in %.1f s\n", result.counters.at("threshold_ns"),
                  seconds);
      continue;
    }
    std::printf("%" PRIu64 " gaps of %" PRId64
                " ns or more, %.1f/s, p50 %.1f us, p99 %.1f us, max %.1f us; "
                "%.4f %% of the time lost, %.4f %% to other tasks\n",
                count, result.counters.at("threshold_ns"), static_cast<double>(count) / seconds,
                static_cast<double>(result.gaps.percentile(50)) / 1e3,
                static_cast<double>(result.gaps.percentile(99)) / 1e3,
                static_cast<double>(result.gaps.max) / 1e3, 100.0 * lost_share(result),
                100.0 * static_cast<double>(result.counters.at("lost_to_tasks_ns")) /
                    static_cast<double>(std::max<std::int64_t>(result.counters.at("watched_ns"), 1)));
    std::printf("  interrupts meanwhile: %s\n",
                result.interrupts.empty() ? "none" : result.interrupts.c_str());
    for (const WorstGap& gap : logs[i].worst()) {
      std::printf("  at %10.6f s  %10.1f us  %s\n", gap.at_s, static_cast<double>(gap.ns) / 1e3,
                  gap.cause.c_str());
    }
  }
  if (!aside) std::printf("no core was left to look for causes from: some of the gaps are ours\n");
  std::printf("all gaps: tickwire latency show %s\n", stat_file.c_str());
}

int run(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--help" || std::string_view(argv[i]) == "-h") {
      (void)std::fputs(kUsage.data(), stdout);
      return 0;
    }
  }
  const Arguments arguments = parse(argc, argv);
  const std::string path =
      arguments.stat_file.empty() ? metrics::default_stat_directory() + "/jitter.stat" : arguments.stat_file;
  const auto cores = static_cast<std::uint32_t>(arguments.cores.size());
  Arena arena;
  const auto stats =
      metrics::StatFile::create(path, {.counters = 9 * cores, .histograms = cores, .error_logs = 0});
  std::vector<std::unique_ptr<SpinAgent>> agents;
  std::vector<std::unique_ptr<concurrent::AgentRunner>> runners;
  for (const int core : arguments.cores) {
    agents.push_back(std::make_unique<SpinAgent>(core, arguments.threshold_ns, *stats, arena));
    runners.push_back(std::make_unique<concurrent::AgentRunner>(
        *agents.back(), concurrent::RunnerConfig{.thread_name = "tw-jitter" + std::to_string(core),
                                                 .core = core,
                                                 .idle = concurrent::IdleKind::Spin}));
  }
  stats->publish();
  arena.seal();
  struct sigaction action{};
  action.sa_handler = [](int) { interrupted = 1; };
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  for (auto& runner : runners) runner->start();
  const bool aside = step_aside(arguments.cores);

  UtcClock clock;
  const Sample first = take_sample(arguments.cores);
  std::vector<CoreLog> logs(arguments.cores.size(), CoreLog(arguments.worst, first.tsc));
  Sample before = first;
  Sample now = first;
  const std::uint64_t end = first.tsc + ns_to_tsc(static_cast<std::int64_t>(arguments.seconds * 1e9));
  for (bool last = false; !last;) {
    const std::int64_t left = end > tsc_now() ? tsc_to_ns(end - tsc_now()) : 0;
    std::this_thread::sleep_for(std::chrono::nanoseconds(std::min(left, kSampleNs)));
    last = interrupted != 0 || tsc_now() >= end;
    if (last) {
      for (auto& runner : runners) runner->stop();
      for (auto& runner : runners) runner->join();
    }
    clock.resync();
    now = take_sample(arguments.cores);
    stats->heartbeat(read_utc());
    for (std::size_t i = 0; i < agents.size(); ++i) {
      concurrent::SpscQueue& queue = agents[i]->queue();
      while (queue.readable() != 0) {
        Gap gap;
        std::memcpy(&gap, queue.slot(0), sizeof gap);
        if (gap.begin + gap.ticks > now.tsc) break;  // Its interrupts are in the next sample.
        if (gap.begin >= first.tsc) {
          logs[i].add(gap, before.cores[arguments.cores[i]], now.cores[arguments.cores[i]],
                      clock.at(gap.begin));
        }
        queue.release(1);
      }
    }
    before = now;
  }
  stats->end(read_utc());

  const double seconds = static_cast<double>(tsc_to_ns(now.tsc - first.tsc)) / 1e9;
  std::vector<CoreResult> results;
  const metrics::StatReader reader(path);
  for (std::size_t i = 0; i < agents.size(); ++i) {
    logs[i].end(now.tsc);
    const std::string scope(agents[i]->name());
    CoreResult result{.core = agents[i]->core(), .counters = {}, .gaps = {}, .interrupts = {}};
    for (const metrics::CounterReading& counter : reader.counters()) {
      if (counter.scope == scope) result.counters[counter.name] = counter.value;
    }
    for (const metrics::HistogramReading& histogram : reader.histograms()) {
      if (histogram.scope == scope) result.gaps = histogram.snapshot;
    }
    CoreCounts& from = before.cores[result.core];
    const auto begin = first.cores.find(result.core);
    if (begin != first.cores.end()) {
      const std::string tick = interrupts_between(begin->second, from, true);
      const std::string others = interrupts_between(begin->second, from, false);
      result.interrupts = tick + (tick.empty() || others.empty() ? "" : ", ") + others;
      result.steal_ticks = from.steal_ticks - begin->second.steal_ticks;
    }
    results.push_back(std::move(result));
  }
  (arguments.json ? print_json : print_text)(results, logs, seconds, aside, path);
  return 0;
}

}  // namespace
}  // namespace tickwire

int main(int argc, char** argv) {
  try {
    return tickwire::run(argc, argv);
  } catch (const tickwire::UsageError& error) {
    (void)std::fprintf(stderr, "tickwire-jitter: %s\n%s", error.what(), tickwire::kUsage.data());
    return 2;
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "tickwire-jitter: %s\n", error.what());
    return 1;
  }
}

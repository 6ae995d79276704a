#include "tickwire/infer/model_timer.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>

#include "tickwire/core/error.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/core/types.hpp"

namespace tickwire::infer {
namespace {

constexpr std::size_t kFloatsPerLine = kCacheLineBytes / sizeof(float);

std::size_t whole_lines(std::size_t floats) {
  return (floats + kFloatsPerLine - 1) / kFloatsPerLine * kFloatsPerLine;
}

/// The largest cache, as far as the system tells; a guest is told its host's.
std::size_t cache_bytes() {
  constexpr long kGuess = 32L << 20;
  constexpr long kMost = 256L << 20;
  return static_cast<std::size_t>(std::clamp(::sysconf(_SC_LEVEL3_CACHE_SIZE), kGuess, kMost));
}

}  // namespace

std::int64_t LoadClock::now() { return tsc_to_ns(tsc_now()); }

void LoadClock::spin_until(std::int64_t due) {
  while (now() < due) {
  }
}

void LoadClock::sleep_until(std::int64_t due) {
  std::this_thread::sleep_for(std::chrono::nanoseconds(due - now()));
}

ModelTimer::ModelTimer(Model& model) : ModelTimer(model, own_) {}

ModelTimer::ModelTimer(Model& model, LoadClock& clock) : model_(model), clock_(clock) {
  static_cast<void>(tsc_ns_per_tick());  // Calibrates.
  const ModelInfo& info = model.info();
  const std::size_t batch = whole_lines(info.max_batch * info.rows * info.features);
  input_.resize(kBatches * batch + kFloatsPerLine);
  std::uint64_t random = 0x9e3779b97f4a7c15;  // xorshift64: the same rows each time.
  for (float& value : input_) {
    random ^= random << 13U;
    random ^= random >> 7U;
    random ^= random << 17U;
    value = static_cast<float>(static_cast<std::int32_t>(random >> 32U)) * 0x1p-31F;
  }
  const auto misplaced = reinterpret_cast<std::uintptr_t>(input_.data()) % kCacheLineBytes;
  const float* first = input_.data() + (kCacheLineBytes - misplaced) % kCacheLineBytes / sizeof(float);
  for (std::size_t i = 0; i < kBatches; ++i) handles_.push_back(model.bind(first + i * batch));
  scores_.resize(info.max_batch * info.score_names.size());
}

void ModelTimer::walk_through_caches() {
  if (walked_.empty()) walked_.resize(2 * cache_bytes() / sizeof(std::uint64_t));
  // A write a line: the line comes in, and something else goes.
  for (std::size_t i = 0; i < walked_.size(); i += kCacheLineBytes / sizeof(std::uint64_t)) ++walked_[i];
}

std::vector<std::int64_t> ModelTimer::time(const Load& load) {
  if (load.rows == 0 || load.interval_ns <= 0) {
    throw SetupError("a load", "at least one row at a positive interval",
                     std::to_string(load.rows) + " rows each " + std::to_string(load.interval_ns) + " ns");
  }
  const std::size_t max_batch = model_.info().max_batch;
  const std::size_t score_count = model_.info().score_names.size();
  const auto arrivals = static_cast<std::size_t>(std::max<std::int64_t>(1, load.total_ns / load.interval_ns));
  std::vector<std::int64_t> times;
  times.reserve(arrivals * load.rows);
  if (load.cold) walk_through_caches();  // The first touch of its pages is the system's business.

  const std::int64_t begin = clock_.now();
  const auto now = [this, begin] { return clock_.now() - begin; };
  std::int64_t due = 0;
  std::size_t batch = 0;
  for (std::size_t i = 0; i < arrivals && (i == 0 || now() < load.total_ns); ++i) {
    due += load.interval_ns;
    if (load.cold) {
      walk_through_caches();
      due = std::max(due, now());
    }
    if (load.sleep) {
      clock_.sleep_until(begin + due);
      due = now();
    } else {
      clock_.spin_until(begin + due);
    }
    for (std::size_t done = 0; done < load.rows;) {
      const std::size_t count = std::min(max_batch, load.rows - done);
      if (!model_.run_batch(handles_[batch++ % kBatches], count, {scores_.data(), count * score_count})) {
        throw SetupError(model_.info().path, "every run to succeed", std::string(model_.last_error()));
      }
      times.insert(times.end(), count, now() - due);
      done += count;
    }
  }
  return times;
}

}  // namespace tickwire::infer

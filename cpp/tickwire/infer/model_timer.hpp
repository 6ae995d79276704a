#pragma once

/// Times a model's runs under a load: what `tickwire model bench` shows.
///
/// Rows arrive by a clock and not when the model is ready for them, and a row's time counts from its
/// arrival until its scores are there: a stall is charged to every row that it delayed. The calling
/// thread waits, runs and times; it allocates its memory before the first arrival.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tickwire/infer/model.hpp"

namespace tickwire::infer {

struct Load {
  std::size_t rows;          // That arrive at once; scored in batches of the model's largest.
  std::int64_t interval_ns;  // From one arrival to the next.
  std::int64_t total_ns;     // How long the load lasts.
  /// Wait asleep, as an idle thread does. The time then counts from the waking, because how late a sleeper
  /// wakes is the system's; else the thread spins, as the engine's own may.
  bool sleep;
  /// Walk through more memory than the caches hold before each arrival, so that the model comes from memory.
  /// An arrival waits for that.
  bool cold;
};

/// The time that a load goes by, in ns since some moment: the machine's own, unless a test has another.
class LoadClock {
 public:
  virtual ~LoadClock() = default;
  virtual std::int64_t now();
  virtual void spin_until(std::int64_t due);
  virtual void sleep_until(std::int64_t due);  // Wakes then, or later.
};

class ModelTimer {
 public:
  /// Setup: binds batches of made-up rows, several, so that a run does not find the last one's in place.
  /// The clock must outlive the timer.
  ModelTimer(Model& model, LoadClock& clock);
  explicit ModelTimer(Model& model);

  /// The time of each row, in ns, in order. Throws SetupError when a run fails.
  std::vector<std::int64_t> time(const Load& load);

 private:
  static constexpr std::size_t kBatches = 16;

  void walk_through_caches();

  Model& model_;
  LoadClock own_;
  LoadClock& clock_;
  std::vector<float> input_;
  std::vector<std::size_t> handles_;
  std::vector<float> scores_;
  std::vector<std::uint64_t> walked_;
};

}  // namespace tickwire::infer

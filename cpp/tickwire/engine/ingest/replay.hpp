#pragma once

/// Replays the inputs of an agent's feeds: reads them, and hands each entry to its feed in the order of the
/// receive times, so that what several feeds saw at once is merged as one process would have seen it. Of
/// entries of one time the feed that is configured first comes first.
///
/// Made by the ingest agent and used on its thread; facts() is anybody's once the agent has told that all is
/// over. It reads and decompresses files where a live feed receives.

#include <cstdint>
#include <memory>
#include <vector>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/engine/ingest/capture_facts.hpp"
#include "tickwire/engine/ingest/feed.hpp"
#include "tickwire/engine/ingest/row_outlet.hpp"

namespace tickwire::engine {

class Replay {
 public:
  explicit Replay(const RowOutlet& outlet) : outlet_(outlet) {}

  /// Set-up, in the order of the configuration. Throws SetupError where its input cannot be read.
  void add(Feed& feed) { inputs_.push_back(feed.open_input()); }

  /// The agent begins.
  void start();
  /// One turn: a bounded number of entries, and none while what they make has no room. Returns how many.
  int turn() noexcept TICKWIRE_HOT;
  /// All is read, and what was wrong with it is reported.
  [[nodiscard]] bool at_end() const noexcept TICKWIRE_HOT { return at_end_; }
  /// Brings the counters up to date.
  void count() noexcept;

  /// At the end: what no counter tells of the captures.
  [[nodiscard]] std::vector<CaptureFacts> facts() const;

 private:
  void end() noexcept;

  const RowOutlet& outlet_;
  std::vector<std::unique_ptr<ReplayInput>> inputs_;
  bool at_end_ = false;
};

}  // namespace tickwire::engine

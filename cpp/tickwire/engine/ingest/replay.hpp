#pragma once

/// Replays the captures of an agent's feeds: reads them, and hands each entry to its feed in the order of
/// the receive times, so that what several feeds saw at once is merged as one process would have seen it. Of
/// entries of one time the feed that is configured first comes first.
///
/// Before the first entry it finds out what a foreign capture does not say, which streams its messages are
/// of; while it reads, what no counter tells, so that whoever gets no rows is told why.
///
/// Made by the ingest agent and used on its thread; facts() is anybody's once the agent has told that all is
/// over. It reads and decompresses files where a live feed receives.

#include <cstdint>
#include <memory>
#include <vector>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/ingest/capture_facts.hpp"
#include "tickwire/engine/ingest/order_feed.hpp"
#include "tickwire/engine/ingest/price_feed.hpp"
#include "tickwire/engine/ingest/row_outlet.hpp"

namespace tickwire::engine {

class Replay {
 public:
  Replay(const RowOutlet& outlet, const FeaturesConfig& features);
  ~Replay();
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

  /// Set-up, in the order of the configuration. Throws SetupError where its capture cannot be read.
  void add(PriceFeed& feed);
  void add(OrderFeed& feed) { orders_.push_back(&feed); }

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
  class Input;

  void end() noexcept;

  const RowOutlet& outlet_;
  const bool windows_on_recv_;
  std::vector<std::unique_ptr<Input>> inputs_;
  std::vector<OrderFeed*> orders_;
  bool at_end_ = false;
};

}  // namespace tickwire::engine

#pragma once

/// A feed, as its ingest agent sees it: polled in turn, waited for, watched and stopped. What its messages
/// become is for the feeds of a kind to know (price_feed.hpp, order_feed.hpp).
///
/// Owned by one agent, on its thread, but for socket_report(), which is for the control plane before the
/// thread starts.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/ingest/capture_facts.hpp"
#include "tickwire/engine/ingest/row_outlet.hpp"
#include "tickwire/engine/ingest/snapshot_desk.hpp"
#include "tickwire/engine/record/recorder.hpp"
#include "tickwire/engine/stages.hpp"
#include "tickwire/metrics/error_log.hpp"

namespace tickwire::engine {

/// What a replay reads for a feed: entries, one after another, each with the time at which it was received.
class ReplayInput {
 public:
  virtual ~ReplayInput() = default;
  /// Reads the next entry, the first one at the start; behind the last, at_end().
  virtual void read() noexcept = 0;
  [[nodiscard]] virtual bool at_end() const noexcept TICKWIRE_HOT = 0;
  /// When the entry that was read was received.
  [[nodiscard]] virtual TsNs ts() const noexcept TICKWIRE_HOT = 0;
  /// Hands it to the feed. One row at most, and a notice for each instrument.
  virtual void process() noexcept TICKWIRE_HOT = 0;
  /// All is read: what was wrong with it is reported.
  virtual void end() noexcept = 0;
  /// Brings the counters up to date.
  virtual void count() noexcept {}
  /// What no counter tells of the input, at its end.
  virtual void tell(CaptureFacts& facts) const = 0;
};

/// What a feed is made with.
struct FeedSetup {
  RowOutlet& outlet;
  SnapshotDesk* desk;  // Null where no feed of the agent asks for snapshots.
  const EngineConfig& engine;
  const FeedConfig& config;
  std::uint32_t number;           // The engine's, of this feed.
  InstrumentId first_instrument;  // The engine's, of its first instrument.
  Recorder* recorder;             // Null: not recorded.
  const UtcClock& clock;
  StageHistograms& stages;
  metrics::ErrorLog& errors;
};

class Feed {
 public:
  virtual ~Feed() = default;

  // Live.

  /// In order: opens what it receives from, now or when what it begins with is read.
  virtual void start() noexcept = 0;
  /// One turn. Returns how much was done.
  virtual int poll() noexcept TICKWIRE_HOT = 0;
  /// For who sleeps: appends what wakes, and says for how long to sleep at most.
  [[nodiscard]] virtual std::int64_t wait_for(std::vector<int>& fds) const noexcept = 0;
  /// Descriptors that wait_for() may name.
  [[nodiscard]] virtual std::size_t sources() const noexcept = 0;
  /// A snapshot that was asked for, of an instrument by the engine's number; `limit` levels were asked for.
  virtual void snapshot_came(InstrumentId, std::span<const char> /*body*/, std::uint32_t /*limit*/) noexcept
      TICKWIRE_HOT {}
  /// Silence, data that grew old, and what went wrong; every hundred milliseconds or so.
  virtual void watch(TsNs now) noexcept = 0;
  /// In order; over once stopped(), which poll() leads to.
  virtual void stop() noexcept = 0;
  [[nodiscard]] virtual bool stopped() const noexcept = 0;
  /// At the end of all input: what is still awaited does not come any more.
  virtual void tell_all_missing() noexcept {}
  /// What its sockets have to say. Makes system calls.
  [[nodiscard]] virtual std::vector<std::string> socket_report() const { return {}; }

  // Replay.

  /// Set-up: what is read for it. Throws SetupError where that cannot be read.
  [[nodiscard]] virtual std::unique_ptr<ReplayInput> open_input() = 0;

  // Either.

  /// Brings the counters up to date.
  virtual void count(TsNs now) noexcept = 0;
  /// Does it have this instrument, by the engine's number?
  [[nodiscard]] virtual bool has(InstrumentId instrument) const noexcept TICKWIRE_HOT = 0;
};

}  // namespace tickwire::engine

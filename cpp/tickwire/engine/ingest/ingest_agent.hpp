#pragma once

/// The thread of feeds: polls them in turn, hands snapshots on to them, and sleeps when there is nothing to
/// do. What a message becomes is the feeds' to know (price_feed.hpp, order_feed.hpp), where rows go the
/// outlet's (row_outlet.hpp). Live there is one agent a feed; a replay has one for all feeds, so that their
/// captures merge in one order.
///
/// Its only ways to the outside are rings: rows out, snapshot requests out, snapshots in, and taps to
/// the recorder. It never waits for any of them, but in a replay, where it stops reading while a ring
/// has no room.
///
/// The control plane makes it and calls what is said to be its side; the rest is its own thread's.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/concurrent/agent.hpp"
#include "tickwire/concurrent/cell.hpp"
#include "tickwire/concurrent/waker.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/ingest/capture_facts.hpp"
#include "tickwire/engine/ingest/feed.hpp"
#include "tickwire/engine/ingest/replay.hpp"
#include "tickwire/engine/ingest/row_outlet.hpp"
#include "tickwire/engine/ingest/snapshot_desk.hpp"
#include "tickwire/engine/ingest/warm_start.hpp"
#include "tickwire/engine/record/recorder.hpp"
#include "tickwire/engine/stages.hpp"
#include "tickwire/metrics/stat_file.hpp"
#include "tickwire/signal/signal.hpp"

namespace tickwire::engine {

class IngestAgent final : public concurrent::Agent {
 public:
  struct Setup {
    std::string name;
    bool replay;
    const EngineConfig& config;
    std::uint32_t first_feed;  // The engine's number of the first of `feeds`.
    std::span<const FeedConfig> feeds;
    InstrumentId first_instrument;  // The engine's id of the first feed's first instrument.
    signal::RecordLayout layout;
    Recorder* recorder;            // Null: not recorded.
    concurrent::Waker& control;    // Wakes the control plane for snapshot requests.
    metrics::StatFile* heartbeat;  // Given to one agent of the engine.
  };

  IngestAgent(Setup setup, metrics::StatFile& stats, Arena& arena);
  ~IngestAgent() override;

  /// Set-up: where rows go.
  [[nodiscard]] RowOutlet& outlet() noexcept { return outlet_; }

  /// Whom snapshots are asked from: the control plane's side of the rings. Null where no feed has any to ask
  /// for: in a replay, and of feeds by order.
  [[nodiscard]] SnapshotDesk* desk() noexcept { return desk_ ? &*desk_ : nullptr; }

  /// What the sockets of multicast lines have to say, for the start-up report.
  [[nodiscard]] std::vector<std::string> socket_report() const;

  /// What a warm start came to, a line for each instrument; none before its feed is live.
  [[nodiscard]] std::vector<std::string> warm_report() const;

  /// Replay: what no counter tells of the captures, once all is finished(); by feed.
  [[nodiscard]] std::vector<CaptureFacts> capture_facts() const;

  /// Replay: every input has been read and every row handed on.
  [[nodiscard]] bool finished() const noexcept { return finished_.observe(); }

  [[nodiscard]] std::string_view name() const noexcept override { return name_; }
  void on_start() override;
  int do_work() noexcept TICKWIRE_HOT override;
  void on_close() override;
  void park(std::int64_t max_ns) noexcept override;
  void every_100ms() noexcept override;

 private:
  void add(const FeedSetup& setup, metrics::StatFile& stats, Arena& arena);
  int take_snapshots() noexcept TICKWIRE_HOT;

  const std::string name_;
  metrics::StatFile* const heartbeat_;
  UtcClock utc_;
  StageHistograms stages_;
  metrics::ErrorLog& errors_;
  RowOutlet outlet_;
  concurrent::Waker waker_;
  std::optional<SnapshotDesk> desk_;
  std::vector<std::unique_ptr<Feed>> feeds_;
  std::vector<std::unique_ptr<WarmStart>> warm_starts_;
  std::optional<Replay> replay_;
  std::vector<int> park_fds_;
  concurrent::Cell<bool> finished_;
};

}  // namespace tickwire::engine

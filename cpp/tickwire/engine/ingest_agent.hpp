#pragma once

/// From bytes to rows: polls the sources of its feeds, decodes, keeps the books, computes features
/// and hands each row on, to an inference agent, to its own model (inline layout), or to the router
/// where no model is configured. Live there is one agent a feed; a replay has one for all feeds, so
/// that their captures merge in one order.
///
/// With a warm capture a live feed begins as a replay of it, muted: books and windows fill, nothing leaves.
/// Then it connects, and goes on where the capture and the connection meet (see warm_join.hpp). What the
/// recorder gets is one capture, the part that was read from another one between a `warm` and a `live` line,
/// so that a replay of the recording mutes the same part and needs to know nothing else.
///
/// Its only ways to the outside are rings: rows out, snapshot requests out, snapshots in, and taps to
/// the recorder. It never waits for any of them, but in a replay, where it stops reading while a ring
/// has no room.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/concurrent/agent.hpp"
#include "tickwire/concurrent/cell.hpp"
#include "tickwire/concurrent/spsc_byte_ring.hpp"
#include "tickwire/concurrent/spsc_queue.hpp"
#include "tickwire/concurrent/waker.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/engine/capture_facts.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/error_kinds.hpp"
#include "tickwire/engine/feed_line.hpp"
#include "tickwire/engine/instrument_pipeline.hpp"
#include "tickwire/engine/order_feed.hpp"
#include "tickwire/engine/recorder.hpp"
#include "tickwire/engine/row_outlet.hpp"
#include "tickwire/engine/scoring_stage.hpp"
#include "tickwire/engine/stages.hpp"
#include "tickwire/feed/venue/binance/decoder.hpp"
#include "tickwire/infer/model.hpp"
#include "tickwire/md/capture.hpp"
#include "tickwire/md/instrument.hpp"
#include "tickwire/metrics/stat_file.hpp"
#include "tickwire/signal/port.hpp"

namespace tickwire::engine {

/// Asks the control plane to fetch a REST snapshot.
struct SnapshotRequest {
  std::uint32_t feed;
  InstrumentId instrument;
  std::uint32_t attempt;  // 1, 2, 3 … since the book was last valid.
};

/// What a message from the control plane begins with; the snapshot's body follows, or why there is none.
struct Command {
  enum class Kind : std::uint32_t { Snapshot, SnapshotFailed };
  Kind kind;
  InstrumentId instrument;
  /// SnapshotFailed: the venue has said that it is to be left alone for so long; 0 where it has not.
  std::int64_t pause_ns = 0;
};

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

  /// Control plane's side of the rings.
  [[nodiscard]] concurrent::SpscQueue& requests() noexcept { return requests_; }
  [[nodiscard]] bool deliver(const Command& command, std::string_view body) noexcept;
  [[nodiscard]] std::size_t max_body_bytes() const noexcept {
    return commands_.max_record_bytes() - sizeof(Command);
  }

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
  struct Lane;
  struct Feed;
  class Place;

  void learn_streams(Feed& feed);
  int replay_turn() noexcept TICKWIRE_HOT;
  void end_replay() noexcept;
  [[nodiscard]] bool is_bare_partial(Feed& feed, const md::CaptureLine& line) noexcept TICKWIRE_HOT;
  void refuse_partial(Feed& feed, const Lane& lane, TsNs ts) noexcept TICKWIRE_HOT;
  void report_capture(Feed& feed) noexcept;
  void note_lost(Feed& feed, Lane& lane, md::InvalidReason reason, TsNs ts) noexcept TICKWIRE_HOT;
  void on_line(Feed& feed, const md::CaptureLine& line) noexcept TICKWIRE_HOT;
  void on_cold(Feed& feed, Lane& lane, TsNs ts) noexcept TICKWIRE_HOT;
  void on_live(Feed& feed, TsNs ts) noexcept TICKWIRE_HOT;

  void note_captured(Feed& feed, const md::Event& event) noexcept TICKWIRE_HOT;
  int warm_turn(Feed& feed) noexcept;
  int read_warm(Feed& feed) noexcept;
  [[nodiscard]] bool decide_warm(Feed& feed) noexcept;
  [[nodiscard]] std::int64_t ahead_of(const Lane& lane, TsNs now) const noexcept;
  int hand_on_warm(Feed& feed, bool all) noexcept;
  void end_warm(Feed& feed) noexcept;
  [[nodiscard]] std::string warm_verdict(const Feed& feed, std::size_t local) const;
  int take_commands() noexcept TICKWIRE_HOT;
  void watch(Feed& feed, TsNs now) noexcept;
  void watch_data(Feed& feed) noexcept;
  [[nodiscard]] static bool is_stale(const Feed& feed, const Lane& lane, TsNs now) noexcept TICKWIRE_HOT;
  void on_stale(Feed& feed, Lane& lane, const Arrival& arrival) noexcept TICKWIRE_HOT;

  void on_message(Feed& feed, std::uint32_t conn, std::span<const char> message, RecvClock clock,
                  TsNs ts_recv, std::int64_t unseen_ns = 0) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool on_stamps(Feed& feed, TsNs ts_recv, TsNs ts_event, const Arrival& arrival) noexcept
      TICKWIRE_HOT;
  void trust(Feed& feed) noexcept TICKWIRE_HOT;
  void on_book(Feed& feed, Lane& lane, const md::Event& event, const Arrival& arrival) noexcept TICKWIRE_HOT;
  void merge(Feed& feed, Lane& lane, const Arrival& arrival) noexcept TICKWIRE_HOT;
  void count_refused(Feed& feed, const Lane& lane, const Step& step, TsNs ts_recv) noexcept TICKWIRE_HOT;
  void on_snapshot(Feed& feed, InstrumentId local, std::span<const char> body, std::uint32_t limit,
                   RecvClock clock, TsNs ts_recv) noexcept TICKWIRE_HOT;
  void on_open(Feed& feed, std::uint32_t conn, TsNs ts) noexcept TICKWIRE_HOT;
  void on_close(Feed& feed, std::uint32_t conn, TsNs ts) noexcept TICKWIRE_HOT;
  void note_trade_ids(Feed& feed, Lane& lane, const md::Event& event) noexcept TICKWIRE_HOT;
  void end_at_holes(Feed& feed, Lane& lane, const Arrival& arrival) noexcept TICKWIRE_HOT;
  void tell_missing(Feed& feed, Lane& lane, TsNs now) noexcept TICKWIRE_HOT;
  void tell_all_missing() noexcept;
  void on_quote(Feed& feed, Lane& lane, const md::Event& event) noexcept TICKWIRE_HOT;
  void report_refused(const Feed& feed, ErrorKind kind, feed::binance::Outcome outcome, InstrumentId local,
                      std::span<const char> message, TsNs ts) noexcept TICKWIRE_HOT;
  void refuse(Feed& feed, std::uint32_t conn, std::span<const char> message, feed::binance::Outcome outcome,
              const md::Event& event, const Arrival& arrival) noexcept TICKWIRE_HOT;

  void finish(Feed& feed, Lane& lane, const Step& step, const md::Event& event,
              const Arrival& arrival) noexcept TICKWIRE_HOT;
  [[nodiscard]] RowOutlet::Of of(const Lane& lane, std::uint64_t row, TsNs ts_event) const noexcept
      TICKWIRE_HOT;
  void emit_notice(Feed& feed, Lane& lane, md::InvalidReason reason, TsNs ts_event,
                   const Arrival& arrival) noexcept TICKWIRE_HOT;

  [[nodiscard]] const std::string& symbol_of(const Feed& feed, const Lane& lane) const noexcept TICKWIRE_HOT;
  void request_snapshot(Feed& feed, Lane& lane) noexcept TICKWIRE_HOT;
  void snapshot_refused(Feed& feed, Lane& lane) noexcept TICKWIRE_HOT;
  void snapshot_held_back(const Feed& feed, Lane& lane, std::int64_t pause_ns) noexcept;

  const std::string name_;
  const bool replay_;
  const bool windows_on_recv_;
  const bool needs_trades_;
  concurrent::Waker& control_;
  metrics::StatFile* const heartbeat_;
  UtcClock utc_;
  std::vector<std::unique_ptr<Feed>> feeds_;
  std::vector<std::unique_ptr<OrderFeed>> order_feeds_;
  std::vector<std::unique_ptr<Lane>> lanes_;  // Of feeds_.
  InstrumentId first_instrument_;
  concurrent::SpscQueue requests_;
  concurrent::SpscByteRing commands_;
  concurrent::Waker command_waker_;
  std::span<char> command_body_;  // A snapshot's body with the padding its decoder wants.
  std::vector<int> park_fds_;
  StageHistograms stages_;
  concurrent::Cell<bool> finished_;
  bool stopping_ = false;
  metrics::ErrorLog& errors_;
  RowOutlet outlet_;
};

}  // namespace tickwire::engine

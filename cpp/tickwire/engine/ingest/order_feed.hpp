#pragma once

/// One feed by order: where its messages come from, the market that they build, and its instruments.
///
/// Live, a MoldFeed brings the stream whole and in order, or says what it could not have; from files a
/// ReplaySource says the same things one at a time. Both end in the same few functions below, so what is
/// recorded here is replayed to the same bits: messages, a session's begin, what was lost, a snapshot, and
/// the silence of all lines, each with the time that it was noticed at.
///
/// - Lost messages make every book suspect. A snapshot rebuilds them all, and each begins a new epoch.
/// - While a snapshot comes, nothing leaves. Its messages are no events: no row, no sample.
/// - A message that does not fit the orders before it makes its books suspect. Where there is a snapshot
///   server it is asked, which ends the epochs of all books, since one snapshot is of them all; else they
///   stay suspect until the next session or start of day.
/// - Where no line brings a byte for liveness_timeout_ns, heartbeats included, no book is valid until one
///   does.
///
/// Owned by one ingest agent, on its thread.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/ingest/capture_facts.hpp"
#include "tickwire/engine/ingest/feed.hpp"
#include "tickwire/engine/ingest/lane_counters.hpp"
#include "tickwire/engine/ingest/order_counters.hpp"
#include "tickwire/engine/ingest/order_pipeline.hpp"
#include "tickwire/engine/ingest/row_outlet.hpp"
#include "tickwire/engine/ingest/stamp_watch.hpp"
#include "tickwire/engine/record/recorder.hpp"
#include "tickwire/engine/stages.hpp"
#include "tickwire/md/instrument.hpp"
#include "tickwire/metrics/stat_file.hpp"
#include "tickwire/net/moldudp64/mold_feed.hpp"
#include "tickwire/venue/itch/market.hpp"
#include "tickwire/venue/itch/replay_source.hpp"
#include "tickwire/venue/itch/session_day.hpp"

namespace tickwire::engine {

/// One instrument of the feed.
struct OrderLane {
  OrderLane(InstrumentId id_, const FeedConfig& feed, const InstrumentConfig& instrument,
            const venue::itch::Market& market, InstrumentId local, const FeaturesConfig& features,
            metrics::StatFile& stats, Arena& arena);

  const InstrumentId id;
  OrderPipeline pipeline;
  LaneCounters counters;
  md::InvalidReason lost_reason = md::InvalidReason::None;  // Why it left valid last …
  TsNs lost_ts = 0;                                         // … and when.
  const std::string* lost_file = nullptr;                   // Replay: in which input; the source's own …
  std::uint64_t lost_message = 0;                           // … and at which message; 0: at none.
  bool traded = false;                                      // A trade of it came.
};

class OrderFeed final : public Feed, private net::MoldFeedHandler {
 public:
  /// Set-up: joins the lines, or opens the files. Throws SetupError.
  OrderFeed(const FeedSetup& setup, metrics::StatFile& stats, Arena& arena);
  OrderFeed(const OrderFeed&) = delete;
  OrderFeed& operator=(const OrderFeed&) = delete;

  // Live.

  /// Its lines are joined when it is made.
  void start() noexcept override {}
  int poll() noexcept TICKWIRE_HOT override {
    return stopped_ ? 0 : mold_->poll(clock_, tsc_to_ns(tsc_now()));
  }
  [[nodiscard]] std::int64_t wait_for(std::vector<int>& fds) const noexcept override {
    return std::max<std::int64_t>(0, mold_->wait_for(fds) - tsc_to_ns(tsc_now()));
  }
  [[nodiscard]] std::size_t sources() const noexcept override { return mold_ ? mold_->lines() + 1 : 0; }
  void watch(TsNs now) noexcept override;
  /// At once: valid books end, and nothing is read any more.
  void stop() noexcept override;
  [[nodiscard]] bool stopped() const noexcept override { return stopped_; }
  [[nodiscard]] std::vector<std::string> socket_report() const override;

  // Replay.

  [[nodiscard]] std::unique_ptr<ReplayInput> open_input() override;

  void count(TsNs now) noexcept override;
  [[nodiscard]] bool has(InstrumentId instrument) const noexcept TICKWIRE_HOT override {
    return instrument - first_instrument_ < lanes_.size();
  }

 private:
  class Input;

  void connect(const FeedSetup& setup, metrics::StatFile& stats, Arena& arena);
  [[nodiscard]] bool is_silent(std::size_t line) const noexcept TICKWIRE_HOT;
  [[nodiscard]] bool any_heard() const noexcept TICKWIRE_HOT;

  // Of a replay.
  void tell(CaptureFacts& facts) const;
  /// It has left valid with what is processed, for `reason`.
  void note_lost(OrderLane& lane, md::InvalidReason reason, TsNs ts) const noexcept TICKWIRE_HOT;

  // MoldFeedHandler.
  void on_run(const net::Run& run) noexcept override;
  void on_session(const net::SessionId& session) noexcept override;
  void on_end_of_session() noexcept override {}
  void on_lost(std::uint64_t first, std::uint64_t count) noexcept override;
  void on_snapshot_begin() noexcept override;
  void on_snapshot_message(net::MessageView message) noexcept override;
  bool takes_snapshot() noexcept override { return tap_ == nullptr || tap_->has_room(); }
  void on_snapshot_end(std::uint64_t next) noexcept override;
  void on_snapshot_failed(std::string_view reason) noexcept override;

  // What live and replay have in common, and a replay's own way to it.
  template <typename To>
  friend void venue::itch::play(const venue::itch::ReplayItem& item, To& to) noexcept TICKWIRE_HOT;
  void message(std::uint64_t sequence, std::span<const std::byte> bytes, TsNs ts) noexcept TICKWIRE_HOT {
    message(sequence, bytes, {tsc_now(), 0, ts, RecvClock::Recorded});
  }
  void message(std::uint64_t sequence, std::span<const std::byte> bytes, Arrival arrival) noexcept
      TICKWIRE_HOT;
  void doubt_clock(const StampWatch::Leaps& leaps, TsNs ts) noexcept TICKWIRE_HOT;
  void begin_session(TsNs ts) noexcept TICKWIRE_HOT;
  void lose(std::uint64_t first, std::uint64_t count, TsNs ts) noexcept TICKWIRE_HOT;
  void begin_snapshot(TsNs ts) noexcept;
  void snapshot_message(std::span<const std::byte> bytes, TsNs ts) noexcept;
  void end_snapshot(TsNs ts) noexcept;
  void fail_snapshot(TsNs ts) noexcept;
  void close(TsNs ts) noexcept TICKWIRE_HOT;
  void open(TsNs ts) noexcept TICKWIRE_HOT;

  template <typename Change>
  void on_every_lane(TsNs ts_event, const Arrival& arrival, Change change) noexcept TICKWIRE_HOT;
  template <typename Change>
  void on_every_lane(TsNs ts, Change change) noexcept TICKWIRE_HOT;
  void finish(OrderLane& lane, const Step& step, TsNs ts_event, const Arrival& arrival) noexcept TICKWIRE_HOT;
  void witness(std::span<const std::byte> bytes) noexcept TICKWIRE_HOT;
  void refused(venue::itch::Outcome outcome, TsNs ts) noexcept TICKWIRE_HOT;
  void misfit(const venue::itch::Update& update, std::uint64_t sequence, TsNs ts) noexcept TICKWIRE_HOT;
  void note(TsNs ts, const md::StreamNote& note) noexcept TICKWIRE_HOT;
  [[nodiscard]] static std::string place_of(const OrderLane& lane);
  void report_refused(const net::Sequencer& sequencer) noexcept;
  void count_line(std::size_t number, const net::LineStats& line) noexcept;

  RowOutlet& outlet_;
  const FeedConfig config_;
  const InstrumentId first_instrument_;
  const md::InstrumentTable table_;
  const UtcClock& clock_;
  StageHistograms& stages_;
  metrics::ErrorLog& errors_;
  venue::itch::Market market_;
  venue::itch::SessionDay day_;
  std::vector<std::unique_ptr<OrderLane>> lanes_;

  std::optional<net::MoldFeed> mold_;  // Live.
  StreamTap* tap_ = nullptr;
  net::SessionId session_{};
  std::uint64_t started_tsc_ = 0;
  CaptureWitness witness_;  // Of a replay.
  bool closed_ = false;     // No line is heard.
  bool stopped_ = false;
  bool in_snapshot_ = false;
  bool clock_doubted_ = false;  // The last message's stamps are not to be gone by.
  StampWatch stamps_;           // Of the messages of this session that are ours.
  const bool windows_on_recv_;
  std::uint64_t sessions_refused_ = 0;  // As last told.
  std::uint64_t numbers_refused_ = 0;
  std::vector<LineCounters> lines_;  // The re-request server is the last of a live feed.

  std::unique_ptr<venue::itch::ReplaySource> files_;  // Replay.
  venue::itch::ReplayItem item_{};
  OrderCounters counters_;
};

}  // namespace tickwire::engine

#pragma once

/// One feed by price: its connections, its instruments, and how a message of theirs becomes rows.
///
/// Live, the connections bring messages and the snapshot desk snapshots. A capture brings both, and what
/// else was noticed when it was recorded, through play(). Either ends in the same few functions, so what is
/// recorded here is replayed to the same bits.
///
/// Two may stand beside it while they have work, and the feed knows neither: who reads a capture into it
/// listens to what it finds there (CaptureListener), and who joins a capture with the connections takes what
/// they bring first (LineDiversion). A live feed past its start has neither, and pays one comparison each.
///
/// Owned by one ingest agent, on its thread.

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/engine/config.hpp"
#include "tickwire/engine/error_kinds.hpp"
#include "tickwire/engine/ingest/feed.hpp"
#include "tickwire/engine/ingest/feed_line.hpp"
#include "tickwire/engine/ingest/price_counters.hpp"
#include "tickwire/engine/ingest/price_lane.hpp"
#include "tickwire/engine/ingest/stamp_watch.hpp"
#include "tickwire/md/capture.hpp"
#include "tickwire/md/instrument.hpp"
#include "tickwire/metrics/stat_file.hpp"
#include "tickwire/venue/binance/decoder.hpp"

namespace tickwire::engine {

/// Hears what a capture says while it is read into a feed. Instruments are the feed's own numbers.
class CaptureListener {
 public:
  /// A message, before it is processed; `event` holds where `outcome` says so.
  virtual void on_message(std::span<const char> message, venue::binance::Outcome outcome,
                          const md::Event& event, std::string_view symbol) noexcept = 0;
  /// A snapshot that can be read, before it is applied.
  virtual void on_snapshot(InstrumentId instrument) noexcept = 0;
  /// Trades that are not there, from the first to the last.
  virtual void on_missing_trades(InstrumentId instrument, std::uint64_t first,
                                 std::uint64_t last) noexcept = 0;
  /// A line of an instrument that is not the feed's.
  virtual void on_other(std::string_view symbol) noexcept = 0;
  virtual void on_left_valid(InstrumentId instrument, md::InvalidReason reason, TsNs ts) noexcept = 0;
  /// Where the line at hand stands, as the end of a report: " (FILE:LINE)", or nothing. Returns its size.
  virtual std::size_t write_place(std::span<char> text) const noexcept = 0;

 protected:
  ~CaptureListener() = default;
};

/// Takes what the connections bring, before the feed does.
class LineDiversion {
 public:
  /// True where the feed is not to hear of it.
  [[nodiscard]] virtual bool on_up(std::uint32_t conn) noexcept TICKWIRE_HOT = 0;
  [[nodiscard]] virtual bool on_down(std::uint32_t conn) noexcept TICKWIRE_HOT = 0;
  virtual void on_message(std::uint32_t conn, const net::WebSocketMessage& message) noexcept TICKWIRE_HOT = 0;

 protected:
  ~LineDiversion() = default;
};

class PriceFeed final : public Feed, private FeedLine::Owner {
 public:
  // A feed's connections, as captures name them: the books' …
  static constexpr std::uint32_t kBookConn = 0;
  // … and that of the trades, where they have one.
  static constexpr std::uint32_t kTradesConn = 1;

  /// Set-up. Throws SetupError.
  PriceFeed(const FeedSetup& setup, metrics::StatFile& stats, Arena& arena);
  PriceFeed(const PriceFeed&) = delete;
  PriceFeed& operator=(const PriceFeed&) = delete;

  // The connections, live.

  /// Until the trades come, no book is valid.
  void start() noexcept override;
  void start_connections() noexcept;
  void stop() noexcept override;
  [[nodiscard]] bool stopped() const noexcept override;
  int poll() noexcept TICKWIRE_HOT override {
    int done = 0;
    for (auto& line : lines_) done += line->poll(clock_);
    return done;
  }
  [[nodiscard]] std::int64_t wait_for(std::vector<int>& fds) const noexcept override;
  [[nodiscard]] std::size_t sources() const noexcept override { return lines_.size() * FeedLine::sources(); }
  [[nodiscard]] std::size_t connections() const noexcept { return lines_.size(); }
  void watch(TsNs now) noexcept override;

  // What arrives.

  void message(std::uint32_t conn, std::span<const char> bytes, RecvClock clock, TsNs ts_recv,
               std::int64_t unseen_ns = 0) noexcept TICKWIRE_HOT;
  /// For an instrument by the feed's own number; `limit` levels a side were asked for, 0 where nobody knows.
  void snapshot(InstrumentId local, std::span<const char> body, std::uint32_t limit, RecvClock clock,
                TsNs ts_recv) noexcept TICKWIRE_HOT;
  void snapshot_came(InstrumentId instrument, std::span<const char> body, std::uint32_t limit) noexcept
      TICKWIRE_HOT override {
    snapshot(local(instrument), body, limit, RecvClock::Read, clock_.now());
  }
  /// A line of a capture, as the calls that were made when it was recorded.
  void play(const md::CaptureLine& line) noexcept TICKWIRE_HOT;
  /// The book of an instrument begins anew, and its windows with it.
  void restart(PriceLane& lane, TsNs ts) noexcept TICKWIRE_HOT;
  /// From here on nothing leaves …
  void mute() noexcept TICKWIRE_HOT { muted_ = true; }
  /// … and from here on it does. What was counted so far was of another run.
  void go_live(TsNs ts) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool muted() const noexcept { return muted_; }
  void tell_all_missing() noexcept override;

  [[nodiscard]] std::unique_ptr<ReplayInput> open_input() override;

  // For who reads a capture into it, or joins one with the connections. Null: nobody.

  void listen(CaptureListener* listener) noexcept { listener_ = listener; }
  void divert(LineDiversion* diversion) noexcept { diversion_ = diversion; }
  /// What was wrong with a capture, when it is read.
  void report_capture(const md::CaptureReader& reader) noexcept;
  [[nodiscard]] LineEvent line_event(std::span<const char> message) noexcept TICKWIRE_HOT override;
  [[nodiscard]] bool line_has(const LineEvent& event) const noexcept TICKWIRE_HOT override;

  void count(TsNs now) noexcept override;

  [[nodiscard]] const FeedConfig& config() const noexcept { return config_; }
  [[nodiscard]] std::uint32_t number() const noexcept TICKWIRE_HOT { return number_; }
  [[nodiscard]] bool has(InstrumentId instrument) const noexcept TICKWIRE_HOT override {
    return instrument - first_instrument_ < lanes_.size();
  }
  /// The feed's own number of an instrument that it has.
  [[nodiscard]] InstrumentId local(InstrumentId instrument) const noexcept TICKWIRE_HOT {
    return instrument - first_instrument_;
  }
  [[nodiscard]] std::size_t size() const noexcept { return lanes_.size(); }
  [[nodiscard]] PriceLane& lane(std::size_t local) noexcept { return *lanes_[local]; }
  [[nodiscard]] const PriceLane& lane(std::size_t local) const noexcept { return *lanes_[local]; }
  [[nodiscard]] const md::InstrumentTable& table() const noexcept { return table_; }
  [[nodiscard]] venue::binance::Decoder& decoder() noexcept { return decoder_; }
  [[nodiscard]] PriceCounters& counters() noexcept { return counters_; }
  [[nodiscard]] CaptureTap* tap() noexcept { return tap_; }

 private:
  class Place;

  // Live: FeedLine::Owner and the like.
  void connect(Arena& arena);
  void line_up(std::uint32_t conn) noexcept override;
  void line_message(std::uint32_t conn, const net::WebSocketMessage& message) noexcept override {
    if (diversion_ != nullptr) [[unlikely]]
      return diversion_->on_message(conn, message);
    this->message(conn, message.payload, message.recv_clock, message.ts_recv, message.unseen_ns);
  }
  void line_down(std::uint32_t conn, std::string_view reason) noexcept override;
  void line_ended(std::uint32_t conn, std::string_view reason) noexcept TICKWIRE_HOT override;
  void line_silent(std::uint32_t conn) noexcept override;
  bool line_reaches(const LineEvent& event) const noexcept override;
  bool line_refused(std::span<const char> message) noexcept override;
  [[nodiscard]] const std::string& url_of(std::uint32_t conn) const noexcept TICKWIRE_HOT {
    return conn == kTradesConn ? config_.trades_url : config_.url;
  }
  void watch_data() noexcept;

  void open(std::uint32_t conn, TsNs ts) noexcept TICKWIRE_HOT;
  void close(std::uint32_t conn, TsNs ts) noexcept TICKWIRE_HOT;
  void bare_snapshot(const md::CaptureLine& line) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool is_bare_partial(const md::CaptureLine& line) noexcept TICKWIRE_HOT;
  void refuse_partial(const PriceLane& lane, TsNs ts) noexcept TICKWIRE_HOT;
  void on_quote(PriceLane& lane, const md::Event& event) noexcept TICKWIRE_HOT;
  void on_book(PriceLane& lane, const md::Event& event, const Arrival& arrival) noexcept TICKWIRE_HOT;
  void merge(PriceLane& lane, const Arrival& arrival) noexcept TICKWIRE_HOT;
  void count_refused(const PriceLane& lane, const Step& step, TsNs ts_recv) noexcept TICKWIRE_HOT;
  void refuse(std::uint32_t conn, std::span<const char> message, venue::binance::Outcome outcome,
              const md::Event& event, const Arrival& arrival) noexcept TICKWIRE_HOT;
  void report_refused(ErrorKind kind, venue::binance::Outcome outcome, InstrumentId local,
                      std::span<const char> message, TsNs ts) noexcept TICKWIRE_HOT;

  [[nodiscard]] bool is_stale(const PriceLane& lane, TsNs now) const noexcept TICKWIRE_HOT;
  void on_stale(PriceLane& lane, const Arrival& arrival) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool on_stamps(TsNs ts_recv, TsNs ts_event, const Arrival& arrival) noexcept TICKWIRE_HOT;
  void trust_clock() noexcept TICKWIRE_HOT;
  void note_trade_ids(PriceLane& lane, const md::Event& event) noexcept TICKWIRE_HOT;
  void end_at_holes(PriceLane& lane, const Arrival& arrival) noexcept TICKWIRE_HOT;
  void tell_missing(PriceLane& lane, TsNs now) noexcept TICKWIRE_HOT;

  void finish(PriceLane& lane, const Step& step, const md::Event& event, const Arrival& arrival) noexcept
      TICKWIRE_HOT;
  void emit_notice(PriceLane& lane, md::InvalidReason reason, TsNs ts_event, const Arrival& arrival) noexcept
      TICKWIRE_HOT;
  void note_lost(PriceLane& lane, md::InvalidReason reason, TsNs ts) noexcept TICKWIRE_HOT;
  [[nodiscard]] RowOutlet::Of of(const PriceLane& lane, std::uint64_t row, TsNs ts_event) const noexcept
      TICKWIRE_HOT;
  [[nodiscard]] const std::string& symbol_of(const PriceLane& lane) const noexcept TICKWIRE_HOT {
    return config_.instruments[lane.local].symbol;
  }

  RowOutlet& outlet_;
  SnapshotDesk* const desk_;
  const FeedConfig config_;
  const std::uint32_t number_;
  const InstrumentId first_instrument_;
  const bool windows_on_recv_;
  const bool needs_trades_;
  const UtcClock& clock_;
  StageHistograms& stages_;
  metrics::ErrorLog& errors_;
  const md::InstrumentTable table_;
  venue::binance::Decoder decoder_;
  PriceCounters counters_;
  std::vector<std::unique_ptr<PriceLane>> lanes_;
  std::vector<std::unique_ptr<FeedLine>> lines_;                   // Live: by connection.
  std::array<net::WebSocketStats, 2 * FeedLine::sources()> seen_;  // When errors were last looked at.
  CaptureTap* tap_ = nullptr;
  StampWatch stamps_;  // Of this connection's messages, whatever became of them.
  CaptureListener* listener_ = nullptr;
  LineDiversion* diversion_ = nullptr;
  bool muted_ = false;
  bool stopping_ = false;
  // What was counted while it was muted.
  std::uint64_t old_events_muted_ = 0;
  std::uint64_t snapshots_expired_muted_ = 0;
};

}  // namespace tickwire::engine

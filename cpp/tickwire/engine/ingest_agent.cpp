#include "tickwire/engine/ingest_agent.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <utility>

#include "tickwire/core/error.hpp"
#include "tickwire/engine/bare_books.hpp"
#include "tickwire/engine/error_kinds.hpp"
#include "tickwire/engine/warm_join.hpp"
#include "tickwire/feed/venue/binance/stream_name.hpp"
#include "tickwire/feed/venue/venue_of.hpp"

namespace tickwire::engine {

namespace {

using feed::binance::Outcome;

constexpr std::size_t kRequestSlots = 1024;
constexpr std::size_t kCommandBytes = 16U << 20U;  // A full-depth snapshot is well under a megabyte.
constexpr std::size_t kPaddingBytes = 64;          // Readable bytes that simdjson wants after a document.
constexpr int kLinesATurn = 256;                   // Replay: bounds a turn, so that stop() is served.
constexpr std::int64_t kAnswerTimeoutNs = 60'000'000'000;  // The control plane's own limits are shorter.
constexpr std::uint32_t kAttemptsWhileItFits = 3;          // At most four times half the configured pause.
constexpr std::int64_t kMaxBackoffNs = 60'000'000'000;
constexpr std::int64_t kDepthPauseNs = 5'000'000'000;       // Between two snapshots for more depth …
constexpr std::int64_t kMaxDepthPauseNs = 320'000'000'000;  // … doubled while they contradict the book.
constexpr std::uint64_t kFirstLines = 2'000;                // Of a capture, that tell what its streams are.
constexpr std::uint32_t kPartialInARow = 3;            // Messages of that shape; changes look so by chance.
constexpr std::uint64_t kPartialShare = 10;            // And one to so many changes at least.
constexpr std::size_t kSendBufferBytes = 256U << 10U;  // A subscription to a thousand streams, and pongs.
constexpr std::int64_t kConnectTimeoutNs = 10'000'000'000;
constexpr std::int64_t kCloseTimeoutNs = 2'000'000'000;
constexpr std::uint32_t kBookConn = 0;    // A feed's connections, as captures name them: the books' …
constexpr std::uint32_t kTradesConn = 1;  // … and that of the trades, where they have one.
constexpr std::size_t kWarmKeptBytes = 32U << 20U;  // What a busy feed brings while a warm start joins it.
constexpr std::int64_t kWarmPollNs = 1'000'000;     // Between two looks at the end of a capture.
constexpr std::uint64_t kWarmCheckLines =
    200'000;  // A capture that says nothing of ours in so many is another's.
constexpr std::int64_t kMostUnseenUs = std::numeric_limits<std::uint32_t>::max();
constexpr std::int64_t kHealthyAfterNs = 10'000'000'000;  // Then a loss is a new one, not the old one again.

/// What kind of error the source met since it was last looked at; of several the rarer one.
ErrorKind new_error(const feed::WebSocketStats& now, const feed::WebSocketStats& before) noexcept {
  if (now.protocol_errors != before.protocol_errors) return ErrorKind::ConnectionProtocol;
  if (now.tls_failures != before.tls_failures) return ErrorKind::ConnectionTls;
  if (now.handshake_failures != before.handshake_failures) return ErrorKind::ConnectionHandshake;
  if (now.lookup_failures != before.lookup_failures) return ErrorKind::ConnectionLookup;
  if (now.connect_failures != before.connect_failures) return ErrorKind::ConnectionRefused;
  return ErrorKind::Connection;
}

/// A number of decimals as text.
class Digits {
 public:
  explicit Digits(int value) noexcept TICKWIRE_HOT
      : text_{static_cast<char>('0' + value / 10 % 10), static_cast<char>('0' + value % 10)} {}
  std::string_view view() const noexcept TICKWIRE_HOT {
    return text_[0] == '0' ? std::string_view(text_ + 1, 1) : std::string_view(text_, 2);
  }

 private:
  char text_[2];
};

/// A venue's id as text.
class IdText {
 public:
  explicit IdText(std::uint64_t id) noexcept TICKWIRE_HOT {
    do {
      text_[--begin_] = static_cast<char>('0' + id % 10);
      id /= 10;
    } while (id != 0);
  }
  std::string_view view() const noexcept TICKWIRE_HOT { return {text_ + begin_, sizeof text_ - begin_}; }

 private:
  char text_[20];
  std::size_t begin_ = sizeof text_;
};

/// Some of what a message holds, for people: printable, and no longer than a line takes.
class Excerpt {
 public:
  explicit Excerpt(std::string_view text) noexcept TICKWIRE_HOT : size_(std::min(text.size(), sizeof text_)) {
    std::transform(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(size_), text_,
                   [](char c) { return c >= ' ' && c <= '~' ? c : '?'; });
  }
  std::string_view view() const noexcept TICKWIRE_HOT { return {text_, size_}; }

 private:
  char text_[48];
  std::size_t size_;
};

std::string_view venue_name(feed::binance::Market market) noexcept {
  switch (market) {
    case feed::binance::Market::Spot: return feed::kBinanceSpot;
    case feed::binance::Market::UsdM: return feed::kBinanceUsdM;
    case feed::binance::Market::CoinM: return feed::kBinanceCoinM;
  }
  return {};
}

/// Could a message be lost by this, and not by the venue?
bool is_damage(md::InvalidReason reason) noexcept TICKWIRE_HOT {
  return reason == md::InvalidReason::Malformed || reason == md::InvalidReason::BadNumber ||
         reason == md::InvalidReason::TooManyLevels;
}

std::int64_t monotonic_ns() noexcept { return tsc_to_ns(tsc_now()); }

std::string grouped(std::uint64_t value) {
  std::string digits = std::to_string(value);
  for (std::size_t at = digits.size(); at > 3;) digits.insert(at -= 3, 1, ',');
  return digits;
}

std::string seconds(std::int64_t ns) {
  std::array<char, 32> text;
  std::snprintf(text.data(), text.size(), ".%03d s", static_cast<int>(ns / 1'000'000 % 1000));
  return grouped(static_cast<std::uint64_t>(ns / 1'000'000'000)) + text.data();
}

/// Is this a file of a run's recording: 000001.log, 000002.log …?
bool is_segment(const std::filesystem::path& file) {
  const std::string stem = file.stem().string();
  return stem.size() == 6 && stem.find_first_not_of("0123456789") == std::string::npos;
}

bool holds(std::span<const char> message, std::string_view text) {
  return ::memmem(message.data(), message.size(), text.data(), text.size()) != nullptr;
}

/// Set-up: is this file a capture of this feed? Throws SetupError; false where it says nothing of it either
/// way.
bool check_warm_file(const FeedConfig& config, feed::binance::Decoder& decoder, const std::string& path) {
  md::CaptureReader reader({path});
  const bool is_spot = config.market == feed::binance::Market::Spot;
  std::uint64_t messages = 0;
  std::uint64_t of_others = 0;
  std::uint64_t unreadable = 0;
  for (const md::CaptureLine* line = nullptr;
       messages < kWarmCheckLines && (line = reader.next()) != nullptr;) {
    if (line->kind != md::CaptureKind::Message) continue;
    ++messages;
    // A book change of futures names the one before it, one of spot does not.
    if (holds(line->body, "\"depthUpdate\"") && holds(line->body, "\"pu\"") == is_spot) {
      throw SetupError("warm capture " + path,
                       is_spot ? "the spot market's messages" : "a futures market's messages",
                       is_spot ? "a futures market's" : "the spot market's");
    }
    md::Event event;
    const Outcome outcome = decoder.decode(line->body, RecvClock::Recorded, line->ts_recv, event);
    of_others += outcome == Outcome::UnknownSymbol ? 1 : 0;
    unreadable += outcome == Outcome::Malformed ? 1 : 0;
    if (outcome == Outcome::Event && event.kind == md::EventKind::BookDiff) return true;
  }
  // What a run wrote last may be too short to say anything, and a file that is empty but for our own lines
  // says nothing wrong.
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  const bool of_a_run =
      is_segment(path) && std::count_if(config.warm.begin(), config.warm.end(), [&](const auto& other) {
                            return std::filesystem::path(other).parent_path() == folder;
                          }) > 1;
  if (of_a_run || (config.warm.size() > 1 && messages == 0 && reader.error().empty())) return false;
  std::string found = "no message";
  if (messages != 0) {
    found = "none in " + grouped(messages) + (messages == 1 ? " message" : " messages");
    if (of_others != 0) found += "; " + grouped(of_others) + " are of other instruments";
    if (unreadable != 0) found += "; " + grouped(unreadable) + " cannot be read";
  }
  if (!reader.error().empty()) found += "; " + reader.error();
  throw SetupError("warm capture " + path, "book changes of the instruments of the feed " + config.name,
                   found);
}

/// Set-up: are these captures of this feed? Throws SetupError. Returns those to be read: a run that began
/// warm has in its own recording what it read of others, so nothing before that is read a second time.
std::vector<std::string> check_warm(const FeedConfig& config, feed::binance::Decoder& decoder) {
  std::size_t first = 0;
  bool any = false;
  for (std::size_t i = 0; i < config.warm.size(); ++i) {
    any = check_warm_file(config, decoder, config.warm[i]) || any;
    md::CaptureReader reader({config.warm[i]});
    const md::CaptureLine* const line = reader.next();
    if (line != nullptr && line->kind == md::CaptureKind::Warm) first = i;
  }
  if (!any) {
    throw SetupError("warm capture " + config.warm.front() + " and what follows it",
                     "book changes of the instruments of the feed " + config.name, "none");
  }
  return {config.warm.begin() + static_cast<std::ptrdiff_t>(first), config.warm.end()};
}

/// A recorder's next file, where this is the newest that it had written: 000001.log, 000002.log …
std::string next_segment(const std::string& path) {
  const std::filesystem::path file(path);
  if (!is_segment(file)) return {};
  std::array<char, 16> number;
  std::snprintf(number.data(), number.size(), "%06lu", std::stoul(file.stem().string()) + 1);
  const std::filesystem::path next = file.parent_path() / (number.data() + file.extension().string());
  std::error_code error;
  return std::filesystem::is_regular_file(next, error) ? next.string() : std::string();
}

}  // namespace

/// Where the line at hand of a replay stands, as the end of a report: " (FILE:LINE)". Empty in a live run. Of
/// a long path the end alone, since a report has little room.
class IngestAgent::Place {
 public:
  Place(const IngestAgent& agent, const Feed& feed) noexcept TICKWIRE_HOT {
    if (agent.replay_) [[unlikely]] {
      TICKWIRE_HOT_EXEMPT_BEGIN("replay: for its report")
      find(feed);
      TICKWIRE_HOT_EXEMPT_END
    }
  }
  [[nodiscard]] std::string_view view() const noexcept TICKWIRE_HOT { return {text_, size_}; }

 private:
  void find(const Feed& feed) noexcept;

  char text_[96];
  std::size_t size_ = 0;
};

/// One instrument and its dealings with the control plane.
struct IngestAgent::Lane {
  enum class Snapshot : std::uint8_t { NotWanted, Requested, WaitingToRetry };

  Lane(InstrumentId id_, std::uint32_t feed_, const FeedConfig& feed_config,
       const InstrumentConfig& instrument, const FeaturesConfig& features, metrics::StatFile& stats,
       Arena& arena)
      : id(id_),
        feed(feed_),
        pipeline(feed_config, instrument, features, arena),
        state(stats.counter(feed_config.name + "/" + instrument.symbol, "book_state")),
        epoch(stats.counter(feed_config.name + "/" + instrument.symbol, "epoch")),
        rows(stats.counter(feed_config.name + "/" + instrument.symbol, "rows")),
        left_valid(stats.counter(feed_config.name + "/" + instrument.symbol, "left_valid")),
        reason(stats.counter(feed_config.name + "/" + instrument.symbol, "book_reason")),
        since(stats.counter(feed_config.name + "/" + instrument.symbol, "book_since")),
        heard(stats.counter(feed_config.name + "/" + instrument.symbol, "heard")),
        window_overflows(stats.counter(feed_config.name + "/" + instrument.symbol, "window_overflows")),
        levels_dropped(stats.counter(feed_config.name + "/" + instrument.symbol, "levels_dropped")),
        rows_beyond_depth(stats.counter(feed_config.name + "/" + instrument.symbol, "rows_beyond_depth")),
        rows_awaiting_trades(
            stats.counter(feed_config.name + "/" + instrument.symbol, "rows_awaiting_trades")) {}

  const InstrumentId id;
  const std::uint32_t feed;  // Its place in feeds_.
  InstrumentPipeline pipeline;
  Snapshot snapshot = Snapshot::NotWanted;
  std::uint32_t attempts = 0;
  // Newest of each kind since its connection came up; which connection brought it does not matter.
  std::uint64_t diff_id = 0;
  std::uint64_t trade_id = 0;
  std::uint64_t quote_id = 0;
  std::uint64_t counted_from = 0;  // Of a warm capture: what is missing of these trades was not counted here.
  feed::OldIds old_quotes;
  TsNs fresh = 0;  // ts_recv of the newest diff, or of what made the book valid.
  // On our own clock that nobody sets, as monotonic_ns() has it.
  std::int64_t fresh_ns = 0;  // When that came.
  std::int64_t valid_since_ns = 0;
  std::int64_t due_ns = 0;        // Requested: when to give up waiting; WaitingToRetry: when to ask again.
  std::int64_t depth_due_ns = 0;  // When a snapshot for more depth may be asked for.
  std::int64_t depth_pause_ns = kDepthPauseNs;
  // Replay, of what no stream's name tells:
  std::uint32_t unnamed_partial = 0;  // Its messages are partial books of so many levels.
  bool bare_partial = false;          // Bare snapshot lines are partial books.
  std::uint32_t unnamed_refused = 0;  // Messages of so many levels a side are partial books beside changes.
  BareBooks bare_books;
  bool traded = false;        // A trade of it came.
  bool damaged = false;       // It left valid for a message that could not be used, and is not back.
  bool has_snapshot = false;  // One came that could be read.
  /// Replay: where it left valid last.
  struct LeftValid {
    md::InvalidReason reason = md::InvalidReason::None;
    const std::string* file = nullptr;  // The reader's own.
    std::uint64_t line = 0;
    TsNs ts = 0;
  };
  LeftValid lost;
  metrics::Counter& state;
  metrics::Counter& epoch;
  metrics::Counter& rows;
  metrics::Counter& left_valid;
  metrics::Counter& reason;  // InvalidReason of the last time that the book left Valid.
  metrics::Counter& since;   // When the state became what it is, to a tenth of a second.
  metrics::Counter& heard;   // 1: something of it came since the connection was opened.
  metrics::Counter& window_overflows;
  metrics::Counter& levels_dropped;
  metrics::Counter& rows_beyond_depth;
  metrics::Counter& rows_awaiting_trades;
};

/// One feed: where its bytes come from, how they are decoded, what was seen.
struct IngestAgent::Feed final : FeedLine::Owner {
  Feed(IngestAgent& agent_, const FeedConfig& config_, std::uint32_t number_, InstrumentId first_instrument_,
       std::size_t first_lane_, md::InstrumentTable table_, metrics::StatFile& stats)
      : agent(agent_),
        config(config_),
        number(number_),
        first_instrument(first_instrument_),
        first_lane(first_lane_),
        table(std::move(table_)),
        decoder(table, {config.market, config.trades, std::max(config.max_frame_bytes, kCommandBytes / 2),
                        kMaxEventLevels}),
        messages(stats.counter(config.name, "messages")),
        bytes(stats.counter(config.name, "message_bytes")),
        book_events(stats.counter(config.name, "book_events")),
        trades(stats.counter(config.name, "trades")),
        quotes(stats.counter(config.name, "quotes")),
        ignored(stats.counter(config.name, "ignored")),
        other_trades(stats.counter(config.name, "other_trade_stream")),
        unknown_symbol(stats.counter(config.name, "unknown_symbol")),
        malformed(stats.counter(config.name, "malformed")),
        bad_number(stats.counter(config.name, "bad_number")),
        too_many_levels(stats.counter(config.name, "too_many_levels")),
        partial_books(stats.counter(config.name, "partial_books")),
        partial_refused(stats.counter(config.name, "partial_books_refused")),
        other_streams(stats.counter(config.name, "other_streams")),
        other_symbol(stats.counter(config.name, "other_symbol")),
        subscribe_errors(stats.counter(config.name, "subscribe_errors")),
        clock_leaps(stats.counter(config.name, "clock_leaps")),
        stamps_capped(stats.counter(config.name, "stamps_capped")),
        shutdown_notices(stats.counter(config.name, "shutdown_notices")),
        gaps(stats.counter(config.name, "gaps")),
        crossed(stats.counter(config.name, "crossed")),
        old_events(stats.counter(config.name, "old_events")),
        old_trades(stats.counter(config.name, "old_trades")),
        old_quotes(stats.counter(config.name, "old_quotes")),
        late_trades(stats.counter(config.name, "late_trades")),
        trade_gaps(stats.counter(config.name, "trade_gaps")),
        missing_trades(stats.counter(config.name, "missing_trades")),
        left_valid(stats.counter(config.name, "left_valid")),
        became_valid(stats.counter(config.name, "became_valid")),
        books_damaged(stats.counter(config.name, "books_damaged")),
        books_resynced(stats.counter(config.name, "books_resynced")),
        snapshots(stats.counter(config.name, "snapshots")),
        snapshots_refused(stats.counter(config.name, "snapshots_refused")),
        snapshots_by_fault{&stats.counter(config.name, "snapshots_misfit"),
                           &stats.counter(config.name, "snapshots_empty"),
                           &stats.counter(config.name, "snapshots_one_sided"),
                           &stats.counter(config.name, "snapshots_crossed"),
                           &stats.counter(config.name, "snapshots_unsorted"),
                           &stats.counter(config.name, "snapshots_duplicate"),
                           &stats.counter(config.name, "snapshots_too_long")},
        snapshots_merged(stats.counter(config.name, "snapshots_merged")),
        snapshots_contradicted(stats.counter(config.name, "snapshots_contradicted")),
        ids_went_back(stats.counter(config.name, "ids_went_back")),
        snapshots_expired(stats.counter(config.name, "snapshots_expired")),
        snapshots_waiting(stats.counter(config.name, "snapshots_waiting")),
        snapshots_failed(stats.counter(config.name, "snapshots_failed")),
        snapshot_requests(stats.counter(config.name, "snapshot_requests")),
        snapshots_given_up(stats.counter(config.name, "snapshots_given_up")),
        connects(stats.counter(config.name, "connects")),
        disconnects(stats.counter(config.name, "disconnects")),
        connect_failures(stats.counter(config.name, "connect_failures")),
        timeouts(stats.counter(config.name, "timeouts")),
        connections_up(stats.counter(config.name, "connections_up")),
        handovers(stats.counter(config.name, "handovers")),
        silent(stats.counter(config.name, "connections_silent")),
        stale(stats.counter(config.name, "data_stale")),
        pings(stats.counter(config.name, "pings")),
        protocol_errors(stats.counter(config.name, "protocol_errors")),
        warm_messages(stats.counter(config.name, "warm_messages")),
        warm_repeats(stats.counter(config.name, "warm_repeats")),
        lines_skipped(stats.counter(config.name, "capture_lines_skipped")),
        truncated(stats.counter(config.name, "capture_truncated")),
        input_ts(stats.counter(config.name, "input_ts")) {}

  void line_up(std::uint32_t conn) noexcept override {
    if (warm == Warm::Joining) return join->up(conn, monotonic_ns());
    agent.on_open(*this, conn, agent.utc_.now());
  }
  void line_message(std::uint32_t conn, const feed::WebSocketMessage& message) noexcept override {
    if (warm != Warm::No) [[unlikely]]
      return warm_message(conn, message);
    agent.on_message(*this, conn, message.payload, message.recv_clock, message.ts_recv, message.unseen_ns);
  }
  void line_down(std::uint32_t conn, std::string_view reason) noexcept override {
    if (!agent.stopping_) line_ended(conn, reason);
    if (warm == Warm::Joining) return join->down(conn, monotonic_ns());
    if (warm == Warm::HandingOn) hand_on_all();  // What it brought comes before its end.
    agent.on_close(*this, conn, agent.utc_.now());
  }
  void line_ended(std::uint32_t conn, std::string_view reason) noexcept TICKWIRE_HOT override {
    report(agent.errors_, ErrorKind::ConnectionClosed,
           {conn == kTradesConn ? config.trades_url : config.url, ": ", reason}, agent.utc_.now());
  }
  void warm_message(std::uint32_t conn, const feed::WebSocketMessage& message) noexcept TICKWIRE_HOT;
  void hand_on_all() noexcept TICKWIRE_HOT {
    TICKWIRE_HOT_EXEMPT_BEGIN("a warm start's last step, at once because something cannot wait behind it")
    (void)agent.hand_on_warm(*this, true);
    TICKWIRE_HOT_EXEMPT_END
  }
  void line_silent(std::uint32_t conn) noexcept override {
    silent.add(1);
    report(agent.errors_, ErrorKind::ConnectionSilent, conn == kTradesConn ? config.trades_url : config.url,
           agent.utc_.now());
  }
  void connect(Arena& arena);
  LineEvent line_event(std::span<const char> message) noexcept override;
  bool line_has(const LineEvent& event) const noexcept override;
  bool line_reaches(const LineEvent& event) const noexcept override;
  bool line_refused(std::span<const char> message) noexcept override {
    md::Event event;
    return decoder.decode(message, RecvClock::Read, 0, event) == Outcome::SubscribeError;
  }

  IngestAgent& agent;
  const FeedConfig config;
  const std::uint32_t number;
  const InstrumentId first_instrument;  // The engine's, of its first one; first_lane is its place in lanes_.
  const std::size_t first_lane;
  const md::InstrumentTable table;
  feed::binance::Decoder decoder;
  std::vector<std::unique_ptr<FeedLine>> lines;  // Live: by connection.
  std::unique_ptr<md::CaptureReader> reader;     // Replay, and a warm start.
  const md::CaptureLine* line = nullptr;         // The reader's next line, null at the end.
  CaptureTap* tap = nullptr;
  CaptureWitness witness;  // Replay.
  // Of this connection's messages, whatever became of them.
  StampWatch stamps;

  /// A warm start's way from the capture to the feed.
  enum class Warm : std::uint8_t {
    No,
    Reading,    // The capture; not connected yet.
    Joining,    // Connected; the capture is followed until the two have met.
    HandingOn,  // What the connections brought meanwhile.
    Settling,   // Live; the connections may still bring what the capture had.
  };
  Warm warm = Warm::No;
  bool muted = false;       // Between `warm` and `live`: nothing leaves.
  bool in_capture = false;  // Live: a line of the warm capture is being processed.
  std::unique_ptr<WarmJoin> join;
  std::vector<WarmJoin::Captured> captured;
  /// What the capture has of an instrument.
  struct InCapture {
    bool named = false;
    bool snapshot = false;
    md::BookState state = md::BookState::Empty;  // At its end.
    // The newest hole in its trades.
    std::uint64_t lacks_from = 0;
    std::uint64_t lacks_to = 0;
  };
  std::vector<InCapture> in_capture_of;
  bool compares_clocks = false;  // What time the capture has decides something.
  std::int64_t joining_ns = 0;   // Since when.
  std::string last_file;         // Of the warm capture: the one that is followed.
  std::int64_t captured_ns = 0;  // When the warm capture brought its last line …
  std::int64_t looked_ns = 0;    // … and when it was last looked for one.
  std::int64_t live_ns = 0;
  std::vector<TsNs> capture_ends;  // By instrument: the time of the last diff.
  std::vector<std::string> warm_lines;
  concurrent::Cell<bool> warm_waits;  // The feed has brought nothing of a book for long.
  concurrent::Cell<bool> warm_told;   // Published once warm_lines is written.
  std::uint64_t old_events_muted = 0;
  std::uint64_t snapshots_expired_muted = 0;
  std::array<feed::WebSocketStats, 2 * FeedLine::sources()> seen;  // When the errors were last looked at.

  metrics::Counter& messages;
  metrics::Counter& bytes;
  metrics::Counter& book_events;
  metrics::Counter& trades;
  metrics::Counter& quotes;
  metrics::Counter& ignored;
  metrics::Counter& other_trades;
  metrics::Counter& unknown_symbol;
  metrics::Counter& malformed;
  metrics::Counter& bad_number;
  metrics::Counter& too_many_levels;
  metrics::Counter& partial_books;
  metrics::Counter& partial_refused;  // Beside a stream of changes.
  metrics::Counter& other_streams;
  metrics::Counter& other_symbol;  // The stream's name is another instrument's.
  metrics::Counter& subscribe_errors;
  metrics::Counter& clock_leaps;    // Stamps that are not to be gone by: see StampWatch.
  metrics::Counter& stamps_capped;  // Live: the kernel's stamps that were ahead of their reading.
  metrics::Counter& shutdown_notices;
  metrics::Counter& gaps;
  metrics::Counter& crossed;
  metrics::Counter& old_events;
  metrics::Counter& old_trades;
  metrics::Counter& old_quotes;
  metrics::Counter& late_trades;     // Came behind trades with greater ids.
  metrics::Counter& trade_gaps;      // Holes in the trades' ids …
  metrics::Counter& missing_trades;  // … and how many trades they are, less those that came late.
  metrics::Counter& left_valid;
  metrics::Counter& became_valid;
  metrics::Counter& books_damaged;   // Books that left valid for a message that could not be used …
  metrics::Counter& books_resynced;  // … and those of them that came back.
  metrics::Counter& snapshots;
  metrics::Counter& snapshots_refused;
  std::array<metrics::Counter*, feed::kSnapshotFaults> snapshots_by_fault;  // Of these.
  metrics::Counter& snapshots_merged;
  metrics::Counter& snapshots_contradicted;
  metrics::Counter& ids_went_back;
  metrics::Counter& snapshots_expired;
  metrics::Counter& snapshots_waiting;  // At this moment: ahead of all events.
  metrics::Counter& snapshots_failed;
  metrics::Counter& snapshot_requests;
  metrics::Counter& snapshots_given_up;
  metrics::Counter& connects;
  metrics::Counter& disconnects;
  metrics::Counter& connect_failures;
  metrics::Counter& timeouts;        // Of a look-up, an attempt to connect, or a close.
  metrics::Counter& connections_up;  // Now: subscribed, and something has come.
  metrics::Counter& handovers;
  metrics::Counter& silent;
  metrics::Counter& stale;
  metrics::Counter& pings;
  metrics::Counter& protocol_errors;
  metrics::Counter& warm_messages;  // Of these, before the first that may give a row.
  metrics::Counter& warm_repeats;   // Of those, what had come before or was old.
  metrics::Counter& lines_skipped;
  metrics::Counter& truncated;
  metrics::Counter& input_ts;  // Replay: when what is read next was received.
};

void IngestAgent::Place::find(const Feed& feed) noexcept {
  constexpr std::size_t kMostPath = 60;
  const std::string_view path = feed.reader->file();
  const bool whole = path.size() <= kMostPath;
  const std::string_view shown = whole ? path : path.substr(path.size() - kMostPath);
  const int size =
      std::snprintf(text_, sizeof text_, " (%s%.*s:%llu)", whole ? "" : "...", static_cast<int>(shown.size()),
                    shown.data(), static_cast<unsigned long long>(feed.reader->line_number()));
  size_ = std::min(static_cast<std::size_t>(std::max(size, 0)), sizeof text_ - 1);
}

/// Set-up, live: the connections.
void IngestAgent::Feed::connect(Arena& arena) {
  const auto add = [&](std::uint32_t conn, const std::string& url, const std::vector<std::string>& streams,
                       const char* key) {
    const bool trades_apart = !config.subscribe_trades.empty();
    lines.push_back(std::make_unique<FeedLine>(
        *this,
        FeedLine::Config{.conn = conn,
                         .instruments = config.instruments.size(),
                         .diffs = conn == kBookConn,
                         .trades = (conn == kTradesConn) == trades_apart,
                         .max_age_ns = config.max_connection_age_ns,
                         .liveness_timeout_ns = config.liveness_timeout_ns},
        feed::WebSocketConfig{.url = url,
                              .ca_file = config.ca_file,
                              .on_open = {feed::binance::subscribe_message(streams)},
                              .headers = {},
                              .max_frame_bytes = config.max_frame_bytes,
                              .send_buffer_bytes = kSendBufferBytes,
                              .connect_timeout_ns = kConnectTimeoutNs,
                              .close_timeout_ns = kCloseTimeoutNs,
                              .reconnect_min_ns = config.reconnect_min_ns,
                              .reconnect_max_ns = config.reconnect_max_ns,
                              .healthy_after_ns = kHealthyAfterNs},
        "feeds[" + std::to_string(number) + "]" + key, arena));
  };
  add(kBookConn, config.url, config.subscribe, "");
  if (!config.subscribe_trades.empty())
    add(kTradesConn, config.trades_url, config.subscribe_trades, ".trades");
}

void IngestAgent::Feed::warm_message(std::uint32_t conn, const feed::WebSocketMessage& message) noexcept {
  const LineEvent event = line_event(message.payload);
  if (event.kind != LineEvent::Kind::Control && warm != Warm::Settling) {
    if (join->keep(conn, event, message, monotonic_ns())) return;
    if (warm == Warm::Joining) {
      join->forget(monotonic_ns());
      (void)join->keep(conn, event, message, monotonic_ns());
      return;
    }
    hand_on_all();
  }
  const bool is_event = event.kind != LineEvent::Kind::Control && event.kind != LineEvent::Kind::Damaged;
  if (is_event && line_has(event)) return;
  agent.on_message(*this, conn, message.payload, message.recv_clock, message.ts_recv, message.unseen_ns);
}

LineEvent IngestAgent::Feed::line_event(std::span<const char> message) noexcept {
  md::Event event;
  const Outcome outcome = decoder.decode(message, RecvClock::Read, 0, event);
  if (outcome != Outcome::Event) {
    const bool damaged =
        outcome == Outcome::Malformed || outcome == Outcome::BadNumber || outcome == Outcome::TooManyLevels;
    return {damaged ? LineEvent::Kind::Damaged : LineEvent::Kind::Control, 0, 0, 0};
  }
  switch (event.kind) {
    case md::EventKind::BookDiff: {
      // Ids of futures have holes: the event names the one before it.
      const bool spot = config.market == feed::binance::Market::Spot;
      return {LineEvent::Kind::Diff, event.instrument, spot ? event.first_id - 1 : event.prev_id,
              event.last_id, event.ts_event};
    }
    case md::EventKind::Trade:
      return {LineEvent::Kind::Trade, event.instrument, event.trade.id - 1, event.trade.id};
    case md::EventKind::Quote: return {LineEvent::Kind::Quote, event.instrument, 0, event.last_id};
    case md::EventKind::BookSnapshot:
    case md::EventKind::PartialBook: break;
  }
  return {LineEvent::Kind::Control, 0, 0, 0};
}

bool IngestAgent::Feed::line_has(const LineEvent& event) const noexcept {
  const Lane& lane = *agent.lanes_[first_lane + event.instrument];
  switch (event.kind) {
    case LineEvent::Kind::Diff: return event.last_id <= lane.diff_id;
    case LineEvent::Kind::Trade:
      return event.last_id <= lane.trade_id && lane.pipeline.trades().has(event.last_id);
    case LineEvent::Kind::Quote: return event.last_id <= lane.quote_id;
    default: return true;
  }
}

bool IngestAgent::Feed::line_reaches(const LineEvent& event) const noexcept {
  const Lane& lane = *agent.lanes_[first_lane + event.instrument];
  if (lane.pipeline.state() != md::BookState::Valid) return true;
  return event.previous_id <= (event.kind == LineEvent::Kind::Diff ? lane.diff_id : lane.trade_id);
}

IngestAgent::IngestAgent(Setup setup, metrics::StatFile& stats, Arena& arena)
    : name_(std::move(setup.name)),
      replay_(setup.replay),
      windows_on_recv_(setup.config.features.clock == WindowClock::Recv),
      needs_trades_(needs_trades(setup.config.features)),
      control_(setup.control),
      heartbeat_(setup.heartbeat),
      first_instrument_(setup.first_instrument),
      requests_(arena, sizeof(SnapshotRequest), kRequestSlots),
      commands_(arena, kCommandBytes),
      command_body_(arena.allocate<char>(kCommandBytes / 2 + kPaddingBytes)),
      stages_(stats, name_),
      errors_(stats.error_log(name_)),
      outlet_({.scope = name_,
               .replay = replay_,
               .max_age_ns = replay_ ? 0 : setup.config.features.max_age_ns,
               .layout = setup.layout,
               .clock = utc_,
               .stages = stages_,
               .errors = errors_},
              stats, arena) {
  std::uint32_t number = setup.first_feed;
  InstrumentId id = first_instrument_;
  for (const FeedConfig& config : setup.feeds) {
    if (config.itch) {
      order_feeds_.push_back(std::make_unique<OrderFeed>(OrderFeed::Setup{.outlet = outlet_,
                                                                          .engine = setup.config,
                                                                          .config = config,
                                                                          .number = number++,
                                                                          .first_instrument = id,
                                                                          .recorder = setup.recorder,
                                                                          .clock = utc_,
                                                                          .stages = stages_,
                                                                          .errors = errors_},
                                                         stats, arena));
      id += static_cast<InstrumentId>(config.instruments.size());
      continue;
    }
    md::InstrumentTable table;
    for (const InstrumentConfig& instrument : config.instruments) {
      table.add({instrument.symbol, config.name, instrument.price_decimals, instrument.qty_decimals});
    }
    auto feed = std::make_unique<Feed>(*this, config, number, id, lanes_.size(), std::move(table), stats);
    for (const InstrumentConfig& instrument : config.instruments) {
      lanes_.push_back(std::make_unique<Lane>(id++, static_cast<std::uint32_t>(feeds_.size()), config,
                                              instrument, setup.config.features, stats, arena));
    }
    if (replay_) {
      learn_streams(*feed);
      feed->reader = std::make_unique<md::CaptureReader>(config.inputs);
    } else {
      // What is subscribed to.
      for (std::size_t i = feed->first_lane; i < lanes_.size(); ++i) lanes_[i]->pipeline.expect_diffs();
      feed->connect(arena);
    }
    if (!replay_ && !config.warm.empty()) {
      feed->reader = std::make_unique<md::CaptureReader>(check_warm(config, feed->decoder),
                                                         md::CaptureReaderConfig{.follow = true});
      feed->join =
          std::make_unique<WarmJoin>(config.instruments.size(), feed->lines.size(), needs_trades_,
                                     windows_on_recv_ || config.stale_after_ns != 0, arena, kWarmKeptBytes);
      feed->captured.resize(config.instruments.size());
      feed->capture_ends.resize(config.instruments.size());
      feed->in_capture_of.resize(config.instruments.size());
      feed->compares_clocks = windows_on_recv_ || config.stale_after_ns != 0;
      feed->last_file = config.warm.back();
      feed->warm = Feed::Warm::Reading;
      feed->muted = true;
    }
    if (setup.recorder != nullptr) feed->tap = &setup.recorder->add_capture(config.name, arena);
    feeds_.push_back(std::move(feed));
    ++number;
  }
  if (setup.recorder != nullptr) {
    outlet_.record_to(setup.recorder->add_rows(name_, setup.layout.record_bytes(), arena));
  }
  std::size_t fds = feeds_.size() * 2 * FeedLine::sources();
  for (const auto& feed : order_feeds_) fds += feed->sources();
  park_fds_.reserve(fds);
}

IngestAgent::~IngestAgent() = default;

/// Set-up, replay: which of the instruments have a stream of changes, and what their messages are where no
/// name of a stream says it, by the first lines of the capture. A partial book beside changes is refused from
/// the first line on.
void IngestAgent::learn_streams(Feed& feed) {
  struct Found {
    std::uint64_t changes = 0;
    std::uint64_t unnamed_partial = 0;
    std::size_t shape = 0;                 // The most levels of these.
    std::array<std::uint64_t, 3> exact{};  // Those with 5, 10 or 20 levels on both sides.
    std::uint64_t bare = 0;
    std::size_t most_bare_levels = 0;
  };
  std::vector<Found> found(feed.table.size());
  if (feed.config.inputs.empty()) return;
  md::CaptureReader reader({feed.config.inputs.front()});
  bool ours = false;  // A recording of ours has what was subscribed to: no message is of another stream.
  for (std::uint64_t lines = 0; lines < kFirstLines; ++lines) {
    const md::CaptureLine* const line = reader.next();
    if (line == nullptr) break;
    md::Event event;
    ours = ours || line->limit != 0 ||
           (line->kind != md::CaptureKind::Message && line->kind != md::CaptureKind::BareSnapshot &&
            line->kind != md::CaptureKind::Snapshot);
    if (line->kind == md::CaptureKind::BareSnapshot && found.size() == 1) {
      if (feed.decoder.decode_snapshot(line->body, 0, RecvClock::Recorded, line->ts_recv, event) !=
          Outcome::Event)
        continue;
      lanes_[feed.first_lane]->bare_books.saw(event);
      ++found[0].bare;
      found[0].most_bare_levels = std::max({found[0].most_bare_levels, event.bids.size(), event.asks.size()});
    }
    if (line->kind == md::CaptureKind::Snapshot && line->limit != 0) {
      // Our own recording: whoever asked for it had subscribed to changes.
      const InstrumentId local = feed.table.find(line->instrument);
      if (local != kNoInstrument) ++found[local].changes;
    }
    if (line->kind != md::CaptureKind::Message) continue;
    if (feed.decoder.decode(line->body, RecvClock::Recorded, line->ts_recv, event) != Outcome::Event ||
        event.kind != md::EventKind::BookDiff) {
      continue;
    }
    Found& of = found[event.instrument];
    const std::size_t shape = event.named ? 0 : feed::binance::partial_shape(event);
    of.shape = std::max(of.shape, shape);
    ++(shape == 0 ? of.changes : of.unnamed_partial);
    if (const std::size_t exact = event.named ? 0 : feed::binance::exact_partial_shape(event); exact != 0)
      ++of.exact[exact / 10];
  }
  for (std::size_t i = 0; i < found.size(); ++i) {
    Lane& lane = *lanes_[feed.first_lane + i];
    const Found& of = found[i];
    if (of.changes == 0 && of.unnamed_partial >= kPartialInARow && feed::binance::is_partial_size(of.shape))
      lane.unnamed_partial = static_cast<std::uint32_t>(of.shape);
    if (of.changes != 0 || (of.unnamed_partial != 0 && lane.unnamed_partial == 0))
      lane.pipeline.expect_diffs();
    // Beside changes, where too many look like books for chance. Spot's have no ids of changes.
    const auto most = std::max_element(of.exact.begin(), of.exact.end());
    if (!ours && of.changes != 0 && feed.config.market != feed::binance::Market::Spot &&
        *most >= kPartialInARow && kPartialShare * *most >= of.changes) {
      static constexpr std::array<std::uint32_t, 3> kSizes{5, 10, 20};
      lane.unnamed_refused = kSizes[static_cast<std::size_t>(most - of.exact.begin())];
    }
    lane.bare_books.begin();
    // The venue's partial books have no more levels; longer ones are snapshots that somebody asked for.
    lane.bare_partial = of.changes == 0 && of.unnamed_partial == 0 && of.bare >= kPartialInARow &&
                        of.most_bare_levels <= feed::binance::kMostPartialLevels;
  }
}

bool IngestAgent::deliver(const Command& command, std::string_view body) noexcept {
  std::byte* place = commands_.try_claim(sizeof command + body.size());
  if (place == nullptr) return false;
  std::memcpy(place, &command, sizeof command);
  if (!body.empty()) std::memcpy(place + sizeof command, body.data(), body.size());
  commands_.publish();
  command_waker_.notify();
  return true;
}

void IngestAgent::on_start() {
  outlet_.warm_up();
  for (auto& feed : order_feeds_) {
    if (replay_) feed->read();
  }
  for (auto& feed : feeds_) {
    if (replay_) {
      feed->line = feed->reader->next();
      continue;
    }
    if (feed->warm == Feed::Warm::Reading) {
      feed->line = feed->reader->next();
      if (feed->tap != nullptr) feed->tap->warm(feed->line != nullptr ? feed->line->ts_recv : utc_.now());
      continue;
    }
    // Until the trades come, no book may be valid: whoever replays this must know.
    if (feed->lines.size() > 1) on_close(*feed, kTradesConn, utc_.now());
    for (auto& line : feed->lines) line->start();
  }
}

int IngestAgent::do_work() noexcept {
  outlet_.flush();
  if (replay_) return replay_turn();
  int work = take_commands();
  for (auto& feed : order_feeds_) work += feed->poll();
  for (auto& feed : feeds_) {
    if (feed->warm != Feed::Warm::No) [[unlikely]] {
      TICKWIRE_HOT_EXEMPT_BEGIN("a warm start: files are read before the feed's first row")
      work += warm_turn(*feed);
      TICKWIRE_HOT_EXEMPT_END
    }
    for (auto& line : feed->lines) work += line->poll(utc_);
  }
  if (work == 0) {
    outlet_.keep_warm();
  }
  return work;
}

void IngestAgent::on_close() {
  if (replay_) return;
  stopping_ = true;
  outlet_.stop();
  for (auto& feed : order_feeds_) feed->stop();
  for (auto& feed : feeds_) {
    for (auto& line : feed->lines) line->stop();
  }
  for (bool open = true; open;) {
    open = false;
    for (auto& feed : feeds_) {
      for (auto& line : feed->lines) {
        line->poll(utc_);
        open = open || !line->stopped();
      }
    }
    if (open) Agent::park(1'000'000);
  }
  tell_all_missing();
  every_100ms();
}

void IngestAgent::park(std::int64_t max_ns) noexcept {
  if (replay_) return Agent::park(std::min<std::int64_t>(max_ns, 200'000));
  park_fds_.clear();
  const std::uint64_t tsc = tsc_now();
  std::int64_t limit_ns = max_ns;
  for (const auto& feed : feeds_) {
    // No descriptor says that a file has grown.
    if (feed->muted) limit_ns = std::min(limit_ns, kWarmPollNs);
    for (const auto& line : feed->lines) {
      for (std::size_t i = 0; i < FeedLine::sources(); ++i) {
        const feed::WebSocketSource& source = line->source(i);
        if (source.fd() >= 0) park_fds_.push_back(source.fd());
        // Waiting to write is rare and short: do not sleep on it.
        if (source.wants_write()) limit_ns = std::min<std::int64_t>(limit_ns, 50'000);
        limit_ns = std::min(limit_ns, std::max<std::int64_t>(0, source.ns_to_deadline(tsc)));
      }
    }
  }
  for (const auto& feed : order_feeds_) {
    limit_ns = std::min(limit_ns, std::max<std::int64_t>(0, feed->wait_for(park_fds_)));
  }
  const auto has_work = [this] { return commands_.front().data() != nullptr; };
  if (command_waker_.prepare_sleep(has_work)) command_waker_.wait(limit_ns, park_fds_);
}

void IngestAgent::every_100ms() noexcept {
  utc_.resync();
  const TsNs now = utc_.now();
  const std::int64_t now_ns = monotonic_ns();
  if (heartbeat_ != nullptr) heartbeat_->heartbeat(now);
  for (auto& lane : lanes_) {
    Feed& feed = *feeds_[lane->feed];
    // A book that nothing leaves from is not valid to anybody outside.
    const auto state = static_cast<std::int64_t>(feed.muted ? md::BookState::Empty : lane->pipeline.state());
    if (state != lane->state.value() || lane->pipeline.epoch() != lane->epoch.value() ||
        lane->since.value() == 0) {
      lane->since.set(now);
    }
    lane->state.set(state);
    lane->epoch.set(lane->pipeline.epoch());
    lane->heard.set((lane->diff_id | lane->trade_id | lane->quote_id) != 0 ? 1 : 0);
    lane->window_overflows.set(static_cast<std::int64_t>(lane->pipeline.window_overflows()));
    lane->levels_dropped.set(static_cast<std::int64_t>(lane->pipeline.book().dropped_levels()));
    lane->rows_beyond_depth.set(static_cast<std::int64_t>(lane->pipeline.rows_beyond_depth()));
    lane->rows_awaiting_trades.set(static_cast<std::int64_t>(lane->pipeline.rows_awaiting_trades()));
    if (!replay_) tell_missing(feed, *lane, now);
    if (replay_ || lane->snapshot == Lane::Snapshot::NotWanted || now_ns < lane->due_ns) continue;
    if (lane->snapshot == Lane::Snapshot::Requested) {
      report(errors_, ErrorKind::SnapshotTimeout, feed.table[lane->id - feed.first_instrument].symbol, now);
      feed.snapshots_failed.add(1);
      snapshot_refused(feed, *lane);
    } else {
      request_snapshot(feed, *lane);
    }
  }
  for (auto& feed : order_feeds_) {
    if (!replay_ && !stopping_) feed->watch();
    feed->count();
  }
  for (auto& feed : feeds_) {
    std::uint64_t old_events = 0;
    std::uint64_t snapshots_expired = 0;
    std::int64_t snapshots_waiting = 0;
    std::uint64_t merged = 0;
    std::uint64_t contradicted = 0;
    std::uint64_t went_back = 0;
    for (std::size_t i = 0; i < feed->config.instruments.size(); ++i) {
      const feed::BookSync& sync = lanes_[feed->first_lane + i]->pipeline.sync();
      const feed::SyncCounts& counts = sync.counts();
      snapshots_waiting += sync.holds_snapshot() ? 1 : 0;
      old_events += counts.ignored;
      merged += counts.snapshots_merged;
      contradicted += counts.snapshots_contradicted;
      went_back += counts.doubted;
      snapshots_expired += counts.snapshots_expired;
    }
    if (replay_ && feed->line != nullptr) feed->input_ts.set(feed->line->ts_recv);
    feed->old_events.set(static_cast<std::int64_t>(old_events - feed->old_events_muted));
    feed->snapshots_expired.set(static_cast<std::int64_t>(snapshots_expired - feed->snapshots_expired_muted));
    feed->snapshots_waiting.set(snapshots_waiting);
    feed->snapshots_merged.set(static_cast<std::int64_t>(merged));
    feed->snapshots_contradicted.set(static_cast<std::int64_t>(contradicted));
    feed->ids_went_back.set(static_cast<std::int64_t>(went_back));
    watch(*feed, now);
  }
}

/// Has nothing come for the book for longer than it may be believed? At `now`, a record's time wherever a
/// record decides.
bool IngestAgent::is_stale(const Feed& feed, const Lane& lane, TsNs now) noexcept {
  return feed.config.stale_after_ns != 0 && now - lane.fresh > feed.config.stale_after_ns &&
         lane.pipeline.state() == md::BookState::Valid;
}

void IngestAgent::on_stale(Feed& feed, Lane& lane, const Arrival& arrival) noexcept {
  const Step step = lane.pipeline.pause();
  if (!step.left_valid) return;
  feed.stale.add(1);
  if (!feed.muted) report(errors_, ErrorKind::DataStale, symbol_of(feed, lane), arrival.ts_recv);
  emit_notice(feed, lane, step.reason, kNoTime, arrival);
}

/// Live: books that nothing came for. The next event would show it too, but it may be long in coming.
void IngestAgent::watch_data(Feed& feed) noexcept {
  for (std::size_t i = 0; i < feed.config.instruments.size(); ++i) {
    Lane& lane = *lanes_[feed.first_lane + i];
    // By the time that has passed: the wall clock may have been set since.
    const auto too_long = [&] {
      return feed.config.stale_after_ns != 0 && lane.pipeline.state() == md::BookState::Valid &&
             monotonic_ns() - lane.fresh_ns > feed.config.stale_after_ns;
    };
    if (!too_long()) continue;
    // We may have been the ones who slept: look at the sockets first.
    for (auto& line : feed.lines) (void)line->poll(utc_);
    if (!too_long()) continue;
    const TsNs now = utc_.now();
    // No message says it, so the recording must.
    if (feed.tap != nullptr) feed.tap->stale(now, lane.id);
    on_stale(feed, lane, {tsc_now(), tsc_now(), now, RecvClock::Read});
  }
}

/// Live: the connections, their counts and what went wrong with them.
void IngestAgent::watch(Feed& feed, TsNs now) noexcept {
  if (replay_) return;
  if (!stopping_ && !feed.muted) watch_data(feed);
  feed::WebSocketStats sum;
  std::uint64_t handovers = 0;
  std::int64_t up = 0;
  std::size_t number = 0;
  for (auto& line : feed.lines) {
    line->check(utc_);
    up += line->up() ? 1 : 0;
    handovers += line->handovers();
    for (std::size_t i = 0; i < FeedLine::sources(); ++i, ++number) {
      const feed::WebSocketSource& source = line->source(i);
      const feed::WebSocketStats& seen = source.stats();
      sum.opens += seen.opens;
      sum.closes += seen.closes;
      sum.connect_failures +=
          seen.lookup_failures + seen.connect_failures + seen.tls_failures + seen.handshake_failures;
      sum.pings_received += seen.pings_received;
      sum.protocol_errors += seen.protocol_errors;
      sum.timeouts += seen.timeouts;
      sum.stamps_capped += seen.stamps_capped;
      feed::WebSocketStats& before = feed.seen[number];
      if (seen.errors != before.errors) {
        report(errors_, new_error(seen, before), source.last_error(), now);
        before = seen;
      }
    }
  }
  feed.connections_up.set(up);
  feed.connects.set(static_cast<std::int64_t>(sum.opens));
  feed.disconnects.set(static_cast<std::int64_t>(sum.closes));
  feed.connect_failures.set(static_cast<std::int64_t>(sum.connect_failures));
  feed.pings.set(static_cast<std::int64_t>(sum.pings_received));
  feed.protocol_errors.set(static_cast<std::int64_t>(sum.protocol_errors));
  feed.timeouts.set(static_cast<std::int64_t>(sum.timeouts));
  feed.handovers.set(static_cast<std::int64_t>(handovers));
  feed.stamps_capped.set(static_cast<std::int64_t>(sum.stamps_capped));
}

// ---------------------------------------------------------------------------------------------------
// Replay

int IngestAgent::replay_turn() noexcept {
  if (finished_.load()) return 0;
  int lines = 0;
  for (; lines < kLinesATurn && outlet_.has_room(); ++lines) {
    // Feeds merge by ts_recv, then in the order of the configuration.
    Feed* next = nullptr;
    for (auto& feed : feeds_) {
      if (feed->line != nullptr && (next == nullptr || feed->line->ts_recv < next->line->ts_recv)) {
        next = feed.get();
      }
    }
    OrderFeed* orders = nullptr;
    for (auto& feed : order_feeds_) {
      if (!feed->at_end() && (orders == nullptr || feed->ts() < orders->ts())) orders = feed.get();
    }
    if (orders != nullptr && (next == nullptr || std::pair(orders->ts(), orders->number()) <
                                                     std::pair(next->line->ts_recv, next->number))) {
      orders->process();
      TICKWIRE_HOT_EXEMPT_BEGIN("replay: reads and decompresses the file where live receives")
      orders->read();
      TICKWIRE_HOT_EXEMPT_END
      continue;
    }
    if (next == nullptr) {
      TICKWIRE_HOT_EXEMPT_BEGIN("a replay's end, once")
      end_replay();
      TICKWIRE_HOT_EXEMPT_END
      break;
    }
    on_line(*next, *next->line);
    TICKWIRE_HOT_EXEMPT_BEGIN("replay: reads and decompresses the capture where live receives")
    next->line = next->reader->next();
    TICKWIRE_HOT_EXEMPT_END
  }
  return lines;
}

/// A line of a replay's capture, or of the one that a warm start reads.
void IngestAgent::on_line(Feed& feed, const md::CaptureLine& line) noexcept {
  switch (line.kind) {
    case md::CaptureKind::Message:
      return on_message(feed, kBookConn, line.body, RecvClock::Recorded, line.ts_recv);
    case md::CaptureKind::BareSnapshot:
      if (feed.table.size() == 1) {
        if (is_bare_partial(feed, line)) return refuse_partial(feed, *lanes_[feed.first_lane], line.ts_recv);
        return on_snapshot(feed, 0, line.body, 0, RecvClock::Recorded, line.ts_recv);
      }
      feed.snapshots_refused.add(1);
      return report(errors_, ErrorKind::SnapshotWithoutInstrument,
                    "a bare REST snapshot line is accepted in a feed of one instrument", line.ts_recv);
    case md::CaptureKind::Open: return on_open(feed, line.conn, line.ts_recv);
    case md::CaptureKind::Close: return on_close(feed, line.conn, line.ts_recv);
    case md::CaptureKind::Warm:
      // Another process begins. Where we are one ourselves, which part of its capture it muted is nothing
      // to us.
      if (!replay_) return;
      for (const std::uint32_t conn : {kBookConn, kTradesConn}) on_open(feed, conn, line.ts_recv);
      feed.muted = true;
      return;
    case md::CaptureKind::Live: return replay_ ? on_live(feed, line.ts_recv) : void();
    case md::CaptureKind::Quiet:
      if (feed.tap != nullptr) feed.tap->quiet(line.ts_recv);
      return feed.stamps.waited(line.ts_recv);
    case md::CaptureKind::Snapshot:
    case md::CaptureKind::Stale:
    case md::CaptureKind::Cold: break;
  }
  const InstrumentId local = feed.table.find(line.instrument);
  if (local == kNoInstrument) {
    TICKWIRE_HOT_EXEMPT_BEGIN("replay: what an input is, for its report")
    feed.witness.other(line.instrument);
    TICKWIRE_HOT_EXEMPT_END
    return feed.unknown_symbol.add(1);
  }
  Lane& lane = *lanes_[feed.first_lane + local];
  if (line.kind == md::CaptureKind::Snapshot) {
    on_snapshot(feed, local, line.body, line.limit, RecvClock::Recorded, line.ts_recv);
  } else if (line.kind == md::CaptureKind::Cold) {
    on_cold(feed, lane, line.ts_recv);
  } else {
    if (feed.tap != nullptr) feed.tap->stale(line.ts_recv, lane.id);
    on_stale(feed, lane, {tsc_now(), tsc_now(), line.ts_recv, RecvClock::Read});
  }
}

/// Does a stream of partial books say this, beside the changes of the same instrument?
bool IngestAgent::is_bare_partial(Feed& feed, const md::CaptureLine& line) noexcept {
  Lane& lane = *lanes_[feed.first_lane];
  md::Event event;
  if (!lane.pipeline.sync().has_diffs() ||
      feed.decoder.decode_snapshot(line.body, 0, RecvClock::Recorded, line.ts_recv, event) != Outcome::Event)
    return false;
  lane.bare_books.saw(event);
  return lane.bare_books.is_partial(event);
}

void IngestAgent::refuse_partial(Feed& feed, const Lane& lane, TsNs ts) noexcept {
  feed.partial_refused.add(1);
  report(errors_, ErrorKind::StreamRefused,
         {symbol_of(feed, lane), ": partial books without their stream's name, beside a stream of changes, ",
          "are not used", Place(*this, feed).view()},
         ts);
}

void IngestAgent::report_capture(Feed& feed) noexcept {
  feed.lines_skipped.set(static_cast<std::int64_t>(feed.reader->skipped_lines()));
  if (feed.reader->truncated()) {
    feed.truncated.set(1);
    report(errors_, ErrorKind::CaptureTruncated, feed.reader->error(), 0);
  }
  if (const std::uint64_t skipped = feed.reader->skipped_lines(); skipped != 0)
    report(errors_, ErrorKind::CaptureLineSkipped, {feed.reader->skipped()}, 0, skipped);
}

/// Where a book left valid. What it came back from is forgotten when the report is made.
void IngestAgent::note_lost(Feed& feed, Lane& lane, md::InvalidReason reason, TsNs ts) noexcept {
  if (is_damage(reason) && !lane.damaged) {
    feed.books_damaged.add(1);
    lane.damaged = true;
  }
  if (!replay_) return;
  TICKWIRE_HOT_EXEMPT_BEGIN("replay: for its report, when a book was lost")
  lane.lost = {reason, &feed.reader->file(), feed.reader->line_number(), ts};
  TICKWIRE_HOT_EXEMPT_END
}

std::vector<CaptureFacts> IngestAgent::capture_facts() const {
  std::vector<CaptureFacts> all;
  if (!replay_ || !finished_.observe()) return all;
  for (const auto& feed : feeds_) {
    CaptureFacts& facts = all.emplace_back();
    facts.feed = feed->config.name;
    facts.stamps = feed->reader->stamps();
    facts.looks_like = feed->witness.looks_like(venue_name(feed->config.market));
    facts.resolution_ns = feed->witness.resolution_ns();
    feed->witness.tell(facts);
    for (std::size_t i = 0; i < feed->config.instruments.size(); ++i) {
      const Lane& lane = *lanes_[feed->first_lane + i];
      const std::string& symbol = feed->config.instruments[i].symbol;
      if (lane.diff_id == 0 && lane.pipeline.epoch() == 0) facts.without_changes.push_back(symbol);
      if (!lane.has_snapshot) facts.without_snapshot.push_back(symbol);
      if (lane.pipeline.epoch() == 0) continue;
      if (!lane.traded) facts.without_trades.push_back(symbol);
      if (lane.pipeline.state() != md::BookState::Valid) {
        CaptureFacts::Lost& lost = facts.lost.emplace_back();
        lost.instrument = symbol;
        lost.state = md::name_of(lane.pipeline.state());
        if (lane.lost.file != nullptr) {
          lost.reason = md::name_of(lane.lost.reason);
          lost.place = *lane.lost.file + ":" + std::to_string(lane.lost.line);
          lost.ts = lane.lost.ts;
        }
      } else if (lane.rows.value() == 0) {
        const auto last = lane.pipeline.warm_last();
        const TsNs now = lane.pipeline.clock();
        if (last.warm_at <= now) continue;
        const bool known = last.warm_at != std::numeric_limits<TsNs>::max();
        facts.not_warm.push_back({symbol, last.feature, known ? last.warm_at - now : -1});
      }
    }
  }
  for (const auto& feed : order_feeds_) feed->tell(all.emplace_back());
  return all;
}

void IngestAgent::end_replay() noexcept {
  for (auto& feed : feeds_) report_capture(*feed);
  tell_all_missing();
  for (auto& feed : order_feeds_) feed->report_files();
  every_100ms();
  finished_.publish(true);
}

// ---------------------------------------------------------------------------------------------------
// A warm start

/// The book of an instrument begins anew, and its windows with it.
void IngestAgent::on_cold(Feed& feed, Lane& lane, TsNs ts) noexcept {
  if (feed.tap != nullptr) feed.tap->cold(ts, lane.id);
  // How far the capture's clock is from ours is said as the reason of that, and is no leap besides.
  feed.stamps.forget();
  lane.diff_id = lane.trade_id = lane.quote_id = 0;
  lane.fresh = 0;
  const Step step = lane.pipeline.restart();
  if (step.left_valid) {
    emit_notice(feed, lane, step.reason, kNoTime, {tsc_now(), tsc_now(), ts, RecvClock::Read});
  }
}

/// From here on rows leave. What was counted so far was of another run.
void IngestAgent::on_live(Feed& feed, TsNs ts) noexcept {
  if (feed.tap != nullptr) feed.tap->live(ts);
  feed.muted = false;
  feed.warm_messages.set(feed.messages.value());
  std::int64_t repeats = feed.old_trades.value() + feed.old_quotes.value();
  for (metrics::Counter* const counter :
       {&feed.messages,      &feed.bytes,          &feed.book_events,    &feed.trades,
        &feed.quotes,        &feed.ignored,        &feed.other_trades,   &feed.unknown_symbol,
        &feed.other_symbol,  &feed.malformed,      &feed.bad_number,     &feed.too_many_levels,
        &feed.gaps,          &feed.crossed,        &feed.old_trades,     &feed.old_quotes,
        &feed.late_trades,   &feed.trade_gaps,     &feed.missing_trades, &feed.became_valid,
        &feed.books_damaged, &feed.books_resynced, &feed.snapshots,      &feed.snapshots_refused,
        &feed.stale}) {
    counter->set(0);
  }
  for (std::size_t i = 0; i < feed.config.instruments.size(); ++i) {
    Lane& lane = *lanes_[feed.first_lane + i];
    const feed::SyncCounts& counts = lane.pipeline.sync().counts();
    lane.counted_from = lane.pipeline.trade_id();
    feed.old_events_muted += counts.ignored;
    repeats += static_cast<std::int64_t>(counts.ignored);
    feed.snapshots_expired_muted += counts.snapshots_expired;
    // A book that goes on became valid for whoever reads us.
    if (lane.pipeline.state() == md::BookState::Valid) feed.became_valid.add(1);
  }
  feed.warm_repeats.set(repeats);
}

/// A warm capture's event, before it is processed.
void IngestAgent::note_captured(Feed& feed, const md::Event& event) noexcept {
  Feed::InCapture& seen = feed.in_capture_of[event.instrument];
  seen.named = true;
  if (event.kind == md::EventKind::BookDiff && feed.compares_clocks)
    feed.join->captured_diff(event.instrument, event.last_id, event.ts_recv, event.ts_event);
}

int IngestAgent::warm_turn(Feed& feed) noexcept {
  switch (feed.warm) {
    case Feed::Warm::No: return 0;
    case Feed::Warm::Reading: {
      const int lines = read_warm(feed);
      if (feed.line != nullptr) return lines;
      feed.warm = Feed::Warm::Joining;
      feed.joining_ns = monotonic_ns();
      for (auto& line : feed.lines) line->start();
      return lines + 1;
    }
    case Feed::Warm::Joining: {
      const int lines = read_warm(feed);
      if (feed.line != nullptr || !decide_warm(feed)) {
        if (!feed.warm_waits.load() && !feed.join->heard() &&
            monotonic_ns() - feed.joining_ns >= WarmJoin::kWriterLagNs)
          feed.warm_waits.publish(true);
        return lines;
      }
      feed.warm = Feed::Warm::HandingOn;
      return lines + 1;
    }
    case Feed::Warm::HandingOn: return hand_on_warm(feed, false);
    case Feed::Warm::Settling:
      if (monotonic_ns() - feed.live_ns < WarmJoin::kMostLagNs) return 0;
      feed.warm = Feed::Warm::No;
      return 1;
  }
  return 0;
}

/// What the capture has, as far as the recorder takes it; a turn's worth.
int IngestAgent::read_warm(Feed& feed) noexcept {
  if (feed.line == nullptr) {
    if (monotonic_ns() - feed.looked_ns < kWarmPollNs) return 0;
    feed.looked_ns = monotonic_ns();
    feed.line = feed.reader->next();
    if (feed.line == nullptr) {
      const std::string next = next_segment(feed.last_file);
      if (next.empty()) return 0;
      // What was written behind our last look at the file before it is read first.
      feed.last_file = next;
      feed.reader->add(next);
      feed.line = feed.reader->next();
    }
  }
  int lines = 0;
  feed.in_capture = true;
  for (; lines < kLinesATurn && feed.line != nullptr; ++lines) {
    if (feed.tap != nullptr && !feed.tap->has_room(feed.line->body.size())) break;
    on_line(feed, *feed.line);
    feed.line = feed.reader->next();
  }
  feed.in_capture = false;
  if (lines != 0) feed.captured_ns = monotonic_ns();
  return lines;
}

bool IngestAgent::decide_warm(Feed& feed) noexcept {
  const TsNs now = utc_.now();
  for (std::size_t i = 0; i < feed.captured.size(); ++i) {
    const Lane& lane = *lanes_[feed.first_lane + i];
    const Feed::InCapture& seen = feed.in_capture_of[i];
    feed.captured[i] = {.valid = lane.pipeline.state() == md::BookState::Valid,
                        .diff_id = lane.pipeline.sequence(),
                        .trade_id = lane.trade_id,
                        .epoch = lane.pipeline.epoch(),
                        .lacks_trades = lane.pipeline.missing_trades() != 0,
                        .may_become_valid = seen.named,
                        .ahead_ns = feed.compares_clocks ? ahead_of(lane, now) : 0};
  }
  if (!feed.join->decide(feed.captured, feed.captured_ns, monotonic_ns())) return false;
  for (std::size_t i = 0; i < feed.captured.size(); ++i) {
    Lane& lane = *lanes_[feed.first_lane + i];
    feed.capture_ends[i] = lane.fresh;
    feed.in_capture_of[i].state = lane.pipeline.state();
    if (feed.join->verdict(i) == WarmJoin::Verdict::Continues) {
      lane.diff_id = lane.pipeline.sequence();
    } else {
      on_cold(feed, lane, now);
    }
  }
  return true;
}

/// By how much what the lane takes for the present is ahead of it.
std::int64_t IngestAgent::ahead_of(const Lane& lane, TsNs now) const noexcept {
  return std::max(windows_on_recv_ ? lane.pipeline.clock() : kNoTime, lane.fresh) - now;
}

int IngestAgent::hand_on_warm(Feed& feed, bool all) noexcept {
  int messages = 0;
  for (WarmJoin::Kept kept; all || messages < kLinesATurn; ++messages) {
    if (!feed.join->front(kept)) {
      end_warm(feed);
      break;
    }
    const feed::WebSocketMessage& message = kept.message;
    if (!all && feed.tap != nullptr && !feed.tap->has_room(message.payload.size())) break;
    if (!feed.line_has(kept.event)) {
      on_message(feed, kept.conn, message.payload, message.recv_clock, message.ts_recv);
    }
    feed.join->pop();
  }
  return messages;
}

void IngestAgent::end_warm(Feed& feed) noexcept {
  on_live(feed, utc_.now());
  feed.warm = Feed::Warm::Settling;
  feed.live_ns = monotonic_ns();
  report_capture(feed);
  for (const md::CaptureStamps& of : feed.reader->stamps()) {
    feed.warm_lines.push_back("warm: " + feed.config.name + " " + of.file + ": receive stamps " +
                              (of.as_nanoseconds ? "are taken for nanoseconds, and look like " : "are ") +
                              std::string(md::name_of(of.form)));
  }
  for (std::size_t i = 0; i < feed.captured.size(); ++i) {
    Lane& lane = *lanes_[feed.first_lane + i];
    if (lane.pipeline.wants_snapshot()) request_snapshot(feed, lane);
    feed.warm_lines.push_back("warm: " + feed.config.name + " " + feed.config.instruments[i].symbol + ": " +
                              warm_verdict(feed, i));
  }
  feed.warm_told.publish(true);
}

/// What became of an instrument, for people.
std::string IngestAgent::warm_verdict(const Feed& feed, std::size_t local) const {
  using Verdict = WarmJoin::Verdict;
  const InstrumentPipeline& pipeline = lanes_[feed.first_lane + local]->pipeline;
  const Feed::InCapture& seen = feed.in_capture_of[local];
  const WarmJoin::Captured& captured = feed.captured[local];
  const LineEvent& diff = feed.join->first_diff(local);
  const LineEvent& trade = feed.join->first_trade(local);
  const std::string cold = "; not contiguous, starts cold";
  switch (feed.join->verdict(local)) {
    case Verdict::Continues:
      if (pipeline.state() != md::BookState::Valid)
        return "the feed did not follow the capture's id " + grouped(captured.diff_id) + ", starts cold";
      return "continues the capture at id " + grouped(captured.diff_id) + ", in epoch " +
             std::to_string(pipeline.epoch()) + " after row " + grouped(pipeline.row());
    case Verdict::NoBook:
      if (!seen.named) return "the capture never names it, starts cold";
      if (!seen.snapshot)
        return "the capture has no snapshot of its book (a run's later file, without its first?), starts "
               "cold";
      if (seen.state == md::BookState::Empty) return "the capture ends with its connection down, starts cold";
      return "the capture ends while its book is " + std::string(md::name_of(seen.state)) +
             " and waits for a snapshot, starts cold";
    case Verdict::BookGap: {
      const TsNs gap = feed.join->first_diff_ts(local) - feed.capture_ends[local];
      return "the capture ends at id " + grouped(captured.diff_id) + ", " +
             seconds(std::max<TsNs>(gap, -gap)) + (gap >= 0 ? " before" : " after") +
             " the feed's first, which follows id " + grouped(diff.previous_id) + cold;
    }
    case Verdict::TradeGap:
      return (captured.trade_id == 0 ? std::string("the capture has no trade")
                                     : "the capture's last trade is " + grouped(captured.trade_id)) +
             ", the feed's first is " + grouped(trade.last_id) + cold;
    case Verdict::TradeHole:
      return "the capture lacks " +
             (seen.lacks_from == seen.lacks_to ? "trade " : "trades " + grouped(seen.lacks_from) + " to ") +
             grouped(seen.lacks_to) + cold;
    case Verdict::Clock: {
      const std::int64_t ahead_ns = feed.join->clock_ahead_ns(local);
      return "the capture's clock is " + seconds(std::max(ahead_ns, -ahead_ns)) +
             (ahead_ns > 0 ? " ahead of ours" : " behind ours") + ", starts cold";
    }
    case Verdict::Silent:
      return "the capture ends at id " + grouped(captured.diff_id) + ", and the feed said nothing of its " +
             (diff.last_id != 0 ? "trades" : "book") + " that would continue it" + cold;
  }
  return {};
}

std::vector<std::string> IngestAgent::socket_report() const {
  std::vector<std::string> lines;
  for (const auto& feed : order_feeds_) {
    for (std::string& line : feed->socket_report()) lines.push_back(std::move(line));
  }
  return lines;
}

std::vector<std::string> IngestAgent::warm_report() const {
  std::vector<std::string> lines;
  for (const auto& feed : feeds_) {
    if (feed->warm_told.observe()) {
      lines.insert(lines.end(), feed->warm_lines.begin(), feed->warm_lines.end());
    } else if (feed->warm_waits.observe()) {
      lines.push_back("warm: " + feed->config.name + ": waits for the feed");
    }
  }
  return lines;
}

// ---------------------------------------------------------------------------------------------------
// What arrives

void IngestAgent::on_message(Feed& feed, std::uint32_t conn, std::span<const char> message, RecvClock clock,
                             TsNs ts_recv, std::int64_t unseen_ns) noexcept {
  Arrival arrival{tsc_now(), 0, ts_recv, clock,
                  static_cast<std::uint32_t>(std::min<std::int64_t>(unseen_ns / 1000, kMostUnseenUs))};
  feed.messages.add(1);
  feed.bytes.add(static_cast<std::int64_t>(message.size()));

  md::Event event;
  const Outcome outcome = feed.decoder.decode(message, clock, ts_recv, event);
  arrival.tsc_decoded = tsc_now();
  if (replay_) [[unlikely]] {
    TICKWIRE_HOT_EXEMPT_BEGIN("replay: what an input is, for its report")
    feed.witness.saw(message);
    if (outcome == Outcome::Event) feed.witness.stamped(windows_on_recv_ ? ts_recv : event.ts_event);
    if (outcome == Outcome::UnknownSymbol) feed.witness.other(feed.decoder.symbol());
    TICKWIRE_HOT_EXEMPT_END
  }
  if (!feed.muted) stages_.record(signal::Stage::Decode, tsc_span_ns(arrival.tsc_start, arrival.tsc_decoded));
  // What is no event moves no window, and neither does a quote; an answer to a request may come between the
  // lines of a warm capture.
  const bool leaps = outcome == Outcome::Event && event.kind != md::EventKind::Quote &&
                     on_stamps(feed, ts_recv, event.ts_event, arrival);
  if (outcome == Outcome::Event) [[likely]] {
    Lane& lane = *lanes_[feed.first_lane + event.instrument];
    if (feed.in_capture) [[unlikely]]
      note_captured(feed, event);
    switch (event.kind) {
      case md::EventKind::BookDiff:
        if (!event.named && lane.unnamed_refused != 0 &&
            feed::binance::exact_partial_shape(event) == lane.unnamed_refused) [[unlikely]] {
          refuse_partial(feed, lane, ts_recv);
          break;
        }
        if (!event.named && lane.unnamed_partial != 0) [[unlikely]] {
          event.kind = md::EventKind::PartialBook;
          event.limit = lane.unnamed_partial;
          on_book(feed, lane, event, arrival);
          break;
        }
        feed.book_events.add(1);
        on_book(feed, lane, event, arrival);
        break;
      case md::EventKind::PartialBook:
        if (lane.pipeline.sync().has_diffs()) {
          feed.partial_refused.add(1);
          report(errors_, ErrorKind::StreamRefused,
                 {feed.decoder.stream(), ": partial books beside a stream of changes are not used",
                  Place(*this, feed).view()},
                 ts_recv);
          break;
        }
        on_book(feed, lane, event, arrival);
        break;
      case md::EventKind::Trade: {
        feed.trades.add(1);
        lane.traded = true;
        // It says nothing of the book, but what time it is.
        if (is_stale(feed, lane, ts_recv)) [[unlikely]]
          on_stale(feed, lane, arrival);
        end_at_holes(feed, lane, arrival);
        const Step step = lane.pipeline.on_trade(event);
        lane.trade_id = lane.pipeline.trade_id();
        if (step.repeated || lane.pipeline.trade_step().late || lane.pipeline.trade_step().missing != 0)
            [[unlikely]]
          note_trade_ids(feed, lane, event);
        if (!step.repeated) finish(feed, lane, step, event, arrival);
        break;
      }
      case md::EventKind::Quote:
        feed.quotes.add(1);
        on_quote(feed, lane, event);
        break;
      case md::EventKind::BookSnapshot: break;  // Comes by REST, never in a message.
    }
  } else {
    refuse(feed, conn, message, outcome, event, arrival);
  }
  if (leaps) [[unlikely]]
    trust(feed);
  // After the signal is out, so that recording costs it nothing.
  if (feed.tap != nullptr) feed.tap->message(ts_recv, message);
}

/// A trade whose id is not the next.
void IngestAgent::note_trade_ids(Feed& feed, Lane& lane, const md::Event& event) noexcept {
  const feed::TradeSequence::Step& found = lane.pipeline.trade_step();
  if (found.repeated) return feed.old_trades.add(1);
  if (found.late) {
    feed.late_trades.add(1);
    if (event.trade.id <= lane.counted_from) return;
    feed.missing_trades.add(-1);
    return feed.trade_gaps.add(found.filled ? -1 : 0);
  }
  feed.trade_gaps.add(1);
  feed.missing_trades.add(static_cast<std::int64_t>(found.missing));
  const IdText id(event.trade.id);
  if (found.anew) {
    if (!feed.muted)
      report(errors_, ErrorKind::TradesMissing,
             {symbol_of(feed, lane), ": the venue's numbers begin anew with ", id.view()}, event.ts_recv);
    return;
  }
  if (feed.in_capture) {
    Feed::InCapture& seen = feed.in_capture_of[event.instrument];
    seen.lacks_from = event.trade.id - found.missing;
    seen.lacks_to = event.trade.id - 1;
  }
}

/// Before an event is looked at: which holes in the trades' ids its time shows to be none that a late trade
/// fills, and whether the epoch ends at them.
void IngestAgent::end_at_holes(Feed& feed, Lane& lane, const Arrival& arrival) noexcept {
  if (!lane.pipeline.trades().has_holes() && !lane.pipeline.lost_trades(arrival.ts_recv)) [[likely]]
    return;
  tell_missing(feed, lane, arrival.ts_recv);
  if (!lane.pipeline.lost_trades(arrival.ts_recv)) return;
  const Step step = lane.pipeline.end_at_trade_gap();
  if (step.left_valid) emit_notice(feed, lane, step.reason, kNoTime, arrival);
}

/// At the end: nothing comes late any more.
void IngestAgent::tell_all_missing() noexcept {
  for (auto& lane : lanes_) tell_missing(*feeds_[lane->feed], *lane, std::numeric_limits<TsNs>::max());
}

/// Of which trades it is known at `now` that they are missing.
void IngestAgent::tell_missing(Feed& feed, Lane& lane, TsNs now) noexcept {
  for (feed::TradeSequence::Hole hole; lane.pipeline.trades().take_overdue(now, hole);) {
    if (feed.muted) continue;
    const IdText from(hole.first);
    const IdText to(hole.last);
    const IdText left(hole.left);
    if (hole.first == hole.last) {
      report(errors_, ErrorKind::TradesMissing, {symbol_of(feed, lane), ": id ", from.view()}, hole.since);
    } else if (hole.left == hole.last - hole.first + 1) {
      report(errors_, ErrorKind::TradesMissing,
             {symbol_of(feed, lane), ": ids ", from.view(), " to ", to.view()}, hole.since);
    } else {
      report(errors_, ErrorKind::TradesMissing,
             {symbol_of(feed, lane), ": ", left.view(), " of the ids ", from.view(), " to ", to.view()},
             hole.since);
    }
  }
}

/// Rows need no quotes, but a replacement of the connection goes by the newest.
void IngestAgent::on_quote(Feed& feed, Lane& lane, const md::Event& event) noexcept {
  const bool old = event.last_id <= lane.quote_id;
  if (old && !lane.old_quotes.old(event.last_id, event.ts_recv)) return feed.old_quotes.add(1);
  lane.old_quotes.fresh(event.ts_recv);
  lane.quote_id = event.last_id;
}

/// An event of the book, whether it says what changed or what the best levels are.
void IngestAgent::on_book(Feed& feed, Lane& lane, const md::Event& event, const Arrival& arrival) noexcept {
  const TsNs ts_recv = arrival.ts_recv;
  if (is_stale(feed, lane, ts_recv)) [[unlikely]]
    on_stale(feed, lane, arrival);
  end_at_holes(feed, lane, arrival);
  Step step;
  if (event.kind == md::EventKind::PartialBook) [[unlikely]] {
    feed.partial_books.add(1);
    step = lane.pipeline.on_partial(event);
    if (step.snapshot_refused) count_refused(feed, lane, step, ts_recv);
  } else {
    const std::uint64_t doubted = lane.pipeline.sync().counts().doubted;
    step = lane.pipeline.on_diff(event);
    if (lane.pipeline.sync().counts().doubted != doubted) [[unlikely]]
      report(errors_, ErrorKind::IdsWentBack,
             {symbol_of(feed, lane),
              ": an id that was passed, of a message "
              "that repeats none of the last ones: the venue may count anew"},
             ts_recv);
  }
  if (step.repeated) [[unlikely]]
    return;
  lane.diff_id = event.last_id;
  lane.fresh = std::max(lane.fresh, ts_recv);
  lane.fresh_ns = tsc_to_ns(arrival.tsc_start);
  if (!feed.muted) stages_.record(signal::Stage::Book, tsc_span_ns(arrival.tsc_decoded, step.tsc_book));
  finish(feed, lane, step, event, arrival);
  if (lane.pipeline.merging()) [[unlikely]]
    merge(feed, lane, arrival);
}

/// A slice of a snapshot that joins a book. It is no event: all that can leave is the news that the book left
/// valid, or has become it.
void IngestAgent::merge(Feed& feed, Lane& lane, const Arrival& arrival) noexcept {
  const feed::SyncCounts& counts = lane.pipeline.sync().counts();
  const std::uint64_t contradicted = counts.snapshots_contradicted;
  const std::uint64_t merged = counts.snapshots_merged;
  md::Event none{};
  none.ts_event = kNoTime;
  const Step step = lane.pipeline.merge(arrival.ts_recv);
  if (counts.snapshots_merged != merged) lane.depth_pause_ns = kDepthPauseNs;
  if (counts.snapshots_contradicted != contradicted) {
    lane.depth_pause_ns = std::min(2 * lane.depth_pause_ns, kMaxDepthPauseNs);
    lane.depth_due_ns = monotonic_ns() + lane.depth_pause_ns;
    report(errors_, ErrorKind::SnapshotContradicts, symbol_of(feed, lane), arrival.ts_recv);
  }
  finish(feed, lane, step, none, arrival);
}

void IngestAgent::count_refused(Feed& feed, const Lane& lane, const Step& step, TsNs ts_recv) noexcept {
  feed.snapshots_refused.add(1);
  feed.snapshots_by_fault[static_cast<std::size_t>(step.fault)]->add(1);
  report(errors_, ErrorKind::SnapshotRefused,
         {symbol_of(feed, lane), ": ", feed::name_of(step.fault), Place(*this, feed).view()}, ts_recv);
}

/// A message's stamps against those before it. Where one leaps, no book of the feed is valid before the
/// message behind this one, and windows begin anew: whether this stamp is wrong, or those before it were, is
/// not known.
bool IngestAgent::on_stamps(Feed& feed, TsNs ts_recv, TsNs ts_event, const Arrival& arrival) noexcept {
  const StampWatch::Leaps leaps =
      feed.stamps.follow(ts_recv, ts_event, replay_ || feed.in_capture ? 0 : arrival.tsc_start);
  // No message says that it was a silence, so the recording must.
  if (leaps.waited && feed.tap != nullptr) [[unlikely]]
    feed.tap->quiet(ts_recv);
  // A warm capture of another clock: where windows do not go by it, nothing but the age of the data did.
  const bool recv = leaps.recv && (windows_on_recv_ || !feed.muted);
  const bool event = leaps.event && !windows_on_recv_;
  if (!leaps.recv && !event) [[likely]]
    return false;
  for (std::size_t i = 0; i < feed.config.instruments.size(); ++i) {
    lanes_[feed.first_lane + i]->fresh = ts_recv;
  }
  if (!recv && !event) return false;
  feed.clock_leaps.add(1);
  if (!feed.muted) {
    if (recv) feed.stamps.tell_recv(errors_, feed.config.name, ts_recv);
    if (event) feed.stamps.tell_event(errors_, feed.config.name, ts_recv);
  }
  for (std::size_t i = 0; i < feed.config.instruments.size(); ++i) {
    Lane& lane = *lanes_[feed.first_lane + i];
    const Step step = lane.pipeline.doubt_clock();
    if (step.left_valid) emit_notice(feed, lane, step.reason, kNoTime, arrival);
  }
  return true;
}

void IngestAgent::trust(Feed& feed) noexcept {
  for (std::size_t i = 0; i < feed.config.instruments.size(); ++i) {
    lanes_[feed.first_lane + i]->pipeline.trust_clock();
  }
}

void IngestAgent::refuse(Feed& feed, std::uint32_t conn, std::span<const char> message, Outcome outcome,
                         const md::Event& event, const Arrival& arrival) noexcept {
  md::InvalidReason reason = md::InvalidReason::None;
  switch (outcome) {
    case Outcome::Event: return;
    case Outcome::Ignored: return feed.ignored.add(1);
    case Outcome::OtherTradeStream: return feed.other_trades.add(1);
    case Outcome::UnknownSymbol: return feed.unknown_symbol.add(1);
    case Outcome::OtherStream:
      feed.other_streams.add(1);
      return report(
          errors_, ErrorKind::StreamRefused,
          {feed.decoder.stream(), ": book changes of another kind are not used", Place(*this, feed).view()},
          arrival.ts_recv);
    case Outcome::OtherSymbol:
      // Of whose book it would have been nobody knows; what either has missed shows in its ids.
      feed.other_symbol.add(1);
      return report(errors_, ErrorKind::StreamRefused,
                    {Excerpt(feed.decoder.stream()).view(), ": a message of ",
                     Excerpt(feed.decoder.symbol()).view(), " is not used", Place(*this, feed).view()},
                    arrival.ts_recv);
    case Outcome::Shutdown:
      feed.shutdown_notices.add(1);
      // In a capture it was said to somebody else.
      if (!replay_ && !feed.in_capture) feed.lines[conn]->replace();
      return;
    case Outcome::SubscribeError:
      feed.subscribe_errors.add(1);
      return report(errors_, ErrorKind::SubscribeRefused,
                    {feed.config.name, ": ", {message.data(), message.size()}}, arrival.ts_recv);
    case Outcome::Malformed:
      feed.malformed.add(1);
      reason = md::InvalidReason::Malformed;
      report_refused(feed, ErrorKind::MessageMalformed, outcome, event.instrument, message, arrival.ts_recv);
      break;
    case Outcome::BadNumber:
      feed.bad_number.add(1);
      reason = md::InvalidReason::BadNumber;
      report_refused(feed, ErrorKind::MessageBadNumber, outcome, event.instrument, message, arrival.ts_recv);
      break;
    case Outcome::TooManyLevels:
      feed.too_many_levels.add(1);
      reason = md::InvalidReason::TooManyLevels;
      report_refused(feed, ErrorKind::MessageTooManyLevels, outcome, event.instrument, message,
                     arrival.ts_recv);
      break;
  }
  if (event.instrument == kNoInstrument) return;
  // A message for this instrument is lost, so its book is: what it said is unknown.
  Lane& lane = *lanes_[feed.first_lane + event.instrument];
  if (event.kind == md::EventKind::PartialBook && lane.pipeline.sync().has_diffs()) return;
  finish(feed, lane, lane.pipeline.on_damaged(reason), event, arrival);
}

/// Says which instrument's message was refused and for which value and, where a setting of the user's is
/// behind it, which.
void IngestAgent::report_refused(const Feed& feed, ErrorKind kind, Outcome outcome, InstrumentId local,
                                 std::span<const char> message, TsNs ts) noexcept {
  const feed::binance::Decoder::Refused refused = feed.decoder.refused();
  const Excerpt value(refused.key.empty() ? std::string_view(message.data(), message.size()) : refused.value);
  const Place place(*this, feed);
  if (local == kNoInstrument) {
    if (!refused.key.empty()) {
      return report(errors_, kind,
                    {feed.config.name, ": ", refused.key, " = \"", value.view(), "\"", place.view()}, ts);
    }
    return report(errors_, kind,
                  {feed.config.name, ": a message that names none of its instruments: \"", value.view(), "\"",
                   place.view()},
                  ts);
  }
  const InstrumentConfig& instrument = feed.config.instruments[local];
  if (outcome != Outcome::BadNumber) {
    if (!refused.key.empty()) {
      return report(errors_, kind,
                    {instrument.symbol, ": ", name_of(outcome), ": ", refused.key, " = \"", value.view(),
                     "\"", place.view()},
                    ts);
    }
    return report(errors_, kind,
                  {instrument.symbol, ": ", name_of(outcome), ": \"", value.view(), "\"", place.view()}, ts);
  }
  const std::string_view text = refused.value;
  const bool number = text.find_first_not_of("0123456789.eE+-") == std::string_view::npos &&
                      text.find_first_of("0123456789") != std::string_view::npos;
  if (!number || text.starts_with('-')) {
    return report(errors_, kind,
                  {instrument.symbol, ": a price or quantity that is ", number ? "below zero" : "no number",
                   ": ", refused.key, " = \"", value.view(), "\"", place.view()},
                  ts);
  }
  const Digits price(instrument.price_decimals);
  const Digits qty(instrument.qty_decimals);
  report(errors_, kind,
         {instrument.symbol, ": a price or quantity that does not fit price_decimals = ", price.view(),
          ", qty_decimals = ", qty.view(), ": ", refused.key, " = \"", value.view(), "\"", place.view()},
         ts);
}

void IngestAgent::on_snapshot(Feed& feed, InstrumentId local, std::span<const char> body, std::uint32_t limit,
                              RecvClock clock, TsNs ts_recv) noexcept {
  Lane& lane = *lanes_[feed.first_lane + local];
  Arrival arrival{tsc_now(), 0, ts_recv, clock};
  md::Event event;
  const Outcome outcome = feed.decoder.decode_snapshot(body, local, clock, ts_recv, event);
  arrival.tsc_decoded = tsc_now();
  if (outcome != Outcome::Event) {
    feed.snapshots_refused.add(1);
    if (outcome == Outcome::Malformed && feed.decoder.refused().key.empty()) {
      report(errors_, ErrorKind::SnapshotMalformed,
             {symbol_of(feed, lane), ": it reads ", {body.data(), std::min<std::size_t>(body.size(), 120)}},
             ts_recv);
    } else {
      report_refused(feed, ErrorKind::SnapshotMalformed, outcome, local, body, ts_recv);
    }
    if (!replay_ && !feed.muted) snapshot_refused(feed, lane);
    return;
  }
  event.limit = limit;
  if (lane.bare_partial && limit == 0) {
    event.kind = md::EventKind::PartialBook;
    return on_book(feed, lane, event, arrival);
  }
  feed.snapshots.add(1);
  lane.has_snapshot = true;
  if (feed.in_capture) feed.in_capture_of[local].named = feed.in_capture_of[local].snapshot = true;
  if (lane.snapshot == Lane::Snapshot::Requested) lane.snapshot = Lane::Snapshot::NotWanted;
  const Step step = lane.pipeline.on_snapshot(event);
  // Before finish(), which may ask for another: the file says what happened in its order.
  if (feed.tap != nullptr) feed.tap->snapshot(ts_recv, lane.id, limit, body);
  if (step.snapshot_refused) {
    count_refused(feed, lane, step, ts_recv);
    // The next one is asked for after a pause.
    if (!replay_ && !feed.muted) snapshot_refused(feed, lane);
  } else if (lane.pipeline.merging()) {
    lane.attempts = 0;
  }
  finish(feed, lane, step, event, arrival);
  if (lane.pipeline.merging()) merge(feed, lane, arrival);
}

void IngestAgent::on_open(Feed& feed, std::uint32_t conn, TsNs ts) noexcept {
  if (feed.tap != nullptr) feed.tap->open(ts, conn);
  const Arrival arrival{tsc_now(), tsc_now(), ts, RecvClock::Read};
  // How long the feed was away is no leap.
  if (conn == kBookConn) feed.stamps.forget();
  for (std::size_t i = 0; i < feed.config.instruments.size(); ++i) {
    Lane& lane = *lanes_[feed.first_lane + i];
    if ((conn == kTradesConn) == (feed.lines.size() > 1)) lane.trade_id = 0;
    lane.pipeline.resume_trades();
    if (conn != kBookConn) {
      lane.pipeline.unblock();
      continue;
    }
    lane.diff_id = lane.quote_id = 0;
    lane.snapshot = Lane::Snapshot::NotWanted;
    lane.attempts = 0;
    const Step step = lane.pipeline.on_open();
    if (step.left_valid) emit_notice(feed, lane, step.reason, kNoTime, arrival);
    // At once and not with the first event: whether the venue knows the symbol at all is said by its answer,
    // and of a symbol that it does not know no event ever comes. The subscription stands, so what the
    // snapshot lacks will come.
    if (!replay_ && !feed.muted && !stopping_) request_snapshot(feed, lane);
  }
}

void IngestAgent::on_close(Feed& feed, std::uint32_t conn, TsNs ts) noexcept {
  // Our own stop is not the venue's doing: it is no part of the recording.
  if (feed.tap != nullptr && !stopping_) feed.tap->close(ts, conn);
  const Arrival arrival{tsc_now(), tsc_now(), ts, RecvClock::Read};
  for (std::size_t i = 0; i < feed.config.instruments.size(); ++i) {
    Lane& lane = *lanes_[feed.first_lane + i];
    if (conn == kBookConn) lane.snapshot = Lane::Snapshot::NotWanted;
    const Step step = conn == kBookConn ? lane.pipeline.on_close() : lane.pipeline.block();
    if (step.left_valid)
      emit_notice(feed, lane, stopping_ ? md::InvalidReason::Stopped : step.reason, kNoTime, arrival);
  }
}

// ---------------------------------------------------------------------------------------------------
// What leaves

void IngestAgent::finish(Feed& feed, Lane& lane, const Step& step, const md::Event& event,
                         const Arrival& arrival) noexcept {
  if (step.row && !feed.muted) {
    lane.rows.add(1);
    outlet_.row(of(lane, lane.pipeline.row(), event.ts_event), lane.pipeline.history(), step, arrival);
  }
  if (step.left_valid) [[unlikely]] {
    if (step.reason == md::InvalidReason::Gap) feed.gaps.add(1);
    if (step.reason == md::InvalidReason::Crossed) feed.crossed.add(1);
    emit_notice(feed, lane, step.reason, event.ts_event, arrival);
  }
  if (step.became_valid) [[unlikely]] {
    feed.became_valid.add(1);
    if (lane.damaged) feed.books_resynced.add(1);
    lane.damaged = false;
    lane.valid_since_ns = monotonic_ns();
    // A snapshot that fitted is no reason to give up, so the pauses grow no longer than this.
    lane.attempts = std::min(lane.attempts, kAttemptsWhileItFits);
    lane.fresh = std::max(lane.fresh, arrival.ts_recv);
    lane.fresh_ns = tsc_to_ns(arrival.tsc_start);
  }
  if (lane.snapshot == Lane::Snapshot::NotWanted && lane.pipeline.wants_snapshot() && !replay_ && !feed.muted)
      [[unlikely]] {
    // A book that lasted is asked for at once; one that breaks again and again, after a pause.
    if (lane.valid_since_ns != 0 && monotonic_ns() - lane.valid_since_ns >= kHealthyAfterNs)
      lane.attempts = 0;
    if (lane.attempts == 0) {
      request_snapshot(feed, lane);
    } else {
      snapshot_refused(feed, lane);
    }
  } else if (lane.pipeline.wants_depth() && !replay_ && !feed.muted &&
             lane.snapshot == Lane::Snapshot::NotWanted) [[unlikely]] {
    const std::int64_t now = monotonic_ns();
    if (now >= lane.depth_due_ns) {
      lane.depth_due_ns = now + lane.depth_pause_ns;
      lane.attempts = 0;
      request_snapshot(feed, lane);
    }
  }
}

/// A row, or a notice, of an instrument.
RowOutlet::Of IngestAgent::of(const Lane& lane, std::uint64_t row, TsNs ts_event) const noexcept {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();
  const InstrumentPipeline& pipeline = lane.pipeline;
  return {.instrument = lane.id,
          .epoch = pipeline.epoch(),
          .row = row,
          .sequence = pipeline.sequence(),
          .ts_event = ts_event,
          .missing_trades =
              needs_trades_ ? static_cast<std::uint32_t>(std::min(pipeline.missing_trades(), kMost)) : 0};
}

void IngestAgent::emit_notice(Feed& feed, Lane& lane, md::InvalidReason reason, TsNs ts_event,
                              const Arrival& arrival) noexcept {
  note_lost(feed, lane, reason, arrival.ts_recv);
  if (feed.muted) return;
  feed.left_valid.add(1);
  lane.left_valid.add(1);
  lane.reason.set(static_cast<std::int64_t>(reason));
  outlet_.notice(of(lane, 0, ts_event), lane.pipeline.state(), reason, arrival);
}

// ---------------------------------------------------------------------------------------------------
// Snapshots

const std::string& IngestAgent::symbol_of(const Feed& feed, const Lane& lane) const noexcept {
  return feed.config.instruments[lane.id - feed.first_instrument].symbol;
}

void IngestAgent::request_snapshot(Feed& feed, Lane& lane) noexcept {
  std::byte* slot = requests_.try_claim();
  if (slot == nullptr) {
    // The control plane is behind by a thousand requests: ask again with the next turn of the timer.
    lane.snapshot = Lane::Snapshot::WaitingToRetry;
    lane.due_ns = monotonic_ns();
    return;
  }
  ++lane.attempts;
  const SnapshotRequest request{feed.number, lane.id, lane.attempts};
  std::memcpy(slot, &request, sizeof request);
  requests_.publish();
  control_.notify();
  feed.snapshot_requests.add(1);
  lane.snapshot = Lane::Snapshot::Requested;
  lane.due_ns = monotonic_ns() + kAnswerTimeoutNs;
}

void IngestAgent::snapshot_refused(Feed& feed, Lane& lane) noexcept {
  // Doubling pauses with jitter; after the allowed number of attempts the instrument stays suspect and
  // is tried once a minute, which no venue takes amiss.
  std::int64_t pause_ns = kMaxBackoffNs;
  if (lane.attempts < feed.config.snapshot_retries) {
    const std::uint32_t doublings = std::min<std::uint32_t>(lane.attempts, 16);
    pause_ns = std::min(kMaxBackoffNs, feed.config.snapshot_backoff_ns << doublings >> 1U);
    pause_ns =
        pause_ns / 2 + static_cast<std::int64_t>(tsc_now() % static_cast<std::uint64_t>(pause_ns / 2 + 1));
  } else if (lane.attempts == feed.config.snapshot_retries) {
    feed.snapshots_given_up.add(1);
    report(errors_, ErrorKind::SnapshotGivenUp, symbol_of(feed, lane), utc_.now());
  }
  lane.snapshot = Lane::Snapshot::WaitingToRetry;
  lane.due_ns = monotonic_ns() + pause_ns;
}

/// The venue has said when it may be asked again: that is no try that failed. Where it is far off, the
/// control plane is asked sooner, so that its words stay true.
void IngestAgent::snapshot_held_back(const Feed& feed, Lane& lane, std::int64_t pause_ns) noexcept {
  if (lane.attempts > 0) --lane.attempts;
  lane.snapshot = Lane::Snapshot::WaitingToRetry;
  // No sooner than after a first try, whatever the venue would allow.
  const std::int64_t least_ns = std::min(feed.config.snapshot_backoff_ns, kMaxBackoffNs);
  lane.due_ns = monotonic_ns() + std::clamp(pause_ns, least_ns, kMaxBackoffNs);
}

int IngestAgent::take_commands() noexcept {
  int taken = 0;
  for (;;) {
    const std::span<const std::byte> message = commands_.front();
    if (message.data() == nullptr) return taken;
    Command command;
    std::memcpy(&command, message.data(), sizeof command);
    Lane& lane = *lanes_[command.instrument - first_instrument_];
    Feed& feed = *feeds_[lane.feed];
    const InstrumentId local = command.instrument - feed.first_instrument;
    // A reply that nobody waits for any more, as after a re-connect, would be older than the buffer.
    const bool expected = lane.snapshot == Lane::Snapshot::Requested;
    const std::size_t size = message.size() - sizeof command;
    std::memcpy(command_body_.data(), message.data() + sizeof command, size);
    if (expected && command.kind == Command::Kind::Snapshot) {
      on_snapshot(feed, local, {command_body_.data(), size}, feed.config.snapshot_limit, RecvClock::Read,
                  utc_.now());
    } else if (expected) {
      feed.snapshots_failed.add(1);
      report(errors_, ErrorKind::SnapshotFailed, {command_body_.data(), size}, utc_.now());
      if (command.pause_ns > 0) {
        snapshot_held_back(feed, lane, command.pause_ns);
      } else {
        snapshot_refused(feed, lane);
      }
    }
    commands_.pop();
    ++taken;
  }
}

}  // namespace tickwire::engine

// The live half of a feed by price: its connections.

#include <algorithm>
#include <limits>

#include "tickwire/engine/ingest/price_feed.hpp"
#include "tickwire/venue/binance/stream_name.hpp"

namespace tickwire::engine {

namespace {

using venue::binance::Outcome;

constexpr std::size_t kSendBufferBytes = 256U << 10U;  // A subscription to a thousand streams, and pongs.
constexpr std::int64_t kConnectTimeoutNs = 10'000'000'000;
constexpr std::int64_t kCloseTimeoutNs = 2'000'000'000;
constexpr std::int64_t kHealthyAfterNs = 10'000'000'000;  // Then a loss is a new one, not the old one again.
constexpr std::int64_t kWriteWaitNs = 50'000;  // Waiting to write is rare and short: no sleeping on it.

/// What kind of error the source met since it was last looked at; of several the rarer one.
ErrorKind new_error(const net::WebSocketStats& now, const net::WebSocketStats& before) noexcept {
  if (now.protocol_errors != before.protocol_errors) return ErrorKind::ConnectionProtocol;
  if (now.tls_failures != before.tls_failures) return ErrorKind::ConnectionTls;
  if (now.handshake_failures != before.handshake_failures) return ErrorKind::ConnectionHandshake;
  if (now.lookup_failures != before.lookup_failures) return ErrorKind::ConnectionLookup;
  if (now.connect_failures != before.connect_failures) return ErrorKind::ConnectionRefused;
  return ErrorKind::Connection;
}

std::int64_t monotonic_ns() noexcept { return tsc_to_ns(tsc_now()); }

}  // namespace

/// Set-up.
void PriceFeed::connect(Arena& arena) {
  const auto add = [&](std::uint32_t conn, const std::string& url, const std::vector<std::string>& streams,
                       const char* key) {
    const bool trades_apart = !config_.subscribe_trades.empty();
    lines_.push_back(std::make_unique<FeedLine>(
        static_cast<FeedLine::Owner&>(*this),
        FeedLine::Config{.conn = conn,
                         .instruments = config_.instruments.size(),
                         .diffs = conn == kBookConn,
                         .trades = (conn == kTradesConn) == trades_apart,
                         .max_age_ns = config_.max_connection_age_ns,
                         .liveness_timeout_ns = config_.liveness_timeout_ns},
        net::WebSocketConfig{.url = url,
                             .ca_file = config_.ca_file,
                             .on_open = {venue::binance::subscribe_message(streams)},
                             .headers = {},
                             .max_frame_bytes = config_.max_frame_bytes,
                             .send_buffer_bytes = kSendBufferBytes,
                             .connect_timeout_ns = kConnectTimeoutNs,
                             .close_timeout_ns = kCloseTimeoutNs,
                             .reconnect_min_ns = config_.reconnect_min_ns,
                             .reconnect_max_ns = config_.reconnect_max_ns,
                             .healthy_after_ns = kHealthyAfterNs},
        "feeds[" + std::to_string(number_) + "]" + key, arena));
  };
  add(kBookConn, config_.url, config_.subscribe, "");
  if (!config_.subscribe_trades.empty())
    add(kTradesConn, config_.trades_url, config_.subscribe_trades, ".trades");
}

void PriceFeed::start() noexcept {
  // Who reads the capture that it begins with opens them.
  if (muted_) return;
  // Until the trades come, no book may be valid: whoever replays this must know.
  if (lines_.size() > 1) close(kTradesConn, clock_.now());
  start_connections();
}

void PriceFeed::start_connections() noexcept {
  for (auto& line : lines_) line->start();
}

void PriceFeed::stop() noexcept {
  stopping_ = true;
  for (auto& line : lines_) line->stop();
}

bool PriceFeed::stopped() const noexcept {
  return std::all_of(lines_.begin(), lines_.end(), [](const auto& line) { return line->stopped(); });
}

std::int64_t PriceFeed::wait_for(std::vector<int>& fds) const noexcept {
  const std::uint64_t tsc = tsc_now();
  std::int64_t limit_ns = std::numeric_limits<std::int64_t>::max();
  for (const auto& line : lines_) {
    for (std::size_t i = 0; i < FeedLine::sources(); ++i) {
      const net::WebSocketSource& source = line->source(i);
      if (source.fd() >= 0) fds.push_back(source.fd());
      if (source.wants_write()) limit_ns = std::min(limit_ns, kWriteWaitNs);
      limit_ns = std::min(limit_ns, std::max<std::int64_t>(0, source.ns_to_deadline(tsc)));
    }
  }
  return limit_ns;
}

void PriceFeed::line_up(std::uint32_t conn) noexcept {
  if (diversion_ != nullptr && diversion_->on_up(conn)) return;
  open(conn, clock_.now());
}

void PriceFeed::line_down(std::uint32_t conn, std::string_view reason) noexcept {
  if (!stopping_) line_ended(conn, reason);
  if (diversion_ != nullptr && diversion_->on_down(conn)) return;
  close(conn, clock_.now());
}

void PriceFeed::line_ended(std::uint32_t conn, std::string_view reason) noexcept {
  report(errors_, ErrorKind::ConnectionClosed, {url_of(conn), ": ", reason}, clock_.now());
}

void PriceFeed::line_silent(std::uint32_t conn) noexcept {
  counters_.silent.add(1);
  report(errors_, ErrorKind::ConnectionSilent, url_of(conn), clock_.now());
}

bool PriceFeed::line_refused(std::span<const char> message) noexcept {
  md::Event event;
  return decoder_.decode(message, RecvClock::Read, 0, event) == Outcome::SubscribeError;
}

LineEvent PriceFeed::line_event(std::span<const char> message) noexcept {
  md::Event event;
  const Outcome outcome = decoder_.decode(message, RecvClock::Read, 0, event);
  if (outcome != Outcome::Event) {
    const bool damaged =
        outcome == Outcome::Malformed || outcome == Outcome::BadNumber || outcome == Outcome::TooManyLevels;
    return {damaged ? LineEvent::Kind::Damaged : LineEvent::Kind::Control, 0, 0, 0};
  }
  switch (event.kind) {
    case md::EventKind::BookDiff: {
      // Ids of futures have holes: the event names the one before it.
      const bool spot = config_.market == venue::binance::Market::Spot;
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

bool PriceFeed::line_has(const LineEvent& event) const noexcept {
  const PriceLane& lane = *lanes_[event.instrument];
  switch (event.kind) {
    case LineEvent::Kind::Diff: return event.last_id <= lane.diff_id;
    case LineEvent::Kind::Trade:
      return event.last_id <= lane.trade_id && lane.pipeline.trades().has(event.last_id);
    case LineEvent::Kind::Quote: return event.last_id <= lane.quote_id;
    default: return true;
  }
}

bool PriceFeed::line_reaches(const LineEvent& event) const noexcept {
  const PriceLane& lane = *lanes_[event.instrument];
  if (lane.pipeline.state() != md::BookState::Valid) return true;
  return event.previous_id <= (event.kind == LineEvent::Kind::Diff ? lane.diff_id : lane.trade_id);
}

/// Books that nothing came for. The next event would show it too, but it may be long in coming.
void PriceFeed::watch_data() noexcept {
  for (auto& each : lanes_) {
    PriceLane& lane = *each;
    // By the time that has passed: the wall clock may have been set since.
    const auto too_long = [&] {
      return config_.stale_after_ns != 0 && lane.pipeline.state() == md::BookState::Valid &&
             monotonic_ns() - lane.fresh_ns > config_.stale_after_ns;
    };
    if (!too_long()) continue;
    // We may have been the ones who slept: look at the sockets first.
    for (auto& line : lines_) (void)line->poll(clock_);
    if (!too_long()) continue;
    const TsNs now = clock_.now();
    // No message says it, so the recording must.
    if (tap_ != nullptr) tap_->stale(now, lane.id);
    on_stale(lane, {tsc_now(), tsc_now(), now, RecvClock::Read});
  }
}

/// The connections, their counts and what went wrong with them.
void PriceFeed::watch(TsNs now) noexcept {
  if (!stopping_ && !muted_) watch_data();
  net::WebSocketStats sum;
  std::uint64_t handovers = 0;
  std::int64_t up = 0;
  std::size_t number = 0;
  for (auto& line : lines_) {
    line->check(clock_);
    up += line->up() ? 1 : 0;
    handovers += line->handovers();
    for (std::size_t i = 0; i < FeedLine::sources(); ++i, ++number) {
      const net::WebSocketSource& source = line->source(i);
      const net::WebSocketStats& seen = source.stats();
      sum.opens += seen.opens;
      sum.closes += seen.closes;
      sum.connect_failures +=
          seen.lookup_failures + seen.connect_failures + seen.tls_failures + seen.handshake_failures;
      sum.pings_received += seen.pings_received;
      sum.protocol_errors += seen.protocol_errors;
      sum.timeouts += seen.timeouts;
      sum.stamps_capped += seen.stamps_capped;
      net::WebSocketStats& before = seen_[number];
      if (seen.errors != before.errors) {
        report(errors_, new_error(seen, before), source.last_error(), now);
        before = seen;
      }
    }
  }
  counters_.connections_up.set(up);
  counters_.connects.set(static_cast<std::int64_t>(sum.opens));
  counters_.disconnects.set(static_cast<std::int64_t>(sum.closes));
  counters_.connect_failures.set(static_cast<std::int64_t>(sum.connect_failures));
  counters_.pings.set(static_cast<std::int64_t>(sum.pings_received));
  counters_.protocol_errors.set(static_cast<std::int64_t>(sum.protocol_errors));
  counters_.timeouts.set(static_cast<std::int64_t>(sum.timeouts));
  counters_.handovers.set(static_cast<std::int64_t>(handovers));
  counters_.stamps_capped.set(static_cast<std::int64_t>(sum.stamps_capped));
}

}  // namespace tickwire::engine

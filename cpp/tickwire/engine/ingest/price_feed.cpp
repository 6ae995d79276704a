#include "tickwire/engine/ingest/price_feed.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "tickwire/core/text.hpp"
#include "tickwire/engine/ingest/price_input.hpp"
#include "tickwire/venue/binance/stream_name.hpp"

namespace tickwire::engine {

namespace {

using venue::binance::Outcome;

constexpr std::int64_t kMostUnseenUs = std::numeric_limits<std::uint32_t>::max();

/// Could a message be lost by this, and not by the venue?
bool is_damage(md::InvalidReason reason) noexcept TICKWIRE_HOT {
  return reason == md::InvalidReason::Malformed || reason == md::InvalidReason::BadNumber ||
         reason == md::InvalidReason::TooManyLevels;
}

md::InstrumentTable table_of(const FeedConfig& config) {
  md::InstrumentTable table;
  for (const InstrumentConfig& instrument : config.instruments) {
    table.add({instrument.symbol, config.name, instrument.price_decimals, instrument.qty_decimals});
  }
  return table;
}

}  // namespace

/// Where the line at hand of a replay stands, as the end of a report: " (FILE:LINE)". Empty in a live run.
class PriceFeed::Place {
 public:
  explicit Place(const CaptureListener* capture) noexcept TICKWIRE_HOT {
    if (capture == nullptr) [[likely]]
      return;
    TICKWIRE_HOT_EXEMPT_BEGIN("a capture: for its report")
    size_ = capture->write_place(text_);
    TICKWIRE_HOT_EXEMPT_END
  }
  [[nodiscard]] std::string_view view() const noexcept TICKWIRE_HOT { return {text_, size_}; }

 private:
  char text_[96];
  std::size_t size_ = 0;
};

PriceFeed::PriceFeed(const FeedSetup& setup, metrics::StatFile& stats, Arena& arena)
    : outlet_(setup.outlet),
      desk_(setup.desk),
      config_(setup.config),
      number_(setup.number),
      first_instrument_(setup.first_instrument),
      windows_on_recv_(setup.engine.features.clock == WindowClock::Recv),
      needs_trades_(needs_trades(setup.engine.features)),
      clock_(setup.clock),
      stages_(setup.stages),
      errors_(setup.errors),
      table_(table_of(config_)),
      decoder_(table_, {*config_.market, config_.trades,
                        std::max(config_.max_frame_bytes, SnapshotDesk::kMaxAnswerBytes), kMaxEventLevels}),
      counters_{{stats, config_.name}} {
  for (InstrumentId local = 0; local < config_.instruments.size(); ++local) {
    lanes_.push_back(std::make_unique<PriceLane>(first_instrument_ + local, local, config_,
                                                 config_.instruments[local], setup.engine.features, stats,
                                                 arena));
  }
  if (desk_ != nullptr) {
    desk_->add(config_, number_, first_instrument_, counters_);
    // What is subscribed to.
    for (auto& lane : lanes_) lane->pipeline.expect_diffs();
    connect(arena);
  }
  if (setup.recorder != nullptr) tap_ = &setup.recorder->add_capture(config_.name, arena);
}

std::unique_ptr<ReplayInput> PriceFeed::open_input() {
  return std::make_unique<PriceInput>(*this, windows_on_recv_);
}

void PriceFeed::count(TsNs now) noexcept {
  std::uint64_t old_events = 0;
  std::uint64_t expired = 0;
  std::int64_t waiting = 0;
  std::uint64_t merged = 0;
  std::uint64_t contradicted = 0;
  std::uint64_t went_back = 0;
  for (auto& each : lanes_) {
    PriceLane& lane = *each;
    const InstrumentPipeline& pipeline = lane.pipeline;
    // A book that nothing leaves from is not valid to anybody outside.
    lane.counters.follow(muted_ ? md::BookState::Empty : pipeline.state(), pipeline.epoch(), now);
    lane.heard.set((lane.diff_id | lane.trade_id | lane.quote_id) != 0 ? 1 : 0);
    lane.counters.window_overflows.set(static_cast<std::int64_t>(pipeline.window_overflows()));
    lane.levels_dropped.set(static_cast<std::int64_t>(pipeline.book().dropped_levels()));
    lane.rows_beyond_depth.set(static_cast<std::int64_t>(pipeline.rows_beyond_depth()));
    lane.rows_awaiting_trades.set(static_cast<std::int64_t>(pipeline.rows_awaiting_trades()));
    if (desk_ != nullptr) tell_missing(lane, now);
    const venue::BookSync& sync = pipeline.sync();
    const venue::SyncCounts& counts = sync.counts();
    waiting += sync.holds_snapshot() ? 1 : 0;
    old_events += counts.ignored;
    expired += counts.snapshots_expired;
    merged += counts.snapshots_merged;
    contradicted += counts.snapshots_contradicted;
    went_back += counts.doubted;
  }
  counters_.old_events.set(static_cast<std::int64_t>(old_events - old_events_muted_));
  counters_.snapshots_expired.set(static_cast<std::int64_t>(expired - snapshots_expired_muted_));
  counters_.snapshots_waiting.set(waiting);
  counters_.snapshots_merged.set(static_cast<std::int64_t>(merged));
  counters_.snapshots_contradicted.set(static_cast<std::int64_t>(contradicted));
  counters_.ids_went_back.set(static_cast<std::int64_t>(went_back));
}

// ---------------------------------------------------------------------------------------------------
// A capture

/// A line of a replay's capture, or of the one that a warm start reads.
void PriceFeed::play(const md::CaptureLine& line) noexcept {
  switch (line.kind) {
    case md::CaptureKind::Message: return message(kBookConn, line.body, RecvClock::Recorded, line.ts_recv);
    case md::CaptureKind::BareSnapshot: return bare_snapshot(line);
    case md::CaptureKind::Open: return open(line.conn, line.ts_recv);
    case md::CaptureKind::Close: return close(line.conn, line.ts_recv);
    case md::CaptureKind::Warm:
      // Another process begins. Where we are one ourselves, which part of its capture it muted is nothing
      // to us.
      if (desk_ != nullptr) return;
      for (const std::uint32_t conn : {kBookConn, kTradesConn}) open(conn, line.ts_recv);
      muted_ = true;
      return;
    case md::CaptureKind::Live: return desk_ == nullptr ? go_live(line.ts_recv) : void();
    case md::CaptureKind::Quiet:
      if (tap_ != nullptr) tap_->quiet(line.ts_recv);
      return stamps_.waited(line.ts_recv);
    case md::CaptureKind::Snapshot:
    case md::CaptureKind::Stale:
    case md::CaptureKind::Cold: break;
  }
  const InstrumentId local = table_.find(line.instrument);
  if (local == kNoInstrument) {
    TICKWIRE_HOT_EXEMPT_BEGIN("a capture: what it is, for its report")
    if (listener_ != nullptr) listener_->on_other(line.instrument);
    TICKWIRE_HOT_EXEMPT_END
    return counters_.unknown_symbol.add(1);
  }
  PriceLane& lane = *lanes_[local];
  if (line.kind == md::CaptureKind::Snapshot) {
    snapshot(local, line.body, line.limit, RecvClock::Recorded, line.ts_recv);
  } else if (line.kind == md::CaptureKind::Cold) {
    restart(lane, line.ts_recv);
  } else {
    if (tap_ != nullptr) tap_->stale(line.ts_recv, lane.id);
    on_stale(lane, {tsc_now(), tsc_now(), line.ts_recv, RecvClock::Read});
  }
}

/// A REST reply of no instrument's name.
void PriceFeed::bare_snapshot(const md::CaptureLine& line) noexcept {
  if (table_.size() != 1) {
    counters_.snapshots_refused.add(1);
    return report(errors_, ErrorKind::SnapshotWithoutInstrument,
                  "a bare REST snapshot line is accepted in a feed of one instrument", line.ts_recv);
  }
  if (is_bare_partial(line)) return refuse_partial(*lanes_[0], line.ts_recv);
  snapshot(0, line.body, 0, RecvClock::Recorded, line.ts_recv);
}

/// Does a stream of partial books say this, beside the changes of the same instrument?
bool PriceFeed::is_bare_partial(const md::CaptureLine& line) noexcept {
  PriceLane& lane = *lanes_[0];
  md::Event event;
  if (!lane.pipeline.sync().has_diffs() ||
      decoder_.decode_snapshot(line.body, 0, RecvClock::Recorded, line.ts_recv, event) != Outcome::Event)
    return false;
  lane.unnamed.bare_books.saw(event);
  return lane.unnamed.bare_books.is_partial(event);
}

void PriceFeed::refuse_partial(const PriceLane& lane, TsNs ts) noexcept {
  counters_.partial_refused.add(1);
  report(errors_, ErrorKind::StreamRefused,
         {symbol_of(lane), ": partial books without their stream's name, beside a stream of changes, ",
          "are not used", Place(listener_).view()},
         ts);
}

void PriceFeed::report_capture(const md::CaptureReader& reader) noexcept {
  const std::uint64_t skipped = reader.skipped_lines();
  counters_.lines_skipped.set(static_cast<std::int64_t>(skipped));
  if (reader.truncated()) {
    counters_.truncated.set(1);
    report(errors_, ErrorKind::CaptureTruncated, reader.error(), 0);
  }
  if (skipped != 0) report(errors_, ErrorKind::CaptureLineSkipped, {reader.skipped()}, 0, skipped);
}

void PriceFeed::restart(PriceLane& lane, TsNs ts) noexcept {
  if (tap_ != nullptr) tap_->cold(ts, lane.id);
  // How far the capture's clock is from ours is said as the reason of that, and is no leap besides.
  stamps_.forget();
  lane.diff_id = lane.trade_id = lane.quote_id = 0;
  lane.fresh = 0;
  const Step step = lane.pipeline.restart();
  if (step.left_valid) {
    emit_notice(lane, step.reason, kNoTime, {tsc_now(), tsc_now(), ts, RecvClock::Read});
  }
}

void PriceFeed::go_live(TsNs ts) noexcept {
  if (tap_ != nullptr) tap_->live(ts);
  muted_ = false;
  counters_.warm_messages.set(counters_.messages.value());
  std::int64_t repeats = counters_.old_trades.value() + counters_.old_quotes.value();
  PriceCounters& c = counters_;
  for (metrics::Counter* const counter :
       {&c.messages,      &c.bytes,          &c.book_events,    &c.trades,
        &c.quotes,        &c.ignored,        &c.other_trades,   &c.unknown_symbol,
        &c.other_symbol,  &c.malformed,      &c.bad_number,     &c.too_many_levels,
        &c.gaps,          &c.crossed,        &c.old_trades,     &c.old_quotes,
        &c.late_trades,   &c.trade_gaps,     &c.missing_trades, &c.became_valid,
        &c.books_damaged, &c.books_resynced, &c.snapshots,      &c.snapshots_refused,
        &c.stale}) {
    counter->set(0);
  }
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    PriceLane& lane = *lanes_[i];
    const venue::SyncCounts& counts = lane.pipeline.sync().counts();
    lane.counted_from = lane.pipeline.trade_id();
    old_events_muted_ += counts.ignored;
    repeats += static_cast<std::int64_t>(counts.ignored);
    snapshots_expired_muted_ += counts.snapshots_expired;
    // A book that goes on became valid for whoever reads us.
    if (lane.pipeline.state() == md::BookState::Valid) counters_.became_valid.add(1);
  }
  counters_.warm_repeats.set(repeats);
}

// ---------------------------------------------------------------------------------------------------
// What arrives

void PriceFeed::message(std::uint32_t conn, std::span<const char> bytes, RecvClock clock, TsNs ts_recv,
                        std::int64_t unseen_ns) noexcept {
  Arrival arrival{tsc_now(), 0, ts_recv, clock,
                  static_cast<std::uint32_t>(std::min<std::int64_t>(unseen_ns / 1000, kMostUnseenUs))};
  counters_.messages.add(1);
  counters_.bytes.add(static_cast<std::int64_t>(bytes.size()));

  md::Event event;
  const Outcome outcome = decoder_.decode(bytes, clock, ts_recv, event);
  arrival.tsc_decoded = tsc_now();
  if (listener_ != nullptr) [[unlikely]] {
    TICKWIRE_HOT_EXEMPT_BEGIN("a capture: what it is and has, for who reads it")
    listener_->on_message(bytes, outcome, event, decoder_.symbol());
    TICKWIRE_HOT_EXEMPT_END
  }
  if (!muted_) stages_.record(signal::Stage::Decode, tsc_span_ns(arrival.tsc_start, arrival.tsc_decoded));
  // What is no event moves no window, and neither does a quote; an answer to a request may come between the
  // lines of a warm capture.
  const bool leaps = outcome == Outcome::Event && event.kind != md::EventKind::Quote &&
                     on_stamps(ts_recv, event.ts_event, arrival);
  if (outcome == Outcome::Event) [[likely]] {
    PriceLane& lane = *lanes_[event.instrument];
    switch (event.kind) {
      case md::EventKind::BookDiff:
        if (!event.named && lane.unnamed.refused != 0 &&
            venue::binance::exact_partial_shape(event) == lane.unnamed.refused) [[unlikely]] {
          refuse_partial(lane, ts_recv);
          break;
        }
        if (!event.named && lane.unnamed.partial != 0) [[unlikely]] {
          event.kind = md::EventKind::PartialBook;
          event.limit = lane.unnamed.partial;
          on_book(lane, event, arrival);
          break;
        }
        counters_.book_events.add(1);
        on_book(lane, event, arrival);
        break;
      case md::EventKind::PartialBook:
        if (lane.pipeline.sync().has_diffs()) {
          counters_.partial_refused.add(1);
          report(errors_, ErrorKind::StreamRefused,
                 {decoder_.stream(), ": partial books beside a stream of changes are not used",
                  Place(listener_).view()},
                 ts_recv);
          break;
        }
        on_book(lane, event, arrival);
        break;
      case md::EventKind::Trade: {
        counters_.trades.add(1);
        // It says nothing of the book, but what time it is.
        if (is_stale(lane, ts_recv)) [[unlikely]]
          on_stale(lane, arrival);
        end_at_holes(lane, arrival);
        const Step step = lane.pipeline.on_trade(event);
        lane.trade_id = lane.pipeline.trade_id();
        if (step.repeated || lane.pipeline.trade_step().late || lane.pipeline.trade_step().missing != 0)
            [[unlikely]]
          note_trade_ids(lane, event);
        if (!step.repeated) finish(lane, step, event, arrival);
        break;
      }
      case md::EventKind::Quote:
        counters_.quotes.add(1);
        on_quote(lane, event);
        break;
      case md::EventKind::BookSnapshot: break;  // Comes by REST, never in a message.
    }
  } else {
    refuse(conn, bytes, outcome, event, arrival);
  }
  if (leaps) [[unlikely]]
    trust_clock();
  // After the signal is out, so that recording costs it nothing.
  if (tap_ != nullptr) tap_->message(ts_recv, bytes);
}

/// A trade whose id is not the next.
void PriceFeed::note_trade_ids(PriceLane& lane, const md::Event& event) noexcept {
  const venue::TradeSequence::Step& found = lane.pipeline.trade_step();
  if (found.repeated) return counters_.old_trades.add(1);
  if (found.late) {
    counters_.late_trades.add(1);
    if (event.trade.id <= lane.counted_from) return;
    counters_.missing_trades.add(-1);
    return counters_.trade_gaps.add(found.filled ? -1 : 0);
  }
  counters_.trade_gaps.add(1);
  counters_.missing_trades.add(static_cast<std::int64_t>(found.missing));
  const NumberText id(event.trade.id);
  if (found.anew) {
    if (!muted_)
      report(errors_, ErrorKind::TradesMissing,
             {symbol_of(lane), ": the venue's numbers begin anew with ", id.view()}, event.ts_recv);
    return;
  }
  if (listener_ != nullptr) {
    TICKWIRE_HOT_EXEMPT_BEGIN("a capture: what it is and has, for who reads it")
    listener_->on_missing_trades(lane.local, event.trade.id - found.missing, event.trade.id - 1);
    TICKWIRE_HOT_EXEMPT_END
  }
}

/// Before an event is looked at: which holes in the trades' ids its time shows to be none that a late trade
/// fills, and whether the epoch ends at them.
void PriceFeed::end_at_holes(PriceLane& lane, const Arrival& arrival) noexcept {
  if (!lane.pipeline.trades().has_holes() && !lane.pipeline.lost_trades(arrival.ts_recv)) [[likely]]
    return;
  tell_missing(lane, arrival.ts_recv);
  if (!lane.pipeline.lost_trades(arrival.ts_recv)) return;
  const Step step = lane.pipeline.end_at_trade_gap();
  if (step.left_valid) emit_notice(lane, step.reason, kNoTime, arrival);
}

void PriceFeed::tell_all_missing() noexcept {
  for (auto& lane : lanes_) tell_missing(*lane, std::numeric_limits<TsNs>::max());
}

/// Of which trades it is known at `now` that they are missing.
void PriceFeed::tell_missing(PriceLane& lane, TsNs now) noexcept {
  for (venue::TradeSequence::Hole hole; lane.pipeline.trades().take_overdue(now, hole);) {
    if (muted_) continue;
    const NumberText from(hole.first);
    const NumberText to(hole.last);
    const NumberText left(hole.left);
    if (hole.first == hole.last) {
      report(errors_, ErrorKind::TradesMissing, {symbol_of(lane), ": id ", from.view()}, hole.since);
    } else if (hole.left == hole.last - hole.first + 1) {
      report(errors_, ErrorKind::TradesMissing, {symbol_of(lane), ": ids ", from.view(), " to ", to.view()},
             hole.since);
    } else {
      report(errors_, ErrorKind::TradesMissing,
             {symbol_of(lane), ": ", left.view(), " of the ids ", from.view(), " to ", to.view()},
             hole.since);
    }
  }
}

/// Rows need no quotes, but a replacement of the connection goes by the newest.
void PriceFeed::on_quote(PriceLane& lane, const md::Event& event) noexcept {
  const bool old = event.last_id <= lane.quote_id;
  if (old && !lane.old_quotes.old(event.last_id, event.ts_recv)) return counters_.old_quotes.add(1);
  lane.old_quotes.fresh(event.ts_recv);
  lane.quote_id = event.last_id;
}

/// An event of the book, whether it says what changed or what the best levels are.
void PriceFeed::on_book(PriceLane& lane, const md::Event& event, const Arrival& arrival) noexcept {
  const TsNs ts_recv = arrival.ts_recv;
  if (is_stale(lane, ts_recv)) [[unlikely]]
    on_stale(lane, arrival);
  end_at_holes(lane, arrival);
  Step step;
  if (event.kind == md::EventKind::PartialBook) [[unlikely]] {
    counters_.partial_books.add(1);
    step = lane.pipeline.on_partial(event);
    if (step.snapshot_refused) count_refused(lane, step, ts_recv);
  } else {
    const std::uint64_t doubted = lane.pipeline.sync().counts().doubted;
    step = lane.pipeline.on_diff(event);
    if (lane.pipeline.sync().counts().doubted != doubted) [[unlikely]]
      report(errors_, ErrorKind::IdsWentBack,
             {symbol_of(lane),
              ": an id that was passed, of a message "
              "that repeats none of the last ones: the venue may count anew"},
             ts_recv);
  }
  if (step.repeated) [[unlikely]]
    return;
  lane.diff_id = event.last_id;
  lane.fresh = std::max(lane.fresh, ts_recv);
  lane.fresh_ns = tsc_to_ns(arrival.tsc_start);
  if (!muted_) stages_.record(signal::Stage::Book, tsc_span_ns(arrival.tsc_decoded, step.tsc_book));
  finish(lane, step, event, arrival);
  if (lane.pipeline.merging()) [[unlikely]]
    merge(lane, arrival);
}

/// A slice of a snapshot that joins a book. It is no event: all that can leave is the news that the book left
/// valid, or has become it.
void PriceFeed::merge(PriceLane& lane, const Arrival& arrival) noexcept {
  const venue::SyncCounts& counts = lane.pipeline.sync().counts();
  const std::uint64_t contradicted = counts.snapshots_contradicted;
  const std::uint64_t merged = counts.snapshots_merged;
  md::Event none{};
  none.ts_event = kNoTime;
  const Step step = lane.pipeline.merge(arrival.ts_recv);
  if (counts.snapshots_merged != merged && desk_ != nullptr) desk_->merged(lane.id);
  if (counts.snapshots_contradicted != contradicted) {
    if (desk_ != nullptr) desk_->contradicted(lane.id);
    report(errors_, ErrorKind::SnapshotContradicts, symbol_of(lane), arrival.ts_recv);
  }
  finish(lane, step, none, arrival);
}

void PriceFeed::count_refused(const PriceLane& lane, const Step& step, TsNs ts_recv) noexcept {
  counters_.snapshots_refused.add(1);
  counters_.snapshots_by_fault[static_cast<std::size_t>(step.fault)]->add(1);
  report(errors_, ErrorKind::SnapshotRefused,
         {symbol_of(lane), ": ", venue::name_of(step.fault), Place(listener_).view()}, ts_recv);
}

/// Has nothing come for the book for longer than it may be believed? At `now`, a record's time wherever a
/// record decides.
bool PriceFeed::is_stale(const PriceLane& lane, TsNs now) const noexcept {
  return config_.stale_after_ns != 0 && now - lane.fresh > config_.stale_after_ns &&
         lane.pipeline.state() == md::BookState::Valid;
}

void PriceFeed::on_stale(PriceLane& lane, const Arrival& arrival) noexcept {
  const Step step = lane.pipeline.pause();
  if (!step.left_valid) return;
  counters_.stale.add(1);
  if (!muted_) report(errors_, ErrorKind::DataStale, symbol_of(lane), arrival.ts_recv);
  emit_notice(lane, step.reason, kNoTime, arrival);
}

/// A message's stamps against those before it. Where one leaps, no book of the feed is valid before the
/// message behind this one, and windows begin anew: whether this stamp is wrong, or those before it were, is
/// not known.
bool PriceFeed::on_stamps(TsNs ts_recv, TsNs ts_event, const Arrival& arrival) noexcept {
  const StampWatch::Leaps leaps =
      stamps_.follow(ts_recv, ts_event, listener_ != nullptr ? 0 : arrival.tsc_start);
  // No message says that it was a silence, so the recording must.
  if (leaps.waited && tap_ != nullptr) [[unlikely]]
    tap_->quiet(ts_recv);
  // A warm capture of another clock: where windows do not go by it, nothing but the age of the data did.
  const bool recv = leaps.recv && (windows_on_recv_ || !muted_);
  const bool event = leaps.event && !windows_on_recv_;
  if (!leaps.recv && !event) [[likely]]
    return false;
  for (auto& lane : lanes_) lane->fresh = ts_recv;
  if (!recv && !event) return false;
  counters_.clock_leaps.add(1);
  if (!muted_) {
    if (recv) stamps_.tell_recv(errors_, config_.name, ts_recv);
    if (event) stamps_.tell_event(errors_, config_.name, ts_recv);
  }
  for (auto& lane : lanes_) {
    const Step step = lane->pipeline.doubt_clock();
    if (step.left_valid) emit_notice(*lane, step.reason, kNoTime, arrival);
  }
  return true;
}

void PriceFeed::trust_clock() noexcept {
  for (auto& lane : lanes_) lane->pipeline.trust_clock();
}

void PriceFeed::refuse(std::uint32_t conn, std::span<const char> message, Outcome outcome,
                       const md::Event& event, const Arrival& arrival) noexcept {
  md::InvalidReason reason = md::InvalidReason::None;
  switch (outcome) {
    case Outcome::Event: return;
    case Outcome::Ignored: return counters_.ignored.add(1);
    case Outcome::OtherTradeStream: return counters_.other_trades.add(1);
    case Outcome::UnknownSymbol: return counters_.unknown_symbol.add(1);
    case Outcome::OtherStream:
      counters_.other_streams.add(1);
      return report(
          errors_, ErrorKind::StreamRefused,
          {decoder_.stream(), ": book changes of another kind are not used", Place(listener_).view()},
          arrival.ts_recv);
    case Outcome::OtherSymbol:
      // Of whose book it would have been nobody knows; what either has missed shows in its ids.
      counters_.other_symbol.add(1);
      return report(errors_, ErrorKind::StreamRefused,
                    {Excerpt(decoder_.stream()).view(), ": a message of ", Excerpt(decoder_.symbol()).view(),
                     " is not used", Place(listener_).view()},
                    arrival.ts_recv);
    case Outcome::Shutdown:
      counters_.shutdown_notices.add(1);
      // In a capture it was said to somebody else.
      if (listener_ == nullptr) lines_[conn]->replace();
      return;
    case Outcome::SubscribeError:
      counters_.subscribe_errors.add(1);
      return report(errors_, ErrorKind::SubscribeRefused,
                    {config_.name, ": ", {message.data(), message.size()}}, arrival.ts_recv);
    case Outcome::Malformed:
      counters_.malformed.add(1);
      reason = md::InvalidReason::Malformed;
      report_refused(ErrorKind::MessageMalformed, outcome, event.instrument, message, arrival.ts_recv);
      break;
    case Outcome::BadNumber:
      counters_.bad_number.add(1);
      reason = md::InvalidReason::BadNumber;
      report_refused(ErrorKind::MessageBadNumber, outcome, event.instrument, message, arrival.ts_recv);
      break;
    case Outcome::TooManyLevels:
      counters_.too_many_levels.add(1);
      reason = md::InvalidReason::TooManyLevels;
      report_refused(ErrorKind::MessageTooManyLevels, outcome, event.instrument, message, arrival.ts_recv);
      break;
  }
  if (event.instrument == kNoInstrument) return;
  // A message for this instrument is lost, so its book is: what it said is unknown.
  PriceLane& lane = *lanes_[event.instrument];
  if (event.kind == md::EventKind::PartialBook && lane.pipeline.sync().has_diffs()) return;
  finish(lane, lane.pipeline.on_damaged(reason), event, arrival);
}

/// Says which instrument's message was refused and for which value and, where a setting of the user's is
/// behind it, which.
void PriceFeed::report_refused(ErrorKind kind, Outcome outcome, InstrumentId local,
                               std::span<const char> message, TsNs ts) noexcept {
  const venue::binance::Decoder::Refused refused = decoder_.refused();
  const Excerpt value(refused.key.empty() ? std::string_view(message.data(), message.size()) : refused.value);
  const Place place(listener_);
  if (local == kNoInstrument) {
    if (!refused.key.empty()) {
      return report(errors_, kind,
                    {config_.name, ": ", refused.key, " = \"", value.view(), "\"", place.view()}, ts);
    }
    return report(errors_, kind,
                  {config_.name, ": a message that names none of its instruments: \"", value.view(), "\"",
                   place.view()},
                  ts);
  }
  const InstrumentConfig& instrument = config_.instruments[local];
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
  const NumberText price(static_cast<std::uint64_t>(instrument.price_decimals));
  const NumberText qty(static_cast<std::uint64_t>(instrument.qty_decimals));
  report(errors_, kind,
         {instrument.symbol, ": a price or quantity that does not fit price_decimals = ", price.view(),
          ", qty_decimals = ", qty.view(), ": ", refused.key, " = \"", value.view(), "\"", place.view()},
         ts);
}

void PriceFeed::snapshot(InstrumentId local, std::span<const char> body, std::uint32_t limit, RecvClock clock,
                         TsNs ts_recv) noexcept {
  PriceLane& lane = *lanes_[local];
  Arrival arrival{tsc_now(), 0, ts_recv, clock};
  md::Event event;
  const Outcome outcome = decoder_.decode_snapshot(body, local, clock, ts_recv, event);
  arrival.tsc_decoded = tsc_now();
  if (outcome != Outcome::Event) {
    counters_.snapshots_refused.add(1);
    if (outcome == Outcome::Malformed && decoder_.refused().key.empty()) {
      report(errors_, ErrorKind::SnapshotMalformed,
             {symbol_of(lane), ": it reads ", {body.data(), std::min<std::size_t>(body.size(), 120)}},
             ts_recv);
    } else {
      report_refused(ErrorKind::SnapshotMalformed, outcome, local, body, ts_recv);
    }
    if (desk_ != nullptr && !muted_) desk_->refused(lane.id);
    return;
  }
  event.limit = limit;
  if (lane.unnamed.bare_partial && limit == 0) {
    event.kind = md::EventKind::PartialBook;
    return on_book(lane, event, arrival);
  }
  counters_.snapshots.add(1);
  if (listener_ != nullptr) {
    TICKWIRE_HOT_EXEMPT_BEGIN("a capture: what it is and has, for who reads it")
    listener_->on_snapshot(local);
    TICKWIRE_HOT_EXEMPT_END
  }
  if (desk_ != nullptr) desk_->came(lane.id);
  const Step step = lane.pipeline.on_snapshot(event);
  // Before finish(), which may ask for another: the file says what happened in its order.
  if (tap_ != nullptr) tap_->snapshot(ts_recv, lane.id, limit, body);
  if (step.snapshot_refused) {
    count_refused(lane, step, ts_recv);
    // The next one is asked for after a pause.
    if (desk_ != nullptr && !muted_) desk_->refused(lane.id);
  } else if (lane.pipeline.merging() && desk_ != nullptr) {
    desk_->joins(lane.id);
  }
  finish(lane, step, event, arrival);
  if (lane.pipeline.merging()) merge(lane, arrival);
}

void PriceFeed::open(std::uint32_t conn, TsNs ts) noexcept {
  if (tap_ != nullptr) tap_->open(ts, conn);
  const Arrival arrival{tsc_now(), tsc_now(), ts, RecvClock::Read};
  // How long the feed was away is no leap.
  if (conn == kBookConn) stamps_.forget();
  for (auto& each : lanes_) {
    PriceLane& lane = *each;
    if ((conn == kTradesConn) == (lines_.size() > 1)) lane.trade_id = 0;
    lane.pipeline.resume_trades();
    if (conn != kBookConn) {
      lane.pipeline.unblock();
      continue;
    }
    lane.diff_id = lane.quote_id = 0;
    if (desk_ != nullptr) desk_->forget(lane.id);
    const Step step = lane.pipeline.on_open();
    if (step.left_valid) emit_notice(lane, step.reason, kNoTime, arrival);
    // At once and not with the first event: whether the venue knows the symbol at all is said by its answer,
    // and of a symbol that it does not know no event ever comes. The subscription stands, so what the
    // snapshot lacks will come.
    if (desk_ != nullptr && !muted_ && !stopping_) desk_->ask(lane.id);
  }
}

void PriceFeed::close(std::uint32_t conn, TsNs ts) noexcept {
  // Our own stop is not the venue's doing: it is no part of the recording.
  if (tap_ != nullptr && !stopping_) tap_->close(ts, conn);
  const Arrival arrival{tsc_now(), tsc_now(), ts, RecvClock::Read};
  for (auto& each : lanes_) {
    PriceLane& lane = *each;
    if (conn == kBookConn && desk_ != nullptr) desk_->forget(lane.id);
    const Step step = conn == kBookConn ? lane.pipeline.on_close() : lane.pipeline.block();
    if (step.left_valid)
      emit_notice(lane, stopping_ ? md::InvalidReason::Stopped : step.reason, kNoTime, arrival);
  }
}

// ---------------------------------------------------------------------------------------------------
// What leaves

void PriceFeed::finish(PriceLane& lane, const Step& step, const md::Event& event,
                       const Arrival& arrival) noexcept {
  if (step.row && !muted_) {
    lane.counters.rows.add(1);
    outlet_.row(of(lane, lane.pipeline.row(), event.ts_event), lane.pipeline.history(), step, arrival);
  }
  if (step.left_valid) [[unlikely]] {
    if (step.reason == md::InvalidReason::Gap) counters_.gaps.add(1);
    if (step.reason == md::InvalidReason::Crossed) counters_.crossed.add(1);
    emit_notice(lane, step.reason, event.ts_event, arrival);
  }
  if (step.became_valid) [[unlikely]] {
    counters_.became_valid.add(1);
    if (lane.damaged) counters_.books_resynced.add(1);
    lane.damaged = false;
    if (desk_ != nullptr) desk_->valid(lane.id);
    lane.fresh = std::max(lane.fresh, arrival.ts_recv);
    lane.fresh_ns = tsc_to_ns(arrival.tsc_start);
  }
  if (lane.pipeline.wants_snapshot()) [[unlikely]] {
    if (desk_ != nullptr && !muted_) desk_->need(lane.id);
  } else if (lane.pipeline.wants_depth()) [[unlikely]] {
    if (desk_ != nullptr && !muted_) desk_->need_depth(lane.id);
  }
}

/// A row, or a notice, of an instrument.
RowOutlet::Of PriceFeed::of(const PriceLane& lane, std::uint64_t row, TsNs ts_event) const noexcept {
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

void PriceFeed::emit_notice(PriceLane& lane, md::InvalidReason reason, TsNs ts_event,
                            const Arrival& arrival) noexcept {
  note_lost(lane, reason, arrival.ts_recv);
  if (muted_) return;
  counters_.left_valid.add(1);
  lane.counters.left_valid.add(1);
  lane.counters.reason.set(static_cast<std::int64_t>(reason));
  outlet_.notice(of(lane, 0, ts_event), lane.pipeline.state(), reason, arrival);
}

/// What it comes back from is forgotten when the report is made.
void PriceFeed::note_lost(PriceLane& lane, md::InvalidReason reason, TsNs ts) noexcept {
  if (is_damage(reason) && !lane.damaged) {
    counters_.books_damaged.add(1);
    lane.damaged = true;
  }
  if (listener_ == nullptr) return;
  TICKWIRE_HOT_EXEMPT_BEGIN("a capture: for its report, when a book was lost")
  listener_->on_left_valid(lane.local, reason, ts);
  TICKWIRE_HOT_EXEMPT_END
}

}  // namespace tickwire::engine

#include "tickwire/engine/ingest/warm_join.hpp"

#include <algorithm>
#include <cstring>

namespace tickwire::engine {

namespace {

// Readable bytes that the decoder wants behind a message.
constexpr std::size_t kPaddingBytes = 64;

}  // namespace

WarmJoin::WarmJoin(std::size_t instruments, std::size_t lines, bool trades, bool clocks, Arena& arena,
                   std::size_t kept_bytes)
    : lines_(lines),
      needs_trades_(trades),
      needs_clocks_(clocks),
      diffs_(arena.allocate<Stream>(instruments)),
      trades_(arena.allocate<Stream>(instruments)),
      pasts_(arena.allocate<Past>(instruments)),
      clocks_(arena.allocate<Clocks>(instruments)),
      verdicts_(arena.allocate<Verdict>(instruments)),
      kept_(arena, kept_bytes) {}

void WarmJoin::up(std::uint32_t conn, std::int64_t now_ns) noexcept {
  up_ |= 1U << conn;
  forget(now_ns);
}

void WarmJoin::down(std::uint32_t conn, std::int64_t now_ns) noexcept {
  up_ &= ~(1U << conn);
  forget(now_ns);
}

void WarmJoin::forget(std::int64_t now_ns) noexcept {
  std::fill(diffs_.begin(), diffs_.end(), Stream{});
  std::fill(trades_.begin(), trades_.end(), Stream{});
  std::fill(clocks_.begin(), clocks_.end(), Clocks{});
  any_clock_ = {};
  while (kept_.front().data() != nullptr) kept_.pop();
  since_ns_ = now_ns;
  first_ns_ = both_ns_ = -1;
}

bool WarmJoin::keep(std::uint32_t conn, const LineEvent& event, const net::WebSocketMessage& message,
                    std::int64_t now_ns) noexcept {
  if (event.kind == LineEvent::Kind::Damaged) return false;
  std::byte* const place = kept_.try_claim(sizeof(KeptHead) + message.payload.size() + kPaddingBytes);
  if (place == nullptr) return false;
  const KeptHead head{conn, event, message.ts_recv, message.tsc_read, message.recv_clock, message.is_text};
  std::memcpy(place, &head, sizeof head);
  std::memcpy(place + sizeof head, message.payload.data(), message.payload.size());
  std::memset(place + sizeof head + message.payload.size(), 0, kPaddingBytes);
  kept_.publish();

  const bool is_diff = event.kind == LineEvent::Kind::Diff;
  if (!is_diff && event.kind != LineEvent::Kind::Trade) return true;
  if (is_diff && first_ns_ < 0) first_ns_ = now_ns;
  Stream& stream = (is_diff ? diffs_ : trades_)[event.instrument];
  if (!stream.seen) stream = {true, false, event, message.ts_recv, now_ns, 0};
  stream.newest_id = std::max(stream.newest_id, event.last_id);
  if (is_diff && !clocks_[event.instrument].known) {
    // The capture was ahead, and the feed has come to its newest.
    const Past& past = pasts_[event.instrument];
    if (past.diff_id >= stream.first.last_id && event.last_id >= past.diff_id)
      compare_clocks(event.instrument, past.diff_ts, message.ts_recv);
  }
  return true;
}

void WarmJoin::captured_diff(std::size_t instrument, std::uint64_t id, TsNs ts_recv, TsNs ts_event) noexcept {
  Past& past = pasts_[instrument];
  const Stream& diffs = diffs_[instrument];
  // The capture was behind, and has come to the feed's first.
  if (diffs.seen && past.diff_id < diffs.first.last_id && id >= diffs.first.last_id)
    compare_clocks(instrument, ts_recv, diffs.first_ts);
  past.diff_id = id;
  past.diff_ts = ts_recv;
  past.diff_ts_event = ts_event;
}

void WarmJoin::compare_clocks(std::size_t instrument, TsNs captured, TsNs ours) noexcept {
  clocks_[instrument] = {true, captured - ours};
  if (!any_clock_.known) any_clock_ = clocks_[instrument];
}

/// No event has a stamp of each: by how much either side is behind the venue's own stamps.
void WarmJoin::guess_clock(std::size_t instrument) noexcept {
  const Past& past = pasts_[instrument];
  const Stream& diffs = diffs_[instrument];
  if (!diffs.seen || diffs.first.ts_event == kNoTime || past.diff_ts_event == kNoTime) return;
  compare_clocks(instrument, past.diff_ts - past.diff_ts_event, diffs.first_ts - diffs.first.ts_event);
}

/// All of a capture was stamped by one clock, so what another instrument shows holds for a silent one, too.
bool WarmJoin::clocks_agree(std::size_t instrument, const Captured& captured) noexcept {
  Clocks& clocks = clocks_[instrument];
  if (!clocks.known) clocks = any_clock_;
  if (clocks.ahead_ns > kMostClockNs || clocks.ahead_ns < -kMostClockNs) return false;
  if (captured.ahead_ns <= kMostClockNs) return true;
  clocks.ahead_ns = captured.ahead_ns;
  return false;
}

void WarmJoin::look(Stream& stream, std::uint64_t captured_id) noexcept {
  stream.met = stream.met ||
               (stream.seen && captured_id >= stream.first.previous_id && captured_id <= stream.newest_id);
}

bool WarmJoin::decide(std::span<const Captured> captured, std::int64_t captured_ns,
                      std::int64_t now_ns) noexcept {
  if (up_ != (1U << lines_) - 1) return false;
  const bool any_book =
      std::any_of(captured.begin(), captured.end(), [](const Captured& one) { return one.valid; });
  // Of no book is anything to be continued, or the feed has said nothing of any.
  if (any_book && first_ns_ < 0) return false;

  bool met = false;
  const auto has_first = [&](std::size_t i) {
    return diffs_[i].met && captured[i].diff_id >= diffs_[i].first.last_id;
  };
  for (std::size_t i = 0; i < captured.size(); ++i) {
    Past& past = pasts_[i];
    // Its connection may be another: what had met the one before says nothing of this one.
    if (captured[i].epoch != past.epoch) diffs_[i].met = trades_[i].met = false;
    past.epoch = captured[i].epoch;
    if (captured[i].valid) {
      past.invalid_ns = -1;
    } else if (past.invalid_ns < 0) {
      past.invalid_ns = now_ns;
    }
    if (!captured[i].valid) continue;
    look(diffs_[i], captured[i].diff_id);
    look(trades_[i], captured[i].trade_id);
    met = met || diffs_[i].met;
    if (both_ns_ < 0 && has_first(i)) both_ns_ = now_ns;
  }
  const bool both = both_ns_ >= 0;
  const bool lagged = now_ns - since_ns_ >= kMostLagNs;
  const bool too_long = first_ns_ >= 0 && now_ns - first_ns_ >= kMostWaitNs;
  // Of a stream, or of an instrument since the connections stand: the capture will not bring it.
  const auto given_up = [&](std::int64_t first_ns) {
    const bool ended = now_ns - std::max(captured_ns, first_ns) >= kWriterLagNs && (lagged || !met);
    const bool passed = both && lagged && now_ns - std::max(both_ns_, first_ns) >= kWriterLagNs;
    return ended || passed || too_long;
  };
  bool open = false;
  for (std::size_t i = 0; i < captured.size(); ++i) {
    const Stream& diffs = diffs_[i];
    const Stream& trades = trades_[i];
    const bool diffs_met = diffs.seen ? diffs.met : lagged && both;
    // Of one connection the trades before an event are in what holds the event.
    const bool trades_met =
        !needs_trades_ ||
        (trades.seen ? trades.met : lagged && both && diffs_met && (!diffs.seen || has_first(i)));
    std::int64_t waits_since = since_ns_;
    if (!captured[i].valid) {
      verdicts_[i] = Verdict::NoBook;
      const bool hopeless = !captured[i].may_become_valid || too_long ||
                            now_ns - std::max(since_ns_, pasts_[i].invalid_ns) >= kWriterLagNs;
      open = open || !hopeless;
      continue;
    }
    if (needs_trades_ && captured[i].lacks_trades) {
      verdicts_[i] = Verdict::TradeHole;
      continue;
    }
    if (diffs_met && trades_met) {
      if (!clocks_known(i)) {
        // What both bring is still to come, or never does.
        if (!given_up(diffs.seen ? diffs.first_ns : since_ns_)) {
          open = true;
          continue;
        }
        guess_clock(i);
      }
      verdicts_[i] = clocks_agree(i, captured[i]) ? Verdict::Continues : Verdict::Clock;
      continue;
    }
    if (diffs.seen && !diffs.met) {
      verdicts_[i] = Verdict::BookGap;
      waits_since = diffs.first_ns;
    } else if (needs_trades_ && trades.seen && !trades.met) {
      verdicts_[i] = Verdict::TradeGap;
      waits_since = trades.first_ns;
    } else {
      verdicts_[i] = Verdict::Silent;
    }
    open = open || !given_up(waits_since);
  }
  return !open;
}

bool WarmJoin::front(Kept& out) noexcept {
  const std::span<const std::byte> record = kept_.front();
  if (record.data() == nullptr) return false;
  KeptHead head;
  std::memcpy(&head, record.data(), sizeof head);
  const char* const text = reinterpret_cast<const char*>(record.data()) + sizeof head;
  out = {head.conn,
         head.event,
         {.payload = {text, record.size() - sizeof head - kPaddingBytes},
          .is_text = head.is_text,
          .recv_clock = head.recv_clock,
          .ts_recv = head.ts_recv,
          .tsc_read = head.tsc_read}};
  return true;
}

}  // namespace tickwire::engine

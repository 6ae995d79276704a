#include "tickwire/engine/ingest/feed_line.hpp"

#include <algorithm>
#include <cstring>

namespace tickwire::engine {

namespace {

using Kind = LineEvent::Kind;

// What a replacement may be ahead of the old connection by. More starts the proof anew.
constexpr std::size_t kKeptBytes = 4U << 20U;
// Readable bytes that the decoder wants behind a message.
constexpr std::size_t kPaddingBytes = 64;
// One connection lags another by less than this. So an instrument that the replacement says nothing of for
// so long is quiet: what was on its way to the old connection when the replacement was subscribed has
// arrived. And a replacement that took over while it was behind has then caught up.
constexpr std::int64_t kMostLagNs = 3'000'000'000;

}  // namespace

FeedLine::FeedLine(Owner& owner, const Config& config, const net::WebSocketConfig& connection,
                   const std::string& where, Arena& arena)
    : owner_(owner),
      config_(config),
      diffs_(arena.allocate<Proof>(config.diffs ? config.instruments : 0)),
      trades_(arena.allocate<Proof>(config.trades ? config.instruments : 0)),
      kept_(arena, kKeptBytes) {
  net::WebSocketConfig wanted = connection;
  if (config.liveness_timeout_ns != 0) {
    // Pings of ours make a live connection speak, however quiet its instruments are. Their own deadline
    // is out of the way: any byte counts, and check() looks at it.
    wanted.ping_interval_ns = config.liveness_timeout_ns / 3;
    wanted.pong_timeout_ns = std::int64_t{1} << 50U;
  }
  for (End& end : ends_) {
    end.line = this;
    end.source = std::make_unique<net::WebSocketSource>(wanted, where);
  }
}

void FeedLine::start() noexcept { ends_[active_].source->start(); }

void FeedLine::stop() noexcept {
  stopping_ = true;
  for (End& end : ends_) end.source->stop();
  // What the handler was not told of is told by the next poll(); both must get their turns.
  closing_ = true;
}

bool FeedLine::stopped() const noexcept { return ends_[0].source->stopped() && ends_[1].source->stopped(); }

void FeedLine::replace() noexcept {
  if (stopping_ || (replacing_ && !heard_from_other_)) return;
  End& other = ends_[1 - active_];
  // The other one may still be closing, or be the one that is told to go before it took over: later.
  wanted_ = replacing_ || !other.source->stopped();
  if (wanted_) return;
  replacing_ = true;
  closing_ = false;
  TICKWIRE_HOT_EXEMPT_BEGIN("slow path: a connection begins, which the venue asked for or its age")
  other.source->start();
  TICKWIRE_HOT_EXEMPT_END
}

int FeedLine::poll_other(const UtcClock& clock) noexcept {
  const std::size_t index = 1 - active_;
  const int done = ends_[index].source->poll(ends_[index], clock);
  if (replacing_) look_for_proof();
  if (closing_ && ends_[1 - active_].source->stopped()) closing_ = false;
  return done;
}

void FeedLine::check(const UtcClock& clock) noexcept {
  if (stopping_) return;
  for (End& end : ends_) {
    net::WebSocketSource& source = *end.source;
    const auto is_silent = [&] {
      const std::uint64_t last = std::max(source.last_bytes_tsc(), end.opened_tsc);
      return source.state() == net::WebSocketState::Open && config_.liveness_timeout_ns != 0 &&
             tsc_to_ns(tsc_now() - last) > config_.liveness_timeout_ns;
    };
    if (!is_silent()) continue;
    // We may have been the ones who slept: look at the socket before the venue is blamed.
    (void)source.poll(end, clock);
    if (!is_silent()) continue;
    owner_.line_silent(config_.conn);
    source.reopen("nothing came for liveness_timeout");
  }
  if (settling_ && tsc_to_ns(tsc_now() - taken_over_tsc_) >= kMostLagNs) settling_ = false;
  const bool aged = config_.max_age_ns != 0 && up_ &&
                    tsc_to_ns(tsc_now() - ends_[active_].opened_tsc) >= config_.max_age_ns;
  if (aged || (wanted_ && !replacing_)) replace();
}

void FeedLine::on_open(End& end) noexcept {
  end.opened_tsc = tsc_now();
  end.ready = false;
  if (!is_active(end)) restart_proof();
}

void FeedLine::on_message_slow(End& end, const net::WebSocketMessage& message) noexcept {
  if (!end.ready && !owner_.line_refused(message.payload)) {
    end.ready = true;
    if (is_active(end)) {
      up_ = true;
      owner_.line_up(config_.conn);
    } else {
      proof_since_tsc_ = tsc_now();
    }
  }
  if (is_active(end) && !settling_) return owner_.line_message(config_.conn, message);
  if (!is_active(end) && !replacing_) return;  // It is on its way out.

  const LineEvent event = owner_.line_event(message.payload);
  if (is_active(end)) {
    // Behind the one that it replaced: what that one brought is old.
    const bool is_event = event.kind != Kind::Control && event.kind != Kind::Damaged;
    if (!is_event || !owner_.line_has(event)) owner_.line_message(config_.conn, message);
    return;
  }
  switch (event.kind) {
    case Kind::Control:
      heard_from_other_ = true;
      owner_.line_message(config_.conn, message);
      heard_from_other_ = false;
      return;
    case Kind::Damaged: return restart_proof();
    case Kind::Diff:
    case Kind::Trade:
    case Kind::Quote: break;
  }
  if (const std::span<Proof> proofs = proofs_of(event.kind); !proofs.empty()) {
    Proof& proof = proofs[event.instrument];
    if (proof.state == Proof::State::Unseen) proof = {Proof::State::Waiting, event};
  }
  keep(event, message);
}

std::span<FeedLine::Proof> FeedLine::proofs_of(LineEvent::Kind kind) noexcept {
  switch (kind) {
    case Kind::Diff: return diffs_;
    case Kind::Trade: return trades_;
    default: return {};
  }
}

void FeedLine::keep(const LineEvent& event, const net::WebSocketMessage& message) noexcept {
  std::byte* const place = kept_.try_claim(sizeof(KeptHead) + message.payload.size() + kPaddingBytes);
  if (place == nullptr) return restart_proof();
  const KeptHead head{
      event, message.ts_recv, message.tsc_read, message.unseen_ns, message.recv_clock, message.is_text};
  std::memcpy(place, &head, sizeof head);
  std::memcpy(place + sizeof head, message.payload.data(), message.payload.size());
  std::memset(place + sizeof head + message.payload.size(), 0, kPaddingBytes);
  kept_.publish();
}

/// Something of the replacement is lost, or nothing of it has come: its next messages are its first.
void FeedLine::restart_proof() noexcept {
  std::fill(diffs_.begin(), diffs_.end(), Proof{});
  std::fill(trades_.begin(), trades_.end(), Proof{});
  while (kept_.front().data() != nullptr) kept_.pop();
  proof_since_tsc_ = tsc_now();
}

void FeedLine::look_for_proof() noexcept {
  const End& other = ends_[1 - active_];
  if (!other.ready) return;
  if (!up_) {
    // The old connection is lost already.
    up_ = true;
    owner_.line_up(config_.conn);
    return take_over();
  }
  const bool quiet_enough = tsc_to_ns(tsc_now() - proof_since_tsc_) >= kMostLagNs;
  bool proven = true;
  for (const std::span<Proof> proofs : {diffs_, trades_}) {
    for (Proof& proof : proofs) {
      if (proof.state == Proof::State::Waiting && owner_.line_reaches(proof.first)) {
        proof.state = Proof::State::Proven;
      }
      proven = proven &&
               (proof.state == Proof::State::Proven || (proof.state == Proof::State::Unseen && quiet_enough));
    }
  }
  if (proven) {
    ++handovers_;
    return take_over();
  }
  // What the old connection has brought by now need not wait.
  hand_on(false);
}

bool FeedLine::trades_proven() const noexcept {
  return std::all_of(trades_.begin(), trades_.end(),
                     [](const Proof& proof) { return proof.state == Proof::State::Proven; });
}

void FeedLine::take_over() noexcept {
  End& old = ends_[active_];
  active_ = 1 - active_;
  replacing_ = false;
  closing_ = true;
  settling_ = true;
  taken_over_tsc_ = tsc_now();
  old.ready = false;
  TICKWIRE_HOT_EXEMPT_BEGIN("slow path: the old connection ends")
  old.source->stop();
  TICKWIRE_HOT_EXEMPT_END
  hand_on(true);
}

/// Gives the kept messages up to the first that is not processed yet back, or with `all` processes them.
void FeedLine::hand_on(bool all) noexcept {
  for (;;) {
    const std::span<const std::byte> record = kept_.front();
    if (record.data() == nullptr) return;
    KeptHead head;
    std::memcpy(&head, record.data(), sizeof head);
    const bool known = owner_.line_has(head.event);
    if (!known && !all) return;
    if (!known) {
      const char* const text = reinterpret_cast<const char*>(record.data()) + sizeof head;
      owner_.line_message(config_.conn, {.payload = {text, record.size() - sizeof head - kPaddingBytes},
                                         .is_text = head.is_text,
                                         .recv_clock = head.recv_clock,
                                         .ts_recv = head.ts_recv,
                                         .tsc_read = head.tsc_read,
                                         .unseen_ns = head.unseen_ns});
    }
    kept_.pop();
  }
}

void FeedLine::End::on_close(std::uint16_t code, std::string_view reason) noexcept {
  FixedText text;
  TICKWIRE_HOT_EXEMPT_BEGIN("the connection is at its end: nothing comes in that could be late")
  if (code == net::kCloseDropped) {
    text.assign(reason);
  } else if (reason.empty()) {
    text.set("closed with code %u, without a reason", static_cast<unsigned>(code));
  } else {
    text.set("%.*s (code %u)", TICKWIRE_PRINTF_VIEW(reason), static_cast<unsigned>(code));
  }
  TICKWIRE_HOT_EXEMPT_END
  line->on_close(*this, text.view());
}

void FeedLine::on_close(End& end, std::string_view reason) noexcept {
  end.ready = false;
  if (!is_active(end)) {
    if (replacing_) restart_proof();
    if (replacing_ && !stopping_) owner_.line_ended(config_.conn, reason);
    return;
  }
  if (!up_) {
    if (!stopping_) owner_.line_ended(config_.conn, reason);
    return;
  }
  if (!replacing_ || !ends_[1 - active_].ready || stopping_) {
    up_ = false;
    owner_.line_down(config_.conn, reason);
    return;
  }
  // The replacement is there, but the proof is not complete. The ids of diffs show by themselves what is
  // missing, those of trades do not.
  for (Proof& proof : trades_) {
    if (proof.state == Proof::State::Waiting && owner_.line_reaches(proof.first)) {
      proof.state = Proof::State::Proven;
    }
  }
  if (trades_proven()) {
    ++handovers_;
  } else {
    owner_.line_down(config_.conn, reason);
    owner_.line_up(config_.conn);
  }
  take_over();
}

}  // namespace tickwire::engine

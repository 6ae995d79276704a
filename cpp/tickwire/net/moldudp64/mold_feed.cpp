#include "tickwire/net/moldudp64/mold_feed.hpp"

#include <algorithm>
#include <utility>

#include "tickwire/core/error.hpp"

namespace tickwire::net {
namespace {

/// A request's count has 16 bits, of which all ones would mean the end of a session.
constexpr std::uint32_t kMostRequested = 0xFFFE;
/// Between two looks at a snapshot's connection by who sleeps, and while the stream is delivered beside it.
constexpr std::int64_t kSnapshotPollNs = 1'000'000;
/// Between two snapshots that were asked for, at most; and after so many times the wait they are not one
/// after the other any more.
constexpr std::int64_t kMostBackoffNs = 600'000'000'000;
constexpr std::int64_t kCalm = 10;

MoldFeedConfig completed(MoldFeedConfig config, const std::string& where) {
  SequencerConfig& sequencer = config.sequencer;
  sequencer.lines = static_cast<std::uint32_t>(config.lines.size());
  sequencer.max_packet_bytes = config.rerequest.max_datagram_bytes;
  for (const UdpConfig& line : config.lines) {
    sequencer.max_packet_bytes = std::max(sequencer.max_packet_bytes, line.max_datagram_bytes);
  }
  sequencer.snapshots = !config.glimpse.server.empty();
  if (config.rerequest.peer.empty()) sequencer.request_attempts = 0;
  if (sequencer.request_attempts > 0 && sequencer.request_messages > kMostRequested) {
    throw SetupError(where + ".request_messages", "1 to 65534", std::to_string(sequencer.request_messages));
  }
  if (sequencer.snapshots && config.snapshot_retry_ns <= 0) {
    throw SetupError(where + ".snapshot_retry_ns", "a positive number",
                     std::to_string(config.snapshot_retry_ns));
  }
  return config;
}

/// Without its padding, which one protocol has in front and the other behind.
std::string_view name_of(const SessionId& session) noexcept {
  const std::string_view text(session.data(), session.size());
  const std::size_t begin = std::min(text.find_first_not_of(' '), text.size());
  return text.substr(begin, text.find_last_not_of(' ') + 1 - begin);
}

}  // namespace

MoldFeed::MoldFeed(MoldFeedHandler& handler, MoldFeedConfig config, const std::string& where, Arena& arena)
    : handler_(handler),
      config_(completed(std::move(config), where)),
      parser_(config_.sequencer.max_packet_bytes, arena),
      sequencer_(*this, config_.sequencer, where, arena) {
  std::uint32_t number = 0;
  for (const UdpConfig& line : config_.lines) {
    ends_.emplace_back(*this, number, line, where + ".lines[" + std::to_string(number) + ']', arena);
    ++number;
  }
  if (!config_.rerequest.peer.empty()) {
    ends_.emplace_back(*this, number, config_.rerequest, where + ".rerequest", arena);
  }
  if (config_.sequencer.snapshots) glimpse_.emplace(config_.glimpse, where + ".glimpse", arena);
}

std::vector<std::string> MoldFeed::report() const {
  std::vector<std::string> out;
  for (const End& end : ends_) {
    for (std::string& line : end.source.report()) out.push_back(std::move(line));
  }
  return out;
}

std::int64_t MoldFeed::wait_for(std::vector<int>& fds) const noexcept {
  TICKWIRE_HOT_EXEMPT_BEGIN("the caller has reserved the room")
  for (const End& end : ends_) fds.push_back(end.source.fd());
  TICKWIRE_HOT_EXEMPT_END
  if (!wants_glimpse()) return sequencer_.deadline();
  // The snapshot's connection has deadlines of its own, and begins with a look-up that no descriptor tells
  // of.
  const std::int64_t glimpse_at =
      glimpse_->running() ? now_ + kSnapshotPollNs : std::min(snapshot_at_, probe_at_);
  return std::min(sequencer_.deadline(), glimpse_at);
}

int MoldFeed::poll(const UtcClock& clock, std::int64_t now) noexcept {
  now_ = now;
  int done = 0;
  for (End& end : ends_) done += end.source.poll(end, clock);
  done += sequencer_.poll(now) ? 1 : 0;
  if (wants_glimpse()) [[unlikely]] {
    TICKWIRE_HOT_EXEMPT_BEGIN("a few system calls: each millisecond at most while the stream is delivered")
    done += poll_snapshot();
    TICKWIRE_HOT_EXEMPT_END
  }
  return done;
}

void MoldFeed::on_datagram(std::uint32_t line, const Datagram& datagram) noexcept {
  MoldPacket packet;
  if (parser_.parse(datagram.payload, packet) != MoldError::None) [[unlikely]] {
    ++stats_.malformed;
    return;
  }
  switch (packet.kind) {
    case MoldKind::Data:
      sequencer_.on_packet(line, packet.session, packet.sequence, packet.messages,
                           {datagram.ts_recv, datagram.tsc_read, datagram.recv_clock}, now_);
      break;
    case MoldKind::Heartbeat: sequencer_.on_heartbeat(line, packet.session, packet.sequence, now_); break;
    case MoldKind::EndOfSession: sequencer_.on_end(line, packet.session, packet.sequence, now_); break;
  }
  if (sequencer_.heard_at(line) == now_) ends_[line].heard_tsc = datagram.tsc_read;
}

void MoldFeed::on_request(const SessionId& session, std::uint64_t first, std::uint32_t count) noexcept {
  std::array<char, kMoldHeaderBytes> request;
  write_mold_request(request, session, first, static_cast<std::uint16_t>(count));
  // Where the kernel does not take it, the request's time runs out as if it had been lost on the way.
  (void)ends_.back().source.send(request);
}

void MoldFeed::on_claim(const SessionId& session, std::uint64_t number) noexcept {
  if (!config_.rerequest.peer.empty()) return on_request(session, number, 1);
  // A login names the server's session. Of numbers it says nothing.
  const bool other = session != sequencer_.session() || sequencer_.state() == Sequencer::State::Empty;
  if (glimpse_ && other && !config_.any_glimpse_session && probe_at_ == Sequencer::kNever) {
    probe_at_ = std::max(now_, tried_at_ + config_.snapshot_retry_ns);
  }
}

// ---- Snapshots ----

void MoldFeed::ask_snapshot() noexcept {
  if (!glimpse_ || asked_) return;
  if (asked_at_ == 0 || now_ - asked_at_ > kCalm * backoff_ns_) backoff_ns_ = 0;
  asked_at_ = std::max(now_, asked_at_ + backoff_ns_);
  backoff_ns_ = std::clamp(2 * backoff_ns_, config_.snapshot_retry_ns, kMostBackoffNs);
  asked_ = true;
  snapshot_at_ = asked_at_;
}

void MoldFeed::on_session(const SessionId& session) noexcept {
  snapshot_at_ = Sequencer::kNever;
  asked_ = false;
  if (glimpse_ && glimpse_->running()) {
    TICKWIRE_HOT_EXEMPT_BEGIN("a session has ended: what was built from it is void")
    glimpse_->stop();
    ++stats_.snapshot_failures;
    handler_.on_snapshot_failed("a new session began");
    TICKWIRE_HOT_EXEMPT_END
  }
  handler_.on_session(session);
}

int MoldFeed::poll_snapshot() noexcept {
  if (glimpse_->running()) {
    // From its login on it has all our time: nothing is delivered until it is whole.
    const bool beside = sequencer_.state() != Sequencer::State::Suspect;
    if ((beside && now_ < look_at_) || !handler_.takes_snapshot()) return 0;
    look_at_ = now_ + kSnapshotPollNs;
    return glimpse_->poll(*this, now_);
  }
  if (now_ < std::min(snapshot_at_, probe_at_)) return 0;
  snapshot_at_ = Sequencer::kNever;
  tried_at_ = now_;
  ++stats_.snapshot_tries;
  glimpse_->start(now_);
  return 1;
}

void MoldFeed::on_snapshot_begin(const SessionId& session) noexcept {
  const std::string_view theirs = name_of(session);
  const std::string_view ours = name_of(sequencer_.session());
  probe_at_ = Sequencer::kNever;
  const bool has_session = sequencer_.state() != Sequencer::State::Empty;
  if (!config_.any_glimpse_session && (!has_session || theirs != ours)) {
    for (std::size_t i = 0; i < Sequencer::kClaims; ++i) {
      const SessionId& claimed = sequencer_.claimed(i);
      if (claimed == kNoSession || name_of(claimed) != theirs) continue;
      glimpse_->stop();
      return sequencer_.believe(SessionId(claimed), now_);
    }
  }
  if (!has_session || (sequencer_.state() != Sequencer::State::Suspect && !asked_)) return glimpse_->stop();
  if (theirs == ours || config_.any_glimpse_session) {
    asked_ = false;
    sequencer_.suspend();
    return handler_.on_snapshot_begin();
  }
  glimpse_->stop();
  reason_.set("it is of the session \"%.*s\" and the stream of \"%.*s\"", TICKWIRE_PRINTF_VIEW(theirs),
              TICKWIRE_PRINTF_VIEW(ours));
  snapshot_failed(reason_.view());
}

void MoldFeed::on_snapshot_end(std::uint64_t next) noexcept {
  if (!sequencer_.can_resume(next)) {
    (void)sequencer_.resume(next, tried_at_, now_);  // Counts it.
    return snapshot_failed("it is older than the stream");
  }
  handler_.on_snapshot_end(next);
  (void)sequencer_.resume(next, tried_at_, now_);
}

void MoldFeed::snapshot_failed(std::string_view reason) noexcept {
  ++stats_.snapshot_failures;
  probe_at_ = Sequencer::kNever;
  if (asked_ && sequencer_.state() != Sequencer::State::Suspect) {
    backoff_ns_ = std::clamp(2 * backoff_ns_, config_.snapshot_retry_ns, kMostBackoffNs);
    snapshot_at_ = now_ + backoff_ns_;
  } else {
    snapshot_at_ = now_ + config_.snapshot_retry_ns;
  }
  handler_.on_snapshot_failed(reason);
}

}  // namespace tickwire::net

#pragma once

/// Sequencer and line arbiter of sequenced datagrams: a venue sends one numbered stream on several lines,
/// and whoever listens wants each message once and in order.
///
/// The first valid copy of a message wins, whichever line brought it. What lies beyond a gap is kept, and
/// the gap has four chances, in this order:
///
///   1. the other line, or a datagram that was overtaken, brings it within `reorder_ns`;
///   2. the re-request server answers: on_request() for at most `request_messages`, again at once for what
///      a partial answer left, again after `request_timeout_ns`, `request_attempts` times without progress;
///   3. a snapshot: the gap is given up, on_lost() tells that all state built from the stream is suspect,
///      on_want_snapshot() asks, and resume() goes on behind it with what was kept;
///   4. without snapshots the stream goes on behind the gap, and stays suspect for whoever needed it.
///
/// Anybody on the network can send to a group, so two things are claims until they are proven: another
/// session, and a number more than kMostAhead beyond all others of ours. A claim is believed
///
///   - when a server says so: an answer of the re-request server in that session's name or of such a number
///     (on_claim() asks for one), or whoever else knows, by believe();
///   - when our stream has been silent for `silence_ns`;
///   - another session also when ours has ended, by an end of session at the next expected number, and
///   neither
///     message nor heartbeat has come of it for `end_silence_ns`.
///
/// What came of a claim is kept meanwhile, bounded, and comes first when it is believed. Silence proves only
/// a claim that was heard in it. A session that returns is one like any other; but for `end_silence_ns` what
/// says nothing new of the one that was left is a copy that comes late. What a snapshot contradicts is a
/// claim too: what was kept before one was asked for, lies beyond it and cannot be had either is dropped and
/// not waited for again.
///
/// A window that is full gives the gap up early. Messages are never delivered out of order or twice, and none
/// is missing that on_lost() did not announce or resume() did not cover.
///
/// It knows no socket, no framing and no clock: time is an argument, in nanoseconds of any clock that does
/// not step back, so the same calls give the same answers in a simulation, live, and from a recording.
/// Used by MoldFeed (net/moldudp64) and by the replay of datagram captures.
///
/// One thread. A datagram that continues the stream costs a few compares and one call of on_run(); one
/// beyond a gap is copied. All memory is taken at set-up.

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/net/sequenced/message.hpp"

namespace tickwire::net {

/// Consecutive messages of one datagram, next in order. The views hold until on_run() returns.
struct Run {
  std::uint64_t sequence;  // Of the first.
  std::span<const MessageView> messages;
  Arrival arrival;     // Of the datagram: of a kept one earlier than that of the run before.
  std::uint32_t line;  // That won; Sequencer::recovery_line() for the re-request server.
};

/// Called from within the sequencer's functions; must not call it back.
class SequencerHandler {
 public:
  virtual void on_run(const Run& run) noexcept TICKWIRE_HOT = 0;
  /// The numbering begins anew, and what the old one built is void. Also at the very first datagram.
  virtual void on_session(const SessionId& session) noexcept TICKWIRE_HOT = 0;
  /// Every message of the session has been delivered or given up, and no more will come.
  virtual void on_end_of_session() noexcept TICKWIRE_HOT = 0;
  /// Ask the re-request server. What it answers goes to on_packet() as recovery_line().
  virtual void on_request(const SessionId& session, std::uint64_t first, std::uint32_t count) noexcept
      TICKWIRE_HOT = 0;
  /// These messages will not be delivered: what they would have changed is wrong from here on.
  virtual void on_lost(std::uint64_t first, std::uint64_t count) noexcept TICKWIRE_HOT = 0;
  /// Nothing is delivered until resume().
  virtual void on_want_snapshot() noexcept TICKWIRE_HOT = 0;
  /// Not believed yet: ask a server for this message of that session. What it answers goes to on_packet() as
  /// recovery_line(). At most every twenty milliseconds; who has no server need not.
  virtual void on_claim(const SessionId& /*session*/, std::uint64_t /*number*/) noexcept TICKWIRE_HOT {}

 protected:
  ~SequencerHandler() = default;
};

struct SequencerConfig {
  /// Where a session begins for us.
  enum class Start : std::uint8_t {
    FirstHeard,  // With the first datagram that comes.
    Beginning,   // With message 1: what came before we listened is a gap like any other.
    Snapshot,    // With message 1 where that is the first to come, else with a snapshot.
  };
  Start start = Start::FirstHeard;
  /// Lines that carry the stream, 1 or more.
  std::uint32_t lines = 0;
  /// Of one datagram's messages, with two bytes for each: sizes the places of the window.
  std::size_t max_packet_bytes = 0;
  /// Datagrams, or parts of one, that can be kept beyond a gap.
  std::size_t window_packets = 0;
  /// How long a gap may wait for the other line. The skew between the lines, and no more: what is behind
  /// the gap waits as long.
  std::int64_t reorder_ns = 0;
  /// Tries without progress at the re-request server. 0: there is none.
  std::uint32_t request_attempts = 0;
  std::int64_t request_timeout_ns = 0;
  /// Between two requests, for a venue that limits them.
  std::int64_t request_interval_ns = 0;
  /// Most that one request asks for.
  std::uint32_t request_messages = 0;
  /// Whether snapshots can be had.
  bool snapshots = false;
  /// Silence of our stream after which a claim is believed. 0: never for that.
  std::int64_t silence_ns = 0;
  /// The same behind an end of session: two heartbeats.
  std::int64_t end_silence_ns = 0;
  /// How long the first session waits for a server to name it. 0: there is none to ask, and the first session
  /// that is heard is ours.
  std::int64_t first_proof_ns = 0;
};

/// Counts of messages, but for the first two. received = won + duplicate + late, and what is kept now.
struct LineStats {
  std::uint64_t packets = 0;
  std::uint64_t heartbeats = 0;
  std::uint64_t received = 0;
  std::uint64_t won = 0;        // Delivered from this line.
  std::uint64_t duplicate = 0;  // Another copy had come before.
  std::uint64_t late = 0;       // Came, or had been kept, when the stream had gone on without it.
  std::uint64_t gap = 0;        // Missing on this line when a later one came; some may only be overtaken:
  std::uint64_t overtaken = 0;  // came on this line after a later one.
};

struct SequencerStats {
  std::uint64_t delivered = 0;
  std::uint64_t gaps = 0;  // Times that the stream stopped at one.
  std::uint64_t lost = 0;  // Messages given up.
  std::uint64_t requests = 0;
  std::uint64_t request_timeouts = 0;
  std::uint64_t requested = 0;  // Messages asked for, repeats included.
  std::uint64_t snapshots_wanted = 0;
  std::uint64_t snapshots_used = 0;
  std::uint64_t snapshots_too_old = 0;
  std::uint64_t sessions = 0;
  std::uint64_t other_session = 0;  // Datagrams of another session that was not, or not yet, believed.
  std::uint64_t window_full = 0;    // Times that a gap was given up, or the oldest dropped, for want of room.
  std::uint64_t implausible = 0;    // Datagrams of numbers that were not, or not yet, believed.
  std::uint64_t oversized = 0;      // Datagrams above max_packet_bytes that could not be kept.
  std::uint64_t most_kept = 0;      // Places of the window used at once.
};

class Sequencer {
 public:
  static constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
  /// How far beyond the highest number a datagram may be and be believed without a proof: more than both
  /// lines of a busy exchange lose at once, and few enough to be soon over where somebody made them up.
  static constexpr std::uint64_t kMostAhead = 10'000;
  /// Claims that are known at a time; the one that was heard of least makes room.
  static constexpr std::size_t kClaims = 4;

  enum class State : std::uint8_t {
    Empty,       // No session yet.
    Live,        // Nothing is missing.
    Waiting,     // A gap, and the other line may fill it; or the next request may not go out yet.
    Requesting,  // A request is out.
    Suspect,     // Until resume().
  };

  /// Set-up. Throws SetupError; `where` is the feed's key.
  Sequencer(SequencerHandler& handler, const SequencerConfig& config, const std::string& where, Arena& arena);
  Sequencer(const Sequencer&) = delete;
  Sequencer& operator=(const Sequencer&) = delete;

  /// A datagram of `line` whose first message has number `sequence`. The views hold for this call.
  void on_packet(std::uint32_t line, const SessionId& session, std::uint64_t sequence,
                 std::span<const MessageView> messages, const Arrival& arrival, std::int64_t now) noexcept
      TICKWIRE_HOT;
  /// The line is alive and its next message will have number `next`.
  void on_heartbeat(std::uint32_t line, const SessionId& session, std::uint64_t next,
                    std::int64_t now) noexcept TICKWIRE_HOT;
  /// The session ended before number `next`. Last chance to ask: the gap is filled first.
  void on_end(std::uint32_t line, const SessionId& session, std::uint64_t next, std::int64_t now) noexcept
      TICKWIRE_HOT;

  /// Timers. Returns whether one had run out.
  bool poll(std::int64_t now) noexcept TICKWIRE_HOT { return now >= deadline() && on_deadline(now); }
  /// Nothing more comes: what waits behind a gap has waited long enough, whatever time it is. A claim has
  /// not: only time that has passed proves one.
  void finish() noexcept TICKWIRE_HOT;
  /// When poll() has something to do.
  std::int64_t deadline() const noexcept TICKWIRE_HOT {
    return deadline_ < judge_at_ ? deadline_ : judge_at_;
  }

  /// Somebody who knows says that this session is the one: it begins, with what was kept of it.
  void believe(const SessionId& session, std::int64_t now) noexcept TICKWIRE_HOT;
  /// The session of a claim; kNoSession where there is none of this number below kClaims.
  const SessionId& claimed(std::size_t claim) const noexcept {
    return claims_[claim].heard != 0 ? claims_[claim].session : kNoSession;
  }
  /// Of the newest datagram that was not believed: for who reports it.
  const SessionId& refused_session() const noexcept { return refused_session_; }
  std::uint64_t refused_number() const noexcept { return refused_number_; }
  /// When the line last brought something of our stream; the lowest number where it never did.
  std::int64_t heard_at(std::uint32_t line) const noexcept TICKWIRE_HOT { return lines_[line].heard_at; }

  /// A snapshot that was asked for at `asked` holds everything before message `next`. False where it is older
  /// than what was delivered: take another. Only while Suspect. What was heard before `asked` the venue had
  /// sent by then: where it lies beyond `next`, the snapshot contradicts it.
  [[nodiscard]] bool resume(std::uint64_t next, std::int64_t asked, std::int64_t now) noexcept TICKWIRE_HOT;

  /// Would resume() take a snapshot with this number? Not one of less than was delivered. One of exactly that
  /// says that nothing followed: what was heard beyond may have been made up, see drop_refuted().
  [[nodiscard]] bool can_resume(std::uint64_t next) const noexcept TICKWIRE_HOT {
    return state_ == State::Suspect && (!joined_ || next >= expected_);
  }

  /// A snapshot begins that no gap had asked for: nothing is delivered until resume().
  void suspend() noexcept TICKWIRE_HOT;

  State state() const noexcept TICKWIRE_HOT { return state_; }
  const SessionId& session() const noexcept { return session_; }
  /// The next message to deliver; 0 before the start is known.
  std::uint64_t expected() const noexcept { return joined_ ? expected_ : 0; }
  /// Stands for the re-request server where a line is asked for.
  std::uint32_t recovery_line() const noexcept { return config_.lines; }
  const SequencerStats& stats() const noexcept { return stats_; }
  const LineStats& line_stats(std::uint32_t line) const noexcept { return lines_[line].stats; }

 private:
  struct Line {
    LineStats stats;
    std::uint64_t next;  // In the current session; 0: nothing heard.
    std::int64_t heard_at = std::numeric_limits<std::int64_t>::min();
  };
  /// Messages beyond a gap. No two hold the same number.
  struct Kept {
    std::uint64_t first;
    std::uint32_t count;
    std::uint32_t line;
    Arrival arrival;
    std::int64_t since;
    std::uint32_t place;  // In places_.
  };

  /// Another session, or numbers far beyond ours.
  struct Claim {
    SessionId session;
    std::uint64_t first;      // The lowest number …
    std::uint64_t end;        // … and one past the highest that it spoke of.
    std::uint64_t heard;      // Datagrams; 0: there is no such claim.
    std::uint64_t heartbeat;  // The highest number that a heartbeat or an end told; 0: none did.
    std::uint32_t line;       // That brought it.
    std::uint32_t kept;       // Of claimed_, from its own place on.
    std::int64_t since;
    std::int64_t heard_at;
    std::int64_t ask_at;
  };

  bool is_ours(const SessionId& session, std::uint64_t number) const noexcept TICKWIRE_HOT {
    return session == session_ && state_ != State::Empty && (end_ == 0 || number <= end_ + kMostAhead);
  }
  /// What is not ours without a proof. True: it has been proven and is ours now.
  bool admit(std::uint32_t line, const SessionId& session, std::uint64_t number,
             std::span<const MessageView> messages, const Arrival* arrival, std::int64_t now) noexcept
      TICKWIRE_HOT;
  Claim* find_claim(const SessionId& session, std::uint64_t number) noexcept TICKWIRE_HOT;
  Claim& claim_of(const SessionId& session, std::uint64_t number, std::int64_t now) noexcept TICKWIRE_HOT;
  void keep_claimed(Claim& claim, std::uint32_t line, std::uint64_t first,
                    std::span<const MessageView> messages, const Arrival& arrival, std::int64_t now) noexcept
      TICKWIRE_HOT;
  std::span<std::uint32_t> heartbeats_of(const Claim& claim) noexcept TICKWIRE_HOT {
    return heartbeats_.subspan(static_cast<std::size_t>(&claim - claims_.data()) * lines_.size(),
                               lines_.size());
  }
  void adopt(Claim& claim, std::int64_t now) noexcept TICKWIRE_HOT;
  bool judge(std::int64_t now) noexcept TICKWIRE_HOT;
  void plan_judgement(std::int64_t now) noexcept TICKWIRE_HOT;
  [[nodiscard]] std::int64_t believable_at(const Claim& claim) const noexcept TICKWIRE_HOT;
  [[nodiscard]] bool is_over() const noexcept TICKWIRE_HOT {
    return end_number_ != 0 && state_ == State::Live && joined_ && expected_ >= end_number_;
  }
  bool drop_refuted() noexcept TICKWIRE_HOT;
  void leave_session(std::int64_t now) noexcept TICKWIRE_HOT;
  void join(std::uint64_t sequence) noexcept TICKWIRE_HOT;
  void begin_session(const SessionId& session) noexcept TICKWIRE_HOT;
  void note_end(std::uint32_t line, std::uint64_t next, std::int64_t now) noexcept TICKWIRE_HOT;
  void accept(std::uint32_t line, std::uint64_t sequence, std::span<const MessageView> messages,
              const Arrival& arrival, std::int64_t now) noexcept TICKWIRE_HOT;
  void deliver(const Run& run) noexcept TICKWIRE_HOT;
  void drain() noexcept TICKWIRE_HOT;
  bool keep(std::uint32_t line, std::uint64_t first, std::span<const MessageView> messages,
            const Arrival& arrival, std::int64_t now) noexcept TICKWIRE_HOT;
  void insert(std::size_t at, const Kept& kept) noexcept TICKWIRE_HOT;
  void pop_front() noexcept TICKWIRE_HOT;
  [[nodiscard]] static std::size_t bytes_of(std::span<const MessageView> messages) noexcept TICKWIRE_HOT;
  void store(std::uint32_t place, std::span<const MessageView> messages) noexcept TICKWIRE_HOT;
  [[nodiscard]] std::span<const MessageView> load(const Kept& kept, std::span<MessageView> views) noexcept
      TICKWIRE_HOT;
  void count_old(std::uint32_t line, std::uint64_t first, std::uint64_t end) noexcept TICKWIRE_HOT;
  bool on_deadline(std::int64_t now) noexcept TICKWIRE_HOT;
  void end_wait(std::int64_t now) noexcept TICKWIRE_HOT;
  void settle(std::int64_t now, bool answered) noexcept TICKWIRE_HOT;
  void ask(std::int64_t now) noexcept TICKWIRE_HOT;
  void give_up() noexcept TICKWIRE_HOT;
  void want_snapshot() noexcept TICKWIRE_HOT;

  Kept& front() noexcept TICKWIRE_HOT { return kept_[begin_]; }
  bool anything_kept() const noexcept TICKWIRE_HOT { return begin_ != end_of_kept_; }
  /// Where the gap in front ends; expected_ where there is none.
  std::uint64_t gap_end() const noexcept TICKWIRE_HOT {
    if (anything_kept()) return kept_[begin_].first;
    return end_ > expected_ ? end_ : expected_;
  }

  SequencerHandler& handler_;
  const SequencerConfig config_;

  State state_ = State::Empty;
  bool joined_ = false;           // expected_ is known.
  std::uint64_t end_number_ = 0;  // That an end of session told; 0: none did, or it goes on.
  bool end_told_ = false;
  SessionId session_{};
  std::uint64_t expected_ = 0;
  std::uint64_t end_ = 0;    // One past the highest number heard of.
  std::int64_t end_at_ = 0;  // When that was heard.
  std::int64_t deadline_ = kNever;
  std::int64_t heard_at_ = 0;  // A message or a heartbeat of our stream, on a line.
  std::int64_t snapshot_asked_ = std::numeric_limits<std::int64_t>::min();  // When the last one used was.
  std::array<Claim, kClaims> claims_{};
  std::int64_t judge_at_ = kNever;  // When a claim may be believed.
  std::int64_t ask_at_ = std::numeric_limits<std::int64_t>::min();
  // The session before, and up to when a line that lags may still bring copies of what came before its end:
  // they are late, and no sign that it returns.
  SessionId left_session_{};
  std::uint64_t left_end_ = 0;
  std::int64_t left_until_ = std::numeric_limits<std::int64_t>::min();
  SessionId refused_session_{};
  std::uint64_t refused_number_ = 0;

  // The gap in front.
  std::uint64_t asked_end_ = 0;  // Of the request that is out.
  std::uint32_t attempts_ = 0;   // Without progress.
  std::int64_t next_request_ = std::numeric_limits<std::int64_t>::min();

  // What the stream has gone on without, last: where a copy of it is late and not a duplicate.
  std::uint64_t skipped_first_ = 0;
  std::uint64_t skipped_end_ = 0;

  std::span<Line> lines_;
  // Sorted by number in [begin_, end_of_kept_) of an array twice as long as the window, so that taking from
  // the front moves nothing.
  std::span<Kept> kept_;
  std::size_t begin_ = 0;
  std::size_t end_of_kept_ = 0;
  std::span<std::uint32_t> free_places_;
  std::size_t free_count_ = 0;
  std::span<char> places_;               // The window's, and those of claims behind them.
  std::span<MessageView> views_;         // Of a kept datagram while it is delivered.
  std::size_t claim_packets_;            // That are kept of a claim.
  std::span<Kept> claimed_;              // By claim.
  std::span<std::uint32_t> heartbeats_;  // By claim and line.
  std::span<MessageView> claimed_views_;

  SequencerStats stats_;
};

}  // namespace tickwire::net

#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/fixed_text.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/net/moldudp64/mold_packet.hpp"
#include "tickwire/net/sequenced/sequencer.hpp"
#include "tickwire/net/soupbintcp/glimpse_client.hpp"
#include "tickwire/net/udp/udp_source.hpp"

namespace tickwire::net {

struct MoldFeedConfig {
  /// The lines that carry the stream, one or more.
  std::vector<UdpConfig> lines;
  /// Its `peer` is the re-request server; empty: there is none.
  UdpConfig rerequest;
  /// Its `server` gives snapshots; empty: there are none.
  SoupConfig glimpse;
  /// Take a snapshot whose session is named otherwise than the stream's. Else it is one of another numbering,
  /// as of the day before, and refused.
  bool any_glimpse_session = false;
  /// From a snapshot that failed to the next try.
  std::int64_t snapshot_retry_ns = 0;
  /// `lines`, `max_packet_bytes` and `snapshots` are set from the above, and `request_attempts` to none where
  /// there is no server.
  SequencerConfig sequencer;
};

/// Called from within MoldFeed::poll(). The first four are the sequencer's: see SequencerHandler.
class MoldFeedHandler {
 public:
  virtual void on_run(const Run& run) noexcept TICKWIRE_HOT = 0;
  virtual void on_session(const SessionId& session) noexcept TICKWIRE_HOT = 0;
  virtual void on_end_of_session() noexcept TICKWIRE_HOT = 0;
  virtual void on_lost(std::uint64_t first, std::uint64_t count) noexcept TICKWIRE_HOT = 0;
  /// A snapshot begins: whatever the stream or an earlier one had built is void. No run comes until it ends.
  virtual void on_snapshot_begin() noexcept = 0;
  virtual void on_snapshot_message(MessageView message) noexcept = 0;
  /// May more of a snapshot come now? It waits at the server where not.
  [[nodiscard]] virtual bool takes_snapshot() noexcept { return true; }
  /// It is whole, and the runs go on with message `next`.
  virtual void on_snapshot_end(std::uint64_t next) noexcept = 0;
  /// It is not, and another will be tried. Also where none had begun.
  virtual void on_snapshot_failed(std::string_view reason) noexcept = 0;

 protected:
  ~MoldFeedHandler() = default;
};

struct MoldFeedStats {
  std::uint64_t malformed = 0;  // Datagrams whose lengths do not hold; the other line's copy wins.
  std::uint64_t snapshot_tries = 0;
  std::uint64_t snapshot_failures = 0;
};

/// A MoldUDP64 stream from its sockets to its messages in order: lines, re-request server and GLIMPSE around
/// one Sequencer, which decides. One thread, that of the agent; nothing is allocated after construction.
///
/// A turn is one receive for each line and, where there is one, for the re-request server. Only while a
/// snapshot is taken does it also look at that connection: while the stream is delivered beside it, up to the
/// login, once a millisecond at the most. The engine's multicast source is made of it.
class MoldFeed final : private SequencerHandler, private GlimpseHandler {
 public:
  /// Set-up: opens and joins. Throws SetupError; `where` is the feed's key.
  MoldFeed(MoldFeedHandler& handler, MoldFeedConfig config, const std::string& where, Arena& arena);
  MoldFeed(const MoldFeed&) = delete;
  MoldFeed& operator=(const MoldFeed&) = delete;

  /// One turn. `now` is in nanoseconds of a clock that does not step back; `clock` stamps what the kernel
  /// does not. Returns how much was done.
  int poll(const UtcClock& clock, std::int64_t now) noexcept TICKWIRE_HOT;

  const Sequencer& sequencer() const noexcept { return sequencer_; }
  const MoldFeedStats& stats() const noexcept { return stats_; }
  std::size_t lines() const noexcept { return config_.lines.size(); }
  const UdpSource& line(std::size_t i) const noexcept { return ends_[i].source; }
  /// Null where there is none.
  const UdpSource* rerequest() const noexcept {
    return ends_.size() > config_.lines.size() ? &ends_.back().source : nullptr;
  }
  const GlimpseClient* glimpse() const noexcept { return glimpse_ ? &*glimpse_ : nullptr; }
  /// When something of the stream was last read from the line, by the TSC; 0: never. Not when the turn began:
  /// who slept in it must not take the line for silent.
  [[nodiscard]] std::uint64_t heard_tsc(std::size_t line) const noexcept TICKWIRE_HOT {
    return ends_[line].heard_tsc;
  }
  [[nodiscard]] bool has_snapshots() const noexcept { return glimpse_.has_value(); }
  /// What was built from the stream does not fit together: take a snapshot, at once or, the sooner it was
  /// asked for again, the later, up to ten minutes. Until it begins the stream goes on. Nothing where there
  /// is no server.
  void ask_snapshot() noexcept;
  /// What the sockets have to say, for the start-up report. Makes system calls.
  std::vector<std::string> report() const;

  /// For who sleeps: appends what to wake up for, and says by when to look in any case, in the time of
  /// poll().
  std::int64_t wait_for(std::vector<int>& fds) const noexcept TICKWIRE_HOT;

 private:
  struct End final : UdpHandler {
    End(MoldFeed& owner, std::uint32_t number, const UdpConfig& config, const std::string& where,
        Arena& arena)
        : feed(owner), line(number), source(config, where, arena) {}
    void on_datagram(const Datagram& datagram) noexcept override { feed.on_datagram(line, datagram); }
    MoldFeed& feed;
    std::uint32_t line;
    UdpSource source;
    std::uint64_t heard_tsc = 0;
  };

  void on_datagram(std::uint32_t line, const Datagram& datagram) noexcept TICKWIRE_HOT;
  int poll_snapshot() noexcept;
  [[nodiscard]] bool wants_glimpse() const noexcept TICKWIRE_HOT {
    return sequencer_.state() == Sequencer::State::Suspect || asked_ || probe_at_ != Sequencer::kNever;
  }
  void snapshot_failed(std::string_view reason) noexcept;

  void on_run(const Run& run) noexcept override { handler_.on_run(run); }
  void on_session(const SessionId& session) noexcept override;
  void on_end_of_session() noexcept override { handler_.on_end_of_session(); }
  void on_request(const SessionId& session, std::uint64_t first, std::uint32_t count) noexcept override;
  void on_lost(std::uint64_t first, std::uint64_t count) noexcept override { handler_.on_lost(first, count); }
  void on_want_snapshot() noexcept override { snapshot_at_ = now_; }
  void on_claim(const SessionId& session, std::uint64_t number) noexcept override;

  void on_snapshot_begin(const SessionId& session) noexcept override;
  void on_snapshot_message(MessageView message) noexcept override { handler_.on_snapshot_message(message); }
  void on_snapshot_end(std::uint64_t next) noexcept override;
  void on_snapshot_failed(std::string_view reason) noexcept override { snapshot_failed(reason); }

  MoldFeedHandler& handler_;
  const MoldFeedConfig config_;
  MoldParser parser_;
  Sequencer sequencer_;
  std::deque<End> ends_;  // The lines, then the re-request server: each stays where it is.
  std::optional<GlimpseClient> glimpse_;
  std::int64_t now_ = 0;                          // Of the turn.
  std::int64_t snapshot_at_ = Sequencer::kNever;  // When the next one is begun.
  std::int64_t probe_at_ = Sequencer::kNever;     // When the server is asked which session it is at.
  std::int64_t tried_at_ =
      std::numeric_limits<std::int64_t>::min() / 2;                  // When it was last asked for either.
  std::int64_t look_at_ = std::numeric_limits<std::int64_t>::min();  // When its connection is looked at next.
  bool asked_ = false;           // By ask_snapshot(), and it has not begun.
  std::int64_t asked_at_ = 0;    // When the last one that was asked for was to begin …
  std::int64_t backoff_ns_ = 0;  // … and how much later the next one may.
  FixedText reason_;
  MoldFeedStats stats_;
};

}  // namespace tickwire::net

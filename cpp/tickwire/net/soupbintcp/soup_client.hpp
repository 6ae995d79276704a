#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/fixed_text.hpp"
#include "tickwire/net/resolver.hpp"
#include "tickwire/net/sequenced/message.hpp"
#include "tickwire/net/soupbintcp/soup_packet.hpp"

namespace tickwire::net {

struct SoupConfig {
  /// "HOST:PORT" or "[ADDRESS]:PORT".
  std::string server;
  std::string username;  // Up to 6 characters.
  std::string password;  // Up to 10. Never quoted in an error.
  /// From start() to the accepted login, for the look-up and each address.
  std::int64_t login_timeout_ns = 0;
  /// Of our silence, until we send a heartbeat. The protocol wants a second.
  std::int64_t heartbeat_ns = 0;
  /// Of the server's silence, until the connection counts as dead.
  std::int64_t silence_timeout_ns = 0;
};

/// Called from within SoupClient::poll(). May call stop() and start().
class SoupHandler {
 public:
  /// `next` is the number of the first sequenced message that will come.
  virtual void on_login(const SessionId& session, std::uint64_t next) noexcept = 0;
  virtual void on_message(std::uint64_t sequence, MessageView message) noexcept = 0;
  /// The session is over, in order. on_close() follows.
  virtual void on_end_of_session() noexcept = 0;
  /// Once for each start() that stop() did not take back; `reason` says why in words.
  virtual void on_close(std::string_view reason) noexcept = 0;

 protected:
  ~SoupHandler() = default;
};

struct SoupStats {
  std::uint64_t attempts = 0;
  std::uint64_t logins = 0;
  std::uint64_t rejected = 0;
  std::uint64_t messages = 0;
  std::uint64_t bytes = 0;
  std::uint64_t heartbeats_received = 0;
  std::uint64_t heartbeats_sent = 0;
  std::uint64_t other_packets = 0;  // Debug, unsequenced and unknown ones: skipped.
  std::uint64_t malformed = 0;
  std::uint64_t timeouts = 0;
};

/// A SoupBinTCP client on an agent's thread: every poll() returns without waiting, and only name look-ups
/// happen elsewhere (see Resolver). It logs in, counts sequenced messages, sends and expects heartbeats. It
/// does not connect again by itself: start() with the next number goes on where a connection ended.
///
/// Time is an argument, in nanoseconds of a clock that does not step back. One thread. Allocates nothing
/// after construction. Used for snapshots (GlimpseClient): what it carries is never in a hurry, so nothing
/// here is marked as hot.
class SoupClient {
 public:
  /// Set-up. Throws SetupError; `where` is the key of the configuration.
  SoupClient(SoupConfig config, const std::string& where, Arena& arena);
  ~SoupClient();
  SoupClient(const SoupClient&) = delete;
  SoupClient& operator=(const SoupClient&) = delete;

  enum class State : std::uint8_t { Idle, Resolving, Connecting, LoggingIn, Open };

  /// Only from Idle. `session` blank: the current one. `sequence` is the first message wanted; 1 is the
  /// session's first, 0 the next to come.
  void start(const SessionId& session, std::uint64_t sequence, std::int64_t now) noexcept;
  /// Logs out and ends the connection at once, without on_close().
  void stop() noexcept;

  /// One turn, one receive. Returns how much was done.
  int poll(SoupHandler& handler, std::int64_t now) noexcept;

  State state() const noexcept { return state_; }
  /// -1 where there is no socket.
  int fd() const noexcept { return fd_; }
  /// The next sequenced message: where to start() again. 0 before the first login.
  std::uint64_t next_sequence() const noexcept { return next_; }
  const SoupStats& stats() const noexcept { return stats_; }

 private:
  int poll_connecting(SoupHandler& handler, std::int64_t now) noexcept;
  int poll_stream(SoupHandler& handler, std::int64_t now) noexcept;
  void begin_address(SoupHandler& handler, std::int64_t now) noexcept;
  void log_in(std::int64_t now) noexcept;
  bool on_packet(const SoupPacket& packet, SoupHandler& handler) noexcept;
  bool send(std::span<const char> bytes) noexcept;
  void fail(SoupHandler& handler) noexcept;
  void disconnect() noexcept;

  const SoupConfig config_;
  std::unique_ptr<Resolver> resolver_;
  SoupParser parser_;
  State state_ = State::Idle;
  int fd_ = -1;
  std::size_t tried_ = 0;
  SessionId session_{};
  std::uint64_t wanted_ = 0;
  std::uint64_t next_ = 0;
  std::int64_t deadline_ = 0;  // Until the login is accepted.
  std::int64_t last_heard_ = 0;
  std::int64_t last_sent_ = 0;
  SoupStats stats_;
  FixedText reason_;
};

}  // namespace tickwire::net

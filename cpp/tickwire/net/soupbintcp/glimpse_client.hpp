#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "tickwire/core/arena.hpp"
#include "tickwire/net/sequenced/message.hpp"
#include "tickwire/net/soupbintcp/soup_client.hpp"

namespace tickwire::net {

/// Called from within GlimpseClient::poll().
class GlimpseHandler {
 public:
  /// What came of a snapshot before is void: a new one begins, of the server's `session`. May stop().
  virtual void on_snapshot_begin(const SessionId& session) noexcept = 0;
  virtual void on_snapshot_message(MessageView message) noexcept = 0;
  /// Complete: goes on with message `next` of the stream.
  virtual void on_snapshot_end(std::uint64_t next) noexcept = 0;
  /// Ended before it was complete. `reason` says why in words.
  virtual void on_snapshot_failed(std::string_view reason) noexcept = 0;

 protected:
  ~GlimpseHandler() = default;
};

/// One GLIMPSE snapshot: logs in at message 1, hands on the messages that build the venue's state (the same
/// as the stream's), and ends with the number from which the stream goes on.
///
/// One thread, not hot: while it runs, what it is for is suspect.
class GlimpseClient final : private SoupHandler {
 public:
  /// Set-up. Throws SetupError.
  GlimpseClient(SoupConfig config, const std::string& where, Arena& arena)
      : client_(std::move(config), where, arena) {}

  bool running() const noexcept { return client_.state() != SoupClient::State::Idle; }
  /// Only while not running. Exactly one of on_snapshot_end() and on_snapshot_failed() follows, unless
  /// stop() is called.
  void start(std::int64_t now) noexcept { client_.start({}, 1, now); }
  void stop() noexcept { client_.stop(); }
  int poll(GlimpseHandler& handler, std::int64_t now) noexcept;

  int fd() const noexcept { return client_.fd(); }
  const SoupStats& stats() const noexcept { return client_.stats(); }

 private:
  void on_login(const SessionId& session, std::uint64_t next) noexcept override;
  void on_message(std::uint64_t sequence, MessageView message) noexcept override;
  void on_end_of_session() noexcept override {}
  void on_close(std::string_view reason) noexcept override { handler_->on_snapshot_failed(reason); }

  SoupClient client_;
  GlimpseHandler* handler_ = nullptr;  // Of the poll() that runs.
};

}  // namespace tickwire::net

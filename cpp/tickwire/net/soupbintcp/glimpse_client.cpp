#include "tickwire/net/soupbintcp/glimpse_client.hpp"

namespace tickwire::net {
namespace {

/// The last message: its type, then the number as text.
constexpr char kEndOfSnapshot = 'G';

}  // namespace

int GlimpseClient::poll(GlimpseHandler& handler, std::int64_t now) noexcept {
  handler_ = &handler;
  return client_.poll(*this, now);
}

void GlimpseClient::on_login(const SessionId& session, std::uint64_t next) noexcept {
  if (next == 1) return handler_->on_snapshot_begin(session);
  client_.stop();
  handler_->on_snapshot_failed("the server did not begin with message 1");
}

void GlimpseClient::on_message(std::uint64_t /*sequence*/, MessageView message) noexcept {
  if (message.empty() || message[0] != kEndOfSnapshot) return handler_->on_snapshot_message(message);
  std::uint64_t next = 0;
  const bool whole = message.size() == 1 + kSoupNumberBytes && read_soup_number(message.subspan(1), next);
  client_.stop();
  if (whole && next != 0) {
    handler_->on_snapshot_end(next);
  } else {
    handler_->on_snapshot_failed("its end names no message from which to go on");
  }
}

}  // namespace tickwire::net

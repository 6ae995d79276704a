#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tickwire::net {

/// Where a WebSocket connects to.
struct WebSocketUrl {
  bool tls = false;
  std::string host;              // Name or address; an IPv6 address without its brackets.
  bool host_is_address = false;  // No look-up, no SNI, and the certificate must carry the address.
  std::uint16_t port = 0;
  std::string target;  // Path and query, at least "/".

  /// As the Host header wants it: the port only where it is not the scheme's own.
  std::string host_header() const;
};

/// Setup only. Throws SetupError that begins with `where` (the configuration key) and says what was
/// found and expected. It never quotes the query or user info: they may hold credentials.
WebSocketUrl parse_websocket_url(const std::string& where, std::string_view text);

}  // namespace tickwire::net

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "tickwire/core/fixed_text.hpp"
#include "tickwire/net/url.hpp"
#include "tickwire/net/websocket/frame_writer.hpp"

namespace tickwire::net {

/// The opening of RFC 6455: our HTTP/1.1 upgrade request and the check of the answer. Bytes only, no
/// socket. The request is built at set-up; a connection then only draws a new key into it.

/// Longest answer header accepted; a server that sends more is refused.
inline constexpr std::size_t kMaxHandshakeBytes = std::size_t{16} << 10;

class HandshakeRequest {
 public:
  /// `headers` are whole lines ("X-MBX-APIKEY: …") added to ours. Throws SetupError that begins with
  /// `where` when one is malformed or is one of ours; it never quotes the value.
  HandshakeRequest(const WebSocketUrl& url, std::span<const std::string> headers, const std::string& where);

  /// Draws a new key, for a new connection.
  void renew(KeyGenerator& keys) noexcept;

  std::string_view text() const noexcept { return text_; }
  /// What Sec-WebSocket-Accept must be.
  std::string_view expected_accept() const noexcept { return {accept_.data(), accept_.size()}; }

 private:
  std::string text_;
  std::size_t key_at_;
  std::array<char, 28> accept_{};
};

/// Sec-WebSocket-Accept for a key: base64 of SHA-1 of the key and the GUID of RFC 6455 §1.3.
std::array<char, 28> accept_for_key(std::string_view key) noexcept;

enum class HandshakeStatus : std::uint8_t { Incomplete, Accepted, Refused };

struct HandshakeAnswer {
  HandshakeStatus status = HandshakeStatus::Incomplete;
  std::size_t header_bytes = 0;  // Where Accepted: what follows belongs to the first frame.
  bool more = false;             // Where Refused: its body, which says why, has not come whole yet.
  // Where Refused: how long the server wants to be left alone, an hour at most.
  std::int64_t retry_after_s = 0;
};

/// Looks at everything received so far. Where it gives Refused, `error` says what was expected and found,
/// with the server's own words as far as they have come. `now_s`, in seconds since 1970, is what a date until
/// when we shall wait is held against where the answer has none of its own.
HandshakeAnswer check_handshake(std::string_view received, std::string_view expected_accept,
                                std::int64_t now_s, FixedText& error) noexcept;

}  // namespace tickwire::net

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/page_buffer.hpp"
#include "tickwire/net/websocket/utf8.hpp"

namespace tickwire::net {

/// Close codes of RFC 6455 §7.4 that we send or report.
enum CloseCode : std::uint16_t {
  kCloseNormal = 1000,
  kCloseGoingAway = 1001,
  kCloseProtocolError = 1002,
  kCloseNoCode = 1005,   // Never on the wire: the close frame carried none.
  kCloseDropped = 1006,  // Never on the wire: the connection ended without a close frame.
  kCloseBadText = 1007,
  kCloseTooLarge = 1009,
};

struct FrameLimits {
  /// Largest payload of one frame. Sizes the receive buffer; at least 125, the largest control frame.
  std::size_t max_frame_bytes = 0;
  /// Largest message joined from fragments. 0 stands for max_frame_bytes.
  std::size_t max_message_bytes = 0;
};

enum class FrameKind : std::uint8_t {
  None,  // Nothing complete: more bytes are needed (or the peer has closed).
  Text,  // A whole message, unfragmented or joined.
  Binary,
  Ping,
  Pong,
  Close,      // `code` as received, kCloseNoCode when it carried none; `payload` is the reason.
  Violation,  // The connection must fail with `code`; FrameParser::violation() says why.
};

/// `payload` holds until the parser's next call and has kMessagePadding readable bytes behind it.
struct Frame {
  FrameKind kind = FrameKind::None;
  std::uint16_t code = 0;
  std::span<const char> payload;
};

/// The receiving half of RFC 6455 for a client: bytes in, whole messages and control frames out. No
/// socket, clock or thread inside, so the same parser serves live, tests and fuzzing.
///
/// One thread. It owns one contiguous receive buffer. The caller lets the socket (or TLS) write into
/// writable(), says how much with commit(), and calls next() until it gives None. An unfragmented
/// message is handed out where it was received, without a copy; only fragments are joined, in a
/// second buffer made at set-up. Nothing is allocated later.
///
/// Every rule is checked at the first byte that breaks it (a bad header before its payload, bad UTF-8
/// before the end of its frame), and the outcome does not depend on how the bytes were split:
/// reserved bits, unknown opcodes, masked frames, lengths not in their shortest form, long or
/// fragmented control frames, continuation without a start and the reverse, close payloads and codes,
/// UTF-8 of text and of close reasons, and both limits. Extensions are never negotiated.
///
/// After Close or Violation the parser takes nothing more until reset().
class FrameParser {
 public:
  explicit FrameParser(const FrameLimits& limits);

  /// Where the next bytes go; never empty. Call it only after next() has given None: it may move what
  /// is not yet consumed, which ends the life of spans handed out before.
  std::span<char> writable() noexcept TICKWIRE_HOT;

  /// `count` bytes have been written at the start of the last writable().
  void commit(std::size_t count) noexcept TICKWIRE_HOT { end_ += count; }

  [[nodiscard]] Frame next() noexcept TICKWIRE_HOT;

  /// Why next() gave Violation.
  std::string_view violation() const noexcept { return violation_; }

  /// Forgets everything, for a new connection.
  void reset() noexcept TICKWIRE_HOT;

 private:
  bool read_header() noexcept TICKWIRE_HOT;
  Frame take_data() noexcept TICKWIRE_HOT;
  Frame take_fragment(std::span<const char> payload) noexcept TICKWIRE_HOT;
  Frame take_control() noexcept TICKWIRE_HOT;
  Frame take_close(std::span<const char> payload) noexcept TICKWIRE_HOT;
  Frame fail(std::uint16_t code, std::string_view why) noexcept TICKWIRE_HOT;

  std::size_t max_frame_;
  std::size_t max_message_;
  std::size_t capacity_;  // Of the receive buffer, its padding not counted.
  PageBuffer buffer_;
  PageBuffer message_;

  std::size_t begin_ = 0;  // First byte of the frame in hand.
  std::size_t end_ = 0;    // One past the last byte received.

  // The frame in hand, once its header is complete.
  bool have_header_ = false;
  bool final_ = false;
  std::uint8_t opcode_ = 0;
  std::size_t header_bytes_ = 0;
  std::size_t payload_bytes_ = 0;
  std::size_t checked_bytes_ = 0;  // Of its payload, found to be good UTF-8.

  // The message in hand.
  bool in_message_ = false;  // Between a first fragment and its last.
  bool is_text_ = false;
  std::size_t message_bytes_ = 0;  // Joined so far.
  Utf8Validator utf8_;

  bool done_ = false;  // After Close or Violation.
  std::uint16_t violation_code_ = 0;
  std::string_view violation_;
};

}  // namespace tickwire::net

#pragma once

/// MoldUDP64: a datagram of a numbered stream. 20 bytes of header (session, number of the first message,
/// count), then `count` times a length of two bytes and the message; all in network byte order.
///
/// MoldParser knows bytes only: no socket, no clock, no sequence kept. Data plane, one thread an object.

#include <cstddef>
#include <cstdint>
#include <span>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/net/sequenced/message.hpp"

namespace tickwire::net {

inline constexpr std::size_t kMoldHeaderBytes = 20;
inline constexpr std::size_t kMoldLengthBytes = 2;

enum class MoldKind : std::uint8_t { Data, Heartbeat, EndOfSession };

struct MoldPacket {
  MoldKind kind;
  SessionId session;
  /// Of the first message; of the next one to come where there is none.
  std::uint64_t sequence;
  /// Into the datagram. Holds until the parser's next call.
  std::span<const MessageView> messages;
};

enum class MoldError : std::uint8_t {
  None,
  Short,     // No whole header.
  Overrun,   // A message, or its length, reaches beyond the datagram.
  Trailing,  // Bytes that belong to no message.
  Sequence,  // So high that the numbers would wrap.
  TooMany,   // More messages than the limit on a datagram's size lets there be.
};

constexpr const char* name_of(MoldError error) noexcept {
  switch (error) {
    case MoldError::None: return "none";
    case MoldError::Short: return "no whole header";
    case MoldError::Overrun: return "a message beyond the end of its datagram";
    case MoldError::Trailing: return "bytes behind the last message";
    case MoldError::Sequence: return "an impossible sequence number";
    case MoldError::TooMany: return "more messages than max_datagram_bytes allows";
  }
  return "unknown";
}

/// Reads one datagram: every length is checked before the first message is handed out, so a damaged one
/// gives nothing and the other line's copy wins.
class MoldParser {
 public:
  /// Set-up. Datagrams of more bytes are refused.
  MoldParser(std::size_t max_datagram_bytes, Arena& arena);

  /// None: `packet` is filled. A hundred nanoseconds for a full datagram.
  [[nodiscard]] MoldError parse(std::span<const char> datagram, MoldPacket& packet) noexcept TICKWIRE_HOT;

 private:
  std::span<MessageView> views_;
};

/// What goes to a re-request server: the messages `first` to `first + count - 1` again, please.
void write_mold_request(std::span<char, kMoldHeaderBytes> out, const SessionId& session, std::uint64_t first,
                        std::uint16_t count) noexcept TICKWIRE_HOT;

/// A datagram of these messages, into exactly as many bytes as it takes.
void write_mold_packet(std::span<char> out, const SessionId& session, std::uint64_t sequence,
                       std::span<const MessageView> messages) noexcept TICKWIRE_HOT;

}  // namespace tickwire::net

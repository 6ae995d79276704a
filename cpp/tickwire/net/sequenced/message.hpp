#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "tickwire/core/types.hpp"

namespace tickwire::net {

/// Names one numbering of a stream, as the venue writes it: ten characters, padded with spaces. A framing
/// without sessions leaves it as it is.
using SessionId = std::array<char, 10>;

/// What no stream is called, since a session is text: of messages that a capture holds beside its stream's.
inline constexpr SessionId kNoSession = [] {
  SessionId session;
  session.fill('\xFF');
  return session;
}();

/// One message of a sequenced stream, without the framing's own length.
using MessageView = std::span<const char>;

/// When the datagram came that carried a message.
struct Arrival {
  TsNs ts_recv;
  std::uint64_t tsc_read;  // Where the stage clock starts.
  RecvClock recv_clock;
};

}  // namespace tickwire::net

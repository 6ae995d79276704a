#include "tickwire/net/moldudp64/mold_packet.hpp"

#include <cstring>

#include "tickwire/core/bytes.hpp"

namespace tickwire::net {
namespace {

constexpr std::uint16_t kHeartbeatCount = 0;
constexpr std::uint16_t kEndOfSessionCount = 0xFFFF;
/// Leaves room for any count above it; a venue would need centuries to come here.
constexpr std::uint64_t kMostSequence = std::uint64_t{1} << 62;

}  // namespace

MoldParser::MoldParser(std::size_t max_datagram_bytes, Arena& arena)
    : views_(arena.allocate<MessageView>(max_datagram_bytes / sizeof(std::uint16_t))) {}

MoldError MoldParser::parse(std::span<const char> datagram, MoldPacket& packet) noexcept {
  if (datagram.size() < kMoldHeaderBytes) return MoldError::Short;
  const char* at = datagram.data();
  const char* const end = at + datagram.size();
  std::memcpy(packet.session.data(), at, packet.session.size());
  packet.sequence = load_be<std::uint64_t>(at + 10);
  const auto count = load_be<std::uint16_t>(at + 18);
  at += kMoldHeaderBytes;
  packet.messages = {};
  if (packet.sequence > kMostSequence) return MoldError::Sequence;
  if (count == kHeartbeatCount || count == kEndOfSessionCount) {
    packet.kind = count == kHeartbeatCount ? MoldKind::Heartbeat : MoldKind::EndOfSession;
    return at == end ? MoldError::None : MoldError::Trailing;
  }
  if (count > views_.size()) return MoldError::TooMany;
  for (std::size_t i = 0; i < count; ++i) {
    if (end - at < 2) return MoldError::Overrun;
    const std::size_t bytes = load_be<std::uint16_t>(at);
    at += 2;
    if (static_cast<std::size_t>(end - at) < bytes) return MoldError::Overrun;
    views_[i] = {at, bytes};
    at += bytes;
  }
  if (at != end) return MoldError::Trailing;
  packet.kind = MoldKind::Data;
  packet.messages = views_.first(count);
  return MoldError::None;
}

void write_mold_request(std::span<char, kMoldHeaderBytes> out, const SessionId& session, std::uint64_t first,
                        std::uint16_t count) noexcept {
  std::memcpy(out.data(), session.data(), session.size());
  store_be(out.data() + 10, first);
  store_be(out.data() + 18, count);
}

void write_mold_packet(std::span<char> out, const SessionId& session, std::uint64_t sequence,
                       std::span<const MessageView> messages) noexcept {
  // The header has a request's form.
  write_mold_request(out.first<kMoldHeaderBytes>(), session, sequence,
                     static_cast<std::uint16_t>(messages.size()));
  char* at = out.data() + kMoldHeaderBytes;
  for (const MessageView& message : messages) {
    store_be(at, static_cast<std::uint16_t>(message.size()));
    at += kMoldLengthBytes;
    if (!message.empty()) std::memcpy(at, message.data(), message.size());
    at += message.size();
  }
}

}  // namespace tickwire::net

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tickwire/core/hot.hpp"

namespace tickwire::net {

/// The sending half of RFC 6455 for a client: one unfragmented, masked frame a call. Pure functions.

enum class FrameOpcode : std::uint8_t { Text = 0x1, Binary = 0x2, Close = 0x8, Ping = 0x9, Pong = 0xA };

/// Bytes that write_frame() writes for a payload of this size.
constexpr std::size_t masked_frame_bytes(std::size_t payload_bytes) noexcept TICKWIRE_HOT {
  return payload_bytes + 6 + (payload_bytes < 126 ? 0u : payload_bytes < 65536 ? 2u : 8u);
}

/// Writes header, mask and masked payload to `out`, which has masked_frame_bytes() of room and does
/// not overlap the payload. Bit 0 of the key is bit 0 of the first masked byte.
void write_frame(char* out, FrameOpcode opcode, std::uint32_t mask, std::span<const char> payload) noexcept
    TICKWIRE_HOT;

/// Source of masking keys and handshake nonces: xoshiro256**, seeded by the kernel's generator. RFC
/// 6455 §5.3 wants keys that the sender of the payload cannot predict; nobody but us chooses ours.
class KeyGenerator {
 public:
  /// A seed other than 0 makes the sequence repeatable, for tests. Throws SetupError when the kernel
  /// gives no random bytes.
  explicit KeyGenerator(std::uint64_t seed);

  std::uint64_t next() noexcept TICKWIRE_HOT;

  /// Uniform in [0, 1).
  double uniform() noexcept TICKWIRE_HOT { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  std::uint64_t state_[4];
};

}  // namespace tickwire::net

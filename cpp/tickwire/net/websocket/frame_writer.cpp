#include "tickwire/net/websocket/frame_writer.hpp"

#include <sys/random.h>

#include <bit>
#include <cerrno>
#include <cstring>

#include "tickwire/core/error.hpp"

namespace tickwire::net {

static_assert(std::endian::native == std::endian::little, "the mask is applied in eight-byte words");

void write_frame(char* out, FrameOpcode opcode, std::uint32_t mask, std::span<const char> payload) noexcept {
  const std::size_t size = payload.size();
  *out++ = static_cast<char>(0x80 | static_cast<std::uint8_t>(opcode));
  const auto length_byte = [&out](std::uint64_t value) noexcept { *out++ = static_cast<char>(value); };
  if (size < 126) {
    length_byte(0x80 | size);
  } else if (size < 65536) {
    length_byte(0x80 | 126);
    length_byte(size >> 8);
    length_byte(size & 0xFF);
  } else {
    length_byte(0x80 | 127);
    for (int shift = 56; shift >= 0; shift -= 8) length_byte((size >> shift) & 0xFF);
  }
  std::memcpy(out, &mask, sizeof mask);
  out += sizeof mask;

  const std::uint64_t mask_word = std::uint64_t{mask} << 32 | mask;
  std::size_t at = 0;
  for (; at + 8 <= size; at += 8) {
    std::uint64_t word;
    std::memcpy(&word, payload.data() + at, sizeof word);
    word ^= mask_word;
    std::memcpy(out + at, &word, sizeof word);
  }
  for (; at < size; ++at) {
    out[at] = static_cast<char>(static_cast<unsigned char>(payload[at]) ^ (mask >> (8 * (at % 4)) & 0xFF));
  }
}

KeyGenerator::KeyGenerator(std::uint64_t seed) {
  if (seed == 0) {
    ssize_t got;
    do {
      got = ::getrandom(state_, sizeof state_, 0);
    } while (got < 0 && errno == EINTR);
    if (got != static_cast<ssize_t>(sizeof state_)) {
      throw SetupError(std::string("getrandom: ") + std::strerror(errno));
    }
    return;
  }
  // splitmix64, as the authors of xoshiro advise: a small seed must not give a state that is mostly zeros.
  for (std::uint64_t& word : state_) {
    seed += 0x9E3779B97F4A7C15u;
    std::uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    word = z ^ (z >> 31);
  }
}

std::uint64_t KeyGenerator::next() noexcept {
  const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const std::uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

}  // namespace tickwire::net

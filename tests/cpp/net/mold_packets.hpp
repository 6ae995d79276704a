#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// MoldUDP64 datagrams as a venue writes them, byte by byte and without the code under test.
namespace tickwire::net::test {

inline std::string big_endian(std::uint64_t value, int bytes) {
  std::string out;
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xFF);
  return out;
}

/// `count` is claimed where it is not the number of messages.
inline std::string mold_datagram(std::string_view session, std::uint64_t sequence,
                                 const std::vector<std::string>& messages, int count = -1) {
  std::string out(session);
  out.resize(10, ' ');
  out += big_endian(sequence, 8);
  out += big_endian(count < 0 ? messages.size() : static_cast<std::uint64_t>(count), 2);
  for (const std::string& message : messages) out += big_endian(message.size(), 2) + message;
  return out;
}

}  // namespace tickwire::net::test

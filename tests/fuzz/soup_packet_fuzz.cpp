// Fuzz target of the SoupBinTCP parser: the same bytes, whole and in pieces, must give the same packets, and
// a number must be the one that its digits say. CMakeLists.txt says how it is run.
//
// Input: one byte that chooses the pieces, then what the server sends.
//
// Covers: net/soupbintcp/soup_packet.cpp

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "tickwire/net/soupbintcp/soup_packet.hpp"

namespace soup_packet_fuzz {

using namespace tickwire::net;

inline void require(bool held) {
  if (!held) std::abort();
}

inline void check_number(std::span<const char> text) {
  std::uint64_t value = 0;
  if (!read_soup_number(text, value)) return;
  std::string digits(text.begin(), text.end());
  digits.erase(0, digits.find_first_not_of(' '));
  digits.erase(digits.find_last_not_of(' ') + 1);
  digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size() - 1));
  require(digits == std::to_string(value));
}

inline std::string transcript(SoupParser& parser, std::string_view bytes, std::uint8_t pieces) {
  std::string out;
  parser.reset();
  std::uint32_t state = pieces;
  while (!bytes.empty()) {
    const auto room = parser.writable();
    require(!room.empty());
    std::size_t count = room.size();
    if (pieces != 0) {
      state = state * 1664525U + 1013904223U;
      count = 1 + (state >> 16U) % pieces;
    }
    count = std::min({count, room.size(), bytes.size()});
    std::memcpy(room.data(), bytes.data(), count);
    bytes.remove_prefix(count);
    parser.commit(count);
    SoupPacket packet;
    for (;;) {
      const SoupParser::Status status = parser.next(packet);
      if (status == SoupParser::Status::None) break;
      if (status == SoupParser::Status::Malformed) return out + "malformed";
      out += packet.type + std::to_string(packet.payload.size()) + ':';
      out.append(packet.payload.data(), packet.payload.size());
      check_number(packet.payload.first(std::min(packet.payload.size(), kSoupNumberBytes)));
      if (packet.payload.size() == 30) check_number(packet.payload.subspan(10));
    }
  }
  return out;
}

}  // namespace soup_packet_fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace soup_packet_fuzz;
  static tickwire::Arena arena({.huge_pages = tickwire::HugePages::Off, .lock = tickwire::LockMemory::Off});
  static SoupParser parser(arena);
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  require(transcript(parser, bytes, 0) == transcript(parser, bytes, data[0]));
  return 0;
}

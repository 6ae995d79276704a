// Fuzz target of the WebSocket frame parser: the same bytes, whole and in pieces, must give the same
// frames, and what is handed out must keep to the limits. CMakeLists.txt says how it is run.
//
// Input: one byte that chooses the pieces, then what the server sends.
//
// Covers: net/websocket/frame_parser.cpp net/websocket/utf8.hpp

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "tickwire/net/websocket/frame_parser.hpp"

namespace websocket_frame_fuzz {

inline constexpr std::size_t kMaxFrame = 4096;
inline constexpr std::size_t kMaxMessage = 8192;

inline void require(bool held) {
  if (!held) std::abort();
}

/// Feeds `bytes` in pieces whose sizes come from `pieces` (0: as large as they fit) and writes down
/// everything that comes out.
inline std::string transcript(tickwire::net::FrameParser& parser, std::string_view bytes,
                              std::uint8_t pieces) {
  using tickwire::net::FrameKind;
  std::string out;
  parser.reset();
  std::uint32_t state = pieces;
  while (!bytes.empty()) {
    const auto room = parser.writable();
    require(!room.empty());
    std::size_t count = room.size();
    if (pieces != 0) {
      state = state * 1664525u + 1013904223u;
      count = 1 + (state >> 16) % pieces;
    }
    count = std::min({count, room.size(), bytes.size()});
    std::memcpy(room.data(), bytes.data(), count);
    bytes.remove_prefix(count);
    parser.commit(count);
    for (;;) {
      const auto frame = parser.next();
      if (frame.kind == FrameKind::None) break;
      require(frame.payload.size() <= kMaxMessage);
      // The padding must be readable; its content is nobody's business.
      volatile char sum = 0;
      for (std::size_t i = 0; i < tickwire::kMessagePadding && frame.payload.data() != nullptr; ++i) {
        sum = static_cast<char>(sum + frame.payload.data()[frame.payload.size() + i]);
      }
      out += static_cast<char>('0' + static_cast<int>(frame.kind));
      out += std::to_string(frame.code) + ':' + std::to_string(frame.payload.size()) + ':';
      out.append(frame.payload.data(), frame.payload.size());
      if (frame.kind == FrameKind::Violation) {
        require(!parser.violation().empty());
        return out.append(parser.violation());
      }
    }
  }
  return out;
}

}  // namespace websocket_frame_fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace websocket_frame_fuzz;
  static tickwire::net::FrameParser parser({.max_frame_bytes = kMaxFrame, .max_message_bytes = kMaxMessage});
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  require(transcript(parser, bytes, 0) == transcript(parser, bytes, data[0]));
  return 0;
}

// Fuzz target of the reader of packet captures, pcap and pcapng: it ends, stays within the packets, and what
// it hands out is, written by us and read again, the same. A payload that reads as one of our notes is,
// written again, the same text. CMakeLists.txt says how it is run.
//
// Input: a capture file.
//
// Covers: md/pcap.cpp md/stream_note.cpp

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/core/error.hpp"
#include "tickwire/md/pcap.hpp"
#include "tickwire/md/stream_note.hpp"

namespace pcap_fuzz {

using namespace tickwire::md;

inline void require(bool held) {
  if (!held) std::abort();
}

struct Copy {
  PcapDatagram head;
  std::string payload;
};

inline std::vector<Copy> read(PcapReader& reader) {
  std::vector<Copy> out;
  PcapDatagram datagram;
  while (reader.next(datagram)) {
    out.push_back({datagram, {datagram.payload.begin(), datagram.payload.end()}});
  }
  require(!reader.next(datagram));
  require(reader.truncated() == !reader.error().empty());
  const PcapStats& stats = reader.stats();
  require(stats.datagrams == out.size());
  require(stats.packets == stats.datagrams + stats.other + stats.fragments + stats.cut + stats.malformed);
  return out;
}

/// Leading zeros aside, which only others write.
inline void check_note(const std::string& payload) {
  StreamNote note{};
  StreamNote again{};
  if (!parse_stream_note(payload, note)) return;
  std::array<char, kMaxStreamNote> text;
  const std::string_view written = format_stream_note(text, note);
  require(parse_stream_note(written, again) && written.size() <= payload.size());
  require(again.kind == note.kind && again.first == note.first && again.count == note.count);
}

}  // namespace pcap_fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pcap_fuzz;
  std::vector<Copy> first;
  try {
    PcapReader reader({reinterpret_cast<const char*>(data), size}, "input");
    first = read(reader);
  } catch (const tickwire::SetupError&) {
    return 0;
  }
  for (const Copy& copy : first) check_note(copy.payload);
  std::string file;
  std::size_t written = 0;
  format_pcap_header(file);
  for (Copy& copy : first) {
    copy.head.payload = {copy.payload.data(), copy.payload.size()};
    // What the format has no room for: times before 1970 or, as libpcap reads it, after 2038, and a length
    // that the card's own cutting had left open.
    if (copy.head.ts < 0 || copy.head.ts >= (std::int64_t{1} << 31) * 1'000'000'000) return 0;
    if (copy.payload.size() > 65487) return 0;
    // An IPv6 packet may hold addresses that are written as IPv4 ones.
    try {
      format_pcap_datagram(file, copy.head);
    } catch (const tickwire::SetupError&) {
      return 0;
    }
    ++written;
  }
  PcapReader again({file.data(), file.size()}, "ours");
  const std::vector<Copy> second = read(again);
  require(!again.truncated() && second.size() == written);
  for (std::size_t i = 0; i < written; ++i) {
    require(second[i].head.ts == first[i].head.ts && second[i].payload == first[i].payload &&
            second[i].head.source == first[i].head.source &&
            second[i].head.destination == first[i].head.destination);
  }
  return 0;
}

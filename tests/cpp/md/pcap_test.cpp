#include "tickwire/md/pcap.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tickwire/core/error.hpp"

namespace tickwire::md {
namespace {

std::string be16(unsigned value) { return {static_cast<char>(value >> 8), static_cast<char>(value & 0xFF)}; }
std::string le(std::uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 0xFF);
  return out;
}

// A packet by hand: 10.0.0.1:1000 to 239.1.2.3:2000.
std::string udp(const std::string& payload, int claimed = -1) {
  const auto bytes =
      static_cast<unsigned>(claimed < 0 ? 8 + payload.size() : static_cast<std::size_t>(claimed));
  return be16(1000) + be16(2000) + be16(bytes) + be16(0) + payload;
}
std::string ipv4(const std::string& inside, int protocol = 17, unsigned fragment = 0, int total = -1,
                 const std::string& options = "") {
  const std::size_t header = 20 + options.size();
  const auto bytes =
      static_cast<unsigned>(total < 0 ? header + inside.size() : static_cast<std::size_t>(total));
  return std::string{static_cast<char>(0x40 + header / 4), 0} + be16(bytes) + be16(7) + be16(fragment) +
         std::string{16, static_cast<char>(protocol)} + be16(0) +
         std::string("\x0A\0\0\x01\xEF\x01\x02\x03", 8) + options + inside;
}
std::string ethernet(const std::string& inside, unsigned type = 0x0800, const std::string& tags = "") {
  return std::string(12, 'm') + tags + be16(type) + inside;
}

struct Packet {
  std::uint64_t seconds;
  std::uint64_t fraction;
  std::string data;
  std::size_t wire = 0;  // 0: as recorded.
};

std::string pcap(const std::vector<Packet>& packets, bool nanoseconds = true, unsigned link = 1) {
  std::string out = le(nanoseconds ? 0xA1B23C4D : 0xA1B2C3D4, 4) + le(2, 2) + le(4, 2) + le(0, 8) +
                    le(65535, 4) + le(link, 4);
  for (const Packet& packet : packets) {
    out += le(packet.seconds, 4) + le(packet.fraction, 4) + le(packet.data.size(), 4) +
           le(packet.wire == 0 ? packet.data.size() : packet.wire, 4) + packet.data;
  }
  return out;
}

/// "time from to payload" of each.
std::vector<std::string> read(PcapReader& reader) {
  std::vector<std::string> out;
  PcapDatagram datagram;
  while (reader.next(datagram)) {
    out.push_back(std::to_string(datagram.ts) + ' ' + text_of(datagram.source) + ' ' +
                  text_of(datagram.destination) + ' ' +
                  std::string(datagram.payload.begin(), datagram.payload.end()));
  }
  return out;
}

using Lines = std::vector<std::string>;

Lines lines_of(const std::string& file, PcapStats* stats = nullptr) {
  PcapReader reader({file.data(), file.size()}, "test");
  Lines out = read(reader);
  EXPECT_FALSE(reader.truncated()) << reader.error();
  if (stats != nullptr) *stats = reader.stats();
  return out;
}

const std::string kEnds = " 10.0.0.1:1000 239.1.2.3:2000 ";

TEST(PcapReader, ReadsMicrosecondsAndNanoseconds) {
  const std::string packet = ethernet(ipv4(udp("hello")));
  EXPECT_EQ(lines_of(pcap({{1700000000, 123456789, packet}})),
            Lines{"1700000000123456789" + kEnds + "hello"});
  EXPECT_EQ(lines_of(pcap({{1700000000, 123456, packet}}, false)),
            Lines{"1700000000123456000" + kEnds + "hello"});
}

TEST(PcapReader, LooksPastTagsOptionsAndPadding) {
  const std::string one = be16(0x8100) + be16(0x008D);
  const std::string two = be16(0x88A8) + be16(5) + one;
  const std::vector<Packet> packets{{1, 0, ethernet(ipv4(udp("tag")), 0x0800, one)},
                                    {2, 0, ethernet(ipv4(udp("tags")), 0x0800, two)},
                                    {3, 0, ethernet(ipv4(udp("options"), 17, 0, -1, std::string(8, '\1')))},
                                    {4, 0, ethernet(ipv4(udp("pad")) + std::string(15, '\0'))},
                                    {5, 0, ethernet(ipv4(udp("offload"), 17, 0, 0))}};
  EXPECT_EQ(lines_of(pcap(packets)), (Lines{"1000000000" + kEnds + "tag", "2000000000" + kEnds + "tags",
                                            "3000000000" + kEnds + "options", "4000000000" + kEnds + "pad",
                                            "5000000000" + kEnds + "offload"}));
}

TEST(PcapReader, KnowsTheLinksThatLoopbackAndTunnelsHave) {
  const std::string ip = ipv4(udp("x"));
  const Lines expected{"1000000000" + kEnds + "x"};
  EXPECT_EQ(lines_of(pcap({{1, 0, ip}}, true, 101)), expected);
  EXPECT_EQ(lines_of(pcap({{1, 0, ip}}, true, 228)), expected);
  EXPECT_EQ(lines_of(pcap({{1, 0, le(2, 4) + ip}}, true, 0)), expected);
  EXPECT_EQ(lines_of(pcap({{1, 0, std::string(14, 's') + be16(0x0800) + ip}}, true, 113)), expected);
  EXPECT_EQ(lines_of(pcap({{1, 0, be16(0x0800) + std::string(18, 's') + ip}}, true, 276)), expected);
}

TEST(PcapReader, CountsWhatIsNoWholeDatagram) {
  const std::string whole = ethernet(ipv4(udp("whole")));
  PcapStats stats;
  const std::vector<Packet> packets{{1, 0, ethernet(ipv4("tcp", 6))},
                                    {1, 0, ethernet("arp", 0x0806)},
                                    {1, 0, ethernet(ipv4(udp("x"), 17, 0x2000))},  // More pieces follow.
                                    {1, 0, ethernet(ipv4("piece", 17, 0x0010))},   // A later piece.
                                    {1, 0, whole.substr(0, 44), whole.size()},     // Recorded in part.
                                    {1, 0, whole.substr(0, 10), whole.size()},
                                    {1, 0, ethernet(ipv4(udp("x", 7)))},    // No room for its own header.
                                    {1, 0, ethernet(ipv4(udp("x", 100)))},  // Longer than the packet.
                                    {1, 0, ethernet(ipv4(udp("x"), 17, 0, 500))},
                                    {1, 0, ethernet(std::string(1, '\x50') + std::string(30, 'x'))},
                                    {1, 0, whole}};
  EXPECT_EQ(lines_of(pcap(packets), &stats), Lines{"1000000000" + kEnds + "whole"});
  EXPECT_EQ(stats.packets, 11u);
  EXPECT_EQ(stats.other, 2u);
  EXPECT_EQ(stats.fragments, 2u);
  EXPECT_EQ(stats.cut, 2u);
  EXPECT_EQ(stats.malformed, 4u);
}

TEST(PcapReader, ReportsAFileCutAnywhereAndGivesWhatIsWhole) {
  const std::string packet = ethernet(ipv4(udp("hello")));
  const std::string file = pcap({{1, 0, packet}, {2, 0, packet}});
  const std::size_t first_end = file.size() - 16 - packet.size();
  for (std::size_t bytes = first_end; bytes <= file.size(); ++bytes) {
    PcapReader reader({file.data(), bytes}, "test");
    EXPECT_EQ(read(reader).size(), bytes == file.size() ? 2u : 1u) << bytes;
    EXPECT_EQ(reader.truncated(), bytes != first_end && bytes != file.size()) << bytes;
    EXPECT_EQ(reader.error().starts_with("test: after packet 1: "), reader.truncated()) << reader.error();
  }
}

TEST(PcapReader, RefusesWhatIsNoCapture) {
  for (const std::string& text :
       {std::string("no capture, but long enough for a header"), std::string("x")}) {
    EXPECT_THROW(PcapReader({text.data(), text.size()}, "test"), SetupError);
  }
  EXPECT_THROW(PcapReader(std::span<const char>(), "test"), SetupError);
  EXPECT_THROW(PcapReader("/nowhere/at/all.pcap"), SetupError);
  EXPECT_THROW(PcapReader("/tmp"), SetupError);
}

TEST(PcapWriter, WritesWhatTheReaderReads) {
  std::string file;
  format_pcap_header(file);
  Lines expected;
  const std::string payloads[] = {"", "odd", "even", std::string(1472, 'x'), std::string(65487, 'y')};
  for (std::uint16_t i = 0; i < 10; ++i) {
    PcapDatagram datagram;
    datagram.ts = 1'700'000'000'000'000'001 + i;
    ASSERT_TRUE(parse_pcap_endpoint(i < 5 ? "192.0.2.7" : "2001:db8::7", 1000, datagram.source));
    ASSERT_TRUE(parse_pcap_endpoint(i < 5 ? "233.54.12.111" : "ff05::1", static_cast<std::uint16_t>(2000 + i),
                                    datagram.destination));
    const std::string& payload = payloads[i % 5];
    datagram.payload = {payload.data(), payload.size()};
    format_pcap_datagram(file, datagram);
    expected.push_back(std::to_string(datagram.ts) +
                       (i < 5 ? " 192.0.2.7:1000 233.54.12.111:" : " [2001:db8::7]:1000 [ff05::1]:") +
                       std::to_string(2000 + i) + ' ' + payload);
  }
  EXPECT_EQ(lines_of(file), expected);
}

// The sum over a whole header with its checksum in it is all ones.
TEST(PcapWriter, WritesChecksumsThatHold) {
  std::string file;
  PcapDatagram datagram;
  datagram.ts = 1;
  ASSERT_TRUE(parse_pcap_endpoint("192.0.2.7", 1000, datagram.source));
  ASSERT_TRUE(parse_pcap_endpoint("233.54.12.111", 26477, datagram.destination));
  datagram.payload = {"odd", 3};
  format_pcap_datagram(file, datagram);
  const auto sum = [](const std::string& bytes) {
    std::uint32_t total = 0;
    for (std::size_t i = 0; i < bytes.size(); i += 2) {
      total += static_cast<unsigned char>(bytes[i]) * 256U +
               (i + 1 < bytes.size() ? static_cast<unsigned char>(bytes[i + 1]) : 0U);
    }
    while (total > 0xFFFF) total = (total & 0xFFFF) + (total >> 16);
    return total;
  };
  const std::string ip = file.substr(16);
  EXPECT_EQ(sum(ip.substr(0, 20)), 0xFFFFu);
  EXPECT_EQ(sum(ip.substr(12, 8) + be16(17) + be16(11) + ip.substr(20)), 0xFFFFu);
}

TEST(PcapWriter, RefusesWhatAPacketCannotHold) {
  std::string file;
  PcapDatagram datagram{};
  ASSERT_TRUE(parse_pcap_endpoint("192.0.2.7", 1, datagram.source));
  ASSERT_TRUE(parse_pcap_endpoint("ff05::1", 1, datagram.destination));
  EXPECT_THROW(format_pcap_datagram(file, datagram), SetupError);
  datagram.destination = datagram.source;
  const std::string payload(65508, 'x');
  datagram.payload = {payload.data(), payload.size()};
  EXPECT_THROW(format_pcap_datagram(file, datagram), SetupError);
  PcapEndpoint endpoint;
  EXPECT_FALSE(parse_pcap_endpoint("venue", 1, endpoint));
}

// ---- Recorded data, where it is there ----

std::string data_folder() {
  const char* const named = std::getenv("TICKWIRE_DATA");
  return named != nullptr
             ? named
             : (std::filesystem::path(__FILE__).parent_path() / "../../../../shared/data").string();
}

TEST(PcapReader, ReadsTheRecordedTwoLinesOfCme) {
  const std::string path = data_folder() + "/pcap/cme_mdp3_ab_20161112.pcapng.gz";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  PcapReader reader(path);
  std::map<std::string, std::vector<std::string>> payloads;
  PcapDatagram datagram;
  TsNs first = 0;
  TsNs last = 0;
  while (reader.next(datagram)) {
    if (first == 0) first = datagram.ts;
    last = datagram.ts;
    payloads[text_of(datagram.destination)].emplace_back(datagram.payload.begin(), datagram.payload.end());
  }
  EXPECT_FALSE(reader.truncated()) << reader.error();
  EXPECT_EQ(reader.stats().packets, 10000u);
  EXPECT_EQ((last - first + 50'000'000) / 100'000'000, 3036);
  ASSERT_EQ(payloads.size(), 2u);
  const std::vector<std::string>& a = payloads["224.0.31.64:14340"];
  EXPECT_EQ(a, payloads["224.0.32.64:15340"]);
  ASSERT_EQ(a.size(), 5000u);
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::uint32_t sequence;
    std::memcpy(&sequence, a[i].data(), sizeof sequence);  // Little-endian, as this format is.
    ASSERT_EQ(sequence, 5615 + i);
  }
}

TEST(PcapReader, ReadsTheRecordedDayOfIexUpToItsCut) {
  const std::string path = data_folder() + "/pcap/iex_deep10_20170425.pcap.gz";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  PcapReader reader(path);
  PcapDatagram datagram;
  std::uint64_t messages = 0;
  std::uint64_t next = 0;
  int jumps = 0;
  while (reader.next(datagram)) {
    // IEX-TP: 14 message count, 24 number of the first message.
    std::uint16_t count;
    std::uint64_t sequence;
    ASSERT_GE(datagram.payload.size(), 40u);
    std::memcpy(&count, datagram.payload.data() + 14, sizeof count);
    std::memcpy(&sequence, datagram.payload.data() + 24, sizeof sequence);
    if (next != 0 && sequence != next) ++jumps;
    next = sequence + count;
    messages += count;
  }
  EXPECT_TRUE(reader.truncated());
  EXPECT_NE(reader.error(), "");
  EXPECT_EQ(jumps, 11);
  // Of 121,315 and 392,011, which count the packet that is cut and the twelve messages that it begins.
  EXPECT_EQ(reader.stats().packets, 121314u);
  EXPECT_EQ(messages, 391999u);
}

TEST(PcapReader, ReadsTheRecordedPacketsOfNasdaq) {
  const std::filesystem::path folder = data_folder() + "/nasdaq_itch/moldudp64_pcap";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no " << folder;
  int files = 0;
  int full = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().extension() != ".pcap") continue;
    SCOPED_TRACE(entry.path().string());
    ++files;
    PcapReader reader(entry.path().string());
    PcapDatagram datagram;
    while (reader.next(datagram)) {
      if (entry.path().parent_path().filename() == "full_header") {
        ++full;
        EXPECT_EQ(text_of(datagram.destination), "233.54.12.111:26477");
      }
      EXPECT_GT(datagram.payload.size(), 20u);
    }
    EXPECT_FALSE(reader.truncated()) << reader.error();
    EXPECT_GT(reader.stats().packets, 0u);
    EXPECT_EQ(reader.stats().datagrams, reader.stats().packets);
  }
  EXPECT_EQ(files, 23);
  EXPECT_EQ(full, 9);
}

}  // namespace
}  // namespace tickwire::md

#pragma once

/// UDP datagrams in packet captures: pcap and pcapng, with microseconds or nanoseconds, plain, .gz or .zst.
///
/// PcapReader reads a file through libpcap and hands out the datagrams in it, whatever group they went to,
/// past VLAN tags and IP options. What is no UDP over IP is counted and skipped; a file cut short in the
/// middle of a packet, as a recorder that was killed leaves it, ends there and says so.
///
/// format_pcap_header() and format_pcap_datagram() append to the caller's buffer what a file of ours is made
/// of: a pcap with nanoseconds, each datagram behind the IP and UDP headers it came with, as any tool reads.
///
/// Setup and offline code: used by the replay of multicast feeds and by their recorder.

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "tickwire/core/types.hpp"

namespace tickwire::md {

/// An IP address and a UDP port. An IPv4 address lies in the last four bytes, behind ten zeros and two 0xFF,
/// as IPv6 writes it.
struct PcapEndpoint {
  std::array<std::uint8_t, 16> address{};
  std::uint16_t port = 0;

  auto operator<=>(const PcapEndpoint&) const = default;
};

/// From numbers and dots or colons. False where the text is no address.
[[nodiscard]] bool parse_pcap_endpoint(const std::string& address, std::uint16_t port, PcapEndpoint& out);
/// "233.54.12.111:26477", "[ff02::1]:7".
std::string text_of(const PcapEndpoint& endpoint);

struct PcapDatagram {
  TsNs ts;
  PcapEndpoint source;
  PcapEndpoint destination;
  std::span<const char> payload;  // Holds until the next call of next().
};

struct PcapStats {
  std::uint64_t packets = 0;
  std::uint64_t datagrams = 0;  // Handed out.
  std::uint64_t other = 0;      // No UDP over IP …
  std::uint64_t tcp = 0;        // … of which TCP.
  std::uint64_t fragments = 0;  // Parts of a datagram that IP had cut in pieces.
  std::uint64_t cut = 0;        // Recorded with fewer bytes than they had.
  std::uint64_t malformed = 0;  // Lengths that contradict each other.
};

/// Does the file begin as a pcap or pcapng does, plain or compressed? False where it cannot be read, or is no
/// regular file: a pipe can be looked at once.
[[nodiscard]] bool is_pcap(const std::string& path);

class PcapReader {
 public:
  /// Throws SetupError where the file cannot be opened or is no capture of a kind that we know.
  explicit PcapReader(const std::string& path);
  /// From memory, which must outlive the reader. `name` stands for it in errors.
  PcapReader(std::span<const char> bytes, const std::string& name);
  ~PcapReader();
  PcapReader(const PcapReader&) = delete;
  PcapReader& operator=(const PcapReader&) = delete;

  /// The next datagram; false at the end.
  [[nodiscard]] bool next(PcapDatagram& datagram);

  /// The file ended where more should have come; error() says how.
  bool truncated() const noexcept;
  /// Empty where nothing was wrong with the file.
  const std::string& error() const noexcept;
  const PcapStats& stats() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// What a file begins with.
void format_pcap_header(std::string& out);
/// One datagram, of a time from 1970 to 2038. Throws SetupError where the addresses are of two kinds or the
/// payload is too long for one.
void format_pcap_datagram(std::string& out, const PcapDatagram& datagram);

}  // namespace tickwire::md

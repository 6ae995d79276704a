#include "tickwire/md/pcap.hpp"

#include <arpa/inet.h>
#include <pcap/pcap.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

#include "tickwire/core/bytes.hpp"
#include "tickwire/core/error.hpp"
#include "tickwire/md/byte_stream.hpp"

namespace tickwire::md {
namespace {

constexpr std::uint16_t kEtherIpv4 = 0x0800;
constexpr std::uint16_t kEtherIpv6 = 0x86DD;
constexpr std::uint8_t kProtocolUdp = 17;
constexpr std::uint8_t kProtocolTcp = 6;
constexpr std::size_t kUdpHeader = 8;
constexpr std::size_t kIpv4Header = 20;
constexpr std::size_t kIpv6Header = 40;
/// What a stamp in nanoseconds can hold.
constexpr std::int64_t kMostSeconds = 9'000'000'000;

constexpr std::array<std::uint8_t, 12> kMappedIpv4{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

bool is_ipv4(const PcapEndpoint& endpoint) {
  return std::equal(kMappedIpv4.begin(), kMappedIpv4.end(), endpoint.address.begin());
}

PcapEndpoint endpoint_of(const char* address, std::size_t bytes, const char* port) {
  PcapEndpoint out;
  if (bytes == 4) std::copy(kMappedIpv4.begin(), kMappedIpv4.end(), out.address.begin());
  std::memcpy(out.address.data() + out.address.size() - bytes, address, bytes);
  out.port = load_be<std::uint16_t>(port);
  return out;
}

/// What of a packet was recorded, and how long it was on the wire.
struct View {
  const char* data;
  std::size_t recorded;
  std::size_t wire;

  bool skip(std::size_t bytes) {
    if (recorded < bytes) return false;
    data += bytes;
    recorded -= bytes;
    wire -= bytes;
    return true;
  }
};

enum class Outcome : std::uint8_t { Datagram, Other, Tcp, Fragment, Cut, Malformed };

/// From the link's header to the IP header. Other where no IP is inside.
Outcome strip_link(int link, View& view) {
  std::size_t header = 0;
  std::size_t type_at = 0;
  switch (link) {
    case DLT_RAW:
    case DLT_IPV4:
    case DLT_IPV6: return Outcome::Datagram;
    case DLT_NULL:
    case DLT_LOOP: return view.skip(4) ? Outcome::Datagram : Outcome::Cut;  // The IP version says the rest.
    case DLT_EN10MB: header = 14, type_at = 12; break;
    case DLT_LINUX_SLL: header = 16, type_at = 14; break;
    case DLT_LINUX_SLL2: header = 20, type_at = 0; break;
    default: return Outcome::Other;
  }
  if (view.recorded < header) return Outcome::Cut;
  auto type = load_be<std::uint16_t>(view.data + type_at);
  view.skip(header);
  while (type == 0x8100 || type == 0x88A8 || type == 0x9100) {  // VLAN tags, one in the other.
    if (view.recorded < 4) return Outcome::Cut;
    type = load_be<std::uint16_t>(view.data + 2);
    view.skip(4);
  }
  return type == kEtherIpv4 || type == kEtherIpv6 ? Outcome::Datagram : Outcome::Other;
}

Outcome read_udp(View view, const char* source, const char* destination, std::size_t address_bytes,
                 PcapDatagram& out) {
  if (view.recorded < kUdpHeader) return view.wire < kUdpHeader ? Outcome::Malformed : Outcome::Cut;
  const std::size_t bytes = load_be<std::uint16_t>(view.data + 4);
  if (bytes < kUdpHeader || bytes > view.wire) return Outcome::Malformed;
  if (bytes > view.recorded) return Outcome::Cut;
  out.source = endpoint_of(source, address_bytes, view.data);
  out.destination = endpoint_of(destination, address_bytes, view.data + 2);
  out.payload = {view.data + kUdpHeader, bytes - kUdpHeader};
  return Outcome::Datagram;
}

/// Cuts what follows the IP packet: a short Ethernet frame is filled up.
bool limit(View& view, std::size_t bytes) {
  if (bytes > view.wire) return false;
  view.wire = bytes;
  view.recorded = std::min(view.recorded, bytes);
  return true;
}

Outcome read_ipv4(View view, PcapDatagram& out) {
  if (view.recorded < kIpv4Header) return view.wire < kIpv4Header ? Outcome::Malformed : Outcome::Cut;
  const char* const ip = view.data;
  const std::size_t header = static_cast<std::size_t>(ip[0] & 15) * 4;
  const std::size_t total = load_be<std::uint16_t>(ip + 2);
  // Zero: the card was left to cut it into packets, and it was recorded before.
  if (header < kIpv4Header || (total != 0 && (total < header || !limit(view, total)))) {
    return Outcome::Malformed;
  }
  if (const auto protocol = static_cast<std::uint8_t>(ip[9]); protocol != kProtocolUdp) {
    return protocol == kProtocolTcp ? Outcome::Tcp : Outcome::Other;
  }
  if ((load_be<std::uint16_t>(ip + 6) & 0x3FFF) != 0) return Outcome::Fragment;
  if (header > view.wire) return Outcome::Malformed;
  if (!view.skip(header)) return Outcome::Cut;
  return read_udp(view, ip + 12, ip + 16, 4, out);
}

Outcome read_ipv6(View view, PcapDatagram& out) {
  if (view.recorded < kIpv6Header) return view.wire < kIpv6Header ? Outcome::Malformed : Outcome::Cut;
  const char* const ip = view.data;
  auto next = static_cast<std::uint8_t>(ip[6]);
  const std::size_t payload = load_be<std::uint16_t>(ip + 4);
  view.skip(kIpv6Header);
  if (!limit(view, payload)) return Outcome::Malformed;
  // Hop-by-hop options, routing, destination options: each says what follows and how long it is.
  while (next == 0 || next == 43 || next == 60) {
    if (view.recorded < 8) return view.wire < 8 ? Outcome::Malformed : Outcome::Cut;
    next = static_cast<std::uint8_t>(view.data[0]);
    const std::size_t bytes = (static_cast<std::size_t>(static_cast<std::uint8_t>(view.data[1])) + 1) * 8;
    if (bytes > view.wire) return Outcome::Malformed;
    if (!view.skip(bytes)) return Outcome::Cut;
  }
  if (next == 44) return Outcome::Fragment;
  if (next != kProtocolUdp) return next == kProtocolTcp ? Outcome::Tcp : Outcome::Other;
  return read_udp(view, ip + 8, ip + 24, 16, out);
}

Outcome read_packet(int link, View view, PcapDatagram& out) {
  if (const Outcome outcome = strip_link(link, view); outcome != Outcome::Datagram) return outcome;
  if (view.recorded == 0) return Outcome::Cut;
  switch (static_cast<std::uint8_t>(view.data[0]) >> 4U) {
    case 4: return read_ipv4(view, out);
    case 6: return read_ipv6(view, out);
    default: return Outcome::Malformed;
  }
}

}  // namespace

bool is_pcap(const std::string& path) {
  struct stat status{};
  ByteStream stream;
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode) || !stream.open(path, false)) {
    return false;
  }
  char head[4];
  std::size_t got = 0;
  for (std::size_t more = 1; more != 0 && got < sizeof head; got += more) {
    more = stream.read(head + got, sizeof head - got);
  }
  if (got < sizeof head) return false;
  // pcapng in either byte order; pcap in either, with stamps in microseconds or nanoseconds.
  static constexpr std::uint32_t kMagic[] = {0x0A0D0D0A, 0xA1B2C3D4, 0xD4C3B2A1, 0xA1B23C4D, 0x4D3CB2A1};
  return std::find(std::begin(kMagic), std::end(kMagic), load_be<std::uint32_t>(head)) != std::end(kMagic);
}

struct PcapReader::Impl {
  explicit Impl(std::string file) : name(std::move(file)) {}
  ~Impl() {
    if (pcap != nullptr) ::pcap_close(pcap);  // Closes the FILE too.
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void open(FILE* file) {
    if (file == nullptr) throw SetupError("capture " + name + ": cannot be read: " + std::strerror(errno));
    char why[PCAP_ERRBUF_SIZE] = "";
    pcap = ::pcap_fopen_offline_with_tstamp_precision(file, PCAP_TSTAMP_PRECISION_NANO, why);
    if (pcap == nullptr) {
      (void)std::fclose(file);
      const char* const failure = stream != nullptr ? stream->failure() : nullptr;
      throw SetupError("capture " + name, "a pcap or pcapng file", failure != nullptr ? failure : why);
    }
    link = ::pcap_datalink(pcap);
  }

  const std::string name;
  std::unique_ptr<ByteStream> stream;
  pcap_t* pcap = nullptr;
  int link = 0;
  bool truncated = false;
  bool ended = false;
  std::string error;
  PcapStats stats;
};

PcapReader::PcapReader(const std::string& path) : impl_(std::make_unique<Impl>(path)) {
  struct stat status{};
  if (::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) {
    throw SetupError("capture " + path, "a file", "a directory");
  }
  impl_->stream = std::make_unique<ByteStream>();
  if (!impl_->stream->open(path, false)) {
    throw SetupError("capture " + path + ": cannot be opened: " + std::strerror(errno));
  }
  const cookie_io_functions_t functions{
      .read = [](void* cookie, char* out, std::size_t size) -> ssize_t {
        return static_cast<ssize_t>(static_cast<ByteStream*>(cookie)->read(out, size));
      },
      .write = nullptr,
      .seek = nullptr,
      .close = nullptr};
  impl_->open(::fopencookie(impl_->stream.get(), "r", functions));
}

PcapReader::PcapReader(std::span<const char> bytes, const std::string& name)
    : impl_(std::make_unique<Impl>(name)) {
  if (bytes.empty()) throw SetupError("capture " + name, "a pcap or pcapng file", "nothing");
  // Opened for reading: the bytes are not written to.
  impl_->open(::fmemopen(const_cast<char*>(bytes.data()), bytes.size(), "r"));
}

PcapReader::~PcapReader() = default;

bool PcapReader::truncated() const noexcept { return impl_->truncated; }
const std::string& PcapReader::error() const noexcept { return impl_->error; }
const PcapStats& PcapReader::stats() const noexcept { return impl_->stats; }

bool PcapReader::next(PcapDatagram& datagram) {
  Impl& impl = *impl_;
  while (!impl.ended) {
    pcap_pkthdr* header = nullptr;
    const u_char* data = nullptr;
    const int got = ::pcap_next_ex(impl.pcap, &header, &data);
    if (got != 1) {
      impl.ended = true;
      const char* const failure = impl.stream != nullptr ? impl.stream->failure() : nullptr;
      if (failure != nullptr || got != PCAP_ERROR_BREAK) {
        impl.truncated = true;
        impl.error = impl.name + ": after packet " + std::to_string(impl.stats.packets) + ": " +
                     (failure != nullptr ? failure : ::pcap_geterr(impl.pcap));
      }
      break;
    }
    ++impl.stats.packets;
    const View view{reinterpret_cast<const char*>(data), header->caplen,
                    std::max<std::size_t>(header->len, header->caplen)};
    Outcome outcome = Outcome::Malformed;
    // In nanoseconds, whatever its name says.
    const std::int64_t seconds = header->ts.tv_sec;
    const std::int64_t ns = header->ts.tv_usec;
    if (seconds > -kMostSeconds && seconds < kMostSeconds && ns >= 0 && ns < 1'000'000'000) {
      datagram.ts = seconds * 1'000'000'000 + ns;
      outcome = read_packet(impl.link, view, datagram);
    }
    switch (outcome) {
      case Outcome::Datagram: ++impl.stats.datagrams; return true;
      case Outcome::Tcp: ++impl.stats.tcp; [[fallthrough]];
      case Outcome::Other: ++impl.stats.other; break;
      case Outcome::Fragment: ++impl.stats.fragments; break;
      case Outcome::Cut: ++impl.stats.cut; break;
      case Outcome::Malformed: ++impl.stats.malformed; break;
    }
  }
  return false;
}

bool parse_pcap_endpoint(const std::string& address, std::uint16_t port, PcapEndpoint& out) {
  out = {};
  out.port = port;
  std::copy(kMappedIpv4.begin(), kMappedIpv4.end(), out.address.begin());
  return ::inet_pton(AF_INET, address.c_str(), out.address.data() + kMappedIpv4.size()) == 1 ||
         ::inet_pton(AF_INET6, address.c_str(), out.address.data()) == 1;
}

std::string text_of(const PcapEndpoint& endpoint) {
  char text[INET6_ADDRSTRLEN] = "";
  if (is_ipv4(endpoint)) {
    ::inet_ntop(AF_INET, endpoint.address.data() + kMappedIpv4.size(), text, sizeof text);
    return std::string(text) + ':' + std::to_string(endpoint.port);
  }
  ::inet_ntop(AF_INET6, endpoint.address.data(), text, sizeof text);
  return '[' + std::string(text) + "]:" + std::to_string(endpoint.port);
}

// ---- Writing ----

namespace {

constexpr std::uint32_t kNanosecondMagic = 0xA1B23C4D;
constexpr std::uint32_t kLinkRaw = 101;  // A packet begins with its IP header.
constexpr std::uint32_t kSnapLength = 262144;

template <typename T>
void append(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof bytes);
}

template <typename T>
void append_be(std::string& out, T value) {
  char bytes[sizeof value];
  store_be(bytes, value);
  out.append(bytes, sizeof bytes);
}

/// The Internet checksum over what begins at `from`, and `sum` of what is not there.
std::uint16_t checksum(const std::string& out, std::size_t from, std::uint32_t sum = 0) {
  for (std::size_t i = from; i + 1 < out.size(); i += 2) sum += load_be<std::uint16_t>(out.data() + i);
  if ((out.size() - from) % 2 != 0)
    sum += static_cast<std::uint32_t>(static_cast<std::uint8_t>(out.back())) << 8U;
  while (sum > 0xFFFF) sum = (sum & 0xFFFFU) + (sum >> 16U);
  return static_cast<std::uint16_t>(~sum);
}

}  // namespace

void format_pcap_header(std::string& out) {
  append(out, kNanosecondMagic);
  append<std::uint16_t>(out, 2);
  append<std::uint16_t>(out, 4);
  append<std::uint32_t>(out, 0);
  append<std::uint32_t>(out, 0);
  append(out, kSnapLength);
  append(out, kLinkRaw);
}

void format_pcap_datagram(std::string& out, const PcapDatagram& datagram) {
  const bool v4 = is_ipv4(datagram.destination);
  if (v4 != is_ipv4(datagram.source)) {
    throw SetupError("capture datagram", "addresses of one kind",
                     text_of(datagram.source) + " and " + text_of(datagram.destination));
  }
  const std::size_t udp_bytes = kUdpHeader + datagram.payload.size();
  const std::size_t bytes = udp_bytes + (v4 ? kIpv4Header : kIpv6Header);
  if (bytes > 0xFFFF) {
    throw SetupError("capture datagram", "at most 65507 bytes", std::to_string(datagram.payload.size()));
  }
  append(out, static_cast<std::uint32_t>(datagram.ts / 1'000'000'000));
  append(out, static_cast<std::uint32_t>(datagram.ts % 1'000'000'000));
  append(out, static_cast<std::uint32_t>(bytes));
  append(out, static_cast<std::uint32_t>(bytes));
  const std::size_t ip = out.size();
  const std::size_t skip = v4 ? kMappedIpv4.size() : 0;
  const auto append_address = [&](const PcapEndpoint& endpoint) {
    out.append(reinterpret_cast<const char*>(endpoint.address.data()) + skip, endpoint.address.size() - skip);
  };
  if (v4) {
    append_be<std::uint16_t>(out, 0x4500);
    append_be(out, static_cast<std::uint16_t>(bytes));
    append_be<std::uint32_t>(out, 0x4000);  // Not in pieces.
    append_be<std::uint16_t>(out, 0x4000 | kProtocolUdp);
    append_be<std::uint16_t>(out, 0);
    append_address(datagram.source);
    append_address(datagram.destination);
    store_be(out.data() + ip + 10, checksum(out, ip));
  } else {
    append_be<std::uint32_t>(out, 0x60000000);
    append_be(out, static_cast<std::uint16_t>(udp_bytes));
    append_be<std::uint16_t>(out, (kProtocolUdp << 8U) | 64U);
    append_address(datagram.source);
    append_address(datagram.destination);
  }
  const std::size_t udp = out.size();
  append_be(out, datagram.source.port);
  append_be(out, datagram.destination.port);
  append_be(out, static_cast<std::uint16_t>(udp_bytes));
  append_be<std::uint16_t>(out, 0);
  out.append(datagram.payload.data(), datagram.payload.size());
  // Over the addresses too, which stand right before, the protocol and the length.
  const std::size_t addresses = v4 ? ip + 12 : ip + 8;
  const std::uint16_t sum = checksum(out, addresses, kProtocolUdp + static_cast<std::uint32_t>(udp_bytes));
  store_be(out.data() + udp + 6, sum == 0 ? static_cast<std::uint16_t>(0xFFFF) : sum);
}

}  // namespace tickwire::md

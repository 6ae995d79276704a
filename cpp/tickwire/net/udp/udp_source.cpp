#include "tickwire/net/udp/udp_source.hpp"

#include <arpa/inet.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <utility>

#include "tickwire/core/error.hpp"

// Newer than the headers of some systems that we run on; the values are the kernel's interface.
#ifndef IPV6_MULTICAST_ALL
#define IPV6_MULTICAST_ALL 29
#endif
#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#endif
#ifndef SO_BUSY_POLL_BUDGET
#define SO_BUSY_POLL_BUDGET 70
#endif

namespace tickwire::net {
namespace {

/// Room for the stamps and the drop counter, and something to spare.
constexpr std::size_t kControlBytes = 128;
constexpr std::size_t kMostDatagramBytes = 65535;
/// Two clocks that are read one after the other differ by less.
constexpr TsNs kMostStampAheadNs = 1'000'000;
/// A card's clock that differs more from the system's is not set to UTC: TAI alone is 37 s away.
constexpr std::int64_t kMostStampDifferenceNs = 1'000'000'000;

TsNs ns_of(const timespec& time) noexcept TICKWIRE_HOT {
  return static_cast<TsNs>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

bool is_multicast(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    return IN_MULTICAST(ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr));
  }
  return IN6_IS_ADDR_MULTICAST(&reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
}

socklen_t size_of(const sockaddr_storage& address) {
  return address.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
}

/// A numeric address; `interface` gives a link-local IPv6 one its scope.
sockaddr_storage address_of(const std::string& key, const std::string& text, std::uint16_t port,
                            unsigned interface) {
  sockaddr_storage out{};
  auto& v4 = reinterpret_cast<sockaddr_in&>(out);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(out);
  if (::inet_pton(AF_INET, text.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
  } else if (::inet_pton(AF_INET6, text.c_str(), &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    const bool scoped = IN6_IS_ADDR_LINKLOCAL(&v6.sin6_addr) || IN6_IS_ADDR_MC_LINKLOCAL(&v6.sin6_addr) ||
                        IN6_IS_ADDR_MC_NODELOCAL(&v6.sin6_addr);
    v6.sin6_scope_id = scoped ? interface : 0;
  } else {
    throw SetupError(key, "an IPv4 or IPv6 address", '"' + text + '"');
  }
  return out;
}

std::pair<std::string, std::uint16_t> host_and_port(const std::string& key, const std::string& text) {
  const std::size_t colon = text.rfind(':');
  std::uint16_t port = 0;
  if (colon != std::string::npos) {
    const char* const end = text.data() + text.size();
    const auto [at, error] = std::from_chars(text.data() + colon + 1, end, port);
    if (error != std::errc{} || at != end) port = 0;
  }
  if (port == 0) throw SetupError(key, "ADDRESS:PORT", '"' + text + '"');
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return {host, port};
}

UdpConfig checked(UdpConfig config, const std::string& where) {
  if (config.batch < 1 || config.batch > 1024) {
    throw SetupError(where + ".batch", "1 to 1024", std::to_string(config.batch));
  }
  if (config.max_datagram_bytes < 1 || config.max_datagram_bytes > kMostDatagramBytes) {
    throw SetupError(where + ".max_datagram_bytes", "1 to 65535", std::to_string(config.max_datagram_bytes));
  }
  for (const auto& [field, value] : {std::pair{".socket_receive_bytes", config.socket_receive_bytes},
                                     {".busy_poll_us", config.busy_poll_us},
                                     {".busy_poll_budget", config.busy_poll_budget}}) {
    if (value < 0) throw SetupError(where + field, "0 or more", std::to_string(value));
  }
  if (config.address.empty() && config.peer.empty()) {
    throw SetupError(where + ".address: expected a multicast group or an address of this host");
  }
  return config;
}

/// As SO_RCVBUF takes it: the kernel doubles that for its own bookkeeping, and reports it doubled.
int receive_buffer(int fd) {
  int doubled = 0;
  socklen_t size = sizeof doubled;
  (void)::getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &doubled, &size);
  return doubled / 2;
}

std::string reason() { return std::string(": ") + std::strerror(errno); }

}  // namespace

UdpSource::UdpSource(UdpConfig config, const std::string& where, Arena& arena)
    : config_(checked(std::move(config), where)),
      messages_(arena.allocate<mmsghdr>(config_.batch)),
      vectors_(arena.allocate<iovec>(config_.batch)),
      // Datagrams begin on a line of their own.
      payload_stride_((config_.max_datagram_bytes + kCacheLineBytes - 1) / kCacheLineBytes *
                      kCacheLineBytes) {
  payloads_ = arena.allocate<char>(config_.batch * payload_stride_);
  controls_ = arena.allocate<char>(config_.batch * kControlBytes);
  for (std::size_t i = 0; i < config_.batch; ++i) {
    vectors_[i] = {payloads_.data() + i * payload_stride_, config_.max_datagram_bytes};
    messages_[i].msg_hdr.msg_iov = &vectors_[i];
    messages_[i].msg_hdr.msg_iovlen = 1;
    messages_[i].msg_hdr.msg_control = controls_.data() + i * kControlBytes;
    messages_[i].msg_hdr.msg_controllen = kControlBytes;
  }
  try {
    open(where);
  } catch (...) {
    if (fd_ >= 0) ::close(fd_);
    throw;
  }
}

UdpSource::~UdpSource() { ::close(fd_); }

// ---- Set-up ----

void UdpSource::open(const std::string& where) {
  unsigned interface = 0;
  if (!config_.interface.empty()) {
    interface = ::if_nametoindex(config_.interface.c_str());
    if (interface == 0) {
      throw SetupError(where + ".interface", "the name of a network interface",
                       '"' + config_.interface + '"');
    }
  }
  sockaddr_storage peer{};
  if (!config_.peer.empty()) {
    const auto [host, port] = host_and_port(where + ".peer", config_.peer);
    peer = address_of(where + ".peer", host, port, interface);
  }
  sockaddr_storage local{};
  if (config_.address.empty()) {
    local.ss_family = peer.ss_family;
    (peer.ss_family == AF_INET ? reinterpret_cast<sockaddr_in&>(local).sin_port
                               : reinterpret_cast<sockaddr_in6&>(local).sin6_port) = htons(config_.port);
  } else {
    local = address_of(where + ".address", config_.address, config_.port, interface);
  }
  const bool group = !config_.address.empty() && is_multicast(local);
  if (!group && (!config_.source_address.empty() || !config_.interface.empty())) {
    throw SetupError(where + ".address", "a multicast group, which interface and source_address are about",
                     '"' + config_.address + '"');
  }

  fd_ = ::socket(local.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
  if (fd_ < 0) throw SetupError(where + ": cannot open a UDP socket" + reason());
  const int on = 1;
  // Only for groups: two listeners of one address would share its datagrams out.
  if (group) (void)::setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (local.ss_family == AF_INET6) (void)::setsockopt(fd_, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  // Before the first datagram can come in.
  ask_for_options(where);
  if (::bind(fd_, reinterpret_cast<const sockaddr*>(&local), size_of(local)) != 0) {
    throw SetupError(where + ".address: cannot listen on " +
                     (config_.address.empty() ? "any address" : config_.address) + " port " +
                     std::to_string(config_.port) + reason());
  }
  if (group) join(where, local);
  if (!config_.peer.empty() && ::connect(fd_, reinterpret_cast<const sockaddr*>(&peer), size_of(peer)) != 0) {
    throw SetupError(where + ".peer: cannot talk to " + config_.peer + reason());
  }
  socklen_t size = sizeof local;
  if (::getsockname(fd_, reinterpret_cast<sockaddr*>(&local), &size) == 0) {
    port_ = ntohs(local.ss_family == AF_INET ? reinterpret_cast<sockaddr_in&>(local).sin_port
                                             : reinterpret_cast<sockaddr_in6&>(local).sin6_port);
  }
}

void UdpSource::join(const std::string& where, const sockaddr_storage& group) {
  const bool v4 = group.ss_family == AF_INET;
  const int level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
  const int off = 0;
  // Else the socket hears every group that anybody on this host has joined on this port.
  if (::setsockopt(fd_, level, v4 ? IP_MULTICAST_ALL : IPV6_MULTICAST_ALL, &off, sizeof off) != 0) {
    notes_.push_back("cannot confine the socket to its group" + reason() +
                     "; it is bound to the group's address, which does the same");
  }
  const unsigned interface = config_.interface.empty() ? 0 : ::if_nametoindex(config_.interface.c_str());
  int result;
  if (config_.source_address.empty()) {
    group_req request{};
    request.gr_interface = interface;
    request.gr_group = group;
    result = ::setsockopt(fd_, level, MCAST_JOIN_GROUP, &request, sizeof request);
  } else {
    group_source_req request{};
    request.gsr_interface = interface;
    request.gsr_group = group;
    request.gsr_source = address_of(where + ".source_address", config_.source_address, 0, interface);
    if (request.gsr_source.ss_family != group.ss_family) {
      throw SetupError(where + ".source_address", "the same kind of address as the group's",
                       '"' + config_.source_address + '"');
    }
    result = ::setsockopt(fd_, level, MCAST_JOIN_SOURCE_GROUP, &request, sizeof request);
  }
  if (result != 0) {
    throw SetupError(where + ".address: cannot join " + config_.address +
                     (config_.source_address.empty() ? "" : " from " + config_.source_address) +
                     (config_.interface.empty() ? " (no interface named: a route to the group is needed)"
                                                : " on " + config_.interface) +
                     reason());
  }
}

void UdpSource::ask_for_options(const std::string& /*where*/) {
  const int on = 1;
  if (config_.socket_receive_bytes > 0) {
    // Past net.core.rmem_max where we may; else as much as that allows, and without a word.
    const int* const wanted = &config_.socket_receive_bytes;
    if (::setsockopt(fd_, SOL_SOCKET, SO_RCVBUFFORCE, wanted, sizeof *wanted) != 0) {
      (void)::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, wanted, sizeof *wanted);
    }
    const int granted = receive_buffer(fd_);
    if (granted < config_.socket_receive_bytes) {
      notes_.push_back("receive buffer: asked for " + std::to_string(config_.socket_receive_bytes) +
                       " bytes, the kernel gave " + std::to_string(granted) +
                       "; raise net.core.rmem_max or run with CAP_NET_ADMIN");
    }
  }
  if (config_.busy_poll_us > 0 &&
      ::setsockopt(fd_, SOL_SOCKET, SO_BUSY_POLL, &config_.busy_poll_us, sizeof config_.busy_poll_us) != 0) {
    notes_.push_back("busy polling: the kernel refused " + std::to_string(config_.busy_poll_us) + " us" +
                     reason());
  }
  if (config_.prefer_busy_poll && ::setsockopt(fd_, SOL_SOCKET, SO_PREFER_BUSY_POLL, &on, sizeof on) != 0) {
    notes_.push_back("preferred busy polling: the kernel refused it" + reason() + "; it needs CAP_NET_ADMIN");
  }
  if (config_.busy_poll_budget > 0 &&
      ::setsockopt(fd_, SOL_SOCKET, SO_BUSY_POLL_BUDGET, &config_.busy_poll_budget,
                   sizeof config_.busy_poll_budget) != 0) {
    notes_.push_back("busy polling: the kernel refused a budget of " +
                     std::to_string(config_.busy_poll_budget) + reason());
  }

  int stamps = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
  if (config_.nic_stamps) stamps |= SOF_TIMESTAMPING_RX_HARDWARE | SOF_TIMESTAMPING_RAW_HARDWARE;
  if (::setsockopt(fd_, SOL_SOCKET, SO_TIMESTAMPING, &stamps, sizeof stamps) != 0 &&
      ::setsockopt(fd_, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) != 0) {
    notes_.push_back("receive stamps: the kernel gives none" + reason() + "; ours are taken after the read");
  }
  if (::setsockopt(fd_, SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof on) != 0) {
    notes_.push_back("drops: the kernel does not count those of this socket" + reason());
  }
}

std::vector<std::string> UdpSource::report() const {
  const std::string name =
      config_.peer.empty() ? config_.address + " port " + std::to_string(port_) : "peer " + config_.peer;
  std::vector<std::string> out;
  out.push_back(name + ": receive buffer of " + std::to_string(receive_buffer(fd_)) + " bytes");
  for (const std::string& note : notes_) out.push_back(name + ": " + note);
  if (config_.busy_poll_us > 0 || config_.prefer_busy_poll) {
    unsigned napi = 0;
    socklen_t size = sizeof napi;
    const bool known = ::getsockopt(fd_, SOL_SOCKET, SO_INCOMING_NAPI_ID, &napi, &size) == 0;
    if (known && napi != 0) {
      out.push_back(name + ": busy polling of the card's queue with NAPI id " + std::to_string(napi));
    } else if (stats_.datagrams == 0) {
      out.push_back(name + ": busy polling: nothing received yet, so no queue of a card is known");
    } else {
      out.push_back(name +
                    ": busy polling does nothing here: the socket is fed by no queue of a card (NAPI id 0)");
    }
  }
  if (config_.nic_stamps && stats_.datagrams > 0 && stats_.nic_stamps == 0) {
    out.push_back(
        name +
        (stats_.nic_stamps_off > 0
             ? ": the card's stamps are more than a second off the system's clock; the kernel's are used"
             : ": the card gives no receive stamps; the kernel's are used"));
  }
  return out;
}

// ---- The data plane ----

int UdpSource::poll(UdpHandler& handler, const UtcClock& clock) noexcept {
  TICKWIRE_HOT_EXEMPT_BEGIN("the receive itself, non-blocking: one system call a turn")
  const int count = ::recvmmsg(fd_, messages_.data(), config_.batch, MSG_DONTWAIT, nullptr);
  const int error = count < 0 ? errno : 0;
  TICKWIRE_HOT_EXEMPT_END
  if (count <= 0) [[likely]] {
    if (error == EAGAIN || error == EWOULDBLOCK || error == EINTR || error == 0) return 0;
    // What an earlier send of ours met with (a peer that is not there), or the interface going down.
    ++stats_.errors;
    TICKWIRE_HOT_EXEMPT_BEGIN("formats a text into a fixed buffer: nothing was received")
    last_error_.set("receive: %s", std::strerror(error));
    TICKWIRE_HOT_EXEMPT_END
    return 0;
  }
  const std::uint64_t tsc = tsc_now();
  last_receive_tsc_ = tsc;
  ++stats_.receives;
  if (static_cast<std::uint32_t>(count) == config_.batch) ++stats_.full_batches;
  for (int i = 0; i < count; ++i) {
    mmsghdr& message = messages_[static_cast<std::size_t>(i)];
    Datagram datagram{{static_cast<const char*>(message.msg_hdr.msg_iov->iov_base), message.msg_len},
                      RecvClock::Read,
                      0,
                      tsc};
    read_control(message, clock, datagram);
    const bool cut = (message.msg_hdr.msg_flags & MSG_TRUNC) != 0;
    message.msg_hdr.msg_controllen = kControlBytes;
    message.msg_hdr.msg_flags = 0;
    if (cut) [[unlikely]] {
      ++stats_.cut;
      continue;
    }
    ++stats_.datagrams;
    stats_.bytes += message.msg_len;
    handler.on_datagram(datagram);
  }
  return count;
}

/// Nothing is received after it was read: a clock was set in between, or the card's is ahead.
TsNs UdpSource::capped(TsNs stamp, const Datagram& datagram, const UtcClock& clock) noexcept {
  const TsNs read = clock.at(datagram.tsc_read);
  if (stamp <= read) return stamp;
  if (stamp - read > kMostStampAheadNs) [[unlikely]]
    ++stats_.stamps_capped;
  return read;
}

/// The stamps and the drop counter that came with a datagram.
void UdpSource::read_control(const mmsghdr& message, const UtcClock& clock, Datagram& datagram) noexcept {
  const msghdr& header = message.msg_hdr;
  TsNs kernel = kNoTime;
  TsNs nic = kNoTime;
  const char* at = static_cast<const char*>(header.msg_control);
  const char* const end = at + header.msg_controllen;
  // By hand and not by CMSG_NXTHDR, which in some libraries is a function: a few entries, all the kernel's.
  while (static_cast<std::size_t>(end - at) >= sizeof(cmsghdr)) {
    cmsghdr entry;
    std::memcpy(&entry, at, sizeof entry);
    if (entry.cmsg_len < sizeof entry || entry.cmsg_len > static_cast<std::size_t>(end - at)) break;
    const char* const data = at + CMSG_LEN(0);
    if (entry.cmsg_level == SOL_SOCKET) {
      if (entry.cmsg_type == SCM_TIMESTAMPING) {
        scm_timestamping stamps;
        std::memcpy(&stamps, data, sizeof stamps);
        if (stamps.ts[0].tv_sec != 0) kernel = ns_of(stamps.ts[0]);
        if (stamps.ts[2].tv_sec != 0) nic = ns_of(stamps.ts[2]);
      } else if (entry.cmsg_type == SCM_TIMESTAMPNS) {
        timespec stamp;
        std::memcpy(&stamp, data, sizeof stamp);
        kernel = ns_of(stamp);
      } else if (entry.cmsg_type == SO_RXQ_OVFL) {
        std::uint32_t drops;
        std::memcpy(&drops, data, sizeof drops);
        stats_.socket_drops += static_cast<std::uint32_t>(drops - drops_seen_);
        drops_seen_ = drops;
      }
    }
    const std::size_t step = CMSG_ALIGN(entry.cmsg_len);
    if (step > static_cast<std::size_t>(end - at)) break;
    at += step;
  }
  if (nic != kNoTime) {
    const TsNs reference = kernel != kNoTime ? kernel : clock.at(datagram.tsc_read);
    if (nic - reference < kMostStampDifferenceNs && reference - nic < kMostStampDifferenceNs) {
      ++stats_.nic_stamps;
      datagram.recv_clock = RecvClock::Nic;
      datagram.ts_recv = capped(nic, datagram, clock);
      return;
    }
    ++stats_.nic_stamps_off;
  }
  if (kernel != kNoTime) {
    ++stats_.kernel_stamps;
    datagram.recv_clock = RecvClock::Kernel;
    datagram.ts_recv = capped(kernel, datagram, clock);
  } else {
    ++stats_.read_stamps;
    datagram.ts_recv = clock.at(datagram.tsc_read);
  }
}

bool UdpSource::send(std::span<const char> payload) noexcept {
  TICKWIRE_HOT_EXEMPT_BEGIN("the send itself, non-blocking; only to ask for what is missing, and counted")
  const ssize_t sent = ::send(fd_, payload.data(), payload.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  const int error = sent < 0 ? errno : 0;
  TICKWIRE_HOT_EXEMPT_END
  if (sent == static_cast<ssize_t>(payload.size())) {
    ++stats_.sent;
    return true;
  }
  ++stats_.send_failures;
  TICKWIRE_HOT_EXEMPT_BEGIN("formats a text into a fixed buffer: the request was not sent")
  last_error_.set("send to %s: %s", config_.peer.c_str(), std::strerror(error));
  TICKWIRE_HOT_EXEMPT_END
  return false;
}

}  // namespace tickwire::net

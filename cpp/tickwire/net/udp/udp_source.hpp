#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/fixed_text.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/core/types.hpp"

struct mmsghdr;
struct iovec;
struct sockaddr_storage;

namespace tickwire::net {

/// What the configuration says about one socket. A field without a value here is either checked by the
/// constructor or means "off".
struct UdpConfig {
  /// The group to join, or an address of this host to listen on; empty with `peer`: the kernel's choice.
  /// IPv4 or IPv6, no names.
  std::string address;
  /// 0: any free one, see UdpSource::port().
  std::uint16_t port = 0;
  /// Of the network card that the group comes in on, by name. Empty leaves it to the routing table, which
  /// on a host with several cards is rarely the one meant.
  std::string interface;
  /// Join for this sender alone (source-specific multicast). Empty: any sender.
  std::string source_address;
  /// "ADDRESS:PORT" or "[ADDRESS]:PORT": talk to this peer only. What others send never arrives.
  std::string peer;

  /// Datagrams taken by one receive.
  std::uint32_t batch = 0;
  /// Longer ones are cut by the kernel, counted and thrown away.
  std::size_t max_datagram_bytes = 0;
  /// SO_RCVBUF, past the host's limit where we may. 0: the kernel's default.
  int socket_receive_bytes = 0;
  /// SO_BUSY_POLL: how long the kernel itself may look at the card's queue in a receive. 0: not asked for.
  int busy_poll_us = 0;
  /// Datagrams of one such look. 0: the kernel's.
  int busy_poll_budget = 0;
  /// SO_PREFER_BUSY_POLL: leave the card's interrupts off while we keep looking. Needs CAP_NET_ADMIN.
  bool prefer_busy_poll = false;
  /// Take the card's receive stamps where it gives some. Only where its clock is set to UTC: a stamp more
  /// than a second off the kernel's is not believed.
  bool nic_stamps = false;
};

/// One datagram. `payload` holds until the handler returns.
struct Datagram {
  std::span<const char> payload;
  /// The clock of ts_recv: the card's, the kernel's, or ours where the socket gave no stamp.
  RecvClock recv_clock;
  TsNs ts_recv;
  /// Ticks when the receive returned that brought it: where the stage clock starts. Those behind the first
  /// of a batch have waited for the ones before.
  std::uint64_t tsc_read;
};

/// Called from within UdpSource::poll(), on its thread.
class UdpHandler {
 public:
  virtual void on_datagram(const Datagram& datagram) noexcept TICKWIRE_HOT = 0;

 protected:
  ~UdpHandler() = default;
};

/// Plain counts of one thread; the agent copies them into its counters.
struct UdpStats {
  std::uint64_t datagrams = 0;
  std::uint64_t bytes = 0;
  std::uint64_t receives = 0;      // That brought something …
  std::uint64_t full_batches = 0;  // … as much as one may: more was probably waiting.
  std::uint64_t socket_drops = 0;  // By the kernel, for want of room in the receive buffer.
  std::uint64_t cut = 0;           // Longer than max_datagram_bytes.
  std::uint64_t nic_stamps = 0;
  std::uint64_t nic_stamps_off = 0;  // More than a second from the kernel's.
  std::uint64_t kernel_stamps = 0;
  std::uint64_t read_stamps = 0;    // Datagrams that we had to stamp.
  std::uint64_t stamps_capped = 0;  // Far ahead of the reading: the reading's was taken.
  std::uint64_t sent = 0;
  std::uint64_t send_failures = 0;
  std::uint64_t errors = 0;  // Of a receive; last_error() says which.
};

/// A busy-polled UDP socket: a multicast group, an address of this host, or one peer. Every poll() is one
/// non-blocking recvmmsg, and datagrams are handed out where they were received. Nothing is allocated after
/// construction.
///
/// A group's socket is bound to the group and hears no other, also where another program of this host joined
/// another group on the same port. Several programs may listen to one group.
///
/// One thread, that of the agent; report() may be called from any.
class UdpSource {
 public:
  /// Set-up: opens, joins, and asks for all that the configuration says. Throws SetupError; `where` begins
  /// each error: the key of the feed's line, such as "feeds[0].lines[1]".
  UdpSource(UdpConfig config, const std::string& where, Arena& arena);
  ~UdpSource();
  UdpSource(const UdpSource&) = delete;
  UdpSource& operator=(const UdpSource&) = delete;

  /// One turn. Returns the number of datagrams: 0 when nothing came.
  int poll(UdpHandler& handler, const UtcClock& clock) noexcept TICKWIRE_HOT;

  /// To the peer. False, and counted, where the kernel does not take it.
  bool send(std::span<const char> payload) noexcept TICKWIRE_HOT;

  int fd() const noexcept { return fd_; }
  std::uint16_t port() const noexcept { return port_; }
  const UdpConfig& config() const noexcept { return config_; }
  const UdpStats& stats() const noexcept { return stats_; }
  /// Ticks of the last receive that brought something: liveness.
  std::uint64_t last_receive_tsc() const noexcept { return last_receive_tsc_; }
  /// What went wrong last; written whenever stats().errors or send_failures grows.
  std::string_view last_error() const noexcept { return last_error_.view(); }

  /// What was asked of the kernel and what came of it, a sentence each: the receive buffer, busy polling,
  /// stamps. Which queue of a card feeds the socket is known only once something was received, so a line
  /// about busy polling may say more later. Makes system calls.
  std::vector<std::string> report() const;

 private:
  void open(const std::string& where);
  void ask_for_options(const std::string& where);
  void join(const std::string& where, const sockaddr_storage& group);
  [[nodiscard]] TsNs capped(TsNs stamp, const Datagram& datagram, const UtcClock& clock) noexcept
      TICKWIRE_HOT;
  void read_control(const mmsghdr& message, const UtcClock& clock, Datagram& datagram) noexcept TICKWIRE_HOT;

  const UdpConfig config_;
  int fd_ = -1;
  std::uint16_t port_ = 0;

  std::span<mmsghdr> messages_;
  std::span<iovec> vectors_;
  std::span<char> payloads_;
  std::span<char> controls_;
  std::size_t payload_stride_ = 0;
  std::uint32_t drops_seen_ = 0;  // The socket's own counter, which wraps.
  std::uint64_t last_receive_tsc_ = 0;

  std::vector<std::string> notes_;  // Of set-up.
  UdpStats stats_;
  FixedText last_error_;
};

}  // namespace tickwire::net

#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "net/mold_packets.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/net/moldudp64/mold_feed.hpp"

/// A MoldUDP64 venue on loopback, worked by the test itself, and how to listen to it.
namespace tickwire::net::test {

inline const std::string kGroups[2] = {"239.255.78.1", "239.255.78.2"};

inline sockaddr_in address_of(const std::string& text, int port) {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_port = htons(static_cast<std::uint16_t>(port));
  ::inet_pton(AF_INET, text.c_str(), &out.sin_addr);
  return out;
}

/// The venue's sockets, worked by the test itself.
class MoldVenue {
 public:
  MoldVenue() {
    for (int* fd : {&out_, &requests_}) {
      *fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      sockaddr_in local = address_of("127.0.0.1", 0);
      EXPECT_EQ(::bind(*fd, reinterpret_cast<sockaddr*>(&local), sizeof local), 0);
      EXPECT_EQ(::setsockopt(*fd, IPPROTO_IP, IP_MULTICAST_IF, &local.sin_addr, sizeof local.sin_addr), 0);
    }
  }
  ~MoldVenue() {
    ::close(out_);
    ::close(requests_);
  }
  MoldVenue(const MoldVenue&) = delete;
  MoldVenue& operator=(const MoldVenue&) = delete;

  std::string rerequest() const {
    sockaddr_in local{};
    socklen_t size = sizeof local;
    ::getsockname(requests_, reinterpret_cast<sockaddr*>(&local), &size);
    return "127.0.0.1:" + std::to_string(ntohs(local.sin_port));
  }
  void send(std::size_t line, int port, const std::string& datagram) const {
    sockaddr_in to = address_of(kGroups[line], port);
    EXPECT_EQ(
        ::sendto(out_, datagram.data(), datagram.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to),
        static_cast<ssize_t>(datagram.size()));
  }
  /// Answers every request that is there, with at most `most` messages of `stream` (by number, from 1).
  void answer(const std::vector<std::string>& stream, std::size_t most) const {
    char request[64];
    sockaddr_in from{};
    socklen_t size = sizeof from;
    while (::recvfrom(requests_, request, sizeof request, 0, reinterpret_cast<sockaddr*>(&from), &size) ==
           20) {
      std::uint64_t first = 0;
      for (int i = 10; i < 18; ++i) first = first << 8 | static_cast<unsigned char>(request[i]);
      const std::size_t count =
          static_cast<unsigned char>(request[18]) * 256U + static_cast<unsigned char>(request[19]);
      std::vector<std::string> messages;
      for (std::size_t i = 0; i < std::min(count, most) && first + i < stream.size(); ++i) {
        messages.push_back(stream[first + i]);
      }
      const std::string out = mold_datagram(std::string(request, 10), first, messages);
      ::sendto(requests_, out.data(), out.size(), 0, reinterpret_cast<sockaddr*>(&from), size);
    }
  }

 private:
  int out_ = -1;
  int requests_ = -1;
};

inline MoldFeedConfig mold_config(const MoldVenue& venue) {
  MoldFeedConfig config;
  // A port that is free on this host, for both groups.
  Arena arena;
  UdpConfig probe;
  probe.address = "127.0.0.1";
  probe.batch = 1;
  probe.max_datagram_bytes = 1;
  const std::uint16_t port = UdpSource(probe, "probe", arena).port();
  for (const std::string& group : kGroups) {
    UdpConfig line;
    line.address = group;
    line.port = port;
    line.interface = "lo";
    line.batch = 16;
    line.max_datagram_bytes = 1500;
    config.lines.push_back(line);
  }
  config.rerequest.peer = venue.rerequest();
  config.rerequest.batch = 4;
  config.rerequest.max_datagram_bytes = 1500;
  config.sequencer.window_packets = 4096;
  config.sequencer.reorder_ns = 2 * 1'000'000;
  config.sequencer.request_attempts = 100;
  config.sequencer.request_timeout_ns = 200 * 1'000'000;
  config.sequencer.request_messages = 50;
  return config;
}

}  // namespace tickwire::net::test

#include "tickwire/net/udp/udp_source.hpp"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tickwire/core/error.hpp"

namespace tickwire::net {
namespace {

UdpConfig config_of(const std::string& address, std::uint16_t port = 0) {
  UdpConfig config;
  config.address = address;
  config.port = port;
  config.batch = 8;
  config.max_datagram_bytes = 256;
  if (address.starts_with("239.") || address.starts_with("ff")) config.interface = "lo";
  return config;
}

/// A plain socket that sends to a group through the loopback interface, or to an address.
class Sender {
 public:
  explicit Sender(const std::string& from = "127.0.0.1") {
    fd_ = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    in_addr loopback{};
    ::inet_pton(AF_INET, "127.0.0.1", &loopback);
    EXPECT_EQ(::setsockopt(fd_, IPPROTO_IP, IP_MULTICAST_IF, &loopback, sizeof loopback), 0);
    sockaddr_in local = address_of(from, 0);
    EXPECT_EQ(::bind(fd_, reinterpret_cast<sockaddr*>(&local), sizeof local), 0);
  }
  ~Sender() { ::close(fd_); }
  Sender(const Sender&) = delete;
  Sender& operator=(const Sender&) = delete;

  void send(const std::string& address, int port, const std::string& text) const {
    sockaddr_in to = address_of(address, port);
    EXPECT_EQ(::sendto(fd_, text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to),
              static_cast<ssize_t>(text.size()));
  }
  std::string name() const {
    sockaddr_in local{};
    socklen_t size = sizeof local;
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&local), &size);
    return "127.0.0.1:" + std::to_string(ntohs(local.sin_port));
  }
  std::string receive() const {
    pollfd ready{fd_, POLLIN, 0};
    if (::poll(&ready, 1, 10000) != 1) return "nothing came";
    char text[256];
    const ssize_t bytes = ::recv(fd_, text, sizeof text, 0);
    return {text, bytes > 0 ? static_cast<std::size_t>(bytes) : 0};
  }

 private:
  static sockaddr_in address_of(const std::string& text, int port) {
    sockaddr_in out{};
    out.sin_family = AF_INET;
    out.sin_port = htons(static_cast<std::uint16_t>(port));
    ::inet_pton(AF_INET, text.c_str(), &out.sin_addr);
    return out;
  }
  int fd_;
};

class Listener final : public UdpHandler {
 public:
  explicit Listener(const UdpConfig& config) : source(config, "feeds[0].lines[0]", arena) {}

  void on_datagram(const Datagram& datagram) noexcept override {
    texts.emplace_back(datagram.payload.begin(), datagram.payload.end());
    datagrams.push_back(datagram);
  }
  /// Until `count` datagrams have come; fails the test after a time that no healthy run needs.
  void run_until(std::size_t count) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (texts.size() < count) {
      ASSERT_LT(std::chrono::steady_clock::now(), limit) << testing::PrintToString(texts);
      if (source.poll(*this, clock) > 0) continue;
      pollfd ready{source.fd(), POLLIN, 0};
      ::poll(&ready, 1, 20);
    }
  }
  /// On loopback what was sent lies in the socket when send() returns.
  void drain() {
    while (source.poll(*this, clock) > 0) {
    }
  }

  /// The kernel begins to stamp some milliseconds after the first socket of the host has asked for it.
  template <typename Send>
  void wait_for_stamps(Send send) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (source.stats().kernel_stamps == 0) {
      ASSERT_LT(std::chrono::steady_clock::now(), limit);
      send();
      run_until(texts.size() + 1);
    }
    texts.clear();
    datagrams.clear();
  }

  Arena arena;
  UtcClock clock;
  UdpSource source;
  std::vector<std::string> texts;
  std::vector<Datagram> datagrams;
};

using Texts = std::vector<std::string>;

TEST(UdpSource, HearsAGroupOnANamedInterfaceWithTheKernelsStamp) {
  Listener listener(config_of("239.255.77.1"));
  const Sender sender;
  listener.wait_for_stamps([&] { sender.send("239.255.77.1", listener.source.port(), "early"); });
  const UdpStats early = listener.source.stats();
  const TsNs before = read_utc();
  sender.send("239.255.77.1", listener.source.port(), "one");
  sender.send("239.255.77.1", listener.source.port(), "");
  sender.send("239.255.77.1", listener.source.port(), std::string(256, 'x'));
  listener.run_until(3);
  EXPECT_EQ(listener.texts, (Texts{"one", "", std::string(256, 'x')}));
  TsNs last = before;
  for (const Datagram& datagram : listener.datagrams) {
    EXPECT_EQ(datagram.recv_clock, RecvClock::Kernel);
    EXPECT_GE(datagram.ts_recv, last);
    last = datagram.ts_recv;
    EXPECT_LE(datagram.tsc_read, tsc_now());
  }
  EXPECT_LE(last, read_utc());
  EXPECT_EQ(listener.source.stats().datagrams, early.datagrams + 3);
  EXPECT_EQ(listener.source.stats().bytes, early.bytes + 259);
  EXPECT_EQ(listener.source.stats().kernel_stamps, early.kernel_stamps + 3);
  EXPECT_EQ(listener.source.poll(listener, listener.clock), 0);
}

TEST(UdpSource, HearsNoOtherGroupOfItsPort) {
  Listener a(config_of("239.255.77.2"));
  Listener b(config_of("239.255.77.3", a.source.port()));
  Listener a_again(config_of("239.255.77.2", a.source.port()));  // Two listeners of one group each hear it.
  const Sender sender;
  sender.send("239.255.77.2", a.source.port(), "for a");
  sender.send("239.255.77.3", a.source.port(), "for b");
  a.run_until(1);
  b.run_until(1);
  a_again.run_until(1);
  for (Listener* listener : {&a, &b, &a_again}) listener->drain();
  EXPECT_EQ(a.texts, Texts{"for a"});
  EXPECT_EQ(a_again.texts, Texts{"for a"});
  EXPECT_EQ(b.texts, Texts{"for b"});
}

TEST(UdpSource, HearsOnlyTheSenderItAskedFor) {
  UdpConfig config = config_of("239.255.77.4");
  config.source_address = "127.0.0.2";
  Listener listener(config);
  Sender("127.0.0.3").send("239.255.77.4", listener.source.port(), "other");
  Sender("127.0.0.2").send("239.255.77.4", listener.source.port(), "wanted");
  listener.run_until(1);
  listener.drain();
  EXPECT_EQ(listener.texts, Texts{"wanted"});
}

TEST(UdpSource, TakesBurstsInBatchesAndKeepsTheirOrder) {
  Listener listener(config_of("127.0.0.1"));
  const Sender sender;
  Texts sent;
  for (int i = 0; i < 100; ++i) {
    sent.push_back("number " + std::to_string(i));
    sender.send("127.0.0.1", listener.source.port(), sent.back());
  }
  listener.run_until(100);
  EXPECT_EQ(listener.texts, sent);
  EXPECT_LT(listener.source.stats().receives, 100u);
  EXPECT_GT(listener.source.stats().full_batches, 0u);
}

TEST(UdpSource, ThrowsAwayWhatItWouldHaveToCut) {
  Listener listener(config_of("127.0.0.1"));
  const Sender sender;
  sender.send("127.0.0.1", listener.source.port(), std::string(257, 'x'));
  sender.send("127.0.0.1", listener.source.port(), "whole");
  listener.run_until(1);
  EXPECT_EQ(listener.texts, Texts{"whole"});
  EXPECT_EQ(listener.source.stats().cut, 1u);
}

TEST(UdpSource, CountsWhatTheKernelDroppedForWantOfRoom) {
  UdpConfig config = config_of("127.0.0.1");
  config.socket_receive_bytes = 8192;
  Listener listener(config);
  const Sender sender;
  const std::uint64_t kSent = 500;
  for (std::uint64_t i = 0; i < kSent; ++i) {
    sender.send("127.0.0.1", listener.source.port(), std::string(200, 'x'));
  }
  listener.drain();
  const std::size_t kept = listener.texts.size();
  ASSERT_LT(kept, kSent);
  // The counter comes with the datagrams that follow.
  sender.send("127.0.0.1", listener.source.port(), "after");
  listener.run_until(kept + 1);
  EXPECT_EQ(listener.source.stats().socket_drops, kSent - kept);
}

TEST(UdpSource, TalksToItsPeerAndHearsNobodyElse) {
  const Sender peer;
  const Sender stranger;
  UdpConfig config;
  config.peer = peer.name();
  config.batch = 4;
  config.max_datagram_bytes = 100;
  Listener listener(config);
  EXPECT_TRUE(listener.source.send(std::string("request")));
  EXPECT_EQ(peer.receive(), "request");
  stranger.send("127.0.0.1", listener.source.port(), "spam");
  peer.send("127.0.0.1", listener.source.port(), "answer");
  listener.run_until(1);
  listener.drain();
  EXPECT_EQ(listener.texts, Texts{"answer"});
  EXPECT_EQ(listener.source.stats().sent, 1u);
}

TEST(UdpSource, SurvivesAPeerThatIsNotThere) {
  UdpConfig config;
  config.batch = 4;
  config.max_datagram_bytes = 100;
  config.peer = std::make_unique<Sender>()->name();  // Its port is free again.
  Listener listener(config);
  // The refusal comes back as an error of a later call: a receive or a send.
  (void)listener.source.send(std::string("a"));
  for (int i = 0; i < 100 && listener.source.stats().errors == 0; ++i) {
    (void)listener.source.poll(listener, listener.clock);
  }
  EXPECT_EQ(listener.source.stats().errors, 1u);
  EXPECT_EQ(listener.source.last_error(), "receive: Connection refused");
  (void)listener.source.send(std::string("b"));
  EXPECT_FALSE(listener.source.send(std::string("c")));
  EXPECT_EQ(listener.source.stats().send_failures, 1u);
}

bool says(const std::vector<std::string>& report, const std::string& text) {
  return std::any_of(report.begin(), report.end(),
                     [&](const std::string& line) { return line.find(text) != std::string::npos; });
}

TEST(UdpSource, ReportsWhatTheKernelReallyDid) {
  UdpConfig config = config_of("239.255.77.5");
  config.socket_receive_bytes = 1 << 20;
  config.busy_poll_us = 50;
  config.nic_stamps = true;
  Listener listener(config);
  int doubled = 0;
  socklen_t size = sizeof doubled;
  ASSERT_EQ(::getsockopt(listener.source.fd(), SOL_SOCKET, SO_RCVBUF, &doubled, &size), 0);
  EXPECT_TRUE(says(listener.source.report(), "receive buffer of " + std::to_string(doubled / 2) + " bytes"));
  EXPECT_EQ(says(listener.source.report(), "asked for 1048576"), doubled / 2 < 1 << 20);
  EXPECT_TRUE(says(listener.source.report(), "nothing received yet"));
  Sender().send("239.255.77.5", listener.source.port(), "one");
  listener.run_until(1);
  // Loopback has no queue and no card.
  EXPECT_TRUE(says(listener.source.report(), "busy polling does nothing here"));
  EXPECT_TRUE(says(listener.source.report(), "the card gives no receive stamps"));
}

TEST(UdpSource, ReportsAReceiveBufferThatTheKernelClamped) {
  UdpConfig config = config_of("127.0.0.1");
  config.socket_receive_bytes = std::numeric_limits<int>::max();  // Half of it is the most there is.
  const Listener listener(config);
  EXPECT_TRUE(says(listener.source.report(), "asked for 2147483647 bytes, the kernel gave "));
}

TEST(UdpSource, TalksOverIpv6) {
  std::unique_ptr<Listener> server;
  try {
    server = std::make_unique<Listener>(config_of("::1"));
  } catch (const SetupError& error) {
    GTEST_SKIP() << "no IPv6 here: " << error.what();
  }
  UdpConfig config;
  config.peer = "[::1]:" + std::to_string(server->source.port());
  config.batch = 1;
  config.max_datagram_bytes = 100;
  Listener client(config);
  EXPECT_TRUE(client.source.send(std::string("six")));
  server->run_until(1);
  EXPECT_EQ(server->texts, Texts{"six"});
}

TEST(UdpSource, HearsAnIpv6Group) {
  UdpConfig config = config_of("ff01::7777");
  std::unique_ptr<Listener> listener;
  try {
    listener = std::make_unique<Listener>(config);
  } catch (const SetupError& error) {
    GTEST_SKIP() << "no IPv6 here: " << error.what();
  }
  const int fd = ::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const int loopback = 1;
  ::setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &loopback, sizeof loopback);
  sockaddr_in6 to{};
  to.sin6_family = AF_INET6;
  to.sin6_port = htons(listener->source.port());
  ::inet_pton(AF_INET6, "ff01::7777", &to.sin6_addr);
  const ssize_t sent = ::sendto(fd, "six", 3, 0, reinterpret_cast<sockaddr*>(&to), sizeof to);
  ::close(fd);
  if (sent != 3) GTEST_SKIP() << "this host does not send IPv6 multicast";
  listener->run_until(1);
  EXPECT_EQ(listener->texts, Texts{"six"});
}

TEST(UdpSource, NamesWhatIsWrongWithItsConfiguration) {
  const auto refused = [](auto change) {
    UdpConfig config = config_of("127.0.0.1");
    change(config);
    try {
      const Listener listener(config);
    } catch (const SetupError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const std::string where = "feeds[0].lines[0]";
  EXPECT_EQ(refused([](UdpConfig& c) { c.batch = 0; }), where + ".batch: expected 1 to 1024, found 0");
  EXPECT_EQ(refused([](UdpConfig& c) { c.address = "venue"; }),
            where + ".address: expected an IPv4 or IPv6 address, found \"venue\"");
  EXPECT_EQ(refused([](UdpConfig& c) { c.interface = "nope0"; }),
            where + ".interface: expected the name of a network interface, found \"nope0\"");
  EXPECT_EQ(refused([](UdpConfig& c) { c.peer = "127.0.0.1"; }),
            where + ".peer: expected ADDRESS:PORT, found \"127.0.0.1\"");
  EXPECT_NE(refused([](UdpConfig& c) { c.interface = "lo"; }), "accepted");
  EXPECT_NE(refused([](UdpConfig& c) { c.address = "192.0.2.1"; }), "accepted");  // Not ours.
  EXPECT_NE(refused([](UdpConfig& c) {
              c.address = "239.255.77.6";
              c.interface = "lo";
              c.source_address = "::1";
            }),
            "accepted");
  EXPECT_EQ(refused([](UdpConfig&) {}), "accepted");
}

}  // namespace
}  // namespace tickwire::net

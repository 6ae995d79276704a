// Fuzz target of a GLIMPSE server's answers: a client on a real connection, from the login to the end of the
// snapshot, must tell its handler what a slow reader of the whole answer finds in it, however it is cut.
// CMakeLists.txt says how it is run.
//
// Input: one byte that chooses the pieces and how the server leaves, then what it sends.
//
// Covers: net/soupbintcp/glimpse_client.cpp net/soupbintcp/soup_client.cpp net/soupbintcp/soup_packet.cpp

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "tickwire/core/arena.hpp"
#include "tickwire/net/soupbintcp/glimpse_client.hpp"

namespace glimpse_fuzz {

using namespace tickwire;
using namespace tickwire::net;

inline void require(bool held) {
  if (!held) std::abort();
}

// ---- What the answer says, read slowly ----

inline std::optional<std::uint64_t> number(std::string text) {
  text.erase(0, std::min(text.find_first_not_of(' '), text.size()));
  text.erase(text.find_last_not_of(' ') + 1);
  if (text.empty() || text.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  std::uint64_t out = 0;
  for (const char digit : text) {
    const auto value = static_cast<std::uint64_t>(digit - '0');
    if (out > (UINT64_MAX - value) / 10) return std::nullopt;
    out = 10 * out + value;
  }
  return out;
}

/// Told of one answer. Whatever it is ends with "end" or "failed", since the server leaves after it.
inline std::string expected(std::string_view bytes) {
  std::string out;
  bool open = false;
  while (bytes.size() >= 2) {
    const std::size_t length =
        static_cast<unsigned char>(bytes[0]) * 256U + static_cast<unsigned char>(bytes[1]);
    if (length == 0 || bytes.size() < 2 + length) break;
    const char type = bytes[2];
    const std::string payload(bytes.substr(3, length - 1));
    bytes.remove_prefix(2 + length);
    if (type == 'A') {
      if (open || payload.size() != 30 || number(payload.substr(10)) != 1) break;
      out += "begin " + payload.substr(0, 10) + '\n';
      open = true;
    } else if (type == 'S') {
      if (!open) break;
      if (!payload.starts_with('G')) {
        out += "message " + payload + '\n';
        continue;
      }
      const auto next = payload.size() == 21 ? number(payload.substr(1)) : std::nullopt;
      if (next.value_or(0) == 0) break;
      return out + "end " + std::to_string(*next) + '\n';
    } else if (type == 'J' || type == 'Z') {
      break;
    }
  }
  return out + "failed\n";
}

// ---- What the client says ----

class Listener final : public GlimpseHandler {
 public:
  void on_snapshot_begin(const SessionId& session) noexcept override {
    told += "begin " + std::string(session.begin(), session.end()) + '\n';
  }
  void on_snapshot_message(MessageView message) noexcept override {
    told += "message " + std::string(message.begin(), message.end()) + '\n';
  }
  void on_snapshot_end(std::uint64_t next) noexcept override { told += "end " + std::to_string(next) + '\n'; }
  void on_snapshot_failed(std::string_view reason) noexcept override {
    require(!reason.empty());
    told += "failed\n";
  }

  std::string told;
};

class Server {
 public:
  Server() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    require(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0);
    require(::listen(listener_, 1) == 0);
    require(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    name = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }

  int accept() const {
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    require(fd >= 0);
    const int on = 1;
    (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    // Ends at once: thousands of connections would wait for packets that were held up.
    const linger now{1, 0};
    (void)::setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    return fd;
  }

  std::string name;

 private:
  int listener_;
};

inline SoupConfig config_for(const Server& server) {
  SoupConfig config;
  config.server = server.name;
  config.username = "user";
  config.password = "secret";
  config.login_timeout_ns = INT64_C(1) << 40;
  config.heartbeat_ns = 5;
  config.silence_timeout_ns = INT64_C(1) << 40;
  return config;
}

inline void wait_for(int fd) {
  pollfd ready{fd, POLLIN, 0};
  require(::poll(&ready, 1, 10'000) == 1);
}

inline std::string transcript(std::string_view bytes, std::uint8_t choice) {
  static const Server server;
  static Arena arena({.huge_pages = HugePages::Off, .lock = LockMemory::Off});
  static GlimpseClient client(config_for(server), "fuzz", arena);
  Listener listener;
  std::int64_t now = 1;
  client.start(now);
  (void)client.poll(listener, now);  // Begins the connection, which loopback makes at once.
  const int connection = server.accept();
  (void)client.poll(listener, now);
  require(client.running());

  const std::uint64_t before = client.stats().bytes;
  std::uint64_t sent = 0;
  std::uint32_t state = choice;
  for (int piece = 0; !bytes.empty() && client.running(); ++piece) {
    std::size_t count = bytes.size();
    if (choice % 64 != 0 && piece < 64) {
      state = state * 1664525U + 1013904223U;
      count = std::min<std::size_t>(count, 1 + (state >> 16U) % (choice % 64));
    }
    require(::send(connection, bytes.data(), count, MSG_NOSIGNAL) == static_cast<ssize_t>(count));
    bytes.remove_prefix(count);
    sent += count;
    while (client.running() && client.stats().bytes - before < sent) {
      wait_for(client.fd());
      (void)client.poll(listener, ++now);
    }
  }
  if (choice >= 240) (void)::shutdown(connection, SHUT_WR);
  if (choice < 240) ::close(connection);
  while (client.running()) {
    wait_for(client.fd());
    (void)client.poll(listener, ++now);
  }
  if (choice >= 240) ::close(connection);
  return listener.told;
}

}  // namespace glimpse_fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace glimpse_fuzz;
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  require(transcript(bytes, data[0]) == expected(bytes));
  return 0;
}

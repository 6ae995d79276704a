#pragma once

#include <netdb.h>
#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "tickwire/feed/websocket/fixed_text.hpp"
#include "tickwire/feed/websocket/url.hpp"

namespace tickwire::feed {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  int family() const noexcept { return storage.ss_family; }
  const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
  /// "127.0.0.1:9443", "[::1]:9443", for errors.
  void describe(char* out, std::size_t out_bytes) const noexcept;
};

/// Looks a host up without blocking: glibc's getaddrinfo_a asks on a thread of its own, we look
/// whether it has finished. An address in the URL needs no look-up. Slow path: glibc allocates.
///
/// One thread. A look-up that hangs in the system's resolver cannot be cancelled: start() then finds
/// it still running and waits for that one, and the destructor leaves it behind to end by itself.
class Resolver {
 public:
  static constexpr std::size_t kMaxAddresses = 16;

  /// Setup. Throws SetupError that begins with `where`.
  Resolver(const WebSocketUrl& url, const std::string& where);
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  enum class Status : std::uint8_t { Pending, Ready, Failed };

  /// Begins a look-up, or goes on with one that still runs.
  void start() noexcept;
  Status poll(FixedText& error) noexcept;
  /// In the order the system prefers them. Valid once poll() has given Ready.
  std::span<const SocketAddress> addresses() const noexcept { return {addresses_.data(), count_}; }

 private:
  struct Request;

  void take(const addrinfo* list) noexcept;

  const bool fixed_;
  std::array<SocketAddress, kMaxAddresses> addresses_;
  std::size_t count_ = 0;
  std::unique_ptr<Request> request_;
};

}  // namespace tickwire::feed

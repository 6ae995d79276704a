#pragma once

#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <thread>

#include "tickwire/core/fixed_text.hpp"
#include "tickwire/net/url.hpp"

namespace tickwire::net {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  int family() const noexcept { return storage.ss_family; }
  const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
  /// "127.0.0.1:9443", "[::1]:9443", for errors.
  void describe(char* out, std::size_t out_bytes) const noexcept;
};

/// Looks a host up without blocking the agent: getaddrinfo has no other form, so a thread made at
/// set-up waits for requests and asks for us. An address in the URL needs neither.
///
/// Made at set-up and not at the first look-up, because a thread inherits its maker's core: below a
/// pinned, busy-polling agent it would never get to run. That rules out getaddrinfo_a of glibc too.
///
/// start() and poll() belong to one thread, and neither allocates nor waits for the look-up. A look-up
/// that hangs in the system's resolver cannot be cancelled: start() then finds it still running and
/// goes on waiting for that one, and the destructor leaves the thread behind to end by itself.
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
  std::span<const SocketAddress> addresses() const noexcept {
    return {addresses_.list.data(), addresses_.count};
  }

 private:
  struct Addresses {
    std::array<SocketAddress, kMaxAddresses> list;
    std::size_t count = 0;
  };
  struct Shared;

  static int look_up(const std::string& host, const std::string& port, int flags, Addresses& out) noexcept;
  static void serve(const std::shared_ptr<Shared>& shared) noexcept;

  Addresses addresses_;
  std::shared_ptr<Shared> shared_;  // Null where the URL holds an address.
  std::thread thread_;
  bool running_ = false;
};

}  // namespace tickwire::net

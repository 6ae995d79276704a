#include "tickwire/net/resolver.hpp"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>

#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <system_error>
#include <utility>

#include "tickwire/core/error.hpp"

namespace tickwire::net {

// Kept alive by whoever ends last: the resolver or a look-up that hangs.
struct Resolver::Shared {
  Shared(std::string host_name, std::string port_number)
      : host(std::move(host_name)), port(std::move(port_number)) {}

  const std::string host;
  const std::string port;

  std::mutex mutex;  // Guards all below; held for copying only, never during a look-up.
  std::condition_variable changed;
  bool wanted = false;
  bool finished = false;
  bool stop = false;
  int result = 0;
  Addresses addresses;
};

void SocketAddress::describe(char* out, std::size_t out_bytes) const noexcept {
  char host[INET6_ADDRSTRLEN] = "?";
  if (family() == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&storage);
    ::inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
    std::snprintf(out, out_bytes, "[%s]:%u", host, static_cast<unsigned>(ntohs(v6->sin6_port)));
  } else {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&storage);
    ::inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
    std::snprintf(out, out_bytes, "%s:%u", host, static_cast<unsigned>(ntohs(v4->sin_port)));
  }
}

int Resolver::look_up(const std::string& host, const std::string& port, int flags, Addresses& out) noexcept {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_protocol = IPPROTO_TCP;
  hints.ai_flags = AI_NUMERICSERV | flags;
  addrinfo* list = nullptr;
  const int result = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &list);
  if (result != 0) return result;
  out.count = 0;
  for (const addrinfo* at = list; at != nullptr && out.count < kMaxAddresses; at = at->ai_next) {
    if ((at->ai_family != AF_INET && at->ai_family != AF_INET6) || at->ai_addrlen > sizeof(sockaddr_storage))
      continue;
    SocketAddress& address = out.list[out.count++];
    std::memcpy(&address.storage, at->ai_addr, at->ai_addrlen);
    address.size = at->ai_addrlen;
  }
  ::freeaddrinfo(list);
  return out.count > 0 ? 0 : EAI_NONAME;
}

void Resolver::serve(const std::shared_ptr<Shared>& shared) noexcept {
  Addresses found;
  std::unique_lock lock(shared->mutex);
  for (;;) {
    shared->changed.wait(lock, [&] { return shared->wanted || shared->stop; });
    if (shared->stop) return;
    shared->wanted = false;
    lock.unlock();
    const int result = look_up(shared->host, shared->port, 0, found);
    lock.lock();
    shared->result = result;
    shared->addresses = found;
    shared->finished = true;
  }
}

Resolver::Resolver(const WebSocketUrl& url, const std::string& where) {
  const std::string port = std::to_string(url.port);
  if (url.host_is_address) {
    const int result = look_up(url.host, port, AI_NUMERICHOST, addresses_);
    if (result != 0)
      throw SetupError(where + ".url", "a usable address", url.host + ": " + ::gai_strerror(result));
    return;
  }
  shared_ = std::make_shared<Shared>(url.host, port);
  // Signals are for the process's own threads.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([shared = shared_] { serve(shared); });
  } catch (const std::system_error& error) {
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw SetupError(where + ".url: cannot start a thread for look-ups: " + error.what());
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  (void)::pthread_setname_np(thread_.native_handle(), "tw-lookup");
}

Resolver::~Resolver() {
  if (shared_ == nullptr) return;
  bool busy;
  {
    const std::lock_guard lock(shared_->mutex);
    busy = running_ && !shared_->finished;
    shared_->stop = true;
  }
  shared_->changed.notify_one();
  if (busy) {
    thread_.detach();
  } else {
    thread_.join();
  }
}

void Resolver::start() noexcept {
  if (shared_ == nullptr || running_) return;
  running_ = true;
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->wanted = true;
    shared_->finished = false;
  }
  shared_->changed.notify_one();
}

Resolver::Status Resolver::poll(FixedText& error) noexcept {
  if (shared_ == nullptr) return Status::Ready;
  const std::unique_lock lock(shared_->mutex, std::try_to_lock);
  if (!lock.owns_lock() || !shared_->finished) return Status::Pending;
  running_ = false;
  if (shared_->result == 0) {
    addresses_ = shared_->addresses;
    return Status::Ready;
  }
  error.set("look-up of %s: %s", shared_->host.c_str(), ::gai_strerror(shared_->result));
  return Status::Failed;
}

}  // namespace tickwire::net

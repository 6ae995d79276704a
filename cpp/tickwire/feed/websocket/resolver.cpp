#include "tickwire/feed/websocket/resolver.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstdio>
#include <cstring>
#include <mutex>
#include <vector>

#include "tickwire/core/error.hpp"

namespace tickwire::feed {

// glibc reads and writes all of this until the look-up has ended, so it lives in one place of its own.
struct Resolver::Request {
  std::string host;
  std::string port;
  addrinfo hints{};
  gaicb control{};
  bool running = false;
  int start_error = 0;
};

namespace {

/// Look-ups whose owner is gone while the system still works on them. Kept reachable until the
/// process ends: their memory is glibc's to write to. One at most for each source that is destroyed
/// in the middle of a hanging look-up.
void abandon(std::shared_ptr<void> request) {
  static std::mutex mutex;
  static auto* const abandoned = new std::vector<std::shared_ptr<void>>;
  const std::lock_guard lock(mutex);
  abandoned->push_back(std::move(request));
}

}  // namespace

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

Resolver::Resolver(const WebSocketUrl& url, const std::string& where)
    : fixed_(url.host_is_address), request_(std::make_unique<Request>()) {
  Request& request = *request_;
  request.host = url.host;
  request.port = std::to_string(url.port);
  request.hints.ai_family = AF_UNSPEC;
  request.hints.ai_socktype = SOCK_STREAM;
  request.hints.ai_protocol = IPPROTO_TCP;
  request.hints.ai_flags = AI_NUMERICSERV | (fixed_ ? AI_NUMERICHOST : 0);
  request.control.ar_name = request.host.c_str();
  request.control.ar_service = request.port.c_str();
  request.control.ar_request = &request.hints;
  if (!fixed_) return;
  addrinfo* list = nullptr;
  const int error = ::getaddrinfo(request.host.c_str(), request.port.c_str(), &request.hints, &list);
  if (error != 0) throw SetupError(where + ".url", "a usable address", request.host + ": " + ::gai_strerror(error));
  take(list);
  ::freeaddrinfo(list);
}

Resolver::~Resolver() {
  if (!request_->running) return;
  if (::gai_cancel(&request_->control) == EAI_NOTCANCELED && ::gai_error(&request_->control) == EAI_INPROGRESS) {
    abandon(std::shared_ptr<Request>(std::move(request_)));
  } else if (request_->control.ar_result != nullptr) {
    ::freeaddrinfo(request_->control.ar_result);
  }
}

void Resolver::take(const addrinfo* list) noexcept {
  count_ = 0;
  for (; list != nullptr && count_ < kMaxAddresses; list = list->ai_next) {
    if ((list->ai_family != AF_INET && list->ai_family != AF_INET6) || list->ai_addrlen > sizeof(sockaddr_storage)) continue;
    std::memcpy(&addresses_[count_].storage, list->ai_addr, list->ai_addrlen);
    addresses_[count_].size = list->ai_addrlen;
    ++count_;
  }
}

void Resolver::start() noexcept {
  if (fixed_ || request_->running) return;
  request_->control.ar_result = nullptr;
  gaicb* list[1] = {&request_->control};
  request_->start_error = ::getaddrinfo_a(GAI_NOWAIT, list, 1, nullptr);
  request_->running = request_->start_error == 0;
}

Resolver::Status Resolver::poll(FixedText& error) noexcept {
  if (fixed_) return Status::Ready;
  int result = request_->start_error;
  if (request_->running) {
    result = ::gai_error(&request_->control);
    if (result == EAI_INPROGRESS) return Status::Pending;
    request_->running = false;
    if (result == 0) {
      take(request_->control.ar_result);
      ::freeaddrinfo(request_->control.ar_result);
      request_->control.ar_result = nullptr;
      if (count_ > 0) return Status::Ready;
      result = EAI_NONAME;
    }
  }
  error.set("look-up of %s: %s", request_->host.c_str(), ::gai_strerror(result));
  return Status::Failed;
}

}  // namespace tickwire::feed

#include "tickwire/net/soupbintcp/soup_client.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

#include "tickwire/core/bytes.hpp"
#include "tickwire/core/error.hpp"

namespace tickwire::net {
namespace {

SoupConfig checked(SoupConfig config, const std::string& where) {
  for (const auto& [field, value] : {std::pair{".login_timeout_ns", config.login_timeout_ns},
                                     {".heartbeat_ns", config.heartbeat_ns},
                                     {".silence_timeout_ns", config.silence_timeout_ns}}) {
    if (value <= 0) throw SetupError(where + field, "a positive number", std::to_string(value));
  }
  if (config.username.size() > 6) {
    throw SetupError(where + ".username", "up to 6 characters", std::to_string(config.username.size()));
  }
  if (config.password.size() > 10) {
    throw SetupError(where + ".password", "up to 10 characters", std::to_string(config.password.size()));
  }
  return config;
}

/// What the resolver wants to know of a server.
WebSocketUrl server_of(const std::string& key, const std::string& text) {
  WebSocketUrl out;
  const std::size_t colon = text.rfind(':');
  if (colon != std::string::npos) {
    const char* const end = text.data() + text.size();
    const auto [at, error] = std::from_chars(text.data() + colon + 1, end, out.port);
    if (error != std::errc{} || at != end) out.port = 0;
    out.host = text.substr(0, colon);
  }
  if (out.host.size() > 2 && out.host.front() == '[' && out.host.back() == ']') {
    out.host = out.host.substr(1, out.host.size() - 2);
  } else if (out.host.find(':') != std::string::npos) {
    out.host.clear();  // An IPv6 address without brackets: nobody knows where it ends.
  }
  if (out.host.empty() || out.port == 0) throw SetupError(key, "HOST:PORT", '"' + text + '"');
  in6_addr address;
  out.host_is_address = ::inet_pton(AF_INET, out.host.c_str(), &address) == 1 ||
                        ::inet_pton(AF_INET6, out.host.c_str(), &address) == 1;
  return out;
}

}  // namespace

SoupClient::SoupClient(SoupConfig config, const std::string& where, Arena& arena)
    : config_(checked(std::move(config), where)),
      resolver_(std::make_unique<Resolver>(server_of(where + ".server", config_.server), where)),
      parser_(arena) {}

SoupClient::~SoupClient() { disconnect(); }

void SoupClient::start(const SessionId& session, std::uint64_t sequence, std::int64_t now) noexcept {
  if (state_ != State::Idle) return;
  session_ = session;
  if (session_[0] == '\0') session_.fill(' ');
  wanted_ = sequence;
  tried_ = 0;
  deadline_ = now + config_.login_timeout_ns;
  state_ = State::Resolving;
  resolver_->start();
}

void SoupClient::stop() noexcept {
  if (state_ == State::Open) (void)send(std::array<char, 3>{0, 1, soup::kLogout});
  disconnect();
  state_ = State::Idle;
}

void SoupClient::disconnect() noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

/// Ends the connection, or the attempt, for the reason in reason_.
void SoupClient::fail(SoupHandler& handler) noexcept {
  disconnect();
  state_ = State::Idle;
  handler.on_close(reason_.view());
}

int SoupClient::poll(SoupHandler& handler, std::int64_t now) noexcept {
  switch (state_) {
    case State::Idle: return 0;
    case State::Open: return poll_stream(handler, now);
    default: break;
  }
  if (now >= deadline_) {
    ++stats_.timeouts;
    reason_.set("%s: no login within %.3f s", config_.server.c_str(),
                static_cast<double>(config_.login_timeout_ns) * 1e-9);
    fail(handler);
    return 1;
  }
  if (state_ == State::LoggingIn) return poll_stream(handler, now);
  if (state_ == State::Connecting) return poll_connecting(handler, now);
  FixedText why;
  switch (resolver_->poll(why)) {
    case Resolver::Status::Pending: return 0;
    case Resolver::Status::Ready: begin_address(handler, now); return 1;
    case Resolver::Status::Failed: break;
  }
  reason_.set("%s: %.*s", config_.server.c_str(), TICKWIRE_PRINTF_VIEW(why.view()));
  fail(handler);
  return 1;
}

/// The next of the server's addresses, or the end.
void SoupClient::begin_address(SoupHandler& handler, std::int64_t now) noexcept {
  for (; tried_ < resolver_->addresses().size(); ++tried_) {
    disconnect();
    const SocketAddress& address = resolver_->addresses()[tried_];
    ++stats_.attempts;
    deadline_ = now + config_.login_timeout_ns;
    fd_ = ::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd_ >= 0) {
      const int on = 1;
      (void)::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      if (::connect(fd_, address.get(), address.size) == 0 || errno == EINPROGRESS) {
        state_ = State::Connecting;
        return;
      }
    }
    reason_.set("%s: %s", config_.server.c_str(), std::strerror(errno));
  }
  fail(handler);
}

int SoupClient::poll_connecting(SoupHandler& handler, std::int64_t now) noexcept {
  pollfd ready{fd_, POLLOUT, 0};
  if (::poll(&ready, 1, 0) <= 0) return 0;
  int error = 0;
  socklen_t size = sizeof error;
  if (::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
  if (error != 0) {
    reason_.set("%s: %s", config_.server.c_str(), std::strerror(error));
    ++tried_;
    begin_address(handler, now);
    return 1;
  }
  log_in(now);
  return 1;
}

void SoupClient::log_in(std::int64_t now) noexcept {
  state_ = State::LoggingIn;
  parser_.reset();
  last_heard_ = last_sent_ = now;
  // Fits: nothing has been sent on this connection. Where it is broken already the next receive says so.
  (void)send(soup_login(config_.username, config_.password, {session_.data(), session_.size()}, wanted_));
}

bool SoupClient::send(std::span<const char> bytes) noexcept {
  return ::send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) ==
         static_cast<ssize_t>(bytes.size());
}

int SoupClient::poll_stream(SoupHandler& handler, std::int64_t now) noexcept {
  if (now - last_sent_ >= config_.heartbeat_ns) {
    // Not taken: the connection is broken, which the receive says, or so full that it shows we are alive.
    if (send(std::array<char, 3>{0, 1, soup::kClientHeartbeat})) ++stats_.heartbeats_sent;
    last_sent_ = now;
  }
  const std::span<char> room = parser_.writable();
  const ssize_t count = ::recv(fd_, room.data(), room.size(), MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
    if (now - last_heard_ < config_.silence_timeout_ns) return 0;
    ++stats_.timeouts;
    reason_.set("%s: silent for %.3f s", config_.server.c_str(),
                static_cast<double>(config_.silence_timeout_ns) * 1e-9);
    fail(handler);
    return 1;
  }
  if (count <= 0) {
    reason_.set("%s: %s", config_.server.c_str(),
                count == 0 ? "the server ended the connection" : std::strerror(errno));
    fail(handler);
    return 1;
  }
  last_heard_ = now;
  stats_.bytes += static_cast<std::uint64_t>(count);
  parser_.commit(static_cast<std::size_t>(count));
  int done = 1;
  SoupPacket packet;
  for (;;) {
    switch (parser_.next(packet)) {
      case SoupParser::Status::None: return done;
      case SoupParser::Status::Malformed:
        ++stats_.malformed;
        reason_.set("%s: a packet without a type", config_.server.c_str());
        fail(handler);
        return done;
      case SoupParser::Status::Packet:
        ++done;
        if (!on_packet(packet, handler)) {
          fail(handler);
          return done;
        }
        // The handler may have called stop(), and start() behind it.
        if (state_ != State::Open && state_ != State::LoggingIn) return done;
        break;
    }
  }
}

/// False: the connection is over, for the reason in reason_.
bool SoupClient::on_packet(const SoupPacket& packet, SoupHandler& handler) noexcept {
  const bool open = state_ == State::Open;
  switch (packet.type) {
    case soup::kSequenced:
      if (!open) break;
      ++stats_.messages;
      handler.on_message(next_++, packet.payload);
      return true;
    case soup::kServerHeartbeat: ++stats_.heartbeats_received; return true;
    case soup::kEndOfSession:
      if (!open) break;
      handler.on_end_of_session();
      reason_.set("%s: end of session", config_.server.c_str());
      return state_ == State::Idle;
    case soup::kLoginAccepted:
      if (open) break;
      if (packet.payload.size() != 30 || !read_soup_number(packet.payload.subspan(10), next_)) {
        ++stats_.malformed;
        reason_.set("%s: an answer to the login that cannot be read", config_.server.c_str());
        return false;
      }
      std::memcpy(session_.data(), packet.payload.data(), session_.size());
      state_ = State::Open;
      ++stats_.logins;
      handler.on_login(session_, next_);
      return true;
    case soup::kLoginRejected: {
      if (open) break;
      ++stats_.rejected;
      const char code = packet.payload.empty() ? '?' : packet.payload[0];
      reason_.set("%s: login rejected: %s", config_.server.c_str(),
                  code == 'A'   ? "user name or password is wrong"
                  : code == 'S' ? "the session is not available"
                                : "for a reason that we do not know");
      return false;
    }
    default: ++stats_.other_packets; return true;
  }
  ++stats_.malformed;
  reason_.set("%s: packet '%c' at the wrong time", config_.server.c_str(), packet.type);
  return false;
}

}  // namespace tickwire::net

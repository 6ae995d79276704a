#include "tickwire/net/websocket/websocket_source.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <limits>
#include <tuple>
#include <utility>

#include "tickwire/core/error.hpp"

namespace tickwire::net {
namespace {

/// Between two looks at a socket, of an agent with nothing to do: twice its longest sleep.
constexpr std::int64_t kOrdinarySleepNs = 40'000'000;

/// Kept free for the close frame, so that a full send buffer does not cost an orderly end.
constexpr std::size_t kCloseReserve = masked_frame_bytes(125);

/// How often a look-up that runs on the resolver's thread is looked at while the agent sleeps.
constexpr std::int64_t kLookupPollNs = 1'000'000;

/// Two clocks that are read one after the other differ by less.
constexpr std::int64_t kMostStampAheadNs = 1'000'000;

/// How long a refused handshake waits for the rest of the body that says why.
constexpr std::int64_t kReasonNs = 1'000'000'000;

void require_positive(const std::string& where, const char* field, std::int64_t value) {
  if (value <= 0) throw SetupError(where + '.' + field, "a positive number", std::to_string(value));
}

WebSocketConfig checked(WebSocketConfig config, const std::string& where) {
  constexpr std::int64_t kMostNs = std::int64_t{1} << 56;  // Two years: sums and ticks stay in range.
  for (const auto& [field, value, needed] :
       {std::tuple<const char*, std::int64_t, bool>{"connect_timeout_ns", config.connect_timeout_ns, true},
        {"close_timeout_ns", config.close_timeout_ns, true},
        {"reconnect_min_ns", config.reconnect_min_ns, config.reconnect},
        {"reconnect_max_ns", config.reconnect_max_ns, config.reconnect},
        {"healthy_after_ns", config.healthy_after_ns, false},
        {"ping_interval_ns", config.ping_interval_ns, false},
        {"pong_timeout_ns", config.pong_timeout_ns, config.ping_interval_ns > 0}}) {
    if (needed) require_positive(where, field, value);
    if (value < 0 || value > kMostNs) {
      throw SetupError(where + '.' + field, "nanoseconds from 0 to 2^56", std::to_string(value));
    }
  }
  if (config.reconnect_max_ns < config.reconnect_min_ns) {
    throw SetupError(where + ".reconnect_max_ns",
                     "at least reconnect_min_ns (" + std::to_string(config.reconnect_min_ns) + ')',
                     std::to_string(config.reconnect_max_ns));
  }
  if (config.max_frame_bytes < 125) {
    throw SetupError(where + ".max_frame_bytes", "at least 125", std::to_string(config.max_frame_bytes));
  }
  std::size_t on_open_bytes = 0;
  for (const std::string& text : config.on_open) on_open_bytes += masked_frame_bytes(text.size());
  if (config.send_buffer_bytes < on_open_bytes || config.send_buffer_bytes == 0) {
    throw SetupError(
        where + ".send_buffer_bytes",
        "at least " + std::to_string(std::max<std::size_t>(on_open_bytes, 1)) + " for what on_open sends",
        std::to_string(config.send_buffer_bytes));
  }
  return config;
}

std::unique_ptr<TlsClient> make_tls(const WebSocketUrl& url, const WebSocketConfig& config,
                                    const std::string& where) {
  if (url.tls) return std::make_unique<TlsClient>(url, config.ca_file, where);
  if (!config.ca_file.empty())
    throw SetupError(where + ".ca_file", "none, since the URL is not wss://", config.ca_file);
  return nullptr;
}

std::uint64_t after(std::uint64_t now, std::int64_t ns) noexcept { return now + ns_to_tsc(ns); }

}  // namespace

WebSocketSource::WebSocketSource(WebSocketConfig config, const std::string& where)
    : config_(checked(std::move(config), where)),
      url_(parse_websocket_url(where + ".url", config_.url)),
      parser_({.max_frame_bytes = config_.max_frame_bytes, .max_message_bytes = config_.max_message_bytes}),
      tls_(make_tls(url_, config_, where)),
      keys_(config_.seed),
      resolver_(url_, where),
      request_(url_, config_.headers, where + ".headers"),
      answer_("handshake buffer", kMaxHandshakeBytes, kMaxHandshakeBytes) {
  const std::size_t out_bytes = std::max(config_.send_buffer_bytes, request_.text().size()) + kCloseReserve;
  out_ = PageBuffer("send buffer", out_bytes, std::size_t{64} << 10);
  (void)tsc_ns_per_tick();  // Calibrates, where nobody has yet.
}

WebSocketSource::~WebSocketSource() { disconnect(); }

// ---- Steady state ----

int WebSocketSource::poll(WebSocketHandler& handler, const UtcClock& clock) noexcept {
  int done = 0;
  if (state_ != WebSocketState::Open || tsc_now() >= deadline_tsc_ || wants_write()) [[unlikely]] {
    done = service(handler, clock);
    if (state_ != WebSocketState::Open) return done;
  }
  done += receive(handler, clock);
  // Sends what a ping or the handler queued, tells of an end.
  if (state_ != WebSocketState::Open || wants_write()) [[unlikely]]
    done += settle(handler);
  return done;
}

bool WebSocketSource::wants_write() const noexcept {
  return out_begin_ != out_end_ || state_ == WebSocketState::Connecting ||
         (tls_ != nullptr && !tls_->to_send().empty());
}

WebSocketSource::Read WebSocketSource::read_socket(std::span<char> room, std::size_t& count,
                                                   const UtcClock& clock) noexcept {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(timespec))];
  iovec io{room.data(), room.size()};
  msghdr message{};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  // Before the call: a process that is stopped or put aside stands at its end most of all, and what comes
  // meanwhile is not seen by it.
  const std::uint64_t looked_tsc = tsc_now();
  TICKWIRE_HOT_EXEMPT_BEGIN("the receive itself, non-blocking")
  const ssize_t got = ::recvmsg(fd_, &message, MSG_DONTWAIT);
  const int error = got < 0 ? errno : 0;
  TICKWIRE_HOT_EXEMPT_END
  if (got <= 0) {
    if (error != EINTR) empty_tsc_ = looked_tsc;
    if (error == EAGAIN || error == EWOULDBLOCK || error == EINTR) return Read::Nothing;
    count = static_cast<std::size_t>(error);
    return Read::End;
  }
  stamp_tsc_ = last_bytes_tsc_ = tsc_now();
  count = static_cast<std::size_t>(got);
  stats_.socket_bytes += count;
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_TIMESTAMPNS)
      [[likely]] {
    timespec stamp;
    std::memcpy(&stamp, CMSG_DATA(header), sizeof stamp);
    stamp_ = static_cast<TsNs>(stamp.tv_sec) * 1'000'000'000 + static_cast<TsNs>(stamp.tv_nsec);
    stamp_clock_ = RecvClock::Kernel;
    ++stats_.kernel_stamps;
    // Nothing is received after it was read: a clock was set in between.
    if (const TsNs read = clock.at(stamp_tsc_); stamp_ > read) {
      if (stamp_ - read > kMostStampAheadNs) [[unlikely]]
        ++stats_.stamps_capped;
      stamp_ = read;
    }
  } else {
    stamp_ = clock.at(stamp_tsc_);
    stamp_clock_ = RecvClock::Read;
    ++stats_.read_stamps;
  }
  // Whatever the wall clock does, no longer than until the read.
  const std::int64_t unseen_ns = std::min(stamp_ - clock.at(empty_tsc_), tsc_to_ns(stamp_tsc_ - empty_tsc_));
  unseen_ns_ = unseen_ns > kOrdinarySleepNs ? unseen_ns : 0;
  // What was short of the room left nothing behind.
  if (count < room.size()) empty_tsc_ = looked_tsc;
  return Read::Bytes;
}

int WebSocketSource::receive(WebSocketHandler& handler, const UtcClock& clock) noexcept {
  std::size_t count = 0;
  const bool secure = tls_ != nullptr;
  const Read read = read_socket(secure ? tls_->received_room() : parser_.writable(), count, clock);
  if (read == Read::Nothing) [[likely]]
    return 0;
  if (read == Read::End) [[unlikely]] {
    TICKWIRE_HOT_EXEMPT_BEGIN("the connection is gone: nothing comes in that could be late")
    on_dropped(count == 0 ? "ended without a close frame" : std::strerror(static_cast<int>(count)));
    TICKWIRE_HOT_EXEMPT_END
    return 1;
  }
  if (secure) {
    tls_->commit_received(count);
    return 1 + deliver_tls(handler);
  }
  parser_.commit(count);
  return 1 + deliver(handler);
}

int WebSocketSource::deliver_tls(WebSocketHandler& handler) noexcept {
  int done = 0;
  // Ends: what one receive brought is at most the size of the TLS buffer.
  while (state_ == WebSocketState::Open) {
    const std::ptrdiff_t got = tls_->read(parser_.writable());
    if (got == 0) break;
    if (got < 0) [[unlikely]] {
      TICKWIRE_HOT_EXEMPT_BEGIN("the connection is gone: nothing comes in that could be late")
      if (got == TlsClient::kClosed) {
        on_dropped("ended TLS without a close frame");
      } else {
        ++stats_.tls_failures;
        on_dropped(tls_->error());
      }
      TICKWIRE_HOT_EXEMPT_END
      return done + 1;
    }
    parser_.commit(static_cast<std::size_t>(got));
    done += deliver(handler);
  }
  return done;
}

int WebSocketSource::deliver(WebSocketHandler& handler) noexcept {
  int done = 0;
  // Ends with the bytes in the buffer. The handler may have called stop() or reopen().
  while (state_ == WebSocketState::Open) {
    const Frame frame = parser_.next();
    if (frame.kind == FrameKind::None) break;
    ++done;
    if (frame.kind == FrameKind::Text || frame.kind == FrameKind::Binary) [[likely]] {
      ++stats_.messages;
      stats_.message_bytes += frame.payload.size();
      handler.on_message(
          {frame.payload, frame.kind == FrameKind::Text, stamp_clock_, stamp_, stamp_tsc_, unseen_ns_});
    } else {
      on_control(frame);
    }
  }
  return done;
}

bool WebSocketSource::send(FrameOpcode opcode, std::span<const char> payload) noexcept {
  if (state_ != WebSocketState::Open || !queue(opcode, payload, kCloseReserve)) [[unlikely]] {
    ++stats_.send_refused;
    return false;
  }
  ++stats_.sent;
  return true;
}

bool WebSocketSource::queue(FrameOpcode opcode, std::span<const char> payload, std::size_t reserve) noexcept {
  const std::size_t bytes = masked_frame_bytes(payload.size());
  if (payload.size() > out_.size() || out_.size() - (out_end_ - out_begin_) < bytes + reserve) return false;
  if (out_.size() - out_end_ < bytes + reserve) {
    std::memmove(out_.data(), out_.data() + out_begin_, out_end_ - out_begin_);
    out_end_ -= out_begin_;
    out_begin_ = 0;
  }
  write_frame(out_.data() + out_end_, opcode, static_cast<std::uint32_t>(keys_.next()), payload);
  out_end_ += bytes;
  return true;
}

// ---- From the outside ----

void WebSocketSource::start() noexcept {
  if (state_ != WebSocketState::Idle) return;
  stopping_ = false;
  failures_ = 0;
  state_ = WebSocketState::BackingOff;
  deadline_tsc_ = 0;
}

void WebSocketSource::stop() noexcept {
  stopping_ = true;
  switch (state_) {
    case WebSocketState::Idle:
    case WebSocketState::Closing: break;
    case WebSocketState::Open: begin_close(kCloseNormal, "stopped", kCloseNormal); break;
    default:
      disconnect();
      back_off();
      break;
  }
}

void WebSocketSource::reopen(std::string_view why) noexcept {
  if (state_ == WebSocketState::Open) begin_close(kCloseNormal, why, kCloseNormal);
}

std::int64_t WebSocketSource::ns_to_deadline(std::uint64_t tsc) const noexcept {
  if (close_notice_) return 0;
  if (state_ == WebSocketState::Resolving) return kLookupPollNs;
  if (deadline_tsc_ == kNever) return std::numeric_limits<std::int64_t>::max();
  return deadline_tsc_ <= tsc ? 0 : tsc_to_ns(deadline_tsc_ - tsc);
}

// ---- Timers and sending ----

int WebSocketSource::service(WebSocketHandler& handler, const UtcClock& clock) noexcept {
  int done = 0;
  if (state_ == WebSocketState::Open) {
    done = service_open(tsc_now());
  } else {
    TICKWIRE_HOT_EXEMPT_BEGIN("no connection is open: nothing comes in that could be late")
    done = service_unconnected(handler, clock);
    TICKWIRE_HOT_EXEMPT_END
  }
  return done + settle(handler);
}

int WebSocketSource::service_unconnected(WebSocketHandler& handler, const UtcClock& clock) noexcept {
  const std::uint64_t now = tsc_now();
  switch (state_) {
    case WebSocketState::Idle:
    case WebSocketState::Open: break;
    case WebSocketState::BackingOff:
      if (now >= deadline_tsc_) {
        begin_round();
        return 1;
      }
      break;
    case WebSocketState::Resolving: return service_resolving(now);
    case WebSocketState::Connecting: return service_connecting(now);
    case WebSocketState::Tls: return service_tls(now, clock);
    case WebSocketState::Handshake: return service_handshake(now, handler, clock);
    case WebSocketState::Closing: return service_closing(now, clock);
  }
  return 0;
}

/// Sends what waits and tells the handler of an end that it has not heard of.
int WebSocketSource::settle(WebSocketHandler& handler) noexcept {
  int done = 0;
  if (fd_ >= 0 && state_ != WebSocketState::Connecting) done += flush();
  if (close_notice_) {
    close_notice_ = false;
    handler.on_close(close_code_, close_reason_.view());
    ++done;
  }
  return done;
}

void WebSocketSource::begin_round() noexcept {
  state_ = WebSocketState::Resolving;
  deadline_tsc_ = after(tsc_now(), config_.connect_timeout_ns);
  tried_ = 0;
  resolver_.start();
}

int WebSocketSource::service_resolving(std::uint64_t now) noexcept {
  switch (resolver_.poll(last_error_)) {
    case Resolver::Status::Ready: begin_address(); return 1;
    case Resolver::Status::Failed:
      ++stats_.lookup_failures;
      ++stats_.errors;
      back_off();
      return 1;
    case Resolver::Status::Pending: break;
  }
  if (now < deadline_tsc_) return 0;
  // The look-up goes on; the next round takes up its answer.
  attempt_timed_out("look-up");
  back_off();
  return 1;
}

void WebSocketSource::begin_address() noexcept {
  const std::span<const SocketAddress> addresses = resolver_.addresses();
  const SocketAddress& address = addresses[(first_address_ + tried_) % addresses.size()];
  ++stats_.attempts;
  state_ = WebSocketState::Connecting;
  deadline_tsc_ = after(tsc_now(), config_.connect_timeout_ns);
  fd_ = ::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
  int error = fd_ < 0 ? errno : 0;
  if (error == 0) {
    // Before connect: the window's scale is fixed then, and the first bytes shall carry stamps too. A
    // kernel that knows no stamps costs nothing but them: each message says which clock it has.
    const int on = 1;
    (void)::setsockopt(fd_, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    (void)::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (config_.socket_receive_bytes > 0) {
      (void)::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &config_.socket_receive_bytes,
                         sizeof config_.socket_receive_bytes);
    }
    if (::connect(fd_, address.get(), address.size) != 0 && errno != EINPROGRESS) error = errno;
  }
  if (error == 0) return;
  char text[64];
  address.describe(text, sizeof text);
  last_error_.set("connect to %s: %s", text, std::strerror(error));
  ++stats_.connect_failures;
  ++stats_.errors;
  address_failed();
}

/// Nobody there: the next address of this round, or the end of the round.
void WebSocketSource::address_failed() noexcept {
  disconnect();
  if (++tried_ < resolver_.addresses().size()) return begin_address();
  back_off();
}

/// Somebody is there but did not let us in. Asking the next address at once would be bad manners
/// where the answer was "too many requests", so it is the next round's first.
void WebSocketSource::answer_failed() noexcept {
  first_address_ = (first_address_ + tried_ + 1) % resolver_.addresses().size();
  disconnect();
  back_off();
}

void WebSocketSource::attempt_timed_out(const char* doing) noexcept {
  last_error_.set("%s of %s: no result within %.3f s", doing, url_.host.c_str(),
                  static_cast<double>(config_.connect_timeout_ns) * 1e-9);
  ++stats_.timeouts;
  ++stats_.errors;
}

int WebSocketSource::service_connecting(std::uint64_t now) noexcept {
  pollfd ready{fd_, POLLOUT, 0};
  if (::poll(&ready, 1, 0) <= 0) {
    if (now < deadline_tsc_) return 0;
    attempt_timed_out("connect");
    address_failed();
    return 1;
  }
  int error = 0;
  socklen_t size = sizeof error;
  if (::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
  if (error != 0) {
    const std::span<const SocketAddress> addresses = resolver_.addresses();
    char text[64];
    addresses[(first_address_ + tried_) % addresses.size()].describe(text, sizeof text);
    last_error_.set("connect to %s: %s", text, std::strerror(error));
    ++stats_.connect_failures;
    ++stats_.errors;
    address_failed();
    return 1;
  }
  if (tls_ != nullptr) {
    begin_tls();
  } else {
    begin_handshake();
  }
  return 1;
}

void WebSocketSource::begin_tls() noexcept {
  state_ = WebSocketState::Tls;
  if (tls_->start() && tls_->handshake() != TlsClient::Progress::Failed)
    return;  // The hello now waits to be sent.
  last_error_.set("%.*s", TICKWIRE_PRINTF_VIEW(tls_->error()));
  ++stats_.tls_failures;
  ++stats_.errors;
  answer_failed();
}

int WebSocketSource::service_tls(std::uint64_t now, const UtcClock& clock) noexcept {
  std::size_t count = 0;
  const Read read = read_socket(tls_->received_room(), count, clock);
  if (read == Read::Nothing) {
    if (now < deadline_tsc_) return 0;
    attempt_timed_out("TLS handshake");
    answer_failed();
    return 1;
  }
  if (read == Read::End) {
    last_error_.set("TLS handshake with %s: %s", url_.host.c_str(),
                    count == 0 ? "the connection ended" : std::strerror(static_cast<int>(count)));
    ++stats_.tls_failures;
    ++stats_.errors;
    answer_failed();
    return 1;
  }
  tls_->commit_received(count);
  switch (tls_->handshake()) {
    case TlsClient::Progress::Pending:
      // However many bytes come: they have come to nothing in time.
      if (now < deadline_tsc_) break;
      attempt_timed_out("TLS handshake");
      answer_failed();
      break;
    case TlsClient::Progress::Done: begin_handshake(); break;
    case TlsClient::Progress::Failed:
      last_error_.set("%.*s", TICKWIRE_PRINTF_VIEW(tls_->error()));
      ++stats_.tls_failures;
      ++stats_.errors;
      (void)flush();  // The alert that tells the server why.
      answer_failed();
      break;
  }
  return 1;
}

void WebSocketSource::begin_handshake() noexcept {
  state_ = WebSocketState::Handshake;
  answer_bytes_ = 0;
  refused_in_part_ = false;
  request_.renew(keys_);
  std::memcpy(out_.data(), request_.text().data(), request_.text().size());
  out_begin_ = 0;
  out_end_ = request_.text().size();
}

int WebSocketSource::service_handshake(std::uint64_t now, WebSocketHandler& handler,
                                       const UtcClock& clock) noexcept {
  const auto refused = [this]() noexcept {
    ++stats_.handshake_failures;
    ++stats_.errors;
    answer_failed();
    return 1;
  };
  std::size_t count = 0;
  const std::span<char> room{answer_.data() + answer_bytes_, answer_.size() - answer_bytes_};
  const Read read = read_socket(tls_ != nullptr ? tls_->received_room() : room, count, clock);
  if (refused_in_part_ && (read == Read::End || now >= deadline_tsc_)) return refused();
  if (read == Read::Nothing) {
    if (now < deadline_tsc_) return 0;
    attempt_timed_out("handshake");
    answer_failed();
    return 1;
  }
  if (read == Read::End) {
    last_error_.set(
        "handshake with %s: %s", url_.host.c_str(),
        count == 0 ? "the connection ended before the answer" : std::strerror(static_cast<int>(count)));
    return refused();
  }
  std::ptrdiff_t ended = 0;
  if (tls_ == nullptr) {
    answer_bytes_ += count;
  } else {
    tls_->commit_received(count);
    while (answer_bytes_ < answer_.size()) {
      const std::ptrdiff_t got = tls_->read({answer_.data() + answer_bytes_, answer_.size() - answer_bytes_});
      if (got < 0) ended = got;
      if (got <= 0) break;
      answer_bytes_ += static_cast<std::size_t>(got);
    }
  }

  // First what came, then how it ended: both may lie in one receive.
  const HandshakeAnswer answer = check_handshake({answer_.data(), answer_bytes_}, request_.expected_accept(),
                                                 read_utc() / 1'000'000'000, last_error_);
  if (answer.status == HandshakeStatus::Refused) {
    asked_pause_ns_ = answer.retry_after_s * 1'000'000'000;
    // The reason is worth a moment, as long as there is room for it.
    if (!answer.more || ended != 0 || answer_bytes_ == answer_.size()) return refused();
    if (!refused_in_part_) deadline_tsc_ = std::min(deadline_tsc_, after(now, kReasonNs));
    refused_in_part_ = true;
    return 1;
  }
  if (answer.status == HandshakeStatus::Incomplete) {
    if (ended == 0) {
      if (now < deadline_tsc_) return 1;
      attempt_timed_out("handshake");
      answer_failed();
      return 1;
    }
    if (ended == TlsClient::kClosed) {
      last_error_.set("handshake with %s: TLS ended before the answer", url_.host.c_str());
    } else {
      last_error_.set("%.*s", TICKWIRE_PRINTF_VIEW(tls_->error()));
    }
    return refused();
  }

  // What follows the header is the first frame's. It always fits: the parser is empty.
  parser_.reset();
  const std::size_t rest = answer_bytes_ - answer.header_bytes;
  std::memcpy(parser_.writable().data(), answer_.data() + answer.header_bytes, rest);
  parser_.commit(rest);
  opened(handler);
  (void)deliver(handler);
  if (tls_ != nullptr) (void)deliver_tls(handler);
  return 1;
}

void WebSocketSource::opened(WebSocketHandler& handler) noexcept {
  state_ = WebSocketState::Open;
  opened_tsc_ = empty_tsc_ = tsc_now();
  first_address_ =
      (first_address_ + tried_) % resolver_.addresses().size();  // It works: begin there next time.
  ping_number_ = 0;
  ping_tsc_ = config_.ping_interval_ns > 0 ? after(opened_tsc_, config_.ping_interval_ns) : kNever;
  pong_tsc_ = kNever;
  set_open_deadline();
  ++stats_.opens;
  for (const std::string& text : config_.on_open) (void)send_text(text);
  handler.on_open();
}

void WebSocketSource::set_open_deadline() noexcept { deadline_tsc_ = std::min(ping_tsc_, pong_tsc_); }

int WebSocketSource::service_open(std::uint64_t now) noexcept {
  if (now < deadline_tsc_) return 0;
  if (now >= pong_tsc_) {
    ++stats_.pong_timeouts;
    TICKWIRE_HOT_EXEMPT_BEGIN("the connection is given up: nothing comes in that could be late")
    on_dropped("no pong within pong_timeout_ns");
    TICKWIRE_HOT_EXEMPT_END
    return 1;
  }
  ++ping_number_;
  char payload[sizeof ping_number_];
  std::memcpy(payload, &ping_number_, sizeof payload);
  if (queue(FrameOpcode::Ping, payload, kCloseReserve)) {
    ++stats_.pings_sent;
    if (pong_tsc_ == kNever) pong_tsc_ = after(now, config_.pong_timeout_ns);
  } else {
    ++stats_.send_refused;
  }
  ping_tsc_ = after(now, config_.ping_interval_ns);
  set_open_deadline();
  return 1;
}

void WebSocketSource::on_control(const Frame& frame) noexcept {
  switch (frame.kind) {
    case FrameKind::Ping:
      ++stats_.pings_received;
      if (queue(FrameOpcode::Pong, frame.payload, kCloseReserve)) {
        ++stats_.pongs_sent;
      } else {
        ++stats_.send_refused;
      }
      break;
    case FrameKind::Pong: {
      ++stats_.pongs_received;
      std::uint64_t number = 0;
      if (frame.payload.size() != sizeof number) break;
      std::memcpy(&number, frame.payload.data(), sizeof number);
      // Any of our pings on this connection: the peer is alive. An unsolicited pong proves nothing.
      if (number == 0 || number > ping_number_) break;
      pong_tsc_ = kNever;
      set_open_deadline();
      break;
    }
    case FrameKind::Close:
      ++stats_.closes_received;
      begin_close(frame.code, {frame.payload.data(), frame.payload.size()}, frame.code);
      break;
    case FrameKind::Violation: {
      ++stats_.protocol_errors;
      if (frame.code == kCloseBadText) ++stats_.bad_text;
      if (frame.code == kCloseTooLarge) ++stats_.too_large;
      const std::string_view why = parser_.violation();
      TICKWIRE_HOT_EXEMPT_BEGIN(
          "formats a text into a fixed buffer, once a connection: this one is at its end")
      last_error_.set("message from %s: %.*s", url_.host.c_str(), TICKWIRE_PRINTF_VIEW(why));
      TICKWIRE_HOT_EXEMPT_END
      ++stats_.errors;
      begin_close(frame.code, why, frame.code);
      break;
    }
    case FrameKind::None:
    case FrameKind::Text:
    case FrameKind::Binary: break;
  }
}

void WebSocketSource::on_dropped(std::string_view how) noexcept {
  last_error_.set("connection to %s: %.*s", url_.host.c_str(), TICKWIRE_PRINTF_VIEW(how));
  ++stats_.errors;
  ++stats_.drops;
  leave_open(kCloseDropped, last_error_.view());
  disconnect();
  back_off();
}

void WebSocketSource::leave_open(std::uint16_t code, std::string_view reason) noexcept {
  ++stats_.closes;
  if (tsc_now() >= after(opened_tsc_, config_.healthy_after_ns)) failures_ = 0;
  close_notice_ = true;
  close_code_ = code;
  close_reason_.assign(reason);
}

/// From Open to Closing: our close frame goes out behind what already waits, then the server is
/// expected to end the connection. What it still sends is thrown away.
void WebSocketSource::begin_close(std::uint16_t code, std::string_view reason,
                                  std::uint16_t code_to_send) noexcept {
  std::array<char, 2> payload{static_cast<char>(code_to_send >> 8), static_cast<char>(code_to_send & 0xFF)};
  const bool has_code = code_to_send != kCloseNoCode;
  (void)queue(FrameOpcode::Close, {payload.data(), has_code ? payload.size() : 0}, 0);
  leave_open(code, reason);
  state_ = WebSocketState::Closing;
  deadline_tsc_ = after(tsc_now(), config_.close_timeout_ns);
  // Forgets positions, not bytes: the handler may still be looking at a message when it calls stop().
  parser_.reset();
}

int WebSocketSource::service_closing(std::uint64_t now, const UtcClock& clock) noexcept {
  std::size_t count = 0;
  const Read read = read_socket(parser_.writable(), count, clock);  // Never committed: thrown away.
  if (read != Read::End) {
    // What still comes is no reason to wait for longer.
    if (now < deadline_tsc_) return read == Read::Bytes ? 1 : 0;
    last_error_.set("close of %s: the server did not end the connection in time", url_.host.c_str());
    ++stats_.timeouts;
    ++stats_.errors;
  }
  disconnect();
  back_off();
  return 1;
}

void WebSocketSource::disconnect() noexcept {
  if (fd_ < 0) return;
  if (tls_ != nullptr) {
    tls_->close_notify();
    if (!tls_->to_send().empty()) (void)send_some(tls_->to_send());
    tls_->stop();
  }
  ::close(fd_);
  fd_ = -1;
  out_begin_ = out_end_ = 0;
}

void WebSocketSource::back_off() noexcept {
  if (stopping_ || !config_.reconnect) {
    state_ = WebSocketState::Idle;
    deadline_tsc_ = kNever;
    return;
  }
  // In floating point: min · 2^n leaves the integers long before it matters.
  double ceiling = static_cast<double>(config_.reconnect_min_ns);
  for (unsigned i = 0; i < failures_ && ceiling < static_cast<double>(config_.reconnect_max_ns); ++i)
    ceiling *= 2;
  ceiling = std::min(ceiling, static_cast<double>(config_.reconnect_max_ns));
  if (failures_ < 64) ++failures_;
  state_ = WebSocketState::BackingOff;
  deadline_tsc_ =
      after(tsc_now(), std::max(asked_pause_ns_, static_cast<std::int64_t>(keys_.uniform() * ceiling)));
  asked_pause_ns_ = 0;
}

/// What the socket took: 0 when it is full, and everything when it is broken: the next receive says
/// so, after what the peer sent before, which may be its reason.
std::size_t WebSocketSource::send_some(std::span<const char> bytes) noexcept {
  TICKWIRE_HOT_EXEMPT_BEGIN("the send itself, non-blocking")
  const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  const int error = sent < 0 ? errno : 0;
  TICKWIRE_HOT_EXEMPT_END
  if (sent >= 0) return static_cast<std::size_t>(sent);
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR ? 0 : bytes.size();
}

int WebSocketSource::flush() noexcept {
  int done = 0;
  if (tls_ == nullptr) {
    if (out_begin_ == out_end_) return 0;
    const std::size_t sent = send_some({out_.data() + out_begin_, out_end_ - out_begin_});
    out_begin_ += sent;
    done = sent > 0 ? 1 : 0;
  } else {
    // Ends: each turn sends bytes or encrypts some of a bounded buffer.
    for (;;) {
      if (const std::span<const char> cipher = tls_->to_send(); !cipher.empty()) {
        const std::size_t sent = send_some(cipher);
        tls_->commit_sent(sent);
        if (sent == 0) break;
        done = 1;
        continue;
      }
      // Before the handshake frames nothing is plain; the TLS handshake writes by itself.
      if (out_begin_ == out_end_) break;
      const std::ptrdiff_t taken = tls_->write({out_.data() + out_begin_, out_end_ - out_begin_});
      if (taken < 0) out_begin_ = out_end_;  // Broken: the next receive says so.
      if (taken > 0) out_begin_ += static_cast<std::size_t>(taken);
      if (taken <= 0 && tls_->to_send().empty()) break;
    }
  }
  if (out_begin_ == out_end_) out_begin_ = out_end_ = 0;
  return done;
}

}  // namespace tickwire::net

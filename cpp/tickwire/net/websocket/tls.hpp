#pragma once

#include <openssl/bio.h>
#include <openssl/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "tickwire/core/fixed_text.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/page_buffer.hpp"
#include "tickwire/net/url.hpp"

namespace tickwire::net {

/// TLS 1.2 or newer for one client connection, on OpenSSL. It owns no socket: the caller brings the
/// bytes it received and takes away those to send, so that our own recvmsg gets the kernel's stamps.
///
/// One thread. The certificate is verified and must carry the host (name or address) of the URL;
/// there is no switch to turn that off. OpenSSL reads and writes our two fixed buffers through a BIO
/// of our own, without the copy and the growth of its memory BIO; what it allocates beside that is
/// counted apart.
class TlsClient {
 public:
  /// Setup. `ca_file` replaces the system's certificates; empty: the system's. Throws SetupError that
  /// begins with `where`.
  TlsClient(const WebSocketUrl& url, const std::string& ca_file, const std::string& where);
  ~TlsClient();
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  /// Forgets the connection before and gets ready for a new one. False when OpenSSL refuses (see error()).
  bool start() noexcept;

  enum class Progress : std::uint8_t { Pending, Done, Failed };
  /// Call it after every receive and send until it no longer gives Pending.
  Progress handshake() noexcept;

  /// Received from the socket: room for it (never empty between two read() that gave 0), then how much came.
  std::span<char> received_room() noexcept TICKWIRE_HOT;
  void commit_received(std::size_t count) noexcept TICKWIRE_HOT { in_end_ += count; }

  /// To send to the socket, then how much of it went.
  std::span<const char> to_send() const noexcept TICKWIRE_HOT {
    return {out_.data() + out_begin_, out_end_ - out_begin_};
  }
  void commit_sent(std::size_t count) noexcept TICKWIRE_HOT;

  static constexpr std::ptrdiff_t kClosed = -1;  // The peer has ended TLS in order.
  static constexpr std::ptrdiff_t kFailed = -2;  // See error().

  /// Plain bytes into `room`: their count, 0 when more must be received first, kClosed or kFailed.
  std::ptrdiff_t read(std::span<char> room) noexcept TICKWIRE_HOT;

  /// Encrypts as much of `plain` as there is room for: the count (0: send first), or kFailed. What was
  /// not taken must come again, unchanged, at the start of the next call.
  std::ptrdiff_t write(std::span<const char> plain) noexcept TICKWIRE_HOT;

  /// Queues the notice that we end TLS; after a failure there is nobody to tell.
  void close_notify() noexcept;

  /// Forgets the connection and what waits to be sent.
  void stop() noexcept;

  std::string_view error() const noexcept { return error_.view(); }

 private:
  friend struct TlsBio;

  void fail(const char* doing) noexcept;
  std::ptrdiff_t read_slow(int result) noexcept;

  struct FreeContext {
    void operator()(SSL_CTX* context) const noexcept;
  };
  struct FreeSsl {
    void operator()(SSL* ssl) const noexcept;
  };

  const std::string host_;
  const bool host_is_address_;
  const BIO_METHOD* bio_method_ = nullptr;
  std::unique_ptr<SSL_CTX, FreeContext> context_;
  std::unique_ptr<SSL, FreeSsl> ssl_;
  PageBuffer in_;
  PageBuffer out_;
  std::size_t in_begin_ = 0;
  std::size_t in_end_ = 0;
  std::size_t out_begin_ = 0;
  std::size_t out_end_ = 0;
  FixedText error_;
};

}  // namespace tickwire::net

#include "tickwire/net/websocket/tls.hpp"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <cstring>

#include "tickwire/core/error.hpp"

namespace tickwire::net {
namespace {

/// Each direction: four of the largest TLS records.
constexpr std::size_t kCipherBytes = std::size_t{64} << 10;

std::string openssl_reason() {
  char text[256] = "no reason given";
  const unsigned long error = ::ERR_peek_last_error();
  if (error != 0) ::ERR_error_string_n(error, text, sizeof text);
  ::ERR_clear_error();
  return text;
}

}  // namespace

/// The BIO between OpenSSL and the buffers of a TlsClient.
struct TlsBio {
  static TlsClient& client(BIO* bio) noexcept { return *static_cast<TlsClient*>(::BIO_get_data(bio)); }

  static int read(BIO* bio, char* out, int size) noexcept {
    TlsClient& tls = client(bio);
    ::BIO_clear_retry_flags(bio);
    const std::size_t count = std::min(static_cast<std::size_t>(size), tls.in_end_ - tls.in_begin_);
    if (count == 0) {
      ::BIO_set_retry_read(bio);
      return -1;
    }
    std::memcpy(out, tls.in_.data() + tls.in_begin_, count);
    tls.in_begin_ += count;
    return static_cast<int>(count);
  }

  static int write(BIO* bio, const char* data, int size) noexcept {
    TlsClient& tls = client(bio);
    ::BIO_clear_retry_flags(bio);
    const std::size_t count = std::min(static_cast<std::size_t>(size), tls.out_.size() - tls.out_end_);
    if (count == 0) {
      ::BIO_set_retry_write(bio);
      return -1;
    }
    std::memcpy(tls.out_.data() + tls.out_end_, data, count);
    tls.out_end_ += count;
    return static_cast<int>(count);
  }

  static long control(BIO*, int command, long, void*) noexcept {
    return command == BIO_CTRL_FLUSH ? 1 : 0;  // There is nothing to flush to; all else is unknown here.
  }

  static int create(BIO* bio) noexcept {
    ::BIO_set_init(bio, 1);
    return 1;
  }

  static const BIO_METHOD* method() {
    struct Free {
      void operator()(BIO_METHOD* made) const noexcept { ::BIO_meth_free(made); }
    };
    static const std::unique_ptr<BIO_METHOD, Free> made = [] {
      std::unique_ptr<BIO_METHOD, Free> bio(
          ::BIO_meth_new(::BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "tickwire"));
      if (bio == nullptr) throw SetupError("TLS: OpenSSL gives no BIO method: " + openssl_reason());
      ::BIO_meth_set_read(bio.get(), &read);
      ::BIO_meth_set_write(bio.get(), &write);
      ::BIO_meth_set_ctrl(bio.get(), &control);
      ::BIO_meth_set_create(bio.get(), &create);
      return bio;
    }();
    return made.get();
  }
};

void TlsClient::FreeContext::operator()(SSL_CTX* context) const noexcept { ::SSL_CTX_free(context); }
void TlsClient::FreeSsl::operator()(SSL* ssl) const noexcept { ::SSL_free(ssl); }

TlsClient::TlsClient(const WebSocketUrl& url, const std::string& ca_file, const std::string& where)
    : host_(url.host),
      host_is_address_(url.host_is_address),
      context_(::SSL_CTX_new(::TLS_client_method())),
      in_("TLS receive buffer", kCipherBytes, kCipherBytes),
      out_("TLS send buffer", kCipherBytes, kCipherBytes) {
  bio_method_ = TlsBio::method();
  SSL_CTX* const context = context_.get();
  if (context == nullptr) throw SetupError(where + ".url: OpenSSL gives no context: " + openssl_reason());
  static constexpr unsigned char kAlpn[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
  if (::SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
      ::SSL_CTX_set_alpn_protos(context, kAlpn, sizeof kAlpn) != 0) {
    throw SetupError(where + ".url: OpenSSL refuses our settings: " + openssl_reason());
  }
  ::SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  // What is not yet encrypted stays in the caller's buffer, which may move between two tries.
  ::SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  ::SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  ::SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);

  if (ca_file.empty()) {
    if (::SSL_CTX_set_default_verify_paths(context) != 1) {
      throw SetupError(where + ".ca_file: cannot use the system's certificates: " + openssl_reason());
    }
  } else if (::SSL_CTX_load_verify_locations(context, ca_file.c_str(), nullptr) != 1) {
    throw SetupError(where + ".ca_file", "a readable file of PEM certificates",
                     '"' + ca_file + "\": " + openssl_reason());
  }

  X509_VERIFY_PARAM* const verify = ::SSL_CTX_get0_param(context);
  ::X509_VERIFY_PARAM_set_hostflags(verify, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  const int named = host_is_address_ ? ::X509_VERIFY_PARAM_set1_ip_asc(verify, host_.c_str())
                                     : ::X509_VERIFY_PARAM_set1_host(verify, host_.c_str(), host_.size());
  if (named != 1) throw SetupError(where + ".url", "a host that a certificate can carry", '"' + host_ + '"');
}

TlsClient::~TlsClient() = default;

bool TlsClient::start() noexcept {
  ::ERR_clear_error();
  stop();
  error_.clear();
  ssl_.reset(::SSL_new(context_.get()));
  BIO* const bio = ssl_ != nullptr ? ::BIO_new(bio_method_) : nullptr;
  if (bio == nullptr) {
    fail("new connection");
    return false;
  }
  ::BIO_set_data(bio, this);
  ::SSL_set_bio(ssl_.get(), bio, bio);  // Takes the one reference for both directions.
  ::SSL_set_connect_state(ssl_.get());
  // SSL_set_tlsext_host_name, without the C cast in its macro.
  if (!host_is_address_ && ::SSL_ctrl(ssl_.get(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
                                      const_cast<char*>(host_.c_str())) != 1) {
    fail("server name");
    return false;
  }
  return true;
}

TlsClient::Progress TlsClient::handshake() noexcept {
  ::ERR_clear_error();
  const int result = ::SSL_do_handshake(ssl_.get());
  if (result == 1) return Progress::Done;
  const int error = ::SSL_get_error(ssl_.get(), result);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return Progress::Pending;
  fail("handshake");
  return Progress::Failed;
}

std::span<char> TlsClient::received_room() noexcept {
  if (in_begin_ == in_end_) {
    in_begin_ = in_end_ = 0;
  } else if (in_begin_ > 0) {
    std::memmove(in_.data(), in_.data() + in_begin_, in_end_ - in_begin_);
    in_end_ -= in_begin_;
    in_begin_ = 0;
  }
  return {in_.data() + in_end_, in_.size() - in_end_};
}

void TlsClient::commit_sent(std::size_t count) noexcept {
  out_begin_ += count;
  if (out_begin_ == out_end_) {
    out_begin_ = out_end_ = 0;
  } else if (out_end_ == out_.size()) {
    std::memmove(out_.data(), out_.data() + out_begin_, out_end_ - out_begin_);
    out_end_ -= out_begin_;
    out_begin_ = 0;
  }
}

std::ptrdiff_t TlsClient::read(std::span<char> room) noexcept {
  TICKWIRE_HOT_EXEMPT_BEGIN("OpenSSL decrypts a record: bounded by its size, no system call below our BIO")
  const int size = static_cast<int>(std::min<std::size_t>(room.size(), std::size_t{1} << 30));
  const int result = ::SSL_read(ssl_.get(), room.data(), size);
  if (result > 0) return result;
  return read_slow(result);
  TICKWIRE_HOT_EXEMPT_END
}

std::ptrdiff_t TlsClient::read_slow(int result) noexcept {
  const int error = ::SSL_get_error(ssl_.get(), result);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return 0;
  if (error == SSL_ERROR_ZERO_RETURN) return kClosed;
  fail("read");
  return kFailed;
}

std::ptrdiff_t TlsClient::write(std::span<const char> plain) noexcept {
  TICKWIRE_HOT_EXEMPT_BEGIN("OpenSSL encrypts records into a bounded buffer, no system call below our BIO")
  const int size = static_cast<int>(std::min<std::size_t>(plain.size(), std::size_t{1} << 30));
  const int result = ::SSL_write(ssl_.get(), plain.data(), size);
  if (result > 0) return result;
  const int error = ::SSL_get_error(ssl_.get(), result);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return 0;
  fail("write");
  return kFailed;
  TICKWIRE_HOT_EXEMPT_END
}

void TlsClient::close_notify() noexcept {
  if (ssl_ != nullptr && ::SSL_is_init_finished(ssl_.get()) == 1 && error_.empty())
    (void)::SSL_shutdown(ssl_.get());
  ::ERR_clear_error();
}

void TlsClient::stop() noexcept {
  ssl_.reset();
  in_begin_ = in_end_ = out_begin_ = out_end_ = 0;
}

void TlsClient::fail(const char* doing) noexcept {
  const long verdict = ssl_ != nullptr ? ::SSL_get_verify_result(ssl_.get()) : X509_V_OK;
  const unsigned long code = ::ERR_peek_last_error();
  const char* reason = code != 0 ? ::ERR_reason_error_string(code) : nullptr;
  if (verdict != X509_V_OK) {
    error_.set("TLS: the certificate of %s does not verify: %s", host_.c_str(),
               ::X509_verify_cert_error_string(verdict));
  } else {
    error_.set("TLS %s with %s: %s", doing, host_.c_str(),
               reason != nullptr ? reason : "failed without a reason");
  }
  ::ERR_clear_error();
}

}  // namespace tickwire::net

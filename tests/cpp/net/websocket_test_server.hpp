#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "tickwire/net/websocket/handshake.hpp"

/// A scripted WebSocket server on a thread of the test, ws or wss. Blocking and simple: each accepted
/// connection runs the next script; the last one serves all that follow. It shares only
/// accept_for_key() with the client, which has a test of its own against the RFC's example.
namespace tickwire::net::test {

inline std::string server_frame(unsigned first_byte, const std::string& payload) {
  std::string out(1, static_cast<char>(first_byte));
  const std::size_t size = payload.size();
  if (size < 126) {
    out += static_cast<char>(size);
  } else if (size < 65536) {
    out += {126, static_cast<char>(size >> 8), static_cast<char>(size & 0xFF)};
  } else {
    out += static_cast<char>(127);
    for (int shift = 56; shift >= 0; shift -= 8) out += static_cast<char>(size >> shift & 0xFF);
  }
  return out + payload;
}

inline std::string server_close(int code, const std::string& reason = "") {
  return server_frame(0x88,
                      std::string{static_cast<char>(code >> 8), static_cast<char>(code & 0xFF)} + reason);
}

struct ClientFrame {
  unsigned opcode = 0;  // 0: the connection ended.
  bool final = false;
  bool masked = false;
  std::string payload;

  int close_code() const {
    return payload.size() < 2
               ? 0
               : static_cast<unsigned char>(payload[0]) * 256 + static_cast<unsigned char>(payload[1]);
  }
};

class Connection {
 public:
  Connection(int fd, SSL_CTX* context) : fd_(fd) {
    // A script that waits for what never comes must not hang the test.
    const timeval limit{10, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (context == nullptr) return;
    ssl_.reset(::SSL_new(context));
    ::SSL_set_fd(ssl_.get(), fd_);
    secure_ = ::SSL_accept(ssl_.get()) == 1;
    ::ERR_clear_error();
  }
  ~Connection() { end(); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  bool usable() const { return ssl_ == nullptr || secure_; }

  void send(std::string_view bytes) {
    while (!bytes.empty()) {
      const long sent = ssl_ != nullptr
                            ? ::SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size()))
                            : ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
  }

  std::string read_request() {
    std::string text;
    char byte;
    while (text.find("\r\n\r\n") == std::string::npos && read_exactly(&byte, 1)) text += byte;
    return text;
  }

  static std::string answer_to(const std::string& request) {
    const std::string name = "Sec-WebSocket-Key: ";
    const std::size_t at = request.find(name);
    const std::string key = at == std::string::npos ? "" : request.substr(at + name.size(), 24);
    const auto accept = accept_for_key(key);
    return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
           "Upgrade\r\nSec-WebSocket-Accept: " +
           std::string(accept.data(), accept.size()) + "\r\n\r\n";
  }

  /// The whole opening. Returns the request.
  std::string accept_websocket() {
    std::string request = read_request();
    send(answer_to(request));
    return request;
  }

  ClientFrame read_frame() {
    unsigned char head[2];
    if (!read_exactly(head, 2)) return {};
    ClientFrame frame;
    frame.opcode = head[0] & 15;
    frame.final = (head[0] & 0x80) != 0;
    frame.masked = (head[1] & 0x80) != 0;
    std::uint64_t size = head[1] & 127;
    unsigned char more[8];
    if (size >= 126) {
      const std::size_t bytes = size == 126 ? 2 : 8;
      if (!read_exactly(more, bytes)) return {};
      size = 0;
      for (std::size_t i = 0; i < bytes; ++i) size = size * 256 + more[i];
    }
    unsigned char key[4] = {};
    if (frame.masked && !read_exactly(key, 4)) return {};
    frame.payload.resize(size);
    if (!read_exactly(frame.payload.data(), size)) return {};
    for (std::size_t i = 0; i < size; ++i)
      frame.payload[i] = static_cast<char>(frame.payload[i] ^ key[i % 4]);
    return frame;
  }

  /// Exactly `size` bytes; fewer where the connection ended.
  std::string read_bytes(std::size_t size) {
    std::string out(size, '\0');
    return read_exactly(out.data(), size) ? out : std::string();
  }

  /// The server's half of a close that the client began, or its wait for the echo.
  void finish_close(int code) {
    send(server_close(code));
    end();
  }

  /// True when the client has ended the connection.
  bool at_end() {
    char byte;
    return !read_exactly(&byte, 1);
  }

  void end() {
    if (fd_ < 0) return;
    if (ssl_ != nullptr && secure_) ::SSL_shutdown(ssl_.get());
    ssl_.reset();
    ::close(fd_);
    fd_ = -1;
  }

  /// Ends with a TCP reset.
  void reset() {
    const linger now{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    secure_ = false;
    end();
  }

 private:
  bool read_exactly(void* out, std::size_t size) {
    auto* at = static_cast<char*>(out);
    while (size > 0) {
      const long got =
          ssl_ != nullptr ? ::SSL_read(ssl_.get(), at, static_cast<int>(size)) : ::recv(fd_, at, size, 0);
      if (got <= 0) return false;
      at += got;
      size -= static_cast<std::size_t>(got);
    }
    return true;
  }

  struct FreeSsl {
    void operator()(SSL* ssl) const { ::SSL_free(ssl); }
  };

  int fd_;
  std::unique_ptr<SSL, FreeSsl> ssl_;
  bool secure_ = false;
};

using Script = std::function<void(Connection&)>;

class TestServer {
 public:
  explicit TestServer(std::vector<Script> scripts, SSL_CTX* context = nullptr)
      : scripts_(std::move(scripts)), context_(context) {
    listen_fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(listen_fd_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        ::listen(listen_fd_, 16) != 0 ||
        ::getsockname(listen_fd_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("test server: no port");
    }
    port_ = ::ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }

  ~TestServer() { stop(); }

  void stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
    if (listen_fd_ >= 0) ::close(listen_fd_);
    listen_fd_ = -1;
  }

  std::string url(const std::string& host = "127.0.0.1") const {
    return (context_ != nullptr ? "wss://" : "ws://") + host + ':' + std::to_string(port_) + "/ws";
  }
  int port() const { return port_; }
  std::size_t connections() const { return connections_; }

 private:
  void serve() {
    // OpenSSL writes without MSG_NOSIGNAL: a client that has gone must not end the test program.
    sigset_t pipe;
    ::sigemptyset(&pipe);
    ::sigaddset(&pipe, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
    while (!stopping_) {
      pollfd ready{listen_fd_, POLLIN, 0};
      if (::poll(&ready, 1, 10) <= 0) continue;
      const int fd = ::accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      const std::size_t index = connections_++;
      Connection connection(fd, context_);
      if (connection.usable()) scripts_[std::min(index, scripts_.size() - 1)](connection);
    }
  }

  std::vector<Script> scripts_;
  SSL_CTX* context_;
  int listen_fd_ = -1;
  int port_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<std::size_t> connections_{0};
  std::thread thread_;
};

/// A certificate authority made for one test, with a server context whose certificate it signed.
class TestAuthority {
 public:
  /// `names` as OpenSSL writes subjectAltName: "DNS:localhost,IP:127.0.0.1".
  TestAuthority(const std::string& names, const std::string& directory) {
    ca_key_.reset(::EVP_EC_gen("P-256"));
    ca_ = make(ca_key_.get(), "Test Authority", nullptr, nullptr, "CA:TRUE", "");
    key_.reset(::EVP_EC_gen("P-256"));
    certificate_ = make(key_.get(), "test server", ca_.get(), ca_key_.get(), "CA:FALSE", names);
    context_.reset(::SSL_CTX_new(::TLS_server_method()));
    ::SSL_CTX_use_certificate(context_.get(), certificate_.get());
    ::SSL_CTX_use_PrivateKey(context_.get(), key_.get());
    ca_file_ = directory + "/ca.pem";
    BIO* const out = ::BIO_new_file(ca_file_.c_str(), "w");
    ::PEM_write_bio_X509(out, ca_.get());
    ::BIO_free(out);
  }

  SSL_CTX* context() const { return context_.get(); }
  const std::string& ca_file() const { return ca_file_; }

 private:
  struct Free {
    void operator()(EVP_PKEY* key) const { ::EVP_PKEY_free(key); }
    void operator()(X509* certificate) const { ::X509_free(certificate); }
    void operator()(SSL_CTX* context) const { ::SSL_CTX_free(context); }
  };
  using Key = std::unique_ptr<EVP_PKEY, Free>;
  using Certificate = std::unique_ptr<X509, Free>;

  static void extend(X509* certificate, int nid, const std::string& value) {
    X509V3_CTX context;
    ::X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
    X509_EXTENSION* const extension = ::X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
    ::X509_add_ext(certificate, extension, -1);
    ::X509_EXTENSION_free(extension);
  }

  static Certificate make(EVP_PKEY* key, const char* name, X509* issuer, EVP_PKEY* issuer_key,
                          const char* constraints, const std::string& names) {
    Certificate made(::X509_new());
    X509* const x = made.get();
    ::X509_set_version(x, 2);
    ::ASN1_INTEGER_set(::X509_get_serialNumber(x), issuer == nullptr ? 1 : 2);
    ::X509_gmtime_adj(::X509_getm_notBefore(x), -3600);
    ::X509_gmtime_adj(::X509_getm_notAfter(x), 3600);
    ::X509_set_pubkey(x, key);
    ::X509_NAME_add_entry_by_txt(::X509_get_subject_name(x), "CN", MBSTRING_ASC,
                                 reinterpret_cast<const unsigned char*>(name), -1, -1, 0);
    ::X509_set_issuer_name(x, ::X509_get_subject_name(issuer != nullptr ? issuer : x));
    extend(x, NID_basic_constraints, constraints);
    if (!names.empty()) extend(x, NID_subject_alt_name, names);
    ::X509_sign(x, issuer_key != nullptr ? issuer_key : key, ::EVP_sha256());
    return made;
  }

  Key ca_key_;
  Certificate ca_;
  Key key_;
  Certificate certificate_;
  std::unique_ptr<SSL_CTX, Free> context_;
  std::string ca_file_;
};

}  // namespace tickwire::net::test

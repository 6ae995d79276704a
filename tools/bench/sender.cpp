/// tickwire-bench-sender: the venue of the benchmarks.
///
///     tickwire-bench-sender serve --stamps FILE [--rate 1000] [--frames 10000] …
///     tickwire-bench-sender capture --out FILE [--events 1000000] [--instruments 1] …
///
/// `serve` is one connection of a venue on loopback. It makes all frames first, prints one line of
/// JSON (ports, ids) when it listens, and once a client has subscribed sends frame i at start + i /
/// rate, on an absolute schedule: after a stall the frames that were due come at once, so the stall
/// is charged to each of them. Right before each send() it stamps CLOCK_REALTIME; at the end it writes
/// (venue id u, due, stamp), three little-endian int64 a frame. Its REST port answers every GET with a
/// snapshot that the first frame bridges, by the venue's own rules.
///
/// `capture` writes the same market as a capture to replay, frame i stamped i / rate after the start.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "market.hpp"
#include "options.hpp"
#include "pace.hpp"
#include "tickwire/net/websocket/handshake.hpp"

namespace tickwire::bench {
namespace {

constexpr std::int64_t kCaptureStartNs = 1'700'000'000 * kSecond;

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

Market market_of(const std::string& name) {
  if (name == "spot") return Market::Spot;
  if (name == "usdm") return Market::UsdM;
  throw std::runtime_error("--market: expected spot or usdm, found " + name);
}

class Socket {
 public:
  explicit Socket(int fd = -1) : fd_(fd) {}
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_;
};

int listen_on_loopback(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int yes = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  address.sin_port = ::htons(static_cast<std::uint16_t>(port));
  if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd, 4) != 0) {
    fail("no port to listen on");
  }
  return fd;
}

int port_of(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return ::ntohs(address.sin_port);
}

/// An unfragmented, unmasked frame, as servers send them.
void append_frame(std::string& out, unsigned first_byte, std::string_view payload) {
  const std::size_t size = payload.size();
  out += static_cast<char>(first_byte);
  if (size < 126) {
    out += static_cast<char>(size);
  } else if (size < 65536) {
    out += {126, static_cast<char>(size >> 8U), static_cast<char>(size & 0xFFU)};
  } else {
    out += static_cast<char>(127);
    for (unsigned shift = 64; shift != 0; shift -= 8) out += static_cast<char>(size >> (shift - 8) & 0xFFU);
  }
  out.append(payload);
}

std::string read_header(int fd) {
  std::string text;
  char byte;
  while (!text.ends_with("\r\n\r\n") && ::recv(fd, &byte, 1, 0) == 1) text += byte;
  return text;
}

void send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0) fail("send");
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}

/// What the client says: its subscription, pings, and the close at the end.
class ClientFrames {
 public:
  explicit ClientFrames(int fd) : fd_(fd) {}

  [[nodiscard]] bool subscribed() const { return subscribed_; }
  [[nodiscard]] bool closed() const { return closed_; }

  /// Reads what has come (or waits for it) and answers.
  void read(bool wait) {
    char block[4096];
    const ssize_t got = ::recv(fd_, block, sizeof block, wait ? 0 : MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) closed_ = true;
    if (got > 0) received_.append(block, static_cast<std::size_t>(got));
    while (take_frame()) {
    }
  }

 private:
  bool take_frame() {
    const auto byte = [this](std::size_t i) { return static_cast<unsigned char>(received_[i]); };
    if (received_.size() < 2) return false;
    std::size_t size = byte(1) & 127U;
    std::size_t header = 6;  // With the mask, which every client frame has.
    if (size == 126) {
      if (received_.size() < 4) return false;
      size = byte(2) * 256U + byte(3);
      header = 8;
    } else if (size == 127) {
      throw std::runtime_error("a client's frame of 64 KiB and more");
    }
    if (received_.size() < header + size) return false;
    std::string payload = received_.substr(header, size);
    for (std::size_t i = 0; i < size; ++i)
      payload[i] = static_cast<char>(payload[i] ^ received_[header - 4 + i % 4]);
    const unsigned opcode = byte(0) & 15U;
    received_.erase(0, header + size);

    std::string answer;
    if (opcode == 0x9) {
      append_frame(answer, 0x8A, payload);
    } else if (opcode == 0x8) {
      closed_ = true;
    } else if (payload.find("SUBSCRIBE") != std::string::npos) {
      const std::size_t at = payload.find("\"id\":");
      const std::size_t end = payload.find_first_of(",}", at);
      const std::string id = at == std::string::npos ? "null" : payload.substr(at + 5, end - at - 5);
      append_frame(answer, 0x81, R"({"result":null,"id":)" + id + "}");
      subscribed_ = true;
    }
    send_all(fd_, answer);
    return true;
  }

  int fd_;
  std::string received_;
  bool subscribed_ = false;
  bool closed_ = false;
};

/// Answers every GET with the same body until told to stop.
class RestServer {
 public:
  explicit RestServer(std::string body) : listener_(listen_on_loopback(0)) {
    answer_ = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n" + body;
    thread_ = std::thread([this] { serve(); });
  }
  ~RestServer() {
    stopping_ = true;
    thread_.join();
  }
  RestServer(const RestServer&) = delete;
  RestServer& operator=(const RestServer&) = delete;

  [[nodiscard]] int port() const { return port_of(listener_.fd()); }

 private:
  void serve() {
    while (!stopping_) {
      pollfd ready{listener_.fd(), POLLIN, 0};
      if (::poll(&ready, 1, 100) <= 0) continue;
      const Socket client(::accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC));
      if (client.fd() < 0 || read_header(client.fd()).empty()) continue;
      try {
        send_all(client.fd(), answer_);
      } catch (const std::system_error&) {  // A client that went away has no answer coming.
      }
    }
  }

  Socket listener_;
  std::string answer_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

struct Stamp {
  std::int64_t id;
  std::int64_t due_ns;
  std::int64_t sent_ns;
};

int serve(const Options& options) {
  const auto rate = options.number<std::int64_t>("rate");
  const auto count = options.number<std::size_t>("frames");
  const auto core = options.number<int>("core");
  const auto spin_ns = options.number<std::int64_t>("spin-us") * 1000;
  if (rate < 1 || count < 1) throw std::runtime_error("--rate and --frames: expected positive numbers");

  SyntheticBook book({.market = market_of(options.text("market")),
                      .symbol = options.text("symbol"),
                      .levels = options.number<std::size_t>("levels"),
                      .seed = options.number<std::uint64_t>("seed")});
  std::string bytes;
  std::vector<std::size_t> begins;
  std::vector<Stamp> stamps(count);
  std::string snapshot;
  const std::int64_t start_ms = now_ns(CLOCK_REALTIME) / 1'000'000;
  std::string message;
  for (std::size_t i = 0; i < count; ++i) {
    message.clear();
    const std::int64_t event_ms = start_ms + static_cast<std::int64_t>(i) * 1000 / rate;
    book.next(message, event_ms);
    // By the rules of either market a snapshot at the first message's id is bridged: spot goes on with
    // the message after it, futures with the one that holds it.
    if (i == 0) book.snapshot(snapshot, event_ms);
    stamps[i].id = static_cast<std::int64_t>(book.last_id());
    begins.push_back(bytes.size());
    append_frame(bytes, 0x81, message);
  }
  begins.push_back(bytes.size());

  if (core >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<unsigned>(core), &set);
    if (::sched_setaffinity(0, sizeof set, &set) != 0) fail("--core");
  }
  ::prctl(PR_SET_TIMERSLACK, 1UL);

  const RestServer rest(snapshot);
  const Socket listener(listen_on_loopback(0));
  std::printf(R"({"ws_port":%d,"rest_port":%d,"first_id":%lld,"last_id":%lld,"frame_bytes":%zu})"
              "\n",
              port_of(listener.fd()), rest.port(), static_cast<long long>(stamps.front().id),
              static_cast<long long>(stamps.back().id), bytes.size() / count);
  std::fflush(stdout);

  const Socket client(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
  if (client.fd() < 0) fail("accept");
  const int yes = 1;
  ::setsockopt(client.fd(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  const std::string request = read_header(client.fd());
  const std::string name = "sec-websocket-key: ";
  std::string lower = request;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  const std::size_t key = lower.find(name);
  if (key == std::string::npos) throw std::runtime_error("expected a WebSocket handshake");
  const auto accept = net::accept_for_key(std::string_view(request).substr(key + name.size(), 24));
  send_all(client.fd(),
           "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
           "Upgrade\r\nSec-WebSocket-Accept: " +
               std::string(accept.data(), accept.size()) + "\r\n\r\n");
  ClientFrames frames(client.fd());
  while (!frames.subscribed() && !frames.closed()) frames.read(true);

  const std::int64_t start_ns = now_ns(CLOCK_MONOTONIC) + 1'000'000;
  const std::int64_t to_utc_ns = now_ns(CLOCK_REALTIME) - now_ns(CLOCK_MONOTONIC);
  std::size_t sent = 0;
  for (; sent < count && !frames.closed(); ++sent) {
    const std::int64_t due_ns = start_ns + static_cast<std::int64_t>(sent) * kSecond / rate;
    if (sent % 128 == 127) frames.read(false);
    wait_until(due_ns, spin_ns);
    stamps[sent].due_ns = due_ns + to_utc_ns;
    stamps[sent].sent_ns = now_ns(CLOCK_REALTIME);
    send_all(client.fd(), {bytes.data() + begins[sent], begins[sent + 1] - begins[sent]});
  }
  // The client closes once it has seen the last message.
  const std::int64_t patience_ns = now_ns(CLOCK_MONOTONIC) + 10 * kSecond;
  while (!frames.closed() && now_ns(CLOCK_MONOTONIC) < patience_ns) {
    pollfd ready{client.fd(), POLLIN, 0};
    if (::poll(&ready, 1, 100) > 0) frames.read(false);
  }

  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(options.text("stamps").c_str(), "wb"),
                                                             &std::fclose);
  if (!file || std::fwrite(stamps.data(), sizeof(Stamp), sent, file.get()) != sent) fail("--stamps");
  return 0;
}

int capture(const Options& options) {
  const auto rate = options.number<std::int64_t>("rate");
  const auto events = options.number<std::int64_t>("events");
  const auto instruments = options.number<std::size_t>("instruments");
  const Market market = market_of(options.text("market"));
  if (rate < 1 || instruments < 1)
    throw std::runtime_error("--rate and --instruments: expected positive numbers");
  std::vector<SyntheticBook> books;
  for (std::size_t i = 0; i < instruments; ++i) {
    books.emplace_back(BookSettings{.market = market,
                                    .symbol = "BENCH" + std::to_string(i) + "USDT",
                                    .levels = options.number<std::size_t>("levels"),
                                    .seed = options.number<std::uint64_t>("seed") + i});
  }
  const std::string& path = options.text("out");
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(
      path == "-" ? stdout : std::fopen(path.c_str(), "wb"), &std::fclose);
  if (!file) fail("--out");
  std::string text = std::to_string(kCaptureStartNs) + R"( {"tickwire":"open","conn":0})" + "\n";
  const auto line = [&text](std::int64_t ts) { text.append(std::to_string(ts)).append(" "); };
  for (std::int64_t i = 0; i < events; ++i) {
    const std::int64_t ts = kCaptureStartNs + i * kSecond / rate;
    const std::int64_t event_ms = ts / 1'000'000 - 1;
    SyntheticBook& book = books[static_cast<std::size_t>(i) % instruments];
    line(ts);
    book.next(text, event_ms);
    text += '\n';
    if (static_cast<std::size_t>(i) < instruments) {
      line(ts);
      text.append(R"({"tickwire":"snapshot","conn":0,"instrument":")")
          .append(book.symbol())
          .append(R"(","limit":5000,"body":)");
      book.snapshot(text, event_ms);
      text.append("}\n");
    }
    if (text.size() > 1U << 20U || i + 1 == events) {
      if (std::fwrite(text.data(), 1, text.size(), file.get()) != text.size()) fail("--out");
      text.clear();
    }
  }
  return 0;
}

int run(int argc, char** argv) {
  const std::string_view mode = argc > 1 ? argv[1] : "";
  if (mode == "serve") {
    return serve({argc,
                  argv,
                  2,
                  {{"market", "spot"},
                   {"symbol", "BTCUSDT"},
                   {"levels", "20"},
                   {"seed", "1"},
                   {"rate", "1000"},
                   {"frames", "10000"},
                   {"core", "-1"},
                   {"spin-us", "30"},
                   {"stamps", "stamps.bin"}}});
  }
  if (mode == "capture") {
    return capture({argc,
                    argv,
                    2,
                    {{"market", "spot"},
                     {"levels", "20"},
                     {"seed", "1"},
                     {"rate", "1000"},
                     {"events", "1000000"},
                     {"instruments", "1"},
                     {"out", "-"}}});
  }
  throw std::runtime_error("expected `serve` or `capture`");
}

}  // namespace
}  // namespace tickwire::bench

int main(int argc, char** argv) {
  try {
    return tickwire::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tickwire-bench-sender: %s\n", error.what());
    return 1;
  }
}

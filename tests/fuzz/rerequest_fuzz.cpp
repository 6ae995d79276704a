// Fuzz target of a re-request server's answers: a MoldUDP64 feed on real sockets, whose line has holes and
// whose server answers with whatever it likes, gives each message at most once, in order and as it was sent,
// and leaves none out that it did not announce as lost. CMakeLists.txt says how it is run.
//
// Input: steps, each a control byte and two more, a and b. The control byte's lower two bits:
//   0  the line goes on: a messages are lost, then b of them come
//   1  the server answers the last request, from a behind its first (signed), with b of the messages; of the
//      control byte the upper bits say what is wrong with the answer
//   2  the server sends a of the input's own bytes
//   3  a passes of the time, and the line's heartbeat comes where b is odd
//
// Covers: net/moldudp64/mold_feed.cpp net/moldudp64/mold_packet.cpp net/sequenced/sequencer.cpp
// Covers: net/udp/udp_source.cpp

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/net/moldudp64/mold_feed.hpp"

namespace rerequest_fuzz {

using namespace tickwire;
using namespace tickwire::net;

constexpr std::size_t kMaxDatagram = 512;
constexpr std::uint32_t kMostAsked = 20;

inline void require(bool held) {
  if (!held) std::abort();
}

inline std::string big_endian(std::uint64_t value, int bytes) {
  std::string out;
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xFFU);
  return out;
}

/// The stream has this message under that number, some of them empty.
inline std::string content(std::uint64_t number) {
  return std::string(number % 7, static_cast<char>('a' + number % 26));
}

inline std::string datagram(std::string_view session, std::uint64_t first, std::uint64_t count) {
  std::string out(session);
  out += big_endian(first, 8) + big_endian(count, 2);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string text = content(first + i);
    out += big_endian(text.size(), 2) + text;
  }
  return out;
}

class Checker final : public MoldFeedHandler {
 public:
  void on_run(const Run& run) noexcept override {
    require(!run.messages.empty() && run.sequence == expected);
    for (const MessageView& message : run.messages) {
      const std::string text(message.begin(), message.end());
      require(!content_known || text == content(expected));
      ++expected;
    }
    delivered += run.messages.size();
  }
  void on_session(const SessionId& session) noexcept override {
    require(std::string_view(session.data(), session.size()) == "TODAY     ");
    require(sessions++ == 0);  // An answer begins none.
  }
  void on_end_of_session() noexcept override {}
  void on_lost(std::uint64_t first, std::uint64_t count) noexcept override {
    require(first == expected && count > 0);
    expected += count;
    lost += count;
  }
  void on_snapshot_begin() noexcept override { std::abort(); }
  void on_snapshot_message(MessageView) noexcept override { std::abort(); }
  void on_snapshot_end(std::uint64_t) noexcept override { std::abort(); }
  void on_snapshot_failed(std::string_view) noexcept override { std::abort(); }

  std::uint64_t expected = 1;
  std::uint64_t delivered = 0;
  std::uint64_t lost = 0;
  int sessions = 0;
  bool content_known = true;  // Until a server sends what may be anything.
};

class Socket {
 public:
  Socket() : fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_in address = at(0);
    socklen_t size = sizeof address;
    require(::bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0);
    require(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port = ntohs(address.sin_port);
  }
  static sockaddr_in at(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }
  void send(std::uint16_t to, std::string_view bytes) const {
    const sockaddr_in address = at(to);
    require(::sendto(fd, bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&address),
                     sizeof address) == static_cast<ssize_t>(bytes.size()));
  }

  int fd;
  std::uint16_t port = 0;
};

class Rig {
 public:
  Rig(const Socket& venue, const Socket& server, Arena& arena)
      : venue_(venue), server_(server), feed_(checker_, config_for(server), "fuzz", arena) {
    char stale[64];  // Requests of a run before.
    while (::recv(server_.fd, stale, sizeof stale, 0) > 0) {
    }
    // Numbers from 1 on, and the session.
    arrive(feed_.line(0), venue_, datagram(kSession, 1, 1));
    next_ = 2;
  }

  void step(std::uint8_t control, std::uint8_t a, std::uint8_t b, std::span<const std::uint8_t>& input) {
    switch (control & 3U) {
      case 0: {
        const std::uint64_t count = b % 16U;
        arrive(feed_.line(0), venue_, datagram(kSession, next_ + a % 32U, count));
        next_ += a % 32U + count;
        break;
      }
      case 1: answer(control, static_cast<std::int8_t>(a), b); break;
      case 2: {
        // One more than fits, at times.
        const std::size_t bytes = std::min<std::size_t>(a * 3U, input.size());
        const std::string raw(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(bytes));
        input = input.subspan(bytes);
        checker_.content_known = false;
        arrive(*feed_.rerequest(), server_, raw);
        break;
      }
      default:
        now_ += a;
        if (b % 2 != 0) arrive(feed_.line(0), venue_, datagram(kSession, next_, 0));
        (void)feed_.poll(clock_, now_);
    }
  }

  void check() const {
    std::uint64_t won = 0;
    for (std::uint32_t line = 0; line <= 1; ++line) {
      const LineStats& stats = feed_.sequencer().line_stats(line);
      require(stats.received >= stats.won + stats.duplicate + stats.late);
      won += stats.won;
    }
    require(won == checker_.delivered && won == feed_.sequencer().stats().delivered);
    require(checker_.lost == feed_.sequencer().stats().lost);
    require(checker_.expected == feed_.sequencer().expected());
  }

 private:
  static constexpr std::string_view kSession = "TODAY     ";

  static MoldFeedConfig config_for(const Socket& server) {
    MoldFeedConfig config;
    UdpConfig line;
    line.address = "127.0.0.1";
    line.batch = 4;
    line.max_datagram_bytes = kMaxDatagram;
    config.lines.push_back(line);
    config.rerequest.peer = "127.0.0.1:" + std::to_string(server.port);
    config.rerequest.batch = 4;
    config.rerequest.max_datagram_bytes = kMaxDatagram;
    config.sequencer.start = SequencerConfig::Start::Beginning;
    config.sequencer.window_packets = 8;
    config.sequencer.reorder_ns = 10;
    config.sequencer.request_attempts = 3;
    config.sequencer.request_timeout_ns = 20;
    config.sequencer.request_messages = kMostAsked;
    return config;
  }

  void arrive(const UdpSource& end, const Socket& from, std::string_view bytes) {
    from.send(end.port(), bytes);
    pollfd ready{end.fd(), POLLIN, 0};
    require(::poll(&ready, 1, 10'000) == 1);
    (void)feed_.poll(clock_, now_);
  }

  void answer(std::uint8_t control, std::int8_t offset, std::uint8_t count) {
    char request[64];
    for (ssize_t bytes; (bytes = ::recv(server_.fd, request, sizeof request, 0)) > 0;) {
      require(bytes == 20 && std::string_view(request, 10) == kSession);
      asked_ = 0;
      for (int i = 10; i < 18; ++i) asked_ = asked_ << 8U | static_cast<unsigned char>(request[i]);
      const unsigned wanted =
          static_cast<unsigned char>(request[18]) * 256U + static_cast<unsigned char>(request[19]);
      require(wanted >= 1 && wanted <= kMostAsked && asked_ >= 1);
    }
    if (asked_ == 0) return;
    const auto first = std::max<std::int64_t>(1, static_cast<std::int64_t>(asked_) + offset);
    std::string out =
        datagram(control & 4U ? "YESTERDAY " : kSession, static_cast<std::uint64_t>(first), count % 40U);
    if (control & 8U) out[19] = static_cast<char>(count);  // Claims another count.
    if (control & 16U) {
      out.resize(out.size() - 1 - control % 3U);  // Cut …
    } else if (control & 32U) {
      out += 'x';  // … or too long.
    }
    if (control & 64U) out[10] = static_cast<char>(control);  // A number beyond all others.
    // A number that was damaged has the message of another.
    if (control & 64U) checker_.content_known = false;
    arrive(*feed_.rerequest(), server_, out);
  }

  const Socket& venue_;
  const Socket& server_;
  Checker checker_;
  UtcClock clock_;
  std::int64_t now_ = 1;
  std::uint64_t next_ = 1;
  std::uint64_t asked_ = 0;
  MoldFeed feed_;
};

}  // namespace rerequest_fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rerequest_fuzz;
  static const Socket venue;
  static const Socket server;
  // Taken from the kernel once for a hundred runs.
  static std::optional<Arena> memory;
  static int runs = 0;
  if (runs++ % 100 == 0) {
    memory.emplace(ArenaConfig{
        .chunk_bytes = std::size_t{2} << 20U, .huge_pages = HugePages::Off, .lock = LockMemory::Off});
  }
  Rig rig(venue, server, *memory);
  std::span<const std::uint8_t> input(data, size);
  for (int steps = 0; input.size() >= 3 && steps < 200; ++steps) {
    const std::uint8_t control = input[0];
    const std::uint8_t a = input[1];
    const std::uint8_t b = input[2];
    input = input.subspan(3);
    rig.step(control, a, b, input);
  }
  rig.check();
  return 0;
}

// A whole exchange by multicast, held for a while: the day of tickwire-bench-itch-day as MoldUDP64 datagrams
// over this host's loopback, from the open on, at one rate. What a receiver makes of it, a row of sixteen
// features on every change of a book, is timed from when each message was due.
//
//     mold_bench --day FILE [--rate 0] [--seconds 10] [--feature-instruments 8000] [--cores any]
//
// The load is open: message n is due n / rate seconds after the start, and a datagram takes all that is due
// when its turn comes, as a venue's does. So a receiver, or a sender, that stalls is charged for each message
// that had to wait. Rate 0 is twice that of the day's busiest 100 ms. Where some were lost, lower rates are
// tried, a fifth lower each, until none is.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "itch_market.hpp"
#include "options.hpp"
#include "tickwire/concurrent/affinity.hpp"
#include "tickwire/metrics/histogram.hpp"
#include "tickwire/net/moldudp64/mold_feed.hpp"

namespace {

using namespace tickwire;

constexpr const char* kGroup = "239.255.78.9";
constexpr std::size_t kDatagramBytes = 1400;
constexpr std::int64_t kSecond = 1'000'000'000;

/// The part of the day that is sent.
struct Part {
  std::span<const std::byte> before;    // Already known when the sending begins.
  std::span<const std::byte> messages;  // Behind one another, with their lengths.
  std::uint64_t busiest_100ms = 0;      // Of the whole day.
};

std::uint64_t time_of(std::span<const std::byte> message) {
  std::uint64_t ns = 0;
  for (std::size_t i = 5; i < 11; ++i) ns = ns << 8U | static_cast<std::uint64_t>(message[i]);
  return ns;
}

Part part_of(const bench::DayFile& day) {
  Part part;
  std::size_t open = 0;
  std::uint64_t tenth = 0;
  std::uint64_t count = 0;
  bench::walk(day.bytes(), [&](std::span<const std::byte> message) {
    const std::uint64_t ns = time_of(message);
    if (ns < bench::ItchDay::kOpenNs) {
      open = static_cast<std::size_t>(message.data() + message.size() - day.bytes().data());
      return;
    }
    if (ns / 100'000'000 != tenth) count = 0;
    tenth = ns / 100'000'000;
    part.busiest_100ms = std::max(part.busiest_100ms, ++count);
  });
  part.before = day.bytes().first(open);
  part.messages = day.bytes().subspan(open);
  return part;
}

/// When each message is due, in ticks; the first is number 1.
struct Pace {
  std::uint64_t start;
  double ticks;  // From one to the next.
  [[nodiscard]] std::uint64_t due(std::uint64_t sequence) const {
    return start + static_cast<std::uint64_t>(static_cast<double>(sequence - 1) * ticks);
  }
};

/// The venue: sends `count` messages at their times.
class Sender {
 public:
  explicit Sender(std::uint16_t port) {
    to_.sin_family = AF_INET;
    to_.sin_port = htons(port);
    ::inet_pton(AF_INET, kGroup, &to_.sin_addr);
    fd_ = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    in_addr local{};
    ::inet_pton(AF_INET, "127.0.0.1", &local);
    if (fd_ < 0 || ::setsockopt(fd_, IPPROTO_IP, IP_MULTICAST_IF, &local, sizeof local) != 0) {
      throw std::runtime_error(std::string("the sender's socket: ") + std::strerror(errno));
    }
  }
  ~Sender() { ::close(fd_); }
  Sender(const Sender&) = delete;
  Sender& operator=(const Sender&) = delete;

  void run(std::span<const std::byte> messages, std::uint64_t count, const Pace& pace) {
    const std::byte* at = messages.data();
    for (std::uint64_t next = 1; next <= count;) {
      const std::uint64_t now = tsc_now();
      if (now < pace.due(next)) {
        if (tsc_to_ns(pace.due(next) - now) > 20'000) std::this_thread::yield();
        continue;
      }
      latest_ = std::max(latest_, now - pace.due(next));
      std::size_t size = net::kMoldHeaderBytes;
      const std::uint64_t first = next;
      while (next <= count && pace.due(next) <= now) {
        const std::size_t bytes = 2 + bench::message_at(at).size();
        if (size + bytes > kDatagramBytes) break;
        std::memcpy(&datagram_[size], at, bytes);
        size += bytes;
        at += bytes;
        ++next;
      }
      head(first, next - first);
      ++datagrams_;
      if (::sendto(fd_, datagram_.data(), size, 0, reinterpret_cast<const sockaddr*>(&to_), sizeof to_) < 0) {
        ++failures_;
      }
    }
  }

  std::uint64_t datagrams() const { return datagrams_; }
  std::uint64_t failures() const { return failures_; }
  /// The most that a datagram left behind its time, in ticks.
  std::uint64_t latest() const { return latest_; }

 private:
  void head(std::uint64_t sequence, std::uint64_t count) {
    std::memcpy(datagram_.data(), "BENCH     ", 10);
    for (std::size_t i = 0; i < 8; ++i) datagram_[10 + i] = static_cast<char>(sequence >> (8 * (7 - i)));
    datagram_[18] = static_cast<char>(count >> 8U);
    datagram_[19] = static_cast<char>(count);
  }

  int fd_ = -1;
  sockaddr_in to_{};
  std::array<char, kDatagramBytes> datagram_{};
  std::uint64_t datagrams_ = 0;
  std::uint64_t failures_ = 0;
  std::uint64_t latest_ = 0;
};

net::MoldFeedConfig feed_config() {
  net::UdpConfig line;
  line.address = kGroup;
  line.interface = std::string("lo");
  line.batch = 64;
  line.max_datagram_bytes = 1500;
  line.socket_receive_bytes = 64 << 20U;
  net::MoldFeedConfig config;
  config.lines.push_back(line);
  config.sequencer.start = net::SequencerConfig::Start::Beginning;
  config.sequencer.window_packets = 4096;
  config.sequencer.reorder_ns = 1'000'000;
  return config;
}

/// From datagrams to rows.
class Receiver final : public net::MoldFeedHandler {
 public:
  Receiver(std::size_t instruments, std::size_t ours, std::size_t max_orders)
      : table_(bench::table_of(instruments)),
        market_(table_, max_orders, arena_),
        feed_(*this, feed_config(), "feed", arena_) {
    for (InstrumentId i = 0; i < std::min(ours, instruments); ++i) {
      pipelines_.push_back(
          std::make_unique<engine::OrderPipeline>(market_, i, 0, bench::rows_on_every_event(), arena_));
    }
  }

  void know(std::span<const std::byte> messages) {
    bench::walk(messages, [&](std::span<const std::byte> message) { take(message, 0); });
  }
  int turn() { return feed_.poll(clock_, tsc_to_ns(tsc_now())); }
  void pace(const Pace& pace) { pace_ = pace; }

  std::uint16_t port() const { return feed_.line(0).port(); }
  std::uint64_t last() const { return last_; }
  std::uint64_t taken() const { return taken_; }
  std::uint64_t rows() const { return rows_; }
  const net::MoldFeed& feed() const { return feed_; }
  metrics::HistogramSnapshot late() const { return late_.snapshot(); }

  void on_run(const net::Run& run) noexcept override {
    const std::size_t count = run.messages.size();
    // The first one is needed at once.
    for (std::size_t i = 1; i < std::min(count, venue::itch::Market::kAhead); ++i) prepare(run.messages[i]);
    for (std::size_t i = 0; i < count; ++i) {
      if (i + venue::itch::Market::kAhead < count) prepare(run.messages[i + venue::itch::Market::kAhead]);
      if (!take(std::as_bytes(run.messages[i]), run.sequence + i)) continue;
      ++rows_;
      late_.record(tsc_to_ns(tsc_now() - pace_.due(run.sequence + i)));
    }
    taken_ += count;
    last_ = run.sequence + count - 1;
  }
  void on_session(const net::SessionId&) noexcept override {}
  void on_end_of_session() noexcept override {}
  void on_lost(std::uint64_t, std::uint64_t) noexcept override {}
  void on_snapshot_begin() noexcept override {}
  void on_snapshot_message(net::MessageView) noexcept override {}
  void on_snapshot_end(std::uint64_t) noexcept override {}
  void on_snapshot_failed(std::string_view) noexcept override {}

 private:
  void prepare(net::MessageView message) noexcept { market_.prepare(std::as_bytes(message)); }
  /// True where it gave a row.
  bool take(std::span<const std::byte> message, std::uint64_t sequence) noexcept {
    const venue::itch::Update update = market_.on_message(message);
    if (update.instrument >= pipelines_.size()) return false;
    const engine::Step step =
        pipelines_[update.instrument]->on_update(update, update.ts_ns, update.ts_ns, sequence);
    return step.row;
  }

  Arena arena_;
  UtcClock clock_;
  const md::InstrumentTable table_;
  venue::itch::Market market_;
  std::vector<std::unique_ptr<engine::OrderPipeline>> pipelines_;
  Pace pace_{};
  std::uint64_t last_ = 0;
  std::uint64_t taken_ = 0;
  std::uint64_t rows_ = 0;
  metrics::Histogram late_;
  net::MoldFeed feed_;
};

struct Settings {
  std::size_t instruments;
  std::size_t ours;
  std::size_t max_orders;
  double seconds;
  std::vector<int> cores;  // Of receiver and sender; none to float.
};

/// True where nothing was lost.
bool hold(const Part& part, double rate, const Settings& settings) {
  Receiver receiver(settings.instruments, settings.ours, settings.max_orders);
  receiver.know(part.before);
  Sender sender(receiver.port());
  std::uint64_t count = 0;
  const auto most = static_cast<std::uint64_t>(rate * settings.seconds);
  for (std::size_t at = 0; at < part.messages.size() && count < most; ++count) {
    at += 2 + bench::message_at(&part.messages[at]).size();
  }
  const Pace pace{tsc_now() + ns_to_tsc(kSecond / 10), static_cast<double>(ns_to_tsc(kSecond)) / rate};
  receiver.pace(pace);
  std::atomic<bool> sent = false;
  std::thread thread([&] {
    if (!settings.cores.empty()) concurrent::pin_this_thread(settings.cores[1], "--cores");
    sender.run(part.messages, count, pace);
    sent = true;
  });
  // All of it, or nothing more for a second after the last was sent.
  std::uint64_t quiet = tsc_now();
  while (receiver.last() < count) {
    const bool over = sent;
    if (receiver.turn() != 0 || !over) quiet = tsc_now();
    if (over && tsc_now() - quiet > ns_to_tsc(kSecond)) break;
  }
  thread.join();

  const std::uint64_t lost = count - receiver.taken();
  const net::UdpStats& line = receiver.feed().line(0).stats();
  const metrics::HistogramSnapshot late = receiver.late();
  const auto us = [&](double share) { return static_cast<double>(late.percentile(share)) / 1e3; };
  std::printf("%10.0f a second for %.1f s: %lu messages in %lu datagrams, %lu lost, %lu rows\n", rate,
              static_cast<double>(count) / rate, count, sender.datagrams(), lost, receiver.rows());
  std::printf(
      "           due to row, us: p50 %.1f, p99 %.1f, p99.9 %.1f, max %.1f; the sender up to %.1f late\n",
      us(50), us(99), us(99.9), static_cast<double>(late.max) / 1e3,
      static_cast<double>(tsc_to_ns(sender.latest())) / 1e3);
  std::printf(
      "           dropped by the socket: %lu datagrams; gaps: %lu; receives that were full: %lu; not sent: "
      "%lu\n",
      line.socket_drops, receiver.feed().sequencer().stats().gaps, line.full_batches, sender.failures());
  return lost == 0;
}

void run(int argc, char** argv) {
  const bench::Options options(argc, argv, 1,
                               {{"day", ""},
                                {"rate", "0"},
                                {"seconds", "10"},
                                {"instruments", "8000"},
                                {"feature-instruments", "8000"},
                                {"max-orders", "4000000"},
                                {"cores", "any"}});
  Settings settings{.instruments = options.number<std::size_t>("instruments"),
                    .ours = options.number<std::size_t>("feature-instruments"),
                    .max_orders = options.number<std::size_t>("max-orders"),
                    .seconds = options.number<double>("seconds"),
                    .cores = {}};
  if (options.text("cores") != "any") {
    int receiver = 0;
    int sender = 0;
    if (std::sscanf(options.text("cores").c_str(), "%d,%d", &receiver, &sender) != 2) {
      throw std::runtime_error("--cores: expected any, or RECEIVER,SENDER");
    }
    settings.cores = {receiver, sender};
    concurrent::pin_this_thread(receiver, "--cores");
  }
  const bench::DayFile day(options.text("day"));
  const Part part = part_of(day);
  const double asked = options.number<double>("rate");
  const double twice = 20.0 * static_cast<double>(part.busiest_100ms);
  std::printf("the day's busiest 100 ms: %lu messages, twice their rate: %.0f a second\n", part.busiest_100ms,
              twice);
  for (double rate = asked != 0 ? asked : twice; rate >= 1; rate *= 0.8) {
    if (hold(part, rate, settings)) break;
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mold_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}

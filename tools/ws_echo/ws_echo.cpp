/// tickwire-ws-echo: an echo client made of the source that live feeds are read with.
///
///     tickwire-ws-echo [--ca-file FILE] URL
///     tickwire-ws-echo [--ca-file FILE] --agent NAME [--cases N] URL
///
/// Sends every message back, text as text and binary as binary, and ends when the server closes.
///
/// With --agent it walks a conformance server: URL/runCase?case=1&agent=NAME up to case N, a connection
/// each, then URL/updateReports?agent=NAME. Without --cases it asks URL/getCaseCount for N.
///
/// Ends with 0 when every connection opened and ended with a close frame, with 1 when one did not, and
/// with 2 for arguments that it does not understand. Against a conformance server, which breaks the
/// rules on purpose, how a connection ended is the server's report and not this program's business.

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <exception>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "tickwire/core/error.hpp"
#include "tickwire/net/websocket/websocket_source.hpp"

namespace tickwire {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

/// Largest message, in either direction; no conformance case has a larger one than 16 MiB.
constexpr std::size_t kMaxMessageBytes = std::size_t{32} << 20;

constexpr std::string_view kUsage =
    "usage: tickwire-ws-echo [--ca-file FILE] URL\n"
    "       tickwire-ws-echo [--ca-file FILE] --agent NAME [--cases N] URL\n";

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Arguments {
  std::string url;
  std::string ca_file;
  std::string agent;  // Empty: one plain connection.
  std::optional<int> cases;
};

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (!name.starts_with("--")) {
      if (!arguments.url.empty()) throw UsageError("expected one URL, found a second: " + std::string(name));
      arguments.url = name;
      continue;
    }
    if (i + 1 == argc) throw UsageError(std::string(name) + ": expected an option and its value");
    const std::string_view value = argv[++i];
    if (name == "--ca-file") {
      arguments.ca_file = value;
    } else if (name == "--agent") {
      arguments.agent = value;
    } else if (name == "--cases") {
      int cases = 0;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), cases);
      if (error != std::errc{} || end != value.data() + value.size() || cases < 1) {
        throw UsageError("--cases: expected a positive number, found " + std::string(value));
      }
      arguments.cases = cases;
    } else {
      throw UsageError("unknown option " + std::string(name));
    }
  }
  if (arguments.url.empty()) throw UsageError("expected a URL, found none");
  if (arguments.cases && arguments.agent.empty())
    throw UsageError("--cases: expected --agent with it, found none");
  return arguments;
}

std::string percent_encoded(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                       std::string_view("-._~").find(c) != std::string_view::npos;
    if (plain) {
      out += c;
    } else {
      char escaped[4];
      (void)std::snprintf(escaped, sizeof escaped, "%%%02X", static_cast<unsigned char>(c));
      out += escaped;
    }
  }
  return out;
}

/// One connection from its opening to its end.
class Session final : public net::WebSocketHandler {
 public:
  enum class Reply : bool { No, Echo };

  Session(const Arguments& arguments, const std::string& url, Reply reply)
      : reply_(reply), source_(config_for(arguments, url), "arguments") {}

  void run() {
    source_.start();
    while (!source_.stopped()) {
      if (source_.poll(*this, clock_) == 0) park();
    }
    if (!opened_ || unsent_ > 0) throw std::runtime_error(problem());
  }

  /// Nobody dropped the connection: each side said why it ended.
  [[nodiscard]] bool closed_in_order() const { return close_code_ != net::kCloseDropped; }
  [[nodiscard]] std::string problem() const {
    if (unsent_ > 0) return std::to_string(unsent_) + " messages found no room to be sent back";
    return std::string(source_.last_error());
  }
  /// The last message that came, for a server that answers a question.
  [[nodiscard]] const std::string& last_message() const { return last_message_; }

  void on_open() noexcept override { opened_ = true; }
  void on_message(const net::WebSocketMessage& message) noexcept override {
    if (reply_ == Reply::No) return remember(message.payload);
    const bool sent = message.is_text ? source_.send_text({message.payload.data(), message.payload.size()})
                                      : source_.send_binary(message.payload);
    if (!sent) ++unsent_;
  }
  void on_close(std::uint16_t code, std::string_view /*reason*/) noexcept override { close_code_ = code; }

 private:
  static net::WebSocketConfig config_for(const Arguments& arguments, const std::string& url) {
    net::WebSocketConfig config;
    config.url = url;
    config.ca_file = arguments.ca_file;
    config.max_frame_bytes = kMaxMessageBytes;
    // Twice: a message may come while the one before it still waits for the socket.
    config.send_buffer_bytes = 2 * kMaxMessageBytes;
    config.connect_timeout_ns = 10 * kSecond;
    config.close_timeout_ns = 10 * kSecond;
    config.reconnect = false;
    return config;
  }

  void remember(std::span<const char> text) noexcept {
    TICKWIRE_HOT_EXEMPT_BEGIN("a question of this program, not a feed")
    last_message_.assign(text.data(), std::min<std::size_t>(text.size(), 100));
    TICKWIRE_HOT_EXEMPT_END
  }

  void park() {
    constexpr std::int64_t kMs = 1'000'000;
    const std::int64_t wait_ns = std::min(source_.ns_to_deadline(tsc_now()), kSecond);
    pollfd ready{source_.fd(), static_cast<short>(POLLIN | (source_.wants_write() ? POLLOUT : 0)), 0};
    if (::poll(&ready, source_.fd() >= 0 ? 1 : 0, static_cast<int>((wait_ns + kMs - 1) / kMs)) < 0 &&
        errno != EINTR) {
      throw std::runtime_error(std::string("poll: ") + std::strerror(errno));
    }
  }

  Reply reply_;
  UtcClock clock_;
  bool opened_ = false;
  std::uint16_t close_code_ = net::kCloseDropped;
  std::size_t unsent_ = 0;
  std::string last_message_;
  net::WebSocketSource source_;
};

int case_count(const Arguments& arguments, const std::string& server) {
  Session question(arguments, server + "/getCaseCount", Session::Reply::No);
  question.run();
  const std::string& text = question.last_message();
  int count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc{} || end != text.data() + text.size() || count < 1) {
    throw std::runtime_error("getCaseCount: expected a positive number, found '" + text + "'");
  }
  return count;
}

void walk_cases(const Arguments& arguments) {
  std::string server = arguments.url;
  while (server.ends_with('/')) server.pop_back();
  const std::string agent = "agent=" + percent_encoded(arguments.agent);
  const int cases = arguments.cases ? *arguments.cases : case_count(arguments, server);
  for (int i = 1; i <= cases; ++i) {
    try {
      Session(arguments, server + "/runCase?case=" + std::to_string(i) + '&' + agent, Session::Reply::Echo)
          .run();
    } catch (const std::exception& error) {
      throw std::runtime_error("case " + std::to_string(i) + ": " + error.what());
    }
  }
  Session(arguments, server + "/updateReports?" + agent, Session::Reply::No).run();
}

int run(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--help" || std::string_view(argv[i]) == "-h") {
      (void)std::fputs(kUsage.data(), stdout);
      return 0;
    }
  }
  const Arguments arguments = parse(argc, argv);
  if (!arguments.agent.empty()) {
    walk_cases(arguments);
    return 0;
  }
  Session session(arguments, arguments.url, Session::Reply::Echo);
  session.run();
  if (!session.closed_in_order()) throw std::runtime_error(session.problem());
  return 0;
}

}  // namespace
}  // namespace tickwire

int main(int argc, char** argv) {
  try {
    return tickwire::run(argc, argv);
  } catch (const tickwire::UsageError& error) {
    (void)std::fprintf(stderr, "tickwire-ws-echo: %s\n%s", error.what(), tickwire::kUsage.data());
    return 2;
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "tickwire-ws-echo: %s\n", error.what());
    return 1;
  }
}

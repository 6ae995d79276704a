#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/core/fixed_text.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/page_buffer.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/net/resolver.hpp"
#include "tickwire/net/url.hpp"
#include "tickwire/net/websocket/frame_parser.hpp"
#include "tickwire/net/websocket/frame_writer.hpp"
#include "tickwire/net/websocket/handshake.hpp"
#include "tickwire/net/websocket/tls.hpp"

namespace tickwire::net {

/// What the configuration says about one connection. The defaults that a user meets are Python's; a
/// field without a value here is either checked by the constructor or means "off".
struct WebSocketConfig {
  std::string url;
  /// PEM certificates to trust instead of the system's, for a venue behind a private authority.
  std::string ca_file;
  /// Sent as text messages after each opening, also after a re-connect: subscriptions.
  std::vector<std::string> on_open;
  /// Whole header lines for the upgrade request ("X-MBX-APIKEY: …"). Never quoted in an error.
  std::vector<std::string> headers;

  /// Larger frames end the connection with code 1009. Sizes the receive buffer.
  std::size_t max_frame_bytes = 0;
  /// The same for messages joined from fragments. 0: as max_frame_bytes.
  std::size_t max_message_bytes = 0;
  /// What may wait to be sent; more is refused. Must hold everything in on_open.
  std::size_t send_buffer_bytes = 0;
  /// SO_RCVBUF, for feeds whose bursts outrun the kernel's own sizing. 0: the kernel's.
  int socket_receive_bytes = 0;

  /// For the look-up, and for each address from connect to the accepted handshake.
  std::int64_t connect_timeout_ns = 0;
  /// How long a closing connection may take until it is cut.
  std::int64_t close_timeout_ns = 0;
  /// Delay before the n-th try in a row: uniform in [0, min(max, min · 2^n)], so that many clients of
  /// a venue that restarts do not come back in step.
  std::int64_t reconnect_min_ns = 0;
  std::int64_t reconnect_max_ns = 0;
  /// A connection that stayed open this long starts the back-off from its beginning.
  std::int64_t healthy_after_ns = 0;
  /// Our own pings. 0: off, for venues that ping themselves and count what we send.
  std::int64_t ping_interval_ns = 0;
  /// Without the pong to our ping for this long the connection is dropped. Needs ping_interval_ns.
  std::int64_t pong_timeout_ns = 0;

  /// False: one connection, then idle. For tools, not for feeds.
  bool reconnect = true;
  /// Of the masking keys and the jitter; 0: from the kernel. Another value makes a test repeatable.
  std::uint64_t seed = 0;
};

/// One whole message. `payload` holds until the handler returns and has kMessagePadding readable
/// bytes behind it.
struct WebSocketMessage {
  std::span<const char> payload;
  bool is_text;
  /// The clock of ts_recv: the kernel's, or ours where the socket gave no stamp.
  RecvClock recv_clock;
  /// Arrival of the last byte of the read that completed the message. TCP has no finer stamp: when
  /// several messages come in one read, the earlier ones carry the stamp of the last.
  TsNs ts_recv;
  /// Ticks when the read returned: where the stage clock starts.
  std::uint64_t tsc_read;
  /// How much earlier than ts_recv it may have arrived: since then the socket has not been seen empty. 0
  /// where that is no longer than an idle agent sleeps.
  std::int64_t unseen_ns = 0;
};

/// Called from within WebSocketSource::poll(), on its thread. A handler may call the source's
/// send_…(), stop() and reopen().
class WebSocketHandler {
 public:
  virtual void on_open() noexcept TICKWIRE_HOT = 0;
  virtual void on_message(const WebSocketMessage& message) noexcept TICKWIRE_HOT = 0;
  /// Once for each on_open(), as soon as no further message can come. `code` is the peer's, or ours
  /// where we ended it; kCloseDropped where nobody said goodbye.
  virtual void on_close(std::uint16_t code, std::string_view reason) noexcept TICKWIRE_HOT = 0;

 protected:
  ~WebSocketHandler() = default;
};

/// Plain counts of one thread; the agent copies them into its counters.
struct WebSocketStats {
  std::uint64_t attempts = 0;  // Tries to connect, each address counted.
  std::uint64_t opens = 0;
  std::uint64_t closes = 0;  // Open connections that ended, for whatever reason.
  std::uint64_t drops = 0;   // Of those: without a close frame from either side.
  std::uint64_t lookup_failures = 0;
  std::uint64_t connect_failures = 0;
  std::uint64_t tls_failures = 0;  // In the TLS handshake, certificates included, or later.
  std::uint64_t handshake_failures = 0;
  std::uint64_t timeouts = 0;  // Of the look-up, an attempt or a close.
  std::uint64_t messages = 0;
  std::uint64_t message_bytes = 0;
  std::uint64_t socket_bytes = 0;   // As received, framing and TLS included.
  std::uint64_t kernel_stamps = 0;  // Reads that carried the kernel's stamp …
  std::uint64_t read_stamps = 0;    // … and those that we had to stamp.
  std::uint64_t stamps_capped = 0;  // The kernel's, far ahead of the reading: the reading's was taken.
  std::uint64_t pings_received = 0;
  std::uint64_t pings_sent = 0;
  std::uint64_t pongs_received = 0;
  std::uint64_t pongs_sent = 0;
  std::uint64_t pong_timeouts = 0;
  std::uint64_t closes_received = 0;
  std::uint64_t protocol_errors = 0;  // Violations by the peer, the next two included.
  std::uint64_t bad_text = 0;
  std::uint64_t too_large = 0;
  std::uint64_t sent = 0;          // Messages of ours, accepted into the send buffer.
  std::uint64_t send_refused = 0;  // Messages and pongs that had no room or no connection.
  std::uint64_t errors = 0;        // Times that last_error() was written.
};

enum class WebSocketState : std::uint8_t {
  Idle,
  Resolving,
  Connecting,
  Tls,
  Handshake,
  Open,
  Closing,
  BackingOff
};

/// A busy-polled, non-blocking WebSocket client that lives on an agent's thread: every poll() returns
/// without waiting, and only name look-ups happen elsewhere (see Resolver). An open connection costs
/// one recvmsg a turn (0.3 µs when nothing came); messages are handed out where they were received.
/// Nothing is allocated after construction by our code, also not by a re-connect; OpenSSL allocates
/// its own.
///
/// It connects again after every end that stop() did not ask for, and then sends the subscriptions
/// again. It does all protocol duties itself: pongs, the close handshake, refusing what RFC 6455
/// forbids. Sending only queues; the next poll() writes.
///
/// One thread, that of the agent. Parking: wait on fd() for reading, and for writing while
/// wants_write(), no longer than ns_to_deadline(); then poll() again. fd() changes with every
/// connection.
class WebSocketSource {
 public:
  /// Setup. `where` begins each error: the key of the feed, such as "feeds[0]". Throws SetupError.
  WebSocketSource(WebSocketConfig config, const std::string& where);
  ~WebSocketSource();
  WebSocketSource(const WebSocketSource&) = delete;
  WebSocketSource& operator=(const WebSocketSource&) = delete;

  /// Begins to connect. Only from Idle.
  void start() noexcept;

  /// Ends the connection in order and stays Idle: go on with poll() until stopped(), which takes at
  /// most close_timeout_ns. Unsent messages go out before the close frame.
  void stop() noexcept;
  bool stopped() const noexcept { return state_ == WebSocketState::Idle; }

  /// Ends an open connection in order and connects anew, for a feed that has gone silent.
  void reopen(std::string_view why) noexcept;

  /// One turn. Returns how much was done: 0 when there was nothing to do.
  int poll(WebSocketHandler& handler, const UtcClock& clock) noexcept TICKWIRE_HOT;

  /// False, and counted, when the connection is not open or the send buffer has no room.
  bool send_text(std::string_view text) noexcept TICKWIRE_HOT { return send(FrameOpcode::Text, text); }
  bool send_binary(std::span<const char> bytes) noexcept TICKWIRE_HOT {
    return send(FrameOpcode::Binary, bytes);
  }

  WebSocketState state() const noexcept { return state_; }
  /// -1 where there is no socket.
  int fd() const noexcept { return fd_; }
  bool wants_write() const noexcept TICKWIRE_HOT;
  /// Nanoseconds from `tsc` until poll() has something to do on its own; the maximum where never.
  std::int64_t ns_to_deadline(std::uint64_t tsc) const noexcept;

  /// Ticks of the last read that brought bytes, of whatever kind: liveness, as opposed to data.
  std::uint64_t last_bytes_tsc() const noexcept { return last_bytes_tsc_; }
  const WebSocketStats& stats() const noexcept { return stats_; }
  /// What went wrong last; written whenever stats().errors grows.
  std::string_view last_error() const noexcept { return last_error_.view(); }
  const WebSocketUrl& url() const noexcept { return url_; }

 private:
  static constexpr std::uint64_t kNever = ~std::uint64_t{0};  // A deadline in ticks.

  enum class Read : std::uint8_t { Bytes, Nothing, End };

  bool send(FrameOpcode opcode, std::span<const char> payload) noexcept TICKWIRE_HOT;
  bool queue(FrameOpcode opcode, std::span<const char> payload, std::size_t reserve) noexcept TICKWIRE_HOT;

  /// One receive. Bytes: `count` of them came and are stamped. End: `count` is the errno, 0 for an orderly
  /// end.
  Read read_socket(std::span<char> room, std::size_t& count, const UtcClock& clock) noexcept TICKWIRE_HOT;
  int receive(WebSocketHandler& handler, const UtcClock& clock) noexcept TICKWIRE_HOT;
  int deliver(WebSocketHandler& handler) noexcept TICKWIRE_HOT;
  int deliver_tls(WebSocketHandler& handler) noexcept TICKWIRE_HOT;

  // Everything but receiving, as long as the connection is open.
  int service(WebSocketHandler& handler, const UtcClock& clock) noexcept TICKWIRE_HOT;
  int service_open(std::uint64_t now) noexcept TICKWIRE_HOT;
  int settle(WebSocketHandler& handler) noexcept TICKWIRE_HOT;
  void on_control(const Frame& frame) noexcept TICKWIRE_HOT;
  void begin_close(std::uint16_t code, std::string_view reason, std::uint16_t code_to_send) noexcept
      TICKWIRE_HOT;
  void leave_open(std::uint16_t code, std::string_view reason) noexcept TICKWIRE_HOT;
  void set_open_deadline() noexcept TICKWIRE_HOT;
  int flush() noexcept TICKWIRE_HOT;
  std::size_t send_some(std::span<const char> bytes) noexcept TICKWIRE_HOT;

  // Without an open connection: nothing comes in that could be late.
  int service_unconnected(WebSocketHandler& handler, const UtcClock& clock) noexcept;
  int service_resolving(std::uint64_t now) noexcept;
  int service_connecting(std::uint64_t now) noexcept;
  int service_tls(std::uint64_t now, const UtcClock& clock) noexcept;
  int service_handshake(std::uint64_t now, WebSocketHandler& handler, const UtcClock& clock) noexcept;
  int service_closing(std::uint64_t now, const UtcClock& clock) noexcept;
  void on_dropped(std::string_view how) noexcept;

  void begin_round() noexcept;
  void begin_address() noexcept;
  void begin_tls() noexcept;
  void begin_handshake() noexcept;
  void address_failed() noexcept;
  void answer_failed() noexcept;
  void attempt_timed_out(const char* doing) noexcept;
  void opened(WebSocketHandler& handler) noexcept;
  void disconnect() noexcept;
  void back_off() noexcept;

  const WebSocketConfig config_;
  const WebSocketUrl url_;

  // Steady state.
  WebSocketState state_ = WebSocketState::Idle;
  int fd_ = -1;
  std::uint64_t deadline_tsc_ = kNever;
  FrameParser parser_;
  std::unique_ptr<TlsClient> tls_;
  RecvClock stamp_clock_ = RecvClock::Read;
  TsNs stamp_ = 0;
  std::uint64_t stamp_tsc_ = 0;
  std::uint64_t empty_tsc_ = 0;  // When the socket was last seen empty.
  std::int64_t unseen_ns_ = 0;   // Of what the last read brought.
  std::uint64_t last_bytes_tsc_ = 0;

  // Sending: what lies in [out_begin_, out_end_) is framed and waits.
  KeyGenerator keys_;
  PageBuffer out_;
  std::size_t out_begin_ = 0;
  std::size_t out_end_ = 0;

  // Connecting.
  Resolver resolver_;
  HandshakeRequest request_;
  PageBuffer answer_;
  std::size_t answer_bytes_ = 0;
  bool refused_in_part_ = false;     // The answer is a refusal whose body is still coming.
  std::int64_t asked_pause_ns_ = 0;  // Of a refusal: the server said how long not to ask again.
  std::size_t first_address_ = 0;    // Where a round begins: past an address that answered but did not open.
  std::size_t tried_ = 0;            // Addresses of this round.
  unsigned failures_ = 0;            // Rounds in a row without a healthy connection.
  bool stopping_ = false;

  // An open connection.
  std::uint64_t opened_tsc_ = 0;
  std::uint64_t ping_tsc_ = 0;     // When the next ping is due.
  std::uint64_t pong_tsc_ = 0;     // When the pong to the last one is overdue.
  std::uint64_t ping_number_ = 0;  // Payload of the last ping.

  // The end of one, until the handler has heard of it.
  bool close_notice_ = false;
  std::uint16_t close_code_ = 0;
  FixedText close_reason_;

  WebSocketStats stats_;
  FixedText last_error_;
};

}  // namespace tickwire::net

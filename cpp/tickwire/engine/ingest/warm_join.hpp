#pragma once

/// Decides where a feed continues a capture, so that a new process goes on with full windows.
///
/// A warm start reads what an earlier process, or a recorder of its own, has written of the feed and may
/// still be writing. Only then does it connect. From here on both bring the same events, the capture
/// those before the connection too. What the connection brings is kept back, and the capture goes on
/// being processed until, for each instrument, the two have met: the capture has come to where the
/// feed's first event begins, and the feed to where the capture is. The venue's ids, which are the same
/// for everybody, say so; they are asked for both ways because a capture of other ids, which is far
/// ahead for ever, would pass for one that has everything. The same for trades, where windows or rows
/// need them: each trade's id is the last one's + 1.
///
/// An instrument that the feed says nothing of cannot show it. Once the capture holds an event that the
/// connection brought too, it was written while the connection stood, and what either would have missed
/// is what came in between by less than one connection lags another: after that time silence counts as
/// met, and what has not met will not. A capture that nobody writes any more meets nothing and is given up
/// sooner. What is given up begins anew, cold. While the feed has said nothing at all there is nothing to
/// decide and no hurry.
///
/// Ids do not say at what time the capture's writer took it to be. Where windows go by that time, the two
/// clocks must agree: an event that both brought has a receive stamp of each, and nothing in a capture is
/// from the future. Such an event is waited for while it may come. Where none does, as of a capture that
/// ends exactly where the feed begins, each side's stamps are compared with the venue's.
///
/// One thread, the ingest agent's, before its first row. Time is handed in. What is kept lies in a ring
/// taken at set-up; where something cannot be kept, all is forgotten and the feed's next events are its
/// first.

#include <cstdint>
#include <span>

#include "tickwire/concurrent/spsc_byte_ring.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/engine/ingest/feed_line.hpp"
#include "tickwire/net/websocket/websocket_source.hpp"

namespace tickwire::engine {

class WarmJoin {
 public:
  /// How far the capture has come with an instrument.
  struct Captured {
    bool valid;
    std::uint64_t diff_id;
    std::uint64_t trade_id;
    std::uint32_t epoch = 1;
    bool lacks_trades = false;      // Since the epoch began.
    bool may_become_valid = false;  // Where it is not valid: its writer may be about to synchronise it.
    std::int64_t ahead_ns = 0;      // What time its windows have, less what time it is; 0 where no matter.
  };
  enum class Verdict : std::uint8_t {
    Continues,
    NoBook,     // The capture ends with no valid book.
    BookGap,    // Its book ends before the feed's begins, or is of other ids.
    TradeGap,   // The same of its trades.
    TradeHole,  // Trades are missing within the capture.
    Clock,      // The capture's clock is not ours.
    Silent,     // The feed said nothing of it, or of its trades, and nothing shows that the capture goes on.
  };
  struct Kept {
    std::uint32_t conn;
    LineEvent event;
    net::WebSocketMessage message;
  };

  static constexpr std::int64_t kMostLagNs = 3'000'000'000;    // As between two connections.
  static constexpr std::int64_t kWriterLagNs = 2'000'000'000;  // What a recorder holds back at the most.
  static constexpr std::int64_t kMostWaitNs = 10'000'000'000;
  static constexpr std::int64_t kMostClockNs = 1'000'000'000;  // Between the clocks of two hosts.

  /// `lines`: the feed's connections. `trades`: whether they must be continuous, too. `clocks`: whether the
  /// capture's clock decides anything, so that it must be known to agree with ours.
  WarmJoin(std::size_t instruments, std::size_t lines, bool trades, bool clocks, Arena& arena,
           std::size_t kept_bytes);

  void up(std::uint32_t conn, std::int64_t now_ns) noexcept TICKWIRE_HOT;
  void down(std::uint32_t conn, std::int64_t now_ns) noexcept TICKWIRE_HOT;
  /// What a connection brought. False where it cannot be kept: there is no room, or nobody can read it.
  [[nodiscard]] bool keep(std::uint32_t conn, const LineEvent& event, const net::WebSocketMessage& message,
                          std::int64_t now_ns) noexcept TICKWIRE_HOT;
  /// The feed's next events are its first.
  void forget(std::int64_t now_ns) noexcept TICKWIRE_HOT;

  /// A diff that the capture brought, where its clock matters.
  void captured_diff(std::size_t instrument, std::uint64_t id, TsNs ts_recv, TsNs ts_event = kNoTime) noexcept
      TICKWIRE_HOT;

  /// True once there is a verdict for each instrument. `captured`: one for each; `captured_ns`: when the
  /// capture brought its last line.
  [[nodiscard]] bool decide(std::span<const Captured> captured, std::int64_t captured_ns,
                            std::int64_t now_ns) noexcept;
  [[nodiscard]] Verdict verdict(std::size_t instrument) const noexcept { return verdicts_[instrument]; }
  /// The feed's first diff or trade of an instrument: ids of 0 where there was none.
  [[nodiscard]] const LineEvent& first_diff(std::size_t instrument) const noexcept {
    return diffs_[instrument].first;
  }
  [[nodiscard]] const LineEvent& first_trade(std::size_t instrument) const noexcept {
    return trades_[instrument].first;
  }
  /// When the first diff came.
  [[nodiscard]] TsNs first_diff_ts(std::size_t instrument) const noexcept {
    return diffs_[instrument].first_ts;
  }

  /// The feed stands and has said something of a book.
  [[nodiscard]] bool heard() const noexcept { return first_ns_ >= 0; }
  /// By how much the capture's clock is ahead of ours; negative: behind.
  [[nodiscard]] std::int64_t clock_ahead_ns(std::size_t instrument) const noexcept {
    return clocks_[instrument].ahead_ns;
  }

  /// The oldest message kept; false where there is none. It holds until pop().
  [[nodiscard]] bool front(Kept& out) noexcept;
  void pop() noexcept { kept_.pop(); }

 private:
  /// An instrument's diffs or trades on the feed.
  struct Stream {
    bool seen;
    bool met;
    LineEvent first;
    TsNs first_ts;
    std::int64_t first_ns;  // On the clock that is handed in.
    std::uint64_t newest_id;
  };
  /// What an instrument's part of the capture was when last looked at.
  struct Past {
    std::uint64_t diff_id = 0;     // Its newest diff …
    TsNs diff_ts = 0;              // … the capture's stamp of it …
    TsNs diff_ts_event = kNoTime;  // … and the venue's.
    std::uint32_t epoch = 0;
    std::int64_t invalid_ns = -1;  // Since when it has had no valid book; negative: it has one.
  };
  struct Clocks {
    bool known = false;  // An event with two stamps.
    std::int64_t ahead_ns = 0;
  };
  struct KeptHead {
    std::uint32_t conn;
    LineEvent event;
    TsNs ts_recv;
    std::uint64_t tsc_read;
    RecvClock recv_clock;
    bool is_text;
  };

  void compare_clocks(std::size_t instrument, TsNs captured, TsNs ours) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool clocks_known(std::size_t instrument) const noexcept {
    return !needs_clocks_ || clocks_[instrument].known || any_clock_.known;
  }
  void guess_clock(std::size_t instrument) noexcept;
  [[nodiscard]] bool clocks_agree(std::size_t instrument, const Captured& captured) noexcept;
  static void look(Stream& stream, std::uint64_t captured_id) noexcept;

  const std::size_t lines_;
  const bool needs_trades_;
  const bool needs_clocks_;
  std::uint32_t up_ = 0;        // A bit for each connection.
  std::int64_t since_ns_ = 0;   // Nothing was forgotten since, and all connections stand.
  std::int64_t first_ns_ = -1;  // When the feed first said something of a book.
  std::int64_t both_ns_ = -1;   // Since when the capture holds a diff that the feed brought, too.
  std::span<Stream> diffs_;
  std::span<Stream> trades_;
  std::span<Past> pasts_;
  std::span<Clocks> clocks_;
  Clocks any_clock_{};  // Of whichever instrument showed it first.
  std::span<Verdict> verdicts_;
  concurrent::SpscByteRing kept_;
};

}  // namespace tickwire::engine

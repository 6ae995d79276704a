#pragma once

/// Begins a live feed with the end of a capture, so that its windows are full when its first row leaves.
///
/// The capture is read into the feed, muted: books and windows fill, nothing leaves. Then the feed connects,
/// and goes on where the capture and the connections meet, which is WarmJoin's to say. Until then a warm
/// start listens to what the capture says and takes what the connections bring, keeps it, and hands it on
/// when the two have met. What the recorder gets is one capture, the part that was read from another one
/// between a `warm` and a `live` line, so that a replay of the recording mutes the same part and needs to
/// know nothing else.
///
/// Made by the ingest agent and used on its thread, but for report(), which is anybody's. It reads files,
/// which no later turn of a feed does: once is_over(), the feed is as one that began cold.

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tickwire/concurrent/cell.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/engine/ingest/price_feed.hpp"
#include "tickwire/engine/ingest/snapshot_desk.hpp"
#include "tickwire/engine/ingest/warm_join.hpp"
#include "tickwire/md/capture.hpp"

namespace tickwire::engine {

class WarmStart final : private CaptureListener, private LineDiversion {
 public:
  /// Set-up. Throws SetupError where what `feed` is to begin with is no capture of it.
  WarmStart(PriceFeed& feed, SnapshotDesk& desk, const FeaturesConfig& features, const UtcClock& clock,
            Arena& arena);
  WarmStart(const WarmStart&) = delete;
  WarmStart& operator=(const WarmStart&) = delete;

  /// The agent begins. The connections follow by themselves.
  void start() noexcept;
  /// One turn. Returns how much was done.
  int turn() noexcept;
  [[nodiscard]] bool is_over() const noexcept TICKWIRE_HOT { return state_ == State::Over; }
  /// For how long who sleeps may sleep at most.
  [[nodiscard]] std::int64_t wait_for() const noexcept {
    return feed_.muted() ? kPollNs : std::numeric_limits<std::int64_t>::max();
  }

  /// What it came to, a line for each instrument; none before the feed is live.
  [[nodiscard]] std::vector<std::string> report() const;

 private:
  /// Between two looks at the end of a capture: no descriptor says that a file has grown.
  static constexpr std::int64_t kPollNs = 1'000'000;

  enum class State : std::uint8_t {
    Reading,    // The capture; not connected yet.
    Joining,    // Connected; the capture is followed until the two have met.
    HandingOn,  // What the connections brought meanwhile.
    Settling,   // Live; the connections may still bring what the capture had.
    Over,
  };
  /// What the capture has of an instrument.
  struct Seen {
    bool named = false;
    bool snapshot = false;
    md::BookState state = md::BookState::Empty;  // At its end …
    TsNs end = 0;                                // … which is when its last diff came.
    // The newest hole in its trades.
    std::uint64_t lacks_from = 0;
    std::uint64_t lacks_to = 0;
  };

  /// What became of an instrument when the feed went live.
  struct WentOn {
    bool valid = false;
    std::uint32_t epoch = 0;
    std::uint64_t row = 0;
  };
  /// The file that a recorder begins next: 000001.log, 000002.log … All memory is taken when it is made,
  /// since it is looked for a thousand times a second.
  class NextFile {
   public:
    /// Behind the newest file that there is.
    explicit NextFile(const std::string& newest);
    /// Is it there? Then it is path(), and the one behind it is next.
    [[nodiscard]] bool advance() noexcept;
    [[nodiscard]] const std::string& path() const noexcept { return path_; }

   private:
    std::string folder_;  // Empty: of no recorder's files.
    std::string extension_;
    unsigned long number_ = 0;
    std::string path_;
  };

  // CaptureListener.
  void on_message(std::span<const char> message, venue::binance::Outcome outcome, const md::Event& event,
                  std::string_view symbol) noexcept override;
  void on_snapshot(InstrumentId instrument) noexcept override;
  void on_missing_trades(InstrumentId instrument, std::uint64_t first, std::uint64_t last) noexcept override;
  void on_other(std::string_view) noexcept override {}
  void on_left_valid(InstrumentId, md::InvalidReason, TsNs) noexcept override {}
  std::size_t write_place(std::span<char>) const noexcept override { return 0; }

  // LineDiversion.
  bool on_up(std::uint32_t conn) noexcept override;
  bool on_down(std::uint32_t conn) noexcept override;
  void on_message(std::uint32_t conn, const net::WebSocketMessage& message) noexcept override;

  int read() noexcept;
  [[nodiscard]] bool decide() noexcept;
  int hand_on(bool all) noexcept;
  void hand_on_all() noexcept TICKWIRE_HOT;
  void end() noexcept;
  [[nodiscard]] std::int64_t ahead_of(const PriceLane& lane, TsNs now) const noexcept;
  [[nodiscard]] std::string verdict(std::size_t instrument) const;
  [[nodiscard]] std::vector<std::string> verdicts() const;

  PriceFeed& feed_;
  SnapshotDesk& desk_;
  const UtcClock& clock_;
  const bool windows_on_recv_;
  const bool compares_clocks_;  // What time the capture has decides something.
  State state_ = State::Reading;
  md::CaptureReader reader_;
  const md::CaptureLine* line_ = nullptr;  // The reader's next line, null at the end.
  NextFile next_file_;                     // Behind the one that is followed.
  WarmJoin join_;
  std::vector<WarmJoin::Captured> captured_;
  std::vector<Seen> seen_;
  std::vector<WentOn> went_on_;
  // On the clock that nobody sets.
  std::int64_t joining_ns_ = 0;   // Since when.
  std::int64_t captured_ns_ = 0;  // When the capture brought its last line …
  std::int64_t looked_ns_ = 0;    // … and when it was last looked for one.
  std::int64_t live_ns_ = 0;
  concurrent::Cell<bool> waits_;  // The feed has brought nothing of a book for long.
  concurrent::Cell<bool> told_;   // Published once nothing that verdicts() reads changes any more.
};

}  // namespace tickwire::engine

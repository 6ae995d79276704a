#pragma once

/// One connection of a feed, replaced before it ends.
///
/// A venue closes a connection after a day, or says that it will. The replacement is opened beside the
/// old connection, subscribed, and kept back: the old one alone is processed, until it has come to where
/// the replacement's first message of every instrument begins. Then the replacement takes over and what
/// the old one had brought already is left out. A venue's ids are the same on every connection, so they
/// prove that nothing is missing and nothing comes twice; whoever is handed the messages sees one line.
///
/// A line is up from the first message on, which says that the subscription stands. It goes down where
/// it was lost without a proven replacement. A connection that brings no byte at all, not even the pongs
/// to our pings, for liveness_timeout_ns counts as lost.
///
/// One thread, that of the agent. What waits lies in a ring taken at set-up.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/concurrent/spsc_byte_ring.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/net/websocket/websocket_source.hpp"

namespace tickwire::engine {

/// What of a message decides about a hand-over.
struct LineEvent {
  enum class Kind : std::uint8_t {
    Diff,
    Trade,
    Quote,
    Control,  // No event of an instrument: goes through at once.
    Damaged,  // It cannot be read, so nobody knows what it was.
  };
  Kind kind;
  std::uint32_t instrument;   // The feed's own number.
  std::uint64_t previous_id;  // Nothing is missing once all up to this id was processed.
  std::uint64_t last_id;
  TsNs ts_event = kNoTime;  // The venue's.
};

class FeedLine {
 public:
  /// Who the messages are for. Called from within poll().
  class Owner {
   public:
    virtual void line_up(std::uint32_t conn) noexcept TICKWIRE_HOT = 0;
    virtual void line_message(std::uint32_t conn, const net::WebSocketMessage& message) noexcept
        TICKWIRE_HOT = 0;
    virtual void line_down(std::uint32_t conn, std::string_view reason) noexcept TICKWIRE_HOT = 0;
    /// A connection ended before its subscription stood: the line was not up by it.
    virtual void line_ended(std::uint32_t conn, std::string_view reason) noexcept TICKWIRE_HOT = 0;
    /// A connection was given up because nothing came; line_down() follows where it was the line's.
    virtual void line_silent(std::uint32_t conn) noexcept = 0;
    /// Reads a message without processing it.
    [[nodiscard]] virtual LineEvent line_event(std::span<const char> message) noexcept TICKWIRE_HOT = 0;
    /// Was this event, or a later one of its kind and instrument, processed since the line came up?
    [[nodiscard]] virtual bool line_has(const LineEvent& event) const noexcept TICKWIRE_HOT = 0;
    /// Was everything before this event processed? Also true where its instrument's book is not valid,
    /// for then nothing is to be continued.
    [[nodiscard]] virtual bool line_reaches(const LineEvent& event) const noexcept TICKWIRE_HOT = 0;
    /// A subscription was refused: this connection brings nothing.
    [[nodiscard]] virtual bool line_refused(std::span<const char> message) noexcept TICKWIRE_HOT = 0;

   protected:
    ~Owner() = default;
  };

  struct Config {
    std::uint32_t conn;  // 0: the books'.
    std::size_t instruments;
    bool diffs;  // What it carries, and has to be proven.
    bool trades;
    std::int64_t max_age_ns;           // 0: as long as the venue lets it.
    std::int64_t liveness_timeout_ns;  // 0: never given up.
  };

  /// Set-up. Throws SetupError; `where` is the feed's key.
  FeedLine(Owner& owner, const Config& config, const net::WebSocketConfig& connection,
           const std::string& where, Arena& arena);
  FeedLine(const FeedLine&) = delete;
  FeedLine& operator=(const FeedLine&) = delete;

  void start() noexcept;
  void stop() noexcept;
  [[nodiscard]] bool stopped() const noexcept;

  /// One turn. Returns how much was done.
  int poll(const UtcClock& clock) noexcept TICKWIRE_HOT {
    const int done = ends_[active_].source->poll(ends_[active_], clock);
    return replacing_ || closing_ ? done + poll_other(clock) : done;
  }
  /// Ages and silence; every hundred milliseconds or so.
  void check(const UtcClock& clock) noexcept;
  /// The venue says that it will close: a replacement is opened now.
  void replace() noexcept TICKWIRE_HOT;

  [[nodiscard]] bool up() const noexcept { return up_; }
  /// Replacements that took over with nothing missing.
  [[nodiscard]] std::uint64_t handovers() const noexcept { return handovers_; }

  [[nodiscard]] static constexpr std::size_t sources() noexcept { return 2; }
  [[nodiscard]] const net::WebSocketSource& source(std::size_t i) const noexcept { return *ends_[i].source; }

 private:
  struct End final : net::WebSocketHandler {
    void on_open() noexcept override { line->on_open(*this); }
    void on_message(const net::WebSocketMessage& message) noexcept override {
      if (ready && !line->replacing_ && !line->settling_) [[likely]]
        return line->owner_.line_message(line->config_.conn, message);
      line->on_message_slow(*this, message);
    }
    void on_close(std::uint16_t code, std::string_view reason) noexcept override;
    FeedLine* line = nullptr;
    std::unique_ptr<net::WebSocketSource> source;
    std::uint64_t opened_tsc = 0;
    bool ready = false;  // Open, and the subscription stands.
  };
  /// Of an instrument's diffs or trades: does the old connection reach the replacement's first?
  struct Proof {
    enum class State : std::uint8_t { Unseen, Waiting, Proven };
    State state = State::Unseen;
    LineEvent first{};
  };
  struct KeptHead {
    LineEvent event;
    TsNs ts_recv;
    std::uint64_t tsc_read;
    std::int64_t unseen_ns;
    RecvClock recv_clock;
    bool is_text;
  };

  [[nodiscard]] bool is_active(const End& end) const noexcept TICKWIRE_HOT { return &end == &ends_[active_]; }
  int poll_other(const UtcClock& clock) noexcept TICKWIRE_HOT;
  void on_open(End& end) noexcept TICKWIRE_HOT;
  void on_message_slow(End& end, const net::WebSocketMessage& message) noexcept TICKWIRE_HOT;
  void on_close(End& end, std::string_view reason) noexcept TICKWIRE_HOT;
  void keep(const LineEvent& event, const net::WebSocketMessage& message) noexcept TICKWIRE_HOT;
  void restart_proof() noexcept TICKWIRE_HOT;
  void look_for_proof() noexcept TICKWIRE_HOT;
  [[nodiscard]] bool trades_proven() const noexcept TICKWIRE_HOT;
  void take_over() noexcept TICKWIRE_HOT;
  void hand_on(bool all) noexcept TICKWIRE_HOT;
  [[nodiscard]] std::span<Proof> proofs_of(LineEvent::Kind kind) noexcept TICKWIRE_HOT;

  Owner& owner_;
  const Config config_;
  End ends_[2];
  std::size_t active_ = 0;
  bool up_ = false;
  bool replacing_ = false;  // The other one is being opened, or waits to take over.
  bool closing_ = false;    // The other one is on its way out.
  bool wanted_ = false;     // A replacement, as soon as it can be.
  bool heard_from_other_ = false;
  bool settling_ = false;  // The active one has just taken over, and may be behind the old one.
  std::uint64_t taken_over_tsc_ = 0;
  bool stopping_ = false;
  std::uint64_t handovers_ = 0;

  std::uint64_t proof_since_tsc_ = 0;  // Nothing the replacement brought since was thrown away.
  std::span<Proof> diffs_;             // Empty where the line carries none.
  std::span<Proof> trades_;
  concurrent::SpscByteRing kept_;  // What the replacement brought and the old one has not yet.
};

}  // namespace tickwire::engine

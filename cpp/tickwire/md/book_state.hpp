#pragma once

#include <cstdint>
#include <string_view>

namespace tickwire::md {

/// May this instrument's book be used? Only Valid may feed a model.
enum class BookState : std::uint8_t {
  Empty = 0,      // Nothing known yet, or the connection is down.
  Buffering = 1,  // Events are kept until a snapshot comes that they continue.
  Valid = 2,      // The snapshot is bridged and every event since has followed the one before.
  Suspect = 3,    // A gap, a refused message or a crossed book: wrong until the venue's recovery is done.
  Stale = 4,      // Nothing came for longer than the configuration allows.
  Halted = 5,     // The venue stopped trading in it.
};

constexpr std::string_view name_of(BookState state) noexcept {
  switch (state) {
    case BookState::Empty: return "empty";
    case BookState::Buffering: return "buffering";
    case BookState::Valid: return "valid";
    case BookState::Suspect: return "suspect";
    case BookState::Stale: return "stale";
    case BookState::Halted: return "halted";
  }
  return "unknown";
}

/// Why a book left Valid, or why it could not become it.
enum class InvalidReason : std::uint8_t {
  None = 0,
  Gap = 1,            // An event does not follow the one before, or the venue's ids went back.
  Crossed = 2,        // Best bid at or above best ask: something was missed that no id shows.
  Malformed = 3,      // A message of this instrument could not be read.
  BadNumber = 4,      // A price or quantity with too many digits, out of range, or no number at all.
  Disconnected = 5,   // The connection that carried it is gone.
  TooManyLevels = 6,  // One message holds more levels than the configuration allows.
  Stale = 7,
  Halted = 8,
  Stopped = 9,    // We ended it ourselves, in order.
  Depth = 10,     // The features need a level that a full book had to drop.
  Memory = 11,    // An order found no room in the books' memory.
  TradeGap = 12,  // Trades are missing that the features need.
  Clock = 13,     // A stamp is far from those before: what windows hold is of another time.
};

constexpr std::string_view name_of(InvalidReason reason) noexcept {
  switch (reason) {
    case InvalidReason::None: return "none";
    case InvalidReason::Gap: return "gap";
    case InvalidReason::Crossed: return "crossed";
    case InvalidReason::Malformed: return "malformed";
    case InvalidReason::BadNumber: return "bad_number";
    case InvalidReason::Disconnected: return "disconnected";
    case InvalidReason::TooManyLevels: return "too_many_levels";
    case InvalidReason::Stale: return "stale";
    case InvalidReason::Halted: return "halted";
    case InvalidReason::Stopped: return "stopped";
    case InvalidReason::Depth: return "depth";
    case InvalidReason::Memory: return "memory";
    case InvalidReason::Clock: return "clock";
    case InvalidReason::TradeGap: return "trade_gap";
  }
  return "unknown";
}

/// How many there are: the last one's number plus one.
inline constexpr std::uint8_t kInvalidReasons = 14;
static_assert(name_of(static_cast<InvalidReason>(kInvalidReasons - 1)) != "unknown" &&
              name_of(static_cast<InvalidReason>(kInvalidReasons)) == "unknown");

}  // namespace tickwire::md

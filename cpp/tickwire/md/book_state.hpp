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

}  // namespace tickwire::md

#pragma once

/// What our recorder writes between the datagrams of a capture of a sequenced stream. Such a capture holds
/// each message once, in the order in which it was processed, whichever line or server had brought it; what
/// no message says, but decided about the books, is a note.
///
/// A note is a datagram of its own, from port 0 to port 0, which no network carries, with a text that any
/// tool shows:
///
///     {"tickwire":"stream"}                          begins each of our files
///     {"tickwire":"session"}                         the numbering begins anew
///     {"tickwire":"lost","first":12,"count":3}       messages that could not be had
///     {"tickwire":"snapshot"}                        the next messages, from 1 on and of no session, build
///                                                    the state from nothing …
///     {"tickwire":"snapshot_end","first":812}        … which is whole, and message 812 is next
///     {"tickwire":"snapshot_failed"}                 … or came to nothing
///     {"tickwire":"close"}, {"tickwire":"open"}      all lines fell silent; one was heard again

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "tickwire/core/hot.hpp"

namespace tickwire::md {

struct StreamNote {
  enum class Kind : std::uint8_t {
    Stream,
    Session,
    Lost,
    Snapshot,
    SnapshotEnd,
    SnapshotFailed,
    Close,
    Open
  };
  Kind kind;
  std::uint64_t first = 0;  // Lost, SnapshotEnd.
  std::uint64_t count = 0;  // Lost.
};

inline constexpr std::size_t kMaxStreamNote = 96;

/// The note's text, in `out`.
[[nodiscard]] std::string_view format_stream_note(std::span<char, kMaxStreamNote> out,
                                                  const StreamNote& note) noexcept;
/// False where the text is none of ours.
[[nodiscard]] bool parse_stream_note(std::string_view text, StreamNote& note) noexcept;

}  // namespace tickwire::md

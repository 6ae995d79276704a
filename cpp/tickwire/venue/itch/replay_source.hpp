#pragma once

/// What a live ITCH feed would have said, from files, one thing at a time: day files of length-prefixed
/// messages, each a session of its own, or captures of datagrams (pcap, pcapng) of one MoldUDP64 stream.
///
/// A capture of anybody's holds the lines as they arrived, and whatever else came by: one stream is followed,
/// told from others by group, port and session (see moldudp64/mold_survey.hpp). Its lines are arbitrated as a
/// live feed does it, on the clock of the packets' stamps. There is no re-request server and no snapshot to
/// be had of the past, so what is on no line is lost. A capture of our own recorder holds what was processed,
/// in that order, and what was decided (see md/stream_note.hpp): it is followed to the letter.
///
/// Replay only: reads files, and allocates as they ask for it. One thread.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/net/moldudp64/mold_feed.hpp"

namespace tickwire::venue::itch {

struct ReplayItem {
  enum class Kind : std::uint8_t {
    Message,
    Session,          // The numbering begins anew, and what was built is void.
    Lost,             // `count` messages from `sequence` on.
    Snapshot,         // As net::MoldFeedHandler has them.
    SnapshotMessage,  //
    SnapshotEnd,      // `sequence` is the next message.
    SnapshotFailed,   //
    Close,            // The lines fell silent …
    Open,             // … and were heard again.
  };
  Kind kind;
  TsNs ts_recv;
  std::uint64_t sequence = 0;
  std::uint64_t count = 0;
  std::span<const std::byte> message{};  // Holds until the next call of next().
};

/// Says an item to whom it is for, by the function that is called where it happens live. All that replays
/// files goes through here. `to` has a function for each kind, with the time it was noticed at.
template <typename To>
void play(const ReplayItem& item, To& to) noexcept TICKWIRE_HOT {
  using Kind = ReplayItem::Kind;
  const TsNs ts = item.ts_recv;
  switch (item.kind) {
    case Kind::Message: return to.message(item.sequence, item.message, ts);
    case Kind::Session: return to.begin_session(ts);
    case Kind::Lost: return to.lose(item.sequence, item.count, ts);
    case Kind::Close: return to.close(ts);
    case Kind::Open: return to.open(ts);
    case Kind::Snapshot:
    case Kind::SnapshotMessage:
    case Kind::SnapshotEnd:
    case Kind::SnapshotFailed: break;
  }
  TICKWIRE_HOT_EXEMPT_BEGIN("a snapshot: while it comes nothing leaves")
  switch (item.kind) {
    case Kind::Snapshot: to.begin_snapshot(ts); break;
    case Kind::SnapshotMessage: to.snapshot_message(item.message, ts); break;
    case Kind::SnapshotEnd: to.end_snapshot(ts); break;
    case Kind::SnapshotFailed: to.fail_snapshot(ts); break;
    default: break;
  }
  TICKWIRE_HOT_EXEMPT_END
}

struct ReplayStats {
  std::uint64_t malformed = 0;     // Datagrams whose lengths do not hold.
  std::uint64_t other_groups = 0;  // Datagrams of none of the feed's lines.
  std::uint64_t strays = 0;        // Of its lines, but of a session that is a stray among them.
  std::uint64_t cut = 0;           // Packets that hold less than a whole datagram.
};

struct ReplayConfig {
  std::vector<std::string> files;  // All of one kind.
  /// Of day files: when the day of each began.
  std::vector<TsNs> midnights;
  /// Of captures: the addresses and senders of the lines, and the window of the sequencer. With no lines,
  /// each group that has the one stream of the capture is one.
  net::MoldFeedConfig mold;
};

/// Set-up: is the regular file a day of ITCH 5.0, as far as its first messages tell? Throws SetupError, which
/// says what it is instead, where none of them has the length of its type.
void check_day_file(const std::string& path);

class ReplaySource {
 public:
  /// Throws SetupError where a file cannot be read, is of another kind than the first or holds nothing that
  /// can be followed, and where a capture holds several streams; `where` is the feed's key.
  ReplaySource(const ReplayConfig& config, const std::string& where, Arena& arena);
  ~ReplaySource();
  ReplaySource(const ReplaySource&) = delete;
  ReplaySource& operator=(const ReplaySource&) = delete;

  /// The next thing; false at the end of the last file.
  [[nodiscard]] bool next(ReplayItem& item);

  /// A file ended where more should have come; error() says which and how.
  [[nodiscard]] bool truncated() const noexcept;
  [[nodiscard]] const std::string& error() const noexcept;
  [[nodiscard]] ReplayStats stats() const noexcept;
  /// The file that the newest item is of.
  [[nodiscard]] const std::string& file() const noexcept TICKWIRE_HOT;
  /// Null where the files are no captures, or our own, in which nothing is arbitrated any more.
  [[nodiscard]] const net::Sequencer* sequencer() const noexcept;
  [[nodiscard]] std::size_t lines() const noexcept;

 private:
  class Source;
  class DayFiles;
  class Captures;
  std::vector<std::string> files_;  // Those that have a byte.
  std::unique_ptr<Source> source_;
  std::string empty_;  // Says which files have not a byte.
};

}  // namespace tickwire::venue::itch

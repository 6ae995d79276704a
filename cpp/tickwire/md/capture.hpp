#pragma once

/// The text form of a recorded WebSocket feed: one line a message, our receive time in UTC
/// nanoseconds, a space, the message as the venue sent it. What is no venue message is a line of
/// ours, at the place where it happened:
///
///     1723161254087891268 {"stream":"btcusdt@bookTicker","data":{…}}
///     1723161254206652067 {"tickwire":"snapshot","conn":0,"instrument":"BTCUSDT","limit":1000,"body":{…}}
///     1723161253900000000 {"tickwire":"open","conn":0}
///     1723161263900000000 {"tickwire":"stale","conn":0,"instrument":"BTCUSDT"}
///     1723164863900000000 {"tickwire":"quiet","conn":0}
///
/// A run that began warm first holds what it read of an earlier capture, between a `warm` and a `live`
/// line; a `cold` line names an instrument whose book begins anew there. See engine/ingest/warm_join.hpp.
///
/// CaptureReader reads such files, plain or compressed (told apart by their first bytes; see
/// byte_stream.hpp), one after another, in bounded memory; the format_ functions append a line to the
/// caller's buffer.
///
/// Other recorders' files are read, too. Their times may be in another unit or form (receive_stamp.hpp):
/// most of a file's first lines decide, a line of another unit is refused, and so is a file that begins
/// with a mixture. A file with a line of ours among its first ones, or before, is in nanoseconds,
/// whatever its stamps look like. A REST snapshot may stand as it came, in the wrapper of a stream, whose
/// name then says the instrument, or as the one member of any object, as in a reply of the WebSocket API; a
/// `symbol` beside it or in it says the instrument, too. A file that is no text is refused by its name.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/core/types.hpp"
#include "tickwire/md/receive_stamp.hpp"

namespace tickwire::md {

enum class CaptureKind : std::uint8_t {
  Message,       // As the venue sent it.
  Snapshot,      // A REST snapshot of `instrument`, applied here.
  BareSnapshot,  // A REST reply in other people's recordings: no line says for which instrument.
  Open,          // The connection `conn` was opened.
  Close,         // It was closed.
  Stale,         // Nothing had come for `instrument` for too long: its book left valid here.
  Quiet,  // Nothing had come for as long as the next message's stamp says, by a clock that nobody sets.
  Warm,   // What follows filled books and windows and gave no row …
  Live,   // … up to here.
  Cold,   // The feed did not continue the capture of `instrument`: its book begins anew.
};

struct CaptureLine {
  CaptureKind kind;
  TsNs ts_recv;
  std::uint32_t conn;           // Of a line of ours.
  std::string_view instrument;  // Snapshot, Stale, Cold.
  std::uint32_t limit;          // Snapshot: levels a side that were asked for; 0 where the line does not say.
  /// The message, or the body of a snapshot. CaptureReader::kPaddingBytes beyond its end are
  /// readable, as the JSON parser wants them.
  std::span<const char> body;
};

/// A file whose stamps are not whole nanoseconds, or do not look like it.
struct CaptureStamps {
  std::string file;
  StampForm form;       // As most of its first lines are, or look.
  bool as_nanoseconds;  // Taken for nanoseconds all the same: it has lines of ours.
  bool fractions;       // Numbers with a point or an exponent.
  bool no_zone;         // Its ISO times name none, so they are taken for UTC.
};

struct CaptureReaderConfig {
  /// A longer line is skipped and counted, and memory never grows beyond it.
  std::size_t max_line_bytes = std::size_t{64} << 20U;
  /// Bytes asked for at a time. Any value gives the same lines.
  std::size_t block_bytes = std::size_t{1} << 20U;
  /// The last file is still being written: at its end, which may be inside a line or a compressed
  /// stream, next() returns null, and goes on there when it is called again.
  bool follow = false;
};

/// Reads captures line by line. One thread; what it returned holds until its next call.
///
/// Memory is taken when it is made; only a line longer than a block makes it grow, up to the limit.
/// It is written for bytes that a crash or a full disk cut anywhere: what cannot be read is skipped,
/// counted and described, the lines before and after it are given.
class CaptureReader {
 public:
  static constexpr std::size_t kPaddingBytes = 64;

  /// Throws SetupError where a file cannot be opened or read at all, is no text, or begins with stamps of
  /// several units.
  explicit CaptureReader(std::vector<std::string> paths, CaptureReaderConfig config = {});
  ~CaptureReader();
  CaptureReader(const CaptureReader&) = delete;
  CaptureReader& operator=(const CaptureReader&) = delete;

  /// The next line; null after the last line of the last file.
  [[nodiscard]] const CaptureLine* next() noexcept;

  /// One more file, to be read behind the others.
  void add(std::string_view path) noexcept;

  /// Where the line that next() returned stands. Lines count from 1 in each file.
  [[nodiscard]] const std::string& file() const noexcept;
  [[nodiscard]] std::uint64_t line_number() const noexcept;

  /// Lines that are no capture line, are too long, or have a stamp that cannot be believed.
  [[nodiscard]] std::uint64_t skipped_lines() const noexcept;
  /// A file ended in the middle of a line or of its compressed stream, or could not be read to its
  /// end. What was whole has been given.
  [[nodiscard]] bool truncated() const noexcept;
  /// The first thing that was wrong, as `FILE:LINE: what`; empty where nothing was. A truncated file
  /// takes precedence over a skipped line.
  [[nodiscard]] const std::string& error() const noexcept;
  /// The same of the first line that was skipped, whatever else was wrong.
  [[nodiscard]] const std::string& skipped() const noexcept;
  /// Of the files read so far, those whose stamps a person should know of.
  [[nodiscard]] const std::vector<CaptureStamps>& stamps() const noexcept;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

/// Each appends one whole line. A line break inside a message, which JSON has outside of strings
/// alone, becomes a tab: as white space it means the same, and inside a string both are refused.
void format_message(std::string& out, TsNs ts_recv, std::span<const char> message);
void format_snapshot(std::string& out, TsNs ts_recv, std::uint32_t conn, std::string_view instrument,
                     std::uint32_t limit, std::span<const char> body);
void format_open(std::string& out, TsNs ts, std::uint32_t conn);
void format_close(std::string& out, TsNs ts, std::uint32_t conn);
void format_stale(std::string& out, TsNs ts, std::uint32_t conn, std::string_view instrument);
void format_quiet(std::string& out, TsNs ts, std::uint32_t conn);
void format_warm(std::string& out, TsNs ts, std::uint32_t conn);
void format_live(std::string& out, TsNs ts, std::uint32_t conn);
void format_cold(std::string& out, TsNs ts, std::uint32_t conn, std::string_view instrument);

}  // namespace tickwire::md

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "tickwire/concurrent/cell.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/metrics/counter.hpp"
#include "tickwire/metrics/error_log.hpp"
#include "tickwire/metrics/histogram.hpp"
#include "tickwire/metrics/page_guard.hpp"

namespace tickwire::metrics {

/// The one mapped file in which an engine can be observed from outside, by C++ (StatReader) and by
/// Python (py/tickwire/stat_file.py). The writer does nothing for a reader and never waits for one.
///
/// Layout, version 2 (1 is read as well: 32 kinds of errors, entries of 256 bytes that end with the text of
/// the first). Little-endian; every field fixed; offsets in bytes. Labels are UTF-8, padded
/// with zero bytes.
///
///     header, 512 bytes
///       0   char[8]  magic "TICKWIRE"
///       8   u32      version, written last: 0 while the file is being made
///       12  u32      header_bytes, 512
///       16  u64      file_bytes
///       24  i32      pid of the writer
///       28  u32      reserved
///       32  u64      pid_start: field 22 of /proc/PID/stat, tells a reused pid from the writer
///       40  i64      start_ts, UTC ns
///       64  section[3]: counters, histograms, error logs
///             +0 u64 offset   +8 u32 stride   +12 u32 count
///       112 u32      histogram buckets, 2048
///       116 u32      bits of a sub-bucket, 6
///       120 u32      error kinds in a log, 64
///       256 i64      heartbeat_ts, UTC ns: grows while the writer is well
///       264 i64      end_ts, UTC ns: 0 until the writer ended in an orderly way
///     counter, stride 256
///       0 char[64] scope   64 char[64] name   128 i64 value
///     histogram, stride 16640
///       0 char[64] scope   64 char[64] name
///       128 u64 underflow   136 u64 overflow   144 u64 sum   152 i64 max   256 u64 buckets[2048]
///     error log, stride 33024
///       0 char[64] scope   64 char[64] reserved   128 u64 lost   256 entry[64], 512 bytes each:
///         0 u64 count   8 i64 first_ts   16 i64 last_ts   24 u32 text_bytes   32 char[224] text of the first
///         256 u64 turn, odd while the next two are written   264 u64 bytes   272 char[224] text of the last
///
/// Values lie 128 bytes or more apart, because two threads that write neighbours would pass one cache
/// line back and forth.

inline constexpr std::uint32_t kStatVersion = 2;
inline constexpr std::size_t kMaxLabel = 63;

/// How much the file has room for; all of it is made before the data plane starts.
struct StatCapacity {
  std::uint32_t counters;
  std::uint32_t histograms;
  std::uint32_t error_logs;
};

/// The writer. Setup makes the counters, histograms and logs, each to be written by one thread, then
/// calls publish(); from then on nothing is made and nothing allocated.
class StatFile {
 public:
  /// Makes the file under a temporary name in `path`'s directory, which is created 0700 where it lacks
  /// and must be writable by this user alone. An empty path gives memory of this process, needs no file
  /// system, and path() leads there for as long as the process lives. The directory should be on a tmpfs: on
  /// a disk the kernel stops the writer while it writes pages back. Throws SetupError: also where another
  /// engine runs on that path, or where what is there is no stat file.
  static std::unique_ptr<StatFile> create(const std::string& path, StatCapacity capacity);

  /// A writer in another process: maps the file that an engine has published. counter(), histogram() and
  /// error_log() then find what that engine made, at any time, and go on from the values there; what it
  /// did not make is a SetupError. Each still has one writer at a time: whoever attaches takes the place
  /// of one that ended. heartbeat(), end() and remove() stay the engine's. Throws SetupError.
  static std::unique_ptr<StatFile> attach(const std::string& path);

  /// Is there a stat file at the path that a running engine holds?
  static bool in_use(const std::string& path);

  /// Unmaps. The file stays for whoever wants to know how it ended; see remove().
  ~StatFile();
  StatFile(const StatFile&) = delete;
  StatFile& operator=(const StatFile&) = delete;

  // Setup. The references hold as long as the StatFile. A label given twice, a label longer than
  // kMaxLabel, a full section and a call after publish() are std::logic_error or SetupError: two
  // writers of one counter would lose counts in silence.
  Counter& counter(std::string_view scope, std::string_view name);
  Histogram& histogram(std::string_view scope, std::string_view stage);
  ErrorLog& error_log(std::string_view scope);

  /// Writes the version and gives the file its name: readers find it complete or not at all.
  void publish();

  /// One thread.
  void heartbeat(TsNs ts) noexcept TICKWIRE_HOT;

  /// The writer ended in an orderly way. Readers that still map the file see it.
  void end(TsNs ts) noexcept;

  /// Deletes the file, unless another engine has put its own there meanwhile.
  void remove() noexcept;

  /// How much of the file somebody has cut off: 0 as it should be. The writers go on; what they write there
  /// is seen by view() alone. A system call.
  std::uint64_t bytes_missing() const noexcept;

  /// What is mapped: what a reader of the file sees, and beyond its end, where it was cut off, what the
  /// writers go on with. Holds as long as the StatFile.
  std::span<const std::byte> view() const noexcept { return {data_, bytes_}; }

  /// Empty where the kernel gives no name to memory of a process.
  const std::string& path() const noexcept { return path_; }

  /// For the start-up report.
  std::string report_line() const;

 private:
  StatFile() = default;
  void open(const std::string& path, std::size_t bytes);
  template <typename T>
  T& record(std::size_t section, std::string_view scope, std::string_view name);
  std::byte* add_record(std::size_t section, std::string_view scope, std::string_view name);
  std::byte* find_record(std::size_t section, std::string_view scope, std::string_view name) const;

  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  StatCapacity capacity_{};
  std::string path_;
  std::string temporary_;  // Until publish().
  int fd_ = -1;            // Kept open: it holds the lock that says the path is in use.
  bool locked_in_memory_ = false;
  bool published_ = false;
  bool attached_ = false;
  bool in_memory_ = false;
  std::optional<PageGuard> guard_;
  std::unordered_set<std::string> labels_;  // Until publish(): a whole exchange's are tens of thousands.
};

/// Deletes what engines that were killed left in the automatic places of a directory: engine-PID-N.stat, one
/// that was still being made, and the control socket beside it. A file that is in use is locked by its engine
/// for as long as that lives, in whatever pid namespace, so neither the number in the name nor that of a
/// process is asked. Leaves alone what is not this user's, and what cannot be deleted.
void remove_dead_stat_files(const std::string& directory) noexcept;

/// Where the file goes when the configuration names no place: $XDG_RUNTIME_DIR/tickwire, else
/// /dev/shm/tickwire-UID; and where something of another user's is there, or something that others can write,
/// the first of /dev/shm/tickwire-UID-1 and so on that is free or this user's own.
inline constexpr int kStatDirectories = 10;
std::string default_stat_directory();

struct CounterReading {
  std::string scope;
  std::string name;
  std::int64_t value;
};

struct HistogramReading {
  std::string scope;
  std::string stage;
  HistogramSnapshot snapshot;
};

struct ErrorReading {
  std::string scope;
  std::vector<ErrorEntry> entries;
  std::uint64_t lost;
};

/// The reader, in any process that may open the file. Maps it read-only and keeps working when the
/// writer dies or is replaced: it then shows the last state of the file it opened. Where somebody cuts the
/// file short, the lists below throw SetupError.
class StatReader {
 public:
  /// Throws SetupError where the file is missing, no stat file, incomplete or of another version.
  explicit StatReader(const std::string& path);
  ~StatReader();
  StatReader(const StatReader&) = delete;
  StatReader& operator=(const StatReader&) = delete;

  std::int32_t pid() const noexcept;
  TsNs start_ts() const noexcept;
  TsNs heartbeat_ts() const noexcept;
  /// 0 until the writer ended in an orderly way.
  TsNs end_ts() const noexcept;

  /// Does the writing process still exist? A reused pid does not pass for it.
  bool writer_alive() const;

  std::vector<CounterReading> counters() const;
  std::vector<HistogramReading> histograms() const;
  std::vector<ErrorReading> error_logs() const;

 private:
  /// What was just read was there.
  void refuse_cut() const;

  const std::string path_;
  int fd_ = -1;
  const std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::optional<PageGuard> guard_;
};

}  // namespace tickwire::metrics

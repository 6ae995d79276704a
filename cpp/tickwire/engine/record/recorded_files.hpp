#pragma once

/// The numbered files of a recorded stream: written in whole lines or records, hashed as they are written,
/// and brought to the disk from time to time.
///
/// A write that fails loses nothing by itself. What the disk took of it is cut off again, the bytes stay in
/// the buffer, and a second later it is tried once more: at the same place where the disk was full, in the
/// next file where it was broken. Until then takes() says no, and what comes waits in its producer's ring,
/// which drops and counts where it is full. Lost is what still waits at the end.
///
/// Each file that is done with, because it was large enough or the run is over, leaves its name, its length
/// and its SHA-256 with FinishedFiles, from where the control plane writes them down.

#include <openssl/types.h>
#include <sys/types.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/concurrent/agent.hpp"
#include "tickwire/metrics/stat_file.hpp"

namespace tickwire::engine {

struct RecordedFile {
  std::string file;  // From the run's folder on.
  std::uint64_t bytes;
  std::string sha256;  // In hexadecimal digits.
};

/// From the recorder's thread to the control plane.
class FinishedFiles {
 public:
  void add(RecordedFile file);
  /// Those since the last call.
  [[nodiscard]] std::vector<RecordedFile> take();

 private:
  std::mutex mutex_;
  std::vector<RecordedFile> files_;
};

/// What the recorder asks of the system; a test's own where a disk is to fail.
struct DiskCalls {
  std::function<ssize_t(int fd, const char* bytes, std::size_t count, off_t offset)> write;
  std::function<int(int fd, off_t bytes)> truncate;
  std::function<int(int fd)> sync;

  [[nodiscard]] static DiskCalls of_the_system();
};

/// Brings files to the disk on a thread of its own: a disk may take its time for that, and the recorder's
/// rings would run full meanwhile.
class DiskSync final : public concurrent::Agent {
 public:
  struct Job {
    const void* owner;
    unsigned number;      // Of the owner's file.
    int fd;               // The job's own; closed when it is done.
    std::string folder;   // Not empty: to be synced as well, since the file is new in it.
    std::uint64_t units;  // Lines or records that were not yet known to be on the disk.
    int error;            // Once done: errno, or 0.
  };

  explicit DiskSync(DiskCalls calls) : calls_(std::move(calls)) {}
  ~DiskSync() override;

  void ask(Job job);
  /// Those of an owner that are done.
  [[nodiscard]] std::vector<Job> done(const void* owner);

  [[nodiscard]] std::string_view name() const noexcept override { return "sync"; }
  int do_work() override;
  void on_close() override;
  void park(std::int64_t max_ns) noexcept override;

 private:
  DiskCalls calls_;
  std::mutex mutex_;
  std::condition_variable asked_;
  std::deque<Job> waiting_;
  std::vector<Job> done_;
};

/// What the streams of a recording share.
struct RecordingDisk {
  std::string run_dir;
  DiskCalls calls;
  DiskSync* sync;  // Null: when what was written comes to the disk is for the kernel to decide.
  FinishedFiles& finished;
  metrics::Counter& lost;
  metrics::Counter& bytes_written;
  metrics::ErrorLog& errors;
  std::int64_t retry_ns = 1'000'000'000;  // After a failed write.
};

/// One thread's: the recorder's, and after its end whoever ends the recording.
class RecordedFiles {
 public:
  /// `stream` is the folder within the run's. `head` begins each file, at once: one without anything else is
  /// one of its kind, too. Throws SetupError where the first file cannot be made.
  RecordedFiles(std::string stream, std::string_view suffix, std::string head, RecordingDisk& disk);
  ~RecordedFiles();
  RecordedFiles(const RecordedFiles&) = delete;
  RecordedFiles& operator=(const RecordedFiles&) = delete;

  /// Is there room for more? False while the disk does not take what waits.
  [[nodiscard]] bool takes() noexcept;
  void append(std::string_view bytes) noexcept;
  void flush() noexcept;
  /// Has what was written brought to the disk, where that is the policy.
  void sync() noexcept;
  /// What waits is tried once more; what the disk still does not take is lost, and what comes after it.
  void give_up() noexcept;
  /// The last file is done with. Nothing comes after this.
  void finish() noexcept;

 private:
  bool open_next() noexcept;
  void close_file() noexcept;
  bool write_all(std::string_view bytes) noexcept;
  void failed(const char* what, bool next_file) noexcept;
  void ask_for_sync() noexcept;
  void take_answers() noexcept;

  RecordingDisk& disk_;
  std::string stream_;
  std::string folder_;
  std::string suffix_;
  std::string head_;
  std::string buffer_;
  std::uint64_t buffered_units_ = 0;  // Lines or records in the buffer.
  std::uint64_t unsynced_units_ = 0;  // Written, and not known to be on the disk.
  std::uint64_t file_bytes_ = 0;
  struct Digest;
  std::unique_ptr<Digest> digest_;  // Of the file's first file_bytes_.
  std::int64_t retry_at_ns_ = 0;    // Not before then, after a failure; 0: at once.
  unsigned number_ = 0;
  int fd_ = -1;
  bool new_in_folder_ = false;
  bool sync_asked_ = false;
  bool given_up_ = false;
};

}  // namespace tickwire::engine

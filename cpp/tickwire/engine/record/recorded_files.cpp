#include "tickwire/engine/record/recorded_files.hpp"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <utility>

#include "tickwire/core/error.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/engine/error_kinds.hpp"

namespace tickwire::engine {

namespace {

constexpr std::size_t kBufferBytes = 1U << 20U;    // One write a megabyte under load.
constexpr std::uint64_t kRotateBytes = 1U << 30U;  // A file that ordinary tools still like to open.

bool is_full(int error) noexcept { return error == ENOSPC || error == EDQUOT; }

int sync_folder(const std::string& folder) noexcept {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -1;
  const int result = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  errno = error;
  return result;
}

}  // namespace

DiskCalls DiskCalls::of_the_system() {
  return {.write = [](int fd, const char* bytes, std::size_t count,
                      off_t offset) { return ::pwrite(fd, bytes, count, offset); },
          .truncate = [](int fd, off_t bytes) { return ::ftruncate(fd, bytes); },
          .sync = [](int fd) { return ::fdatasync(fd); }};
}

void FinishedFiles::add(RecordedFile file) {
  const std::lock_guard lock(mutex_);
  files_.push_back(std::move(file));
}

std::vector<RecordedFile> FinishedFiles::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(files_, {});
}

DiskSync::~DiskSync() {
  for (const Job& job : waiting_) ::close(job.fd);
}

void DiskSync::ask(Job job) {
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(job));
  }
  asked_.notify_one();
}

std::vector<DiskSync::Job> DiskSync::done(const void* owner) {
  const std::lock_guard lock(mutex_);
  const auto mine = std::stable_partition(done_.begin(), done_.end(),
                                          [owner](const Job& job) { return job.owner != owner; });
  std::vector<Job> taken(std::make_move_iterator(mine), std::make_move_iterator(done_.end()));
  done_.erase(mine, done_.end());
  return taken;
}

int DiskSync::do_work() {
  Job job;
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.empty()) return 0;
    job = std::move(waiting_.front());
    waiting_.pop_front();
  }
  job.error = calls_.sync(job.fd) == 0 ? 0 : errno;
  if (job.error == 0 && !job.folder.empty() && sync_folder(job.folder) != 0) job.error = errno;
  ::close(job.fd);
  const std::lock_guard lock(mutex_);
  done_.push_back(std::move(job));
  return 1;
}

void DiskSync::on_close() {
  while (do_work() != 0) {
  }
}

void DiskSync::park(std::int64_t max_ns) noexcept {
  std::unique_lock lock(mutex_);
  asked_.wait_for(lock, std::chrono::nanoseconds(max_ns), [this] { return !waiting_.empty(); });
}

struct RecordedFiles::Digest {
  Digest() : context(::EVP_MD_CTX_new()) { begin(); }
  ~Digest() { ::EVP_MD_CTX_free(context); }
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;

  void begin() noexcept { ::EVP_DigestInit_ex(context, ::EVP_sha256(), nullptr); }
  void add(std::string_view bytes) noexcept { ::EVP_DigestUpdate(context, bytes.data(), bytes.size()); }
  [[nodiscard]] std::string end() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> raw;
    unsigned size = 0;
    ::EVP_DigestFinal_ex(context, raw.data(), &size);
    std::string text;
    for (unsigned i = 0; i < size; ++i) {
      char digits[3];
      std::snprintf(digits, sizeof digits, "%02x", raw[i]);
      text += digits;
    }
    return text;
  }

  EVP_MD_CTX* context;
};

RecordedFiles::RecordedFiles(std::string stream, std::string_view suffix, std::string head,
                             RecordingDisk& disk)
    : disk_(disk),
      stream_(std::move(stream)),
      folder_(disk.run_dir + "/" + stream_),
      suffix_(suffix),
      head_(std::move(head)),
      digest_(std::make_unique<Digest>()) {
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  buffer_.reserve(kBufferBytes + (1U << 16U));
  if (error || !open_next()) {
    throw SetupError("record", "a folder that can be written",
                     folder_ + " (" + (error ? error.message() : std::string(std::strerror(errno))) + ")");
  }
  if (!head_.empty()) (void)write_all(head_);
}

RecordedFiles::~RecordedFiles() {
  flush();
  if (fd_ >= 0) ::close(fd_);
}

bool RecordedFiles::open_next() noexcept {
  char path[4096];
  std::snprintf(path, sizeof path, "%s/%06u%s", folder_.c_str(), number_ + 1, suffix_.c_str());
  fd_ = ::open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd_ < 0 && errno != EEXIST) return false;
  ++number_;  // Also where somebody else has a file of that name.
  file_bytes_ = 0;
  digest_->begin();
  new_in_folder_ = true;
  sync_asked_ = false;
  return fd_ >= 0;
}

/// Says what the file at hand came to and lets go of it.
void RecordedFiles::close_file() noexcept {
  if (fd_ < 0) return;
  ask_for_sync();
  ::close(fd_);
  fd_ = -1;
  char name[16];
  std::snprintf(name, sizeof name, "/%06u", number_);
  disk_.finished.add({.file = stream_ + name + suffix_, .bytes = file_bytes_, .sha256 = digest_->end()});
}

/// False where the disk does not take it; the file is then as it was.
bool RecordedFiles::write_all(std::string_view bytes) noexcept {
  std::size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t n = disk_.calls.write(fd_, bytes.data() + written, bytes.size() - written,
                                        static_cast<off_t>(file_bytes_ + written));
    if (n > 0) {
      written += static_cast<std::size_t>(n);
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    const int why = n < 0 ? errno : EIO;
    // The torn line or record is cut off, so that what is in the file is whole.
    const bool cut = disk_.calls.truncate(fd_, static_cast<off_t>(file_bytes_)) == 0;
    errno = why;
    // Where it is full another file would not help, nor one more that is as empty as this one.
    failed(cut ? "write failed" : "write failed, and its tail is torn",
           !is_full(why) && file_bytes_ > head_.size());
    return false;
  }
  digest_->add(bytes);
  file_bytes_ += bytes.size();
  disk_.bytes_written.add(static_cast<std::int64_t>(bytes.size()));
  return true;
}

/// By errno. `next_file`: the one at hand is not written to again.
void RecordedFiles::failed(const char* what, bool next_file) noexcept {
  char text[160];
  std::snprintf(text, sizeof text, "%s: %s (%s)", folder_.c_str(), what, std::strerror(errno));
  report(disk_.errors, ErrorKind::RecorderDisk, text, read_utc());
  if (next_file) close_file();
  retry_at_ns_ = tsc_to_ns(tsc_now()) + disk_.retry_ns;
}

bool RecordedFiles::takes() noexcept {
  if (buffer_.size() >= kBufferBytes && !given_up_) flush();
  return buffer_.size() < kBufferBytes || given_up_;
}

void RecordedFiles::append(std::string_view bytes) noexcept {
  if (given_up_) return disk_.lost.add(1);
  buffer_.append(bytes);
  ++buffered_units_;
  if (buffer_.size() >= kBufferBytes) flush();
}

void RecordedFiles::flush() noexcept {
  if (buffer_.empty()) return;
  if (retry_at_ns_ != 0 && tsc_to_ns(tsc_now()) < retry_at_ns_) return;
  retry_at_ns_ = 0;
  if (file_bytes_ >= kRotateBytes) close_file();
  if (fd_ < 0 && !open_next()) return failed("cannot open the next file", false);
  if ((file_bytes_ == 0 && !head_.empty() && !write_all(head_)) || !write_all(buffer_)) return;
  buffer_.clear();
  unsynced_units_ += std::exchange(buffered_units_, 0);
}

void RecordedFiles::ask_for_sync() noexcept {
  if (disk_.sync == nullptr || fd_ < 0 || (unsynced_units_ == 0 && !new_in_folder_)) return;
  const int fd = ::fcntl(fd_, F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return;  // The next time, then.
  disk_.sync->ask({.owner = this,
                   .number = number_,
                   .fd = fd,
                   .folder = new_in_folder_ ? folder_ : std::string(),
                   .units = std::exchange(unsynced_units_, 0),
                   .error = 0});
  new_in_folder_ = false;
  sync_asked_ = true;
}

void RecordedFiles::take_answers() noexcept {
  if (disk_.sync == nullptr) return;
  for (const DiskSync::Job& job : disk_.sync->done(this)) {
    if (job.number == number_) sync_asked_ = false;
    if (job.error == 0) continue;
    // What of it has come to the disk nobody knows.
    disk_.lost.add(static_cast<std::int64_t>(std::max<std::uint64_t>(job.units, 1)));
    errno = job.error;
    failed("what was written may not have come to the disk", job.number == number_);
  }
}

void RecordedFiles::sync() noexcept {
  take_answers();
  flush();
  if (!sync_asked_) ask_for_sync();
}

void RecordedFiles::give_up() noexcept {
  retry_at_ns_ = 0;
  flush();
  if (buffer_.empty()) return;
  disk_.lost.add(static_cast<std::int64_t>(std::exchange(buffered_units_, 0)));
  buffer_.clear();
  given_up_ = true;
}

void RecordedFiles::finish() noexcept {
  close_file();
  take_answers();
}

}  // namespace tickwire::engine

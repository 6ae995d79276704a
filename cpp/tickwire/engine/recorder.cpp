#include "tickwire/engine/recorder.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "tickwire/core/error.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/engine/error_kinds.hpp"
#include "tickwire/md/capture.hpp"

namespace tickwire::engine {

namespace {

constexpr std::size_t kCaptureRingBytes = 16U << 20U;  // Seconds of a busy feed, or dozens of snapshots.
constexpr std::size_t kRecordSlots = 16384;
constexpr std::size_t kBufferBytes = 1U << 20U;    // One write a megabyte under load.
constexpr std::uint64_t kRotateBytes = 1U << 30U;  // A file that ordinary tools still like to open.
constexpr std::int64_t kRetryNs = 1'000'000'000;   // After a failed write.
constexpr int kUnitsATurn = 256;                   // So that no stream keeps the others waiting.

}  // namespace

void CaptureTap::put(Kind kind, TsNs ts, std::uint32_t subject, std::span<const char> bytes) noexcept {
  const Head head{ts, subject, kind};
  std::byte* place = ring_.try_claim(sizeof head + bytes.size());
  if (place == nullptr) [[unlikely]] {
    lost_.add(1);
    return;
  }
  std::memcpy(place, &head, sizeof head);
  if (!bytes.empty()) std::memcpy(place + sizeof head, bytes.data(), bytes.size());
  ring_.publish();
}

void RecordTap::put(const std::byte* record) noexcept {
  std::byte* slot = queue_.try_claim();
  if (slot == nullptr) [[unlikely]] {
    lost_.add(1);
    return;
  }
  std::memcpy(slot, record, record_bytes_);
  queue_.publish();
}

Recorder::Segments::Segments(std::string folder, std::string_view suffix, Recorder& owner)
    : folder_(std::move(folder)), suffix_(suffix), owner_(owner) {
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  buffer_.reserve(kBufferBytes + (1U << 16U));
  if (error || !open_next()) {
    throw SetupError("record", "a folder that can be written",
                     folder_ + " (" + (error ? error.message() : std::string(std::strerror(errno))) + ")");
  }
}

Recorder::Segments::~Segments() {
  flush();
  if (fd_ >= 0) ::close(fd_);
}

bool Recorder::Segments::open_next() noexcept {
  if (fd_ >= 0) ::close(fd_);
  char path[4096];
  std::snprintf(path, sizeof path, "%s/%06u%s", folder_.c_str(), ++number_, suffix_.c_str());
  fd_ = ::open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  file_bytes_ = 0;
  return fd_ >= 0;
}

void Recorder::Segments::fail(const char* what) noexcept {
  char text[160];
  std::snprintf(text, sizeof text, "%s: %s (%s)", folder_.c_str(), what, std::strerror(errno));
  report(owner_.errors_, ErrorKind::RecorderDisk, text, read_utc());
  owner_.disk_lost_.add(static_cast<std::int64_t>(buffered_units_));
  buffer_.clear();
  buffered_units_ = 0;
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  retry_at_ns_ = tsc_to_ns(tsc_now()) + kRetryNs;
}

void Recorder::Segments::append(std::string_view bytes) noexcept {
  if (fd_ < 0 && tsc_to_ns(tsc_now()) < retry_at_ns_) {
    owner_.disk_lost_.add(1);
    return;
  }
  buffer_.append(bytes);
  ++buffered_units_;
  if (buffer_.size() >= kBufferBytes) flush();
}

void Recorder::Segments::flush() noexcept {
  if (buffer_.empty()) return;
  if ((fd_ < 0 || file_bytes_ >= kRotateBytes) && !open_next()) return fail("cannot open the next file");
  std::size_t written = 0;
  while (written < buffer_.size()) {
    const ssize_t n = ::write(fd_, buffer_.data() + written, buffer_.size() - written);
    if (n < 0) {
      if (errno == EINTR) continue;
      // Cut the torn line or record off, so that what is in the file is whole.
      if (::ftruncate(fd_, static_cast<off_t>(file_bytes_)) != 0) return fail("write failed, tail is torn");
      return fail("write failed");
    }
    written += static_cast<std::size_t>(n);
  }
  file_bytes_ += buffer_.size();
  owner_.bytes_written_.add(static_cast<std::int64_t>(buffer_.size()));
  buffer_.clear();
  buffered_units_ = 0;
}

Recorder::Recorder(std::string run_dir, std::vector<std::string> symbols, metrics::StatFile& stats)
    : run_dir_(std::move(run_dir)),
      symbols_(std::move(symbols)),
      stats_(stats),
      disk_lost_(stats.counter("recorder", "disk_lost")),
      bytes_written_(stats.counter("recorder", "bytes_written")),
      errors_(stats.error_log("recorder")) {}

Recorder::~Recorder() = default;

CaptureTap& Recorder::add_capture(const std::string& feed, Arena& arena) {
  metrics::Counter& lost = stats_.counter(feed, "capture_lost");
  captures_.push_back({std::make_unique<CaptureTap>(kCaptureRingBytes, lost, arena),
                       std::make_unique<Segments>(run_dir_ + "/capture/" + feed, ".log", *this)});
  return *captures_.back().tap;
}

RecordTap& Recorder::add_rows(const std::string& agent, std::size_t record_bytes, Arena& arena) {
  return add_records("rows/" + agent, record_bytes, arena);
}

RecordTap& Recorder::add_scores(const std::string& agent, std::size_t record_bytes, Arena& arena) {
  return add_records("scores/" + agent, record_bytes, arena);
}

RecordTap& Recorder::add_records(const std::string& stream, std::size_t record_bytes, Arena& arena) {
  metrics::Counter& lost = stats_.counter(stream, "record_lost");
  records_.push_back({std::make_unique<RecordTap>(record_bytes, kRecordSlots, lost, arena),
                      std::make_unique<Segments>(run_dir_ + "/" + stream, ".bin", *this)});
  return *records_.back().tap;
}

int Recorder::drain(CaptureStream& stream) noexcept {
  int units = 0;
  for (; units < kUnitsATurn; ++units) {
    const std::span<const std::byte> record = stream.tap->ring_.front();
    if (record.data() == nullptr) break;
    CaptureTap::Head head;
    std::memcpy(&head, record.data(), sizeof head);
    const std::span<const char> bytes{reinterpret_cast<const char*>(record.data()) + sizeof head,
                                      record.size() - sizeof head};
    line_.clear();
    switch (head.kind) {
      case CaptureTap::Kind::Message: md::format_message(line_, head.ts, bytes); break;
      case CaptureTap::Kind::Snapshot:
        md::format_snapshot(line_, head.ts, 0, symbols_[head.subject], bytes);
        break;
      case CaptureTap::Kind::Open: md::format_open(line_, head.ts, head.subject); break;
      case CaptureTap::Kind::Close: md::format_close(line_, head.ts, head.subject); break;
      case CaptureTap::Kind::Stale: md::format_stale(line_, head.ts, 0, symbols_[head.subject]); break;
      case CaptureTap::Kind::Warm: md::format_warm(line_, head.ts, 0); break;
      case CaptureTap::Kind::Live: md::format_live(line_, head.ts, 0); break;
      case CaptureTap::Kind::Cold: md::format_cold(line_, head.ts, 0, symbols_[head.subject]); break;
    }
    stream.files->append(line_);
    stream.tap->ring_.pop();
  }
  return units;
}

int Recorder::drain(RecordStream& stream) noexcept {
  concurrent::SpscQueue& queue = stream.tap->queue_;
  const std::size_t waiting = std::min<std::size_t>(queue.readable(), kUnitsATurn);
  for (std::size_t i = 0; i < waiting; ++i) {
    stream.files->append({reinterpret_cast<const char*>(queue.slot(i)), stream.tap->record_bytes_});
  }
  queue.release(waiting);
  return static_cast<int>(waiting);
}

int Recorder::do_work() noexcept {
  int work = 0;
  for (CaptureStream& stream : captures_) work += drain(stream);
  for (RecordStream& stream : records_) work += drain(stream);
  if (work == 0) {
    // Nothing waits: bring what is buffered to the disk, so that a crash loses as little as may be.
    for (CaptureStream& stream : captures_) stream.files->flush();
    for (RecordStream& stream : records_) stream.files->flush();
  }
  return work;
}

void Recorder::on_close() noexcept {
  while (do_work() != 0) {
  }
}

}  // namespace tickwire::engine

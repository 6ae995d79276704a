#include "tickwire/engine/recorder.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "tickwire/core/bytes.hpp"
#include "tickwire/core/error.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/engine/error_kinds.hpp"
#include "tickwire/feed/moldudp64/mold_packet.hpp"
#include "tickwire/md/capture.hpp"

namespace tickwire::engine {

namespace {

constexpr std::size_t kCaptureRingBytes = 16U << 20U;  // Seconds of a busy feed, or dozens of snapshots.
constexpr std::size_t kRecordSlots = 16384;
constexpr std::size_t kBufferBytes = 1U << 20U;    // One write a megabyte under load.
constexpr std::uint64_t kRotateBytes = 1U << 30U;  // A file that ordinary tools still like to open.
constexpr std::int64_t kRetryNs = 1'000'000'000;   // After a failed write.
constexpr int kUnitsATurn = 256;                   // So that no stream keeps the others waiting.
// A note's addresses: 0.0.0.0, port 0.
constexpr md::PcapEndpoint kNowhere{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0}, 0};

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

char* StreamTap::claim(const Head& head, std::size_t bytes) noexcept {
  std::byte* const place = ring_.try_claim(sizeof head + bytes);
  if (place == nullptr) [[unlikely]] {
    lost_.add(1);
    return nullptr;
  }
  std::memcpy(place, &head, sizeof head);
  return reinterpret_cast<char*>(place + sizeof head);
}

void StreamTap::run(const feed::SessionId& session, const feed::Run& run) noexcept {
  std::size_t bytes = feed::kMoldHeaderBytes;
  for (const feed::MessageView& message : run.messages) bytes += feed::kMoldLengthBytes + message.size();
  char* const place = claim({run.arrival.ts_recv, run.line, Kind::Datagram}, bytes);
  if (place == nullptr) return;
  feed::write_mold_packet({place, bytes}, session, run.sequence, run.messages);
  ring_.publish();
}

void StreamTap::snapshot_message(TsNs ts, feed::MessageView message) noexcept {
  const std::size_t bytes = feed::kMoldHeaderBytes + feed::kMoldLengthBytes + message.size();
  const std::uint64_t number = next_in_snapshot_++;  // Also of one that is not taken.
  char* const place = claim({ts, 0, Kind::Datagram}, bytes);
  if (place == nullptr) return;
  feed::write_mold_packet({place, bytes}, feed::kNoSession, number, {&message, 1});
  ring_.publish();
}

void StreamTap::note(TsNs ts, const md::StreamNote& note) noexcept {
  std::array<char, md::kMaxStreamNote> text;
  const std::string_view written = md::format_stream_note(text, note);
  if (note.kind == md::StreamNote::Kind::Snapshot) next_in_snapshot_ = 1;
  char* const place = claim({ts, 0, Kind::Note}, written.size());
  if (place == nullptr) return;
  std::memcpy(place, written.data(), written.size());
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

Recorder::Segments::Segments(std::string folder, std::string_view suffix, std::string head, Recorder& owner)
    : folder_(std::move(folder)), suffix_(suffix), head_(std::move(head)), owner_(owner) {
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  buffer_.reserve(kBufferBytes + (1U << 16U));
  if (error || !open_next()) {
    throw SetupError("record", "a folder that can be written",
                     folder_ + " (" + (error ? error.message() : std::string(std::strerror(errno))) + ")");
  }
  if (!head_.empty()) (void)write_all(head_);
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

/// False, and what of it was written is cut off again, where the disk does not take it.
bool Recorder::Segments::write_all(std::string_view bytes) noexcept {
  std::size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t n = ::write(fd_, bytes.data() + written, bytes.size() - written);
    if (n < 0) {
      if (errno == EINTR) continue;
      // Cut the torn line or record off, so that what is in the file is whole.
      const int why = errno;
      const bool cut = ::ftruncate(fd_, static_cast<off_t>(file_bytes_)) == 0;
      errno = why;
      fail(cut ? "write failed" : "write failed, tail is torn");
      return false;
    }
    written += static_cast<std::size_t>(n);
  }
  file_bytes_ += bytes.size();
  owner_.bytes_written_.add(static_cast<std::int64_t>(bytes.size()));
  return true;
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
  if ((file_bytes_ == 0 && !write_all(head_)) || !write_all(buffer_)) return;
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
                       std::make_unique<Segments>(run_dir_ + "/capture/" + feed, ".log", "", *this)});
  return *captures_.back().tap;
}

StreamTap& Recorder::add_stream(const std::string& feed, std::vector<StreamLine> lines, Arena& arena) {
  metrics::Counter& lost = stats_.counter(feed, "capture_lost");
  std::array<char, md::kMaxStreamNote> note;
  const std::string_view begin = md::format_stream_note(note, {md::StreamNote::Kind::Stream});
  std::string head;
  md::format_pcap_header(head);
  md::format_pcap_datagram(
      head, {.ts = 0, .source = kNowhere, .destination = kNowhere, .payload = {begin.data(), begin.size()}});
  streams_.push_back(
      {std::make_unique<StreamTap>(kCaptureRingBytes, lost, arena),
       std::make_unique<Segments>(run_dir_ + "/capture/" + feed, ".pcap", std::move(head), *this),
       std::move(lines)});
  return *streams_.back().tap;
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
                      std::make_unique<Segments>(run_dir_ + "/" + stream, ".bin", "", *this)});
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

int Recorder::drain(DatagramStream& stream) noexcept {
  int units = 0;
  for (; units < kUnitsATurn; ++units) {
    const std::span<const std::byte> record = stream.tap->ring_.front();
    if (record.data() == nullptr) break;
    StreamTap::Head head;
    std::memcpy(&head, record.data(), sizeof head);
    const bool is_note = head.kind == StreamTap::Kind::Note;
    const StreamLine& line = stream.lines[head.line];
    line_.clear();
    md::format_pcap_datagram(line_, {.ts = head.ts,
                                     .source = is_note ? kNowhere : line.source,
                                     .destination = is_note ? kNowhere : line.destination,
                                     .payload = {reinterpret_cast<const char*>(record.data()) + sizeof head,
                                                 record.size() - sizeof head}});
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
  for (DatagramStream& stream : streams_) work += drain(stream);
  for (RecordStream& stream : records_) work += drain(stream);
  if (work == 0) {
    // Nothing waits: bring what is buffered to the disk, so that a crash loses as little as may be.
    for (CaptureStream& stream : captures_) stream.files->flush();
    for (DatagramStream& stream : streams_) stream.files->flush();
    for (RecordStream& stream : records_) stream.files->flush();
  }
  return work;
}

void Recorder::on_close() noexcept {
  while (do_work() != 0) {
  }
}

}  // namespace tickwire::engine

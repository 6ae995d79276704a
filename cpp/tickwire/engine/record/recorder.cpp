#include "tickwire/engine/record/recorder.hpp"

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
#include "tickwire/md/capture.hpp"
#include "tickwire/net/moldudp64/mold_packet.hpp"

namespace tickwire::engine {

namespace {

constexpr std::size_t kCaptureRingBytes = 16U << 20U;  // Seconds of a busy feed, or dozens of snapshots.
constexpr std::size_t kRecordSlots = 16384;
constexpr int kUnitsATurn = 256;                  // So that no stream keeps the others waiting.
constexpr std::int64_t kFlushNs = 1'000'000'000;  // Longest that anything lies in a buffer of ours.
// A note's addresses: 0.0.0.0, port 0.
constexpr md::PcapEndpoint kNowhere{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0}, 0};

}  // namespace

void CaptureTap::put(Kind kind, TsNs ts, std::uint32_t subject, std::span<const char> bytes,
                     std::uint32_t limit) noexcept {
  const Head head{ts, subject, kind, limit};
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

void StreamTap::run(const net::SessionId& session, const net::Run& run) noexcept {
  std::size_t bytes = net::kMoldHeaderBytes;
  for (const net::MessageView& message : run.messages) bytes += net::kMoldLengthBytes + message.size();
  char* const place = claim({run.arrival.ts_recv, run.line, Kind::Datagram}, bytes);
  if (place == nullptr) return;
  net::write_mold_packet({place, bytes}, session, run.sequence, run.messages);
  ring_.publish();
}

void StreamTap::snapshot_message(TsNs ts, net::MessageView message) noexcept {
  const std::size_t bytes = net::kMoldHeaderBytes + net::kMoldLengthBytes + message.size();
  const std::uint64_t number = next_in_snapshot_++;  // Also of one that is not taken.
  char* const place = claim({ts, 0, Kind::Datagram}, bytes);
  if (place == nullptr) return;
  net::write_mold_packet({place, bytes}, net::kNoSession, number, {&message, 1});
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

Recorder::Recorder(Setup setup, metrics::StatFile& stats)
    : symbols_(std::move(setup.symbols)),
      stats_(stats),
      disk_{.run_dir = std::move(setup.run_dir),
            .calls = std::move(setup.calls),
            .sync = setup.sync,
            .finished = finished_,
            .lost = stats.counter("recorder", "disk_lost"),
            .bytes_written = stats.counter("recorder", "bytes_written"),
            .errors = stats.error_log("recorder")},
      sync_ns_(setup.sync != nullptr ? std::min(setup.sync_ns, kFlushNs) : kFlushNs) {}

Recorder::~Recorder() = default;

CaptureTap& Recorder::add_capture(const std::string& feed, Arena& arena) {
  metrics::Counter& lost = stats_.counter(feed, "capture_lost");
  captures_.push_back({std::make_unique<CaptureTap>(kCaptureRingBytes, lost, arena),
                       std::make_unique<RecordedFiles>("capture/" + feed, ".log", "", disk_)});
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
  streams_.push_back({std::make_unique<StreamTap>(kCaptureRingBytes, lost, arena),
                      std::make_unique<RecordedFiles>("capture/" + feed, ".pcap", std::move(head), disk_),
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
                      std::make_unique<RecordedFiles>(stream, ".bin", "", disk_)});
  return *records_.back().tap;
}

int Recorder::drain(CaptureStream& stream) noexcept {
  int units = 0;
  for (; units < kUnitsATurn && stream.files->takes(); ++units) {
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
        md::format_snapshot(line_, head.ts, 0, symbols_[head.subject], head.limit, bytes);
        break;
      case CaptureTap::Kind::Open: md::format_open(line_, head.ts, head.subject); break;
      case CaptureTap::Kind::Close: md::format_close(line_, head.ts, head.subject); break;
      case CaptureTap::Kind::Stale: md::format_stale(line_, head.ts, 0, symbols_[head.subject]); break;
      case CaptureTap::Kind::Quiet: md::format_quiet(line_, head.ts, 0); break;
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
  for (; units < kUnitsATurn && stream.files->takes(); ++units) {
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
  if (!stream.files->takes()) return 0;
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
    for_all_files([](RecordedFiles& files) { files.flush(); });
  }
  return work;
}

void Recorder::on_close() noexcept {
  while (do_work() != 0) {
  }
}

void Recorder::every_100ms() noexcept {
  const std::int64_t now_ns = tsc_to_ns(tsc_now());
  if (now_ns - synced_at_ns_ < sync_ns_) return;
  synced_at_ns_ = now_ns;
  for_all_files([](RecordedFiles& files) { files.sync(); });
}

void Recorder::finish() noexcept {
  on_close();
  for_all_files([](RecordedFiles& files) { files.give_up(); });
  on_close();  // What waited behind a disk that takes nothing is counted.
  for_all_files([](RecordedFiles& files) { files.sync(); });
  if (disk_.sync != nullptr) disk_.sync->on_close();
  for_all_files([](RecordedFiles& files) { files.finish(); });
}

}  // namespace tickwire::engine

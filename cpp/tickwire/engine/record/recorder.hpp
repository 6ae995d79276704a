#pragma once

/// Writes a run to a folder while it happens: what came in, the rows and the scores.
///
/// An agent with a thread of its own. Each ingest or inference agent writes to a tap, a ring that
/// drops and counts when it is full, so recording never slows the feed. A disk that fails is
/// reported and tried again (recorded_files.hpp); what waits meanwhile waits in the rings. Whatever was
/// lost makes the recording incomplete, and verify refuses it.
///
///     capture/<feed>/000001.log    capture lines in the order they were processed
///     capture/<feed>/000001.pcap   of a feed of datagrams: its messages in that order, and notes between
///     them rows/<agent>/000001.bin      signal records as the ingest agent emitted them, without scores
///     scores/<agent>/000001.bin    signal records as they were published

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/concurrent/agent.hpp"
#include "tickwire/concurrent/spsc_byte_ring.hpp"
#include "tickwire/concurrent/spsc_queue.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/engine/record/recorded_files.hpp"
#include "tickwire/md/pcap.hpp"
#include "tickwire/md/stream_note.hpp"
#include "tickwire/metrics/stat_file.hpp"
#include "tickwire/net/sequenced/sequencer.hpp"

namespace tickwire::engine {

/// A feed's way to the recorder. Producer thread: the feed's ingest agent.
class CaptureTap {
 public:
  CaptureTap(std::size_t ring_bytes, metrics::Counter& lost, Arena& arena)
      : ring_(arena, ring_bytes), lost_(lost) {}

  void message(TsNs ts_recv, std::span<const char> bytes) noexcept TICKWIRE_HOT {
    put(Kind::Message, ts_recv, kNoInstrument, bytes);
  }
  /// `limit` levels a side were asked for; 0 where nobody knows.
  void snapshot(TsNs ts_recv, InstrumentId instrument, std::uint32_t limit,
                std::span<const char> body) noexcept TICKWIRE_HOT {
    put(Kind::Snapshot, ts_recv, instrument, body, limit);
  }
  void open(TsNs ts, std::uint32_t conn) noexcept TICKWIRE_HOT { put(Kind::Open, ts, conn, {}); }
  void close(TsNs ts, std::uint32_t conn) noexcept TICKWIRE_HOT { put(Kind::Close, ts, conn, {}); }
  void stale(TsNs ts, InstrumentId instrument) noexcept TICKWIRE_HOT { put(Kind::Stale, ts, instrument, {}); }
  void quiet(TsNs ts) noexcept TICKWIRE_HOT { put(Kind::Quiet, ts, 0, {}); }
  void warm(TsNs ts) noexcept TICKWIRE_HOT { put(Kind::Warm, ts, 0, {}); }
  void live(TsNs ts) noexcept TICKWIRE_HOT { put(Kind::Live, ts, 0, {}); }
  void cold(TsNs ts, InstrumentId instrument) noexcept TICKWIRE_HOT { put(Kind::Cold, ts, instrument, {}); }

  /// For who can wait: would a message of so many bytes be taken now? Also true where it never will.
  [[nodiscard]] bool has_room(std::size_t bytes) noexcept TICKWIRE_HOT {
    const std::size_t size = sizeof(Head) + bytes;
    return size > ring_.max_record_bytes() || ring_.try_claim(size) != nullptr;
  }

 private:
  friend class Recorder;
  enum class Kind : std::uint32_t { Message, Snapshot, Open, Close, Stale, Quiet, Warm, Live, Cold };
  struct Head {
    TsNs ts;
    std::uint32_t subject;  // An instrument; the connection of an opening or a close.
    Kind kind;
    std::uint32_t limit;  // Of a snapshot.
  };

  void put(Kind kind, TsNs ts, std::uint32_t subject, std::span<const char> bytes,
           std::uint32_t limit = 0) noexcept TICKWIRE_HOT;

  concurrent::SpscByteRing ring_;
  metrics::Counter& lost_;
};

/// The same of a feed of datagrams: what md/stream_note.hpp describes. Producer thread: the ingest agent.
class StreamTap {
 public:
  StreamTap(std::size_t ring_bytes, metrics::Counter& lost, Arena& arena)
      : ring_(arena, ring_bytes), lost_(lost) {}

  /// Messages that were delivered, as a datagram of their line.
  void run(const net::SessionId& session, const net::Run& run) noexcept TICKWIRE_HOT;
  void snapshot_message(TsNs ts, net::MessageView message) noexcept TICKWIRE_HOT;
  void note(TsNs ts, const md::StreamNote& note) noexcept;

  /// Would a snapshot's message be taken now?
  [[nodiscard]] bool has_room() noexcept { return ring_.try_claim(kRoomBytes) != nullptr; }

 private:
  friend class Recorder;
  static constexpr std::size_t kRoomBytes = std::size_t{1} << 20U;  // A receive of a snapshot's messages.
  enum class Kind : std::uint32_t { Datagram, Note };
  struct Head {
    TsNs ts;
    std::uint32_t line;
    Kind kind;
  };

  [[nodiscard]] char* claim(const Head& head, std::size_t bytes) noexcept TICKWIRE_HOT;

  concurrent::SpscByteRing ring_;
  metrics::Counter& lost_;
  std::uint64_t next_in_snapshot_ = 1;  // Numbers its messages, so that a hole shows.
};

/// Where a stream's datagrams came from, for its capture: each line's addresses.
struct StreamLine {
  md::PcapEndpoint source;
  md::PcapEndpoint destination;
};

/// An agent's way to the recorder for whole signal records.
class RecordTap {
 public:
  RecordTap(std::size_t record_bytes, std::size_t slots, metrics::Counter& lost, Arena& arena)
      : queue_(arena, record_bytes, slots), record_bytes_(record_bytes), lost_(lost) {}

  void put(const std::byte* record) noexcept TICKWIRE_HOT;

 private:
  friend class Recorder;
  concurrent::SpscQueue queue_;
  std::size_t record_bytes_;
  metrics::Counter& lost_;
};

class Recorder final : public concurrent::Agent {
 public:
  struct Setup {
    std::string run_dir;
    std::vector<std::string> symbols;  // The instruments of the whole engine, by their id.
    DiskSync* sync;                    // Null: nothing is synced.
    std::int64_t sync_ns;              // So often.
    DiskCalls calls = DiskCalls::of_the_system();
  };

  /// Creates `run_dir`'s folders; throws SetupError where it cannot.
  Recorder(Setup setup, metrics::StatFile& stats);
  ~Recorder() override;

  /// Set-up. The taps live as long as the recorder.
  CaptureTap& add_capture(const std::string& feed, Arena& arena);
  /// `lines` by the number that runs have, the re-request server's last.
  StreamTap& add_stream(const std::string& feed, std::vector<StreamLine> lines, Arena& arena);
  RecordTap& add_rows(const std::string& agent, std::size_t record_bytes, Arena& arena);
  RecordTap& add_scores(const std::string& agent, std::size_t record_bytes, Arena& arena);

  [[nodiscard]] std::string_view name() const noexcept override { return "recorder"; }
  int do_work() noexcept override;
  void on_close() noexcept override;
  void every_100ms() noexcept override;

  /// Once its thread and that of `sync` have ended: writes what the taps still hold and closes the files.
  void finish() noexcept;
  /// Any thread: the files that were closed since the last call.
  [[nodiscard]] std::vector<RecordedFile> take_finished() { return finished_.take(); }

 private:
  struct CaptureStream {
    std::unique_ptr<CaptureTap> tap;
    std::unique_ptr<RecordedFiles> files;
  };
  struct DatagramStream {
    std::unique_ptr<StreamTap> tap;
    std::unique_ptr<RecordedFiles> files;
    std::vector<StreamLine> lines;
  };
  struct RecordStream {
    std::unique_ptr<RecordTap> tap;
    std::unique_ptr<RecordedFiles> files;
  };

  RecordTap& add_records(const std::string& stream, std::size_t record_bytes, Arena& arena);
  [[nodiscard]] int drain(CaptureStream& stream) noexcept;
  [[nodiscard]] int drain(DatagramStream& stream) noexcept;
  [[nodiscard]] int drain(RecordStream& stream) noexcept;

  template <typename Do>
  void for_all_files(const Do& act) {
    for (CaptureStream& stream : captures_) act(*stream.files);
    for (DatagramStream& stream : streams_) act(*stream.files);
    for (RecordStream& stream : records_) act(*stream.files);
  }

  std::vector<std::string> symbols_;
  metrics::StatFile& stats_;
  FinishedFiles finished_;
  RecordingDisk disk_;
  const std::int64_t sync_ns_;
  std::int64_t synced_at_ns_ = 0;
  std::vector<CaptureStream> captures_;
  std::vector<DatagramStream> streams_;
  std::vector<RecordStream> records_;
  std::string line_;
};

}  // namespace tickwire::engine

#include "tickwire/feed/venue/itch/replay_source.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "tickwire/core/error.hpp"
#include "tickwire/feed/moldudp64/mold_packet.hpp"
#include "tickwire/md/message_file.hpp"
#include "tickwire/md/pcap.hpp"
#include "tickwire/md/stream_note.hpp"

namespace tickwire::feed::itch {

namespace {

/// Lines of a stream that nobody has told us of; a venue has two.
constexpr std::uint32_t kMostLines = 8;
constexpr std::size_t kMostDatagramBytes = 65'507;
/// Of a stream whose lines nobody has configured: jumbo frames, and what two lines are apart.
constexpr std::size_t kKeptDatagramBytes = 9'216;
constexpr std::size_t kWindowPackets = 4'096;
constexpr std::int64_t kReorderNs = 2'000'000;

}  // namespace

class ReplaySource::Source {
 public:
  virtual ~Source() = default;
  virtual bool next(ReplayItem& item) = 0;
  virtual bool truncated() const noexcept = 0;
  virtual const std::string& error() const noexcept = 0;
  virtual ReplayStats stats() const noexcept { return {}; }
  virtual const Sequencer* sequencer() const noexcept { return nullptr; }
  virtual std::size_t lines() const noexcept { return 0; }
};

// ---- Day files ----

class ReplaySource::DayFiles final : public Source {
 public:
  DayFiles(const ReplayConfig& config) : midnights_(config.midnights), file_(config.files) {}

  bool next(ReplayItem& item) override {
    if (!held_ && !file_.next(message_)) return false;
    // Locates and orders are a file's own.
    held_ = !held_ && std::exchange(number_, file_.file()) != file_.file();
    if (message_.size() >= kTimeAt + kTimeBytes) {  // Else at the time of the one before it.
      TsNs since_midnight = 0;
      for (const std::byte b : message_.subspan(kTimeAt, kTimeBytes)) {
        since_midnight = since_midnight << 8U | static_cast<TsNs>(b);
      }
      ts_ = midnights_[number_] + since_midnight;
    }
    item = held_ ? ReplayItem{ReplayItem::Kind::Session, ts_}
                 : ReplayItem{ReplayItem::Kind::Message, ts_, file_.number(), 1, message_};
    return true;
  }
  bool truncated() const noexcept override { return file_.truncated(); }
  const std::string& error() const noexcept override { return file_.error(); }

 private:
  static constexpr std::size_t kTimeAt = 5;
  static constexpr std::size_t kTimeBytes = 6;

  const std::vector<TsNs> midnights_;
  md::MessageFile file_;
  std::span<const std::byte> message_;
  std::size_t number_ = 0;
  TsNs ts_ = 0;
  bool held_ = false;  // message_ has been read, and waits for the session that it begins.
};

// ---- Captures of datagrams ----

class ReplaySource::Captures final : public Source, private SequencerHandler {
 public:
  Captures(const ReplayConfig& config, const std::string& where, Arena& arena)
      : parser_(kMostDatagramBytes, arena), sequencer_(*this, completed(config), where, arena) {
    for (const UdpConfig& line : config.mold.lines) {
      md::PcapEndpoint endpoint;
      if (!md::parse_pcap_endpoint(line.address, line.port, endpoint)) {
        throw SetupError(where + ".lines", "the address of a group", line.address);
      }
      lines_.push_back(endpoint);
    }
    knows_lines_ = !lines_.empty();
    for (const std::string& file : config.files) {
      if (!md::is_pcap(file)) {
        throw SetupError("capture " + file, "a pcap or pcapng file, as the first input is", "another file");
      }
      readers_.push_back(std::make_unique<md::PcapReader>(file));
    }
  }

  bool next(ReplayItem& item) override {
    if (at_ < waiting_.size()) ++at_;
    while (at_ == waiting_.size()) {
      waiting_.clear();
      bytes_.clear();
      at_ = 0;
      if (!read()) return false;
    }
    const Waiting& one = waiting_[at_];
    item = one.item;
    item.message = std::as_bytes(std::span(bytes_).subspan(one.offset, one.bytes));
    return true;
  }
  bool truncated() const noexcept override { return !error_.empty(); }
  const std::string& error() const noexcept override { return error_; }
  ReplayStats stats() const noexcept override {
    ReplayStats all = stats_;
    for (const auto& reader : readers_) {
      const md::PcapStats& read = reader->stats();
      all.malformed += read.malformed;
      all.cut += read.cut + read.fragments;
    }
    return all;
  }
  const Sequencer* sequencer() const noexcept override { return ours_ ? nullptr : &sequencer_; }
  std::size_t lines() const noexcept override { return lines_.size(); }

 private:
  using Kind = ReplayItem::Kind;
  struct Waiting {
    ReplayItem item;
    std::size_t offset;
    std::size_t bytes;
  };

  static SequencerConfig completed(const ReplayConfig& config) {
    SequencerConfig sequencer = config.mold.sequencer;
    sequencer.start = SequencerConfig::Start::Beginning;
    sequencer.lines =
        std::max<std::uint32_t>(kMostLines, static_cast<std::uint32_t>(config.mold.lines.size()));
    sequencer.max_packet_bytes = kKeptDatagramBytes;
    for (const UdpConfig& line : config.mold.lines) {
      sequencer.max_packet_bytes = std::max(sequencer.max_packet_bytes, line.max_datagram_bytes);
    }
    if (config.mold.lines.empty()) {
      sequencer.window_packets = kWindowPackets;
      sequencer.reorder_ns = kReorderNs;
    }
    sequencer.request_attempts = 0;
    sequencer.snapshots = false;
    return sequencer;
  }

  /// One datagram, or the end. False where nothing more comes.
  bool read() {
    if (file_ == readers_.size()) return std::exchange(ended_, true) ? false : (end(), true);
    md::PcapDatagram datagram;
    md::PcapReader& reader = *readers_[file_];
    if (!reader.next(datagram)) {
      if (reader.truncated() && error_.empty()) error_ = reader.error();
      ++file_;
      return true;
    }
    if (datagram.source.port == 0 && datagram.destination.port == 0) {
      on_note(datagram);
      return true;
    }
    now_ = std::max(now_, datagram.ts);
    std::uint32_t line = 0;
    if (!ours_ && !find_line(datagram.destination, line)) {
      ++stats_.other_groups;
      return true;
    }
    MoldPacket packet;
    if (parser_.parse(datagram.payload, packet) != MoldError::None) {
      ++stats_.malformed;
      return true;
    }
    ours_ ? on_our_packet(datagram, packet) : on_line_packet(line, datagram, packet);
    return true;
  }

  void end() {
    // What waits behind a gap has waited long enough.
    while (!ours_ && sequencer_.deadline() != Sequencer::kNever) {
      now_ = std::max(now_, sequencer_.deadline());
      (void)sequencer_.poll(now_);
    }
  }

  bool find_line(const md::PcapEndpoint& group, std::uint32_t& line) {
    const auto found = std::find(lines_.begin(), lines_.end(), group);
    line = static_cast<std::uint32_t>(found - lines_.begin());
    if (found != lines_.end()) return true;
    if (knows_lines_ || lines_.size() == kMostLines) return false;
    lines_.push_back(group);
    return true;
  }

  void push(const ReplayItem& item, MessageView message = {}) {
    waiting_.push_back({item, bytes_.size(), message.size()});
    bytes_.insert(bytes_.end(), message.begin(), message.end());
  }

  // Of a line as it was.

  void on_line_packet(std::uint32_t line, const md::PcapDatagram& datagram, const MoldPacket& packet) {
    while (sequencer_.poll(now_)) {
    }
    switch (packet.kind) {
      case MoldKind::Data:
        sequencer_.on_packet(line, packet.session, packet.sequence, packet.messages,
                             {datagram.ts, 0, RecvClock::Recorded}, now_);
        break;
      case MoldKind::Heartbeat: sequencer_.on_heartbeat(line, packet.session, packet.sequence, now_); break;
      case MoldKind::EndOfSession: sequencer_.on_end(line, packet.session, packet.sequence, now_); break;
    }
  }

  TICKWIRE_HOT_EXEMPT_BEGIN("a replay allocates as its files ask for it")
  void on_run(const Run& run) noexcept override {
    std::uint64_t sequence = run.sequence;
    for (const MessageView& message : run.messages) {
      push({Kind::Message, run.arrival.ts_recv, sequence++, 1}, message);
    }
  }
  void on_session(const SessionId& /*session*/) noexcept override { push({Kind::Session, now_}); }
  void on_end_of_session() noexcept override {}
  void on_request(const SessionId& /*session*/, std::uint64_t /*first*/,
                  std::uint32_t /*count*/) noexcept override {}
  void on_lost(std::uint64_t first, std::uint64_t count) noexcept override {
    push({Kind::Lost, now_, first, count});
  }
  void on_want_snapshot() noexcept override {}
  TICKWIRE_HOT_EXEMPT_END

  // Of our own recorder.

  void on_our_packet(const md::PcapDatagram& datagram, const MoldPacket& packet) {
    if (in_snapshot_) {
      if (snapshot_broken_) return;
      if (packet.sequence != next_in_snapshot_) return break_snapshot(datagram.ts);
      next_in_snapshot_ += packet.messages.size();
      for (const MessageView& message : packet.messages) {
        push({Kind::SnapshotMessage, datagram.ts, 0, 1}, message);
      }
      return;
    }
    if (packet.session == kNoSession) return;  // Of a snapshot whose begin is missing.
    // The session that a note began, or another one, whose note is missing.
    if (session_ && *session_ != packet.session) {
      expected_ = 1;
      push({Kind::Session, datagram.ts});
    }
    session_ = packet.session;
    if (packet.sequence > expected_) {
      // The capture itself has a hole, or begins in the middle: its first file is not there.
      push({Kind::Lost, datagram.ts, expected_, packet.sequence - expected_});
    }
    std::uint64_t sequence = packet.sequence;
    for (const MessageView& message : packet.messages) {
      push({Kind::Message, datagram.ts, sequence++, 1}, message);
    }
    expected_ = sequence;
  }

  /// The recorder could not write all of it: what it built is no book.
  void break_snapshot(TsNs ts) {
    snapshot_broken_ = true;
    push({Kind::SnapshotFailed, ts});
  }

  void on_note(const md::PcapDatagram& datagram) {
    md::StreamNote note{};
    if (!md::parse_stream_note({datagram.payload.data(), datagram.payload.size()}, note)) {
      ++stats_.malformed;
      return;
    }
    const TsNs ts = datagram.ts;
    using Note = md::StreamNote::Kind;
    switch (note.kind) {
      case Note::Stream: ours_ = true; return;
      case Note::Session:
        expected_ = 1;
        session_.reset();
        in_snapshot_ = false;
        return push({Kind::Session, ts});
      case Note::Lost:
        expected_ = note.first + note.count;
        return push({Kind::Lost, ts, note.first, note.count});
      case Note::Snapshot:
        in_snapshot_ = true;
        snapshot_broken_ = false;
        next_in_snapshot_ = 1;
        return push({Kind::Snapshot, ts});
      case Note::SnapshotEnd:
        expected_ = note.first;
        // One whose begin is missing is none.
        if (!std::exchange(in_snapshot_, false)) return push({Kind::SnapshotFailed, ts});
        return snapshot_broken_ ? void() : push({Kind::SnapshotEnd, ts, note.first});
      case Note::SnapshotFailed:
        if (!std::exchange(in_snapshot_, false) || !snapshot_broken_) push({Kind::SnapshotFailed, ts});
        return;
      case Note::Close: return push({Kind::Close, ts});
      case Note::Open: return push({Kind::Open, ts});
    }
  }

  std::vector<std::unique_ptr<md::PcapReader>> readers_;
  std::size_t file_ = 0;
  bool ended_ = false;
  std::vector<md::PcapEndpoint> lines_;
  bool knows_lines_ = false;
  MoldParser parser_;
  Sequencer sequencer_;
  TsNs now_ = 0;  // The newest stamp.
  bool ours_ = false;
  std::optional<SessionId> session_;  // Of what has come since the note that began it.
  std::uint64_t expected_ = 1;
  bool in_snapshot_ = false;
  bool snapshot_broken_ = false;
  std::uint64_t next_in_snapshot_ = 1;
  // What the last datagram came to.
  std::vector<Waiting> waiting_;
  std::vector<char> bytes_;
  std::size_t at_ = 0;
  std::string error_;
  ReplayStats stats_;
};

ReplaySource::ReplaySource(const ReplayConfig& config, const std::string& where, Arena& arena) {
  if (!config.files.empty() && md::is_pcap(config.files.front())) {
    source_ = std::make_unique<Captures>(config, where, arena);
    return;
  }
  for (const std::string& file : config.files) {
    if (md::is_pcap(file)) {
      throw SetupError("input " + file, "a day file of messages, as the first input is", "a packet capture");
    }
  }
  source_ = std::make_unique<DayFiles>(config);
}

ReplaySource::~ReplaySource() = default;

bool ReplaySource::next(ReplayItem& item) { return source_->next(item); }
bool ReplaySource::truncated() const noexcept { return source_->truncated(); }
const std::string& ReplaySource::error() const noexcept { return source_->error(); }
ReplayStats ReplaySource::stats() const noexcept { return source_->stats(); }
const Sequencer* ReplaySource::sequencer() const noexcept { return source_->sequencer(); }
std::size_t ReplaySource::lines() const noexcept { return source_->lines(); }

}  // namespace tickwire::feed::itch

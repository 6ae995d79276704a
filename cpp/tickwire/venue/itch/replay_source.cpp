#include "tickwire/venue/itch/replay_source.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "tickwire/core/error.hpp"
#include "tickwire/md/byte_stream.hpp"
#include "tickwire/md/message_file.hpp"
#include "tickwire/md/pcap.hpp"
#include "tickwire/md/stream_note.hpp"
#include "tickwire/net/moldudp64/mold_packet.hpp"
#include "tickwire/net/moldudp64/mold_survey.hpp"
#include "tickwire/venue/itch/messages.hpp"

namespace tickwire::venue::itch {

namespace {

/// Lines of a stream that nobody has told us of: a venue has two, and a tap may bring copies.
constexpr std::uint32_t kMostLines = 32;
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
  [[nodiscard]] virtual std::size_t file() const noexcept TICKWIRE_HOT = 0;
  virtual ReplayStats stats() const noexcept { return {}; }
  virtual const net::Sequencer* sequencer() const noexcept { return nullptr; }
  virtual std::size_t lines() const noexcept { return 0; }
};

// ---- Day files ----

namespace {

/// By a message's first byte, how long it is; 0 where the type is not known.
constexpr std::array<std::uint8_t, 256> kLengths = [] {
  std::array<std::uint8_t, 256> lengths{};
  for (const TypeInfo& info : kTypes) lengths[static_cast<std::size_t>(info.type)] = info.bytes;
  return lengths;
}();

bool fits(std::span<const std::byte> message) {
  return !message.empty() && kLengths[static_cast<std::size_t>(message.front())] == message.size();
}

bool is_text(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte byte) {
    const auto c = static_cast<unsigned char>(byte);
    return (c >= ' ' && c != 0x7F) || c == '\n' || c == '\r' || c == '\t';
  });
}

}  // namespace

void check_day_file(const std::string& path) {
  constexpr std::size_t kMessages = 64;
  constexpr std::size_t kHead = 32;
  constexpr std::size_t kShown = 24;
  md::ByteStream stream;
  if (!stream.open(path, false)) return;  // Whoever reads it says so.
  std::vector<std::byte> head(kHead);
  std::size_t got = 0;
  for (std::size_t more = 1; more != 0 && got < head.size(); got += more) {
    more = stream.read(reinterpret_cast<char*>(head.data()) + got, head.size() - got);
  }
  head.resize(got);

  md::MessageFile file({path});
  std::span<const std::byte> message;
  std::size_t count = 0;
  std::size_t soup = 0;
  while (count < kMessages && file.next(message)) {
    if (fits(message)) return;
    ++count;
    // A packet of SoupBinTCP: its type, then the message.
    if (message.size() > 1 && fits(message.subspan(1))) ++soup;
  }
  if (file.truncated() && stream.failure() != nullptr) return;  // The reader's to tell.
  std::string found;
  if (soup != 0) {
    found = "packets of SoupBinTCP";
  } else if (!head.empty() && is_text(head)) {
    found = "text, which begins \"";
    for (const std::byte byte : std::span(head).first(std::min(head.size(), kShown))) {
      const auto c = static_cast<char>(byte);
      found += c == '\n' || c == '\r' || c == '\t' ? ' ' : c;
    }
    found += '"';
  } else if (count == 0) {
    found = file.error().empty() ? "not one message" : file.error();
  } else {
    found = (count == kMessages ? "that none of the first " : "that none of its ") + std::to_string(count) +
            " has the length of its type";
  }
  throw SetupError("input " + path, "a day file: messages of ITCH 5.0, each behind its length in two bytes",
                   found);
}

class ReplaySource::DayFiles final : public Source {
 public:
  DayFiles(const ReplayConfig& config) : midnights_(config.midnights), file_(config.files) {}

  bool next(ReplayItem& item) override {
    if (!held_ && !read()) return false;
    // Locates and orders are a file's own.
    held_ = !held_ && std::exchange(number_, file_.file()) != file_.file();
    // What is no message of ours, or tells a time that no day has, comes at the time of the one before it.
    if (unfit_ == 0) {
      TsNs since_midnight = 0;
      for (const std::byte b : message_.subspan(kTimeAt, kTimeBytes)) {
        since_midnight = since_midnight << 8U | static_cast<TsNs>(b);
      }
      if (since_midnight < kDayNs) ts_ = midnights_[number_] + since_midnight;
    }
    item = held_ ? ReplayItem{ReplayItem::Kind::Session, ts_}
                 : ReplayItem{ReplayItem::Kind::Message, ts_, file_.number(), 1, message_};
    return true;
  }
  bool truncated() const noexcept override { return file_.truncated(); }
  const std::string& error() const noexcept override { return file_.error(); }
  std::size_t file() const noexcept override { return number_; }

 private:
  static constexpr std::size_t kTimeAt = 5;
  static constexpr std::size_t kTimeBytes = 6;
  /// Messages in a row that fit no type, and are not all of one: nobody knows any more where one begins. A
  /// type that is new to us may well come for each stock, one after the other.
  static constexpr std::size_t kLostAfter = 16;

  bool read() {
    while (file_.next(message_)) {
      if (file_.file() != unfit_file_) unfit_ = 0;
      unfit_file_ = file_.file();
      if (fits(message_)) {
        unfit_ = 0;
        return true;
      }
      if (unfit_++ == 0) {
        first_unfit_ = file_.number();
        first_kind_ = kind_of(message_);
        one_kind_ = true;
      }
      one_kind_ = one_kind_ && kind_of(message_) == first_kind_;
      if (unfit_ < kLostAfter || one_kind_) return true;
      file_.give_up("from message " + std::to_string(first_unfit_) +
                    " on none has the length of its type: the file is damaged there");
    }
    return false;
  }

  static std::pair<std::byte, std::size_t> kind_of(std::span<const std::byte> message) {
    return {message.empty() ? std::byte{} : message.front(), message.size()};
  }

  const std::vector<TsNs> midnights_;
  md::MessageFile file_;
  std::span<const std::byte> message_;
  std::size_t number_ = 0;
  TsNs ts_ = 0;
  bool held_ = false;  // message_ has been read, and waits for the session that it begins.
  // Messages of this file that fit no type, up to the newest.
  std::size_t unfit_ = 0;
  std::size_t unfit_file_ = 0;
  std::uint64_t first_unfit_ = 0;
  std::pair<std::byte, std::size_t> first_kind_{};
  bool one_kind_ = true;
};

// ---- Captures of datagrams ----

class ReplaySource::Captures final : public Source, private net::SequencerHandler {
 public:
  Captures(const ReplayConfig& config, const std::string& where, Arena& arena)
      : configured_(lines_of(config, where)),
        survey_(config.files, configured_),
        parser_(kMostDatagramBytes, arena),
        sequencer_(*this, completed(config), where, arena) {
    for (const std::string& file : config.files) {
      if (!md::is_pcap(file)) {
        throw SetupError("capture " + file, "a pcap or pcapng file, as the first input is", "another file");
      }
      readers_.push_back(std::make_unique<md::PcapReader>(file));
    }
    if (survey_.ours()) return;
    const std::optional<std::uint32_t> stream = survey_.stream(where);
    for (const net::MoldChannel& channel : survey_.channels()) {
      const bool taken = stream && channel.stream == *stream && !channel.stray;
      (taken ? taken_ : left_).push_back({channel.group, channel.session});
      if (taken && configured_.empty() && lines_.size() < kMostLines) (void)line_of(channel.group);
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
  std::size_t file() const noexcept override { return std::min(file_, readers_.size() - 1); }
  ReplayStats stats() const noexcept override {
    ReplayStats all = stats_;
    for (const auto& reader : readers_) {
      const md::PcapStats& read = reader->stats();
      all.malformed += read.malformed;
      all.cut += read.cut + read.fragments;
    }
    return all;
  }
  const net::Sequencer* sequencer() const noexcept override { return survey_.ours() ? nullptr : &sequencer_; }
  std::size_t lines() const noexcept override {
    return configured_.empty() ? lines_.size() : configured_.size();
  }

 private:
  using Kind = ReplayItem::Kind;
  struct Waiting {
    ReplayItem item;
    std::size_t offset;
    std::size_t bytes;
  };

  struct Channel {
    md::PcapEndpoint group;
    net::SessionId session;
    bool operator==(const Channel&) const = default;
  };

  static std::vector<net::MoldLine> lines_of(const ReplayConfig& config, const std::string& where) {
    std::vector<net::MoldLine> lines;
    for (const net::UdpConfig& line : config.mold.lines) {
      net::MoldLine one;
      if (!md::parse_pcap_endpoint(line.address, line.port, one.group)) {
        throw SetupError(where + ".lines", "the address of a group", line.address);
      }
      if (!line.source_address.empty()) {
        one.sender.emplace();
        if (!md::parse_pcap_endpoint(line.source_address, 0, *one.sender)) {
          throw SetupError(where + ".lines", "the address of a sender", line.source_address);
        }
      }
      lines.push_back(one);
    }
    return lines;
  }

  static net::SequencerConfig completed(const ReplayConfig& config) {
    net::SequencerConfig sequencer = config.mold.sequencer;
    sequencer.start = net::SequencerConfig::Start::Beginning;
    sequencer.lines =
        std::max<std::uint32_t>(kMostLines, static_cast<std::uint32_t>(config.mold.lines.size()));
    sequencer.max_packet_bytes = kKeptDatagramBytes;
    for (const net::UdpConfig& line : config.mold.lines) {
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
    if (survey_.ours() && datagram.source.port == 0 && datagram.destination.port == 0) {
      on_note(datagram);
      return true;
    }
    now_ = std::max(now_, datagram.ts);
    net::MoldPacket packet;
    const bool is_read = parser_.parse(datagram.payload, packet) == net::MoldError::None;
    if (survey_.ours()) {
      is_read ? on_our_packet(datagram, packet) : void(++stats_.malformed);
      return true;
    }
    std::uint32_t line = 0;
    switch (judge(datagram, is_read ? &packet.session : nullptr, line)) {
      case Whose::Others: ++stats_.other_groups; break;
      case Whose::Stray: ++stats_.strays; break;
      case Whose::Ours: is_read ? on_line_packet(line, datagram, packet) : void(++stats_.malformed); break;
    }
    return true;
  }

  enum class Whose : std::uint8_t { Ours, Others, Stray };

  /// `session` is null where the datagram is no MoldUDP64.
  Whose judge(const md::PcapDatagram& datagram, const net::SessionId* session, std::uint32_t& line) {
    if (!configured_.empty()) {
      const auto found = std::find_if(configured_.begin(), configured_.end(),
                                      [&](const net::MoldLine& one) { return one.takes(datagram); });
      if (found == configured_.end()) return Whose::Others;
      line = static_cast<std::uint32_t>(found - configured_.begin());
    } else {
      auto found = std::find(lines_.begin(), lines_.end(), datagram.destination);
      if (found == lines_.end()) {
        // A line that was first heard behind what was surveyed. Of our session, or all is still to come.
        const bool adopted =
            session != nullptr && lines_.size() < kMostLines &&
            (taken_.empty() || std::any_of(
                                   taken_.begin(), taken_.end(),
                                   [&](const Channel& channel) { return channel.session == *session; }));
        if (!adopted || is_left(datagram.destination, *session)) return Whose::Others;
        taken_.push_back({datagram.destination, *session});
        const std::uint32_t added = line_of(datagram.destination);
        found = lines_.begin() + added;
      }
      line = static_cast<std::uint32_t>(found - lines_.begin());
    }
    return session != nullptr && is_left(datagram.destination, *session) ? Whose::Stray : Whose::Ours;
  }

  bool is_left(const md::PcapEndpoint& group, const net::SessionId& session) const {
    return std::find(left_.begin(), left_.end(), Channel{group, session}) != left_.end();
  }

  void end() {
    if (survey_.ours()) return;
    while (sequencer_.poll(now_)) {
    }
    sequencer_.finish();
  }

  std::uint32_t line_of(const md::PcapEndpoint& group) {
    const auto found = std::find(lines_.begin(), lines_.end(), group);
    const auto line = static_cast<std::uint32_t>(found - lines_.begin());
    if (found == lines_.end()) lines_.push_back(group);
    return line;
  }

  void push(const ReplayItem& item, net::MessageView message = {}) {
    waiting_.push_back({item, bytes_.size(), message.size()});
    bytes_.insert(bytes_.end(), message.begin(), message.end());
  }

  // Of a line as it was.

  void on_line_packet(std::uint32_t line, const md::PcapDatagram& datagram, const net::MoldPacket& packet) {
    while (sequencer_.poll(now_)) {
    }
    // The capture itself shows that the session before was over.
    if (packet.session != sequencer_.session() && survey_.follows(packet.session, sequencer_.session())) {
      sequencer_.believe(packet.session, now_);
    }
    switch (packet.kind) {
      case net::MoldKind::Data:
        sequencer_.on_packet(line, packet.session, packet.sequence, packet.messages,
                             {datagram.ts, 0, RecvClock::Recorded}, now_);
        break;
      case net::MoldKind::Heartbeat:
        sequencer_.on_heartbeat(line, packet.session, packet.sequence, now_);
        break;
      case net::MoldKind::EndOfSession: sequencer_.on_end(line, packet.session, packet.sequence, now_); break;
    }
  }

  TICKWIRE_HOT_EXEMPT_BEGIN("a replay allocates as its files ask for it")
  void on_run(const net::Run& run) noexcept override {
    std::uint64_t sequence = run.sequence;
    for (const net::MessageView& message : run.messages) {
      push({Kind::Message, run.arrival.ts_recv, sequence++, 1}, message);
    }
  }
  void on_session(const net::SessionId& /*session*/) noexcept override { push({Kind::Session, now_}); }
  void on_end_of_session() noexcept override {}
  void on_request(const net::SessionId& /*session*/, std::uint64_t /*first*/,
                  std::uint32_t /*count*/) noexcept override {}
  void on_lost(std::uint64_t first, std::uint64_t count) noexcept override {
    push({Kind::Lost, now_, first, count});
  }
  void on_want_snapshot() noexcept override {}
  TICKWIRE_HOT_EXEMPT_END

  // Of our own recorder.

  void on_our_packet(const md::PcapDatagram& datagram, const net::MoldPacket& packet) {
    if (in_snapshot_) {
      if (snapshot_broken_) return;
      if (packet.sequence != next_in_snapshot_) return break_snapshot(datagram.ts);
      next_in_snapshot_ += packet.messages.size();
      for (const net::MessageView& message : packet.messages) {
        push({Kind::SnapshotMessage, datagram.ts, 0, 1}, message);
      }
      return;
    }
    if (packet.session == net::kNoSession) return;  // Of a snapshot whose begin is missing.
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
    for (const net::MessageView& message : packet.messages) {
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
      case Note::Stream: return;
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
  const std::vector<net::MoldLine> configured_;
  const net::MoldSurvey survey_;
  std::vector<md::PcapEndpoint> lines_;  // That were found, where none is configured.
  std::vector<Channel> taken_;           // Of the stream …
  std::vector<Channel> left_;            // … and of others.
  net::MoldParser parser_;
  net::Sequencer sequencer_;
  TsNs now_ = 0;                           // The newest stamp.
  std::optional<net::SessionId> session_;  // Of what has come since the note that began it.
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

ReplaySource::ReplaySource(const ReplayConfig& all, const std::string& where, Arena& arena) {
  ReplayConfig config = all;
  config.files.clear();
  config.midnights.clear();
  for (std::size_t i = 0; i < all.files.size(); ++i) {
    std::error_code none;
    if (std::filesystem::is_regular_file(all.files[i], none) &&
        std::filesystem::is_empty(all.files[i], none)) {
      if (empty_.empty()) empty_ = all.files[i] + ": the file is empty";
      continue;
    }
    config.files.push_back(all.files[i]);
    if (i < all.midnights.size()) config.midnights.push_back(all.midnights[i]);
  }
  files_ = config.files;
  if (config.files.empty() && !all.files.empty()) {
    throw SetupError("input " + all.files.front(), "messages of ITCH 5.0, or a capture of MoldUDP64",
                     "an empty file");
  }
  if (!config.files.empty() && md::is_pcap(config.files.front())) {
    source_ = std::make_unique<Captures>(config, where, arena);
    return;
  }
  for (const std::string& file : config.files) {
    if (md::is_pcap(file)) {
      throw SetupError("input " + file, "a day file of messages, as the first input is", "a packet capture");
    }
    std::error_code none;
    if (std::filesystem::is_regular_file(file, none)) check_day_file(file);
  }
  source_ = std::make_unique<DayFiles>(config);
}

ReplaySource::~ReplaySource() = default;

bool ReplaySource::next(ReplayItem& item) { return source_->next(item); }
bool ReplaySource::truncated() const noexcept { return !empty_.empty() || source_->truncated(); }
const std::string& ReplaySource::error() const noexcept {
  return source_->error().empty() ? empty_ : source_->error();
}
ReplayStats ReplaySource::stats() const noexcept { return source_->stats(); }
const net::Sequencer* ReplaySource::sequencer() const noexcept { return source_->sequencer(); }
const std::string& ReplaySource::file() const noexcept { return files_[source_->file()]; }
std::size_t ReplaySource::lines() const noexcept { return source_->lines(); }

}  // namespace tickwire::venue::itch

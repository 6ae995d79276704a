#include "tickwire/venue/itch/replay_source.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "net/mold_packets.hpp"
#include "tickwire/core/error.hpp"
#include "tickwire/md/pcap.hpp"
#include "tickwire/md/stream_note.hpp"
#include "venue/itch_bytes.hpp"

namespace tickwire::venue::itch {
namespace {

using net::test::big_endian;
using net::test::mold_datagram;
using Kind = ReplayItem::Kind;
using Log = std::vector<std::string>;

constexpr TsNs kMs = 1'000'000;
const std::string kSession = "MONDAY    ";

class ItchReplaySource : public testing::Test {
 protected:
  ItchReplaySource() {
    const auto* const info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::temp_directory_path() /
              ("replay_source_" + std::string(info->name()) + "_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  ~ItchReplaySource() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& bytes) const {
    const std::string path = folder_ / name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  /// What comes, one text each.
  Log read(const ReplayConfig& config) {
    ReplaySource source(config, "feeds[0]", arena_);
    Log log;
    for (ReplayItem item{}; source.next(item);) {
      static constexpr const char* kNames[] = {"",     "session", "lost",  "snapshot", "in it",
                                               "next", "failed",  "close", "open"};
      std::string text = kNames[static_cast<int>(item.kind)];
      if (item.sequence != 0) text += (text.empty() ? "" : " ") + std::to_string(item.sequence);
      if (item.kind == Kind::Lost) text += " + " + std::to_string(item.count);
      if (!item.message.empty()) {
        text += ' ' + std::string(reinterpret_cast<const char*>(item.message.data()), item.message.size());
      }
      log.push_back(text + " at " + std::to_string(item.ts_recv));
    }
    stats_ = source.stats();
    error_ = source.error();
    return log;
  }

  std::filesystem::path folder_;
  Arena arena_;
  ReplayStats stats_;
  std::string error_;
};

/// A capture, written datagram by datagram.
class Pcap {
 public:
  Pcap() { md::format_pcap_header(bytes); }
  Pcap& line(int line, TsNs ts, const std::string& payload) {
    return datagram(ts, {"10.0.0.1", 999}, {line == 0 ? "239.1.1.1" : "239.1.1.2", 4000}, payload);
  }
  Pcap& note(TsNs ts, const md::StreamNote& note) {
    std::array<char, md::kMaxStreamNote> text;
    return datagram(ts, {"0.0.0.0", 0}, {"0.0.0.0", 0}, std::string(md::format_stream_note(text, note)));
  }
  using Address = std::pair<std::string, std::uint16_t>;
  Pcap& datagram(TsNs ts, const Address& from, const Address& to, const std::string& payload) {
    md::PcapDatagram out{.ts = ts, .source = {}, .destination = {}, .payload = payload};
    EXPECT_TRUE(md::parse_pcap_endpoint(from.first, from.second, out.source));
    EXPECT_TRUE(md::parse_pcap_endpoint(to.first, to.second, out.destination));
    md::format_pcap_datagram(bytes, out);
    return *this;
  }
  std::string bytes;
};

ReplayConfig captures(std::vector<std::string> files) {
  ReplayConfig config{.files = std::move(files), .midnights = {}, .mold = {}};
  for (const char* const group : {"239.1.1.1", "239.1.1.2"}) {
    net::UdpConfig line;
    line.address = group;
    line.port = 4000;
    line.max_datagram_bytes = 2048;
    config.mold.lines.push_back(line);
  }
  config.mold.sequencer.window_packets = 64;
  config.mold.sequencer.reorder_ns = 2 * kMs;
  return config;
}

TEST_F(ItchReplaySource, ADayFileIsASessionAndItsTimesCountFromItsDay) {
  const std::string first = bytes::system_event(7, 'O');
  const std::string second = bytes::system_event(9, 'C');
  const auto framed = [](const std::string& message) { return big_endian(message.size(), 2) + message; };
  const std::string a = write("a", framed(first) + framed(second));
  const std::string b = write("b", framed(first));
  EXPECT_EQ(read({.files = {a, b}, .midnights = {1000, 2000}, .mold = {}}),
            (Log{"1 " + first + " at 1007", "2 " + second + " at 1009", "session at 2007",
                 "1 " + first + " at 2007"}));
}

TEST_F(ItchReplaySource, BytesOfATypeThatIsNewToUsAreNoTime) {
  const std::string known = bytes::system_event(7, 'O');
  const std::string unknown = "z" + std::string(30, '0');
  const std::string shortened = bytes::system_event(8, 'Q').substr(0, 11);
  const std::string beyond = bytes::system_event(86'400'000'000'000, 'S');
  const std::string last = bytes::system_event(86'399'999'999'999, 'C');
  std::string file;
  for (const std::string& message : {unknown, known, unknown, shortened, beyond, last}) {
    file += big_endian(message.size(), 2) + message;
  }
  EXPECT_EQ(
      read({.files = {write("day", file)}, .midnights = {1000}, .mold = {}}),
      (Log{"1 " + unknown + " at 0", "2 " + known + " at 1007", "3 " + unknown + " at 1007",
           "4 " + shortened + " at 1007", "5 " + beyond + " at 1007", "6 " + last + " at 86400000000999"}));
}

TEST_F(ItchReplaySource, ArbitratesTheLinesOfACaptureOnItsOwnClock) {
  Pcap pcap;
  pcap.line(0, 1 * kMs, mold_datagram(kSession, 1, {"a"}))
      .line(1, 1 * kMs + 5, mold_datagram(kSession, 1, {"a"}))
      .line(0, 2 * kMs, mold_datagram(kSession, 3, {"c", "d"}))  // 2 was lost on this line …
      .line(1, 3 * kMs, mold_datagram(kSession, 2, {"b"}))       // … and comes on the other.
      .line(0, 5 * kMs, mold_datagram(kSession, 6, {"f"}))       // 5 on none:
      .line(1, 6 * kMs, mold_datagram(kSession, 6, {"f"}))
      .line(1, 8 * kMs, mold_datagram(kSession, 7, {"g"}))
      .line(0, 9 * kMs, mold_datagram(kSession, 9, {"i"}));  // The end comes before what is missing.
  EXPECT_EQ(read(captures({write("lines.pcap", pcap.bytes)})),
            (Log{"session at 1000000", "1 a at 1000000", "2 b at 3000000", "3 c at 2000000", "4 d at 2000000",
                 "lost 5 + 1 at 8000000", "6 f at 5000000", "7 g at 8000000", "lost 8 + 1 at 9000000",
                 "9 i at 9000000"}));
}

TEST_F(ItchReplaySource, SaysThatWhatCameBeforeACaptureIsMissing) {
  Pcap pcap;
  pcap.line(0, 1 * kMs, mold_datagram(kSession, 5, {"e"}))
      .line(0, 4 * kMs, mold_datagram(kSession, 6, {"f"}));
  EXPECT_EQ(read(captures({write("late.pcap", pcap.bytes)})),
            (Log{"session at 1000000", "lost 1 + 4 at 4000000", "5 e at 1000000", "6 f at 4000000"}));
}

TEST_F(ItchReplaySource, TakesTheGroupsThatAreThereWhereNoneIsConfigured) {
  Pcap pcap;
  pcap.line(0, 1, mold_datagram(kSession, 1, {"a"})).line(1, 2, mold_datagram(kSession, 2, {"b"}));
  ReplayConfig config = captures({write("any.pcap", pcap.bytes)});
  config.mold.lines.clear();
  EXPECT_EQ(read(config), (Log{"session at 1", "1 a at 1", "2 b at 2"}));
}

TEST_F(ItchReplaySource, CountsWhatIsOfNoLineOrDamaged) {
  Pcap pcap;
  pcap.line(0, 1, mold_datagram(kSession, 1, {"a"}))
      .datagram(2, {"10.0.0.1", 9}, {"239.9.9.9", 4000}, mold_datagram(kSession, 2, {"b"}))
      .line(0, 3, "short");
  EXPECT_EQ(read(captures({write("other.pcap", pcap.bytes)})), (Log{"session at 1", "1 a at 1"}));
  EXPECT_EQ(stats_.other_groups, 1u);
  EXPECT_EQ(stats_.malformed, 1u);
}

/// How long a stream was silent is what was recorded of it, and not what might have come after the end.
TEST_F(ItchReplaySource, TheEndOfACaptureProvesNoOtherSession) {
  for (const TsNs silence : {10 * kMs, 4'999 * kMs, 5'001 * kMs}) {
    SCOPED_TRACE(silence);
    Pcap pcap;
    for (std::uint64_t number = 1; number <= 5; ++number) {
      pcap.line(0, static_cast<TsNs>(number) * kMs, mold_datagram("MONDAY", number, {"m"}));
    }
    pcap.line(0, 6 * kMs, mold_datagram("STRAY", 1, {"s"}));
    for (const std::uint64_t number : {6, 7, 8, 10}) {  // Number 9 never comes.
      pcap.line(0, 7 * kMs, mold_datagram("MONDAY", number, {"m"}));
    }
    pcap.line(0, 7 * kMs + silence, mold_datagram("STRAY", 2, {"s"}));
    ReplayConfig config = captures({write("end.pcap", pcap.bytes)});
    config.mold.sequencer.silence_ns = 5'000 * kMs;
    config.mold.sequencer.end_silence_ns = 2'000 * kMs;
    const Log log = read(config);
    const bool proven = silence > 5'000 * kMs;
    EXPECT_EQ(std::count_if(log.begin(), log.end(),
                            [](const std::string& text) { return text.starts_with("session"); }),
              proven ? 2 : 1)
        << testing::PrintToString(log);
    const auto lost = std::find_if(
        log.begin(), log.end(), [](const std::string& text) { return text.starts_with("lost 9 + 1 at "); });
    ASSERT_NE(lost, log.end()) << testing::PrintToString(log);
    EXPECT_LE(std::stoll(lost->substr(14)), 7 * kMs + silence);
    EXPECT_TRUE(std::find(log.begin(), log.end(), "10 m at 7000000") != log.end());
  }
}

TEST_F(ItchReplaySource, CountsPacketsThatWereNotRecordedWhole) {
  Pcap pcap;
  pcap.line(0, 1, mold_datagram(kSession, 1, {"a"}));
  const std::size_t at = pcap.bytes.size();
  pcap.line(0, 2, mold_datagram(kSession, 2, {"b"}));
  // As a tool does that records the first bytes of each packet alone.
  const std::size_t recorded = pcap.bytes.size() - at - 16 - 1;
  pcap.bytes[at + 8] = static_cast<char>(recorded);
  pcap.bytes.pop_back();
  pcap.line(0, 3, mold_datagram(kSession, 2, {"b"}));
  EXPECT_EQ(read(captures({write("short.pcap", pcap.bytes)})), (Log{"session at 1", "1 a at 1", "2 b at 3"}));
  EXPECT_EQ(stats_.cut, 1u);
}

TEST_F(ItchReplaySource, FollowsOurOwnCaptureToTheLetter) {
  using Note = md::StreamNote::Kind;
  Pcap first;
  Pcap second;
  first.note(0, {Note::Stream})
      .note(5, {Note::Session})
      .line(0, 10, mold_datagram(kSession, 1, {"a", "b"}))
      .note(20, {Note::Lost, 3, 2})
      .note(30, {Note::Snapshot})
      .line(0, 31, mold_datagram("", 1, {"x"}));
  second.note(0, {Note::Stream})
      .line(0, 32, mold_datagram("", 2, {"y"}))
      .note(33, {Note::SnapshotFailed})
      .note(40, {Note::Snapshot})
      .line(0, 41, mold_datagram("", 1, {"z"}))
      .note(42, {Note::SnapshotEnd, 9})
      .line(1, 39, mold_datagram(kSession, 9, {"i"}))  // Was kept meanwhile.
      .note(50, {Note::Close})
      .note(60, {Note::Open})
      .line(1, 60, mold_datagram(kSession, 10, {"j"}));
  EXPECT_EQ(read(captures({write("1.pcap", first.bytes), write("2.pcap", second.bytes)})),
            (Log{"session at 5", "1 a at 10", "2 b at 10", "lost 3 + 2 at 20", "snapshot at 30",
                 "in it x at 31", "in it y at 32", "failed at 33", "snapshot at 40", "in it z at 41",
                 "next 9 at 42", "9 i at 39", "close at 50", "open at 60", "10 j at 60"}));
}

TEST_F(ItchReplaySource, SaysWhereOurOwnCaptureHasAHole) {
  Pcap pcap;
  pcap.note(0, {md::StreamNote::Kind::Stream})
      .line(0, 10, mold_datagram(kSession, 4, {"d"}))
      .line(0, 20, mold_datagram(kSession, 7, {"g"}));
  EXPECT_EQ(read(captures({write("000002.pcap", pcap.bytes)})),
            (Log{"lost 1 + 3 at 10", "4 d at 10", "lost 5 + 2 at 20", "7 g at 20"}));
}

TEST_F(ItchReplaySource, ASnapshotWithAHoleIsNone) {
  using Note = md::StreamNote::Kind;
  Pcap pcap;
  pcap.note(0, {Note::Stream})
      .note(5, {Note::Session})
      .note(30, {Note::Snapshot})
      .line(0, 31, mold_datagram("", 1, {"x"}))
      .line(0, 33, mold_datagram("", 3, {"z"}))  // What was between them the recorder could not write.
      .line(0, 34, mold_datagram("", 4, {"zz"}))
      .note(35, {Note::SnapshotEnd, 9})
      .line(0, 39, mold_datagram(kSession, 9, {"i"}))
      .note(40, {Note::Snapshot})
      .line(0, 41, mold_datagram("", 1, {"y"}))
      .note(42, {Note::SnapshotEnd, 10});
  EXPECT_EQ(read(captures({write("000001.pcap", pcap.bytes)})),
            (Log{"session at 5", "snapshot at 30", "in it x at 31", "failed at 33", "9 i at 39",
                 "snapshot at 40", "in it y at 41", "next 10 at 42"}));
}

TEST_F(ItchReplaySource, ASnapshotWithoutABeginIsNone) {
  using Note = md::StreamNote::Kind;
  const std::string nobodys(10, '\xFF');
  Pcap pcap;
  pcap.note(0, {Note::Stream})
      .note(5, {Note::Session})
      .line(0, 31, mold_datagram(nobodys, 1, {"x"}))
      .note(35, {Note::SnapshotEnd, 9})
      .line(0, 39, mold_datagram(kSession, 9, {"i"}));
  EXPECT_EQ(read(captures({write("000001.pcap", pcap.bytes)})),
            (Log{"session at 5", "failed at 35", "9 i at 39"}));
}

TEST_F(ItchReplaySource, ASessionOfWhichTheNoteIsMissingIsSeen) {
  using Note = md::StreamNote::Kind;
  Pcap pcap;
  pcap.note(0, {Note::Stream})
      .note(5, {Note::Session})
      .line(0, 10, mold_datagram(kSession, 1, {"a", "b"}))
      .line(0, 20, mold_datagram("TUESDAY   ", 2, {"d"}));
  EXPECT_EQ(
      read(captures({write("000001.pcap", pcap.bytes)})),
      (Log{"session at 5", "1 a at 10", "2 b at 10", "session at 20", "lost 1 + 1 at 20", "2 d at 20"}));
}

TEST_F(ItchReplaySource, GivesWhatIsWholeOfAFileThatIsCut) {
  Pcap pcap;
  pcap.line(0, 1, mold_datagram(kSession, 1, {"a"})).line(0, 2, mold_datagram(kSession, 2, {"b"}));
  const std::string cut = write("cut.pcap", pcap.bytes.substr(0, pcap.bytes.size() - 1));
  EXPECT_EQ(read(captures({cut})), (Log{"session at 1", "1 a at 1"}));
  EXPECT_NE(error_.find("cut.pcap"), std::string::npos) << error_;
}

TEST_F(ItchReplaySource, RefusesFilesOfTwoKinds) {
  const std::string day = write("day", big_endian(12, 2) + bytes::system_event(7, 'O'));
  const std::string pcap = write("lines.pcap", Pcap().bytes);
  for (const auto& files : {std::vector{day, pcap}, std::vector{pcap, day}}) {
    ReplayConfig config = captures(files);
    config.midnights = {0, 0};
    EXPECT_THROW(ReplaySource(config, "feeds[0]", arena_), SetupError);
  }
}

}  // namespace
}  // namespace tickwire::venue::itch

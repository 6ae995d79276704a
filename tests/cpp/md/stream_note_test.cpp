#include "tickwire/md/stream_note.hpp"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <string>

namespace tickwire::md {
namespace {

using Kind = StreamNote::Kind;

std::string text_of(const StreamNote& note) {
  std::array<char, kMaxStreamNote> out;
  return std::string(format_stream_note(out, note));
}

TEST(StreamNote, IsTheTextThatItsHeaderSays) {
  EXPECT_EQ(text_of({Kind::Stream}), R"({"tickwire":"stream"})");
  EXPECT_EQ(text_of({Kind::Lost, 12, 3}), R"({"tickwire":"lost","first":12,"count":3})");
  EXPECT_EQ(text_of({Kind::SnapshotEnd, 812}), R"({"tickwire":"snapshot_end","first":812})");
  EXPECT_EQ(text_of({Kind::Close}), R"({"tickwire":"close"})");
}

TEST(StreamNote, ReadsBackWhatWasWritten) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  for (int kind = 0; kind <= static_cast<int>(Kind::Open); ++kind) {
    const bool first = static_cast<Kind>(kind) == Kind::Lost || static_cast<Kind>(kind) == Kind::SnapshotEnd;
    const bool count = static_cast<Kind>(kind) == Kind::Lost;
    const StreamNote note{static_cast<Kind>(kind), first ? kMost : 0, count ? kMost : 0};
    StreamNote read{};
    ASSERT_TRUE(parse_stream_note(text_of(note), read)) << text_of(note);
    EXPECT_EQ(read.kind, note.kind);
    EXPECT_EQ(read.first, note.first);
    EXPECT_EQ(read.count, note.count);
  }
}

TEST(StreamNote, RefusesWhatIsNoneOfOurs) {
  const std::string whole = text_of({Kind::Lost, 12, 3});
  StreamNote note{};
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(parse_stream_note(whole.substr(0, size), note)) << size;
  }
  EXPECT_FALSE(parse_stream_note(whole + " ", note));
  EXPECT_FALSE(parse_stream_note(R"({"tickwire":"lost","first":12,"count":-3})", note));
  EXPECT_FALSE(parse_stream_note(R"({"tickwire":"lost","first":99999999999999999999,"count":1})", note));
  EXPECT_FALSE(parse_stream_note(R"({"tickwire":"los"})", note));
  EXPECT_FALSE(parse_stream_note(R"({"tickwire":"snapshot_ended","first":1})", note));
}

}  // namespace
}  // namespace tickwire::md

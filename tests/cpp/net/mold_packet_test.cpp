#include "tickwire/net/moldudp64/mold_packet.hpp"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "net/mold_packets.hpp"

namespace tickwire::net {
namespace {

using test::big_endian;
using test::mold_datagram;

struct Parsed {
  MoldError error;
  MoldPacket packet;
  std::vector<std::string> messages;
};

class MoldParserTest : public testing::Test {
 protected:
  Parsed parse(const std::string& datagram) {
    Parsed out{};
    // In memory of its exact size, so that a sanitizer sees the first byte too far.
    const std::vector<char> exact(datagram.begin(), datagram.end());
    out.error = parser.parse(exact, out.packet);
    if (out.error == MoldError::None) {
      for (const MessageView& message : out.packet.messages) {
        out.messages.emplace_back(message.data(), message.size());
      }
    }
    return out;
  }

  Arena arena;
  MoldParser parser{1500, arena};
};

TEST_F(MoldParserTest, GivesEachMessageOfADatagram) {
  const std::vector<std::string> messages{"first", "", std::string(300, 'x'), std::string("\0\xFF", 2)};
  const Parsed got = parse(mold_datagram("20231117A", 0x0102030405060708, messages));
  ASSERT_EQ(got.error, MoldError::None);
  EXPECT_EQ(got.packet.kind, MoldKind::Data);
  EXPECT_EQ(std::string(got.packet.session.data(), 10), "20231117A ");
  EXPECT_EQ(got.packet.sequence, 0x0102030405060708u);
  EXPECT_EQ(got.messages, messages);
}

TEST_F(MoldParserTest, KnowsHeartbeatAndEndOfSession) {
  const Parsed heartbeat = parse(mold_datagram("S", 77, {}));
  EXPECT_EQ(heartbeat.error, MoldError::None);
  EXPECT_EQ(heartbeat.packet.kind, MoldKind::Heartbeat);
  EXPECT_EQ(heartbeat.packet.sequence, 77u);
  const Parsed end = parse(mold_datagram("S", 78, {}, 0xFFFF));
  EXPECT_EQ(end.error, MoldError::None);
  EXPECT_EQ(end.packet.kind, MoldKind::EndOfSession);
  EXPECT_EQ(end.packet.sequence, 78u);
}

TEST_F(MoldParserTest, RefusesEveryDatagramCutShort) {
  const std::string whole = mold_datagram("S", 5, {"abc", "defgh"});
  for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
    EXPECT_EQ(parse(whole.substr(0, bytes)).error, bytes < 20 ? MoldError::Short : MoldError::Overrun)
        << bytes;
  }
  EXPECT_EQ(parse(whole).error, MoldError::None);
}

TEST_F(MoldParserTest, RefusesWhatTheLengthsDoNotExplain) {
  EXPECT_EQ(parse(mold_datagram("S", 5, {"abc"}) + "x").error, MoldError::Trailing);
  EXPECT_EQ(parse(mold_datagram("S", 5, {"abc", "de"}, 1)).error, MoldError::Trailing);
  EXPECT_EQ(parse(mold_datagram("S", 5, {"abc"}, 2)).error, MoldError::Overrun);
  EXPECT_EQ(parse(mold_datagram("S", 5, {"abc"}, 0)).error, MoldError::Trailing);
  EXPECT_EQ(parse(mold_datagram("S", 5, {"abc"}, 0xFFFF)).error, MoldError::Trailing);
  // A length whose addition to the position would wrap a 16-bit sum.
  EXPECT_EQ(parse(mold_datagram("S", 5, {}, 1) + "\xFF\xFF").error, MoldError::Overrun);
  EXPECT_EQ(parse(mold_datagram("S", 5, {}, 751) + std::string(1502, '\0')).error, MoldError::TooMany);
  EXPECT_EQ(parse(mold_datagram("S", ~std::uint64_t{0}, {"abc"})).error, MoldError::Sequence);
}

TEST(MoldRequest, HasTheShapeOfAHeader) {
  std::array<char, kMoldHeaderBytes> out{};
  write_mold_request(out, {'2', '0', '2', '3', '1', '1', '1', '7', 'A', ' '}, 0x1122334455667788, 0x99AA);
  EXPECT_EQ(std::string(out.data(), out.size()),
            "20231117A " + big_endian(0x1122334455667788, 8) + big_endian(0x99AA, 2));
}

}  // namespace
}  // namespace tickwire::net

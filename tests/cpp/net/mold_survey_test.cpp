/// Captures of anybody's: which streams they hold, and what is said where it is not one.

#include "tickwire/net/moldudp64/mold_survey.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "net/mold_packets.hpp"
#include "tickwire/core/error.hpp"
#include "tickwire/md/pcap.hpp"

namespace tickwire::net {
namespace {

using test::big_endian;
using test::mold_datagram;

/// A capture, written datagram by datagram.
class Pcap {
 public:
  Pcap() { md::format_pcap_header(bytes); }
  Pcap& to(const std::string& group, const std::string& payload, const std::string& sender = "10.0.0.1",
           std::uint16_t port = 4000) {
    md::PcapDatagram out{.ts = ++ts, .source = {}, .destination = {}, .payload = payload};
    EXPECT_TRUE(md::parse_pcap_endpoint(sender, 999, out.source));
    EXPECT_TRUE(md::parse_pcap_endpoint(group, port, out.destination));
    md::format_pcap_datagram(bytes, out);
    return *this;
  }
  Pcap& message(const std::string& group, const std::string& session, std::uint64_t number,
                const std::string& text, const std::string& sender = "10.0.0.1") {
    return to(group, mold_datagram(session, number, {text}), sender);
  }
  std::string bytes;
  TsNs ts = 0;
};

MoldLine line(const std::string& group, const std::string& sender = "") {
  MoldLine line;
  EXPECT_TRUE(md::parse_pcap_endpoint(group, 4000, line.group));
  if (!sender.empty()) {
    line.sender.emplace();
    EXPECT_TRUE(md::parse_pcap_endpoint(sender, 0, *line.sender));
  }
  return line;
}

class MoldSurveyTest : public testing::Test {
 protected:
  MoldSurveyTest() {
    folder_ = std::filesystem::temp_directory_path() /
              ("mold_survey_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) +
               "_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  ~MoldSurveyTest() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& bytes, const std::string& name = "a.pcap") const {
    const std::string path = folder_ / name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  MoldSurvey survey(const Pcap& pcap, std::vector<MoldLine> lines = {},
                    std::uint64_t most = MoldSurvey::kDatagrams) const {
    return {{write(pcap.bytes)}, std::move(lines), most};
  }
  /// Why there is not one stream; empty where there is.
  static std::string why(const MoldSurvey& survey) {
    try {
      (void)survey.stream("feeds[0]");
    } catch (const SetupError& error) {
      return error.what();
    }
    return "";
  }

  std::filesystem::path folder_;
};

TEST_F(MoldSurveyTest, TwoLinesOfOneSessionAreOneStream) {
  Pcap pcap;
  for (std::uint64_t i = 1; i <= 4; ++i) {
    const std::string text = "m" + std::to_string(i);
    pcap.message("239.1.1.1", "MONDAY", i, text);
    if (i != 2) pcap.message("239.1.1.2", "MONDAY", i, text, "10.0.0.2");
  }
  const MoldSurvey found = survey(pcap);
  EXPECT_TRUE(found.whole());
  EXPECT_FALSE(found.ours());
  ASSERT_EQ(found.channels().size(), 2U);
  EXPECT_EQ(found.channels()[0].datagrams, 4U);
  EXPECT_EQ(found.channels()[1].messages, 3U);
  EXPECT_EQ(found.channels()[1].first_ts, 2);
  EXPECT_EQ(found.channels()[1].last_ts, 7);
  EXPECT_EQ(found.channels()[0].stream, found.channels()[1].stream);
  EXPECT_EQ(found.stream("feeds[0]"), found.channels()[0].stream);
}

TEST_F(MoldSurveyTest, OneSessionOfOtherMessagesIsAnotherStreamAndSaysHowToNameOne) {
  Pcap pcap;
  for (std::uint64_t i = 1; i <= 1'200; ++i) {
    pcap.message("239.1.1.1", "MONDAY", i, "a" + std::to_string(i));
    if (i <= 3) pcap.message("239.1.1.2", "MONDAY", i, "b" + std::to_string(i));
  }
  EXPECT_EQ(why(survey(pcap)),
            "feeds[0].multicast.lines: expected the lines of one stream, because " +
                (folder_ / "a.pcap").string() +
                " holds 2 of MoldUDP64: session \"MONDAY\" on 239.1.1.1:4000 (1,200 datagrams); session "
                "\"MONDAY\" on 239.1.1.2:4000 (3 datagrams). Name one stream's, as in lines = "
                "[\"239.1.1.1:4000\"]");
  EXPECT_EQ(why(survey(pcap, {line("239.1.1.2")})), "") << "the one that is named";
  EXPECT_EQ(why(survey(pcap, {line("239.1.1.1"), line("239.1.1.2")})),
            "feeds[0].multicast.lines: expected lines of one stream, but " + (folder_ / "a.pcap").string() +
                " holds 2 of MoldUDP64 on them: session \"MONDAY\" on 239.1.1.1:4000 (1,200 datagrams); "
                "session \"MONDAY\" on 239.1.1.2:4000 (3 datagrams). Name one stream's, as in lines = "
                "[\"239.1.1.1:4000\"]");
}

TEST_F(MoldSurveyTest, TwoSendersToOneGroupAreToldApartByTheirAddress) {
  Pcap pcap;
  for (std::uint64_t i = 1; i <= 5; ++i) {
    pcap.message("239.1.1.1", "ONE", i, "a", "10.0.0.1").message("239.1.1.1", "TWO", i, "b", "10.0.0.2");
  }
  const std::string said = why(survey(pcap));
  EXPECT_TRUE(
      said.ends_with("session \"ONE\" on 239.1.1.1:4000 (5 datagrams); session \"TWO\" on 239.1.1.1:4000 (5 "
                     "datagrams). They "
                     "share a group: name a line's sender too, as in lines = [{address = \"239.1.1.1:4000\", "
                     "source_address = \"10.0.0.1\"}]"))
      << said;
  EXPECT_EQ(why(survey(pcap, {line("239.1.1.1", "10.0.0.2")})), "");

  Pcap same;
  for (std::uint64_t i = 1; i <= 5; ++i) {
    same.message("239.1.1.1", "ONE", i, "a").message("239.1.1.1", "TWO", i, "b");
  }
  EXPECT_TRUE(
      why(survey(same))
          .ends_with(
              ". They share a group and a sender: only a capture that holds one of them can be replayed"));
}

TEST_F(MoldSurveyTest, ASessionThatFollowsAnotherIsTheSameStreamAndAFewOfAStrangersAreStray) {
  Pcap days;
  for (std::uint64_t i = 1; i <= 5; ++i) days.message("239.1.1.1", "MONDAY", i, "a");
  for (std::uint64_t i = 1; i <= 5; ++i) days.message("239.1.1.1", "TUESDAY", i, "b");
  const MoldSurvey two = survey(days);
  EXPECT_EQ(why(two), "");
  const SessionId monday = two.channels()[0].session;
  const SessionId tuesday = two.channels()[1].session;
  EXPECT_TRUE(two.follows(tuesday, monday));
  EXPECT_FALSE(two.follows(monday, tuesday));

  Pcap strays;
  for (std::uint64_t i = 1; i <= 50; ++i) {
    strays.message("239.1.1.1", "MONDAY", i, "a");
    if (i % 16 == 0) strays.message("239.1.1.1", "STRANGER", i, "b", "10.0.0.9");
  }
  const MoldSurvey with = survey(strays);
  EXPECT_EQ(why(with), "");
  ASSERT_EQ(with.channels().size(), 2U);
  EXPECT_FALSE(with.channels()[0].stray);
  EXPECT_TRUE(with.channels()[1].stray);
  EXPECT_FALSE(with.follows(with.channels()[1].session, with.channels()[0].session));
}

TEST_F(MoldSurveyTest, AFewOfAnotherSessionAtTheEndOfACaptureDoNotShowThatTheFirstIsOver) {
  // So many of MONDAY, then of another session, of MONDAY again, and of the other to the end.
  const auto follows = [this](std::uint64_t first, std::uint64_t other, std::uint64_t again,
                              std::uint64_t end) {
    Pcap pcap;
    std::uint64_t monday = 0;
    std::uint64_t number = 0;
    for (std::uint64_t i = 0; i < first; ++i) pcap.message("239.1.1.1", "MONDAY", ++monday, "a");
    for (std::uint64_t i = 0; i < other; ++i) pcap.message("239.1.1.1", "OTHER", ++number, "b", "10.0.0.9");
    for (std::uint64_t i = 0; i < again; ++i) pcap.message("239.1.1.1", "MONDAY", ++monday, "a");
    for (std::uint64_t i = 0; i < end; ++i) pcap.message("239.1.1.1", "OTHER", ++number, "b", "10.0.0.9");
    const MoldSurvey found = survey(pcap);
    EXPECT_EQ(why(found), "");
    EXPECT_EQ(found.channels().size(), 2U);
    return found.follows(found.channels()[1].session, found.channels()[0].session);
  };
  EXPECT_FALSE(follows(50, 1, 0, 0));
  EXPECT_FALSE(follows(50, 4, 0, 0));
  EXPECT_FALSE(follows(50, 1, 2, 0)) << "two old ones behind it";
  EXPECT_FALSE(follows(50, 3, 1, 3));
  EXPECT_FALSE(follows(10, 4, 0, 0)) << "however few there were before";
  EXPECT_TRUE(follows(10, 5, 0, 0));
  EXPECT_FALSE(follows(51, 5, 0, 0)) << "less than a tenth";
  EXPECT_TRUE(follows(50, 5, 0, 0));
  EXPECT_TRUE(follows(50, 1, 2, 14)) << "it goes on, and the old ones were overtaken";
  EXPECT_FALSE(follows(50, 1, 2, 13));
  EXPECT_FALSE(follows(50, 1, 3, 99)) << "more than may be overtaken";
}

TEST_F(MoldSurveyTest, AStreamOfHeartbeatsGivesWayToOneThatHasMessages) {
  Pcap pcap;
  pcap.to("239.1.1.1", mold_datagram("QUIET", 1, {})).message("239.1.1.2", "BUSY", 1, "a");
  const MoldSurvey found = survey(pcap);
  EXPECT_EQ(found.stream("feeds[0]"), found.channels()[1].stream);
  Pcap only;
  only.to("239.1.1.1", mold_datagram("QUIET", 1, {}));
  EXPECT_EQ(why(survey(only)), "");
}

TEST_F(MoldSurveyTest, WhereNoDatagramIsOfMoldUdp64ItSaysWhatTheyLookLike) {
  std::string iex(42, '\0');
  iex[0] = 1;
  iex[2] = 0x04;
  iex[3] = static_cast<char>(0x80);
  iex[12] = 2;  // Behind 40 bytes of head.
  std::string cme(26, '\0');
  const std::uint64_t sent = 1'700'000'000'000'000'000;
  for (int i = 0; i < 8; ++i) cme[4 + static_cast<std::size_t>(i)] = static_cast<char>(sent >> (8 * i));
  cme[12] = 14;
  Pcap pcap;
  pcap.to("239.2.0.1", iex).to("239.2.0.1", iex).to("239.2.0.1", iex);
  pcap.to("239.2.0.2", cme).to("239.2.0.2", cme);
  pcap.to("239.2.0.3", "price 10\n");
  const std::string expected =
      "expected datagrams of MoldUDP64 (a session of ten characters, a number and a count, then messages "
      "behind their lengths)";
  EXPECT_EQ(why(survey(pcap)),
            "input " + (folder_ / "a.pcap").string() + ": " + expected +
                ", found none in 6: 3 to 239.2.0.1:4000 (they look like IEX-TP), 2 to 239.2.0.2:4000 (they "
                "look like CME MDP 3.0), 1 to 239.2.0.3:4000 (they look like text)");

  Pcap elsewhere;
  elsewhere.message("239.1.1.1", "MONDAY", 1, "a").message("239.1.1.1", "MONDAY", 2, "a", "10.0.0.3");
  EXPECT_EQ(why(survey(elsewhere, {line("239.1.1.1", "10.0.0.2"), line("239.1.1.5")})),
            "input " + (folder_ / "a.pcap").string() + ": " + expected +
                " to 239.1.1.1:4000 or 239.1.1.5:4000, as multicast.lines says and of the senders it names, "
                "found none in 2: 2 to 239.1.1.1:4000 (2 of them MoldUDP64)");

  EXPECT_TRUE(why(survey(Pcap())).ends_with(", found no packet"));
  Pcap many;
  for (int i = 0; i < 10; ++i) many.to("239.3.0." + std::to_string(i + 1), std::string(1, '\x80'));
  EXPECT_TRUE(why(survey(many)).ends_with("239.3.0.8:4000 and others to 2 more addresses"))
      << why(survey(many));
}

TEST_F(MoldSurveyTest, WhatIsNoDatagramIsCountedByWhatItIs) {
  Pcap pcap;
  const auto spoil = [&](std::size_t at, char value) {
    const std::size_t begin = pcap.bytes.size();
    pcap.message("239.1.1.1", "MONDAY", 1, "abcdef");
    pcap.bytes[begin + 16 + at] = value;  // Behind the head of the record.
  };
  const std::size_t before = pcap.bytes.size();
  pcap.message("239.1.1.1", "MONDAY", 1, "abcdef");
  const bool ethernet = pcap.bytes[before + 16] != 0x45;  // Else it begins with the head of IP.
  pcap.bytes.resize(before);
  const std::size_t ip = ethernet ? 14 : 0;
  spoil(ip + 9, 6);     // TCP.
  spoil(ip + 9, 1);     // ICMP.
  spoil(ip + 6, 0x20);  // More fragments follow.
  const std::string said = why(survey(pcap));
  EXPECT_NE(said.find("; 1 packets are of TCP, as of SoupBinTCP, whose messages are not read from packets"),
            std::string::npos)
      << said;
  EXPECT_NE(said.find("; 1 packets hold less than their datagram"), std::string::npos) << said;
  EXPECT_NE(said.find("; 1 packets are no UDP over IP"), std::string::npos) << said;
}

TEST_F(MoldSurveyTest, WhatWasNotLookedAtMayStillCome) {
  Pcap pcap;
  pcap.to("239.1.1.1", "text").message("239.1.1.1", "MONDAY", 1, "a");
  const MoldSurvey half = survey(pcap, {}, 1);
  EXPECT_FALSE(half.whole());
  EXPECT_EQ(half.stream("feeds[0]"), std::nullopt);
  EXPECT_TRUE(survey(pcap).stream("feeds[0]").has_value());
}

TEST_F(MoldSurveyTest, ASessionIsShownWithoutItsPaddingAndEscaped) {
  EXPECT_EQ(text_of({'M', 'O', 'N', ' ', ' ', ' ', ' ', ' ', ' ', ' '}), "\"MON\"");
  EXPECT_EQ(text_of({' ', ' ', 'A', ' ', '1', '"', '\\', '\0', '\x7F', ' '}), "\"A 1\\x22\\x5c\\x00\\x7f\"");
  EXPECT_EQ(text_of({' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '}), "\"\"");
}

}  // namespace
}  // namespace tickwire::net

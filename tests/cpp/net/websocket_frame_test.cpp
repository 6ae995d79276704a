#include "tickwire/net/websocket/frame_parser.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tickwire/core/error.hpp"
#include "tickwire/net/websocket/frame_writer.hpp"

namespace tickwire::net {
namespace {

constexpr std::size_t kFrameLimit = 70000;
constexpr std::size_t kMessageLimit = 90000;

// ---- A slow, obvious twin: the whole stream in one string, nothing incremental. ----

struct Item {
  FrameKind kind;
  int code;
  std::string payload;
  bool operator==(const Item&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Item& item) {
  return out << "{kind " << static_cast<int>(item.kind) << ", code " << item.code << ", "
             << item.payload.size() << " bytes: " << item.payload.substr(0, 40) << "}";
}

/// Decodes one code point by arithmetic on its value. 1: good, 0: cut short so far without fault, -1: bad.
int decode_one(const std::string& text, std::size_t& at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned>(static_cast<unsigned char>(text[i])); };
  const unsigned lead = byte(at);
  if (lead < 0x80) return ++at, 1;
  const int length = (lead & 0xE0) == 0xC0 ? 2 : (lead & 0xF0) == 0xE0 ? 3 : (lead & 0xF8) == 0xF0 ? 4 : 0;
  if (length == 0) return -1;
  // The lowest and the highest value that any completion can give: bad when that range misses
  // everything allowed.
  unsigned low = lead & (0xFFu >> (length + 1));
  unsigned high = low;
  bool cut = false;
  for (int i = 1; i < length; ++i) {
    if (at + i >= text.size()) {
      cut = true;
      low = low << 6;
      high = high << 6 | 0x3F;
    } else {
      if ((byte(at + i) & 0xC0) != 0x80) return -1;
      low = low << 6 | (byte(at + i) & 0x3F);
      high = high << 6 | (byte(at + i) & 0x3F);
    }
  }
  const unsigned minimum = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
  bool possible = false;
  for (unsigned value = low; value <= high && !possible; ++value) {
    possible = value >= minimum && value <= 0x10FFFF && !(value >= 0xD800 && value <= 0xDFFF);
  }
  if (!possible) return -1;
  if (cut) return 0;
  at += static_cast<std::size_t>(length);
  return 1;
}

enum class Utf8 { Good, Cut, Bad };

Utf8 oracle_utf8(const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const int step = decode_one(text, at);
    if (step < 0) return Utf8::Bad;
    if (step == 0) return Utf8::Cut;
  }
  return Utf8::Good;
}

std::vector<Item> twin_parse(std::string stream) {
  std::vector<Item> items;
  std::string message;
  bool in_message = false;
  bool text = false;
  const auto violation = [&](int code) {
    items.push_back({FrameKind::Violation, code, ""});
    return items;
  };
  while (!stream.empty()) {
    const auto byte = [&](std::size_t i) {
      return static_cast<unsigned>(static_cast<unsigned char>(stream[i]));
    };
    const bool fin = byte(0) >> 7;
    const unsigned reserved = byte(0) >> 4 & 7;
    const unsigned opcode = byte(0) & 15;
    if (reserved != 0) return violation(1002);
    if ((opcode > 2 && opcode < 8) || opcode > 10) return violation(1002);
    if (opcode >= 8 && !fin) return violation(1002);
    if (opcode == 0 && !in_message) return violation(1002);
    if ((opcode == 1 || opcode == 2) && in_message) return violation(1002);
    if (stream.size() < 2) return items;
    if (byte(1) >= 128) return violation(1002);
    if (opcode >= 8 && byte(1) > 125) return violation(1002);
    std::uint64_t length = byte(1);
    std::size_t header = 2;
    if (length == 126) {
      if (stream.size() < 4) return items;
      length = byte(2) * 256 + byte(3);
      if (length < 126) return violation(1002);
      header = 4;
    } else if (length == 127) {
      if (stream.size() < 10) return items;
      length = 0;
      for (std::size_t i = 2; i < 10; ++i) length = length * 256 + byte(i);
      if (byte(2) >= 128 || length < 65536) return violation(1002);
      header = 10;
    }
    if (length > kFrameLimit) return violation(1009);
    if (opcode < 8 && in_message && message.size() + length > kMessageLimit) return violation(1009);
    const std::string payload = stream.substr(header, length);
    const bool whole = payload.size() == length;
    if (opcode < 8) {
      if (opcode != 0) {
        message.clear();
        text = opcode == 1;
      }
      message += payload;
      in_message = true;
      if (text) {
        const Utf8 verdict = oracle_utf8(message);
        if (verdict == Utf8::Bad) return violation(1007);
        if (verdict == Utf8::Cut && whole && fin) return violation(1007);
      }
      if (!whole) return items;
      if (fin) {
        items.push_back({text ? FrameKind::Text : FrameKind::Binary, 0, message});
        in_message = false;
      }
    } else {
      if (!whole) return items;
      if (opcode == 8) {
        if (length == 1) return violation(1002);
        int code = 1005;
        if (length >= 2) {
          code = static_cast<unsigned char>(payload[0]) * 256 + static_cast<unsigned char>(payload[1]);
          const std::vector<int> good = {1000, 1001, 1002, 1003, 1007, 1008,
                                         1009, 1010, 1011, 1012, 1013, 1014};
          if (std::find(good.begin(), good.end(), code) == good.end() && !(code >= 3000 && code < 5000)) {
            return violation(1002);
          }
          if (oracle_utf8(payload.substr(2)) != Utf8::Good) return violation(1007);
        }
        items.push_back({FrameKind::Close, code, payload.size() >= 2 ? payload.substr(2) : ""});
        return items;
      }
      items.push_back({opcode == 9 ? FrameKind::Ping : FrameKind::Pong, 0, payload});
    }
    stream.erase(0, header + length);
  }
  return items;
}

// ---- Helpers ----

std::string frame(unsigned first_byte, const std::string& payload) {
  std::string out(1, static_cast<char>(first_byte));
  const std::size_t size = payload.size();
  if (size < 126) {
    out += static_cast<char>(size);
  } else if (size < 65536) {
    out += {126, static_cast<char>(size >> 8), static_cast<char>(size & 0xFF)};
  } else {
    out += static_cast<char>(127);
    for (int shift = 56; shift >= 0; shift -= 8) out += static_cast<char>(size >> shift & 0xFF);
  }
  return out + payload;
}

std::string close_payload(int code, const std::string& reason = "") {
  return std::string{static_cast<char>(code >> 8), static_cast<char>(code & 0xFF)} + reason;
}

class Feeder {
 public:
  void feed(std::string_view bytes) {
    while (!bytes.empty()) {
      const auto room = parser_.writable();
      ASSERT_FALSE(room.empty());
      const std::size_t count = std::min(room.size(), bytes.size());
      std::memcpy(room.data(), bytes.data(), count);
      parser_.commit(count);
      bytes.remove_prefix(count);
      for (;;) {
        const Frame got = parser_.next();
        if (got.kind == FrameKind::None) break;
        items_.push_back({got.kind, got.code, std::string(got.payload.data(), got.payload.size())});
        if (got.kind == FrameKind::Violation) return;
      }
      if (!items_.empty() && items_.back().kind == FrameKind::Violation) return;
    }
  }
  const std::vector<Item>& items() const { return items_; }
  FrameParser& parser() { return parser_; }
  void restart() {
    parser_.reset();
    items_.clear();
  }
  bool failed() const { return !items_.empty() && items_.back().kind == FrameKind::Violation; }

 private:
  FrameParser parser_{{.max_frame_bytes = kFrameLimit, .max_message_bytes = kMessageLimit}};
  std::vector<Item> items_;
};

std::vector<Item> parse_whole(const std::string& stream) {
  Feeder feeder;
  feeder.feed(stream);
  return feeder.items();
}

const std::string kEuro = "\xE2\x82\xAC";

// A stream with everything a good server may send.
std::string good_stream() {
  return frame(0x81, "{\"e\":\"depthUpdate\"}") + frame(0x89, "are you there") +
         frame(0x01, "first \xE2\x82") + frame(0x89, "") + frame(0x00, "\xAC second ") + frame(0x8A, "pong") +
         frame(0x80, "third") + frame(0x82, std::string("\x00\xFF\x80", 3)) + frame(0x81, "") +
         frame(0x81, std::string(200, 'x') + kEuro) + frame(0x02, "") + frame(0x80, "tail") +
         frame(0x88, close_payload(1001, "bye " + kEuro));
}

// ---- Tests ----

TEST(FrameParser, GivesEveryKindOfFrame) {
  const std::vector<Item> expected = {
      {FrameKind::Text, 0, "{\"e\":\"depthUpdate\"}"},
      {FrameKind::Ping, 0, "are you there"},
      {FrameKind::Ping, 0, ""},
      {FrameKind::Pong, 0, "pong"},
      {FrameKind::Text, 0, "first " + kEuro + " second third"},
      {FrameKind::Binary, 0, std::string("\x00\xFF\x80", 3)},
      {FrameKind::Text, 0, ""},
      {FrameKind::Text, 0, std::string(200, 'x') + kEuro},
      {FrameKind::Binary, 0, "tail"},
      {FrameKind::Close, 1001, "bye " + kEuro},
  };
  EXPECT_EQ(parse_whole(good_stream()), expected);
  EXPECT_EQ(twin_parse(good_stream()), expected);
}

TEST(FrameParser, GivesTheSameFramesAtEverySplitPoint) {
  const std::string stream = good_stream();
  const std::vector<Item> expected = twin_parse(stream);
  for (std::size_t cut = 0; cut <= stream.size(); ++cut) {
    Feeder feeder;
    feeder.feed(std::string_view(stream).substr(0, cut));
    feeder.feed(std::string_view(stream).substr(cut));
    ASSERT_EQ(feeder.items(), expected) << "cut at " << cut;
  }
}

TEST(FrameParser, GivesTheSameFramesByteByByte) {
  const std::string stream = good_stream();
  Feeder feeder;
  for (const char& byte : stream) feeder.feed({&byte, 1});
  EXPECT_EQ(feeder.items(), twin_parse(stream));
}

TEST(FrameParser, AgreesWithTheTwinOnRandomStreams) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto below = [&](unsigned limit) { return static_cast<unsigned>(random() % limit); };
  const std::vector<std::string> atoms = {"a",        "tick",     kEuro,          "\xF0\x9F\x90\x82",
                                          "\xC3\xA4", "\xE2\x82", "\xED\xA0\x80", "\xFF"};
  Feeder feeder;
  std::size_t messages = 0;
  std::size_t violations = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string stream;
    bool open = false;
    for (unsigned frames = 1 + below(12); frames-- > 0;) {
      std::string payload;
      const unsigned shape = below(100);
      const unsigned atom_count = shape < 80 ? below(40) : shape < 97 ? below(3000) : below(30000);
      // Mostly good text: a bad atom ends the stream.
      for (unsigned i = 0; i < atom_count; ++i) payload += atoms[below(3000) == 0 ? below(8) : below(5)];
      const unsigned choice = below(100);
      if (choice < 70) {
        const bool fin = below(2) != 0;
        stream += frame((fin ? 0x80u : 0u) | (open ? 0u : 1u + below(2)), payload);
        open = !fin;
      } else if (choice < 97) {
        stream += frame(0x89u + below(2), payload.substr(0, below(126)));
      } else if (choice < 98) {
        stream +=
            frame(0x88, close_payload(static_cast<int>(995 + below(25)), payload.substr(0, below(100))));
      } else {
        stream += frame(below(256), payload);
      }
    }
    if (below(5) == 0)
      stream[below(static_cast<unsigned>(stream.size()))] ^= static_cast<char>(1u << below(8));
    if (below(5) == 0) stream.resize(below(static_cast<unsigned>(stream.size() + 1)));

    const std::vector<Item> expected = twin_parse(stream);
    feeder.restart();
    const unsigned piece = 1 + below(below(2) != 0 ? 20 : 20000);
    for (std::size_t at = 0; at < stream.size() && !feeder.failed();) {
      const std::size_t count = std::min<std::size_t>(1 + below(piece), stream.size() - at);
      feeder.feed(std::string_view(stream).substr(at, count));
      at += count;
    }
    ASSERT_EQ(feeder.items(), expected) << "round " << round;
    for (const Item& item : expected) {
      messages += item.kind == FrameKind::Text || item.kind == FrameKind::Binary;
      violations += item.kind == FrameKind::Violation;
    }
  }
  // The streams were neither all good nor all bad.
  EXPECT_GT(messages, 1000u);
  EXPECT_GT(violations, 100u);
}

TEST(FrameParser, HandsOutUnfragmentedMessagesWithoutACopy) {
  FrameParser parser({.max_frame_bytes = 4096});
  const std::string stream = frame(0x81, "hello") + frame(0x81, "world");
  const auto room = parser.writable();
  std::memcpy(room.data(), stream.data(), stream.size());
  parser.commit(stream.size());
  EXPECT_EQ(parser.next().payload.data(), room.data() + 2);
  EXPECT_EQ(parser.next().payload.data(), room.data() + 9);
  EXPECT_EQ(parser.next().kind, FrameKind::None);
}

TEST(FrameParser, LeavesReadablePaddingBehindTheLargestMessage) {
  Feeder feeder;
  feeder.feed(frame(0x02, std::string(kMessageLimit - kFrameLimit, 'a')) +
              frame(0x80, std::string(kFrameLimit - 1, 'b')));
  feeder.feed(frame(0x82, std::string(kFrameLimit, 'c')));
  ASSERT_EQ(feeder.items().size(), 2u);
  FrameParser parser({.max_frame_bytes = 125});
  // The largest message at the very end of the buffer.
  for (int round = 0; round < 2000; ++round) {
    const std::string stream = frame(0x82, std::string(125, static_cast<char>('a' + round % 26)));
    for (std::size_t at = 0; at < stream.size();) {
      const auto room = parser.writable();
      const std::size_t count = std::min<std::size_t>(stream.size() - at, 101);
      std::memcpy(room.data(), stream.data() + at, count);
      parser.commit(count);
      at += count;
      const Frame got = parser.next();
      if (got.kind == FrameKind::None) continue;
      std::string with_padding(got.payload.data(), got.payload.size() + kMessagePadding);
      EXPECT_EQ(with_padding.substr(0, 125), stream.substr(2));
    }
  }
}

struct ViolationCase {
  const char* name;
  std::string bytes;
  int code;
  const char* says;
};

TEST(FrameParser, RefusesEachViolationWithItsCloseCode) {
  const std::string open_text = frame(0x01, "open");
  const std::vector<ViolationCase> cases = {
      {"rsv1", frame(0xC1, "x"), 1002, "reserved bits"},
      {"rsv2", frame(0xA1, "x"), 1002, "reserved bits"},
      {"rsv3 on ping", frame(0x99, "x"), 1002, "reserved bits"},
      {"data opcode 3", frame(0x83, ""), 1002, "unknown data opcode"},
      {"data opcode 7", frame(0x87, ""), 1002, "unknown data opcode"},
      {"control opcode 11", frame(0x8B, ""), 1002, "unknown control opcode"},
      {"control opcode 15", frame(0x8F, ""), 1002, "unknown control opcode"},
      {"fragmented ping", frame(0x09, "x"), 1002, "fragmented control"},
      {"fragmented close", frame(0x08, ""), 1002, "fragmented control"},
      {"long ping", frame(0x89, std::string(126, 'x')), 1002, "longer than 125"},
      {"long close", frame(0x88, close_payload(1000, std::string(124, 'x'))), 1002, "longer than 125"},
      {"masked", std::string("\x81\x81\x00\x00\x00\x00x", 7), 1002, "masked"},
      {"continuation of nothing", frame(0x80, "x"), 1002, "continuation of no message"},
      {"unfinished continuation of nothing", frame(0x00, "x"), 1002, "continuation of no message"},
      {"text inside text", open_text + frame(0x81, "x"), 1002, "new message inside"},
      {"binary inside text", open_text + frame(0x02, "x"), 1002, "new message inside"},
      {"16-bit length of 125", std::string("\x82\x7E\x00\x7D", 4), 1002, "shortest form"},
      {"64-bit length of 65535", std::string("\x82\x7F\x00\x00\x00\x00\x00\x00\xFF\xFF", 10), 1002,
       "shortest form"},
      {"64-bit length, top bit", std::string("\x82\x7F\x80\x00\x00\x00\x00\x00\xFF\xFF", 10), 1002,
       "top bit"},
      {"huge frame", std::string("\x82\x7F\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 10), 1009,
       "frame above max_frame_bytes"},
      {"frame above max_frame_bytes", frame(0x82, std::string(kFrameLimit + 1, 'x')), 1009,
       "frame above max_frame_bytes"},
      {"message above max_frame_bytes",
       frame(0x02, std::string(kFrameLimit, 'x')) +
           frame(0x80, std::string(kMessageLimit - kFrameLimit + 1, 'x')),
       1009, "message above max_frame_bytes"},
      {"bad text", frame(0x81, "ab\xFF"), 1007, "not UTF-8"},
      {"text cut inside a character", frame(0x81, "ab\xE2\x82"), 1007, "ends inside"},
      {"bad text over fragments", frame(0x01, "\xE2\x82") + frame(0x80, "x"), 1007, "not UTF-8"},
      {"fragments end inside a character", frame(0x01, "\xE2") + frame(0x80, "\x82"), 1007, "ends inside"},
      {"close with one byte", frame(0x88, "x"), 1002, "half a code"},
      {"close reason not UTF-8", frame(0x88, close_payload(1000, "\xC0\xAF")), 1007, "reason"},
      {"close reason cut", frame(0x88, close_payload(1000, "\xE2\x82")), 1007, "reason"},
  };
  for (const ViolationCase& c : cases) {
    SCOPED_TRACE(c.name);
    Feeder feeder;
    feeder.feed(c.bytes);
    ASSERT_FALSE(feeder.items().empty());
    EXPECT_EQ(feeder.items().back(), (Item{FrameKind::Violation, c.code, ""}));
    EXPECT_NE(feeder.parser().violation().find(c.says), std::string_view::npos)
        << feeder.parser().violation();
    EXPECT_EQ(twin_parse(c.bytes), feeder.items());
  }
}

TEST(FrameParser, AcceptsOnlyCloseCodesThatMayBeSent) {
  Feeder feeder;
  for (int code = 0; code <= 65535; ++code) {
    const bool good =
        (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
    feeder.restart();
    feeder.feed(frame(0x88, close_payload(code)));
    ASSERT_EQ(feeder.items().size(), 1u);
    ASSERT_EQ(feeder.items()[0].kind, good ? FrameKind::Close : FrameKind::Violation) << code;
    ASSERT_EQ(feeder.items()[0].code, good ? code : 1002) << code;
  }
}

TEST(FrameParser, TakesTheLargestFrameAndMessage) {
  const std::string large = std::string(kFrameLimit, 'x');
  EXPECT_EQ(parse_whole(frame(0x81, large)), (std::vector<Item>{{FrameKind::Text, 0, large}}));
  const std::string rest = std::string(kMessageLimit - kFrameLimit, 'y');
  EXPECT_EQ(parse_whole(frame(0x01, large) + frame(0x80, rest)),
            (std::vector<Item>{{FrameKind::Text, 0, large + rest}}));
}

TEST(FrameParser, TakesEveryLengthAroundTheHeaderForms) {
  for (const std::size_t size : {0u, 1u, 124u, 125u, 126u, 127u, 65534u, 65535u, 65536u, 65537u}) {
    const std::string payload(size, 'z');
    EXPECT_EQ(parse_whole(frame(0x82, payload)), (std::vector<Item>{{FrameKind::Binary, 0, payload}}))
        << size;
  }
}

TEST(FrameParser, RefusesBadTextBeforeItsFrameIsComplete) {
  Feeder feeder;
  const std::string bytes = frame(0x81, "abc\xF4\x90" + std::string(1000, 'x'));
  feeder.feed(std::string_view(bytes).substr(0, 4 + 4));
  EXPECT_TRUE(feeder.items().empty());
  feeder.feed(std::string_view(bytes).substr(8, 1));  // 0x90 after 0xF4: above U+10FFFF, whatever follows.
  EXPECT_EQ(feeder.items(), (std::vector<Item>{{FrameKind::Violation, 1007, ""}}));
}

TEST(FrameParser, RefusesABadHeaderBeforeItsPayload) {
  for (const auto& [bytes, code] : std::vector<std::pair<std::string, int>>{
           {"\xC1", 1002},
           {"\x83", 1002},
           {std::string("\x81\xFF", 2), 1002},
           {std::string("\x82\x7F\x00\x00\x00\x00\x10\x00\x00\x00", 10), 1009}}) {
    Feeder feeder;
    feeder.feed(bytes);
    EXPECT_EQ(feeder.items(), (std::vector<Item>{{FrameKind::Violation, code, ""}}));
  }
}

TEST(FrameParser, TakesNothingAfterClose) {
  EXPECT_EQ(parse_whole(frame(0x88, close_payload(1000)) + frame(0x81, "late") + frame(0x88, "")),
            (std::vector<Item>{{FrameKind::Close, 1000, ""}}));
}

TEST(FrameParser, ReportsACloseWithoutACode) {
  EXPECT_EQ(parse_whole(frame(0x88, "")), (std::vector<Item>{{FrameKind::Close, 1005, ""}}));
}

TEST(FrameParser, StartsAfreshAfterReset) {
  Feeder feeder;
  feeder.feed(frame(0x01, "\xE2\x82"));
  feeder.restart();
  feeder.feed(frame(0x81, "new"));
  EXPECT_EQ(feeder.items(), (std::vector<Item>{{FrameKind::Text, 0, "new"}}));
  feeder.feed(frame(0xF1, "bad"));
  feeder.restart();
  feeder.feed(frame(0x81, "again"));
  EXPECT_EQ(feeder.items(), (std::vector<Item>{{FrameKind::Text, 0, "again"}}));
}

TEST(FrameParser, StaysInPlaceOverALongStream) {
  // More than the buffer many times over, with a tail carried from read to read.
  const std::string one = frame(0x82, std::string(3000, 'q'));
  std::string stream;
  for (int i = 0; i < 2000; ++i) stream += one;
  Feeder feeder;
  for (std::size_t at = 0; at < stream.size(); at += 7777)
    feeder.feed(std::string_view(stream).substr(at, 7777));
  ASSERT_EQ(feeder.items().size(), 2000u);
  for (const Item& item : feeder.items()) ASSERT_EQ(item.payload, std::string(3000, 'q'));
}

TEST(FrameParser, RefusesLimitsThatCannotWork) {
  EXPECT_THROW(FrameParser({.max_frame_bytes = 124}), SetupError);
  EXPECT_THROW(FrameParser({.max_frame_bytes = 1000, .max_message_bytes = 999}), SetupError);
  EXPECT_THROW(FrameParser({.max_frame_bytes = ~std::size_t{0}}), SetupError);
  try {
    FrameParser({.max_frame_bytes = 7});
  } catch (const SetupError& error) {
    EXPECT_STREQ(error.what(), "max_frame_bytes: expected at least 125 (the largest control frame), found 7");
  }
}

Utf8 validate_at_every_split(const std::string& text) {
  Utf8 verdict = Utf8::Good;
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    Utf8Validator validator;
    const bool good =
        validator.accept(text.data(), cut) && validator.accept(text.data() + cut, text.size() - cut);
    const Utf8 here = !good ? Utf8::Bad : validator.complete() ? Utf8::Good : Utf8::Cut;
    if (cut == 0) verdict = here;
    EXPECT_EQ(here, verdict) << "cut at " << cut;
  }
  return verdict;
}

TEST(Utf8Validator, AgreesWithTheOracleOnAllSequencesOfUpToThreeBytes) {
  for (unsigned a = 0; a < 256; ++a) {
    for (unsigned b = 0; b < 256; ++b) {
      const std::string two = {static_cast<char>(a), static_cast<char>(b)};
      Utf8Validator validator;
      const bool good = validator.accept(two.data(), 2);
      ASSERT_EQ(!good                  ? Utf8::Bad
                : validator.complete() ? Utf8::Good
                                       : Utf8::Cut,
                oracle_utf8(two))
          << a << ' ' << b;
      if (a < 0xE0) continue;
      for (unsigned c = 0; c < 256; c += 1) {
        const std::string three = two + static_cast<char>(c);
        validator.reset();
        const bool ok = validator.accept(three.data(), 3);
        ASSERT_EQ(!ok ? Utf8::Bad : validator.complete() ? Utf8::Good : Utf8::Cut, oracle_utf8(three));
      }
    }
  }
}

TEST(Utf8Validator, AgreesWithTheOracleOnKnownHardCases) {
  for (const std::string& text :
       std::vector<std::string>{"",
                                "plain",
                                "\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5",
                                "\xF4\x8F\xBF\xBF",
                                "\xF4\x90\x80\x80",
                                "\xED\x9F\xBF",
                                "\xED\xA0\x80",
                                "\xEE\x80\x80",
                                "\xEF\xBF\xBF",
                                "\xC0\x80",
                                "\xC1\xBF",
                                "\xE0\x80\xAF",
                                "\xE0\xA0\x80",
                                "\xF0\x80\x80\xAF",
                                "\xF0\x90\x80\x80",
                                "\xF8\x88\x80\x80\x80",
                                "\xFC\x84\x80\x80\x80\x80",
                                "\xFE",
                                "\xFF",
                                "\x80",
                                "\xBF",
                                std::string(31, 'a') + "\xE2\x82\xAC" + std::string(64, 'b') + "\xC3\xA4",
                                std::string(100, 'x') + "\xE2",
                                std::string("nul\0inside", 10)}) {
    EXPECT_EQ(validate_at_every_split(text), oracle_utf8(text)) << testing::PrintToString(text);
  }
}

TEST(FrameWriter, WritesWhatAServerUnmasks) {
  KeyGenerator keys(7);
  for (const std::size_t size :
       {0u, 1u, 3u, 4u, 7u, 8u, 9u, 125u, 126u, 127u, 1000u, 65535u, 65536u, 70001u}) {
    std::string payload(size, '\0');
    for (char& byte : payload) byte = static_cast<char>(keys.next());
    std::string out(masked_frame_bytes(size) + 1, '\x55');
    const auto mask = static_cast<std::uint32_t>(keys.next());
    write_frame(out.data(), FrameOpcode::Binary, mask, payload);
    EXPECT_EQ(out.back(), '\x55') << "wrote past its bytes";
    out.pop_back();
    // Unmask by the book, byte for byte.
    std::string expected = frame(0x82, payload);
    const std::size_t header = expected.size() - size;
    expected[1] = static_cast<char>(expected[1] | 0x80);
    ASSERT_EQ(out.substr(0, header), expected.substr(0, header)) << size;
    const std::string key = out.substr(header, 4);
    std::string unmasked = out.substr(header + 4);
    for (std::size_t i = 0; i < unmasked.size(); ++i)
      unmasked[i] = static_cast<char>(unmasked[i] ^ key[i % 4]);
    EXPECT_EQ(unmasked, payload) << size;
  }
}

TEST(KeyGenerator, RepeatsWithASeedAndDiffersWithout) {
  KeyGenerator a(1), b(1), c(0), d(0);
  EXPECT_EQ(a.next(), b.next());
  EXPECT_NE(c.next(), d.next());
  for (int i = 0; i < 1000; ++i) {
    const double u = a.uniform();
    ASSERT_TRUE(u >= 0 && u < 1);
  }
}

}  // namespace
}  // namespace tickwire::net

#include "tickwire/venue/itch/decoder.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "itch_bytes.hpp"

namespace tickwire::venue::itch {
namespace {

Message decoded(const std::string& text) {
  Decoder decoder;
  Message message;
  EXPECT_EQ(decoder.decode(bytes::view(text), message), Outcome::Message) << text[0];
  return message;
}

TEST(ItchDecoder, ReadsTheHeaderOfEveryTypeAndRefusesOtherLengths) {
  Decoder decoder;
  for (const TypeInfo& info : kTypes) {
    std::string text = bytes::Writer(static_cast<char>(info.type), 0x1234, 0x4BCDEF012345).done();
    text.resize(info.bytes, '\0');
    if (info.type == Type::AddOrder || info.type == Type::AddOrderMpid || info.type == Type::Trade)
      text[19] = 'S';
    if (info.type == Type::ExecutedWithPrice) text[31] = 'N';
    if (info.symbol_at != 0) text.replace(info.symbol_at, 8, "ZVZZT   ");
    Message message;
    ASSERT_EQ(decoder.decode(bytes::view(text), message), Outcome::Message) << info.name;
    EXPECT_EQ(message.type, info.type);
    EXPECT_EQ(message.locate, 0x1234) << info.name;
    EXPECT_EQ(message.ts_ns, 0x4BCDEF012345) << info.name;
    for (std::size_t size = 1; size < 60; ++size) {
      if (size == info.bytes) continue;
      // In memory of its own size: a sanitizer sees a byte too far.
      const auto memory = std::make_unique<std::byte[]>(size);
      std::copy_n(bytes::view(text).begin(), std::min<std::size_t>(size, text.size()), memory.get());
      ASSERT_EQ(decoder.decode({memory.get(), size}, message), Outcome::BadLength)
          << info.name << ' ' << size;
      EXPECT_EQ(message.locate, size >= 3 ? 0x1234 : 0);
    }
  }
  for (const std::uint64_t count : decoder.counts()) EXPECT_EQ(count, 1U);
  EXPECT_EQ(decoder.refused(), kTypes.size() * 58);
  EXPECT_EQ(decoder.unknown(), 0U);
}

TEST(ItchDecoder, SkipsAndCountsUnknownTypes) {
  Decoder decoder;
  Message message;
  for (const char type : {'Z', 'G', '\0', '\xFF'}) {
    EXPECT_EQ(decoder.decode(bytes::view(std::string(30, type)), message), Outcome::UnknownType);
  }
  EXPECT_EQ(decoder.decode({}, message), Outcome::Empty);
  EXPECT_EQ(decoder.unknown(), 4U);
  EXPECT_EQ(decoder.refused(), 0U);
}

TEST(ItchDecoder, ReadsOrders) {
  const Message add =
      decoded(bytes::add(13, 34'200'000'000'001, 0x0102030405060708, 'S', 300, "AAPL", 3'110'200));
  EXPECT_EQ(add.ref, 0x0102030405060708U);
  EXPECT_EQ(add.side, md::Side::Ask);
  EXPECT_EQ(add.qty, 300U);
  EXPECT_EQ(add.price, 3'110'200);
  EXPECT_EQ(decoded(bytes::add_mpid(13, 1, 9, 'B', 1, "AAPL", 5)).side, md::Side::Bid);
  EXPECT_EQ(decoded(bytes::add_mpid(13, 1, 9, 'B', 1, "AAPL", 5)).price, 5);

  const Message executed = decoded(bytes::executed(1, 2, 77, 40, 9001));
  EXPECT_EQ(executed.ref, 77U);
  EXPECT_EQ(executed.qty, 40U);
  EXPECT_EQ(executed.match, 9001U);
  EXPECT_TRUE(executed.printable);
  const Message at = decoded(bytes::executed_at(1, 2, 77, 40, 9002, 'N', 12'345));
  EXPECT_FALSE(at.printable);
  EXPECT_EQ(at.price, 12'345);
  EXPECT_EQ(at.match, 9002U);
  EXPECT_TRUE(decoded(bytes::executed_at(1, 2, 77, 40, 9002, 'Y', 12'345)).printable);

  EXPECT_EQ(decoded(bytes::cancel(1, 2, 78, 5)).qty, 5U);
  EXPECT_EQ(decoded(bytes::remove(1, 2, 79)).ref, 79U);
  const Message replace = decoded(bytes::replace(1, 2, 80, 81, 6, 7));
  EXPECT_EQ(replace.ref, 80U);
  EXPECT_EQ(replace.new_ref, 81U);
  EXPECT_EQ(replace.qty, 6U);
  EXPECT_EQ(replace.price, 7);
}

TEST(ItchDecoder, ReadsTradesAndStates) {
  const Message trade = decoded(bytes::trade(4, 5, 600, "MSFT", 70'000, 8));
  EXPECT_EQ(trade.qty, 600U);
  EXPECT_EQ(trade.price, 70'000);
  EXPECT_EQ(trade.match, 8U);
  const Message cross = decoded(bytes::cross(4, 5, 5'000'000'000, "MSFT", 70'000, 9));
  EXPECT_EQ(cross.qty, 5'000'000'000U);
  EXPECT_EQ(cross.price, 70'000);
  EXPECT_EQ(cross.match, 9U);
  EXPECT_EQ(cross.code, 'O');
  EXPECT_EQ(decoded(bytes::system_event(1, 'Q')).code, 'Q');
  EXPECT_EQ(decoded(bytes::directory(4, 5, "MSFT")).stock(), "MSFT");
  EXPECT_EQ(decoded(bytes::trading_action(4, 5, "BRK.A", 'H')).code, 'H');
  EXPECT_EQ(decoded(bytes::trading_action(4, 5, "BRK.A", 'H')).stock(), "BRK.A");
  const Message halt = decoded(bytes::operational_halt(4, 5, "LONGNAME", 'Q', 'H'));
  EXPECT_EQ(halt.code, 'Q');
  EXPECT_EQ(halt.action, 'H');
  EXPECT_EQ(halt.stock(), "LONGNAME");
}

TEST(ItchDecoder, RefusesFieldsThatCannotBe) {
  Decoder decoder;
  Message message;
  for (const std::string& text :
       {bytes::add(3, 1, 1, 'X', 1, "AAPL", 5), bytes::add(3, 1, 1, 'B', 1, "AAPL", 2'000'000'001),
        bytes::executed_at(3, 1, 1, 1, 1, ' ', 5), bytes::replace(3, 1, 1, 2, 1, 0xFFFFFFFF),
        bytes::remove(3, static_cast<std::uint64_t>(kDayNs), 1)}) {
    EXPECT_EQ(decoder.decode(bytes::view(text), message), Outcome::BadField);
    EXPECT_EQ(message.locate, 3);
  }
  EXPECT_EQ(decoder.refused(), 5U);
}

}  // namespace
}  // namespace tickwire::venue::itch

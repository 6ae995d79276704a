#include "tickwire/venue/itch/market.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "itch_bytes.hpp"
#include "tickwire/md/message_file.hpp"
#include "tickwire/md/pcap.hpp"
#include "tickwire/net/moldudp64/mold_packet.hpp"

namespace tickwire::venue::itch {
namespace {

using md::BookState;
using md::InvalidReason;
using md::Level;
using md::Side;

class ItchMarket : public ::testing::Test {
 protected:
  ItchMarket() {
    table_.add({"AAPL", "nasdaq", kPriceDecimals, 0});
    table_.add({"MSFT", "nasdaq", kPriceDecimals, 0});
  }

  Update say(const std::string& message) { return market_->on_message(bytes::view(message)); }
  void make(std::size_t max_orders = 100) { market_.emplace(table_, max_orders, arena_); }
  void open() {
    make();
    say(bytes::directory(13, 1, "AAPL"));
    say(bytes::trading_action(13, 2, "AAPL", 'T'));
  }
  std::vector<Level> levels(Side side, InstrumentId instrument = 0) const {
    std::vector<Level> all(market_->books().depth(instrument, side));
    market_->books().top(instrument, side, all);
    return all;
  }

  Arena arena_;
  md::InstrumentTable table_;
  std::optional<Market> market_;
};

TEST_F(ItchMarket, LearnsLocatesAndLeavesOthersAlone) {
  make();
  EXPECT_EQ(market_->state(0), BookState::Empty);
  EXPECT_EQ(say(bytes::add(12, 1, 1, 'B', 100, "IBM", 10)).instrument, kNoInstrument);
  EXPECT_EQ(say(bytes::directory(13, 1, "AAPL")).instrument, 0U);
  EXPECT_EQ(say(bytes::directory(14, 1, "GOOG")).instrument, kNoInstrument);
  EXPECT_EQ(say(bytes::directory(15, 1, "MSFT")).instrument, 1U);
  EXPECT_EQ(market_->state(0), BookState::Halted);
  say(bytes::trading_action(13, 2, "AAPL", 'T'));
  EXPECT_EQ(market_->state(0), BookState::Valid);
  EXPECT_EQ(market_->state(1), BookState::Halted);
  // Another stock's order, and what follows it, is nothing to us, the same reference or not.
  say(bytes::add(14, 3, 7, 'B', 100, "GOOG", 10));
  say(bytes::add(13, 3, 8, 'B', 50, "AAPL", 11));
  say(bytes::executed(14, 3, 7, 10, 1));
  say(bytes::remove(14, 3, 99));
  EXPECT_EQ(levels(Side::Bid), (std::vector<Level>{{11, 50}}));
  EXPECT_EQ(market_->state(0), BookState::Valid);
  EXPECT_EQ(market_->counts().others, 5U);
  market_->reset();
  EXPECT_EQ(market_->state(0), BookState::Empty);
  EXPECT_EQ(say(bytes::add(13, 1, 1, 'B', 100, "IBM", 10)).instrument, kNoInstrument);
}

/// Two instruments, each with an order.
class ItchWhose : public ItchMarket {
 protected:
  void SetUp() override {
    open();
    say(bytes::directory(15, 1, "MSFT"));
    say(bytes::trading_action(15, 2, "MSFT", 'T'));
    say(bytes::directory(20, 1, "GOOG"));
    say(bytes::add(13, 3, 1, 'B', 100, "AAPL", 10));
    say(bytes::add(15, 3, 2, 'B', 100, "MSFT", 10));
  }
  void expect(BookState first, BookState second) {
    EXPECT_EQ(market_->state(0), first);
    EXPECT_EQ(market_->state(1), second);
  }
};

TEST_F(ItchWhose, AnOrderOfAnothersBookMakesBothSuspect) {
  for (const std::string& message : {bytes::remove(13, 4, 2), bytes::cancel(13, 4, 2, 5),
                                     bytes::executed(13, 4, 2, 5, 9), bytes::replace(13, 4, 2, 3, 5, 11)}) {
    SetUp();
    const Update update = say(message);
    EXPECT_EQ(update.instrument, 0U);
    EXPECT_EQ(update.other, 1U);
    EXPECT_EQ(update.misfit, Misfit::OtherBook);
    expect(BookState::Suspect, BookState::Suspect);
    EXPECT_EQ(market_->counts().other_book, 1U);
  }
}

TEST_F(ItchWhose, AnOrderOfOursUnderAStrangersLocateMakesItSuspect) {
  for (const std::uint16_t locate : {std::uint16_t{20}, std::uint16_t{99}, std::uint16_t{0}}) {
    SetUp();
    EXPECT_FALSE(say(bytes::remove(locate, 4, 77)).state);
    expect(BookState::Valid, BookState::Valid);
    const Update update = say(bytes::remove(locate, 4, 2));
    EXPECT_EQ(update.instrument, 1U);
    EXPECT_EQ(update.misfit, Misfit::OtherBook);
    expect(BookState::Valid, BookState::Suspect);
    EXPECT_EQ(say(bytes::remove(locate, 5, 2)).misfit, Misfit::None) << "told once";
  }
}

TEST_F(ItchWhose, AMessageThatNamesAnotherStockMakesBothSuspect) {
  say(bytes::add(13, 4, 3, 'B', 5, "MSFT", 10));
  expect(BookState::Suspect, BookState::Suspect);
  EXPECT_EQ(market_->counts().other_stock, 1U);
  EXPECT_EQ(levels(Side::Bid), (std::vector<Level>{{10, 100}}));
  SetUp();
  EXPECT_FALSE(say(bytes::trade(13, 4, 5, "GOOG", 11, 504)).traded);
  expect(BookState::Suspect, BookState::Valid);
  SetUp();
  const Update update = say(bytes::add(20, 4, 3, 'B', 5, "MSFT", 10));
  EXPECT_EQ(update.instrument, 1U);
  EXPECT_EQ(update.misfit, Misfit::OtherStock);
  expect(BookState::Valid, BookState::Suspect);
}

/// Not only where it is an order or a trade: another's trading state, or any other word of it.
TEST_F(ItchWhose, WhateverNamesAnotherStockMakesBothSuspect) {
  const auto named = [](char type, std::size_t bytes, std::uint16_t locate, const char* stock) {
    std::string out = bytes::trading_action(locate, 4, stock, 'T');
    out[0] = type;
    out.resize(bytes, ' ');
    return out;
  };
  for (const auto& [type, bytes] : {std::pair{'H', 25}, {'h', 21}, {'Y', 20}}) {
    for (const std::uint16_t locate : {std::uint16_t{13}, std::uint16_t{20}}) {
      SetUp();
      const Update update = say(named(type, static_cast<std::size_t>(bytes), locate, "MSFT"));
      EXPECT_EQ(update.misfit, Misfit::OtherStock) << type;
      EXPECT_EQ(market_->counts().other_stock, 1U);
      expect(locate == 13 ? BookState::Suspect : BookState::Valid, BookState::Suspect);
    }
    SetUp();
    say(named(type, static_cast<std::size_t>(bytes), 13, "AAPL"));
    say(named(type, static_cast<std::size_t>(bytes), 99, "GOOG"));
    EXPECT_EQ(market_->counts().other_stock, 0U);
    EXPECT_NE(market_->state(1), BookState::Suspect);
    EXPECT_NE(market_->state(0), BookState::Suspect);
  }
}

TEST_F(ItchWhose, ABlankStockNamesNoOther) {
  for (const char filler : {' ', '\0'}) {
    for (const char type : {'Y', 'H'}) {
      SetUp();
      std::string message = bytes::trading_action(13, 4, "", 'T');
      message[0] = type;
      message.replace(11, 8, 8, filler);
      if (type == 'Y') message.resize(20);
      EXPECT_EQ(say(message).misfit, Misfit::None);
      expect(BookState::Valid, BookState::Valid);
    }
  }
}

TEST_F(ItchWhose, AnOrderThatAnotherBookHasAlreadyMakesBothSuspect) {
  for (const std::string& message :
       {bytes::add(13, 4, 2, 'B', 5, "AAPL", 9), bytes::replace(13, 4, 1, 2, 5, 11)}) {
    SetUp();
    const Update update = say(message);
    EXPECT_EQ(update.misfit, Misfit::DuplicateOrder);
    EXPECT_EQ(update.other, 1U);
    expect(BookState::Suspect, BookState::Suspect);
  }
}

TEST_F(ItchWhose, ALocateThatIsGivenAwayMakesItsStockSuspect) {
  EXPECT_EQ(say(bytes::directory(13, 4, "AAPL")).misfit, Misfit::None);  // Repeated.
  expect(BookState::Valid, BookState::Valid);
  EXPECT_EQ(say(bytes::directory(13, 4, "ZZZZ")).misfit, Misfit::LocateMoved);
  expect(BookState::Suspect, BookState::Valid);
  say(bytes::add(13, 5, 5, 'B', 1, "ZZZZ", 10));
  say(bytes::directory(17, 5, "AAPL"));
  say(bytes::trading_action(17, 5, "AAPL", 'T'));
  say(bytes::add(17, 5, 6, 'B', 1, "AAPL", 9));
  expect(BookState::Suspect, BookState::Valid);
  SetUp();
  say(bytes::directory(15, 4, "AAPL"));  // One of ours for another.
  expect(BookState::Suspect, BookState::Suspect);
  SetUp();
  say(bytes::directory(31, 4, "AAPL"));
  expect(BookState::Suspect, BookState::Valid);
  EXPECT_EQ(market_->counts().locate_moved, 1U);
}

TEST_F(ItchMarket, AStockThatIsNamedAfterItsFirstOrderIsSuspect) {
  make();
  EXPECT_EQ(say(bytes::add(13, 1, 1, 'B', 100, "AAPL", 10)).misfit, Misfit::UnnamedLocate);
  say(bytes::remove(15, 1, 9));  // Says not whose it is …
  for (const auto& [locate, stock] : {std::pair{13, "AAPL"}, std::pair{15, "MSFT"}}) {
    say(bytes::directory(static_cast<std::uint16_t>(locate), 1, stock));  // … until now.
    say(bytes::trading_action(static_cast<std::uint16_t>(locate), 2, stock, 'T'));
  }
  EXPECT_EQ(market_->state(0), BookState::Suspect);
  EXPECT_EQ(market_->state(1), BookState::Suspect);
  EXPECT_EQ(market_->counts().unnamed_locate, 3U);  // The order, and both directories.
}

TEST_F(ItchWhose, AStartOfMessagesBeginsEverythingAnew) {
  say(bytes::remove(13, 4, 77));
  say(bytes::system_event(5, 'E'));
  market_->lose();
  const Update update = say(bytes::system_event(6, 'O'));
  EXPECT_TRUE(update.anew && update.all && update.state);
  expect(BookState::Empty, BookState::Empty);
  EXPECT_EQ(market_->books().orders(), 0U);
  // Locates are another day's, and so are references.
  say(bytes::directory(15, 7, "AAPL"));
  say(bytes::trading_action(15, 7, "AAPL", 'T'));
  say(bytes::add(15, 8, 2, 'S', 7, "AAPL", 12));
  expect(BookState::Valid, BookState::Empty);
  EXPECT_EQ(levels(Side::Ask), (std::vector<Level>{{12, 7}}));
  // The first of a session has nothing to forget; in a snapshot it is what the venue's day was.
  market_->reset();
  EXPECT_FALSE(say(bytes::system_event(1, 'O')).anew);
  market_->rebuild();
  say(bytes::directory(13, 1, "AAPL"));
  EXPECT_FALSE(say(bytes::system_event(1, 'O')).anew);
  EXPECT_EQ(market_->state(0), BookState::Suspect);
}

TEST_F(ItchMarket, SaysWhatAMessageWas) {
  open();
  Update update = say(bytes::add(13, 3, 1, 'B', 100, "AAPL", 10));
  EXPECT_TRUE(update.book && update.arrived && !update.cancelled && !update.traded && !update.state);
  EXPECT_EQ(update.ts_ns, 3);
  say(bytes::add(13, 3, 2, 'S', 80, "AAPL", 12));

  update = say(bytes::executed(13, 4, 1, 30, 501));
  EXPECT_TRUE(update.book && update.traded && !update.arrived && !update.cancelled);
  EXPECT_EQ(update.trade.price, 10);
  EXPECT_EQ(update.trade.qty, 30);
  EXPECT_EQ(update.trade.id, 501U);
  EXPECT_EQ(update.trade.aggressor, md::Aggressor::Seller);

  update = say(bytes::executed_at(13, 5, 2, 10, 502, 'Y', 11));
  EXPECT_TRUE(update.traded);
  EXPECT_EQ(update.trade.price, 11);
  EXPECT_EQ(update.trade.aggressor, md::Aggressor::Buyer);
  // Of a cross: the book shrinks, the volume prints once, in the cross itself.
  update = say(bytes::executed_at(13, 6, 2, 20, 503, 'N', 11));
  EXPECT_TRUE(update.book && !update.traded);
  update = say(bytes::cross(13, 6, 1000, "AAPL", 11, 503));
  EXPECT_TRUE(update.traded && !update.book);
  EXPECT_EQ(update.trade.qty, 1000);
  EXPECT_EQ(update.trade.aggressor, md::Aggressor::Unknown);
  // A cross of nothing is no trade.
  EXPECT_FALSE(say(bytes::cross(13, 6, 0, "AAPL", 0, 0)).traded);
  update = say(bytes::trade(13, 7, 5, "AAPL", 11, 504));
  EXPECT_TRUE(update.traded && !update.book);

  update = say(bytes::cancel(13, 8, 1, 20));
  EXPECT_TRUE(update.book && update.cancelled && !update.arrived);
  update = say(bytes::replace(13, 9, 1, 3, 25, 9));
  EXPECT_TRUE(update.book && update.cancelled && update.arrived);
  EXPECT_EQ(levels(Side::Bid), (std::vector<Level>{{9, 25}}));
  EXPECT_EQ(levels(Side::Ask), (std::vector<Level>{{12, 50}}));
  update = say(bytes::remove(13, 10, 3));
  EXPECT_TRUE(update.book && update.cancelled);
  EXPECT_TRUE(levels(Side::Bid).empty());
  EXPECT_EQ(market_->state(0), BookState::Valid);
}

TEST_F(ItchMarket, HaltsAndResumes) {
  open();
  for (const char state : {'H', 'P', 'Q'}) {
    EXPECT_TRUE(say(bytes::trading_action(13, 3, "AAPL", state)).state);
    EXPECT_EQ(market_->state(0), BookState::Halted);
    EXPECT_EQ(market_->reason(0), InvalidReason::Halted);
    // Orders go on to be kept, crossed or not.
    say(bytes::add(13, 3, static_cast<std::uint64_t>(state), 'B', 100, "AAPL", 10));
    say(bytes::trading_action(13, 4, "AAPL", 'T'));
    EXPECT_EQ(market_->state(0), BookState::Valid);
  }
  EXPECT_EQ(levels(Side::Bid), (std::vector<Level>{{10, 300}}));
  say(bytes::operational_halt(13, 5, "AAPL", 'B', 'H'));
  EXPECT_EQ(market_->state(0), BookState::Valid);  // Another market's.
  say(bytes::operational_halt(13, 5, "AAPL", 'Q', 'H'));
  EXPECT_EQ(market_->state(0), BookState::Halted);
  say(bytes::operational_halt(13, 6, "AAPL", 'Q', 'T'));
  EXPECT_EQ(market_->state(0), BookState::Valid);
  EXPECT_TRUE(say(bytes::system_event(7, 'E')).all);
  EXPECT_EQ(market_->state(0), BookState::Halted);
}

TEST_F(ItchMarket, SuspectsACrossedBookUntilItParts) {
  open();
  say(bytes::add(13, 3, 1, 'B', 100, "AAPL", 10));
  EXPECT_TRUE(say(bytes::add(13, 3, 2, 'S', 100, "AAPL", 10)).state);
  EXPECT_EQ(market_->state(0), BookState::Suspect);
  EXPECT_EQ(market_->reason(0), InvalidReason::Crossed);
  EXPECT_TRUE(say(bytes::executed(13, 3, 1, 100, 1)).state);
  EXPECT_EQ(market_->state(0), BookState::Valid);
  EXPECT_EQ(market_->counts().crossed, 1U);
}

TEST_F(ItchMarket, SuspectsWhatCannotBeRightForGood) {
  const std::vector<std::pair<std::string, InvalidReason>> cases = {
      {bytes::remove(13, 3, 99), InvalidReason::Gap},
      {bytes::add(13, 3, 1, 'B', 5, "AAPL", 9), InvalidReason::Gap},
      {bytes::executed(13, 3, 1, 101, 1), InvalidReason::BadNumber},
      {bytes::add(13, 3, 50, 'B', 0, "AAPL", 9), InvalidReason::BadNumber},
      {bytes::add(13, 3, 50, 'x', 1, "AAPL", 9), InvalidReason::Malformed},
      {bytes::remove(13, 3, 1).substr(0, 18), InvalidReason::Malformed},
  };
  for (const auto& [message, reason] : cases) {
    open();
    say(bytes::directory(15, 1, "MSFT"));
    say(bytes::trading_action(15, 2, "MSFT", 'T'));
    say(bytes::add(13, 3, 1, 'B', 100, "AAPL", 10));
    say(bytes::add(15, 3, 2, 'B', 100, "MSFT", 10));
    const Update update = say(message);
    EXPECT_EQ(update.instrument, 0U);
    EXPECT_TRUE(update.state);
    EXPECT_FALSE(update.book || update.traded);
    EXPECT_EQ(market_->state(0), BookState::Suspect);
    EXPECT_EQ(market_->reason(0), reason);
    EXPECT_EQ(market_->state(1), BookState::Valid);
    say(bytes::trading_action(13, 4, "AAPL", 'T'));
    EXPECT_EQ(market_->state(0), BookState::Suspect);
  }
}

TEST_F(ItchMarket, SuspectsAllWhereAMessageDoesNotSayWhoseItIs) {
  open();
  say(bytes::directory(15, 1, "MSFT"));
  say(bytes::trading_action(15, 2, "MSFT", 'T'));
  const Update update = say(bytes::remove(13, 3, 1).substr(0, 2));
  EXPECT_TRUE(update.all && update.state);
  for (const InstrumentId instrument : {0U, 1U}) EXPECT_EQ(market_->state(instrument), BookState::Suspect);
}

TEST_F(ItchMarket, NoBookIsValidBeforeItsSnapshotIsWhole) {
  open();
  market_->rebuild();
  say(bytes::directory(13, 1, "AAPL"));
  say(bytes::trading_action(13, 2, "AAPL", 'T'));
  EXPECT_EQ(market_->state(0), BookState::Suspect);
  market_->rebuilt();
  EXPECT_EQ(market_->state(0), BookState::Valid);
}

TEST_F(ItchMarket, ASnapshotWithAMessageOfNobodyIsNone) {
  open();
  market_->rebuild();
  say(bytes::directory(13, 1, "AAPL"));
  say(bytes::trading_action(13, 2, "AAPL", 'T'));
  say(bytes::remove(13, 3, 1).substr(0, 2));
  market_->rebuilt();
  EXPECT_EQ(market_->state(0), BookState::Suspect);
}

TEST_F(ItchMarket, StaysClosedBehindASnapshot) {
  open();
  say(bytes::system_event(7, 'E'));
  market_->rebuild();
  say(bytes::directory(13, 1, "AAPL"));
  say(bytes::trading_action(13, 2, "AAPL", 'T'));
  market_->rebuilt();
  EXPECT_EQ(market_->state(0), BookState::Halted);
  market_->reset();
  say(bytes::directory(13, 1, "AAPL"));
  say(bytes::trading_action(13, 2, "AAPL", 'T'));
  EXPECT_EQ(market_->state(0), BookState::Valid);
}

/// The same messages, right and wrong, to two markets, one of which is told what comes, and of things that
/// never do.
TEST_F(ItchMarket, IsTheSameForOneThatWasToldWhatComes) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto below = [&](std::uint64_t n) { return random() % n; };
  std::vector<std::string> day;
  for (const std::uint16_t locate : {std::uint16_t{13}, std::uint16_t{14}}) {
    day.push_back(bytes::directory(locate, 1, locate == 13 ? "AAPL" : "MSFT"));
    day.push_back(bytes::trading_action(locate, 2, locate == 13 ? "AAPL" : "MSFT", 'T'));
  }
  for (std::uint64_t i = 1; i <= 5000; ++i) {
    const auto locate = static_cast<std::uint16_t>(13 + below(3));  // One in three is nobody's.
    const std::uint64_t ref = i - std::min(i, below(40));
    const auto qty = static_cast<std::uint32_t>(1 + below(50));
    switch (below(4)) {
      case 0: day.push_back(bytes::remove(locate, i, ref)); break;
      case 1: day.push_back(bytes::cancel(locate, i, ref, qty)); break;
      default:
        day.push_back(bytes::add(locate, i, i, below(2) == 0 ? 'B' : 'S', qty,
                                 locate == 13   ? "AAPL"
                                 : locate == 14 ? "MSFT"
                                                : "GOOG",
                                 static_cast<std::uint32_t>(1000 + below(60))));
    }
  }
  make(10'000);
  Arena arena;
  Market other(table_, 10'000, arena);
  std::size_t changes = 0;
  for (std::size_t i = 0; i < day.size(); ++i) {
    if (i + Market::kAhead < day.size()) market_->prepare(bytes::view(day[i + Market::kAhead]));
    std::string noise(below(40), '\0');
    for (char& c : noise) c = static_cast<char>(random());
    if (below(4) == 0) market_->prepare(bytes::view(noise));
    const Update got = say(day[i]);
    const Update want = other.on_message(bytes::view(day[i]));
    ASSERT_EQ(got.instrument, want.instrument);
    ASSERT_EQ(got.book, want.book);
    changes += want.book ? 1 : 0;
    for (InstrumentId book = 0; book < 2; ++book) {
      ASSERT_EQ(market_->state(book), other.state(book));
      for (const Side side : {Side::Bid, Side::Ask}) {
        std::vector<Level> expected(other.books().depth(book, side));
        other.books().top(book, side, expected);
        ASSERT_EQ(levels(side, book), expected);
      }
    }
  }
  EXPECT_GT(changes, 1000U);
}

TEST_F(ItchMarket, SuspectsTheBookThatFoundNoMemory) {
  make(2);
  for (const auto& [locate, stock] : {std::pair{13, "AAPL"}, std::pair{15, "MSFT"}}) {
    say(bytes::directory(static_cast<std::uint16_t>(locate), 1, stock));
    say(bytes::trading_action(static_cast<std::uint16_t>(locate), 2, stock, 'T'));
  }
  say(bytes::add(13, 3, 1, 'B', 100, "AAPL", 10));
  say(bytes::add(13, 3, 2, 'B', 100, "AAPL", 9));
  say(bytes::add(15, 3, 3, 'B', 100, "MSFT", 9));
  EXPECT_EQ(market_->state(0), BookState::Valid);
  EXPECT_EQ(market_->state(1), BookState::Suspect);
  EXPECT_EQ(market_->reason(1), InvalidReason::Memory);
  EXPECT_EQ(market_->counts().orders_full, 1U);
}

/// The recorded part of a day, against a dictionary of its orders, with the counts its README states.
TEST(ItchRecorded, FollowsTheFirstMessagesOfADay) {
  const char* const set = std::getenv("TICKWIRE_DATA");
  const std::filesystem::path file =
      (set != nullptr ? std::filesystem::path(set)
                      : std::filesystem::path(__FILE__).parent_path() / "../../../../shared/data") /
      "nasdaq_itch/aapl_20200130_first7000.itch50.gz";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "no recorded data at " << file;
  Arena arena;
  md::InstrumentTable table;
  table.add({"AAPL", "nasdaq", kPriceDecimals, 0});
  Market market(table, 10'000, arena);
  md::MessageFile reader({file.string()});
  std::span<const std::byte> message;
  struct Order {
    char side;
    std::int64_t price;
    std::int64_t qty;
  };
  std::map<std::uint64_t, Order> orders;
  const auto number = [&](std::size_t at, std::size_t bytes) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < bytes; ++i) value = value << 8U | static_cast<std::uint64_t>(message[at + i]);
    return value;
  };
  while (reader.next(message)) {
    const Update update = market.on_message(message);
    ASSERT_EQ(update.outcome, Outcome::Message);
    const char type = static_cast<char>(message[0]);
    if (type == 'A') {
      orders[number(11, 8)] = {static_cast<char>(message[19]), static_cast<std::int64_t>(number(32, 4)),
                               static_cast<std::int64_t>(number(20, 4))};
    } else if (type == 'D') {
      ASSERT_EQ(orders.erase(number(11, 8)), 1U);
    } else if (type == 'E' || type == 'X') {
      Order& order = orders.at(number(11, 8));
      order.qty -= static_cast<std::int64_t>(number(19, 4));
      if (type == 'E') {
        ASSERT_TRUE(update.traded);
        ASSERT_EQ(update.trade.price, order.price);
      }
      if (order.qty == 0) orders.erase(number(11, 8));
    } else {
      continue;
    }
    ASSERT_TRUE(update.book);
    for (const Side side : {Side::Bid, Side::Ask}) {
      std::map<std::int64_t, std::int64_t> by_price;
      for (const auto& [ref, order] : orders) {
        if ((order.side == 'B') == (side == Side::Bid)) {
          by_price[side == Side::Bid ? -order.price : order.price] += order.qty;
        }
      }
      std::vector<Level> want;
      for (const auto& [key, qty] : by_price) want.push_back({side == Side::Bid ? -key : key, qty});
      std::vector<Level> got(market.books().depth(0, side));
      market.books().top(0, side, got);
      ASSERT_EQ(got, want) << "after message " << reader.number();
    }
  }
  EXPECT_FALSE(reader.truncated()) << reader.error();
  EXPECT_EQ(reader.number(), 7000U);
  const std::map<char, std::uint64_t> stated = {{'R', 1},    {'H', 1},   {'Y', 1}, {'L', 52}, {'A', 3370},
                                                {'D', 2890}, {'E', 528}, {'X', 4}, {'P', 153}};
  for (std::size_t i = 0; i < kTypes.size(); ++i) {
    const auto found = stated.find(static_cast<char>(kTypes[i].type));
    EXPECT_EQ(market.decoder().counts()[i], found == stated.end() ? 0 : found->second) << kTypes[i].name;
  }
  EXPECT_EQ(market.state(0), BookState::Valid);
  EXPECT_EQ(market.books().orders(), 187U);
  Level best{};
  market.books().top(0, Side::Bid, {&best, 1});
  EXPECT_EQ(best.price, 3'210'000);
  market.books().top(0, Side::Ask, {&best, 1});
  EXPECT_EQ(best.price, 3'211'000);
}

/// Packets of a real line: every message of theirs has the length of its type, and fields that can be.
TEST(ItchRecorded, DecodesTheRecordedPackets) {
  const char* const set = std::getenv("TICKWIRE_DATA");
  const std::filesystem::path folder =
      (set != nullptr ? std::filesystem::path(set)
                      : std::filesystem::path(__FILE__).parent_path() / "../../../../shared/data") /
      "nasdaq_itch/moldudp64_pcap";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no recorded data at " << folder;
  Arena arena;
  net::MoldParser parser(9000, arena);
  Decoder decoder;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().extension() != ".pcap") continue;
    SCOPED_TRACE(entry.path().string());
    md::PcapReader reader(entry.path().string());
    md::PcapDatagram datagram;
    while (reader.next(datagram)) {
      net::MoldPacket packet;
      ASSERT_EQ(parser.parse(datagram.payload, packet), net::MoldError::None);
      for (const net::MessageView& view : packet.messages) {
        Message message;
        ASSERT_EQ(decoder.decode(std::as_bytes(view), message), Outcome::Message);
        EXPECT_GT(message.ts_ns, 0);
        EXPECT_LT(message.ts_ns, 86'400'000'000'000);
      }
    }
  }
  const std::map<char, std::uint64_t> found = {{'A', 42}, {'F', 7}, {'E', 6}, {'C', 5}, {'X', 5},
                                               {'D', 7},  {'U', 6}, {'P', 5}, {'Q', 5}, {'I', 6},
                                               {'J', 5},  {'L', 6}, {'H', 6}, {'Y', 5}, {'S', 1}};
  for (std::size_t i = 0; i < kTypes.size(); ++i) {
    const auto count = found.find(static_cast<char>(kTypes[i].type));
    EXPECT_EQ(decoder.counts()[i], count == found.end() ? 0 : count->second) << kTypes[i].name;
  }
}

}  // namespace
}  // namespace tickwire::venue::itch

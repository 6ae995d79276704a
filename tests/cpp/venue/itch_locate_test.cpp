/// A locate that goes to another stock means the old one no longer.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "itch_bytes.hpp"
#include "tickwire/venue/itch/market.hpp"

namespace tickwire::venue::itch {
namespace {

using md::BookState;
using md::Level;
using md::Side;

class ItchLocate : public ::testing::Test {
 protected:
  ItchLocate() {
    say(bytes::directory(13, 1, "AAPL"));
    say(bytes::trading_action(13, 2, "AAPL", 'T'));
    say(bytes::add(13, 3, 1, 'B', 100, "AAPL", 10));
  }
  static md::InstrumentTable table() {
    md::InstrumentTable table;
    table.add({"AAPL", "nasdaq", kPriceDecimals, 0});
    table.add({"MSFT", "nasdaq", kPriceDecimals, 0});
    return table;
  }
  Update say(const std::string& message) { return market_.on_message(bytes::view(message)); }
  std::vector<Level> bids(InstrumentId instrument = 0) const {
    std::vector<Level> all(market_.books().depth(instrument, Side::Bid));
    market_.books().top(instrument, Side::Bid, all);
    return all;
  }

  Arena arena_{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  const md::InstrumentTable table_ = table();
  Market market_{table_, 100, arena_};
};

TEST_F(ItchLocate, OfAStrangerNowChangesNothingOfTheOldStocksBook) {
  ASSERT_EQ(bids(), (std::vector<Level>{{10, 100}}));
  const std::uint64_t others = market_.counts().others;
  EXPECT_EQ(say(bytes::directory(13, 4, "ZZZZ")).misfit, Misfit::LocateMoved);
  EXPECT_EQ(market_.counts().others, others + 1);
  EXPECT_EQ(market_.state(0), BookState::Suspect);

  // Its messages are a stranger's: none is our instrument's.
  const Update added = say(bytes::add(13, 5, 7, 'B', 50, "ZZZZ", 12));
  EXPECT_EQ(added.instrument, kNoInstrument);
  EXPECT_FALSE(added.book);
  EXPECT_EQ(say(bytes::executed(13, 6, 7, 10, 1)).instrument, kNoInstrument);
  EXPECT_EQ(say(bytes::trading_action(13, 7, "ZZZZ", 'H')).instrument, kNoInstrument);
  EXPECT_EQ(market_.counts().others, others + 4);
  EXPECT_EQ(market_.counts().other_stock, 0U);
  EXPECT_EQ(market_.counts().unknown_order, 0U);
  EXPECT_EQ(bids(), (std::vector<Level>{{10, 100}}));

  // And one about an order of ours is taken for what it is, an order of another's book: it trades nothing.
  const Update executed = say(bytes::executed(13, 8, 1, 40, 2));
  EXPECT_FALSE(executed.traded);
  EXPECT_FALSE(executed.book);
  EXPECT_EQ(market_.counts().other_book, 1U);
  EXPECT_EQ(bids(), (std::vector<Level>{{10, 100}}));
}

TEST_F(ItchLocate, OfAnotherOfOursNowIsItsOwn) {
  const Update update = say(bytes::directory(13, 4, "MSFT"));
  EXPECT_EQ(update.misfit, Misfit::LocateMoved);
  EXPECT_EQ(update.instrument, 0U);
  EXPECT_EQ(update.other, 1U);
  say(bytes::trading_action(13, 5, "MSFT", 'T'));
  EXPECT_EQ(say(bytes::add(13, 6, 8, 'B', 30, "MSFT", 20)).instrument, 1U);
  EXPECT_EQ(bids(1), (std::vector<Level>{{20, 30}}));
  EXPECT_EQ(bids(0), (std::vector<Level>{{10, 100}}));
}

TEST_F(ItchLocate, ThatAStockLeftForAnotherIsNobodysAnyMore) {
  EXPECT_EQ(say(bytes::directory(31, 4, "AAPL")).misfit, Misfit::LocateMoved);
  EXPECT_EQ(market_.counts().locate_moved, 1U);
  const std::uint64_t others = market_.counts().others;
  EXPECT_EQ(say(bytes::add(13, 5, 9, 'B', 30, "ZZZZ", 11)).instrument, kNoInstrument);
  EXPECT_EQ(market_.counts().others, others + 1);
  EXPECT_EQ(say(bytes::add(31, 6, 10, 'B', 30, "AAPL", 11)).instrument, 0U);
  EXPECT_EQ(bids(), (std::vector<Level>{{11, 30}, {10, 100}}));
}

}  // namespace
}  // namespace tickwire::venue::itch

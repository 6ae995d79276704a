#include "tickwire/md/instrument.hpp"

#include <gtest/gtest.h>

#include <string>

namespace tickwire::md {
namespace {

TEST(InstrumentTable, NumbersInOrderAndFindsEachSymbol) {
  InstrumentTable table;
  EXPECT_EQ(table.find("BTCUSDT"), kNoInstrument);
  for (InstrumentId i = 0; i < 500; ++i) {
    ASSERT_EQ(table.add({"SYM" + std::to_string(i) + "USDT", "binance", 2, 3}), i);
  }
  ASSERT_EQ(table.size(), 500U);
  for (InstrumentId i = 0; i < 500; ++i) {
    const std::string symbol = "SYM" + std::to_string(i) + "USDT";
    ASSERT_EQ(table.find(symbol), i);
    ASSERT_EQ(table[i].symbol, symbol);
    ASSERT_EQ(table.find(symbol + "X"), kNoInstrument);
  }
}

TEST(InstrumentTable, ComparesSymbolsByteForByte) {
  InstrumentTable table;
  table.add({"BTCUSDT", "binance", 2, 3});
  EXPECT_EQ(table.find("btcusdt"), kNoInstrument);
  EXPECT_EQ(table.find("BTCUSD"), kNoInstrument);
  EXPECT_EQ(table.find(""), kNoInstrument);
  EXPECT_EQ(table.find(std::string_view("BTCUSDT\0", 8)), kNoInstrument);
}

TEST(InstrumentTable, RefusesWhatCannotBeTraded) {
  InstrumentTable table;
  table.add({"BTCUSDT", "binance", 2, 3});
  EXPECT_THROW(table.add({"BTCUSDT", "binance", 2, 3}), SetupError);
  EXPECT_THROW(table.add({"", "binance", 2, 3}), SetupError);
  EXPECT_THROW(table.add({"ETHUSDT", "binance", -1, 3}), SetupError);
  EXPECT_THROW(table.add({"ETHUSDT", "binance", 2, 19}), SetupError);
  EXPECT_EQ(table.size(), 1U);
  EXPECT_EQ(table.find("ETHUSDT"), kNoInstrument);
}

}  // namespace
}  // namespace tickwire::md

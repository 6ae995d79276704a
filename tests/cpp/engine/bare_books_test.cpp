#include "tickwire/engine/ingest/bare_books.hpp"

#include <gtest/gtest.h>

#include <array>

namespace tickwire::engine {
namespace {

constexpr TsNs kSecond = 1'000'000'000;

class BareBooksTest : public testing::Test {
 protected:
  md::Event book(std::size_t bids, std::size_t asks, TsNs ts) {
    md::Event event{};
    event.ts_recv = 1'700'000'000 * kSecond + ts;
    event.bids = {levels.data(), bids};
    event.asks = {levels.data(), asks};
    return event;
  }
  bool comes(std::size_t bids, std::size_t asks, TsNs ts) {
    books.saw(book(bids, asks, ts));
    return books.is_partial(book(bids, asks, ts));
  }

  std::array<md::Level, 1000> levels{};
  BareBooks books;
};

TEST_F(BareBooksTest, ThreeOfOneSizeWithinTwoSecondsOfEachOtherAreAStream) {
  EXPECT_FALSE(comes(20, 20, 0));
  EXPECT_FALSE(comes(20, 20, 2 * kSecond));
  EXPECT_TRUE(comes(20, 17, 4 * kSecond)) << "the longer side counts";
  EXPECT_TRUE(comes(20, 20, 400 * kSecond)) << "and it stays one";
  EXPECT_FALSE(comes(5, 5, 401 * kSecond)) << "another size is another stream";
}

TEST_F(BareBooksTest, WhatSomebodyAsksForNowAndThenIsASnapshot) {
  for (TsNs i = 0; i < 100; ++i) EXPECT_FALSE(comes(20, 20, i * (2 * kSecond + 1)));
}

TEST_F(BareBooksTest, OtherSizesThanPartialBooksHaveAreSnapshotsHoweverOftenTheyCome) {
  for (TsNs i = 0; i < 100; ++i) {
    EXPECT_FALSE(comes(1000, 1000, i));
    EXPECT_FALSE(comes(2, 1, i));
    EXPECT_FALSE(comes(50, 20, i));
  }
}

TEST_F(BareBooksTest, WhatWasSeenAheadCountsNoSecondTime) {
  EXPECT_FALSE(comes(10, 10, 0));
  EXPECT_FALSE(comes(10, 10, 1));
  books.begin();
  EXPECT_FALSE(comes(10, 10, 0));
  EXPECT_FALSE(comes(10, 10, 1));
  EXPECT_TRUE(comes(10, 10, 2));
}

}  // namespace
}  // namespace tickwire::engine

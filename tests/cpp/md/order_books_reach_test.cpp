/// References that all fall into one place of the table of orders, until none in reach is free.

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "tickwire/md/order_books.hpp"

namespace tickwire::md {
namespace {

constexpr std::size_t kMaxOrders = 1000;
constexpr std::size_t kInReach = 512;  // 64 buckets of 8.

/// References of one bucket of a table for kMaxOrders, as it spreads them.
std::vector<std::uint64_t> colliding(std::size_t count) {
  constexpr std::uint64_t kRuns = (kMaxOrders + kMaxOrders / 2) / 8 / 64 + 2;
  std::vector<std::uint64_t> refs;
  for (std::uint64_t block = 0; refs.size() < count; ++block) {
    const std::uint64_t hash = block / 64 * 0x9E3779B97F4A7C15U;
    __extension__ using Wide = unsigned __int128;
    const bool first_run = static_cast<std::uint64_t>(static_cast<Wide>(hash) * kRuns >> 64U) == 0;
    if (!first_run || (block + (hash >> 20U)) % 64 != 0) continue;
    for (std::uint64_t i = 0; i < 8 && refs.size() < count; ++i) refs.push_back(8 * block + i);
  }
  return refs;
}

TEST(OrderBooksReach, AnOrderWithoutAPlaceLeavesNothingOfItsQuantity) {
  Arena arena({.huge_pages = HugePages::Off, .lock = LockMemory::Off});
  OrderBooks books(arena, 1, kMaxOrders);
  const std::vector<std::uint64_t> refs = colliding(kInReach + 2);
  for (std::size_t i = 0; i < kInReach; ++i) {
    ASSERT_EQ(books.add(0, refs[i], Side::Bid, 100, 2).result, OrderResult::Done) << i;
  }
  ASSERT_LT(books.orders(), kMaxOrders) << "the table is not full";
  const auto bids = [&] {
    std::vector<Level> all(books.depth(0, Side::Bid));
    books.top(0, Side::Bid, all);
    return all;
  };
  const std::vector<Level> before{{100, 2 * static_cast<std::int64_t>(kInReach)}};
  ASSERT_EQ(bids(), before);

  // At a level that is there, and at one that would be new.
  for (const std::int64_t price : {100, 101}) {
    const OrderChange refused = books.add(0, refs[kInReach], Side::Bid, price, 7);
    ASSERT_EQ(refused.result, OrderResult::OrdersFull);
    EXPECT_EQ(refused.book, 0U);
    EXPECT_EQ(refused.price, price);
    EXPECT_EQ(bids(), before);
    EXPECT_EQ(books.orders(), kInReach);
    EXPECT_EQ(books.book_of(refs[kInReach]), OrderBooks::kNoBook);
  }
  EXPECT_EQ(books.remove(0, refs[kInReach]).result, OrderResult::UnknownOrder);

  // One that goes makes room for it, wherever its place was; all of them are still found.
  ASSERT_EQ(books.remove(0, refs[300]).result, OrderResult::Done);
  ASSERT_EQ(books.add(0, refs[kInReach], Side::Bid, 101, 7).result, OrderResult::Done);
  EXPECT_EQ(bids(), (std::vector<Level>{{101, 7}, {100, 2 * static_cast<std::int64_t>(kInReach) - 2}}));
  EXPECT_EQ(books.add(0, refs[kInReach + 1], Side::Bid, 101, 7).result, OrderResult::OrdersFull);
  for (std::size_t i = 0; i <= kInReach; ++i) {
    if (i == 300) continue;
    ASSERT_EQ(books.remove(0, refs[i]).result, OrderResult::Done) << i;
  }
  EXPECT_EQ(books.orders(), 0U);
  EXPECT_TRUE(bids().empty());
}

}  // namespace
}  // namespace tickwire::md

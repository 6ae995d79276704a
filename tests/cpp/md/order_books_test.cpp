#include "tickwire/md/order_books.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <vector>

#include "tickwire/core/error.hpp"

namespace tickwire::md {
namespace {

/// The same books as a dictionary of orders; a level is summed up when it is asked for.
class SlowBooks {
 public:
  struct Order {
    std::uint32_t book;
    Side side;
    std::int64_t price;
    std::uint32_t qty;
  };

  std::vector<Level> levels(std::uint32_t book, Side side) const {
    std::map<std::int64_t, std::int64_t> by_price;
    for (const auto& [ref, order] : orders) {
      if (order.book == book && order.side == side) by_price[order.price] += order.qty;
    }
    std::vector<Level> all;
    for (const auto& [price, qty] : by_price) all.push_back({price, qty});
    if (side == Side::Bid) std::reverse(all.begin(), all.end());
    return all;
  }

  std::map<std::uint64_t, Order> orders;
};

std::vector<Level> levels(const OrderBooks& books, std::uint32_t book, Side side) {
  std::vector<Level> all(books.depth(book, side));
  EXPECT_EQ(books.top(book, side, all), all.size());
  return all;
}

OrderResult result(const OrderChange& change) { return change.result; }

TEST(OrderBooks, SumsOrdersByPrice) {
  Arena arena;
  OrderBooks books(arena, 2, 100);
  EXPECT_EQ(result(books.add(1, 7, Side::Bid, 100, 5)), OrderResult::Done);
  EXPECT_EQ(result(books.add(1, 8, Side::Bid, 101, 6)), OrderResult::Done);
  EXPECT_EQ(result(books.add(1, 9, Side::Bid, 100, 4)), OrderResult::Done);
  EXPECT_EQ(result(books.add(1, 10, Side::Ask, 102, 3)), OrderResult::Done);
  EXPECT_EQ(result(books.add(1, 11, Side::Ask, 105, 2)), OrderResult::Done);
  EXPECT_EQ(levels(books, 1, Side::Bid), (std::vector<Level>{{101, 6}, {100, 9}}));
  EXPECT_EQ(levels(books, 1, Side::Ask), (std::vector<Level>{{102, 3}, {105, 2}}));
  EXPECT_EQ(books.depth(0, Side::Bid), 0U);
  EXPECT_FALSE(books.crossed(1));

  const OrderChange change = books.reduce(1, 9, 1);
  EXPECT_EQ(change.result, OrderResult::Done);
  EXPECT_EQ(change.price, 100);
  EXPECT_EQ(change.side, Side::Bid);
  EXPECT_EQ(levels(books, 1, Side::Bid), (std::vector<Level>{{101, 6}, {100, 8}}));
  EXPECT_EQ(result(books.remove(1, 8)), OrderResult::Done);
  EXPECT_EQ(levels(books, 1, Side::Bid), (std::vector<Level>{{100, 8}}));
  EXPECT_EQ(result(books.replace(1, 7, 20, 102, 1)), OrderResult::Done);
  EXPECT_EQ(levels(books, 1, Side::Bid), (std::vector<Level>{{102, 1}, {100, 3}}));
  EXPECT_TRUE(books.crossed(1));
  EXPECT_EQ(books.orders(), 4U);
  books.clear();
  EXPECT_EQ(books.orders(), 0U);
  EXPECT_EQ(books.depth(1, Side::Bid) + books.depth(1, Side::Ask), 0U);
}

TEST(OrderBooks, SaysWhyItRefuses) {
  Arena arena;
  OrderBooks books(arena, 2, 2);
  ASSERT_EQ(result(books.add(0, 1, Side::Bid, 100, 5)), OrderResult::Done);
  EXPECT_EQ(result(books.add(0, 1, Side::Ask, 101, 5)), OrderResult::DuplicateOrder);
  EXPECT_EQ(result(books.add(0, 2, Side::Bid, 100, 0)), OrderResult::BadQty);
  EXPECT_EQ(result(books.reduce(0, 3, 1)), OrderResult::UnknownOrder);
  EXPECT_EQ(result(books.remove(1, 1)), OrderResult::OtherBook);
  EXPECT_EQ(result(books.reduce(0, 1, 0)), OrderResult::BadQty);
  ASSERT_EQ(result(books.add(1, 2, Side::Bid, 100, 5)), OrderResult::Done);
  EXPECT_EQ(result(books.add(1, 3, Side::Bid, 100, 5)), OrderResult::OrdersFull);
  EXPECT_EQ(levels(books, 0, Side::Bid), (std::vector<Level>{{100, 5}}));
  EXPECT_EQ(levels(books, 1, Side::Bid), (std::vector<Level>{{100, 5}}));
  // More than there is: the order is gone, and who called knows.
  EXPECT_EQ(result(books.reduce(1, 2, 6)), OrderResult::BadQty);
  EXPECT_EQ(books.depth(1, Side::Bid), 0U);
  EXPECT_THROW(OrderBooks(arena, 1, 0), SetupError);
}

TEST(OrderBooks, TellsWhenLevelsRunOutAndStaysWhole) {
  Arena arena;
  OrderBooks books(arena, 1, 100);  // 164 cells: one side's arrays end at 64, since 128 do not fit as well.
  std::int64_t price = 1;
  while (result(books.add(0, static_cast<std::uint64_t>(price), Side::Ask, price, 1)) == OrderResult::Done) {
    ++price;
  }
  EXPECT_EQ(result(books.add(0, 1000, Side::Ask, price, 1)), OrderResult::LevelsFull);
  EXPECT_EQ(books.depth(0, Side::Ask), 64U);
  EXPECT_EQ(books.orders(), 64U);
  // A level that is there takes more, and one that went makes room.
  EXPECT_EQ(result(books.add(0, 1001, Side::Ask, 10, 1)), OrderResult::Done);
  EXPECT_EQ(result(books.remove(0, 5)), OrderResult::Done);
  EXPECT_EQ(result(books.add(0, 1002, Side::Ask, price, 1)), OrderResult::Done);
  EXPECT_EQ(books.depth(0, Side::Ask), 64U);
}

/// Of few books by a look at marks that many references share, of many by the table alone.
TEST(OrderBooks, TellsInWhichBookAnOrderStands) {
  for (const std::uint32_t books : {3U, 2000U}) {
    const std::uint64_t seed = std::random_device{}();
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    Arena arena;
    OrderBooks orders(arena, books, 500);
    std::map<std::uint64_t, std::uint32_t> truth;
    const auto any = [&] { return random() % 40 + 65'536 * (random() % 5); };
    for (int i = 0; i < 20'000; ++i) {
      const std::uint64_t ref = any();
      const auto book = static_cast<std::uint32_t>(random() % books);
      if (const auto at = truth.find(ref); at != truth.end()) {
        ASSERT_EQ(orders.add(book, ref, Side::Bid, 5, 1).book, at->second) << "who has it";
        ASSERT_EQ(orders.remove(at->second, ref).result, OrderResult::Done);
        truth.erase(at);
      } else {
        ASSERT_EQ(orders.add(book, ref, Side::Ask, 7, 3).result, OrderResult::Done);
        truth[ref] = book;
      }
      const std::uint64_t other = any();
      const auto found = truth.find(other);
      ASSERT_EQ(orders.book_of(other), found == truth.end() ? OrderBooks::kNoBook : found->second);
      if (i % 5'000 != 4'999) continue;
      orders.clear();
      truth.clear();
    }
  }
}

TEST(OrderBooks, RefusesReferencesThatFallTogetherWithoutHarm) {
  Arena arena;
  OrderBooks books(arena, 1, 4096);
  // One bucket in so many is the same for all of these, whatever the hash makes of them.
  std::uint64_t done = 0;
  for (std::uint64_t i = 0; i < 4096; ++i) {
    done += result(books.add(0, i << 50U, Side::Bid, 1, 1)) == OrderResult::Done ? 1 : 0;
  }
  EXPECT_EQ(books.orders(), done);
  EXPECT_EQ(levels(books, 0, Side::Bid), (std::vector<Level>{{1, static_cast<std::int64_t>(done)}}));
  std::uint64_t gone = 0;
  for (std::uint64_t i = 0; i < 4096; ++i) {
    gone += result(books.remove(0, i << 50U)) == OrderResult::Done ? 1 : 0;
  }
  EXPECT_EQ(gone, done);
  EXPECT_EQ(books.orders(), 0U);
}

/// Every operation in the wild, right and wrong, against the dictionary. `spread`: how far prices lie apart.
void storm(std::uint64_t seed, std::uint64_t ref_step, std::int64_t spread, std::size_t max_orders) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto below = [&](std::uint64_t n) { return random() % n; };
  constexpr std::uint32_t kBooks = 3;
  Arena arena;
  OrderBooks books(arena, kBooks, max_orders);
  SlowBooks slow;
  std::vector<std::uint64_t> refs;
  std::uint64_t next_ref = random() >> 8U;
  std::size_t checked = 0;
  std::size_t full = 0;
  for (int step = 0; step < 6000; ++step) {
    const auto book = static_cast<std::uint32_t>(below(kBooks));
    const Side side = below(2) == 0 ? Side::Bid : Side::Ask;
    const auto price = static_cast<std::int64_t>(1'000'000 + below(static_cast<std::uint64_t>(spread)));
    const auto qty = static_cast<std::uint32_t>(below(50));
    const std::uint64_t known = refs.empty() ? 1 : refs[below(refs.size())];
    const auto live = slow.orders.find(known);
    const bool right = live != slow.orders.end() && live->second.book == book;
    const std::uint64_t action = below(100);
    if (action < 50) {
      const bool again = below(50) == 0;
      const std::uint64_t ref = again ? known : next_ref;
      next_ref += ref_step;
      const OrderResult got = result(books.add(book, ref, side, price, qty));
      const bool free = slow.orders.size() < max_orders;
      if (qty == 0) {
        ASSERT_EQ(got, OrderResult::BadQty);
      } else if (slow.orders.contains(ref)) {
        ASSERT_EQ(got, OrderResult::DuplicateOrder);
      } else if (!free) {
        ASSERT_EQ(got, OrderResult::OrdersFull);
        ++full;
      } else {
        ASSERT_EQ(got, OrderResult::Done);
        slow.orders[ref] = {book, side, price, qty};
        refs.push_back(ref);
      }
    } else if (action < 80) {
      const OrderResult got = result(books.remove(book, known));
      ASSERT_EQ(got, live == slow.orders.end() ? OrderResult::UnknownOrder
                     : right                   ? OrderResult::Done
                                               : OrderResult::OtherBook);
      if (right) slow.orders.erase(live);
    } else if (action < 90) {
      const OrderChange got = books.reduce(book, known, qty);
      if (!right) {
        ASSERT_NE(got.result, OrderResult::Done);
      } else if (qty == 0 || qty > live->second.qty) {
        ASSERT_EQ(got.result, OrderResult::BadQty);
        if (qty != 0) slow.orders.erase(live);
      } else {
        ASSERT_EQ(got.result, OrderResult::Done);
        ASSERT_EQ(got.price, live->second.price);
        ASSERT_EQ(got.side, live->second.side);
        live->second.qty -= qty;
        if (live->second.qty == 0) slow.orders.erase(live);
      }
    } else if (right && qty != 0) {
      const SlowBooks::Order old = live->second;
      ASSERT_EQ(result(books.replace(book, known, next_ref, price, qty)), OrderResult::Done);
      slow.orders.erase(live);
      slow.orders[next_ref] = {book, old.side, price, qty};
      refs.push_back(next_ref);
      next_ref += ref_step;
    }
    ASSERT_EQ(books.orders(), slow.orders.size());
    if (step % 16 != 0) continue;
    for (const Side of : {Side::Bid, Side::Ask}) {
      const std::vector<Level> want = slow.levels(book, of);
      ASSERT_EQ(levels(books, book, of), want);
      std::vector<Level> best(3);
      best.resize(books.top(book, of, best));
      ASSERT_TRUE(std::equal(best.begin(), best.end(), want.begin()));
    }
    const std::vector<Level> bids = slow.levels(book, Side::Bid);
    const std::vector<Level> asks = slow.levels(book, Side::Ask);
    ASSERT_EQ(books.crossed(book), !bids.empty() && !asks.empty() && bids[0].price >= asks[0].price);
    ++checked;
  }
  EXPECT_GT(checked, 300U);
  if (max_orders < 100) {
    EXPECT_GT(full, 0U);
  }
}

TEST(OrderBooks, KeepsToTheDictionaryOfOrders) {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) storm(seed, 1, 40, 5000);
}
TEST(OrderBooks, KeepsToItWithHundredsOfLevels) {
  for (std::uint64_t seed = 11; seed <= 13; ++seed) storm(seed, 3, 100'000, 20'000);
}
TEST(OrderBooks, KeepsToItWhereReferencesGrowByWholeRunsOfTheTable) {
  for (const std::uint64_t step : {64U, 512U, 5120U, 1U << 20U}) storm(31 + step, step, 40, 2000);
}
TEST(OrderBooks, KeepsToItWithAFullTable) {
  // So few slots that buckets overflow all the time.
  for (std::uint64_t seed = 21; seed <= 24; ++seed) storm(seed, 8, 30, 50);
}

}  // namespace
}  // namespace tickwire::md

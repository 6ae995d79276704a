#include "../../../tools/bench/itch_day.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tickwire/venue/itch/market.hpp"

/// The day that the benches read: a figure of theirs means something only where the day is a right one.
namespace tickwire::bench {
namespace {

std::vector<std::byte> written(ItchDay& day) {
  std::vector<std::byte> all;
  day.write([&](std::span<const unsigned char> bytes) {
    const auto block = std::as_bytes(bytes);
    all.insert(all.end(), block.begin(), block.end());
  });
  return all;
}

TEST(ItchDay, IsADayThatNoMarketObjectsTo) {
  ItchDay day({.messages = 60'000, .instruments = 50, .seed = 3});
  const std::vector<std::byte> bytes = written(day);
  md::InstrumentTable table;
  for (std::size_t i = 0; i < 50; ++i) table.add({itch_symbol(i), "itch", 4, 0});
  Arena arena;
  venue::itch::Market market(table, 60'000, arena);
  std::int64_t last = 0;
  std::uint64_t count = 0;
  std::size_t most_live = 0;
  std::vector<std::uint64_t> tenths(1'000'000);
  for (std::size_t at = 0; at < bytes.size(); ++count) {
    const std::size_t size =
        static_cast<std::size_t>(bytes[at]) << 8U | static_cast<std::size_t>(bytes[at + 1]);
    const venue::itch::Update update = market.on_message({&bytes[at + 2], size});
    ASSERT_EQ(update.outcome, venue::itch::Outcome::Message) << "message " << count;
    ASSERT_NE(update.instrument, kNoInstrument);
    ASSERT_GE(update.ts_ns, last);
    last = update.ts_ns;
    if (static_cast<std::uint64_t>(last) >= ItchDay::kOpenNs)
      ++tenths[static_cast<std::size_t>(last / 100'000'000)];
    most_live = std::max(most_live, market.books().orders());
    at += 2 + size;
  }
  const venue::itch::MarketCounts& counts = market.counts();
  EXPECT_EQ(counts.unknown_order + counts.duplicate_order + counts.other_book + counts.bad_qty +
                counts.orders_full + counts.levels_full + counts.others + counts.crossed,
            0U);
  for (InstrumentId i = 0; i < 50; ++i) EXPECT_EQ(market.state(i), md::BookState::Valid);
  EXPECT_EQ(count, day.messages());
  EXPECT_GE(count, 60'000U);
  EXPECT_EQ(bytes.size(), day.bytes());
  EXPECT_EQ(most_live, day.most_live());
  EXPECT_EQ(*std::max_element(tenths.begin(), tenths.end()), day.busiest_100ms());
  EXPECT_GT(day.busiest_100ms(), 3 * 60'000 / 234'000U);
  EXPECT_LT(static_cast<std::uint64_t>(last), ItchDay::kCloseNs + 1'000'000'000);
  // Adds, and what takes them away, by far the most of it.
  EXPECT_GT(day.count('A'), count * 2 / 5);
  EXPECT_GT(day.count('D'), count / 3);
  for (const char type : {'F', 'U', 'E', 'C', 'X', 'P'}) EXPECT_GT(day.count(type), 0U) << type;
}

TEST(ItchDay, IsTheSameOfTheSameSeed) {
  const auto bytes = [](std::uint64_t seed) {
    ItchDay day({.messages = 2000, .instruments = 20, .seed = seed});
    return written(day);
  };
  EXPECT_EQ(bytes(7), bytes(7));
  EXPECT_NE(bytes(7), bytes(8));
}

}  // namespace
}  // namespace tickwire::bench

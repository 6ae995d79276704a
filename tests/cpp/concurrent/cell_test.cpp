#include "tickwire/concurrent/cell.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <thread>

namespace tickwire::concurrent {
namespace {

TEST(Cell, CountsAndKeepsTheLargest) {
  Cell<std::int64_t> cell;
  EXPECT_EQ(cell.load(), 0);
  cell.add(3);
  cell.add(-5);
  EXPECT_EQ(cell.load(), -2);
  cell.raise_to(-7);
  EXPECT_EQ(cell.load(), -2);
  cell.raise_to(9);
  EXPECT_EQ(cell.load(), 9);
  cell.store(1);
  EXPECT_EQ(cell.load(), 1);
}

TEST(Cell, WhoObservesSeesWhatWasWrittenBefore) {
  constexpr std::uint32_t kRounds = 20'000;
  Cell<std::uint32_t> announced;
  std::array<std::uint32_t, kRounds + 1> plain{};  // No atomics: only the announcement orders it.
  std::thread writer([&] {
    for (std::uint32_t i = 1; i <= kRounds; ++i) {
      plain[i] = i * 7;
      announced.publish(i);
    }
  });
  std::uint32_t seen = 0;
  std::uint32_t wrong = 0;
  while (seen < kRounds) {
    seen = announced.observe();
    wrong += plain[seen] != seen * 7;
  }
  writer.join();
  EXPECT_EQ(wrong, 0U);
}

}  // namespace
}  // namespace tickwire::concurrent

#include "tickwire/concurrent/idle.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace tickwire::concurrent {
namespace {

TEST(IdleStrategy, SpinAndYieldNeverPark) {
  for (const IdleKind kind : {IdleKind::Spin, IdleKind::Yield}) {
    IdleStrategy idle(kind);
    int parks = 0;
    for (int i = 0; i < 2000; ++i) idle.idle([&](std::int64_t) { ++parks; });
    EXPECT_EQ(parks, 0);
  }
}

TEST(IdleStrategy, BackoffParksForLongerAndLongerUntilThereIsWork) {
  IdleStrategy idle(IdleKind::Backoff);
  std::vector<std::int64_t> parks;
  const auto turns = [&](std::uint32_t n) {
    parks.clear();
    for (std::uint32_t i = 0; i < n; ++i) idle.idle([&](std::int64_t max_ns) { parks.push_back(max_ns); });
  };
  turns(IdleStrategy::kSpins + IdleStrategy::kYields);
  EXPECT_TRUE(parks.empty());
  turns(12);
  EXPECT_EQ(parks,
            (std::vector<std::int64_t>{50'000, 100'000, 200'000, 400'000, 800'000, 1'600'000, 3'200'000,
                                       6'400'000, 12'800'000, 20'000'000, 20'000'000, 20'000'000}));
  idle.reset();
  turns(IdleStrategy::kSpins + IdleStrategy::kYields + 1);
  EXPECT_EQ(parks, std::vector<std::int64_t>{50'000});
}

}  // namespace
}  // namespace tickwire::concurrent

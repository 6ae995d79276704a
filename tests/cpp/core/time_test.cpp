#include "tickwire/core/time.hpp"

#include <gtest/gtest.h>

#include <ctime>

namespace tickwire {
namespace {

void sleep_ms(long ms) {
  const timespec pause{0, ms * 1'000'000};
  ::clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
}

// The readings are bracketed by the kernel's clock instead of compared with it, so a thread that is
// taken off its core between two lines changes nothing.
TEST(Tsc, TicksConvertToTheKernelsNanoseconds) {
  tsc_ns_per_tick();
  const std::int64_t outer_begin = detail::read_clock_ns(CLOCK_MONOTONIC_RAW);
  const std::uint64_t begin = tsc_now();
  const std::int64_t inner_begin = detail::read_clock_ns(CLOCK_MONOTONIC_RAW);
  sleep_ms(50);
  const std::int64_t inner_end = detail::read_clock_ns(CLOCK_MONOTONIC_RAW);
  const std::uint64_t end = tsc_now();
  const std::int64_t outer_end = detail::read_clock_ns(CLOCK_MONOTONIC_RAW);
  const auto ns = static_cast<double>(tsc_to_ns(end - begin));
  EXPECT_GE(ns, static_cast<double>(inner_end - inner_begin) * 0.999);
  EXPECT_LE(ns, static_cast<double>(outer_end - outer_begin) * 1.001 + 1000);
}

TEST(Tsc, ThresholdsConvertBothWays) {
  for (const std::int64_t ns : {1'000LL, 1'000'000LL, 100'000'000LL, 3'600'000'000'000LL}) {
    EXPECT_NEAR(static_cast<double>(tsc_to_ns(ns_to_tsc(ns))), static_cast<double>(ns), 2.0) << ns;
  }
}

TEST(Tsc, ASpanIsNeverBelowZero) {
  EXPECT_EQ(tsc_span_ns(1'000'000, 1'000'000), 0);
  EXPECT_EQ(tsc_span_ns(1'000'001, 1'000'000), 0) << "of another core, some ticks apart";
  EXPECT_EQ(tsc_span_ns(~std::uint64_t{0}, 0), 0);
  EXPECT_EQ(tsc_span_ns(1'000'000, 4'000'000), tsc_to_ns(3'000'000));
}

constexpr std::int64_t kToleranceNs = 50'000;

void expect_near_realtime(const UtcClock& clock) {
  const TsNs before = read_utc();
  const TsNs now = clock.now();
  const TsNs after = read_utc();
  EXPECT_GE(now, before - kToleranceNs);
  EXPECT_LE(now, after + kToleranceNs);
}

TEST(UtcClock, IsNearTheSystemClockAtOnceAndBetweenResyncs) {
  UtcClock clock;
  expect_near_realtime(clock);
  for (int i = 0; i < 3; ++i) {
    sleep_ms(60);
    expect_near_realtime(clock);
    clock.resync();
    expect_near_realtime(clock);
  }
}

TEST(UtcClock, NeverGoesBackBetweenResyncs) {
  const UtcClock clock;
  TsNs last = clock.now();
  for (int i = 0; i < 200'000; ++i) {
    const TsNs now = clock.now();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST(UtcClock, StampsTicksFromBeforeAndAfterTheResync) {
  UtcClock clock;
  const std::uint64_t second = ns_to_tsc(1'000'000'000);
  const std::uint64_t base = tsc_now();
  for (const TsNs distance :
       {clock.at(base + second) - clock.at(base), clock.at(base) - clock.at(base - second)}) {
    EXPECT_NEAR(static_cast<double>(distance), 1e9, 1e6);  // The kernel slews by 500 ppm at most.
  }
  const TsNs before = clock.at(base);
  clock.resync();
  EXPECT_NEAR(static_cast<double>(clock.at(base)), static_cast<double>(before),
              static_cast<double>(kToleranceNs));
}

}  // namespace
}  // namespace tickwire

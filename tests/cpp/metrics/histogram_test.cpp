#include "tickwire/metrics/histogram.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace tickwire::metrics {
namespace {

/// The value that q percent of the sorted values do not exceed, by counting.
std::int64_t exact_percentile(const std::vector<std::int64_t>& sorted, double q) {
  const auto rank =
      static_cast<std::size_t>(std::ceil(q / 100.0 * static_cast<double>(sorted.size()) - 1e-6));
  return sorted[std::max<std::size_t>(rank, 1) - 1];
}

constexpr double kPercentiles[] = {0.01, 1, 10, 25, 50, 75, 90, 99, 99.9, 99.99, 100};

void expect_promised_error(const HistogramSnapshot& snapshot, std::vector<std::int64_t> values) {
  std::sort(values.begin(), values.end());
  ASSERT_EQ(snapshot.count(), values.size());
  for (const double q : kPercentiles) {
    const std::int64_t exact = exact_percentile(values, q);
    const std::int64_t found = snapshot.percentile(q);
    EXPECT_GE(found, exact) << q;
    EXPECT_LE(static_cast<double>(found), static_cast<double>(exact) * 1.016) << q;
  }
  EXPECT_LE(snapshot.min(), values.front());
  EXPECT_GE(static_cast<double>(snapshot.min()) * 1.016 + 1, static_cast<double>(values.front()));
}

TEST(Buckets, CoverEveryNanosecondOnceAndAreNarrow) {
  std::int64_t next = 0;
  for (std::size_t bucket = 0; bucket < Buckets::kCount; ++bucket) {
    ASSERT_EQ(Buckets::low(bucket), next);
    const std::int64_t high = Buckets::high(bucket);
    ASSERT_EQ(Buckets::of(next), bucket);
    ASSERT_EQ(Buckets::of(high), bucket);
    ASSERT_LE(high - next, next / 64) << bucket;
    next = high + 1;
  }
  EXPECT_EQ(next, Buckets::kEnd);
}

TEST(Histogram, GivesPercentilesWithinThePromisedError) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::lognormal_distribution<double> latency(8.0, 2.0);
  const auto histogram = std::make_unique<Histogram>();
  std::vector<std::int64_t> values;
  std::uint64_t sum = 0;
  for (int i = 0; i < 100'000; ++i) {
    const auto ns = std::min(static_cast<std::int64_t>(latency(random)), Buckets::kEnd - 1);
    values.push_back(ns);
    sum += static_cast<std::uint64_t>(ns);
    histogram->record(ns);
  }
  const HistogramSnapshot snapshot = histogram->snapshot();
  expect_promised_error(snapshot, values);
  EXPECT_EQ(snapshot.sum, sum);
  EXPECT_DOUBLE_EQ(snapshot.mean(), static_cast<double>(sum) / 100'000.0);
  EXPECT_EQ(snapshot.max, *std::max_element(values.begin(), values.end()));
  EXPECT_EQ(snapshot.percentile(100), snapshot.max);
}

TEST(Histogram, IsExactForSmallValues) {
  const auto histogram = std::make_unique<Histogram>();
  for (std::int64_t ns = 1; ns <= 100; ++ns) histogram->record(ns);
  const HistogramSnapshot snapshot = histogram->snapshot();
  for (std::int64_t q = 1; q <= 100; ++q) EXPECT_EQ(snapshot.percentile(static_cast<double>(q)), q);
  EXPECT_EQ(snapshot.min(), 1);
  EXPECT_EQ(snapshot.max, 100);
}

TEST(Histogram, IsEmptyBeforeTheFirstValue) {
  const HistogramSnapshot snapshot = std::make_unique<Histogram>()->snapshot();
  EXPECT_EQ(snapshot.count(), 0U);
  EXPECT_EQ(snapshot.percentile(50), 0);
  EXPECT_EQ(snapshot.min(), 0);
  EXPECT_EQ(snapshot.max, 0);
  EXPECT_EQ(snapshot.mean(), 0.0);
}

TEST(Histogram, CountsWhatIsOutOfRangeWithoutLosingIt) {
  const auto histogram = std::make_unique<Histogram>();
  histogram->record(-1);
  histogram->record(INT64_MIN);
  for (int i = 0; i < 8; ++i) histogram->record(1000);
  histogram->record(Buckets::kEnd);
  histogram->record(INT64_MAX);
  const HistogramSnapshot snapshot = histogram->snapshot();
  EXPECT_EQ(snapshot.underflow, 2U);
  EXPECT_EQ(snapshot.overflow, 2U);
  EXPECT_EQ(snapshot.count(), 10U);
  EXPECT_EQ(snapshot.max, INT64_MAX);
  EXPECT_EQ(snapshot.percentile(80), Buckets::high(Buckets::of(1000)));
  EXPECT_EQ(snapshot.percentile(81), INT64_MAX);  // Above all buckets, not left out.
  EXPECT_EQ(snapshot.sum, 8000U + 2 * static_cast<std::uint64_t>(Buckets::kEnd));
}

TEST(HistogramSnapshot, DifferenceIsTheIntervalAlone) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto histogram = std::make_unique<Histogram>();
  for (int i = 0; i < 5'000; ++i) histogram->record(static_cast<std::int64_t>(random() % 50'000'000));
  histogram->record(60'000'000);
  const HistogramSnapshot before = histogram->snapshot();
  std::vector<std::int64_t> interval;
  std::uint64_t sum = 0;
  for (int i = 0; i < 5'000; ++i) {
    interval.push_back(static_cast<std::int64_t>(random() % 9'000));
    sum += static_cast<std::uint64_t>(interval.back());
    histogram->record(interval.back());
  }
  histogram->record(-5);
  const HistogramSnapshot difference = histogram->snapshot().since(before);
  expect_promised_error(difference, interval);
  EXPECT_EQ(difference.sum, sum);
  EXPECT_EQ(difference.underflow, 1U);
  // No new maximum was set, so the interval's own comes from its highest bucket.
  const std::int64_t largest = *std::max_element(interval.begin(), interval.end());
  EXPECT_GE(difference.max, largest);
  EXPECT_LE(static_cast<double>(difference.max), static_cast<double>(largest) * 1.016);

  const HistogramSnapshot middle = histogram->snapshot();
  histogram->record(70'000'001);
  EXPECT_EQ(histogram->snapshot().since(middle).max, 70'000'001);  // A new maximum is exact.
  EXPECT_EQ(middle.since(middle).max, 0);
  EXPECT_EQ(middle.since(middle).count(), 0U);
}

TEST(HistogramSnapshot, TheMaximumOfAnIntervalIsExactWhereItIsNewOrBeyondAllBuckets) {
  const auto histogram = std::make_unique<Histogram>();
  histogram->record(Buckets::kEnd + 500);
  const HistogramSnapshot before = histogram->snapshot();
  histogram->record(Buckets::kEnd + 100);  // No new maximum, and of no bucket.
  HistogramSnapshot interval = histogram->snapshot().since(before);
  EXPECT_EQ(interval.overflow, 1U);
  EXPECT_EQ(interval.max, Buckets::kEnd + 500) << "which it was nobody knows, but no less than any bucket";
  EXPECT_EQ(interval.count(), 1U);

  const HistogramSnapshot second = histogram->snapshot();
  histogram->record(5'000);
  histogram->record(70);
  interval = histogram->snapshot().since(second);
  EXPECT_EQ(interval.overflow, 0U);
  EXPECT_EQ(interval.max, Buckets::high(Buckets::of(5'000)));

  const HistogramSnapshot third = histogram->snapshot();
  histogram->record(0);
  interval = histogram->snapshot().since(third);
  EXPECT_EQ(interval.count(), 1U);
  EXPECT_EQ(interval.max, 0);
}

TEST(HistogramSnapshot, TheMaximumOfAnIntervalIsNeverAboveThatOfAll) {
  const auto histogram = std::make_unique<Histogram>();
  histogram->record(5'001);  // Its bucket reaches further.
  ASSERT_GT(Buckets::high(Buckets::of(5'001)), 5'001);
  const HistogramSnapshot before = histogram->snapshot();
  histogram->record(5'000);
  ASSERT_EQ(Buckets::of(5'000), Buckets::of(5'001));
  EXPECT_EQ(histogram->snapshot().since(before).max, 5'001);
}

TEST(Histogram, IsReadWhileItIsWritten) {
  constexpr std::uint64_t kValues = 200'000;
  const auto histogram = std::make_unique<Histogram>();
  std::thread writer([&] {
    for (std::uint64_t i = 0; i < kValues; ++i) histogram->record(static_cast<std::int64_t>(i % 100'000));
  });
  std::uint64_t last = 0;
  while (last < kValues) {
    const HistogramSnapshot snapshot = histogram->snapshot();
    const std::uint64_t count = snapshot.count();
    ASSERT_GE(count, last);
    last = count;
  }
  writer.join();
  EXPECT_EQ(last, kValues);
}

}  // namespace
}  // namespace tickwire::metrics

#include "tickwire/metrics/histogram.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace tickwire::metrics {

std::uint64_t HistogramSnapshot::count() const noexcept {
  return std::accumulate(buckets.begin(), buckets.end(), overflow);
}

std::int64_t HistogramSnapshot::min() const noexcept {
  const auto first = std::find_if(buckets.begin(), buckets.end(), [](std::uint64_t n) { return n != 0; });
  if (first != buckets.end()) return Buckets::low(static_cast<std::size_t>(first - buckets.begin()));
  return overflow != 0 ? Buckets::kEnd : 0;
}

double HistogramSnapshot::mean() const noexcept {
  const std::uint64_t n = count();
  return n == 0 ? 0.0 : static_cast<double>(sum) / static_cast<double>(n);
}

std::int64_t HistogramSnapshot::percentile(double q) const noexcept {
  const std::uint64_t n = count();
  if (n == 0) return 0;
  // The factor takes back what rounding added: 99.9 % of 1000 values is the 999th, not the 1000th.
  const double rank = std::ceil(q / 100.0 * static_cast<double>(n) * (1.0 - 1e-12));
  const auto wanted = std::clamp<std::uint64_t>(static_cast<std::uint64_t>(std::max(rank, 1.0)), 1, n);
  std::uint64_t seen = 0;
  for (std::size_t bucket = 0; bucket < buckets.size(); ++bucket) {
    seen += buckets[bucket];
    if (seen >= wanted) return std::min(Buckets::high(bucket), max);
  }
  return max;
}

HistogramSnapshot HistogramSnapshot::since(const HistogramSnapshot& earlier) const {
  HistogramSnapshot interval;
  std::size_t highest = 0;
  for (std::size_t bucket = 0; bucket < buckets.size(); ++bucket) {
    interval.buckets[bucket] = buckets[bucket] - earlier.buckets[bucket];
    if (interval.buckets[bucket] != 0) highest = bucket;
  }
  interval.underflow = underflow - earlier.underflow;
  interval.overflow = overflow - earlier.overflow;
  interval.sum = sum - earlier.sum;
  if (max > earlier.max || interval.overflow != 0) {
    interval.max = max;
  } else {
    interval.max = std::min(Buckets::high(highest), max);  // Of none the first bucket's, which is 0.
  }
  return interval;
}

HistogramSnapshot Histogram::snapshot() const {
  HistogramSnapshot result;
  for (std::size_t bucket = 0; bucket < Buckets::kCount; ++bucket)
    result.buckets[bucket] = buckets_[bucket].load();
  result.underflow = underflow_.load();
  result.overflow = overflow_.load();
  result.sum = sum_.load();
  // Read last: no value that is in a bucket above is larger than this.
  result.max = max_.load();
  return result;
}

}  // namespace tickwire::metrics

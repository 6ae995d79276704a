#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tickwire/concurrent/cell.hpp"
#include "tickwire/core/hot.hpp"

namespace tickwire::metrics {

/// The buckets of every histogram: each nanosecond its own up to 127, then 64 equal buckets for each
/// power of two, so that a bucket is never wider than 1/64 of what it holds (1.6 %). 2,048 buckets
/// reach 2^37 ns, 137 seconds, in 16 KiB: HdrHistogram at three digits would take 264 KiB and push
/// the books out of the cache.
struct Buckets {
  static constexpr int kSubBits = 6;
  static constexpr std::size_t kCount = 2048;
  static constexpr std::int64_t kEnd = std::int64_t{1} << 37;  // The first value that no bucket holds.

  /// For 0 <= ns < kEnd.
  static constexpr std::size_t of(std::int64_t ns) noexcept TICKWIRE_HOT {
    const auto value = static_cast<std::uint64_t>(ns);
    // Forcing the bits below the first power of two that has sub-buckets makes its shift, 0, the least.
    const auto shift = static_cast<int>(std::bit_width(value | ((2U << kSubBits) - 1))) - 1 - kSubBits;
    return (static_cast<std::size_t>(shift) << kSubBits) + static_cast<std::size_t>(value >> shift);
  }

  /// The lowest value in a bucket.
  static constexpr std::int64_t low(std::size_t bucket) noexcept {
    if (bucket < (std::size_t{2} << kSubBits)) return static_cast<std::int64_t>(bucket);
    const std::size_t shift = (bucket >> kSubBits) - 1;
    return static_cast<std::int64_t>((bucket - (shift << kSubBits)) << shift);
  }

  /// The highest value in a bucket.
  static constexpr std::int64_t high(std::size_t bucket) noexcept { return low(bucket + 1) - 1; }
};

static_assert(Buckets::of(0) == 0 && Buckets::of(63) == 63 && Buckets::of(64) == 64 &&
              Buckets::of(128) == 128);
static_assert(Buckets::of(Buckets::kEnd - 1) == Buckets::kCount - 1 &&
              Buckets::low(Buckets::kCount) == Buckets::kEnd);

/// What a reader took from a histogram at one moment, or the difference of two such.
struct HistogramSnapshot {
  std::vector<std::uint64_t> buckets = std::vector<std::uint64_t>(Buckets::kCount);
  std::uint64_t underflow = 0;  // Negative durations: a clock went wrong. In no percentile.
  std::uint64_t overflow = 0;   // At least Buckets::kEnd. In the percentiles, above all buckets.
  std::uint64_t sum = 0;        // Of all that count() counts, an overflow taken as Buckets::kEnd.
  std::int64_t max = 0;

  /// Recorded values: buckets and overflow.
  std::uint64_t count() const noexcept;

  /// The lowest value of the first bucket in use; 0 when empty.
  std::int64_t min() const noexcept;

  double mean() const noexcept;

  /// The highest value of the bucket that holds the q-th percent of the values (0 < q <= 100): at
  /// least the exact value and at most 1.6 % above it, never above max. 0 when empty.
  std::int64_t percentile(double q) const noexcept;

  /// The interval between `earlier` and this snapshot of the same histogram. Its max is exact where the
  /// interval set a new one, else that of its highest bucket.
  HistogramSnapshot since(const HistogramSnapshot& earlier) const;
};

/// Cumulative histogram of durations. One writing thread, any reader, also from another process: it
/// lies in a StatFile and is never reset, so readers take snapshots and subtract. Recording is one
/// bucket computation and three cells.
class Histogram {
 public:
  void record(std::int64_t ns) noexcept TICKWIRE_HOT {
    if (ns < 0) [[unlikely]]
      return underflow_.add(1);
    max_.raise_to(ns);
    if (ns >= Buckets::kEnd) [[unlikely]] {
      overflow_.add(1);
      ns = Buckets::kEnd;
    } else {
      buckets_[Buckets::of(ns)].add(1);
    }
    sum_.add(static_cast<std::uint64_t>(ns));
  }

  /// Any thread. Each number is whole, but values recorded meanwhile may be in some and not in others.
  HistogramSnapshot snapshot() const;

 private:
  // Mirrored in py/tickwire/stat_file.py.
  concurrent::Cell<std::uint64_t> underflow_;
  concurrent::Cell<std::uint64_t> overflow_;
  concurrent::Cell<std::uint64_t> sum_;
  concurrent::Cell<std::int64_t> max_;
  [[maybe_unused]] std::array<std::byte, 96> reserved_{};
  std::array<concurrent::Cell<std::uint64_t>, Buckets::kCount> buckets_;
};

static_assert(sizeof(Histogram) == 128 + 8 * Buckets::kCount, "mirrored in py/tickwire/stat_file.py");

}  // namespace tickwire::metrics

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/exact_math.hpp"

/// The pieces windows are made of. Single thread, no memory of their own but spans handed in at
/// set-up; everything is O(1) amortised an entry.
///
/// Entries (book events, trades) are numbered 1, 2, 3 … within an epoch, and every ring is indexed
/// by that number, so all windows over one series share one ring of values and one of times, and a
/// window is nothing but the number of its oldest entry.
namespace tickwire::features {

/// The newest entries of a series; the size is a power of two.
template <typename T>
struct Ring {
  std::span<T> slots;

  T& operator[](std::uint64_t number) noexcept TICKWIRE_HOT { return slots[number & (slots.size() - 1)]; }
  const T& operator[](std::uint64_t number) const noexcept TICKWIRE_HOT {
    return slots[number & (slots.size() - 1)];
  }
};

/// When each entry came, and how many there are.
struct Timeline {
  Ring<TsNs> ts;
  std::uint64_t newest = 0;
};

/// The start of the window (t - span, t]; entries at this time or before are outside.
inline TsNs horizon_of(TsNs t, std::int64_t span_ns) noexcept TICKWIRE_HOT {
  constexpr TsNs kFirst = std::numeric_limits<TsNs>::min();
  return t < kFirst + span_ns ? kFirst : t - span_ns;
}

/// The entries [head, newest] of a timeline that lie in (t - w, t], or the last n.
///
/// `max_entries` is one less than the ring of values holds, so that there is always room to write
/// the next entry before the oldest is taken out. When more fall into the window, the oldest is
/// evicted early and counted.
class Window {
 public:
  struct Shape {
    std::int64_t span_ns;  // 0: the window is a count.
    std::uint64_t count;
    std::uint64_t max_entries;
    bool keep_newest;  // Never empty: the newest sample is the value that still holds.
  };

  Window(const Timeline& timeline, const Shape& shape, std::uint64_t& overflows) noexcept
      : timeline_(&timeline), overflows_(&overflows), shape_(shape) {}

  void start(std::uint64_t first) noexcept TICKWIRE_HOT { head_ = first; }
  std::uint64_t head() const noexcept TICKWIRE_HOT { return head_; }
  std::uint64_t size() const noexcept TICKWIRE_HOT { return timeline_->newest + 1 - head_; }

  /// Moves the head to where it belongs at time t. `remove(n)` is called for each entry that leaves,
  /// oldest first; or `restart()` once, instead, when nothing but at most the newest entry is left,
  /// so that the first event after a quiet time does not pay for the whole window before it.
  template <typename Remove, typename Restart>
  void evict(TsNs t, Remove&& remove, Restart&& restart) noexcept TICKWIRE_HOT {
    const std::uint64_t end = timeline_->newest + 1;
    if (shape_.span_ns == 0) {
      while (end - head_ > shape_.count) remove(head_++);
      return;
    }
    const TsNs horizon = horizon_of(t, shape_.span_ns);
    const std::uint64_t last = shape_.keep_newest ? end - 1 : end;
    if (head_ < last && timeline_->ts[head_] <= horizon) {
      if (last - head_ > 1 && timeline_->ts[last - 1] <= horizon) {
        head_ = last;
        restart();
      } else {
        do {
          remove(head_++);
        } while (head_ < last && timeline_->ts[head_] <= horizon);
      }
    }
    if (end - head_ > shape_.max_entries) [[unlikely]] {
      ++*overflows_;
      remove(head_++);
    }
  }

 private:
  const Timeline* timeline_;
  std::uint64_t* overflows_;
  Shape shape_;
  std::uint64_t head_ = 1;
};

/// The values that one wrapped expression has had, one a book event from the first event at which
/// it was warm. NaN (a side of the book was empty) is a value like any other; who sums skips it.
struct Samples {
  Ring<double> values;
  std::uint64_t first = 0;        // 0: none yet.
  std::uint64_t last_nan = 0;     // A window holds a NaN exactly when this is not before its head.
  std::uint64_t last_change = 0;  // A window is flat exactly when this is not after its head.

  void clear() noexcept TICKWIRE_HOT { first = last_nan = last_change = 0; }

  void push(std::uint64_t number, double value) noexcept TICKWIRE_HOT {
    if (first == 0) {
      first = number;
      last_change = number;
    } else if (value != values[number - 1]) {
      last_change = number;
    }
    if (value != value) last_nan = number;
    values[number] = value;
  }
};

/// Sum of the numbers in a window.
struct SumState {
  LongSum sum;

  void add(double x) noexcept TICKWIRE_HOT {
    if (x == x) sum.add(x);
  }
  void remove(double x) noexcept TICKWIRE_HOT {
    if (x == x) sum.add(-x);
  }
};

/// Sum and sum of squares of (x - shift), the shift being a number of the window or near one: what is left
/// to cancel in the variance of a price is its move since then, not the price.
///
/// Adding and taking away leaves rounding errors that never go away by themselves: about 2^-104 of each sum
/// of squares on the way, which is a lot where numbers have left that were far larger than what is there. So
/// `wear` adds up these sums; where it says that the error may be seen, worn() is true and the window must be
/// added up anew.
struct MomentState {
  double shift = 0.0;
  std::uint64_t count = 0;
  DoubleDouble sum;
  DoubleDouble sum_of_squares;
  double wear = 0.0;

  /// Begins anew, and numbers are near `centre`.
  void begin(double centre) noexcept TICKWIRE_HOT {
    *this = MomentState{.shift = centre, .count = 0, .sum = {}, .sum_of_squares = {}, .wear = 0.0};
  }
  void add(double x) noexcept TICKWIRE_HOT {
    if (x != x) return;
    ++count;
    const DoubleDouble d = two_sum(x, -shift);
    const DoubleDouble squared = square(d);
    sum.add(d.high, d.low);
    sum_of_squares.add(squared.high, squared.low);
    wear += sum_of_squares.high;
  }
  void remove(double x) noexcept TICKWIRE_HOT {
    if (x != x) return;
    --count;
    const DoubleDouble d = two_sum(x, -shift);
    const DoubleDouble squared = square(d);
    sum.add(-d.high, -d.low);
    sum_of_squares.add(-squared.high, -squared.low);
    wear += std::fabs(sum_of_squares.high);
  }

  /// May the error be more than a part in 2^50 or so of the variance? Not where all numbers are equal, whose
  /// variance is 0 and who must not ask. Never right after the window was added up around its mean: the sum
  /// of squares is then at most 2n + 1 times what lies between the numbers, and the wear n times that.
  [[nodiscard]] bool worn() const noexcept TICKWIRE_HOT {
    const double n = static_cast<double>(count);
    return wear * n > (0x1p44 + 4.0 * n * n) * (n * sum_of_squares.high - sum.high * sum.high);
  }

  /// n² times the population's variance: n·Σd² - (Σd)², before anything of it was rounded.
  [[nodiscard]] DoubleDouble spread() const noexcept TICKWIRE_HOT {
    const double n = static_cast<double>(count);
    DoubleDouble difference = times_count(n, sum_of_squares.high);
    difference.low += n * sum_of_squares.low;
    const DoubleDouble squared = square(sum);
    difference.add(-squared.high, -squared.low);
    return difference;
  }

  /// The population's standard deviation.
  [[nodiscard]] double deviation() const noexcept TICKWIRE_HOT {
    const DoubleDouble difference = spread();
    const double n = static_cast<double>(count);
    return difference.high > 0.0 ? std::sqrt(divide(difference, {n * n, 0.0})) : 0.0;
  }

  /// (x - mean) over the deviation, both n times as large; 0 where that is 0.
  [[nodiscard]] double score(double x) const noexcept TICKWIRE_HOT {
    const DoubleDouble difference = spread();
    if (!(difference.high > 0.0)) return 0.0;
    const double n = static_cast<double>(count);
    const DoubleDouble d = two_sum(x, -shift);
    DoubleDouble above = times_count(n, d.high);
    above.low += n * d.low;
    above.add(-sum.high, -sum.low);
    return above.high / std::sqrt(difference.high);
  }
};

}  // namespace tickwire::features

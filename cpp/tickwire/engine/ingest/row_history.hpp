#pragma once

/// The last T feature rows of one instrument, always contiguous in memory.
///
/// Rows are written one after another into room for 2T - 1; when it is full the newest T - 1 are
/// moved to the front. So a window of a sequence model is one block at any time and is never
/// rebuilt row by row; the move is one row's copy a row, amortised. One thread owns it.

#include <cstddef>
#include <cstring>
#include <span>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"

namespace tickwire::engine {

class RowHistory {
 public:
  RowHistory(std::size_t window_rows, std::size_t feature_count, Arena& arena)
      : window_rows_(window_rows),
        feature_count_(feature_count),
        cells_(arena.allocate<float>((2 * window_rows - 1) * feature_count)) {}

  void clear() noexcept TICKWIRE_HOT { end_ = 0; }

  /// Where the next row goes. It counts from commit() on.
  [[nodiscard]] std::span<float> next() noexcept TICKWIRE_HOT {
    if (end_ == 2 * window_rows_ - 1) [[unlikely]] {
      const std::size_t kept = window_rows_ - 1;
      if (kept != 0) {
        std::memcpy(cells_.data(), row(end_ - kept), kept * feature_count_ * sizeof(float));
      }
      end_ = kept;
    }
    return {row(end_), feature_count_};
  }
  void commit() noexcept TICKWIRE_HOT { ++end_; }

  /// True once there are T rows.
  [[nodiscard]] bool full() const noexcept TICKWIRE_HOT { return end_ >= window_rows_; }

  /// The T newest rows, oldest first, once full().
  [[nodiscard]] std::span<const float> window() const noexcept TICKWIRE_HOT {
    return {row(end_ - window_rows_), window_rows_ * feature_count_};
  }
  [[nodiscard]] std::span<const float> newest() const noexcept TICKWIRE_HOT {
    return {row(end_ - 1), feature_count_};
  }

 private:
  [[nodiscard]] float* row(std::size_t index) const noexcept {
    return cells_.data() + index * feature_count_;
  }

  std::size_t window_rows_;
  std::size_t feature_count_;
  std::span<float> cells_;
  std::size_t end_ = 0;  // One past the newest row.
};

}  // namespace tickwire::engine

#pragma once

#include <cstdint>

#include "tickwire/concurrent/cell.hpp"
#include "tickwire/core/hot.hpp"

namespace tickwire::metrics {

/// An exact count, or a level that goes up and down. One writing thread, any reader; a load and a
/// store. It lies in a StatFile, or by itself in a test.
class Counter {
 public:
  void add(std::int64_t n = 1) noexcept TICKWIRE_HOT { value_.add(n); }
  void set(std::int64_t value) noexcept TICKWIRE_HOT { value_.store(value); }
  /// Keeps the largest value seen.
  void raise_to(std::int64_t value) noexcept TICKWIRE_HOT { value_.raise_to(value); }
  std::int64_t value() const noexcept TICKWIRE_HOT { return value_.load(); }

 private:
  concurrent::Cell<std::int64_t> value_;
};

}  // namespace tickwire::metrics

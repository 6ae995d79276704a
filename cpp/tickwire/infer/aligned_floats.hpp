#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

#include "tickwire/core/types.hpp"

namespace tickwire::infer {

inline constexpr std::size_t kFloatsPerLine = kCacheLineBytes / sizeof(float);

/// Zeroed floats that start on a cache line and fill it: from the same alignment a runtime sums in the same
/// order.
class AlignedFloats {
 public:
  explicit AlignedFloats(std::size_t count)
      : data_(static_cast<float*>(::operator new(bytes(count), std::align_val_t{kCacheLineBytes}))) {
    std::memset(data_.get(), 0, bytes(count));
  }
  [[nodiscard]] float* data() const noexcept { return data_.get(); }

 private:
  static std::size_t bytes(std::size_t count) {
    return (count + kFloatsPerLine - 1) / kFloatsPerLine * kCacheLineBytes;
  }
  struct Free {
    void operator()(float* data) const { ::operator delete(data, std::align_val_t{kCacheLineBytes}); }
  };
  std::unique_ptr<float, Free> data_;
};

}  // namespace tickwire::infer

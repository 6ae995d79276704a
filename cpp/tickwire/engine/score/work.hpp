#pragma once

/// The slot of the ring between an ingest agent and an inference agent: a header, the time from which the
/// reader's stages count, and the model's whole input, so that the history of rows never
/// leaves its owner.

#include <cstddef>
#include <cstdint>
#include <span>

#include "tickwire/core/hot.hpp"
#include "tickwire/signal/signal.hpp"

namespace tickwire::engine {

// The input must begin on a cache line: a runtime may sum in another order from another alignment, and
// scores are to be the same bits wherever a row lies.
struct alignas(kCacheLineBytes) WorkHead {
  signal::SignalHeader header;
  std::uint64_t tsc_pushed;  // When the slot was published.
};

/// A slot for inputs of `input_floats`, whole cache lines.
constexpr std::size_t work_slot_bytes(std::size_t input_floats) noexcept {
  return (sizeof(WorkHead) + input_floats * sizeof(float) + kCacheLineBytes - 1) / kCacheLineBytes *
         kCacheLineBytes;
}

inline WorkHead& work_head(std::byte* slot) noexcept { return *reinterpret_cast<WorkHead*>(slot); }
inline float* work_input(std::byte* slot) noexcept {
  return reinterpret_cast<float*>(slot + sizeof(WorkHead));
}

}  // namespace tickwire::engine

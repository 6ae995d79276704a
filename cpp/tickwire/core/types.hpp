#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

namespace tickwire {

/// Dense number of an instrument within one engine, in the order of the configuration.
using InstrumentId = std::uint32_t;
inline constexpr InstrumentId kNoInstrument = std::numeric_limits<InstrumentId>::max();

/// UTC nanoseconds since 1970. kNoTime stands where a message carries no stamp of its own.
using TsNs = std::int64_t;
inline constexpr TsNs kNoTime = std::numeric_limits<TsNs>::min();

/// Which clock stamped `ts_recv`.
enum class RecvClock : std::uint8_t {
  Read = 0,      // Our own clock when the read returned.
  Kernel = 1,    // The kernel's stamp of the packet that completed the frame.
  Nic = 2,       // The network card's stamp.
  Recorded = 3,  // Taken from a capture.
};

/// Two lines of 64 bytes, because the adjacent-line prefetcher of x86 pulls them in pairs.
inline constexpr std::size_t kFalseSharingBytes = 128;
inline constexpr std::size_t kCacheLineBytes = 64;

}  // namespace tickwire

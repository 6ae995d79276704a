#pragma once

/// One message of NASDAQ TotalView-ITCH 5.0 in, its fields out. Bytes to numbers: no socket, file, clock or
/// state but the counts, so the same decoder serves files, multicast, fuzzing and benches.
///
/// One thread; it takes no memory and reads exactly the message's bytes, some ten loads each. All 23 types
/// are known by their length; what a later version adds is skipped and counted, never fatal, and a known type
/// of another length is refused, because none of its fields can then be trusted.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "tickwire/core/hot.hpp"
#include "tickwire/feed/venue/itch/messages.hpp"

namespace tickwire::feed::itch {

class Decoder {
 public:
  /// Fills `out` where the outcome is Message. After BadLength and BadField of a message of three bytes or
  /// more `out.locate` says which stock's book may have missed something; it is 0 otherwise.
  Outcome decode(std::span<const std::byte> message, Message& out) noexcept TICKWIRE_HOT;

  /// Messages taken, by their place in kTypes.
  [[nodiscard]] const std::array<std::uint64_t, kTypes.size()>& counts() const noexcept { return counts_; }
  [[nodiscard]] std::uint64_t unknown() const noexcept { return unknown_; }
  [[nodiscard]] std::uint64_t refused() const noexcept { return refused_; }

 private:
  Outcome refuse(Outcome why) noexcept TICKWIRE_HOT;

  std::array<std::uint64_t, kTypes.size()> counts_{};
  std::uint64_t unknown_ = 0;
  std::uint64_t refused_ = 0;
};

}  // namespace tickwire::feed::itch

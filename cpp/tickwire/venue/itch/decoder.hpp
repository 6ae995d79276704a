#pragma once

/// One message of NASDAQ TotalView-ITCH 5.0 in, its fields out. Bytes to numbers: no socket, file, clock or
/// state but the counts, so the same decoder serves files, multicast, fuzzing and benches.
///
/// One thread; it takes no memory and reads exactly the message's bytes, some ten loads each. All 23 types
/// are known by their length; what a later version adds is skipped and counted, never fatal, and a known type
/// of another length is refused, because none of its fields can then be trusted.

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "tickwire/core/hot.hpp"
#include "tickwire/venue/itch/messages.hpp"

namespace tickwire::venue::itch {

class Decoder {
 public:
  /// Fills `out` where the outcome is Message. After BadLength and BadField of a message of three bytes or
  /// more `out.locate` says which stock's book may have missed something; it is 0 otherwise.
  Outcome decode(std::span<const std::byte> message, Message& out) noexcept TICKWIRE_HOT;

  /// What says whose a message about orders is.
  struct Glance {
    std::size_t place;     // Of its type in kTypes.
    std::uint64_t ref;     // Of the order it is about, where that is an earlier one.
    std::uint64_t symbol;  // As it is spelled, where the order begins with it.
    bool begins;
    std::int64_t ts_ns;
  };
  /// The same of a message about orders that is none of ours but for a fault of somebody's: false where
  /// decode() would refuse it, or it is of another type. took() counts it.
  [[nodiscard]] static bool glance(std::span<const std::byte> message, Glance& out) noexcept TICKWIRE_HOT;
  void took(const Glance& glance) noexcept TICKWIRE_HOT { ++counts_[glance.place]; }

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

inline bool Decoder::glance(std::span<const std::byte> message, Glance& out) noexcept {
  static_assert(std::endian::native == std::endian::little, "the loads below turn the bytes round");
  const std::byte* const at = message.data();
  const auto load32 = [&](std::size_t from) noexcept TICKWIRE_HOT {
    std::uint32_t value = 0;
    std::memcpy(&value, at + from, sizeof value);
    return __builtin_bswap32(value);
  };
  const auto load64 = [&](std::size_t from) noexcept TICKWIRE_HOT {
    std::uint64_t value = 0;
    std::memcpy(&value, at + from, sizeof value);
    return __builtin_bswap64(value);
  };
  const auto is = [&](std::size_t place) noexcept TICKWIRE_HOT {
    out.place = place;
    return message.size() == kTypes[place].bytes;
  };
  if (message.empty()) return false;
  out.begins = false;
  bool good = false;
  switch (static_cast<Type>(at[0])) {
    case Type::AddOrder:
    case Type::AddOrderMpid: {
      constexpr std::size_t kSide = 19;
      constexpr std::size_t kSymbol = 24;
      constexpr std::size_t kPrice = 32;
      if (!is(static_cast<Type>(at[0]) == Type::AddOrder ? place_of(Type::AddOrder)
                                                         : place_of(Type::AddOrderMpid))) {
        return false;
      }
      out.begins = true;
      std::memcpy(&out.symbol, at + kSymbol, sizeof out.symbol);
      good = (at[kSide] == std::byte{'B'} || at[kSide] == std::byte{'S'}) && load32(kPrice) <= kMaxPrice;
      break;
    }
    case Type::Delete: good = is(place_of(Type::Delete)); break;
    case Type::Executed: good = is(place_of(Type::Executed)); break;
    case Type::Cancel: good = is(place_of(Type::Cancel)); break;
    case Type::Replace: {
      constexpr std::size_t kPrice = 31;
      good = is(place_of(Type::Replace)) && load32(kPrice) <= kMaxPrice;
      break;
    }
    default: return false;
  }
  if (!good) [[unlikely]]
    return false;
  out.ref = load64(kRefOffset);
  // The tracking number and the six bytes of the time in one load.
  constexpr std::size_t kBeforeTime = 3;
  out.ts_ns = static_cast<std::int64_t>(load64(kBeforeTime) & 0xFFFFFFFFFFFFU);
  return out.ts_ns < kDayNs;
}

}  // namespace tickwire::venue::itch

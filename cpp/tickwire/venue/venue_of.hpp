#pragma once

/// Whose message is this? For whoever finds no use for one: not to decode it, but to name the venue that it
/// looks like to a person who handed in the wrong recording.

#include <span>
#include <string_view>

namespace tickwire::venue {

/// As people call it; empty where it looks like none that is known. Any bytes.
[[nodiscard]] std::string_view venue_of(std::span<const char> message) noexcept;

inline constexpr std::string_view kBinanceSpot = "Binance spot";
inline constexpr std::string_view kBinanceUsdM = "Binance USD-M futures";
inline constexpr std::string_view kBinanceCoinM = "Binance COIN-M futures";

}  // namespace tickwire::venue

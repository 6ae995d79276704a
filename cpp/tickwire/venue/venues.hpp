#pragma once

/// The venues that there are, a line each, by the names that a configuration has for them.

#include <array>
#include <optional>
#include <string_view>

#include "tickwire/venue/binance/messages.hpp"
#include "tickwire/venue/venue_of.hpp"

namespace tickwire::venue {

struct Venue {
  std::string_view name;
  std::string_view title;                  // For people; what venue_of() says.
  std::optional<binance::Market> binance;  // Which of Binance's markets it is. None: ITCH.
};

inline constexpr std::array kVenues{
    Venue{"binance_spot", kBinanceSpot, binance::Market::Spot},
    Venue{"binance_usdm", kBinanceUsdM, binance::Market::UsdM},
    Venue{"binance_coinm", kBinanceCoinM, binance::Market::CoinM},
    Venue{"nasdaq_itch", "NASDAQ ITCH", std::nullopt},
};

/// Null where there is none of this name.
[[nodiscard]] constexpr const Venue* find_venue(std::string_view name) noexcept {
  for (const Venue& venue : kVenues) {
    if (venue.name == name) return &venue;
  }
  return nullptr;
}

}  // namespace tickwire::venue

#include "tickwire/venue/venue_of.hpp"

#include <string>

namespace tickwire::venue {

namespace {

/// Is this in the text, white space around colons and commas aside?
bool holds(std::string_view text, std::string_view part) noexcept {
  if (text.find(part) != std::string_view::npos) return true;
  const std::size_t colon = part.find("\":");
  if (colon == std::string_view::npos) return false;
  const std::string_view key = part.substr(0, colon + 1);
  const std::string_view value = part.substr(colon + 2);
  for (std::size_t at = text.find(key); at != std::string_view::npos; at = text.find(key, at + 1)) {
    const std::size_t behind = text.find_first_not_of(" \t", at + key.size());
    if (behind == std::string_view::npos || text[behind] != ':') continue;
    const std::size_t found = text.find_first_not_of(" \t", behind + 1);
    if (found != std::string_view::npos && text.substr(found).starts_with(value)) return true;
  }
  return false;
}

struct Sign {
  std::string_view part;
  std::string_view venue;
};

/// The first that fits.
constexpr Sign kSigns[] = {
    {"\"topic\":\"orderbook.", "Bybit"},
    {"\"topic\":\"publicTrade.", "Bybit"},
    {"\"topic\":\"tickers.", "Bybit"},
    {"\"topic\":\"kline.", "Bybit"},
    {"\"topic\":\"/market/", "KuCoin"},
    {"\"topic\":\"/contractMarket/", "KuCoin"},
    {"\"arg\":{\"instType\"", "Bitget"},
    {"\"arg\":{\"channel\"", "OKX"},
    {"\"channel\":\"l2_data\"", "Coinbase"},
    {"\"channel\":\"market_trades\"", "Coinbase"},
    {"\"channel\":\"heartbeats\"", "Coinbase"},
    {"\"type\":\"l2update\"", "Coinbase"},
    {"\"channel\":\"diff_order_book_", "Bitstamp"},
    {"\"channel\":\"order_book_", "Bitstamp"},
    {"\"channel\":\"live_trades_", "Bitstamp"},
    {"\"channel\":\"live_orders_", "Bitstamp"},
    {"\"channel\":\"l2Book\"", "Hyperliquid"},
    {"\"channel\":\"spot.", "Gate.io"},
    {"\"channel\":\"futures.", "Gate.io"},
    {"\"method\":\"subscription\"", "Deribit"},
    {"\"ch\":\"market.", "HTX"},
    {"\"c\":\"spot@public", "MEXC"},
    {"\"feed\":\"book", "Kraken futures"},
    {"\"feed\":\"trade", "Kraken futures"},
    {"\"feed\":\"ticker", "Kraken futures"},
    {"\"channel\":\"book\"", "Kraken"},
    {"\"channelID\":", "Kraken"},
    {"\"table\":\"orderBook", "BitMEX"},
    {"\"table\":\"trade", "BitMEX"},
    {"\"table\":\"quote", "BitMEX"},
    {"\"orderbook_units\":", "Upbit"},
};

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

/// [17082,[2500.1,1,0.3]] or [17082,"tu",[…]]: a channel's number, and what it has without a name.
bool is_numbered_list(std::string_view text) noexcept {
  if (!text.starts_with('[')) return false;
  std::size_t at = 1;
  while (at < text.size() && is_digit(text[at])) ++at;
  if (at == 1) return false;
  const std::string_view rest = text.substr(at);
  return rest.starts_with(",[") || rest.starts_with(",\"hb\"") || rest.starts_with(",\"te\",") ||
         rest.starts_with(",\"tu\",");
}

}  // namespace

std::string_view venue_of(std::span<const char> message) noexcept {
  const std::string_view text(message.data(), message.size());
  // Before what is Binance's: Gate.io calls its changes depthUpdate, too.
  for (const Sign& sign : kSigns) {
    if (holds(text, sign.part)) return sign.venue;
  }
  if (holds(text, "\"e\":\"depthUpdate\"")) {
    if (!holds(text, "\"pu\":")) return kBinanceSpot;
    return holds(text, "\"ps\":") ? kBinanceCoinM : kBinanceUsdM;
  }
  // Lists: a channel's number, what it has, its name.
  if (text.starts_with('[') && (text.find("\"book-") != std::string_view::npos ||
                                text.find(",\"trade\",\"") != std::string_view::npos ||
                                text.find(",\"ticker\",\"") != std::string_view::npos)) {
    return "Kraken";
  }
  if (is_numbered_list(text)) return "Bitfinex";
  return {};
}

}  // namespace tickwire::venue

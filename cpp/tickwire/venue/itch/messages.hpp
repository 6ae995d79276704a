#pragma once

/// What a message of NASDAQ TotalView-ITCH 5.0 says, as far as a book, its state or a feature needs it.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tickwire/core/hot.hpp"
#include "tickwire/md/event.hpp"

namespace tickwire::venue::itch {

/// The message's first byte.
enum class Type : std::uint8_t {
  SystemEvent = 'S',
  StockDirectory = 'R',
  TradingAction = 'H',
  RegSho = 'Y',
  MarketParticipant = 'L',
  MwcbLevels = 'V',
  MwcbStatus = 'W',
  IpoQuoting = 'K',
  LuldCollar = 'J',
  OperationalHalt = 'h',
  AddOrder = 'A',
  AddOrderMpid = 'F',
  Executed = 'E',
  ExecutedWithPrice = 'C',
  Cancel = 'X',
  Delete = 'D',
  Replace = 'U',
  Trade = 'P',
  CrossTrade = 'Q',
  BrokenTrade = 'B',
  Imbalance = 'I',
  RetailInterest = 'N',
  DirectListing = 'O',
};

struct TypeInfo {
  Type type;
  std::uint8_t bytes;      // Of the whole message.
  std::uint8_t symbol_at;  // Where its stock stands; 0 where it names none.
  std::string_view name;
};

inline constexpr std::array<TypeInfo, 23> kTypes = {{
    {Type::SystemEvent, 12, 0, "system_event"},
    {Type::StockDirectory, 39, 11, "stock_directory"},
    {Type::TradingAction, 25, 11, "trading_action"},
    {Type::RegSho, 20, 11, "reg_sho"},
    {Type::MarketParticipant, 26, 15, "market_participant"},
    {Type::MwcbLevels, 35, 0, "mwcb_levels"},
    {Type::MwcbStatus, 12, 0, "mwcb_status"},
    {Type::IpoQuoting, 28, 11, "ipo_quoting"},
    {Type::LuldCollar, 35, 11, "luld_collar"},
    {Type::OperationalHalt, 21, 11, "operational_halt"},
    {Type::AddOrder, 36, 24, "add_order"},
    {Type::AddOrderMpid, 40, 24, "add_order_mpid"},
    {Type::Executed, 31, 0, "executed"},
    {Type::ExecutedWithPrice, 36, 0, "executed_with_price"},
    {Type::Cancel, 23, 0, "cancel"},
    {Type::Delete, 19, 0, "delete"},
    {Type::Replace, 35, 0, "replace"},
    {Type::Trade, 44, 24, "trade"},
    {Type::CrossTrade, 40, 19, "cross_trade"},
    {Type::BrokenTrade, 19, 0, "broken_trade"},
    {Type::Imbalance, 50, 28, "imbalance"},
    {Type::RetailInterest, 20, 11, "retail_interest"},
    {Type::DirectListing, 48, 11, "direct_listing"},
}};

/// In kTypes.
consteval std::size_t place_of(Type type) {
  std::size_t place = 0;
  while (kTypes[place].type != type) ++place;
  return place;
}

/// Of a price of the venue, as an integer: one unit is 0.0001.
inline constexpr int kPriceDecimals = 4;

/// The references of all messages that name an order stand here, big-endian.
inline constexpr std::size_t kRefOffset = 11;

/// What prices of no trade are sent as: more than any stock costs.
inline constexpr std::uint32_t kMaxPrice = 2'000'000'000;
inline constexpr std::int64_t kDayNs = 86'400'000'000'000;

enum class Outcome : std::uint8_t {
  Message,
  Empty,        // No byte at all, which framings allow.
  UnknownType,  // Of a later version of the format: skipped.
  BadLength,    // Not the one that its type has: refused.
  BadField,     // A side, a price or a time of day that cannot be: refused.
};

/// A field that the type does not have is 0.
struct Message {
  Type type;
  md::Side side;               // A, F: of the order; P: of the order that rested.
  bool printable;              // C: counts as volume.
  char code;                   // S: event; H: trading state; h: market; Q: cross type; W: level; else 0.
  char action;                 // h: halted or trading.
  std::uint16_t locate;        // The stock's number today; 0 where it is about none.
  std::int64_t ts_ns;          // Since midnight in New York.
  std::uint64_t ref;           // A, F, E, C, X, D: the order; U: the one that goes.
  std::uint64_t new_ref;       // U: the one that comes.
  std::uint64_t match;         // E, C, P, Q, B: number of the trade.
  std::int64_t price;          // A, F, C, U, P, Q.
  std::uint64_t qty;           // A, F, E, C, X, U, P, Q.
  std::array<char, 8> symbol;  // Of a type that names a stock.

  [[nodiscard]] std::string_view stock() const noexcept TICKWIRE_HOT {
    std::size_t size = symbol.size();
    while (size != 0 && (symbol[size - 1] == ' ' || symbol[size - 1] == '\0')) --size;
    return {symbol.data(), size};
  }
};

}  // namespace tickwire::venue::itch

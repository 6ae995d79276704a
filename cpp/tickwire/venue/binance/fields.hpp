#pragma once

/// What the readers of a message leave for the decoder: the fields that mean something, as the venue
/// wrote them, and the levels as integers. There are two readers, the scanner and the JSON parser; what a
/// message means is decided behind them, once.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/md/event.hpp"

namespace tickwire::venue::binance {

/// The keys that mean something, of messages and of REST snapshots.
enum class Key : std::uint8_t {
  EventType,   // e
  EventTime,   // E
  Symbol,      // s, in a snapshot symbol
  FirstId,     // U
  LastId,      // u, in a snapshot lastUpdateId
  PrevId,      // pu
  Bids,        // b, in a snapshot bids; the best bid of a quote; an order id in a trade
  Asks,        // a, in a snapshot asks; the best ask of a quote; the id of an aggregate trade
  BidQty,      // B
  AskQty,      // A
  TradeId,     // t
  TradeTime,   // T
  Price,       // p
  Qty,         // q
  BuyerMaker,  // m
  TradeType,   // X
  Data,        // data, of a combined stream
  Stream,      // stream, of a combined stream
  Error,       // error; code, with msg
  Other,
};
inline constexpr std::size_t kKeyCount = static_cast<std::size_t>(Key::Other);

/// Of a message's keys of one letter.
constexpr Key key_of_letter(char letter) noexcept TICKWIRE_HOT {
  switch (letter) {
    case 'e': return Key::EventType;
    case 'E': return Key::EventTime;
    case 's': return Key::Symbol;
    case 'U': return Key::FirstId;
    case 'u': return Key::LastId;
    case 'b': return Key::Bids;
    case 'a': return Key::Asks;
    case 'B': return Key::BidQty;
    case 'A': return Key::AskQty;
    case 't': return Key::TradeId;
    case 'T': return Key::TradeTime;
    case 'p': return Key::Price;
    case 'q': return Key::Qty;
    case 'm': return Key::BuyerMaker;
    case 'X': return Key::TradeType;
    default: return Key::Other;
  }
}

/// The text of a scalar as the venue wrote it, a string without its quotes and its escapes.
struct Token {
  std::string_view text;
  bool quoted = false;
};

/// The later ones outrank the earlier.
enum class LevelsState : std::uint8_t { None, Deferred, Ok, BadNumber, TooMany, Malformed };

/// The levels of one side.
struct Levels {
  std::span<md::Level> room;
  std::size_t count = 0;
  LevelsState state = LevelsState::None;

  void note(LevelsState seen) noexcept TICKWIRE_HOT { state = std::max(state, seen); }
};

struct Fields {
  std::uint32_t seen = 0;  // Of each key that came, its bit.
  InstrumentId instrument = kNoInstrument;
  std::string_view stream;  // Its name, where the message has one.
  Levels bids;
  Levels asks;
  Token tokens[kKeyCount];  // Of the keys seen whose value is a scalar.

  static constexpr std::uint32_t bit(Key key) noexcept TICKWIRE_HOT {
    return std::uint32_t{1} << static_cast<unsigned>(key);
  }
  [[nodiscard]] bool has(Key key) const noexcept TICKWIRE_HOT { return (seen & bit(key)) != 0; }
  [[nodiscard]] const Token& token(Key key) const noexcept TICKWIRE_HOT {
    return tokens[static_cast<std::size_t>(key)];
  }
  [[nodiscard]] Token& token(Key key) noexcept TICKWIRE_HOT { return tokens[static_cast<std::size_t>(key)]; }

  /// Before a message; `of` where the instrument is known.
  void clear(InstrumentId of) noexcept TICKWIRE_HOT {
    seen = 0;
    instrument = of;
    stream = {};
    for (Levels* side : {&bids, &asks}) {
      side->count = 0;
      side->state = LevelsState::None;
    }
  }
};

}  // namespace tickwire::venue::binance

#pragma once

/// What Binance sends and is sent, as far as Tickwire speaks it: streams of diff depth, trades,
/// aggregate trades and best quotes of the spot, USD-M and COIN-M markets, their combined form
/// `{"stream":…,"data":{…}}` included, and REST depth snapshots.
///
///     depthUpdate      s U u b a E, futures also pu    levels are absolute, [price, qty] as strings
///     trade, aggTrade  s t|a p q m E T, futures also X  m: the buyer was the maker
///     bookTicker       s u b B a A, futures also e E   spot sends it without an event type
///     serverShutdown   the connection is about to be closed; open its replacement first
///     partial books    futures as depthUpdate, spot as REST depth: the stream's name tells, see
///     stream_name.hpp REST depth       lastUpdateId bids asks, futures also E, COIN-M also symbol
///
/// Protocol: https://github.com/binance/binance-spot-api-docs and
/// https://developers.binance.com/docs/derivatives.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "tickwire/core/error.hpp"

namespace tickwire::venue::binance {

enum class Market : std::uint8_t { Spot, UsdM, CoinM };

/// Both tell of the same trades, so a feed listens to one.
enum class TradeStream : std::uint8_t { Trade, AggTrade };

/// What a message turned out to be.
enum class Outcome : std::uint8_t {
  Event,             // One normalized event.
  Ignored,           // A reply of the control channel, or a stream that is not spoken here.
  OtherTradeStream,  // A trade of the stream that was not chosen.
  OtherStream,       // Book changes of a stream that is not spoken here, by its name.
  OtherSymbol,       // The name of its stream is another instrument's than the message names.
  UnknownSymbol,
  Shutdown,
  SubscribeError,  // The venue refused a request of ours.
  Malformed,       // No JSON, or a field that is missing, twice there or of the wrong type.
  BadNumber,       // A price or quantity that is no number of the instrument's own units.
  TooManyLevels,
};

constexpr std::string_view name_of(Outcome outcome) noexcept {
  switch (outcome) {
    case Outcome::Event: return "event";
    case Outcome::Ignored: return "ignored";
    case Outcome::OtherTradeStream: return "other_trade_stream";
    case Outcome::OtherStream: return "other_stream";
    case Outcome::OtherSymbol: return "other_symbol";
    case Outcome::UnknownSymbol: return "unknown_symbol";
    case Outcome::Shutdown: return "shutdown";
    case Outcome::SubscribeError: return "subscribe_error";
    case Outcome::Malformed: return "malformed";
    case Outcome::BadNumber: return "bad_number";
    case Outcome::TooManyLevels: return "too_many_levels";
  }
  return "unknown";
}

/// The request for streams such as "btcusdt@depth@100ms". One request for all: the venue counts
/// messages. Throws SetupError for a name that could not be a stream's.
inline std::string subscribe_message(std::span<const std::string> streams) {
  std::string message = R"({"method":"SUBSCRIBE","params":[)";
  for (const std::string& stream : streams) {
    for (const char c : stream) {
      if (c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20) {
        throw SetupError("subscribe", "names of streams", stream);
      }
    }
    if (&stream != streams.data()) message += ',';
    message.append("\"").append(stream).append("\"");
  }
  return message += R"(],"id":1})";
}

}  // namespace tickwire::venue::binance

#pragma once

#include <cstdint>
#include <span>

#include "tickwire/core/types.hpp"

namespace tickwire::md {

enum class Side : std::uint8_t { Bid = 0, Ask = 1 };

/// Who started the trade.
enum class Aggressor : std::uint8_t { Unknown = 0, Buyer = 1, Seller = 2 };

/// One price level as the venue states it: the new absolute quantity, zero removes the level.
/// Price and qty are integers in the instrument's own decimal units (see InstrumentTable).
struct Level {
  std::int64_t price;
  std::int64_t qty;

  bool operator==(const Level&) const = default;
};

struct Trade {
  std::uint64_t id;
  std::int64_t price;
  std::int64_t qty;
  Aggressor aggressor;
  bool printable;  // False for prints that the venue itself marks as no trade.
  TsNs ts_trade;   // When it happened, the same in every copy; kNoTime where the venue does not say.
};

/// Best bid and ask as a best-quote stream states them. Never applied to the by-price book.
struct Quote {
  Level bid;
  Level ask;
};

enum class EventKind : std::uint8_t {
  BookDiff = 0,      // Changes to the book, in `bids` and `asks`.
  BookSnapshot = 1,  // The whole book, in `bids` and `asks`.
  Trade = 2,
  Quote = 3,
  PartialBook = 4,  // The best levels as they are, in `bids` and `asks`: not what changed.
};

/// One whole venue message with all its records, normalized.
///
/// The spans point into the decoder that made the event and hold until its next call.
struct Event {
  EventKind kind;
  RecvClock recv_clock;
  InstrumentId instrument;
  TsNs ts_event;  // The venue's clock; kNoTime where the message carries none.
  TsNs ts_recv;
  std::uint64_t first_id;       // Binance U. Equals last_id where the venue states only one.
  std::uint64_t last_id;        // Binance u; the snapshot's lastUpdateId; the trade's id.
  std::uint64_t prev_id;        // Binance pu; 0 where the venue states none.
  std::span<const Level> bids;  // As the venue ordered them.
  std::span<const Level> asks;
  std::uint32_t limit;  // Of a snapshot or partial book: levels a side that it may have; 0: nobody knows.
  bool named;           // The message says of which stream it is.
  Trade trade;          // Where kind is Trade.
  Quote quote;          // Where kind is Quote.
};

}  // namespace tickwire::md

// Fuzz target of the Binance decoder: no read beyond the padding, the same answer whatever lies in the
// padding and whether or not the scanner is there, and an event only with fields that a book can hold.
// CMakeLists.txt says how it is run.
//
// Input: one byte for market and padding, then the message.
//
// Covers: venue/binance/decoder.cpp venue/binance/scanner.cpp venue/binance/fields.hpp

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "tickwire/venue/binance/decoder.hpp"

namespace binance_decoder_fuzz {

using tickwire::venue::binance::Decoder;
using tickwire::venue::binance::Market;
using tickwire::venue::binance::Outcome;
using tickwire::venue::binance::TradeStream;

inline constexpr std::size_t kMaxLevels = 50;

inline void require(bool held) {
  if (!held) std::abort();
}

inline const tickwire::md::InstrumentTable& instruments() {
  static const tickwire::md::InstrumentTable table = [] {
    tickwire::md::InstrumentTable made;
    made.add({"BTCUSDT", "binance", 2, 3});
    made.add({"ETHUSDT", "binance", 0, 18});
    return made;
  }();
  return table;
}

inline void check(std::span<const tickwire::md::Level> levels, std::string& out) {
  require(levels.size() <= kMaxLevels);
  for (const tickwire::md::Level& level : levels) {
    require(level.price > 0 && level.qty >= 0);
    out += std::to_string(level.price) + ' ' + std::to_string(level.qty) + ',';
  }
  out += ';';
}

/// What the decoder makes of a message, in words. The message lies in memory of its own, so that a
/// sanitizer sees the first byte too far.
inline std::string transcript(Decoder& decoder, std::string_view message, char padding, bool snapshot) {
  const auto memory = std::make_unique<char[]>(message.size() + Decoder::kPaddingBytes);
  std::copy(message.begin(), message.end(), memory.get());
  std::fill_n(memory.get() + message.size(), Decoder::kPaddingBytes, padding);
  const std::span<const char> bytes{memory.get(), message.size()};
  tickwire::md::Event event;
  const Outcome outcome = snapshot ? decoder.decode_snapshot(bytes, 1, tickwire::RecvClock::Read, 1, event)
                                   : decoder.decode(bytes, tickwire::RecvClock::Read, 1, event);
  const bool known = event.instrument < instruments().size();
  require(known || event.instrument == tickwire::kNoInstrument);
  std::string out = std::to_string(static_cast<int>(outcome)) + ':' + std::to_string(event.instrument) + ':';
  if (outcome != Outcome::Event) return out;
  require(known && event.first_id <= event.last_id);
  out += std::to_string(event.ts_event) + ':' + std::to_string(event.first_id) + ':' +
         std::to_string(event.last_id) + ':' + std::to_string(event.prev_id) + ':';
  check(event.bids, out);
  check(event.asks, out);
  require(event.trade.price >= 0 && event.trade.qty >= 0);
  require(event.quote.bid.qty >= 0 && event.quote.ask.qty >= 0);
  const auto add = [&out](std::int64_t value) { out += std::to_string(value) + ':'; };
  add(static_cast<int>(event.kind));
  add(static_cast<std::int64_t>(event.trade.id));
  for (const tickwire::md::Level& level :
       {tickwire::md::Level{event.trade.price, event.trade.qty}, event.quote.bid, event.quote.ask}) {
    add(level.price);
    add(level.qty);
  }
  add(static_cast<int>(event.trade.aggressor));
  add(event.trade.printable ? 1 : 0);
  return out;
}

/// Two decoders that must be of one opinion.
struct Pair {
  Decoder with_scanner;
  Decoder without;

  Pair(Market market, TradeStream trades)
      : with_scanner(instruments(), {market, trades, 4096, kMaxLevels}),
        without(instruments(), {market, trades, 4096, kMaxLevels, false}) {}
};

}  // namespace binance_decoder_fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace binance_decoder_fuzz;
  static Pair spot(Market::Spot, TradeStream::Trade);
  static Pair futures(Market::UsdM, TradeStream::AggTrade);
  static constexpr std::string_view kPaddings = "}{][\",:\\0 \n";
  if (size == 0) return 0;
  const std::string_view message(reinterpret_cast<const char*>(data) + 1, size - 1);
  const char padding = kPaddings[data[0] % kPaddings.size()];
  for (Pair* decoders : {&spot, &futures}) {
    for (const bool snapshot : {false, true}) {
      const std::string expected = transcript(decoders->without, message, '\0', snapshot);
      require(transcript(decoders->without, message, padding, snapshot) == expected);
      require(transcript(decoders->with_scanner, message, '\0', snapshot) == expected);
      require(transcript(decoders->with_scanner, message, padding, snapshot) == expected);
    }
  }
  return 0;
}

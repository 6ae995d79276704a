#pragma once

/// One message of a Binance stream in, one normalized event out. Bytes to records: no socket, no
/// clock, no state from one message to the next, so the same decoder serves live, replay and fuzzing.
///
/// One thread. Its memory, the JSON parser's included, is taken at setup for the largest message; a
/// larger one is refused as malformed. Prices and quantities go from their text to integers of the
/// instrument's units and are never a double on the way.
///
/// A message written the way the venue writes all of its own is scanned in one pass, any other goes to
/// the JSON parser (see scanner.hpp).
///
/// Numbers and texts may be written as any writer of JSON makes them: without quotes or in them, with an
/// exponent, with escapes, with white space anywhere. A number is read where it is exactly one of the
/// instrument's units, or a whole one where it is an id.
///
/// Fields may come in any order. The one that costs a second pass is a symbol behind the levels,
/// since their decimals are the instrument's; no venue sends it so.

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/md/event.hpp"
#include "tickwire/md/instrument.hpp"
#include "tickwire/venue/binance/messages.hpp"

namespace tickwire::venue::binance {

struct DecoderConfig {
  Market market;
  TradeStream trades;
  std::size_t max_message_bytes;
  std::size_t max_levels;  // A side of one message.
  /// Off: every message goes to the JSON parser. The result is the same; tests and benchmarks compare.
  bool scan = true;
};

class Decoder {
 public:
  /// Bytes beyond a message that must be readable, whatever they are: the parser looks at blocks.
  static constexpr std::size_t kPaddingBytes = 64;

  /// The table must outlive the decoder.
  Decoder(const md::InstrumentTable& instruments, const DecoderConfig& config);
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  /// Fills `out` where the outcome is Event; its spans hold until the next call. After Malformed,
  /// BadNumber and TooManyLevels `out.instrument` names the instrument whose book may have missed a
  /// change, kNoInstrument where no book has, or none can be named: what a message that cannot be
  /// read leaves out shows as a gap in the ids of the next.
  Outcome decode(std::span<const char> message, RecvClock recv_clock, TsNs ts_recv, md::Event& out) noexcept
      TICKWIRE_HOT;

  /// The name of the stream that the last message said it is of; empty where it said none. Holds as long as
  /// the message.
  [[nodiscard]] std::string_view stream() const noexcept TICKWIRE_HOT;

  /// A REST reply to a request for `instrument`'s book: Event, Malformed (also what the venue answers
  /// to a bad request), BadNumber or TooManyLevels.
  Outcome decode_snapshot(std::span<const char> body, InstrumentId instrument, RecvClock recv_clock,
                          TsNs ts_recv, md::Event& out) noexcept TICKWIRE_HOT;

  /// Of the last message, until the next: the symbol that it names, or else its stream, known or not.
  [[nodiscard]] std::string_view symbol() const noexcept TICKWIRE_HOT;
  /// After Malformed and BadNumber: the field that could not be used, by its key, and its value as it was
  /// written. Both are empty where the message as a whole could not be read.
  struct Refused {
    std::string_view key;
    std::string_view value;
  };
  [[nodiscard]] Refused refused() const noexcept TICKWIRE_HOT;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tickwire::venue::binance

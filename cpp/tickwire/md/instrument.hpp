#pragma once

/// The instruments of one feed: what the configuration says about each, and the way from the venue's
/// symbol to our dense number.
///
/// Filled at setup, then read by the feed's thread for every message. The lookup hashes the symbol
/// and probes a table that is at most half full, so it usually costs one comparison; a symbol that is
/// not ours costs as little. Symbols are compared byte for byte: the venue's own spelling, upper case.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tickwire/core/decimal.hpp"
#include "tickwire/core/error.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"

namespace tickwire::md {

struct Instrument {
  std::string symbol;
  std::string venue;
  int price_decimals;  // One unit of an integer price is 10^-price_decimals.
  int qty_decimals;
};

class InstrumentTable {
 public:
  /// Setup. The numbers are 0, 1, 2 … in the order of the calls.
  InstrumentId add(Instrument instrument) {
    if (instrument.symbol.empty()) throw SetupError("instrument", "a symbol", "an empty string");
    for (const int decimals : {instrument.price_decimals, instrument.qty_decimals}) {
      if (decimals < 0 || decimals > kMaxDecimals) {
        throw SetupError("instrument " + instrument.symbol,
                         "decimals between 0 and " + std::to_string(kMaxDecimals), std::to_string(decimals));
      }
    }
    if (find(instrument.symbol) != kNoInstrument) {
      throw SetupError("instrument " + instrument.symbol, "each symbol once", "it twice");
    }
    instruments_.push_back(std::move(instrument));
    slots_.assign(std::bit_ceil(2 * instruments_.size()), kNoInstrument);
    for (InstrumentId id = 0; id < instruments_.size(); ++id) {
      std::size_t slot = hash(instruments_[id].symbol);
      while (slots_[slot & (slots_.size() - 1)] != kNoInstrument) ++slot;
      slots_[slot & (slots_.size() - 1)] = id;
    }
    return static_cast<InstrumentId>(instruments_.size() - 1);
  }

  /// kNoInstrument where the symbol is not one of ours.
  [[nodiscard]] InstrumentId find(std::string_view symbol) const noexcept TICKWIRE_HOT {
    if (slots_.empty()) return kNoInstrument;
    // Ends: at least half of the slots are free.
    for (std::size_t slot = hash(symbol);; ++slot) {
      const InstrumentId id = slots_[slot & (slots_.size() - 1)];
      if (id == kNoInstrument || instruments_[id].symbol == symbol) return id;
    }
  }

  [[nodiscard]] const Instrument& operator[](InstrumentId id) const noexcept TICKWIRE_HOT {
    return instruments_[id];
  }
  [[nodiscard]] std::size_t size() const noexcept TICKWIRE_HOT { return instruments_.size(); }

 private:
  /// FNV-1a, its high half folded in because the table looks at the low bits alone.
  [[nodiscard]] static std::size_t hash(std::string_view symbol) noexcept TICKWIRE_HOT {
    std::uint64_t value = 0xCBF29CE484222325U;
    for (const char c : symbol) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
    return static_cast<std::size_t>(value ^ (value >> 32U));
  }

  std::vector<Instrument> instruments_;
  std::vector<InstrumentId> slots_;
};

}  // namespace tickwire::md

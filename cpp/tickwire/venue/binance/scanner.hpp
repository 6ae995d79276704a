#pragma once

/// The shortcut past the JSON parser: one pass over a message that is written as the venue writes all of
/// its own, straight from bytes to fields and levels.
///
/// It knows one way of writing: keys of one or two letters; values that are whole numbers, true, false,
/// texts of printable ASCII without a backslash, and under `b` and `a` lists of [price, qty] in quotes,
/// behind the symbol they belong to; around all that at most `{"stream":"…","data":…}`; no space
/// anywhere. On anything else, of whatever kind, it gives up: what such a message is, the parser says. So
/// a message means the same with the scanner and without it, which the tests and the fuzz target hold it
/// to, and nothing that is wrong with a message is judged here.
///
/// A price of eight digits on both sides of its point costs two steps of eight digits each, and finding
/// its end is all that the next one waits for.

#include <span>

#include "tickwire/core/hot.hpp"
#include "tickwire/md/instrument.hpp"
#include "tickwire/venue/binance/fields.hpp"

namespace tickwire::venue::binance {

/// Bytes beyond the message that must be readable, whatever they are.
inline constexpr std::size_t kScannerPadding = 64;

/// Fills cleared `fields` and returns true, or gives up and leaves them in any state. True says that the
/// message is one JSON object, that its instrument is one of the table's and that all its levels are good.
[[nodiscard]] bool scan(std::span<const char> message, const md::InstrumentTable& instruments,
                        Fields& fields) noexcept TICKWIRE_HOT;

}  // namespace tickwire::venue::binance

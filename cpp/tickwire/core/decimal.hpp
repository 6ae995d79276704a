#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tickwire/core/hot.hpp"

namespace tickwire {

/// The most decimals an integer price can carry: 10^18 is the largest power below 2^63.
inline constexpr int kMaxDecimals = 18;

/// Parses "61837.63000000" into an integer scaled by 10^decimals, never through a double. Any
/// thread. Reads no byte outside the token; eight digits a step, so that a 14-character price costs
/// a few nanoseconds.
///
/// A token is an optional '-', at least one digit, optionally '.' with at least one digit, and optionally
/// an exponent, as JSON has it: 6.183763e4. False, with `out` untouched, on anything else (also "+1", ".5",
/// "5.", spaces), on a magnitude above 2^63 - 1, on `decimals` outside 0..kMaxDecimals, and on a non-zero
/// digit beyond `decimals`: a price finer than its instrument's units is a configuration that is wrong, not
/// one to round.
[[nodiscard]] bool parse_decimal(std::string_view token, int decimals, std::int64_t& out) noexcept
    TICKWIRE_HOT;

/// The same for a token with kDecimalPadding readable bytes behind it, whatever they are. A usual price
/// or quantity, up to eight digits before the point and eight behind, takes no branch that depends on
/// how long it is: in a message of a hundred numbers those are what costs.
inline constexpr std::size_t kDecimalPadding = 16;
[[nodiscard]] bool parse_decimal_padded(std::string_view token, int decimals, std::int64_t& out) noexcept
    TICKWIRE_HOT;

}  // namespace tickwire

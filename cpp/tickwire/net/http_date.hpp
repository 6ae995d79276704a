#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace tickwire::net {

/// The seconds since 1970 of a date in an HTTP header, in one of the three forms of RFC 9110, 5.6.7:
///
///     Sun, 06 Nov 1994 08:49:37 GMT      what everybody sends
///     Sunday, 06-Nov-94 08:49:37 GMT     of a year within fifty of `now_s`
///     Sun Nov  6 08:49:37 1994
///
/// Empty for anything else, a day that no month has included. The name of the weekday is not looked at.
[[nodiscard]] std::optional<std::int64_t> parse_http_date(std::string_view text, std::int64_t now_s) noexcept;

}  // namespace tickwire::net

#pragma once

/// The receive time in front of a capture's line, in whatever form a recorder wrote it: whole or decimal
/// numbers of seconds, milliseconds, microseconds or nanoseconds since 1970, or ISO 8601.
///
/// A number says by itself in which unit it is: between the years 2000 and 2100 the four have none in
/// common. One that lies there in none of them is plausible in no unit.

#include <cstdint>
#include <string_view>

#include "tickwire/core/types.hpp"

namespace tickwire::md {

enum class StampForm : std::uint8_t { None, Nanoseconds, Microseconds, Milliseconds, Seconds, Iso };
inline constexpr std::size_t kStampForms = 6;

constexpr std::string_view name_of(StampForm form) noexcept {
  switch (form) {
    case StampForm::None: return "no unit";
    case StampForm::Nanoseconds: return "nanoseconds";
    case StampForm::Microseconds: return "microseconds";
    case StampForm::Milliseconds: return "milliseconds";
    case StampForm::Seconds: return "seconds";
    case StampForm::Iso: return "ISO times";
  }
  return "no unit";
}

struct Stamp {
  /// None: a number that is plausible in no unit.
  StampForm form;
  TsNs ts;           // What is finer than a nanosecond is cut.
  TsNs as_ns;        // The number as if it were in nanoseconds, whatever it is.
  std::size_t size;  // Of its text: what follows is no part of it.
  bool whole;        // A number without a point or an exponent.
  bool no_zone;      // An ISO time that names none: taken as UTC.
};

/// False where the text does not begin with a time. Any bytes; reads none beyond the text.
[[nodiscard]] bool parse_stamp(std::string_view text, Stamp& out) noexcept;

}  // namespace tickwire::md

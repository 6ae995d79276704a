#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tickwire/core/hot.hpp"

namespace tickwire::net {

/// Checks UTF-8 that arrives in pieces, and refuses at the first byte that no valid text can contain
/// in its place: overlong forms, surrogates and code points above U+10FFFF are caught by the byte
/// that gives them away, not at the end of the sequence. A conformance suite measures that.
///
/// One thread, allocates nothing. Market data is ASCII, which is checked 32 bytes at a step; other
/// text costs about a nanosecond a byte.
class Utf8Validator {
 public:
  void reset() noexcept TICKWIRE_HOT {
    pending_ = 0;
    low_ = 0x80;
    high_ = 0xBF;
  }

  /// False when these bytes cannot continue what came before; then only reset() helps.
  [[nodiscard]] bool accept(const char* data, std::size_t count) noexcept TICKWIRE_HOT {
    const auto* at = reinterpret_cast<const unsigned char*>(data);
    const auto* const end = at + count;
    while (at != end) {
      if (pending_ != 0) {
        if (*at < low_ || *at > high_) return false;
        ++at;
        --pending_;
        low_ = 0x80;
        high_ = 0xBF;
        continue;
      }
      at = skip_ascii(at, end);
      if (at == end) return true;
      if (!lead(*at++)) return false;
    }
    return true;
  }

  /// True between two characters: the only place where a message may end.
  [[nodiscard]] bool complete() const noexcept TICKWIRE_HOT { return pending_ == 0; }

 private:
  static const unsigned char* skip_ascii(const unsigned char* at, const unsigned char* end) noexcept
      TICKWIRE_HOT {
    while (end - at >= 32) {
      std::uint64_t words[4];
      std::memcpy(words, at, sizeof words);
      if (((words[0] | words[1] | words[2] | words[3]) & 0x8080808080808080u) != 0) break;
      at += 32;
    }
    while (at != end && *at < 0x80) ++at;
    return at;
  }

  // The second byte's range is what excludes overlong forms (E0, F0), surrogates (ED) and what lies
  // above U+10FFFF (F4): Unicode 15, table 3-7.
  bool lead(unsigned char byte) noexcept TICKWIRE_HOT {
    if (byte < 0xC2) return false;
    if (byte < 0xE0) {
      pending_ = 1;
    } else if (byte < 0xF0) {
      pending_ = 2;
      if (byte == 0xE0) low_ = 0xA0;
      if (byte == 0xED) high_ = 0x9F;
    } else if (byte < 0xF5) {
      pending_ = 3;
      if (byte == 0xF0) low_ = 0x90;
      if (byte == 0xF4) high_ = 0x8F;
    } else {
      return false;
    }
    return true;
  }

  std::uint8_t pending_ = 0;  // Continuation bytes still to come.
  std::uint8_t low_ = 0x80;   // Range of the next one.
  std::uint8_t high_ = 0xBF;
};

}  // namespace tickwire::net

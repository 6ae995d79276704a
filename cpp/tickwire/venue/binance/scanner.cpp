#include "tickwire/venue/binance/scanner.hpp"

#include <bit>
#include <cstring>
#include <string_view>

#include "tickwire/core/decimal.hpp"
#include "tickwire/core/digits.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace tickwire::venue::binance {
namespace {

// Every step below returns where the next one begins, or nullptr to give up. A step that begins before
// the message's end reads less than the padding beyond it; where it led is compared with the end before
// the next begins.

bool starts_with(const char* at, std::string_view text) noexcept TICKWIRE_HOT {
  return std::memcmp(at, text.data(), text.size()) == 0;
}

bool is_letter(char c) noexcept TICKWIRE_HOT { return static_cast<unsigned char>((c | 0x20) - 'a') < 26; }
bool is_digit(char c) noexcept TICKWIRE_HOT { return static_cast<unsigned char>(c - '0') < 10; }

/// What the next 16 bytes are, one bit a byte: digits; quotes; what a text is made of without more ado.
#if defined(__SSE2__)
__m128i load(const char* at) noexcept TICKWIRE_HOT {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
}
unsigned mask_of(__m128i bytes) noexcept TICKWIRE_HOT {
  return static_cast<unsigned>(_mm_movemask_epi8(bytes));
}
unsigned digits_at(const char* at) noexcept TICKWIRE_HOT {
  const __m128i values = _mm_sub_epi8(load(at), _mm_set1_epi8('0'));
  return mask_of(_mm_cmpeq_epi8(_mm_min_epu8(values, _mm_set1_epi8(9)), values));
}
unsigned quotes_at(const char* at) noexcept TICKWIRE_HOT {
  return mask_of(_mm_cmpeq_epi8(load(at), _mm_set1_epi8('"')));
}
unsigned plain_at(const char* at) noexcept TICKWIRE_HOT {
  const __m128i bytes = load(at);
  const __m128i special = _mm_or_si128(
      _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')),
      _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7F))));
  // Signed: what is not ASCII is negative.
  return mask_of(_mm_andnot_si128(special, _mm_cmpgt_epi8(bytes, _mm_set1_epi8(0x1F))));
}
/// first * scale + second, of eight digits each.
std::uint64_t value_of(std::uint64_t first, std::uint64_t second, std::uint64_t scale) noexcept TICKWIRE_HOT {
  const __m128i digits = _mm_set_epi64x(static_cast<long long>(second), static_cast<long long>(first));
  const __m128i tens = _mm_mullo_epi16(_mm_and_si128(digits, _mm_set1_epi16(0xFF)), _mm_set1_epi16(10));
  const __m128i pairs = _mm_add_epi16(tens, _mm_srli_epi16(digits, 8));
  const __m128i fours = _mm_madd_epi16(pairs, _mm_set1_epi32(100 | 1 << 16));
  const __m128i eights = _mm_madd_epi16(_mm_packs_epi32(fours, fours), _mm_set1_epi32(10000 | 1 << 16));
  const auto both = static_cast<std::uint64_t>(_mm_cvtsi128_si64(eights));
  return (both & 0xFFFFFFFFU) * scale + (both >> 32U);
}
#else
std::uint64_t value_of(std::uint64_t first, std::uint64_t second, std::uint64_t scale) noexcept TICKWIRE_HOT {
  return value_of_digits(first) * scale + value_of_digits(second);
}
template <typename Is>
unsigned mask_of(const char* at, Is&& is) noexcept TICKWIRE_HOT {
  unsigned mask = 0;
  for (unsigned i = 0; i < 16; ++i) mask |= static_cast<unsigned>(is(at[i])) << i;
  return mask;
}
unsigned digits_at(const char* at) noexcept TICKWIRE_HOT { return mask_of(at, is_digit); }
unsigned quotes_at(const char* at) noexcept TICKWIRE_HOT {
  return mask_of(at, [](char c) TICKWIRE_HOT { return c == '"'; });
}
unsigned plain_at(const char* at) noexcept TICKWIRE_HOT {
  return mask_of(at, [](char c) TICKWIRE_HOT { return c >= ' ' && c <= '~' && c != '"' && c != '\\'; });
}
#endif

/// How many of the next bytes a mask takes, at most 16.
unsigned run_of(unsigned mask) noexcept TICKWIRE_HOT {
  return static_cast<unsigned>(__builtin_ctz(~mask | 1U << 16U));
}

/// Behind the bytes that `mask_at` takes.
template <unsigned (*kMaskAt)(const char*) noexcept>
const char* skip(const char* at, const char* end) noexcept TICKWIRE_HOT {
  unsigned run = 16;
  for (; at < end && run == 16; at += run) run = run_of(kMaskAt(at));
  return at;
}

constexpr unsigned low_bits(unsigned count) noexcept TICKWIRE_HOT { return (1U << count) - 1; }

/// The prices of a list, or its quantities.
class Column {
 public:
  explicit Column(int decimals) noexcept TICKWIRE_HOT
      : decimals_(decimals),
        most_digits_(decimals <= 8 ? 8 : 0),
        scale_(kPowersOfTen[static_cast<std::size_t>(decimals)]),
        beyond_(~kLowBytes[static_cast<std::size_t>(decimals <= 8 ? decimals : 8)]),
        half_shift_(decimals <= 8 ? 4 * (8 - static_cast<unsigned>(decimals)) : 0) {}

  /// A number without a sign, to its closing quote. `kGuess` where it is most likely shaped like the one
  /// before, with as many digits before the point and behind it, as prices are. A guess that is right costs
  /// a comparison, and the next number can begin before the end of this one is found; of quantities too
  /// many would be wrong.
  template <bool kGuess>
  const char* read(const char* at, const char* end, std::int64_t& out) noexcept TICKWIRE_HOT {
    if (!(kGuess && fits(at)) && !learn(at)) [[unlikely]]
      return read_slow(at, end, out);
    const std::uint64_t whole = (load_eight(at) ^ kEightZeros) << whole_shift_;
    const std::uint64_t behind = (load_eight(at + whole_ + 1) ^ kEightZeros) & behind_;
    if ((behind & beyond_) != 0) [[unlikely]]
      return nullptr;
    out = static_cast<std::int64_t>(value_of(whole, behind << half_shift_ << half_shift_, scale_));
    return at + length_;
  }

 private:
  [[nodiscard]] bool fits(const char* at) const noexcept TICKWIRE_HOT {
    return at[length_] == '"' && at[whole_] == after_whole_ && (digits_at(at) & digits_) == digits_;
  }

  /// Takes the shape of this number, unless that is rare or wrong.
  bool learn(const char* at) noexcept TICKWIRE_HOT {
    const unsigned digits = digits_at(at);
    const unsigned quotes = quotes_at(at);
    if (quotes == 0) [[unlikely]]
      return false;
    length_ = static_cast<unsigned>(__builtin_ctz(quotes));
    whole_ = run_of(digits);
    after_whole_ = at[whole_];
    digits_ = low_bits(length_);
    behind_ = 0;
    unsigned on_a_side = whole_ - 1;
    if (after_whole_ == '.') {
      const unsigned behind = length_ - whole_ - 1;
      on_a_side |= behind - 1;
      digits_ ^= 1U << whole_;
      behind_ = kLowBytes[behind <= 8 ? behind : 0];
    }
    whole_shift_ = 8 * (8 - whole_);
    return on_a_side < most_digits_ && (digits & digits_) == digits_;
  }

  /// Any other number.
  [[gnu::noinline]] const char* read_slow(const char* at, const char* end, std::int64_t& out) noexcept
      TICKWIRE_HOT {
    digits_ = kNowhere;
    const char* const begin = at;
    while (at < end && (is_digit(*at) || *at == '.')) ++at;
    const std::string_view text{begin, static_cast<std::size_t>(at - begin)};
    return parse_decimal(text, decimals_, out) ? at : nullptr;
  }

  static constexpr unsigned kNowhere = 1U << 16U;  // No number has a digit there.

  const int decimals_;
  const unsigned most_digits_;  // On a side of the point: what fits a word.
  const std::uint64_t scale_;
  const std::uint64_t beyond_;  // Of eight digits behind a point, those that must be zero …
  const unsigned half_shift_;   // … and half of what shifts them out: no word is shifted by all its bits.

  // The shape of the last number.
  unsigned length_ = 0;
  unsigned whole_ = 0;          // Digits before the point …
  char after_whole_ = '\0';     // … and what follows them: the point, or the closing quote.
  unsigned digits_ = kNowhere;  // Where there must be digits.
  unsigned whole_shift_ = 0;    // Puts the digits before the point at the end of their word.
  std::uint64_t behind_ = 0;    // Keeps the digits behind the point in theirs.
};

/// A list of levels, behind its opening bracket.
const char* read_levels(const char* at, const char* end, const md::Instrument& instrument,
                        Levels& side) noexcept TICKWIRE_HOT {
  Column prices(instrument.price_decimals);
  Column qtys(instrument.qty_decimals);
  side.state = LevelsState::Ok;
  if (*at == ']') return at + 1;
  if (!starts_with(at, "[\"")) return nullptr;
  std::size_t count = 0;
  while (at < end && count < side.room.size()) {
    md::Level& level = side.room[count++];
    at = prices.read<true>(at + 2, end, level.price);
    if (at == nullptr || level.price == 0 || !starts_with(at, "\",\"")) return nullptr;
    at = qtys.read<false>(at + 3, end, level.qty);
    if (at == nullptr) return nullptr;
    if (starts_with(at, "\"],[\"")) [[likely]] {
      at += 3;
      continue;
    }
    side.count = count;
    return starts_with(at, "\"]]") ? at + 3 : nullptr;
  }
  return nullptr;
}

/// A value that is no list.
const char* read_scalar(const char* at, const char* end, Token& out) noexcept TICKWIRE_HOT {
  const char* const begin = at;
  if (*at == '"') {
    at = skip<plain_at>(at + 1, end);
    if (*at != '"') return nullptr;
    out = {{begin + 1, static_cast<std::size_t>(at - begin - 1)}, true};
    return at + 1;
  }
  if (is_digit(*at)) {
    at = skip<digits_at>(at, end);
  } else if (starts_with(at, "true")) {
    at += 4;
  } else if (starts_with(at, "false")) {
    at += 5;
  } else {
    return nullptr;
  }
  out = {{begin, static_cast<std::size_t>(at - begin)}, false};
  return at;
}

/// A key and its colon.
const char* read_key(const char* at, Key& out) noexcept TICKWIRE_HOT {
  if (at[0] != '"' || !is_letter(at[1])) return nullptr;
  if (at[2] == '"') {
    out = key_of_letter(at[1]);
    return at[3] == ':' ? at + 4 : nullptr;
  }
  out = at[1] == 'p' && at[2] == 'u' ? Key::PrevId : Key::Other;
  return is_letter(at[2]) && at[3] == '"' && at[4] == ':' ? at + 5 : nullptr;
}

/// The object with the fields, behind its opening brace.
const char* read_object(const char* at, const char* end, const md::InstrumentTable& instruments,
                        Fields& fields) noexcept TICKWIRE_HOT {
  // Ends with the message.
  for (; at < end; ++at) {
    Key key;
    at = read_key(at, key);
    if (at == nullptr || at >= end) return nullptr;
    Token ignored;
    if (key != Key::Other) {
      if (fields.has(key)) return nullptr;
      fields.seen |= Fields::bit(key);
    }
    if (*at == '[') {
      if ((key != Key::Bids && key != Key::Asks) || fields.instrument == kNoInstrument) return nullptr;
      at = read_levels(at + 1, end, instruments[fields.instrument],
                       key == Key::Bids ? fields.bids : fields.asks);
    } else {
      at = read_scalar(at, end, key == Key::Other ? ignored : fields.token(key));
    }
    if (at == nullptr) return nullptr;
    if (key == Key::Symbol) {
      if (!fields.token(key).quoted) return nullptr;
      fields.instrument = instruments.find(fields.token(key).text);
      if (fields.instrument == kNoInstrument) return nullptr;
    }
    if (*at == '}') return at + 1;
    if (*at != ',') return nullptr;
  }
  return nullptr;
}

}  // namespace

bool scan(std::span<const char> message, const md::InstrumentTable& instruments, Fields& fields) noexcept {
  constexpr std::string_view kStream = "{\"stream\":\"";
  constexpr std::string_view kData = "\",\"data\":";
  const char* at = message.data();
  const char* const end = at + message.size();
  if (at == end) return false;
  const bool combined = starts_with(at, kStream);
  if (combined) {
    const char* const name = at + kStream.size();
    at = skip<plain_at>(name, end);
    if (!starts_with(at, kData)) return false;
    fields.stream = {name, static_cast<std::size_t>(at - name)};
    at += kData.size();
  }
  if (*at != '{') return false;
  at = read_object(at + 1, end, instruments, fields);
  if (at != nullptr && combined) at = *at == '}' ? at + 1 : nullptr;
  return at == end && fields.instrument != kNoInstrument;
}

}  // namespace tickwire::venue::binance

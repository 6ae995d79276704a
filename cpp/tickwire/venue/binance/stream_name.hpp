#pragma once

/// What the name of a stream says that its messages are. A message of a combined stream carries the name, and
/// it is the only thing that tells some of them apart: on futures the partial books of `btcusdt@depth20` say
/// "depthUpdate" as the changes of `btcusdt@depth` do.
///
///     btcusdt@depth  btcusdt@depth@100ms        changes to the book
///     btcusdt@depth20  btcusdt@depth5@100ms     partial books: the best 20 or 5 levels as they are
///     btcusdt@rpiDepth@500ms, …                 something else

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "tickwire/core/hot.hpp"
#include "tickwire/md/event.hpp"

namespace tickwire::venue::binance {

struct StreamName {
  enum class Kind : std::uint8_t {
    None,  // No name, or not of the venue's form: it says nothing.
    Diffs,
    Partial,  // Of `levels` levels a side.
    Other,
  };
  Kind kind = Kind::None;
  std::uint32_t levels = 0;
  std::string_view symbol;  // In lower case, as the venue writes it here.
};

inline StreamName parse_stream_name(std::string_view name) noexcept TICKWIRE_HOT {
  const std::size_t at = name.find('@');
  if (at == std::string_view::npos) return {};
  StreamName out{.kind = StreamName::Kind::Other, .levels = 0, .symbol = {name.data(), at}};
  std::string_view kind = name;
  kind.remove_prefix(at + 1);
  if (const std::size_t end = kind.find('@'); end != std::string_view::npos)
    kind.remove_suffix(kind.size() - end);
  constexpr std::string_view kDepth = "depth";
  if (kind.size() < kDepth.size() || std::memcmp(kind.data(), kDepth.data(), kDepth.size()) != 0) return out;
  kind.remove_prefix(kDepth.size());
  std::uint32_t levels = 0;
  for (const char c : kind) {
    if (c < '0' || c > '9' || levels > 99'999) return out;
    levels = 10 * levels + static_cast<std::uint32_t>(c - '0');
  }
  if (!kind.empty() && levels == 0) return out;
  out.kind = kind.empty() ? StreamName::Kind::Diffs : StreamName::Kind::Partial;
  out.levels = levels;
  return out;
}

/// May a stream of this name have messages of this symbol? One that names no symbol, as "!bookTicker", may,
/// and so may one that somebody's own tool called "x@depth": no pair of assets has so short a symbol.
inline bool is_stream_of(std::string_view stream, std::string_view symbol) noexcept TICKWIRE_HOT {
  const std::size_t size = symbol.size();
  if (stream.size() > size && stream[size] == '@') [[likely]] {
    bool same = true;
    for (std::size_t i = 0; i < size; ++i) {
      const char c =
          symbol[i] >= 'A' && symbol[i] <= 'Z' ? static_cast<char>(symbol[i] + ('a' - 'A')) : symbol[i];
      same = same && (stream[i] == c || stream[i] == symbol[i]);
    }
    if (same) return true;
  }
  const std::size_t at = stream.find('@');
  constexpr std::size_t kShortestSymbol = 4;
  return at == std::string_view::npos || at < kShortestSymbol || stream.front() == '!';
}

/// Partial books have 5, 10 or 20 levels a side; fewer only where there are no more.
inline constexpr std::size_t kMostPartialLevels = 20;
constexpr bool is_partial_size(std::size_t levels) noexcept TICKWIRE_HOT {
  return levels == 5 || levels == 10 || levels == kMostPartialLevels;
}

/// Of a message that names no stream: the levels of its longer side where it could be a partial book, 0 where
/// it says what changed: a side that is empty or not in order, a quantity of zero, or too many levels.
/// Changes look like a book by chance, but not all of them.
[[nodiscard]] inline std::size_t partial_shape(const md::Event& event) noexcept TICKWIRE_HOT {
  if (event.bids.empty() || event.asks.empty()) return 0;
  if (event.bids[0].price >= event.asks[0].price) return 0;
  for (std::size_t i = 0; i < event.bids.size(); ++i) {
    if (event.bids[i].qty == 0 || (i != 0 && event.bids[i].price >= event.bids[i - 1].price)) return 0;
  }
  for (std::size_t i = 0; i < event.asks.size(); ++i) {
    if (event.asks[i].qty == 0 || (i != 0 && event.asks[i].price <= event.asks[i - 1].price)) return 0;
  }
  const std::size_t levels = event.bids.size() > event.asks.size() ? event.bids.size() : event.asks.size();
  return levels <= kMostPartialLevels ? levels : 0;
}

/// The same where both sides have as many as partial books have: changes hardly ever do.
[[nodiscard]] inline std::size_t exact_partial_shape(const md::Event& event) noexcept TICKWIRE_HOT {
  const std::size_t levels = event.bids.size();
  return levels == event.asks.size() && is_partial_size(levels) ? partial_shape(event) : 0;
}

}  // namespace tickwire::venue::binance

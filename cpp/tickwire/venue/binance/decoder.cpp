#include "tickwire/venue/binance/decoder.hpp"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tickwire/core/decimal.hpp"
#include "tickwire/core/digits.hpp"
#include "tickwire/core/error.hpp"
#include "tickwire/venue/binance/fields.hpp"
#include "tickwire/venue/binance/scanner.hpp"
#include "tickwire/venue/binance/stream_name.hpp"

namespace tickwire::venue::binance {

static_assert(Decoder::kPaddingBytes >= simdjson::SIMDJSON_PADDING);
static_assert(Decoder::kPaddingBytes >= kDecimalPadding);
static_assert(Decoder::kPaddingBytes >= kScannerPadding);

namespace {

namespace ondemand = simdjson::ondemand;

/// `key` points behind the opening quote of a key inside the message. Every comparison stops at the
/// first byte that differs, so none runs beyond the key's own closing quote.
Key key_of_message(const char* key) noexcept TICKWIRE_HOT {
  if (key[0] == '"') return Key::Other;
  if (key[1] == '"') return key_of_letter(key[0]);
  if (std::strncmp(key, "pu\"", 3) == 0) return Key::PrevId;
  if (std::strncmp(key, "data\"", 5) == 0) return Key::Data;
  if (std::strncmp(key, "stream\"", 7) == 0) return Key::Stream;
  if (std::strncmp(key, "lastUpdateId\"", 13) == 0) return Key::LastId;  // As spot's partial books have it.
  if (std::strncmp(key, "bids\"", 5) == 0) return Key::Bids;
  if (std::strncmp(key, "asks\"", 5) == 0) return Key::Asks;
  if (std::strncmp(key, "error\"", 6) == 0 || std::strncmp(key, "code\"", 5) == 0) return Key::Error;
  return Key::Other;
}

Key key_of_snapshot(const char* key) noexcept TICKWIRE_HOT {
  if (std::strncmp(key, "lastUpdateId\"", 13) == 0) return Key::LastId;
  if (std::strncmp(key, "bids\"", 5) == 0) return Key::Bids;
  if (std::strncmp(key, "asks\"", 5) == 0) return Key::Asks;
  if (std::strncmp(key, "E\"", 2) == 0) return Key::EventTime;
  if (std::strncmp(key, "symbol\"", 7) == 0) return Key::Symbol;
  return Key::Other;
}

/// A whole number, also where it is written with a point or an exponent.
bool parse_whole(std::string_view text, std::uint64_t& out) noexcept TICKWIRE_HOT {
  if (parse_whole_padded(text, out)) [[likely]]
    return true;
  std::int64_t value = 0;
  if (!parse_decimal(text, 0, value) || text.front() == '-') return false;
  out = static_cast<std::uint64_t>(value);
  return true;
}

/// Milliseconds, or microseconds where the stream was asked for them: no millisecond of ours has 15
/// digits.
bool parse_time(std::string_view text, TsNs& out) noexcept TICKWIRE_HOT {
  std::uint64_t value = 0;
  if (!parse_whole(text, value)) return false;
  const std::uint64_t unit_ns = value > 100'000'000'000'000U ? 1'000 : 1'000'000;
  if (value > static_cast<std::uint64_t>(std::numeric_limits<TsNs>::max()) / unit_ns) return false;
  out = static_cast<TsNs>(value * unit_ns);
  return true;
}

/// A price or quantity that may be zero but not less.
bool parse_amount(std::string_view text, int decimals, std::int64_t& out) noexcept TICKWIRE_HOT {
  return parse_decimal_padded(text, decimals, out) && out >= 0;
}

/// The text that stands behind a key, as far as bytes that are no JSON can tell.
std::string_view find_text(std::string_view text, std::string_view key) noexcept TICKWIRE_HOT {
  constexpr std::string_view kSpace = " \t\r\n";
  const auto skip_space = [&] {
    while (!text.empty() && kSpace.find(text.front()) != std::string_view::npos) text.remove_prefix(1);
  };
  for (std::size_t found = text.find(key); found != std::string_view::npos; found = text.find(key)) {
    text.remove_prefix(found + key.size());
    skip_space();
    if (!text.starts_with(':')) continue;
    text.remove_prefix(1);
    skip_space();
    if (!text.starts_with('"')) continue;
    text.remove_prefix(1);
    const std::size_t end = text.find('"');
    return end == std::string_view::npos ? std::string_view{} : std::string_view(text.data(), end);
  }
  return {};
}

/// A key as messages have it, `spelled_out` where they do not go by letters.
std::string_view text_of(Key key, bool spelled_out) noexcept TICKWIRE_HOT {
  if (spelled_out && key == Key::LastId) return "lastUpdateId";
  if (spelled_out && key == Key::Bids) return "bids";
  if (spelled_out && key == Key::Asks) return "asks";
  if (spelled_out && key == Key::Symbol) return "symbol";
  switch (key) {
    case Key::EventType: return "e";
    case Key::EventTime: return "E";
    case Key::Symbol: return "s";
    case Key::FirstId: return "U";
    case Key::LastId: return "u";
    case Key::PrevId: return "pu";
    case Key::Bids: return "b";
    case Key::Asks: return "a";
    case Key::BidQty: return "B";
    case Key::AskQty: return "A";
    case Key::TradeId: return "t";
    case Key::Price: return "p";
    case Key::Qty: return "q";
    case Key::BuyerMaker: return "m";
    case Key::TradeType: return "X";
    case Key::TradeTime: return "T";
    case Key::Stream: return "stream";
    case Key::Data: return "data";
    case Key::Error: return "error";
    case Key::Other: break;
  }
  return {};
}

}  // namespace

class Decoder::Impl {
 public:
  Impl(const md::InstrumentTable& instruments, const DecoderConfig& config)
      : instruments_(instruments), config_(config), parser_(config.max_message_bytes) {
    if (config.max_levels == 0) throw SetupError("max_levels", "a positive number", "0");
    if (config.max_message_bytes < kSmallestLimit || config.max_message_bytes > kLargestLimit) {
      throw SetupError("max_message_bytes",
                       "between " + std::to_string(kSmallestLimit) + " and " + std::to_string(kLargestLimit),
                       std::to_string(config.max_message_bytes));
    }
    if (const auto error = parser_.allocate(config.max_message_bytes); error != simdjson::SUCCESS) {
      throw SetupError(std::string("max_message_bytes: ") + simdjson::error_message(error));
    }
    bids_.resize(config.max_levels);
    asks_.resize(config.max_levels);
    fields_.bids.room = bids_;
    fields_.asks.room = asks_;
  }

  Outcome decode(std::span<const char> message, md::Event& out) noexcept TICKWIRE_HOT {
    Outcome outcome = Outcome::Event;
    fields_.clear(kNoInstrument);
    refused_ = {};
    spelled_out_ = 0;
    if (!config_.scan || message.size() > config_.max_message_bytes || !scan(message, instruments_, fields_))
        [[unlikely]] {
      outcome = parse(message);
    }
    if (outcome == Outcome::Event) outcome = interpret(out);
    if (outcome == Outcome::Malformed) [[unlikely]] {
      out.instrument = diff_instrument_in(message);
    } else if (outcome != Outcome::Event && out.kind != md::EventKind::BookDiff &&
               out.kind != md::EventKind::PartialBook) [[unlikely]] {
      out.instrument = kNoInstrument;
    }
    return outcome;
  }

  [[nodiscard]] std::string_view stream() const noexcept TICKWIRE_HOT { return fields_.stream; }

  Outcome decode_snapshot(std::span<const char> body, InstrumentId instrument, md::Event& out) noexcept
      TICKWIRE_HOT {
    fields_.clear(instrument);
    refused_ = {};
    spelled_out_ = 0;
    out.kind = md::EventKind::BookSnapshot;
    TICKWIRE_HOT_EXEMPT_BEGIN(
        "simdjson: works inside the memory it was given at setup, one pass over the message")
    const Outcome outcome = read<key_of_snapshot>(body);
    TICKWIRE_HOT_EXEMPT_END
    out.instrument = instrument;
    if (outcome != Outcome::Event) return outcome;
    if (!has(Key::LastId) || !id(Key::LastId, out.last_id) || !event_time(out)) return Outcome::Malformed;
    if (has(Key::Symbol) && token(Key::Symbol).text != instruments_[instrument].symbol) {
      return refuse(Key::Symbol, token(Key::Symbol).text);
    }
    out.first_id = out.last_id;
    return take_levels(out);
  }

  [[nodiscard]] std::string_view symbol() noexcept TICKWIRE_HOT {
    return has(Key::Symbol) ? token(Key::Symbol).text : in_capitals(parse_stream_name(fields_.stream).symbol);
  }
  [[nodiscard]] Refused refused() const noexcept TICKWIRE_HOT { return refused_; }

 private:
  /// The parser reads documents of any size above this, and offsets of 32 bits are not exceeded.
  static constexpr std::size_t kSmallestLimit = 128;
  static constexpr std::size_t kLargestLimit = std::size_t{1} << 30U;

  /// No message has more; it bounds a recursion.
  static constexpr int kMaxSkippedDepth = 16;

  static constexpr std::uint32_t bit(Key key) noexcept { return Fields::bit(key); }
  [[nodiscard]] bool has(Key key) const noexcept { return fields_.has(key); }
  [[nodiscard]] const Token& token(Key key) const noexcept { return fields_.token(key); }

  // -------------------------------------------------------------------------------------------------
  // From bytes to tokens

  using KeyOf = Key (*)(const char*) noexcept;

  /// A message that the scanner gave up.
  [[gnu::noinline]] Outcome parse(std::span<const char> message) noexcept TICKWIRE_HOT {
    fields_.clear(kNoInstrument);
    TICKWIRE_HOT_EXEMPT_BEGIN(
        "simdjson: works inside the memory it was given at setup, one pass over the message")
    return read<key_of_message>(message);
    TICKWIRE_HOT_EXEMPT_END
  }

  /// Event where the message is one JSON object, with all fields of interest and its levels in fields_,
  /// else Malformed.
  template <KeyOf kKeyOf>
  Outcome read(std::span<const char> message) noexcept {
    end_ = message.data() + message.size();
    ondemand::document document;
    if (parser_.iterate(message.data(), message.size(), message.size() + kPaddingBytes).get(document) !=
        simdjson::SUCCESS) {
      return Outcome::Malformed;
    }
    bool whole = read_document<kKeyOf>(document);
    if (whole && fields_.instrument != kNoInstrument &&
        (fields_.bids.state == LevelsState::Deferred || fields_.asks.state == LevelsState::Deferred))
        [[unlikely]] {
      // The symbol came behind the levels. Now that it is known nothing is deferred.
      fields_.seen = 0;
      document.rewind();
      whole = read_document<kKeyOf>(document);
    }
    return whole ? Outcome::Event : Outcome::Malformed;
  }

  template <KeyOf kKeyOf>
  bool read_document(ondemand::document& document) noexcept {
    ondemand::object object;
    if (document.get_object().get(object) != simdjson::SUCCESS) return false;
    if (!read_object<kKeyOf, true>(object)) return false;
    // Nothing may follow the object. There is no current location only at the very end.
    return document.current_location().error() == simdjson::OUT_OF_BOUNDS;
  }

  template <KeyOf kKeyOf, bool kOutermost>
  bool read_object(ondemand::object& object) noexcept {
    for (simdjson::simdjson_result<ondemand::field> result : object) {
      ondemand::field field;
      if (std::move(result).get(field) != simdjson::SUCCESS) return false;
      ondemand::value& value = field.value();
      const Key key = kKeyOf(field.key().raw());
      if (key == Key::Other || ((key == Key::Data || key == Key::Stream) && !kOutermost)) {
        if (!skip(value, kMaxSkippedDepth)) return false;
        continue;
      }
      if (has(key)) return false;
      fields_.seen |= bit(key);
      if (field.key().raw()[1] != '"') spelled_out_ |= bit(key);

      const char first = first_char(value);
      if (key == Key::Data && first == '{') {
        if constexpr (kOutermost) {
          ondemand::object data;
          if (value.get_object().get(data) != simdjson::SUCCESS) return false;
          if (!read_object<kKeyOf, false>(data)) return false;
        }
        continue;
      }
      // An error's being there says enough, and data that is no object is of a stream of lists, none
      // of ours.
      if (key == Key::Data || key == Key::Error) {
        if (!skip(value, kMaxSkippedDepth)) return false;
        continue;
      }
      if ((key == Key::Bids || key == Key::Asks) && first == '[') {
        if (!read_side(value, key == Key::Bids ? fields_.bids : fields_.asks)) return false;
        continue;
      }
      Token& token = fields_.token(key);
      if (!scalar(value, token)) {
        (void)refuse(key, value.raw_json_token().substr(0, 1));
        return false;
      }
      if (key == Key::Stream && token.quoted) {
        fields_.stream = token.text;
        // A partial book of spot names its instrument nowhere else.
        const StreamName name = parse_stream_name(token.text);
        if (name.kind == StreamName::Kind::Partial && fields_.instrument == kNoInstrument) {
          fields_.instrument = instruments_.find(in_capitals(name.symbol));
        }
      }
      if (key == Key::Symbol) {
        if (!token.quoted) return false;
        const InstrumentId named = instruments_.find(token.text);
        if (fields_.instrument == kNoInstrument) fields_.instrument = named;
        if (fields_.instrument != named) {
          if (kKeyOf == static_cast<KeyOf>(key_of_snapshot)) return false;
          fields_.instrument = named;  // Not its stream's, which is told by that.
        }
      }
    }
    return true;
  }

  /// A symbol as the name of a stream has it, in the way that instruments are named; until the next call.
  /// Empty where it is longer than any.
  [[nodiscard]] std::string_view in_capitals(std::string_view symbol) noexcept TICKWIRE_HOT {
    if (symbol.size() > capitals_.size()) return {};
    std::transform(symbol.begin(), symbol.end(), capitals_.begin(),
                   [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
    return {capitals_.data(), symbol.size()};
  }

  [[nodiscard]] static char first_char(ondemand::value& value) noexcept {
    return value.raw_json_token().front();
  }

  /// False for what is no scalar. A token is never longer than the message, whatever a broken message
  /// makes the parser believe.
  template <bool kUnescape = true>
  [[nodiscard]] bool scalar(ondemand::value& value, Token& out) const noexcept {
    std::string_view text = value.raw_json_token();
    if (text.data() >= end_ || text.size() > static_cast<std::size_t>(end_ - text.data())) return false;
    while (!text.empty() &&
           (text.back() == ' ' || text.back() == '\t' || text.back() == '\n' || text.back() == '\r')) {
      text.remove_suffix(1);
    }
    if (text.empty()) return false;
    switch (text.front()) {
      case '"':
        if (text.size() < 2 || text.back() != '"') return false;
        out = {text.substr(1, text.size() - 2), true};
        if (kUnescape && out.text.find('\\') != std::string_view::npos) [[unlikely]] {
          // Into the parser's own memory, which is there until the next message.
          return value.get_string().get(out.text) == simdjson::SUCCESS;
        }
        // Left where it is, a string before a colon would be passed over as a key.
        return value.get_raw_json_string().error() == simdjson::SUCCESS;
      case '{':
      case '}':
      case '[':
      case ']':
      case ',':
      case ':': return false;
      default: out = {text, false}; return true;
    }
  }

  /// Passes over a value that is not needed. The parser's own way of skipping counts brackets without
  /// matching them and can be led beyond the end, where the answer would depend on what lies there: a
  /// replay's buffer holds other bytes than the run's did.
  [[nodiscard]] bool skip(ondemand::value& value, int depth) const noexcept {
    switch (first_char(value)) {
      case '{': {
        ondemand::object object;
        if (depth == 0 || value.get_object().get(object) != simdjson::SUCCESS) return false;
        for (simdjson::simdjson_result<ondemand::field> result : object) {
          ondemand::field field;
          if (std::move(result).get(field) != simdjson::SUCCESS || !skip(field.value(), depth - 1))
            return false;
        }
        return true;
      }
      case '[': {
        ondemand::array array;
        if (depth == 0 || value.get_array().get(array) != simdjson::SUCCESS) return false;
        for (simdjson::simdjson_result<ondemand::value> result : array) {
          ondemand::value element;
          if (std::move(result).get(element) != simdjson::SUCCESS || !skip(element, depth - 1)) return false;
        }
        return true;
      }
      default: {
        Token ignored;
        return scalar<false>(value, ignored);
      }
    }
  }

  /// Reads an array as the levels of one side. What is no list of levels may still be a field of another
  /// kind of message, so that is noted and not judged. False for what is no JSON.
  bool read_side(ondemand::value& value, Levels& side) noexcept {
    side.state = fields_.instrument == kNoInstrument ? LevelsState::Deferred : LevelsState::Ok;
    side.count = 0;
    if (side.state == LevelsState::Deferred) return skip(value, kMaxSkippedDepth);

    const md::Instrument& instrument = instruments_[fields_.instrument];
    ondemand::array levels;
    if (value.get_array().get(levels) != simdjson::SUCCESS) return false;
    for (simdjson::simdjson_result<ondemand::value> result : levels) {
      ondemand::value element;
      if (std::move(result).get(element) != simdjson::SUCCESS) return false;
      ondemand::array level;
      if (first_char(element) != '[') {
        if (!skip(element, kMaxSkippedDepth)) return false;
        side.note(LevelsState::Malformed);
        continue;
      }
      if (element.get_array().get(level) != simdjson::SUCCESS) return false;
      // Price and quantity; old messages have a third, empty cell.
      Token texts[2];
      std::size_t scalars = 0;
      std::size_t cells = 0;
      for (simdjson::simdjson_result<ondemand::value> cell_result : level) {
        ondemand::value cell;
        if (std::move(cell_result).get(cell) != simdjson::SUCCESS) return false;
        if (cells < 2 && scalar(cell, texts[cells])) {
          ++scalars;
        } else if (!skip(cell, kMaxSkippedDepth)) {
          return false;
        }
        ++cells;
      }
      if (scalars != 2) {
        side.note(LevelsState::Malformed);
        continue;
      }
      if (side.count == side.room.size()) [[unlikely]] {
        side.note(LevelsState::TooMany);
        continue;
      }
      md::Level& out = side.room[side.count++];
      const bool price = parse_amount(texts[0].text, instrument.price_decimals, out.price) && out.price != 0;
      if (!price || !parse_amount(texts[1].text, instrument.qty_decimals, out.qty)) [[unlikely]] {
        side.note(LevelsState::BadNumber);
        if (refused_.key.empty()) {
          refused_ = {name_of(&side == &fields_.bids ? Key::Bids : Key::Asks), texts[price ? 1 : 0].text};
        }
      }
    }
    return true;
  }

  // -------------------------------------------------------------------------------------------------
  // From tokens to an event

  /// Always Malformed, and says why.
  Outcome refuse(Key key, std::string_view value) noexcept TICKWIRE_HOT {
    if (refused_.key.empty()) refused_ = {name_of(key), value};
    return Outcome::Malformed;
  }
  /// As this message has it.
  [[nodiscard]] std::string_view name_of(Key key) const noexcept TICKWIRE_HOT {
    return text_of(key, (spelled_out_ & bit(key)) != 0);
  }
  [[nodiscard]] bool good(bool read, Key key) noexcept TICKWIRE_HOT {
    if (!read) [[unlikely]]
      (void)refuse(key, token(key).text);
    return read;
  }

  [[nodiscard]] bool id(Key key, std::uint64_t& out) noexcept {
    return good(parse_whole(token(key).text, out), key);
  }

  [[nodiscard]] bool event_time(md::Event& out) noexcept {
    return !has(Key::EventTime) || good(parse_time(token(Key::EventTime).text, out.ts_event), Key::EventTime);
  }

  [[nodiscard]] bool price(Key key, std::int64_t& out) noexcept {
    return good(parse_amount(token(key).text, instruments_[fields_.instrument].price_decimals, out), key);
  }
  [[nodiscard]] bool qty(Key key, std::int64_t& out) noexcept {
    return good(parse_amount(token(key).text, instruments_[fields_.instrument].qty_decimals, out), key);
  }

  Outcome interpret(md::Event& out) noexcept {
    constexpr std::uint32_t kQuote = bit(Key::LastId) | bit(Key::Symbol) | bit(Key::Bids) | bit(Key::BidQty) |
                                     bit(Key::Asks) | bit(Key::AskQty);
    out.instrument = fields_.instrument;
    if (has(Key::Symbol)) {
      if (!fields_.stream.empty() && !is_stream_of(fields_.stream, token(Key::Symbol).text)) [[unlikely]]
        return Outcome::OtherSymbol;
      if (fields_.instrument == kNoInstrument) return Outcome::UnknownSymbol;
    }
    if (!has(Key::EventType)) {
      constexpr std::uint32_t kPartial = bit(Key::LastId) | bit(Key::Bids) | bit(Key::Asks);
      const StreamName name = parse_stream_name(fields_.stream);
      if (name.kind == StreamName::Kind::Partial && (fields_.seen & kPartial) == kPartial) {
        return fields_.instrument == kNoInstrument ? Outcome::UnknownSymbol : partial(out, name);
      }
      if (has(Key::Error)) return Outcome::SubscribeError;
      if ((fields_.seen & kQuote) == kQuote) return quote(out);
      return Outcome::Ignored;
    }
    const Token& type = token(Key::EventType);
    if (!type.quoted) return Outcome::Malformed;
    if (type.text == "depthUpdate") {
      const StreamName name = parse_stream_name(fields_.stream);
      out.named = name.kind != StreamName::Kind::None;
      if (name.kind == StreamName::Kind::Other) return Outcome::OtherStream;
      return name.kind == StreamName::Kind::Partial ? partial(out, name) : diff(out);
    }
    if (type.text == "trade") return trade(out, TradeStream::Trade, Key::TradeId);
    if (type.text == "aggTrade") return trade(out, TradeStream::AggTrade, Key::Asks);
    if (type.text == "bookTicker") return (fields_.seen & kQuote) == kQuote ? quote(out) : Outcome::Malformed;
    if (type.text == "serverShutdown") return Outcome::Shutdown;
    return Outcome::Ignored;
  }

  Outcome diff(md::Event& out) noexcept {
    constexpr std::uint32_t kNeeded = bit(Key::Symbol) | bit(Key::FirstId) | bit(Key::LastId);
    out.kind = md::EventKind::BookDiff;
    if ((fields_.seen & kNeeded) != kNeeded || !id(Key::FirstId, out.first_id) ||
        !id(Key::LastId, out.last_id) || !event_time(out) || out.first_id > out.last_id) {
      return Outcome::Malformed;
    }
    if (config_.market != Market::Spot && (!has(Key::PrevId) || !id(Key::PrevId, out.prev_id))) {
      return Outcome::Malformed;
    }
    return take_levels(out);
  }

  Outcome partial(md::Event& out, const StreamName& name) noexcept {
    out.kind = md::EventKind::PartialBook;
    out.limit = name.levels;
    out.named = true;
    if (!has(Key::LastId) || !id(Key::LastId, out.last_id) || !event_time(out)) return Outcome::Malformed;
    out.first_id = out.last_id;
    return take_levels(out);
  }

  Outcome take_levels(md::Event& out) noexcept {
    if (fields_.bids.state < LevelsState::Ok || fields_.asks.state < LevelsState::Ok)
      return Outcome::Malformed;
    switch (std::max(fields_.bids.state, fields_.asks.state)) {
      case LevelsState::Ok: break;
      case LevelsState::BadNumber: return Outcome::BadNumber;
      case LevelsState::TooMany: return Outcome::TooManyLevels;
      default: return Outcome::Malformed;
    }
    out.bids = fields_.bids.room.first(fields_.bids.count);
    out.asks = fields_.asks.room.first(fields_.asks.count);
    return Outcome::Event;
  }

  Outcome trade(md::Event& out, TradeStream stream, Key id_key) noexcept {
    constexpr std::uint32_t kNeeded =
        bit(Key::Symbol) | bit(Key::Price) | bit(Key::Qty) | bit(Key::BuyerMaker);
    out.kind = md::EventKind::Trade;
    if (stream != config_.trades) return Outcome::OtherTradeStream;
    const std::uint32_t needed = kNeeded | bit(id_key);
    const std::string_view maker = token(Key::BuyerMaker).text;
    if ((fields_.seen & needed) != needed || !id(id_key, out.trade.id) || !event_time(out) ||
        (maker != "true" && maker != "false")) {
      return Outcome::Malformed;
    }
    if (!price(Key::Price, out.trade.price) || !qty(Key::Qty, out.trade.qty)) return Outcome::BadNumber;
    out.trade.aggressor = maker == "true" ? md::Aggressor::Seller : md::Aggressor::Buyer;
    // Futures print what is no trade in the market, too: NA with zeros, insurance fund, auto-deleveraging.
    out.trade.printable =
        out.trade.qty != 0 && (!has(Key::TradeType) || token(Key::TradeType).text == "MARKET");
    // Nothing but repetitions is told by it, so a form that we do not know costs no trade.
    if (!has(Key::TradeTime) || !parse_time(token(Key::TradeTime).text, out.trade.ts_trade))
      out.trade.ts_trade = kNoTime;
    out.first_id = out.last_id = out.trade.id;
    return Outcome::Event;
  }

  Outcome quote(md::Event& out) noexcept {
    out.kind = md::EventKind::Quote;
    if (fields_.bids.state != LevelsState::None || fields_.asks.state != LevelsState::None ||
        !id(Key::LastId, out.last_id) || !event_time(out)) {
      return Outcome::Malformed;
    }
    if (!price(Key::Bids, out.quote.bid.price) || !qty(Key::BidQty, out.quote.bid.qty) ||
        !price(Key::Asks, out.quote.ask.price) || !qty(Key::AskQty, out.quote.ask.qty)) {
      return Outcome::BadNumber;
    }
    out.first_id = out.last_id;
    return Outcome::Event;
  }

  /// Whose diff it was, as far as bytes that are no JSON can tell.
  [[nodiscard]] InstrumentId diff_instrument_in(std::span<const char> message) const noexcept TICKWIRE_HOT {
    const std::string_view text{message.data(), message.size()};
    if (text.find("\"depthUpdate\"") == std::string_view::npos) return kNoInstrument;
    const StreamName::Kind kind = parse_stream_name(find_text(text, "\"stream\"")).kind;
    if (kind == StreamName::Kind::Partial || kind == StreamName::Kind::Other) return kNoInstrument;
    return instruments_.find(find_text(text, "\"s\""));
  }

  const md::InstrumentTable& instruments_;
  const DecoderConfig config_;
  ondemand::parser parser_;
  std::vector<md::Level> bids_;
  std::vector<md::Level> asks_;

  // Of the message at hand.
  const char* end_ = nullptr;
  Fields fields_;
  std::array<char, 64> capitals_{};  // Of in_capitals().
  Refused refused_;
  std::uint32_t spelled_out_ = 0;  // Keys of this message that are words, by bit().
};

Decoder::Decoder(const md::InstrumentTable& instruments, const DecoderConfig& config)
    : impl_(std::make_unique<Impl>(instruments, config)) {}
Decoder::~Decoder() = default;

std::string_view Decoder::stream() const noexcept { return impl_->stream(); }
std::string_view Decoder::symbol() const noexcept { return impl_->symbol(); }
Decoder::Refused Decoder::refused() const noexcept { return impl_->refused(); }

namespace {

md::Event blank(md::EventKind kind, RecvClock recv_clock, TsNs ts_recv) noexcept TICKWIRE_HOT {
  md::Event event{};
  event.kind = kind;
  event.recv_clock = recv_clock;
  event.instrument = kNoInstrument;
  event.ts_event = kNoTime;
  event.ts_recv = ts_recv;
  return event;
}

}  // namespace

Outcome Decoder::decode(std::span<const char> message, RecvClock recv_clock, TsNs ts_recv,
                        md::Event& out) noexcept {
  out = blank(md::EventKind::BookDiff, recv_clock, ts_recv);
  return impl_->decode(message, out);
}

Outcome Decoder::decode_snapshot(std::span<const char> body, InstrumentId instrument, RecvClock recv_clock,
                                 TsNs ts_recv, md::Event& out) noexcept {
  out = blank(md::EventKind::BookSnapshot, recv_clock, ts_recv);
  return impl_->decode_snapshot(body, instrument, out);
}

}  // namespace tickwire::venue::binance

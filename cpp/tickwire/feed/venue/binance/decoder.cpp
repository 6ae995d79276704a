#include "tickwire/feed/venue/binance/decoder.hpp"

#include <simdjson.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tickwire/core/decimal.hpp"
#include "tickwire/core/error.hpp"

namespace tickwire::feed::binance {

static_assert(Decoder::kPaddingBytes >= simdjson::SIMDJSON_PADDING);
static_assert(Decoder::kPaddingBytes >= kDecimalPadding);

namespace {

namespace ondemand = simdjson::ondemand;

/// The keys that mean something, of messages and of REST snapshots.
enum class Key : std::uint8_t {
  EventType,   // e
  EventTime,   // E
  Symbol,      // s, in a snapshot symbol
  FirstId,     // U
  LastId,      // u, in a snapshot lastUpdateId
  PrevId,      // pu
  Bids,        // b, in a snapshot bids; the best bid of a quote; an order id in a trade
  Asks,        // a, in a snapshot asks; the best ask of a quote; the id of an aggregate trade
  BidQty,      // B
  AskQty,      // A
  TradeId,     // t
  Price,       // p
  Qty,         // q
  BuyerMaker,  // m
  TradeType,   // X
  Data,        // data, of a combined stream
  Error,       // error; code, with msg
  Other,
};
constexpr std::size_t kKeyCount = static_cast<std::size_t>(Key::Other);

/// `key` points behind the opening quote of a key inside the message. Every comparison stops at the
/// first byte that differs, so none runs beyond the key's own closing quote.
Key key_of_message(const char* key) noexcept TICKWIRE_HOT {
  if (key[0] == '"') return Key::Other;
  if (key[1] == '"') {
    switch (key[0]) {
      case 'e': return Key::EventType;
      case 'E': return Key::EventTime;
      case 's': return Key::Symbol;
      case 'U': return Key::FirstId;
      case 'u': return Key::LastId;
      case 'b': return Key::Bids;
      case 'a': return Key::Asks;
      case 'B': return Key::BidQty;
      case 'A': return Key::AskQty;
      case 't': return Key::TradeId;
      case 'p': return Key::Price;
      case 'q': return Key::Qty;
      case 'm': return Key::BuyerMaker;
      case 'X': return Key::TradeType;
      default: return Key::Other;
    }
  }
  if (std::strncmp(key, "pu\"", 3) == 0) return Key::PrevId;
  if (std::strncmp(key, "data\"", 5) == 0) return Key::Data;
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

/// The text of a scalar as the venue wrote it, a string without its quotes and not unescaped: no
/// field that is read here has a reason to hold an escape.
struct Token {
  std::string_view text;
  bool quoted = false;
};

bool parse_id(std::string_view text, std::uint64_t& out) noexcept TICKWIRE_HOT {
  if (text.empty()) return false;
  std::uint64_t value = 0;
  for (const char c : text) {
    const auto digit = static_cast<unsigned char>(c - '0');
    if (digit > 9 || __builtin_mul_overflow(value, std::uint64_t{10}, &value) ||
        __builtin_add_overflow(value, std::uint64_t{digit}, &value)) {
      return false;
    }
  }
  out = value;
  return true;
}

/// Milliseconds, or microseconds where the stream was asked for them: no millisecond of ours has 15
/// digits.
bool parse_time(std::string_view text, TsNs& out) noexcept TICKWIRE_HOT {
  std::uint64_t value = 0;
  if (!parse_id(text, value)) return false;
  const std::uint64_t unit_ns = value > 100'000'000'000'000U ? 1'000 : 1'000'000;
  if (value > static_cast<std::uint64_t>(std::numeric_limits<TsNs>::max()) / unit_ns) return false;
  out = static_cast<TsNs>(value * unit_ns);
  return true;
}

/// A price or quantity that may be zero but not less.
bool parse_amount(std::string_view text, int decimals, std::int64_t& out) noexcept TICKWIRE_HOT {
  return parse_decimal_padded(text, decimals, out) && out >= 0;
}

std::string_view find_between(std::string_view text, std::string_view before, char after) noexcept
    TICKWIRE_HOT {
  const std::size_t found = text.find(before);
  if (found == std::string_view::npos) return {};
  text.remove_prefix(found + before.size());
  const std::size_t end = text.find(after);
  if (end == std::string_view::npos) return {};
  text.remove_suffix(text.size() - end);
  return text;
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
  }

  Outcome decode(std::span<const char> message, md::Event& out) noexcept {
    begin(message, kNoInstrument);
    Outcome outcome = read<key_of_message>(message);
    if (outcome == Outcome::Event) outcome = interpret(out);
    if (outcome == Outcome::Malformed) [[unlikely]] {
      out.instrument = diff_instrument_in(message);
    } else if (outcome != Outcome::Event && out.kind != md::EventKind::BookDiff) [[unlikely]] {
      out.instrument = kNoInstrument;
    }
    return outcome;
  }

  Outcome decode_snapshot(std::span<const char> body, InstrumentId instrument, md::Event& out) noexcept {
    begin(body, instrument);
    out.kind = md::EventKind::BookSnapshot;
    const Outcome outcome = read<key_of_snapshot>(body);
    out.instrument = instrument;
    if (outcome != Outcome::Event) return outcome;
    if (!has(Key::LastId) || !id(Key::LastId, out.last_id) || !event_time(out)) return Outcome::Malformed;
    if (has(Key::Symbol) && token(Key::Symbol).text != instruments_[instrument].symbol)
      return Outcome::Malformed;
    out.first_id = out.last_id;
    return take_levels(out);
  }

 private:
  /// The parser reads documents of any size above this, and offsets of 32 bits are not exceeded.
  static constexpr std::size_t kSmallestLimit = 128;
  static constexpr std::size_t kLargestLimit = std::size_t{1} << 30U;

  /// No message has more; it bounds a recursion.
  static constexpr int kMaxSkippedDepth = 16;

  /// The later ones outrank the earlier.
  enum class LevelsState : std::uint8_t { None, Deferred, Ok, BadNumber, TooMany, Malformed };
  struct Levels {
    std::span<md::Level> room;
    std::size_t count = 0;
    LevelsState state = LevelsState::None;

    void note(LevelsState seen) noexcept { state = std::max(state, seen); }
  };

  void begin(std::span<const char> message, InstrumentId instrument) noexcept {
    end_ = message.data() + message.size();
    seen_ = 0;
    instrument_ = instrument;
    bids_read_ = {bids_, 0, LevelsState::None};
    asks_read_ = {asks_, 0, LevelsState::None};
  }

  static constexpr std::uint32_t bit(Key key) noexcept {
    return std::uint32_t{1} << static_cast<unsigned>(key);
  }
  [[nodiscard]] bool has(Key key) const noexcept { return (seen_ & bit(key)) != 0; }
  [[nodiscard]] const Token& token(Key key) const noexcept { return tokens_[static_cast<std::size_t>(key)]; }

  // -------------------------------------------------------------------------------------------------
  // From bytes to tokens

  using KeyOf = Key (*)(const char*) noexcept;

  /// Event where the message is one JSON object, with all fields of interest in tokens_ and its levels
  /// read, else Malformed.
  template <KeyOf kKeyOf>
  Outcome read(std::span<const char> message) noexcept {
    ondemand::document document;
    if (parser_.iterate(message.data(), message.size(), message.size() + kPaddingBytes).get(document) !=
        simdjson::SUCCESS) {
      return Outcome::Malformed;
    }
    bool whole = read_document<kKeyOf>(document);
    if (whole && instrument_ != kNoInstrument &&
        (bids_read_.state == LevelsState::Deferred || asks_read_.state == LevelsState::Deferred))
        [[unlikely]] {
      // The symbol came behind the levels. Now that it is known nothing is deferred.
      seen_ = 0;
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
      if (key == Key::Other || (key == Key::Data && !kOutermost)) {
        if (!skip(value, kMaxSkippedDepth)) return false;
        continue;
      }
      if (has(key)) return false;
      seen_ |= bit(key);

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
        if (!read_side(value, key == Key::Bids ? bids_read_ : asks_read_)) return false;
        continue;
      }
      Token& token = tokens_[static_cast<std::size_t>(key)];
      if (!scalar(value, token)) return false;
      if (key == Key::Symbol && instrument_ == kNoInstrument) {
        if (!token.quoted) return false;
        instrument_ = instruments_.find(token.text);
      }
    }
    return true;
  }

  [[nodiscard]] static char first_char(ondemand::value& value) noexcept {
    return value.raw_json_token().front();
  }

  /// False for what is no scalar. A token is never longer than the message, whatever a broken message
  /// makes the parser believe.
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
        return scalar(value, ignored);
      }
    }
  }

  /// Reads an array as the levels of one side. What is no list of levels may still be a field of another
  /// kind of message, so that is noted and not judged. False for what is no JSON.
  bool read_side(ondemand::value& value, Levels& side) noexcept {
    side.state = instrument_ == kNoInstrument ? LevelsState::Deferred : LevelsState::Ok;
    side.count = 0;
    if (side.state == LevelsState::Deferred) return skip(value, kMaxSkippedDepth);

    const md::Instrument& instrument = instruments_[instrument_];
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
      if (!parse_amount(texts[0].text, instrument.price_decimals, out.price) || out.price == 0 ||
          !parse_amount(texts[1].text, instrument.qty_decimals, out.qty)) [[unlikely]] {
        side.note(LevelsState::BadNumber);
      }
    }
    return true;
  }

  // -------------------------------------------------------------------------------------------------
  // From tokens to an event

  [[nodiscard]] bool id(Key key, std::uint64_t& out) const noexcept { return parse_id(token(key).text, out); }

  [[nodiscard]] bool event_time(md::Event& out) const noexcept {
    return !has(Key::EventTime) || parse_time(token(Key::EventTime).text, out.ts_event);
  }

  [[nodiscard]] bool price(Key key, std::int64_t& out) const noexcept {
    return parse_amount(token(key).text, instruments_[instrument_].price_decimals, out);
  }
  [[nodiscard]] bool qty(Key key, std::int64_t& out) const noexcept {
    return parse_amount(token(key).text, instruments_[instrument_].qty_decimals, out);
  }

  Outcome interpret(md::Event& out) noexcept {
    static constexpr std::uint32_t kQuote = bit(Key::LastId) | bit(Key::Symbol) | bit(Key::Bids) |
                                            bit(Key::BidQty) | bit(Key::Asks) | bit(Key::AskQty);
    out.instrument = instrument_;
    if (has(Key::Symbol) && instrument_ == kNoInstrument) return Outcome::UnknownSymbol;
    if (!has(Key::EventType)) {
      if (has(Key::Error)) return Outcome::SubscribeError;
      if ((seen_ & kQuote) == kQuote) return quote(out);
      return Outcome::Ignored;
    }
    const Token& type = token(Key::EventType);
    if (!type.quoted) return Outcome::Malformed;
    if (type.text == "depthUpdate") return diff(out);
    if (type.text == "trade") return trade(out, TradeStream::Trade, Key::TradeId);
    if (type.text == "aggTrade") return trade(out, TradeStream::AggTrade, Key::Asks);
    if (type.text == "bookTicker") return (seen_ & kQuote) == kQuote ? quote(out) : Outcome::Malformed;
    if (type.text == "serverShutdown") return Outcome::Shutdown;
    return Outcome::Ignored;
  }

  Outcome diff(md::Event& out) noexcept {
    static constexpr std::uint32_t kNeeded = bit(Key::Symbol) | bit(Key::FirstId) | bit(Key::LastId);
    out.kind = md::EventKind::BookDiff;
    if ((seen_ & kNeeded) != kNeeded || !id(Key::FirstId, out.first_id) || !id(Key::LastId, out.last_id) ||
        !event_time(out) || out.first_id > out.last_id) {
      return Outcome::Malformed;
    }
    if (config_.market != Market::Spot && (!has(Key::PrevId) || !id(Key::PrevId, out.prev_id))) {
      return Outcome::Malformed;
    }
    return take_levels(out);
  }

  Outcome take_levels(md::Event& out) noexcept {
    if (bids_read_.state < LevelsState::Ok || asks_read_.state < LevelsState::Ok) return Outcome::Malformed;
    switch (std::max(bids_read_.state, asks_read_.state)) {
      case LevelsState::Ok: break;
      case LevelsState::BadNumber: return Outcome::BadNumber;
      case LevelsState::TooMany: return Outcome::TooManyLevels;
      default: return Outcome::Malformed;
    }
    out.bids = {bids_.data(), bids_read_.count};
    out.asks = {asks_.data(), asks_read_.count};
    return Outcome::Event;
  }

  Outcome trade(md::Event& out, TradeStream stream, Key id_key) noexcept {
    static constexpr std::uint32_t kNeeded =
        bit(Key::Symbol) | bit(Key::Price) | bit(Key::Qty) | bit(Key::BuyerMaker);
    out.kind = md::EventKind::Trade;
    if (stream != config_.trades) return Outcome::OtherTradeStream;
    const std::uint32_t needed = kNeeded | bit(id_key);
    const std::string_view maker = token(Key::BuyerMaker).text;
    if ((seen_ & needed) != needed || !id(id_key, out.trade.id) || !event_time(out) ||
        (maker != "true" && maker != "false")) {
      return Outcome::Malformed;
    }
    if (!price(Key::Price, out.trade.price) || !qty(Key::Qty, out.trade.qty)) return Outcome::BadNumber;
    out.trade.aggressor = maker == "true" ? md::Aggressor::Seller : md::Aggressor::Buyer;
    // Futures print what is no trade in the market, too: NA with zeros, insurance fund, auto-deleveraging.
    out.trade.printable =
        out.trade.qty != 0 && (!has(Key::TradeType) || token(Key::TradeType).text == "MARKET");
    out.first_id = out.last_id = out.trade.id;
    return Outcome::Event;
  }

  Outcome quote(md::Event& out) noexcept {
    out.kind = md::EventKind::Quote;
    if (bids_read_.state != LevelsState::None || asks_read_.state != LevelsState::None ||
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
  [[nodiscard]] InstrumentId diff_instrument_in(std::span<const char> message) const noexcept {
    const std::string_view text{message.data(), message.size()};
    static constexpr std::string_view kDiff = "\"depthUpdate\"";
    if (::memmem(text.data(), text.size(), kDiff.data(), kDiff.size()) == nullptr) return kNoInstrument;
    return instruments_.find(find_between(text, "\"s\":\"", '"'));
  }

  const md::InstrumentTable& instruments_;
  const DecoderConfig config_;
  ondemand::parser parser_;
  std::vector<md::Level> bids_;
  std::vector<md::Level> asks_;

  // Of the message at hand.
  const char* end_ = nullptr;
  std::uint32_t seen_ = 0;
  InstrumentId instrument_ = kNoInstrument;
  Levels bids_read_;
  Levels asks_read_;
  Token tokens_[kKeyCount];
};

Decoder::Decoder(const md::InstrumentTable& instruments, const DecoderConfig& config)
    : impl_(std::make_unique<Impl>(instruments, config)) {}
Decoder::~Decoder() = default;

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
  TICKWIRE_HOT_EXEMPT_BEGIN(
      "simdjson: works inside the memory it was given at setup, one pass over the message")
  return impl_->decode(message, out);
  TICKWIRE_HOT_EXEMPT_END
}

Outcome Decoder::decode_snapshot(std::span<const char> body, InstrumentId instrument, RecvClock recv_clock,
                                 TsNs ts_recv, md::Event& out) noexcept {
  out = blank(md::EventKind::BookSnapshot, recv_clock, ts_recv);
  TICKWIRE_HOT_EXEMPT_BEGIN(
      "simdjson: works inside the memory it was given at setup, one pass over the message")
  return impl_->decode_snapshot(body, instrument, out);
  TICKWIRE_HOT_EXEMPT_END
}

}  // namespace tickwire::feed::binance

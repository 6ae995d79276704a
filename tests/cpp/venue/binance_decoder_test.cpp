#include "tickwire/venue/binance/decoder.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tickwire/venue/binance/stream_name.hpp"

namespace tickwire::venue::binance {
namespace {

using md::Aggressor;
using md::EventKind;
using Levels = std::vector<std::pair<std::int64_t, std::int64_t>>;

Levels list(std::span<const md::Level> levels) {
  Levels out;
  for (const md::Level& level : levels) out.emplace_back(level.price, level.qty);
  return out;
}

/// Decodes from a buffer that ends with the padding, so that the address sanitizer sees a step too
/// far. What the padding holds must not matter: a caller's buffer holds the next message there.
struct Result {
  Outcome outcome;
  md::Event event;
};

class BinanceDecoder : public testing::Test {
 protected:
  BinanceDecoder() {
    table_.add({"BTCUSDT", "binance", 2, 3});
    table_.add({"ETHUSDT", "binance", 4, 8});
    table_.add({"BTCUSD_PERP", "binance", 1, 0});
    make(Market::Spot);
  }

  void make(Market market, TradeStream trades = TradeStream::Trade, std::size_t max_levels = 100,
            std::size_t max_bytes = 4096) {
    decoder_ = std::make_unique<Decoder>(table_, DecoderConfig{market, trades, max_bytes, max_levels});
  }

  std::span<const char> padded(std::string_view text, char padding) {
    buffer_ = std::make_unique<char[]>(text.size() + Decoder::kPaddingBytes);
    std::copy(text.begin(), text.end(), buffer_.get());
    std::fill_n(buffer_.get() + text.size(), Decoder::kPaddingBytes, padding);
    return {buffer_.get(), text.size()};
  }

  Result decode(std::string_view text) {
    Result result{};
    for (const char padding : {'}', ',', '"', '[', ']', '{', ':', '1', '\\', '\0', ' '}) {
      result.outcome = decoder_->decode(padded(text, padding), RecvClock::Kernel, 77, result.event);
      if (padding == '}') {
        first_ = result.outcome;
      } else {
        EXPECT_EQ(result.outcome, first_) << "with padding " << padding << " behind " << text;
      }
    }
    return result;
  }

  Outcome outcome(std::string_view text) { return decode(text).outcome; }

  Result snapshot(std::string_view text, InstrumentId instrument) {
    Result result{};
    result.outcome =
        decoder_->decode_snapshot(padded(text, '}'), instrument, RecvClock::Read, 78, result.event);
    return result;
  }

  md::InstrumentTable table_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<char[]> buffer_;
  Outcome first_{};
};

// ---------------------------------------------------------------------------------------------------
// Messages as the venue sends them

TEST_F(BinanceDecoder, ReadsASpotDiff) {
  const Result r = decode(
      R"({"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161255208,"s":"BTCUSDT","U":50093239189,"u":50093239202,"b":[["61737.63000000","0.00000000"],["61730.17000000","1.50000000"]],"a":[["61837.64000000","0.01000000"]]}})");
  ASSERT_EQ(r.outcome, Outcome::Event);
  EXPECT_EQ(r.event.kind, EventKind::BookDiff);
  EXPECT_EQ(r.event.instrument, 0U);
  EXPECT_EQ(r.event.recv_clock, RecvClock::Kernel);
  EXPECT_EQ(r.event.ts_recv, 77);
  EXPECT_EQ(r.event.ts_event, 1723161255208'000'000);
  EXPECT_EQ(r.event.first_id, 50093239189U);
  EXPECT_EQ(r.event.last_id, 50093239202U);
  EXPECT_EQ(r.event.prev_id, 0U);
  EXPECT_EQ(list(r.event.bids), (Levels{{6173763, 0}, {6173017, 1500}}));
  EXPECT_EQ(list(r.event.asks), (Levels{{6183764, 10}}));
}

TEST_F(BinanceDecoder, ReadsAFuturesDiffAndItsPreviousId) {
  make(Market::CoinM);
  const Result r = decode(
      R"({"e":"depthUpdate","E":1723161257440,"T":1723161257432,"s":"BTCUSD_PERP","ps":"BTCUSD","U":1007198631260,"u":1007198631565,"pu":1007198631198,"b":[],"a":[["61801.4","0"],["61818.0","4"]]})");
  ASSERT_EQ(r.outcome, Outcome::Event);
  EXPECT_EQ(r.event.instrument, 2U);
  EXPECT_EQ(r.event.prev_id, 1007198631198U);
  EXPECT_TRUE(r.event.bids.empty());
  EXPECT_EQ(list(r.event.asks), (Levels{{618014, 0}, {618180, 4}}));
}

TEST_F(BinanceDecoder, GoesByTheNameOfTheStream) {
  make(Market::UsdM);
  const std::string data =
      R"("data":{"e":"depthUpdate","E":7,"s":"BTCUSDT","U":5,"u":9,"pu":4,"b":[["1.00","2"]],"a":[["2.00","3"]]})";
  const auto named = [&](std::string_view name) {
    return decode("{\"stream\":\"" + std::string(name) + "\"," + data + "}");
  };
  for (const char* const name : {"btcusdt@depth", "btcusdt@depth@100ms", "btcusdt", "", "anything"}) {
    const Result result = named(name);
    ASSERT_EQ(result.outcome, Outcome::Event) << name;
    EXPECT_EQ(result.event.kind, EventKind::BookDiff) << name;
    EXPECT_EQ(result.event.named, std::string_view(name).find('@') != std::string_view::npos) << name;
    EXPECT_EQ(result.event.prev_id, 4U);
  }
  for (const auto& [name, levels] :
       {std::pair{"btcusdt@depth20@0ms", 20U}, std::pair{"btcusdt@depth5", 5U}}) {
    const Result result = named(name);
    ASSERT_EQ(result.outcome, Outcome::Event) << name;
    EXPECT_EQ(result.event.kind, EventKind::PartialBook) << name;
    EXPECT_EQ(result.event.limit, levels);
    EXPECT_EQ(result.event.last_id, 9U);
    EXPECT_EQ(list(result.event.bids), (Levels{{100, 2000}}));
  }
  for (const char* const name :
       {"btcusdt@rpiDepth@500ms", "btcusdt@depthX", "btcusdt@depth0", "btcusdt@trade"}) {
    EXPECT_EQ(named(name).outcome, Outcome::OtherStream) << name;
    EXPECT_EQ(decoder_->stream(), name);
  }
  // Behind the data, and written as nobody does, it says the same.
  EXPECT_EQ(decode("{" + data + R"(, "stream" : "btcusdt@depth20" })").event.kind, EventKind::PartialBook);
  EXPECT_FALSE(decode(data.substr(7)).event.named);
}

TEST_F(BinanceDecoder, ReadsAPartialBookOfSpotByTheNameOfItsStream) {
  const std::string data = R"("data":{"lastUpdateId":160,"bids":[["0.10","5.000"]],"asks":[["0.20","6"]]})";
  for (const std::string& text :
       {R"({"stream":"btcusdt@depth5@100ms",)" + data + "}", "{" + data + R"(,"stream":"btcusdt@depth5"})"}) {
    const Result result = decode(text);
    ASSERT_EQ(result.outcome, Outcome::Event) << text;
    EXPECT_EQ(result.event.kind, EventKind::PartialBook);
    EXPECT_EQ(result.event.instrument, 0U);
    EXPECT_EQ(result.event.last_id, 160U);
    EXPECT_EQ(result.event.limit, 5U);
    EXPECT_EQ(list(result.event.bids), (Levels{{10, 5000}}));
    EXPECT_EQ(list(result.event.asks), (Levels{{20, 6000}}));
  }
  EXPECT_EQ(outcome(R"({"stream":"xrpusdt@depth5",)" + data + "}"), Outcome::UnknownSymbol);
  EXPECT_EQ(outcome(R"({"stream":"btcusdt@depth",)" + data + "}"), Outcome::Ignored);
  EXPECT_EQ(outcome("{" + data + "}"), Outcome::Ignored);
  EXPECT_EQ(outcome(R"({"stream":"btcusdt@depth5","data":{"lastUpdateId":1,"bids":[["x","1"]],"asks":[]}})"),
            Outcome::BadNumber);
}

TEST(PartialShape, IsSortedWithoutZerosAndNotTooLong) {
  for (const std::size_t count : {1U, 4U, 5U, 10U, 11U, 20U, 21U}) {
    std::vector<md::Level> bids;
    std::vector<md::Level> asks;
    for (std::size_t i = 0; i < count; ++i) {
      bids.push_back({1000 - static_cast<std::int64_t>(i), 1});
      asks.push_back({1001 + static_cast<std::int64_t>(i), 1});
    }
    md::Event event{};
    const auto shape = [&] {
      event.bids = bids;
      event.asks = asks;
      return partial_shape(event);
    };
    EXPECT_EQ(shape(), count <= 20 ? count : 0);
    asks.back().qty = 0;
    EXPECT_EQ(shape(), 0U);
    asks.back() = {1'000'000, 1};
    std::swap(bids.front(), bids.back());
    if (count > 1) {
      EXPECT_EQ(shape(), 0U);
    }
    std::swap(bids.front(), bids.back());
    bids.front().price = 2'000'000;  // Crossed.
    EXPECT_EQ(shape(), 0U);
    bids.clear();
    EXPECT_EQ(shape(), 0U);
  }
}

TEST_F(BinanceDecoder, ReadsTrades) {
  Result r = decode(
      R"({"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true})");
  ASSERT_EQ(r.outcome, Outcome::Event);
  EXPECT_EQ(r.event.kind, EventKind::Trade);
  EXPECT_EQ(r.event.trade.id, 3735683259U);
  EXPECT_EQ(r.event.last_id, 3735683259U);
  EXPECT_EQ(r.event.trade.price, 6183763);
  EXPECT_EQ(r.event.trade.qty, 20);
  EXPECT_EQ(r.event.trade.aggressor, Aggressor::Seller) << "the buyer was the maker";
  EXPECT_TRUE(r.event.trade.printable);

  // Old trades carry the two order ids where others have levels.
  r = decode(
      R"({"e":"trade","E":1,"s":"BTCUSDT","t":12,"p":"1.5","q":"100","b":88,"a":50,"T":1,"m":false,"M":true})");
  ASSERT_EQ(r.outcome, Outcome::Event);
  EXPECT_EQ(r.event.trade.id, 12U);
  EXPECT_EQ(r.event.trade.aggressor, Aggressor::Buyer);
}

TEST_F(BinanceDecoder, ReadsTheTradeStreamThatWasChosen) {
  const std::string_view agg =
      R"({"e":"aggTrade","E":1,"s":"BTCUSDT","a":26129,"p":"0.01","q":"4.7","f":100,"l":105,"T":1,"m":true,"M":true})";
  const std::string_view plain =
      R"({"e":"trade","E":1,"s":"BTCUSDT","t":12,"p":"0.01","q":"1","T":1,"m":true})";
  EXPECT_EQ(outcome(agg), Outcome::OtherTradeStream);
  EXPECT_EQ(outcome(plain), Outcome::Event);
  make(Market::UsdM, TradeStream::AggTrade);
  EXPECT_EQ(outcome(plain), Outcome::OtherTradeStream);
  const Result r = decode(agg);
  ASSERT_EQ(r.outcome, Outcome::Event);
  EXPECT_EQ(r.event.trade.id, 26129U);
  EXPECT_EQ(r.event.trade.price, 1);
  EXPECT_EQ(r.event.trade.qty, 4700);
}

TEST_F(BinanceDecoder, MarksPrintsThatAreNoTradeOfTheMarket) {
  make(Market::UsdM);
  const auto printable = [&](const std::string& price, const std::string& qty, const std::string& type) {
    const Result r = decode(R"({"e":"trade","E":1,"T":1,"s":"BTCUSDT","t":5,"p":")" + price + R"(","q":")" +
                            qty + R"(","X":")" + type + R"(","m":false})");
    EXPECT_EQ(r.outcome, Outcome::Event);
    return r.event.trade.printable;
  };
  EXPECT_TRUE(printable("61800.30", "0.006", "MARKET"));
  EXPECT_FALSE(printable("0", "0", "NA"));
  EXPECT_FALSE(printable("61800.30", "0.006", "INSURANCE_FUND"));
  EXPECT_FALSE(printable("61800.30", "0.006", "ADL"));
  EXPECT_FALSE(printable("61800.30", "0", "MARKET"));
}

TEST_F(BinanceDecoder, ReadsQuotesWithAndWithoutEventType) {
  Result r = decode(
      R"({"u":50093239212,"s":"BTCUSDT","b":"61837.63000000","B":"3.78800000","a":"61837.64000000","A":"1.54600000"})");
  ASSERT_EQ(r.outcome, Outcome::Event);
  EXPECT_EQ(r.event.kind, EventKind::Quote);
  EXPECT_EQ(r.event.ts_event, kNoTime);
  EXPECT_EQ(r.event.last_id, 50093239212U);
  EXPECT_EQ(r.event.quote.bid.price, 6183763);
  EXPECT_EQ(r.event.quote.bid.qty, 3788);
  EXPECT_EQ(r.event.quote.ask.price, 6183764);
  EXPECT_EQ(r.event.quote.ask.qty, 1546);

  r = decode(
      R"({"stream":"x","data":{"u":9,"e":"bookTicker","s":"BTCUSD_PERP","ps":"BTCUSD","b":"61804.7","B":"35","a":"61804.8","A":"1645","T":1,"E":1723161257476}})");
  ASSERT_EQ(r.outcome, Outcome::Event);
  EXPECT_EQ(r.event.instrument, 2U);
  EXPECT_EQ(r.event.ts_event, 1723161257476'000'000);
  EXPECT_EQ(r.event.quote.ask.qty, 1645);
}

TEST_F(BinanceDecoder, ReadsMicroseconds) {
  const Result r =
      decode(R"({"e":"trade","E":1723161255343123,"s":"BTCUSDT","t":1,"p":"1","q":"1","m":true})");
  ASSERT_EQ(r.outcome, Outcome::Event);
  EXPECT_EQ(r.event.ts_event, 1723161255343123'000);
}

TEST_F(BinanceDecoder, ReadsSnapshotsOfEachMarket) {
  Result r = snapshot(
      R"({"lastUpdateId":50093239218,"bids":[["61837.63","3.788"],["61837.62","0.617"]],"asks":[["61838.00","1.000"]]})",
      0);
  ASSERT_EQ(r.outcome, Outcome::Event);
  EXPECT_EQ(r.event.kind, EventKind::BookSnapshot);
  EXPECT_EQ(r.event.instrument, 0U);
  EXPECT_EQ(r.event.ts_recv, 78);
  EXPECT_EQ(r.event.ts_event, kNoTime);
  EXPECT_EQ(r.event.last_id, 50093239218U);
  EXPECT_EQ(list(r.event.bids), (Levels{{6183763, 3788}, {6183762, 617}}));
  EXPECT_EQ(list(r.event.asks), (Levels{{6183800, 1000}}));

  r = snapshot(
      R"({"asks":[],"bids":[["61804.7","35"]],"pair":"BTCUSD","symbol":"BTCUSD_PERP","T":1,"E":1723161257835,"lastUpdateId":7})",
      2);
  ASSERT_EQ(r.outcome, Outcome::Event);
  EXPECT_EQ(r.event.ts_event, 1723161257835'000'000);
  EXPECT_EQ(list(r.event.bids), (Levels{{618047, 35}}));
}

TEST_F(BinanceDecoder, TellsControlMessagesApart) {
  EXPECT_EQ(outcome(R"({"result":null,"id":1})"), Outcome::Ignored);
  EXPECT_EQ(outcome(R"({"result":["btcusdt@depth"],"id":3})"), Outcome::Ignored);
  EXPECT_EQ(outcome(R"({"error":{"code":2,"msg":"Invalid request"},"id":1})"), Outcome::SubscribeError);
  EXPECT_EQ(outcome(R"({"id":1,"code":3,"msg":"Invalid JSON"})"), Outcome::SubscribeError);
  EXPECT_EQ(outcome(R"({"e":"serverShutdown","E":1770123456789})"), Outcome::Shutdown);
  EXPECT_EQ(outcome(R"({"data":{"e":"serverShutdown","E":1770123456789},"stream":""})"), Outcome::Shutdown);
  EXPECT_EQ(outcome(R"({"e":"kline","E":1,"s":"BTCUSDT","k":{"t":1,"o":"1","e":2}})"), Outcome::Ignored);
  EXPECT_EQ(outcome(R"({"stream":"!miniTicker@arr","data":[{"e":"24hrMiniTicker"}]})"), Outcome::Ignored);
  EXPECT_EQ(outcome(R"({"stream":"x","data":{"e":"other","data":1}})"), Outcome::Ignored);
  EXPECT_EQ(outcome("{}"), Outcome::Ignored);
}

TEST_F(BinanceDecoder, KnowsItsOwnSymbolsAlone) {
  const auto symbol = [&](const std::string& s) {
    return outcome(R"({"e":"trade","E":1,"s":")" + s + R"(","t":1,"p":"1","q":"1","m":true})");
  };
  EXPECT_EQ(symbol("BTCUSDT"), Outcome::Event);
  EXPECT_EQ(symbol("XRPUSDT"), Outcome::UnknownSymbol);
  EXPECT_EQ(symbol("btcusdt"), Outcome::UnknownSymbol);
  EXPECT_EQ(symbol(""), Outcome::UnknownSymbol);
  EXPECT_EQ(symbol(R"(\u0042TCUSDT)"), Outcome::Event) << "a letter that a writer of JSON escaped";
  EXPECT_EQ(symbol(R"(\u0043TCUSDT)"), Outcome::UnknownSymbol);
}

// ---------------------------------------------------------------------------------------------------
// Any order of fields

std::string join(const std::vector<std::string>& fields, std::mt19937& random) {
  const std::string space[] = {"", " ", "\t", "\n  "};
  std::string text = "{";
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (i != 0) text += "," + space[random() % 4];
    const std::size_t colon = fields[i].find(':');
    text += fields[i].substr(0, colon) + space[random() % 4] + ":" + space[random() % 4] +
            fields[i].substr(colon + 1);
    text += space[random() % 4];
  }
  return text + "}";
}

TEST_F(BinanceDecoder, ReliesOnNoOrderOfFields) {
  make(Market::UsdM);
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::vector<std::string> diff{R"("e":"depthUpdate")",
                                R"("E":1723161257440)",
                                R"("T":5)",
                                R"("s":"ETHUSDT")",
                                R"("U":11)",
                                R"("u":15)",
                                R"("pu":9)",
                                R"("b":[["1.5","2"] , ["1.25" ,"0.00000001"]])",
                                R"("a":[["2" ,"0"]])",
                                R"("zz":{"e":"trade","s":["BTCUSDT"]})"};
  std::vector<std::string> trade{R"("e":"trade")", R"("E":1723161257440)", R"("s":"ETHUSDT")",
                                 R"("t":7)",       R"("p":"1.5")",         R"("q":"0.5")",
                                 R"("m":true)",    R"("b":[1])",           R"("X":"MARKET")"};
  std::vector<std::string> quote{R"("s":"ETHUSDT")", R"("u":7)",     R"("b":"1.5")",
                                 R"("B":"1")",       R"("a":"1.6")", R"("A":"2")"};
  for (int i = 0; i < 400; ++i) {
    const bool combined = random() % 2 == 0;
    const auto text = [&](std::vector<std::string>& fields) {
      std::shuffle(fields.begin(), fields.end(), random);
      std::string inner = join(fields, random);
      if (!combined) return inner;
      std::vector<std::string> outer{R"("stream":"ethusdt@depth")", "\"data\":" + inner};
      std::shuffle(outer.begin(), outer.end(), random);
      return join(outer, random);
    };
    std::string message = text(diff);
    SCOPED_TRACE(message);
    Result r = decode(message);
    ASSERT_EQ(r.outcome, Outcome::Event);
    ASSERT_EQ(r.event.kind, EventKind::BookDiff);
    ASSERT_EQ(r.event.instrument, 1U);
    ASSERT_EQ(r.event.ts_event, 1723161257440'000'000);
    ASSERT_EQ(r.event.first_id, 11U);
    ASSERT_EQ(r.event.last_id, 15U);
    ASSERT_EQ(r.event.prev_id, 9U);
    ASSERT_EQ(list(r.event.bids), (Levels{{15000, 200000000}, {12500, 1}}));
    ASSERT_EQ(list(r.event.asks), (Levels{{20000, 0}}));

    r = decode(text(trade));
    ASSERT_EQ(r.outcome, Outcome::Event);
    ASSERT_EQ(r.event.trade.price, 15000);
    r = decode(text(quote));
    ASSERT_EQ(r.outcome, Outcome::Event);
    ASSERT_EQ(r.event.kind, EventKind::Quote);
    ASSERT_EQ(r.event.quote.ask.price, 16000);
  }
}

// ---------------------------------------------------------------------------------------------------
// What is wrong

std::string diff_with(const std::string& field, const std::string& value) {
  std::vector<std::pair<std::string, std::string>> fields{
      {"e", "\"depthUpdate\""}, {"E", "1"}, {"s", "\"BTCUSDT\""}, {"U", "11"}, {"u", "15"}, {"pu", "9"},
      {"b", "[[\"1\",\"2\"]]"}, {"a", "[]"}};
  std::string text = "{";
  for (const auto& [key, standard] : fields) {
    const std::string& v = key == field ? value : standard;
    if (v.empty()) continue;
    if (text.size() > 1) text += ",";
    text += "\"" + key + "\":" + v;
  }
  return text + "}";
}

TEST_F(BinanceDecoder, RefusesADiffWithAFieldThatIsMissingOrWrong) {
  make(Market::UsdM);
  ASSERT_EQ(outcome(diff_with("", "")), Outcome::Event);
  EXPECT_EQ(outcome(diff_with("e", "")), Outcome::Ignored) << "no kind of message that is known here";
  for (const char* key : {"U", "u", "pu", "b", "a"}) {
    for (const char* value : {"", "null", "true", "{}", "-1", "1.5", "1e-3", "\"\"", "\"x\"",
                              "18446744073709551616", "[1]", "[[]]", "[[\"1\"]]", "[[[],[]]]", "[{}]"}) {
      const Result r = decode(diff_with(key, value));
      EXPECT_EQ(r.outcome, Outcome::Malformed) << key << " " << value;
      EXPECT_EQ(r.event.instrument, 0U) << key << " " << value;
    }
  }
  EXPECT_EQ(outcome(diff_with("E", "\"x\"")), Outcome::Malformed);
  EXPECT_EQ(outcome(diff_with("E", "9300000000000000000")), Outcome::Malformed) << "beyond what 64 bits hold";
  EXPECT_EQ(outcome(diff_with("E", "")), Outcome::Event) << "a stamp may be missing";
  EXPECT_EQ(outcome(diff_with("s", "7")), Outcome::Malformed);
  EXPECT_EQ(outcome(diff_with("s", "")), Outcome::Malformed);
  EXPECT_EQ(outcome(diff_with("e", "7")), Outcome::Malformed);
  EXPECT_EQ(outcome(diff_with("U", "16")), Outcome::Malformed) << "it would end before it begins";
  EXPECT_EQ(outcome(diff_with("u", "\"15\"")), Outcome::Event) << "ids may be quoted";
  EXPECT_EQ(outcome(diff_with("u", "18446744073709551615")), Outcome::Event);
  make(Market::Spot);
  EXPECT_EQ(outcome(diff_with("pu", "")), Outcome::Event) << "spot has none";
}

TEST_F(BinanceDecoder, ReadsNumbersAndTextsAsAnyWriterOfJsonMakesThem) {
  make(Market::UsdM);
  const Result plain = decode(diff_with("b", R"([["12340.5","0.001"]])"));
  ASSERT_EQ(plain.outcome, Outcome::Event);
  const Levels wanted = list(plain.event.bids);
  ASSERT_EQ(wanted, (Levels{{1'234'050, 1}}));
  for (const char* bids :
       {"[[12340.5,0.001]]", "[[1.23405e4,1e-3]]", "[[1.23405E+4,1E-03]]", "[[\"1.23405e4\",\"1e-3\"]]",
        "[ [ 12340.50 , 0.00100 ] ]", "[[\"1234\\u0030.5\",\"0.001\"]]"}) {
    const Result r = decode(diff_with("b", bids));
    ASSERT_EQ(r.outcome, Outcome::Event) << bids;
    EXPECT_EQ(list(r.event.bids), wanted) << bids;
  }
  for (const char* key : {"U", "u", "pu", "E"}) {
    const Result r = decode(diff_with(key, "15.0"));
    ASSERT_EQ(r.outcome, Outcome::Event) << key;
    EXPECT_EQ(decode(diff_with(key, "1.5e1")).outcome, Outcome::Event) << key;
  }
  EXPECT_EQ(decode(diff_with("u", "1.5e1")).event.last_id, 15U);
  EXPECT_EQ(decode(diff_with("u", "1.8e19")).outcome, Outcome::Malformed)
      << "beyond 2^63, but for plain digits";
  // Escapes: none of these keeps a letter of the name as it is.
  for (const char* symbol : {R"("BTC\u0055SDT")", R"("\u0042\u0054\u0043\u0055\u0053\u0044\u0054")"}) {
    const Result r = decode(diff_with("s", symbol));
    ASSERT_EQ(r.outcome, Outcome::Event) << symbol;
    EXPECT_EQ(r.event.instrument, 0U) << symbol;
  }
  EXPECT_EQ(decode(diff_with("s", R"("BTC\/USDT")")).outcome, Outcome::UnknownSymbol);
  EXPECT_EQ(decoder_->symbol(), "BTC/USDT");
  EXPECT_EQ(decode(diff_with("e", R"("depth\u0055pdate")")).outcome, Outcome::Event);
  EXPECT_EQ(decode(diff_with("s", R"("BTC\uD800")")).outcome, Outcome::Malformed) << "half a character";
}

TEST_F(BinanceDecoder, ShowsTheValueThatItCouldNotUse) {
  make(Market::UsdM);
  const auto shown = [&](const std::string& message) {
    (void)decode(message);
    return std::string(decoder_->refused().key) + "=" + std::string(decoder_->refused().value);
  };
  EXPECT_EQ(shown(diff_with("", "")), "=");
  EXPECT_EQ(shown(diff_with("b", R"([["1","1"],["1.234","1"]])")), "b=1.234");
  EXPECT_EQ(shown(diff_with("a", "[[1,1e-9]]")), "a=1e-9");
  EXPECT_EQ(shown(diff_with("u", "1.5")), "u=1.5");
  EXPECT_EQ(shown(diff_with("E", "\"yesterday\"")), "E=yesterday");
  EXPECT_EQ(shown(R"({"e":"trade","E":1,"s":"BTCUSDT","t":1,"p":"1.234","q":"1","m":true})"), "p=1.234");
  EXPECT_EQ(shown(R"({"e":"depthUpdate")"), "=");
}

TEST_F(BinanceDecoder, NamesTheFieldThatItCouldNotUseAsTheMessageDoes) {
  make(Market::Spot);
  const auto shown = [&](const std::string& body) {
    std::string padded = body;
    padded.resize(body.size() + Decoder::kPaddingBytes);
    md::Event event;
    (void)decoder_->decode_snapshot({padded.data(), body.size()}, 0, RecvClock::Read, 1, event);
    return std::string(decoder_->refused().key) + "=" + std::string(decoder_->refused().value);
  };
  EXPECT_EQ(shown(R"({"lastUpdateId":7,"bids":[["1.234","1"]],"asks":[]})"), "bids=1.234");
  EXPECT_EQ(shown(R"({"lastUpdateId":7,"bids":[],"asks":[["1","-1"]]})"), "asks=-1");
  EXPECT_EQ(shown(R"({"lastUpdateId":"x","bids":[],"asks":[]})"), "lastUpdateId=x");
  EXPECT_EQ(shown(R"({"lastUpdateId":7,"E":"now","bids":[],"asks":[]})"), "E=now");
  (void)decode(
      R"({"stream":"btcusdt@depth5","data":{"lastUpdateId":7,"bids":[["1","1"]],"asks":[["1.234","1"]]}})");
  EXPECT_EQ(decoder_->refused().key, "asks");
  (void)decode(diff_with("a", R"([["1.234","1"]])"));
  EXPECT_EQ(decoder_->refused().key, "a") << "and the next one by its own";
}

TEST_F(BinanceDecoder, RefusesNumbersThatAreNotTheInstruments) {
  make(Market::UsdM);
  for (const char* price : {"\"1.234\"", "\"-1\"", "\"0\"", "\"0.00\"", "\"\"", "\"1e-3\"", "\"NaN\"", "null",
                            "\"1,5\"", "\"92233720368547758.08\"", "1e-3", "\"1\\u0078\""}) {
    const Result r = decode(diff_with("b", std::string("[[") + price + ",\"1\"]]"));
    EXPECT_EQ(r.outcome, Outcome::BadNumber) << price;
    EXPECT_EQ(r.event.instrument, 0U);
    EXPECT_EQ(r.event.kind, EventKind::BookDiff);
  }
  for (const char* qty : {"\"1.2345\"", "\"-1\"", "\"\"", "\" 1\"", "\"9223372036854775.808\""}) {
    EXPECT_EQ(outcome(diff_with("a", std::string("[[\"1\",") + qty + "]]")), Outcome::BadNumber) << qty;
  }
  EXPECT_EQ(outcome(diff_with("b", "[[\"1.230000\",\"0.1230\"]]")), Outcome::Event)
      << "zeros beyond the unit";
  EXPECT_EQ(outcome(diff_with("b", "[[1.23,2]]")), Outcome::Event) << "numbers without quotes";
  EXPECT_EQ(outcome(diff_with("b", "[[\"1\",\"2\",[]]]")), Outcome::Event)
      << "the third cell of old messages";
  EXPECT_EQ(outcome(diff_with("b", "[[\"92233720368547758.07\",\"9223372036854775.807\"]]")), Outcome::Event);

  const auto trade = [&](const char* price, const char* qty) {
    const Result r = decode(std::string(R"({"e":"trade","E":1,"s":"BTCUSDT","t":1,"p":)") + price +
                            ",\"q\":" + qty + ",\"m\":true}");
    if (r.outcome != Outcome::Event) {
      EXPECT_EQ(r.event.instrument, kNoInstrument) << "no book has missed anything";
    }
    return r.outcome;
  };
  EXPECT_EQ(trade("\"1.234\"", "\"1\""), Outcome::BadNumber);
  EXPECT_EQ(trade("\"1\"", "\"-1\""), Outcome::BadNumber);
  EXPECT_EQ(trade("[]", "\"1\""), Outcome::Malformed);
  EXPECT_EQ(trade("\"0\"", "\"0\""), Outcome::Event);
}

TEST_F(BinanceDecoder, RefusesTradesAndQuotesWithMissingFields) {
  const std::vector<std::string> trade{R"("s":"BTCUSDT")", R"("t":1)", R"("p":"1")", R"("q":"1")",
                                       R"("m":true)"};
  for (std::size_t left_out = 0; left_out < trade.size(); ++left_out) {
    std::string text = R"({"e":"trade")";
    for (std::size_t i = 0; i < trade.size(); ++i) text += i == left_out ? "" : "," + trade[i];
    EXPECT_EQ(outcome(text + "}"), Outcome::Malformed) << text;
  }
  EXPECT_EQ(outcome(R"({"e":"trade","s":"BTCUSDT","t":1,"p":"1","q":"1","m":1})"), Outcome::Malformed);
  EXPECT_EQ(outcome(R"({"e":"bookTicker","u":1,"s":"BTCUSDT","b":"1","B":"1","a":"2"})"), Outcome::Malformed);
  EXPECT_EQ(outcome(R"({"u":1,"s":"BTCUSDT","b":"1","B":"1","a":[],"A":"1"})"), Outcome::Malformed);
  EXPECT_EQ(outcome(R"({"u":1,"s":"BTCUSDT","b":"1","B":"1","a":"2.345","A":"1"})"), Outcome::BadNumber);
}

TEST_F(BinanceDecoder, RefusesDuplicateKeysAndWhatFollowsTheMessage) {
  const std::string good = R"({"e":"trade","E":1,"s":"BTCUSDT","t":1,"p":"1","q":"1","m":true})";
  ASSERT_EQ(outcome(good), Outcome::Event);
  EXPECT_EQ(outcome(R"({"e":"trade","E":1,"s":"BTCUSDT","t":1,"p":"1","q":"1","m":true,"p":"2"})"),
            Outcome::Malformed);
  EXPECT_EQ(outcome(R"({"e":"trade","data":)" + good + "}"), Outcome::Malformed);
  for (const char* tail : {"}", "{}", "x", ",", "]", "\"", "1", "\0"}) {
    EXPECT_EQ(outcome(good + std::string(tail, 1)), Outcome::Malformed) << tail;
  }
  EXPECT_EQ(outcome(good + " \r\n"), Outcome::Event) << "white space may follow";
  EXPECT_EQ(outcome(""), Outcome::Malformed);
  EXPECT_EQ(outcome("[]"), Outcome::Malformed);
  EXPECT_EQ(outcome("7"), Outcome::Malformed);
  EXPECT_EQ(outcome("null"), Outcome::Malformed);
}

TEST_F(BinanceDecoder, RefusesEveryPrefixAndNamesTheInstrumentOnceItIsThere) {
  make(Market::UsdM);
  const std::string text = "{\"stream\":\"btcusdt@depth\",\"data\":" + diff_with("", "") + "}";
  ASSERT_EQ(outcome(text), Outcome::Event);
  const std::size_t known = text.find("BTCUSDT\"") + 8;
  for (std::size_t size = 0; size < text.size(); ++size) {
    const Result r = decode(text.substr(0, size));
    ASSERT_EQ(r.outcome, Outcome::Malformed) << size;
    ASSERT_EQ(r.event.instrument, size >= known ? 0U : kNoInstrument) << size;
  }
}

TEST_F(BinanceDecoder, SurvivesDepthAndRefusesSize) {
  const std::string deep = "{\"x\":" + std::string(1500, '[') + std::string(1500, ']') + "}";
  EXPECT_TRUE(outcome(deep) == Outcome::Ignored || outcome(deep) == Outcome::Malformed);
  EXPECT_EQ(outcome("{\"b\":" + std::string(1500, '[') + "}"), Outcome::Malformed);
  EXPECT_EQ(outcome(diff_with("b", std::string(1000, '[') + std::string(1000, ']'))), Outcome::Malformed);
  EXPECT_EQ(outcome("{\"x\":\"" + std::string(5000, 'x') + "\"}"), Outcome::Malformed) << "beyond the limit";

  make(Market::UsdM, TradeStream::Trade, 2);
  EXPECT_EQ(outcome(diff_with("b", R"([["1","1"],["2","1"]])")), Outcome::Event);
  const Result r = decode(diff_with("b", R"([["1","1"],["2","1"],["3","1"]])"));
  EXPECT_EQ(r.outcome, Outcome::TooManyLevels);
  EXPECT_EQ(r.event.instrument, 0U);
}

TEST_F(BinanceDecoder, RefusesSnapshotsThatAreNone) {
  for (const char* text :
       {R"({"code":-1121,"msg":"Invalid symbol."})", R"({"lastUpdateId":7,"bids":[]})",
        R"({"bids":[],"asks":[]})", R"({"lastUpdateId":7,"bids":{},"asks":[]})",
        R"({"lastUpdateId":7,"bids":[],"asks":[]}{)", R"({"lastUpdateId":-7,"bids":[],"asks":[]})",
        R"({"lastUpdateId":7,"lastUpdateId":8,"bids":[],"asks":[]})", "<html>", "",
        R"({"symbol":"ETHUSDT","lastUpdateId":7,"bids":[],"asks":[]})"}) {
    const Result r = snapshot(text, 0);
    EXPECT_EQ(r.outcome, Outcome::Malformed) << text;
    EXPECT_EQ(r.event.instrument, 0U);
  }
  EXPECT_EQ(snapshot(R"({"lastUpdateId":7,"bids":[["1.234","1"]],"asks":[]})", 0).outcome,
            Outcome::BadNumber);
  EXPECT_EQ(snapshot(R"({"lastUpdateId":7,"bids":[],"asks":[]})", 0).outcome, Outcome::Event);
  make(Market::Spot, TradeStream::Trade, 1);
  EXPECT_EQ(snapshot(R"({"lastUpdateId":7,"bids":[["1","1"],["2","1"]],"asks":[]})", 0).outcome,
            Outcome::TooManyLevels);
}

TEST(BinanceSubscribe, AsksForAllStreamsAtOnce) {
  const std::vector<std::string> streams{"btcusdt@depth@100ms", "btcusdt@trade"};
  EXPECT_EQ(subscribe_message(streams),
            R"({"method":"SUBSCRIBE","params":["btcusdt@depth@100ms","btcusdt@trade"],"id":1})");
  const std::vector<std::string> bad{"a\"b"};
  EXPECT_THROW(subscribe_message(bad), SetupError);
}

TEST(BinanceDecoderSetup, RefusesSizesThatCannotWork) {
  const md::InstrumentTable table;
  EXPECT_THROW(Decoder(table, {Market::Spot, TradeStream::Trade, 0, 10}), SetupError);
  EXPECT_THROW(Decoder(table, {Market::Spot, TradeStream::Trade, 4096, 0}), SetupError);
  EXPECT_THROW(Decoder(table, {Market::Spot, TradeStream::Trade, std::size_t{1} << 40U, 10}), SetupError);
}

TEST(BinanceStreamName, SaysWhoseItsMessagesAreWhereItIsASymbols) {
  for (const char* const stream :
       {"ethusdt@depth", "ETHUSDT@trade", "!bookTicker", "x@depth", "@depth", "a"}) {
    EXPECT_TRUE(is_stream_of(stream, "ETHUSDT")) << stream;
  }
  for (const char* const stream : {"btcusdt@depth", "ethusd@trade", "ethusdt1@depth", "etcb@trade"}) {
    EXPECT_FALSE(is_stream_of(stream, "ETHUSDT")) << stream;
  }
}

}  // namespace
}  // namespace tickwire::venue::binance

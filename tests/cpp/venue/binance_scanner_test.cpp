// The scanner may give up on anything; what it takes must be what the JSON parser makes of the same bytes,
// field by field. So most of these tests compare a decoder that has it with one that has not.

#include "tickwire/venue/binance/scanner.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/md/capture.hpp"
#include "tickwire/venue/binance/decoder.hpp"

namespace tickwire::venue::binance {
namespace {

const std::vector<std::string>& messages() {
  static const std::vector<std::string> list{
      R"({"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161255208,"s":"BTCUSDT","U":50093239189,"u":50093239202,"b":[["61737.63000000","0.00000000"],["61730.17000000","1.50000000"],["9.10000000","12.34500000"]],"a":[["61837.64000000","0.01000000"]]}})",
      R"({"e":"depthUpdate","E":1723161257440,"T":1723161257432,"s":"BTCUSD_PERP","ps":"BTCUSD","U":1007198631260,"u":1007198631565,"pu":1007198631198,"b":[],"a":[["61801.4","0"],["61818.0","4"],["61818.1","1204"]]})",
      R"({"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1723161256299,"T":1723161256298,"s":"BTCUSDT","U":5123107832006,"u":5123107837557,"pu":5123107831937,"b":[["58710.20","0.014"],["61496.50","10.010"]],"a":[]}})",
      R"({"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true})",
      R"({"stream":"btcusd_perp@trade","data":{"e":"trade","E":1723161257687,"T":1723161257679,"s":"BTCUSD_PERP","t":849714402,"p":"61804.8","q":"4","X":"MARKET","m":false}})",
      R"({"e":"trade","E":1,"s":"BTCUSDT","t":12,"p":"1.5","q":"100","b":88,"a":50,"T":1,"m":false,"M":true})",
      R"({"e":"aggTrade","E":1,"s":"ETHUSDT","a":26129,"p":"0.0001","q":"4.7","f":100,"l":105,"T":1,"m":true,"M":true})",
      R"({"u":50093239212,"s":"BTCUSDT","b":"61837.63000000","B":"3.78800000","a":"61837.64000000","A":"1.54600000"})",
      R"({"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":5123107839020,"s":"BTCUSDT","b":"61800.20","B":"2.507","a":"61800.30","A":"2.510","T":1723161256313,"E":1723161256313}})",
  };
  return list;
}

md::InstrumentTable table() {
  md::InstrumentTable made;
  made.add({"BTCUSDT", "binance", 2, 3});
  made.add({"ETHUSDT", "binance", 4, 8});
  made.add({"BTCUSD_PERP", "binance", 1, 0});
  made.add({"WIDEUSDT", "binance", 10, 18});
  return made;
}

/// A message in memory of its own, so that a sanitizer sees a step too far; behind it what would lead a
/// scanner on that does not know where to stop.
class Padded {
 public:
  explicit Padded(std::string_view text, std::string_view behind = "\",\"1\"],[\"1")
      : size_(text.size()), bytes_(std::make_unique<char[]>(text.size() + Decoder::kPaddingBytes)) {
    std::copy(text.begin(), text.end(), bytes_.get());
    for (std::size_t i = 0; i < Decoder::kPaddingBytes; ++i) bytes_[size_ + i] = behind[i % behind.size()];
  }
  [[nodiscard]] std::span<const char> view() const { return {bytes_.get(), size_}; }

 private:
  std::size_t size_;
  std::unique_ptr<char[]> bytes_;
};

std::string words(Outcome outcome, const md::Event& event) {
  std::ostringstream out;
  out << name_of(outcome) << " of " << event.instrument;
  if (outcome != Outcome::Event) return out.str();
  out << " kind " << static_cast<int>(event.kind) << " at " << event.ts_event << '/' << event.ts_recv
      << " ids " << event.first_id << ' ' << event.last_id << ' ' << event.prev_id;
  for (const auto side : {event.bids, event.asks}) {
    out << " levels";
    for (const md::Level& level : side) out << ' ' << level.price << ':' << level.qty;
  }
  out << " trade " << event.trade.id << ' ' << event.trade.price << ' ' << event.trade.qty << ' '
      << static_cast<int>(event.trade.aggressor) << event.trade.printable << " quote "
      << event.quote.bid.price << ' ' << event.quote.bid.qty << ' ' << event.quote.ask.price << ' '
      << event.quote.ask.qty;
  return out.str();
}

class BinanceScanner : public testing::Test {
 protected:
  static constexpr std::size_t kMaxLevels = 4;

  BinanceScanner() : bids_(kMaxLevels), asks_(kMaxLevels) {
    fields_.bids.room = bids_;
    fields_.asks.room = asks_;
    for (const Market market : {Market::Spot, Market::UsdM}) {
      for (const TradeStream trades : {TradeStream::Trade, TradeStream::AggTrade}) {
        for (const bool scan : {true, false}) {
          decoders_.push_back(std::make_unique<Decoder>(
              table_, DecoderConfig{market, trades, kMaxMessageBytes, kMaxLevels, scan}));
        }
      }
    }
  }

  bool takes(std::string_view text) {
    fields_.clear(kNoInstrument);
    message_ = Padded(text);
    return scan(message_.view(), table_, fields_);
  }

  /// With and without the scanner, by each kind of feed.
  void expect_same(std::string_view text) {
    const Padded message(text);
    for (std::size_t i = 0; i < decoders_.size(); i += 2) {
      md::Event with{};
      md::Event without{};
      const Outcome first = decoders_[i]->decode(message.view(), RecvClock::Kernel, 77, with);
      const Outcome second = decoders_[i + 1]->decode(message.view(), RecvClock::Kernel, 77, without);
      if (first != second || words(first, with) != words(second, without)) {
        ADD_FAILURE() << text << "\nscanner: " << words(first, with)
                      << "\nparser:  " << words(second, without);
      }
    }
  }

  static constexpr std::size_t kMaxMessageBytes = 4096;
  const md::InstrumentTable table_ = table();
  std::vector<md::Level> bids_;
  std::vector<md::Level> asks_;
  Fields fields_;
  Padded message_{""};  // That the fields point into.
  std::vector<std::unique_ptr<Decoder>> decoders_;
};

TEST_F(BinanceScanner, TakesWhatTheVenueWrites) {
  for (const std::string& message : messages()) {
    EXPECT_TRUE(takes(message)) << message;
    expect_same(message);
  }
  ASSERT_TRUE(takes(messages()[0]));
  EXPECT_EQ(fields_.instrument, 0U);
  EXPECT_EQ(fields_.bids.count, 3U);
  EXPECT_EQ(bids_[1], (md::Level{6173017, 1500}));
  EXPECT_EQ(bids_[2], (md::Level{910, 12345})) << "a number of another shape than the one before";
  EXPECT_EQ(fields_.token(Key::LastId).text, "50093239202");
  ASSERT_TRUE(takes(messages()[1]));
  EXPECT_EQ(asks_[2], (md::Level{618181, 1204})) << "quantities without a point";
}

TEST_F(BinanceScanner, LeavesToTheParserWhatIsWrittenInAnotherWay) {
  const std::string good = R"({"e":"depthUpdate","E":1,"s":"BTCUSDT","U":1,"u":2,"b":[["1.5","2"]],"a":[]})";
  ASSERT_TRUE(takes(good));
  const auto with = [&](std::string_view part, std::string_view other) {
    std::string text = good;
    text.replace(text.find(part), part.size(), other);
    return text;
  };
  for (const std::string& text : {
           std::string(),
           with("{\"e\"", " {\"e\""),
           with(":1,", ": 1,"),
           with("[]}", "[]} "),
           with("[]}", "[]}}"),
           with("[]}", "[]"),
           with("[]}", "[],}"),
           with("BTCUSDT", "BTC\\u0055SDT"),
           with("BTCUSDT", "BTC\xc3\x9cSDT"),
           with("BTCUSDT", "DOGEUSDT"),
           with("\"s\":\"BTCUSDT\",", ""),
           with("\"s\":\"BTCUSDT\"", "\"s\":7"),
           with("\"E\":1", "\"E\":-1"),
           with("\"E\":1", "\"E\":1.5"),
           with("\"E\":1", "\"E\":null"),
           with("\"E\":1", "\"E\":{}"),
           with("\"E\":1", "\"E\":[]"),
           with("\"E\":1", "\"E\":1,\"E\":1"),
           with("\"E\":1", "\"error\":1"),
           with("\"E\":1", "\"\":1"),
           with("\"1.5\"", "1.5"),
           with("\"1.5\"", "\"-1.5\""),
           with("\"1.5\"", "\"1.555\""),
           with("\"1.5\"", "\"1.5.5\""),
           with("\"1.5\"", "\"1.\""),
           with("\"1.5\"", "\".5\""),
           with("\"1.5\"", "\"\""),
           with("\"1.5\"", "\"0.0\""),
           with("\"1.5\"", "\"1e1\""),
           with("\"2\"", "\"2\",[]"),
           with("[[\"1.5\",\"2\"]]", "[[]]"),
           with("[[\"1.5\",\"2\"]]", "[[\"1\",\"2\"],]"),
           with("[[\"1.5\",\"2\"]]", R"([["1","2"],["2","2"],["3","2"],["4","2"],["5","2"]])"),
           with("\"s\":\"BTCUSDT\",\"U\":1,\"u\":2,\"b\":[[\"1.5\",\"2\"]]",
                "\"U\":1,\"u\":2,\"b\":[[\"1.5\",\"2\"]],\"s\":\"BTCUSDT\""),
           R"({"stream":"x\u0041","data":)" + good + "}",
           R"({"stream":"x","data":)" + good,
           R"({"data":)" + good + "}",
           std::string(R"({"result":null,"id":1})"),
           good + good,
       }) {
    EXPECT_FALSE(takes(text)) << text;
    expect_same(text);
  }
}

TEST_F(BinanceScanner, GivesUpOnAMessageThatIsTooLarge) {
  std::string text = messages()[3];
  text.insert(text.size() - 1, R"(,"x":")" + std::string(kMaxMessageBytes, 'x') + '"');
  EXPECT_TRUE(takes(text));
  expect_same(text);
  md::Event event{};
  EXPECT_EQ(decoders_[0]->decode(Padded(text).view(), RecvClock::Kernel, 77, event), Outcome::Malformed);
}

TEST_F(BinanceScanner, ReadsEveryShapeOfNumberAsTheParserDoes) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto number = [&random] {
    std::string text;
    for (auto n = random() % (random() % 8 == 0 ? 24 : 10); n > 0; --n)
      text += static_cast<char>('0' + random() % 10);
    if (random() % 4 != 0) {
      text += '.';
      for (auto n = random() % (random() % 8 == 0 ? 24 : 10); n > 0; --n)
        text += static_cast<char>('0' + (random() % 4 == 0 ? random() % 10 : 0));
    }
    if (random() % 32 == 0 && !text.empty()) text[random() % text.size()] = ".-+e \"/:"[random() % 8];
    return text;
  };
  for (int i = 0; i < 20000; ++i) {
    std::string text = R"({"e":"depthUpdate","s":")";
    text += table_[static_cast<InstrumentId>(random() % table_.size())].symbol;
    text += R"(","U":1,"u":2,"pu":0,"b":[],"a":[)";
    for (auto n = 1 + random() % kMaxLevels; n > 0; --n)
      text += "[\"" + number() + "\",\"" + number() + (n > 1 ? "\"]," : "\"]");
    expect_same(text + "]}");
  }
}

TEST_F(BinanceScanner, AgreesWithTheParserOverMutations) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  constexpr std::string_view kBytes = "\"[]{},:.0123456789-eEsUubaBAtpqmXT \\truefalsn\n\t\x80\x7f";
  std::uint64_t taken = 0;
  for (int i = 0; i < 100000; ++i) {
    std::string text = messages()[random() % messages().size()];
    for (auto changes = 1 + random() % 3; changes > 0 && !text.empty(); --changes) {
      const std::size_t at = random() % text.size();
      const char byte = kBytes[random() % kBytes.size()];
      switch (random() % 5) {
        case 0: text[at] = byte; break;
        case 1: text.erase(at, 1 + random() % 4); break;
        case 2: text.insert(at, 1, byte); break;
        case 3: text.insert(at, text.substr(random() % text.size(), 1 + random() % 24)); break;
        default: std::swap(text[at], text[random() % text.size()]); break;
      }
    }
    taken += takes(text) ? 1 : 0;
    expect_same(text);
  }
  EXPECT_GT(taken, 10000U) << "most mutations gave up: the comparison says little";
}

// ---------------------------------------------------------------------------------------------------
// Recordings

struct Recording {
  const char* file;
  Market market;
  const char* symbol;
  int price_decimals;
  int qty_decimals;
};

class BinanceScannerRecording : public testing::TestWithParam<Recording> {};

TEST_P(BinanceScannerRecording, IsScannedWholeAndAsTheParserReadsIt) {
  const Recording& recording = GetParam();
  const char* const root = std::getenv("TICKWIRE_DATA");
  const std::filesystem::path path =
      (root != nullptr ? std::filesystem::path(root)
                       : std::filesystem::path(__FILE__).parent_path() / "../../../../shared/data") /
      "binance" / recording.file;
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no recorded data: " << path;

  md::InstrumentTable instruments;
  instruments.add({recording.symbol, "binance", recording.price_decimals, recording.qty_decimals});
  const DecoderConfig config{recording.market, TradeStream::Trade, 1U << 20U, 5000};
  Decoder decoder(instruments, config);
  DecoderConfig parser_alone = config;
  parser_alone.scan = false;
  Decoder parser(instruments, parser_alone);
  std::vector<md::Level> bids(config.max_levels);
  std::vector<md::Level> asks(config.max_levels);
  Fields fields;
  fields.bids.room = bids;
  fields.asks.room = asks;

  std::uint64_t count = 0;
  std::uint64_t scanned = 0;
  md::CaptureReader reader({path.string()});
  while (const md::CaptureLine* line = reader.next()) {
    if (line->kind != md::CaptureKind::Message) continue;
    ++count;
    fields.clear(kNoInstrument);
    scanned += scan(line->body, instruments, fields) ? 1 : 0;
    md::Event with{};
    md::Event without{};
    const Outcome first = decoder.decode(line->body, RecvClock::Recorded, line->ts_recv, with);
    const Outcome second = parser.decode(line->body, RecvClock::Recorded, line->ts_recv, without);
    ASSERT_EQ(words(first, with), words(second, without))
        << std::string_view(line->body.data(), line->body.size());
  }
  EXPECT_GT(count, 40000U);
  EXPECT_EQ(scanned, count);
}

INSTANTIATE_TEST_SUITE_P(
    Binance, BinanceScannerRecording,
    testing::Values(Recording{"spot_btcusdt_20240808.log.gz", Market::Spot, "BTCUSDT", 2, 8},
                    Recording{"spot_btcusdt_20240809.log.gz", Market::Spot, "BTCUSDT", 8, 8},
                    Recording{"usdm_btcusdt_20240808.log.gz", Market::UsdM, "BTCUSDT", 2, 3},
                    Recording{"coinm_btcusd_perp_20240808.log.gz", Market::CoinM, "BTCUSD_PERP", 1, 0},
                    Recording{"coinm_btcusd_perp_20240809.log.gz", Market::CoinM, "BTCUSD_PERP", 1, 0}),
    [](const auto& of) { return std::filesystem::path(of.param.file).stem().stem().string(); });

}  // namespace
}  // namespace tickwire::venue::binance

// Captures as other people's tools write them: units and forms of time, compressions, byte order marks,
// snapshots in a wrapper; and what is no capture.

#include <bzlib.h>
#include <gtest/gtest.h>
#include <lzma.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tickwire/core/error.hpp"
#include "tickwire/md/capture.hpp"
#include "tickwire/md/receive_stamp.hpp"

namespace tickwire::md {
namespace {

namespace fs = std::filesystem;

class CaptureForms : public testing::Test {
 protected:
  CaptureForms() {
    std::string pattern = (fs::temp_directory_path() / "tickwire-forms-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~CaptureForms() override { fs::remove_all(folder_); }

  std::string write(const std::string& name, std::string_view bytes) {
    const std::string path = (folder_ / name).string();
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return path;
  }
  /// What is said when a reader is made for it; empty where one can be.
  std::string refusal(std::string_view bytes) {
    try {
      CaptureReader reader({write("refused", bytes)});
    } catch (const SetupError& error) {
      return error.what();
    }
    return {};
  }
  std::vector<TsNs> stamps(std::vector<std::string> paths) {
    CaptureReader reader(std::move(paths));
    std::vector<TsNs> out;
    while (const CaptureLine* line = reader.next()) out.push_back(line->ts_recv);
    error_ = reader.error();
    skipped_ = reader.skipped_lines();
    notes_ = reader.stamps();
    return out;
  }
  std::vector<TsNs> stamps_of(std::string_view text) { return stamps({write("c.log", text)}); }

  fs::path folder_;
  std::string error_;
  std::uint64_t skipped_ = 0;
  std::vector<CaptureStamps> notes_;
};

// 8 August 2024, 23:54:13.937085768 UTC, reckoned by `date`.
constexpr TsNs kT = 1'723'161'253'937'085'768;

TEST_F(CaptureForms, ReadsAStampInWhateverFormItIs) {
  struct Case {
    const char* text;
    StampForm form;
    TsNs ts;
  };
  const Case cases[] = {
      {"1723161253937085768", StampForm::Nanoseconds, kT},
      {"1723161253937085", StampForm::Microseconds, kT - 768},
      {"1723161253937", StampForm::Milliseconds, kT - 85'768},
      {"1723161253", StampForm::Seconds, kT - 937'085'768},
      {"1723161253.937085768", StampForm::Seconds, kT},
      {"1723161253.9370857689999", StampForm::Seconds, kT},  // Finer than a nanosecond: cut.
      {"1723161253.937", StampForm::Seconds, kT - 85'768},
      {"1723161253937.085768", StampForm::Milliseconds, kT},
      {"1723161253937085.768", StampForm::Microseconds, kT},
      {"1.723161253937085768e9", StampForm::Seconds, kT},
      {"1.723161253937E+12", StampForm::Milliseconds, kT - 85'768},
      {"17231612539370857680e-1", StampForm::Nanoseconds, kT},
      {"2024-08-08T23:54:13.937085768Z", StampForm::Iso, kT},
      {"2024-08-08T23:54:13.9370857Z", StampForm::Iso, kT - 68},
      {"2024-08-08 23:54:13.937085768", StampForm::Iso, kT},
      {"20240808T235413.937085768Z", StampForm::Iso, kT},
      {"20240808T235413,937085768", StampForm::Iso, kT},
      {"20240809T052413.937085768+0530", StampForm::Iso, kT},
      {"2024-08-08 23:54:13,937085768+00:00", StampForm::Iso, kT},
      {"2024-08-09T01:54:13.937085768+02:00", StampForm::Iso, kT},
      {"2024-08-09T05:24:13.937085768+0530", StampForm::Iso, kT},
      {"2024-08-08T16:54:13.937085768-07", StampForm::Iso, kT},
      {"2024-08-08T23:54:13Z", StampForm::Iso, kT - 937'085'768},
      {"2000-02-29T00:00:00Z", StampForm::Iso, 951'782'400'000'000'000},
      {"2016-12-31T23:59:60Z", StampForm::Iso, 1'483'228'800'000'000'000},
      {"946684800", StampForm::Seconds, 946'684'800'000'000'000},
      {"4102444799999999999", StampForm::Nanoseconds, 4'102'444'799'999'999'999},
      {"946684799", StampForm::None, 946'684'799},
      {"4102444800000000000", StampForm::None, 4'102'444'800'000'000'000},
      {"0", StampForm::None, 0},
      {"17", StampForm::None, 17},
      {"172316125393708576", StampForm::None, 172'316'125'393'708'576},
      {"-1", StampForm::None, 0},
      {"-1723161253.937", StampForm::None, 0},
      {"99999999999999999999", StampForm::None, 0},
      {"1723161253937085768000.25", StampForm::None, 0},
      {"1e400", StampForm::None, 0},
      {"1e99999999999", StampForm::None, 0},
  };
  for (const Case& wanted : cases) {
    Stamp stamp;
    const std::string text = std::string(wanted.text) + " {}";
    ASSERT_TRUE(parse_stamp(text, stamp)) << text;
    EXPECT_EQ(stamp.form, wanted.form) << text;
    EXPECT_EQ(stamp.ts, wanted.ts) << text;
    EXPECT_EQ(stamp.size, text.size() - 3) << text;
  }
  for (const char* text : {"", "x", "-x {}", "- {}", " 1 {}", ".5 {}", "2024-13-01T00:00:00Z",
                           "2023-02-29T00:00:00Z", "2024-08-08", "2024-08-08T", "2024-08-08T25:00:00Z",
                           "2024-08-08T23:54:13.Z", "2024-08-08T23:54:13+2", "08/08/2024 23:54:13"}) {
    Stamp stamp;
    const bool read = parse_stamp(text, stamp);
    EXPECT_TRUE(!read || text[stamp.size] != ' ') << text;
  }
}

TEST_F(CaptureForms, TakesTheUnitOfTheFirstLinesAndSaysWhichItWas) {
  EXPECT_EQ(stamps_of("1723161253937085 {}\n1723161253937086 {}\n"),
            (std::vector<TsNs>{1'723'161'253'937'085'000, 1'723'161'253'937'086'000}));
  ASSERT_EQ(notes_.size(), 1U);
  EXPECT_EQ(notes_[0].form, StampForm::Microseconds);
  EXPECT_FALSE(notes_[0].as_nanoseconds);
  EXPECT_EQ(stamps_of("1723161253937085768 {}\n"), std::vector<TsNs>{kT});
  EXPECT_TRUE(notes_.empty()) << "nothing to say of whole nanoseconds";
  EXPECT_EQ(stamps_of("2024-08-08T23:54:13.937085768 {}\n"), std::vector<TsNs>{kT});
  ASSERT_EQ(notes_.size(), 1U);
  EXPECT_TRUE(notes_[0].form == StampForm::Iso && notes_[0].no_zone);
  EXPECT_EQ(stamps_of("1723161253.937085768\t{}\n"), std::vector<TsNs>{kT});
  ASSERT_EQ(notes_.size(), 1U);
  EXPECT_TRUE(notes_[0].form == StampForm::Seconds && notes_[0].fractions);
}

TEST_F(CaptureForms, ReadsFilesOfDifferentUnitsOneAfterAnother) {
  EXPECT_EQ(stamps({write("a", "1723161253937 {}\n"), write("b", "1723161253937085768 {}\n"),
                    write("c", "2024-08-08T23:54:14Z {}")}),
            (std::vector<TsNs>{1'723'161'253'937'000'000, kT, 1'723'161'254'000'000'000}));
  ASSERT_EQ(notes_.size(), 2U);
  EXPECT_EQ(notes_[0].file, (folder_ / "a").string());
  EXPECT_EQ(notes_[1].file, (folder_ / "c").string());
  EXPECT_EQ(skipped_, 0U);
}

TEST_F(CaptureForms, RefusesAMixtureOfUnits) {
  const std::string ns = "1723161253937085768 {}\n";
  const std::string us = "1723161253937085 {}\n";
  const std::string said = refusal(ns + us + ns + us);
  EXPECT_NE(said.find("a mixture: nanoseconds and microseconds"), std::string::npos) << said;
  // One line alone is damaged, wherever it stands: most of the first lines decide.
  EXPECT_EQ(stamps_of(us + ns + ns + ns), (std::vector<TsNs>{kT, kT, kT}));
  EXPECT_EQ(skipped_, 1U);
  EXPECT_NE(error_.find("c.log:1: a mixture of units: a receive stamp in microseconds in a file of "
                        "nanoseconds, found \"1723161253937085 {}\""),
            std::string::npos)
      << error_;
  // Behind the first lines nothing is looked at ahead: what does not fit is refused, line by line.
  std::string text;
  for (int i = 0; i < 100; ++i) text += ns;
  EXPECT_EQ(stamps_of(text + us + us + ns).size(), 101U);
  EXPECT_EQ(skipped_, 2U);
  EXPECT_NE(error_.find("c.log:101: a mixture of units"), std::string::npos) << error_;
}

TEST_F(CaptureForms, RefusesAStampOfNoUnit) {
  EXPECT_EQ(stamps_of("17 {}\n1723161253937085768 {}\n172316125393708576 {}\n"), std::vector<TsNs>{kT});
  EXPECT_EQ(skipped_, 2U);
  EXPECT_NE(error_.find("c.log:1: a receive stamp that is plausible in no unit: expected a time between 2000 "
                        "and 2100, found \"17 {}\""),
            std::string::npos)
      << error_;
}

TEST_F(CaptureForms, TakesACaptureWithLinesOfOursForNanoseconds) {
  const std::string open = "1000000000 {\"tickwire\":\"open\",\"conn\":0}\n";
  // Whatever they look like, here seconds of 2001, and wherever among the first lines ours stands.
  EXPECT_EQ(stamps_of(open + "1000000001 {}\n17 {}\n"),
            (std::vector<TsNs>{1'000'000'000, 1'000'000'001, 17}));
  ASSERT_EQ(notes_.size(), 1U);
  EXPECT_TRUE(notes_[0].as_nanoseconds && notes_[0].form == StampForm::Seconds);
  EXPECT_EQ(stamps_of("1000000000 {}\n" + open), (std::vector<TsNs>{1'000'000'000, 1'000'000'000}));
  EXPECT_EQ(stamps_of(open + "2024-08-08T23:54:13Z {}\n").size(), 1U);
  EXPECT_NE(error_.find("c.log:2: expected a time in whole nanoseconds"), std::string::npos) << error_;
  // A recorder's next file is of the same capture.
  EXPECT_EQ(
      stamps({write("000001.log", "5 {\"tickwire\":\"open\",\"conn\":0}\n"), write("000002.log", "6 {}\n")}),
      (std::vector<TsNs>{5, 6}));
  EXPECT_EQ(stamps({write("000001.log", "5 {\"tickwire\":\"open\",\"conn\":0}\n"), write("x.log", "6 {}\n")}),
            std::vector<TsNs>{5});
}

TEST_F(CaptureForms, DecidesTheUnitOfAGrowingFileLineByLine) {
  const std::string path = write("grows.log", "");
  CaptureReader reader({path}, {.follow = true});
  EXPECT_EQ(reader.next(), nullptr);
  std::ofstream file(path, std::ios::binary | std::ios::app);
  file << "1723161253937085 {}\n" << std::flush;
  const CaptureLine* line = reader.next();
  ASSERT_NE(line, nullptr);
  EXPECT_EQ(line->ts_recv, 1'723'161'253'937'085'000);
  file << "1723161253937085768 {}\n1723161253937086 {}\n" << std::flush;
  line = reader.next();
  ASSERT_NE(line, nullptr);
  EXPECT_EQ(line->ts_recv, 1'723'161'253'937'086'000);
  EXPECT_EQ(reader.skipped_lines(), 1U);
}

TEST_F(CaptureForms, ReadsAStampedPipe) {
  const std::string path = (folder_ / "pipe").string();
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  std::thread writer([&] { std::ofstream(path) << "1723161253937085 {}\n"; });
  EXPECT_EQ(stamps({path}), std::vector<TsNs>{1'723'161'253'937'085'000});
  writer.join();
}

TEST_F(CaptureForms, ReadsAByteOrderMarkAndCarriageReturns) {
  EXPECT_EQ(stamps_of("\xEF\xBB\xBF"
                      "1723161253937085768 {\"a\":1}\r\n1723161253937085769 {\"a\":1}\r\n"),
            (std::vector<TsNs>{kT, kT + 1}));
  EXPECT_EQ(stamps_of("\xEF\xBB\xBF"
                      "1723161253937085768 {\"a\":1}"),
            std::vector<TsNs>{kT});
  EXPECT_EQ(skipped_, 0U);
}

TEST_F(CaptureForms, ReadsASnapshotInTheWrapperOfAStream) {
  const std::string body = R"({"lastUpdateId":7,"bids":[["1","2"]],"asks":[["3","4"]]})";
  const std::string stamp = "1723161253937085768 ";
  const std::vector<std::string> wrapped{
      R"({"stream":"btcusdt@depthSnapshot","generated":true,"data":)" + body + "}",
      R"({"stream":"btcusdt@depth","data":)" + body + "}",
      R"({"data": )" + body + R"(, "stream": "btcusdt@snapshot"})",
      R"({"stream":"btc\u0075sdt@depth","data":)" + body + " }",
      R"(  {"stream":"btcusdt@snapshot","data":)" + body + "}",
  };
  for (const std::string& text : wrapped) {
    CaptureReader reader({write("c.log", stamp + text + "\n")});
    const CaptureLine* const line = reader.next();
    ASSERT_NE(line, nullptr);
    EXPECT_EQ(line->kind, CaptureKind::Snapshot) << text;
    EXPECT_EQ(line->instrument, "BTCUSDT") << text;
    EXPECT_EQ(std::string(line->body.data(), line->body.size()), body) << text;
    // A venue's own message of that shape is recorded so that it is not taken for a snapshot.
    std::string recorded;
    format_message(recorded, kT, {text.data(), text.size()});
    CaptureReader again({write("d.log", recorded)});
    EXPECT_EQ(again.next()->kind, CaptureKind::Message) << recorded;
  }
  const auto kind_of = [&](const std::string& text) {
    CaptureReader reader({write("c.log", stamp + text + "\n")});
    return reader.next()->kind;
  };
  EXPECT_EQ(kind_of(R"({"stream":"snapshot","data":)" + body + "}"), CaptureKind::BareSnapshot);
  EXPECT_EQ(kind_of(R"({"data":)" + body + "}"), CaptureKind::BareSnapshot);
  // Partial books look the same, and so do the futures', which say what they are.
  for (const char* stream : {"btcusdt@depth5", "btcusdt@depth20", "btcusdt@depth20@100ms"}) {
    EXPECT_EQ(kind_of(R"({"stream":")" + std::string(stream) + R"(","data":)" + body + "}"),
              CaptureKind::Message);
  }
  EXPECT_EQ(
      kind_of(
          R"({"stream":"btcusdt@depth","data":{"e":"depthUpdate","lastUpdateId":7,"bids":[],"asks":[]}})"),
      CaptureKind::Message);
}

TEST_F(CaptureForms, ASymbolIsWhatHasASymbolsForm) {
  const std::string levels = R"("lastUpdateId":7,"bids":[["1","2"]],"asks":[["3","4"]])";
  const std::vector<std::pair<std::string, std::string>> cases{
      {R"({"symbol":"BTCUSD_PERP",)" + levels + "}", "BTCUSD_PERP"},
      {R"({"id":1,"status":200,"result":{"symbol":"BTCUSD_PERP",)" + levels + "}}", "BTCUSD_PERP"},
      {R"({"s":"ETHUSDT","data":{)" + levels + "}}", "ETHUSDT"},
      {R"({"s":"ok","data":{)" + levels + "}}", ""},
      {R"({"symbol":"BTC/USDT","data":{)" + levels + "}}", ""},
      {R"({"symbol":"","data":{)" + levels + "}}", ""},
      {R"({"symbol":5,"data":{)" + levels + "}}", ""},
  };
  for (const auto& [text, symbol] : cases) {
    CaptureReader reader({write("c.log", "1723161253937085768 " + text + "\n")});
    const CaptureLine* const line = reader.next();
    ASSERT_NE(line, nullptr);
    EXPECT_EQ(line->kind, symbol.empty() ? CaptureKind::BareSnapshot : CaptureKind::Snapshot) << text;
    if (!symbol.empty()) {
      EXPECT_EQ(line->instrument, symbol) << text;
    }
  }
}

TEST_F(CaptureForms, ReadsAnEscapedNameInALineOfOurs) {
  CaptureReader reader({write("c.log",
                              "5 {\"tickwire\": \"snapshot\", \"conn\": 0, \"instrument\": "
                              "\"\\u5e01\\u5b89BTC\\/\\ud83d\\ude00\", \"body\": {}}\n")});
  const CaptureLine* const line = reader.next();
  ASSERT_NE(line, nullptr) << reader.error();
  EXPECT_EQ(line->instrument,
            "\xE5\xB8\x81\xE5\xAE\x89"
            "BTC/\xF0\x9F\x98\x80");
}

TEST_F(CaptureForms, ShowsWhatIsNoLine) {
  (void)stamps_of("1723161253937085768 {}\n{\"ts\":1,\"data\":{}}\n");
  EXPECT_NE(error_.find("c.log:2: a message without its receive time: expected TIME, a space and a message, "
                        "found \"{\"ts\":1,\"data\":{}}\""),
            std::string::npos)
      << error_;
  (void)stamps_of("1723161253937085768,{\"a\":1}\n");
  EXPECT_NE(error_.find("found \"1723161253937085768,{\"a\":1}\""), std::string::npos) << error_;
}

TEST_F(CaptureForms, CallsWhatIsNoTextByItsName) {
  using namespace std::string_view_literals;
  const std::string tar = std::string(257, 'x') + "ustar" + std::string(300, 'x');
  const std::vector<std::pair<std::string_view, std::string_view>> kinds{
      {"\xFF\xFE"
       "1\0"sv,
       "UTF-16"},
      {"\xD4\xC3\xB2\xA1\x02\0\x04\0"sv, "pcap"},
      {"\x0A\x0D\x0D\x0A\x1C\0\0\0"sv, "pcapng"},
      {"PAR1\x15\0\x15"sv, "Parquet"},
      {"\x89HDF\x0D\x0A\x1A\x0A\0\0"sv, "HDF5"},
      {"7z\xBC\xAF\x27\x1C\0\0"sv, "7z"},
      {"\x04\x22\x4D\x18\x64\x40"sv, "lz4"},
      {"\0\x0CS\0\0\0\0\0\0\0\0\0\0O"sv, "ITCH"},
      {"\x01\x02\0\0\0\0"sv, "binary data"},
      {tar, "tar"},
  };
  for (const auto& [bytes, name] : kinds) {
    const std::string said = refusal(bytes);
    EXPECT_NE(said.find(name), std::string::npos) << name << ": " << said;
    EXPECT_NE(said.find("expected lines of text"), std::string::npos) << said;
  }
}

// ---------------------------------------------------------------------------------------------------
// Compressions

std::string xz(std::string_view text) {
  std::string out(lzma_stream_buffer_bound(text.size()), '\0');
  std::size_t size = 0;
  EXPECT_EQ(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC64, nullptr,
                                    reinterpret_cast<const std::uint8_t*>(text.data()), text.size(),
                                    reinterpret_cast<std::uint8_t*>(out.data()), &size, out.size()),
            LZMA_OK);
  out.resize(size);
  return out;
}

std::string bzip2(std::string text) {
  std::string out(text.size() + text.size() / 50 + 700, '\0');
  auto size = static_cast<unsigned>(out.size());
  EXPECT_EQ(
      BZ2_bzBuffToBuffCompress(out.data(), &size, text.data(), static_cast<unsigned>(text.size()), 9, 0, 0),
      BZ_OK);
  out.resize(size);
  return out;
}

/// Bytes of a zip archive, as its specification has them.
class Zip {
 public:
  Zip& add(const std::string& name, std::string text, int method, bool streamed = false, int flags = 0) {
    std::string packed = text;
    if (method == 8) {
      z_stream stream{};
      EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
      packed.assign(deflateBound(&stream, text.size()) + 64, '\0');
      stream.next_in = reinterpret_cast<Bytef*>(text.data());
      stream.avail_in = static_cast<uInt>(text.size());
      stream.next_out = reinterpret_cast<Bytef*>(packed.data());
      stream.avail_out = static_cast<uInt>(packed.size());
      EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
      packed.resize(stream.total_out);
      deflateEnd(&stream);
    }
    const auto crc = static_cast<std::uint32_t>(
        ::crc32(0, reinterpret_cast<const Bytef*>(text.data()), static_cast<uInt>(text.size())));
    const std::size_t at = bytes_.size();
    if (streamed) flags |= 8;  // Its sizes come behind it.
    const std::string head = num(20, 2) + num(flags, 2) + num(method, 2) + num(0, 4);
    const std::string known = num(crc, 4) + num(packed.size(), 4) + num(text.size(), 4);
    bytes_ += "PK\x03\x04" + head + (streamed ? std::string(12, '\0') : known) + num(name.size(), 2) +
              num(3, 2) + name + "abc" + packed;
    if (streamed) bytes_ += "PK\x07\x08" + known;
    list_ += "PK\x01\x02" + num(20, 2) + head + known + num(name.size(), 2) + std::string(6, '\0') +
             num(0, 2) + num(0, 4) + num(at, 4) + name;
    ++count_;
    return *this;
  }
  std::string bytes(const std::string& comment = {}) const {
    return bytes_ + list_ + "PK\x05\x06" + std::string(4, '\0') + num(count_, 2) + num(count_, 2) +
           num(list_.size(), 4) + num(bytes_.size(), 4) + num(comment.size(), 2) + comment;
  }

 private:
  static std::string num(std::uint64_t value, std::size_t bytes) {
    std::string out;
    for (std::size_t i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i) & 0xFF));
    return out;
  }
  std::string bytes_;
  std::string list_;
  std::uint64_t count_ = 0;
};

class CapturePacked : public CaptureForms {
 protected:
  CapturePacked() {
    for (int i = 0; i < 3000; ++i) {
      text_ += std::to_string(kT + i) + " {\"n\":" + std::to_string(i * 7919 % 10007) + "}\n";
      wanted_.push_back(kT + i);
    }
  }
  std::string text_;
  std::vector<TsNs> wanted_;
};

TEST_F(CapturePacked, ReadsXzBzip2AndZip) {
  const std::string half = text_.substr(0, text_.find('\n', text_.size() / 2) + 1);
  const std::string rest = text_.substr(half.size());
  const std::vector<std::pair<const char*, std::string>> files{
      {"xz", xz(text_)},
      {"two xz streams, padded", xz(half) + std::string(8, '\0') + xz(rest)},
      {"bzip2", bzip2(text_)},
      {"two bzip2 streams", bzip2(half) + bzip2(rest)},
      {"zip", Zip().add("c.log", text_, 8).bytes()},
      {"zip as it is streamed", Zip().add("c.log", text_, 8, true).bytes("a comment with PK in it")},
      {"zip, stored", Zip().add("c.log", text_, 0).bytes()},
      {"zip of one file in a folder",
       Zip().add("day/", "", 0).add("day/c.log", text_, 8).add("__MACOSX/day/._c.log", "x", 8).bytes()},
  };
  for (const auto& [name, bytes] : files) {
    EXPECT_EQ(stamps({write("file", bytes)}), wanted_) << name;
    EXPECT_EQ(error_, "") << name;
  }
}

TEST_F(CapturePacked, ReportsACutOrDamagedFile) {
  for (const std::string& bytes : {xz(text_), bzip2(text_)}) {
    const std::vector<TsNs> got = stamps({write("file", bytes.substr(0, bytes.size() - 40))});
    EXPECT_NE(error_.find("stream is cut"), std::string::npos) << error_;
    EXPECT_LE(got.size(), wanted_.size());
    EXPECT_TRUE(std::equal(got.begin(), got.end(), wanted_.begin())) << "what was whole is right";
    std::string damaged = bytes;
    damaged[bytes.size() / 2] ^= 0x55;
    (void)stamps({write("file", damaged)});
    EXPECT_NE(error_.find("stream is damaged"), std::string::npos) << error_;
  }
  for (const int method : {0, 8}) {
    const std::string bytes = Zip().add("c.log", text_, method).bytes();
    (void)stamps({write("file", bytes.substr(0, bytes.size() / 2))});
    EXPECT_NE(error_.find("the zip archive is cut"), std::string::npos) << error_;
    std::string damaged = bytes;
    damaged[bytes.size() / 2] ^= 0x11;
    (void)stamps({write("file", damaged)});
    EXPECT_NE(error_.find("the zip archive is damaged"), std::string::npos) << method << error_;
  }
}

TEST_F(CapturePacked, CallsAnArchiveThatItCannotReadByItsName) {
  EXPECT_NE(refusal(Zip().add("a", text_, 8).add("b", text_, 8).bytes()).find("a zip archive of 2 files"),
            std::string::npos);
  EXPECT_NE(refusal(Zip().add("a", text_, 8, false, 1).bytes()).find("with a password"), std::string::npos);
  EXPECT_NE(refusal(Zip().add("a", text_, 9).bytes()).find("packed by method 9"), std::string::npos);
  EXPECT_NE(refusal(Zip().bytes()).find("holds no file"), std::string::npos);
  EXPECT_NE(refusal(xz(xz(text_))).find("compressed twice"), std::string::npos);
}

TEST_F(CapturePacked, FollowsAPackedFileThatGrows) {
  for (const std::string& bytes : {xz(text_), bzip2(text_)}) {
    const std::string path = write("grows", "");
    CaptureReader reader({path}, {.block_bytes = 64, .follow = true});
    std::ofstream file(path, std::ios::binary);
    std::size_t lines = 0;
    for (std::size_t at = 0; at < bytes.size(); at += 97) {
      file << bytes.substr(at, 97) << std::flush;
      while (reader.next() != nullptr) ++lines;
    }
    EXPECT_EQ(lines, wanted_.size());
    EXPECT_EQ(reader.error(), "");
  }
}

}  // namespace
}  // namespace tickwire::md

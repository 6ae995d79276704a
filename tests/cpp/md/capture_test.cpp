#include "tickwire/md/capture.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "tickwire/core/error.hpp"

namespace tickwire::md {
namespace {

namespace fs = std::filesystem;

class Capture : public testing::Test {
 protected:
  Capture() {
    std::string pattern = (fs::temp_directory_path() / "tickwire-capture-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~Capture() override { fs::remove_all(folder_); }

  std::string write(const std::string& name, std::string_view bytes) {
    const std::string path = (folder_ / name).string();
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return path;
  }

  fs::path folder_;
};

std::string gzip(std::string_view text) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&stream, text.size()) + 64, '\0');
  std::string in(text);
  stream.next_in = reinterpret_cast<Bytef*>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string zstd(std::string_view text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

/// The tests' stamps are some nanoseconds after this one.
constexpr TsNs kT = 1'700'000'000'000'000'000;

struct Line {
  CaptureKind kind;
  TsNs ts;
  std::uint32_t conn;
  std::string instrument;
  std::string body;
  std::uint64_t number;
  bool operator==(const Line&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Line& line) {
  return out << static_cast<int>(line.kind) << ' ' << line.ts << ' ' << line.instrument << ' ' << line.body;
}

std::vector<Line> read_all(CaptureReader& reader) {
  std::vector<Line> lines;
  while (const CaptureLine* line = reader.next()) {
    // Reads what the JSON parser reads, for the address sanitizer to object to.
    unsigned sum = 0;
    for (std::size_t i = 0; i < CaptureReader::kPaddingBytes; ++i) {
      sum += static_cast<unsigned char>(
          line->body.data() == nullptr ? 0 : line->body.data()[line->body.size() + i]);
    }
    EXPECT_LT(sum, 256U * 64U);
    const TsNs ts = line->ts_recv >= kT ? line->ts_recv - kT : line->ts_recv;
    lines.push_back({line->kind, ts, line->conn, std::string(line->instrument),
                     std::string(line->body.data(), line->body.size()), reader.line_number()});
  }
  EXPECT_EQ(reader.next(), nullptr) << "the end stays the end";
  return lines;
}

std::vector<Line> read_all(std::vector<std::string> paths, CaptureReaderConfig config = {}) {
  CaptureReader reader(std::move(paths), config);
  std::vector<Line> lines = read_all(reader);
  EXPECT_FALSE(reader.truncated());
  EXPECT_EQ(reader.error(), "");
  return lines;
}

std::span<const char> chars(std::string_view text) { return {text.data(), text.size()}; }

TEST_F(Capture, GivesWhatTheWriterWrote) {
  std::string text;
  format_open(text, 1000, 3);
  format_message(text, 1001, chars(R"({"e":"trade","s":"BTCUSDT"})"));
  format_snapshot(text, 1002, 3, "BTCUSDT", 500, chars(R"({"lastUpdateId":7,"bids":[],"asks":[]})"));
  format_message(text, 1003, chars("[1,2]"));
  format_message(text, 1003, {});
  format_close(text, 1004, 3);
  EXPECT_EQ(text,
            "1000 {\"tickwire\":\"open\",\"conn\":3}\n"
            "1001 {\"e\":\"trade\",\"s\":\"BTCUSDT\"}\n"
            "1002 {\"tickwire\":\"snapshot\",\"conn\":3,\"instrument\":\"BTCUSDT\",\"limit\":500,"
            "\"body\":{\"lastUpdateId\":7,\"bids\":[],\"asks\":[]}}\n"
            "1003 [1,2]\n"
            "1003 \n"
            "1004 {\"tickwire\":\"close\",\"conn\":3}\n");
  EXPECT_EQ(read_all({write("c.log", text)}),
            (std::vector<Line>{
                {CaptureKind::Open, 1000, 3, "", "", 1},
                {CaptureKind::Message, 1001, 0, "", R"({"e":"trade","s":"BTCUSDT"})", 2},
                {CaptureKind::Snapshot, 1002, 3, "BTCUSDT", R"({"lastUpdateId":7,"bids":[],"asks":[]})", 3},
                {CaptureKind::Message, 1003, 0, "", "[1,2]", 4},
                {CaptureKind::Message, 1003, 0, "", "", 5},
                {CaptureKind::Close, 1004, 3, "", "", 6}}));
}

TEST_F(Capture, TellsHowManyLevelsASnapshotWasAskedFor) {
  const std::string begin = R"(7 {"tickwire":"snapshot","conn":0,"instrument":"X",)";
  const std::string path =
      write("c.log", begin + R"("limit":20,"body":{}})" + "\n" + begin + R"("limit": 5000, "body":{}})" +
                         "\n" + begin + R"("body":{}})" + "\n" + begin + R"("limit":-1,"body":{}})" + "\n");
  CaptureReader reader({path});
  for (const std::uint32_t limit : {20U, 5000U, 0U}) {
    const CaptureLine* const line = reader.next();
    ASSERT_NE(line, nullptr);
    EXPECT_EQ(line->limit, limit);
  }
  EXPECT_EQ(reader.next(), nullptr);
  EXPECT_EQ(reader.skipped_lines(), 1U);
}

TEST_F(Capture, KeepsAMessageWithLineBreaksOnOneLine) {
  std::string text;
  format_message(text, kT + 5, chars("{\r\n \"a\": 1\n}"));
  EXPECT_EQ(text, "1700000000000000005 {\t\t \"a\": 1\t}\n");
  EXPECT_EQ(read_all({write("c.log", text)}).size(), 1U);
}

TEST_F(Capture, GivesAMessageThatLooksLikeALineOfOursBackAsAMessage) {
  const std::vector<std::string> messages = {
      R"({"tickwire":"close","conn":0})",
      R"({"tickwire":"snapshot","conn":0,"instrument":"BTCUSDT","body":{}})",
      R"({"lastUpdateId":7,"bids":[["9","1"]],"asks":[]})",
  };
  std::string text;
  for (const std::string& message : messages) format_message(text, kT + 1, chars(message));
  const std::vector<Line> lines = read_all({write("capture.log", text)});
  ASSERT_EQ(lines.size(), messages.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i].kind, CaptureKind::Message);
    EXPECT_EQ(lines[i].body, "\t" + messages[i]) << "the same JSON, behind white space";
  }
}

TEST_F(Capture, TellsABareSnapshotByItsOutermostKeys) {
  const std::string text =
      "1700000000000000001 {\"lastUpdateId\":7,\"bids\":[[\"1\",\"2\"]],\"asks\":[]}\n"
      "1700000000000000002 {\"bids\":[],\"x\":{\"stream\":\"no\"},\"asks\":[],\"lastUpdateId\" : 7}\n"
      "1700000000000000003 {\"lastUpdateId\":7,\"stream\":\"s\"}\n"
      "1700000000000000004 {\"stream\":\"s\",\"data\":{\"lastUpdateId\":7}}\n"  // No levels.
      "1700000000000000005 {\"data\":{\"lastUpdateId\":7}}\n"
      "1700000000000000006 {\"a\":\"\\\"lastUpdateId\\\":\"}\n"
      "1700000000000000007 {\"a\":[{\"lastUpdateId\":7}]}\n"
      "1700000000000000008 {\"e\":\"\\\\\",\"lastUpdateId\":7}\r\n";
  const std::vector<Line> lines = read_all({write("c.log", text)});
  ASSERT_EQ(lines.size(), 8U);
  const std::vector<bool> bare{true, true, false, false, false, false, false, true};
  for (std::size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i].kind, bare[i] ? CaptureKind::BareSnapshot : CaptureKind::Message) << i + 1;
  }
  EXPECT_EQ(lines[7].body.back(), '}') << "the carriage return is not the message's";
}

TEST_F(Capture, SkipsCountsAndNamesWhatIsNoLine) {
  const std::string path = write(
      "c.log",
      "1700000000000000001 {\"a\":1}\n"
      "\n"
      "x {\"a\":1}\n"
      "1700000000000000002\n"
      "1700000000000000002{}\n"
      "-2 {}\n"
      "99999999999999999999 {}\n"
      "1700000000000000003 {\"tickwire\":\"what\",\"conn\":0}\n"
      "1700000000000000003 {\"tickwire\":\"open\"}\n"
      "1700000000000000003 {\"tickwire\":\"open\",\"conn\":-1}\n"
      "1700000000000000003 {\"tickwire\":\"open\",\"conn\":0}}\n"
      "1700000000000000003 {\"tickwire\":\"snapshot\",\"conn\":0,\"instrument\":\"\",\"body\":{}}\n"
      "1700000000000000003 {\"tickwire\":\"snapshot\",\"conn\":0,\"instrument\":\"X\",\"body\":7}\n"
      "1700000000000000004 {\"tickwire\": \"snapshot\", \"conn\": 0, \"instrument\": \"X\", \"body\": {}}\n");
  CaptureReader reader({path});
  const std::vector<Line> lines = read_all(reader);
  EXPECT_EQ(lines, (std::vector<Line>{{CaptureKind::Message, 1, 0, "", "{\"a\":1}", 1},
                                      {CaptureKind::Snapshot, 4, 0, "X", "{}", 14}}));
  EXPECT_EQ(reader.skipped_lines(), 12U);
  EXPECT_FALSE(reader.truncated());
  EXPECT_EQ(reader.error(),
            path + ":2: not a capture line: expected TIME, a space and a message, found \"\"");
}

TEST_F(Capture, ReadsGzipZstdAndPlainOneAfterAnother) {
  const std::vector<std::string> paths{
      write("1.log.gz", gzip("1700000000000000001 {\"a\":1}\n1700000000000000002 {\"a\":2}\n")),
      write("2.log", "1700000000000000003 {\"a\":3}\n"),
      write("3.log.zst", zstd("1700000000000000004 {\"a\":4}\n") + zstd("1700000000000000005 {\"a\":5}\n")),
      write("4", gzip("1700000000000000006 {\"a\":6}\n") + gzip("1700000000000000007 {\"a\":7}\n") +
                     std::string(512, '\0')),
      write("empty", ""),
      write("5", gzip("")),
      write("6", zstd("1700000000000000008 {\"a\":8}\n"))};
  CaptureReader reader(paths);
  std::vector<TsNs> times;
  std::vector<std::string> files;
  while (const CaptureLine* line = reader.next()) {
    times.push_back(line->ts_recv - kT);
    files.push_back(reader.file());
  }
  EXPECT_EQ(times, (std::vector<TsNs>{1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(files, (std::vector<std::string>{paths[0], paths[0], paths[1], paths[2], paths[2], paths[3],
                                             paths[3], paths[6]}));
  EXPECT_FALSE(reader.truncated()) << reader.error();
}

TEST_F(Capture, GivesTheSameLinesWhateverTheBlock) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::string text;
  for (int i = 0; i < 60; ++i) {
    switch (random() % 5) {
      case 0: text += "no line\n"; break;
      case 1:
        format_snapshot(text, kT + i, 1, "BTCUSDT", 0, chars("{\"lastUpdateId\":1,\"bids\":[]}"));
        break;
      default: {
        const std::string message = "{\"k\":\"" + std::string(random() % 90, 'x') + "\"}";
        format_message(text, kT + i, chars(message));
      }
    }
  }
  text += "1700000000000000077 {\"last\":\"without a line break\"}";
  const std::string plain = write("c.log", text);
  const std::string gz = write("c.gz", gzip(text));
  const std::string zst = write("c.zst", zstd(text));
  CaptureReader whole({plain, gz, zst});
  const std::vector<Line> expected = read_all(whole);
  ASSERT_GT(expected.size(), 90U);
  for (std::size_t block = 1; block <= 200; ++block) {
    CaptureReader reader({plain, gz, zst}, {.max_line_bytes = 1000, .block_bytes = block});
    ASSERT_EQ(read_all(reader), expected) << "block " << block;
    ASSERT_EQ(reader.skipped_lines(), whole.skipped_lines());
  }
}

TEST_F(Capture, AcceptsALastLineThatLacksOnlyItsBreak) {
  EXPECT_EQ(read_all({write("1", "1700000000000000001 {\"a\":[1]}"), write("2", "1700000000000000002 {}\n")})
                .size(),
            2U);
}

TEST_F(Capture, ReportsAFileCutAnywhere) {
  const std::string text = "1700000000000000001 {\"a\":\"}{\"}\n1700000000000000002 {\"b\":[{\"c\":1}]}\n";
  const std::size_t first_line = text.find('\n') + 1;
  for (std::size_t size = 0; size < text.size(); ++size) {
    const std::string path = write("c.log", text.substr(0, size));
    CaptureReader reader({path, write("next.log", "1700000000000000009 {}\n")});
    const std::vector<Line> lines = read_all(reader);
    const bool whole = size == 0 || size == first_line || size == first_line - 1 || size == text.size() - 1;
    EXPECT_EQ(reader.truncated(), !whole) << size;
    EXPECT_EQ(lines.size(), (size == text.size() - 1 ? 2U : size >= first_line - 1 ? 1U : 0U) + 1U) << size;
    EXPECT_EQ(lines.back().ts, 9) << "the next file is read all the same";
    if (!whole) {
      EXPECT_EQ(reader.error(),
                path + (size < first_line ? ":1" : ":2") + ": the file ends in the middle of a line");
    }
  }
}

TEST_F(Capture, ReportsACutCompressedStream) {
  std::string text;
  std::mt19937 random(1);
  for (int i = 0; i < 400; ++i)
    format_message(text, kT + i, chars("{\"n\":" + std::to_string(random()) + "}"));
  const std::vector<Line> expected = read_all({write("whole", text)});
  for (const std::string& bytes : {gzip(text), zstd(text)}) {
    for (std::size_t size = 5; size < bytes.size(); size += bytes.size() / 23) {
      CaptureReader reader(
          {write("cut", bytes.substr(0, size)), write("next.log", "1700000000000000009 {}\n")});
      std::vector<Line> lines = read_all(reader);
      EXPECT_TRUE(reader.truncated()) << size;
      EXPECT_NE(reader.error().find("stream is cut"), std::string::npos) << reader.error();
      ASSERT_FALSE(lines.empty());
      EXPECT_EQ(lines.back().ts, 9);
      lines.pop_back();
      ASSERT_LE(lines.size(), expected.size());
      EXPECT_TRUE(std::equal(lines.begin(), lines.end(), expected.begin())) << "what was whole is right";
    }
  }
}

TEST_F(Capture, ReportsADamagedStream) {
  std::string bytes = gzip("1700000000000000001 {\"a\":1}\n");
  bytes[bytes.size() - 6] = static_cast<char>(bytes[bytes.size() - 6] ^ 0x55);  // Its checksum.
  CaptureReader gz({write("c.gz", bytes)});
  EXPECT_EQ(read_all(gz).size(), 1U);
  EXPECT_TRUE(gz.truncated());
  EXPECT_NE(gz.error().find("damaged"), std::string::npos) << gz.error();

  CaptureReader tail({write("t.gz", gzip("1700000000000000001 {\"a\":1}\n") + "garbage")});
  EXPECT_EQ(read_all(tail).size(), 1U);
  EXPECT_TRUE(tail.truncated());

  CaptureReader zst({write("c.zst", zstd("1700000000000000001 {\"a\":1}\n") + "garbage")});
  EXPECT_EQ(read_all(zst).size(), 1U);
  EXPECT_TRUE(zst.truncated());
}

TEST_F(Capture, SkipsALineBeyondTheLimit) {
  for (const std::size_t block : {std::size_t{7}, std::size_t{64}, std::size_t{1000}, std::size_t{100000}}) {
    std::string text = "1700000000000000001 {}\n";
    format_message(text, kT + 2, chars(std::string(5000, 'x')));
    format_message(text, kT + 3, chars("{" + std::string(77, ' ') + "}"));  // 99 bytes.
    format_message(text, kT + 4, chars("{" + std::string(79, ' ') + "}"));  // 101 bytes.
    format_message(text, kT + 5, chars("{" + std::string(78, ' ') + "}"));  // 100 bytes: just fits.
    const std::string path = write("c.log", text + "1700000000000000006 " + std::string(300, 'y'));
    CaptureReader reader({path, write("next.log", "1700000000000000009 {}\n")},
                         {.max_line_bytes = 100, .block_bytes = block});
    const std::vector<Line> lines = read_all(reader);
    std::vector<TsNs> times;
    for (const Line& line : lines) times.push_back(line.ts);
    EXPECT_EQ(times, (std::vector<TsNs>{1, 3, 5, 9})) << block;
    EXPECT_EQ(lines[1].number, 3U);
    EXPECT_EQ(lines[2].number, 5U);
    EXPECT_TRUE(reader.truncated());
    EXPECT_EQ(reader.error(), path + ":6: the file ends in the middle of a line");
  }
}

TEST_F(Capture, RefusesAFileItCannotRead) {
  EXPECT_THROW(CaptureReader({(folder_ / "missing").string()}), SetupError);
  EXPECT_THROW(CaptureReader({folder_.string()}), SetupError);
  EXPECT_THROW(CaptureReader({write("c", "1700000000000000001 {}\n")}, {.max_line_bytes = 0}), SetupError);
  EXPECT_THROW(CaptureReader({write("c", "1700000000000000001 {}\n")}, {.block_bytes = 0}), SetupError);
  CaptureReader none({});
  EXPECT_EQ(none.next(), nullptr);
}

// Whatever was there when the file was opened or looked at: its first bytes, which say how it is compressed,
// come one by one, and what of a cut stream can be decoded is given with the bytes that hold it.
TEST_F(Capture, FollowsAFileThatGrowsByteByByte) {
  std::string text;
  for (int i = 0; i < 40; ++i)
    text += std::to_string(kT + i) + " {\"text\":\"" + std::string(200, 'x') + "\"}\n";
  for (const std::string& bytes : {text, gzip(text), zstd(text)}) {
    const std::string path = write("grows.log", "");
    CaptureReader reader({path}, {.block_bytes = 64, .follow = true});
    std::ofstream file(path, std::ios::binary);
    TsNs lines = 0;
    for (const char byte : bytes) {
      file << byte << std::flush;
      while (const CaptureLine* line = reader.next()) EXPECT_EQ(line->ts_recv, kT + lines++);
    }
    EXPECT_EQ(lines, 40);
    EXPECT_EQ(reader.skipped_lines(), 0U);
  }

  const std::string bytes = gzip(text);
  for (std::size_t size = 20; size < bytes.size(); ++size) {
    const std::string path = write("cut.log", std::string_view(bytes).substr(0, size));
    std::vector<int> lines;
    for (const std::size_t block : {std::size_t{1}, std::size_t{16}, std::size_t{1} << 16U}) {
      CaptureReader reader({path}, {.block_bytes = block, .follow = true});
      lines.push_back(0);
      while (reader.next() != nullptr) ++lines.back();
    }
    EXPECT_EQ(lines, std::vector<int>(3, lines.back())) << size;
  }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/// Where a line does not fit the memory that is left, the capture ends there and says so: who reads it, a
/// thread of a running engine, goes on.
TEST_F(Capture, ALineThatFindsNoMemoryEndsItAndIsSaid) {
  const std::string path = write("long.log", std::to_string(kT) + " {\"e\":1}\n");
  ASSERT_EQ(::truncate(path.c_str(), 512 << 20), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    CaptureReader reader({path}, {.max_line_bytes = 1U << 30U});
    if (reader.next() == nullptr) ::_exit(1);
    long pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const auto now = static_cast<rlim_t>(pages) * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE));
    rlimit before{};
    if (::getrlimit(RLIMIT_AS, &before) != 0) ::_exit(2);
    const rlimit limit{now + (96U << 20U), before.rlim_max};
    if (::setrlimit(RLIMIT_AS, &limit) != 0) ::_exit(2);
    if (reader.next() != nullptr || reader.next() != nullptr) ::_exit(3);
    reader.add(path);
    if (reader.next() != nullptr) ::_exit(5);
    const bool told = reader.truncated() && reader.error() == "out of memory";
    (void)::setrlimit(RLIMIT_AS, &before);
    std::exit(told ? 0 : 4);  // In order, so that what was run is counted where that is asked for.
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), 0);
}
#endif

}  // namespace
}  // namespace tickwire::md

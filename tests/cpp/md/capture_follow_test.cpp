#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tickwire/md/capture.hpp"

namespace tickwire::md {
namespace {

/// The stamps are some nanoseconds after this one.
constexpr TsNs kT = 1'700'000'000'000'000'000;

/// A file that grows while it is read.
class CaptureFollow : public testing::Test {
 protected:
  CaptureFollow()
      : folder_(std::filesystem::temp_directory_path() /
                ("tickwire-capture-follow-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~CaptureFollow() override { std::filesystem::remove_all(folder_); }

  std::string path(const char* name) const { return (folder_ / name).string(); }
  static void append(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary | std::ios::app) << text;
  }
  static std::vector<TsNs> all(CaptureReader& reader) {
    std::vector<TsNs> stamps;
    while (const CaptureLine* line = reader.next()) stamps.push_back(line->ts_recv - kT);
    return stamps;
  }

 private:
  std::filesystem::path folder_;
};

TEST_F(CaptureFollow, GoesOnInTheMiddleOfALine) {
  const std::string file = path("a.log");
  append(file, "1700000000000000001 {\"a\":1}\n1700000000000000002 {\"a\"");
  CaptureReader reader({file}, {.follow = true});
  EXPECT_EQ(all(reader), std::vector<TsNs>{1});
  EXPECT_EQ(all(reader), std::vector<TsNs>{});
  append(file, ":2}");
  // Whole, but it may be longer.
  EXPECT_EQ(all(reader), std::vector<TsNs>{});
  append(file, "\n1700000000000000003 {}\n");
  EXPECT_EQ(all(reader), (std::vector<TsNs>{2, 3}));
  EXPECT_FALSE(reader.truncated());
  EXPECT_EQ(reader.skipped_lines(), 0U);
}

TEST_F(CaptureFollow, GoesOnWithTheNextFile) {
  const std::string one = path("1.log");
  const std::string two = path("2.log");
  append(one, "1700000000000000001 {}\n");
  append(two, "1700000000000000003 {}\n");
  CaptureReader reader({one}, {.follow = true});
  EXPECT_EQ(all(reader), std::vector<TsNs>{1});
  append(one, "1700000000000000002 {}\n");
  reader.add(two);
  EXPECT_EQ(all(reader), (std::vector<TsNs>{2, 3}));
  append(two, "1700000000000000004 {}\n");
  EXPECT_EQ(all(reader), std::vector<TsNs>{4});
}

TEST_F(CaptureFollow, GoesOnInACompressedStream) {
  const std::string file = path("a.log.gz");
  z_stream stream{};
  ASSERT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  const auto compress = [&](std::string text) {
    std::string out(1024, '\0');
    stream.next_in = reinterpret_cast<Bytef*>(text.data());
    stream.avail_in = static_cast<uInt>(text.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    EXPECT_EQ(deflate(&stream, Z_SYNC_FLUSH), Z_OK);
    out.resize(out.size() - stream.avail_out);
    return out;
  };
  const std::string first = compress("1700000000000000001 {}\n1700000000000000002 {");
  const std::string second = compress("}\n1700000000000000003 {}\n");
  deflateEnd(&stream);
  append(file, first);
  CaptureReader reader({file}, {.follow = true});
  EXPECT_EQ(all(reader), std::vector<TsNs>{1});
  append(file, second.substr(0, 3));
  append(file, second.substr(3));
  EXPECT_EQ(all(reader), (std::vector<TsNs>{2, 3}));
  EXPECT_FALSE(reader.truncated());
  // Whoever does not follow is told of the cut.
  CaptureReader whole({file});
  EXPECT_EQ(all(whole), (std::vector<TsNs>{1, 2, 3}));
  EXPECT_TRUE(whole.truncated());
}

TEST_F(CaptureFollow, ReadsTheLinesOfAWarmStart) {
  std::string text;
  format_warm(text, 1, 0);
  format_cold(text, 2, 0, "ETHUSDT");
  format_live(text, 3, 0);
  EXPECT_EQ(text,
            "1 {\"tickwire\":\"warm\",\"conn\":0}\n"
            "2 {\"tickwire\":\"cold\",\"conn\":0,\"instrument\":\"ETHUSDT\"}\n"
            "3 {\"tickwire\":\"live\",\"conn\":0}\n");
  text += "4 {\"tickwire\":\"warm\",\"conn\":0,\"instrument\":\"ETHUSDT\"}\n";  // No line of ours.
  append(path("a.log"), text);
  CaptureReader reader({path("a.log")});
  std::vector<CaptureKind> kinds;
  while (const CaptureLine* line = reader.next()) {
    kinds.push_back(line->kind);
    EXPECT_EQ(line->kind == CaptureKind::Cold, line->instrument == "ETHUSDT");
  }
  EXPECT_EQ(kinds, (std::vector<CaptureKind>{CaptureKind::Warm, CaptureKind::Cold, CaptureKind::Live}));
  EXPECT_EQ(reader.skipped_lines(), 1U);
}

}  // namespace
}  // namespace tickwire::md

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tickwire/md/capture.hpp"

namespace tickwire::md {
namespace {

TEST(CaptureStale, ReadsWhatItWroteOfAStaleBook) {
  const std::filesystem::path path = std::filesystem::temp_directory_path() /
                                     ("tickwire-capture-stale-" + std::to_string(::getpid()) + ".log");
  std::string text;
  format_stale(text, 5, 0, "BTCUSDT");
  EXPECT_EQ(text, "5 {\"tickwire\":\"stale\",\"conn\":0,\"instrument\":\"BTCUSDT\"}\n");
  text += "6 {\"tickwire\":\"stale\",\"conn\":0}\n";  // Of no instrument: no line of ours.
  std::ofstream(path) << text;
  CaptureReader reader({path.string()});
  const CaptureLine* line = reader.next();
  ASSERT_NE(line, nullptr);
  EXPECT_EQ(line->kind, CaptureKind::Stale);
  EXPECT_EQ(line->ts_recv, 5);
  EXPECT_EQ(line->instrument, "BTCUSDT");
  while (reader.next() != nullptr) {
  }
  std::filesystem::remove(path);
}

TEST(CaptureQuiet, ReadsWhatItWroteOfASilence) {
  const std::filesystem::path path = std::filesystem::temp_directory_path() /
                                     ("tickwire-capture-quiet-" + std::to_string(::getpid()) + ".log");
  std::string text;
  format_quiet(text, 7, 0);
  EXPECT_EQ(text, "7 {\"tickwire\":\"quiet\",\"conn\":0}\n");
  std::ofstream(path) << text;
  CaptureReader reader({path.string()});
  const CaptureLine* line = reader.next();
  ASSERT_NE(line, nullptr);
  EXPECT_EQ(line->kind, CaptureKind::Quiet);
  EXPECT_EQ(line->ts_recv, 7);
  EXPECT_EQ(reader.next(), nullptr);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace tickwire::md

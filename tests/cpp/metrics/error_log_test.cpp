#include "tickwire/metrics/error_log.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>

namespace tickwire::metrics {
namespace {

TEST(ErrorLog, KeepsTheFirstAndTheLastTextAndCounts) {
  const auto log = std::make_unique<ErrorLog>();
  EXPECT_TRUE(log->entries().empty());
  log->report(4, "gap after 17", 1000);
  log->report(4, "gap after 99", 3000);
  log->report(0, "malformed", 2000);
  log->report(4, "gap after 100", 4000);
  const std::vector<ErrorEntry> entries = log->entries();
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].kind, 0U);
  EXPECT_EQ(entries[0].text, "malformed");
  EXPECT_EQ(entries[0].count, 1U);
  EXPECT_EQ(entries[1].kind, 4U);
  EXPECT_EQ(entries[1].text, "gap after 17");
  EXPECT_EQ(entries[1].newest, "gap after 100");
  EXPECT_EQ(entries[0].newest, "malformed");
  EXPECT_EQ(entries[1].first_ts, 1000);
  EXPECT_EQ(entries[1].last_ts, 4000);
  EXPECT_EQ(entries[1].count, 3U);
  EXPECT_EQ(log->lost(), 0U);
}

TEST(ErrorLog, CountsAKindItHasNoRoomFor) {
  const auto log = std::make_unique<ErrorLog>();
  log->report(ErrorLog::kKinds, "x", 1);
  log->report(UINT32_MAX, "y", 2);
  EXPECT_TRUE(log->entries().empty());
  EXPECT_EQ(log->lost(), 2U);
}

TEST(ErrorLog, CutsALongTextBetweenCharacters) {
  const auto log = std::make_unique<ErrorLog>();
  log->report(0, std::string(ErrorLog::kMaxText + 50, 'a'), 1);
  std::string accents = "x";
  for (int i = 0; i < 200; ++i) accents += "\xC3\xA9";  // Two bytes each, so that the cut falls inside one.
  log->report(1, accents, 1);
  log->report(2, "", 1);
  const std::vector<ErrorEntry> entries = log->entries();
  ASSERT_EQ(entries.size(), 3U);
  EXPECT_EQ(entries[0].text, std::string(ErrorLog::kMaxText, 'a'));
  EXPECT_EQ(entries[1].text.size(), ErrorLog::kMaxText - 1);
  EXPECT_EQ(entries[1].text.substr(222), "\xA9");
  EXPECT_EQ(entries[2].text, "");
}

TEST(ErrorLog, ShowsAReaderWholeEntries) {
  const auto log = std::make_unique<ErrorLog>();
  const std::string text(ErrorLog::kMaxText, 'e');
  std::thread writer([&] {
    for (std::uint32_t kind = 0; kind < ErrorLog::kKinds; ++kind) {
      for (TsNs ts = 1; ts <= 200; ++ts) log->report(kind, text, ts);
    }
  });
  std::size_t kinds = 0;
  std::uint64_t last_count = 0;
  while (kinds < ErrorLog::kKinds || last_count < 200) {
    const std::vector<ErrorEntry> entries = log->entries();
    ASSERT_GE(entries.size(), kinds);
    kinds = entries.size();
    for (const ErrorEntry& entry : entries) {
      ASSERT_EQ(entry.text, text);
      ASSERT_EQ(entry.first_ts, 1);
      ASSERT_GE(entry.last_ts, static_cast<TsNs>(entry.count));
    }
    last_count = entries.empty() ? 0 : entries.back().count;
  }
  writer.join();
}

TEST(ErrorLog, ShowsAReaderNoMixtureOfTwoTexts) {
  const auto log = std::make_unique<ErrorLog>();
  std::thread writer([&] {
    for (int i = 0; i < 20'000; ++i) {
      log->report(
          0,
          std::string(1 + static_cast<std::size_t>(i) % ErrorLog::kMaxText, static_cast<char>('a' + i % 26)),
          i);
    }
  });
  for (std::uint64_t count = 0; count < 20'000;) {
    for (const ErrorEntry& entry : log->entries()) {
      count = entry.count;
      ASSERT_EQ(entry.newest, std::string(entry.newest.size(), entry.newest.front()));
    }
  }
  writer.join();
  EXPECT_EQ(log->entries()[0].newest, std::string(1 + 19'999 % ErrorLog::kMaxText, 'a' + 19'999 % 26));
}

}  // namespace
}  // namespace tickwire::metrics

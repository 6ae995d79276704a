#include "tickwire/signal/sent.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <random>
#include <utility>

namespace tickwire::signal {
namespace {

SignalHeader header_of(std::uint64_t row, InstrumentId instrument = 1) {
  SignalHeader header{};
  header.instrument = instrument;
  header.epoch = 2;
  header.row = row;
  header.sequence = 1000 + row;
  header.ts_event = static_cast<TsNs>(10 * row);
  header.ts_recv = static_cast<TsNs>(10 * row + 1);
  header.recv_clock = RecvClock::Kernel;
  header.stage_ns = {700, 20, 30, 40, 0, 0, 0};
  header.state = row == 0 ? SignalState::Suspect : SignalState::Valid;
  header.reason = row == 0 ? md::InvalidReason::Gap : md::InvalidReason::None;
  return header;
}

class SentTest : public ::testing::Test {
 protected:
  Arena arena_{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  Sent sent_{arena_, 64};
};

TEST_F(SentTest, TakesEachOnceInTheOrderInWhichTheyWereSent) {
  for (std::uint64_t row = 1; row <= 4; ++row) ASSERT_TRUE(sent_.note(header_of(row), row));
  EXPECT_FALSE(sent_.take(header_of(5)));
  EXPECT_TRUE(sent_.take(header_of(1)));
  EXPECT_FALSE(sent_.take(header_of(1)));
  EXPECT_TRUE(sent_.take(header_of(3)));   // The one between was left unscored.
  EXPECT_FALSE(sent_.take(header_of(2)));  // It cannot come any more.
  EXPECT_TRUE(sent_.take(header_of(4)));
}

TEST_F(SentTest, WhatTheReaderHasNoSayInMustBeTheSame) {
  const std::function<void(SignalHeader&)> changes[] = {
      [](SignalHeader& header) { header.instrument = 0; },
      [](SignalHeader& header) { header.epoch = 3; },
      [](SignalHeader& header) { header.row = 8; },
      [](SignalHeader& header) { header.sequence -= 1; },
      [](SignalHeader& header) { header.ts_event += 1; },
      [](SignalHeader& header) { header.ts_recv += 1; },
      [](SignalHeader& header) { header.missing_trades = 1; },
      [](SignalHeader& header) { header.unseen_us = 1; },
      [](SignalHeader& header) { header.recv_clock = RecvClock::Nic; },
      [](SignalHeader& header) { header.stage_ns[static_cast<std::size_t>(Stage::Receive)] -= 1; },
      [](SignalHeader& header) { header.stage_ns[static_cast<std::size_t>(Stage::Decode)] += 1; },
      [](SignalHeader& header) { header.stage_ns[static_cast<std::size_t>(Stage::Book)] = 1'000'000; },
      [](SignalHeader& header) {
        std::swap(header.stage_ns[static_cast<std::size_t>(Stage::Decode)],
                  header.stage_ns[static_cast<std::size_t>(Stage::Features)]);
      },
      [](SignalHeader& header) { header.reason = md::InvalidReason::Stale; }};
  ASSERT_TRUE(sent_.note(header_of(7), 7));
  for (const auto& change : changes) {
    SignalHeader changed = header_of(7);
    change(changed);
    EXPECT_FALSE(sent_.take(changed));
  }
  SignalHeader scored = header_of(7);
  scored.state = SignalState::Stale;
  scored.scored = 3;
  scored.model_id = 9;
  scored.ts_out = 100;
  EXPECT_TRUE(sent_.take(scored));
}

TEST_F(SentTest, NothingBecomesBetterThanItWas) {
  SignalHeader bad = header_of(1);
  bad.state = SignalState::NonFinite;
  ASSERT_TRUE(sent_.note(bad, 1));
  EXPECT_FALSE(sent_.take(header_of(1)));
  ASSERT_TRUE(sent_.take(bad));
  ASSERT_TRUE(sent_.note(header_of(0), 2));
  SignalHeader notice = header_of(0);
  notice.state = SignalState::Halted;
  EXPECT_FALSE(sent_.take(notice));
  EXPECT_TRUE(sent_.take(header_of(0)));
}

TEST_F(SentTest, WhatHasNoAnswerAnyMoreMakesRoom) {
  for (std::uint64_t row = 1; row <= 64; ++row) ASSERT_TRUE(sent_.note(header_of(row), row));
  ASSERT_FALSE(sent_.note(header_of(65), 65));
  EXPECT_TRUE(sent_.filling());
  sent_.forget_before(60);
  EXPECT_FALSE(sent_.filling());
  EXPECT_FALSE(sent_.take(header_of(59)));
  EXPECT_TRUE(sent_.note(header_of(65), 65));
  EXPECT_TRUE(sent_.take(header_of(60)));
  EXPECT_TRUE(sent_.take(header_of(65)));
}

TEST_F(SentTest, IsASlowListOfWhatWasSent) {
  std::mt19937_64 rand(7);
  std::deque<std::uint64_t> list;
  std::uint64_t next = 1;
  std::uint64_t taken = 0;
  for (int step = 0; step < 20'000; ++step) {
    if (rand() % 2 == 0) {
      ASSERT_EQ(sent_.note(header_of(next), next), list.size() < 64);
      if (list.size() < 64) list.push_back(next);
      ++next;
    } else {
      const std::uint64_t row = next < 40 ? rand() % 40 : next - rand() % 40;
      std::size_t at = 0;
      while (at < list.size() && list[at] != row) ++at;
      ASSERT_EQ(sent_.take(header_of(row)), at < list.size()) << row;
      if (at < list.size()) {
        list.erase(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(at) + 1);
        ++taken;
      }
    }
  }
  EXPECT_GT(taken, 1000);
}

}  // namespace
}  // namespace tickwire::signal

#include "tickwire/signal/port.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <random>
#include <vector>

namespace tickwire::signal {
namespace {

constexpr RecordLayout kLayout{.score_count = 2, .feature_count = 3};

class SignalPortTest : public ::testing::Test {
 protected:
  SignalHeader header(InstrumentId instrument, std::uint64_t row) {
    SignalHeader header{};
    header.instrument = instrument;
    header.row = row;
    return header;
  }

  bool push_row(InstrumentId instrument, std::uint64_t row) {
    std::byte* slot = port_.try_claim_row();
    if (slot == nullptr) return false;
    RecordView(slot, kLayout).header() = header(instrument, row);
    port_.publish();
    return true;
  }

  SignalHeader pop() {
    const SignalHeader front = RecordView(queue_.slot(0), kLayout).header();
    queue_.release(1);
    return front;
  }

  Arena arena_{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  concurrent::Waker waker_;
  concurrent::SpscQueue queue_{arena_, kLayout.record_bytes(), 4};
  SignalPort port_{queue_, waker_, 3, arena_};
};

TEST_F(SignalPortTest, DropsAndCountsTheNewestRowWhenFull) {
  for (std::uint64_t row = 1; row <= 6; ++row) EXPECT_EQ(push_row(0, row), row <= 4);
  EXPECT_EQ(port_.dropped(), 2U);
  for (std::uint64_t row = 1; row <= 4; ++row) EXPECT_EQ(pop().row, row);
  EXPECT_EQ(queue_.readable(), 0U);
}

TEST_F(SignalPortTest, KeepsANoticeUntilThereIsRoomAndSendsItBeforeLaterRows) {
  for (std::uint64_t row = 1; row <= 4; ++row) ASSERT_TRUE(push_row(0, row));
  port_.notice(header(0, 0));
  EXPECT_FALSE(push_row(1, 7)) << "a row may not overtake a notice";
  EXPECT_EQ(pop().row, 1U);
  EXPECT_EQ(port_.room(), 0U) << "the free slot belongs to the notice";
  EXPECT_FALSE(push_row(1, 8)) << "the notice took the slot";
  EXPECT_EQ(pop().row, 2U);
  EXPECT_TRUE(push_row(1, 9));
  EXPECT_EQ(pop().row, 3U);
  EXPECT_EQ(pop().row, 4U);
  EXPECT_EQ(pop().row, 0U);
  EXPECT_EQ(pop().row, 9U);
}

TEST_F(SignalPortTest, ANoticeCarriesNoNumberThatCouldPassForAScore) {
  port_.notice(header(2, 0));
  const RecordView view(queue_.slot(0), kLayout);
  for (const float score : view.scores()) EXPECT_TRUE(std::isnan(score));
  for (const float feature : view.features()) EXPECT_TRUE(std::isnan(feature));
}

TEST_F(SignalPortTest, KeepsTheNewestOfTwoWaitingNoticesOfAnInstrument) {
  for (std::uint64_t row = 1; row <= 4; ++row) ASSERT_TRUE(push_row(0, row));
  SignalHeader first = header(0, 0);
  first.epoch = 1;
  SignalHeader second = header(0, 0);
  second.epoch = 2;
  port_.notice(first);
  port_.notice(header(1, 0));
  port_.notice(second);
  queue_.release(4);
  EXPECT_TRUE(port_.flush());
  ASSERT_EQ(queue_.readable(), 2U);
  const SignalHeader front = pop();
  EXPECT_EQ(front.instrument, 0U);
  EXPECT_EQ(front.epoch, 2U);
  EXPECT_EQ(pop().instrument, 1U);
}

TEST_F(SignalPortTest, ANoticeDoesNotOvertakeOneThatWaits) {
  for (std::uint64_t row = 1; row <= 4; ++row) ASSERT_TRUE(push_row(0, row));
  port_.notice(header(0, 0));
  EXPECT_EQ(pop().row, 1U);
  port_.notice(header(1, 0));  // The one free place is the other's.
  for (std::uint64_t row = 2; row <= 4; ++row) EXPECT_EQ(pop().row, row);
  const SignalHeader front = pop();
  EXPECT_EQ(front.row, 0U);
  EXPECT_EQ(front.instrument, 0U);
  EXPECT_EQ(queue_.readable(), 0U) << "the second waits for the next turn";
  EXPECT_TRUE(port_.flush());
  ASSERT_EQ(queue_.readable(), 1U);
  EXPECT_EQ(pop().instrument, 1U);
}

TEST_F(SignalPortTest, TheNewerOfTwoNoticesOfAnInstrumentIsTheLastThatIsHeard) {
  for (std::uint64_t row = 1; row <= 4; ++row) ASSERT_TRUE(push_row(0, row));
  SignalHeader notice = header(0, 0);
  notice.epoch = 1;
  port_.notice(notice);
  queue_.release(4);
  notice.epoch = 2;
  port_.notice(notice);  // There is room for both.
  ASSERT_EQ(queue_.readable(), 2U);
  EXPECT_EQ(pop().epoch, 1U);
  EXPECT_EQ(pop().epoch, 2U);
  EXPECT_TRUE(port_.flush());
  EXPECT_EQ(queue_.readable(), 0U) << "none is sent twice";
}

TEST_F(SignalPortTest, TriesANoticeOnlyBehindThoseThatWait) {
  for (std::uint64_t row = 1; row <= 4; ++row) ASSERT_TRUE(push_row(0, row));
  EXPECT_FALSE(port_.try_notice(header(2, 0)));
  port_.notice(header(0, 0));
  queue_.release(4);
  EXPECT_TRUE(port_.try_notice(header(2, 0)));
  ASSERT_EQ(queue_.readable(), 2U);
  EXPECT_EQ(pop().instrument, 0U);
  EXPECT_EQ(pop().instrument, 2U);
}

TEST_F(SignalPortTest, WhatCannotBeRememberedIsNotSent) {
  Sent sent(arena_, 2);
  port_.remember_in(sent);
  const auto row = [this](std::uint64_t number) {
    EXPECT_NE(port_.try_claim_row(), nullptr);
    if (!port_.note(header(0, number))) return false;
    port_.publish();
    return true;
  };
  EXPECT_TRUE(row(1));
  EXPECT_TRUE(row(2));
  EXPECT_FALSE(row(3)) << "two are on their way";
  EXPECT_EQ(port_.dropped(), 1U);
  EXPECT_FALSE(port_.try_notice(header(1, 0)));
  EXPECT_EQ(queue_.readable(), 2U);
  EXPECT_TRUE(sent.take(header(0, 2)));  // Both are answered, or never will be.
  EXPECT_TRUE(port_.try_notice(header(1, 0)));
  EXPECT_EQ(queue_.readable(), 3U);
}

TEST(SignalState, OfABookThatIsNotValidIsNeverValid) {
  EXPECT_EQ(signal_state(md::BookState::Valid), SignalState::Valid);
  EXPECT_EQ(signal_state(md::BookState::Stale), SignalState::Stale);
  EXPECT_EQ(signal_state(md::BookState::Halted), SignalState::Halted);
  EXPECT_EQ(signal_state(md::BookState::Empty), SignalState::Empty);
  EXPECT_EQ(signal_state(md::BookState::Buffering), SignalState::Suspect);
  EXPECT_EQ(signal_state(md::BookState::Suspect), SignalState::Suspect);
}

// The promise of the port against random readers: whatever is dropped, the last thing a reader hears of an
// instrument that has left valid is the notice.
TEST_F(SignalPortTest, NeverLeavesTheReaderWithARowOfAnInstrumentThatLeftValid) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::vector<std::uint64_t> heard(3, 0);
  std::vector<bool> valid(3, false);
  std::uint64_t row = 0;
  const auto drain = [&](std::size_t most) {
    for (; most != 0 && queue_.readable() != 0; --most) {
      const SignalHeader front = pop();
      heard[front.instrument] = front.row;
    }
  };
  for (int i = 0; i < 200'000; ++i) {
    const auto instrument = static_cast<InstrumentId>(random() % 3);
    switch (random() % 4) {
      case 0:
        if (valid[instrument]) port_.notice(header(instrument, 0));
        valid[instrument] = false;
        break;
      case 1:
      case 2:
        valid[instrument] = true;
        (void)push_row(instrument, ++row);
        break;
      default: drain(random() % 3); break;
    }
    if (random() % 1000 == 0) {
      drain(1000);
      port_.flush();
      drain(1000);
      for (InstrumentId k = 0; k < 3; ++k) {
        if (valid[k]) continue;
        ASSERT_EQ(heard[k], 0U) << "instrument " << k << " after step " << i;
      }
    }
  }
}

}  // namespace
}  // namespace tickwire::signal

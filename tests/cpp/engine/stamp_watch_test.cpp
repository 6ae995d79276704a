#include "tickwire/engine/ingest/stamp_watch.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace tickwire::engine {
namespace {

constexpr TsNs kNow = 1'700'000'000'000'000'000;
constexpr TsNs kSecond = 1'000'000'000;
constexpr TsNs kMost = StampWatch::kMostLeapNs;
constexpr TsNs kHour = 3600 * kSecond;

TEST(StampWatch, DoubtsAStepThatTheVenuesClockDoesNotConfirm) {
  struct Case {
    TsNs recv;  // From the stamps before.
    TsNs event;
    bool recv_leaps;
    bool event_leaps;
  };
  for (const Case& one : {Case{kMost, 0, false, false},
                          {kMost + 1, 0, true, false},
                          {kMost + 1, 1, false, false},
                          {kHour, kHour, false, false},
                          {kHour, kHour - kMost, false, false},
                          {kHour, kHour - kMost - 1, true, true},
                          {kHour, kHour + kMost + 1, true, true},
                          {0, kMost + 1, false, true},
                          {1, kMost + 1, false, false},
                          {1000 * kHour, 1000 * kHour, false, false},
                          {-kMost, 0, false, false},
                          {-kMost - 1, 0, true, false},
                          {-kHour, -kHour, true, true},  // Both went back: what was is another time.
                          {kHour, -kHour, true, true}}) {
    SCOPED_TRACE(testing::Message() << one.recv << ' ' << one.event);
    StampWatch watch;
    for (const TsNs ahead : {TsNs{0}, -kSecond}) {  // The newest counts.
      const StampWatch::Leaps none = watch.follow(kNow + ahead, kNow - kSecond + ahead, 0);
      EXPECT_FALSE(none.recv || none.event || none.waited);
    }
    const StampWatch::Leaps found = watch.follow(kNow + one.recv, kNow - kSecond + one.event, 0);
    EXPECT_EQ(found.recv, one.recv_leaps);
    EXPECT_EQ(found.event, one.event_leaps);
    EXPECT_FALSE(found.waited);
    // It is what the next one is held against.
    const StampWatch::Leaps next = watch.follow(kNow + one.recv, kNow - kSecond + one.event, 0);
    EXPECT_FALSE(next.recv || next.event || next.waited);
    watch.forget();
    const StampWatch::Leaps anew = watch.follow(1, 2, 0);
    EXPECT_FALSE(anew.recv || anew.event || anew.waited);
  }
}

TEST(StampWatch, BelievesWhoMeasuredTheSilenceAndSaysSo) {
  const std::uint64_t begin = tsc_now();
  for (const TsNs silence : {TsNs{0}, 2 * kHour - kMost - kSecond, 2 * kHour - kMost + kSecond, 2 * kHour,
                             2 * kHour + kMost + kSecond}) {
    SCOPED_TRACE(silence);
    const bool measured = silence > 2 * kHour - kMost && silence < 2 * kHour + kMost;
    StampWatch live;
    (void)live.follow(kNow, kNoTime, begin);
    const StampWatch::Leaps found = live.follow(kNow + 2 * kHour, kNoTime, begin + ns_to_tsc(silence));
    EXPECT_EQ(found.recv, !measured);
    EXPECT_EQ(found.waited, measured);
    // A replay of it, with the entry and without, and with one of another stamp.
    for (const TsNs entry : {kNow + 2 * kHour, kNoTime, kNow + kHour}) {
      StampWatch replay;
      (void)replay.follow(kNow, kNoTime, 0);
      replay.waited(entry);
      EXPECT_EQ(replay.follow(kNow + 2 * kHour, kNoTime, 0).recv, entry != kNow + 2 * kHour);
    }
  }
  // What the venue's clock confirms needs no entry, and no silence takes a clock back.
  StampWatch watch;
  (void)watch.follow(kNow, kNow, begin);
  EXPECT_FALSE(watch.follow(kNow + kHour, kNow + kHour, begin + ns_to_tsc(kHour)).waited);
  EXPECT_TRUE(watch.follow(kNow, kNow + kHour, begin + ns_to_tsc(2 * kHour)).recv);
}

TEST(StampWatch, TakesAnyStamp) {
  std::mt19937_64 random(7);
  StampWatch watch;
  const TsNs odd[] = {kNoTime, kNoTime + 1, -1, 0, 1, kNow, std::numeric_limits<TsNs>::max()};
  for (int i = 0; i < 10'000; ++i) {
    const TsNs recv = odd[random() % std::size(odd)];
    const TsNs event = odd[random() % std::size(odd)];
    (void)watch.follow(recv, event, random() % 2);
    EXPECT_TRUE(recv == kNoTime || watch.is_near(recv) || watch.is_near(recv + kMost));
  }
}

}  // namespace
}  // namespace tickwire::engine

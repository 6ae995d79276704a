#include "tickwire/venue/book_sync.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tickwire/core/error.hpp"
#include "tickwire/md/capture.hpp"
#include "tickwire/md/instrument.hpp"
#include "tickwire/venue/binance/decoder.hpp"

namespace tickwire::venue {
namespace {

using md::BookState;
using md::InvalidReason;
using md::Level;
using md::Side;
using Levels = std::vector<Level>;

constexpr std::size_t kBufferEvents = 8;
constexpr std::size_t kEventLevels = 50;

/// An event that owns its levels, as a decoder would.
struct Message {
  std::uint64_t first;
  std::uint64_t last;
  std::uint64_t prev = 0;
  Levels bids;
  Levels asks;
  TsNs ts_event = kNoTime;
  TsNs ts_recv = 0;

  md::Event event(md::EventKind kind) const {
    md::Event out{};
    out.kind = kind;
    out.first_id = first;
    out.last_id = last;
    out.prev_id = prev;
    out.ts_event = ts_event;
    out.ts_recv = ts_recv;
    out.bids = bids;
    out.asks = asks;
    return out;
  }
};

class Rig {
 public:
  explicit Rig(SyncRule rule, std::size_t buffer_events = kBufferEvents,
               std::size_t event_levels = kEventLevels)
      : book(arena_, 1000), sync(rule, book, arena_, buffer_events, event_levels) {}

  SyncStep diff(const Message& message) { return sync.on_diff(message.event(md::EventKind::BookDiff)); }
  SyncStep snapshot(const Message& message) {
    return sync.on_snapshot(message.event(md::EventKind::BookSnapshot));
  }

  Levels bids() const { return top(Side::Bid); }
  Levels asks() const { return top(Side::Ask); }

 private:
  Levels top(Side side) const {
    Levels out(book.depth(side));
    book.top(side, out);
    return out;
  }
  Arena arena_{ArenaConfig{.chunk_bytes = 1, .huge_pages = HugePages::Off, .lock = LockMemory::Off}};

 public:
  md::PriceBook book;
  BookSync sync;
};

bool same(const Levels& a, const Levels& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Level& x, const Level& y) { return x.price == y.price && x.qty == y.qty; });
}

/// Bid quantity q at 100 and ask at 101, so that a book shows which diffs it holds.
Message spot(std::uint64_t first, std::uint64_t last, std::int64_t qty) {
  return {first, last, 0, {{100, qty}}, {{101, 1}}};
}
Message futures(std::uint64_t prev, std::uint64_t first, std::uint64_t last, std::int64_t qty) {
  return {first, last, prev, {{100, qty}}, {{101, 1}}};
}
Message rest(std::uint64_t id) { return {id, id, 0, {{99, 5}, {98, 5}}, {{101, 5}, {102, 5}}}; }

// ---------------------------------------------------------------------------------------------------
// Joining a snapshot

TEST(BookSyncSpot, BecomesValidBySnapshotWhenABufferedEventBridgesIt) {
  Rig rig(SyncRule::Spot);
  EXPECT_EQ(rig.sync.state(), BookState::Empty);
  EXPECT_FALSE(rig.sync.on_open().left_valid);
  EXPECT_EQ(rig.sync.state(), BookState::Buffering);
  EXPECT_FALSE(rig.sync.wants_snapshot()) << "it could be older than the first event";

  EXPECT_EQ(rig.diff(spot(1, 10, 1)).result, SyncResult::Buffered);
  EXPECT_TRUE(rig.sync.wants_snapshot());
  rig.diff(spot(11, 20, 2));
  rig.diff(spot(21, 30, 3));
  const SyncStep step = rig.snapshot(rest(15));
  EXPECT_EQ(step.result, SyncResult::SnapshotApplied);
  EXPECT_TRUE(step.became_valid);
  EXPECT_FALSE(step.event_applied) << "buffered events give no row";
  EXPECT_EQ(rig.sync.state(), BookState::Valid);
  EXPECT_EQ(rig.sync.epoch(), 1U);
  EXPECT_EQ(rig.sync.last_id(), 30U);
  EXPECT_FALSE(rig.sync.wants_snapshot());
  EXPECT_TRUE(same(rig.bids(), {{100, 3}, {99, 5}, {98, 5}}));
  EXPECT_TRUE(same(rig.asks(), {{101, 1}, {102, 5}}));

  const SyncStep next = rig.diff(spot(31, 40, 4));
  EXPECT_EQ(next.result, SyncResult::Applied);
  EXPECT_TRUE(next.event_applied);
  EXPECT_FALSE(next.became_valid);
  EXPECT_EQ(rig.sync.last_id(), 40U);
  EXPECT_EQ(rig.sync.counts().applied, 3U);
}

TEST(BookSyncSpot, DropsEventsThatTheSnapshotHolds) {
  // Up to and with the snapshot's id; the next must begin right behind it or before.
  for (const std::uint64_t id : {10U, 19U}) {
    Rig rig(SyncRule::Spot);
    rig.sync.on_open();
    rig.diff({1, 10, 0, {{97, 1}}, {}});
    rig.diff({11, 20, 0, {{96, 1}}, {}});
    EXPECT_TRUE(rig.snapshot(rest(id)).became_valid) << id;
    EXPECT_TRUE(same(rig.bids(), {{99, 5}, {98, 5}, {96, 1}})) << id;
  }
}

TEST(BookSyncSpot, RefusesASnapshotOlderThanTheBuffer) {
  Rig rig(SyncRule::Spot);
  rig.sync.on_open();
  rig.diff(spot(11, 20, 1));
  EXPECT_EQ(rig.snapshot(rest(9)).result, SyncResult::SnapshotRefused);
  EXPECT_EQ(rig.sync.state(), BookState::Buffering);
  EXPECT_TRUE(rig.sync.wants_snapshot()) << "the buffer stays, another may fit";
  EXPECT_EQ(rig.sync.counts().snapshots_refused, 1U);
  EXPECT_TRUE(rig.snapshot(rest(10)).became_valid);
}

TEST(BookSyncSpot, HoldsASnapshotNewerThanTheBufferUntilAnEventBridgesIt) {
  Rig rig(SyncRule::Spot);
  rig.sync.on_open();
  rig.diff(spot(1, 10, 1));
  EXPECT_EQ(rig.snapshot(rest(25)).result, SyncResult::SnapshotHeld);
  EXPECT_EQ(rig.sync.state(), BookState::Buffering);
  EXPECT_FALSE(rig.sync.wants_snapshot());
  EXPECT_EQ(rig.diff(spot(11, 25, 2)).result, SyncResult::Buffered) << "the snapshot has it";
  const SyncStep step = rig.diff(spot(26, 30, 3));
  EXPECT_TRUE(step.became_valid);
  EXPECT_FALSE(step.event_applied) << "it is part of what the epoch begins with";
  EXPECT_EQ(rig.sync.epoch(), 1U);
  EXPECT_TRUE(same(rig.bids(), {{100, 3}, {99, 5}, {98, 5}}));
}

TEST(BookSyncSpot, GivesUpAHeldSnapshotThatTheStreamPassesBy) {
  Rig rig(SyncRule::Spot);
  rig.sync.on_open();
  rig.snapshot(rest(25));
  EXPECT_EQ(rig.diff(spot(27, 30, 3)).result, SyncResult::Buffered) << "26 is missing";
  EXPECT_TRUE(rig.sync.wants_snapshot());
  EXPECT_EQ(rig.sync.counts().snapshots_expired, 1U);
  EXPECT_TRUE(rig.snapshot(rest(26)).became_valid);
}

TEST(BookSyncSpot, HoldsASnapshotForAsLongAsTheStreamNeedsToReachIt) {
  Rig rig(SyncRule::Spot);
  rig.sync.on_open();
  Message far = rest(100);
  far.ts_recv = 100;
  rig.snapshot(far);
  for (std::uint64_t id = 1; id <= 100; ++id) {
    Message old = spot(id, id, 1);
    old.ts_recv = far.ts_recv + static_cast<TsNs>(id) * 3'600'000'000'000;
    ASSERT_EQ(rig.diff(old).result, SyncResult::Buffered);
    ASSERT_TRUE(rig.sync.holds_snapshot());
  }
  EXPECT_TRUE(rig.diff(spot(101, 101, 7)).became_valid);
  EXPECT_TRUE(same(rig.bids(), {{100, 7}, {99, 5}, {98, 5}}));
  EXPECT_EQ(rig.sync.counts().snapshots_expired, 0U);
}

TEST(BookSyncSpot, AsksForAnotherSnapshotBesideOneThatIsHeldForLong) {
  Rig rig(SyncRule::Spot);
  rig.sync.on_open();
  TsNs now = 100;
  std::uint64_t id = 1;
  const auto diff_at = [&](TsNs ts_recv) {
    Message message = spot(id, id, 1);
    ++id;
    message.ts_recv = ts_recv;
    return rig.diff(message);
  };
  std::uint64_t ahead = 1'000'000;
  for (const TsNs hold : {2, 4, 8, 16, 32, 64, 64}) {
    Message far = rest(ahead++);
    far.ts_recv = now;
    ASSERT_EQ(rig.snapshot(far).result, SyncResult::SnapshotHeld);
    now += hold * 1'000'000'000;
    (void)diff_at(now);
    EXPECT_FALSE(rig.sync.wants_snapshot()) << hold;
    (void)diff_at(++now);
    EXPECT_TRUE(rig.sync.wants_snapshot()) << hold;
    EXPECT_TRUE(rig.sync.holds_snapshot()) << hold;
  }
  // Of another count of ids, or an older one that came late: it is nearer to the stream than the held one.
  ASSERT_EQ(rig.snapshot(rest(id)).result, SyncResult::SnapshotHeld);
  ++id;
  ASSERT_TRUE(diff_at(now).became_valid);
  // Once valid, the next one begins anew.
  id += 10;
  EXPECT_EQ(diff_at(now).result, SyncResult::Invalid);
  Message far = rest(ahead);
  far.ts_recv = now;
  rig.snapshot(far);
  (void)diff_at(now + 2'000'000'001);
  EXPECT_TRUE(rig.sync.wants_snapshot());
}

TEST(BookSyncSpot, AnOlderSnapshotThanTheHeldOneIsBridgedByWhatCameMeanwhile) {
  Rig rig(SyncRule::Spot);
  rig.sync.on_open();
  rig.snapshot(rest(1000));
  rig.diff(spot(11, 20, 1));
  rig.diff(spot(21, 30, 2));
  EXPECT_EQ(rig.snapshot(rest(5)).result, SyncResult::SnapshotRefused) << "behind what came";
  EXPECT_TRUE(rig.sync.holds_snapshot());
  EXPECT_TRUE(rig.snapshot(rest(15)).became_valid);
  EXPECT_EQ(rig.sync.last_id(), 30U);
}

TEST(BookSyncFutures, BridgesByIdOrByPreviousId) {
  struct Case {
    std::uint64_t id;
    bool fits;
    const char* why;
  };
  // Two events, 100 … 110 after 90, and 150 … 160 after 110.
  for (const Case& c :
       {Case{89, false, "older than the first event's predecessor"},
        Case{90, true, "the first event follows it directly"},
        Case{95, false, "between the first event and its predecessor"},
        Case{100, true, "begins the first event"},
        Case{110, true, "ends the first event, which is applied again"},
        Case{111, false, "between two events: the trap of USD-M"},
        Case{149, false, "between two events: the trap of USD-M"}, Case{150, true, "begins the second event"},
        Case{160, true, "ends the second event"}}) {
    Rig rig(SyncRule::Futures);
    rig.sync.on_open();
    rig.diff(futures(90, 100, 110, 1));
    rig.diff(futures(110, 150, 160, 2));
    const SyncStep step = rig.snapshot(rest(c.id));
    EXPECT_EQ(step.became_valid, c.fits) << c.id << ": " << c.why;
    EXPECT_EQ(rig.sync.wants_snapshot(), !c.fits) << c.id;
    EXPECT_EQ(rig.sync.state(), c.fits ? BookState::Valid : BookState::Buffering) << c.id;
    if (c.fits) {
      EXPECT_EQ(rig.sync.last_id(), 160U);
    }
  }
}

TEST(BookSyncFutures, LeavesTheTrapByAnotherSnapshot) {
  Rig rig(SyncRule::Futures);
  rig.sync.on_open();
  rig.diff(futures(90, 100, 110, 1));
  rig.diff(futures(110, 150, 160, 2));
  rig.snapshot(rest(130));
  EXPECT_EQ(rig.sync.buffered_events(), 2U);
  rig.diff(futures(160, 170, 180, 3));
  rig.snapshot(rest(165));
  EXPECT_TRUE(rig.sync.wants_snapshot());
  EXPECT_TRUE(rig.snapshot(rest(175)).became_valid);
  EXPECT_TRUE(same(rig.bids(), {{100, 3}, {99, 5}, {98, 5}}));
  EXPECT_EQ(rig.sync.counts().snapshots_refused, 2U);
}

TEST(BookSyncFutures, HoldsASnapshotNewerThanTheBuffer) {
  for (const bool by_prev : {false, true}) {
    Rig rig(SyncRule::Futures);
    rig.sync.on_open();
    rig.diff(futures(90, 100, 110, 1));
    EXPECT_EQ(rig.snapshot(rest(120)).result, SyncResult::SnapshotHeld);
    const SyncStep step = rig.diff(by_prev ? futures(120, 130, 140, 2) : futures(110, 115, 140, 2));
    EXPECT_TRUE(step.became_valid && !step.event_applied);
  }
  Rig rig(SyncRule::Futures);
  rig.sync.on_open();
  rig.snapshot(rest(120));
  EXPECT_EQ(rig.diff(futures(110, 130, 140, 2)).result, SyncResult::Buffered)
      << "the trap, met while waiting";
  EXPECT_TRUE(rig.sync.wants_snapshot());
}

TEST(BookSync, KeepsTheNewerOfTwoHeldSnapshots) {
  Rig rig(SyncRule::Spot);
  rig.sync.on_open();
  rig.snapshot(rest(25));
  EXPECT_EQ(rig.snapshot(rest(20)).result, SyncResult::Ignored);
  Message newer = rest(35);
  newer.bids = {{90, 1}};
  EXPECT_EQ(rig.snapshot(newer).result, SyncResult::SnapshotHeld);
  EXPECT_EQ(rig.diff(spot(26, 30, 1)).result, SyncResult::Buffered);
  EXPECT_TRUE(rig.diff(spot(31, 40, 2)).became_valid);
  EXPECT_TRUE(same(rig.bids(), {{100, 2}, {90, 1}}));
}

TEST(BookSync, NeedsNoLineThatSaysAConnectionWasOpened) {
  Rig rig(SyncRule::Spot);
  rig.diff(spot(1, 10, 1));
  EXPECT_EQ(rig.sync.state(), BookState::Buffering);
  EXPECT_TRUE(rig.snapshot(rest(5)).became_valid);
}

// ---------------------------------------------------------------------------------------------------
// Once valid

struct ValidRig : Rig {
  explicit ValidRig(SyncRule rule) : Rig(rule) {
    sync.on_open();
    diff(rule == SyncRule::Spot ? spot(1, 10, 1) : futures(0, 1, 10, 1));
    EXPECT_TRUE(snapshot(rest(5)).became_valid);
  }
};

TEST(BookSyncSpot, IgnoresWhatItHasSeen) {
  ValidRig rig(SyncRule::Spot);
  EXPECT_TRUE(rig.diff(spot(11, 12, 7)).event_applied);
  EXPECT_EQ(rig.diff(spot(11, 12, 7)).result, SyncResult::Ignored);
  EXPECT_EQ(rig.diff(spot(1, 10, 1)).result, SyncResult::Ignored);
  EXPECT_EQ(rig.sync.counts().ignored, 2U);
  EXPECT_EQ(rig.sync.state(), BookState::Valid);
  EXPECT_TRUE(same(rig.bids(), {{100, 7}, {99, 5}, {98, 5}}));
}

TEST(BookSyncSpot, LeavesValidOnAGapAndBeginsTheBufferWithIt) {
  ValidRig rig(SyncRule::Spot);
  const SyncStep step = rig.diff(spot(12, 20, 2));
  EXPECT_EQ(step.result, SyncResult::Invalid);
  EXPECT_TRUE(step.left_valid);
  EXPECT_FALSE(step.event_applied);
  EXPECT_EQ(step.reason, InvalidReason::Gap);
  EXPECT_EQ(rig.sync.state(), BookState::Suspect);
  EXPECT_TRUE(rig.sync.wants_snapshot());
  rig.diff(spot(21, 30, 3));
  EXPECT_EQ(rig.sync.state(), BookState::Suspect) << "until the recovery is complete";
  EXPECT_TRUE(rig.snapshot(rest(15)).became_valid);
  EXPECT_EQ(rig.sync.epoch(), 2U);
  EXPECT_EQ(rig.sync.counts().gaps, 1U);
  EXPECT_TRUE(same(rig.bids(), {{100, 3}, {99, 5}, {98, 5}}));
}

TEST(BookSyncFutures, FollowsThePreviousIdAlone) {
  ValidRig rig(SyncRule::Futures);
  EXPECT_TRUE(rig.diff(futures(10, 50, 60, 2)).event_applied) << "ids have holes";
  EXPECT_EQ(rig.diff(futures(10, 50, 60, 2)).result, SyncResult::Ignored) << "a duplicate";
  const SyncStep step = rig.diff(futures(61, 62, 70, 3));
  EXPECT_TRUE(step.left_valid);
  EXPECT_EQ(step.reason, InvalidReason::Gap);
}

// ---------------------------------------------------------------------------------------------------
// Ids that were passed

/// Event n of a count of ids whose first is `from`, one id an event.
Message nth(SyncRule rule, std::uint64_t from, std::uint64_t n, TsNs ts_event = kNoTime) {
  const std::uint64_t id = from + n;
  Message message = rule == SyncRule::Spot ? spot(id, id, static_cast<std::int64_t>(n))
                                           : futures(id - 1, id, id, static_cast<std::int64_t>(n));
  message.ts_event = ts_event;
  return message;
}

struct CountedRig : Rig {
  explicit CountedRig(SyncRule rule_) : Rig(rule_), rule(rule_) {
    sync.on_open();
    for (std::uint64_t n = 1; n <= 5; ++n) diff(nth(rule, 1000, n));
    EXPECT_TRUE(snapshot(rest(1002)).became_valid);
  }
  SyncRule rule;
};

TEST(BookSync, IsInDoubtByOneOldIdAndNoMoreByTheNextEvent) {
  for (const SyncRule rule : {SyncRule::Spot, SyncRule::Futures}) {
    CountedRig rig(rule);
    // Whatever its time says.
    for (const TsNs ts_event : {kNoTime, TsNs{1}, TsNs{4'102'444'800'000'000'000}}) {
      const std::uint32_t epoch = rig.sync.epoch();
      const std::uint64_t next = rig.sync.last_id() + 1 - 1000;
      const SyncStep step = rig.diff(nth(rule, 500, next, ts_event));
      EXPECT_TRUE(step.left_valid);
      EXPECT_EQ(step.reason, InvalidReason::Gap);
      EXPECT_EQ(rig.sync.state(), BookState::Suspect);
      EXPECT_TRUE(rig.sync.wants_snapshot());
      const SyncStep again = rig.diff(nth(rule, 1000, next));
      EXPECT_TRUE(again.became_valid);
      EXPECT_FALSE(again.event_applied) << "what an epoch begins with";
      EXPECT_EQ(rig.sync.epoch(), epoch + 1);
      EXPECT_TRUE(rig.diff(nth(rule, 1000, next + 1)).event_applied);
      EXPECT_EQ(rig.bids()[0].qty, static_cast<std::int64_t>(next + 1)) << "the old one is not in the book";
    }
    EXPECT_EQ(rig.sync.counts().doubted, 3U);
  }
}

TEST(BookSync, ThreeOldIdsThatFollowEachOtherAreAnotherCount) {
  for (const SyncRule rule : {SyncRule::Spot, SyncRule::Futures}) {
    CountedRig rig(rule);
    rig.diff(nth(rule, 1, 1));
    rig.diff(nth(rule, 1, 2));
    EXPECT_EQ(rig.snapshot(rest(7)).result, SyncResult::Ignored) << "nobody knows yet of which count it is";
    EXPECT_EQ(rig.diff(nth(rule, 1, 3)).result, SyncResult::Invalid);
    EXPECT_NE(rig.sync.state(), BookState::Valid);
    rig.diff(nth(rule, 1, 4));
    EXPECT_TRUE(rig.sync.wants_snapshot());
    EXPECT_EQ(rig.snapshot(rest(6)).result, SyncResult::SnapshotHeld);
    EXPECT_TRUE(rig.diff(nth(rule, 1, 6)).became_valid);
    EXPECT_EQ(rig.bids()[0].qty, 6);
  }
}

TEST(BookSync, ASnapshotOfTheOtherCountDecidesToo) {
  for (const SyncRule rule : {SyncRule::Spot, SyncRule::Futures}) {
    CountedRig rig(rule);
    rig.diff(nth(rule, 1, 1));
    rig.diff(nth(rule, 1, 2));
    EXPECT_TRUE(rig.snapshot(rest(2)).became_valid);
    EXPECT_EQ(rig.sync.last_id(), 3U);
    EXPECT_TRUE(rig.diff(nth(rule, 1, 3)).event_applied);
  }
}

TEST(BookSync, IdsThatWentBackALittleAreNotTakenForTheOldCount) {
  // The new count comes to where the old one stopped: what continues both decides nothing.
  for (std::uint64_t back = 1; back <= 3; ++back) {
    CountedRig rig(SyncRule::Spot);
    ASSERT_EQ(rig.sync.last_id(), 1005U);
    for (std::uint64_t n = 1; n <= 6; ++n) {
      Message message = spot(1005 - back + 2 * n - 1, 1005 - back + 2 * n, 70);
      message.ts_event = 1;
      EXPECT_FALSE(rig.diff(message).event_applied) << back << " " << n;
      EXPECT_NE(rig.sync.state(), BookState::Valid) << back << " " << n;
    }
  }
}

TEST(BookSync, WhatHasIdsAndStampOfARecentMessageRepeatsItOnlyWhereItSaysTheSame) {
  // A venue that counts anew may have set its clock back with its ids.
  const Levels bids{{100, 2}, {99, 3}, {98, 4}};
  const Levels asks{{101, 2}, {102, 3}};
  const auto told = [](std::uint64_t id, const Levels& b, const Levels& a) {
    return Message{id, id, id - 1, b, a, 5};
  };
  const std::vector<std::pair<Levels, Levels>> others = {
      {{{100, 3}, {99, 3}, {98, 4}}, asks},
      {{{97, 2}, {99, 3}, {98, 4}}, asks},
      {{{100, 2}, {99, 3}, {98, 5}}, asks},
      {{{100, 2}, {99, 3}, {96, 4}}, asks},
      {bids, {{101, 2}, {102, 0}}},
      {bids, {{101, 2}}},
      {{{100, 2}, {98, 4}}, asks},
      {{}, asks},
      {bids, {}},
      {asks, bids},
      {{}, {}},
  };
  for (const SyncRule rule : {SyncRule::Spot, SyncRule::Futures}) {
    for (const auto& [other_bids, other_asks] : others) {
      CountedRig rig(rule);
      const std::uint64_t first = rig.sync.last_id() + 1;
      for (std::uint64_t id = first; id < first + 3; ++id)
        ASSERT_TRUE(rig.diff(told(id, bids, asks)).event_applied);
      EXPECT_EQ(rig.diff(told(first, bids, asks)).result, SyncResult::Ignored);
      EXPECT_EQ(rig.sync.state(), BookState::Valid);
      EXPECT_TRUE(rig.diff(told(first, other_bids, other_asks)).left_valid);
      EXPECT_NE(rig.sync.state(), BookState::Valid);
    }
  }
}

TEST(BookSync, BeginsTheBufferAnewWithIdsThatWentBack) {
  for (const SyncRule rule : {SyncRule::Spot, SyncRule::Futures}) {
    Rig rig(rule);
    rig.sync.on_open();
    rig.diff(nth(rule, 1000, 1));
    ASSERT_EQ(rig.snapshot(rest(2000)).result, SyncResult::SnapshotHeld);
    rig.diff(nth(rule, 1000, 2));
    EXPECT_EQ(rig.diff(nth(rule, 1, 1)).result, SyncResult::Ignored) << "it may have been late";
    EXPECT_EQ(rig.diff(nth(rule, 1000, 3)).result, SyncResult::Buffered);
    EXPECT_EQ(rig.sync.buffered_events(), 3U);
    for (std::uint64_t n = 2; n <= 5; ++n) rig.diff(nth(rule, 1, n));
    EXPECT_EQ(rig.sync.buffered_events(), 2U) << "three old ids in a row, for the first was late";
    EXPECT_TRUE(rig.snapshot(rest(5)).became_valid) << "older than the held one, and yet of now";
    EXPECT_EQ(rig.sync.last_id(), 6U);
  }
}

TEST(BookSync, PutsASnapshotBeforeWhatWaitsOnceItIsKnownToBeOfOneCount) {
  for (const SyncRule rule : {SyncRule::Spot, SyncRule::Futures}) {
    SCOPED_TRACE(rule == SyncRule::Spot ? "spot" : "futures");
    for (const bool late : {true, false}) {
      Rig rig(rule);
      rig.sync.on_open();
      for (std::uint64_t n = 5; n <= 9; ++n) rig.diff(nth(rule, 0, n));
      ASSERT_EQ(rig.diff(nth(rule, 0, 6, 7)).result, SyncResult::Ignored) << "late, or of a new count";
      EXPECT_EQ(rig.snapshot(rest(7)).result, SyncResult::SnapshotHeld);
      const SyncStep step = rig.diff(late ? nth(rule, 0, 10) : nth(rule, 0, 7, 8));
      EXPECT_EQ(step.became_valid, late);
      EXPECT_FALSE(step.event_applied) << "it is part of what the epoch begins with";
      EXPECT_EQ(rig.sync.counts().snapshots_expired, late ? 0U : 1U);
      if (late) {
        EXPECT_EQ(rig.sync.last_id(), 10U);
        EXPECT_EQ(rig.bids(), (Levels{{100, 10}, {99, 5}, {98, 5}}));
      }
    }
  }
}

TEST(BookSync, ForgetsAHeldSnapshotOfTheCountThatEnded) {
  for (const SyncRule rule : {SyncRule::Spot, SyncRule::Futures}) {
    SCOPED_TRACE(rule == SyncRule::Spot ? "spot" : "futures");
    for (const std::uint64_t strays : {1U, 2U, 3U, 5U}) {
      Rig rig(rule);
      rig.sync.on_open();
      for (std::uint64_t n = 5; n <= 9; ++n) rig.diff(nth(rule, 0, n));
      ASSERT_EQ(rig.snapshot(rest(12)).result, SyncResult::SnapshotHeld);
      // The new count passes where the old one was.
      for (std::uint64_t n = 10 - strays; n <= 14; ++n)
        EXPECT_FALSE(rig.diff(nth(rule, 0, n, 7)).became_valid) << strays << " strays, event " << n;
      EXPECT_EQ(rig.sync.counts().snapshots_expired, 1U) << strays << " strays";
    }
  }
}

// ---------------------------------------------------------------------------------------------------
// Snapshots that are none

TEST(BookSync, RefusesWhatCannotBeABook) {
  struct Case {
    Message snapshot;
    SnapshotFault fault;
  };
  const Levels bids{{99, 5}, {98, 5}};
  const Levels asks{{101, 5}, {102, 5}};
  for (const Case& c :
       {Case{{5, 5, 0, {}, {}}, SnapshotFault::Empty}, Case{{5, 5, 0, bids, {}}, SnapshotFault::OneSided},
        Case{{5, 5, 0, {}, asks}, SnapshotFault::OneSided},
        Case{{5, 5, 0, {{101, 5}, {98, 5}}, asks}, SnapshotFault::Crossed},
        Case{{5, 5, 0, {{98, 5}, {99, 5}}, asks}, SnapshotFault::Unsorted},
        Case{{5, 5, 0, bids, {{102, 5}, {101, 5}}}, SnapshotFault::Unsorted},
        Case{{5, 5, 0, {{99, 5}, {99, 4}}, asks}, SnapshotFault::Duplicate},
        Case{{5, 5, 0, bids, {{101, 5}, {101, 5}}}, SnapshotFault::Duplicate},
        Case{{5, 5, 0, {{99, 5}, {98, 5}, {97, 5}, {96, 5}}, asks}, SnapshotFault::TooLong}}) {
    Rig rig(SyncRule::Spot);
    rig.sync.on_open();
    rig.diff(spot(1, 10, 1));
    md::Event event = c.snapshot.event(md::EventKind::BookSnapshot);
    event.limit = 3;
    const SyncStep step = rig.sync.on_snapshot(event);
    EXPECT_EQ(step.result, SyncResult::SnapshotRefused) << name_of(c.fault);
    EXPECT_EQ(step.fault, c.fault) << name_of(step.fault);
    EXPECT_TRUE(rig.sync.wants_snapshot());
    // One empty side is believed when it is said twice in a row; the others never.
    const bool believed = c.fault == SnapshotFault::OneSided;
    EXPECT_EQ(rig.sync.on_snapshot(event).became_valid, believed) << name_of(c.fault);
    EXPECT_EQ(rig.sync.counts().snapshots_refused, believed ? 1U : 2U);
    if (!believed) {
      EXPECT_TRUE(rig.snapshot(rest(5)).became_valid);
    }
  }
}

TEST(BookSync, OneEmptySideIsBelievedOnlyWhenTheNextSnapshotSaysTheSame) {
  Rig rig(SyncRule::Spot);
  rig.sync.on_open();
  rig.diff({1, 10, 0, {}, {}});
  const Message no_asks{5, 5, 0, {{99, 5}}, {}};
  const Message no_bids{5, 5, 0, {}, {{101, 5}}};
  EXPECT_EQ(rig.snapshot(no_asks).fault, SnapshotFault::OneSided);
  EXPECT_EQ(rig.snapshot(no_bids).fault, SnapshotFault::OneSided);
  EXPECT_EQ(rig.snapshot(no_asks).fault, SnapshotFault::OneSided);
  EXPECT_EQ(rig.snapshot({5, 5, 0, {}, {}}).fault, SnapshotFault::Empty);
  EXPECT_EQ(rig.snapshot(no_asks).fault, SnapshotFault::OneSided);
  EXPECT_TRUE(rig.snapshot(no_asks).became_valid);
}

TEST(BookSync, IgnoresASnapshotWhileValid) {
  for (const SyncRule rule : {SyncRule::Spot, SyncRule::Futures}) {
    ValidRig rig(rule);
    const Levels before = rig.bids();
    for (const std::uint64_t id : {1U, 10U, 500U}) {
      const SyncStep step = rig.snapshot({id, id, 0, {{1, 1}}, {}});
      EXPECT_EQ(step.result, SyncResult::Ignored);
      EXPECT_EQ(rig.sync.state(), BookState::Valid);
      EXPECT_TRUE(same(rig.bids(), before));
    }
    EXPECT_EQ(rig.sync.counts().snapshots_ignored, 3U);
    EXPECT_EQ(rig.sync.last_id(), 10U);
  }
}

TEST(BookSync, LeavesValidWhenCrossed) {
  ValidRig rig(SyncRule::Spot);
  const SyncStep step = rig.diff({11, 12, 0, {{101, 1}}, {}});
  EXPECT_TRUE(step.left_valid);
  EXPECT_FALSE(step.event_applied);
  EXPECT_EQ(step.reason, InvalidReason::Crossed);
  EXPECT_EQ(rig.sync.state(), BookState::Suspect);
  EXPECT_TRUE(rig.sync.wants_snapshot());
  EXPECT_EQ(rig.sync.counts().crossed, 1U);
  EXPECT_TRUE(rig.snapshot({12, 12, 0, {{101, 1}}, {{102, 1}}}).result == SyncResult::SnapshotHeld);
  EXPECT_TRUE(rig.diff({13, 14, 0, {{100, 1}}, {}}).became_valid);
}

TEST(BookSync, NeverBecomesValidCrossed) {
  Rig rig(SyncRule::Spot);
  rig.sync.on_open();
  // By itself.
  EXPECT_EQ(rig.snapshot({5, 5, 0, {{100, 1}}, {{100, 1}}}).result, SyncResult::SnapshotRefused);
  EXPECT_EQ(rig.sync.state(), BookState::Buffering);
  // With what was buffered.
  rig.diff({6, 7, 0, {{101, 1}}, {}});
  const SyncStep step = rig.snapshot({5, 5, 0, {{99, 1}}, {{100, 1}}});
  EXPECT_EQ(step.result, SyncResult::SnapshotRefused);
  EXPECT_EQ(step.reason, InvalidReason::Crossed);
  EXPECT_FALSE(step.became_valid || step.left_valid);
  EXPECT_TRUE(rig.sync.wants_snapshot());
  // With the event that bridges.
  EXPECT_EQ(rig.snapshot({8, 8, 0, {{99, 1}}, {{100, 1}}}).result, SyncResult::SnapshotHeld);
  const SyncStep bridged = rig.diff({9, 9, 0, {{105, 1}}, {}});
  EXPECT_FALSE(bridged.became_valid || bridged.left_valid || bridged.event_applied);
  EXPECT_EQ(bridged.reason, InvalidReason::Crossed);
  EXPECT_NE(rig.sync.state(), BookState::Valid);
  EXPECT_EQ(rig.sync.epoch(), 0U);
}

TEST(BookSync, LeavesValidWhenAMessageIsLost) {
  ValidRig rig(SyncRule::Spot);
  const SyncStep step = rig.sync.on_damaged(InvalidReason::BadNumber);
  EXPECT_TRUE(step.left_valid);
  EXPECT_EQ(step.reason, InvalidReason::BadNumber);
  EXPECT_EQ(rig.sync.state(), BookState::Suspect);
  EXPECT_FALSE(rig.sync.wants_snapshot()) << "only once there is an event that it could be older than";
  EXPECT_FALSE(rig.sync.on_damaged(InvalidReason::Malformed).left_valid) << "said once";
  rig.diff(spot(21, 30, 1));
  EXPECT_TRUE(rig.sync.wants_snapshot());
  EXPECT_TRUE(rig.snapshot(rest(25)).became_valid);
}

TEST(BookSync, IsEmptyWithoutAConnection) {
  ValidRig rig(SyncRule::Futures);
  const SyncStep step = rig.sync.on_close();
  EXPECT_TRUE(step.left_valid);
  EXPECT_EQ(step.reason, InvalidReason::Disconnected);
  EXPECT_EQ(rig.sync.state(), BookState::Empty);
  EXPECT_FALSE(rig.sync.wants_snapshot());
  EXPECT_FALSE(rig.sync.on_close().left_valid);
  EXPECT_FALSE(rig.sync.on_open().left_valid);
  rig.diff(futures(0, 1, 10, 4));
  EXPECT_TRUE(rig.snapshot(rest(5)).became_valid) << "ids may begin anew";
  EXPECT_EQ(rig.sync.epoch(), 2U);

  EXPECT_TRUE(rig.sync.on_open().left_valid) << "a capture can lack the close";
}

// ---------------------------------------------------------------------------------------------------
// The buffer

TEST(BookSyncBuffer, IsOneUnbrokenChain) {
  Rig rig(SyncRule::Spot);
  rig.sync.on_open();
  rig.diff(spot(1, 10, 1));
  rig.diff(spot(11, 20, 2));
  EXPECT_EQ(rig.diff(spot(11, 20, 9)).result, SyncResult::Ignored);
  rig.diff(spot(31, 40, 4));
  EXPECT_EQ(rig.sync.buffered_events(), 1U) << "21 to 30 are missing";
  EXPECT_EQ(rig.sync.counts().buffer_restarts, 1U);
  EXPECT_EQ(rig.snapshot(rest(15)).result, SyncResult::SnapshotRefused);
  EXPECT_TRUE(rig.snapshot(rest(30)).became_valid);
}

TEST(BookSyncBuffer, DropsTheOldestWhenFull) {
  Rig rig(SyncRule::Spot);
  rig.sync.on_open();
  for (std::uint64_t i = 0; i < 100; ++i)
    rig.diff(spot(10 * i + 1, 10 * i + 10, static_cast<std::int64_t>(i + 1)));
  EXPECT_EQ(rig.sync.buffered_events(), kBufferEvents);
  EXPECT_EQ(rig.sync.counts().buffer_dropped, 100 - kBufferEvents);
  EXPECT_EQ(rig.snapshot(rest(919)).result, SyncResult::SnapshotRefused);
  EXPECT_TRUE(rig.snapshot(rest(920)).became_valid);
  EXPECT_TRUE(same(rig.bids(), {{100, 100}, {99, 5}, {98, 5}}));
}

TEST(BookSyncBuffer, KeepsLevelsWhereverTheRingWraps) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 150; ++round) {
    Rig rig(SyncRule::Spot, 1 + random() % 12, kEventLevels);
    rig.sync.on_open();
    std::deque<Message> messages;
    std::uint64_t id = 0;
    const std::size_t count = 1 + random() % 60;
    for (std::size_t i = 0; i < count; ++i) {
      Message message{id + 1, id + 5, 0, {}, {}};
      id += 5;
      for (auto n = random() % (kEventLevels + 1); n-- > 0;) {
        message.bids.push_back(
            {1 + static_cast<std::int64_t>(random() % 500), 1 + static_cast<std::int64_t>(random() % 9)});
      }
      for (auto n = random() % (kEventLevels + 1); n-- > 0;) {
        message.asks.push_back(
            {501 + static_cast<std::int64_t>(random() % 400), static_cast<std::int64_t>(random() % 9)});
      }
      rig.diff(message);
      messages.push_back(message);
    }
    const std::size_t kept = rig.sync.buffered_events();
    ASSERT_GE(kept, 1U);
    messages.erase(messages.begin(), messages.end() - static_cast<std::ptrdiff_t>(kept));
    const std::uint64_t front = messages.front().first;
    ASSERT_TRUE(rig.snapshot({front, front, 0, {{1, 7}}, {{10'000, 7}}}).became_valid);
    std::map<std::int64_t, std::int64_t, std::greater<>> bids{{1, 7}};
    std::map<std::int64_t, std::int64_t> asks{{10'000, 7}};
    for (const Message& message : messages) {
      for (const Level& level : message.bids) bids[level.price] = level.qty;
      for (const Level& level : message.asks) asks[level.price] = level.qty;
    }
    std::erase_if(asks, [](const auto& level) { return level.second == 0; });
    Levels expected;
    for (const auto& [price, qty] : bids) expected.push_back({price, qty});
    ASSERT_TRUE(same(rig.bids(), expected));
    expected.clear();
    for (const auto& [price, qty] : asks) expected.push_back({price, qty});
    ASSERT_TRUE(same(rig.asks(), expected));
  }
}

TEST(BookSyncBuffer, NeedsRoomForOneEvent) {
  Arena arena;
  md::PriceBook book(arena, 10);
  EXPECT_THROW(BookSync(SyncRule::Spot, book, arena, 0, 10), SetupError);
}

// ---------------------------------------------------------------------------------------------------
// A venue with a network between it and us

/// A book that changes at random and tells of it as the venue does.
class Venue {
 public:
  Venue(SyncRule rule, std::mt19937& random) : rule_(rule), random_(random) {
    for (std::int64_t i = 1; i <= 30; ++i) {
      bids_[1000 - i] = 10;
      asks_[1000 + i] = 10;
    }
  }

  Message tick() {
    now_ += 1 + random_() % 3;
    Message message{};
    message.ts_event = static_cast<TsNs>(now_);
    message.prev = id_;
    // Futures skip ids; both put several changes into one event.
    message.first = id_ + 1 + (rule_ == SyncRule::Futures ? random_() % 4 : 0);
    if (std::exchange(stamped_ahead_, false)) ++message.first;
    message.last = message.first + random_() % 6;
    id_ = message.last;
    // The centre walks inside the spread, so that truth is never crossed.
    centre_ += static_cast<std::int64_t>(random_() % 3) - 1;
    for (auto n = random_() % 6; n-- > 0;) {
      const auto away = static_cast<std::int64_t>(1 + random_() % 40);
      const auto qty = static_cast<std::int64_t>(random_() % 4);
      if (random_() % 2 == 0) {
        change(bids_, message.bids, centre_ - away, qty);
      } else {
        change(asks_, message.asks, centre_ + away, qty);
      }
    }
    while (!bids_.empty() && bids_.begin()->first >= centre_)
      change(bids_, message.bids, bids_.begin()->first, 0);
    while (!asks_.empty() && asks_.begin()->first <= centre_)
      change(asks_, message.asks, asks_.begin()->first, 0);
    history_[id_] = {list(bids_), list(asks_)};
    return message;
  }

  Message snapshot() {
    // Futures may stamp it with an id that no event has: one that a change elsewhere took.
    if (rule_ == SyncRule::Futures && random_() % 3 == 0) stamped_ahead_ = true;
    const std::uint64_t id = id_ + (stamped_ahead_ ? 1 : 0);
    return {id, id, 0, list(bids_), list(asks_)};
  }

  /// Ids that go on where the old ones stopped would tell nobody anything.
  bool can_restart() const { return id_ > 100; }
  void restart() {
    id_ = random_() % 50;
    history_.clear();
  }

  /// The truth after the event with this id.
  const std::pair<Levels, Levels>& at(std::uint64_t id) const { return history_.at(id); }
  bool knows(std::uint64_t id) const { return history_.contains(id); }
  const std::pair<Levels, Levels>& now() const { return history_.at(id_); }

 private:
  template <typename Map>
  static void change(Map& map, Levels& out, std::int64_t price, std::int64_t qty) {
    std::erase_if(out, [&](const Level& level) { return level.price == price; });
    out.push_back({price, qty});
    if (qty == 0) {
      map.erase(price);
    } else {
      map[price] = qty;
    }
  }
  template <typename Map>
  static Levels list(const Map& map) {
    Levels out;
    for (const auto& [price, qty] : map) out.push_back({price, qty});
    return out;
  }

  SyncRule rule_;
  std::mt19937& random_;
  std::uint64_t id_ = 100;
  std::uint64_t now_ = 1;
  bool stamped_ahead_ = false;
  std::int64_t centre_ = 1000;
  std::map<std::int64_t, std::int64_t, std::greater<>> bids_;
  std::map<std::int64_t, std::int64_t> asks_;
  std::map<std::uint64_t, std::pair<Levels, Levels>> history_;
};

class BookSyncWeather : public testing::TestWithParam<SyncRule> {};

TEST_P(BookSyncWeather, IsNeverValidWhileItDiffersFromTruth) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::uint64_t valid_events = 0;
  std::uint64_t epochs = 0;
  SyncCounts total;
  for (int round = 0; round < 60; ++round) {
    Venue venue(GetParam(), random);
    Rig rig(GetParam(), 32, 1000);
    const unsigned trouble = random() % 4;  // Some rounds are calm.
    std::deque<Message> line;               // On their way to us.
    std::deque<std::pair<int, Message>> replies;
    rig.sync.on_open();
    TsNs now = 0;
    for (int i = 0; i < 600; ++i) {
      now += 1'000'000;
      line.push_back(venue.tick());
      if (trouble != 0) {
        const auto dice = random() % (600 / trouble);
        if (dice < 3) line.pop_back();  // Drop.
        if (dice >= 3 && dice < 6 && !line.empty())
          line.push_back(line[random() % line.size()]);                                      // Duplicate.
        if (dice >= 6 && dice < 9 && line.size() > 1) std::swap(line.front(), line.back());  // Reorder.
        if (dice == 9) rig.sync.on_damaged(InvalidReason::Malformed);
        if (dice == 10) {
          rig.sync.on_close();
          line.clear();
          replies.clear();
          rig.sync.on_open();
        }
        if (dice == 11 && venue.can_restart()) {
          // The venue starts anew and does not say so: other ids, the same connection. What is on its
          // way comes first, as it would.
          while (!line.empty()) {
            rig.diff(line.front());
            line.pop_front();
          }
          venue.restart();
          replies.clear();
          rig.diff(venue.tick());
          ASSERT_NE(rig.sync.state(), BookState::Valid) << "the first event that tells is enough";
        }
      }
      if (rig.sync.wants_snapshot() && replies.empty()) {
        replies.emplace_back(static_cast<int>(random() % 12), venue.snapshot());
      }
      if (!replies.empty() && replies.front().first-- == 0) {
        Message reply = replies.front().second;
        replies.pop_front();
        reply.ts_recv = now;
        const SyncStep step = rig.snapshot(reply);
        ASSERT_FALSE(step.event_applied);
        epochs += step.became_valid ? 1 : 0;
      }
      for (auto n = random() % 4; n-- > 0 && !line.empty();) {
        Message message = line.front();
        line.pop_front();
        message.ts_recv = now;
        const std::uint32_t epoch = rig.sync.epoch();
        const BookState before = rig.sync.state();
        const SyncStep step = rig.diff(message);
        ASSERT_EQ(step.became_valid, rig.sync.epoch() == epoch + 1);
        ASSERT_EQ(step.left_valid, before == BookState::Valid && rig.sync.state() != BookState::Valid);
        ASSERT_TRUE(!step.event_applied || rig.sync.state() == BookState::Valid);
        epochs += step.became_valid ? 1 : 0;
        valid_events += step.event_applied ? 1 : 0;
        if (step.event_applied) {
          ASSERT_EQ(rig.sync.last_id(), message.last);
        }
      }
      if (rig.sync.state() == BookState::Valid) {
        ASSERT_TRUE(venue.knows(rig.sync.last_id()));
        const auto& [bids, asks] = venue.at(rig.sync.last_id());
        ASSERT_TRUE(same(rig.bids(), bids)) << "round " << round << " step " << i;
        ASSERT_TRUE(same(rig.asks(), asks)) << "round " << round << " step " << i;
      }
    }
    // In good weather it is valid again.
    for (int i = 0; i < 200; ++i) {
      line.push_back(venue.tick());
      while (!line.empty()) {
        line.front().ts_recv = now + 60'000'000'000;
        rig.diff(line.front());
        line.pop_front();
      }
      if (rig.sync.wants_snapshot()) rig.snapshot(venue.snapshot());
    }
    ASSERT_EQ(rig.sync.state(), BookState::Valid) << "round " << round;
    ASSERT_TRUE(same(rig.bids(), venue.now().first));
    total.gaps += rig.sync.counts().gaps;
    total.ignored += rig.sync.counts().ignored;
  }
  EXPECT_GT(valid_events, 5000U) << "weather too bad to show anything";
  EXPECT_GT(epochs, 60U);
  EXPECT_GT(total.gaps, 10U);
}

INSTANTIATE_TEST_SUITE_P(Rules, BookSyncWeather, testing::Values(SyncRule::Spot, SyncRule::Futures),
                         [](const testing::TestParamInfo<SyncRule>& rule) {
                           return rule.param == SyncRule::Spot ? "Spot" : "Futures";
                         });

// ---------------------------------------------------------------------------------------------------
// Real recordings

struct Recording {
  const char* name;
  binance::Market market;
  const char* symbol;
  int price_decimals;
  int qty_decimals;
  std::vector<std::string> files;
  std::uint64_t diffs;
  std::uint64_t trades;
  std::uint64_t quotes;
  std::uint64_t applied;  // Diffs in the book: all behind the snapshot.
  std::uint64_t differ;   // How many of them do not agree with a quote.
};

class BookSyncRecording : public testing::TestWithParam<Recording> {};

// After each diff the best levels must be those of the last best quote that is not newer. Figures
// from the notes that come with the recordings, which an independent program made.
TEST_P(BookSyncRecording, AgreesWithTheVenuesOwnBestQuotes) {
  const Recording& recording = GetParam();
  const char* const root = std::getenv("TICKWIRE_DATA");
  const std::filesystem::path folder =
      (root != nullptr ? std::filesystem::path(root)
                       : std::filesystem::path(__FILE__).parent_path() / "../../../../shared/data") /
      "binance";
  std::vector<std::string> files;
  for (const std::string& file : recording.files) {
    files.push_back((folder / file).string());
    if (!std::filesystem::exists(files.back())) GTEST_SKIP() << "no recorded data: " << files.back();
  }

  md::InstrumentTable table;
  table.add({recording.symbol, "binance", recording.price_decimals, recording.qty_decimals});
  binance::Decoder decoder(table, {recording.market, binance::TradeStream::Trade, 1U << 20U, 5000});
  Arena arena;
  md::PriceBook book(arena);
  BookSync sync(recording.market == binance::Market::Spot ? SyncRule::Spot : SyncRule::Futures, book, arena,
                1024, 5000);
  md::CaptureReader reader(files);

  struct Top {
    std::uint64_t id;
    md::Quote quote;
  };
  std::vector<Top> tops;  // After each diff in the valid book.
  std::vector<Top> quotes;
  std::uint64_t diffs = 0;
  std::uint64_t trades = 0;
  std::uint64_t snapshots = 0;
  while (const md::CaptureLine* line = reader.next()) {
    md::Event event;
    // COIN-M's own names its symbol.
    if (line->kind == md::CaptureKind::BareSnapshot || line->kind == md::CaptureKind::Snapshot) {
      ++snapshots;
      ASSERT_EQ(decoder.decode_snapshot(line->body, 0, RecvClock::Recorded, line->ts_recv, event),
                binance::Outcome::Event);
      ASSERT_EQ(event.bids.size(), 1000U);
      sync.on_snapshot(event);
      continue;
    }
    ASSERT_EQ(line->kind, md::CaptureKind::Message);
    ASSERT_EQ(decoder.decode(line->body, RecvClock::Recorded, line->ts_recv, event), binance::Outcome::Event)
        << reader.file() << ":" << reader.line_number();
    switch (event.kind) {
      case md::EventKind::BookDiff: {
        ++diffs;
        const SyncStep step = sync.on_diff(event);
        ASSERT_FALSE(step.left_valid);
        if (step.event_applied)
          tops.push_back({event.last_id, {*book.best(Side::Bid), *book.best(Side::Ask)}});
        break;
      }
      case md::EventKind::Trade: ++trades; break;
      case md::EventKind::Quote: quotes.push_back({event.last_id, event.quote}); break;
      case md::EventKind::BookSnapshot:
      case md::EventKind::PartialBook: FAIL();
    }
  }
  EXPECT_FALSE(reader.truncated());
  EXPECT_EQ(reader.skipped_lines(), 0U);
  EXPECT_EQ(snapshots, 1U);
  EXPECT_EQ(diffs, recording.diffs);
  EXPECT_EQ(trades, recording.trades);
  EXPECT_EQ(quotes.size(), recording.quotes);
  EXPECT_EQ(sync.epoch(), 1U);
  EXPECT_EQ(sync.counts().gaps, 0U);
  EXPECT_EQ(book.dropped_levels(), 0U);

  // Those out of the buffer were applied at one stroke; only the last of them can be looked at.
  const std::uint64_t behind_snapshot = sync.counts().applied - tops.size();
  EXPECT_EQ(sync.counts().applied, recording.applied);
  EXPECT_LE(behind_snapshot, 4U);
  std::uint64_t compared = 0;
  std::uint64_t equal = 0;
  std::size_t next = 0;
  for (const Top& top : tops) {
    while (next < quotes.size() && quotes[next].id <= top.id) ++next;
    if (next == 0) continue;
    const md::Quote& quote = quotes[next - 1].quote;
    ++compared;
    equal += same({quote.bid, quote.ask}, {top.quote.bid, top.quote.ask}) ? 1 : 0;
  }
  EXPECT_EQ(compared, tops.size());
  EXPECT_EQ(compared - equal, recording.differ);
}

INSTANTIATE_TEST_SUITE_P(
    Binance, BookSyncRecording,
    testing::Values(Recording{"Spot",
                              binance::Market::Spot,
                              "BTCUSDT",
                              2,
                              8,
                              {"spot_btcusdt_20240808.log.gz", "spot_btcusdt_20240809.log.gz"},
                              3451 + 3044,
                              9757 + 10147,
                              28040 + 45134,
                              6493,
                              2},
                    Recording{"UsdM",
                              binance::Market::UsdM,
                              "BTCUSDT",
                              2,
                              3,
                              {"usdm_btcusdt_20240808.log.gz"},
                              6551,
                              21313,
                              66089,
                              6547,
                              0},
                    Recording{"CoinM",
                              binance::Market::CoinM,
                              "BTCUSD_PERP",
                              1,
                              0,
                              {"coinm_btcusd_perp_20240808.log.gz", "coinm_btcusd_perp_20240809.log.gz"},
                              26847 + 17948,
                              2286 + 2949,
                              19136 + 29219,
                              44772,
                              0}),
    [](const testing::TestParamInfo<Recording>& recording) { return recording.param.name; });

}  // namespace
}  // namespace tickwire::venue

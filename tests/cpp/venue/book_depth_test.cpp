/// What a book knows of its depth: the horizon, further snapshots that join it, and partial books.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tickwire/core/arena.hpp"
#include "tickwire/venue/book_sync.hpp"

namespace tickwire::venue {
namespace {

using md::BookState;
using md::InvalidReason;
using md::Level;
using md::Side;
using Levels = std::vector<Level>;

/// A book with its venue: what the venue knows, what it told, and whether what we say of the best levels is
/// so.
class Rig {
 public:
  explicit Rig(SyncRule rule, DepthRule depth, std::size_t max_levels = 1000, std::size_t buffer_events = 64)
      : rule_(rule),
        depth_(depth),
        book(arena_, max_levels),
        sync(rule, book, arena_, buffer_events, 2000, depth) {
    sync.on_open();
  }

  /// The venue's book changes; a quantity of zero removes.
  SyncStep event(const Levels& new_bids, const Levels& new_asks, std::uint64_t ids = 1) {
    const Sent sent = say(new_bids, new_asks, ids);
    return take(sent);
  }
  struct Sent {
    std::uint64_t first, last, prev;
    Levels bids, asks;
  };
  Sent say(const Levels& new_bids, const Levels& new_asks, std::uint64_t ids = 1) {
    Sent sent{id_ + 1, id_ + ids, id_, new_bids, new_asks};
    if (rule_ == SyncRule::Futures) {
      sent.first += 2;  // Ids have holes.
      sent.last += 2;
    }
    id_ = sent.last;
    for (const Level& level : new_bids) set(bids, level);
    for (const Level& level : new_asks) set(asks, level);
    return sent;
  }
  SyncStep take(const Sent& sent) {
    md::Event event{};
    event.kind = md::EventKind::BookDiff;
    event.first_id = sent.first;
    event.last_id = sent.last;
    event.prev_id = sent.prev;
    event.ts_event = kNoTime;
    event.ts_recv = ++now_;
    event.bids = sent.bids;
    event.asks = sent.asks;
    return sync.on_diff(event);
  }

  struct Shot {
    std::uint64_t id;
    Levels bids, asks;
    std::uint32_t limit;
  };
  Shot shot(std::uint32_t limit) const { return {id_, best(bids, limit), best(asks, limit), limit}; }
  SyncStep snapshot(const Shot& shot) {
    md::Event event{};
    event.kind = md::EventKind::BookSnapshot;
    event.first_id = event.last_id = shot.id;
    event.ts_event = kNoTime;
    event.ts_recv = ++now_;
    event.bids = shot.bids;
    event.asks = shot.asks;
    event.limit = shot.limit;
    return sync.on_snapshot(event);
  }
  /// A first snapshot, and the event that bridges it, where one is needed. Is the book valid?
  bool join(const Shot& shot) {
    (void)snapshot(shot);
    if (sync.holds_snapshot()) (void)event({}, {});
    return sync.state() == BookState::Valid;
  }
  SyncStep merge() { return sync.merge(now_); }
  void pass(TsNs ns) { now_ += ns; }

  /// The first so many levels of what we hold are those of the venue.
  void expect_right(std::size_t levels) const {
    for (const Side side : {Side::Bid, Side::Ask}) {
      Levels ours(std::min(levels, book.depth(side)));
      ours.resize(book.top(side, ours));
      ASSERT_EQ(ours, side == Side::Bid ? best(bids, levels) : best(asks, levels));
    }
  }

  template <typename Map>
  static Levels best(const Map& map, std::size_t count) {
    Levels out;
    for (auto at = map.begin(); at != map.end() && out.size() < count; ++at)
      out.push_back({at->first, at->second});
    return out;
  }
  template <typename Map>
  static void set(Map& map, const Level& level) {
    if (level.qty == 0) {
      map.erase(level.price);
    } else {
      map[level.price] = level.qty;
    }
  }

  std::map<std::int64_t, std::int64_t, std::greater<>> bids;
  std::map<std::int64_t, std::int64_t> asks;

 private:
  const SyncRule rule_;
  const DepthRule depth_;
  Arena arena_{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  std::uint64_t id_ = 100;
  TsNs now_ = 1'000'000'000'000;

 public:
  md::PriceBook book;
  BookSync sync;
};

/// A side of 100 levels, ten units apart; a snapshot of `limit` of them; a book that needs two.
struct ShallowRig : Rig {
  explicit ShallowRig(SyncRule rule, std::uint32_t limit = 10, std::size_t snapshot_levels = 0,
                      bool accept = false)
      : Rig(rule, {.reach = 2, .accept = accept, .snapshot_levels = snapshot_levels}) {
    for (std::int64_t i = 0; i < 100; ++i) {
      bids[10'000 - 10 * i] = 5;
      asks[10'010 + 10 * i] = 5;
    }
    event({{10'000, 6}}, {});
    EXPECT_TRUE(join(shot(limit)));
  }
  SyncStep drop_best_bid() { return event({{bids.begin()->first, 0}}, {}); }
};

class BookDepth : public testing::TestWithParam<SyncRule> {};

TEST_P(BookDepth, IsSuspectWhileARowWouldLookBehindTheHorizon) {
  ShallowRig rig(GetParam());
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(rig.drop_best_bid().event_applied) << i;
    rig.expect_right(2);
  }
  SyncStep step = rig.drop_best_bid();  // One is left.
  EXPECT_FALSE(step.event_applied);
  EXPECT_TRUE(step.left_valid);
  EXPECT_EQ(step.reason, InvalidReason::Depth);
  EXPECT_EQ(rig.sync.state(), BookState::Suspect);
  EXPECT_TRUE(rig.sync.shallow());
  EXPECT_FALSE(rig.sync.wants_snapshot()) << "the book is followed";
  // A level behind the horizon that has changed is known, and yet not all before it are.
  step = rig.event({{rig.bids.rbegin()->first, 9}}, {});
  EXPECT_EQ(step.result, SyncResult::Shallow);
  EXPECT_FALSE(step.became_valid || step.left_valid);
  // Back within.
  step = rig.event({{10'000, 3}}, {});
  EXPECT_TRUE(step.became_valid);
  EXPECT_FALSE(step.event_applied) << "what was before it is not known: an epoch begins with it";
  EXPECT_EQ(rig.sync.epoch(), 2U);
  EXPECT_TRUE(rig.event({{10'000, 4}}, {}).event_applied);
  rig.expect_right(2);
  EXPECT_EQ(rig.sync.counts().shallow, 1U);
}

TEST_P(BookDepth, ASideThatWasShownWholeHasNoHorizon) {
  for (const std::uint32_t limit : {0U, 20U, 12U}) {
    Rig rig(GetParam(), {.reach = 3});
    for (std::int64_t i = 0; i < 12; ++i) rig.bids[1000 - i] = 1;
    for (std::int64_t i = 0; i < 4; ++i) rig.asks[1001 + i] = 1;
    rig.event({}, {});
    Rig::Shot shot = rig.shot(limit == 0 ? 100 : limit);
    shot.limit = limit;
    ASSERT_TRUE(rig.join(shot));
    EXPECT_TRUE(rig.book.whole(Side::Ask)) << "shorter than the other side, or than what was asked for";
    EXPECT_EQ(rig.book.whole(Side::Bid), limit == 20) << limit;
    EXPECT_TRUE(rig.event({}, {{1001, 0}, {1002, 0}, {1003, 0}}).event_applied)
        << "there is one, and that is all";
    rig.expect_right(3);
  }
}

TEST_P(BookDepth, DoesNotBecomeValidWhereTheSnapshotShowsTooLittle) {
  Rig rig(GetParam(), {.reach = 5});
  for (std::int64_t i = 0; i < 12; ++i) {
    rig.bids[1000 - i] = 1;
    rig.asks[1001 + i] = 1;
  }
  rig.event({}, {});
  EXPECT_FALSE(rig.join(rig.shot(4)));
  EXPECT_EQ(rig.sync.state(), BookState::Suspect);
  EXPECT_EQ(rig.sync.epoch(), 0U);
  EXPECT_TRUE(rig.event({}, {{1000 + 20, 1}}).result == SyncResult::Shallow);
}

TEST_P(BookDepth, AcceptsWhatIsBehindTheHorizonWhereItIsToldTo) {
  ShallowRig rig(GetParam(), 10, 0, true);
  for (int i = 0; i < 9; ++i) {
    EXPECT_TRUE(rig.drop_best_bid().event_applied);
    EXPECT_EQ(rig.sync.beyond_depth(), i == 8);
  }
}

// ---------------------------------------------------------------------------------------------------
// Further snapshots

TEST_P(BookDepth, AsksForMoreInTimeAndMergesItWithoutANewEpoch) {
  ShallowRig rig(GetParam(), 10, 50);
  int left = 10;
  for (; !rig.sync.wants_depth(); --left) ASSERT_TRUE(rig.drop_best_bid().event_applied);
  EXPECT_EQ(left, 3) << "twice what a row needs are too few";
  const Rig::Shot shot = rig.shot(20);
  ASSERT_TRUE(rig.event({{rig.bids.begin()->first, 44}}, {}).event_applied);
  EXPECT_EQ(rig.snapshot(shot).result, SyncResult::SnapshotMerging);
  const std::uint64_t changes = rig.book.changes();
  const SyncStep step = rig.merge();
  EXPECT_EQ(step.result, SyncResult::SnapshotApplied);
  EXPECT_FALSE(step.became_valid || step.event_applied || step.left_valid);
  EXPECT_FALSE(rig.sync.wants_depth());
  EXPECT_FALSE(rig.sync.merging());
  EXPECT_EQ(rig.sync.epoch(), 1U);
  EXPECT_EQ(rig.book.known(Side::Bid), 20U);
  EXPECT_EQ(rig.book.changes(), changes + 27) << "17 bids and 10 asks were behind the horizon";
  rig.expect_right(20);
}

TEST_P(BookDepth, AMergeMakesAShallowBookValid) {
  ShallowRig rig(GetParam(), 10, 50);
  for (int i = 0; i < 9; ++i) rig.drop_best_bid();
  ASSERT_TRUE(rig.sync.shallow());
  rig.snapshot(rig.shot(10));
  const SyncStep step = rig.merge();
  EXPECT_TRUE(step.became_valid);
  EXPECT_FALSE(step.event_applied);
  EXPECT_EQ(rig.sync.epoch(), 2U);
  EXPECT_TRUE(rig.drop_best_bid().event_applied);
  rig.expect_right(2);
}

TEST_P(BookDepth, ASnapshotAheadOfTheStreamWaitsForIt) {
  ShallowRig rig(GetParam(), 10, 50);
  for (int i = 0; i < 9; ++i) rig.drop_best_bid();
  const Rig::Sent late = rig.say({{rig.bids.begin()->first, 0}}, {{10'010, 3}});
  EXPECT_EQ(rig.snapshot(rig.shot(10)).result, SyncResult::SnapshotMerging);
  EXPECT_EQ(rig.merge().result, SyncResult::SnapshotMerging);
  rig.take(late);
  EXPECT_TRUE(rig.merge().became_valid);
  rig.expect_right(2);
}

TEST(BookDepthFutures, ASnapshotBetweenTwoEventsIsTheStateBehindTheFirst) {
  ShallowRig rig(SyncRule::Futures, 10, 50);
  for (int i = 0; i < 9; ++i) rig.drop_best_bid();
  Rig::Shot shot = rig.shot(10);
  ++shot.id;  // One that no event has; the next one begins two behind it.
  rig.event({{rig.bids.begin()->first, 7}}, {});
  EXPECT_EQ(rig.snapshot(shot).result, SyncResult::SnapshotMerging);
  EXPECT_TRUE(rig.merge().became_valid);
  rig.expect_right(10);
}

TEST_P(BookDepth, IgnoresASnapshotFromBeforeTheRecentEvents) {
  ShallowRig rig(GetParam(), 10, 50);
  const Rig::Shot old = rig.shot(30);
  rig.event({{10'000, 8}}, {});
  for (int i = 0; i < 9; ++i) rig.drop_best_bid();
  EXPECT_EQ(rig.snapshot(old).result, SyncResult::Ignored) << "never a gap";
  EXPECT_TRUE(rig.sync.shallow());
}

TEST_P(BookDepth, WhereTheTwoContradictTheBookIsLost) {
  enum { OtherQty, OursMissing, TheirsMissing, OtherQtyBehind, MissingBehind };
  for (const int what : {OtherQty, OursMissing, TheirsMissing, OtherQtyBehind, MissingBehind}) {
    ShallowRig rig(GetParam(), 10, 50);
    rig.event({{9'800, 77}}, {});  // Behind the horizon of 9'910, and yet known.
    for (int i = 0; i < 7; ++i) rig.drop_best_bid();
    ASSERT_TRUE(rig.sync.wants_depth());
    Rig::Shot shot = rig.shot(40);
    const auto at = [&](std::int64_t price) {
      return std::find_if(shot.bids.begin(), shot.bids.end(),
                          [&](const Level& l) { return l.price == price; });
    };
    switch (what) {
      case OtherQty: at(9'920)->qty = 6; break;
      case OursMissing: shot.bids.insert(at(9'920), {9'925, 1}); break;
      case TheirsMissing: shot.bids.erase(at(9'920)); break;
      case OtherQtyBehind: at(9'800)->qty = 78; break;
      case MissingBehind: shot.bids.erase(at(9'800)); break;
      default: break;
    }
    if (shot.bids.size() > 40) shot.bids.pop_back();
    rig.snapshot(shot);
    const SyncStep step = rig.merge();
    EXPECT_TRUE(step.left_valid) << what;
    EXPECT_EQ(step.reason, InvalidReason::Gap) << what;
    EXPECT_EQ(rig.sync.state(), BookState::Suspect) << what;
    EXPECT_EQ(rig.sync.counts().snapshots_contradicted, 1U) << what;
  }
}

TEST_P(BookDepth, WhatAnEventSaidSinceTheSnapshotContradictsNothing) {
  ShallowRig rig(GetParam(), 10, 50);
  for (int i = 0; i < 7; ++i) rig.drop_best_bid();
  const Rig::Shot shot = rig.shot(40);
  rig.event({{9'930, 9}, {9'925, 2}, {9'910, 0}, {9'850, 0}, {9'845, 4}}, {{10'010, 0}});
  rig.snapshot(shot);
  EXPECT_EQ(rig.merge().result, SyncResult::SnapshotApplied);
  rig.expect_right(39);  // One of the forty asks is gone.
}

TEST_P(BookDepth, AHorizonIsNotMovedInByAMerge) {
  ShallowRig rig(GetParam(), 40, 50);
  for (int i = 0; i < 37; ++i) rig.drop_best_bid();
  ASSERT_TRUE(rig.sync.wants_depth());
  EXPECT_EQ(rig.book.known(Side::Ask), 40U);
  rig.snapshot(rig.shot(10));
  EXPECT_EQ(rig.merge().result, SyncResult::SnapshotApplied);
  EXPECT_EQ(rig.book.known(Side::Ask), 40U);
  EXPECT_EQ(rig.book.known(Side::Bid), 10U);
}

TEST_P(BookDepth, AMergeIsGivenUpWhereTheStreamNeverReachesIt) {
  ShallowRig rig(GetParam(), 10, 50);
  for (int i = 0; i < 7; ++i) rig.drop_best_bid();
  Rig::Shot shot = rig.shot(10);
  shot.id += 1'000'000;
  rig.snapshot(shot);
  rig.merge();
  EXPECT_TRUE(rig.sync.merging());
  EXPECT_FALSE(rig.sync.wants_depth());
  rig.pass(11'000'000'000);
  rig.merge();
  EXPECT_FALSE(rig.sync.merging());
  EXPECT_TRUE(rig.sync.wants_depth());
}

TEST_P(BookDepth, AMergeIsGivenUpWhereTheBookIsLost) {
  ShallowRig rig(GetParam(), 10, 50);
  for (int i = 0; i < 7; ++i) rig.drop_best_bid();
  (void)rig.say({{rig.bids.begin()->first, 3}}, {});
  rig.snapshot(rig.shot(10));
  rig.merge();
  ASSERT_TRUE(rig.sync.merging()) << "it waits for the event that is late";
  EXPECT_TRUE(rig.event({{rig.bids.begin()->first, 4}}, {}).left_valid) << "which never comes";
  EXPECT_FALSE(rig.sync.merging());
  EXPECT_EQ(rig.merge().result, SyncResult::Ignored);
  EXPECT_TRUE(rig.join(rig.shot(10)));
  EXPECT_EQ(rig.sync.counts().snapshots_merged, 0U);
  rig.expect_right(10);
}

TEST_P(BookDepth, ALargeSnapshotIsMergedInSlices) {
  Rig rig(GetParam(), {.reach = 2, .snapshot_levels = 5000}, 20'000, 4096);
  for (std::int64_t i = 0; i < 5000; ++i) {
    rig.bids[1'000'000 - i] = 5;
    rig.asks[1'000'001 + i] = 5;
  }
  rig.event({}, {});
  ASSERT_TRUE(rig.join(rig.shot(10)));
  for (std::int64_t i = 0; i < 7; ++i) rig.event({{1'000'000 - i, 0}}, {});
  rig.snapshot(rig.shot(4000));
  int slices = 0;
  for (; rig.sync.merging(); ++slices) {
    const SyncStep step = rig.merge();
    ASSERT_FALSE(step.left_valid);
    if (rig.sync.merging()) {
      // What changes meanwhile, in front of the place where the merge is and behind it.
      const std::int64_t away = 8 + (slices * 977) % 4500;
      ASSERT_TRUE(
          rig.event({{1'000'000 - away, slices % 2}}, {{1'000'000 + away, 1 + slices % 3}}).event_applied);
    }
  }
  EXPECT_GE(slices, 8);
  EXPECT_EQ(rig.sync.counts().snapshots_merged, 1U);
  rig.expect_right(3900);
}

INSTANTIATE_TEST_SUITE_P(Rules, BookDepth, testing::Values(SyncRule::Spot, SyncRule::Futures),
                         [](const testing::TestParamInfo<SyncRule>& rule) {
                           return rule.param == SyncRule::Spot ? "Spot" : "Futures";
                         });

// Whatever happens: while the book is valid, the levels that a row looks at are the venue's.
class BookDepthWeather : public testing::TestWithParam<SyncRule> {};

TEST_P(BookDepthWeather, IsNeverValidWhileWhatARowLooksAtDiffersFromTruth) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::uint64_t valid = 0;
  SyncCounts total;
  for (int round = 0; round < 60; ++round) {
    const std::size_t reach = 1 + random() % 6;
    const std::uint32_t limit = static_cast<std::uint32_t>(reach + random() % 30);
    const std::size_t max_levels = random() % 3 == 0 ? 40 : 1000;
    Rig rig(GetParam(), {.reach = reach, .snapshot_levels = limit}, max_levels, 16 + random() % 64);
    std::int64_t centre = 100'000;
    for (std::int64_t i = 1; i < 200; ++i) {
      rig.bids[centre - i] = 5;
      rig.asks[centre + i] = 5;
    }
    std::deque<Rig::Sent> line;
    std::deque<std::pair<int, Rig::Shot>> replies;
    std::map<std::uint64_t, std::pair<Levels, Levels>> history;
    const std::int64_t drift = static_cast<std::int64_t>(random() % 3) - 1;
    for (int i = 0; i < 800; ++i) {
      // The market walks through what it stands on.
      centre += drift * static_cast<std::int64_t>(random() % 3) + static_cast<std::int64_t>(random() % 5) - 2;
      Levels bids;
      Levels asks;
      for (const auto& [price, qty] : rig.bids) {
        if (price < centre) break;
        bids.push_back({price, 0});
      }
      for (const auto& [price, qty] : rig.asks) {
        if (price > centre) break;
        asks.push_back({price, 0});
      }
      for (auto n = random() % 5; n-- != 0;) {
        const auto away = 1 + static_cast<std::int64_t>(random() % 60);
        const auto qty = static_cast<std::int64_t>(random() % 3);
        if (random() % 2 == 0) {
          bids.push_back({centre - away, qty});
        } else {
          asks.push_back({centre + away, qty});
        }
      }
      line.push_back(rig.say(bids, asks, 1 + random() % 4));
      history[line.back().last] = {Rig::best(rig.bids, reach), Rig::best(rig.asks, reach)};
      if (random() % 300 == 0) line.pop_back();
      if ((rig.sync.wants_snapshot() || rig.sync.wants_depth()) && replies.empty()) {
        replies.emplace_back(static_cast<int>(random() % 12), rig.shot(limit));
      }
      if (!replies.empty() && replies.front().first-- == 0) {
        (void)rig.snapshot(replies.front().second);
        replies.pop_front();
        (void)rig.merge();
      }
      for (auto n = random() % 3; n-- != 0 && !line.empty();) {
        const Rig::Sent sent = line.front();
        line.pop_front();
        (void)rig.take(sent);
        if (rig.sync.state() == BookState::Valid) ++valid;
        (void)rig.merge();
      }
      if (rig.sync.state() != BookState::Valid) continue;
      const auto& [best_bids, best_asks] = history.at(rig.sync.last_id());
      for (const Side side : {Side::Bid, Side::Ask}) {
        Levels ours(reach);
        ours.resize(rig.book.top(side, ours));
        ASSERT_EQ(ours, side == Side::Bid ? best_bids : best_asks) << "round " << round << " step " << i;
      }
    }
    total.snapshots_merged += rig.sync.counts().snapshots_merged;
    total.shallow += rig.sync.counts().shallow;
    total.gaps += rig.sync.counts().gaps;
    EXPECT_EQ(rig.sync.counts().snapshots_contradicted, 0U) << "an honest venue contradicts nothing";
  }
  EXPECT_GT(valid, 10'000U);
  EXPECT_GT(total.snapshots_merged, 50U);
  EXPECT_GT(total.shallow, 20U);
  EXPECT_GT(total.gaps, 10U);
}

INSTANTIATE_TEST_SUITE_P(Rules, BookDepthWeather, testing::Values(SyncRule::Spot, SyncRule::Futures),
                         [](const testing::TestParamInfo<SyncRule>& rule) {
                           return rule.param == SyncRule::Spot ? "Spot" : "Futures";
                         });

// ---------------------------------------------------------------------------------------------------
// Partial books

class Partial : public testing::Test {
 protected:
  SyncStep partial(std::uint64_t id, const Levels& bids, const Levels& asks, std::uint32_t limit = 3) {
    md::Event event{};
    event.kind = md::EventKind::PartialBook;
    event.first_id = event.last_id = id;
    event.ts_event = static_cast<TsNs>(++stamp_);
    event.bids = bids;
    event.asks = asks;
    event.limit = limit;
    return sync.on_partial(event);
  }
  Levels bids() const {
    Levels out(book.depth(Side::Bid));
    book.top(Side::Bid, out);
    return out;
  }

 private:
  Arena arena_{ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  std::uint64_t stamp_ = 0;

 public:
  md::PriceBook book{arena_, 100};
  BookSync sync{SyncRule::Futures, book, arena_, 16, 100, {.reach = 2}};
};

const Levels kAsks{{101, 1}, {102, 1}, {103, 1}};

TEST_F(Partial, EachReplacesTheBook) {
  sync.on_open();
  const SyncStep first = partial(5, {{100, 1}, {99, 1}, {98, 1}}, kAsks);
  EXPECT_TRUE(first.became_valid);
  EXPECT_FALSE(first.event_applied);
  const Levels next{{99, 2}, {97, 1}, {96, 1}};
  const SyncStep second = partial(9, next, kAsks);
  EXPECT_TRUE(second.event_applied);
  EXPECT_EQ(bids(), next);
  EXPECT_EQ(sync.last_id(), 9U);
  EXPECT_EQ(book.known(Side::Bid), 3U);
  EXPECT_FALSE(book.whole(Side::Bid));
  // The same once more is an event that changed nothing.
  const std::uint64_t changes = book.changes();
  EXPECT_TRUE(partial(11, next, kAsks).event_applied);
  EXPECT_EQ(book.changes(), changes);
  EXPECT_EQ(sync.last_id(), 11U);
  EXPECT_EQ(partial(11, {{90, 1}, {89, 1}, {88, 1}}, kAsks).result, SyncResult::Ignored);
}

TEST_F(Partial, ShowsASideWholeWhereItHasFewerLevelsThanItsNameSays) {
  sync.on_open();
  partial(5, {{100, 1}}, kAsks);
  EXPECT_EQ(sync.state(), BookState::Valid) << "one bid, and that is all there is";
  EXPECT_TRUE(book.whole(Side::Bid));
  EXPECT_FALSE(book.whole(Side::Ask));
}

TEST_F(Partial, IsNoBookWhereItCannotBeOne) {
  sync.on_open();
  partial(5, {{100, 1}, {99, 1}}, kAsks);
  const SyncStep step = partial(6, {{99, 1}, {100, 1}}, kAsks);
  EXPECT_EQ(step.fault, SnapshotFault::Unsorted);
  EXPECT_TRUE(step.left_valid);
  EXPECT_EQ(sync.state(), BookState::Suspect);
  EXPECT_TRUE(partial(7, {{99, 1}, {98, 1}}, kAsks).became_valid);
}

TEST_F(Partial, AnOldIdMakesTheBookSuspectUntilTheNext) {
  sync.on_open();
  partial(500, {{100, 1}, {99, 1}}, kAsks);
  const SyncStep step = partial(6, {{98, 1}, {97, 1}}, kAsks);
  EXPECT_TRUE(step.left_valid);
  EXPECT_EQ(step.reason, InvalidReason::Gap);
  EXPECT_TRUE(partial(7, {{98, 1}, {96, 1}}, kAsks).became_valid) << "the venue counts anew";
  EXPECT_EQ(bids(), (Levels{{98, 1}, {96, 1}}));
}

TEST_F(Partial, IsNothingBesideAStreamOfChanges) {
  sync.expect_diffs();
  sync.on_open();
  EXPECT_EQ(partial(5, {{100, 1}, {99, 1}}, kAsks).result, SyncResult::Ignored);
  EXPECT_NE(sync.state(), BookState::Valid);
}

TEST_F(Partial, ChangesThatComeAfterAllEndIt) {
  sync.on_open();
  partial(5, {{100, 1}, {99, 1}}, kAsks);
  md::Event diff{};
  diff.first_id = 6;
  diff.last_id = 7;
  diff.prev_id = 5;
  const SyncStep step = sync.on_diff(diff);
  EXPECT_TRUE(step.left_valid);
  EXPECT_EQ(step.reason, InvalidReason::Gap);
  EXPECT_TRUE(sync.wants_snapshot());
  EXPECT_EQ(partial(8, {{100, 1}, {99, 1}}, kAsks).result, SyncResult::Ignored);
}

}  // namespace
}  // namespace tickwire::venue

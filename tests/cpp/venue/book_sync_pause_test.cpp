#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "tickwire/core/arena.hpp"
#include "tickwire/venue/book_sync.hpp"

namespace tickwire::venue {
namespace {

using md::BookState;
using md::InvalidReason;
using md::Side;

/// A futures book that is valid at id 10, and diffs that continue it one id at a time.
class Rig {
 public:
  Rig() : book(arena_, 100), sync(SyncRule::Futures, book, arena_, 8, 50) {
    sync.on_open();
    diff(10, 9);
    snapshot(10);
  }

  SyncStep diff(std::uint64_t id, std::uint64_t prev, std::int64_t bid = 100) {
    bids_ = {{bid, 1}};
    md::Event event{};
    event.kind = md::EventKind::BookDiff;
    event.first_id = event.last_id = id;
    event.prev_id = prev;
    event.ts_event = kNoTime;
    event.bids = bids_;
    return sync.on_diff(event);
  }
  SyncStep next() { return diff(sync.last_id() + 1, sync.last_id()); }
  SyncStep snapshot(std::uint64_t id) {
    bids_ = {{100, 1}};
    asks_ = {{101, 1}};
    md::Event event{};
    event.kind = md::EventKind::BookSnapshot;
    event.last_id = id;
    event.bids = bids_;
    event.asks = asks_;
    return sync.on_snapshot(event);
  }

 private:
  Arena arena_{ArenaConfig{.chunk_bytes = 1, .huge_pages = HugePages::Off, .lock = LockMemory::Off}};
  std::vector<md::Level> bids_;
  std::vector<md::Level> asks_;

 public:
  md::PriceBook book;
  BookSync sync;
};

TEST(BookSyncPause, ComesBackWithTheNextEventInANewEpoch) {
  Rig rig;
  ASSERT_EQ(rig.sync.state(), BookState::Valid);
  const SyncStep paused = rig.sync.pause();
  EXPECT_TRUE(paused.left_valid);
  EXPECT_EQ(paused.reason, InvalidReason::Stale);
  EXPECT_EQ(rig.sync.state(), BookState::Stale);
  EXPECT_FALSE(rig.sync.pause().left_valid) << "it has left already";
  EXPECT_FALSE(rig.sync.wants_snapshot());

  const SyncStep again = rig.next();
  EXPECT_TRUE(again.became_valid);
  EXPECT_TRUE(again.event_applied);
  EXPECT_EQ(rig.sync.state(), BookState::Valid);
  EXPECT_EQ(rig.sync.epoch(), 2U);
}

TEST(BookSyncPause, IgnoresWhatIsOldAndSeesAGap) {
  Rig rig;
  rig.sync.pause();
  EXPECT_EQ(rig.diff(10, 9).result, SyncResult::Ignored);
  EXPECT_EQ(rig.sync.state(), BookState::Stale);
  const SyncStep gap = rig.diff(13, 12);
  EXPECT_FALSE(gap.left_valid);
  EXPECT_EQ(rig.sync.state(), BookState::Suspect);
  EXPECT_TRUE(rig.sync.wants_snapshot());
  EXPECT_TRUE(rig.snapshot(13).became_valid);
  EXPECT_EQ(rig.sync.epoch(), 2U);
}

TEST(BookSyncPause, NeverComesBackCrossed) {
  Rig rig;
  rig.sync.pause();
  EXPECT_EQ(rig.diff(11, 10, 101).reason, InvalidReason::Crossed);
  EXPECT_EQ(rig.sync.state(), BookState::Suspect);
}

TEST(BookSyncBlock, FollowsTheBookButIsNotValid) {
  Rig rig;
  const SyncStep blocked = rig.sync.block();
  EXPECT_TRUE(blocked.left_valid);
  EXPECT_EQ(blocked.reason, InvalidReason::Disconnected);
  for (int i = 0; i < 20; ++i) {
    const SyncStep step = rig.next();
    EXPECT_EQ(step.result, SyncResult::Blocked);
    EXPECT_FALSE(step.event_applied);
    EXPECT_FALSE(rig.sync.wants_snapshot());
  }
  EXPECT_EQ(rig.sync.state(), BookState::Empty);
  EXPECT_EQ(rig.snapshot(1000).result, SyncResult::Ignored);
  rig.sync.unblock();
  EXPECT_EQ(rig.sync.state(), BookState::Empty) << "until an event shows that the book goes on";
  EXPECT_TRUE(rig.next().became_valid);
  EXPECT_EQ(rig.sync.last_id(), 31U);
  EXPECT_EQ(rig.sync.epoch(), 2U);
}

TEST(BookSyncBlock, ASnapshotMakesNoBlockedBookValid) {
  Rig rig;
  rig.sync.block();
  rig.sync.on_open();
  rig.diff(20, 19);
  EXPECT_TRUE(rig.sync.wants_snapshot());
  EXPECT_FALSE(rig.snapshot(20).became_valid);
  EXPECT_EQ(rig.sync.state(), BookState::Empty);
  EXPECT_FALSE(rig.sync.wants_snapshot()) << "the book is whole";
  rig.sync.unblock();
  EXPECT_TRUE(rig.next().became_valid);

  rig.sync.block();
  rig.sync.on_open();
  rig.snapshot(30);  // Held, then bridged.
  EXPECT_EQ(rig.diff(31, 30).result, SyncResult::Blocked);
  rig.sync.unblock();
  EXPECT_TRUE(rig.next().became_valid);
  EXPECT_EQ(rig.sync.epoch(), 3U);
}

TEST(BookSyncBlock, AConnectionThatClosesForgetsTheWholeBook) {
  Rig rig;
  rig.sync.block();
  rig.sync.on_close();
  rig.sync.unblock();
  rig.sync.on_open();
  EXPECT_FALSE(rig.diff(11, 10).became_valid);
  EXPECT_EQ(rig.sync.state(), BookState::Buffering);
}

TEST(BookSyncPause, ADoubtedBookIsFollowedAndNotUsed) {
  Rig rig;
  const std::uint32_t epoch = rig.sync.epoch();
  const SyncStep doubted = rig.sync.doubt_clock();
  EXPECT_TRUE(doubted.left_valid);
  EXPECT_EQ(doubted.reason, InvalidReason::Clock);
  EXPECT_EQ(rig.sync.state(), BookState::Suspect);
  EXPECT_FALSE(rig.sync.wants_snapshot());
  const SyncStep followed = rig.next();
  EXPECT_FALSE(followed.became_valid || followed.event_applied);
  EXPECT_EQ(rig.sync.state(), BookState::Suspect);
  rig.sync.trust_clock();
  EXPECT_EQ(rig.sync.state(), BookState::Suspect);
  EXPECT_TRUE(rig.next().became_valid);
  EXPECT_EQ(rig.sync.state(), BookState::Valid);
  EXPECT_EQ(rig.sync.epoch(), epoch + 1);
  // Twice, and blocked at once: each goes by itself.
  EXPECT_TRUE(rig.sync.doubt_clock().left_valid);
  EXPECT_FALSE(rig.sync.doubt_clock().left_valid);
  (void)rig.sync.block();
  rig.sync.trust_clock();
  EXPECT_FALSE(rig.next().became_valid);
  EXPECT_EQ(rig.sync.state(), BookState::Empty);
  rig.sync.unblock();
  EXPECT_TRUE(rig.next().became_valid);
  EXPECT_EQ(rig.sync.epoch(), epoch + 2);
}

TEST(BookSyncPause, AGapOfADoubtedBookIsAGap) {
  Rig rig;
  (void)rig.sync.doubt_clock();
  (void)rig.diff(20, 19);
  rig.sync.trust_clock();
  EXPECT_EQ(rig.sync.state(), BookState::Suspect);
  EXPECT_FALSE(rig.diff(21, 20).became_valid);
  EXPECT_TRUE(rig.sync.wants_snapshot());
}

}  // namespace
}  // namespace tickwire::venue

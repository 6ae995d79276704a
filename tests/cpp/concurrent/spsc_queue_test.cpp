#include "tickwire/concurrent/spsc_queue.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <deque>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace tickwire::concurrent {
namespace {

struct Row {
  std::uint64_t number;
  std::uint64_t word[5];
};

/// A row that depends on its number in each word, so that a torn or stale one shows.
Row row_of(std::uint64_t number) {
  Row row{number, {}};
  std::uint64_t state = number * 0x9E3779B97F4A7C15U + 1;
  for (std::uint64_t& word : row.word) {
    state ^= state >> 29;
    state *= 0xBF58476D1CE4E5B9U;
    word = state;
  }
  return row;
}

bool push(SpscQueue& queue, const Row& row) {
  std::byte* const slot = queue.try_claim();
  if (slot == nullptr) return false;
  std::memcpy(slot, &row, sizeof row);
  queue.publish();
  return true;
}

Row read(const SpscQueue& queue, std::size_t i) {
  Row row;
  std::memcpy(&row, queue.slot(i), sizeof row);
  return row;
}

bool same(const Row& a, const Row& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

class SpscQueueAt : public testing::TestWithParam<std::uint64_t> {};

TEST(SpscQueue, RoundsSlotsToCacheLinesAndCapacityToAPowerOfTwo) {
  Arena arena;
  const SpscQueue queue(arena, 65, 5);
  EXPECT_EQ(queue.slot_bytes(), 128U);
  EXPECT_EQ(queue.capacity(), 8U);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(queue.base()) % 64, 0U);
}

TEST(SpscQueue, RefusesSizesOfZero) {
  Arena arena;
  EXPECT_THROW(SpscQueue(arena, 0, 8), std::logic_error);
  EXPECT_THROW(SpscQueue(arena, 8, 0), std::logic_error);
}

TEST(SpscQueue, ShowsNothingThatIsNotPublished) {
  Arena arena;
  SpscQueue queue(arena, sizeof(Row), 4);
  EXPECT_EQ(queue.readable(), 0U);
  std::byte* const slot = queue.try_claim();
  ASSERT_NE(slot, nullptr);
  EXPECT_EQ(queue.try_claim(), slot);
  EXPECT_EQ(queue.readable(), 0U);
  queue.publish();
  EXPECT_EQ(queue.readable(), 1U);
  EXPECT_EQ(queue.slot(0), slot);
  EXPECT_NE(queue.try_claim(), slot);
}

TEST_P(SpscQueueAt, IsFullAtItsCapacityAndUsableAfterARelease) {
  Arena arena;
  SpscQueue queue(arena, sizeof(Row), 4, GetParam());
  for (std::uint64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(queue.free_slots(), 4 - i);
    ASSERT_TRUE(push(queue, row_of(i)));
  }
  EXPECT_FALSE(push(queue, row_of(4)));
  EXPECT_EQ(queue.free_slots(), 0U);
  queue.release(3);
  EXPECT_EQ(queue.free_slots(), 3U);
  EXPECT_TRUE(same(read(queue, 0), row_of(3)));
  for (std::uint64_t i = 4; i < 7; ++i) ASSERT_TRUE(push(queue, row_of(i)));
  EXPECT_FALSE(push(queue, row_of(7)));
  for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(same(read(queue, i), row_of(3 + i)));
}

TEST_P(SpscQueueAt, HandsOverSeveralAtOnceOrNone) {
  Arena arena;
  SpscQueue queue(arena, sizeof(Row), 4, GetParam());
  std::uint64_t next = 0;
  std::uint64_t expected = 0;
  for (int round = 0; round < 5; ++round) {
    ASSERT_TRUE(push(queue, row_of(next++)));
    EXPECT_EQ(queue.try_claim(4), nullptr);
    EXPECT_EQ(queue.try_claim(5), nullptr);
    ASSERT_EQ(queue.try_claim(3), queue.claimed(0));
    for (std::size_t i = 0; i < 3; ++i) {
      const Row row = row_of(next++);
      std::memcpy(queue.claimed(i), &row, sizeof row);
      EXPECT_EQ(queue.readable(), 1U);
    }
    queue.publish(3);
    ASSERT_EQ(queue.readable(), 4U);
    EXPECT_EQ(std::memcmp(queue.newest(2), queue.slot(1), sizeof(Row)), 0);
    for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(same(read(queue, i), row_of(expected++)));
    queue.release(4);
  }
}

TEST_P(SpscQueueAt, IsDrainedWhenEverythingPublishedWasGivenBack) {
  Arena arena;
  SpscQueue queue(arena, sizeof(Row), 4, GetParam());
  EXPECT_TRUE(queue.drained());
  ASSERT_TRUE(push(queue, row_of(0)));
  ASSERT_TRUE(push(queue, row_of(1)));
  EXPECT_FALSE(queue.drained());
  queue.release(1);
  EXPECT_FALSE(queue.drained());
  queue.release(1);
  EXPECT_TRUE(queue.drained());
}

TEST_P(SpscQueueAt, AgreesWithADequeWhereIndexAndMemoryWrap) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  Arena arena;
  SpscQueue queue(arena, sizeof(Row), 8, GetParam());
  std::deque<std::uint64_t> model;
  std::uint64_t next = 0;
  for (int step = 0; step < 20'000; ++step) {
    if (random() % 2 == 0) {
      const bool pushed = push(queue, row_of(next));
      ASSERT_EQ(pushed, model.size() < 8);
      if (pushed) model.push_back(next++);
    } else {
      const std::size_t readable = queue.readable();
      ASSERT_EQ(readable, model.size());
      const std::size_t together = queue.contiguous(readable);
      ASSERT_LE(together, readable);
      for (std::size_t i = 0; i < readable; ++i) {
        ASSERT_TRUE(same(read(queue, i), row_of(model[i])));
        // Exactly the first `together` slots follow each other in memory.
        ASSERT_EQ(queue.slot(i) == queue.slot(0) + i * queue.slot_bytes(), i < together);
      }
      const std::size_t n = readable == 0 ? 0 : random() % (readable + 1);
      queue.release(n);
      model.erase(model.begin(), model.begin() + static_cast<std::ptrdiff_t>(n));
    }
    ASSERT_EQ(queue.free_slots(), 8 - model.size());
  }
}

TEST_P(SpscQueueAt, KeepsEveryRowInOrderBetweenTwoThreads) {
  constexpr std::uint64_t kRows = 100'000;
  Arena arena;
  SpscQueue queue(arena, sizeof(Row), 64, GetParam());
  std::thread producer([&queue] {
    for (std::uint64_t i = 0; i < kRows;) {
      if (push(queue, row_of(i))) {
        ++i;
      } else {
        std::this_thread::yield();
      }
    }
  });
  std::uint64_t next = 0;
  std::uint64_t wrong = 0;
  while (next < kRows) {
    const std::size_t readable = queue.readable();
    if (readable == 0) std::this_thread::yield();
    for (std::size_t i = 0; i < readable; ++i) wrong += !same(read(queue, i), row_of(next++));
    queue.release(readable);
  }
  producer.join();
  EXPECT_EQ(wrong, 0U);
  EXPECT_EQ(queue.readable(), 0U);
}

/// A queue in a block of its own, as two processes map one: each end is another object over it.
class SpscQueueBlock : public testing::Test {
 protected:
  static constexpr std::size_t kCapacity = 8;

  SpscQueue end() { return SpscQueue(block_, sizeof(Row), kCapacity); }

  Arena arena_;
  std::span<std::byte> block_ =
      arena_.allocate<std::byte>(SpscQueue::block_bytes(sizeof(Row), kCapacity), kFalseSharingBytes);
};

TEST_F(SpscQueueBlock, BothEndsSeeOneQueue) {
  SpscQueue producer = end();
  SpscQueue consumer = end();
  for (std::uint64_t i = 0; i < kCapacity; ++i) ASSERT_TRUE(push(producer, row_of(i)));
  EXPECT_EQ(producer.try_claim(), nullptr);
  ASSERT_EQ(consumer.readable(), kCapacity);
  EXPECT_TRUE(same(read(consumer, 3), row_of(3)));
  consumer.release(2);
  EXPECT_EQ(producer.free_slots(), 2U);
  EXPECT_EQ(producer.published(), kCapacity);
  EXPECT_EQ(producer.released(), 2U);
  EXPECT_EQ(std::memcmp(consumer.newest(), consumer.slot(5), sizeof(Row)), 0);
}

TEST_F(SpscQueueBlock, RefusesABlockThatIsTooSmallOrNotAligned) {
  EXPECT_THROW(SpscQueue(block_.first(block_.size() - 1), sizeof(Row), kCapacity), std::logic_error);
  EXPECT_THROW(SpscQueue(block_.subspan(64), sizeof(Row), kCapacity / 2), std::logic_error);
}

TEST_F(SpscQueueBlock, AProducerThatWasReadyLongAgoSeesNoRoomWhereThereIsNone) {
  SpscQueue consumer = end();
  SpscQueue first = end();
  SpscQueue second = end();  // Its idea of the head is from now.
  std::uint64_t next = 0;
  for (std::size_t turn = 0; turn < 3; ++turn) {
    while (push(first, row_of(next))) ++next;
    if (turn != 2) consumer.release(consumer.readable());
  }
  EXPECT_FALSE(push(second, row_of(next)));
  consumer.release(1);
  EXPECT_TRUE(push(second, row_of(next)));
  EXPECT_FALSE(push(second, row_of(next + 1)));
}

/// The consumer's steps for one row: read it, publish what it makes of it, give it back. Each of many
/// threads, one after another, is abandoned after a step chosen by chance, the producer never stops, and
/// whoever takes over goes by the indices alone.
TEST_F(SpscQueueBlock, AConsumerAbandonedAfterAnyStepIsReplacedWithoutLossOrRepetition) {
  constexpr std::uint64_t kRows = 30'000;
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  const std::span<std::byte> out_block =
      arena_.allocate<std::byte>(SpscQueue::block_bytes(sizeof(Row), kCapacity), kFalseSharingBytes);
  std::thread producer([this] {
    SpscQueue queue = end();
    for (std::uint64_t i = 0; i < kRows;) {
      if (push(queue, row_of(i))) {
        ++i;
      } else {
        std::this_thread::yield();
      }
    }
  });
  std::uint64_t wrong = 0;
  std::thread router([&] {
    SpscQueue out(out_block, sizeof(Row), kCapacity);
    for (std::uint64_t next = 0; next < kRows;) {
      const std::size_t readable = out.readable();
      if (readable == 0) std::this_thread::yield();
      for (std::size_t i = 0; i < readable; ++i) wrong += !same(read(out, i), row_of(next++));
      out.release(readable);
    }
  });
  std::mt19937 random(seed);
  std::uint64_t abandoned = 0;
  for (bool done = false; !done; ++abandoned) {
    std::thread consumer([&, steps = random() % 600] {
      SpscQueue in = end();
      SpscQueue out(out_block, sizeof(Row), kCapacity);
      // What was published is done, whether the one before us gave it back or not.
      in.release(static_cast<std::size_t>(out.published() - in.released()));
      for (unsigned step = 0; step < steps;) {
        if (in.released() == kRows) {
          done = true;
          return;
        }
        if (in.readable() == 0) {
          std::this_thread::yield();
          continue;
        }
        const Row row = read(in, 0);
        if (++step == steps) return;
        while (!push(out, row)) std::this_thread::yield();
        if (++step == steps) return;
        in.release(1);
        ++step;
      }
    });
    consumer.join();
  }
  producer.join();
  router.join();
  EXPECT_EQ(wrong, 0U);
  EXPECT_GT(abandoned, 50U);
}

INSTANTIATE_TEST_SUITE_P(Index, SpscQueueAt, testing::Values(0, UINT64_MAX - 5, std::uint64_t{1} << 63));

}  // namespace
}  // namespace tickwire::concurrent

#include "tickwire/concurrent/spsc_byte_ring.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace tickwire::concurrent {
namespace {

/// Record number i: its length and each of its bytes follow from i.
std::vector<std::byte> record_of(std::uint64_t number, std::size_t longest) {
  std::mt19937_64 random(number + 1);
  std::vector<std::byte> record(random() % (longest + 1));
  for (std::byte& byte : record) byte = static_cast<std::byte>(random());
  return record;
}

bool push(SpscByteRing& ring, const std::vector<std::byte>& record) {
  std::byte* const place = ring.try_claim(record.size());
  if (place == nullptr) return false;
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(place) % 8, 0U);
  if (!record.empty()) std::memcpy(place, record.data(), record.size());
  ring.publish();
  return true;
}

bool front_is(SpscByteRing& ring, const std::vector<std::byte>& record) {
  const std::span<const std::byte> front = ring.front();
  return front.data() != nullptr && std::equal(front.begin(), front.end(), record.begin(), record.end());
}

class SpscByteRingAt : public testing::TestWithParam<std::uint64_t> {};

TEST(SpscByteRing, ShowsNothingThatIsNotPublished) {
  Arena arena;
  SpscByteRing ring(arena, 1000);
  EXPECT_EQ(ring.capacity(), 1024U);
  EXPECT_EQ(ring.front().data(), nullptr);
  ASSERT_NE(ring.try_claim(10), nullptr);
  EXPECT_EQ(ring.front().data(), nullptr);
  ASSERT_NE(ring.try_claim(20), nullptr);  // Replaces the first claim.
  ring.publish();
  EXPECT_EQ(ring.front().size(), 20U);
  EXPECT_EQ(ring.front().size(), 20U);  // Looking takes nothing away.
  ring.pop();
  EXPECT_EQ(ring.front().data(), nullptr);
}

TEST(SpscByteRing, TellsAnEmptyRecordFromNone) {
  Arena arena;
  SpscByteRing ring(arena, 64);
  ASSERT_TRUE(push(ring, {}));
  EXPECT_NE(ring.front().data(), nullptr);
  EXPECT_EQ(ring.front().size(), 0U);
  ring.pop();
  EXPECT_EQ(ring.front().data(), nullptr);
}

TEST_P(SpscByteRingAt, TakesTheLongestRecordWhereverItStands) {
  Arena arena;
  SpscByteRing ring(arena, 256, GetParam());
  EXPECT_EQ(ring.try_claim(ring.max_record_bytes() + 1), nullptr);
  const std::vector<std::byte> longest(ring.max_record_bytes(), std::byte{0x5A});
  for (int i = 0; i < 64; ++i) {
    ASSERT_TRUE(push(ring, longest)) << i;
    ASSERT_TRUE(front_is(ring, longest));
    ring.pop();
    ASSERT_TRUE(push(ring, {}));  // Moves the start by eight bytes.
    ASSERT_EQ(ring.front().size(), 0U);
    ring.pop();
  }
}

TEST_P(SpscByteRingAt, AgreesWithADequeWhereIndexAndMemoryWrap) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  Arena arena;
  SpscByteRing ring(arena, 512, GetParam());
  std::deque<std::vector<std::byte>> model;
  std::uint64_t next = 0;
  std::uint64_t refused = 0;
  for (int step = 0; step < 50'000; ++step) {
    if (random() % 5 < 3) {
      std::vector<std::byte> record = record_of(next, ring.max_record_bytes());
      if (push(ring, record)) {
        model.push_back(std::move(record));
        ++next;
      } else {
        ++refused;
        ASSERT_FALSE(model.empty()) << "an empty ring refused " << record.size() << " bytes";
      }
    } else if (model.empty()) {
      ASSERT_EQ(ring.front().data(), nullptr);
    } else {
      ASSERT_TRUE(front_is(ring, model.front()));
      ring.pop();
      model.pop_front();
    }
  }
  EXPECT_GT(next, 1'000U);
  EXPECT_GT(refused, 100U);
}

TEST_P(SpscByteRingAt, KeepsEveryRecordInOrderBetweenTwoThreads) {
  constexpr std::uint64_t kRecords = 20'000;
  Arena arena;
  SpscByteRing ring(arena, 2048, GetParam());
  std::thread producer([&ring] {
    for (std::uint64_t i = 0; i < kRecords; ++i) {
      const std::vector<std::byte> record = record_of(i, 200);
      while (!push(ring, record)) std::this_thread::yield();
    }
  });
  std::uint64_t wrong = 0;
  for (std::uint64_t i = 0; i < kRecords; ++i) {
    while (ring.front().data() == nullptr) std::this_thread::yield();
    wrong += !front_is(ring, record_of(i, 200));
    ring.pop();
  }
  producer.join();
  EXPECT_EQ(wrong, 0U);
  EXPECT_EQ(ring.front().data(), nullptr);
}

INSTANTIATE_TEST_SUITE_P(Index, SpscByteRingAt,
                         testing::Values(0, UINT64_MAX - 1023, std::uint64_t{1} << 63, UINT64_MAX - 7));

}  // namespace
}  // namespace tickwire::concurrent

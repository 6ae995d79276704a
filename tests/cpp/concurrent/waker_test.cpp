#include "tickwire/concurrent/waker.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tickwire/concurrent/spsc_queue.hpp"

namespace tickwire::concurrent {
namespace {

constexpr std::int64_t kNever = 10'000'000'000;  // A wait that ends by this has lost its wake-up.

bool is_readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return ::poll(&entry, 1, 0) == 1;
}

TEST(Waker, CostsNoSystemCallWhileTheConsumerIsAwake) {
  Waker waker;
  for (int i = 0; i < 10; ++i) waker.notify();
  EXPECT_EQ(waker.wakes(), 0U);
  EXPECT_FALSE(is_readable(waker.fd()));
}

TEST(Waker, WritesOnceForOneSleep) {
  Waker waker;
  ASSERT_TRUE(waker.prepare_sleep([] { return false; }));
  for (int i = 0; i < 10; ++i) waker.notify();
  EXPECT_EQ(waker.wakes(), 1U);
  EXPECT_TRUE(is_readable(waker.fd()));
  waker.woke();
  EXPECT_FALSE(is_readable(waker.fd()));
  waker.notify();
  EXPECT_EQ(waker.wakes(), 1U);
}

TEST(Waker, DoesNotSleepOnWorkThatCameMeanwhile) {
  Waker waker;
  EXPECT_FALSE(waker.prepare_sleep([] { return true; }));
  waker.notify();
  EXPECT_EQ(waker.wakes(), 0U);
}

TEST(Waker, WaitEndsByTimeByNotifyAndByAnotherDescriptor) {
  Waker waker;
  ASSERT_TRUE(waker.prepare_sleep([] { return false; }));
  EXPECT_FALSE(waker.wait(1'000'000));

  ASSERT_TRUE(waker.prepare_sleep([] { return false; }));
  waker.notify();
  EXPECT_TRUE(waker.wait(kNever));
  EXPECT_FALSE(is_readable(waker.fd()));

  const int other = ::eventfd(1, EFD_CLOEXEC);
  ASSERT_GE(other, 0);
  const int fds[] = {other};
  ASSERT_TRUE(waker.prepare_sleep([] { return false; }));
  EXPECT_TRUE(waker.wait(kNever, fds));
  waker.notify();
  EXPECT_EQ(waker.wakes(), 1U);  // wait() said that we are awake.
  ::close(other);
}

void pause(std::uint64_t turns) {
  for (volatile std::uint64_t turn = turns; turn != 0;) turn = turn - 1;
}

/// Each producer's queue holds one item, so it cannot publish the next one before the consumer took this
/// one: a wake-up that is lost stays lost and shows as a wait that ran out of time. Random pauses on both
/// sides put the publication around the consumer's decision to sleep.
void stress(std::size_t producers, std::uint64_t items) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Arena arena;
  Waker waker;
  std::atomic<bool> give_up{false};
  std::vector<std::unique_ptr<SpscQueue>> queues;
  for (std::size_t p = 0; p < producers; ++p) queues.push_back(std::make_unique<SpscQueue>(arena, 8, 1));
  std::vector<std::thread> threads;
  for (std::size_t p = 0; p < producers; ++p) {
    threads.emplace_back([&, p] {
      std::mt19937 random(seed + static_cast<std::uint32_t>(p));
      std::uint32_t turns = 0;
      for (std::uint64_t i = 0; i < items && !give_up;) {
        std::byte* const slot = queues[p]->try_claim();
        if (slot == nullptr) {
          // Mostly spins, to be quick where both have a core; yields, to let the other run where not.
          if (++turns % 1024 == 0) std::this_thread::yield();
          continue;
        }
        pause(random() % 256);
        std::memcpy(slot, &i, sizeof i);
        queues[p]->publish();
        waker.notify();
        ++i;
      }
    });
  }
  const auto readable = [&] {
    for (const auto& queue : queues) {
      if (queue->readable() != 0) return true;
    }
    return false;
  };
  std::vector<std::uint64_t> next(producers);
  std::uint64_t total = 0;
  std::uint64_t wrong = 0;
  std::mt19937 random(seed + 1000);
  while (total < items * producers && !give_up) {
    pause(random() % 256);
    if (waker.prepare_sleep(readable)) give_up = !waker.wait(kNever);
    for (std::size_t p = 0; p < producers; ++p) {
      const std::size_t n = queues[p]->readable();
      for (std::size_t i = 0; i < n; ++i) {
        std::uint64_t value;
        std::memcpy(&value, queues[p]->slot(i), sizeof value);
        wrong += value != next[p]++;
      }
      queues[p]->release(n);
      total += n;
    }
  }
  EXPECT_FALSE(give_up) << "a wake-up was lost after " << total << " items";
  give_up = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0U);
  EXPECT_GT(waker.wakes(), 0U);  // Else nobody ever slept and nothing was tested.
}

TEST(Waker, WakesAcrossAFlagInSharedMemory) {
  alignas(Waker::Flag) std::byte memory[sizeof(Waker::Flag)] = {};
  auto& flag = *reinterpret_cast<Waker::Flag*>(memory);
  Waker here(flag);
  Waker there(flag, ::dup(here.fd()));  // As another process inherits it.
  here.notify();
  EXPECT_EQ(here.wakes(), 0U);
  ASSERT_TRUE(there.prepare_sleep([] { return false; }));
  here.notify();
  here.notify();
  EXPECT_TRUE(there.wait(kNever));
  EXPECT_EQ(here.wakes(), 1U);
  EXPECT_EQ(there.wakes(), 1U);
  // One that died asleep costs one write, and who takes over finds itself awake.
  ASSERT_TRUE(there.prepare_sleep([] { return false; }));
  here.notify();
  here.notify();
  EXPECT_EQ(here.wakes(), 2U);
}

TEST(Waker, LosesNoWakeUpOfOneProducer) { stress(1, 30'000); }
TEST(Waker, LosesNoWakeUpOfSeveralProducers) { stress(3, 10'000); }

}  // namespace
}  // namespace tickwire::concurrent

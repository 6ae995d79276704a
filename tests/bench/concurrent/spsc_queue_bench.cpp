#include "tickwire/concurrent/spsc_queue.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>

#include "tickwire/core/arena.hpp"

namespace tickwire::concurrent {
namespace {

constexpr std::size_t kCapacity = 1024;

// Both sides on one thread: the instructions of a hand-over without the cost of moving a cache line.
void QueueOnOneThread(benchmark::State& state) {
  Arena arena;
  SpscQueue queue(arena, static_cast<std::size_t>(state.range(0)), kCapacity);
  for (auto _ : state) {
    std::byte* slot = queue.try_claim();
    benchmark::DoNotOptimize(slot);
    queue.publish();
    benchmark::DoNotOptimize(queue.readable());
    queue.release(1);
  }
}
BENCHMARK(QueueOnOneThread)->Arg(64)->Arg(512);

void wait_for_one(const SpscQueue& queue) {
  while (queue.readable() == 0) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
}

// There and back between two threads that spin: twice the hop that the layout `threads` adds.
void QueueRoundTrip(benchmark::State& state) {
  Arena arena;
  SpscQueue there(arena, sizeof(std::uint64_t), kCapacity);
  SpscQueue back(arena, sizeof(std::uint64_t), kCapacity);
  std::thread echo([&] {
    std::uint64_t value = 0;
    do {
      wait_for_one(there);
      std::memcpy(&value, there.slot(0), sizeof value);
      there.release(1);
      std::memcpy(back.try_claim(), &value, sizeof value);
      back.publish();
    } while (value != 0);
  });
  const auto send = [&](std::uint64_t value) {
    std::memcpy(there.try_claim(), &value, sizeof value);
    there.publish();
    wait_for_one(back);
    back.release(1);
  };
  std::uint64_t value = 0;
  for (auto _ : state) send(++value);
  send(0);
  echo.join();
}
BENCHMARK(QueueRoundTrip)->UseRealTime();

}  // namespace
}  // namespace tickwire::concurrent

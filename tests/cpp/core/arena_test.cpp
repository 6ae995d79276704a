#include "tickwire/core/arena.hpp"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tickwire/core/error.hpp"

namespace tickwire {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // The sanitizers make mlock() a call that does nothing.
#else
constexpr bool kSanitized = false;
#endif

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + '\n';
  return text;
}

TEST(Arena, GivesZeroedAlignedDisjointMemory) {
  Arena arena(ArenaConfig{.chunk_bytes = 2 * kMiB});
  struct Block {
    std::uintptr_t begin, end;
  };
  std::vector<Block> blocks;
  for (const std::size_t align : {std::size_t{8}, std::size_t{64}, std::size_t{128}, std::size_t{4096}}) {
    for (std::size_t count = 1; count < 200'000; count *= 7) {
      const std::span<std::uint64_t> span = arena.allocate<std::uint64_t>(count, align);
      ASSERT_EQ(span.size(), count);
      const auto begin = reinterpret_cast<std::uintptr_t>(span.data());
      EXPECT_EQ(begin % align, 0U);
      EXPECT_TRUE(std::all_of(span.begin(), span.end(), [](std::uint64_t v) { return v == 0; }));
      std::fill(span.begin(), span.end(), ~std::uint64_t{0});
      blocks.push_back({begin, begin + span.size_bytes()});
    }
  }
  std::sort(blocks.begin(), blocks.end(), [](const Block& a, const Block& b) { return a.begin < b.begin; });
  for (std::size_t i = 1; i < blocks.size(); ++i) EXPECT_LE(blocks[i - 1].end, blocks[i].begin);
}

TEST(Arena, RunsConstructorsOfTypesWithDefaults) {
  struct Cursor {
    int next = 7;
  };
  Arena arena;
  for (const Cursor& cursor : arena.allocate<Cursor>(5)) EXPECT_EQ(cursor.next, 7);
}

TEST(Arena, GrowsByWholeChunksAndCountsThem) {
  Arena arena(ArenaConfig{.chunk_bytes = 3 * kMiB, .lock = LockMemory::Off});
  EXPECT_EQ(arena.report().used_bytes, 0U);
  arena.allocate<std::byte>(1 * kMiB);
  arena.allocate<std::byte>(2 * kMiB);  // Fits: 3 MiB are rounded up to two huge pages.
  ArenaReport report = arena.report();
  EXPECT_EQ(report.hugetlb_bytes + report.transparent_bytes + report.normal_bytes, 4 * kMiB);
  arena.allocate<std::byte>(9 * kMiB);  // A chunk of its own.
  report = arena.report();
  EXPECT_EQ(report.hugetlb_bytes + report.transparent_bytes + report.normal_bytes, 14 * kMiB);
  EXPECT_EQ(report.used_bytes, 12 * kMiB);
  EXPECT_EQ(report.locked_bytes, 0U);
}

TEST(Arena, OffMeansNormalPagesAndNoFallback) {
  Arena arena(ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off});
  arena.allocate<std::byte>(4 * kMiB);
  const ArenaReport report = arena.report();
  EXPECT_EQ(report.hugetlb_bytes, 0U);
  EXPECT_EQ(report.transparent_bytes, 0U);
  EXPECT_EQ(report.normal_bytes, 8 * kMiB);
  EXPECT_TRUE(report.fallbacks.empty()) << joined(report.fallbacks);
}

TEST(Arena, AutoReportsEachFallbackOnce) {
  Arena arena(ArenaConfig{.chunk_bytes = 2 * kMiB});
  for (int i = 0; i < 4; ++i) arena.allocate<std::byte>(2 * kMiB);
  const ArenaReport report = arena.report();
  if (report.hugetlb_bytes == 8 * kMiB)
    GTEST_SKIP() << "this host has reserved huge pages: nothing falls back";
  const std::string text = joined(report.fallbacks);
  EXPECT_NE(text.find("no reserved huge pages"), std::string::npos) << text;
  if (report.normal_bytes != 0) {
    EXPECT_NE(text.find("transparent_hugepage"), std::string::npos) << text;
  }
  EXPECT_LE(report.fallbacks.size(), 4U) << text;
  EXPECT_EQ(report.lines().size(), report.fallbacks.size() + 1);
  EXPECT_TRUE(report.lines().front().starts_with("memory: "));
}

TEST(Arena, RequiredHugePagesThatAreMissingAreAnActionableError) {
  // A terabyte: more than any pool that a test machine reserves.
  Arena arena(ArenaConfig{.huge_pages = HugePages::Require});
  try {
    arena.allocate<std::byte>(std::size_t{1} << 40);
    FAIL() << "no error";
  } catch (const SetupError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("memory.huge_pages"), std::string::npos) << text;
    EXPECT_NE(text.find("sysctl vm.nr_hugepages=524288"), std::string::npos) << text;
    EXPECT_NE(text.find("pages are free"), std::string::npos) << text;
  }
}

/// Capabilities belong to the thread: the test's thread gives up the right to lock without limit.
void drop_ipc_lock() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  ASSERT_EQ(::syscall(SYS_capget, &header, data), 0);
  data[0].effective &= ~(1U << CAP_IPC_LOCK);
  ASSERT_EQ(::syscall(SYS_capset, &header, data), 0);
}

TEST(Arena, LockThatFailsIsReportedOrAnError) {
  if (kSanitized) GTEST_SKIP() << "mlock() does nothing under this sanitizer";
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_MEMLOCK, &before), 0);
  const rlimit none{0, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_MEMLOCK, &none), 0);
  std::thread([] {
    drop_ipc_lock();
    Arena lenient(ArenaConfig{.huge_pages = HugePages::Off});
    lenient.allocate<std::byte>(100)[99] = std::byte{1};
    EXPECT_EQ(lenient.report().locked_bytes, 0U);
    const std::string text = joined(lenient.report().fallbacks);
    EXPECT_NE(text.find("not locked"), std::string::npos) << text;
    EXPECT_NE(text.find("LimitMEMLOCK"), std::string::npos) << text;

    Arena strict(ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Require});
    EXPECT_THROW(strict.allocate<std::byte>(100), SetupError);
  }).join();
  ::setrlimit(RLIMIT_MEMLOCK, &before);
}

TEST(Arena, RefusesAllocationOnceSealed) {
  Arena arena;
  arena.allocate<int>(1);
  EXPECT_FALSE(arena.sealed());
  arena.seal();
  EXPECT_TRUE(arena.sealed());
  EXPECT_THROW(arena.allocate<int>(1), std::logic_error);
}

TEST(Arena, RefusesWhatItCannotAlignOrSize) {
  Arena arena;
  EXPECT_THROW(arena.allocate<int>(1, 96), std::logic_error);
  EXPECT_THROW(arena.allocate<int>(1, 8192), std::logic_error);
  EXPECT_THROW(arena.allocate<std::uint64_t>(SIZE_MAX / 4), std::bad_alloc);
}

}  // namespace
}  // namespace tickwire

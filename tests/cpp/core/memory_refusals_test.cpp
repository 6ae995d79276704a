/// What is said where the host does not give the memory that was asked for.

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <iterator>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/error.hpp"
#include "tickwire/core/shared_region.hpp"

namespace tickwire {
namespace {

std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const SetupError& error) {
    return error.what();
  }
  return "";
}

/// On a thread without the right to lock memory, where the limit is none at all. False where that cannot be
/// had.
bool without_locked_memory(const std::function<void()>& call) {
  rlimit before{};
  if (::getrlimit(RLIMIT_MEMLOCK, &before) != 0) return false;
  const rlimit none{0, before.rlim_max};
  if (::setrlimit(RLIMIT_MEMLOCK, &none) != 0) return false;
  bool done = false;
  std::thread([&] {
    // Of this thread alone.
    __user_cap_header_struct head{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    if (::syscall(SYS_capget, &head, data) != 0) return;
    data[CAP_IPC_LOCK / 32].effective &= ~(1U << (CAP_IPC_LOCK % 32));
    if (::syscall(SYS_capset, &head, data) != 0) return;
    call();
    done = true;
  }).join();
  ::setrlimit(RLIMIT_MEMLOCK, &before);
  return done;
}

TEST(MemoryRefusals, ALockThatIsRefusedIsToldOrAnError) {
  std::string required;
  ArenaReport report;
  const bool done = without_locked_memory([&] {
    required = refusal([] {
      Arena arena({.huge_pages = HugePages::Off, .lock = LockMemory::Require});
      (void)arena.allocate<char>(1);
    });
    Arena arena({.huge_pages = HugePages::Off, .lock = LockMemory::Auto});
    (void)arena.allocate<char>(100);
    (void)arena.allocate<char>(std::size_t{16} << 20U);  // A second piece, refused for the same reason.
    report = arena.report();
  });
  if (!done) GTEST_SKIP() << "this process may not give up its right to lock memory";
  EXPECT_TRUE(required.starts_with("memory.lock = \"require\": expected to lock 8.0 MiB, found "))
      << required;
  EXPECT_NE(required.find("the limit for locked memory is 0.0 MiB; raise it with ulimit -l"),
            std::string::npos)
      << required;
  EXPECT_EQ(report.locked_bytes, 0U);
  EXPECT_EQ(report.normal_bytes, (std::size_t{8} + 16) << 20U);
  EXPECT_EQ(report.hugetlb_bytes + report.transparent_bytes, 0U);
  ASSERT_EQ(report.fallbacks.size(), 1U);
  EXPECT_TRUE(report.fallbacks[0].starts_with("not locked: ")) << report.fallbacks[0];
  const std::vector<std::string> lines = report.lines();
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[1], "memory: " + report.fallbacks[0]);
}

TEST(MemoryRefusals, MoreThanThereIsAddressSpaceIsNoMemory) {
  constexpr std::size_t kTooMuch = std::size_t{1} << 60U;
  Arena arena({.huge_pages = HugePages::Off, .lock = LockMemory::Off});
  EXPECT_THROW((void)arena.allocate<char>(kTooMuch), std::bad_alloc);
  (void)arena.allocate<char>(1);
  EXPECT_EQ(arena.report().used_bytes, 1U) << "what was refused takes nothing";
  EXPECT_NE(refusal([] {
              const SharedRegion region("test", kTooMuch, HugePages::Off, LockMemory::Off);
            }).find("shared memory: expected 1099511627776.0 MiB to share with a worker"),
            std::string::npos);
}

TEST(MemoryRefusals, AFolderIsNoFileToCopy) {
  const std::string folder = std::filesystem::temp_directory_path();
  const auto descriptors = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  };
  const auto before = descriptors();
  EXPECT_TRUE(refusal([&] {
                (void)copy_to_memory(folder);
              }).starts_with(folder + ": expected a file that can be read, found "));
  EXPECT_EQ(descriptors(), before) << "nothing stays open";
}

}  // namespace
}  // namespace tickwire

/// What is said where the host does not give the memory that was asked for.

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fcntl.h>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <iterator>
#include <new>
#include <span>
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

/// A system call with this argument is refused with an error.
struct Refused {
  int call;
  unsigned argument;  // Its place, from 0 …
  std::uint32_t value;
  int error;
};

/// On a thread of which the kernel refuses a call, as another kernel or another host would. False where it
/// does not let itself be told.
bool where_refused(const Refused& refused, const std::function<void()>& call) {
  bool done = false;
  std::thread([&] {
    const auto load = [](std::size_t at) {
      return sock_filter{BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<std::uint32_t>(at)};
    };
    sock_filter code[] = {
        load(offsetof(seccomp_data, nr)),
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 3, static_cast<std::uint32_t>(refused.call)},
        load(offsetof(seccomp_data, args) + 8 * refused.argument),
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, refused.value},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(refused.error)},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
    };
    const sock_fprog program{static_cast<unsigned short>(std::size(code)), code};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return;
    if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) return;
    call();
    done = true;
  }).join();
  return done;
}

constexpr std::size_t kPieceBytes = std::size_t{8} << 20U;

TEST(MemoryRefusals, AKernelThatCannotFaultMemoryInAtOnceHasItTouchedPageByPage) {
  std::size_t resident = 0;
  bool zeroed = true;
  const bool done = where_refused({SYS_madvise, 2, MADV_POPULATE_WRITE, EINVAL}, [&] {
    Arena arena({.huge_pages = HugePages::Off, .lock = LockMemory::Off});
    const std::span<char> memory = arena.allocate<char>(kPieceBytes, 4096);
    std::vector<unsigned char> pages(kPieceBytes / 4096);
    if (::mincore(memory.data(), kPieceBytes, pages.data()) != 0) return;
    for (const unsigned char page : pages) resident += page & 1U;
    for (const char c : memory) zeroed = zeroed && c == 0;
  });
  if (!done) GTEST_SKIP() << "no filter of system calls here";
  EXPECT_EQ(resident, kPieceBytes / 4096);
  EXPECT_TRUE(zeroed);
}

TEST(MemoryRefusals, MemoryThatCannotBeHadIsNoMemoryAndLeavesNothingBehind) {
  for (const Refused& refused : {Refused{SYS_madvise, 2, MADV_POPULATE_WRITE, ENOMEM},
                                 Refused{SYS_mprotect, 1, kPieceBytes, ENOMEM}}) {
    bool thrown = false;
    std::size_t used = 1;
    const bool done = where_refused(refused, [&] {
      Arena arena({.huge_pages = HugePages::Off, .lock = LockMemory::Off});
      try {
        (void)arena.allocate<char>(1);
      } catch (const std::bad_alloc&) {
        thrown = true;
      }
      used = arena.report().used_bytes + arena.report().normal_bytes;
    });
    if (!done) GTEST_SKIP() << "no filter of system calls here";
    EXPECT_TRUE(thrown) << refused.call;
    EXPECT_EQ(used, 0U);
  }
  std::string shared;
  const bool done = where_refused({SYS_madvise, 2, MADV_POPULATE_WRITE, ENOMEM}, [&] {
    shared = refusal([] { const SharedRegion region("test", 4096, HugePages::Off, LockMemory::Off); });
  });
  ASSERT_TRUE(done);
  EXPECT_TRUE(shared.starts_with("shared memory: expected ")) << shared;
  EXPECT_TRUE(shared.ends_with(" to share with a worker, found Cannot allocate memory")) << shared;
}

TEST(MemoryRefusals, SaysWhereThereAreNoTransparentHugePages) {
  ArenaReport report;
  const bool done = where_refused({SYS_madvise, 2, MADV_HUGEPAGE, EINVAL}, [&] {
    Arena arena({.huge_pages = HugePages::Auto, .lock = LockMemory::Off});
    (void)arena.allocate<char>(1);
    report = arena.report();
  });
  if (!done) GTEST_SKIP() << "no filter of system calls here";
  if (report.hugetlb_bytes != 0) GTEST_SKIP() << "the host has reserved huge pages";
  const auto said = [&](const std::string& text) {
    for (const std::string& line : report.fallbacks) {
      if (line.find(text) != std::string::npos) return true;
    }
    return false;
  };
  EXPECT_TRUE(said("no reserved huge pages: "));
  EXPECT_TRUE(said("no transparent huge pages: Invalid argument"));
  EXPECT_EQ(report.transparent_bytes + report.normal_bytes, kPieceBytes);
  if (report.normal_bytes != 0) {
    EXPECT_TRUE(said("did not become transparent huge pages"));
  }
}

TEST(MemoryRefusals, MemoryThatCannotBeSealedIsNotShared) {
  std::string found;
  const bool done = where_refused({SYS_fcntl, 1, F_ADD_SEALS, EPERM}, [&] {
    found = refusal([] { const SharedRegion region("test", 4096, HugePages::Off, LockMemory::Off); });
  });
  if (!done) GTEST_SKIP() << "no filter of system calls here";
  EXPECT_EQ(found, "shared memory: expected memory that can be sealed, found Operation not permitted");
}

TEST(MemoryRefusals, ALockThatIsRefusedIsToldOrAnError) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer locks nothing and says that it did";
#endif
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

#include "tickwire/metrics/page_guard.hpp"

#include <sys/wait.h>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csetjmp>
#include <csignal>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tickwire/core/error.hpp"

namespace tickwire::metrics {
namespace {

/// A file of some pages in memory, mapped, that the test cuts short.
class Cut {
 public:
  explicit Cut(std::size_t pages)
      : page(static_cast<std::size_t>(::sysconf(_SC_PAGESIZE))),
        bytes(pages * page),
        fd_(::memfd_create("page_guard_test", MFD_CLOEXEC)) {
    EXPECT_EQ(::ftruncate(fd_, static_cast<off_t>(bytes)), 0);
    data = static_cast<volatile char*>(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
    for (std::size_t at = 0; at < bytes; at += page) data[at] = 'x';
  }
  ~Cut() {
    ::munmap(const_cast<char*>(data), bytes);
    ::close(fd_);
  }
  void to(std::size_t pages) { EXPECT_EQ(::ftruncate(fd_, static_cast<off_t>(pages * page)), 0); }
  void* mapping() { return const_cast<char*>(data); }

  volatile char* data = nullptr;
  std::size_t page;
  std::size_t bytes;

 private:
  int fd_;
};

TEST(PageGuard, PutsZeroedMemoryWhereTheFileEnds) {
  Cut cut(8);
  const PageGuard guard(cut.mapping(), cut.bytes);
  EXPECT_EQ(guard.replaced(), 0U);
  cut.to(3);
  EXPECT_EQ(cut.data[2 * cut.page], 'x');
  EXPECT_EQ(guard.replaced(), 0U) << "what is there is the file's";
  EXPECT_EQ(cut.data[5 * cut.page], 0);
  cut.data[5 * cut.page] = 'y';
  cut.data[7 * cut.page + 9] = 'z';
  EXPECT_EQ(cut.data[5 * cut.page], 'y') << "each page once";
  EXPECT_EQ(cut.data[7 * cut.page + 9], 'z');
  EXPECT_EQ(guard.replaced(), 2U);
  // A file that grows again is not seen there any more, and does no harm.
  cut.to(8);
  EXPECT_EQ(cut.data[5 * cut.page], 'y');
  EXPECT_EQ(cut.data[4 * cut.page], 0);
  EXPECT_EQ(guard.replaced(), 2U);
}

TEST(PageGuard, ServesEveryThreadAtOnce) {
  Cut cut(64);
  const PageGuard guard(cut.mapping(), cut.bytes);
  cut.to(0);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&cut, t] {
      for (std::size_t i = t; i < 64; i += 4) cut.data[i * cut.page] = static_cast<char>(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < 64; ++i) EXPECT_EQ(cut.data[i * cut.page], static_cast<char>(i));
  EXPECT_EQ(guard.replaced(), 64U);
}

TEST(PageGuard, GuardsSeveralMappingsEachForItself) {
  Cut one(2);
  Cut two(2);
  const PageGuard first(one.mapping(), one.bytes);
  {
    const PageGuard second(two.mapping(), two.bytes);
    two.to(0);
    EXPECT_EQ(two.data[0], 0);
    EXPECT_EQ(first.replaced(), 0U);
    EXPECT_EQ(second.replaced(), 1U);
  }
  const PageGuard again(two.mapping(), two.bytes);
  EXPECT_EQ(again.replaced(), 0U);
  std::vector<std::unique_ptr<PageGuard>> many;
  EXPECT_THROW(
      for (int i = 0; i < 100; ++i) many.push_back(std::make_unique<PageGuard>(one.mapping(), one.bytes)),
      SetupError);
}

sigjmp_buf g_out;
void leave(int) { siglongjmp(g_out, 1); }

/// By the signal; a sanitizer had a handler of its own before, which reports and exits.
bool died_of_it(int status) {
  return (WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) ||
         (WIFEXITED(status) && WEXITSTATUS(status) != 0);
}

TEST(PageGuardDeathTest, LeavesAFaultElsewhereToWhoeverHandledItBefore) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        Cut guarded(1);
        Cut other(1);
        const PageGuard guard(guarded.mapping(), guarded.bytes);
        other.to(0);
        other.data[0] = 'x';
        std::_Exit(0);
      },
      died_of_it, "");
  EXPECT_EXIT(
      {
        std::signal(SIGBUS, leave);  // Before the first guard of this process.
        Cut guarded(1);
        Cut other(1);
        const PageGuard guard(guarded.mapping(), guarded.bytes);
        other.to(0);
        if (sigsetjmp(g_out, 1) == 0) other.data[0] = 'x';
        guarded.to(0);
        guarded.data[0] = 'y';
        std::_Exit(guarded.data[0] == 'y' && guard.replaced() == 1 ? 7 : 1);
      },
      testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace tickwire::metrics

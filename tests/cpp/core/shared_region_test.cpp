#include "tickwire/core/shared_region.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tickwire/core/error.hpp"

namespace tickwire {
namespace {

std::string refusal(int fd) {
  try {
    const SharedRegion region(fd);
  } catch (const SetupError& error) {
    return error.what();
  }
  return "";
}

TEST(SharedRegion, IsZeroedAndShowsEachSideWhatTheOtherWrote) {
  const SharedRegion made("test", 5000, HugePages::Off, LockMemory::Off);
  EXPECT_GE(made.bytes(), 5000U);
  EXPECT_TRUE(
      std::all_of(made.data(), made.data() + made.bytes(), [](std::byte b) { return b == std::byte{0}; }));
  const SharedRegion there(::dup(made.fd()));
  ASSERT_EQ(there.bytes(), made.bytes());
  ASSERT_NE(there.data(), made.data());
  std::memcpy(made.data() + 4990, "hello", 5);
  EXPECT_EQ(std::memcmp(there.data() + 4990, "hello", 5), 0);
  there.data()[0] = std::byte{7};
  EXPECT_EQ(made.data()[0], std::byte{7});
}

TEST(SharedRegion, CannotShrinkOrGrowUnderWhoMapsIt) {
  const SharedRegion made("test", 4096, HugePages::Off, LockMemory::Off);
  EXPECT_EQ(::ftruncate(made.fd(), 0), -1);
  EXPECT_EQ(::ftruncate(made.fd(), static_cast<off_t>(made.bytes() * 2)), -1);
}

TEST(SharedRegion, OutlivesItsMakerWithItsBytes) {
  int fd = -1;
  {
    const SharedRegion made("test", 4096, HugePages::Off, LockMemory::Off);
    made.data()[17] = std::byte{42};
    fd = ::dup(made.fd());
  }
  const SharedRegion there(fd);
  EXPECT_EQ(there.data()[17], std::byte{42});
}

TEST(SharedRegion, AForkedChildDoesNotInheritTheMapping) {
  const SharedRegion made("test", 4096, HugePages::Off, LockMemory::Off);
  unsigned char resident = 0;
  ASSERT_EQ(::mincore(made.data(), 1, &resident), 0);
  const pid_t child = ::fork();
  if (child == 0) ::_exit(::mincore(made.data(), 1, &resident) == 0 ? 1 : 0);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << "the child maps it";
}

TEST(SharedRegion, RefusesWhatIsNoSealedMemory) {
  const int unsealed = ::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  ASSERT_EQ(::ftruncate(unsealed, 4096), 0);
  EXPECT_NE(refusal(unsealed).find("one that may shrink"), std::string::npos);
  EXPECT_NE(refusal(::open("/dev/null", O_RDWR | O_CLOEXEC)).find("one that may shrink"), std::string::npos);
  EXPECT_NE(refusal(9999).find("Bad file descriptor"), std::string::npos);
}

TEST(SharedRegion, ReportsWhatItGot) {
  const SharedRegion made("test", 4096, HugePages::Auto, LockMemory::Off);
  ArenaReport report;
  made.add_to(report);
  made.add_to(report);
  EXPECT_EQ(report.hugetlb_bytes + report.normal_bytes, 2 * made.bytes());
  EXPECT_EQ(report.used_bytes, 2 * made.bytes());
  // Either the pool had room, or it says once why not.
  EXPECT_EQ(report.fallbacks.size(), report.normal_bytes == 0 ? 0U : 1U);
}

TEST(SharedRegion, RequiredHugePagesAreThereOrAnError) {
  try {
    const SharedRegion made("test", std::size_t{1} << 21U, HugePages::Require, LockMemory::Off);
    ArenaReport report;
    made.add_to(report);
    EXPECT_EQ(report.hugetlb_bytes, made.bytes());
  } catch (const SetupError& error) {
    EXPECT_NE(std::string(error.what()).find("huge_pages"), std::string::npos);
  }
}

TEST(CopyToMemory, StaysAsTheFileWas) {
  const std::string path = testing::TempDir() + "tickwire-copy-" + std::to_string(::getpid());
  std::ofstream(path, std::ios::binary) << "first" << std::string(100'000, 'x');
  const int fd = copy_to_memory(path);
  std::ofstream(path, std::ios::binary) << "second";
  std::filesystem::remove(path);
  std::ifstream copy("/proc/self/fd/" + std::to_string(fd), std::ios::binary);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(copy), {}), "first" + std::string(100'000, 'x'));
  EXPECT_EQ(::write(fd, "y", 1), -1);
  ::close(fd);
  EXPECT_THROW((void)copy_to_memory(path), SetupError);
}

}  // namespace
}  // namespace tickwire

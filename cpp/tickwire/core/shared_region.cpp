#include "tickwire/core/shared_region.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "tickwire/core/error.hpp"
#include "tickwire/core/pages.hpp"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26U)
#endif

namespace tickwire {

using detail::error_text;
using detail::mib;

namespace {

constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW;

}  // namespace

SharedRegion::SharedRegion(const std::string& name, std::size_t bytes, HugePages huge_pages, LockMemory lock)
    // A huge page for a few bytes would be a waste; whole ones for the rest, so that they can be had.
    : bytes_(detail::round_up(bytes,
                              huge_pages == HugePages::Off ? detail::page_bytes() : detail::kHugePageBytes)) {
  try {
    if (huge_pages == HugePages::Off || !map_hugetlb(name, huge_pages == HugePages::Require)) {
      map_ordinary(name, huge_pages != HugePages::Off);
    }
    ::madvise(data_, bytes_, MADV_DONTFORK);
    ::madvise(data_, bytes_, MADV_DONTDUMP);
    const std::string refused = detail::lock(data_, bytes_, lock);
    locked_ = lock != LockMemory::Off && refused.empty();
    if (!refused.empty()) fallback_ += (fallback_.empty() ? "" : "; ") + refused;
    seal();
  } catch (...) {
    if (data_ != nullptr) ::munmap(data_, bytes_);
    if (fd_ >= 0) ::close(fd_);
    throw;
  }
}

SharedRegion::SharedRegion(int fd) {
  const auto refuse = [fd](const std::string& found) {
    ::close(fd);
    throw SetupError("shared memory", "an inherited descriptor of sealed memory", found);
  };
  struct stat info{};
  if (::fstat(fd, &info) != 0) refuse(error_text(errno));
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & kSizeSeals) != kSizeSeals) refuse("one that may shrink");
  bytes_ = static_cast<std::size_t>(info.st_size);
  void* const mapping = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapping == MAP_FAILED) refuse(error_text(errno));
  ::close(fd);
  data_ = static_cast<std::byte*>(mapping);
  ::madvise(data_, bytes_, MADV_DONTDUMP);
  // The pages are there; this puts them into our page table before the data plane needs them. An older
  // kernel does so at the first access.
  ::madvise(data_, bytes_, MADV_POPULATE_WRITE);
}

SharedRegion::~SharedRegion() {
  ::munmap(data_, bytes_);
  if (fd_ >= 0) ::close(fd_);
}

bool SharedRegion::map_hugetlb(const std::string& name, bool required) {
  const int fd = ::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_HUGE_2MB);
  int error = fd < 0 ? errno : 0;
  if (error == 0 && ::ftruncate(fd, static_cast<off_t>(bytes_)) != 0) error = errno;
  void* mapping = MAP_FAILED;
  if (error == 0) {
    // Shared pages are reserved by the mapping: where the pool is too small, this fails and no access.
    mapping = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapping == MAP_FAILED) error = errno;
  }
  if (error == 0) error = detail::prefault(static_cast<std::byte*>(mapping), bytes_);
  if (error == 0) {
    data_ = static_cast<std::byte*>(mapping);
    fd_ = fd;
    hugetlb_ = true;
    return true;
  }
  if (mapping != MAP_FAILED) ::munmap(mapping, bytes_);
  if (fd >= 0) ::close(fd);
  const std::string found = error_text(error) + "; " + detail::pool_state();
  if (required) {
    throw SetupError("memory.huge_pages = \"require\"", mib(bytes_) + " of reserved huge pages to share",
                     found);
  }
  fallback_ = "no reserved huge pages: " + found;
  return false;
}

void SharedRegion::map_ordinary(const std::string& name, bool huge) {
  const auto refuse = [this](int error) {
    throw SetupError("shared memory", mib(bytes_) + " to share with a worker", error_text(error));
  };
  fd_ = ::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd_ < 0) refuse(errno);
  if (::ftruncate(fd_, static_cast<off_t>(bytes_)) != 0) refuse(errno);
  void* const mapping = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (mapping == MAP_FAILED) refuse(errno);
  data_ = static_cast<std::byte*>(mapping);
  // Where the host gives shared memory transparent huge pages at all, it does so on request.
  if (huge) ::madvise(data_, bytes_, MADV_HUGEPAGE);
  if (const int error = detail::prefault(data_, bytes_); error != 0) refuse(error);
}

void SharedRegion::seal() const {
  if (::fcntl(fd_, F_ADD_SEALS, kSizeSeals | F_SEAL_SEAL) != 0) {
    throw SetupError("shared memory", "memory that can be sealed", error_text(errno));
  }
}

void SharedRegion::add_to(ArenaReport& report) const {
  (hugetlb_ ? report.hugetlb_bytes : report.normal_bytes) += bytes_;
  if (locked_) report.locked_bytes += bytes_;
  report.used_bytes += bytes_;
  if (!fallback_.empty() &&
      std::find(report.fallbacks.begin(), report.fallbacks.end(), fallback_) == report.fallbacks.end()) {
    report.fallbacks.push_back(fallback_);
  }
}

int copy_to_memory(const std::string& path) {
  const auto refuse = [&path](int error) {
    throw SetupError(path, "a file that can be read", error_text(error));
  };
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) refuse(errno);
  const int copy = ::memfd_create("tickwire-copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  int error = copy < 0 ? errno : 0;
  while (error == 0) {
    const ssize_t sent = ::sendfile(copy, file, nullptr, std::size_t{1} << 30U);
    if (sent == 0) break;
    if (sent < 0 && errno != EINTR) error = errno;
  }
  ::close(file);
  if (error == 0 && ::fcntl(copy, F_ADD_SEALS, kSizeSeals | F_SEAL_WRITE | F_SEAL_SEAL) != 0) error = errno;
  if (error != 0) {
    if (copy >= 0) ::close(copy);
    refuse(error);
  }
  return copy;
}

}  // namespace tickwire

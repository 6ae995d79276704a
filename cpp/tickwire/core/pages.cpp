#include "tickwire/core/pages.hpp"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <system_error>

#include "tickwire/core/error.hpp"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14; an older kernel says EINVAL and we touch the pages.
#endif

namespace tickwire::detail {

std::size_t page_bytes() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

std::string error_text(int error) { return std::generic_category().message(error); }

std::string mib(std::size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f MiB", static_cast<double>(bytes) / 1048576.0);
  return text;
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line.empty() ? "unknown" : line;
}

std::string pool_state() {
  const std::string folder = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
  return first_line(folder + "free_hugepages") + " of " + first_line(folder + "nr_hugepages") +
         " reserved 2 MiB pages are free";
}

int prefault(std::byte* data, std::size_t bytes) {
  if (::madvise(data, bytes, MADV_POPULATE_WRITE) == 0) return 0;
  if (errno != EINVAL) return errno;
  const std::size_t step = page_bytes();
  for (std::size_t at = 0; at < bytes; at += step) {
    *const_cast<volatile std::byte*>(data + at) = std::byte{0};
  }
  return 0;
}

std::string lock(std::byte* data, std::size_t bytes, LockMemory wanted) {
  if (wanted == LockMemory::Off) return "";
  if (::mlock(data, bytes) == 0) return "";
  const int error = errno;
  rlimit limit{};
  ::getrlimit(RLIMIT_MEMLOCK, &limit);
  const std::string allowed = limit.rlim_cur == RLIM_INFINITY ? "unlimited" : mib(limit.rlim_cur);
  const std::string found = error_text(error) + " (the limit for locked memory is " + allowed +
                            "; raise it with ulimit -l, limits.conf or LimitMEMLOCK=)";
  if (wanted == LockMemory::Require) {
    throw SetupError("memory.lock = \"require\"", "to lock " + mib(bytes), found);
  }
  return "not locked: " + found;
}

}  // namespace tickwire::detail

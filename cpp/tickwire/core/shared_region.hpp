#pragma once

/// Memory that two processes map: a memfd, sealed so that neither can shrink it under the other.
///
/// The maker takes it from the reserved huge pages, else from normal ones, as its arena does; zeroed,
/// faulted in, locked where the limit allows. It is not inherited by fork(): whoever shall see it gets
/// the descriptor, and maps it at another address, so nothing in it is a pointer. It lives as long as
/// any process maps it and leaves no name behind.
///
/// Set-up thread only.

#include <cstddef>
#include <string>
#include <string_view>

#include "tickwire/core/arena.hpp"

namespace tickwire {

class SharedRegion {
 public:
  /// Makes one of at least `bytes`. `name` shows in /proc. Throws SetupError.
  SharedRegion(const std::string& name, std::size_t bytes, HugePages huge_pages, LockMemory lock);
  /// Maps the one behind an inherited descriptor, which it closes. Throws SetupError where that is no
  /// sealed memory.
  explicit SharedRegion(int fd);
  ~SharedRegion();
  SharedRegion(const SharedRegion&) = delete;
  SharedRegion& operator=(const SharedRegion&) = delete;

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  /// To be inherited by the other process; -1 where this is the other process.
  [[nodiscard]] int fd() const noexcept { return fd_; }

  /// Adds this region to the report of start-up memory.
  void add_to(ArenaReport& report) const;

 private:
  [[nodiscard]] bool map_hugetlb(const std::string& name, bool required);
  void map_ordinary(const std::string& name, bool huge);
  void seal() const;

  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  int fd_ = -1;
  bool hugetlb_ = false;
  bool locked_ = false;
  std::string fallback_;
};

/// A read-only copy of a file in memory, which stays as it is whatever becomes of the file: what a
/// process that is started again later reads must be what the first one read. Returns a descriptor that
/// can be opened again as /proc/self/fd/N; the caller closes it. Throws SetupError.
[[nodiscard]] int copy_to_memory(const std::string& path);

}  // namespace tickwire

#pragma once

/// Keeps a process alive whose mapped file somebody else cuts short.
///
/// A page that a file no longer has is a SIGBUS for whoever touches it in a mapping. Within a guarded mapping
/// the handler puts a page of this process's own memory there instead, zeroed, and the access is done again:
/// what stood there is lost, what comes is seen by this process alone, and nothing ends. Any other SIGBUS
/// goes to whoever handled it before.
///
/// Setup and close only; the handler itself allocates nothing and takes no lock. One guard a mapping, which
/// must outlive it. Throws SetupError when there are too many.

#include <cstddef>
#include <cstdint>

namespace tickwire::metrics {

class PageGuard {
 public:
  PageGuard(void* data, std::size_t bytes);
  ~PageGuard();
  PageGuard(const PageGuard&) = delete;
  PageGuard& operator=(const PageGuard&) = delete;

  /// Pages that were replaced in this mapping.
  [[nodiscard]] std::uint64_t replaced() const noexcept;

 private:
  std::size_t slot_;
};

}  // namespace tickwire::metrics

#pragma once

/// What the arena and a shared region ask of the kernel's memory, and how its answers are worded.
/// Set-up only.

#include <cstddef>
#include <string>

#include "tickwire/core/arena.hpp"

namespace tickwire::detail {

inline constexpr std::size_t kHugePageBytes = std::size_t{2} << 20U;

constexpr std::size_t round_up(std::size_t value, std::size_t unit) noexcept {
  return (value + unit - 1) / unit * unit;
}

std::size_t page_bytes();
std::string error_text(int error);
/// "12.0 MiB"
std::string mib(std::size_t bytes);
/// The first line of a file; "unknown" where there is none.
std::string first_line(const std::string& path);
/// How many reserved huge pages are free.
std::string pool_state();

/// Faults every page of fresh, zeroed memory in. Zero, or the error: asking the kernel to do it turns a huge
/// page that a cgroup limit takes away again into an error here, where touching it would be a SIGBUS.
int prefault(std::byte* data, std::size_t bytes);

/// Locks the pages. Empty, or why they are not locked; throws SetupError where the lock is required.
std::string lock(std::byte* data, std::size_t bytes, LockMemory wanted);

}  // namespace tickwire::detail

#include "tickwire/core/arena.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string_view>

#include "tickwire/core/error.hpp"
#include "tickwire/core/pages.hpp"

#ifndef MAP_HUGE_2MB
#define MAP_HUGE_2MB (21 << 26)
#endif

namespace tickwire {

using detail::error_text;
using detail::first_line;
using detail::kHugePageBytes;
using detail::mib;
using detail::page_bytes;
using detail::pool_state;
using detail::prefault;
using detail::round_up;

namespace {

constexpr std::size_t kMaxAlign = 4096;

/// Bytes of transparent huge pages in the mapping that starts exactly at `data`. Our chunks have
/// inaccessible guards on both sides, so the kernel never merges them with a neighbour.
std::size_t transparent_bytes_at(const std::byte* data) {
  std::ifstream smaps("/proc/self/smaps");
  char wanted[32];
  std::snprintf(wanted, sizeof wanted, "%lx-",
                static_cast<unsigned long>(reinterpret_cast<std::uintptr_t>(data)));
  constexpr std::string_view kKey = "AnonHugePages:";
  bool found = false;
  for (std::string line; std::getline(smaps, line);) {
    if (!found) {
      found = line.starts_with(wanted);
    } else if (line.starts_with(kKey)) {
      return std::stoull(line.substr(kKey.size())) * 1024;
    }
  }
  return 0;
}

}  // namespace

std::vector<std::string> ArenaReport::lines() const {
  std::vector<std::string> result;
  result.push_back("memory: " + mib(hugetlb_bytes) + " on reserved huge pages, " + mib(transparent_bytes) +
                   " on transparent huge pages, " + mib(normal_bytes) + " on normal pages; " +
                   mib(locked_bytes) + " locked, " + mib(used_bytes) + " in use");
  for (const std::string& fallback : fallbacks) result.push_back("memory: " + fallback);
  return result;
}

Arena::Arena(ArenaConfig config) : config_(config) {
  if (config_.chunk_bytes == 0) throw std::logic_error("Arena: chunk_bytes is 0");
}

Arena::~Arena() {
  for (const Chunk& chunk : chunks_) ::munmap(chunk.mapping, chunk.mapping_bytes);
}

void Arena::note(std::string text) {
  // Ten chunks that fall back for one reason are one line.
  if (std::find(fallbacks_.begin(), fallbacks_.end(), text) == fallbacks_.end()) {
    fallbacks_.push_back(std::move(text));
  }
}

std::byte* Arena::allocate_bytes(std::size_t bytes, std::size_t align) {
  if (sealed_) throw std::logic_error("Arena: allocate() after seal(): the data plane is running");
  if (!std::has_single_bit(align) || align > kMaxAlign) {
    throw std::logic_error("Arena: align must be a power of two up to 4096, found " + std::to_string(align));
  }
  std::size_t start = round_up(offset_, align);
  if (chunks_.empty() || start > chunks_.back().bytes || bytes > chunks_.back().bytes - start) {
    add_chunk(bytes);
    start = 0;
  }
  offset_ = start + bytes;
  used_ += bytes;
  return chunks_.back().data + start;
}

void Arena::add_chunk(std::size_t at_least) {
  Chunk chunk{};
  chunk.bytes = round_up(std::max(at_least, config_.chunk_bytes), kHugePageBytes);
  if (config_.huge_pages == HugePages::Off || !map_hugetlb(chunk)) map_ordinary(chunk);
  // From here the destructor gives it back, also where a required lock throws.
  chunks_.push_back(chunk);
  offset_ = 0;
  ::madvise(chunk.data, chunk.bytes, MADV_DONTFORK);
  if (config_.lock != LockMemory::Off) lock(chunks_.back());
}

bool Arena::map_hugetlb(Chunk& chunk) {
  void* const mapping = ::mmap(nullptr, chunk.bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB, -1, 0);
  int error = mapping == MAP_FAILED ? errno : 0;
  if (error == 0) {
    error = prefault(static_cast<std::byte*>(mapping), chunk.bytes);
    if (error != 0) ::munmap(mapping, chunk.bytes);
  }
  if (error != 0) {
    const std::string found = error_text(error) + "; " + pool_state();
    if (config_.huge_pages == HugePages::Require) {
      throw SetupError("memory.huge_pages = \"require\"",
                       mib(chunk.bytes) +
                           " of reserved huge pages (reserve them with: sysctl vm.nr_hugepages=" +
                           std::to_string(chunk.bytes / kHugePageBytes) + " or more)",
                       found);
    }
    note("no reserved huge pages: " + found);
    return false;
  }
  chunk.data = chunk.mapping = static_cast<std::byte*>(mapping);
  chunk.mapping_bytes = chunk.bytes;
  chunk.hugetlb = true;
  return true;
}

void Arena::map_ordinary(Chunk& chunk) {
  // Inaccessible address space with the chunk in its middle, on a 2 MiB boundary. What is left on
  // both sides costs nothing and stops an overrun, and the kernel's page counts for the chunk are
  // its own.
  const std::size_t guard = page_bytes();
  chunk.mapping_bytes = chunk.bytes + kHugePageBytes + 2 * guard;
  void* const mapping =
      ::mmap(nullptr, chunk.mapping_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  chunk.mapping = static_cast<std::byte*>(mapping);
  const std::uintptr_t start =
      round_up(reinterpret_cast<std::uintptr_t>(chunk.mapping) + guard, kHugePageBytes);
  chunk.data = chunk.mapping + (start - reinterpret_cast<std::uintptr_t>(chunk.mapping));

  const bool huge = config_.huge_pages != HugePages::Off;
  if (::mprotect(chunk.data, chunk.bytes, PROT_READ | PROT_WRITE) != 0) {
    ::munmap(chunk.mapping, chunk.mapping_bytes);
    throw std::bad_alloc();
  }
  if (::madvise(chunk.data, chunk.bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) != 0 && huge) {
    note("no transparent huge pages: " + error_text(errno));
  }
  if (prefault(chunk.data, chunk.bytes) != 0) {
    ::munmap(chunk.mapping, chunk.mapping_bytes);
    throw std::bad_alloc();
  }
}

void Arena::lock(Chunk& chunk) {
  const std::string refused = detail::lock(chunk.data, chunk.bytes, config_.lock);
  chunk.locked = refused.empty();
  if (!refused.empty()) note(refused);
}

ArenaReport Arena::report() const {
  ArenaReport report;
  report.used_bytes = used_;
  report.fallbacks = fallbacks_;
  for (const Chunk& chunk : chunks_) {
    if (chunk.locked) report.locked_bytes += chunk.bytes;
    if (chunk.hugetlb) {
      report.hugetlb_bytes += chunk.bytes;
      continue;
    }
    const std::size_t transparent = std::min(transparent_bytes_at(chunk.data), chunk.bytes);
    report.transparent_bytes += transparent;
    report.normal_bytes += chunk.bytes - transparent;
  }
  if (config_.huge_pages != HugePages::Off && report.normal_bytes != 0) {
    report.fallbacks.push_back(mib(report.normal_bytes) + " did not become transparent huge pages (" +
                               "/sys/kernel/mm/transparent_hugepage/enabled reads: " +
                               first_line("/sys/kernel/mm/transparent_hugepage/enabled") + ")");
  }
  return report;
}

}  // namespace tickwire

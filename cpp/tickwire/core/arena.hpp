#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace tickwire {

enum class HugePages : std::uint8_t {
  Auto,     // The reserved pool, else transparent huge pages, else normal pages; reported.
  Require,  // The reserved pool or a SetupError: a run without it is not the run that was asked for.
  Off,      // Normal pages, also where the host makes all memory huge.
};

enum class LockMemory : std::uint8_t {
  Auto,     // Locked where the limit allows, else reported.
  Require,  // Locked or a SetupError.
  Off,
};

struct ArenaConfig {
  /// Memory is taken from the kernel in pieces of this size, rounded up to whole 2 MiB pages; an
  /// allocation larger than a piece gets one of its own.
  std::size_t chunk_bytes = std::size_t{8} << 20U;
  HugePages huge_pages = HugePages::Auto;
  LockMemory lock = LockMemory::Auto;
};

struct ArenaReport {
  std::size_t hugetlb_bytes = 0;
  std::size_t transparent_bytes = 0;  // As the kernel shows it, not as asked for.
  std::size_t normal_bytes = 0;
  std::size_t locked_bytes = 0;
  std::size_t used_bytes = 0;
  std::vector<std::string> fallbacks;  // One sentence for each thing that was wanted and not had.

  /// For the start-up report: one line of sums, then one for each distinct fallback.
  std::vector<std::string> lines() const;
};

/// The memory of the data plane: taken at setup, zeroed, faulted in and locked, given back whole by
/// the destructor. Setup thread only, until seal(); what it handed out may then go to any thread.
///
/// One place instead of operator new, so that huge pages, locking and "nothing is allocated after
/// start" are each done once and can be reported. Chunks are not inherited by fork(): a child would
/// otherwise turn every later write of ours into a copy-on-write fault.
class Arena {
 public:
  explicit Arena(ArenaConfig config = {});
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// `count` zeroed objects. Throws SetupError where huge pages or the lock are required and cannot
  /// be had, std::bad_alloc where the kernel has no memory, std::logic_error after seal(). `align` is
  /// a power of two up to 4096. Starting each array on a cache line keeps two threads' arrays apart.
  template <typename T>
    requires std::is_trivially_destructible_v<T>
  std::span<T> allocate(std::size_t count, std::size_t align = 64) {
    if (count > static_cast<std::size_t>(PTRDIFF_MAX) / sizeof(T)) throw std::bad_array_new_length();
    std::byte* const raw = allocate_bytes(count * sizeof(T), align < alignof(T) ? alignof(T) : align);
    T* const first = reinterpret_cast<T*>(raw);
    for (std::size_t i = 0; i < count; ++i) ::new (static_cast<void*>(first + i)) T{};
    return {first, count};
  }

  /// From here on allocate() throws: the data plane runs.
  void seal() noexcept { sealed_ = true; }
  bool sealed() const noexcept { return sealed_; }

  ArenaReport report() const;

 private:
  struct Chunk {
    std::byte* data;  // What allocate() hands out of.
    std::size_t bytes;
    std::byte* mapping;  // What munmap() wants: data with its guards and alignment.
    std::size_t mapping_bytes;
    bool hugetlb;
    bool locked;
  };

  std::byte* allocate_bytes(std::size_t bytes, std::size_t align);
  void add_chunk(std::size_t at_least);
  bool map_hugetlb(Chunk& chunk);
  void map_ordinary(Chunk& chunk);
  void lock(Chunk& chunk);
  void note(std::string text);

  ArenaConfig config_;
  std::vector<Chunk> chunks_;
  std::vector<std::string> fallbacks_;
  std::size_t offset_ = 0;  // Into the last chunk.
  std::size_t used_ = 0;
  bool sealed_ = false;
};

}  // namespace tickwire

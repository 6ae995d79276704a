#include "counting.hpp"

#include <dlfcn.h>
#include <link.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>

// The C library's own, under the names that do not come back to us.
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* old, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);
void __libc_free(void* memory);
}

namespace tickwire::alloc_test {
namespace {

struct Range {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  [[nodiscard]] bool holds(std::uintptr_t address) const { return address >= begin && address < end; }
};

constexpr std::size_t kRanges = 8;
constexpr std::size_t kThreads = 16;
constexpr std::size_t kCallers = 8;

// Plain memory, written while nothing is counted: the hooks must not allocate.
std::atomic<bool> counting{false};
std::array<pid_t, kThreads> watched_threads{};
std::array<Range, kRanges> onnx_runtime_code{};
std::array<Range, kRanges> openssl_code{};
std::atomic<std::uint64_t> ours{0};
std::atomic<std::uint64_t> by_onnx_runtime{0};
std::atomic<std::uint64_t> by_openssl{0};
std::atomic<std::uint64_t> by_other_threads{0};
std::array<std::atomic<void*>, kCallers> callers{};

thread_local pid_t this_thread = 0;

bool holds(const std::array<Range, kRanges>& ranges, std::uintptr_t address) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [address](const Range& range) { return range.holds(address); });
}

void count(void* caller) {
  if (!counting.load(std::memory_order_relaxed)) return;
  if (this_thread == 0) this_thread = static_cast<pid_t>(::syscall(SYS_gettid));
  if (std::find(watched_threads.begin(), watched_threads.end(), this_thread) == watched_threads.end()) {
    ++by_other_threads;
    return;
  }
  const auto address = reinterpret_cast<std::uintptr_t>(caller);
  if (holds(onnx_runtime_code, address)) {
    ++by_onnx_runtime;
  } else if (holds(openssl_code, address)) {
    ++by_openssl;
  } else if (const std::uint64_t number = ours++; number < kCallers) {
    callers[number] = caller;
  }
}

void note(std::array<Range, kRanges>& ranges, const dl_phdr_info& info) {
  std::size_t next = 0;
  while (next < kRanges && ranges[next].end != 0) ++next;
  for (int i = 0; i < info.dlpi_phnum && next < kRanges; ++i) {
    const auto& header = info.dlpi_phdr[i];
    if (header.p_type != PT_LOAD || (header.p_flags & PF_X) == 0) continue;
    ranges[next++] = {info.dlpi_addr + header.p_vaddr, info.dlpi_addr + header.p_vaddr + header.p_memsz};
  }
}

}  // namespace

void start_counting(const std::vector<pid_t>& watched) {
  watched_threads.fill(0);
  std::copy_n(watched.begin(), std::min(watched.size(), kThreads), watched_threads.begin());
  onnx_runtime_code.fill({});
  openssl_code.fill({});
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void*) {
        const std::string_view name = info->dlpi_name;
        if (name.find("libonnxruntime") != std::string_view::npos) note(onnx_runtime_code, *info);
        if (name.find("libssl") != std::string_view::npos ||
            name.find("libcrypto") != std::string_view::npos) {
          note(openssl_code, *info);
        }
        return 0;
      },
      nullptr);
  for (auto& caller : callers) caller = nullptr;
  ours = by_onnx_runtime = by_openssl = by_other_threads = 0;
  counting = true;
}

Counts stop_counting() {
  counting = false;
  return {.ours = ours,
          .onnx_runtime = by_onnx_runtime,
          .openssl = by_openssl,
          .other_threads = by_other_threads};
}

std::string first_callers() {
  std::string text;
  for (const auto& caller : callers) {
    void* const address = caller;
    if (address == nullptr) break;
    Dl_info info{};
    ::dladdr(address, &info);
    char line[256];
    std::snprintf(line, sizeof line, "  %s + 0x%zx %s\n", info.dli_fname != nullptr ? info.dli_fname : "?",
                  static_cast<std::size_t>(static_cast<char*>(address) - static_cast<char*>(info.dli_fbase)),
                  info.dli_sname != nullptr ? info.dli_sname : "");
    text += line;
  }
  return text;
}

}  // namespace tickwire::alloc_test

using tickwire::alloc_test::count;

extern "C" {

void* malloc(std::size_t size) {
  count(__builtin_return_address(0));
  return __libc_malloc(size);
}
void* calloc(std::size_t number, std::size_t size) {
  count(__builtin_return_address(0));
  return __libc_calloc(number, size);
}
void* realloc(void* old, std::size_t size) {
  count(__builtin_return_address(0));
  return __libc_realloc(old, size);
}
void* memalign(std::size_t alignment, std::size_t size) {
  count(__builtin_return_address(0));
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  count(__builtin_return_address(0));
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** out, std::size_t alignment, std::size_t size) {
  count(__builtin_return_address(0));
  void* const memory = __libc_memalign(alignment, size);
  if (memory == nullptr) return ENOMEM;
  *out = memory;
  return 0;
}
void free(void* memory) { __libc_free(memory); }

}  // extern "C"

namespace {

void* allocate(std::size_t size, std::size_t alignment, void* caller) {
  count(caller);
  void* const memory =
      alignment == 0 ? __libc_malloc(size == 0 ? 1 : size) : __libc_memalign(alignment, size == 0 ? 1 : size);
  return memory;
}

void* allocate_or_throw(std::size_t size, std::size_t alignment, void* caller) {
  void* const memory = allocate(size, alignment, caller);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

// NOLINTBEGIN(misc-new-delete-overloads): all of them, below.
void* operator new(std::size_t size) { return allocate_or_throw(size, 0, __builtin_return_address(0)); }
void* operator new[](std::size_t size) { return allocate_or_throw(size, 0, __builtin_return_address(0)); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return allocate(size, 0, __builtin_return_address(0));
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return allocate(size, 0, __builtin_return_address(0));
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocate_or_throw(size, static_cast<std::size_t>(alignment), __builtin_return_address(0));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return allocate_or_throw(size, static_cast<std::size_t>(alignment), __builtin_return_address(0));
}
void operator delete(void* memory) noexcept { __libc_free(memory); }
void operator delete[](void* memory) noexcept { __libc_free(memory); }
void operator delete(void* memory, std::size_t) noexcept { __libc_free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { __libc_free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { __libc_free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { __libc_free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { __libc_free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { __libc_free(memory); }
// NOLINTEND(misc-new-delete-overloads)

#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include "tickwire/core/error.hpp"

namespace tickwire {

/// Readable bytes that follow every message handed out: simdjson reads in whole vectors and may look
/// this far past the end. What is in them does not matter.
inline constexpr std::size_t kMessagePadding = 64;

/// A fixed buffer of its own pages, made at set-up and never grown.
///
/// A limit such as "frames up to 16 MiB" is rarely reached, so only the first `prefault_bytes` are
/// made resident; the rest costs address space until a message that large comes. Setup only; throws
/// SetupError when the kernel refuses the mapping.
class PageBuffer {
 public:
  PageBuffer() = default;

  PageBuffer(const char* what, std::size_t bytes, std::size_t prefault_bytes = 0) : bytes_(bytes) {
    void* pages =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) {
      throw SetupError(std::string(what) + ": cannot map " + std::to_string(bytes) +
                       " bytes: " + std::strerror(errno));
    }
    data_ = static_cast<char*>(pages);
    std::memset(data_, 0, prefault_bytes < bytes ? prefault_bytes : bytes);
  }

  PageBuffer(PageBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  PageBuffer& operator=(PageBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  PageBuffer(const PageBuffer&) = delete;
  PageBuffer& operator=(const PageBuffer&) = delete;

  ~PageBuffer() {
    if (data_ != nullptr) ::munmap(data_, bytes_);
  }

  char* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return bytes_; }

 private:
  char* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace tickwire

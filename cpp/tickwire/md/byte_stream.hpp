#pragma once

/// The bytes of a file, plain, .gz or .zst (told apart by their first bytes), decompressed. One thread, for
/// the readers of captures and of message files. What it needs for either compression is made once and used
/// for all files, so that opening the next one takes no memory.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "tickwire/core/error.hpp"

namespace tickwire::md {

/// Setup: the files that a run is to read, each of which must be there. They are not opened: a pipe can be
/// opened once. Throws SetupError, which calls them `what`.
inline std::vector<std::string> readable_files(const std::string& what, std::vector<std::string> paths) {
  for (const std::string& path : paths) {
    struct stat status{};
    if (::stat(path.c_str(), &status) != 0 || ::access(path.c_str(), R_OK) != 0) {
      throw SetupError(what + " " + path, "a file that can be read", std::strerror(errno));
    }
    if (S_ISDIR(status.st_mode)) throw SetupError(what + " " + path, "a file", "a directory");
  }
  return paths;
}

class ByteStream {
 public:
  ByteStream() : input_(kInputBytes), zstd_(ZSTD_createDStream()) {
    if (zstd_ == nullptr) throw std::bad_alloc();
    // 15 window bits, the most there are, and 16 for "a gzip header, nothing else".
    if (inflateInit2(&inflate_, 15 + 16) != Z_OK) {
      ZSTD_freeDStream(zstd_);
      throw std::bad_alloc();
    }
  }
  ~ByteStream() {
    close();
    inflateEnd(&inflate_);
    ZSTD_freeDStream(zstd_);
  }
  ByteStream(const ByteStream&) = delete;
  ByteStream& operator=(const ByteStream&) = delete;

  /// False with errno set where the file cannot be opened.
  bool open(const std::string& path, bool follow) noexcept {
    close();
    follow_ = follow;
    do {
      fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    } while (fd_ < 0 && errno == EINTR);
    begin_ = end_ = 0;
    input_ended_ = false;
    started_ = false;
    between_frames_ = true;
    failure_ = nullptr;
    compression_ = Compression::None;
    inflateReset(&inflate_);
    ZSTD_initDStream(zstd_);
    return fd_ >= 0;
  }

  /// Up to `size` bytes; 0 at the end, which failure() explains where it is not the proper one.
  std::size_t read(char* out, std::size_t size) noexcept {
    if (!started_ && !fill()) return 0;
    switch (compression_) {
      case Compression::None: return read_plain(out, size);
      case Compression::Gzip: return read_gzip(out, size);
      case Compression::Zstd: return read_zstd(out, size);
    }
    return 0;
  }

  [[nodiscard]] const char* failure() const noexcept { return failure_; }

 private:
  static constexpr std::size_t kInputBytes = std::size_t{256} << 10U;

  enum class Compression : std::uint8_t { None, Gzip, Zstd };

  void close() noexcept {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

  /// The next block of the file as it lies on the disk. False where it cannot be read.
  bool fill() noexcept {
    // The first bytes say what the file is, so they are wanted together, however late they come.
    const std::size_t at_least = started_ ? 1 : 4;
    if (started_) begin_ = end_ = 0;
    while (end_ < at_least && !input_ended_) {
      const ssize_t got = ::read(fd_, input_.data() + end_, input_.size() - end_);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) {
        failure_ = "the file cannot be read";
        input_ended_ = true;
        return false;
      }
      end_ += static_cast<std::size_t>(got);
      if (got != 0) continue;
      input_ended_ = !follow_;
      break;
    }
    if (!started_) {
      if (end_ < at_least && !input_ended_) return false;
      started_ = true;
      static constexpr std::array<unsigned char, 4> kZstdMagic{0x28, 0xB5, 0x2F, 0xFD};
      if (end_ >= 2 && std::memcmp(input_.data(), "\x1F\x8B", 2) == 0) {
        compression_ = Compression::Gzip;
      } else if (end_ >= 4 && std::memcmp(input_.data(), kZstdMagic.data(), 4) == 0) {
        compression_ = Compression::Zstd;
      }
    }
    return true;
  }

  std::size_t read_plain(char* out, std::size_t size) noexcept {
    if (begin_ == end_ && (input_ended_ || !fill())) return 0;
    const std::size_t got = std::min(size, end_ - begin_);
    std::memcpy(out, input_.data() + begin_, got);
    begin_ += got;
    return got;
  }

  std::size_t fail(const char* what) noexcept {
    failure_ = what;
    input_ended_ = true;
    begin_ = end_ = 0;
    return 0;
  }

  std::size_t read_gzip(char* out, std::size_t size) noexcept {
    if (failure_ != nullptr) return 0;
    for (;;) {
      if (begin_ == end_ && !input_ended_ && !fill()) return 0;
      const bool at_end = begin_ == end_;
      if (at_end && between_frames_) return 0;
      if (between_frames_ && input_[begin_] == '\0') {
        // Tapes and some disks pad a file with zeros.
        ++begin_;
        continue;
      }
      between_frames_ = false;
      inflate_.next_in = reinterpret_cast<Bytef*>(input_.data() + begin_);
      inflate_.avail_in = static_cast<uInt>(end_ - begin_);
      inflate_.next_out = reinterpret_cast<Bytef*>(out);
      inflate_.avail_out = static_cast<uInt>(std::min<std::size_t>(size, std::size_t{1} << 30U));
      const uInt room = inflate_.avail_out;
      const int result = ::inflate(&inflate_, Z_NO_FLUSH);
      begin_ = end_ - inflate_.avail_in;
      const std::size_t got = room - inflate_.avail_out;
      if (result == Z_STREAM_END) {
        // Another member may follow: that is how gzip files are appended to.
        inflateReset(&inflate_);
        between_frames_ = true;
      } else if (result != Z_OK && result != Z_BUF_ERROR) {
        fail("the gzip stream is damaged");
        return got;
      }
      // As below: at the end of the file some of what was decoded may be left to write.
      if (got != 0) return got;
      if (at_end && !between_frames_) return follow_ ? 0 : fail("the gzip stream is cut");
    }
  }

  std::size_t read_zstd(char* out, std::size_t size) noexcept {
    if (failure_ != nullptr) return 0;
    for (;;) {
      if (begin_ == end_ && !input_ended_ && !fill()) return 0;
      ZSTD_inBuffer in{input_.data() + begin_, end_ - begin_, 0};
      ZSTD_outBuffer result{out, size, 0};
      const bool at_end = begin_ == end_;
      if (at_end && between_frames_) return 0;
      // At the end of the file what was decoded already may still have to be written out.
      const std::size_t hint = ZSTD_decompressStream(zstd_, &result, &in);
      begin_ += in.pos;
      if (ZSTD_isError(hint) != 0) {
        fail("the zstd stream is damaged");
        return result.pos;
      }
      between_frames_ = hint == 0;
      if (result.pos != 0) return result.pos;
      if (at_end && !between_frames_) return follow_ ? 0 : fail("the zstd stream is cut");
    }
  }

  std::vector<char> input_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  int fd_ = -1;
  bool input_ended_ = false;
  bool follow_ = false;  // The end of the file may move.
  bool started_ = false;
  bool between_frames_ = true;  // A file that ends here ends properly.
  Compression compression_ = Compression::None;
  const char* failure_ = nullptr;
  z_stream inflate_{};
  ZSTD_DStream* zstd_;
};

}  // namespace tickwire::md

#pragma once

/// The bytes of a file, decompressed: plain, or as gzip, zstd, xz, bzip2 or a zip archive of one file, told
/// apart by their first bytes. Of the first four, several may stand one behind another. One thread, for the
/// readers of captures and of message files. What it needs for gzip and zstd is made once and used for all
/// files, so that opening the next one takes no memory; the others take theirs when they are met.

#include <bzlib.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tickwire::md {

/// Setup: the files that a run is to read, each of which must be there. They are not opened: a pipe can be
/// opened once. Throws SetupError, which calls them `what`.
std::vector<std::string> readable_files(const std::string& what, std::vector<std::string> paths);

class ByteStream {
 public:
  ByteStream();
  ~ByteStream();
  ByteStream(const ByteStream&) = delete;
  ByteStream& operator=(const ByteStream&) = delete;

  /// False with errno set where the file cannot be opened. `follow`: its end may move.
  bool open(const std::string& path, bool follow) noexcept;

  /// Up to `size` bytes; 0 at the end, which failure() explains where it is not the proper one.
  std::size_t read(char* out, std::size_t size) noexcept;

  [[nodiscard]] const char* failure() const noexcept { return failure_; }
  /// The failure is what the file is, not what became of it: nothing of it can be read.
  [[nodiscard]] bool refused() const noexcept { return failure_ != nullptr && refused_; }

 private:
  enum class Compression : std::uint8_t { None, Gzip, Zstd, Xz, Bzip2, ZipStored, ZipDeflated };
  /// What a decoder said of the bytes it was given.
  enum class Step : std::uint8_t { Going, FrameEnd, Damaged };

  void close() noexcept;
  bool fill() noexcept;
  void begin() noexcept;
  void open_zip() noexcept;
  [[nodiscard]] bool find_in_zip();
  std::size_t fail(const char* what) noexcept;
  bool refuse(const char* what) noexcept;
  std::size_t read_plain(char* out, std::size_t size) noexcept;
  std::size_t read_packed(char* out, std::size_t size) noexcept;
  std::size_t read_zip(char* out, std::size_t size) noexcept;
  Step step(char* out, std::size_t size, std::size_t& got) noexcept;
  [[nodiscard]] const char* text(bool cut) const noexcept;

  std::vector<char> input_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  int fd_ = -1;
  bool input_ended_ = false;
  bool follow_ = false;
  bool started_ = false;
  bool between_frames_ = true;  // A file that ends here ends properly.
  Compression compression_ = Compression::None;
  const char* failure_ = nullptr;
  bool refused_ = false;
  std::string refusal_;

  z_stream inflate_{};
  ZSTD_DStream* zstd_;
  lzma_stream xz_ = LZMA_STREAM_INIT;
  bz_stream bzip2_{};
  bool bzip2_begun_ = false;

  // Of a zip archive's one file.
  std::uint64_t zip_left_ = 0;  // Stored: bytes still to come.
  std::uint32_t zip_crc_ = 0;
  std::uint32_t zip_seen_crc_ = 0;
  bool zip_ended_ = false;
};

}  // namespace tickwire::md

#include "tickwire/md/byte_stream.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <new>
#include <string_view>

#include "tickwire/core/error.hpp"

namespace tickwire::md {

namespace {

constexpr std::size_t kInputBytes = std::size_t{256} << 10U;
constexpr std::uint64_t kXzMemoryBytes = std::uint64_t{1} << 30U;  // `xz -9` takes 65 MB to read.

std::uint64_t load_le(const char* at, std::size_t bytes) noexcept {
  std::uint64_t value = 0;
  for (std::size_t i = bytes; i-- != 0;) value = value << 8U | static_cast<unsigned char>(at[i]);
  return value;
}

/// Exactly `size` bytes at `offset`.
bool read_at(int fd, std::uint64_t offset, char* out, std::size_t size) noexcept {
  while (size != 0) {
    const ssize_t got = ::pread(fd, out, size, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    out += got;
    offset += static_cast<std::uint64_t>(got);
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

}  // namespace

std::vector<std::string> readable_files(const std::string& what, std::vector<std::string> paths) {
  for (const std::string& path : paths) {
    struct stat status{};
    if (::stat(path.c_str(), &status) != 0 || ::access(path.c_str(), R_OK) != 0) {
      throw SetupError(what + " " + path, "a file that can be read", std::strerror(errno));
    }
    if (S_ISDIR(status.st_mode)) throw SetupError(what + " " + path, "a file", "a directory");
  }
  return paths;
}

ByteStream::ByteStream() : input_(kInputBytes), zstd_(ZSTD_createDStream()) {
  if (zstd_ == nullptr) throw std::bad_alloc();
  if (inflateInit2(&inflate_, MAX_WBITS) != Z_OK) {
    ZSTD_freeDStream(zstd_);
    throw std::bad_alloc();
  }
}

ByteStream::~ByteStream() {
  close();
  inflateEnd(&inflate_);
  ZSTD_freeDStream(zstd_);
}

void ByteStream::close() noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  lzma_end(&xz_);
  if (bzip2_begun_) BZ2_bzDecompressEnd(&bzip2_);
  bzip2_begun_ = false;
}

bool ByteStream::open(const std::string& path, bool follow) noexcept {
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
  refused_ = false;
  compression_ = Compression::None;
  return fd_ >= 0;
}

std::size_t ByteStream::read(char* out, std::size_t size) noexcept {
  if (!started_ && !fill()) return 0;
  if (failure_ != nullptr) return 0;
  switch (compression_) {
    case Compression::None: return read_plain(out, size);
    case Compression::ZipStored:
    case Compression::ZipDeflated: return read_zip(out, size);
    default: return read_packed(out, size);
  }
}

/// The next block of the file as it lies on the disk. False where it cannot be read.
bool ByteStream::fill() noexcept {
  // The first bytes say what the file is, so they are wanted together, however late they come.
  const std::size_t at_least = started_ ? 1 : 4;
  if (started_) begin_ = end_ = 0;
  while (end_ < at_least && !input_ended_) {
    const ssize_t got = ::read(fd_, input_.data() + end_, input_.size() - end_);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      fail("the file cannot be read");
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
    begin();
  }
  return true;
}

/// By the first bytes, which are there.
void ByteStream::begin() noexcept {
  using namespace std::string_view_literals;
  const std::string_view head(input_.data(), std::min<std::size_t>(end_, 4));
  if (head.starts_with("\x1F\x8B"sv)) {
    compression_ = Compression::Gzip;
    // 15 window bits, the most there are, and 16 for "a gzip header, nothing else".
    inflateReset2(&inflate_, 15 + 16);
  } else if (head == "\x28\xB5\x2F\xFD"sv) {
    compression_ = Compression::Zstd;
    ZSTD_initDStream(zstd_);
  } else if (head ==
             "\xFD"
             "7zX"sv) {
    compression_ = Compression::Xz;
    if (lzma_stream_decoder(&xz_, kXzMemoryBytes, 0) != LZMA_OK) fail("no memory for the xz stream");
  } else if (head.size() == 4 && head.starts_with("BZh"sv) && head[3] >= '1' && head[3] <= '9') {
    compression_ = Compression::Bzip2;
  } else if (head == "PK\x03\x04"sv || head == "PK\x05\x06"sv) {
    open_zip();
  }
}

std::size_t ByteStream::read_plain(char* out, std::size_t size) noexcept {
  if (begin_ == end_ && (input_ended_ || !fill())) return 0;
  const std::size_t got = std::min(size, end_ - begin_);
  std::memcpy(out, input_.data() + begin_, got);
  begin_ += got;
  return got;
}

std::size_t ByteStream::fail(const char* what) noexcept {
  failure_ = what;
  input_ended_ = true;
  begin_ = end_ = 0;
  return 0;
}

const char* ByteStream::text(bool cut) const noexcept {
  switch (compression_) {
    case Compression::Gzip: return cut ? "the gzip stream is cut" : "the gzip stream is damaged";
    case Compression::Zstd: return cut ? "the zstd stream is cut" : "the zstd stream is damaged";
    case Compression::Xz: return cut ? "the xz stream is cut" : "the xz stream is damaged";
    case Compression::Bzip2: return cut ? "the bzip2 stream is cut" : "the bzip2 stream is damaged";
    default: return cut ? "the zip archive is cut" : "the zip archive is damaged";
  }
}

/// Gives the decoder what was read of the file.
ByteStream::Step ByteStream::step(char* out, std::size_t size, std::size_t& got) noexcept {
  // Their counters have 32 bits.
  const auto room = static_cast<unsigned>(std::min<std::size_t>(size, std::size_t{1} << 30U));
  const auto have = static_cast<unsigned>(end_ - begin_);
  char* const in = input_.data() + begin_;
  switch (compression_) {
    case Compression::Zstd: {
      ZSTD_inBuffer from{in, have, 0};
      ZSTD_outBuffer to{out, size, 0};
      const std::size_t hint = ZSTD_decompressStream(zstd_, &to, &from);
      begin_ += from.pos;
      got = to.pos;
      if (ZSTD_isError(hint) != 0) return Step::Damaged;
      return hint == 0 ? Step::FrameEnd : Step::Going;
    }
    case Compression::Xz: {
      xz_.next_in = reinterpret_cast<const std::uint8_t*>(in);
      xz_.avail_in = have;
      xz_.next_out = reinterpret_cast<std::uint8_t*>(out);
      xz_.avail_out = size;
      const lzma_ret result = lzma_code(&xz_, LZMA_RUN);
      begin_ = end_ - xz_.avail_in;
      got = size - xz_.avail_out;
      if (result == LZMA_STREAM_END) {
        if (lzma_stream_decoder(&xz_, kXzMemoryBytes, 0) != LZMA_OK) return Step::Damaged;
        return Step::FrameEnd;
      }
      return result == LZMA_OK || result == LZMA_BUF_ERROR ? Step::Going : Step::Damaged;
    }
    case Compression::Bzip2: {
      if (!bzip2_begun_) {
        bzip2_ = {};
        if (BZ2_bzDecompressInit(&bzip2_, 0, 0) != BZ_OK) return Step::Damaged;
        bzip2_begun_ = true;
      }
      bzip2_.next_in = in;
      bzip2_.avail_in = have;
      bzip2_.next_out = out;
      bzip2_.avail_out = room;
      const int result = BZ2_bzDecompress(&bzip2_);
      begin_ = end_ - bzip2_.avail_in;
      got = room - bzip2_.avail_out;
      if (result != BZ_STREAM_END) return result == BZ_OK ? Step::Going : Step::Damaged;
      BZ2_bzDecompressEnd(&bzip2_);
      bzip2_begun_ = false;
      return Step::FrameEnd;
    }
    default: {
      inflate_.next_in = reinterpret_cast<Bytef*>(in);
      inflate_.avail_in = have;
      inflate_.next_out = reinterpret_cast<Bytef*>(out);
      inflate_.avail_out = room;
      const int result = ::inflate(&inflate_, Z_NO_FLUSH);
      begin_ = end_ - inflate_.avail_in;
      got = room - inflate_.avail_out;
      if (result == Z_STREAM_END) {
        // Another member may follow: that is how gzip files are appended to.
        inflateReset(&inflate_);
        return Step::FrameEnd;
      }
      return result == Z_OK || result == Z_BUF_ERROR ? Step::Going : Step::Damaged;
    }
  }
}

std::size_t ByteStream::read_packed(char* out, std::size_t size) noexcept {
  for (;;) {
    if (begin_ == end_ && !input_ended_ && !fill()) return 0;
    const bool at_end = begin_ == end_;
    if (at_end && between_frames_) return 0;
    if (between_frames_ && input_[begin_] == '\0' && compression_ != Compression::Zstd) {
      // Tapes and some disks pad a file with zeros, and so does xz.
      ++begin_;
      continue;
    }
    // At the end of the file what was decoded already may still have to be written out.
    std::size_t got = 0;
    const Step result = step(out, size, got);
    between_frames_ = result == Step::FrameEnd;
    if (result == Step::Damaged) {
      fail(text(false));
      return got;
    }
    if (got != 0) return got;
    if (at_end && !between_frames_) return follow_ ? 0 : fail(text(true));
  }
}

// ---------------------------------------------------------------------------------------------------
// A zip archive

bool ByteStream::refuse(const char* what) noexcept {
  fail(what);
  refused_ = true;
  return false;
}

void ByteStream::open_zip() noexcept {
  compression_ = Compression::ZipDeflated;
  try {
    if (!find_in_zip() && failure_ == nullptr)
      fail("the zip archive is cut or damaged: it has no list of its files");
  } catch (const std::bad_alloc&) {
    fail("the zip archive has a list of its files that finds no memory");
  }
}

/// Puts the file's position where the one file of the archive begins. The list of files stands at the
/// archive's end, and it alone is to be believed.
bool ByteStream::find_in_zip() {
  struct stat status{};
  if (::fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) {
    return refuse("a zip archive that comes through a pipe: unpack it (unzip -p)");
  }
  const auto size = static_cast<std::uint64_t>(status.st_size);
  constexpr std::size_t kEnd = 22;
  constexpr std::size_t kMostComment = 65'535;
  std::string tail(static_cast<std::size_t>(std::min<std::uint64_t>(size, kEnd + kMostComment)), '\0');
  if (tail.size() < kEnd || !read_at(fd_, size - tail.size(), tail.data(), tail.size())) return false;
  const std::size_t at = tail.rfind(std::string_view("PK\x05\x06", 4), tail.size() - kEnd);
  if (at == std::string::npos) return false;
  std::uint64_t entries = load_le(tail.data() + at + 10, 2);
  std::uint64_t list_size = load_le(tail.data() + at + 12, 4);
  std::uint64_t list_at = load_le(tail.data() + at + 16, 4);
  if (entries == 0xFFFF || list_size == 0xFFFFFFFF || list_at == 0xFFFFFFFF) {
    // Beyond 4 GiB: a longer record, which a note in front of this one finds.
    std::array<char, 56> record;
    const std::uint64_t end_at = size - tail.size() + at;
    if (end_at < 20 || !read_at(fd_, end_at - 20, record.data(), 20) ||
        load_le(record.data(), 4) != 0x07064B50 ||
        !read_at(fd_, load_le(record.data() + 8, 8), record.data(), record.size()) ||
        load_le(record.data(), 4) != 0x06064B50) {
      return false;
    }
    entries = load_le(record.data() + 32, 8);
    list_size = load_le(record.data() + 40, 8);
    list_at = load_le(record.data() + 48, 8);
  }
  constexpr std::uint64_t kMostList = std::uint64_t{16} << 20U;
  if (list_size > kMostList || list_at > size || list_size > size - list_at) return false;
  std::string list(static_cast<std::size_t>(list_size), '\0');
  if (!read_at(fd_, list_at, list.data(), list.size())) return false;

  constexpr std::size_t kEntry = 46;
  std::size_t files = 0;
  std::uint64_t flags = 0, method = 0, packed = 0, local_at = 0;
  for (std::size_t offset = 0; entries != 0 && offset + kEntry <= list.size(); --entries) {
    const char* const entry = list.data() + offset;
    if (load_le(entry, 4) != 0x02014B50) return false;
    const std::size_t name_size = load_le(entry + 28, 2);
    const std::size_t extra_size = load_le(entry + 30, 2);
    const std::size_t next = offset + kEntry + name_size + extra_size + load_le(entry + 32, 2);
    if (next > list.size()) return false;
    const std::string_view name(entry + kEntry, name_size);
    offset = next;
    // Folders, and what one system adds of its own.
    if (name.ends_with('/') || name.starts_with("__MACOSX/")) continue;
    if (++files > 1) continue;
    flags = load_le(entry + 8, 2);
    method = load_le(entry + 10, 2);
    zip_crc_ = static_cast<std::uint32_t>(load_le(entry + 16, 4));
    packed = load_le(entry + 20, 4);
    local_at = load_le(entry + 42, 4);
    // Longer ones stand, in this order, in an extra field: the size, the packed size, the place.
    const bool long_size = load_le(entry + 24, 4) == 0xFFFFFFFF;
    std::string_view extra(entry + kEntry + name_size, extra_size);
    while (extra.size() >= 4) {
      const std::size_t length = load_le(extra.data() + 2, 2);
      if (extra.size() < 4 + length) break;
      if (load_le(extra.data(), 2) == 1) {
        std::size_t field = 4 + (long_size ? 8 : 0);
        for (std::uint64_t* const value : {&packed, &local_at}) {
          if (*value != 0xFFFFFFFF || field + 8 > 4 + length) continue;
          *value = load_le(extra.data() + field, 8);
          field += 8;
        }
      }
      extra.remove_prefix(4 + length);
    }
  }
  if (files != 1) {
    refusal_ = files == 0 ? "a zip archive that holds no file"
                          : "a zip archive of " + std::to_string(files) +
                                " files: unpack it and name those to be read";
    return refuse(refusal_.c_str());
  }
  if ((flags & 1U) != 0) return refuse("a zip archive with a password: unpack it");
  if (method != 0 && method != 8) {
    refusal_ = "a zip archive that is packed by method " + std::to_string(method) +
               ", expected stored (0) or deflated (8): unpack it";
    return refuse(refusal_.c_str());
  }
  constexpr std::size_t kLocal = 30;
  std::array<char, kLocal> local;
  if (!read_at(fd_, local_at, local.data(), local.size()) || load_le(local.data(), 4) != 0x04034B50)
    return false;
  const std::uint64_t data_at =
      local_at + kLocal + load_le(local.data() + 26, 2) + load_le(local.data() + 28, 2);
  if (data_at > size || ::lseek(fd_, static_cast<off_t>(data_at), SEEK_SET) < 0) return false;
  begin_ = end_ = 0;
  input_ended_ = false;
  zip_left_ = packed;
  zip_seen_crc_ = 0;
  zip_ended_ = false;
  compression_ = method == 0 ? Compression::ZipStored : Compression::ZipDeflated;
  if (method == 8) inflateReset2(&inflate_, -15);  // No header of its own.
  return true;
}

std::size_t ByteStream::read_zip(char* out, std::size_t size) noexcept {
  while (!zip_ended_) {
    std::size_t got = 0;
    if (compression_ == Compression::ZipStored) {
      if (zip_left_ != 0) {
        got = read_plain(out, static_cast<std::size_t>(std::min<std::uint64_t>(size, zip_left_)));
        if (got == 0) return fail(text(true));
        zip_left_ -= got;
      }
      zip_ended_ = zip_left_ == 0;
    } else {
      if (begin_ == end_ && !input_ended_ && !fill()) return 0;
      const bool at_end = begin_ == end_;
      const Step result = step(out, size, got);
      if (result == Step::Damaged) {
        fail(text(false));
        return got;
      }
      zip_ended_ = result == Step::FrameEnd;
      if (!zip_ended_ && at_end && got == 0) return fail(text(true));
    }
    zip_seen_crc_ =
        static_cast<std::uint32_t>(::crc32_z(zip_seen_crc_, reinterpret_cast<const Bytef*>(out), got));
    if (zip_ended_ && zip_seen_crc_ != zip_crc_) fail(text(false));
    if (got != 0 || failure_ != nullptr) return got;
  }
  return 0;
}

}  // namespace tickwire::md

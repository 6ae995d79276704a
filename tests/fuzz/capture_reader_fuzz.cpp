// Fuzz target of the capture reader: whatever a file holds, its lines do not depend on the size of the
// blocks it is read in, nor on whether it was there from the start or grew while it was read, and memory
// keeps to the limit. CMakeLists.txt says how it is run.
//
// Input: one byte for the block and for the steps the file grows by, then the file.
//
// Covers: md/capture.cpp md/receive_stamp.cpp md/byte_stream.cpp md/json_text.hpp

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "tickwire/core/error.hpp"
#include "tickwire/md/capture.hpp"

namespace capture_reader_fuzz {

inline constexpr std::size_t kMaxLine = 1000;

inline void require(bool held) {
  if (!held) std::abort();
}

inline void append(int fd, const std::uint8_t* data, std::size_t size) {
  require(::write(fd, data, size) == static_cast<ssize_t>(size));
}

struct Transcript {
  std::string text;
  bool truncated;
};

/// Lines until there is none.
inline void read_lines(tickwire::md::CaptureReader& reader, std::string& out) {
  while (const tickwire::md::CaptureLine* line = reader.next()) {
    require(line->body.size() <= kMaxLine && line->ts_recv >= 0);
    volatile char sum = 0;
    for (std::size_t i = 0; i < reader.kPaddingBytes && line->body.data() != nullptr; ++i) {
      sum = static_cast<char>(sum + line->body.data()[line->body.size() + i]);
    }
    out += std::to_string(static_cast<int>(line->kind)) + ':' + std::to_string(line->ts_recv) + ':' +
           std::to_string(line->conn) + ':' + std::to_string(reader.line_number()) + ':';
    out.append(line->instrument).append(line->body.data(), line->body.size()).append("\n");
    // Enough of a file that is all zeros, a thousand times smaller when compressed.
    if (out.size() > (std::size_t{1} << 22U)) break;
  }
}

inline Transcript ended(const tickwire::md::CaptureReader& reader, const std::string& out) {
  require(!reader.truncated() || !reader.error().empty());
  require((reader.skipped_lines() == 0 && !reader.truncated()) == reader.error().empty());
  return {out + std::to_string(reader.skipped_lines()) + reader.error(), reader.truncated()};
}

inline Transcript transcript(const std::string& path, std::size_t block_bytes) {
  tickwire::md::CaptureReader reader({path}, {.max_line_bytes = kMaxLine, .block_bytes = block_bytes});
  std::string out;
  read_lines(reader, out);
  return ended(reader, out);
}

/// Of the same bytes in the same place, written a step at a time behind a reader that follows them.
inline Transcript followed(const std::uint8_t* data, std::size_t size, std::size_t block_bytes,
                           std::size_t step) {
  const int fd = ::memfd_create("capture", MFD_CLOEXEC);
  require(fd >= 0);
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  tickwire::md::CaptureReader reader(
      {path}, {.max_line_bytes = kMaxLine, .block_bytes = block_bytes, .follow = true});
  std::string out;
  for (std::size_t at = 0; at < size; at += step) {
    append(fd, data + at, std::min(step, size - at));
    read_lines(reader, out);
  }
  const Transcript all = ended(reader, out);
  ::close(fd);
  return all;
}

}  // namespace capture_reader_fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace capture_reader_fuzz;
  if (size == 0) return 0;
  const int fd = ::memfd_create("capture", MFD_CLOEXEC);
  require(fd >= 0);
  append(fd, data + 1, size - 1);
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  Transcript large;
  try {
    large = transcript(path, std::size_t{1} << 16U);
  } catch (const tickwire::SetupError& error) {
    // No text, an archive that cannot be read, a mixture of units: refused at once, by its name.
    require(error.what()[0] != '\0');
    ::close(fd);
    return 0;
  }
  const Transcript small = transcript(path, 1 + data[0]);
  // What a damaged compressed stream still gives before its end depends on the library's own blocks.
  const bool compressed =
      size > 2 && (data[1] == 0x1F || data[1] == 0x28 || data[1] == 0xFD || data[1] == 'B' || data[1] == 'P');
  require(large.truncated == small.truncated);
  require(large.text == small.text || (compressed && large.truncated));
  ::close(fd);
  // A zip archive says at its end what is in it: one that is still written cannot be followed.
  if (size > 2 && data[1] == 'P' && data[2] == 'K') return 0;

  // A whole line behind it, so that nothing waits for the rest of its own. At least four bytes say what a
  // file is, and a compressed one ends where it ends.
  static constexpr std::string_view kLast = "\n1700000000000000000 {}\n";
  std::string text(reinterpret_cast<const char*>(data + 1), size - 1);
  text.append(kLast);
  const auto* const bytes = reinterpret_cast<const std::uint8_t*>(text.data());
  const std::size_t step = std::max<std::size_t>(1 + data[0], text.size() / 64);
  const Transcript grown = followed(bytes, text.size(), std::size_t{1} << 16U, step);
  const Transcript at_once = followed(bytes, text.size(), 1 + data[0], text.size());
  require(grown.truncated == at_once.truncated);
  require(grown.text == at_once.text || (compressed && grown.truncated));
  return 0;
}

// Fuzz target of day files, messages behind their lengths: whatever the size of the blocks they are read by,
// the same messages come out, and of a plain file those that a walk over its bytes finds. CMakeLists.txt says
// how it is run.
//
// Input: one byte that chooses the size of the blocks, then the file.
//
// Covers: md/message_file.cpp md/byte_stream.cpp

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/core/error.hpp"
#include "tickwire/md/message_file.hpp"

namespace message_file_fuzz {

inline void require(bool held) {
  if (!held) std::abort();
}

struct Read {
  std::vector<std::string> messages;
  bool truncated = false;
  std::string error;
};

inline Read read(const std::string& path, std::size_t block_bytes) {
  tickwire::md::MessageFile file({path}, block_bytes);
  Read out;
  std::span<const std::byte> message;
  while (file.next(message)) {
    out.messages.emplace_back(reinterpret_cast<const char*>(message.data()), message.size());
    require(file.file() == 0 && file.number() == out.messages.size());
  }
  require(!file.next(message));
  out.truncated = file.truncated();
  out.error = file.error();
  require(out.truncated == !out.error.empty());
  return out;
}

/// A file that says by its first bytes that it is packed, or a list of what is in it.
inline bool packed(std::string_view bytes) {
  for (const std::string_view magic : {"\x1f\x8b", "\x28\xb5\x2f\xfd", "BZh", "PK",
                                       "\xfd"
                                       "7zXZ"}) {
    if (bytes.substr(0, magic.size()) == magic.substr(0, bytes.size())) return true;
  }
  return false;
}

inline void compare_with_a_walk(std::string_view bytes, const Read& got) {
  std::vector<std::string> messages;
  bool whole = true;
  while (!bytes.empty()) {
    const std::size_t size = bytes.size() < 2 ? 0
                                              : static_cast<unsigned char>(bytes[0]) * std::size_t{256} +
                                                    static_cast<unsigned char>(bytes[1]);
    if (size == 0 || bytes.size() < 2 + size) {
      whole = false;
      break;
    }
    messages.emplace_back(bytes.substr(2, size));
    bytes.remove_prefix(2 + size);
  }
  require(got.messages == messages && got.truncated == !whole);
}

}  // namespace message_file_fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace message_file_fuzz;
  // A file without a place: nothing is left behind, whatever ends this.
  static const int fd = ::memfd_create("message_file_fuzz", MFD_CLOEXEC);
  static const std::string path = "/proc/self/fd/" + std::to_string(fd);
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  require(::ftruncate(fd, 0) == 0);
  require(::pwrite(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  try {
    const Read at_once = read(path, 1U << 16U);
    const Read in_blocks = read(path, 1 + std::size_t{data[0]});
    require(at_once.truncated == in_blocks.truncated);
    if (packed(bytes) && at_once.truncated) {
      // How far a decompressor comes in a damaged stream depends on the room that it was given.
      const std::size_t both = std::min(at_once.messages.size(), in_blocks.messages.size());
      require(std::equal(at_once.messages.begin(),
                         at_once.messages.begin() + static_cast<std::ptrdiff_t>(both),
                         in_blocks.messages.begin()));
      return 0;
    }
    require(at_once.messages == in_blocks.messages);
    if (!packed(bytes)) compare_with_a_walk(bytes, at_once);
  } catch (const tickwire::SetupError&) {
    // Refused as a whole: it is of another form.
  }
  return 0;
}

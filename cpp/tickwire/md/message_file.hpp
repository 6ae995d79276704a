#pragma once

/// Reads files of binary messages, each behind its length: two bytes, big-endian, then the message. That is
/// the form in which NASDAQ gives out its days of ITCH (BinaryFILE). Plain, .gz or .zst, one file after
/// another, in memory taken once. What is inside a message is not looked at.
///
/// One thread. A file that is cut, in the middle of a message or of its compressed stream, has given all its
/// whole messages; truncated() and error() say so. A length of zero is no message: behind it nobody knows
/// where one begins, so the file ends there, and error() says where.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tickwire/core/hot.hpp"

namespace tickwire::md {

class MessageFile {
 public:
  /// Bytes asked for at a time; any value gives the same messages.
  static constexpr std::size_t kBlockBytes = std::size_t{1} << 20U;

  /// Throws SetupError where a file cannot be read at all.
  explicit MessageFile(std::vector<std::string> paths, std::size_t block_bytes = kBlockBytes);
  ~MessageFile();
  MessageFile(const MessageFile&) = delete;
  MessageFile& operator=(const MessageFile&) = delete;

  /// The next message, which holds until the next call; false after the last one of the last file.
  [[nodiscard]] bool next(std::span<const std::byte>& message);

  /// Of the message that next() gave: its file's place in the list, and its number there, from 1.
  [[nodiscard]] std::size_t file() const noexcept TICKWIRE_HOT;
  [[nodiscard]] std::uint64_t number() const noexcept TICKWIRE_HOT;
  /// What has been read beyond it: messages with their lengths, the last one maybe in part.
  [[nodiscard]] std::span<const std::byte> ahead() const noexcept;

  /// The file of the newest message is not to be read any further: next() goes on with the next one. `why`
  /// becomes the error, behind the file's name.
  void give_up(const std::string& why);

  /// Not all of what the files hold was given.
  [[nodiscard]] bool truncated() const noexcept;
  /// `FILE: message N, at byte B: what`; empty where nothing was wrong.
  [[nodiscard]] const std::string& error() const noexcept;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tickwire::md

#pragma once

/// SoupBinTCP: packets in a TCP stream, each a length of two bytes in network byte order, a type and the
/// rest. SoupParser knows bytes only: no socket, no clock. One thread an object.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"

namespace tickwire::net {

/// Types that a server sends.
namespace soup {
inline constexpr char kDebug = '+';
inline constexpr char kLoginAccepted = 'A';
inline constexpr char kLoginRejected = 'J';
inline constexpr char kSequenced = 'S';
inline constexpr char kUnsequenced = 'U';
inline constexpr char kServerHeartbeat = 'H';
inline constexpr char kEndOfSession = 'Z';
/// Types that we send.
inline constexpr char kLogin = 'L';
inline constexpr char kClientHeartbeat = 'R';
inline constexpr char kLogout = 'O';
}  // namespace soup

struct SoupPacket {
  char type;
  std::span<const char> payload;  // Holds until the parser's next call.
};

/// Takes a stream apart, in whatever pieces it comes. Never copies but what a read had cut.
class SoupParser {
 public:
  /// Room for two of the largest packets that a length can name, so that one always fits.
  static constexpr std::size_t kBufferBytes = std::size_t{2} << 16U;

  explicit SoupParser(Arena& arena) : buffer_(arena.allocate<char>(kBufferBytes)) {}

  void reset() noexcept { begin_ = end_ = 0; }
  /// Where the next bytes of the stream go. Never empty after next() has given None.
  std::span<char> writable() noexcept TICKWIRE_HOT;
  void commit(std::size_t bytes) noexcept TICKWIRE_HOT { end_ += bytes; }

  enum class Status : std::uint8_t { None, Packet, Malformed };
  /// Malformed: a packet without a type. Nothing behind it can be trusted.
  Status next(SoupPacket& packet) noexcept TICKWIRE_HOT;

 private:
  std::span<char> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

inline constexpr std::size_t kSoupLoginBytes = 49;
inline constexpr std::size_t kSoupNumberBytes = 20;

/// A login packet. Fields are cut or padded to their size; session blank: the current one; sequence 0: from
/// now on.
std::array<char, kSoupLoginBytes> soup_login(std::string_view username, std::string_view password,
                                             std::string_view session, std::uint64_t sequence) noexcept;

/// A number as the protocol and GLIMPSE write it: digits, padded with spaces on either side. False where it
/// is none.
[[nodiscard]] bool read_soup_number(std::span<const char> text, std::uint64_t& out) noexcept TICKWIRE_HOT;

}  // namespace tickwire::net

#include "tickwire/net/soupbintcp/soup_packet.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "tickwire/core/bytes.hpp"

namespace tickwire::net {

std::span<char> SoupParser::writable() noexcept {
  if (begin_ == end_) {
    begin_ = end_ = 0;
  } else if (buffer_.size() - end_ < buffer_.size() / 2) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  return buffer_.subspan(end_);
}

SoupParser::Status SoupParser::next(SoupPacket& packet) noexcept {
  if (end_ - begin_ < 2) return Status::None;
  const std::size_t bytes = load_be<std::uint16_t>(buffer_.data() + begin_);
  if (bytes == 0) return Status::Malformed;
  if (end_ - begin_ - 2 < bytes) return Status::None;
  packet.type = buffer_[begin_ + 2];
  packet.payload = {buffer_.data() + begin_ + 3, bytes - 1};
  begin_ += 2 + bytes;
  return Status::Packet;
}

std::array<char, kSoupLoginBytes> soup_login(std::string_view username, std::string_view password,
                                             std::string_view session, std::uint64_t sequence) noexcept {
  std::array<char, kSoupLoginBytes> out;
  out.fill(' ');
  store_be<std::uint16_t>(out.data(), kSoupLoginBytes - 2);
  out[2] = soup::kLogin;
  const auto put = [&out](std::size_t at, std::string_view text, std::size_t bytes) {
    std::copy_n(text.begin(), std::min(text.size(), bytes), out.begin() + static_cast<std::ptrdiff_t>(at));
  };
  put(3, username, 6);
  put(9, password, 10);
  put(19, session, 10);
  char digits[kSoupNumberBytes];
  const char* const end = std::to_chars(digits, digits + sizeof digits, sequence).ptr;
  const auto count = static_cast<std::size_t>(end - digits);
  std::copy(static_cast<const char*>(digits), end, out.end() - static_cast<std::ptrdiff_t>(count));
  return out;
}

bool read_soup_number(std::span<const char> text, std::uint64_t& out) noexcept {
  const char* at = text.data();
  const char* end = at + text.size();
  while (at != end && *at == ' ') ++at;
  while (at != end && *(end - 1) == ' ') --end;
  if (at == end) return false;
  std::uint64_t value = 0;
  for (; at != end; ++at) {
    if (*at < '0' || *at > '9') return false;
    const auto digit = static_cast<std::uint64_t>(*at - '0');
    if (value > (~std::uint64_t{0} - digit) / 10) return false;
    value = value * 10 + digit;
  }
  out = value;
  return true;
}

}  // namespace tickwire::net

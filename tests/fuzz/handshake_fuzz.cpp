// Fuzz target of the answer to our WebSocket handshake: what is decided of a part of it stays decided when
// more comes, what is accepted is what RFC 6455 asks for, as a slow reader of lines finds it, and a refusal
// says why. CMakeLists.txt says how it is run.
//
// Input: what the server sends.
//
// Covers: net/websocket/handshake.cpp net/http_date.cpp

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "tickwire/net/websocket/handshake.hpp"

namespace handshake_fuzz {

using namespace tickwire;
using namespace tickwire::net;

// Of the key in the example of RFC 6455, 1.3.
inline constexpr std::string_view kAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

inline void require(bool held) {
  if (!held) std::abort();
}

/// In memory of its exact size, so that a sanitizer sees the first byte too far.
inline HandshakeAnswer check(std::string_view bytes, std::string& error) {
  const auto memory = std::make_unique<char[]>(bytes.size());
  std::copy(bytes.begin(), bytes.end(), memory.get());
  FixedText text;
  const HandshakeAnswer answer = check_handshake({memory.get(), bytes.size()}, kAccept, 784111777, text);
  error = text.view();
  return answer;
}

inline std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

inline std::string trimmed(std::string text) {
  text.erase(0, std::min(text.find_first_not_of(" \t"), text.size()));
  text.erase(text.find_last_not_of(" \t") + 1);
  return text;
}

/// The value of a header that stands there once or more; of several the last.
inline std::optional<std::string> header(std::string_view headers, const std::string& wanted, int& times) {
  std::optional<std::string> found;
  times = 0;
  while (!headers.empty()) {
    const std::size_t end = std::min(headers.find("\r\n"), headers.size());
    const std::string line(headers.substr(0, end));
    headers.remove_prefix(std::min(end + 2, headers.size()));
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos || lower(line.substr(0, colon)) != wanted) continue;
    found = trimmed(line.substr(colon + 1));
    ++times;
  }
  return found;
}

inline void check_accepted(std::string_view bytes, const HandshakeAnswer& answer) {
  require(answer.header_bytes >= 4 && answer.header_bytes <= bytes.size());
  const std::string_view headers = bytes.substr(0, answer.header_bytes);
  require(headers.find("\r\n\r\n") == answer.header_bytes - 4);
  require(headers.starts_with("HTTP/1.") && headers.substr(8, 4) == " 101");
  int times = 0;
  require(header(headers, "sec-websocket-accept", times) == kAccept && times == 1);
  require(header(headers, "upgrade", times).has_value());
  require(header(headers, "connection", times).has_value());
  require(header(headers, "sec-websocket-extensions", times).value_or("").empty());
  require(header(headers, "sec-websocket-protocol", times).value_or("").empty());
}

}  // namespace handshake_fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace handshake_fuzz;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  std::string error;
  const HandshakeAnswer whole = check(bytes, error);
  require((whole.status == HandshakeStatus::Refused) == !error.empty());
  require(whole.retry_after_s >= 0 && whole.retry_after_s <= 3600);
  require(whole.retry_after_s == 0 || whole.status == HandshakeStatus::Refused);
  if (whole.status == HandshakeStatus::Accepted) check_accepted(bytes, whole);
  // As it comes in: at places that the input chooses, and the last byte alone.
  HandshakeStatus before = HandshakeStatus::Incomplete;
  for (std::size_t have = 0; have < size; have += 1 + data[have] % 97) {
    const HandshakeAnswer part = check(bytes.substr(0, have), error);
    require(before == HandshakeStatus::Incomplete || part.status == before);
    before = part.status;
  }
  if (size != 0) {
    const HandshakeAnswer part = check(bytes.substr(0, size - 1), error);
    require(before == HandshakeStatus::Incomplete || part.status == before);
    require(part.status == HandshakeStatus::Incomplete || part.status == whole.status);
    require(part.status != HandshakeStatus::Accepted || part.header_bytes == whole.header_bytes);
  }
  return 0;
}

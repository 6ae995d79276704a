#include "tickwire/net/websocket/handshake.hpp"

#include <openssl/evp.h>
#include <openssl/sha.h>

#include <algorithm>
#include <cstring>

#include "tickwire/core/error.hpp"
#include "tickwire/net/http_date.hpp"

namespace tickwire::net {
namespace {

constexpr std::size_t kKeyBytes = 24;  // Base64 of 16 bytes.

char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool same_ignoring_case(std::string_view a, std::string_view b) noexcept {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) { return lower(x) == lower(y); });
}

bool is_token(std::string_view text) noexcept {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && std::strchr("!#$%&'*+-.^_`|~", c) != nullptr);
  });
}

std::string_view trimmed(std::string_view text) noexcept {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

/// Is `token` one of the comma-separated elements of `list`?
bool lists(std::string_view list, std::string_view token) noexcept {
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    if (same_ignoring_case(trimmed(list.substr(0, comma)), token)) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

/// Bytes of a refusal's body that are waited for: as many as an error has room for, and what a page puts
/// first.
constexpr std::size_t kQuotedBytes = 512;

/// The value of a header, without spaces around it; empty where there is none.
std::string_view header_value(std::string_view headers, std::string_view name) noexcept {
  while (!headers.empty()) {
    const std::size_t end = std::min(headers.find("\r\n"), headers.size());
    const std::string_view line = headers.substr(0, end);
    headers.remove_prefix(std::min(end + 2, headers.size()));
    const std::size_t colon = line.find(':');
    if (colon != std::string_view::npos && same_ignoring_case(line.substr(0, colon), name)) {
      return trimmed(line.substr(colon + 1));
    }
  }
  return {};
}

/// How long the headers ask us to wait: a number of seconds, or a date until when, from the moment of the
/// answer as its server has it. 0 where they ask for nothing, or for nothing that can be read. What a server
/// asks for beyond an hour is not believed.
std::int64_t pause_of(std::string_view headers, std::int64_t now_s) noexcept {
  constexpr std::int64_t kMostS = 3600;
  const std::string_view text = header_value(headers, "Retry-After");
  std::int64_t seconds = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') {
      const auto until = parse_http_date(text, now_s);
      if (!until) return 0;
      const auto answered = parse_http_date(header_value(headers, "Date"), now_s);
      return std::clamp<std::int64_t>(*until - answered.value_or(now_s), 0, kMostS);
    }
    seconds = std::min(kMostS, seconds * 10 + (c - '0'));
  }
  return seconds;
}

/// Of a refusal: its status and whatever the server says of it.
HandshakeAnswer quote_refusal(std::string_view status, std::string_view headers, std::string_view body,
                              std::int64_t now_s, FixedText& error) noexcept {
  std::size_t expected = 1;  // Of a length that nobody says: any.
  if (const std::string_view length = header_value(headers, "Content-Length"); !length.empty()) {
    expected = 0;
    for (const char c : length.substr(0, 9)) {
      if (c < '0' || c > '9') break;
      expected = expected * 10 + static_cast<std::size_t>(c - '0');
    }
  }
  const bool more = body.size() < std::min(expected, kQuotedBytes);
  if (same_ignoring_case(header_value(headers, "Transfer-Encoding"), "chunked")) {
    body.remove_prefix(std::min(body.find("\r\n"), body.size()));  // The length of the first part.
  }
  // Pages are indented: a run of what is no letter of theirs is one space.
  char words[kQuotedBytes];
  std::size_t size = 0;
  for (const char c : body.substr(0, kQuotedBytes)) {
    const bool space = c == ' ' || c == '\t' || c == '\r' || c == '\n';
    if (space && (size == 0 || words[size - 1] == ' ')) continue;
    words[size++] = space ? ' ' : c;
  }
  const std::string_view place = header_value(headers, "Location");
  const std::string_view pause = header_value(headers, "Retry-After");
  error.set("handshake: expected HTTP 101, found %.*s%s%.*s%s%.*s%s%.*s", TICKWIRE_PRINTF_VIEW(status),
            place.empty() ? "" : ", elsewhere at ", TICKWIRE_PRINTF_VIEW(place),
            pause.empty() ? "" : ", Retry-After: ", TICKWIRE_PRINTF_VIEW(pause), size == 0 ? "" : ": ",
            static_cast<int>(size), words);
  return {.status = HandshakeStatus::Refused, .more = more, .retry_after_s = pause_of(headers, now_s)};
}

}  // namespace

std::array<char, 28> accept_for_key(std::string_view key) noexcept {
  constexpr std::string_view kGuid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  char text[64 + kGuid.size()];
  const std::size_t key_bytes = std::min<std::size_t>(key.size(), 64);
  std::memcpy(text, key.data(), key_bytes);
  std::memcpy(text + key_bytes, kGuid.data(), kGuid.size());
  unsigned char digest[SHA_DIGEST_LENGTH];
  ::SHA1(reinterpret_cast<const unsigned char*>(text), key_bytes + kGuid.size(), digest);
  unsigned char encoded[29];  // EVP_EncodeBlock ends with a zero.
  ::EVP_EncodeBlock(encoded, digest, sizeof digest);
  std::array<char, 28> accept;
  std::memcpy(accept.data(), encoded, accept.size());
  return accept;
}

HandshakeRequest::HandshakeRequest(const WebSocketUrl& url, std::span<const std::string> headers,
                                   const std::string& where) {
  text_ = "GET " + url.target + " HTTP/1.1\r\nHost: " + url.host_header() +
          "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nUser-Agent: "
          "tickwire\r\n";
  for (std::size_t i = 0; i < headers.size(); ++i) {
    const std::string& line = headers[i];
    const std::string key = where + '[' + std::to_string(i) + ']';
    const std::size_t colon = line.find(':');
    const std::string name = line.substr(0, colon);
    if (colon == std::string::npos || !is_token(name)) {
      throw SetupError(key, "a header line such as \"Name: value\"", "a line without a name and a colon");
    }
    if (std::any_of(line.begin(), line.end(),
                    [](unsigned char c) { return (c < ' ' && c != '\t') || c == 0x7F; })) {
      throw SetupError(key, "no control characters", "one in the value of " + name);
    }
    for (const char* ours :
         {"Host", "Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version",
          "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Content-Length", "Transfer-Encoding"}) {
      if (same_ignoring_case(name, ours))
        throw SetupError(key, "a header that the handshake does not set itself", name);
    }
    text_ += line + "\r\n";
  }
  text_ += "Sec-WebSocket-Key: ";
  key_at_ = text_.size();
  text_ += std::string(kKeyBytes, '=') + "\r\n\r\n";
}

void HandshakeRequest::renew(KeyGenerator& keys) noexcept {
  const std::uint64_t nonce[2] = {keys.next(), keys.next()};
  unsigned char encoded[kKeyBytes + 1];
  ::EVP_EncodeBlock(encoded, reinterpret_cast<const unsigned char*>(nonce), sizeof nonce);
  std::memcpy(text_.data() + key_at_, encoded, kKeyBytes);
  accept_ = accept_for_key({text_.data() + key_at_, kKeyBytes});
}

HandshakeAnswer check_handshake(std::string_view received, std::string_view expected_accept,
                                std::int64_t now_s, FixedText& error) noexcept {
  const HandshakeAnswer refused{.status = HandshakeStatus::Refused};
  constexpr std::string_view kVersion = "HTTP/1.";
  if (received.substr(0, kVersion.size()) != kVersion.substr(0, received.size())) {
    const std::string_view start = received.substr(0, 20);
    error.set("handshake: expected an HTTP/1.1 answer, found \"%.*s\"", TICKWIRE_PRINTF_VIEW(start));
    return refused;
  }
  const std::size_t end = received.substr(0, kMaxHandshakeBytes).find("\r\n\r\n");
  if (end == std::string_view::npos) {
    if (received.size() < kMaxHandshakeBytes) return {};
    error.set("handshake: expected at most %zu bytes of HTTP header, found more", kMaxHandshakeBytes);
    return refused;
  }

  std::string_view rest = received.substr(0, end + 2);
  const auto next_line = [&rest]() noexcept {
    const std::size_t line_end = rest.find("\r\n");
    const std::string_view line = rest.substr(0, line_end);
    rest.remove_prefix(line_end + 2);
    return line;
  };

  const std::string_view status = next_line();  // HTTP/1.1 101 Switching Protocols
  const auto digit = [&](std::size_t i) noexcept {
    return i < status.size() && status[i] >= '0' && status[i] <= '9';
  };
  // The length first: a line that ends early has nothing at the places behind its end.
  if (status.size() < 12 || !digit(7) || status[8] != ' ' || !digit(9) || !digit(10) || !digit(11) ||
      (status.size() > 12 && status[12] != ' ')) {
    error.set("handshake: expected an HTTP status line, found \"%.*s\"", TICKWIRE_PRINTF_VIEW(status));
    return refused;
  }
  const std::string_view code = status.substr(9, 3);
  if (code != "101") return quote_refusal(status.substr(9), rest, received.substr(end + 4), now_s, error);

  bool upgrade = false;
  bool connection = false;
  int accepts = 0;
  bool accept_matches = false;
  while (!rest.empty()) {
    const std::string_view line = next_line();
    const std::size_t colon = std::min(line.find(':'), line.size());
    const std::string_view name = line.substr(0, colon);
    // A folded line begins with a space, which no name may.
    if (colon == line.size() || !is_token(name)) {
      error.set("handshake: expected a header line, found \"%.*s\"", TICKWIRE_PRINTF_VIEW(line));
      return refused;
    }
    const std::string_view value = trimmed(line.substr(colon + 1));
    if (same_ignoring_case(name, "Upgrade")) {
      upgrade = upgrade || lists(value, "websocket");
    } else if (same_ignoring_case(name, "Connection")) {
      connection = connection || lists(value, "upgrade");
    } else if (same_ignoring_case(name, "Sec-WebSocket-Accept")) {
      ++accepts;
      accept_matches = value == expected_accept;
    } else if (same_ignoring_case(name, "Sec-WebSocket-Extensions") ||
               same_ignoring_case(name, "Sec-WebSocket-Protocol")) {
      if (value.empty()) continue;
      error.set("handshake: expected no %.*s (none was offered), found \"%.*s\"", TICKWIRE_PRINTF_VIEW(name),
                TICKWIRE_PRINTF_VIEW(value));
      return refused;
    }
  }
  if (!upgrade || !connection) {
    error.set(
        "handshake: expected \"Upgrade: websocket\" and \"Connection: Upgrade\", found an answer without");
    return refused;
  }
  if (accepts != 1 || !accept_matches) {
    error.set("handshake: expected Sec-WebSocket-Accept for our key, found %s", accepts == 0   ? "none"
                                                                                : accepts == 1 ? "another"
                                                                                               : "several");
    return refused;
  }
  return {.status = HandshakeStatus::Accepted, .header_bytes = end + 4};
}

}  // namespace tickwire::net

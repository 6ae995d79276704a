#include "tickwire/net/url.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "tickwire/core/error.hpp"

namespace tickwire::net {
namespace {

bool is_address(int family, const std::string& host) {
  in6_addr parsed;
  return ::inet_pton(family, host.c_str(), &parsed) == 1;
}

std::string quoted(std::string_view text) { return '"' + std::string(text) + '"'; }

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

}  // namespace

std::string WebSocketUrl::host_header() const {
  std::string out = host.find(':') != std::string::npos ? '[' + host + ']' : host;
  if (port != (tls ? 443 : 80)) out += ':' + std::to_string(port);
  return out;
}

WebSocketUrl parse_websocket_url(const std::string& where, std::string_view text) {
  WebSocketUrl url;
  const std::size_t scheme_end = text.find("://");
  const std::string scheme = lower(text.substr(0, scheme_end == std::string_view::npos ? 0 : scheme_end));
  if (scheme != "ws" && scheme != "wss") {
    // Nothing of what follows the scheme is shown: it is not known yet what part of it is secret.
    throw SetupError(where, "a URL that begins with ws:// or wss://",
                     text.empty()                           ? "an empty text"
                     : scheme_end == std::string_view::npos ? "a text without a scheme"
                                                            : quoted(scheme + "://"));
  }
  url.tls = scheme == "wss";
  std::string_view rest = text.substr(scheme_end + 3);

  const std::size_t authority_end = std::min(rest.find_first_of("/?#"), rest.size());
  const std::string_view authority = rest.substr(0, authority_end);
  const std::string_view target = rest.substr(authority_end);
  if (authority.find('@') != std::string_view::npos) {
    throw SetupError(where, "no user info before the host (credentials go into a header)", "an @");
  }
  if (target.find('#') != std::string_view::npos) throw SetupError(where, "no fragment", "a #");
  for (const char byte : target) {
    if (byte <= ' ' || byte > '~') {
      throw SetupError(where, "printable ASCII in path and query (percent-encode the rest)",
                       "byte " + std::to_string(static_cast<unsigned char>(byte)));
    }
  }
  url.target = target.empty() || target.front() == '?' ? '/' + std::string(target) : std::string(target);

  std::string_view port;
  if (!authority.empty() && authority.front() == '[') {
    const std::size_t close = authority.find(']');
    if (close == std::string_view::npos)
      throw SetupError(where, "] after the IPv6 address", quoted(authority));
    url.host = std::string(authority.substr(1, close - 1));
    if (!is_address(AF_INET6, url.host)) throw SetupError(where, "an IPv6 address in [ ]", quoted(url.host));
    url.host_is_address = true;
    port = authority.substr(close + 1);
    if (!port.empty() && port.front() != ':')
      throw SetupError(where, ":port or nothing after ]", quoted(port));
  } else {
    const std::size_t colon = authority.find(':');
    url.host = lower(authority.substr(0, colon));
    port = colon == std::string_view::npos ? std::string_view{} : authority.substr(colon);
    const bool good = !url.host.empty() && url.host.size() <= 253 &&
                      std::all_of(url.host.begin(), url.host.end(), [](unsigned char c) {
                        return std::isalnum(c) != 0 || c == '-' || c == '.' || c == '_';
                      });
    if (!good) {
      throw SetupError(where, "a host name or address (IPv6 in [ ])",
                       url.host.empty() ? "none" : quoted(url.host.substr(0, 300)));
    }
    url.host_is_address = is_address(AF_INET, url.host);
  }

  url.port = url.tls ? 443 : 80;
  if (!port.empty()) {
    port.remove_prefix(1);
    unsigned value = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), value);
    if (error != std::errc{} || end != port.data() + port.size() || value == 0 || value > 65535) {
      throw SetupError(where, "a port from 1 to 65535", quoted(port));
    }
    url.port = static_cast<std::uint16_t>(value);
  }
  return url;
}

}  // namespace tickwire::net

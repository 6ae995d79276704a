#include "tickwire/net/websocket/handshake.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tickwire/core/error.hpp"
#include "tickwire/net/http_date.hpp"
#include "tickwire/net/url.hpp"

namespace tickwire::net {
namespace {

constexpr std::int64_t kNow = 784111777;  // Sun, 06 Nov 1994 08:49:37 GMT.

std::string message_of(const auto& act) {
  try {
    act();
  } catch (const SetupError& error) {
    return error.what();
  }
  return "nothing thrown";
}

TEST(WebSocketUrl, ReadsEveryPart) {
  const WebSocketUrl url = parse_websocket_url(
      "feeds[0].url", "wss://stream.binance.com:9443/ws/btcusdt@depth?timeUnit=MICROSECOND");
  EXPECT_TRUE(url.tls);
  EXPECT_EQ(url.host, "stream.binance.com");
  EXPECT_FALSE(url.host_is_address);
  EXPECT_EQ(url.port, 9443);
  EXPECT_EQ(url.target, "/ws/btcusdt@depth?timeUnit=MICROSECOND");
  EXPECT_EQ(url.host_header(), "stream.binance.com:9443");
}

TEST(WebSocketUrl, FillsInWhatIsMissing) {
  const auto plain = parse_websocket_url("url", "WS://LocalHost");
  EXPECT_FALSE(plain.tls);
  EXPECT_EQ(plain.host, "localhost");
  EXPECT_EQ(plain.port, 80);
  EXPECT_EQ(plain.target, "/");
  EXPECT_EQ(plain.host_header(), "localhost");
  const auto secure = parse_websocket_url("url", "wss://host?q=1");
  EXPECT_EQ(secure.port, 443);
  EXPECT_EQ(secure.target, "/?q=1");
  EXPECT_EQ(secure.host_header(), "host");
  EXPECT_EQ(parse_websocket_url("url", "ws://host:443").host_header(), "host:443");
}

TEST(WebSocketUrl, KnowsAddresses) {
  EXPECT_TRUE(parse_websocket_url("url", "ws://127.0.0.1:1").host_is_address);
  const auto six = parse_websocket_url("url", "ws://[2001:db8::1]:8080/x");
  EXPECT_TRUE(six.host_is_address);
  EXPECT_EQ(six.host, "2001:db8::1");
  EXPECT_EQ(six.port, 8080);
  EXPECT_EQ(six.host_header(), "[2001:db8::1]:8080");
  EXPECT_EQ(parse_websocket_url("url", "wss://[::1]").port, 443);
}

TEST(WebSocketUrl, SaysWhatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "feeds[0].url: expected a URL that begins with ws:// or wss://, found an empty text"},
      {"http://host", "feeds[0].url: expected a URL that begins with ws:// or wss://, found \"http://\""},
      {"host:80",
       "feeds[0].url: expected a URL that begins with ws:// or wss://, found a text without a scheme"},
      {"ws://", "feeds[0].url: expected a host name or address (IPv6 in [ ]), found none"},
      {"ws://a b", "feeds[0].url: expected a host name or address (IPv6 in [ ]), found \"a b\""},
      {"ws://host:0", "feeds[0].url: expected a port from 1 to 65535, found \"0\""},
      {"ws://host:65536/", "feeds[0].url: expected a port from 1 to 65535, found \"65536\""},
      {"ws://host:", "feeds[0].url: expected a port from 1 to 65535, found \"\""},
      {"ws://host:8x", "feeds[0].url: expected a port from 1 to 65535, found \"8x\""},
      {"ws://[::1", "feeds[0].url: expected ] after the IPv6 address, found \"[::1\""},
      {"ws://[::g]", "feeds[0].url: expected an IPv6 address in [ ], found \"::g\""},
      {"ws://[::1]80", "feeds[0].url: expected :port or nothing after ], found \"80\""},
      {"ws://host/#part", "feeds[0].url: expected no fragment, found a #"},
  };
  for (const auto& [text, expected] : cases) {
    EXPECT_EQ(message_of([&] { (void)parse_websocket_url("feeds[0].url", text); }), expected) << text;
  }
}

TEST(WebSocketUrl, NeverShowsCredentials) {
  for (const std::string text :
       {"ws://user:hunter2@host/", "hunter2", "ws://host/?key=hunter2\n", "ws://host/hunter2#x"}) {
    const std::string message = message_of([&] { (void)parse_websocket_url("url", text); });
    EXPECT_NE(message, "nothing thrown");
    EXPECT_EQ(message.find("hunter2"), std::string::npos) << message;
  }
}

TEST(WebSocketUrl, RefusesBytesThatWouldSplitTheRequest) {
  for (const char byte : {'\r', '\n', ' ', '\t', '\x7F', '\xC3'}) {
    EXPECT_THROW((void)parse_websocket_url("url", std::string("ws://host/a") + byte + "b"), SetupError);
  }
}

TEST(Handshake, ComputesTheAcceptOfTheRfc) {
  const auto accept = accept_for_key("dGhlIHNhbXBsZSBub25jZQ==");
  EXPECT_EQ(std::string(accept.data(), accept.size()), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

TEST(Handshake, WritesARequestWithANewKeyEachTime) {
  KeyGenerator keys(3);
  const std::vector<std::string> headers = {"X-MBX-APIKEY: secret"};
  HandshakeRequest request(parse_websocket_url("url", "ws://venue:8080/stream?x=1"), headers, "headers");
  std::set<std::string> seen;
  for (int i = 0; i < 20; ++i) {
    request.renew(keys);
    const std::string text(request.text());
    EXPECT_EQ(text.substr(0, 45), "GET /stream?x=1 HTTP/1.1\r\nHost: venue:8080\r\nU");
    for (const char* line : {"\r\nUpgrade: websocket\r\n", "\r\nConnection: Upgrade\r\n",
                             "\r\nSec-WebSocket-Version: 13\r\n", "\r\nX-MBX-APIKEY: secret\r\n"}) {
      EXPECT_NE(text.find(line), std::string::npos) << line;
    }
    EXPECT_EQ(text.substr(text.size() - 4), "\r\n\r\n");
    const std::size_t at = text.find("Sec-WebSocket-Key: ") + 19;
    const std::string key = text.substr(at, text.find("\r\n", at) - at);
    EXPECT_EQ(key.size(), 24u);
    EXPECT_EQ(key.substr(22), "==");  // 16 bytes.
    const auto accept = accept_for_key(key);
    EXPECT_EQ(request.expected_accept(), std::string_view(accept.data(), accept.size()));
    EXPECT_TRUE(seen.insert(key).second);
  }
}

TEST(Handshake, RefusesHeadersThatCannotBe) {
  const auto url = parse_websocket_url("url", "ws://venue");
  const auto message = [&](const std::string& header) {
    return message_of([&] { HandshakeRequest(url, std::vector<std::string>{header}, "feeds[0].headers"); });
  };
  EXPECT_EQ(message("secret"),
            "feeds[0].headers[0]: expected a header line such as \"Name: value\", found a line without a "
            "name and a colon");
  EXPECT_EQ(message("X-Key: secret\r\nEvil: yes"),
            "feeds[0].headers[0]: expected no control characters, found one in the value of X-Key");
  EXPECT_EQ(message("host: secret"),
            "feeds[0].headers[0]: expected a header that the handshake does not set itself, found host");
}

constexpr std::string_view kAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

std::string good_answer() {
  return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
         "Upgrade\r\nSec-WebSocket-Accept: " +
         std::string(kAccept) + "\r\n\r\n";
}

TEST(Handshake, AcceptsAGoodAnswerOnceItIsComplete) {
  const std::string answer = good_answer();
  FixedText error;
  for (std::size_t size = 0; size < answer.size(); ++size) {
    ASSERT_EQ(check_handshake(answer.substr(0, size), kAccept, kNow, error).status,
              HandshakeStatus::Incomplete)
        << size;
  }
  const HandshakeAnswer whole = check_handshake(answer + "\x81\x02hi", kAccept, kNow, error);
  EXPECT_EQ(whole.status, HandshakeStatus::Accepted);
  EXPECT_EQ(whole.header_bytes, answer.size());
}

TEST(Handshake, AcceptsTheFreedomsOfHttp) {
  FixedText error;
  const std::string accept(kAccept);
  for (const std::string& answer :
       std::vector<std::string>{"HTTP/1.1 101\r\nUPGRADE:WebSocket\r\nconnection:  keep-alive ,\tupgrade "
                                "\r\nsec-websocket-accept:" +
                                    accept + "  \r\n\r\n",
                                "HTTP/1.1 101 \r\nServer: x\r\nUpgrade: websocket\r\nConnection: "
                                "keep-alive\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
                                    accept + "\r\nX-Empty:\r\nSec-WebSocket-Extensions:\r\n\r\n"}) {
    EXPECT_EQ(check_handshake(answer, kAccept, kNow, error).status, HandshakeStatus::Accepted)
        << answer << error.view();
  }
}

TEST(HttpDate, ReadsTheThreeFormsThatTheStandardNames) {
  const std::vector<std::pair<std::string, std::optional<std::int64_t>>> cases = {
      // By `date -u -d … +%s`.
      {"Sun, 06 Nov 1994 08:49:37 GMT", 784111777},
      {"Sunday, 06-Nov-94 08:49:37 GMT", 784111777},
      {"Sun Nov  6 08:49:37 1994", 784111777},
      {"Sun Nov 16 08:49:37 1994", 784975777},
      {"Thu, 29 Feb 2024 23:59:60 GMT", 1709251200},
      {"Fri, 31 Dec 9999 23:59:59 GMT", 253402300799},
      {"Saturday, 01-Jan-00 00:00:00 GMT", 946684800},
      {"Friday, 01-Jan-44 00:00:00 GMT", 2335219200},  // Fifty years on, from 1994.
      {"Monday, 01-Jan-45 00:00:00 GMT", -788918400},  // 1945.
      {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
      {"Wed, 31 Dec 1969 23:59:59 GMT", -1},
      {"Thu, 30 Feb 2024 00:00:00 GMT", {}},
      {"Wed, 29 Feb 2023 00:00:00 GMT", {}},
      {"Sun, 00 Nov 1994 08:49:37 GMT", {}},
      {"Sun, 06 Nov 1994 24:00:00 GMT", {}},
      {"Sun, 06 Nov 1994 08:60:37 GMT", {}},
      {"Sun, 06 Nov 1994 08:49:61 GMT", {}},
      {"Sun, 06 Nov 1994 08:49:37 GMT+1", {}},
      {"Sun, 06 Nov 1994 08:49:37 EST", {}},
      {"Sun, 06 Nov 1994 08:49:37", {}},
      {"Sun, 06 Nov 94 08:49:37 GMT", {}},
      {"Sun, 6 Nov 1994 08:49:37 GMT", {}},
      {"Sun, 06 Nov 19a4 08:49:37 GMT", {}},
      {"Sun, 06 Nox 1994 08:49:37 GMT", {}},
      {"Sun Nov x6 08:49:37 1994", {}},
      {"Sun Nov 06 08:49:37 19940", {}},
      {", 06 Nov 1994 08:49:37 GMT", {}},
      {"06 Nov 1994 08:49:37 GMT", {}},
      {"Sun", {}},
      {"Sun, 06 N", {}},
      {"soon", {}},
      {"", {}},
  };
  for (const auto& [text, seconds] : cases) EXPECT_EQ(parse_http_date(text, kNow), seconds) << text;
}

TEST(Handshake, SaysHowLongAServerWantsToBeLeftAlone) {
  const std::string answered = "Date: Wed, 21 Oct 2015 07:27:00 GMT\r\n";
  const std::vector<std::pair<std::string, std::int64_t>> cases = {
      {"", 0},
      {"Retry-After: 7\r\n", 7},
      {"retry-after:  120 \r\n", 120},
      {"Retry-After: 3601\r\n", 3600},
      {"Retry-After: 99999999999999999999999999\r\n", 3600},
      {"Retry-After: -5\r\n", 0},
      {"Retry-After: 7.5\r\n", 0},
      {"Retry-After: 7 s\r\n", 0},
      {"Retry-After: soon\r\n", 0},
      {"Retry-After: \r\n", 0},
      // From the answer's own date, however far its clock is from ours.
      {answered + "Retry-After: 9\r\n", 9},
      {answered + "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n", 60},
      {"Retry-After: Wednesday, 21-Oct-15 07:28:00 GMT\r\n" + answered, 60},
      {"date: Wed Oct 21 07:27:30 2015\r\nretry-after: Wed, 21 Oct 2015 07:28:00 GMT\r\n", 30},
      {answered + "Retry-After: Wed, 21 Oct 2015 09:28:00 GMT\r\n", 3600},
      {answered + "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n", 3600},
      {answered + "Retry-After: Wed, 21 Oct 2015 07:26:00 GMT\r\n", 0},
      {answered + "Retry-After: Wed, 21 Oct 2015\r\n", 0},
      {answered + "Retry-After: Wed, 32 Oct 2015 07:28:00 GMT\r\n", 0},
      // Without one, from our clock: it is 08:49:37.
      {"Retry-After: Sun, 06 Nov 1994 08:50:07 GMT\r\n", 30},
      {"Date: today\r\nRetry-After: Sun, 06 Nov 1994 08:50:07 GMT\r\n", 30},
      {"Retry-After: Sun, 06 Nov 1994 08:49:07 GMT\r\n", 0},
      {"Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n", 3600},
  };
  for (const auto& [headers, seconds] : cases) {
    FixedText error;
    const HandshakeAnswer answer =
        check_handshake("HTTP/1.1 429 Too Many Requests\r\n" + headers + "\r\n", kAccept, kNow, error);
    EXPECT_EQ(answer.status, HandshakeStatus::Refused) << headers;
    EXPECT_EQ(answer.retry_after_s, seconds) << headers;
  }
}

TEST(Handshake, RefusesAndSaysWhy) {
  const std::string accept = "Sec-WebSocket-Accept: " + std::string(kAccept) + "\r\n";
  const std::string start = "HTTP/1.1 101 Switching Protocols\r\n";
  const std::string upgrade = "Upgrade: websocket\r\n";
  const std::string connection = "Connection: Upgrade\r\n";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"SSH-2.0-OpenSSH_9.2\r\n", "handshake: expected an HTTP/1.1 answer, found \"SSH-2.0-OpenSSH_9.2?\""},
      {"\x16\x03\x01", "handshake: expected an HTTP/1.1 answer, found \"???\""},
      {"HTTP/2 101\r\n\r\n", "handshake: expected an HTTP/1.1 answer, found \"HTTP/2 101????\""},
      {"HTTP/1.1 1O1 x\r\n\r\n", "handshake: expected an HTTP status line, found \"HTTP/1.1 1O1 x\""},
      {"HTTP/1.\r\n\r\n", "handshake: expected an HTTP status line, found \"HTTP/1.\""},
      {"HTTP/1.1 403 Forbidden\r\n\r\n", "handshake: expected HTTP 101, found 403 Forbidden"},
      {"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\n\r\n",
       "handshake: expected HTTP 101, found 429 Too Many Requests, Retry-After: 7"},
      {"HTTP/1.1 429 Too Many Requests\r\nRetry-After: soon\r\n\r\n",
       "handshake: expected HTTP 101, found 429 Too Many Requests, Retry-After: soon"},
      {"HTTP/1.1 302 Found\r\nLocation: https://b/\r\n\r\n",
       "handshake: expected HTTP 101, found 302 Found, elsewhere at https://b/"},
      {"HTTP/1.1 451 No\r\nContent-Length: 40\r\n\r\n{\"code\":0,\r\n  \"msg\":\"restricted\"}",
       "handshake: expected HTTP 101, found 451 No: {\"code\":0, \"msg\":\"restricted\"}"},
      {"HTTP/1.1 403 No\r\ntransfer-encoding: Chunked\r\n\r\n9\r\nForbidden\r\n0\r\n\r\n",
       "handshake: expected HTTP 101, found 403 No: Forbidden 0 "},
      {"HTTP/1.1\r\n\r\n", "handshake: expected an HTTP status line, found \"HTTP/1.1\""},
      {"HTTP/1.1 \r\n\r\n", "handshake: expected an HTTP status line, found \"HTTP/1.1 \""},
      {"HTTP/1.1 10\r\n\r\n", "handshake: expected an HTTP status line, found \"HTTP/1.1 10\""},
      {"HTTP/1.1 200 OK\r\n" + upgrade + connection + accept + "\r\n",
       "handshake: expected HTTP 101, found 200 OK"},
      {start + connection + accept + "\r\n",
       "handshake: expected \"Upgrade: websocket\" and \"Connection: Upgrade\", found an answer without"},
      {start + upgrade + accept + "\r\n",
       "handshake: expected \"Upgrade: websocket\" and \"Connection: Upgrade\", found an answer without"},
      {start + "Upgrade: h2c\r\n" + connection + accept + "\r\n",
       "handshake: expected \"Upgrade: websocket\" and \"Connection: Upgrade\", found an answer without"},
      {start + upgrade + connection + "\r\n",
       "handshake: expected Sec-WebSocket-Accept for our key, found none"},
      {start + upgrade + connection + "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
       "handshake: expected Sec-WebSocket-Accept for our key, found another"},
      {start + upgrade + connection + accept + accept + "\r\n",
       "handshake: expected Sec-WebSocket-Accept for our key, found several"},
      {start + upgrade + connection + accept + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
       "handshake: expected no Sec-WebSocket-Extensions (none was offered), found \"permessage-deflate\""},
      {start + upgrade + connection + accept + "Sec-WebSocket-Protocol: chat\r\n\r\n",
       "handshake: expected no Sec-WebSocket-Protocol (none was offered), found \"chat\""},
      {start + upgrade + " folded\r\n" + connection + accept + "\r\n",
       "handshake: expected a header line, found \" folded\""},
      {start + upgrade + connection + accept + "no colon\r\n\r\n",
       "handshake: expected a header line, found \"no colon\""},
      {start + std::string(kMaxHandshakeBytes, 'x'),
       "handshake: expected at most 16384 bytes of HTTP header, found more"},
  };
  for (const auto& [answer, expected] : cases) {
    FixedText error;
    EXPECT_EQ(check_handshake(answer, kAccept, kNow, error).status, HandshakeStatus::Refused) << answer;
    EXPECT_EQ(error.view(), expected);
  }
}

TEST(Handshake, SaysWhetherTheReasonOfARefusalIsStillComing) {
  const std::string head = "HTTP/1.1 451 No\r\nContent-Length: 5\r\n\r\n";
  const std::string of_no_length = "HTTP/1.1 451 No\r\n\r\n";
  const std::string of_a_long_page = "HTTP/1.1 451 No\r\nContent-Length: 99999999999999999999\r\n\r\n";
  const std::vector<std::pair<std::string, bool>> cases = {
      {head, true},
      {head + "abcd", true},
      {head + "abcde", false},
      {of_no_length, true},
      {of_no_length + "a", false},
      {of_a_long_page + std::string(511, 'x'), true},
      {of_a_long_page + std::string(512, 'x'), false},
      {"HTTP/1.1 451 No\r\nContent-Length: 0\r\n\r\n", false},
      {"HTTP/1.1 101 x\r\n\r\n", false},
  };
  for (const auto& [answer, more] : cases) {
    FixedText error;
    const HandshakeAnswer got = check_handshake(answer, kAccept, kNow, error);
    EXPECT_EQ(got.status, HandshakeStatus::Refused) << answer;
    EXPECT_EQ(got.more, more) << answer;
  }
}

TEST(Handshake, SurvivesEveryOneByteChange) {
  const std::string answer = good_answer();
  for (std::size_t at = 0; at < answer.size(); ++at) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string changed = answer;
      changed[at] = static_cast<char>(byte);
      FixedText error;
      const HandshakeAnswer got = check_handshake(changed, kAccept, kNow, error);
      if (got.status == HandshakeStatus::Refused) {
        ASSERT_FALSE(error.empty());
      }
      if (got.status == HandshakeStatus::Accepted) {
        ASSERT_EQ(got.header_bytes, answer.size());
        // The accept value itself never survives a change.
        ASSERT_NE(changed.find(kAccept), std::string::npos);
      }
    }
  }
}

}  // namespace
}  // namespace tickwire::net

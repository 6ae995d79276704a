#pragma once

/// As much of JSON as a capture's line needs before anybody decodes its message: the members of an object,
/// and a text without its escapes.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tickwire::md {

/// Calls `on_member` with each key and value of the outermost object, as they are written. True where
/// the text is one object or list with all its brackets closed at the end and none before it.
template <typename OnMember>
bool walk_json(std::string_view text, OnMember on_member) {
  constexpr std::string_view kSpace = " \t\r";
  std::size_t depth = 0;
  std::string_view key;
  std::size_t value = 0;  // Where the value of `key` begins; 0: no key is open.
  const auto close = [&](std::size_t end) {
    if (value == 0) return;
    std::string_view found = text.substr(value, end - value);
    while (!found.empty() && kSpace.find(found.back()) != std::string_view::npos) found.remove_suffix(1);
    on_member(key, found);
    value = 0;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return false;
      if (depth == 1) close(i);
      if (--depth == 0) return text.find_first_not_of(kSpace, i + 1) == std::string_view::npos;
    } else if (c == ',' && depth == 1) {
      close(i);
    } else if (c == '"') {
      const std::size_t begin = ++i;
      while (i < text.size() && text[i] != '"') i += text[i] == '\\' ? 2 : 1;
      if (i >= text.size()) return false;
      if (depth != 1 || value != 0) continue;
      const std::size_t after = text.find_first_not_of(" \t", i + 1);
      if (after == std::string_view::npos || text[after] != ':') continue;
      key = text.substr(begin, i - begin);
      value = text.find_first_not_of(" \t", after + 1);
      if (value == std::string_view::npos) return false;
      i = value - 1;
    }
  }
  return false;
}

/// Appends what a text between quotes stands for. False where an escape is none of JSON's.
inline bool unescape_json(std::string_view text, std::string& out) {
  const auto hex4 = [](std::string_view digits, std::uint32_t& value) {
    if (digits.size() < 4) return false;
    value = 0;
    for (const char c : digits.substr(0, 4)) {
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) return false;
      value = value * 16 + static_cast<std::uint32_t>(digit);
    }
    return true;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out.push_back(text[i]);
      continue;
    }
    if (++i == text.size()) return false;
    constexpr std::string_view kShort = "\"\\/bfnrt";
    constexpr std::string_view kMeans = "\"\\/\b\f\n\r\t";
    if (const std::size_t found = kShort.find(text[i]); found != std::string_view::npos) {
      out.push_back(kMeans[found]);
      continue;
    }
    std::uint32_t code = 0;
    if (text[i] != 'u' || !hex4(text.substr(i + 1), code)) return false;
    i += 4;
    if (code >= 0xD800 && code < 0xE000) {
      // Two halves of one character.
      std::uint32_t low = 0;
      if (code >= 0xDC00 || text.substr(i + 1, 2) != "\\u" || !hex4(text.substr(i + 3), low) ||
          low < 0xDC00 || low >= 0xE000) {
        return false;
      }
      i += 6;
      code = 0x10000 + ((code - 0xD800) << 10U) + (low - 0xDC00);
    }
    const auto put = [&](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (code < 0x80) {
      put(code);
    } else if (code < 0x800) {
      put(0xC0 | code >> 6U);
      put(0x80 | (code & 0x3FU));
    } else if (code < 0x10000) {
      put(0xE0 | code >> 12U);
      put(0x80 | (code >> 6U & 0x3FU));
      put(0x80 | (code & 0x3FU));
    } else {
      put(0xF0 | code >> 18U);
      put(0x80 | (code >> 12U & 0x3FU));
      put(0x80 | (code >> 6U & 0x3FU));
      put(0x80 | (code & 0x3FU));
    }
  }
  return true;
}

}  // namespace tickwire::md

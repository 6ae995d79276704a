#pragma once

/// Texts of a fixed size for messages to people, made where nothing may be allocated: a whole number, and
/// the printable beginning of bytes that came from outside. Any thread; a value each.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tickwire/core/hot.hpp"

namespace tickwire {

/// A whole number in decimals.
class NumberText {
 public:
  explicit NumberText(std::uint64_t value) noexcept TICKWIRE_HOT {
    do {
      text_[--begin_] = static_cast<char>('0' + value % 10);
      value /= 10;
    } while (value != 0);
  }
  [[nodiscard]] std::string_view view() const noexcept TICKWIRE_HOT {
    return {text_ + begin_, sizeof text_ - begin_};
  }

 private:
  char text_[20];
  std::size_t begin_ = sizeof text_;
};

/// Some of what a message holds: printable, and no longer than a line takes.
class Excerpt {
 public:
  explicit Excerpt(std::string_view text) noexcept TICKWIRE_HOT : size_(std::min(text.size(), sizeof text_)) {
    std::transform(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(size_), text_,
                   [](char c) { return c >= ' ' && c <= '~' ? c : '?'; });
  }
  [[nodiscard]] std::string_view view() const noexcept TICKWIRE_HOT { return {text_, size_}; }

 private:
  char text_[48];
  std::size_t size_;
};

}  // namespace tickwire

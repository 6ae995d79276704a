#pragma once

#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "tickwire/core/hot.hpp"

namespace tickwire {

/// A text of bounded length that is written without allocating, for errors on a thread that must not.
/// What does not fit is cut; bytes that would upset a log line (the text may quote a server) become '?'.
class FixedText {
 public:
  [[gnu::format(printf, 2, 3)]] void set(const char* format, ...) noexcept {
    std::va_list arguments;
    va_start(arguments, format);
    const int wanted = std::vsnprintf(text_, sizeof text_, format, arguments);
    va_end(arguments);
    size_ = wanted < 0 ? 0 : static_cast<std::size_t>(wanted);
    if (size_ >= sizeof text_) size_ = sizeof text_ - 1;
    make_printable();
  }
  void assign(std::string_view text) noexcept TICKWIRE_HOT {
    size_ = text.size() < sizeof text_ ? text.size() : sizeof text_ - 1;
    if (size_ != 0) std::memcpy(text_, text.data(), size_);
    make_printable();
  }
  void clear() noexcept { size_ = 0; }

  bool empty() const noexcept { return size_ == 0; }
  std::string_view view() const noexcept { return {text_, size_}; }

 private:
  void make_printable() noexcept TICKWIRE_HOT {
    for (std::size_t i = 0; i < size_; ++i) {
      if (text_[i] < ' ' || text_[i] > '~') text_[i] = '?';
    }
  }

  char text_[200] = {};
  std::size_t size_ = 0;
};

/// The arguments of "%.*s" for a view.
#define TICKWIRE_PRINTF_VIEW(view) static_cast<int>((view).size()), (view).data()

}  // namespace tickwire

#pragma once

#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <string_view>

namespace tickwire::feed {

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
    for (std::size_t i = 0; i < size_; ++i) {
      if (text_[i] < ' ' || text_[i] > '~') text_[i] = '?';
    }
  }
  void clear() noexcept { size_ = 0; }

  bool empty() const noexcept { return size_ == 0; }
  std::string_view view() const noexcept { return {text_, size_}; }

 private:
  char text_[200] = {};
  std::size_t size_ = 0;
};

/// The arguments of "%.*s" for a view.
#define TICKWIRE_PRINTF_VIEW(view) static_cast<int>((view).size()), (view).data()

}  // namespace tickwire::feed

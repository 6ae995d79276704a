#pragma once

/// Stamps against those before them: which of them are of another time.
///
/// A stamp that is further from the newest one than kMostLeapNs, either way, is of a clock that was set, of a
/// recording that was put together, or wrong: which of them, what came before does not say. What was, and
/// this stamp, are then not to be gone by together. Live and in a replay the past alone decides.

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <string_view>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/time.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/engine/error_kinds.hpp"

namespace tickwire::engine {

class StampWatch {
 public:
  static constexpr std::int64_t kMostLeapNs = 600'000'000'000;

  /// Is it far from the newest? Then it is the newest from now on.
  [[nodiscard]] bool leaps(TsNs now) noexcept TICKWIRE_HOT {
    if (now == kNoTime) return false;
    if (newest_ == kNoTime) {
      newest_ = now;
      return false;
    }
    ahead_ = now > newest_;
    const auto [low, high] = std::minmax(newest_, now);
    // Without a limit, for a stamp may be anything.
    step_ns_ = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
    const bool far = step_ns_ > static_cast<std::uint64_t>(kMostLeapNs);
    newest_ = far ? now : high;
    return far;
  }
  /// Which way did the last one leap?
  [[nodiscard]] bool ahead() const noexcept TICKWIRE_HOT { return ahead_; }
  /// What comes next has nothing before it.
  void forget() noexcept TICKWIRE_HOT { newest_ = kNoTime; }

  /// Says that the last stamp leapt. `whose`: "a receive stamp" and the like.
  void tell(metrics::ErrorLog& log, std::string_view feed, std::string_view whose, TsNs ts) const noexcept
      TICKWIRE_HOT {
    TICKWIRE_HOT_EXEMPT_BEGIN("rare: a number is written as text")
    std::array<char, 24> text;
    const std::to_chars_result end =
        std::to_chars(text.begin(), text.end(), step_ns_ / std::uint64_t{1'000'000'000});
    report(log, ErrorKind::ClockLeap,
           {feed, ": ", whose, " is ",
            std::string_view(text.data(), static_cast<std::size_t>(end.ptr - text.data())), " s ",
            ahead_ ? "ahead of" : "behind",
            " the newest before it: the books are suspect until the next message, and windows begin anew"},
           ts);
    TICKWIRE_HOT_EXEMPT_END
  }

 private:
  TsNs newest_ = kNoTime;
  std::uint64_t step_ns_ = 0;
  bool ahead_ = false;
};

}  // namespace tickwire::engine

#pragma once

/// Stamps against those before them: which of them are of another time.
///
/// A stamp that is more than kMostLeapNs behind the newest one is of a clock that was set, of a recording
/// that was put together, or wrong: which of them, what came before does not say. What was, and this stamp,
/// are then not to be gone by together. One that is as far ahead may be of a silence. It is where the
/// message's other stamp has moved on by as much, to within kMostLeapNs: our clock and the venue's know
/// nothing of each other. Where no message has both, who was there may know: live, the monotonic clock has
/// measured how long nothing came, which is an entry of the recording. Else it is a leap as well. Live and in
/// a replay the past alone decides.

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

  /// What a message's stamps are not to be gone by for.
  struct Leaps {
    bool recv = false;
    bool event = false;
    bool waited = false;  // The first is not, for no other reason than that our own clock says so.
  };

  /// A message's stamps; `ts_event` is the venue's, kNoTime where the message has none. `tsc` is when it came
  /// by the clock that nobody sets; 0 where nobody was there. What leaps is the newest from now on.
  [[nodiscard]] Leaps follow(TsNs ts_recv, TsNs ts_event, std::uint64_t tsc) noexcept TICKWIRE_HOT {
    if (is_far(recv_, ts_recv) || (ts_event != kNoTime && is_far(event_, ts_event))) [[unlikely]]
      return judge(ts_recv, ts_event, tsc);
    recv_ = std::max(recv_, ts_recv);
    if (ts_event != kNoTime) event_ = std::max(event_, ts_event);
    tsc_ = tsc;
    return {};
  }
  /// Is this receive stamp close to the newest, whatever the venue's says?
  [[nodiscard]] bool is_near(TsNs ts_recv) const noexcept TICKWIRE_HOT { return !is_far(recv_, ts_recv); }
  /// The recording says that somebody was there, and waited for as long as the receive stamp `ts` says.
  void waited(TsNs ts) noexcept TICKWIRE_HOT { waited_ = ts; }
  /// What comes next has nothing before it.
  void forget() noexcept TICKWIRE_HOT { recv_ = event_ = kNoTime; }

  /// Say that the last receive stamp leapt, or that the venue's did.
  void tell_recv(metrics::ErrorLog& log, std::string_view feed, TsNs ts) const noexcept TICKWIRE_HOT {
    tell(log, feed, ": a receive stamp is ", recv_step_, ts);
  }
  void tell_event(metrics::ErrorLog& log, std::string_view feed, TsNs ts) const noexcept TICKWIRE_HOT {
    tell(log, feed, ": a stamp of the venue is ", event_step_, ts);
  }

 private:
  static constexpr auto kMost = static_cast<std::uint64_t>(kMostLeapNs);

  /// From one stamp to the next, either way. Without a limit, for a stamp may be anything.
  struct Step {
    std::uint64_t ns = 0;
    bool ahead = false;
    [[nodiscard]] bool is_far() const noexcept TICKWIRE_HOT { return ns > kMost; }
  };

  /// Also where there is no newest one.
  [[nodiscard]] static bool is_far(TsNs newest, TsNs now) noexcept TICKWIRE_HOT {
    return static_cast<std::uint64_t>(now) - static_cast<std::uint64_t>(newest) + kMost > 2 * kMost;
  }
  [[nodiscard]] static Step step_of(TsNs newest, TsNs now) noexcept TICKWIRE_HOT {
    if (newest == kNoTime || now == kNoTime) return {};
    const auto [low, high] = std::minmax(newest, now);
    return {static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low), now >= newest};
  }
  [[nodiscard]] static bool agree(std::uint64_t a, std::uint64_t b) noexcept TICKWIRE_HOT {
    return (a > b ? a - b : b - a) <= kMost;
  }

  [[nodiscard, gnu::noinline]] Leaps judge(TsNs ts_recv, TsNs ts_event, std::uint64_t tsc) noexcept
      TICKWIRE_HOT {
    recv_step_ = step_of(recv_, ts_recv);
    event_step_ = step_of(event_, ts_event);
    Leaps found{.recv = recv_step_.is_far(), .event = event_step_.is_far()};
    const bool both = recv_ != kNoTime && event_ != kNoTime && ts_recv != kNoTime && ts_event != kNoTime;
    if (both && recv_step_.ahead && event_step_.ahead && agree(recv_step_.ns, event_step_.ns)) {
      found = {};
    } else if (found.recv && recv_step_.ahead) {
      const bool measured =
          tsc_ != 0 && tsc > tsc_ && agree(recv_step_.ns, static_cast<std::uint64_t>(tsc_to_ns(tsc - tsc_)));
      found.recv = !measured && ts_recv != waited_;
      found.waited = measured;
    }
    if (ts_recv != kNoTime) recv_ = found.recv ? ts_recv : std::max(recv_, ts_recv);
    if (ts_event != kNoTime) event_ = found.event ? ts_event : std::max(event_, ts_event);
    tsc_ = tsc;
    return found;
  }

  static void tell(metrics::ErrorLog& log, std::string_view feed, std::string_view what, const Step& step,
                   TsNs ts) noexcept TICKWIRE_HOT {
    TICKWIRE_HOT_EXEMPT_BEGIN("rare: a number is written as text")
    std::array<char, 24> text;
    const std::to_chars_result end =
        std::to_chars(text.begin(), text.end(), step.ns / std::uint64_t{1'000'000'000});
    report(log, ErrorKind::ClockLeap,
           {feed, what, std::string_view(text.data(), static_cast<std::size_t>(end.ptr - text.data())), " s ",
            step.ahead ? "ahead of" : "behind",
            " the newest before it: the books are suspect until the next message, and windows begin anew"},
           ts);
    TICKWIRE_HOT_EXEMPT_END
  }

  // The newest ones.
  TsNs recv_ = kNoTime;
  TsNs event_ = kNoTime;
  std::uint64_t tsc_ = 0;
  TsNs waited_ = kNoTime;
  // Of what was judged last.
  Step recv_step_;
  Step event_step_;
};

}  // namespace tickwire::engine

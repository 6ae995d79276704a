#pragma once

/// TICKWIRE_HOT marks a function of the data plane. It promises: no allocation, no lock, no
/// exception, no system call, no clock but the TSC, no logging, no unbounded loop. It stands after
/// `noexcept`, on the first declaration:
///
///     void apply(const Level& level) noexcept TICKWIRE_HOT;
///
/// Under a clang that knows function effects it becomes `[[clang::nonblocking]]` and every call
/// below it is checked by tools/check_hot_path; under g++ it is documentation.
#if defined(__clang__) && __clang_major__ >= 20
#define TICKWIRE_HOT [[clang::nonblocking]]
#else
#define TICKWIRE_HOT
#endif

/// Brackets a call inside a hot function that cannot be bounded by us: the socket's receive, the
/// model's run, the wake-up of a sleeping reader. The reason is for the reader of the code; the
/// brackets hold that call alone.
#if defined(__clang__) && __clang_major__ >= 20
#define TICKWIRE_HOT_EXEMPT_BEGIN(reason) \
  _Pragma("clang diagnostic push") _Pragma("clang diagnostic ignored \"-Wfunction-effects\"")
#define TICKWIRE_HOT_EXEMPT_END _Pragma("clang diagnostic pop")
#else
#define TICKWIRE_HOT_EXEMPT_BEGIN(reason)
#define TICKWIRE_HOT_EXEMPT_END
#endif

#pragma once

/// What a kernel is: one node of a plan, and its entry in the list of kernels. Owned and driven by
/// FeatureEngine; the order of its calls is what the comments of the kernels rely on.
///
/// Prices and quantities stay integers for as long as a formula allows. Ratios of prices need no decimals
/// at all, so `spread`, `vwap_offset` and the like are one rounded division of exact integers: nothing of a
/// 60,000-dollar price is left to cancel in a basis point, and what is equal in exact arithmetic is the same
/// bits, also where the quantities behind it are others. Accumulators of integers wrap (unsigned) instead of
/// overflowing: a venue that sends 2^63 gets a wrong feature, not undefined behaviour, and the sum is right
/// again when the entry has left.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"

namespace tickwire::features {

/// Not warm, and nobody knows yet when.
inline constexpr TsNs kNever = std::numeric_limits<TsNs>::max();

/// t + span, for spans below kMaxWindowNs times the nesting of an expression.
inline TsNs later(TsNs t, std::int64_t span_ns) noexcept TICKWIRE_HOT {
  return t > kNever - span_ns ? kNever : t + span_ns;
}

/// One node of the plan.
///
/// `start` comes at each epoch, inputs first. At a book event: the tape is pushed, then for each node,
/// inputs first, `on_book`, and where the node is wrapped and warm, its `value` becomes the newest of
/// its samples. `value` may also be asked between events, at a later t.
class Kernel {
 public:
  virtual void start(TsNs t) noexcept TICKWIRE_HOT = 0;
  virtual void on_book(TsNs) noexcept TICKWIRE_HOT {}
  virtual void on_trade(TsNs) noexcept TICKWIRE_HOT {}
  virtual void on_order(TsNs) noexcept TICKWIRE_HOT {}
  virtual double value(TsNs t) noexcept TICKWIRE_HOT = 0;

  /// From when on the value counts; kNever while that is not known.
  TsNs warm_at() const noexcept TICKWIRE_HOT { return warm_at_; }

 protected:
  ~Kernel() = default;  // Trivial: kernels live in the arena.

  TsNs warm_at_ = kNever;
};

// --- What the list says of a kernel ---------------------------------------------------------------

class Site;

struct Parameter {
  enum class Kind : std::uint8_t {
    Expression,  // Another one, which is wrapped.
    Levels,      // Of each side of the book.
    Window,      // A duration or a count.
    Duration,    // A window that is no count.
    Halflife,
    Lag,  // Samples.
  };
  std::string_view name;  // Empty: there is none.
  Kind kind = Kind::Expression;
  std::uint32_t fallback = 0;  // Where it is not given; 0: it must be.
};

inline constexpr Parameter kX{"x", Parameter::Kind::Expression};
inline constexpr Parameter kLevels{"levels", Parameter::Kind::Levels};
inline constexpr Parameter kWindow{"window", Parameter::Kind::Window};

/// What a kernel reads. A window counts samples where it wraps an expression, trades where it reads them,
/// orders likewise, else events of the book. Samples are taken at each event of the book.
enum class Reads : std::uint8_t {
  Book = 1,
  Trades = 2,
  Arrivals = 4,  // Of orders.
  Cancels = 8,
};
constexpr Reads operator|(Reads a, Reads b) noexcept {
  return static_cast<Reads>(static_cast<std::uint8_t>(a) | static_cast<std::uint8_t>(b));
}

/// The levels a side that a value depends on, by itself: what a kernel wraps has its own.
enum class Reach : std::uint8_t { None, Best, Levels };

/// What the tape of the book keeps of each event for it.
enum class Series : std::uint8_t { None, Mids, SquaredReturns, Flow };

/// All that a user and the engine need to know of a kernel. A user reads it by `tickwire.features.KERNELS`.
struct KernelEntry {
  std::string_view name;  // In an expression.
  std::array<Parameter, 3> parameters{};
  std::string_view formula;
  std::string_view unit;
  std::string_view description;
  std::string_view source{};  // Of whoever described it first.
  std::uint32_t version = 1;  // Grows when the same input gives another value.
  Reads reads = Reads::Book;
  Reach reach = Reach::None;
  Series series = Series::None;
  Kernel* (*make)(Site&) = nullptr;

  [[nodiscard]] constexpr bool takes(Parameter::Kind kind) const noexcept {
    return std::any_of(parameters.begin(), parameters.end(), [kind](const Parameter& parameter) {
      return !parameter.name.empty() && parameter.kind == kind;
    });
  }
  [[nodiscard]] constexpr bool wraps() const noexcept { return takes(Parameter::Kind::Expression); }
  [[nodiscard]] constexpr bool reads_any(Reads of) const noexcept {
    return (static_cast<std::uint8_t>(reads) & static_cast<std::uint8_t>(of)) != 0;
  }
};

/// Each kernel there is. A node of a plan points at its entry.
[[nodiscard]] std::span<const KernelEntry> kernels() noexcept;

/// Null where there is none of that name.
[[nodiscard]] const KernelEntry* find_kernel(std::string_view name) noexcept;

}  // namespace tickwire::features

#pragma once

/// Where a kernel is built: what its node says, and what it may read and keep. Set-up only.

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <type_traits>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/features/entry_window.hpp"
#include "tickwire/features/kernel.hpp"
#include "tickwire/features/plan.hpp"
#include "tickwire/features/rolling.hpp"
#include "tickwire/features/tapes.hpp"

namespace tickwire::features {

/// What a wrapper reads: the wrapped node, for its warm-up, and the samples of its value.
struct Wrapped {
  const Kernel* kernel;
  const Samples* samples;
  const Timeline* timeline;  // Of book events, which number the samples.

  bool started() const noexcept TICKWIRE_HOT { return samples->first != 0; }
  double newest() const noexcept TICKWIRE_HOT { return samples->values[timeline->newest]; }
};

class Site {
 public:
  const NodeSpec& node;
  const BookTape& book;
  const TradeTape& trades;
  const Timeline& timeline;  // Of what the node's window counts.
  Wrapped input;             // Of a kernel that wraps an expression.
  double qty_scale;          // Quantity units in one of the instrument's base.
  std::size_t slots;         // Of the rings that the node's window looks at.
  std::uint64_t& overflows;
  Arena& arena;

  [[nodiscard]] Window::Shape shape() const noexcept {
    return {.span_ns = node.window_ns,
            .count = node.window_count,
            .max_entries = slots - 1,
            .keep_newest = node.kernel->wraps()};
  }
  [[nodiscard]] EntryWindow window() const noexcept {
    return {Window(timeline, shape(), overflows), node.window_ns, node.window_count};
  }
  /// The flow over as many levels as the node says.
  [[nodiscard]] const OrderFlow& flow() const noexcept {
    std::size_t i = 0;
    while (book.flows[i].levels != node.levels) ++i;
    return book.flows[i];
  }
  /// Room for something of each entry of the window.
  template <typename T>
  [[nodiscard]] Ring<T> ring() {
    return {arena.allocate<T>(slots)};
  }
  template <typename K>
  [[nodiscard]] K* make() {
    static_assert(std::is_trivially_destructible_v<K>);
    // As bytes: the arena hands out default-constructed objects, which kernels are not.
    std::byte* const raw = arena.allocate<std::byte>(sizeof(K), alignof(K)).data();
    return ::new (static_cast<void*>(raw)) K(*this);
  }
};

}  // namespace tickwire::features

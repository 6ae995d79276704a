#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/kernel.hpp"
#include "tickwire/features/plan.hpp"
#include "tickwire/features/tapes.hpp"
#include "tickwire/md/event.hpp"

namespace tickwire::features {

struct FeatureLimits {
  /// Events a second that windows of a duration are sized for, at least 4,095 a window. What
  /// is above it leaves its window early and is counted.
  double max_event_rate;
};

/// The feature row of one instrument, kept up to date event by event.
///
/// Owned by one ingest agent. Everything is taken from the arena by the constructor; a run allocates
/// nothing. A book event costs one pass over the nodes of the plan, each O(1) amortised: windows move
/// their head, sums add and take away. Samples, order flow, mids and times are stored once, however
/// many windows look at them. Why it is not recomputed from a plain history of rows: 30 s of a busy
/// book are 60,000 samples.
///
/// What holds for every kernel (the formulas stand in kernels/):
/// - t is the window clock and never goes back within an epoch. A window is (t - w, t], and a row that
///   leaves on a trade evicts by that trade's t. A window over samples always keeps the newest one,
///   because the wrapped expression still has that value.
/// - The book that an epoch starts with is what the first event is compared with and a state that
///   mid_return can go back to. It is no event: no sample, no row.
/// - A wrapped expression is sampled once a book event, from the first event at which it is warm.
/// - A duration warms up from the epoch's start, or from where the wrapped expression is warm; a count
///   when it is full. ema takes five half-lives, diff lag + 1 samples. An outer kernel is also not warm
///   before the first sample.
/// - Where a side of the book is empty, what needs mid is NaN, and so is a window while it holds a NaN;
///   it is right again as soon as the NaN has left.
/// - Doubles in a fixed order, functions of our own (exact_math.hpp): the same bits on every machine. A
///   cell is the double rounded to float; a NaN is always the same NaN and a denormal is 0, because
///   threads differ in whether they flush it.
class FeatureEngine {
 public:
  /// Throws SetupError where the plan is inconsistent or a window needs more memory than is sensible.
  FeatureEngine(const FeaturePlan& plan, int qty_decimals, const FeatureLimits& limits, Arena& arena);

  /// Forgets everything. t is the epoch's first valid moment and `top` the book at it. The spans of a
  /// TopOfBook need only hold for the call, and want FeaturePlan::max_levels() levels where the book
  /// has them.
  void start_epoch(const TopOfBook& top, TsNs t) noexcept TICKWIRE_HOT;

  /// Once a book event, after the whole message is applied. Needs a started epoch, as the next.
  void on_book(const TopOfBook& top, TsNs t) noexcept TICKWIRE_HOT;

  /// A trade that is not printable, or of nothing, is ignored.
  void on_trade(const md::Trade& trade, TsNs t) noexcept TICKWIRE_HOT;

  /// Of a feed by order: how many orders came to the book and how many left it without being executed, in
  /// part or whole. Before on_book() of the same event.
  void on_orders(std::uint32_t arrived, std::uint32_t cancelled, TsNs t) noexcept TICKWIRE_HOT;

  /// Asks memory for what an event will touch, in two steps: the kernels, then, once they are there, their
  /// places in the windows. A feed by order is a whole exchange's, and between two events of an instrument
  /// its kernels have left the caches: each would be waited for alone. Who knows what comes takes the steps
  /// some messages apart; else on_orders() takes them at once. A feed by price has a few instruments, whose
  /// kernels stay, and does without: with sixteen it costs 25 ns.
  void prepare_kernels() const noexcept TICKWIRE_HOT;
  void prepare_entries() noexcept TICKWIRE_HOT;

  /// May a row leave at t? False before the first epoch.
  [[nodiscard]] bool warm(TsNs t) const noexcept TICKWIRE_HOT;

  /// The feature that is warm last, by its place in the row, and when it is; the largest time where that
  /// depends on events that are still to come.
  struct Last {
    std::size_t feature;
    TsNs warm_at;
  };
  [[nodiscard]] Last warm_last() const noexcept;

  /// Writes feature_count() floats. Only where warm(t).
  void write_row(TsNs t, float* out) noexcept TICKWIRE_HOT;

  [[nodiscard]] std::size_t feature_count() const noexcept TICKWIRE_HOT { return outputs_.size(); }

  /// Entries that left a window early because its ring was full.
  [[nodiscard]] std::uint64_t window_overflows() const noexcept TICKWIRE_HOT { return state_->overflows; }

 private:
  struct Node {
    Kernel* kernel;
    Samples* samples;  // Null where no other node wraps this one.
    double value;
    std::uint64_t version;  // Of the state that `value` belongs to.
  };

  /// What kernels point at; in the arena, so that the engine can be moved.
  struct State {
    BookTape book;
    TradeTape trades;
    Timeline arrivals;  // Of orders, numbered from 1; no slots when nothing needs them.
    Timeline cancels;
    std::uint64_t overflows = 0;
  };

  class Builder;

  double evaluate(Node& node, TsNs t) noexcept TICKWIRE_HOT;
  static void enter(Timeline& timeline, std::span<Kernel*> kernels, std::uint32_t count, TsNs t) noexcept
      TICKWIRE_HOT;

  State* state_;
  std::span<Node> nodes_;
  std::span<Kernel*> trade_kernels_;
  std::span<Kernel*> arrival_kernels_;
  std::span<Kernel*> cancel_kernels_;
  std::span<std::uint32_t> outputs_;
  std::uint64_t version_ = 1;  // Grows with every change of state or of t.
  TsNs evaluated_at_ = kNoTime;
  bool prepared_ = false;
  std::span<const std::byte> kept_;  // Nodes, kernels and lists, which lie behind one another.
};

}  // namespace tickwire::features

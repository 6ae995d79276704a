#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/features/exact_math.hpp"
#include "tickwire/features/rolling.hpp"
#include "tickwire/md/event.hpp"

/// The kernels: what each feature is, incrementally. Owned and driven by FeatureEngine; the order of
/// its calls is what the comments here rely on.
///
/// Prices and quantities stay integers for as long as the formula allows. Ratios of prices need no
/// decimals at all, so `spread`, `vwap_offset` and the like are one rounded division of exact
/// integers: nothing of a 60,000-dollar price is left to cancel in a basis point, and what is equal in
/// exact arithmetic is the same bits, also where the quantities behind it are others. Accumulators
/// of integers wrap (unsigned) instead of overflowing: a venue that sends 2^63 gets a wrong feature,
/// not undefined behaviour, and the sum is right again when the entry has left.
namespace tickwire::features {

/// Not warm, and nobody knows yet when.
inline constexpr TsNs kNever = std::numeric_limits<TsNs>::max();

/// t + span, for spans below kMaxWindowNs times the nesting of an expression.
inline TsNs later(TsNs t, std::int64_t span_ns) noexcept TICKWIRE_HOT {
  return t > kNever - span_ns ? kNever : t + span_ns;
}

/// The best levels of a book, best first.
struct TopOfBook {
  std::span<const md::Level> bids;
  std::span<const md::Level> asks;
};

/// Order flow of each book event over the best `levels` levels, shared by all windows over it.
struct OrderFlow {
  std::uint32_t levels;
  Ring<Int128> flow;
};

/// What the kernels of the book read: the best levels now and before the last event, and the series
/// made of them. Entry 0 of the timeline is the state of the book that the epoch started with.
struct BookTape {
  Timeline timeline;
  std::span<md::Level> bids;         // Padded with kNoBid where the book has fewer levels.
  std::span<md::Level> asks;         // Padded with kNoAsk.
  std::span<md::Level> bids_before;  // Empty when nothing needs it.
  std::span<md::Level> asks_before;
  Ring<std::uint64_t> mids;      // No slots when nothing needs it; likewise the next.
  Ring<double> squared_returns;  // log(mid_i / mid_{i-1})², from entry 1.
  std::uint64_t last_nan_return = 0;
  std::uint64_t last_move = 0;  // The last entry whose return is not 0.
  std::span<OrderFlow> flows;   // By levels, ascending.
  std::uint64_t mid = 0;        // Twice the mid, bid plus ask; 0 where a side is empty.

  // A missing level is a quantity of 0 at a price that any price improves upon.
  static constexpr md::Level kNoBid{std::numeric_limits<std::int64_t>::min(), 0};
  static constexpr md::Level kNoAsk{std::numeric_limits<std::int64_t>::max(), 0};

  void start(const TopOfBook& top, TsNs t) noexcept TICKWIRE_HOT;
  void push(const TopOfBook& top, TsNs t) noexcept TICKWIRE_HOT;

 private:
  void take(const TopOfBook& top) noexcept TICKWIRE_HOT;
  void push_flow() noexcept TICKWIRE_HOT;
};

struct TradeEntry {
  std::int64_t price;
  std::int64_t qty;
  std::int64_t signed_qty;  // Buyer-initiated positive; 0 where nobody knows.
};

/// The printable trades, numbered from 1.
struct TradeTape {
  Timeline timeline;
  Ring<TradeEntry> trades;
};

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

// --- Of the book as it is -------------------------------------------------------------------------

/// (ΣB - ΣA) / (ΣB + ΣA) of the best n quantities; what is there where there are fewer.
class Imbalance final : public Kernel {
 public:
  Imbalance(const BookTape& book, std::uint32_t levels) noexcept : book_(&book), levels_(levels) {}
  void start(TsNs t) noexcept TICKWIRE_HOT override { warm_at_ = t; }
  double value(TsNs) noexcept TICKWIRE_HOT override {
    Int128 bid = 0;
    Int128 ask = 0;
    for (std::uint32_t i = 0; i < levels_; ++i) bid += book_->bids[i].qty;
    for (std::uint32_t i = 0; i < levels_; ++i) ask += book_->asks[i].qty;
    return quotient(bid - ask, static_cast<Uint128>(bid + ask));
  }

 private:
  const BookTape* book_;
  std::uint32_t levels_;
};

/// (B - A) / (B + A) of the two best queues; NaN where one is missing.
class QueueImbalance final : public Kernel {
 public:
  explicit QueueImbalance(const BookTape& book) noexcept : book_(&book) {}
  void start(TsNs t) noexcept TICKWIRE_HOT override { warm_at_ = t; }
  double value(TsNs) noexcept TICKWIRE_HOT override {
    const Int128 bid = book_->bids[0].qty;
    const Int128 ask = book_->asks[0].qty;
    if (bid == 0 || ask == 0) return kNan;
    return quotient(bid - ask, static_cast<Uint128>(bid + ask));
  }

 private:
  const BookTape* book_;
};

/// (ask - bid) / mid, basis points.
class Spread final : public Kernel {
 public:
  explicit Spread(const BookTape& book) noexcept : book_(&book) {}
  void start(TsNs t) noexcept TICKWIRE_HOT override { warm_at_ = t; }
  double value(TsNs) noexcept TICKWIRE_HOT override {
    const Int128 spread = Int128{book_->asks[0].price} - book_->bids[0].price;
    return quotient(20'000 * spread, book_->mid);  // NaN where there is no mid.
  }

 private:
  const BookTape* book_;
};

/// (microprice - mid) / mid, basis points; microprice = (bid·ask_qty + ask·bid_qty) / (bid_qty + ask_qty).
/// The difference reduces to (ask - bid)·(bid_qty - ask_qty) / 2(bid_qty + ask_qty), where nothing cancels.
class MicropriceOffset final : public Kernel {
 public:
  explicit MicropriceOffset(const BookTape& book) noexcept : book_(&book) {}
  void start(TsNs t) noexcept TICKWIRE_HOT override { warm_at_ = t; }
  double value(TsNs) noexcept TICKWIRE_HOT override {
    const md::Level& bid = book_->bids[0];
    const md::Level& ask = book_->asks[0];
    const Uint128 spread = static_cast<Uint128>(Int128{ask.price} - bid.price);
    const Uint128 tilt = static_cast<Uint128>(Int128{bid.qty} - ask.qty);
    const Uint128 qty = static_cast<Uint128>(Int128{bid.qty} + ask.qty);
    return 1e4 * quotient(static_cast<Int128>(spread * tilt), Uint128{book_->mid} * qty);
  }

 private:
  const BookTape* book_;
};

// --- Of the book's past ---------------------------------------------------------------------------

/// The window of a kernel that sums over entries of a tape, and its warm-up.
struct EntryWindow {
  Window window;
  std::int64_t span_ns;
  std::uint64_t count;

  TsNs start(TsNs t) noexcept TICKWIRE_HOT {
    window.start(1);
    return span_ns != 0 ? later(t, span_ns) : kNever;
  }
  /// Of a count: warm from the entry on that filled it.
  void fill(TsNs& warm_at, TsNs t) const noexcept TICKWIRE_HOT {
    if (warm_at == kNever && count != 0 && window.size() >= count) warm_at = t;
  }
};

/// log of mid over the mid of the last book state at or before t - w; or n book events ago.
class MidReturn final : public Kernel {
 public:
  MidReturn(const BookTape& book, const Window::Shape& shape, std::uint64_t& overflows) noexcept
      : book_(&book), overflows_(&overflows), shape_(shape) {}

  void start(TsNs t) noexcept TICKWIRE_HOT override {
    past_ = 0;
    warm_at_ = shape_.span_ns != 0 ? later(t, shape_.span_ns) : kNever;
  }
  void on_book(TsNs t) noexcept TICKWIRE_HOT override {
    advance(t);
    if (warm_at_ == kNever && shape_.span_ns == 0 && book_->timeline.newest >= shape_.count) warm_at_ = t;
  }
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    advance(t);
    return log_ratio(book_->mid, book_->mids[past_]);
  }

 private:
  void advance(TsNs t) noexcept TICKWIRE_HOT {
    const std::uint64_t newest = book_->timeline.newest;
    if (shape_.span_ns == 0) {
      if (newest > shape_.count) past_ = newest - shape_.count;
      return;
    }
    const TsNs horizon = horizon_of(t, shape_.span_ns);
    while (past_ < newest && book_->timeline.ts[past_ + 1] <= horizon) ++past_;
    if (newest - past_ + 1 > shape_.max_entries) [[unlikely]] {
      ++*overflows_;
      ++past_;
    }
  }

  const BookTape* book_;
  std::uint64_t* overflows_;
  Window::Shape shape_;
  std::uint64_t past_ = 0;
};

/// Order flow imbalance (Cont, Kukanov & Stoikov 2014), summed over levels and over the book events
/// of the window, in the instrument's base quantity.
class Ofi final : public Kernel {
 public:
  Ofi(const BookTape& book, const OrderFlow& series, const EntryWindow& window, double qty_scale) noexcept
      : book_(&book), series_(&series), window_(window), qty_scale_(qty_scale) {}

  void start(TsNs t) noexcept TICKWIRE_HOT override {
    warm_at_ = window_.start(t);
    sum_ = 0;
  }
  void on_book(TsNs t) noexcept TICKWIRE_HOT override {
    sum_ += flow(book_->timeline.newest);
    window_.fill(warm_at_, t);
    evict(t);
  }
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    evict(t);
    return static_cast<double>(static_cast<Int128>(sum_)) / qty_scale_;
  }

 private:
  Uint128 flow(std::uint64_t number) const noexcept TICKWIRE_HOT {
    return static_cast<Uint128>(series_->flow[number]);
  }
  void evict(TsNs t) noexcept TICKWIRE_HOT {
    window_.window.evict(
        t, [this](std::uint64_t number) noexcept { sum_ -= flow(number); },
        [this]() noexcept { sum_ = window_.window.size() == 0 ? 0 : flow(book_->timeline.newest); });
  }

  const BookTape* book_;
  const OrderFlow* series_;
  EntryWindow window_;
  double qty_scale_;
  Uint128 sum_ = 0;
};

/// Square root of the sum of squared log changes of mid over the book events of the window.
class RealizedVol final : public Kernel {
 public:
  RealizedVol(const BookTape& book, const EntryWindow& window) noexcept : book_(&book), window_(window) {}

  void start(TsNs t) noexcept TICKWIRE_HOT override {
    warm_at_ = window_.start(t);
    state_ = {};
  }
  void on_book(TsNs t) noexcept TICKWIRE_HOT override {
    state_.add(book_->squared_returns[book_->timeline.newest]);
    window_.fill(warm_at_, t);
    evict(t);
  }
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    evict(t);
    const std::uint64_t head = window_.window.head();
    if (window_.window.size() == 0) return 0.0;
    if (book_->last_nan_return >= head) return kNan;
    if (book_->last_move < head) return 0.0;
    const double sum = state_.sum.value().high;
    return sum > 0.0 ? std::sqrt(sum) : 0.0;
  }

 private:
  void evict(TsNs t) noexcept TICKWIRE_HOT {
    window_.window.evict(
        t, [this](std::uint64_t number) noexcept { state_.remove(book_->squared_returns[number]); },
        [this]() noexcept {
          state_ = {};
          if (window_.window.size() != 0) state_.add(book_->squared_returns[book_->timeline.newest]);
        });
  }

  const BookTape* book_;
  EntryWindow window_;
  SumState state_;
};

// --- Of trades ------------------------------------------------------------------------------------

/// Sums over the printable trades of the window.
class TradeKernel : public Kernel {
 public:
  TradeKernel(const TradeTape& tape, const EntryWindow& window) noexcept : tape_(&tape), window_(window) {}

  void start(TsNs t) noexcept TICKWIRE_HOT override {
    warm_at_ = window_.start(t);
    qty_ = signed_qty_ = notional_ = 0;
  }
  void on_trade(TsNs t) noexcept TICKWIRE_HOT override {
    add(tape_->timeline.newest);
    window_.fill(warm_at_, t);
    evict(t);
  }

 protected:
  ~TradeKernel() = default;

  std::uint64_t trades(TsNs t) noexcept TICKWIRE_HOT {
    evict(t);
    return window_.window.size();
  }

  // Wrapping, see the top of the file.
  Uint128 qty_ = 0;
  Uint128 signed_qty_ = 0;
  Uint128 notional_ = 0;

 private:
  void add(std::uint64_t number) noexcept TICKWIRE_HOT {
    const TradeEntry& trade = tape_->trades[number];
    qty_ += static_cast<Uint128>(trade.qty);
    signed_qty_ += static_cast<Uint128>(trade.signed_qty);
    notional_ += static_cast<Uint128>(trade.price) * static_cast<Uint128>(trade.qty);
  }
  void evict(TsNs t) noexcept TICKWIRE_HOT {
    window_.window.evict(
        t,
        [this](std::uint64_t number) noexcept {
          const TradeEntry& trade = tape_->trades[number];
          qty_ -= static_cast<Uint128>(trade.qty);
          signed_qty_ -= static_cast<Uint128>(trade.signed_qty);
          notional_ -= static_cast<Uint128>(trade.price) * static_cast<Uint128>(trade.qty);
        },
        [this]() noexcept {
          qty_ = signed_qty_ = notional_ = 0;
          if (window_.window.size() != 0) add(tape_->timeline.newest);
        });
  }

  const TradeTape* tape_;
  EntryWindow window_;
};

/// Signed over total quantity; 0 when nothing traded.
class TradeFlow final : public TradeKernel {
 public:
  using TradeKernel::TradeKernel;
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    if (trades(t) == 0 || qty_ == 0) return 0.0;
    return quotient(static_cast<Int128>(signed_qty_), qty_);
  }
};

class TradeCount final : public TradeKernel {
 public:
  using TradeKernel::TradeKernel;
  double value(TsNs t) noexcept TICKWIRE_HOT override { return static_cast<double>(trades(t)); }
};

/// (vwap - mid) / mid, basis points; 0 without trades. Σ(price·qty) - mid·Σqty is an exact integer.
class VwapOffset final : public TradeKernel {
 public:
  VwapOffset(const TradeTape& tape, const EntryWindow& window, const BookTape& book) noexcept
      : TradeKernel(tape, window), book_(&book) {}
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    const std::uint64_t count = trades(t);
    if (book_->mid == 0) return kNan;
    if (count == 0 || qty_ == 0) return 0.0;
    const Uint128 at_mid = Uint128{book_->mid} * qty_;
    return 1e4 * quotient(static_cast<Int128>(notional_ + notional_ - at_mid), at_mid);
  }

 private:
  const BookTape* book_;
};

// --- Of orders ------------------------------------------------------------------------------------

/// Entries of a tape of orders in the window, a second.
class OrderRate final : public Kernel {
 public:
  explicit OrderRate(const EntryWindow& window) noexcept
      : window_(window), seconds_(static_cast<double>(window.span_ns) * 1e-9) {}

  void start(TsNs t) noexcept TICKWIRE_HOT override { warm_at_ = window_.start(t); }
  void on_order(TsNs t) noexcept TICKWIRE_HOT override { evict(t); }
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    evict(t);
    return static_cast<double>(window_.window.size()) / seconds_;
  }

 private:
  void evict(TsNs t) noexcept TICKWIRE_HOT {
    window_.window.evict(t, [](std::uint64_t) noexcept {}, []() noexcept {});
  }

  EntryWindow window_;
  double seconds_;
};

// --- Of any expression ----------------------------------------------------------------------------

/// What a wrapper reads: the wrapped node, for its warm-up, and the samples of its value.
struct Wrapped {
  const Kernel* kernel;
  const Samples* samples;
  const Timeline* timeline;  // Of book events, which number the samples.

  bool started() const noexcept TICKWIRE_HOT { return samples->first != 0; }
  double newest() const noexcept TICKWIRE_HOT { return samples->values[timeline->newest]; }
};

/// A window over the samples. The warm-up of a duration begins where the wrapped expression is warm;
/// it is stated at the first sample, because a window without any has no value, warm or not.
class SampleKernel : public Kernel {
 public:
  void start(TsNs) noexcept TICKWIRE_HOT override {
    warm_at_ = kNever;
    started_ = false;
  }

 protected:
  SampleKernel(const Wrapped& input, const EntryWindow& window) noexcept : input_(input), window_(window) {}
  ~SampleKernel() = default;

  /// At each book event: is there a sample?
  bool arrived(TsNs t) noexcept TICKWIRE_HOT {
    if (!input_.started()) return false;
    if (!started_) [[unlikely]] {
      started_ = true;
      window_.window.start(input_.samples->first);
      if (window_.span_ns != 0) warm_at_ = later(input_.kernel->warm_at(), window_.span_ns);
    }
    window_.fill(warm_at_, t);
    return true;
  }

  bool has_nan() const noexcept TICKWIRE_HOT { return input_.samples->last_nan >= window_.window.head(); }
  bool flat() const noexcept TICKWIRE_HOT { return input_.samples->last_change <= window_.window.head(); }
  double newest() const noexcept TICKWIRE_HOT { return input_.newest(); }

  Wrapped input_;
  EntryWindow window_;
  bool started_ = false;
};

class Mean final : public SampleKernel {
 public:
  Mean(const Wrapped& input, const EntryWindow& window) noexcept : SampleKernel(input, window) {}

  void start(TsNs t) noexcept TICKWIRE_HOT override {
    SampleKernel::start(t);
    state_ = {};
  }
  void on_book(TsNs t) noexcept TICKWIRE_HOT override {
    if (!arrived(t)) return;
    state_.add(newest());
    evict(t);
  }
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    evict(t);
    if (has_nan()) return kNan;
    if (flat()) return newest();
    return divide(state_.sum.value(), {static_cast<double>(window_.window.size()), 0.0});
  }

 private:
  void evict(TsNs t) noexcept TICKWIRE_HOT {
    window_.window.evict(
        t, [this](std::uint64_t number) noexcept { state_.remove(input_.samples->values[number]); },
        [this]() noexcept {
          state_ = {};
          state_.add(newest());
        });
  }

  SumState state_;
};

/// What std and zscore look at. Its cost is constant but where the window must be added up anew: when numbers
/// that were more than some ten thousand deviations away have left, at most once a level of magnitude.
class MomentKernel : public SampleKernel {
 public:
  MomentKernel(const Wrapped& input, const EntryWindow& window) noexcept : SampleKernel(input, window) {}

  void on_book(TsNs t) noexcept TICKWIRE_HOT override {
    if (!arrived(t)) return;
    const double x = newest();
    if (window_.window.size() == 1 || (state_.count == 0 && x == x)) state_.begin(x);
    state_.add(x);
    evict(t);
  }

 protected:
  ~MomentKernel() = default;

  void evict(TsNs t) noexcept TICKWIRE_HOT {
    const std::uint64_t head = window_.window.head();
    window_.window.evict(
        t, [this](std::uint64_t number) noexcept { state_.remove(input_.samples->values[number]); },
        [this]() noexcept {
          state_.begin(newest());
          state_.add(newest());
        });
    if (window_.window.head() != head && !flat() && !has_nan() && state_.worn()) [[unlikely]]
      add_up_anew();
  }
  const MomentState& state() const noexcept TICKWIRE_HOT { return state_; }

 private:
  [[gnu::noinline]] void add_up_anew() noexcept TICKWIRE_HOT {
    const Ring<double>& values = input_.samples->values;
    const std::uint64_t first = window_.window.head();
    const std::uint64_t last = input_.timeline->newest;
    LongSum sum;
    for (std::uint64_t i = first; i <= last; ++i) sum.add(values[i]);
    state_.begin(divide(sum.value(), {static_cast<double>(last + 1 - first), 0.0}));
    for (std::uint64_t i = first; i <= last; ++i) state_.add(values[i]);
  }

  MomentState state_;
};

/// Population standard deviation.
class Std final : public MomentKernel {
 public:
  using MomentKernel::MomentKernel;
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    evict(t);
    if (has_nan()) return kNan;
    return flat() ? 0.0 : state().deviation();
  }
};

/// (newest - mean) / population standard deviation, the newest included in both; 0 where all are equal.
class Zscore final : public MomentKernel {
 public:
  using MomentKernel::MomentKernel;
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    evict(t);
    if (has_nan()) return kNan;
    return flat() ? 0.0 : state().score(newest());
  }
};

/// The smallest or largest sample, by a monotonic queue: it holds the samples that no later one beats.
template <bool Largest>
class Extreme final : public SampleKernel {
 public:
  Extreme(const Wrapped& input, const EntryWindow& window, Ring<std::uint64_t> queue) noexcept
      : SampleKernel(input, window), queue_(queue) {}

  void start(TsNs t) noexcept TICKWIRE_HOT override {
    SampleKernel::start(t);
    front_ = back_ = 0;
  }
  void on_book(TsNs t) noexcept TICKWIRE_HOT override {
    if (!arrived(t)) return;
    evict(t);  // First, so that the queue never holds more than its ring does.
    const double x = newest();
    if (x != x) return;
    while (back_ != front_ && !beats(sample(queue_[back_ - 1]), x)) --back_;
    queue_[back_++] = input_.timeline->newest;
  }
  double value(TsNs t) noexcept TICKWIRE_HOT override {
    evict(t);
    return has_nan() ? kNan : sample(queue_[front_]);
  }

 private:
  static bool beats(double a, double b) noexcept TICKWIRE_HOT { return Largest ? a > b : a < b; }
  double sample(std::uint64_t number) const noexcept TICKWIRE_HOT { return input_.samples->values[number]; }
  void evict(TsNs t) noexcept TICKWIRE_HOT {
    window_.window.evict(t, [](std::uint64_t) noexcept {}, []() noexcept {});
    while (front_ != back_ && queue_[front_] < window_.window.head()) ++front_;
  }

  Ring<std::uint64_t> queue_;
  std::uint64_t front_ = 0;
  std::uint64_t back_ = 0;
};

/// y += (1 - 2^(-Δt/h))·(x - y) at each sample, Δt since the one before; y starts as the first.
/// A NaN sample makes the value NaN and leaves y and its time as they are.
class Ema final : public Kernel {
 public:
  /// After five half-lives 3 % of the start is left.
  static constexpr std::int64_t kWarmHalflives = 5;

  Ema(const Wrapped& input, std::int64_t halflife_ns) noexcept : input_(input), halflife_ns_(halflife_ns) {}

  void start(TsNs) noexcept TICKWIRE_HOT override {
    warm_at_ = kNever;
    started_ = false;
  }
  void on_book(TsNs t) noexcept TICKWIRE_HOT override {
    if (!input_.started()) return;
    if (warm_at_ == kNever) warm_at_ = later(input_.kernel->warm_at(), kWarmHalflives * halflife_ns_);
    const double x = input_.newest();
    if (x != x) return;
    if (!started_) {
      started_ = true;
      y_ = x;
    } else {
      // Unsigned: t does not go back, but a venue's stamps may be anything.
      const std::uint64_t elapsed = static_cast<std::uint64_t>(t) - static_cast<std::uint64_t>(updated_);
      y_ += one_minus_exp2(static_cast<double>(elapsed) / static_cast<double>(halflife_ns_)) * (x - y_);
      // A long run of zeros would lead into denormals, which are slow, and which a thread that also
      // runs a model flushes while another does not.
      if (std::fabs(y_) < 1e-200) y_ = 0.0;
    }
    updated_ = t;
  }
  double value(TsNs) noexcept TICKWIRE_HOT override {
    const double x = input_.newest();
    return x != x ? kNan : y_;
  }

 private:
  Wrapped input_;
  std::int64_t halflife_ns_;
  double y_ = 0.0;
  TsNs updated_ = 0;
  bool started_ = false;
};

/// The newest sample less the one `lag` samples before.
class Diff final : public Kernel {
 public:
  Diff(const Wrapped& input, std::uint64_t lag) noexcept : input_(input), lag_(lag) {}

  void start(TsNs) noexcept TICKWIRE_HOT override { warm_at_ = kNever; }
  void on_book(TsNs t) noexcept TICKWIRE_HOT override {
    if (warm_at_ == kNever && input_.started() && input_.timeline->newest - input_.samples->first >= lag_) {
      warm_at_ = t;
    }
  }
  double value(TsNs) noexcept TICKWIRE_HOT override {
    return input_.newest() - input_.samples->values[input_.timeline->newest - lag_];
  }

 private:
  Wrapped input_;
  std::uint64_t lag_;
};

}  // namespace tickwire::features

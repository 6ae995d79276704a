#include "tickwire/features/feature_engine.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tickwire/core/error.hpp"
#include "tickwire/core/prefetch.hpp"

namespace tickwire::features {
namespace {

/// A short window must also take a burst that is far above the average rate.
constexpr std::size_t kMinSlots = 4096;
/// Half a gigabyte of doubles. More is a typing error in a window or in the rate.
constexpr std::size_t kMaxSlots = std::size_t{1} << 26;
/// Bytes of a plan's kernels that are asked for at once: some thirty kernels, and an eighth of a first cache.
constexpr std::size_t kMostKept = 4096;

bool of_trades(KernelKind kernel) noexcept {
  return kernel == KernelKind::TradeFlow || kernel == KernelKind::TradeCount ||
         kernel == KernelKind::VwapOffset;
}

bool of_orders(KernelKind kernel) noexcept {
  return kernel == KernelKind::OrderArrivalRate || kernel == KernelKind::CancelRate;
}

/// Slots of the ring behind a node's window; 0 where it has none.
std::size_t slots_for(const NodeSpec& node, std::size_t index, const FeatureLimits& limits) {
  if (node.kernel == KernelKind::Diff) return std::bit_ceil(std::size_t{node.lag} + 2);
  // One for the state that mid_return goes back to, one that is always free for the next entry.
  if (node.window_count != 0) return std::bit_ceil(std::size_t{node.window_count} + 2);
  if (node.window_ns == 0) return 0;
  const double entries = static_cast<double>(node.window_ns) * 1e-9 * limits.max_event_rate;
  if (!(entries < static_cast<double>(kMaxSlots))) {
    throw SetupError("features.nodes[" + std::to_string(index) + "].window_ns",
                     "a window of less than " + std::to_string(kMaxSlots) +
                         " events at features.max_event_rate = " + std::to_string(limits.max_event_rate),
                     std::to_string(node.window_ns));
  }
  return std::max(kMinSlots, std::bit_ceil(static_cast<std::size_t>(entries) + 2));
}

float to_cell(double value) noexcept {
  if (value != value) return std::numeric_limits<float>::quiet_NaN();
  if (std::fabs(value) < static_cast<double>(std::numeric_limits<float>::min())) return 0.0F;
  return static_cast<float>(value);
}

double power_of_ten(int exponent) {
  double power = 1.0;  // Exact up to 10^22.
  for (int i = 0; i < exponent; ++i) power *= 10.0;
  return power;
}

}  // namespace

/// Lays tapes, samples and kernels of a plan into the arena.
class FeatureEngine::Builder {
 public:
  Builder(const FeaturePlan& plan, int qty_decimals, const FeatureLimits& limits, Arena& arena)
      : plan_(plan),
        arena_(arena),
        qty_scale_(power_of_ten(qty_decimals)),
        samples_(plan.nodes.size(), nullptr) {
    for (std::size_t i = 0; i < plan.nodes.size(); ++i) slots_.push_back(slots_for(plan.nodes[i], i, limits));
  }

  void build(FeatureEngine& engine) {
    state_ = make<State>();
    engine.state_ = state_;
    lay_book();
    lay_trades();
    lay_orders();
    lay_samples();
    engine.nodes_ = arena_.allocate<Node>(plan_.nodes.size());
    std::vector<Kernel*> trade_kernels;
    std::vector<Kernel*> arrival_kernels;
    std::vector<Kernel*> cancel_kernels;
    for (std::size_t i = 0; i < plan_.nodes.size(); ++i) {
      Kernel* const kernel = make_kernel(i, engine.nodes_);
      engine.nodes_[i] = Node{.kernel = kernel, .samples = samples_[i], .value = 0.0, .version = 0};
      if (of_trades(plan_.nodes[i].kernel)) trade_kernels.push_back(kernel);
      if (plan_.nodes[i].kernel == KernelKind::OrderArrivalRate) arrival_kernels.push_back(kernel);
      if (plan_.nodes[i].kernel == KernelKind::CancelRate) cancel_kernels.push_back(kernel);
    }
    engine.trade_kernels_ = copy(trade_kernels);
    engine.arrival_kernels_ = copy(arrival_kernels);
    engine.cancel_kernels_ = copy(cancel_kernels);
    engine.outputs_ = copy(plan_.outputs);
    // Elsewhere where the arena began a new piece of memory in between: then as good as nothing is asked for.
    const auto first = std::as_bytes(engine.nodes_);
    const auto last = std::as_bytes(engine.outputs_);
    const std::ptrdiff_t bytes = last.data() + last.size() - first.data();
    if (bytes > 0) engine.kept_ = {first.data(), std::min(static_cast<std::size_t>(bytes), kMostKept)};
  }

 private:
  template <typename T, typename... Args>
  T* make(Args&&... args) {
    // As bytes: the arena hands out default-constructed objects, which kernels are not.
    std::byte* const raw = arena_.allocate<std::byte>(sizeof(T), alignof(T)).data();
    static_assert(std::is_trivially_destructible_v<T>);
    return ::new (static_cast<void*>(raw)) T(std::forward<Args>(args)...);
  }

  template <typename T>
  std::span<T> copy(const std::vector<T>& from) {
    const std::span<T> to = arena_.allocate<T>(from.size());
    std::copy(from.begin(), from.end(), to.begin());
    return to;
  }

  template <typename T>
  Ring<T> ring(std::size_t slots) {
    return {slots == 0 ? std::span<T>{} : arena_.allocate<T>(slots)};
  }

  /// The largest ring that any node asks for that `wanted` selects; 0 where none does.
  template <typename Wanted>
  std::size_t most_slots(Wanted&& wanted) const {
    std::size_t slots = 0;
    for (std::size_t i = 0; i < plan_.nodes.size(); ++i) {
      if (wanted(plan_.nodes[i])) slots = std::max(slots, slots_[i]);
    }
    return slots;
  }

  void lay_book() {
    BookTape& book = state_->book;
    const auto is = [](KernelKind kind) {
      return [kind](const NodeSpec& node) { return node.kernel == kind; };
    };
    const std::size_t levels = plan_.max_levels();
    book.bids = arena_.allocate<md::Level>(levels);
    book.asks = arena_.allocate<md::Level>(levels);
    book.timeline.ts = ring<TsNs>(std::max<std::size_t>(1, most_slots([](const NodeSpec& node) {
                                                          return node.window_ns != 0 &&
                                                                 !of_trades(node.kernel) &&
                                                                 !of_orders(node.kernel);
                                                        })));
    book.mids = ring<std::uint64_t>(most_slots(is(KernelKind::MidReturn)));
    book.squared_returns = ring<double>(most_slots(is(KernelKind::RealizedVol)));

    std::vector<std::uint32_t> flow_levels;
    for (const NodeSpec& node : plan_.nodes) {
      if (node.kernel == KernelKind::Ofi) flow_levels.push_back(node.levels);
    }
    if (flow_levels.empty()) return;
    std::sort(flow_levels.begin(), flow_levels.end());
    flow_levels.erase(std::unique(flow_levels.begin(), flow_levels.end()), flow_levels.end());
    book.bids_before = arena_.allocate<md::Level>(levels);
    book.asks_before = arena_.allocate<md::Level>(levels);
    book.flows = arena_.allocate<OrderFlow>(flow_levels.size());
    for (std::size_t i = 0; i < flow_levels.size(); ++i) {
      const std::size_t slots = most_slots([&](const NodeSpec& node) {
        return node.kernel == KernelKind::Ofi && node.levels == flow_levels[i];
      });
      book.flows[i] = OrderFlow{.levels = flow_levels[i], .flow = ring<Int128>(slots)};
    }
  }

  void lay_trades() {
    TradeTape& trades = state_->trades;
    const std::size_t slots = most_slots([](const NodeSpec& node) { return of_trades(node.kernel); });
    trades.timeline.ts = ring<TsNs>(slots);
    trades.trades = ring<TradeEntry>(slots);
  }

  void lay_orders() {
    const auto slots = [&](KernelKind kind) {
      return most_slots([kind](const NodeSpec& node) { return node.kernel == kind; });
    };
    state_->arrivals.ts = ring<TsNs>(slots(KernelKind::OrderArrivalRate));
    state_->cancels.ts = ring<TsNs>(slots(KernelKind::CancelRate));
  }

  void lay_samples() {
    for (std::size_t i = 0; i < plan_.nodes.size(); ++i) {
      const auto wraps_i = [i](const NodeSpec& node) { return node.input == static_cast<std::int32_t>(i); };
      if (std::none_of(plan_.nodes.begin(), plan_.nodes.end(), wraps_i)) continue;
      samples_[i] = make<Samples>();
      // Two: a change is seen by looking at the sample before.
      samples_[i]->values = ring<double>(std::max<std::size_t>(2, most_slots(wraps_i)));
    }
  }

  EntryWindow window_of(std::size_t index, bool keep_newest) {
    const NodeSpec& node = plan_.nodes[index];
    return {Window(timeline_of(node.kernel), shape_of(index, keep_newest), state_->overflows), node.window_ns,
            node.window_count};
  }

  const Timeline& timeline_of(KernelKind kernel) const {
    if (of_trades(kernel)) return state_->trades.timeline;
    if (kernel == KernelKind::OrderArrivalRate) return state_->arrivals;
    if (kernel == KernelKind::CancelRate) return state_->cancels;
    return state_->book.timeline;
  }

  Window::Shape shape_of(std::size_t index, bool keep_newest) const {
    const NodeSpec& node = plan_.nodes[index];
    return {.span_ns = node.window_ns,
            .count = node.window_count,
            .max_entries = slots_[index] - 1,
            .keep_newest = keep_newest};
  }

  const OrderFlow& flow_of(std::uint32_t levels) const {
    const std::span<OrderFlow> flows = state_->book.flows;
    return *std::find_if(flows.begin(), flows.end(),
                         [levels](const OrderFlow& series) { return series.levels == levels; });
  }

  Kernel* make_kernel(std::size_t index, std::span<Node> nodes) {
    const NodeSpec& node = plan_.nodes[index];
    const BookTape& book = state_->book;
    const TradeTape& trades = state_->trades;
    Wrapped input{};
    if (node.input >= 0) {
      const std::size_t wrapped = static_cast<std::size_t>(node.input);
      input = {.kernel = nodes[wrapped].kernel, .samples = samples_[wrapped], .timeline = &book.timeline};
    }
    switch (node.kernel) {
      case KernelKind::Imbalance: return make<Imbalance>(book, node.levels);
      case KernelKind::Spread: return make<Spread>(book);
      case KernelKind::MicropriceOffset: return make<MicropriceOffset>(book);
      case KernelKind::MidReturn: return make<MidReturn>(book, shape_of(index, false), state_->overflows);
      case KernelKind::Ofi: return make<Ofi>(book, flow_of(node.levels), window_of(index, false), qty_scale_);
      case KernelKind::TradeFlow: return make<TradeFlow>(trades, window_of(index, false));
      case KernelKind::TradeCount: return make<TradeCount>(trades, window_of(index, false));
      case KernelKind::VwapOffset: return make<VwapOffset>(trades, window_of(index, false), book);
      case KernelKind::RealizedVol: return make<RealizedVol>(book, window_of(index, false));
      case KernelKind::QueueImbalance: return make<QueueImbalance>(book);
      case KernelKind::OrderArrivalRate:
      case KernelKind::CancelRate: return make<OrderRate>(window_of(index, false));
      case KernelKind::Mean: return make<Mean>(input, window_of(index, true));
      case KernelKind::Std: return make<Std>(input, window_of(index, true));
      case KernelKind::Min:
        return make<Extreme<false>>(input, window_of(index, true), ring<std::uint64_t>(slots_[index]));
      case KernelKind::Max:
        return make<Extreme<true>>(input, window_of(index, true), ring<std::uint64_t>(slots_[index]));
      case KernelKind::Zscore: return make<Zscore>(input, window_of(index, true));
      case KernelKind::Ema: return make<Ema>(input, node.halflife_ns);
      case KernelKind::Diff: return make<Diff>(input, node.lag);
    }
    throw SetupError("features.nodes[" + std::to_string(index) + "].kernel: unknown");
  }

  const FeaturePlan& plan_;
  Arena& arena_;
  double qty_scale_;
  std::vector<std::size_t> slots_;  // Of each node's window.
  std::vector<Samples*> samples_;   // Of each node's value.
  State* state_ = nullptr;
};

FeatureEngine::FeatureEngine(const FeaturePlan& plan, int qty_decimals, const FeatureLimits& limits,
                             Arena& arena) {
  plan.validate();
  if (qty_decimals < 0 || qty_decimals > 18) {
    throw SetupError("qty_decimals", "an integer from 0 to 18", std::to_string(qty_decimals));
  }
  if (!(limits.max_event_rate > 0.0)) {
    throw SetupError("features.max_event_rate", "more than zero", std::to_string(limits.max_event_rate));
  }
  Builder(plan, qty_decimals, limits, arena).build(*this);
}

void FeatureEngine::start_epoch(const TopOfBook& top, TsNs t) noexcept {
  ++version_;
  state_->book.start(top, t);
  state_->trades.timeline.newest = 0;
  state_->arrivals.newest = state_->cancels.newest = 0;
  for (const Node& node : nodes_) {
    if (node.samples != nullptr) node.samples->clear();
    node.kernel->start(t);
  }
}

void FeatureEngine::prepare_kernels() const noexcept {
  prefetch_lines(state_, sizeof *state_);
  prefetch_lines(kept_.data(), kept_.size());
}

void FeatureEngine::prepare_entries() noexcept {
  prepared_ = true;
  const auto entry = [](const auto& ring, std::uint64_t number) noexcept {
    if (!ring.slots.empty()) prefetch(&ring[number]);
  };
  const BookTape& book = state_->book;
  const std::uint64_t next = book.timeline.newest + 1;
  entry(book.timeline.ts, next);
  entry(book.mids, next);
  entry(book.squared_returns, next);
  for (const OrderFlow& series : book.flows) entry(series.flow, next);
  entry(state_->arrivals.ts, state_->arrivals.newest + 1);
  entry(state_->cancels.ts, state_->cancels.newest + 1);
  for (const Node& node : nodes_) {
    if (node.samples != nullptr) entry(node.samples->values, next);
  }
}

void FeatureEngine::on_book(const TopOfBook& top, TsNs t) noexcept {
  ++version_;
  evaluated_at_ = t;
  state_->book.push(top, t);
  for (Node& node : nodes_) {
    node.kernel->on_book(t);
    if (node.samples != nullptr && node.kernel->warm_at() <= t) {
      node.samples->push(state_->book.timeline.newest, evaluate(node, t));
    }
  }
}

void FeatureEngine::on_trade(const md::Trade& trade, TsNs t) noexcept {
  if (!trade.printable || trade.qty <= 0 || trade_kernels_.empty()) return;
  ++version_;
  TradeTape& tape = state_->trades;
  const std::uint64_t number = ++tape.timeline.newest;
  tape.timeline.ts[number] = t;
  std::int64_t signed_qty = 0;
  if (trade.aggressor == md::Aggressor::Buyer) signed_qty = trade.qty;
  if (trade.aggressor == md::Aggressor::Seller) signed_qty = -trade.qty;
  tape.trades[number] = {.price = trade.price, .qty = trade.qty, .signed_qty = signed_qty};
  for (Kernel* const kernel : trade_kernels_) kernel->on_trade(t);
}

void FeatureEngine::enter(Timeline& timeline, std::span<Kernel*> kernels, std::uint32_t count,
                          TsNs t) noexcept {
  if (kernels.empty()) return;
  for (; count != 0; --count) {
    timeline.ts[++timeline.newest] = t;
    for (Kernel* const kernel : kernels) kernel->on_order(t);
  }
}

void FeatureEngine::on_orders(std::uint32_t arrived, std::uint32_t cancelled, TsNs t) noexcept {
  if (arrival_kernels_.empty() && cancel_kernels_.empty()) return;
  if (!prepared_) {
    prepare_kernels();
    prepare_entries();
  }
  prepared_ = false;
  ++version_;
  enter(state_->arrivals, arrival_kernels_, arrived, t);
  enter(state_->cancels, cancel_kernels_, cancelled, t);
}

bool FeatureEngine::warm(TsNs t) const noexcept {
  return std::all_of(outputs_.begin(), outputs_.end(),
                     [&](std::uint32_t output) { return nodes_[output].kernel->warm_at() <= t; });
}

FeatureEngine::Last FeatureEngine::warm_last() const noexcept {
  Last last{0, kNoTime};
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const TsNs at = nodes_[outputs_[i]].kernel->warm_at();
    if (at > last.warm_at) last = {i, at};
  }
  return last;
}

void FeatureEngine::write_row(TsNs t, float* out) noexcept {
  if (t != evaluated_at_) {
    ++version_;
    evaluated_at_ = t;
  }
  for (const std::uint32_t output : outputs_) *out++ = to_cell(evaluate(nodes_[output], t));
}

double FeatureEngine::evaluate(Node& node, TsNs t) noexcept {
  if (node.version != version_) {
    node.value = node.kernel->value(t);
    node.version = version_;
  }
  return node.value;
}

}  // namespace tickwire::features

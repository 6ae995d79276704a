#include "tickwire/features/feature_engine.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tickwire/core/error.hpp"
#include "tickwire/core/prefetch.hpp"
#include "tickwire/features/site.hpp"

namespace tickwire::features {
namespace {

/// A short window must also take a burst that is far above the average rate.
constexpr std::size_t kMinSlots = 4096;
/// Half a gigabyte of doubles. More is a typing error in a window or in the rate.
constexpr std::size_t kMaxSlots = std::size_t{1} << 26;
/// Bytes of a plan's kernels that are asked for at once: some thirty kernels, and an eighth of a first cache.
constexpr std::size_t kMostKept = 4096;

/// Slots of the ring behind a node's window; 0 where it has none.
std::size_t slots_for(const NodeSpec& node, std::size_t index, const FeatureLimits& limits) {
  if (node.kernel->takes(Parameter::Kind::Lag)) return std::bit_ceil(std::size_t{node.lag} + 2);
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
    state_ = arena_.allocate<State>(1, alignof(State)).data();
    engine.state_ = state_;
    lay_book();
    lay_flows();
    lay_trades_and_orders();
    lay_samples();
    engine.nodes_ = arena_.allocate<Node>(plan_.nodes.size());
    std::vector<Kernel*> trade_kernels;
    std::vector<Kernel*> arrival_kernels;
    std::vector<Kernel*> cancel_kernels;
    for (std::size_t i = 0; i < plan_.nodes.size(); ++i) {
      const KernelEntry& entry = *plan_.nodes[i].kernel;
      Site site = site_of(i, engine.nodes_);
      Kernel* const kernel = entry.make(site);
      engine.nodes_[i] = Node{.kernel = kernel, .samples = samples_[i], .value = 0.0, .version = 0};
      if (entry.reads_any(Reads::Trades)) trade_kernels.push_back(kernel);
      if (entry.reads_any(Reads::Arrivals)) arrival_kernels.push_back(kernel);
      if (entry.reads_any(Reads::Cancels)) cancel_kernels.push_back(kernel);
    }
    engine.trade_kernels_ = copy(trade_kernels);
    engine.arrival_kernels_ = copy(arrival_kernels);
    engine.cancel_kernels_ = copy(cancel_kernels);
    engine.outputs_ = copy(plan_.outputs);
    engine.kept_ = between(std::as_bytes(engine.nodes_), std::as_bytes(engine.outputs_));
  }

 private:
  /// From the first to the last, which lie behind one another. Where the arena began a new piece of memory in
  /// between, it is of no use and does no harm. Numbers, because pointers into two pieces cannot be compared.
  static std::span<const std::byte> between(std::span<const std::byte> first,
                                            std::span<const std::byte> last) {
    const auto begin = std::bit_cast<std::uintptr_t>(first.data());
    const auto end = std::bit_cast<std::uintptr_t>(last.data()) + last.size();
    if (end <= begin) return {};
    return {first.data(), std::min(end - begin, kMostKept)};
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
    const auto keeps = [](Series series) {
      return [series](const NodeSpec& node) { return node.kernel->series == series; };
    };
    const std::size_t levels = plan_.max_levels();
    book.bids = arena_.allocate<md::Level>(levels);
    book.asks = arena_.allocate<md::Level>(levels);
    book.timeline.ts = ring<TsNs>(std::max<std::size_t>(
        1, most_slots([this](const NodeSpec& node) {
          return node.window_ns != 0 && &timeline_of(*node.kernel) == &state_->book.timeline;
        })));
    book.mids = ring<std::uint64_t>(most_slots(keeps(Series::Mids)));
    book.squared_returns = ring<double>(most_slots(keeps(Series::SquaredReturns)));
  }

  void lay_flows() {
    BookTape& book = state_->book;
    std::vector<std::uint32_t> flow_levels;
    for (const NodeSpec& node : plan_.nodes) {
      if (node.kernel->series == Series::Flow) flow_levels.push_back(node.levels);
    }
    if (flow_levels.empty()) return;
    std::sort(flow_levels.begin(), flow_levels.end());
    flow_levels.erase(std::unique(flow_levels.begin(), flow_levels.end()), flow_levels.end());
    book.bids_before = arena_.allocate<md::Level>(book.bids.size());
    book.asks_before = arena_.allocate<md::Level>(book.asks.size());
    book.flows = arena_.allocate<OrderFlow>(flow_levels.size());
    for (std::size_t i = 0; i < flow_levels.size(); ++i) {
      const std::size_t slots = most_slots([&](const NodeSpec& node) {
        return node.kernel->series == Series::Flow && node.levels == flow_levels[i];
      });
      book.flows[i] = OrderFlow{.levels = flow_levels[i], .flow = ring<Int128>(slots)};
    }
  }

  void lay_trades_and_orders() {
    const auto slots = [this](const Timeline& timeline) {
      return most_slots([&](const NodeSpec& node) { return &timeline_of(*node.kernel) == &timeline; });
    };
    TradeTape& trades = state_->trades;
    trades.timeline.ts = ring<TsNs>(slots(trades.timeline));
    trades.trades = ring<TradeEntry>(slots(trades.timeline));
    state_->arrivals.ts = ring<TsNs>(slots(state_->arrivals));
    state_->cancels.ts = ring<TsNs>(slots(state_->cancels));
  }

  void lay_samples() {
    for (std::size_t i = 0; i < plan_.nodes.size(); ++i) {
      const auto wraps_i = [i](const NodeSpec& node) { return node.input == static_cast<std::int32_t>(i); };
      if (std::none_of(plan_.nodes.begin(), plan_.nodes.end(), wraps_i)) continue;
      samples_[i] = arena_.allocate<Samples>(1, alignof(Samples)).data();
      // Two: a change is seen by looking at the sample before.
      samples_[i]->values = ring<double>(std::max<std::size_t>(2, most_slots(wraps_i)));
    }
  }

  /// What a kernel's window counts.
  const Timeline& timeline_of(const KernelEntry& kernel) const {
    if (kernel.reads_any(Reads::Trades)) return state_->trades.timeline;
    if (kernel.reads_any(Reads::Arrivals)) return state_->arrivals;
    if (kernel.reads_any(Reads::Cancels)) return state_->cancels;
    return state_->book.timeline;
  }

  Site site_of(std::size_t index, std::span<Node> nodes) {
    const NodeSpec& node = plan_.nodes[index];
    Wrapped input{};
    if (node.input >= 0) {
      const auto wrapped = static_cast<std::size_t>(node.input);
      input = {nodes[wrapped].kernel, samples_[wrapped], &state_->book.timeline};
    }
    return {.node = node,
            .book = state_->book,
            .trades = state_->trades,
            .timeline = timeline_of(*node.kernel),
            .input = input,
            .qty_scale = qty_scale_,
            .slots = slots_[index],
            .overflows = state_->overflows,
            .arena = arena_};
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

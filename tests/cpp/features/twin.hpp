#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/features/feature_engine.hpp"

/// The slow obvious twin of FeatureEngine: it keeps all of an epoch's history and computes every value
/// from it anew, by the definition, in long double.
namespace tickwire::features::twin {

using Real = long double;
inline constexpr Real kNoValue = std::numeric_limits<Real>::quiet_NaN();

struct Book {
  std::vector<md::Level> bids;
  std::vector<md::Level> asks;

  TopOfBook top() const { return {bids, asks}; }
};

class Twin {
 public:
  Twin(FeaturePlan plan, int price_decimals, int qty_decimals)
      : plan_(std::move(plan)),
        price_unit_(std::pow(Real{10}, price_decimals)),
        qty_unit_(std::pow(Real{10}, qty_decimals)) {}

  void start_epoch(const Book& book, TsNs t) {
    states_ = {{t, book}};
    trades_.clear();
    arrivals_.clear();
    cancels_.clear();
    samples_.assign(plan_.nodes.size(), {});
  }

  void on_book(const Book& book, TsNs t) {
    states_.push_back({t, book});
    for (std::size_t i = 0; i < plan_.nodes.size(); ++i) {
      const auto warm = warm_at(i);
      if (wrapped(i) && warm && *warm <= t) samples_[i].push_back({t, static_cast<double>(value(i, t))});
    }
  }

  void on_trade(const md::Trade& trade, TsNs t) {
    if (trade.printable) trades_.push_back({t, trade});
  }

  void on_orders(std::uint32_t arrived, std::uint32_t cancelled, TsNs t) {
    arrivals_.insert(arrivals_.end(), arrived, t);
    cancels_.insert(cancels_.end(), cancelled, t);
  }

  bool warm(std::size_t i, TsNs t) const {
    const auto at = warm_at(i);
    return at && *at <= t;
  }

  Real value(std::size_t i, TsNs t) const {
    const NodeSpec& n = plan_.nodes[i];
    const Book& book = states_.back().book;
    const std::string_view kernel = n.kernel->name;
    if (kernel == "imbalance") {
      const Real b = depth(book.bids, n.levels);
      const Real a = depth(book.asks, n.levels);
      return (b - a) / (b + a);
    }
    if (kernel == "spread") {
      if (std::isnan(mid(book))) return kNoValue;
      return (price(book.asks[0]) - price(book.bids[0])) / mid(book) * 10000;
    }
    if (kernel == "microprice_offset") {
      if (std::isnan(mid(book))) return kNoValue;
      const Real bq = qty(book.bids[0]);
      const Real aq = qty(book.asks[0]);
      const Real micro = (price(book.bids[0]) * aq + price(book.asks[0]) * bq) / (bq + aq);
      return (micro - mid(book)) / mid(book) * 10000;
    }
    if (kernel == "mid_return") return std::log(mid(book) / mid(past(n, t)));
    if (kernel == "ofi") {
      Real sum = 0;
      for (std::size_t e = 1; e < states_.size(); ++e) {
        if (event_inside(n, e, t)) sum += flow(states_[e - 1].book, states_[e].book, n.levels);
      }
      return sum / qty_unit_;
    }
    if (kernel == "realized_vol") {
      Real sum = 0;
      for (std::size_t e = 1; e < states_.size(); ++e) {
        if (!event_inside(n, e, t)) continue;
        const Real change = std::log(mid(states_[e].book) / mid(states_[e - 1].book));
        sum += change * change;
      }
      return std::sqrt(sum);
    }
    if (kernel == "trade_flow") {
      Real signed_qty = 0;
      Real total = 0;
      for (const md::Trade& trade : trades_inside(n, t)) {
        total += trade.qty;
        if (trade.aggressor == md::Aggressor::Buyer) signed_qty += trade.qty;
        if (trade.aggressor == md::Aggressor::Seller) signed_qty -= trade.qty;
      }
      return total == 0 ? 0 : signed_qty / total;
    }
    if (kernel == "trade_count") return static_cast<Real>(trades_inside(n, t).size());
    if (kernel == "vwap_offset") {
      Real notional = 0;
      Real total = 0;
      for (const md::Trade& trade : trades_inside(n, t)) {
        notional += static_cast<Real>(trade.price) / price_unit_ * trade.qty;
        total += trade.qty;
      }
      if (std::isnan(mid(book))) return kNoValue;
      return total == 0 ? 0 : (notional / total - mid(book)) / mid(book) * 10000;
    }
    if (kernel == "queue_imbalance") {
      if (book.bids.empty() || book.asks.empty()) return kNoValue;
      const Real b = qty(book.bids[0]);
      const Real a = qty(book.asks[0]);
      return (b - a) / (b + a);
    }
    if (kernel == "order_arrival_rate") return rate(arrivals_, n, t);
    if (kernel == "cancel_rate") return rate(cancels_, n, t);
    if (kernel == "mean") return mean(window(n, t));
    if (kernel == "std") return deviation(window(n, t));
    if (kernel == "min") return extreme(window(n, t), -1);
    if (kernel == "max") return extreme(window(n, t), 1);
    if (kernel == "zscore") {
      const std::vector<Real> xs = window(n, t);
      const Real std = deviation(xs);
      return std == 0 ? 0 : (xs.back() - mean(xs)) / std;
    }
    if (kernel == "ema") {
      const auto& samples = samples_[n.input];
      Real y = kNoValue;
      TsNs last = 0;
      for (const Sample& sample : samples) {
        if (std::isnan(sample.x)) continue;
        const Real decay = std::exp2(-static_cast<Real>(sample.t - last) / static_cast<Real>(n.halflife_ns));
        y = std::isnan(y) ? Real{sample.x} : y + (1 - decay) * (sample.x - y);
        last = sample.t;
      }
      return std::isnan(samples.back().x) ? kNoValue : y;
    }
    if (kernel == "diff") {
      const auto& samples = samples_[n.input];
      return Real{samples.back().x} - samples[samples.size() - 1 - n.lag].x;
    }
    throw std::logic_error("no twin of " + std::string(kernel));
  }

 private:
  struct State {
    TsNs t;
    Book book;
  };
  struct Print {
    TsNs t;
    md::Trade trade;
  };
  struct Sample {
    TsNs t;
    double x;
  };

  bool wrapped(std::size_t i) const {
    return std::any_of(plan_.nodes.begin(), plan_.nodes.end(),
                       [&](const NodeSpec& n) { return n.input == static_cast<std::int32_t>(i); });
  }

  std::optional<TsNs> warm_at(std::size_t i) const {
    const NodeSpec& n = plan_.nodes[i];
    const TsNs start = states_.front().t;
    if (n.input >= 0) {
      const auto& samples = samples_[n.input];
      if (samples.empty()) return std::nullopt;
      if (n.kernel->name == "ema") return *warm_at(n.input) + 5 * n.halflife_ns;
      if (n.window_ns > 0) return *warm_at(n.input) + n.window_ns;
      const std::size_t need = n.kernel->name == "diff" ? n.lag + 1 : n.window_count;
      return samples.size() < need ? std::nullopt : std::optional(samples[need - 1].t);
    }
    if (n.window_ns > 0) return start + n.window_ns;
    if (n.window_count > 0) {
      if (n.kernel->name == "trade_flow" || n.kernel->name == "vwap_offset") {
        return trades_.size() < n.window_count ? std::nullopt : std::optional(trades_[n.window_count - 1].t);
      }
      return states_.size() <= n.window_count ? std::nullopt : std::optional(states_[n.window_count].t);
    }
    return start;
  }

  Real price(const md::Level& level) const { return static_cast<Real>(level.price) / price_unit_; }
  Real qty(const md::Level& level) const { return static_cast<Real>(level.qty) / qty_unit_; }
  Real mid(const Book& book) const {
    if (book.bids.empty() || book.asks.empty()) return kNoValue;
    return (price(book.bids[0]) + price(book.asks[0])) / 2;
  }
  static Real depth(const std::vector<md::Level>& side, std::size_t levels) {
    Real sum = 0;
    for (std::size_t i = 0; i < std::min(levels, side.size()); ++i) sum += side[i].qty;
    return sum;
  }

  static Real flow(const Book& before, const Book& now, std::size_t levels) {
    const Real inf = std::numeric_limits<Real>::infinity();
    const auto level = [](const std::vector<md::Level>& side, std::size_t m, Real missing) {
      return m < side.size() ? std::pair<Real, Real>(side[m].price, side[m].qty)
                             : std::pair<Real, Real>(missing, 0);
    };
    Real sum = 0;
    for (std::size_t m = 0; m < levels; ++m) {
      const auto [bp, bq] = level(now.bids, m, -inf);
      const auto [bp0, bq0] = level(before.bids, m, -inf);
      const auto [ap, aq] = level(now.asks, m, inf);
      const auto [ap0, aq0] = level(before.asks, m, inf);
      sum += (bp >= bp0) * bq - (bp <= bp0) * bq0 - (ap <= ap0) * aq + (ap >= ap0) * aq0;
    }
    return sum;
  }

  bool event_inside(const NodeSpec& n, std::size_t event, TsNs t) const {
    if (n.window_count > 0) return event + n.window_count >= states_.size();
    return states_[event].t > t - n.window_ns;
  }

  const Book& past(const NodeSpec& n, TsNs t) const {
    if (n.window_count > 0) return states_[states_.size() - 1 - n.window_count].book;
    std::size_t found = 0;
    for (std::size_t e = 0; e < states_.size(); ++e) {
      if (states_[e].t <= t - n.window_ns) found = e;
    }
    return states_[found].book;
  }

  std::vector<md::Trade> trades_inside(const NodeSpec& n, TsNs t) const {
    std::vector<md::Trade> found;
    for (std::size_t i = 0; i < trades_.size(); ++i) {
      const bool inside =
          n.window_count > 0 ? i + n.window_count >= trades_.size() : trades_[i].t > t - n.window_ns;
      if (inside) found.push_back(trades_[i].trade);
    }
    return found;
  }

  static Real rate(const std::vector<TsNs>& times, const NodeSpec& n, TsNs t) {
    Real count = 0;
    for (const TsNs at : times) count += at > t - n.window_ns && at <= t ? 1 : 0;
    return count * 1'000'000'000 / static_cast<Real>(n.window_ns);
  }

  std::vector<Real> window(const NodeSpec& n, TsNs t) const {
    const auto& samples = samples_[n.input];
    std::vector<Real> xs;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const bool inside = n.window_count > 0 ? i + n.window_count >= samples.size()
                                             : i + 1 == samples.size() || samples[i].t > t - n.window_ns;
      if (inside) xs.push_back(samples[i].x);
    }
    return xs;
  }

  static bool any_nan(const std::vector<Real>& xs) {
    return std::any_of(xs.begin(), xs.end(), [](Real x) { return std::isnan(x); });
  }
  static Real mean(const std::vector<Real>& xs) {
    Real sum = 0;  // Of the moves since the first, so that a large mean costs no digits.
    for (const Real x : xs) sum += x - xs.front();
    return xs.front() + sum / static_cast<Real>(xs.size());
  }
  static Real deviation(const std::vector<Real>& xs) {
    if (any_nan(xs)) return kNoValue;
    if (std::all_of(xs.begin(), xs.end(), [&](Real x) { return x == xs.front(); })) return 0;
    const Real centre = mean(xs);
    Real sum = 0;
    for (const Real x : xs) sum += (x - centre) * (x - centre);
    return std::sqrt(sum / static_cast<Real>(xs.size()));
  }
  static Real extreme(const std::vector<Real>& xs, int sign) {
    if (any_nan(xs)) return kNoValue;
    Real best = xs.front();
    for (const Real x : xs) best = sign > 0 ? std::max(best, x) : std::min(best, x);
    return best;
  }

  FeaturePlan plan_;
  Real price_unit_;
  Real qty_unit_;
  std::vector<State> states_;
  std::vector<Print> trades_;
  std::vector<TsNs> arrivals_;
  std::vector<TsNs> cancels_;
  std::vector<std::vector<Sample>> samples_;
};

}  // namespace tickwire::features::twin

#pragma once

/// A whole exchange's day of ITCH, made up from a seed: what the benches of books and of multicast read, and
/// what peers read beside them. It is to a book what a real day is:
///
/// - Instruments are busy by a power law, flattened at its head: the busiest of 8,000 has one message in
///   seventy. One message in four is of the instrument of the one before.
/// - Most orders go soon: which one is deleted or replaced is drawn by its place from its side's newest, with
///   the logarithm of that place spread evenly. Some stay all day.
/// - Four of five orders come within some ticks of the best price, the others up to 500 ticks away. The price
///   moves by a tick at a time, and the orders in its way are executed or deleted: levels come and go at the
///   top, and no book is ever crossed.
/// - The day is busiest after its open and before its close, and full of bursts of a tenth of a second, most
///   of them small, some a hundred times the usual rate.
///
/// Before the open come the session's directory and the orders that are there already.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace tickwire::bench {

struct ItchDaySettings {
  std::size_t messages;
  std::size_t instruments;
  std::uint64_t seed;
};

/// The stock of number `i`, from 0; its locate is one more.
inline std::string itch_symbol(std::size_t i) {
  std::string text = "S";
  for (std::size_t digit = 10'000; digit != 0; digit /= 10) text += static_cast<char>('0' + i / digit % 10);
  return text;
}

/// How busy the instruments are, the busiest first; sums up to 1.
inline std::vector<double> itch_shares(std::size_t instruments) {
  std::vector<double> shares;
  double sum = 0;
  for (std::size_t i = 0; i < instruments; ++i) sum += shares.emplace_back(1.0 / static_cast<double>(i + 10));
  for (double& share : shares) share /= sum;
  return shares;
}

class ItchDay {
 public:
  static constexpr std::uint64_t kOpenNs = 34'200'000'000'000;   // 9:30.
  static constexpr std::uint64_t kCloseNs = 57'600'000'000'000;  // 16:00.

  explicit ItchDay(const ItchDaySettings& settings)
      : settings_(settings), random_(settings.seed), stocks_(settings.instruments) {
    const std::vector<double> shares = itch_shares(stocks_.size());
    double roots = 0;
    for (const double share : shares) roots += std::sqrt(share);
    // A hundred live orders an instrument, more where it is busier.
    const double live =
        std::min(100.0 * static_cast<double>(stocks_.size()), static_cast<double>(settings.messages) / 8);
    double end = 0;
    for (std::size_t i = 0; i < stocks_.size(); ++i) {
      stocks_[i].mid = 1000 + static_cast<std::uint32_t>(below(30'000));
      stocks_[i].usual = 4 + static_cast<std::size_t>(live * std::sqrt(shares[i]) / roots);
      end += shares[i] * static_cast<double>(drawn_.size());
      while (filled_ < std::min(static_cast<std::size_t>(end + 0.5), drawn_.size())) {
        drawn_[filled_++] = static_cast<std::uint16_t>(i);
      }
    }
    while (filled_ < drawn_.size()) drawn_[filled_++] = 0;
  }

  /// Gives the day's messages, each behind its length, to `sink` in blocks: std::span<const unsigned char>.
  template <typename Sink>
  void write(Sink&& sink) {
    before_the_open();
    spread(settings_.messages - std::min(settings_.messages, written_));
    std::size_t last = 0;
    while (written_ < settings_.messages) {
      if (below(4) != 0) last = drawn_[below(drawn_.size())];
      step(last);
      if (bytes_.size() >= kBlockBytes) flush(sink);
    }
    flush(sink);
  }

  /// After write().
  [[nodiscard]] std::size_t messages() const { return written_; }
  [[nodiscard]] std::size_t bytes() const { return flushed_; }
  [[nodiscard]] std::uint64_t count(char type) const { return counts_[static_cast<unsigned char>(type)]; }
  [[nodiscard]] std::size_t most_live() const { return most_live_; }
  /// Messages of the busiest 100 ms, on the clock's tenths of a second.
  [[nodiscard]] std::uint64_t busiest_100ms() const { return std::max(busiest_, in_tenth_); }

 private:
  struct Order {
    std::uint64_t ref;
    std::uint32_t price;  // In ticks.
    std::uint32_t qty;
  };
  struct Stock {
    /// In ticks of 0.01. Bids stand below it, asks at it and above.
    std::uint32_t mid = 0;
    std::size_t usual = 0;                     // Orders that it tends to have.
    std::array<std::vector<Order>, 2> orders;  // Bids, asks; the newest last.
  };

  static constexpr std::size_t kBlockBytes = std::size_t{1} << 20U;
  static constexpr std::uint64_t kBinNs = 10'000'000;

  std::uint64_t below(std::uint64_t n) {
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>((static_cast<Wide>(random_()) * n) >> 64U);
  }
  double unit() { return static_cast<double>(random_() >> 11U) * 0x1p-53; }

  // -- The clock ------------------------------------------------------------------------------------

  /// How many messages each hundredth of a second has.
  void spread(std::size_t messages) {
    constexpr std::size_t kBins = (kCloseNs - kOpenNs) / kBinNs;
    std::vector<double> rates(kBins);
    double burst = 0;
    double sum = 0;
    for (std::size_t i = 0; i < kBins; ++i) {
      burst *= 0.88;
      if (below(150) == 0) burst += std::min(4.0 * std::pow(unit() + 1e-12, -1 / 1.3), 100.0);
      const double open_s = static_cast<double>(i) * 0.01;
      const double close_s = static_cast<double>(kBins - i) * 0.01;
      const double usual = 1 + 2.5 * std::exp(-open_s / 1200) + 1.8 * std::exp(-close_s / 900);
      sum += rates[i] = usual * (1 + burst);
    }
    bins_.reserve(kBins);
    double until = 0;
    std::size_t given = 0;
    for (const double rate : rates) {
      until += rate / sum * static_cast<double>(messages);
      bins_.push_back(static_cast<std::uint32_t>(static_cast<std::size_t>(until + 0.5) - given));
      given += bins_.back();
    }
  }
  std::uint64_t next_time() {
    if (bins_.empty()) return now_ += 1 + below(1'000'000);
    while (bin_ + 1 < bins_.size() && in_bin_ == bins_[bin_]) {
      in_bin_ = 0;
      if (++bin_ % 10 == 0) {
        busiest_ = std::max(busiest_, in_tenth_);
        in_tenth_ = 0;
      }
    }
    ++in_tenth_;
    const std::uint64_t part = kBinNs / std::max<std::uint32_t>(bins_[bin_], 1);
    const std::uint64_t at = kOpenNs + bin_ * kBinNs + std::min(in_bin_++ * part, kBinNs - part - 1);
    return now_ = std::max(now_, at + below(part + 1));
  }

  // -- Messages -------------------------------------------------------------------------------------

  void put(std::uint64_t value, int bytes) {
    for (int i = bytes - 1; i >= 0; --i) bytes_.push_back(static_cast<unsigned char>(value >> (8 * i)));
  }
  void begin(char type, std::size_t i, std::size_t size) {
    ++written_;
    ++counts_[static_cast<unsigned char>(type)];
    put(size, 2);
    put(static_cast<unsigned char>(type), 1);
    put(i + 1, 2);
    put(0, 2);
    put(next_time(), 6);
  }
  void put_symbol(std::size_t i) {
    for (const char c : itch_symbol(i)) put(static_cast<unsigned char>(c), 1);
    put(0x2020, 2);
  }
  template <typename Sink>
  void flush(Sink&& sink) {
    sink(std::span<const unsigned char>(bytes_));
    flushed_ += bytes_.size();
    bytes_.clear();
  }

  void before_the_open() {
    now_ = 11'000'000'000'000;  // 3:03.
    for (std::size_t i = 0; i < stocks_.size(); ++i) {
      begin('R', i, 39);
      put_symbol(i);
      for (const char c : std::string_view("QN\0\0\0\x64NCZ P N2\0\0\0\0N", 20))
        put(static_cast<unsigned char>(c), 1);
      begin('H', i, 25);
      put_symbol(i);
      for (const char c : std::string_view("T     ")) put(static_cast<unsigned char>(c), 1);
    }
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < stocks_.size(); ++i) order.insert(order.end(), stocks_[i].usual, i);
    std::shuffle(order.begin(), order.end(), random_);
    for (const std::size_t i : order) add(i, below(2));
    now_ = kOpenNs;
  }

  std::uint32_t draw_price(const Stock& stock, std::size_t side) {
    std::uint32_t away = 1;
    if (below(5) == 0) {
      away = static_cast<std::uint32_t>(std::exp(unit() * std::log(500.0)));
    } else {
      while (away < 40 && below(3) != 0) ++away;
    }
    return side == 0 ? stock.mid - std::min(away, stock.mid - 1) : stock.mid + away - 1;
  }
  void put_price(std::uint32_t ticks) { put(std::uint64_t{ticks} * 100, 4); }
  std::uint64_t next_ref() { return ref_ += 1 + below(2); }

  void add(std::size_t i, std::size_t side) {
    Stock& stock = stocks_[i];
    const Order order{next_ref(), draw_price(stock, side), 100 * static_cast<std::uint32_t>(1 + below(5))};
    const bool named = below(32) == 0;
    begin(named ? 'F' : 'A', i, named ? 40 : 36);
    put(order.ref, 8);
    put(side == 0 ? 'B' : 'S', 1);
    put(order.qty, 4);
    put_symbol(i);
    put_price(order.price);
    if (named) put(0x4E495445, 4);
    stock.orders[side].push_back(order);
    most_live_ = std::max(most_live_, ++live_);
  }
  void gone(std::size_t i, const Order& order, bool executed) {
    if (!executed) {
      begin('D', i, 19);
      put(order.ref, 8);
    } else {
      execute(i, order, order.qty);
    }
    --live_;
  }
  void execute(std::size_t i, const Order& order, std::uint32_t qty) {
    const bool priced = below(32) == 0;
    begin(priced ? 'C' : 'E', i, priced ? 36 : 31);
    put(order.ref, 8);
    put(qty, 4);
    put(++match_, 8);
    if (!priced) return;
    put('Y', 1);
    put_price(order.price);
  }

  /// A place in the side's orders, mostly among the newest.
  std::size_t draw_order(const std::vector<Order>& orders) {
    const auto back =
        static_cast<std::size_t>(std::exp(unit() * std::log(static_cast<double>(orders.size() + 1))));
    return orders.size() - std::min(orders.size(), back);
  }

  void move(std::size_t i) {
    Stock& stock = stocks_[i];
    const bool up = stock.mid < 200 || (stock.mid < 500'000 && below(2) == 0);
    stock.mid += up ? 1 : -1;
    std::vector<Order>& side = stock.orders[up ? 1 : 0];
    const bool traded = below(2) == 0;
    std::erase_if(side, [&](const Order& order) {
      const bool in_the_way = up ? order.price < stock.mid : order.price >= stock.mid;
      if (in_the_way) gone(i, order, traded);
      return in_the_way;
    });
  }

  void step(std::size_t i) {
    Stock& stock = stocks_[i];
    const std::size_t side = below(2);
    std::vector<Order>& orders = stock.orders[side];
    const std::uint64_t what = below(1000);
    if (what < 10) {
      begin('P', i, 44);
      put(0, 8);
      put('B', 1);
      put(100, 4);
      put_symbol(i);
      put_price(stock.mid);
      put(++match_, 8);
      return;
    }
    if (what < 18) return move(i);
    const std::size_t others = stock.orders[1 - side].size();
    const std::uint64_t adds = 2 * orders.size() < stock.usual ? 610 : 2 * others < stock.usual ? 530 : 470;
    if (orders.empty() || (what < 920 && below(1000) < adds)) return add(i, side);
    const std::size_t at = draw_order(orders);
    Order& order = orders[at];
    if (what < 845) {
      gone(i, order, false);
      orders.erase(orders.begin() + static_cast<std::ptrdiff_t>(at));
    } else if (what < 920) {
      gone(i, order, below(4) == 0);
      orders.erase(orders.begin() + static_cast<std::ptrdiff_t>(at));
    } else if (what < 980) {
      begin('U', i, 35);
      put(order.ref, 8);
      const Order moved{next_ref(), draw_price(stock, side), order.qty};
      put(moved.ref, 8);
      put(moved.qty, 4);
      put_price(moved.price);
      orders.erase(orders.begin() + static_cast<std::ptrdiff_t>(at));
      orders.push_back(moved);
    } else {
      const std::uint32_t part = std::max<std::uint32_t>(1, order.qty / 2);
      if (order.qty == part) return add(i, side);
      order.qty -= part;
      if (below(3) == 0) return execute(i, order, part);
      begin('X', i, 23);
      put(order.ref, 8);
      put(part, 4);
    }
  }

  const ItchDaySettings settings_;
  std::mt19937_64 random_;
  std::vector<Stock> stocks_;
  std::vector<std::uint16_t> drawn_ = std::vector<std::uint16_t>(std::size_t{1} << 18U);  // By their shares.
  std::size_t filled_ = 0;

  std::vector<std::uint32_t> bins_;
  std::size_t bin_ = 0;
  std::uint64_t in_bin_ = 0;
  std::uint64_t in_tenth_ = 0;
  std::uint64_t busiest_ = 0;
  std::uint64_t now_ = 0;

  std::vector<unsigned char> bytes_;
  std::size_t flushed_ = 0;
  std::size_t written_ = 0;
  std::array<std::uint64_t, 256> counts_{};
  std::size_t live_ = 0;
  std::size_t most_live_ = 0;
  std::uint64_t ref_ = 0;
  std::uint64_t match_ = 0;
};

}  // namespace tickwire::bench

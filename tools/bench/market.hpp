#pragma once

/// The market that the benchmarks share: a seeded random book of one instrument and the messages a
/// Binance venue would send of it, so that the sender, the peers and the captures speak of the same
/// frames. Not fast to make on purpose and not fast by accident: frames are made before the clock runs.

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tickwire::bench {

enum class Market : std::uint8_t { Spot, UsdM };

struct BookSettings {
  Market market;
  std::string symbol;  // Upper case.
  std::size_t levels;  // Changed on each side by one message.
  std::uint64_t seed;
};

/// A ladder of price levels a tick apart around a mid that walks. A message changes `levels` levels a
/// side, mostly quantities, some removed, and with a move of the mid the ones it ran over.
class SyntheticBook {
 public:
  explicit SyntheticBook(BookSettings settings)
      : settings_(std::move(settings)),
        random_(settings_.seed),
        depth_(std::max<std::size_t>(120, 2 * settings_.levels)) {
    stream_ = settings_.symbol;
    for (char& c : stream_) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    stream_ += settings_.market == Market::Spot ? "@depth@100ms" : "@depth@0ms";
    for (std::size_t i = 0; i < depth_; ++i) {
      bids_.push_back(lots());
      asks_.push_back(lots());
    }
  }

  [[nodiscard]] const std::string& symbol() const { return settings_.symbol; }
  [[nodiscard]] std::uint64_t last_id() const { return last_id_; }

  /// Moves the book a step and appends the combined-stream message that says so.
  void next(std::string& out, std::int64_t event_ms) {
    bid_changes_.clear();
    ask_changes_.clear();
    // A single level a side has no room to say what a move runs over.
    const std::uint64_t chance = random_() % 16;
    if (settings_.levels >= 3 && chance < 2) move(chance == 0);
    fill(bids_, bid_changes_);
    fill(asks_, ask_changes_);

    const std::uint64_t previous = last_id_;
    std::uint64_t first = previous + 1;
    if (settings_.market == Market::UsdM) first += random_() % 40;  // Its ids are shared between symbols.
    last_id_ = first + 2 * settings_.levels - 1;
    out.append(R"({"stream":")").append(stream_).append(R"(","data":{"e":"depthUpdate","E":)");
    number(out, event_ms);
    if (settings_.market == Market::UsdM) number(out.append(R"(,"T":)"), event_ms - 1);
    out.append(R"(,"s":")").append(settings_.symbol).append(R"(","U":)");
    number(out, first);
    number(out.append(R"(,"u":)"), last_id_);
    if (settings_.market == Market::UsdM) number(out.append(R"(,"pu":)"), previous);
    levels(out.append(R"(,"b":)"), bid_changes_, -1);
    levels(out.append(R"(,"a":)"), ask_changes_, 1);
    out.append("}}");
  }

  /// Appends the body that the REST depth endpoint would answer now.
  void snapshot(std::string& out, std::int64_t event_ms) {
    number(out.append(R"({"lastUpdateId":)"), last_id_);
    if (settings_.market == Market::UsdM) {
      number(out.append(R"(,"E":)"), event_ms);
      number(out.append(R"(,"T":)"), event_ms - 1);
    }
    const auto whole = [this](const std::deque<std::int64_t>& side, Changes& all) {
      all.clear();
      for (std::size_t i = 0; i < depth_; ++i) {
        if (side[i] != 0) all.emplace_back(static_cast<std::int64_t>(i), side[i]);
      }
    };
    whole(bids_, bid_changes_);
    whole(asks_, ask_changes_);
    levels(out.append(R"(,"bids":)"), bid_changes_, -1);
    levels(out.append(R"(,"asks":)"), ask_changes_, 1);
    out.append("}");
  }

 private:
  using Changes = std::vector<std::pair<std::int64_t, std::int64_t>>;  // Ticks from the best price; lots.

  std::int64_t lots() { return 1 + static_cast<std::int64_t>(random_() % 400'000); }

  /// The mid goes a tick up or down: one side's best level goes, the other side gets it, and the far
  /// ends follow, so that both sides keep their depth.
  void move(bool up) {
    std::deque<std::int64_t>& taken = up ? asks_ : bids_;
    std::deque<std::int64_t>& given = up ? bids_ : asks_;
    Changes& taken_changes = up ? ask_changes_ : bid_changes_;
    Changes& given_changes = up ? bid_changes_ : ask_changes_;
    best_bid_ += up ? 1 : -1;
    taken.pop_front();
    taken.push_back(lots());
    if (taken.front() == 0) taken.front() = lots();
    given.push_front(lots());
    given.pop_back();
    const auto last = static_cast<std::int64_t>(depth_);
    taken_changes = {{-1, 0}, {0, taken.front()}, {last - 1, taken.back()}};
    given_changes = {{0, given.front()}, {last, 0}};
  }

  /// Adds random changes up to `levels`, each price once, best price first.
  void fill(std::deque<std::int64_t>& side, Changes& changes) {
    const auto known = [&changes](std::int64_t offset) {
      return std::any_of(changes.begin(), changes.end(),
                         [offset](const auto& c) { return c.first == offset; });
    };
    while (changes.size() < settings_.levels) {
      const std::size_t at = random_() % std::min(depth_, 2 * settings_.levels);
      const auto offset = static_cast<std::int64_t>(at);
      if (known(offset)) continue;
      // A change that says what is known already would be none. The best level stays.
      std::int64_t qty = at != 0 && side[at] != 0 && random_() % 8 == 0 ? 0 : lots();
      if (qty == side[at]) ++qty;
      side[at] = qty;
      changes.emplace_back(offset, qty);
    }
    std::sort(changes.begin(), changes.end());
  }

  template <typename T>
  static void number(std::string& out, T value) {
    char text[24];
    out.append(text, std::to_chars(text, text + sizeof text, value).ptr);
  }

  /// `units` with this many decimals.
  static void fixed(std::string& out, std::int64_t units, int decimals) {
    std::int64_t scale = 1;
    for (int i = 0; i < decimals; ++i) scale *= 10;
    number(out, units / scale);
    out += '.';
    char text[24];
    const char* const end = std::to_chars(text, text + sizeof text, scale + units % scale).ptr;
    out.append(text + 1, static_cast<std::size_t>(end - text - 1));  // Without the 1 that keeps the zeros.
  }

  void levels(std::string& out, const Changes& changes, std::int64_t away) const {
    const bool spot = settings_.market == Market::Spot;
    const std::int64_t best = away < 0 ? best_bid_ : best_bid_ + 1;
    out += '[';
    for (const auto& [offset, qty] : changes) {
      if (&offset != &changes.front().first) out += ',';
      out.append("[\"");
      // Spot: ticks of 0.01 and lots of 0.00001, both printed with eight decimals. USD-M: ticks of 0.1
      // printed with two, lots of 0.001 with three.
      fixed(out, (best + away * offset) * (spot ? 1'000'000 : 10), spot ? 8 : 2);
      out.append("\",\"");
      fixed(out, spot ? qty * 1000 : qty / 100 + (qty != 0), spot ? 8 : 3);
      out.append("\"]");
    }
    out += ']';
  }

  const BookSettings settings_;
  std::string stream_;
  std::mt19937_64 random_;
  std::size_t depth_;
  std::int64_t best_bid_ = 6'183'763;
  std::uint64_t last_id_ = 4'000'000'000;
  std::deque<std::int64_t> bids_;  // Lots, best price first; 0 is a hole.
  std::deque<std::int64_t> asks_;
  Changes bid_changes_;
  Changes ask_changes_;
};

}  // namespace tickwire::bench

#pragma once

/// An order book by price: the venue's absolute quantity at each price, both sides in order.
///
/// One thread owns it. Every cell comes from the arena at setup.
///
/// What recorded diff streams look like: half of all changes fall more than a hundred levels away from
/// the best price, a message changes some ten to a hundred levels of a book of thousands, and which
/// come, change or go nobody can predict; after each message somebody wants the best few. So the best
/// part of a side is a window: an array with a cell for each price step, and a bit for each cell that
/// is in use. A change there is a store and a bit, without a search, a move or a branch that depends
/// on the data; the best n levels are found by walking bits. Levels deeper than the window are kept in
/// a sorted array (sorted_levels.hpp), where a change costs a search.
///
/// The price step is learnt: it is the greatest common divisor of the distances between the prices
/// seen since clear(), so it does not matter how many decimals the prices are kept in. When the best
/// price leaves the window, or a price falls between two steps, all levels in it are handed to the
/// sorted array and those in reach of the new one are taken back: some ten nanoseconds a level, five
/// times in eleven minutes of recorded BTCUSDT spot, never in the futures. Of the changes there 92 %
/// (spot), 95 % (USD-M) and 99 % (COIN-M) fall into the window. It is slow on a book whose prices have
/// no common step and lie far apart; then the sorted array does the work.
///
/// A side may have a horizon: the price up to which the venue told of it. Behind it stand those levels alone
/// that have changed since. A side that is full and has to drop a level has its horizon there, too.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/md/event.hpp"
#include "tickwire/md/sorted_levels.hpp"

namespace tickwire::md {

class PriceBook {
 public:
  /// Enough for the 5,000 levels of the largest snapshot and what a day adds beyond them.
  static constexpr std::size_t kDefaultLevels = 16384;

  explicit PriceBook(Arena& arena, std::size_t max_levels_per_side = kDefaultLevels);

  /// The venue's new absolute quantity at a price; zero removes the level, and removing one that is
  /// not there is normal. False when the side was full, so that a level had to go: the deepest, be
  /// it the new one or another. dropped_levels() counts them.
  bool set(Side side, std::int64_t price, std::int64_t qty) noexcept TICKWIRE_HOT {
    return side == Side::Bid ? set_in(bids_, price, qty) : set_in(asks_, turned(price), qty);
  }

  void clear() noexcept TICKWIRE_HOT;

  [[nodiscard]] std::size_t depth(Side side) const noexcept TICKWIRE_HOT { return of(side).depth(); }

  /// Writes the best levels, best first, and returns how many there were room and levels for.
  std::size_t top(Side side, std::span<Level> out) const noexcept TICKWIRE_HOT;

  /// The best level, null on an empty side. Holds until the next set() or clear().
  [[nodiscard]] const Level* best(Side side) const noexcept TICKWIRE_HOT {
    const HalfBook& half = of(side);
    return half.depth() != 0 ? &half.best : nullptr;
  }

  /// Best bid at or above best ask. False while a side is empty.
  [[nodiscard]] bool crossed() const noexcept TICKWIRE_HOT {
    return bids_.depth() != 0 && asks_.depth() != 0 && bids_.best.price >= asks_.best.price;
  }

  /// Grows with each set() that changed something: an event between two equal readings only repeated
  /// what was known.
  [[nodiscard]] std::uint64_t changes() const noexcept TICKWIRE_HOT { return changes_; }
  [[nodiscard]] std::uint64_t dropped_levels() const noexcept TICKWIRE_HOT { return dropped_levels_; }

  /// The side was told up to and with this price: what lies behind it is unknown, but for what has changed
  /// since. Moves a horizon that lies farther out in.
  void limit(Side side, std::int64_t price) noexcept TICKWIRE_HOT;
  /// The side is known up to and with this price. Moves a horizon that lies nearer out; null: it has none.
  void extend(Side side, const std::int64_t* price) noexcept TICKWIRE_HOT;
  /// Has the side no horizon?
  [[nodiscard]] bool whole(Side side) const noexcept TICKWIRE_HOT { return of(side).cut == kNoCut; }
  /// Has a side its horizon where a level had to go because it was full?
  [[nodiscard]] bool cut_by_drop() const noexcept TICKWIRE_HOT {
    return (bids_.cut != kNoCut && bids_.cut == bids_.dropped) ||
           (asks_.cut != kNoCut && asks_.cut == asks_.dropped);
  }
  /// Levels within the horizon; they are the best ones.
  [[nodiscard]] std::size_t known(Side side) const noexcept TICKWIRE_HOT { return of(side).known; }
  [[nodiscard]] bool within(Side side, std::int64_t price) const noexcept TICKWIRE_HOT {
    const HalfBook& half = of(side);
    return (half.is_ask ? turned(price) : price) > half.cut;
  }
  /// Are the best so many levels of the side known, or all there are?
  [[nodiscard]] bool reaches(Side side, std::size_t levels) const noexcept TICKWIRE_HOT {
    const HalfBook& half = of(side);
    return half.known >= levels || half.cut == kNoCut;
  }

  /// The quantity at a price, zero where there is no level.
  [[nodiscard]] std::int64_t qty(Side side, std::int64_t price) const noexcept TICKWIRE_HOT;
  /// The best level that is worse than this price, into `out`. False where there is none.
  [[nodiscard]] bool next(Side side, std::int64_t price, Level& out) const noexcept TICKWIRE_HOT;

  [[nodiscard]] std::size_t max_levels() const noexcept TICKWIRE_HOT { return max_levels_; }

 private:
  static constexpr std::int64_t kNoCut = std::numeric_limits<std::int64_t>::min();

  /// One side. Keys are prices turned so that a larger one is better: an ask's price is negated.
  struct HalfBook {
    HalfBook(Arena& arena, bool is_ask, std::size_t max_levels, std::size_t window);

    [[nodiscard]] std::size_t depth() const noexcept TICKWIRE_HOT { return near + far.size(); }
    /// The key of a cell. Modulo 2^64, as the distances from it are.
    [[nodiscard]] std::int64_t key_of(std::size_t cell) const noexcept TICKWIRE_HOT {
      return static_cast<std::int64_t>(static_cast<std::uint64_t>(base) + cell * step);
    }

    // Keys from `base` on lie in the window, `step` apart; worse ones in `far`.
    std::span<std::int64_t> cells;
    std::span<std::uint64_t> used;  // A bit a cell.
    std::size_t near = 0;           // Levels in the window.
    std::int64_t base;
    std::uint64_t step;     // 0 until two prices are known.
    std::uint64_t span;     // Of the window in keys.
    unsigned step_shift;    // step = step_odd << step_shift; a distance is divided by a shift and
    std::uint64_t inverse;  // a product with the inverse of step_odd modulo 2^64, exact on the grid.
    std::ptrdiff_t best_cell = -1;
    SortedLevels far;
    std::int64_t cut = kNoCut;      // Best key behind the horizon; the smallest there is where all is known.
    std::int64_t dropped = kNoCut;  // Best key that was ever dropped.
    std::size_t known = 0;          // Levels with better keys than that …
    std::size_t known_from = 0;     // … and the first cell of theirs.
    Level best{};                   // By price. Where the side is not empty.
    bool is_ask;
  };

  [[nodiscard]] static constexpr std::int64_t turned(std::int64_t value) noexcept TICKWIRE_HOT {
    return static_cast<std::int64_t>(0 - static_cast<std::uint64_t>(value));
  }
  [[nodiscard]] const HalfBook& of(Side side) const noexcept TICKWIRE_HOT {
    return side == Side::Bid ? bids_ : asks_;
  }

  bool set_in(HalfBook& half, std::int64_t key, std::int64_t qty) noexcept TICKWIRE_HOT;
  bool set_cell(HalfBook& half, std::size_t cell, std::int64_t qty) noexcept TICKWIRE_HOT;
  bool set_cell_full(HalfBook& half, std::size_t cell, std::int64_t qty) noexcept TICKWIRE_HOT;
  bool set_far(HalfBook& half, std::int64_t key, std::int64_t qty) noexcept TICKWIRE_HOT;
  bool set_slow(HalfBook& half, std::int64_t key, std::int64_t qty) noexcept TICKWIRE_HOT;
  static void refresh_best(HalfBook& half) noexcept TICKWIRE_HOT;
  static void set_step(HalfBook& half, std::uint64_t step) noexcept TICKWIRE_HOT;
  static void empty_window(HalfBook& half) noexcept TICKWIRE_HOT;
  static void move_window(HalfBook& half, std::int64_t best_key) noexcept TICKWIRE_HOT;
  static void reset(HalfBook& half) noexcept TICKWIRE_HOT;
  static void drop(HalfBook& half, std::int64_t key) noexcept TICKWIRE_HOT;
  static void drop_worst(HalfBook& half) noexcept TICKWIRE_HOT;
  static void count_known(HalfBook& half) noexcept TICKWIRE_HOT;
  static void set_cut(HalfBook& half, std::int64_t key) noexcept TICKWIRE_HOT;
  static void find_known_from(HalfBook& half) noexcept TICKWIRE_HOT;
  [[nodiscard]] static bool next_key(const HalfBook& half, std::int64_t key, Level& out) noexcept
      TICKWIRE_HOT;

  std::size_t max_levels_;
  std::uint64_t dropped_levels_ = 0;
  std::uint64_t changes_ = 0;
  HalfBook bids_;
  HalfBook asks_;
};

}  // namespace tickwire::md

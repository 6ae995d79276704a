#pragma once

/// An order book by price: the venue's absolute quantity at each price, both sides sorted.
///
/// One thread owns it. Every cell comes from the arena at setup.
///
/// Most updates of a venue's diff stream fall near the best price, a fair part falls anywhere in
/// thousands of levels, and after each one somebody wants the best few. So a side is a sorted array
/// cut into blocks of at most 64 levels, the worst price first and the best last: a change near the
/// best moves a handful of levels at the end of the last block, a change anywhere moves at most one
/// block (1 KiB) and, rarely, the directory of blocks behind it (16 B a block). Reading the best is
/// one load, the best n are contiguous but for block borders. A tree such as std::map pays a cache
/// miss a step for each of these; one flat array would move hundreds of kilobytes for a deep level.
/// It is slow, though still bounded, on a feed that inserts at the deep end of a full book.

#include <cstddef>
#include <cstdint>
#include <span>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/md/event.hpp"

namespace tickwire::md {

class PriceBook {
 public:
  /// Enough for the 5,000 levels of the largest snapshot and what a day adds beyond them.
  static constexpr std::size_t kDefaultLevels = 16384;

  explicit PriceBook(Arena& arena, std::size_t max_levels_per_side = kDefaultLevels);

  /// The venue's new absolute quantity at a price; zero removes the level, and removing one that is
  /// not there is normal. False when the side was full, so that a level had to go: the deepest, be
  /// it the new one or another. dropped_levels() counts them.
  bool set(Side side, std::int64_t price, std::int64_t qty) noexcept TICKWIRE_HOT;

  void clear() noexcept TICKWIRE_HOT;

  [[nodiscard]] std::size_t depth(Side side) const noexcept TICKWIRE_HOT { return of(side).levels; }

  /// Writes the best levels, best first, and returns how many there were room and levels for.
  std::size_t top(Side side, std::span<Level> out) const noexcept TICKWIRE_HOT;

  /// The best level, null on an empty side. Holds until the next set() or clear().
  [[nodiscard]] const Level* best(Side side) const noexcept TICKWIRE_HOT { return of(side).best; }

  /// Best bid at or above best ask. False while a side is empty.
  [[nodiscard]] bool crossed() const noexcept TICKWIRE_HOT {
    return bids_.best != nullptr && asks_.best != nullptr && bids_.best->price >= asks_.best->price;
  }

  /// Grows with each set() that changed something: an event between two equal readings only repeated
  /// what was known.
  [[nodiscard]] std::uint64_t changes() const noexcept TICKWIRE_HOT { return changes_; }
  [[nodiscard]] std::uint64_t dropped_levels() const noexcept TICKWIRE_HOT { return dropped_levels_; }
  [[nodiscard]] std::size_t max_levels() const noexcept TICKWIRE_HOT { return max_levels_; }

 private:
  static constexpr std::size_t kBlockLevels = 64;
  /// Two neighbours that fit into half a block become one, so that blocks are at least a quarter
  /// full on average and never more than kMaxBlocks() are needed; half, so that a level that comes
  /// and goes does not split and merge each time.
  static constexpr std::size_t kMergeLevels = kBlockLevels / 2;

  struct Block {
    Level levels[kBlockLevels];
  };
  /// A directory entry. The worst price stands here, so that a search reads one block alone.
  struct Entry {
    std::int64_t worst;
    std::uint32_t block;
    std::uint32_t count;
  };
  struct HalfBook {
    std::span<Block> pool;
    std::span<std::uint32_t> free;  // Stack of unused blocks.
    std::span<Entry> entries;       // Worst first.
    std::size_t free_count = 0;
    std::size_t entry_count = 0;
    std::size_t levels = 0;
    const Level* best = nullptr;
  };

  [[nodiscard]] const HalfBook& of(Side side) const noexcept TICKWIRE_HOT {
    return side == Side::Bid ? bids_ : asks_;
  }

  template <Side kSide>
  bool set_in(HalfBook& half, std::int64_t price, std::int64_t qty) noexcept TICKWIRE_HOT;
  template <Side kSide>
  bool insert(HalfBook& half, std::size_t entry, std::size_t at, Level level) noexcept TICKWIRE_HOT;
  template <Side kSide>
  static std::size_t find_entry(const HalfBook& half, std::int64_t price) noexcept TICKWIRE_HOT;
  static void erase(HalfBook& half, std::size_t entry, std::size_t at) noexcept TICKWIRE_HOT;
  static void merge_with_next(HalfBook& half, std::size_t entry) noexcept TICKWIRE_HOT;
  static Entry& add_entry(HalfBook& half, std::size_t at) noexcept TICKWIRE_HOT;
  static void remove_entry(HalfBook& half, std::size_t at) noexcept TICKWIRE_HOT;
  static void refresh_best(HalfBook& half) noexcept TICKWIRE_HOT;
  static void reset(HalfBook& half) noexcept TICKWIRE_HOT;

  std::size_t max_levels_;
  std::uint64_t dropped_levels_ = 0;
  std::uint64_t changes_ = 0;
  HalfBook bids_;
  HalfBook asks_;
};

}  // namespace tickwire::md

#pragma once

/// One side's levels in order, for any prices: the part of a PriceBook that its window does not reach.
///
/// Keys are prices turned so that a larger one is better. The levels are a sorted array cut into
/// blocks of at most 64, the worst key first and the best last: a change moves at most one block
/// (1 KiB) and, rarely, the directory of blocks behind it (16 B a block). A search is two binary ones
/// without a branch on what they find. A tree would pay a cache miss a step; one flat array would move
/// hundreds of kilobytes for a deep level.
///
/// One thread owns it; every cell comes from the arena at setup. Whoever uses it keeps to the number
/// of levels it was made for.

#include <cstddef>
#include <cstdint>
#include <span>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/md/event.hpp"

namespace tickwire::md {

class SortedLevels {
 public:
  SortedLevels(Arena& arena, std::size_t max_levels);

  /// Sets the quantity at a key, zero removes it. Returns the quantity there was.
  std::int64_t exchange(std::int64_t key, std::int64_t qty) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool contains(std::int64_t key) const noexcept TICKWIRE_HOT;

  /// The quantity at a key, zero where there is none.
  [[nodiscard]] std::int64_t qty(std::int64_t key) const noexcept TICKWIRE_HOT;
  /// The best level that is worse than a key, into `out`. False where there is none.
  [[nodiscard]] bool worse(std::int64_t key, Level& out) const noexcept TICKWIRE_HOT;
  /// How many levels are better than a key.
  [[nodiscard]] std::size_t count_better(std::int64_t key) const noexcept TICKWIRE_HOT;

  /// A level better than all.
  void push_best(Level level) noexcept TICKWIRE_HOT;
  void pop_best() noexcept TICKWIRE_HOT;
  void pop_worst() noexcept TICKWIRE_HOT;
  void clear() noexcept TICKWIRE_HOT;

  [[nodiscard]] std::size_t size() const noexcept TICKWIRE_HOT { return levels_; }
  [[nodiscard]] bool empty() const noexcept TICKWIRE_HOT { return levels_ == 0; }
  /// Not of an empty side.
  [[nodiscard]] const Level& best() const noexcept TICKWIRE_HOT {
    const Entry& last = entries_[entry_count_ - 1];
    return pool_[last.block].levels[last.count - 1];
  }
  [[nodiscard]] const Level& worst() const noexcept TICKWIRE_HOT {
    return pool_[entries_[0].block].levels[0];
  }

  /// Writes the best levels, best first, by key; returns how many there were room and levels for.
  std::size_t top(std::span<Level> out) const noexcept TICKWIRE_HOT;

 private:
  static constexpr std::size_t kBlockLevels = 64;
  /// Two neighbours that fit into half a block become one, so that no more blocks are needed than the
  /// constructor takes; half, so that a level that comes and goes does not split and merge each time.
  static constexpr std::size_t kMergeLevels = kBlockLevels / 2;

  struct Block {
    Level levels[kBlockLevels];
  };
  /// A directory entry. The worst key stands here, so that a search reads one block alone.
  struct Entry {
    std::int64_t worst;
    std::uint32_t block;
    std::uint32_t count;
  };
  struct Place {
    std::size_t entry;
    std::size_t at;
  };

  [[nodiscard]] Place find(std::int64_t key) const noexcept TICKWIRE_HOT;
  void insert(Place place, Level level) noexcept TICKWIRE_HOT;
  void erase(Place place) noexcept TICKWIRE_HOT;
  void merge_with_next(std::size_t entry) noexcept TICKWIRE_HOT;
  Entry& add_entry(std::size_t at) noexcept TICKWIRE_HOT;
  void remove_entry(std::size_t at) noexcept TICKWIRE_HOT;

  std::span<Block> pool_;
  std::span<std::uint32_t> free_;  // Stack of unused blocks.
  std::span<Entry> entries_;       // Worst first.
  std::size_t free_count_ = 0;
  std::size_t entry_count_ = 0;
  std::size_t levels_ = 0;
};

}  // namespace tickwire::md

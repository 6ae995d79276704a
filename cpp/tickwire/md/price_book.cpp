#include "tickwire/md/price_book.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <string>

#include "tickwire/core/error.hpp"

namespace tickwire::md {

namespace {

/// A side is kept worst price first.
template <Side kSide>
constexpr bool worse(std::int64_t a, std::int64_t b) noexcept TICKWIRE_HOT {
  return kSide == Side::Bid ? a < b : a > b;
}

/// Place of the first level not worse than `price`. The number of steps depends on `count` alone and
/// each is a conditional move: where a price falls is not predictable.
template <Side kSide>
std::size_t find_level(const Level* levels, std::size_t count, std::int64_t price) noexcept TICKWIRE_HOT {
  const Level* first = levels;
  while (count > 1) {
    const std::size_t half = count / 2;
    first += worse<kSide>(first[half - 1].price, price) ? half : 0;
    count -= half;
  }
  return static_cast<std::size_t>(first - levels) + (worse<kSide>(first->price, price) ? 1 : 0);
}

}  // namespace

PriceBook::PriceBook(Arena& arena, std::size_t max_levels_per_side) : max_levels_(max_levels_per_side) {
  if (max_levels_ == 0 || max_levels_ > (std::size_t{1} << 24U)) {
    throw SetupError("max_levels", "between 1 and 16777216", std::to_string(max_levels_));
  }
  // Two neighbours together always hold more than kMergeLevels, so no more than this many are in use.
  const std::size_t max_blocks = 2 * max_levels_ / (kMergeLevels + 1) + 3;
  for (HalfBook* half : {&bids_, &asks_}) {
    half->pool = arena.allocate<Block>(max_blocks);
    half->free = arena.allocate<std::uint32_t>(max_blocks);
    half->entries = arena.allocate<Entry>(max_blocks);
    reset(*half);
  }
}

void PriceBook::reset(HalfBook& half) noexcept {
  // The lowest numbers on top of the stack: a small book stays on few pages.
  half.free_count = half.free.size();
  for (std::size_t i = 0; i < half.free_count; ++i) {
    half.free[i] = static_cast<std::uint32_t>(half.free_count - 1 - i);
  }
  half.entry_count = 0;
  half.levels = 0;
  half.best = nullptr;
}

void PriceBook::clear() noexcept {
  reset(bids_);
  reset(asks_);
}

bool PriceBook::set(Side side, std::int64_t price, std::int64_t qty) noexcept {
  return side == Side::Bid ? set_in<Side::Bid>(bids_, price, qty) : set_in<Side::Ask>(asks_, price, qty);
}

/// The block that holds a price or would: the last whose worst level is not better than it.
template <Side kSide>
std::size_t PriceBook::find_entry(const HalfBook& half, std::int64_t price) noexcept {
  std::size_t last = half.entry_count - 1;
  // Most changes fall into the block of the best price or the one behind it.
  for (int i = 0; i < 2; ++i, --last) {
    if (last == 0 || !worse<kSide>(price, half.entries[last].worst)) return last;
  }
  // At least entry 0 remains; it takes whatever is worse than all.
  std::size_t first = 0;
  std::size_t count = last + 1;
  while (count > 1) {
    const std::size_t step = count / 2;
    first += worse<kSide>(price, half.entries[first + step].worst) ? 0 : step;
    count -= step;
  }
  return first;
}

template <Side kSide>
bool PriceBook::set_in(HalfBook& half, std::int64_t price, std::int64_t qty) noexcept {
  if (half.entry_count == 0) [[unlikely]] {
    if (qty == 0) return true;
    Entry& entry = add_entry(half, 0);
    entry.worst = price;
    entry.count = 1;
    half.pool[entry.block].levels[0] = {price, qty};
    half.levels = 1;
    ++changes_;
    refresh_best(half);
    return true;
  }
  const std::size_t at_entry = find_entry<kSide>(half, price);
  const Entry& entry = half.entries[at_entry];
  Level* const levels = half.pool[entry.block].levels;
  const std::size_t at = find_level<kSide>(levels, entry.count, price);
  if (at < entry.count && levels[at].price == price) {
    changes_ += levels[at].qty != qty ? 1 : 0;
    if (qty != 0) {
      levels[at].qty = qty;
    } else {
      erase(half, at_entry, at);
    }
    return true;
  }
  if (qty == 0) return true;
  return insert<kSide>(half, at_entry, at, {price, qty});
}

template <Side kSide>
bool PriceBook::insert(HalfBook& half, std::size_t at_entry, std::size_t at, Level level) noexcept {
  if (half.levels == max_levels_) [[unlikely]] {
    ++dropped_levels_;
    if (at_entry == 0 && at == 0) return false;
    erase(half, 0, 0);
    // What lay where may have moved; a full book pays for a second search.
    if (half.entry_count == 0) {
      (void)set_in<kSide>(half, level.price, level.qty);
    } else {
      at_entry = find_entry<kSide>(half, level.price);
      const Entry& entry = half.entries[at_entry];
      at = find_level<kSide>(half.pool[entry.block].levels, entry.count, level.price);
      (void)insert<kSide>(half, at_entry, at, level);
    }
    return false;
  }

  if (half.entries[at_entry].count == kBlockLevels) [[unlikely]] {
    const bool at_best_end = at == kBlockLevels && at_entry + 1 == half.entry_count;
    const bool at_deep_end = at == 0 && at_entry == 0;
    if (at_best_end || at_deep_end) {
      // A book that is loaded in order fills its blocks.
      if (at_best_end) ++at_entry;
      Entry& fresh = add_entry(half, at_entry);
      fresh.count = 0;
      at = 0;
    } else {
      Entry& upper = add_entry(half, at_entry + 1);
      Entry& lower = half.entries[at_entry];
      constexpr std::size_t kHalf = kBlockLevels / 2;
      std::memcpy(half.pool[upper.block].levels, half.pool[lower.block].levels + kHalf,
                  (kBlockLevels - kHalf) * sizeof(Level));
      lower.count = kHalf;
      upper.count = kBlockLevels - kHalf;
      upper.worst = half.pool[upper.block].levels[0].price;
      if (at > kHalf) {
        ++at_entry;
        at -= kHalf;
      }
    }
  }

  Entry& entry = half.entries[at_entry];
  Level* const place = half.pool[entry.block].levels + at;
  std::memmove(place + 1, place, (entry.count - at) * sizeof(Level));
  *place = level;
  ++entry.count;
  ++half.levels;
  if (at == 0) entry.worst = level.price;
  ++changes_;
  refresh_best(half);
  return true;
}

void PriceBook::erase(HalfBook& half, std::size_t at_entry, std::size_t at) noexcept {
  Entry& entry = half.entries[at_entry];
  Level* const levels = half.pool[entry.block].levels;
  std::memmove(levels + at, levels + at + 1, (entry.count - at - 1) * sizeof(Level));
  --entry.count;
  --half.levels;
  if (entry.count == 0) [[unlikely]] {
    remove_entry(half, at_entry);
  } else {
    entry.worst = levels[0].price;
    if (entry.count < kMergeLevels) [[unlikely]] {
      const std::size_t count = entry.count;
      if (at_entry + 1 < half.entry_count && count + half.entries[at_entry + 1].count <= kMergeLevels) {
        merge_with_next(half, at_entry);
      } else if (at_entry > 0 && count + half.entries[at_entry - 1].count <= kMergeLevels) {
        merge_with_next(half, at_entry - 1);
      }
    }
  }
  refresh_best(half);
}

void PriceBook::merge_with_next(HalfBook& half, std::size_t at_entry) noexcept {
  Entry& entry = half.entries[at_entry];
  const Entry& next = half.entries[at_entry + 1];
  std::memcpy(half.pool[entry.block].levels + entry.count, half.pool[next.block].levels,
              next.count * sizeof(Level));
  entry.count += next.count;
  remove_entry(half, at_entry + 1);
}

PriceBook::Entry& PriceBook::add_entry(HalfBook& half, std::size_t at) noexcept {
  assert(half.free_count > 0);
  Entry* const place = half.entries.data() + at;
  std::memmove(place + 1, place, (half.entry_count - at) * sizeof(Entry));
  ++half.entry_count;
  place->block = half.free[--half.free_count];
  return *place;
}

void PriceBook::remove_entry(HalfBook& half, std::size_t at) noexcept {
  Entry* const place = half.entries.data() + at;
  half.free[half.free_count++] = place->block;
  --half.entry_count;
  std::memmove(place, place + 1, (half.entry_count - at) * sizeof(Entry));
}

void PriceBook::refresh_best(HalfBook& half) noexcept {
  if (half.entry_count == 0) {
    half.best = nullptr;
    return;
  }
  const Entry& last = half.entries[half.entry_count - 1];
  half.best = half.pool[last.block].levels + last.count - 1;
}

std::size_t PriceBook::top(Side side, std::span<Level> out) const noexcept {
  const HalfBook& half = of(side);
  const std::size_t wanted = std::min(out.size(), half.levels);
  std::size_t written = 0;
  for (std::size_t i = half.entry_count; written < wanted;) {
    const Entry& entry = half.entries[--i];
    const Level* level = half.pool[entry.block].levels + entry.count;
    const std::size_t end = std::min(wanted, written + entry.count);
    while (written < end) out[written++] = *--level;
  }
  return wanted;
}

}  // namespace tickwire::md

#include "tickwire/md/sorted_levels.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace tickwire::md {

namespace {

/// Steps that a search takes without a branch on what it finds: where a price falls is not
/// predictable, and a wrong guess costs more than the whole step. Left to a conditional, the compiler
/// makes a jump of it.
constexpr std::size_t if_true(bool condition, std::size_t steps) noexcept TICKWIRE_HOT {
  return (std::size_t{0} - static_cast<std::size_t>(condition)) & steps;
}

}  // namespace

SortedLevels::SortedLevels(Arena& arena, std::size_t max_levels) {
  // Two neighbours together always hold more than kMergeLevels, so no more than this many are in use.
  const std::size_t max_blocks = 2 * max_levels / (kMergeLevels + 1) + 3;
  pool_ = arena.allocate<Block>(max_blocks);
  free_ = arena.allocate<std::uint32_t>(max_blocks);
  entries_ = arena.allocate<Entry>(max_blocks);
  clear();
}

void SortedLevels::clear() noexcept {
  // The lowest numbers on top of the stack: a small book stays on few pages.
  free_count_ = free_.size();
  for (std::size_t i = 0; i < free_count_; ++i) free_[i] = static_cast<std::uint32_t>(free_count_ - 1 - i);
  entry_count_ = 0;
  levels_ = 0;
}

/// Where the key is or would be: in the last block whose worst level is not better, before the first
/// level not worse. Not in an empty side.
SortedLevels::Place SortedLevels::find(std::int64_t key) const noexcept {
  std::size_t entry = 0;
  for (std::size_t count = entry_count_; count > 1;) {
    const std::size_t step = count / 2;
    entry += if_true(entries_[entry + step].worst <= key, step);
    count -= step;
  }
  const Level* const levels = pool_[entries_[entry].block].levels;
  std::size_t at = 0;
  for (std::size_t count = entries_[entry].count; count > 1;) {
    const std::size_t step = count / 2;
    at += if_true(levels[at + step - 1].price < key, step);
    count -= step;
  }
  return {entry, at + if_true(levels[at].price < key, 1)};
}

bool SortedLevels::contains(std::int64_t key) const noexcept {
  if (empty()) return false;
  const Place place = find(key);
  const Entry& entry = entries_[place.entry];
  return place.at < entry.count && pool_[entry.block].levels[place.at].price == key;
}

std::int64_t SortedLevels::qty(std::int64_t key) const noexcept {
  if (empty()) return 0;
  const Place place = find(key);
  const Entry& entry = entries_[place.entry];
  if (place.at == entry.count) return 0;
  const Level& level = pool_[entry.block].levels[place.at];
  return level.price == key ? level.qty : 0;
}

bool SortedLevels::worse(std::int64_t key, Level& out) const noexcept {
  if (empty()) return false;
  const Place place = find(key);
  if (place.at == 0 && place.entry == 0) return false;
  const Entry& entry = entries_[place.at != 0 ? place.entry : place.entry - 1];
  out = pool_[entry.block].levels[(place.at != 0 ? place.at : entry.count) - 1];
  return true;
}

std::size_t SortedLevels::count_better(std::int64_t key) const noexcept {
  if (empty()) return 0;
  const Place place = find(key);
  const Entry& first = entries_[place.entry];
  // From the first level that is not worse, which may be the key's own.
  std::size_t count = first.count - place.at;
  if (place.at < first.count && pool_[first.block].levels[place.at].price == key) --count;
  for (std::size_t i = place.entry + 1; i < entry_count_; ++i) count += entries_[i].count;
  return count;
}

std::int64_t SortedLevels::exchange(std::int64_t key, std::int64_t qty) noexcept {
  if (empty()) [[unlikely]] {
    if (qty != 0) push_best({key, qty});
    return 0;
  }
  const Place place = find(key);
  const Entry& entry = entries_[place.entry];
  Level& level = pool_[entry.block].levels[std::min(place.at, kBlockLevels - 1)];
  if (place.at < entry.count && level.price == key) {
    const std::int64_t old = level.qty;
    if (qty != 0) {
      level.qty = qty;
    } else {
      erase(place);
    }
    return old;
  }
  if (qty != 0) insert(place, {key, qty});
  return 0;
}

void SortedLevels::push_best(Level level) noexcept {
  if (empty()) {
    Entry& entry = add_entry(0);
    entry.count = 0;
    insert({0, 0}, level);
  } else {
    insert({entry_count_ - 1, entries_[entry_count_ - 1].count}, level);
  }
}

void SortedLevels::pop_best() noexcept { erase({entry_count_ - 1, entries_[entry_count_ - 1].count - 1}); }
void SortedLevels::pop_worst() noexcept { erase({0, 0}); }

void SortedLevels::insert(Place place, Level level) noexcept {
  if (entries_[place.entry].count == kBlockLevels) [[unlikely]] {
    const bool at_best_end = place.at == kBlockLevels && place.entry + 1 == entry_count_;
    const bool at_deep_end = place.at == 0 && place.entry == 0;
    if (at_best_end || at_deep_end) {
      // What comes in order fills its blocks.
      if (at_best_end) ++place.entry;
      add_entry(place.entry).count = 0;
      place.at = 0;
    } else {
      Entry& upper = add_entry(place.entry + 1);
      Entry& lower = entries_[place.entry];
      constexpr std::size_t kHalf = kBlockLevels / 2;
      std::memcpy(pool_[upper.block].levels, pool_[lower.block].levels + kHalf,
                  (kBlockLevels - kHalf) * sizeof(Level));
      lower.count = kHalf;
      upper.count = kBlockLevels - kHalf;
      upper.worst = pool_[upper.block].levels[0].price;
      if (place.at > kHalf) {
        ++place.entry;
        place.at -= kHalf;
      }
    }
  }
  Entry& entry = entries_[place.entry];
  Level* const to = pool_[entry.block].levels + place.at;
  std::memmove(to + 1, to, (entry.count - place.at) * sizeof(Level));
  // A place found or made above is at most the count of a block that is not full.
  *to = level;  // NOLINT(clang-analyzer-security.ArrayBound)
  ++entry.count;
  ++levels_;
  if (place.at == 0) entry.worst = level.price;
}

void SortedLevels::erase(Place place) noexcept {
  Entry& entry = entries_[place.entry];
  Level* const levels = pool_[entry.block].levels;
  std::memmove(levels + place.at, levels + place.at + 1, (entry.count - place.at - 1) * sizeof(Level));
  --entry.count;
  --levels_;
  if (entry.count == 0) [[unlikely]]
    return remove_entry(place.entry);
  entry.worst = levels[0].price;
  if (entry.count < kMergeLevels) [[unlikely]] {
    const std::size_t count = entry.count;
    if (place.entry + 1 < entry_count_ && count + entries_[place.entry + 1].count <= kMergeLevels) {
      merge_with_next(place.entry);
    } else if (place.entry > 0 && count + entries_[place.entry - 1].count <= kMergeLevels) {
      merge_with_next(place.entry - 1);
    }
  }
}

void SortedLevels::merge_with_next(std::size_t at) noexcept {
  Entry& entry = entries_[at];
  const Entry& next = entries_[at + 1];
  std::memcpy(pool_[entry.block].levels + entry.count, pool_[next.block].levels, next.count * sizeof(Level));
  entry.count += next.count;
  remove_entry(at + 1);
}

SortedLevels::Entry& SortedLevels::add_entry(std::size_t at) noexcept {
  assert(free_count_ > 0);
  Entry* const place = entries_.data() + at;
  std::memmove(place + 1, place, (entry_count_ - at) * sizeof(Entry));
  ++entry_count_;
  place->block = free_[--free_count_];
  return *place;
}

void SortedLevels::remove_entry(std::size_t at) noexcept {
  Entry* const place = entries_.data() + at;
  free_[free_count_++] = place->block;
  --entry_count_;
  std::memmove(place, place + 1, (entry_count_ - at) * sizeof(Entry));
}

std::size_t SortedLevels::top(std::span<Level> out) const noexcept {
  const std::size_t wanted = std::min(out.size(), levels_);
  std::size_t written = 0;
  for (std::size_t i = entry_count_; written < wanted;) {
    const Entry& entry = entries_[--i];
    const Level* level = pool_[entry.block].levels + entry.count;
    const std::size_t end = std::min<std::size_t>(wanted, written + entry.count);
    while (written < end) out[written++] = *--level;
  }
  return wanted;
}

}  // namespace tickwire::md

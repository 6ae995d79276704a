#include "tickwire/md/order_books.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <string>

#include "tickwire/core/error.hpp"

namespace tickwire::md {

namespace {

/// Levels of a side that are looked through one after another, from the best on.
constexpr std::uint32_t kNear = 16;
/// Cells beyond a level an order, so that a book of few orders has its two arrays.
constexpr std::size_t kCellsABook = 64;

}  // namespace

OrderBooks::OrderBooks(Arena& arena, std::size_t books, std::size_t max_orders)
    : max_orders_(max_orders),
      runs_((max_orders + max_orders / 2) / kBucketSlots / kRunBuckets + 2),
      buckets_(runs_ * kRunBuckets) {
  constexpr std::size_t kMost = std::size_t{1} << 31U;
  if (max_orders == 0 || buckets_ * kBucketSlots >= kMost) {
    throw SetupError("max_orders", "an integer from 1 to 1,400,000,000", std::to_string(max_orders));
  }
  if (books == 0 || books >= kMost / 2) {
    throw SetupError("order books", "an integer from 1 to 1,000,000,000", std::to_string(books));
  }
  slots_ = arena.allocate<Slot>(buckets_ * kBucketSlots);
  passed_on_ = arena.allocate<std::uint32_t>(buckets_);
  books_ = arena.allocate<Book>(books);
  cells_ = arena.allocate<Level>(max_orders + kCellsABook * books);
  if (books <= kMostMarkedBooks) marks_ = arena.allocate<std::uint16_t>(kMarks);
}

void OrderBooks::clear() noexcept {
  std::fill(slots_.begin(), slots_.end(), Slot{});
  std::fill(passed_on_.begin(), passed_on_.end(), 0);
  std::fill(books_.begin(), books_.end(), Book{});
  std::fill(marks_.begin(), marks_.end(), 0);
  free_.fill(0);
  live_ = fresh_cells_ = used_cells_ = 0;
}

double OrderBooks::bytes_per_order() const noexcept {
  const std::size_t bytes = slots_.size_bytes() + passed_on_.size_bytes() + cells_.size_bytes();
  return static_cast<double>(bytes) / static_cast<double>(max_orders_);
}

// ---------------------------------------------------------------------------------------------------
// The table of orders

std::uint32_t OrderBooks::find_slow(std::uint64_t ref, std::size_t bucket) const noexcept {
  for (std::size_t probe = 0; probe < kMaxProbes; ++probe, bucket = next_bucket(bucket)) {
    const std::size_t begin = bucket * kBucketSlots;
    const Slot* const slots = &slots_[begin];
    // In the order of memory: where it would be found first it is not. Each order that is added comes by
    // here.
#pragma GCC unroll 8
    for (std::size_t i = 0; i < kBucketSlots; ++i) {
      if (slots[i].ref == ref && slots[i].place != 0) [[unlikely]]
        return static_cast<std::uint32_t>(begin + i);
    }
    if (passed_on_[bucket] == 0) break;
  }
  return kNoSlot;
}

/// An empty slot for a reference that is not in the table; kNoSlot where there is none in reach.
std::uint32_t OrderBooks::claim(std::uint64_t ref, std::size_t bucket) noexcept {
  const std::size_t first = slot_of(bucket, ref, 0);
  if (slots_[first].place == 0) [[likely]]
    return static_cast<std::uint32_t>(first);
  const std::size_t begin = bucket;
  for (std::size_t probe = 0; probe < kMaxProbes; ++probe, bucket = next_bucket(bucket)) {
    for (std::size_t number = 0; number < kBucketSlots; ++number) {
      const std::size_t at = slot_of(bucket, ref, number);
      if (slots_[at].place != 0) continue;
      for (std::size_t full = begin; full != bucket; full = next_bucket(full)) ++passed_on_[full];
      return static_cast<std::uint32_t>(at);
    }
  }
  return kNoSlot;
}

void OrderBooks::erase(std::uint32_t slot, std::size_t bucket) noexcept {
  slots_[slot].place = 0;
  --live_;
  if (!marks_.empty()) mark(slots_[slot].ref, -1);
  if (slot / kBucketSlots != bucket) [[unlikely]]
    erase_slow(bucket, slot / kBucketSlots);
}

void OrderBooks::mark(std::uint64_t ref, int change) noexcept {
  std::uint16_t& mark = marks_[ref % kMarks];
  if (mark != kFullMark) mark = static_cast<std::uint16_t>(mark + change);
}

void OrderBooks::erase_slow(std::size_t bucket, std::size_t at) noexcept {
  for (; bucket != at; bucket = next_bucket(bucket)) --passed_on_[bucket];
}

// ---------------------------------------------------------------------------------------------------
// Levels

/// The first level that is not worse than the key; size where all are.
std::uint32_t OrderBooks::position(const HalfBook& half, std::int64_t key) noexcept {
  const Level* const levels = half.levels;
  const std::uint32_t limit = half.size > kNear ? half.size - kNear : 0;
  std::uint32_t at = half.size;
  while (at > limit && levels[at - 1].price >= key) --at;
  if (at == limit && at != 0 && levels[at - 1].price >= key) [[unlikely]]
    return position_deep(half, key);
  return at;
}

std::uint32_t OrderBooks::position_deep(const HalfBook& half, std::int64_t key) noexcept {
  const Level* const first = half.levels;
  const Level* const found =
      std::lower_bound(first, first + (half.size - kNear), key,
                       [](const Level& level, std::int64_t wanted) noexcept { return level.price < wanted; });
  return static_cast<std::uint32_t>(found - first);
}

bool OrderBooks::add_qty(HalfBook& half, std::int64_t key, std::int64_t qty) noexcept {
  const std::uint32_t at = position(half, key);
  if (at < half.size && half.levels[at].price == key) {
    half.levels[at].qty += qty;
    return true;
  }
  if (half.size == half.capacity && !grow(half)) [[unlikely]]
    return false;
  Level* const to = half.levels + at;
  std::memmove(to + 1, to, (half.size - at) * sizeof(Level));
  *to = {key, qty};
  if (at == half.size) half.best = key;
  ++half.size;
  return true;
}

/// Of a level that an order stands in.
void OrderBooks::take_qty(HalfBook& half, std::int64_t key, std::int64_t qty) noexcept {
  Level* const level = half.levels + position(half, key);
  level->qty -= qty;
  if (level->qty != 0) return;
  --half.size;
  const auto behind = static_cast<std::size_t>(half.levels + half.size - level);
  if (behind != 0) {
    std::memmove(level, level + 1, behind * sizeof(Level));
  } else if (half.size != 0) {
    half.best = (level - 1)->price;
  }
}

bool OrderBooks::grow(HalfBook& half) noexcept {
  const std::size_t wanted = half.capacity == 0 ? kFirstLevels : 2 * std::size_t{half.capacity};
  const auto size = static_cast<std::size_t>(std::countr_zero(wanted));
  if (size >= kSizes) return false;
  std::size_t cell = 0;
  if (free_[size] != 0) {
    cell = free_[size] - 1;
    free_[size] = static_cast<std::uint32_t>(cells_[cell].qty);
  } else if (cells_.size() - fresh_cells_ >= wanted) {
    cell = fresh_cells_;
    fresh_cells_ += wanted;
  } else {
    return false;
  }
  Level* const levels = &cells_[cell];
  if (half.capacity != 0) {
    std::memcpy(levels, half.levels, half.size * sizeof(Level));
    const auto old = static_cast<std::size_t>(std::countr_zero(half.capacity));
    half.levels->qty = free_[old];
    free_[old] = static_cast<std::uint32_t>(half.levels - cells_.data()) + 1;
  }
  used_cells_ += wanted - half.capacity;
  half.levels = levels;
  half.capacity = static_cast<std::uint32_t>(wanted);
  return true;
}

std::size_t OrderBooks::top(std::uint32_t book, Side side, std::span<Level> out) const noexcept {
  const HalfBook& from = half(book, side);
  const std::size_t count = std::min<std::size_t>(out.size(), from.size);
  for (std::size_t i = 0; i < count; ++i) {
    const Level& level = from.levels[from.size - 1 - i];
    out[i] = {key_of(side, level.price), level.qty};
  }
  return count;
}

// ---------------------------------------------------------------------------------------------------
// Orders

OrderChange OrderBooks::add(std::uint32_t book, std::uint64_t ref, Side side, std::int64_t price,
                            std::uint32_t qty) noexcept {
  const auto refused = [&](OrderResult why) noexcept { return OrderChange{why, side, book, price}; };
  if (qty == 0) [[unlikely]]
    return refused(OrderResult::BadQty);
  const std::size_t bucket = bucket_of(ref);
  if (const std::uint32_t live = find_slow(ref, bucket); live != kNoSlot) [[unlikely]]
    return {OrderResult::DuplicateOrder, side, (slots_[live].place - 1) / 2, price};
  if (live_ == max_orders_) [[unlikely]]
    return refused(OrderResult::OrdersFull);
  // The level first: it leaves nothing behind where it fails.
  HalfBook& levels = books_[book].sides[static_cast<std::size_t>(side)];
  if (!add_qty(levels, key_of(side, price), qty)) [[unlikely]]
    return refused(OrderResult::LevelsFull);
  const std::uint32_t slot = claim(ref, bucket);
  if (slot == kNoSlot) [[unlikely]] {
    take_qty(levels, key_of(side, price), qty);
    return refused(OrderResult::OrdersFull);
  }
  slots_[slot] = {ref, price, qty, 2 * book + static_cast<std::uint32_t>(side) + 1};
  ++live_;
  if (!marks_.empty()) mark(ref, 1);
  return {OrderResult::Done, side, book, price};
}

OrderChange OrderBooks::take(std::uint32_t book, std::uint64_t ref, std::uint32_t qty, bool all) noexcept {
  const std::size_t bucket = bucket_of(ref);
  const std::uint32_t found = find(ref, bucket);
  if (found == kNoSlot) [[unlikely]]
    return {OrderResult::UnknownOrder, Side::Bid, kNoBook, 0};
  Slot& slot = slots_[found];
  const auto side = static_cast<Side>((slot.place - 1) % 2);
  OrderChange change{OrderResult::Done, side, (slot.place - 1) / 2, slot.price};
  if (change.book != book) [[unlikely]] {
    change.result = OrderResult::OtherBook;
    return change;
  }
  if (all) {
    qty = slot.qty;
  } else if (qty == 0 || qty > slot.qty) [[unlikely]] {
    change.result = OrderResult::BadQty;
    if (qty == 0) return change;
    qty = slot.qty;
  }
  take_qty(books_[book].sides[static_cast<std::size_t>(side)], key_of(side, slot.price), qty);
  slot.qty -= qty;
  if (slot.qty == 0) erase(found, bucket);
  return change;
}

OrderChange OrderBooks::reduce(std::uint32_t book, std::uint64_t ref, std::uint32_t qty) noexcept {
  return take(book, ref, qty, false);
}

OrderChange OrderBooks::remove(std::uint32_t book, std::uint64_t ref) noexcept {
  return take(book, ref, 0, true);
}

OrderChange OrderBooks::replace(std::uint32_t book, std::uint64_t ref, std::uint64_t new_ref,
                                std::int64_t price, std::uint32_t qty) noexcept {
  const OrderChange gone = take(book, ref, 0, true);
  if (gone.result != OrderResult::Done) [[unlikely]]
    return gone;
  return add(book, new_ref, gone.side, price, qty);
}

}  // namespace tickwire::md

#pragma once

/// The books of a venue that tells of every order: all its instruments at once, each with a view by price.
///
/// One thread owns it; all memory comes from the arena at setup, sized by `max_orders`. Books are numbered 0,
/// 1, 2 … by the caller.
///
/// What such a feed looks like: hundreds of millions of orders a day, of which one or two millions live at a
/// time; references that grow; most orders live for seconds, so what is deleted or executed now was mostly
/// added a moment ago. So the table of orders is hashed by runs of 512 references, 64 buckets of eight:
/// orders that came together lie together, new ones are written one behind the other, and an order's first
/// place is the slot of its reference's lowest three bits, where it is nearly always found by one look. One
/// whose place is taken goes next to it; a bucket that is full passes orders on to one of another run and
/// counts them, which lets a search end early and a removal leave no mark behind. It is slow on references
/// that all fall into a few buckets, and refuses what finds no place in 64 of them.
///
/// A side is one array of levels in order, the best last, since most changes fall close to it: a change near
/// the best price is a short look backwards and moves little. Arrays double where they are, in blocks out of
/// one pool, so that ten thousand quiet instruments take what they use and not what the busiest would. It is
/// slow where levels come and go a thousand levels deep: that moves 16 kB.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/prefetch.hpp"
#include "tickwire/md/event.hpp"

namespace tickwire::md {

enum class OrderResult : std::uint8_t {
  Done,
  UnknownOrder,    // No such order is live.
  DuplicateOrder,  // One with this reference is: in OrderChange::book.
  OtherBook,       // The order stands in another book than was said: in OrderChange::book.
  BadQty,          // None at all, or more than the order has left.
  OrdersFull,      // More orders live than the memory was sized for.
  LevelsFull,      // More levels than that.
};

/// What a call did; where it is not Done, nothing, except what replace() and reduce() say.
struct OrderChange {
  OrderResult result;
  Side side;           // Of the order, where there is one …
  std::uint32_t book;  // … and its book …
  std::int64_t price;  // … and its price.
};

class OrderBooks {
 public:
  /// Slots of the table for each order, and bytes of everything for each: half as many slots again, so that
  /// buckets seldom overflow, and a level for each order.
  OrderBooks(Arena& arena, std::size_t books, std::size_t max_orders);

  OrderChange add(std::uint32_t book, std::uint64_t ref, Side side, std::int64_t price,
                  std::uint32_t qty) noexcept TICKWIRE_HOT;
  /// Takes `qty` off an order: executed or cancelled in part. At nothing left it is gone. BadQty where it had
  /// less than that: it is gone all the same.
  OrderChange reduce(std::uint32_t book, std::uint64_t ref, std::uint32_t qty) noexcept TICKWIRE_HOT;
  OrderChange remove(std::uint32_t book, std::uint64_t ref) noexcept TICKWIRE_HOT;
  /// Removes the order and adds another one on its side, last in its queue. The old one is gone also where
  /// the new one could not be added.
  OrderChange replace(std::uint32_t book, std::uint64_t ref, std::uint64_t new_ref, std::int64_t price,
                      std::uint32_t qty) noexcept TICKWIRE_HOT;
  static constexpr std::uint32_t kNoBook = ~std::uint32_t{0};
  /// May an order of this reference be live? Where books are few a look at 128 kB, which is no for most
  /// orders of others; else always yes.
  [[nodiscard]] bool may_hold(std::uint64_t ref) const noexcept TICKWIRE_HOT {
    return marks_.empty() || marks_[ref % kMarks] != 0;
  }
  /// Where the order stands; kNoBook where there is none of this reference.
  [[nodiscard]] std::uint32_t book_of(std::uint64_t ref) const noexcept TICKWIRE_HOT {
    if (!may_hold(ref)) return kNoBook;
    const std::uint32_t slot = find(ref, bucket_of(ref));
    return slot == kNoSlot ? kNoBook : (slots_[slot].place - 1) / 2;
  }
  /// Forgets all orders of all books: a new session.
  void clear() noexcept;

  /// Writes the best levels, best first, and returns how many there were room and levels for.
  std::size_t top(std::uint32_t book, Side side, std::span<Level> out) const noexcept TICKWIRE_HOT;
  [[nodiscard]] std::size_t depth(std::uint32_t book, Side side) const noexcept TICKWIRE_HOT {
    return half(book, side).size;
  }
  /// Best bid at or above best ask. False while a side is empty.
  [[nodiscard]] bool crossed(std::uint32_t book) const noexcept TICKWIRE_HOT {
    const HalfBook& bids = half(book, Side::Bid);
    const HalfBook& asks = half(book, Side::Ask);
    return bids.size != 0 && asks.size != 0 && bids.best >= turned(asks.best);
  }

  /// For whoever knows what comes: brings close where an order of this reference is or would be, a book's
  /// head, and, once the head is there, the best levels of its sides.
  void prefetch_order(std::uint64_t ref) const noexcept TICKWIRE_HOT {
    const Slot* const pair = &slots_[home(ref) & ~std::size_t{1}];  // Where most that lost their place are.
    prefetch(pair);
    prefetch(&pair[1].place);
  }
  void prefetch_book(std::uint32_t book) const noexcept TICKWIRE_HOT { prefetch(&books_[book]); }
  void prefetch_levels(std::uint32_t book) const noexcept TICKWIRE_HOT {
    for (const HalfBook& half : books_[book].sides) {
      if (half.size == 0) continue;
      const Level* const best = half.levels + (half.size - 1);
      prefetch(best);
      prefetch(best - std::min<std::uint32_t>(half.size - 1, kNearLevels));
    }
  }

  [[nodiscard]] std::size_t orders() const noexcept TICKWIRE_HOT { return live_; }
  [[nodiscard]] std::size_t max_orders() const noexcept { return max_orders_; }
  /// Levels of memory in use by all books, with the room that their arrays keep.
  [[nodiscard]] std::size_t level_cells() const noexcept { return used_cells_; }
  /// What the table and the pool take for one of `max_orders`, and a book for itself, in bytes.
  [[nodiscard]] double bytes_per_order() const noexcept;
  [[nodiscard]] static constexpr std::size_t bytes_per_book() noexcept { return sizeof(Book); }

 private:
  static constexpr std::size_t kBucketSlots = 8;
  static constexpr std::size_t kRunBuckets = 64;  // That lie together and hold references that follow.
  static constexpr std::size_t kMaxProbes = 64;
  static constexpr std::uint32_t kNearLevels = 4;  // From the best one back to the cache line before its.
  static constexpr std::size_t kFirstLevels = 8;   // Of a side's array, in levels.
  static constexpr std::size_t kSizes = 28;
  static constexpr std::uint32_t kNoSlot = ~std::uint32_t{0};
  static constexpr std::size_t kMostMarkedBooks = 1024;  // With more most orders are ours.
  static constexpr std::size_t kMarks = 65'536;
  static constexpr std::uint16_t kFullMark = 0xFFFF;  // Stays.

  struct Slot {
    std::uint64_t ref;
    std::int64_t price;
    std::uint32_t qty;
    std::uint32_t place;  // Book and side, plus one: 0 is an empty slot.
  };
  static_assert(sizeof(Slot) == 24, "a bucket is three cache lines");

  /// Prices are turned so that a larger one is better: an ask's is negated.
  struct HalfBook {
    Level* levels;
    std::int64_t best;  // Of the last level: the two sides are compared without going there.
    std::uint32_t size;
    std::uint32_t capacity;
  };
  struct alignas(64) Book {
    std::array<HalfBook, 2> sides;
  };

  [[nodiscard]] static constexpr std::int64_t turned(std::int64_t value) noexcept TICKWIRE_HOT {
    return static_cast<std::int64_t>(0 - static_cast<std::uint64_t>(value));
  }
  [[nodiscard]] static std::int64_t key_of(Side side, std::int64_t price) noexcept TICKWIRE_HOT {
    return side == Side::Bid ? price : turned(price);
  }
  [[nodiscard]] const HalfBook& half(std::uint32_t book, Side side) const noexcept TICKWIRE_HOT {
    return books_[book].sides[static_cast<std::size_t>(side)];
  }
  [[nodiscard]] std::size_t bucket_of(std::uint64_t ref) const noexcept TICKWIRE_HOT {
    const std::uint64_t block = ref / kBucketSlots;
    const std::uint64_t hash = (block / kRunBuckets) * 0x9E3779B97F4A7C15U;
    __extension__ using Wide = unsigned __int128;
    const auto run = static_cast<std::size_t>((static_cast<Wide>(hash) * runs_) >> 64U);
    // Each run begins elsewhere in its buckets, for references that grow by more than one run.
    return run * kRunBuckets + (block + (hash >> 20U)) % kRunBuckets;
  }
  [[nodiscard]] std::size_t home(std::uint64_t ref) const noexcept TICKWIRE_HOT {
    return slot_of(bucket_of(ref), ref, 0);
  }
  /// Not the neighbour, which is full at the same time.
  [[nodiscard]] std::size_t next_bucket(std::size_t bucket) const noexcept TICKWIRE_HOT {
    const std::size_t next = bucket + kRunBuckets + 1;
    return next < buckets_ ? next : next - buckets_;
  }

  /// The places of a reference in a bucket, from the one that is tried first on: `number` counts to 8.
  [[nodiscard]] static std::size_t slot_of(std::size_t bucket, std::uint64_t ref, std::size_t number) noexcept
      TICKWIRE_HOT {
    return bucket * kBucketSlots + ((ref % kBucketSlots) ^ number);
  }
  // What follows takes a reference and its bucket_of().
  [[nodiscard]] std::uint32_t find(std::uint64_t ref, std::size_t bucket) const noexcept TICKWIRE_HOT {
    const std::size_t first = slot_of(bucket, ref, 0);
    if (slots_[first].ref == ref && slots_[first].place != 0) [[likely]]
      return static_cast<std::uint32_t>(first);
    return find_slow(ref, bucket);
  }
  [[gnu::noinline]] void mark(std::uint64_t ref, int change) noexcept TICKWIRE_HOT;
  [[nodiscard]] std::uint32_t find_slow(std::uint64_t ref, std::size_t bucket) const noexcept TICKWIRE_HOT;
  [[nodiscard]] std::uint32_t claim(std::uint64_t ref, std::size_t bucket) noexcept TICKWIRE_HOT;
  [[gnu::always_inline]] inline void erase(std::uint32_t slot, std::size_t bucket) noexcept TICKWIRE_HOT;
  void erase_slow(std::size_t bucket, std::size_t at) noexcept TICKWIRE_HOT;

  [[nodiscard]] static std::uint32_t position(const HalfBook& half, std::int64_t key) noexcept TICKWIRE_HOT;
  [[nodiscard]] static std::uint32_t position_deep(const HalfBook& half, std::int64_t key) noexcept
      TICKWIRE_HOT;
  [[nodiscard]] bool add_qty(HalfBook& half, std::int64_t key, std::int64_t qty) noexcept TICKWIRE_HOT;
  static void take_qty(HalfBook& half, std::int64_t key, std::int64_t qty) noexcept TICKWIRE_HOT;
  [[nodiscard]] bool grow(HalfBook& half) noexcept TICKWIRE_HOT;
  OrderChange take(std::uint32_t book, std::uint64_t ref, std::uint32_t qty, bool all) noexcept TICKWIRE_HOT;

  std::size_t max_orders_;
  std::size_t runs_;
  std::size_t buckets_;
  std::span<Slot> slots_;
  std::span<std::uint32_t> passed_on_;  // By bucket: orders that found no place in it.
  std::span<std::uint16_t> marks_;      // Live orders by the low bits of their references; see may_hold().
  std::span<Book> books_;
  std::size_t live_ = 0;
  std::span<Level> cells_;
  std::size_t fresh_cells_ = 0;  // The first that was never in use.
  std::size_t used_cells_ = 0;
  std::array<std::uint32_t, kSizes> free_{};  // By size: the first free array, plus one; each names the next.
};

}  // namespace tickwire::md

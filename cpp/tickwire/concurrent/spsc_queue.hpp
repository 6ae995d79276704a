#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <stdexcept>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"

namespace tickwire::concurrent {

/// Bounded single-producer single-consumer queue of fixed-size slots whose size is known at setup.
/// Wait-free; allocates nothing after construction.
///
/// Both sides work in place: the producer writes a row into the slot it claimed, the consumer reads
/// it there (Python as one array over the slots) and gives slots back in batches. So a row is
/// written once and never copied, which a push and pop of values could not give.
///
/// The producer thread owns the tail and `head_cache_`, the consumer thread owns the head. Each reads
/// the other's index but never writes it, and an index only grows (modulo 2^64, which is a multiple
/// of the capacity), so a stale cached head is safe: it shows the queue fuller, never corrupt.
///
/// Indices and slots lie in one block: of an arena, or of memory that two processes map. There each
/// process has a SpscQueue of its own over the block, and what is not in the block either side can do
/// without: a new consumer or producer goes on where the last one published or released, whatever
/// happened to it. The replacement must begin after the other's end.
class SpscQueue {
 public:
  /// Bytes of the block. Slots are rounded up to whole cache lines, so that writing one does not disturb
  /// the reading of its neighbour; the capacity is rounded up to a power of two.
  static constexpr std::size_t block_bytes(std::size_t slot_bytes, std::size_t capacity) {
    if (slot_bytes == 0 || capacity == 0) throw std::logic_error("SpscQueue: a size is 0");
    const std::size_t slots = std::bit_ceil(capacity);
    if (whole_lines(slot_bytes) > (SIZE_MAX - sizeof(Indices)) / slots) throw std::bad_array_new_length();
    return sizeof(Indices) + whole_lines(slot_bytes) * slots;
  }

  /// Setup. `first_index` is 0 except in tests that start near the wrap of the index.
  SpscQueue(Arena& arena, std::size_t slot_bytes, std::size_t capacity, std::uint64_t first_index = 0)
      : SpscQueue(arena.allocate<std::byte>(block_bytes(slot_bytes, capacity), kFalseSharingBytes),
                  slot_bytes, capacity) {
    // Relaxed: no other thread has the queue yet.
    indices_->tail.store(first_index, std::memory_order_relaxed);
    indices_->head.store(first_index, std::memory_order_relaxed);
    head_cache_ = first_index;
  }

  /// Setup: over a block of block_bytes(), which starts on a multiple of kFalseSharingBytes. Zeroed memory
  /// is an empty queue; any other is one that is in use.
  SpscQueue(std::span<std::byte> block, std::size_t slot_bytes, std::size_t capacity)
      : indices_(std::launder(reinterpret_cast<Indices*>(block.data()))),
        base_(block.data() + sizeof(Indices)),
        slot_bytes_(whole_lines(slot_bytes)),
        capacity_(std::bit_ceil(capacity)) {
    if (block.size() < block_bytes(slot_bytes, capacity) ||
        reinterpret_cast<std::uintptr_t>(block.data()) % kFalseSharingBytes != 0) {
      throw std::logic_error("SpscQueue: a block that is too small or not aligned");
    }
    // Pairs with the release in release(), as in try_claim().
    head_cache_ = indices_->head.load(std::memory_order_acquire);
  }

  SpscQueue(const SpscQueue&) = delete;
  SpscQueue& operator=(const SpscQueue&) = delete;

  // Producer thread only.

  /// The next slot to fill, the first of `count` that may be, or nullptr when there are not so many; the
  /// caller counts the drop. Claiming again without publish() gives the same slot.
  [[nodiscard]] std::byte* try_claim(std::size_t count = 1) noexcept TICKWIRE_HOT {
    // Relaxed: only this thread writes the tail.
    const std::uint64_t tail = indices_->tail.load(std::memory_order_relaxed);
    // The cached head may be from before the time of a producer that we replaced, and the difference then
    // more than the capacity.
    if (tail - head_cache_ + count > capacity_) [[unlikely]] {
      // Pairs with the release in release(): the reads of that slot are over before we reuse it.
      head_cache_ = indices_->head.load(std::memory_order_acquire);
      if (tail - head_cache_ + count > capacity_) return nullptr;
    }
    return at(tail);
  }

  /// The i-th of the claimed slots. They need not lie one after another in memory.
  [[nodiscard]] std::byte* claimed(std::size_t i) const noexcept TICKWIRE_HOT {
    // Relaxed: only this thread writes the tail.
    return at(indices_->tail.load(std::memory_order_relaxed) + i);
  }

  /// Hands the first `count` claimed slots to the consumer: all at once, also for who looks after our end.
  void publish(std::size_t count = 1) noexcept TICKWIRE_HOT {
    // Relaxed load: only this thread writes the tail. The release pairs with the acquire in readable():
    // who sees this tail sees the slots' bytes.
    indices_->tail.store(indices_->tail.load(std::memory_order_relaxed) + count, std::memory_order_release);
  }

  /// Slots that can be claimed now, freshly read: for a producer that waits instead of dropping.
  std::size_t free_slots() noexcept TICKWIRE_HOT {
    // Pairs with the release in release(), as in try_claim().
    head_cache_ = indices_->head.load(std::memory_order_acquire);
    // Relaxed: only this thread writes the tail.
    return capacity_ - static_cast<std::size_t>(indices_->tail.load(std::memory_order_relaxed) - head_cache_);
  }

  // Consumer thread only.

  /// Slots that wait to be read, freshly read: a policy that drops or conflates needs them all.
  std::size_t readable() const noexcept TICKWIRE_HOT {
    // Pairs with the release in publish(): the bytes of all slots up to this tail are visible.
    // Relaxed: only this thread writes the head.
    return static_cast<std::size_t>(indices_->tail.load(std::memory_order_acquire) -
                                    indices_->head.load(std::memory_order_relaxed));
  }

  /// The i-th waiting slot, i < readable().
  std::byte* slot(std::size_t i) const noexcept TICKWIRE_HOT {
    // Relaxed: only this thread writes the head.
    return at(indices_->head.load(std::memory_order_relaxed) + i);
  }

  /// How many of the first n waiting slots lie one after another in memory, starting at slot(0).
  std::size_t contiguous(std::size_t n) const noexcept TICKWIRE_HOT {
    // Relaxed: only this thread writes the head.
    const std::size_t to_end = capacity_ - (indices_->head.load(std::memory_order_relaxed) & (capacity_ - 1));
    return std::min(n, to_end);
  }

  /// Gives the first n waiting slots back, n <= readable().
  void release(std::size_t n) noexcept TICKWIRE_HOT {
    // Relaxed load: only this thread writes the head. The release pairs with the acquire in
    // try_claim() and free_slots(): our reads are over before the producer writes there again.
    indices_->head.store(indices_->head.load(std::memory_order_relaxed) + n, std::memory_order_release);
  }

  // Any thread.

  /// True when the consumer has given back everything that was published so far; what it did before
  /// is then visible. Lasting only where the producer has stopped.
  bool drained() const noexcept {
    // The acquire of the head pairs with the release in release(), that of the tail with publish(): the
    // consumer's own publications precede its release.
    const std::uint64_t head = indices_->head.load(std::memory_order_acquire);
    return head == indices_->tail.load(std::memory_order_acquire);
  }

  /// How many slots were ever published, and given back. Whoever takes over from an end that died reads
  /// both to learn how far it came.
  std::uint64_t published() const noexcept {
    // Pairs with the release in publish().
    return indices_->tail.load(std::memory_order_acquire);
  }
  std::uint64_t released() const noexcept {
    // Pairs with the release in release(): what the consumer did before is visible.
    return indices_->head.load(std::memory_order_acquire);
  }
  /// The slot published last, or `back` before it: they hold until their like is claimed, consumed or not.
  std::byte* newest(std::size_t back = 0) const noexcept { return at(published() - 1 - back); }

  /// The distance between two slots.
  std::size_t slot_bytes() const noexcept { return slot_bytes_; }
  std::size_t capacity() const noexcept { return capacity_; }
  std::byte* base() const noexcept { return base_; }

 private:
  struct Indices {
    alignas(kFalseSharingBytes) std::atomic<std::uint64_t> tail;
    alignas(kFalseSharingBytes) std::atomic<std::uint64_t> head;
  };
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "a lock would not hold between processes");

  static constexpr std::size_t whole_lines(std::size_t slot_bytes) noexcept {
    return (slot_bytes + kCacheLineBytes - 1) / kCacheLineBytes * kCacheLineBytes;
  }
  std::byte* at(std::uint64_t index) const noexcept TICKWIRE_HOT {
    return base_ + (index & (capacity_ - 1)) * slot_bytes_;
  }

  // Read by both sides, written by none.
  Indices* indices_;
  std::byte* base_;
  std::size_t slot_bytes_;
  std::size_t capacity_;

  alignas(kFalseSharingBytes) std::uint64_t head_cache_;  // The producer's.
};

}  // namespace tickwire::concurrent

#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
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
/// The producer thread owns `tail_` and `head_cache_`, the consumer thread owns `head_`. Each reads
/// the other's index but never writes it, and an index only grows (modulo 2^64, which is a multiple
/// of the capacity), so a stale cached head is safe: it shows the queue fuller, never corrupt.
class SpscQueue {
 public:
  /// Setup. Slots are rounded up to whole cache lines, so that writing one does not disturb the
  /// reading of its neighbour; the capacity is rounded up to a power of two. `first_index` is 0
  /// except in tests that start near the wrap of the index.
  SpscQueue(Arena& arena, std::size_t slot_bytes, std::size_t capacity, std::uint64_t first_index = 0)
      : slot_bytes_((slot_bytes + kCacheLineBytes - 1) / kCacheLineBytes * kCacheLineBytes),
        capacity_(std::bit_ceil(capacity)),
        tail_(first_index),
        head_cache_(first_index),
        head_(first_index) {
    if (slot_bytes == 0 || capacity == 0) throw std::logic_error("SpscQueue: a size is 0");
    if (slot_bytes_ > SIZE_MAX / capacity_) throw std::bad_array_new_length();
    base_ = arena.allocate<std::byte>(slot_bytes_ * capacity_, kFalseSharingBytes).data();
  }

  SpscQueue(const SpscQueue&) = delete;
  SpscQueue& operator=(const SpscQueue&) = delete;

  // Producer thread only.

  /// The next slot to fill, or nullptr when full; the caller counts the drop. Claiming again without
  /// publish() gives the same slot.
  [[nodiscard]] std::byte* try_claim() noexcept TICKWIRE_HOT {
    // Relaxed: only this thread writes tail_.
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
    if (tail - head_cache_ == capacity_) [[unlikely]] {
      // Pairs with the release in release(): the reads of that slot are over before we reuse it.
      head_cache_ = head_.load(std::memory_order_acquire);
      if (tail - head_cache_ == capacity_) return nullptr;
    }
    return at(tail);
  }

  /// Hands the claimed slot to the consumer.
  void publish() noexcept TICKWIRE_HOT {
    // Relaxed load: only this thread writes tail_. The release pairs with the acquire in readable():
    // who sees this tail sees the slot's bytes.
    tail_.store(tail_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  }

  /// Slots that can be claimed now, freshly read: for a producer that waits instead of dropping.
  std::size_t free_slots() noexcept TICKWIRE_HOT {
    // Pairs with the release in release(), as in try_claim().
    head_cache_ = head_.load(std::memory_order_acquire);
    // Relaxed: only this thread writes tail_.
    return capacity_ - static_cast<std::size_t>(tail_.load(std::memory_order_relaxed) - head_cache_);
  }

  // Consumer thread only.

  /// Slots that wait to be read, freshly read: a policy that drops or conflates needs them all.
  std::size_t readable() const noexcept TICKWIRE_HOT {
    // Pairs with the release in publish(): the bytes of all slots up to this tail are visible.
    // Relaxed: only this thread writes head_.
    return static_cast<std::size_t>(tail_.load(std::memory_order_acquire) -
                                    head_.load(std::memory_order_relaxed));
  }

  /// The i-th waiting slot, i < readable().
  std::byte* slot(std::size_t i) const noexcept TICKWIRE_HOT {
    // Relaxed: only this thread writes head_.
    return at(head_.load(std::memory_order_relaxed) + i);
  }

  /// How many of the first n waiting slots lie one after another in memory, starting at slot(0).
  std::size_t contiguous(std::size_t n) const noexcept TICKWIRE_HOT {
    // Relaxed: only this thread writes head_.
    const std::size_t to_end = capacity_ - (head_.load(std::memory_order_relaxed) & (capacity_ - 1));
    return std::min(n, to_end);
  }

  /// Gives the first n waiting slots back, n <= readable().
  void release(std::size_t n) noexcept TICKWIRE_HOT {
    // Relaxed load: only this thread writes head_. The release pairs with the acquire in
    // try_claim() and free_slots(): our reads are over before the producer writes there again.
    head_.store(head_.load(std::memory_order_relaxed) + n, std::memory_order_release);
  }

  // Any thread.

  /// True when the consumer has given back everything that was published so far; what it did before
  /// is then visible. Lasting only where the producer has stopped.
  bool drained() const noexcept {
    // The acquire of head_ pairs with the release in release(), that of tail_ with publish(): the
    // consumer's own publications precede its release.
    const std::uint64_t head = head_.load(std::memory_order_acquire);
    return head == tail_.load(std::memory_order_acquire);
  }

  /// The distance between two slots.
  std::size_t slot_bytes() const noexcept { return slot_bytes_; }
  std::size_t capacity() const noexcept { return capacity_; }
  std::byte* base() const noexcept { return base_; }

 private:
  std::byte* at(std::uint64_t index) const noexcept TICKWIRE_HOT {
    return base_ + (index & (capacity_ - 1)) * slot_bytes_;
  }

  std::byte* base_ = nullptr;
  std::size_t slot_bytes_;
  std::size_t capacity_;

  alignas(kFalseSharingBytes) std::atomic<std::uint64_t> tail_;
  std::uint64_t head_cache_;

  alignas(kFalseSharingBytes) std::atomic<std::uint64_t> head_;
};

}  // namespace tickwire::concurrent

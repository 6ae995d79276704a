#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"

namespace tickwire::concurrent {

/// Bounded single-producer single-consumer ring of records of any length. Wait-free; allocates
/// nothing after construction. For venue messages on their way to the recorder and snapshots on
/// their way to an ingest agent, where slots of the largest size would waste most of the memory.
///
/// A record lies in one piece: an eight-byte head with its length, then its bytes, padded to eight.
/// One that would cross the end of the memory starts at its beginning, behind a filler head that
/// tells the consumer to skip. Therefore the longest record is half the ring: that much always fits
/// once the consumer has caught up, wherever the index stands.
///
/// The indices count bytes and follow SpscQueue's rules.
class SpscByteRing {
 public:
  /// Setup. The size is rounded up to a power of two, at least 64. `first_index`, a multiple of 8,
  /// is 0 except in tests that start near the wrap of the index.
  SpscByteRing(Arena& arena, std::size_t bytes, std::uint64_t first_index = 0)
      : capacity_(std::bit_ceil(bytes < 64 ? std::size_t{64} : bytes)),
        tail_(first_index),
        head_cache_(first_index),
        head_(first_index),
        tail_cache_(first_index) {
    if (first_index % kHeadBytes != 0)
      throw std::logic_error("SpscByteRing: first_index is not a multiple of 8");
    base_ = arena.allocate<std::byte>(capacity_, kFalseSharingBytes).data();
  }

  SpscByteRing(const SpscByteRing&) = delete;
  SpscByteRing& operator=(const SpscByteRing&) = delete;

  /// The longest record that the ring promises to take when it is empty.
  std::size_t max_record_bytes() const noexcept { return capacity_ / 2 - kHeadBytes; }
  std::size_t capacity() const noexcept { return capacity_; }

  // Producer thread only.

  /// Room for n bytes, aligned to 8; nullptr when there is none, and always when n is above
  /// max_record_bytes(). A second claim without publish() replaces the first.
  [[nodiscard]] std::byte* try_claim(std::size_t n) noexcept TICKWIRE_HOT {
    if (n > max_record_bytes()) [[unlikely]]
      return nullptr;
    const std::uint64_t needed = kHeadBytes + round_up(n);
    // Relaxed: only this thread writes tail_.
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
    const std::uint64_t to_end = capacity_ - (tail & (capacity_ - 1));
    const std::uint64_t filler = needed > to_end ? to_end : 0;
    if (tail + filler + needed - head_cache_ > capacity_) [[unlikely]] {
      // Pairs with the release in pop(): the reads of those bytes are over before we reuse them.
      head_cache_ = head_.load(std::memory_order_acquire);
      if (tail + filler + needed - head_cache_ > capacity_) return nullptr;
    }
    // to_end is a multiple of 8 and above 0, so a filler head always fits.
    if (filler != 0) write_head(tail, kFillerMark);
    write_head(tail + filler, n);
    claimed_ = filler + needed;
    return at(tail + filler) + kHeadBytes;
  }

  /// Hands the claimed record to the consumer, its filler with it.
  void publish() noexcept TICKWIRE_HOT {
    // Relaxed load: only this thread writes tail_. The release pairs with the acquire in front():
    // who sees this tail sees the record's head and bytes.
    tail_.store(tail_.load(std::memory_order_relaxed) + claimed_, std::memory_order_release);
    claimed_ = 0;
  }

  // Consumer thread only.

  /// The oldest record, valid until pop(). data() is nullptr when there is none; a record of length 0
  /// has a non-null data().
  std::span<const std::byte> front() noexcept TICKWIRE_HOT {
    // Relaxed: only this thread writes head_.
    std::uint64_t head = head_.load(std::memory_order_relaxed);
    if (head == tail_cache_) {
      // Pairs with the release in publish().
      tail_cache_ = tail_.load(std::memory_order_acquire);
      if (head == tail_cache_) return {};
    }
    std::uint64_t length = read_head(head);
    if (length == kFillerMark) {
      // A filler is published together with the record behind it, which starts the memory anew.
      head += capacity_ - (head & (capacity_ - 1));
      length = read_head(head);
    }
    next_ = head + kHeadBytes + round_up(static_cast<std::size_t>(length));
    return {at(head) + kHeadBytes, static_cast<std::size_t>(length)};
  }

  /// Gives the record that front() returned back. Once for each front() that was not empty.
  void pop() noexcept TICKWIRE_HOT {
    // Pairs with the acquire in try_claim(): our reads are over before the producer writes there.
    head_.store(next_, std::memory_order_release);
  }

 private:
  static constexpr std::size_t kHeadBytes = 8;
  static constexpr std::uint64_t kFillerMark = UINT64_MAX;

  static constexpr std::size_t round_up(std::size_t n) noexcept TICKWIRE_HOT {
    return (n + (kHeadBytes - 1)) & ~(kHeadBytes - 1);
  }
  std::byte* at(std::uint64_t index) const noexcept TICKWIRE_HOT { return base_ + (index & (capacity_ - 1)); }
  void write_head(std::uint64_t index, std::uint64_t length) noexcept TICKWIRE_HOT {
    std::memcpy(at(index), &length, sizeof length);
  }
  std::uint64_t read_head(std::uint64_t index) const noexcept TICKWIRE_HOT {
    std::uint64_t length;
    std::memcpy(&length, at(index), sizeof length);
    return length;
  }

  std::byte* base_ = nullptr;
  std::size_t capacity_;

  alignas(kFalseSharingBytes) std::atomic<std::uint64_t> tail_;
  std::uint64_t head_cache_;
  std::uint64_t claimed_ = 0;

  alignas(kFalseSharingBytes) std::atomic<std::uint64_t> head_;
  std::uint64_t tail_cache_;
  std::uint64_t next_ = 0;
};

}  // namespace tickwire::concurrent

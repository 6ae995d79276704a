#pragma once

#include <atomic>
#include <type_traits>

#include "tickwire/core/hot.hpp"

namespace tickwire::concurrent {

/// One number with one writer and any number of readers, also over mapped memory.
///
/// The writer adds with a load and a store, no locked instruction: nobody else writes. A reader sees
/// some recent value, never a torn one. Cells say nothing about each other; where one announces
/// bytes written before it, that one uses publish() and observe().
template <typename T>
class Cell {
  static_assert(std::is_arithmetic_v<T> && std::atomic<T>::is_always_lock_free);

 public:
  /// Any thread. Relaxed: the value stands for itself.
  T load() const noexcept TICKWIRE_HOT { return value_.load(std::memory_order_relaxed); }

  /// The writer only. Relaxed: the value stands for itself.
  void store(T value) noexcept TICKWIRE_HOT { value_.store(value, std::memory_order_relaxed); }

  /// The writer only. Relaxed: only this thread writes, so nothing comes between load and store.
  void add(T amount) noexcept TICKWIRE_HOT {
    value_.store(static_cast<T>(value_.load(std::memory_order_relaxed) + amount), std::memory_order_relaxed);
  }

  /// The writer only. Keeps the largest value seen. Relaxed as in add().
  void raise_to(T value) noexcept TICKWIRE_HOT {
    if (value > value_.load(std::memory_order_relaxed)) value_.store(value, std::memory_order_relaxed);
  }

  /// The writer only. Pairs with the acquire in observe(): who observes this value sees every byte
  /// that was written before it.
  void publish(T value) noexcept TICKWIRE_HOT { value_.store(value, std::memory_order_release); }

  /// Any thread. Pairs with the release in publish().
  T observe() const noexcept TICKWIRE_HOT { return value_.load(std::memory_order_acquire); }

 private:
  std::atomic<T> value_{};
};

static_assert(sizeof(Cell<long>) == sizeof(long), "laid over the fields of a mapped file");

/// Keeps the order of two stores of one thread for whoever looks at memory after the thread was killed.
/// A kill interrupts a thread between two instructions, as a signal does, so what the compiler keeps in
/// order is seen in order by whoever waited for the end: nothing is left for the processor to do.
inline void keep_order() noexcept TICKWIRE_HOT { std::atomic_signal_fence(std::memory_order_seq_cst); }

}  // namespace tickwire::concurrent

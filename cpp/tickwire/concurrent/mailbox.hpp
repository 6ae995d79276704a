#pragma once

#include <atomic>
#include <memory>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"

namespace tickwire::concurrent {

/// Passes one object at a time from a control thread to a data-plane thread, and takes another back: how
/// something that was made ready aside replaces what is in use, between two turns. The data-plane side
/// neither allocates nor frees, and looks at one cache line that is written only when something comes.
///
///     control thread                                   data-plane thread
///     box.offer(std::move(newer));                     if (T* newer = box.take()) {
///     while (!(older = box.collect())) sleep;            box.give_back(std::exchange(current, newer));
///                                                      }
template <typename T>
class Mailbox {
 public:
  Mailbox() = default;
  ~Mailbox() {
    // Relaxed: both threads have ended their dealings.
    delete offered_.load(std::memory_order_relaxed);
    delete returned_.load(std::memory_order_relaxed);
  }
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  /// Control thread. The last object must have been taken and its predecessor collected.
  void offer(std::unique_ptr<T> object) noexcept {
    // Pairs with the acquire in take(): the object is whole when it is seen.
    offered_.store(object.release(), std::memory_order_release);
  }
  /// Control thread: takes an offer back. Null when the other side was faster.
  [[nodiscard]] std::unique_ptr<T> withdraw() noexcept {
    // Relaxed: we wrote what we get back.
    return std::unique_ptr<T>(offered_.exchange(nullptr, std::memory_order_relaxed));
  }
  /// Control thread: what was given back; null if nothing was.
  [[nodiscard]] std::unique_ptr<T> collect() noexcept {
    // Pairs with the release in give_back(): the other side has finished with it.
    return std::unique_ptr<T>(returned_.exchange(nullptr, std::memory_order_acquire));
  }

  /// Data-plane thread: the newer object, which it now owns, or null.
  [[nodiscard]] T* take() noexcept TICKWIRE_HOT {
    // Relaxed: only a hint, and false nearly always.
    if (offered_.load(std::memory_order_relaxed) == nullptr) [[likely]]
      return nullptr;
    // Pairs with the release in offer().
    return offered_.exchange(nullptr, std::memory_order_acquire);
  }
  /// Data-plane thread, once for each object taken: what it used before.
  void give_back(T* object) noexcept TICKWIRE_HOT {
    // Pairs with the acquire in collect().
    returned_.store(object, std::memory_order_release);
  }

 private:
  alignas(kFalseSharingBytes) std::atomic<T*> offered_{nullptr};
  std::atomic<T*> returned_{nullptr};
};

}  // namespace tickwire::concurrent

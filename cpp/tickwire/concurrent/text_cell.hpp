#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "tickwire/core/hot.hpp"

namespace tickwire::concurrent {

/// A text of at most kBytes that is written again and again, with one writer and any number of readers, also
/// over mapped memory. A reader gets a text whole or none; the writer never waits and makes no locked
/// instruction. Some thirty stores a write: for what is rare.
template <std::size_t kBytes>
class TextCell {
  static_assert(kBytes % sizeof(std::uint64_t) == 0);

 public:
  /// The writer only. What is longer is cut.
  void store(std::string_view text) noexcept TICKWIRE_HOT {
    // Relaxed: only this thread writes.
    const std::uint64_t turn = turn_.load(std::memory_order_relaxed);
    turn_.store(turn + 1, std::memory_order_relaxed);
    const std::size_t bytes = std::min(text.size(), kBytes);
    for (std::size_t i = 0; i * sizeof(std::uint64_t) < bytes; ++i) {
      std::uint64_t word = 0;
      const std::size_t at = i * sizeof word;
      std::memcpy(&word, text.data() + at, std::min(sizeof word, bytes - at));
      // Pairs with the acquire in load(): who reads this word sees the odd turn before it.
      words_[i].store(word, std::memory_order_release);
    }
    bytes_.store(bytes, std::memory_order_release);  // As the words.
    // Pairs with the first acquire in load(): who sees this turn sees every word of it.
    turn_.store(turn + 2, std::memory_order_release);
  }

  /// Any thread. Nothing while a text is being written, and before the first.
  [[nodiscard]] std::optional<std::string> load() const {
    // Pairs with the last release in store().
    const std::uint64_t turn = turn_.load(std::memory_order_acquire);
    if (turn == 0 || turn % 2 != 0) return std::nullopt;
    std::array<std::uint64_t, kBytes / sizeof(std::uint64_t)> words;
    // Pair with the releases in store(): a word of a later text is seen with that text's turn.
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = words_[i].load(std::memory_order_acquire);
    const std::uint64_t bytes = bytes_.load(std::memory_order_acquire);
    // Relaxed: the acquires above keep it behind them.
    if (turn_.load(std::memory_order_relaxed) != turn) return std::nullopt;
    std::string text(std::min<std::uint64_t>(bytes, kBytes), '\0');
    std::memcpy(text.data(), words.data(), text.size());
    return text;
  }

 private:
  std::atomic<std::uint64_t> turn_{};  // Odd while a text is being written.
  std::atomic<std::uint64_t> bytes_{};
  std::array<std::atomic<std::uint64_t>, kBytes / sizeof(std::uint64_t)> words_{};
};

}  // namespace tickwire::concurrent

#pragma once

/// Whether books that stand in a capture by themselves, each as a REST reply does, are a stream of partial
/// books. On spot the two say the same: `@depth20` without its wrapper is `{"lastUpdateId":…,"bids":…,
/// "asks":…}`, and nothing in it names the stream.
///
/// The rule: three such books of one size that a stream can have (5, 10 or 20 levels on the longer side),
/// each within two seconds of the one before, are a stream of that size, and so is every further book of that
/// size. A stream sends one each second or more often, and nobody asks a venue so often for so little. A book
/// of another size is a snapshot that somebody asked for.
///
/// It is fed what a replay reads, and before that the capture's first lines.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/md/event.hpp"

namespace tickwire::engine {

class BareBooks {
 public:
  static constexpr std::uint32_t kRun = 3;
  static constexpr TsNs kApartNs = 2'000'000'000;

  void saw(const md::Event& book) noexcept TICKWIRE_HOT {
    const auto size = std::find_if(sizes_.begin(), sizes_.end(), Of{levels_of(book)});
    if (size == sizes_.end()) return;
    size->run = size->run != 0 && book.ts_recv - size->last <= kApartNs ? size->run + 1 : 1;
    size->last = book.ts_recv;
    size->stream = size->stream || size->run >= kRun;
  }
  [[nodiscard]] bool is_partial(const md::Event& book) const noexcept TICKWIRE_HOT {
    const auto size = std::find_if(sizes_.begin(), sizes_.end(), Of{levels_of(book)});
    return size != sizes_.end() && size->stream;
  }
  /// What was seen ahead is seen once more; what it says stays.
  void begin() noexcept {
    for (Size& size : sizes_) size.run = 0;
  }

 private:
  struct Size {
    std::size_t levels;
    std::uint32_t run = 0;
    TsNs last = 0;
    bool stream = false;
  };
  struct Of {
    std::size_t levels;
    bool operator()(const Size& size) const noexcept TICKWIRE_HOT { return size.levels == levels; }
  };
  [[nodiscard]] static std::size_t levels_of(const md::Event& book) noexcept TICKWIRE_HOT {
    return std::max(book.bids.size(), book.asks.size());
  }

  std::array<Size, 3> sizes_{Size{5}, Size{10}, Size{20}};
};

}  // namespace tickwire::engine

#pragma once

/// Joins a further snapshot to a book that is followed, so that it knows more levels than before, and finds
/// out where the two contradict each other.
///
/// The snapshot is of an earlier moment than the book, and events came since. An event states absolute
/// quantities, so of a price that any of them named the book is right, whatever the snapshot says. Of every
/// other price both must say the same within the book's horizon, and where the book has a level behind it.
/// What the snapshot shows behind the horizon is added, and at the end the horizon is where the snapshot's
/// ends, unless the book's own lies farther out.
///
/// It is done in slices of bounded length, each after an event of the instrument, so that a replay does the
/// same at the same places. One thread, memory from the arena at setup.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/md/event.hpp"
#include "tickwire/md/price_book.hpp"

namespace tickwire::venue {

class BookMerge {
 public:
  enum class Progress : std::uint8_t {
    Running,
    Done,
    Contradicted,  // A price of which the two say different things.
  };

  /// Levels, of the snapshot, of the book and of events, that a slice looks at.
  static constexpr std::size_t kSlice = 1024;

  /// `max_levels` a side of a snapshot; it is taken for cut there where it has more. None: no merging.
  BookMerge(Arena& arena, std::size_t max_levels);

  [[nodiscard]] bool possible() const noexcept TICKWIRE_HOT { return !levels_[0].empty(); }
  [[nodiscard]] bool busy() const noexcept TICKWIRE_HOT { return busy_; }

  /// Copies a snapshot whose sides are in order. `whole`: the side was shown with all its levels.
  void begin(const md::Event& snapshot, bool bids_whole, bool asks_whole) noexcept TICKWIRE_HOT;
  void cancel() noexcept TICKWIRE_HOT { busy_ = false; }
  [[nodiscard]] std::uint64_t id() const noexcept TICKWIRE_HOT { return id_; }
  [[nodiscard]] TsNs since() const noexcept TICKWIRE_HOT { return since_; }
  /// Levels that the snapshot shows of a side.
  [[nodiscard]] std::size_t shown(md::Side side) const noexcept TICKWIRE_HOT {
    return sides_[static_cast<std::size_t>(side)].count;
  }

  /// An event behind the snapshot names these prices. False where there is no room for them all.
  [[nodiscard]] bool touch(std::span<const md::Level> bids, std::span<const md::Level> asks) noexcept
      TICKWIRE_HOT;

  /// A slice, once every event up to now was given to touch().
  Progress step(md::PriceBook& book, std::size_t levels) noexcept TICKWIRE_HOT;

 private:
  struct SideState {
    std::size_t count;
    std::size_t at;       // The next level of the snapshot …
    std::int64_t passed;  // … and the price up to which the book was looked at.
    bool whole;
    bool done;
  };

  [[nodiscard]] bool touched(md::Side side, std::int64_t price) const noexcept TICKWIRE_HOT;
  [[nodiscard]] bool touch(md::Side side, std::int64_t price) noexcept TICKWIRE_HOT;
  Progress walk(md::PriceBook& book, md::Side side, std::size_t& levels) noexcept TICKWIRE_HOT;

  std::array<std::span<md::Level>, 2> levels_;
  std::span<std::uint64_t> touched_;  // Open addressing; 0 is free.
  std::size_t touched_count_ = 0;
  std::array<SideState, 2> sides_{};
  std::uint64_t id_ = 0;
  TsNs since_ = 0;
  bool busy_ = false;
};

}  // namespace tickwire::venue

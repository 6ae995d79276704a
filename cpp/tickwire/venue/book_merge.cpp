#include "tickwire/venue/book_merge.hpp"

#include <algorithm>
#include <limits>

namespace tickwire::venue {

using md::Level;
using md::Side;

namespace {

/// Distinct prices that events name while a snapshot is on its way and joined: a busy instrument's of some
/// seconds. A power of two, of which three quarters are used.
constexpr std::size_t kTouched = 8192;
constexpr std::size_t kMostTouched = kTouched / 4 * 3;

constexpr std::uint64_t key_of(Side side, std::int64_t price) noexcept TICKWIRE_HOT {
  return static_cast<std::uint64_t>(price) << 1U | static_cast<std::uint64_t>(side);
}

constexpr std::size_t place_of(std::uint64_t key) noexcept TICKWIRE_HOT {
  return static_cast<std::size_t>((key * 0x9E3779B97F4A7C15U) >> 51U);  // Of 2^13 places.
}
static_assert(kTouched == std::size_t{1} << (64 - 51));

bool better(Side side, std::int64_t a, std::int64_t b) noexcept TICKWIRE_HOT {
  return side == Side::Bid ? a > b : a < b;
}

/// Better than any price.
std::int64_t before_all(Side side) noexcept TICKWIRE_HOT {
  return side == Side::Bid ? std::numeric_limits<std::int64_t>::max() : 0;
}

}  // namespace

BookMerge::BookMerge(Arena& arena, std::size_t max_levels) {
  if (max_levels == 0) return;
  for (auto& side : levels_) side = arena.allocate<Level>(max_levels);
  touched_ = arena.allocate<std::uint64_t>(kTouched);
}

void BookMerge::begin(const md::Event& snapshot, bool bids_whole, bool asks_whole) noexcept {
  const std::array<std::span<const Level>, 2> from{snapshot.bids, snapshot.asks};
  const std::array<bool, 2> whole{bids_whole, asks_whole};
  for (std::size_t i = 0; i < 2; ++i) {
    const std::size_t count = std::min(from[i].size(), levels_[i].size());
    std::copy_n(from[i].begin(), count, levels_[i].begin());
    sides_[i] = {.count = count,
                 .at = 0,
                 .passed = before_all(static_cast<Side>(i)),
                 .whole = whole[i] && count == from[i].size(),
                 .done = false};
  }
  std::fill(touched_.begin(), touched_.end(), 0);
  touched_count_ = 0;
  id_ = snapshot.last_id;
  since_ = snapshot.ts_recv;
  busy_ = true;
}

bool BookMerge::touched(Side side, std::int64_t price) const noexcept {
  const std::uint64_t key = key_of(side, price);
  for (std::size_t at = place_of(key);; at = (at + 1) % kTouched) {
    if (touched_[at] == key) return true;
    if (touched_[at] == 0) return false;
  }
}

bool BookMerge::touch(Side side, std::int64_t price) noexcept {
  const std::uint64_t key = key_of(side, price);
  std::size_t at = place_of(key);
  while (touched_[at] != 0) {
    if (touched_[at] == key) return true;
    at = (at + 1) % kTouched;
  }
  if (touched_count_ == kMostTouched) return false;
  touched_[at] = key;
  ++touched_count_;
  return true;
}

bool BookMerge::touch(std::span<const Level> bids, std::span<const Level> asks) noexcept {
  return std::all_of(bids.begin(), bids.end(),
                     [this](const Level& level) noexcept
                     TICKWIRE_HOT { return touch(Side::Bid, level.price); }) &&
         std::all_of(asks.begin(), asks.end(), [this](const Level& level) noexcept TICKWIRE_HOT {
           return touch(Side::Ask, level.price);
         });
}

/// Both lists from the best price on, as far as the snapshot tells.
BookMerge::Progress BookMerge::walk(md::PriceBook& book, Side side, std::size_t& levels) noexcept {
  SideState& state = sides_[static_cast<std::size_t>(side)];
  const std::span<const Level> shown = levels_[static_cast<std::size_t>(side)].first(state.count);
  for (; levels != 0; --levels) {
    Level ours{};
    const bool has = book.next(side, state.passed, ours);
    const bool shows = state.at < shown.size();
    if (!shows &&
        (!has || !(state.whole || (!shown.empty() && !better(side, shown.back().price, ours.price))))) {
      state.done = true;
      return Progress::Done;
    }
    const Level told = shows ? shown[state.at] : Level{};
    if (shows && has && told.price == ours.price) {
      if (told.qty != ours.qty && !touched(side, ours.price)) return Progress::Contradicted;
      ++state.at;
      state.passed = ours.price;
    } else if (shows && (!has || better(side, told.price, ours.price))) {
      if (told.qty != 0 && !touched(side, told.price)) {
        if (book.within(side, told.price)) return Progress::Contradicted;
        (void)book.set(side, told.price, told.qty);
      }
      ++state.at;
      state.passed = told.price;
    } else {
      if (!touched(side, ours.price)) return Progress::Contradicted;
      state.passed = ours.price;
    }
  }
  return Progress::Running;
}

BookMerge::Progress BookMerge::step(md::PriceBook& book, std::size_t levels) noexcept {
  for (const Side side : {Side::Bid, Side::Ask}) {
    if (sides_[static_cast<std::size_t>(side)].done) continue;
    const Progress progress = walk(book, side, levels);
    if (progress == Progress::Contradicted) busy_ = false;
    if (progress != Progress::Done) return progress;
  }
  busy_ = false;
  for (const Side side : {Side::Bid, Side::Ask}) {
    const SideState& state = sides_[static_cast<std::size_t>(side)];
    const Level* const last =
        state.count == 0 ? nullptr : &levels_[static_cast<std::size_t>(side)][state.count - 1];
    if (state.whole) {
      book.extend(side, nullptr);
    } else if (last != nullptr) {
      book.extend(side, &last->price);
    }
  }
  return Progress::Done;
}

}  // namespace tickwire::venue

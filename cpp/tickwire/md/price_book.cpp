#include "tickwire/md/price_book.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <string>

#include "tickwire/core/error.hpp"

namespace tickwire::md {

namespace {

/// 256 KiB of cells a side, of which a book touches those in use.
constexpr std::size_t kMaxWindow = 32768;

std::size_t checked(std::size_t max_levels) {
  if (max_levels == 0 || max_levels > (std::size_t{1} << 24U)) {
    throw SetupError("max_levels", "between 1 and 16777216", std::to_string(max_levels));
  }
  return max_levels;
}

/// A small book needs no large window; whole words of bits.
std::size_t window_for(std::size_t max_levels) {
  return std::clamp<std::size_t>(std::bit_ceil(2 * max_levels), 64, kMaxWindow);
}

/// The inverse of an odd number modulo 2^64, by Newton: each round doubles the bits that are right.
constexpr std::uint64_t inverse_of(std::uint64_t odd) noexcept TICKWIRE_HOT {
  std::uint64_t inverse = odd;  // Three bits.
  for (int i = 0; i < 5; ++i) inverse *= 2 - odd * inverse;
  return inverse;
}
static_assert(inverse_of(12345) * 12345 == 1);

constexpr std::uint64_t distance(std::int64_t from, std::int64_t to) noexcept TICKWIRE_HOT {
  return static_cast<std::uint64_t>(to) - static_cast<std::uint64_t>(from);
}

}  // namespace

PriceBook::HalfBook::HalfBook(Arena& arena, bool ask, std::size_t max_levels, std::size_t window)
    : cells(arena.allocate<std::int64_t>(window)),
      used(arena.allocate<std::uint64_t>(window / 64)),
      far(arena, max_levels),
      is_ask(ask) {
  reset(*this);
}

PriceBook::PriceBook(Arena& arena, std::size_t max_levels_per_side)
    : max_levels_(checked(max_levels_per_side)),
      bids_(arena, false, max_levels_, window_for(max_levels_)),
      asks_(arena, true, max_levels_, window_for(max_levels_)) {}

void PriceBook::reset(HalfBook& half) noexcept {
  for (std::size_t word = 0; word < half.used.size() && half.near != 0; ++word) {
    for (; half.used[word] != 0; half.used[word] &= half.used[word] - 1) {
      half.cells[word * 64 + static_cast<std::size_t>(std::countr_zero(half.used[word]))] = 0;
      --half.near;
    }
  }
  half.far.clear();
  half.cut = half.dropped = kNoCut;
  half.known = half.known_from = 0;
  half.best_cell = -1;
  // No window: every key is worse than its base.
  half.base = std::numeric_limits<std::int64_t>::max();
  set_step(half, 0);
}

void PriceBook::clear() noexcept {
  reset(bids_);
  reset(asks_);
}

/// Of an empty window: the cells are numbered by the step.
void PriceBook::set_step(HalfBook& half, std::uint64_t step) noexcept {
  half.step = step;
  half.step_shift = step == 0 ? 0 : static_cast<unsigned>(std::countr_zero(step));
  half.inverse = step == 0 ? 0 : inverse_of(step >> half.step_shift);
  if (__builtin_mul_overflow(step, std::uint64_t{half.cells.size()}, &half.span)) {
    half.span = std::numeric_limits<std::uint64_t>::max();
  }
}

// ---------------------------------------------------------------------------------------------------
// One change

bool PriceBook::set_in(HalfBook& half, std::int64_t key, std::int64_t qty) noexcept {
  const std::uint64_t away = distance(half.base, key);
  if (key >= half.base && away < half.span) [[likely]] {
    const std::uint64_t cell = (away >> half.step_shift) * half.inverse;
    // Between two steps the quotient is no small number, or does not multiply back.
    if (cell < half.cells.size() && cell * half.step == away) [[likely]]
      return set_cell(half, cell, qty);
    return set_slow(half, key, qty);
  }
  if (key < half.base && half.step != 0) [[likely]]
    return set_far(half, key, qty);
  return set_slow(half, key, qty);
}

bool PriceBook::set_cell(HalfBook& half, std::size_t cell, std::int64_t qty) noexcept {
  const std::int64_t old = half.cells[cell];
  const bool had = old != 0;
  const bool has = qty != 0;
  if (has && !had && half.depth() == max_levels_) [[unlikely]]
    return set_cell_full(half, cell, qty);
  half.cells[cell] = qty;
  std::uint64_t& word = half.used[cell / 64];
  word = (word & ~(std::uint64_t{1} << (cell % 64))) | (static_cast<std::uint64_t>(has) << (cell % 64));
  const std::size_t change = static_cast<std::size_t>(has) - static_cast<std::size_t>(had);
  half.near += change;
  half.known += cell >= half.known_from ? change : 0;
  changes_ += old != qty ? 1 : 0;
  if (static_cast<std::ptrdiff_t>(cell) >= half.best_cell) [[unlikely]] {
    if (has) {
      half.best_cell = static_cast<std::ptrdiff_t>(cell);
      const std::int64_t key = half.key_of(cell);
      half.best = {half.is_ask ? turned(key) : key, qty};
    } else if (had) {
      refresh_best(half);
    }
  }
  return true;
}

bool PriceBook::set_cell_full(HalfBook& half, std::size_t cell, std::int64_t qty) noexcept {
  ++dropped_levels_;
  if (!half.far.empty()) {
    drop_worst(half);
  } else {
    std::size_t word = 0;
    while (half.used[word] == 0) ++word;
    const std::size_t deepest = word * 64 + static_cast<std::size_t>(std::countr_zero(half.used[word]));
    if (cell >= deepest) (void)set_cell(half, deepest, 0);
    drop(half, half.key_of(std::min(cell, deepest)));
    if (cell < deepest) return false;
  }
  (void)set_cell(half, cell, qty);
  return false;
}

/// A level of this key, the deepest, is not kept, and is in no count any more.
void PriceBook::drop(HalfBook& half, std::int64_t key) noexcept {
  half.dropped = std::max(half.dropped, key);
  set_cut(half, std::max(half.cut, key));
}

/// Of the sorted array.
void PriceBook::drop_worst(HalfBook& half) noexcept {
  const std::int64_t key = half.far.worst().price;
  half.far.pop_worst();
  half.known -= key > half.cut ? 1 : 0;
  drop(half, key);
}

bool PriceBook::set_far(HalfBook& half, std::int64_t key, std::int64_t qty) noexcept {
  bool kept_all = true;
  if (qty != 0 && half.depth() == max_levels_ && !half.far.contains(key)) [[unlikely]] {
    ++dropped_levels_;
    if (half.far.empty() || key < half.far.worst().price) {
      drop(half, key);
      return false;
    }
    drop_worst(half);
    kept_all = false;
  }
  const std::int64_t old = half.far.exchange(key, qty);
  changes_ += old != qty ? 1 : 0;
  const std::size_t change = static_cast<std::size_t>(qty != 0) - static_cast<std::size_t>(old != 0);
  half.known += key > half.cut ? change : 0;
  if (half.near == 0) [[unlikely]]
    refresh_best(half);
  return kept_all;
}

/// A key better than the window, between two of its steps, or one of the first two.
bool PriceBook::set_slow(HalfBook& half, std::int64_t key, std::int64_t qty) noexcept {
  if (half.step == 0) {
    if (half.far.empty() || half.far.best().price == key) return set_far(half, key, qty);
    if (qty == 0) return true;
    const std::int64_t other = half.far.best().price;
    set_step(half, key > other ? distance(other, key) : distance(key, other));
    move_window(half, std::max(key, other));
    return set_in(half, key, qty);
  }
  if (qty == 0) return true;  // No level can be there.
  const std::uint64_t away = distance(half.base, key);
  if (away % half.step != 0) {
    empty_window(half);
    set_step(half, std::gcd(half.step, away));
  }
  const std::int64_t best_key = half.is_ask ? turned(half.best.price) : half.best.price;
  move_window(half, half.depth() == 0 ? key : std::max(best_key, key));
  return set_in(half, key, qty);
}

// ---------------------------------------------------------------------------------------------------
// The window

/// After the best level of the window went, or while there is none in it.
void PriceBook::refresh_best(HalfBook& half) noexcept {
  if (half.near != 0) {
    std::size_t word = static_cast<std::size_t>(half.best_cell) / 64;
    while (half.used[word] == 0) --word;
    const auto cell = word * 64 + 63 - static_cast<std::size_t>(std::countl_zero(half.used[word]));
    half.best_cell = static_cast<std::ptrdiff_t>(cell);
    const std::int64_t key = half.key_of(cell);
    half.best = {half.is_ask ? turned(key) : key, half.cells[cell]};
    // Room for the market to fall further.
    if (cell < half.cells.size() / 8 && !half.far.empty()) [[unlikely]]
      move_window(half, key);
    return;
  }
  half.best_cell = -1;
  if (half.far.empty()) return;
  const Level best = half.far.best();
  half.best = {half.is_ask ? turned(best.price) : best.price, best.qty};
  if (half.step != 0) move_window(half, best.price);
}

/// Hands all levels of the window to the sorted array, worst first: each is better than what is there.
void PriceBook::empty_window(HalfBook& half) noexcept {
  for (std::size_t word = 0; half.near != 0; ++word) {
    for (; half.used[word] != 0; half.used[word] &= half.used[word] - 1) {
      const std::size_t cell = word * 64 + static_cast<std::size_t>(std::countr_zero(half.used[word]));
      half.far.push_best({half.key_of(cell), half.cells[cell]});
      half.cells[cell] = 0;
      --half.near;
    }
  }
  half.best_cell = -1;
}

/// Puts `best_key`, which no level is better than, three quarters up the window and takes the levels
/// that are in reach back from the sorted array. Where one of these lies between two steps the step
/// shrinks and it begins again; a step can be halved no more than 63 times.
void PriceBook::move_window(HalfBook& half, std::int64_t best_key) noexcept {
  for (bool on_grid = false; !on_grid;) {
    empty_window(half);
    // Not below the smallest key there is.
    const std::uint64_t below = std::min<std::uint64_t>(
        half.cells.size() / 4 * 3, distance(std::numeric_limits<std::int64_t>::min(), best_key) / half.step);
    half.base = static_cast<std::int64_t>(static_cast<std::uint64_t>(best_key) - below * half.step);
    on_grid = true;
    while (on_grid && !half.far.empty() && half.far.best().price >= half.base) {
      const Level level = half.far.best();
      const std::uint64_t away = distance(half.base, level.price);
      on_grid = away % half.step == 0;
      if (!on_grid) {
        empty_window(half);
        set_step(half, std::gcd(half.step, away));
        break;
      }
      const std::size_t cell = away / half.step;
      half.cells[cell] = level.qty;
      half.used[cell / 64] |= std::uint64_t{1} << (cell % 64);
      half.best_cell = std::max(half.best_cell, static_cast<std::ptrdiff_t>(cell));
      ++half.near;
      half.far.pop_best();
    }
  }
  find_known_from(half);
}

// ---------------------------------------------------------------------------------------------------
// The horizon

/// `known` is right for the new one, but for the cells where it begins.
void PriceBook::set_cut(HalfBook& half, std::int64_t key) noexcept {
  half.cut = key;
  find_known_from(half);
}

void PriceBook::find_known_from(HalfBook& half) noexcept {
  half.known_from =
      half.cut < half.base || half.step == 0 ? 0 : distance(half.base, half.cut) / half.step + 1;
}

void PriceBook::limit(Side side, std::int64_t price) noexcept {
  HalfBook& half = side == Side::Bid ? bids_ : asks_;
  const std::int64_t cut = (half.is_ask ? turned(price) : price) - 1;
  if (cut <= half.cut) return;
  // From the deepest level on; a snapshot that was just loaded has none to go.
  set_cut(half, cut);
  count_known(half);
}

void PriceBook::extend(Side side, const std::int64_t* price) noexcept {
  HalfBook& half = side == Side::Bid ? bids_ : asks_;
  const std::int64_t told = price == nullptr ? kNoCut : (half.is_ask ? turned(*price) : *price) - 1;
  const std::int64_t cut = std::max(told, half.dropped);
  if (cut >= half.cut) return;
  set_cut(half, cut);
  count_known(half);
}

void PriceBook::count_known(HalfBook& half) noexcept {
  half.known = 0;
  const std::size_t first = std::min(half.known_from, half.cells.size());
  if (half.near != 0) {
    for (std::size_t word = first / 64; word < half.used.size(); ++word) {
      std::uint64_t bits = half.used[word];
      if (word == first / 64) bits &= ~std::uint64_t{0} << (first % 64);
      half.known += static_cast<std::size_t>(std::popcount(bits));
    }
  }
  half.known += half.far.count_better(half.cut);
}

std::int64_t PriceBook::qty(Side side, std::int64_t price) const noexcept {
  const HalfBook& half = of(side);
  const std::int64_t key = half.is_ask ? turned(price) : price;
  const std::uint64_t away = distance(half.base, key);
  if (half.step != 0 && key >= half.base && away < half.span) {
    return away % half.step == 0 ? half.cells[away / half.step] : 0;
  }
  return half.far.qty(key);
}

bool PriceBook::next_key(const HalfBook& half, std::int64_t key, Level& out) noexcept {
  if (half.near != 0 && key > half.base) {
    // Of the cells in use, the last one before the key's.
    std::size_t end = half.cells.size();
    if (const std::uint64_t away = distance(half.base, key); away < half.span) {
      end = away / half.step + (away % half.step != 0 ? 1 : 0);
    }
    end = std::min(end, static_cast<std::size_t>(half.best_cell) + 1);
    for (std::size_t word = (end + 63) / 64; word-- != 0;) {
      std::uint64_t bits = half.used[word];
      if (end - word * 64 < 64) bits &= (std::uint64_t{1} << (end - word * 64)) - 1;
      if (bits == 0) continue;
      const std::size_t cell = word * 64 + 63 - static_cast<std::size_t>(std::countl_zero(bits));
      out = {half.key_of(cell), half.cells[cell]};
      return true;
    }
  }
  return half.far.worse(key, out);
}

bool PriceBook::next(Side side, std::int64_t price, Level& out) const noexcept {
  const HalfBook& half = of(side);
  if (!next_key(half, half.is_ask ? turned(price) : price, out)) return false;
  if (half.is_ask) out.price = turned(out.price);
  return true;
}

std::size_t PriceBook::top(Side side, std::span<Level> out) const noexcept {
  const HalfBook& half = of(side);
  std::size_t written = 0;
  if (half.near != 0) {
    const std::size_t wanted = std::min(out.size(), half.near);
    for (std::size_t word = static_cast<std::size_t>(half.best_cell) / 64; written < wanted; --word) {
      for (std::uint64_t bits = half.used[word]; bits != 0 && written < wanted;) {
        const auto bit = static_cast<std::size_t>(63 - std::countl_zero(bits));
        bits ^= std::uint64_t{1} << bit;
        const std::size_t cell = word * 64 + bit;
        out[written++] = {half.key_of(cell), half.cells[cell]};
      }
    }
  }
  if (written < out.size() && !half.far.empty()) [[unlikely]]
    written += half.far.top(out.subspan(written));
  if (half.is_ask) {
    for (Level& level : out.first(written)) level.price = turned(level.price);
  }
  return written;
}

}  // namespace tickwire::md

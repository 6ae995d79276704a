#include "tickwire/venue/itch/market.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

#include "tickwire/core/prefetch.hpp"

namespace tickwire::venue::itch {

using md::BookState;
using md::InvalidReason;
using md::OrderChange;
using md::OrderResult;

namespace {

constexpr std::size_t kLocates = 65'536;
constexpr std::size_t kLocateEnd = 3;  // Of a message's bytes.

/// A stock as a message spells it, padded with spaces.
std::uint64_t spelling_of(std::string_view stock) noexcept {
  std::array<char, 8> text;
  text.fill(' ');
  std::copy_n(stock.begin(), std::min(stock.size(), text.size()), text.begin());
  return std::bit_cast<std::uint64_t>(text);
}
std::uint64_t spelling_of(const Message& message) noexcept TICKWIRE_HOT {
  return std::bit_cast<std::uint64_t>(message.symbol);
}

/// Of a message of three bytes or more.
std::size_t locate_of(std::span<const std::byte> message) noexcept TICKWIRE_HOT {
  return static_cast<std::size_t>(message[1]) << 8U | static_cast<std::size_t>(message[2]);
}

constexpr md::Aggressor against(md::Side resting) noexcept TICKWIRE_HOT {
  return resting == md::Side::Bid ? md::Aggressor::Seller : md::Aggressor::Buyer;
}

}  // namespace

Market::Market(const md::InstrumentTable& instruments, std::size_t max_orders, Arena& arena)
    : instruments_(instruments),
      count_(static_cast<InstrumentId>(instruments.size())),
      books_(arena, instruments.size(), max_orders),
      by_locate_(arena.allocate<InstrumentId>(kLocates)),
      status_(arena.allocate<Status>(instruments.size())) {
  for (InstrumentId i = 0; i < instruments.size(); ++i) {
    status_[i].symbol = spelling_of(instruments[i].symbol);
    const std::uint64_t bit = status_[i].symbol * 0x9E3779B97F4A7C15U >> 48U;
    symbols_[bit / 64] |= std::uint64_t{1} << (bit % 64);
  }
}

void Market::reset() noexcept {
  books_.clear();
  std::fill(by_locate_.begin(), by_locate_.end(), 0);
  for (Status& status : status_) {
    const std::uint64_t symbol = status.symbol;
    status = Status{};
    status.symbol = symbol;
  }
  closed_ = lost_ = building_ = false;
}

/// Has nothing come since everything began anew that a new day would make void?
bool Market::is_blank() const noexcept {
  return !lost_ && !closed_ &&
         std::all_of(by_locate_.begin(), by_locate_.end(), [](InstrumentId place) { return place == 0; });
}

void Market::rebuild() noexcept {
  const bool closed = closed_;
  reset();
  closed_ = closed;
  building_ = true;
}

BookState Market::state(InstrumentId instrument) const noexcept {
  const Status& status = status_[instrument];
  if (!status.named) return BookState::Empty;
  if (status.damage != InvalidReason::None || lost_ || building_) return BookState::Suspect;
  if (!status.trading || status.operational_halt || closed_) return BookState::Halted;
  return status.crossed ? BookState::Suspect : BookState::Valid;
}

InvalidReason Market::reason(InstrumentId instrument) const noexcept {
  switch (state(instrument)) {
    case BookState::Halted: return InvalidReason::Halted;
    case BookState::Suspect:
      if (status_[instrument].damage != InvalidReason::None) return status_[instrument].damage;
      return lost_ || building_ ? InvalidReason::Gap : InvalidReason::Crossed;
    case BookState::Empty: return building_ ? InvalidReason::Gap : InvalidReason::Disconnected;
    default: return InvalidReason::None;
  }
}

/// The first time of a message its instrument, the second time the other one.
void Market::damage(InstrumentId instrument, InvalidReason why, Misfit misfit, Update& update) noexcept {
  Status& status = status_[instrument];
  if (status.damage == InvalidReason::None) {
    status.damage = why;
    update.misfit = misfit;
  }
  (update.instrument == kNoInstrument || update.instrument == instrument ? update.instrument : update.other) =
      instrument;
  update.state = true;
}

/// Of an order that a message did not change as it says.
void Market::refuse(OrderChange change, Update& update) noexcept {
  InvalidReason why = InvalidReason::Gap;
  Misfit misfit = Misfit::None;
  switch (change.result) {
    case OrderResult::Done: break;
    case OrderResult::UnknownOrder:
      ++counts_.unknown_order;
      misfit = Misfit::UnknownOrder;
      break;
    case OrderResult::DuplicateOrder:
      ++counts_.duplicate_order;
      misfit = Misfit::DuplicateOrder;
      break;
    case OrderResult::OtherBook:
      ++counts_.other_book;
      misfit = Misfit::OtherBook;
      break;
    case OrderResult::BadQty:
      ++counts_.bad_qty;
      why = InvalidReason::BadNumber;
      misfit = Misfit::BadQty;
      break;
    case OrderResult::OrdersFull:
      ++counts_.orders_full;
      why = InvalidReason::Memory;
      misfit = Misfit::NoMemory;
      break;
    case OrderResult::LevelsFull:
      ++counts_.levels_full;
      why = InvalidReason::Memory;
      misfit = Misfit::NoMemory;
      break;
  }
  damage(update.instrument, why, misfit, update);
  // Of two books that know the order, too, nobody knows which is wrong.
  if (change.book < count_ && change.book != update.instrument) {
    damage(change.book, why, misfit, update);
  }
}

/// A message of one of ours whose stock is spelled otherwise: another's? One that is blank names none.
bool Market::names_another_slow(const Message& message, Update& update) noexcept {
  if (std::all_of(message.symbol.begin(), message.symbol.end(), [](char c) { return c == 0 || c == ' '; }))
    return false;
  const InstrumentId named = instruments_.find(message.stock());
  if (named == update.instrument) return false;  // Padded otherwise.
  ++counts_.other_stock;
  damage(update.instrument, InvalidReason::Gap, Misfit::OtherStock, update);
  if (named != kNoInstrument) damage(named, InvalidReason::Gap, Misfit::OtherStock, update);
  return true;
}

InstrumentId Market::prepare(std::span<const std::byte> message) noexcept {
  // A type that names no order has something else there: a cache line that nobody asked for.
  std::uint64_t ref = 0;
  if (message.size() < kRefOffset + sizeof ref) return kNoInstrument;
  std::memcpy(&ref, message.data() + kRefOffset, sizeof ref);
  const InstrumentId ours = by_locate_[locate_of(message)];
  // Of others, too, what happens to an order is held against our books.
  ref = __builtin_bswap64(ref);
  if (!is_ours(ours)) {
    if (message[0] != std::byte{'A'} && books_.may_hold(ref)) books_.prefetch_order(ref);
    return kNoInstrument;
  }
  books_.prefetch_order(ref);
  books_.prefetch_book(ours - 1);
  prefetch(&status_[ours - 1]);
  // Of the book that was asked for a while ago: its head has come, and says where its levels are.
  const InstrumentId before = std::exchange(prepared_[prepared_at_], ours);
  prepared_at_ = prepared_at_ + 1 == prepared_.size() ? 0 : prepared_at_ + 1;
  if (before != 0) books_.prefetch_levels(before - 1);
  return ours - 1;
}

Update Market::on_message(std::span<const std::byte> bytes) noexcept {
  Update update;
  // Most of a whole exchange: of stocks that are none of ours, and of no order of ours.
  if (bytes.size() >= kRefOffset && by_locate_[locate_of(bytes)] == kOthers) {
    Decoder::Glance seen;
    if (Decoder::glance(bytes, seen) && !(seen.begins ? may_be_ours(seen.symbol) : books_.may_hold(seen.ref)))
        [[likely]] {
      decoder_.took(seen);
      ++counts_.others;
      update.ts_ns = seen.ts_ns;
      return update;
    }
  }
  Message message;
  update.outcome = decoder_.decode(bytes, message);
  InstrumentId& place = by_locate_[message.locate];
  if (update.outcome != Outcome::Message) [[unlikely]] {
    // What it said of this instrument is unknown, so its book is.
    const bool refused = update.outcome == Outcome::BadLength || update.outcome == Outcome::BadField;
    if (refused && is_ours(place)) damage(place - 1, InvalidReason::Malformed, Misfit::Malformed, update);
    if (refused && bytes.size() < kLocateEnd) {
      if (!lost_) update.misfit = Misfit::Malformed;
      lose();
      update.state = update.all = true;
    }
    return update;
  }
  update.ts_ns = message.ts_ns;
  if (is_ours(place)) {
    update.instrument = place - 1;
    apply(message, update);
  } else if (message.type == Type::StockDirectory || message.type == Type::SystemEvent) {
    apply_rare(message, update);
  } else {
    apply_others(message, place, update);
  }
  return update;
}

/// Under a locate that is none of our instruments'.
void Market::apply_others(const Message& message, InstrumentId& place, Update& update) noexcept {
  ++counts_.others;
  const bool unnamed = place != kOthers;
  switch (message.type) {
    case Type::AddOrder:
    case Type::AddOrderMpid:
    case Type::Trade:
    case Type::CrossTrade:
    case Type::TradingAction:
    case Type::OperationalHalt:
      if (may_be_ours(spelling_of(message))) [[unlikely]]
        names_ours(message, unnamed, update);
      break;
    case Type::Executed:
    case Type::ExecutedWithPrice:
    case Type::Cancel:
    case Type::Delete:
    case Type::Replace:
      if (books_.may_hold(message.ref)) [[unlikely]]
        touches_ours(message, update);
      break;
    case Type::RegSho:
    case Type::MarketParticipant:
    case Type::IpoQuoting:
    case Type::LuldCollar:
    case Type::Imbalance:
    case Type::RetailInterest:
    case Type::DirectListing:
      // Before the directory they say nothing that a book could lack.
      if (!unnamed && may_be_ours(spelling_of(message))) names_ours(message, false, update);
      return;
    default: return;
  }
  if (unnamed) place = kHeard;
}

/// What happened to an order under a locate that is none of ours: to one of ours?
void Market::touches_ours(const Message& message, Update& update) noexcept {
  const std::uint32_t book = books_.book_of(message.ref);
  if (book == md::OrderBooks::kNoBook) return;
  ++counts_.other_book;
  damage(book, InvalidReason::Gap, Misfit::OtherBook, update);
}

/// A message of none of ours that has a stock in it: ours?
void Market::names_ours(const Message& message, bool unnamed, Update& update) noexcept {
  const InstrumentId named = instruments_.find(message.stock());
  if (named == kNoInstrument) return;
  ++(unnamed ? counts_.unnamed_locate : counts_.other_stock);
  damage(named, InvalidReason::Gap, unnamed ? Misfit::UnnamedLocate : Misfit::OtherStock, update);
}

void Market::apply(const Message& message, Update& update) noexcept {
  const InstrumentId book = update.instrument;
  switch (message.type) {
    case Type::AddOrder:
    case Type::AddOrderMpid:
      if (names_another(message, update)) [[unlikely]]
        return;
      update.arrived = update.book = check(
          books_.add(book, message.ref, message.side, message.price, static_cast<std::uint32_t>(message.qty)),
          update);
      break;
    case Type::Executed:
    case Type::ExecutedWithPrice: {
      const OrderChange change = books_.reduce(book, message.ref, static_cast<std::uint32_t>(message.qty));
      update.book = check(change, update);
      update.traded = update.book && message.printable;
      update.trade = {.id = message.match,
                      .price = message.type == Type::Executed ? change.price : message.price,
                      .qty = static_cast<std::int64_t>(message.qty),
                      .aggressor = against(change.side),
                      .printable = message.printable};
      break;
    }
    case Type::Cancel:
      update.cancelled = update.book =
          check(books_.reduce(book, message.ref, static_cast<std::uint32_t>(message.qty)), update);
      break;
    case Type::Delete:
      update.cancelled = update.book = check(books_.remove(book, message.ref), update);
      break;
    case Type::Replace:
      update.cancelled = update.arrived = update.book =
          check(books_.replace(book, message.ref, message.new_ref, message.price,
                               static_cast<std::uint32_t>(message.qty)),
                update);
      break;
    default: return apply_rare(message, update);
  }
  // A change at the best prices alone can cross them, but asking costs less than finding that out.
  Status& status = status_[book];
  const bool crossed = books_.crossed(book);
  if (crossed != status.crossed) [[unlikely]] {
    status.crossed = crossed;
    counts_.crossed += crossed ? 1 : 0;
    update.state = true;
  }
}

void Market::apply_rare(const Message& message, Update& update) noexcept {
  const InstrumentId instrument = update.instrument;
  switch (message.type) {
    case Type::StockDirectory: return apply_directory(message, update);
    case Type::SystemEvent:
      if (message.code == 'O' && !building_ && !is_blank()) {
        TICKWIRE_HOT_EXEMPT_BEGIN("once a day: forgets all orders")
        reset();
        TICKWIRE_HOT_EXEMPT_END
        update.anew = true;
      }
      if (message.code == 'E') closed_ = true;
      if (message.code == 'S') closed_ = false;
      update.state = update.all = true;
      return;
    case Type::TradingAction:
      if (names_another(message, update)) return;
      status_[instrument].trading = message.code == 'T';
      update.state = true;
      return;
    case Type::OperationalHalt:
      if (names_another(message, update) || message.code != 'Q') return;
      status_[instrument].operational_halt = message.action == 'H';
      update.state = true;
      return;
    case Type::Trade:
    case Type::CrossTrade:
      if (names_another(message, update)) return;
      // The side that P states has been a constant since 2014, and a cross has none.
      update.traded = message.qty != 0 && message.qty <= std::numeric_limits<std::int64_t>::max();
      update.trade = {.id = message.match,
                      .price = message.price,
                      .qty = static_cast<std::int64_t>(message.qty),
                      .aggressor = md::Aggressor::Unknown,
                      .printable = true};
      return;
    case Type::RegSho:
    case Type::MarketParticipant:
    case Type::IpoQuoting:
    case Type::LuldCollar:
    case Type::Imbalance:
    case Type::RetailInterest:
    case Type::DirectListing: (void)names_another(message, update); return;
    default: return;
  }
}

void Market::apply_directory(const Message& message, Update& update) noexcept {
  update.instrument = kNoInstrument;
  if (message.locate == 0) return;  // Means none.
  InstrumentId& place = by_locate_[message.locate];
  const InstrumentId ours = instruments_.find(message.stock());
  if (is_ours(place) && place - 1 != ours) {
    ++counts_.locate_moved;
    damage(place - 1, InvalidReason::Gap, Misfit::LocateMoved, update);
  }
  if (ours == kNoInstrument) {
    place = kOthers;
    ++counts_.others;
    return;
  }
  const InstrumentId before = std::exchange(place, ours + 1);
  Status& status = status_[ours];
  if (status.named && status.locate != message.locate) {
    if (by_locate_[status.locate] == ours + 1) by_locate_[status.locate] = kOthers;
    ++counts_.locate_moved;
    damage(ours, InvalidReason::Gap, Misfit::LocateMoved, update);
  } else if (before == kHeard) {
    ++counts_.unnamed_locate;
    damage(ours, InvalidReason::Gap, Misfit::UnnamedLocate, update);
  }
  status.named = true;
  status.locate = message.locate;
  (update.instrument == kNoInstrument || update.instrument == ours ? update.instrument : update.other) = ours;
  update.state = true;
}

}  // namespace tickwire::venue::itch

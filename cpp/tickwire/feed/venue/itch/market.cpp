#include "tickwire/feed/venue/itch/market.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "tickwire/core/prefetch.hpp"

namespace tickwire::feed::itch {

using md::BookState;
using md::InvalidReason;
using md::OrderChange;
using md::OrderResult;

namespace {

constexpr std::size_t kLocates = 65'536;
constexpr std::size_t kLocateEnd = 3;  // Of a message's bytes.

constexpr md::Aggressor against(md::Side resting) noexcept TICKWIRE_HOT {
  return resting == md::Side::Bid ? md::Aggressor::Seller : md::Aggressor::Buyer;
}

}  // namespace

Market::Market(const md::InstrumentTable& instruments, std::size_t max_orders, Arena& arena)
    : instruments_(instruments),
      books_(arena, instruments.size(), max_orders),
      by_locate_(arena.allocate<InstrumentId>(kLocates)),
      status_(arena.allocate<Status>(instruments.size())) {}

void Market::reset() noexcept {
  books_.clear();
  std::fill(by_locate_.begin(), by_locate_.end(), 0);
  std::fill(status_.begin(), status_.end(), Status{});
  closed_ = lost_ = building_ = false;
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
    case BookState::Empty: return InvalidReason::Disconnected;
    default: return InvalidReason::None;
  }
}

void Market::damage(InstrumentId instrument, InvalidReason why, Update& update) noexcept {
  Status& status = status_[instrument];
  if (status.damage == InvalidReason::None) status.damage = why;
  update.instrument = instrument;
  update.state = true;
}

/// Of an order that a message changed: was it done as the message says?
bool Market::check(OrderResult result, Update& update) noexcept {
  if (result == OrderResult::Done) [[likely]]
    return true;
  InvalidReason why = InvalidReason::Gap;
  switch (result) {
    case OrderResult::Done: break;
    case OrderResult::UnknownOrder: ++counts_.unknown_order; break;
    case OrderResult::DuplicateOrder: ++counts_.duplicate_order; break;
    case OrderResult::OtherBook: ++counts_.other_book; break;
    case OrderResult::BadQty:
      ++counts_.bad_qty;
      why = InvalidReason::BadNumber;
      break;
    case OrderResult::OrdersFull:
      ++counts_.orders_full;
      why = InvalidReason::Memory;
      break;
    case OrderResult::LevelsFull:
      ++counts_.levels_full;
      why = InvalidReason::Memory;
      break;
  }
  damage(update.instrument, why, update);
  return false;
}

InstrumentId Market::prepare(std::span<const std::byte> message) noexcept {
  // A type that names no order has something else there: a cache line that nobody asked for.
  std::uint64_t ref = 0;
  if (message.size() < kRefOffset + sizeof ref) return kNoInstrument;
  std::memcpy(&ref, message.data() + kRefOffset, sizeof ref);
  const auto locate = static_cast<std::size_t>(message[1]) << 8U | static_cast<std::size_t>(message[2]);
  const InstrumentId ours = by_locate_[locate];
  if (ours == 0) return kNoInstrument;
  books_.prefetch_order(__builtin_bswap64(ref));
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
  Message message;
  update.outcome = decoder_.decode(bytes, message);
  const InstrumentId ours = by_locate_[message.locate];
  if (update.outcome != Outcome::Message) [[unlikely]] {
    // What it said of this instrument is unknown, so its book is.
    const bool refused = update.outcome == Outcome::BadLength || update.outcome == Outcome::BadField;
    if (refused && ours != 0) damage(ours - 1, InvalidReason::Malformed, update);
    if (refused && bytes.size() < kLocateEnd) {
      lose();
      update.state = update.all = true;
    }
    return update;
  }
  update.ts_ns = message.ts_ns;
  if (ours != 0) {
    update.instrument = ours - 1;
    apply(message, update);
  } else if (message.type == Type::StockDirectory || message.type == Type::SystemEvent) {
    apply_rare(message, update);
  } else {
    ++counts_.others;
  }
  return update;
}

void Market::apply(const Message& message, Update& update) noexcept {
  const InstrumentId book = update.instrument;
  switch (message.type) {
    case Type::AddOrder:
    case Type::AddOrderMpid:
      update.arrived = update.book = check(
          books_.add(book, message.ref, message.side, message.price, static_cast<std::uint32_t>(message.qty))
              .result,
          update);
      break;
    case Type::Executed:
    case Type::ExecutedWithPrice: {
      const OrderChange change = books_.reduce(book, message.ref, static_cast<std::uint32_t>(message.qty));
      update.book = check(change.result, update);
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
          check(books_.reduce(book, message.ref, static_cast<std::uint32_t>(message.qty)).result, update);
      break;
    case Type::Delete:
      update.cancelled = update.book = check(books_.remove(book, message.ref).result, update);
      break;
    case Type::Replace:
      update.cancelled = update.arrived = update.book =
          check(books_
                    .replace(book, message.ref, message.new_ref, message.price,
                             static_cast<std::uint32_t>(message.qty))
                    .result,
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
    case Type::StockDirectory: {
      if (message.locate == 0) return;  // Means none.
      const InstrumentId ours = instruments_.find(message.stock());
      if (ours == kNoInstrument) {
        // A locate that was another stock's: the venue numbers anew.
        by_locate_[message.locate] = 0;
        ++counts_.others;
        return;
      }
      by_locate_[message.locate] = ours + 1;
      status_[ours].named = true;
      update.instrument = ours;
      update.state = true;
      return;
    }
    case Type::SystemEvent:
      if (message.code == 'E') closed_ = true;
      if (message.code == 'S') closed_ = false;
      update.state = update.all = true;
      return;
    case Type::TradingAction:
      status_[instrument].trading = message.code == 'T';
      update.state = true;
      return;
    case Type::OperationalHalt:
      if (message.code != 'Q') return;
      status_[instrument].operational_halt = message.action == 'H';
      update.state = true;
      return;
    case Type::Trade:
    case Type::CrossTrade:
      // The side that P states has been a constant since 2014, and a cross has none.
      update.traded = message.qty != 0 && message.qty <= std::numeric_limits<std::int64_t>::max();
      update.trade = {.id = message.match,
                      .price = message.price,
                      .qty = static_cast<std::int64_t>(message.qty),
                      .aggressor = md::Aggressor::Unknown,
                      .printable = true};
      return;
    default: return;
  }
}

}  // namespace tickwire::feed::itch

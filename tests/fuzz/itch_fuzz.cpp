// Fuzz target of ITCH: the decoder reads no byte beyond a message, and the market's books are those of a
// dictionary of orders after every message, however wrong it was. CMakeLists.txt says how it is run.
//
// Input: length-prefixed messages, as a day file has them; the last one may be cut.
//
// Covers: venue/itch/decoder.cpp venue/itch/market.cpp md/order_books.cpp

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "tickwire/venue/itch/market.hpp"

namespace itch_fuzz {

using tickwire::InstrumentId;
using tickwire::md::BookState;
using tickwire::md::Level;
using tickwire::md::Side;

inline void require(bool held) {
  if (!held) std::abort();
}

inline const tickwire::md::InstrumentTable& instruments() {
  static const tickwire::md::InstrumentTable table = [] {
    tickwire::md::InstrumentTable made;
    made.add({"AAPL", "nasdaq", 4, 0});
    made.add({"MSFT", "nasdaq", 4, 0});
    return made;
  }();
  return table;
}

struct Order {
  InstrumentId book;
  Side side;
  std::int64_t price;
  std::int64_t qty;
};

/// Follows a message that the market took whole, from the message's own fields.
inline void follow(std::map<std::uint64_t, Order>& orders, const tickwire::venue::itch::Message& message,
                   InstrumentId book) {
  using tickwire::venue::itch::Type;
  const auto qty = static_cast<std::int64_t>(message.qty);
  const auto found = orders.find(message.ref);
  switch (message.type) {
    case Type::AddOrder:
    case Type::AddOrderMpid:
      require(found == orders.end() && qty > 0);
      orders[message.ref] = {book, message.side, message.price, qty};
      break;
    case Type::Executed:
    case Type::ExecutedWithPrice:
    case Type::Cancel:
      require(found != orders.end() && found->second.book == book && qty > 0 && qty <= found->second.qty);
      found->second.qty -= qty;
      if (found->second.qty == 0) orders.erase(found);
      break;
    case Type::Delete:
      require(found != orders.end() && found->second.book == book);
      orders.erase(found);
      break;
    case Type::Replace: {
      require(found != orders.end() && found->second.book == book && qty > 0);
      const Side side = found->second.side;
      orders.erase(found);
      require(!orders.contains(message.new_ref));
      orders[message.new_ref] = {book, side, message.price, qty};
      break;
    }
    default: require(false);
  }
}

inline void compare(const tickwire::venue::itch::Market& market, const std::map<std::uint64_t, Order>& orders,
                    InstrumentId book) {
  for (const Side side : {Side::Bid, Side::Ask}) {
    std::map<std::int64_t, std::int64_t> by_price;
    for (const auto& [ref, order] : orders) {
      if (order.book == book && order.side == side) {
        by_price[side == Side::Bid ? -order.price : order.price] += order.qty;
      }
    }
    std::vector<Level> levels(by_price.size() + 1);
    require(market.books().top(book, side, levels) == by_price.size());
    std::size_t at = 0;
    for (const auto& [key, qty] : by_price) {
      require(levels[at].price == (side == Side::Bid ? -key : key) && levels[at].qty == qty);
      ++at;
    }
  }
}

}  // namespace itch_fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace itch_fuzz;
  static tickwire::Arena arena(
      {.chunk_bytes = 1U << 20U, .huge_pages = tickwire::HugePages::Off, .lock = tickwire::LockMemory::Off});
  static tickwire::venue::itch::Market market(instruments(), 64, arena);
  market.reset();
  tickwire::venue::itch::Decoder decoder;
  std::map<std::uint64_t, Order> orders;
  bool damaged = false;
  while (size >= 2) {
    const std::size_t length = std::min<std::size_t>(std::size_t{data[0]} << 8U | data[1], size - 2);
    // In memory of its own, so that a sanitizer sees the first byte too far.
    const auto memory = std::make_unique<std::byte[]>(length);
    std::copy_n(reinterpret_cast<const std::byte*>(data + 2), length, memory.get());
    const std::span<const std::byte> bytes{memory.get(), length};
    data += 2 + length;
    size -= 2 + length;

    tickwire::venue::itch::Message message;
    const tickwire::venue::itch::Outcome outcome = decoder.decode(bytes, message);
    const tickwire::venue::itch::Update update = market.on_message(bytes);
    require(update.outcome == outcome);
    if (update.anew) {
      orders.clear();
      damaged = false;
      require(market.books().orders() == 0);
    }
    if (update.instrument == tickwire::kNoInstrument) {
      require(!update.book && !update.arrived && !update.cancelled && !update.traded);
      require(update.other == tickwire::kNoInstrument);
      continue;
    }
    require(update.instrument < instruments().size());
    if (update.other != tickwire::kNoInstrument) {
      require(update.other < instruments().size() && update.other != update.instrument && update.state);
      require(market.state(update.other) != BookState::Valid);
    }
    require(!update.traded || (update.trade.qty > 0 && update.trade.price >= 0));
    if (update.book && !damaged) follow(orders, message, update.instrument);
    for (InstrumentId book = 0; book < instruments().size(); ++book) {
      damaged = damaged || (market.state(book) == BookState::Suspect &&
                            market.reason(book) != tickwire::md::InvalidReason::Crossed);
    }
    // A replace that found no room, or an execution of too much, changes what no message says any more.
    if (damaged) continue;
    compare(market, orders, update.instrument);
    require(market.books().orders() == orders.size());
  }
  return 0;
}

// tickwire-dump: what the book of one instrument was after each message of ITCH day files, or of captures of
// its datagrams.
//
//     tickwire-dump SYMBOL LEVELS FILE …
//
// One line a message of the instrument: its number in the session, its first byte, nanoseconds since
// midnight, the book's state, then for each level ask price, ask quantity, bid price, bid quantity, prices in
// units of 0.0001; a level that is not there is empty. With commas between.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "tickwire/feed/venue/itch/market.hpp"
#include "tickwire/feed/venue/itch/replay_source.hpp"

namespace {

using namespace tickwire;

constexpr std::size_t kMaxOrders = std::size_t{1} << 22U;
constexpr std::size_t kMaxLevels = 1000;

int dump(const std::string& symbol, std::size_t levels, std::vector<std::string> files) {
  md::InstrumentTable table;
  table.add({symbol, "nasdaq_itch", feed::itch::kPriceDecimals, 0});
  Arena arena;
  feed::itch::Market market(table, kMaxOrders, arena);
  using Kind = feed::itch::ReplayItem::Kind;
  const std::vector<TsNs> midnights(files.size());
  feed::itch::ReplaySource source({.files = std::move(files), .midnights = midnights, .mold = {}}, "dump",
                                  arena);
  std::vector<md::Level> asks(levels);
  std::vector<md::Level> bids(levels);
  for (feed::itch::ReplayItem item{}; source.next(item);) {
    if (item.kind == Kind::Session || item.kind == Kind::Snapshot || item.kind == Kind::SnapshotFailed) {
      market.reset();
    }
    if (item.kind == Kind::Lost || item.kind == Kind::SnapshotFailed) market.lose();
    if (item.kind != Kind::Message && item.kind != Kind::SnapshotMessage) continue;
    const feed::itch::Update update = market.on_message(item.message);
    if (update.instrument == kNoInstrument) continue;
    const std::size_t ask_count = market.books().top(0, md::Side::Ask, asks);
    const std::size_t bid_count = market.books().top(0, md::Side::Bid, bids);
    std::printf("%lu,%c,%ld,%s", item.sequence, static_cast<char>(item.message[0]), update.ts_ns,
                name_of(market.state(0)).data());
    const auto print = [](const md::Level& level, bool there) {
      if (there) {
        std::printf(",%ld,%ld", level.price, level.qty);
      } else {
        std::printf(",,");
      }
    };
    for (std::size_t i = 0; i < levels; ++i) {
      print(asks[i], i < ask_count);
      print(bids[i], i < bid_count);
    }
    std::printf("\n");
  }
  if (source.truncated()) std::fprintf(stderr, "tickwire-dump: %s\n", source.error().c_str());
  return source.truncated() ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t levels = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0;
  if (argc < 4 || levels == 0 || levels > kMaxLevels) {
    std::fprintf(stderr, "usage: tickwire-dump SYMBOL LEVELS FILE …, with 1 to %zu levels\n", kMaxLevels);
    return 2;
  }
  try {
    return dump(argv[1], levels, {argv + 3, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tickwire-dump: %s\n", error.what());
    return 1;
  }
}

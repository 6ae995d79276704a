// tickwire-dump: what the book of one instrument was after each message of ITCH day files, or of captures of
// its datagrams.
//
//     tickwire-dump SYMBOL LEVELS FILE …
//
// One line a message of the instrument: its number in the session, 0 within a snapshot, its first byte,
// nanoseconds since midnight, the book's state, then for each level ask price, ask quantity, bid price, bid
// quantity, prices in units of 0.0001; a level that is not there is empty. With commas between.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tickwire/venue/itch/market.hpp"
#include "tickwire/venue/itch/replay_source.hpp"

namespace {

using namespace tickwire;

constexpr std::size_t kMaxOrders = std::size_t{1} << 22U;
constexpr std::size_t kMaxLevels = 1000;

/// One instrument's market, as a feed keeps it, and a line for each message of it.
class Dump {
 public:
  Dump(const std::string& symbol, std::size_t levels)
      : table_(table_of(symbol)), market_(table_, kMaxOrders, arena_), asks_(levels), bids_(levels) {}

  Arena& arena() noexcept { return arena_; }

  void message(std::uint64_t sequence, std::span<const std::byte> bytes, TsNs) noexcept {
    const venue::itch::Update update = market_.on_message(bytes);
    if (update.instrument == kNoInstrument) return;
    const std::size_t asks = market_.books().top(0, md::Side::Ask, asks_);
    const std::size_t bids = market_.books().top(0, md::Side::Bid, bids_);
    // While no line is heard nothing is known of what the venue says.
    const md::BookState state = closed_ ? md::BookState::Empty : market_.state(0);
    std::printf("%lu,%c,%ld,%s", sequence, static_cast<char>(bytes[0]), update.ts_ns, name_of(state).data());
    for (std::size_t i = 0; i < asks_.size(); ++i) {
      print(asks_[i], i < asks);
      print(bids_[i], i < bids);
    }
    std::printf("\n");
  }
  void begin_session(TsNs) noexcept {
    market_.reset();
    closed_ = false;
  }
  void lose(std::uint64_t, std::uint64_t, TsNs) noexcept { market_.lose(); }
  void begin_snapshot(TsNs) noexcept { market_.rebuild(); }
  void snapshot_message(std::span<const std::byte> bytes, TsNs ts) noexcept { message(0, bytes, ts); }
  void end_snapshot(TsNs) noexcept { market_.rebuilt(); }
  void fail_snapshot(TsNs) noexcept { market_.rebuild(); }
  void close(TsNs) noexcept { closed_ = true; }
  void open(TsNs) noexcept { closed_ = false; }

 private:
  static md::InstrumentTable table_of(const std::string& symbol) {
    md::InstrumentTable table;
    table.add({symbol, "nasdaq_itch", venue::itch::kPriceDecimals, 0});
    return table;
  }
  static void print(const md::Level& level, bool there) noexcept {
    if (there) {
      std::printf(",%ld,%ld", level.price, level.qty);
    } else {
      std::printf(",,");
    }
  }

  const md::InstrumentTable table_;
  Arena arena_;
  venue::itch::Market market_;
  std::vector<md::Level> asks_;
  std::vector<md::Level> bids_;
  bool closed_ = false;
};

int dump(const std::string& symbol, std::size_t levels, std::vector<std::string> files) {
  Dump to(symbol, levels);
  const std::vector<TsNs> midnights(files.size());
  venue::itch::ReplaySource source({.files = std::move(files), .midnights = midnights, .mold = {}}, "dump",
                                   to.arena());
  for (venue::itch::ReplayItem item{}; source.next(item);) venue::itch::play(item, to);
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

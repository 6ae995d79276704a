#pragma once

/// A venue that speaks ITCH, message by message: which stock a locate is today, the books of our instruments
/// by order, whether each may be used, and what the message was to a feature.
///
/// One thread, messages in the venue's order without a gap; who reads files or arbitrates lines sees to that
/// and says reset() at a new session. Memory comes from the arena at setup. A message of another instrument
/// costs its decoding and one look at a table of 128 kB.
///
/// What is an instrument's state:
/// - Empty until the session's directory (R) has named its locate.
/// - Halted until a trading action (H) says `T`, and by each that says something else: the venue lists every
///   stock that trades before its day begins. So a book under auction (`Q`, `P`), which may be crossed, is
///   not used. Halted too by an operational halt (h) of market Q, and by the end of system hours (S, `E`).
/// - Suspect from the first message on that cannot be right, or that found no memory, and all are where
///   messages are missing, or one is too short to say whose it is: until a session, a snapshot or a start of
///   messages (S, `O`) begins anew.
/// - Suspect with reason Crossed for as long as best bid and ask touch: the sequence is whole, so the book is
///   as the venue says and is right again when they part.
/// - Valid otherwise; an empty side is no fault.
///
/// Whose a message is, its locate says, and three things may contradict it:
/// - The order it is about stands in another instrument's book, or one of that number does already. Nobody
///   knows which of the two is wrong, so both are suspect. What happens to an order is held against our books
///   also where the locate is of no instrument of ours.
/// - It names another stock, whatever its type: both are suspect, as far as they are ours.
/// - The directory gives the locate to another stock, or the stock another locate, in the middle of a day:
///   the stock is suspect. So is one whose directory comes after its first order or trade: what came before
///   under that locate was nobody's.
/// Each is counted once a message, and Update::misfit says which it was.
///
/// What moves the book: A and F add; E, C and X reduce; D removes; U removes and adds, last in its queue.
/// What is a trade: E at the order's price, C at its own and only where it is printable, P and Q without
/// saying who began it. The executions of a cross are C that is not printable, and their volume prints once,
/// by Q. A broken trade (B) takes nothing back: a window has its trades as they were known.

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tickwire/core/arena.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"
#include "tickwire/md/book_state.hpp"
#include "tickwire/md/event.hpp"
#include "tickwire/md/instrument.hpp"
#include "tickwire/md/order_books.hpp"
#include "tickwire/venue/itch/decoder.hpp"

namespace tickwire::venue::itch {

/// Why a message cost a book its validity.
enum class Misfit : std::uint8_t {
  None,
  Malformed,
  UnknownOrder,
  DuplicateOrder,
  OtherBook,
  BadQty,
  NoMemory,
  OtherStock,
  LocateMoved,
  UnnamedLocate,
};

/// What a message did to one of our instruments.
struct Update {
  InstrumentId instrument = kNoInstrument;  // None of ours: nothing else below is set but `all`.
  bool book = false;                        // The book changed.
  bool arrived = false;                     // An order came.
  bool cancelled = false;                   // One went, or shrank, that was not executed.
  bool traded = false;                      // `trade` is set.
  bool state = false;                       // The state may be another one.
  bool all = false;                         // Of every instrument: a system event, or nobody knows whose.
  bool anew = false;                        // A day begins: what was is void, its times too.
  Misfit misfit = Misfit::None;             // A book that was right until now is not.
  InstrumentId other = kNoInstrument;       // A second one whose state may be another.
  Outcome outcome = Outcome::Message;
  std::int64_t ts_ns = 0;  // Since midnight; 0 where the message could not be read.
  md::Trade trade{};
};

/// Why books were given up, each counted once a message.
struct MarketCounts {
  std::uint64_t unknown_order = 0;
  std::uint64_t duplicate_order = 0;
  std::uint64_t other_book = 0;
  std::uint64_t bad_qty = 0;
  std::uint64_t other_stock = 0;
  std::uint64_t locate_moved = 0;
  std::uint64_t unnamed_locate = 0;
  std::uint64_t orders_full = 0;
  std::uint64_t levels_full = 0;
  std::uint64_t others = 0;  // Messages of instruments that are not ours, or of none.
  std::uint64_t crossed = 0;
};

class Market {
 public:
  /// The instruments are the books, by their number. Throws SetupError.
  Market(const md::InstrumentTable& instruments, std::size_t max_orders, Arena& arena);

  Update on_message(std::span<const std::byte> message) noexcept TICKWIRE_HOT;

  /// For whoever has the next messages at hand, from a file or in a datagram: says that this one will come,
  /// and brings what it will touch out of memory meanwhile. Call it for each, in their order, kAhead messages
  /// before on_message() has it, or as far ahead as they are known. Any bytes will do; nothing changes.
  /// Returns whose it looks like, kNoInstrument where none of ours.
  InstrumentId prepare(std::span<const std::byte> message) noexcept TICKWIRE_HOT;
  static constexpr std::size_t kAhead = 12;

  /// A new session: nothing is known.
  void reset() noexcept;
  /// A snapshot begins: nothing is known but whether the venue's day is over, and every book is suspect until
  /// rebuilt() says that the snapshot is whole.
  void rebuild() noexcept;
  void rebuilt() noexcept { building_ = false; }
  /// Messages are missing: every book is suspect until one of the above.
  void lose() noexcept TICKWIRE_HOT { lost_ = true; }

  [[nodiscard]] md::BookState state(InstrumentId instrument) const noexcept TICKWIRE_HOT;
  /// Why it is not Valid.
  [[nodiscard]] md::InvalidReason reason(InstrumentId instrument) const noexcept TICKWIRE_HOT;

  [[nodiscard]] const md::OrderBooks& books() const noexcept TICKWIRE_HOT { return books_; }
  [[nodiscard]] const Decoder& decoder() const noexcept { return decoder_; }
  [[nodiscard]] const MarketCounts& counts() const noexcept { return counts_; }

 private:
  struct Status {
    bool named;
    bool trading;
    bool operational_halt;
    bool crossed;
    md::InvalidReason damage;  // None while the book is right.
    std::uint16_t locate;      // Where it is named.
    std::uint64_t symbol;      // As messages spell it.
  };
  // Of by_locate_, besides an instrument plus one and 0, a locate that no directory named and nothing used.
  static constexpr InstrumentId kOthers = ~InstrumentId{0};
  static constexpr InstrumentId kHeard = kOthers - 1;  // Nor was it named, but orders or trades had it.

  [[nodiscard]] bool is_ours(InstrumentId place) const noexcept TICKWIRE_HOT { return place - 1 < count_; }
  /// May a stock of this spelling be ours? A look at 8 kB where it is not.
  [[nodiscard]] bool may_be_ours(std::uint64_t symbol) const noexcept TICKWIRE_HOT {
    const std::uint64_t bit = symbol * 0x9E3779B97F4A7C15U >> 48U;
    return (symbols_[bit / 64] >> (bit % 64) & 1U) != 0;
  }

  [[nodiscard]] bool is_blank() const noexcept TICKWIRE_HOT;
  void apply(const Message& message, Update& update) noexcept TICKWIRE_HOT;
  void apply_rare(const Message& message, Update& update) noexcept TICKWIRE_HOT;
  void apply_others(const Message& message, InstrumentId& place, Update& update) noexcept TICKWIRE_HOT;
  void apply_directory(const Message& message, Update& update) noexcept TICKWIRE_HOT;
  void damage(InstrumentId instrument, md::InvalidReason why, Misfit misfit, Update& update) noexcept
      TICKWIRE_HOT;
  /// Of an order that a message changed: was it done as the message says?
  [[nodiscard]] bool check(md::OrderChange change, Update& update) noexcept TICKWIRE_HOT {
    if (change.result == md::OrderResult::Done) [[likely]]
      return true;
    refuse(change, update);
    return false;
  }
  [[gnu::noinline]] void refuse(md::OrderChange change, Update& update) noexcept TICKWIRE_HOT;
  [[gnu::noinline]] void touches_ours(const Message& message, Update& update) noexcept TICKWIRE_HOT;
  [[gnu::noinline]] void names_ours(const Message& message, bool unnamed, Update& update) noexcept
      TICKWIRE_HOT;
  [[nodiscard]] bool names_another(const Message& message, Update& update) noexcept TICKWIRE_HOT {
    return std::bit_cast<std::uint64_t>(message.symbol) != status_[update.instrument].symbol &&
           names_another_slow(message, update);
  }
  [[nodiscard, gnu::noinline]] bool names_another_slow(const Message& message, Update& update) noexcept
      TICKWIRE_HOT;

  const md::InstrumentTable& instruments_;
  const InstrumentId count_;
  Decoder decoder_;
  md::OrderBooks books_;
  std::span<InstrumentId> by_locate_;  // Plus one; 0 is none of ours.
  std::span<Status> status_;
  std::array<std::uint64_t, 1024> symbols_{};  // A bit for each of ours, by a hash of its spelling.
  bool closed_ = false;
  bool lost_ = false;
  bool building_ = false;
  /// Books whose heads prepare() asked for and whose levels are next, plus one, in a ring.
  std::array<InstrumentId, kAhead / 2> prepared_{};
  std::size_t prepared_at_ = 0;
  MarketCounts counts_;
};

}  // namespace tickwire::venue::itch

#include "tickwire/venue/itch/decoder.hpp"

#include <bit>
#include <cstring>

namespace tickwire::venue::itch {

namespace {

constexpr std::uint8_t kUnknown = 0xFF;

/// By first byte, the place in kTypes.
constexpr std::array<std::uint8_t, 256> kPlaces = [] {
  std::array<std::uint8_t, 256> places{};
  places.fill(kUnknown);
  for (std::size_t i = 0; i < kTypes.size(); ++i) {
    places[static_cast<std::size_t>(kTypes[i].type)] = static_cast<std::uint8_t>(i);
  }
  return places;
}();

static_assert(std::endian::native == std::endian::little, "the loads below turn the bytes round");

std::uint64_t load64(const std::byte* at) noexcept TICKWIRE_HOT {
  std::uint64_t value = 0;
  std::memcpy(&value, at, sizeof value);
  return __builtin_bswap64(value);
}
std::uint32_t load32(const std::byte* at) noexcept TICKWIRE_HOT {
  std::uint32_t value = 0;
  std::memcpy(&value, at, sizeof value);
  return __builtin_bswap32(value);
}
std::uint16_t load16(const std::byte* at) noexcept TICKWIRE_HOT {
  std::uint16_t value = 0;
  std::memcpy(&value, at, sizeof value);
  return __builtin_bswap16(value);
}
char load_char(const std::byte* at) noexcept TICKWIRE_HOT { return static_cast<char>(*at); }

bool load_side(const std::byte* at, md::Side& side) noexcept TICKWIRE_HOT {
  side = load_char(at) == 'S' ? md::Side::Ask : md::Side::Bid;
  return load_char(at) == 'S' || load_char(at) == 'B';
}

}  // namespace

Outcome Decoder::refuse(Outcome why) noexcept {
  ++refused_;
  return why;
}

Outcome Decoder::decode(std::span<const std::byte> message, Message& out) noexcept {
  const std::byte* const at = message.data();
  out = Message{};
  if (message.empty()) [[unlikely]]
    return Outcome::Empty;
  const std::uint8_t place = kPlaces[static_cast<std::size_t>(at[0])];
  if (place == kUnknown) [[unlikely]] {
    ++unknown_;
    return Outcome::UnknownType;
  }
  if (message.size() >= 3) [[likely]]
    out.locate = load16(at + 1);
  const TypeInfo& info = kTypes[place];
  if (message.size() != info.bytes) [[unlikely]]
    return refuse(Outcome::BadLength);
  out.type = info.type;
  // The tracking number and the six bytes of the time in one load.
  out.ts_ns = static_cast<std::int64_t>(load64(at + 3) & 0xFFFFFFFFFFFFU);

  bool good = true;
  switch (info.type) {
    case Type::AddOrder:
    case Type::AddOrderMpid:
      out.ref = load64(at + kRefOffset);
      good = load_side(at + 19, out.side);
      out.qty = load32(at + 20);
      out.price = load32(at + 32);
      break;
    case Type::Executed:
      out.ref = load64(at + kRefOffset);
      out.qty = load32(at + 19);
      out.match = load64(at + 23);
      out.printable = true;
      break;
    case Type::ExecutedWithPrice:
      out.ref = load64(at + kRefOffset);
      out.qty = load32(at + 19);
      out.match = load64(at + 23);
      out.printable = load_char(at + 31) == 'Y';
      good = out.printable || load_char(at + 31) == 'N';
      out.price = load32(at + 32);
      break;
    case Type::Cancel:
      out.ref = load64(at + kRefOffset);
      out.qty = load32(at + 19);
      break;
    case Type::Delete: out.ref = load64(at + kRefOffset); break;
    case Type::Replace:
      out.ref = load64(at + kRefOffset);
      out.new_ref = load64(at + 19);
      out.qty = load32(at + 27);
      out.price = load32(at + 31);
      break;
    case Type::Trade:
      out.ref = load64(at + kRefOffset);
      good = load_side(at + 19, out.side);
      out.qty = load32(at + 20);
      out.price = load32(at + 32);
      out.match = load64(at + 36);
      out.printable = true;
      break;
    case Type::CrossTrade:
      out.qty = load64(at + 11);
      out.price = load32(at + 27);
      out.match = load64(at + 31);
      out.code = load_char(at + 39);
      out.printable = true;
      break;
    case Type::BrokenTrade: out.match = load64(at + 11); break;
    case Type::SystemEvent:
    case Type::MwcbStatus: out.code = load_char(at + 11); break;
    case Type::TradingAction: out.code = load_char(at + 19); break;
    case Type::OperationalHalt:
      out.code = load_char(at + 19);
      out.action = load_char(at + 20);
      break;
    case Type::StockDirectory:
    case Type::RegSho:
    case Type::MarketParticipant:
    case Type::MwcbLevels:
    case Type::IpoQuoting:
    case Type::LuldCollar:
    case Type::Imbalance:
    case Type::RetailInterest:
    case Type::DirectListing: break;
  }
  if (!good || out.price > kMaxPrice || out.ts_ns >= kDayNs) [[unlikely]]
    return refuse(Outcome::BadField);
  if (info.symbol_at != 0) std::memcpy(out.symbol.data(), at + info.symbol_at, out.symbol.size());
  ++counts_[place];
  return Outcome::Message;
}

}  // namespace tickwire::venue::itch

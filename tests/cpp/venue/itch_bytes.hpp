#pragma once

/// Messages of ITCH 5.0 as bytes, field by field, for tests and benches: written from the specification's
/// table of offsets, not with the decoder's code.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace tickwire::venue::itch::bytes {

class Writer {
 public:
  Writer(char type, std::uint16_t locate, std::uint64_t ts_ns) {
    text(std::string_view(&type, 1)).u16(locate).u16(0).u48(ts_ns);
  }

  Writer& number(std::uint64_t value, int bytes) {
    for (int i = bytes - 1; i >= 0; --i) out_ += static_cast<char>(value >> (8 * i) & 0xFFU);
    return *this;
  }
  Writer& u16(std::uint64_t value) { return number(value, 2); }
  Writer& u32(std::uint64_t value) { return number(value, 4); }
  Writer& u48(std::uint64_t value) { return number(value, 6); }
  Writer& u64(std::uint64_t value) { return number(value, 8); }
  Writer& text(std::string_view value, std::size_t width = 0) {
    out_ += value;
    if (value.size() < width) out_.append(width - value.size(), ' ');
    return *this;
  }
  [[nodiscard]] std::string done() const { return out_; }

 private:
  std::string out_;
};

inline std::string system_event(std::uint64_t ts, char code) {
  return Writer('S', 0, ts).text(std::string_view(&code, 1)).done();
}
inline std::string directory(std::uint16_t locate, std::uint64_t ts, std::string_view stock) {
  return Writer('R', locate, ts)
      .text(stock, 8)
      .text("QN")
      .u32(100)
      .text("NC")
      .text("Z ")
      .text("PNN1N")
      .u32(0)
      .text("N")
      .done();
}
inline std::string trading_action(std::uint16_t locate, std::uint64_t ts, std::string_view stock,
                                  char state) {
  return Writer('H', locate, ts)
      .text(stock, 8)
      .text(std::string_view(&state, 1))
      .text(" ")
      .text("", 4)
      .done();
}
inline std::string operational_halt(std::uint16_t locate, std::uint64_t ts, std::string_view stock,
                                    char market, char action) {
  return Writer('h', locate, ts)
      .text(stock, 8)
      .text(std::string_view(&market, 1))
      .text(std::string_view(&action, 1))
      .done();
}
inline std::string add(std::uint16_t locate, std::uint64_t ts, std::uint64_t ref, char side,
                       std::uint32_t shares, std::string_view stock, std::uint32_t price) {
  return Writer('A', locate, ts)
      .u64(ref)
      .text(std::string_view(&side, 1))
      .u32(shares)
      .text(stock, 8)
      .u32(price)
      .done();
}
inline std::string add_mpid(std::uint16_t locate, std::uint64_t ts, std::uint64_t ref, char side,
                            std::uint32_t shares, std::string_view stock, std::uint32_t price) {
  return Writer('F', locate, ts)
      .u64(ref)
      .text(std::string_view(&side, 1))
      .u32(shares)
      .text(stock, 8)
      .u32(price)
      .text("ABCD")
      .done();
}
inline std::string executed(std::uint16_t locate, std::uint64_t ts, std::uint64_t ref, std::uint32_t shares,
                            std::uint64_t match) {
  return Writer('E', locate, ts).u64(ref).u32(shares).u64(match).done();
}
inline std::string executed_at(std::uint16_t locate, std::uint64_t ts, std::uint64_t ref,
                               std::uint32_t shares, std::uint64_t match, char printable,
                               std::uint32_t price) {
  return Writer('C', locate, ts)
      .u64(ref)
      .u32(shares)
      .u64(match)
      .text(std::string_view(&printable, 1))
      .u32(price)
      .done();
}
inline std::string cancel(std::uint16_t locate, std::uint64_t ts, std::uint64_t ref, std::uint32_t shares) {
  return Writer('X', locate, ts).u64(ref).u32(shares).done();
}
inline std::string remove(std::uint16_t locate, std::uint64_t ts, std::uint64_t ref) {
  return Writer('D', locate, ts).u64(ref).done();
}
inline std::string replace(std::uint16_t locate, std::uint64_t ts, std::uint64_t ref, std::uint64_t new_ref,
                           std::uint32_t shares, std::uint32_t price) {
  return Writer('U', locate, ts).u64(ref).u64(new_ref).u32(shares).u32(price).done();
}
inline std::string trade(std::uint16_t locate, std::uint64_t ts, std::uint32_t shares, std::string_view stock,
                         std::uint32_t price, std::uint64_t match) {
  return Writer('P', locate, ts).u64(0).text("B").u32(shares).text(stock, 8).u32(price).u64(match).done();
}
inline std::string cross(std::uint16_t locate, std::uint64_t ts, std::uint64_t shares, std::string_view stock,
                         std::uint32_t price, std::uint64_t match) {
  return Writer('Q', locate, ts).u64(shares).text(stock, 8).u32(price).u64(match).text("O").done();
}

inline std::span<const std::byte> view(const std::string& message) {
  return {reinterpret_cast<const std::byte*>(message.data()), message.size()};
}

}  // namespace tickwire::venue::itch::bytes

#include "tickwire/net/websocket/frame_parser.hpp"

#include <cstring>
#include <string>

#include "tickwire/core/error.hpp"

namespace tickwire::net {
namespace {

constexpr std::uint8_t kContinuation = 0x0;
constexpr std::uint8_t kText = 0x1;
constexpr std::uint8_t kBinary = 0x2;
constexpr std::uint8_t kClose = 0x8;
constexpr std::uint8_t kPing = 0x9;
constexpr std::uint8_t kPong = 0xA;

constexpr std::size_t kMaxHeaderBytes = 10;  // Without a mask, which a server never sends.
constexpr std::size_t kMaxControlBytes = 125;

/// Room behind the largest frame, so that one receive is worth its system call, and the most that
/// one receive may take: what is read together shares one receive stamp.
constexpr std::size_t kReadBytes = std::size_t{64} << 10;

/// Prefaulted part of the receive buffer: more than any venue's usual message.
constexpr std::size_t kPrefaultBytes = std::size_t{1} << 20;

bool is_control(std::uint8_t opcode) noexcept TICKWIRE_HOT { return (opcode & 0x8) != 0; }

// RFC 6455 §7.4 and the codes registered since (1012 to 1014). 1004 is reserved; 1005, 1006 and 1015
// exist only in reports; 1016 to 2999 are not assigned.
bool may_be_on_the_wire(std::uint16_t code) noexcept TICKWIRE_HOT {
  return (code >= 1000 && code <= 1014 && code != 1004 && code != kCloseNoCode && code != kCloseDropped) ||
         (code >= 3000 && code <= 4999);
}

FrameLimits checked(const FrameLimits& limits) {
  if (limits.max_frame_bytes < kMaxControlBytes) {
    throw SetupError("max_frame_bytes", "at least 125 (the largest control frame)",
                     std::to_string(limits.max_frame_bytes));
  }
  if (limits.max_message_bytes != 0 && limits.max_message_bytes < limits.max_frame_bytes) {
    throw SetupError("max_message_bytes", "0 or at least max_frame_bytes",
                     std::to_string(limits.max_message_bytes));
  }
  // Far below where a sum of sizes could wrap.
  constexpr std::size_t kMost = std::size_t{1} << 40;
  if (limits.max_frame_bytes > kMost || limits.max_message_bytes > kMost) {
    throw SetupError("max_frame_bytes", "at most 2^40", std::to_string(limits.max_frame_bytes));
  }
  return limits;
}

}  // namespace

FrameParser::FrameParser(const FrameLimits& limits)
    : max_frame_(checked(limits).max_frame_bytes),
      max_message_(limits.max_message_bytes != 0 ? limits.max_message_bytes : limits.max_frame_bytes),
      capacity_(max_frame_ + kMaxHeaderBytes + kReadBytes),
      buffer_("receive buffer", capacity_ + kMessagePadding, kPrefaultBytes),
      message_("message buffer", max_message_ + kMessagePadding, kReadBytes) {}

void FrameParser::reset() noexcept {
  begin_ = end_ = 0;
  have_header_ = false;
  in_message_ = false;
  message_bytes_ = 0;
  utf8_.reset();
  done_ = false;
  violation_code_ = 0;
  violation_ = {};
}

std::span<char> FrameParser::writable() noexcept {
  const std::size_t tail = end_ - begin_;
  if (done_ || tail == 0) {
    begin_ = end_ = 0;
  } else {
    // Move the tail to the front when the frame in hand would not fit behind begin_, or when so much
    // is behind us that moving pays for itself: staying at the front keeps the buffer in cache.
    const std::size_t frame_bytes = have_header_ ? header_bytes_ + payload_bytes_ : kMaxHeaderBytes;
    if (capacity_ - begin_ < frame_bytes + 1 || end_ == capacity_ ||
        (begin_ >= kReadBytes && tail <= begin_)) {
      std::memmove(buffer_.data(), buffer_.data() + begin_, tail);
      begin_ = 0;
      end_ = tail;
    }
  }
  const std::size_t room = capacity_ - end_;
  return {buffer_.data() + end_, room < kReadBytes ? room : kReadBytes};
}

Frame FrameParser::next() noexcept {
  if (done_) [[unlikely]] {
    return violation_code_ == 0 ? Frame{} : Frame{FrameKind::Violation, violation_code_, {}};
  }
  // Ends: every turn consumes a frame that is already in the buffer.
  for (;;) {
    if (!have_header_) {
      if (!read_header()) {
        return violation_code_ == 0 ? Frame{} : Frame{FrameKind::Violation, violation_code_, {}};
      }
    }
    if (is_control(opcode_)) [[unlikely]] {
      if (end_ - begin_ < header_bytes_ + payload_bytes_) return {};
      return take_control();
    }
    const Frame frame = take_data();
    // A fragment that does not end its message has been put aside: look at the next frame.
    if (frame.kind != FrameKind::None || have_header_) return frame;
  }
}

// True when the header is complete and allowed. False: more bytes are needed, or violation_code_ is set.
bool FrameParser::read_header() noexcept {
  const auto* at = reinterpret_cast<const unsigned char*>(buffer_.data()) + begin_;
  const std::size_t available = end_ - begin_;
  if (available == 0) return false;

  const auto refuse = [this](std::uint16_t code, std::string_view why) noexcept {
    (void)fail(code, why);
    return false;
  };
  const bool final = (at[0] & 0x80) != 0;
  const auto opcode = static_cast<std::uint8_t>(at[0] & 0x0F);
  if ((at[0] & 0x70) != 0) [[unlikely]]
    return refuse(kCloseProtocolError, "reserved bits set");
  if (is_control(opcode)) {
    if (opcode > kPong) [[unlikely]]
      return refuse(kCloseProtocolError, "unknown control opcode");
    if (!final) [[unlikely]]
      return refuse(kCloseProtocolError, "fragmented control frame");
  } else {
    if (opcode > kBinary) [[unlikely]]
      return refuse(kCloseProtocolError, "unknown data opcode");
    if (opcode == kContinuation && !in_message_) [[unlikely]] {
      return refuse(kCloseProtocolError, "continuation of no message");
    }
    if (opcode != kContinuation && in_message_) [[unlikely]] {
      return refuse(kCloseProtocolError, "new message inside a fragmented one");
    }
  }

  if (available < 2) return false;
  if ((at[1] & 0x80) != 0) [[unlikely]]
    return refuse(kCloseProtocolError, "masked frame from the server");
  std::uint64_t length = at[1] & 0x7F;
  std::size_t header_bytes = 2;
  if (is_control(opcode) && length > kMaxControlBytes) [[unlikely]] {
    return refuse(kCloseProtocolError, "control frame longer than 125 bytes");
  }
  if (length >= 126) {
    const std::size_t length_bytes = length == 126 ? 2 : 8;
    header_bytes += length_bytes;
    if (available < header_bytes) return false;
    length = 0;
    for (std::size_t i = 0; i < length_bytes; ++i) length = length << 8 | at[2 + i];
    if (length_bytes == 8 && (length >> 63) != 0) [[unlikely]] {
      return refuse(kCloseProtocolError, "frame length with its top bit set");
    }
    if (length < (length_bytes == 2 ? 126u : 65536u)) [[unlikely]] {
      return refuse(kCloseProtocolError, "frame length not in its shortest form");
    }
  }
  if (length > max_frame_) [[unlikely]]
    return refuse(kCloseTooLarge, "frame above max_frame_bytes");
  if (!is_control(opcode) && in_message_ && length > max_message_ - message_bytes_) [[unlikely]] {
    return refuse(kCloseTooLarge, "message above max_frame_bytes");
  }

  final_ = final;
  opcode_ = opcode;
  header_bytes_ = header_bytes;
  payload_bytes_ = static_cast<std::size_t>(length);
  checked_bytes_ = 0;
  have_header_ = true;
  if (opcode == kText || opcode == kBinary) {
    is_text_ = opcode == kText;
    utf8_.reset();
  }
  return true;
}

// Gives None with have_header_ still set when the frame is not complete.
Frame FrameParser::take_data() noexcept {
  const char* const payload = buffer_.data() + begin_ + header_bytes_;
  const std::size_t received = end_ - begin_ - header_bytes_;
  const std::size_t present = received < payload_bytes_ ? received : payload_bytes_;
  if (is_text_) {
    if (!utf8_.accept(payload + checked_bytes_, present - checked_bytes_)) [[unlikely]] {
      return fail(kCloseBadText, "text that is not UTF-8");
    }
    checked_bytes_ = present;
  }
  if (present < payload_bytes_) return {};
  if (is_text_ && final_ && !utf8_.complete()) [[unlikely]] {
    return fail(kCloseBadText, "text that ends inside a UTF-8 sequence");
  }

  begin_ += header_bytes_ + payload_bytes_;
  have_header_ = false;
  if (!final_ || in_message_) [[unlikely]]
    return take_fragment({payload, payload_bytes_});
  return {is_text_ ? FrameKind::Text : FrameKind::Binary, 0, {payload, payload_bytes_}};
}

Frame FrameParser::take_fragment(std::span<const char> payload) noexcept {
  if (!in_message_) message_bytes_ = 0;
  if (!payload.empty()) std::memcpy(message_.data() + message_bytes_, payload.data(), payload.size());
  message_bytes_ += payload.size();
  in_message_ = !final_;
  if (!final_) return {};
  return {is_text_ ? FrameKind::Text : FrameKind::Binary, 0, {message_.data(), message_bytes_}};
}

Frame FrameParser::take_control() noexcept {
  const std::span<const char> payload{buffer_.data() + begin_ + header_bytes_, payload_bytes_};
  begin_ += header_bytes_ + payload_bytes_;
  have_header_ = false;
  if (opcode_ == kClose) return take_close(payload);
  return {opcode_ == kPing ? FrameKind::Ping : FrameKind::Pong, 0, payload};
}

Frame FrameParser::take_close(std::span<const char> payload) noexcept {
  std::uint16_t code = kCloseNoCode;
  if (payload.size() == 1) return fail(kCloseProtocolError, "close frame with half a code");
  if (payload.size() >= 2) {
    code = static_cast<std::uint16_t>(static_cast<unsigned char>(payload[0]) << 8 |
                                      static_cast<unsigned char>(payload[1]));
    if (!may_be_on_the_wire(code))
      return fail(kCloseProtocolError, "close frame with a code that is not allowed");
    payload = payload.subspan(2);
    // A validator of its own: a fragmented text may be in progress around the close.
    Utf8Validator reason;
    if (!reason.accept(payload.data(), payload.size()) || !reason.complete()) {
      return fail(kCloseBadText, "close reason that is not UTF-8");
    }
  }
  done_ = true;
  return {FrameKind::Close, code, payload};
}

Frame FrameParser::fail(std::uint16_t code, std::string_view why) noexcept {
  done_ = true;
  violation_code_ = code;
  violation_ = why;
  return {FrameKind::Violation, code, {}};
}

}  // namespace tickwire::net

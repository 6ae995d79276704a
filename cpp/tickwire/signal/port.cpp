#include "tickwire/signal/port.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace tickwire::signal {

SignalPort::SignalPort(concurrent::SpscQueue& queue, concurrent::Waker& reader, std::size_t instrument_count,
                       Arena& arena)
    : queue_(queue), reader_(reader), waiting_(arena.allocate<SignalHeader>(instrument_count)) {}

bool SignalPort::send(const SignalHeader& header) noexcept {
  std::byte* slot = queue_.try_claim();
  if (slot == nullptr || (sent_ != nullptr && !sent_->note(header, queue_.published()))) return false;
  std::memcpy(slot, &header, sizeof header);
  // No number a reader could mistake for a score of this record.
  auto* rest = reinterpret_cast<float*>(slot + sizeof header);
  std::fill(rest, rest + (queue_.slot_bytes() - sizeof header) / sizeof(float),
            std::numeric_limits<float>::quiet_NaN());
  publish();
  return true;
}

void SignalPort::notice(const SignalHeader& header) noexcept {
  if (flush() && send(header)) return;
  const auto end = waiting_.begin() + static_cast<std::ptrdiff_t>(waiting_count_);
  const auto same = std::find_if(waiting_.begin(), end, [&](const SignalHeader& waiting) {
    return waiting.instrument == header.instrument;
  });
  *same = header;  // There is a place for every instrument, so `same` is one of ours even at the end.
  if (same == end) ++waiting_count_;
}

bool SignalPort::flush() noexcept {
  std::size_t sent = 0;
  while (sent < waiting_count_ && send(waiting_[sent])) ++sent;
  if (sent != 0) {
    std::copy(waiting_.begin() + static_cast<std::ptrdiff_t>(sent),
              waiting_.begin() + static_cast<std::ptrdiff_t>(waiting_count_), waiting_.begin());
    waiting_count_ -= sent;
  }
  return waiting_count_ == 0;
}

}  // namespace tickwire::signal

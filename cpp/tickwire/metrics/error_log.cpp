#include "tickwire/metrics/error_log.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace tickwire::metrics {

void ErrorLog::report(std::uint32_t kind, std::string_view text, TsNs ts, std::uint64_t times) noexcept {
  if (kind >= kKinds) [[unlikely]]
    return lost_.add(times);
  Entry& entry = entries_[kind];
  const std::uint64_t before = entry.count.load();
  // Cut where a character begins: half a UTF-8 sequence would make the whole text unreadable.
  std::size_t bytes = std::min(text.size(), kMaxText);
  if (bytes < text.size()) {
    while (bytes != 0 && (static_cast<unsigned char>(text[bytes]) & 0xC0U) == 0x80U) --bytes;
  }
  if (before == 0) {
    if (bytes != 0) std::memcpy(entry.text, text.data(), bytes);
    entry.text_bytes = static_cast<std::uint32_t>(bytes);
    entry.first_ts.store(ts);
  }
  entry.newest.store({text.data(), bytes});
  entry.last_ts.store(ts);
  entry.count.publish(before + times);
}

std::vector<ErrorEntry> ErrorLog::entries() const {
  std::vector<ErrorEntry> result;
  for (std::uint32_t kind = 0; kind < kKinds; ++kind) {
    const Entry& entry = entries_[kind];
    const std::uint64_t count = entry.count.observe();
    if (count == 0) continue;
    // A mapped file may hold anything: never read past the text.
    const std::size_t bytes = std::min<std::size_t>(entry.text_bytes, kMaxText);
    std::string first(entry.text, bytes);
    std::string newest = entry.newest.load().value_or(first);
    result.push_back(
        {kind, std::move(first), std::move(newest), entry.first_ts.load(), entry.last_ts.load(), count});
  }
  return result;
}

}  // namespace tickwire::metrics

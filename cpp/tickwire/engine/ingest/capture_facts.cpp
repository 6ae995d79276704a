#include "tickwire/engine/ingest/capture_facts.hpp"

#include <algorithm>

#include "tickwire/venue/venue_of.hpp"

namespace tickwire::engine {

void CaptureWitness::saw(std::span<const char> message) noexcept {
  if (looked_ == kMostLooked) return;
  ++looked_;
  const std::string_view venue = venue::venue_of(message);
  if (venue.empty()) return;
  for (auto& [name, count] : venues_) {
    if (!name.empty() && name != venue) continue;
    name = venue;
    ++count;
    return;
  }
}

void CaptureWitness::other(std::string_view symbol) noexcept {
  symbol = symbol.substr(0, kMostSymbolBytes);
  if (symbol.empty() || others_.size() == kMostKept || others_.contains(symbol)) return;
  others_.emplace(symbol);
}

std::string_view CaptureWitness::looks_like(std::string_view own) const noexcept {
  const auto most = std::max_element(venues_.begin(), venues_.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  return most->first == own ? std::string_view{} : most->first;
}

void CaptureWitness::tell(CaptureFacts& facts) const {
  facts.others_count = others_.size();
  for (const std::pmr::string& symbol : others_) {
    if (facts.others.size() < kMostNamed) facts.others.emplace_back(symbol);
  }
}

}  // namespace tickwire::engine

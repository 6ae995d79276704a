#pragma once

/// What a replay saw in a feed's captures that no counter tells: in which form the stamps were, whose
/// messages and which instruments it found instead of its own, and where a book was lost for good. So that
/// whoever gets no rows is told why.
///
/// The ingest agent writes it while it replays, where time is not short, and reads it out when all is read.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/core/types.hpp"
#include "tickwire/md/capture.hpp"

namespace tickwire::engine {

struct CaptureFacts {
  /// A book that is not valid at the end of the input.
  struct Lost {
    std::string instrument;
    std::string state;
    std::string reason;  // Why it left valid.
    std::string place;   // FILE:LINE; empty where the input has no lines.
    TsNs ts;             // When, by the receive times.
  };
  /// A book that was valid at the end and never gave a row.
  struct NotWarm {
    std::string instrument;
    std::size_t feature;   // Its place among the configured ones.
    std::int64_t more_ns;  // How much longer it would have taken; negative: so many more events.
  };

  std::string feed;
  std::vector<md::CaptureStamps> stamps;
  std::string looks_like;           // The venue that most messages are of, where it is not the feed's own.
  std::vector<std::string> others;  // Instruments that the feed does not name; the first few.
  std::uint64_t others_count = 0;
  std::vector<std::string> without_changes;   // The feed's own that no book change is of …
  std::vector<std::string> without_snapshot;  // … or no snapshot.
  std::vector<std::string> without_trades;    // Those that were valid, and no trade came of them.
  std::int64_t resolution_ns = 1;  // All stamps that windows go by are multiples of it: of a second or parts.
  std::vector<Lost> lost;
  std::vector<NotWarm> not_warm;
};

/// Gathers the first few of what there may be many of, in memory that it takes when it is made.
class CaptureWitness {
 public:
  /// A feed's message, used or not.
  void saw(std::span<const char> message) noexcept;
  /// One of an instrument that the feed does not name.
  void other(std::string_view symbol) noexcept;
  /// A stamp that windows go by.
  void stamped(TsNs ts) noexcept {
    stamped_ = std::min(stamped_ + 1, kFewStamps);
    while (ts % resolution_ns_ != 0) resolution_ns_ /= 1000;
  }
  /// What the stamps resolve: a second, a millisecond, a microsecond or a nanosecond. By a few nobody can
  /// tell.
  [[nodiscard]] std::int64_t resolution_ns() const noexcept {
    return stamped_ == kFewStamps ? resolution_ns_ : 1;
  }
  /// The venue that most messages are of, unless that is `own`.
  [[nodiscard]] std::string_view looks_like(std::string_view own) const noexcept;
  void tell(CaptureFacts& facts) const;

 private:
  static constexpr std::uint64_t kMostLooked = 2'000;
  static constexpr std::size_t kMostKept = 1'000;
  static constexpr std::size_t kMostNamed = 8;
  static constexpr std::size_t kMostSymbolBytes = 64;
  static constexpr std::size_t kBytesOfOne = 192;  // A node of the set, its string's own and their alignment.

  static constexpr int kFewStamps = 4;

  int stamped_ = 0;
  std::int64_t resolution_ns_ = 1'000'000'000;
  std::uint64_t looked_ = 0;
  std::array<std::pair<std::string_view, std::uint64_t>, 8> venues_{};
  std::vector<std::byte> memory_ = std::vector<std::byte>(kMostKept * kBytesOfOne);
  std::pmr::monotonic_buffer_resource resource_{memory_.data(), memory_.size(),
                                                std::pmr::null_memory_resource()};
  std::pmr::set<std::pmr::string, std::less<>> others_{&resource_};
};

}  // namespace tickwire::engine

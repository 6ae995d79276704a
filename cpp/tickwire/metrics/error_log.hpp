#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tickwire/concurrent/cell.hpp"
#include "tickwire/concurrent/text_cell.hpp"
#include "tickwire/core/hot.hpp"
#include "tickwire/core/types.hpp"

namespace tickwire::metrics {

/// One kind of error as a reader sees it.
struct ErrorEntry {
  std::uint32_t kind;
  std::string text;    // Of the first one.
  std::string newest;  // Of the last one.
  TsNs first_ts;
  TsNs last_ts;
  std::uint64_t count;
};

/// Errors of one agent, once per kind: the texts of the first and the last, their times, the count.
/// A fault that repeats a million times a second stays one line and costs some stores. One writing
/// thread, any reader, also from another process; allocates nothing.
///
/// An entry's first text and time are written once, before its count becomes 1, and never change: a
/// reader that observes the count sees them whole. The last text changes with each.
class ErrorLog {
 public:
  static constexpr std::size_t kKinds = 64;
  static constexpr std::size_t kMaxText = 224;

  /// `kind` is the agent's own numbering from 0; from kKinds on only the total in lost() grows. `text`
  /// may say what this first one was about (a file, an id) and is cut after kMaxText bytes.
  /// It happened so many `times`.
  void report(std::uint32_t kind, std::string_view text, TsNs ts, std::uint64_t times = 1) noexcept
      TICKWIRE_HOT;

  /// Any thread.
  std::vector<ErrorEntry> entries() const;
  std::uint64_t lost() const noexcept { return lost_.load(); }

 private:
  struct Entry {
    concurrent::Cell<std::uint64_t> count;  // 0: unused.
    concurrent::Cell<TsNs> first_ts;
    concurrent::Cell<TsNs> last_ts;
    std::uint32_t text_bytes;
    std::uint32_t reserved;
    char text[kMaxText];
    concurrent::TextCell<kMaxText> newest;
    [[maybe_unused]] std::array<std::byte, 16> reserved_end;
  };
  static_assert(sizeof(Entry) == 512, "mirrored in py/tickwire/stat_file.py");

  concurrent::Cell<std::uint64_t> lost_;
  [[maybe_unused]] std::array<std::byte, 120> reserved_{};
  std::array<Entry, kKinds> entries_{};
};

static_assert(sizeof(ErrorLog) == 128 + 512 * ErrorLog::kKinds, "mirrored in py/tickwire/stat_file.py");

}  // namespace tickwire::metrics

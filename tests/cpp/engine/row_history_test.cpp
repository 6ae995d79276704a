#include "tickwire/engine/ingest/row_history.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <vector>

namespace tickwire::engine {
namespace {

// The slow twin keeps every row and takes the last T.
TEST(RowHistory, WindowIsTheLastRowsOldestFirst) {
  constexpr std::size_t kFeatures = 3;
  for (const std::size_t window_rows : {1U, 2U, 3U, 7U, 100U}) {
    Arena arena(ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off});
    RowHistory history(window_rows, kFeatures, arena);
    std::vector<float> all;
    for (std::size_t i = 0; i < 5 * window_rows + 3; ++i) {
      if (i == 2 * window_rows + 1) {  // A new epoch forgets.
        history.clear();
        all.clear();
      }
      for (std::size_t k = 0; k < kFeatures; ++k) {
        const auto cell = static_cast<float>(i * 10 + k);
        history.next()[k] = cell;
        all.push_back(cell);
      }
      history.commit();
      EXPECT_EQ(std::vector<float>(history.newest().begin(), history.newest().end()),
                std::vector<float>(all.end() - kFeatures, all.end()));
      ASSERT_EQ(history.full(), all.size() >= window_rows * kFeatures);
      if (!history.full()) continue;
      const auto window = history.window();
      EXPECT_EQ(
          std::vector<float>(window.begin(), window.end()),
          std::vector<float>(all.end() - static_cast<std::ptrdiff_t>(window_rows * kFeatures), all.end()));
    }
  }
}

}  // namespace
}  // namespace tickwire::engine

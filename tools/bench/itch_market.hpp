#pragma once

/// What the benches of a whole exchange share: the day's file in memory, its instruments, and the features
/// that each of them has.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>

#include "itch_day.hpp"
#include "tickwire/engine/ingest/order_pipeline.hpp"
#include "tickwire/venue/itch/market.hpp"

namespace tickwire::bench {

/// The day's file, in memory before anything is timed.
class DayFile {
 public:
  explicit DayFile(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat about{};
    if (fd < 0 || ::fstat(fd, &about) != 0) throw std::runtime_error(path + ": " + std::strerror(errno));
    size_ = static_cast<std::size_t>(about.st_size);
    data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    ::close(fd);
    if (data_ == MAP_FAILED) throw std::runtime_error(path + ": " + std::strerror(errno));
  }
  ~DayFile() { ::munmap(data_, size_); }
  DayFile(const DayFile&) = delete;
  DayFile& operator=(const DayFile&) = delete;

  [[nodiscard]] std::span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(data_), size_};
  }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

inline std::span<const std::byte> message_at(const std::byte* at) {
  return {at + 2, static_cast<std::size_t>(at[0]) << 8U | static_cast<std::size_t>(at[1])};
}

template <typename OnMessage>
std::size_t walk(std::span<const std::byte> bytes, OnMessage on_message) {
  std::size_t count = 0;
  for (const std::byte* at = bytes.data(); at < bytes.data() + bytes.size(); ++count) {
    const std::span<const std::byte> message = message_at(at);
    on_message(message);
    at = message.data() + message.size();
  }
  return count;
}

/// The same, with the market told of each message some messages before, and `expect` of the instrument that
/// it looks like.
template <typename Expect, typename OnMessage>
std::size_t walk_prepared(std::span<const std::byte> bytes, venue::itch::Market& market, Expect expect,
                          OnMessage on_message) {
  const std::byte* ahead = bytes.data();
  const auto prepare = [&] {
    if (ahead == bytes.data() + bytes.size()) return;
    const std::span<const std::byte> message = message_at(ahead);
    expect(market.prepare(message));
    ahead = message.data() + message.size();
  };
  for (std::size_t i = 0; i < venue::itch::Market::kAhead; ++i) prepare();
  return walk(bytes, [&](std::span<const std::byte> message) {
    prepare();
    on_message(message);
  });
}

inline features::FeaturePlan sixteen_features() {
  constexpr std::int64_t kSecond = 1'000'000'000;
  return {.nodes = {{features::find_kernel("imbalance"), -1, 5, 0, 0, 0, 0},
                    {features::find_kernel("spread"), -1, 0, 0, 0, 0, 0},
                    {features::find_kernel("microprice_offset"), -1, 0, 0, 0, 0, 0},
                    {features::find_kernel("mid_return"), -1, 0, kSecond, 0, 0, 0},
                    {features::find_kernel("ofi"), -1, 5, kSecond, 0, 0, 0},
                    {features::find_kernel("trade_flow"), -1, 0, kSecond, 0, 0, 0},
                    {features::find_kernel("trade_count"), -1, 0, kSecond, 0, 0, 0},
                    {features::find_kernel("vwap_offset"), -1, 0, 10 * kSecond, 0, 0, 0},
                    {features::find_kernel("realized_vol"), -1, 0, 10 * kSecond, 0, 0, 0},
                    {features::find_kernel("queue_imbalance"), -1, 0, 0, 0, 0, 0},
                    {features::find_kernel("order_arrival_rate"), -1, 0, kSecond, 0, 0, 0},
                    {features::find_kernel("cancel_rate"), -1, 0, kSecond, 0, 0, 0},
                    {features::find_kernel("mean"), 0, 0, 5 * kSecond, 0, 0, 0},
                    {features::find_kernel("std"), 4, 0, 10 * kSecond, 0, 0, 0},
                    {features::find_kernel("zscore"), 4, 0, 10 * kSecond, 0, 0, 0},
                    {features::find_kernel("diff"), 0, 0, 0, 0, 0, 10}},
          .outputs = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};
}

inline engine::FeaturesConfig rows_on_every_event() {
  return {.trigger = engine::Trigger::Book,
          .every_ns = 0,
          .clock = engine::WindowClock::Event,
          .window_rows = 1,
          .max_event_rate = 400,
          .trade_gaps = engine::TradeGaps::Count,
          .accept_beyond_depth = false,
          .max_age_ns = 0,
          .plan = sixteen_features()};
}

inline md::InstrumentTable table_of(std::size_t instruments) {
  md::InstrumentTable table;
  for (std::size_t i = 0; i < instruments; ++i) table.add({bench::itch_symbol(i), "itch", 4, 0});
  return table;
}

}  // namespace tickwire::bench

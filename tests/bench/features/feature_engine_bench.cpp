#include <benchmark/benchmark.h>

#include <cstdint>
#include <random>
#include <vector>

#include "tickwire/features/feature_engine.hpp"

/// Nanoseconds a book event, with a trade every fourth, for the rows of the README and for a row of
/// every kernel. A thousand events a second of window time, so that windows of seconds are full of
/// samples and their rings do not fit the nearest cache.
namespace tickwire::features {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

FeaturePlan three_features() {
  return {.nodes = {{find_kernel("imbalance"), -1, 5, 0, 0, 0, 0},
                    {find_kernel("microprice_offset"), -1, 0, 0, 0, 0, 0},
                    {find_kernel("ofi"), -1, 5, kSecond, 0, 0, 0},
                    {find_kernel("zscore"), 2, 0, 30 * kSecond, 0, 0, 0}},
          .outputs = {0, 1, 3}};
}

FeaturePlan sixteen_features() {
  return {.nodes = {{find_kernel("imbalance"), -1, 5, 0, 0, 0, 0},
                    {find_kernel("spread"), -1, 0, 0, 0, 0, 0},
                    {find_kernel("microprice_offset"), -1, 0, 0, 0, 0, 0},
                    {find_kernel("mid_return"), -1, 0, kSecond, 0, 0, 0},
                    {find_kernel("ofi"), -1, 5, kSecond, 0, 0, 0},
                    {find_kernel("trade_flow"), -1, 0, kSecond, 0, 0, 0},
                    {find_kernel("trade_count"), -1, 0, kSecond, 0, 0, 0},
                    {find_kernel("vwap_offset"), -1, 0, 10 * kSecond, 0, 0, 0},
                    {find_kernel("realized_vol"), -1, 0, 10 * kSecond, 0, 0, 0},
                    {find_kernel("mean"), 0, 0, 5 * kSecond, 0, 0, 0},
                    {find_kernel("std"), 4, 0, 30 * kSecond, 0, 0, 0},
                    {find_kernel("min"), 2, 0, 10 * kSecond, 0, 0, 0},
                    {find_kernel("max"), 2, 0, 10 * kSecond, 0, 0, 0},
                    {find_kernel("zscore"), 4, 0, 30 * kSecond, 0, 0, 0},
                    {find_kernel("ema"), 2, 0, 0, 0, 2 * kSecond, 0},
                    {find_kernel("diff"), 0, 0, 0, 0, 0, 10}},
          .outputs = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};
}

void run(benchmark::State& state, const FeaturePlan& plan) {
  constexpr std::size_t kBooks = 4096;
  constexpr std::size_t kLevels = 5;
  std::mt19937_64 random(1);
  std::vector<md::Level> levels;
  std::int64_t mid = 6'000'000;
  for (std::size_t i = 0; i < kBooks; ++i) {
    mid += static_cast<std::int64_t>(random() % 3) - 1;
    for (const std::int64_t step : {-1, 1}) {
      for (std::size_t k = 0; k < kLevels; ++k) {
        levels.push_back(
            {mid + step * static_cast<std::int64_t>(k + 1), static_cast<std::int64_t>(random() % 1'000'000)});
      }
    }
  }
  const auto book = [&](std::uint64_t event) {
    const std::span<const md::Level> both(&levels[(event % kBooks) * 2 * kLevels], 2 * kLevels);
    return TopOfBook{both.first(kLevels), both.last(kLevels)};
  };

  Arena arena;
  FeatureEngine engine(plan, 8, FeatureLimits{.max_event_rate = 2000}, arena);
  std::vector<float> row(plan.outputs.size());
  TsNs t = 0;
  engine.start_epoch(book(0), t);
  std::uint64_t event = 0;
  const auto turn = [&] {
    t += 1'000'000;
    ++event;
    if (event % 4 == 0) {
      engine.on_trade({.id = event,
                       .price = 6'000'000,
                       .qty = 10,
                       .aggressor = event % 8 == 0 ? md::Aggressor::Buyer : md::Aggressor::Seller,
                       .printable = true},
                      t);
    }
    engine.on_book(book(event), t);
    if (engine.warm(t)) engine.write_row(t, row.data());
  };
  for (int i = 0; i < 100'000; ++i) turn();
  for (auto _ : state) {
    turn();
    benchmark::DoNotOptimize(row.data());
    benchmark::ClobberMemory();
  }
  state.counters["warm"] = engine.warm(t) ? 1 : 0;
}

void BM_ThreeFeatures(benchmark::State& state) { run(state, three_features()); }
void BM_SixteenFeatures(benchmark::State& state) { run(state, sixteen_features()); }
BENCHMARK(BM_ThreeFeatures);
BENCHMARK(BM_SixteenFeatures);

}  // namespace
}  // namespace tickwire::features

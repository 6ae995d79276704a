#include "tickwire/core/decimal.hpp"

#include <benchmark/benchmark.h>

#include <charconv>
#include <cstdint>
#include <string_view>

namespace tickwire {
namespace {

// A price as spot venues write it: eight decimals, most of them zeros.
constexpr std::string_view kPrice = "61837.63000000";

void ParseDecimal(benchmark::State& state) {
  std::int64_t value = 0;
  for (auto _ : state) {
    std::string_view token = kPrice;
    benchmark::DoNotOptimize(token);
    benchmark::DoNotOptimize(parse_decimal(token, 8, value));
    benchmark::DoNotOptimize(value);
  }
}
BENCHMARK(ParseDecimal);

// What exactness costs: the same token through the library's double.
void ParseDouble(benchmark::State& state) {
  double value = 0;
  for (auto _ : state) {
    std::string_view token = kPrice;
    benchmark::DoNotOptimize(token);
    benchmark::DoNotOptimize(std::from_chars(token.data(), token.data() + token.size(), value));
    benchmark::DoNotOptimize(value);
  }
}
BENCHMARK(ParseDouble);

}  // namespace
}  // namespace tickwire

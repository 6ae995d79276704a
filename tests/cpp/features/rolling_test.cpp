#include "tickwire/features/rolling.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <random>

namespace tickwire::features {
namespace {

TEST(ExactMath, LogRatioIsWithinTwoUnits) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  for (int i = 0; i < 200'000; ++i) {
    const double b = std::exp(60.0 * (uniform(random) - 0.5));
    const double reach = std::pow(10.0, -15.0 * uniform(random));
    const double a = i % 2 == 0 ? b * (1.0 + reach) : b * std::exp(30.0 * (uniform(random) - 0.5));
    const long double expected = std::fabs(a - b) < 0.1 * b
                                     ? std::log1p((static_cast<long double>(a) - b) / b)
                                     : std::log(static_cast<long double>(a) / b);
    const double got = log_ratio(a, b);
    ASSERT_LE(std::fabs(got - expected), 4.5e-16L * std::fabs(expected)) << a << ' ' << b;
  }
  EXPECT_EQ(log_ratio(3.0, 3.0), 0.0);
  EXPECT_TRUE(std::isnan(log_ratio(kNan, 3.0)));
  EXPECT_TRUE(std::isnan(log_ratio(3.0, kNan)));
}

TEST(ExactMath, OneMinusExp2IsAccurateFromTinyToLarge) {
  std::mt19937_64 random(2);
  std::uniform_real_distribution<double> exponent(-18.0, 2.2);
  for (int i = 0; i < 200'000; ++i) {
    const double z = std::pow(10.0, exponent(random));
    const long double expected =
        -std::expm1(-static_cast<long double>(z) * 0.693147180559945309417232121458176568L);
    ASSERT_LE(std::fabs(one_minus_exp2(z) - expected), 4.5e-16L * expected) << z;
  }
  EXPECT_EQ(one_minus_exp2(0.0), 0.0);
  EXPECT_EQ(one_minus_exp2(1.0), 0.5);
  EXPECT_EQ(one_minus_exp2(1e9), 1.0);
}

TEST(ExactMath, TwoProductLosesNothing) {
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> uniform(-1e9, 1e9);
  for (int i = 0; i < 100'000; ++i) {
    const double a = uniform(random);
    const double b = uniform(random) * 1e-6;
    const DoubleDouble product = two_product(a, b);
    ASSERT_EQ(product.high, a * b);
    ASSERT_EQ(product.low, std::fma(a, b, -product.high));
  }
}

/// A window of the last `length` numbers, in the rolling way and by looking at all of them.
template <typename State>
class Both {
 public:
  explicit Both(std::size_t length) : length_(length) {}

  void push(double x) {
    ++number_;
    window_.push_back(x);
    rolling_.add(head_, number_, x);
    while (window_.size() > length_) {
      rolling_.remove(head_++, window_.front(), number_);
      window_.pop_front();
    }
  }
  const State& state() const { return rolling_.state(); }
  long double mean() const {
    long double sum = 0;
    for (const double x : window_) sum += static_cast<long double>(x) - window_.front();
    return window_.front() + sum / static_cast<long double>(window_.size());
  }
  long double variance() const {
    const long double centre = mean();
    long double sum = 0;
    for (const double x : window_) sum += (x - centre) * (x - centre);
    return sum / static_cast<long double>(window_.size());
  }
  std::size_t size() const { return window_.size(); }

 private:
  std::size_t length_;
  std::uint64_t number_ = 0;
  std::uint64_t head_ = 1;
  std::deque<double> window_;
  Rolling<State> rolling_;
};

TEST(Rolling, DoesNotDriftOverMillionsOfSamples) {
  Both<MomentState> moments(1'000);
  Both<SumState> sum(1'000);
  std::mt19937_64 random(4);
  std::uniform_real_distribution<double> noise(-1e-6, 1e-6);
  double level = 6e4;
  for (int i = 1; i <= 3'000'000; ++i) {
    if (i % 250'000 == 0) level = 6e4 + 1e4 * noise(random) / 1e-6;  // The price jumps, the noise stays.
    double x = level + noise(random);
    if (i % 700'001 == 0) x = 1e12;
    moments.push(x);
    sum.push(x);
    if (i % 9'973 != 0) continue;
    const long double variance = moments.variance();
    // long double itself keeps about 1e-8 of a step of 1e-6 at 60,000 once it is squared and summed.
    ASSERT_NEAR(moments.state().variance() / static_cast<double>(variance), 1.0, 1e-6) << i;
    const double mean = sum.state().sum.high / static_cast<double>(sum.size());
    ASSERT_NEAR(mean / static_cast<double>(sum.mean()), 1.0, 1e-15) << i;
  }
}

TEST(Rolling, NanPassesWithoutTrace) {
  Both<MomentState> clean(5);
  Both<MomentState> dirty(5);
  for (int i = 0; i < 40; ++i) {
    const double x = 0.1 * i * i;
    if (i == 20) {
      for (int k = 0; k < 7; ++k) dirty.push(kNan);
    }
    clean.push(x);
    dirty.push(x);
    if (i < 10 || i > 25) {
      ASSERT_NEAR(dirty.state().variance(), clean.state().variance(), 1e-12 * clean.state().variance());
      ASSERT_NEAR(dirty.state().deviation(x), clean.state().deviation(x), 1e-12);
    }
  }
}

}  // namespace
}  // namespace tickwire::features

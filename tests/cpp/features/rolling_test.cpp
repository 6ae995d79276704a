#include "tickwire/features/rolling.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <random>
#include <vector>

namespace tickwire::features {
namespace {

TEST(ExactMath, LogRatioIsWithinTwoUnits) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  for (int i = 0; i < 200'000; ++i) {
    const auto b = static_cast<std::uint64_t>(std::exp(43.0 * uniform(random)));
    const double reach = std::pow(10.0, -15.0 * uniform(random));
    const auto a = i % 2 == 0 ? b + static_cast<std::uint64_t>(static_cast<double>(b) * reach)
                              : static_cast<std::uint64_t>(std::exp(43.0 * uniform(random)));
    const long double expected = a / 2 < b && b / 2 < a ? std::log1p((static_cast<long double>(a) - b) / b)
                                                        : std::log(static_cast<long double>(a) / b);
    const double got = log_ratio(a, b);
    ASSERT_LE(std::fabs(got - expected), 4.5e-16L * std::fabs(expected)) << a << ' ' << b;
    ASSERT_EQ(log_ratio(b, a), -got) << a << ' ' << b;
  }
  EXPECT_EQ(log_ratio(3, 3), 0.0);
  EXPECT_EQ(log_ratio(0xffff'ffff'ffff'fffeULL, 0x7fff'ffff'ffff'ffffULL), log_ratio(2, 1));
  EXPECT_TRUE(std::isnan(log_ratio(0, 3)));
  EXPECT_TRUE(std::isnan(log_ratio(3, 0)));
}

/// Is `found` the double nearest to a / b, and of two as near the even one? By whole numbers: |a - found·b|
/// against half the distance to either neighbour, times b.
bool nearest(Uint128 a, Uint128 b, double found) {
  int exponent = 0;
  const auto mantissa = static_cast<std::uint64_t>(std::ldexp(std::frexp(found, &exponent), 53));
  exponent -= 53;  // found = mantissa · 2^exponent.
  // a / b lies between (2m - 1) and (2m + 1) times 2^(exponent - 1); long division finds 2m or what is
  // beside.
  Uint128 whole = a / b;
  Uint128 rest = a % b;
  int shift = 0;
  bool lost = false;
  for (; exponent - 1 + shift < 0; ++shift) {
    const bool carry = (rest >> 127) != 0;
    rest <<= 1;
    whole <<= 1;
    if (carry || rest >= b) {
      rest -= b;
      whole |= 1;
    }
  }
  for (; exponent - 1 + shift > 0; --shift) {
    lost = lost || (whole & 1) != 0;
    whole >>= 1;
  }
  const Uint128 doubled = Uint128{mantissa} * 2;
  const bool exact = rest == 0 && !lost;
  if (whole == doubled) return true;  // From 2m to below 2m + 1.
  if (whole == doubled + 1) return exact && (mantissa & 1) == 0;
  return whole == doubled - 1 && (!exact || (mantissa & 1) == 0);
}

TEST(ExactMath, QuotientIsRoundedOnce) {
  std::mt19937_64 random(5);
  const auto bits = [&](int low, int high) {
    const int width = std::uniform_int_distribution<int>(low, high)(random);
    Uint128 value = (Uint128{random()} << 64) | random();
    return (value >> (128 - width)) | (Uint128{1} << (width - 1));
  };
  for (int i = 0; i < 400'000; ++i) {
    const int most = i % 3 == 0 ? 53 : i % 3 == 1 ? 106 : 127;
    Uint128 a = bits(1, most);
    Uint128 b = bits(1, most);
    if (i % 5 == 0) {  // Half-way between two doubles: 54 bits and a power of two.
      a = bits(54, 54) | 1;
      b = Uint128{1} << (random() % 60);
    }
    const double found = quotient(static_cast<Int128>(a), b);
    ASSERT_TRUE(nearest(a, b, found)) << i;
    ASSERT_EQ(quotient(-static_cast<Int128>(a), b), -found);
    // The same ratio, written with other numbers.
    const Uint128 factor = bits(1, 20);
    if ((a >> 106) == 0 && (b >> 106) == 0) {
      ASSERT_EQ(quotient(static_cast<Int128>(a * factor), b * factor), found) << i;
    }
  }
  EXPECT_EQ(quotient(0, 7), 0.0);
  EXPECT_EQ(quotient(0, Uint128{1} << 120), 0.0);
  EXPECT_TRUE(std::isnan(quotient(0, 0)));
  EXPECT_TRUE(std::isnan(quotient(1, 0)));
}

TEST(ExactMath, LongSumForgetsWhatLeft) {
  std::mt19937_64 random(6);
  LongSum sum;
  for (int i = 0; i < 1'000; ++i) sum.add(0.1 * i);
  const double before = sum.value().high;
  for (int round = 0; round < 1'000; ++round) {
    const double large = std::ldexp(static_cast<double>(random()), static_cast<int>(random() % 60));
    sum.add(large);
    sum.add(0.3);
    sum.add(-large);
    sum.add(-0.3);
  }
  EXPECT_EQ(sum.value().high, before);
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

/// A window of the last `length` numbers, in the rolling way, as the kernels do it, and by looking at all.
class Both {
 public:
  explicit Both(std::size_t length) : length_(length) {}

  void push(double x) {
    window_.push_back(x);
    if (window_.size() == 1 || (moments_.count == 0 && x == x)) moments_.begin(x);
    moments_.add(x);
    sum_.add(x);
    while (window_.size() > length_) {
      moments_.remove(window_.front());
      sum_.remove(window_.front());
      window_.pop_front();
    }
    if (flat() || !moments_.worn()) return;
    ++added_up_;
    moments_.begin(static_cast<double>(mean()));
    for (const double value : window_) moments_.add(value);
    EXPECT_FALSE(moments_.worn());
  }
  const MomentState& moments() const { return moments_; }
  double sum() const { return sum_.sum.value().high; }
  double rolling_mean() const { return divide(sum_.sum.value(), {static_cast<double>(window_.size()), 0.0}); }
  std::size_t added_up() const { return added_up_; }
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
  bool flat() const {  // Or not a number.
    return std::all_of(window_.begin(), window_.end(), [&](double x) { return x == window_.front(); }) ||
           std::any_of(window_.begin(), window_.end(), [](double x) { return x != x; });
  }

  std::size_t length_;
  std::size_t added_up_ = 0;
  std::deque<double> window_;
  MomentState moments_;
  SumState sum_;
};

TEST(Rolling, DoesNotDriftOverMillionsOfSamples) {
  Both both(1'000);
  std::mt19937_64 random(4);
  std::uniform_real_distribution<double> noise(-1e-6, 1e-6);
  double level = 6e4;
  for (int i = 1; i <= 3'000'000; ++i) {
    if (i % 250'000 == 0) level = 6e4 + 1e4 * noise(random) / 1e-6;  // The price jumps, the noise stays.
    double x = level + noise(random);
    if (i % 700'001 == 0) x = 1e12;
    both.push(x);
    if (i % 9'973 != 0) continue;
    const auto expected = static_cast<double>(std::sqrt(both.variance()));
    // long double itself keeps about 1e-8 of a step of 1e-6 at 60,000 once it is squared and summed.
    ASSERT_NEAR(both.moments().deviation() / expected, 1.0, 1e-6) << i;
    const double mean = both.sum() / static_cast<double>(both.size());
    ASSERT_NEAR(mean / static_cast<double>(both.mean()), 1.0, 1e-15) << i;
  }
  // Three outliers and eleven jumps, and for each at most a level of magnitude or two.
  EXPECT_LE(both.added_up(), 28u);
}

TEST(Rolling, HugeNumbersLeaveNothingBehind) {
  for (const double huge : {1e6, 1e10, 3.6e12, 1e15, 1e22, -1e30}) {
    for (const std::size_t length : {2u, 16u, 1'000u, 5'000u}) {
      SCOPED_TRACE(testing::Message() << huge << ", " << length);
      Both both(length);
      std::mt19937_64 random(9);
      std::uniform_real_distribution<double> small(-1.0, 1.0);
      for (std::size_t i = 0; i < 6 * length + 200; ++i) {
        // One alone, as the first of all and within; then half a window of them.
        const bool is_huge = i == 0 || i == length + 3 || (i > 3 * length && i < 3 * length + length / 2);
        both.push(is_huge ? huge * (1.0 + 0.1 * small(random)) : small(random));
        if (i < length || i % (length / 8 + 1) != 0) continue;
        const auto expected = static_cast<double>(std::sqrt(both.variance()));
        ASSERT_NEAR(both.moments().deviation() / expected, 1.0, 1e-12) << i;
      }
      EXPECT_LE(both.added_up(), 12u);
    }
  }
}

TEST(Rolling, ValueDependsOnWhatIsInTheWindowAlone) {
  // The same numbers in every order, after others or none: the same bits.
  std::vector<double> numbers{0.1, 0.7, 0.2, 1e-3, 5.5, -0.4, 0.1, 3.25};
  double deviation = 0;
  double score = 0;
  double sum = 0;
  std::mt19937_64 random(10);
  for (int round = 0; round < 200; ++round) {
    Both both(numbers.size());
    for (int i = 0; i < round; ++i) both.push(std::ldexp(1.0, static_cast<int>(random() % 40)) * 0.3);
    std::shuffle(numbers.begin(), numbers.end(), random);
    for (const double x : numbers) both.push(x);
    if (round == 0) {
      deviation = both.moments().deviation();
      score = both.moments().score(5.5);
      sum = both.sum();
    }
    ASSERT_EQ(both.moments().deviation(), deviation) << round;
    ASSERT_EQ(both.moments().score(5.5), score) << round;
    ASSERT_EQ(both.sum(), sum) << round;
  }
  // So are mean and deviation where each comes more often.
  for (std::size_t times = 1; times < 40; ++times) {
    Both both(numbers.size() * times);
    for (std::size_t i = 0; i < times; ++i) {
      std::shuffle(numbers.begin(), numbers.end(), random);
      for (const double x : numbers) both.push(x);
    }
    ASSERT_EQ(both.moments().deviation(), deviation) << times;
    ASSERT_EQ(both.rolling_mean(), divide({sum, 0.0}, {8.0, 0.0})) << times;
  }
}

TEST(Rolling, NanPassesWithoutTrace) {
  Both clean(5);
  Both dirty(5);
  for (int i = 0; i < 40; ++i) {
    const double x = 0.1 * i * i;
    if (i == 20) {
      for (int k = 0; k < 7; ++k) dirty.push(kNan);
    }
    clean.push(x);
    dirty.push(x);
    if (i < 10 || i > 25) {
      ASSERT_EQ(dirty.moments().deviation(), clean.moments().deviation());
      ASSERT_EQ(dirty.moments().score(x), clean.moments().score(x));
    }
  }
}

}  // namespace
}  // namespace tickwire::features

#include "tickwire/infer/denormals.hpp"

#include <gtest/gtest.h>

#include <cfenv>
#include <limits>

namespace tickwire::infer {
namespace {

/// At run time, not by the compiler.
float halve(float value) {
  volatile float x = value;
  volatile float half = 0.5F;
  return x * half;
}

TEST(FlushDenormals, FlushesWhileItLives) {
  const float smallest = std::numeric_limits<float>::min();
  {
    const FlushDenormals flush;
    EXPECT_EQ(halve(smallest), 0.0F);
    EXPECT_EQ(halve(std::numeric_limits<float>::denorm_min() * 64), 0.0F);
    EXPECT_EQ(halve(3.0F), 1.5F);
  }
  EXPECT_EQ(halve(smallest), smallest / 2) << "the thread computes features after a run";
  EXPECT_GT(halve(smallest), 0.0F);
}

TEST(FlushDenormals, RoundsToNearestWhateverTheThreadDoes) {
  ASSERT_EQ(std::fesetround(FE_UPWARD), 0);
  volatile float one = 1.0F;
  volatile float tiny = 1e-9F;
  float inside = 0;
  {
    const FlushDenormals flush;
    inside = one + tiny;
  }
  const float after = one + tiny;
  std::fesetround(FE_TONEAREST);
  EXPECT_EQ(inside, 1.0F);
  EXPECT_GT(after, 1.0F) << "and the thread has its own mode back";
}

}  // namespace
}  // namespace tickwire::infer

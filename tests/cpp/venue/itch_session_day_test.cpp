#include "tickwire/venue/itch/session_day.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <random>

namespace tickwire::venue::itch {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kHour = 3600 * kSecond;

TEST(NewYorkMidnight, AgreesWithTheTableOfTimeZones) {
  // 2020-01-30, the sample day: winter, five hours behind.
  EXPECT_EQ(new_york_midnight(1'580'385'600 * kSecond), 1'580'360'400 * kSecond);
  // 2023-08-22 13:30 UTC: summer, four hours behind.
  EXPECT_EQ(new_york_midnight(1'692'711'000 * kSecond), 1'692'676'800 * kSecond);
}

TEST(NewYorkMidnight, BelongsToTheDayOfAChangeByTheHourBeforeIt) {
  // 2024-03-10 begins five hours behind, 2024-03-11 four; 2024-11-03 four, 2024-11-04 five.
  const std::pair<std::time_t, std::time_t> days[] = {{1'710'046'800, 1'710'129'600},
                                                      {1'730'606'400, 1'730'696'400}};
  for (const auto& [change, next] : days) {
    EXPECT_EQ(new_york_midnight(change * kSecond), change * kSecond);
    EXPECT_EQ(new_york_midnight(next * kSecond - 1), change * kSecond);
    EXPECT_EQ(new_york_midnight(next * kSecond), next * kSecond);
  }
}

TEST(SessionDay, TakesTheDayThatIsNextToTheReceiveTime) {
  const TsNs midnight = 1'580'360'400 * kSecond;
  SessionDay day(std::nullopt);
  EXPECT_EQ(day.at(9 * kHour, midnight + 9 * kHour + 5), midnight + 9 * kHour);
  // Half a minute before the venue's midnight, received behind it, and the other way round.
  EXPECT_EQ(day.at(24 * kHour - 30 * kSecond, midnight + 24 * kHour), midnight + 24 * kHour - 30 * kSecond);
  EXPECT_EQ(day.at(kSecond, midnight + 24 * kHour - 1), midnight + 24 * kHour + kSecond);
  // Days later.
  EXPECT_EQ(day.at(9 * kHour, midnight + 81 * kHour), midnight + 81 * kHour);
}

TEST(SessionDay, KeepsTheDayThatIsConfigured) {
  SessionDay day(TsNs{1'000});
  EXPECT_EQ(day.at(kHour, 400 * 24 * kHour), 1'000 + kHour);
}

}  // namespace
}  // namespace tickwire::venue::itch

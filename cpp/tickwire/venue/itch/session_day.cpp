#include "tickwire/venue/itch/session_day.hpp"

#include <chrono>

namespace tickwire::venue::itch {
namespace {

using std::chrono::days;
using std::chrono::floor;
using std::chrono::hours;
using std::chrono::nanoseconds;
using std::chrono::sys_days;
using std::chrono::year_month_day;

/// The first Sunday of that month.
sys_days first_sunday(std::chrono::year year, std::chrono::month month) noexcept {
  const sys_days first = year / month / 1;
  return first + (std::chrono::Sunday - std::chrono::weekday(first));
}

/// When the day began there.
std::chrono::sys_time<nanoseconds> midnight_of(sys_days day) noexcept {
  const std::chrono::year year = year_month_day(day).year();
  const sys_days begin = first_sunday(year, std::chrono::March) + days(7);
  const sys_days end = first_sunday(year, std::chrono::November);
  return day + (day > begin && day <= end ? hours(4) : hours(5));
}

}  // namespace

TsNs new_york_midnight(TsNs utc) noexcept {
  TsNs midnight = 0;
  TICKWIRE_HOT_EXEMPT_BEGIN("once a session: the standard library's calendar, which only calculates")
  const std::chrono::sys_time<nanoseconds> time{nanoseconds(utc)};
  // New York is never less than four hours behind.
  const sys_days latest = floor<days>(time - hours(4));
  const auto candidate = midnight_of(latest);
  midnight = (candidate <= time ? candidate : midnight_of(latest - days(1))).time_since_epoch().count();
  TICKWIRE_HOT_EXEMPT_END
  return midnight;
}

}  // namespace tickwire::venue::itch

#include "tickwire/concurrent/affinity.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

#include <string>
#include <thread>
#include <vector>

#include "tickwire/core/error.hpp"

namespace tickwire::concurrent {
namespace {

TEST(Affinity, PinsTheCallingThreadAlone) {
  const std::vector<int> before = allowed_cores();
  ASSERT_FALSE(before.empty());
  std::thread([&] {
    pin_this_thread(before.back(), "a thread");
    EXPECT_EQ(allowed_cores(), std::vector<int>{before.back()});
    EXPECT_EQ(::sched_getcpu(), before.back());
  }).join();
  EXPECT_EQ(allowed_cores(), before);
}

TEST(Affinity, ACoreThatCannotBeHadIsAnErrorThatSaysWhichCan) {
  std::thread([] {
    const std::vector<int> before = allowed_cores();
    for (const int core : {16000, 16384, -7}) {
      try {
        pin_this_thread(core, "feeds[0].core");
        FAIL() << "no error for core " << core;
      } catch (const SetupError& error) {
        const std::string text = error.what();
        EXPECT_TRUE(text.starts_with("feeds[0].core: expected a core")) << text;
        EXPECT_NE(text.find("now " + std::to_string(before.front())), std::string::npos) << text;
        EXPECT_NE(text.find("core " + std::to_string(core)), std::string::npos) << text;
      }
    }
    EXPECT_EQ(allowed_cores(), before);
  }).join();
}

TEST(Affinity, CutsALongThreadName) {
  std::thread([] {
    name_this_thread("ingest-binance_spot");
    char name[64] = {};
    ASSERT_EQ(::pthread_getname_np(::pthread_self(), name, sizeof name), 0);
    EXPECT_STREQ(name, "ingest-binance_");
  }).join();
}

}  // namespace
}  // namespace tickwire::concurrent

#include "tickwire/concurrent/agent_runner.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>

#include "tickwire/core/error.hpp"

namespace tickwire::concurrent {
namespace {

/// An agent made of functions, which counts what it was asked to do.
class TestAgent : public Agent {
 public:
  std::string_view name() const noexcept override { return "tester"; }
  void on_start() override {
    started.add(1);
    if (start) start();
  }
  int do_work() override {
    turns.add(1);
    return work ? work() : 0;
  }
  void on_close() override {
    closed.add(1);
    if (close) close();
  }
  void park(std::int64_t max_ns) noexcept override {
    parks.add(1);
    Agent::park(max_ns);
  }
  void every_100ms() noexcept override { ticks.add(1); }

  std::function<void()> start;
  std::function<int()> work;
  std::function<void()> close;
  Cell<int> started, turns, closed, parks, ticks;
};

/// Waits, generously bounded, for something another thread will do.
template <typename Condition>
bool eventually(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

TEST(AgentRunner, RunsAnAgentFromStartToClose) {
  TestAgent agent;
  agent.work = [] { return 1; };
  AgentRunner runner(agent, {.thread_name = "runner-test"});
  EXPECT_FALSE(runner.running());
  EXPECT_EQ(runner.tid(), 0);
  runner.start();
  EXPECT_EQ(agent.started.load(), 1);
  EXPECT_TRUE(runner.running());
  EXPECT_NE(runner.tid(), 0);
  EXPECT_NE(runner.tid(), ::getpid());
  EXPECT_TRUE(eventually([&] { return agent.turns.load() > 100; }));
  EXPECT_EQ(agent.closed.load(), 0);
  runner.stop();
  runner.stop();
  runner.join();
  EXPECT_FALSE(runner.running());
  EXPECT_EQ(agent.closed.load(), 1);
  EXPECT_EQ(runner.failed(), std::nullopt);
  EXPECT_EQ(runner.cycles().load(), static_cast<std::uint64_t>(agent.turns.load()));
  EXPECT_EQ(runner.busy_cycles().load(), runner.cycles().load());
  EXPECT_GT(runner.max_cycle_ns().load(), 0);
  EXPECT_THROW(runner.start(), std::logic_error);
}

TEST(AgentRunner, StartsOnItsCoreWithItsNameAndNoSignals) {
  TestAgent agent;
  std::vector<int> cores;
  char name[64] = {};
  sigset_t mask;
  agent.start = [&] {
    cores = allowed_cores();
    ::pthread_getname_np(::pthread_self(), name, sizeof name);
    ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  };
  const int core = allowed_cores().back();
  AgentRunner runner(agent, {.thread_name = "pinned", .core = core});
  runner.start();
  EXPECT_EQ(cores, std::vector<int>{core});
  EXPECT_STREQ(name, "pinned");
  for (const int blocked : {SIGINT, SIGTERM, SIGHUP, SIGCHLD})
    EXPECT_TRUE(::sigismember(&mask, blocked)) << blocked;
  EXPECT_FALSE(::sigismember(&mask, SIGSEGV));
  ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  EXPECT_FALSE(::sigismember(&mask, SIGTERM));  // Our own signals are as they were.
}

TEST(AgentRunner, ACoreThatCannotBeHadFailsTheStart) {
  TestAgent agent;
  AgentRunner runner(agent, {.thread_name = "ingest-0", .core = 16000});
  try {
    runner.start();
    FAIL() << "no error";
  } catch (const SetupError& error) {
    EXPECT_TRUE(std::string(error.what()).starts_with("thread ingest-0: ")) << error.what();
  }
  EXPECT_EQ(agent.started.load(), 0);
  EXPECT_EQ(agent.closed.load(), 0);
  EXPECT_FALSE(runner.running());
  runner.join();
}

TEST(AgentRunner, RethrowsWhatOnStartThrew) {
  TestAgent agent;
  agent.start = [] { throw SetupError("model.path: no such file"); };
  AgentRunner runner(agent, {.thread_name = "t"});
  EXPECT_THROW(runner.start(), SetupError);
  EXPECT_EQ(runner.failed(), "tester: model.path: no such file");
  EXPECT_EQ(agent.turns.load(), 0);
  EXPECT_EQ(agent.closed.load(), 0);
  runner.join();  // Told once.
}

TEST(AgentRunner, RecordsWhatAWorkingAgentThrewAndJoinRethrowsIt) {
  TestAgent agent;
  agent.work = [&agent]() -> int {
    if (agent.turns.load() == 3) throw std::runtime_error("disk on fire");
    return 1;
  };
  agent.close = [] { throw std::logic_error("and the door is stuck"); };
  AgentRunner runner(agent, {.thread_name = "t"});
  runner.start();
  ASSERT_TRUE(eventually([&] { return runner.failed().has_value(); }));
  EXPECT_EQ(runner.failed(), "tester: disk on fire");
  EXPECT_THROW(runner.join(), std::runtime_error);
  EXPECT_EQ(agent.turns.load(), 3);
  EXPECT_EQ(agent.closed.load(), 1);
  EXPECT_EQ(runner.failed(), "tester: disk on fire");  // The cause, not its consequence.
  runner.join();
}

TEST(AgentRunner, RethrowsWhatOnCloseThrew) {
  TestAgent agent;
  agent.close = [] { throw 42; };
  AgentRunner runner(agent, {.thread_name = "t"});
  runner.start();
  runner.stop();
  EXPECT_THROW(runner.join(), int);
  EXPECT_EQ(runner.failed(), "tester: an exception that is no std::exception");
}

TEST(AgentRunner, ParksAnIdleAgentOnlyWhenBackingOff) {
  for (const IdleKind kind : {IdleKind::Spin, IdleKind::Yield, IdleKind::Backoff}) {
    TestAgent agent;
    AgentRunner runner(agent, {.thread_name = "t", .idle = kind});
    runner.start();
    EXPECT_TRUE(eventually(
        [&] { return kind == IdleKind::Backoff ? agent.parks.load() > 5 : agent.turns.load() > 2'000; }));
    runner.stop();
    runner.join();
    if (kind != IdleKind::Backoff) {
      EXPECT_EQ(agent.parks.load(), 0);
    }
    EXPECT_EQ(runner.busy_cycles().load(), 0U);
  }
}

TEST(AgentRunner, TicksAtOnceAndThenAgain) {
  TestAgent agent;
  AgentRunner runner(agent, {.thread_name = "t"});
  runner.start();
  EXPECT_TRUE(eventually([&] { return agent.ticks.load() >= 3; }));
  runner.stop();
  runner.join();
}

TEST(AgentRunner, CountsLongTurnsAndKeepsTheLongest) {
  TestAgent agent;
  agent.work = [&agent] {
    if (agent.turns.load() == 2) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return 0;
  };
  AgentRunner runner(agent, {.thread_name = "t", .long_cycle_ns = 4'000'000});
  runner.start();
  EXPECT_TRUE(eventually([&] { return agent.turns.load() > 3; }));
  runner.stop();
  runner.join();
  EXPECT_GE(runner.long_cycles().load(), 1U);
  EXPECT_LT(runner.long_cycles().load(), runner.cycles().load());
  EXPECT_GE(runner.max_cycle_ns().load(), 4'900'000);
}

TEST(AgentRunner, AnUnjoinedRunnerStopsItsThread) {
  TestAgent agent;
  {
    AgentRunner runner(agent, {.thread_name = "t"});
    runner.start();
  }
  EXPECT_EQ(agent.closed.load(), 1);
}

}  // namespace
}  // namespace tickwire::concurrent

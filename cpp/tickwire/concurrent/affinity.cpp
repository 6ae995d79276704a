#include "tickwire/concurrent/affinity.hpp"

#include <pthread.h>
#include <sched.h>

#include <cerrno>
#include <memory>
#include <string>
#include <system_error>

#include "tickwire/core/error.hpp"

namespace tickwire::concurrent {
namespace {

/// More cores than any kernel is built for (8192): a plain cpu_set_t stops at 1024.
constexpr int kMaxCores = 16384;

class CoreSet {
 public:
  CoreSet() : set_(CPU_ALLOC(kMaxCores)) {
    if (set_ == nullptr) throw std::bad_alloc();
    CPU_ZERO_S(bytes(), set_);
  }
  ~CoreSet() { CPU_FREE(set_); }
  CoreSet(const CoreSet&) = delete;
  CoreSet& operator=(const CoreSet&) = delete;

  static std::size_t bytes() { return CPU_ALLOC_SIZE(kMaxCores); }
  cpu_set_t* get() { return set_; }
  void add(int core) { CPU_SET_S(static_cast<std::size_t>(core), bytes(), set_); }
  bool has(int core) const { return CPU_ISSET_S(static_cast<std::size_t>(core), bytes(), set_); }

 private:
  cpu_set_t* set_;
};

/// "0-3,8"
std::string as_list(const std::vector<int>& cores) {
  std::string text;
  for (std::size_t i = 0; i < cores.size();) {
    std::size_t last = i;
    while (last + 1 < cores.size() && cores[last + 1] == cores[last] + 1) ++last;
    if (!text.empty()) text += ',';
    text += std::to_string(cores[i]);
    if (last != i) text += '-' + std::to_string(cores[last]);
    i = last + 1;
  }
  return text;
}

}  // namespace

std::vector<int> allowed_cores() {
  CoreSet set;
  std::vector<int> cores;
  if (::sched_getaffinity(0, CoreSet::bytes(), set.get()) != 0) return cores;
  for (int core = 0; core < kMaxCores; ++core) {
    if (set.has(core)) cores.push_back(core);
  }
  return cores;
}

void pin_this_thread(int core, std::string_view what) {
  const auto refuse = [&](const std::string& why) {
    throw SetupError(std::string(what),
                     "a core that this process may use (now " + as_list(allowed_cores()) +
                         "; a core in an isolated cgroup partition needs the process in that cgroup first)",
                     "core " + std::to_string(core) + ": " + why);
  };
  if (core < 0 || core >= kMaxCores) refuse("no such core");
  CoreSet set;
  set.add(core);
  if (::sched_setaffinity(0, CoreSet::bytes(), set.get()) != 0)
    refuse(std::generic_category().message(errno));
  if (allowed_cores() != std::vector<int>{core})
    refuse("the kernel accepted the request and did not follow it");
}

void name_this_thread(std::string_view name) {
  const std::string cut(name.substr(0, 15));
  ::pthread_setname_np(::pthread_self(), cut.c_str());
}

}  // namespace tickwire::concurrent

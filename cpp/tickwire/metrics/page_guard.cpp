#include "tickwire/metrics/page_guard.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <string>
#include <system_error>

#include "tickwire/core/error.hpp"

namespace tickwire::metrics {
namespace {

/// Read by the handler, on whatever thread; written under the lock. A free one has no end.
struct Slot {
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};
  std::atomic<std::uint64_t> replaced{0};
};
static_assert(std::atomic<std::uintptr_t>::is_always_lock_free &&
                  std::atomic<std::uint64_t>::is_always_lock_free,
              "a handler may use them");

std::array<Slot, 64> g_slots;
std::mutex g_lock;
std::uintptr_t g_page = 0;
struct sigaction g_before{};
bool g_installed = false;

bool put_memory_at(std::uintptr_t address) noexcept {
  for (Slot& slot : g_slots) {
    if (address < slot.begin.load() || address >= slot.end.load()) continue;
    void* const page = reinterpret_cast<void*>(address & ~(g_page - 1));
    if (::mmap(page, g_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
        MAP_FAILED) {
      return false;
    }
    ::mlock(page, g_page);  // As the mapping was, where it may be.
    slot.replaced.fetch_add(1);
    return true;
  }
  return false;
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int error = errno;
  const bool done =
      info->si_code == BUS_ADRERR && put_memory_at(reinterpret_cast<std::uintptr_t>(info->si_addr));
  errno = error;
  if (done) return;
  if ((g_before.sa_flags & SA_SIGINFO) != 0) {
    g_before.sa_sigaction(signal, info, context);
  } else if (g_before.sa_handler != SIG_DFL && g_before.sa_handler != SIG_IGN) {
    g_before.sa_handler(signal);
  } else {
    std::signal(signal, SIG_DFL);  // The access is done again, and ends us as it would have.
  }
}

void install() {
  if (g_installed) return;
  g_page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  struct sigaction action{};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  ::sigemptyset(&action.sa_mask);
  if (::sigaction(SIGBUS, &action, &g_before) != 0) {
    throw SetupError("SIGBUS", "a handler that can be set", std::generic_category().message(errno));
  }
  g_installed = true;
}

}  // namespace

PageGuard::PageGuard(void* data, std::size_t bytes) : slot_(0) {
  const std::lock_guard lock(g_lock);
  install();
  while (slot_ < g_slots.size() && g_slots[slot_].end.load() != 0) ++slot_;
  if (slot_ == g_slots.size()) {
    throw SetupError("mapped files", "at most " + std::to_string(g_slots.size()) + " in one process", "more");
  }
  Slot& slot = g_slots[slot_];
  slot.replaced.store(0);
  slot.begin.store(reinterpret_cast<std::uintptr_t>(data));
  slot.end.store(reinterpret_cast<std::uintptr_t>(data) + bytes);
}

PageGuard::~PageGuard() {
  const std::lock_guard lock(g_lock);
  g_slots[slot_].end.store(0);
}

std::uint64_t PageGuard::replaced() const noexcept { return g_slots[slot_].replaced.load(); }

}  // namespace tickwire::metrics

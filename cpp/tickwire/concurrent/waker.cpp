#include "tickwire/concurrent/waker.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <system_error>

#include "tickwire/core/error.hpp"

namespace tickwire::concurrent {

Waker::Waker() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (fd_ < 0) {
    throw SetupError("waker", "an eventfd (raise the limit of open files with ulimit -n)",
                     std::generic_category().message(errno));
  }
}

Waker::Waker(Flag& shared) : Waker() { flag_ = &shared; }

Waker::Waker(Flag& shared, int fd) noexcept : flag_(&shared), fd_(fd) {}

Waker::~Waker() { ::close(fd_); }

void Waker::write_eventfd() noexcept {
  // Relaxed: a statistic.
  flag_->wakes.fetch_add(1, std::memory_order_relaxed);
  const std::uint64_t one = 1;
  // Fails only where the eventfd's count is full, and then it is readable anyway.
  [[maybe_unused]] const ssize_t written = ::write(fd_, &one, sizeof one);
}

bool Waker::wait(std::int64_t timeout_ns, std::span<const int> extra_fds) noexcept {
  std::array<pollfd, 16> fds{};
  fds[0] = pollfd{fd_, POLLIN, 0};
  const std::size_t extra = std::min(extra_fds.size(), fds.size() - 1);
  for (std::size_t i = 0; i < extra; ++i) fds[i + 1] = pollfd{extra_fds[i], POLLIN, 0};
  timespec timeout{static_cast<std::time_t>(timeout_ns / 1'000'000'000),
                   static_cast<long>(timeout_ns % 1'000'000'000)};
  const int ready = ::ppoll(fds.data(), extra + 1, timeout_ns < 0 ? nullptr : &timeout, nullptr);
  woke();
  return ready != 0;
}

void Waker::woke() noexcept {
  // seq_cst, as where prepare_sleep() takes its announcement back.
  flag_->asleep.exchange(false, std::memory_order_seq_cst);
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t read = ::read(fd_, &count, sizeof count);
}

}  // namespace tickwire::concurrent

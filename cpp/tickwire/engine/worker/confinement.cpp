#include "tickwire/engine/worker/confinement.hpp"

#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <system_error>
#include <vector>

namespace tickwire::engine {

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

#if defined(__x86_64__)
constexpr std::uint32_t kArch = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t kArch = AUDIT_ARCH_AARCH64;
#else
constexpr std::uint32_t kArch = 0;
#endif

constexpr auto kAllowed = std::to_array<std::uint32_t>({
    // Waiting, and being woken.
    SYS_futex,
    SYS_ppoll,
#ifdef SYS_poll
    SYS_poll,
#endif
    SYS_sched_yield,
    SYS_nanosleep,
    SYS_clock_nanosleep,
    SYS_restart_syscall,
    // Descriptors it has: eventfds, where errors go.
    SYS_read,
    SYS_write,
    SYS_writev,
    SYS_close,
    SYS_fstat,
    // Clocks, where the vDSO has none.
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_gettimeofday,
    // Memory; of mmap and mprotect see below. The handler for a file that was cut short locks its pages.
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_brk,
    SYS_mlock,
    SYS_munlock,
    SYS_membarrier,
    // Who and where it is.
    SYS_getpid,
    SYS_gettid,
    SYS_getppid,
    SYS_getcpu,
    SYS_sched_getaffinity,
    SYS_getrusage,
    SYS_getrandom,
    SYS_rseq,
    SYS_set_robust_list,
    // Faults, and its own end; of tgkill see below.
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_exit,
    SYS_exit_group,
});

constexpr auto kDeadly = std::to_array<std::uint32_t>({
    SYS_execve,
    SYS_execveat,
    SYS_socket,
    SYS_socketpair,
    SYS_connect,
    SYS_bind,
    SYS_listen,
    SYS_accept,
    SYS_accept4,
    SYS_sendto,
    SYS_sendmsg,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_setns,
    SYS_unshare,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_init_module,
    SYS_finit_module,
    SYS_kexec_load,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
#ifdef SYS_io_uring_setup
    SYS_io_uring_setup,
#endif
#ifdef SYS_pidfd_getfd
    SYS_pidfd_getfd,
#endif
});

constexpr std::uint32_t kRefuse = SECCOMP_RET_ERRNO | EPERM;

/// The instructions of the filter. Its accumulator holds the number of the call wherever a rule begins.
class Filter {
 public:
  Filter() {
    load(offsetof(seccomp_data, arch));
    jump(BPF_JEQ, kArch, 1, 0);
    answer(SECCOMP_RET_KILL_PROCESS);
    load(offsetof(seccomp_data, nr));
#if defined(__x86_64__)
    // The calls of x32 are others under the same architecture.
    jump(BPF_JGE, 0x40000000, 0, 1);
    answer(SECCOMP_RET_KILL_PROCESS);
#endif
  }

  void on(std::uint32_t call, std::uint32_t what) {
    jump(BPF_JEQ, call, 0, 1);
    answer(what);
  }

  /// Allowed where the argument has none of these bits.
  void on_without(std::uint32_t call, std::size_t argument, std::uint32_t bits) {
    jump(BPF_JEQ, call, 0, 4);
    load(lower_half(argument));
    jump(BPF_JSET, bits, 0, 1);
    answer(kRefuse);
    answer(SECCOMP_RET_ALLOW);
  }

  /// Allowed where the argument is this one.
  void on_equal(std::uint32_t call, std::size_t argument, std::uint32_t value) {
    jump(BPF_JEQ, call, 0, 4);
    load(lower_half(argument));
    jump(BPF_JEQ, value, 1, 0);
    answer(kRefuse);
    answer(SECCOMP_RET_ALLOW);
  }

  void answer(std::uint32_t what) { code_.push_back(BPF_STMT(BPF_RET | BPF_K, what)); }

  [[nodiscard]] sock_fprog program() {
    return {.len = static_cast<unsigned short>(code_.size()), .filter = code_.data()};
  }

 private:
  static std::uint32_t lower_half(std::size_t argument) {
    static_assert(std::endian::native == std::endian::little);
    return static_cast<std::uint32_t>(offsetof(seccomp_data, args) + argument * sizeof(std::uint64_t));
  }
  void load(std::uint32_t offset) { code_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset)); }
  void jump(std::uint32_t test, std::uint32_t value, std::uint8_t then, std::uint8_t otherwise) {
    code_.push_back(BPF_JUMP(BPF_JMP | test | BPF_K, value, then, otherwise));
  }

  std::vector<sock_filter> code_;
};

Filter make_filter() {
  Filter filter;
  for (const std::uint32_t call : kAllowed) filter.on(call, SECCOMP_RET_ALLOW);
  for (const std::uint32_t call : kDeadly) filter.on(call, SECCOMP_RET_KILL_PROCESS);
  filter.on_without(SYS_mmap, 2, PROT_EXEC);
  filter.on_without(SYS_mprotect, 2, PROT_EXEC);
  // abort(), and nobody else's end.
  filter.on_equal(SYS_tgkill, 0, static_cast<std::uint32_t>(::getpid()));
  filter.answer(kRefuse);
  return filter;
}

std::string failed(std::string_view what, int error) {
  return std::string(what) + ": " + std::generic_category().message(error);
}

bool has_capabilities() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> held{};
  return ::syscall(SYS_capget, &header, held.data()) != 0 || held[0].effective != 0 || held[1].effective != 0;
}

}  // namespace

std::string leave_network() {
  if (::unshare(CLONE_NEWNET) == 0) return "";
  // Who has no capability at all may have it within a user namespace. Who has one would lose it there, and
  // locked memory with it.
  if (!has_capabilities() && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0) return "";
  return failed("it stays in the network namespace", errno);
}

std::string confine() {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return failed("no_new_privs is not set", errno);
  if constexpr (kArch == 0) return "no filter of system calls: expected x86-64 or AArch64";
  if constexpr (kSanitized) return "no filter of system calls: a sanitizer's run time would not live with it";
  Filter filter = make_filter();
  const sock_fprog program = filter.program();
  // The threads of ONNX Runtime are there already, so for all of them. Without SPEC_ALLOW some kernels slow
  // down every load behind a store of a filtered process: there is nothing in ours to be kept from itself.
  const long other = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                               SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program);
  if (other == 0) return "";
  if (other > 0) return "no filter of system calls: thread " + std::to_string(other) + " has another one";
  return failed("no filter of system calls", errno);
}

}  // namespace tickwire::engine

/// What a confined process may still do, what it is refused, and what ends it. Each in a child of the test.

#include "tickwire/engine/worker/confinement.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <onnxruntime_c_api.h>

#include "infer/model_files.hpp"
#include "tickwire/infer/onnxruntime/ort_api.hpp"
#include "tickwire/metrics/page_guard.hpp"

namespace tickwire::engine {
namespace {

constexpr int kNoFilter = 77;

/// The wait status of a child that runs this and exits with what it returns.
int in_child(const std::function<int()>& run) {
  const pid_t child = ::fork();
  if (child == 0) {
    int status = 99;
    try {
      status = run();
    } catch (const std::exception& error) {
      (void)std::fprintf(stderr, "%s\n", error.what());
    }
    ::_exit(status);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

/// As in_child(), confined.
int confined(const std::function<int()>& run) {
  return in_child([&] {
    if (!confine().empty()) return kNoFilter;
    return run();
  });
}

bool exited(int status, int with) { return WIFEXITED(status) && WEXITSTATUS(status) == with; }

class Confinement : public testing::Test {
 protected:
  void SetUp() override {
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe(ends.data()), 0);
    const int status = in_child([&] {
      const std::string why = confine();
      return ::write(ends[1], why.data(), why.size()) < 0 ? 1 : why.empty() ? 0 : kNoFilter;
    });
    std::array<char, 256> why{};
    if (!exited(status, 0)) (void)!::read(ends[0], why.data(), why.size() - 1);
    ::close(ends[0]);
    ::close(ends[1]);
    if (exited(status, kNoFilter)) GTEST_SKIP() << why.data();
    ASSERT_TRUE(exited(status, 0)) << status;
  }
};

TEST_F(Confinement, LeavesWhatAScoringLoopDoes) {
  const int status = in_child([] {
    const int wake = ::eventfd(0, EFD_NONBLOCK);
    std::atomic<int> turn{0};
    std::atomic<std::uint64_t> sum{0};
    std::thread other([&] {
      turn.wait(0);  // A futex.
      std::vector<std::uint64_t> grown;
      for (std::uint64_t i = 0; i < 3'000'000; ++i) grown.push_back(i);  // Moves, maps and unmaps.
      for (const std::uint64_t value : grown) sum += value;
      const std::uint64_t one = 1;
      if (::write(wake, &one, sizeof one) != sizeof one) sum = 0;
    });
    if (!confine().empty()) return kNoFilter;
    turn = 1;
    turn.notify_all();
    pollfd woken{wake, POLLIN, 0};
    const timespec limit{20, 0};
    if (::ppoll(&woken, 1, &limit, nullptr) != 1) return 1;
    other.join();
    if (sum != 3'000'000ULL * 2'999'999 / 2) return 2;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    try {
      throw std::runtime_error("one");
    } catch (const std::runtime_error&) {
    }
    timespec now{};
    if (::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) != 0) return 3;
    void* const page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || ::mlock(page, 4096) != 0) return 4;
    return ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == -1 && errno == EPERM ? 0 : 5;
  });
  EXPECT_TRUE(exited(status, 0)) << status;
}

TEST_F(Confinement, EndsInWordsOfItsOwn) {
  EXPECT_EQ(WTERMSIG(confined([]() -> int { std::abort(); })), SIGABRT);
  EXPECT_EQ(WTERMSIG(confined([] { return ::raise(SIGSEGV); })), SIGSEGV);
}

TEST_F(Confinement, EndsWhoTriesAnotherProgramASocketOrAnotherProcess) {
  char* const none[] = {nullptr};
  char byte = 0;
  iovec here{&byte, 1};
  const std::vector<std::pair<const char*, std::function<int()>>> deeds = {
      {"execve", [&] { return ::execve("/bin/true", none, none); }},
      {"socket", [] { return ::socket(AF_INET, SOCK_STREAM, 0); }},
      {"a local socket", [] { return ::socket(AF_UNIX, SOCK_DGRAM, 0); }},
      {"socketpair",
       [] {
         int ends[2];
         return ::socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
       }},
      {"ptrace", [] { return static_cast<int>(::ptrace(PTRACE_ATTACH, ::getppid(), nullptr, nullptr)); }},
      {"its memory",
       [&] { return static_cast<int>(::process_vm_readv(::getppid(), &here, 1, &here, 1, 0)); }},
      {"unshare", [] { return ::unshare(CLONE_NEWUSER); }},
      {"bpf", [] { return static_cast<int>(::syscall(SYS_bpf, BPF_MAP_CREATE, nullptr, 0)); }},
      {"io_uring_setup", [] { return static_cast<int>(::syscall(SYS_io_uring_setup, 1, nullptr)); }},
  };
  for (const auto& [name, deed] : deeds) {
    const int status = confined(deed);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << name << ": " << status;
  }
}

TEST_F(Confinement, EndsAllThreadsForTheDeedOfOne) {
  const int status = in_child([] {
    std::atomic<bool> go{false};
    std::thread there_before([&] {
      go.wait(false);
      (void)::socket(AF_INET, SOCK_STREAM, 0);
    });
    if (!confine().empty()) return kNoFilter;
    go = true;
    go.notify_all();
    there_before.join();
    return 0;
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << status;
}

TEST_F(Confinement, RefusesFilesCodeAndTheEndOfOthers) {
  const int status = confined([] {
    const auto refused = [](long result) { return result == -1 && errno == EPERM; };
    if (!refused(::open("/dev/null", O_RDONLY))) return 1;
    if (!refused(::access("/", F_OK))) return 2;
    if (!refused(::kill(::getppid(), SIGCONT))) return 3;
    if (!refused(::syscall(SYS_tgkill, ::getppid(), ::getppid(), 0))) return 4;
    if (!refused(::fork())) return 5;
    const auto map = [](int protection) {
      return ::mmap(nullptr, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    };
    errno = 0;
    if (map(PROT_READ | PROT_WRITE | PROT_EXEC) != MAP_FAILED || errno != EPERM) return 6;
    void* const page = map(PROT_READ | PROT_WRITE);
    if (page == MAP_FAILED) return 7;
    if (!refused(::mprotect(page, 4096, PROT_READ | PROT_EXEC))) return 8;
    if (!refused(::memfd_create("code", 0))) return 9;
    if (!refused(::setpriority(PRIO_PROCESS, 0, 1))) return 10;
    try {
      std::thread([] {}).join();
      return 11;
    } catch (const std::system_error&) {
      return 0;
    }
  });
  EXPECT_TRUE(exited(status, 0)) << status;
}

TEST_F(Confinement, ALostPageOfAMappedFileIsReplacedAllTheSame) {
  const int file = ::memfd_create("cut short", MFD_CLOEXEC);
  ASSERT_EQ(::ftruncate(file, 4096), 0);
  const int begun = ::eventfd(0, 0);
  const int cut = ::eventfd(0, 0);
  std::thread elsewhere([&] {
    std::uint64_t one = 0;
    EXPECT_EQ(::read(begun, &one, sizeof one), 8);
    EXPECT_EQ(::ftruncate(file, 0), 0);
    EXPECT_EQ(::write(cut, &one, sizeof one), 8);
  });
  const int status = in_child([&] {
    void* const data = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    volatile char* const cell = static_cast<char*>(data);
    const metrics::PageGuard guard(data, 4096);
    *cell = 5;
    const bool is_confined = confine().empty();
    std::uint64_t one = 1;
    if (::write(begun, &one, sizeof one) != 8 || ::read(cut, &one, sizeof one) != 8) return 1;
    if (!is_confined) return kNoFilter;
    if (*cell != 0) return 2;
    *cell = 7;
    return *cell == 7 && guard.replaced() == 1 ? 0 : 3;
  });
  elsewhere.join();
  EXPECT_TRUE(exited(status, 0)) << status;
  for (const int fd : {file, begun, cut}) ::close(fd);
}

/// A session of ONNX Runtime with threads of its own, which load_ort_model() never asks for.
class ThreadedSession {
 public:
  ThreadedSession(const std::string& path, int threads)
      : api_(*infer::open_ort(infer::testing::ort_library()).api) {
    OrtSessionOptions* options = nullptr;
    check(api_.CreateEnv(ORT_LOGGING_LEVEL_ERROR, "test", &env_));
    check(api_.CreateSessionOptions(&options));
    check(api_.SetIntraOpNumThreads(options, threads));
    check(api_.CreateSession(env_, path.c_str(), options, &session_));
    api_.ReleaseSessionOptions(options);
    OrtAllocator* allocator = nullptr;
    check(api_.GetAllocatorWithDefaultOptions(&allocator));
    check(api_.SessionGetInputName(session_, 0, allocator, &input_));
    check(api_.SessionGetOutputName(session_, 0, allocator, &output_));
    check(api_.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
  }

  /// The scores of so many rows of `features` cells.
  std::vector<float> run(std::size_t rows, std::size_t features) {
    std::vector<float> cells(rows * features);
    for (std::size_t i = 0; i < cells.size(); ++i) cells[i] = static_cast<float>(i % 97) / 97.0F;
    const std::array<std::int64_t, 2> shape = {static_cast<std::int64_t>(rows),
                                               static_cast<std::int64_t>(features)};
    OrtValue* in = nullptr;
    OrtValue* out = nullptr;
    check(api_.CreateTensorWithDataAsOrtValue(memory_, cells.data(), cells.size() * sizeof(float),
                                              shape.data(), shape.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                                              &in));
    const OrtValue* const inputs = in;
    check(api_.Run(session_, nullptr, &input_, &inputs, 1, &output_, 1, &out));
    float* scores = nullptr;
    check(api_.GetTensorMutableData(out, reinterpret_cast<void**>(&scores)));
    std::vector<float> found(scores, scores + rows);
    api_.ReleaseValue(in);
    api_.ReleaseValue(out);
    return found;
  }

 private:
  void check(OrtStatus* status) {
    if (status != nullptr) throw std::runtime_error(api_.GetErrorMessage(status));
  }

  const OrtApi& api_;
  OrtEnv* env_ = nullptr;
  OrtSession* session_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
  char* input_ = nullptr;
  char* output_ = nullptr;
};

TEST_F(Confinement, OnnxRuntimeScoresAlsoWithSeveralThreads) {
  TICKWIRE_NEEDS_ORT();
  const int status = in_child([] {
    ThreadedSession session(infer::testing::model_file("good_mlp_batch"), 4);
    // Larger after than before, so that it needs memory that it did not have yet.
    const std::vector<float> few = session.run(1000, 5);
    if (!confine().empty()) return kNoFilter;
    for (int turn = 0; turn < 50; ++turn) {
      if (session.run(1000, 5) != few) return 1;
      const std::vector<float> many = session.run(100'000, 5);
      if (!std::isfinite(many.back())) return 2;
      // Long enough for its threads to go to sleep.
      if (turn % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return 0;
  });
  EXPECT_TRUE(exited(status, 0)) << status;
}

TEST(LeaveNetwork, LeavesItOrSaysWhyNot) {
  const auto space = [] {
    struct stat info{};
    return ::stat("/proc/self/ns/net", &info) == 0 ? info.st_ino : 0;
  };
  const ino_t ours = space();
  const int status = in_child([&] {
    const std::string why = leave_network();
    if (why.empty()) return space() != ours ? 0 : 1;
    return why.starts_with("it stays in the network namespace: ") && space() == ours ? 0 : 2;
  });
  EXPECT_TRUE(exited(status, 0)) << status;
}

}  // namespace
}  // namespace tickwire::engine

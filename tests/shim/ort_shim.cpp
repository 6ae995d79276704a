/// Stands where ONNX Runtime's library does, forwards to the real one, and misbehaves when a test says so:
/// what a model's own code may do to the process that runs it.
///
///     ORT_SHIM_REAL     the real library
///     ORT_SHIM_WANTED   a file of a byte for each misdeed, in the order below, that is not zero where it is
///                       wanted. It is mapped before the worker gives up its files
///
///     crash_load   while a session is made: a segmentation fault
///     hang_load    … never returns
///     crash        in a run: a segmentation fault
///     hang         … never returns; once: its byte is taken back
///     leak         … keeps 256 KiB that it has written to
///     nan          … says that the first score is not a number
///     open         … opens a file, and is not stopped by it that it cannot; once
///     socket       … opens a socket; once

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>

#include <onnxruntime_c_api.h>

namespace {

const OrtApi* real = nullptr;
OrtApi ours;

enum class Misdeed : std::uint8_t { CrashLoad, HangLoad, Crash, Hang, Leak, Nan, Open, Socket, Count };

volatile char* wanted_bytes() {
  static volatile char* const bytes = [] {
    const char* const path = std::getenv("ORT_SHIM_WANTED");
    const int fd = path != nullptr ? ::open(path, O_RDWR | O_CLOEXEC) : -1;
    void* const data =
        ::mmap(nullptr, static_cast<std::size_t>(Misdeed::Count), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) std::abort();
    ::close(fd);
    return static_cast<volatile char*>(data);
  }();
  return bytes;
}

bool wanted(Misdeed misdeed) { return wanted_bytes()[static_cast<std::size_t>(misdeed)] != 0; }

bool wanted_once(Misdeed misdeed) {
  if (!wanted(misdeed)) return false;
  wanted_bytes()[static_cast<std::size_t>(misdeed)] = 0;
  return true;
}

void crash() { (void)::raise(SIGSEGV); }

[[noreturn]] void hang() {
  for (;;) (void)::poll(nullptr, 0, -1);
}

OrtStatus* ORT_API_CALL create_session(const OrtEnv* env, const void* model, size_t bytes,
                                       const OrtSessionOptions* options, OrtSession** session) noexcept {
  if (wanted(Misdeed::CrashLoad)) crash();
  if (wanted(Misdeed::HangLoad)) hang();
  return real->CreateSessionFromArray(env, model, bytes, options, session);
}

OrtStatus* ORT_API_CALL run(OrtSession* session, const OrtRunOptions* options, const char* const* input_names,
                            const OrtValue* const* inputs, size_t input_count,
                            const char* const* output_names, size_t output_count,
                            OrtValue** outputs) noexcept {
  if (wanted(Misdeed::Crash)) crash();
  if (wanted_once(Misdeed::Hang)) hang();
  if (wanted_once(Misdeed::Open)) ::close(::open("/dev/null", O_RDONLY));
  if (wanted_once(Misdeed::Socket)) ::close(::socket(AF_INET, SOCK_STREAM, 0));
  if (wanted(Misdeed::Leak)) {
    constexpr std::size_t kBytes = std::size_t{256} << 10U;
    static void* volatile kept;
    kept = std::malloc(kBytes);
    if (kept != nullptr) std::memset(kept, 1, kBytes);
  }
  OrtStatus* const status =
      real->Run(session, options, input_names, inputs, input_count, output_names, output_count, outputs);
  if (status == nullptr && wanted(Misdeed::Nan)) {
    void* scores = nullptr;
    if (real->GetTensorMutableData(outputs[0], &scores) == nullptr) {
      *static_cast<float*>(scores) = std::numeric_limits<float>::quiet_NaN();
    }
  }
  return status;
}

const OrtApiBase& real_base() {
  static const OrtApiBase* const base = [] {
    const char* const path = std::getenv("ORT_SHIM_REAL");
    void* const library = path != nullptr ? ::dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    if (library == nullptr) std::abort();
    using GetBase = const OrtApiBase*(ORT_API_CALL*)() noexcept;
    return reinterpret_cast<GetBase>(::dlsym(library, "OrtGetApiBase"))();
  }();
  return *base;
}

const OrtApi* ORT_API_CALL get_api(std::uint32_t version) noexcept {
  real = real_base().GetApi(version);
  if (real == nullptr) return nullptr;
  // As much of the table as the headers know: nobody who was built with them asks for more.
  std::memcpy(&ours, real, sizeof ours);
  ours.CreateSessionFromArray = create_session;
  ours.Run = run;
  return &ours;
}

const char* ORT_API_CALL version() noexcept { return real_base().GetVersionString(); }

}  // namespace

extern "C" __attribute__((visibility("default"))) const OrtApiBase* ORT_API_CALL OrtGetApiBase() noexcept {
  static const OrtApiBase base{get_api, version};
  return &base;
}

/// Stands where ONNX Runtime's library does, forwards to the real one, and misbehaves when a file in a
/// folder says so: what a model's own code may do to the process that runs it.
///
///     ORT_SHIM_REAL     the real library
///     ORT_SHIM_FOLDER   holds a file by the name of each misdeed that is wanted
///
///     crash_load   while a session is made: a segmentation fault
///     hang_load    … never returns
///     crash        in a run: a segmentation fault
///     hang         … never returns; once: the file is taken away
///     leak         … keeps 256 KiB that it has written to
///     nan          … says that the first score is not a number

#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include <onnxruntime_c_api.h>

namespace {

const OrtApi* real = nullptr;
OrtApi ours;

std::string file_of(const char* misdeed) {
  const char* const folder = std::getenv("ORT_SHIM_FOLDER");
  return std::string(folder != nullptr ? folder : "/nonexistent") + '/' + misdeed;
}

bool wanted(const char* misdeed) { return ::access(file_of(misdeed).c_str(), F_OK) == 0; }

void crash() { (void)::raise(SIGSEGV); }

[[noreturn]] void hang() {
  for (;;) ::pause();
}

OrtStatus* ORT_API_CALL create_session(const OrtEnv* env, const void* model, size_t bytes,
                                       const OrtSessionOptions* options, OrtSession** session) noexcept {
  if (wanted("crash_load")) crash();
  if (wanted("hang_load")) hang();
  return real->CreateSessionFromArray(env, model, bytes, options, session);
}

OrtStatus* ORT_API_CALL run(OrtSession* session, const OrtRunOptions* options, const char* const* input_names,
                            const OrtValue* const* inputs, size_t input_count,
                            const char* const* output_names, size_t output_count,
                            OrtValue** outputs) noexcept {
  if (wanted("crash")) crash();
  if (wanted("hang")) {
    ::unlink(file_of("hang").c_str());
    hang();
  }
  if (wanted("leak")) {
    constexpr std::size_t kBytes = std::size_t{256} << 10U;
    static void* volatile kept;
    kept = std::malloc(kBytes);
    if (kept != nullptr) std::memset(kept, 1, kBytes);
  }
  OrtStatus* const status =
      real->Run(session, options, input_names, inputs, input_count, output_names, output_count, outputs);
  if (status == nullptr && wanted("nan")) {
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

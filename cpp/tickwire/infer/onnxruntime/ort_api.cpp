#include "tickwire/infer/onnxruntime/ort_api.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string_view>
#include <system_error>

#include <onnxruntime_c_api.h>

#include "tickwire/core/error.hpp"

namespace tickwire::infer {
namespace {

/// Version of the interface we ask for: the oldest that has all we call, so that the widest range of
/// wheels serves. 1.N is the release that brought version N.
constexpr std::uint32_t kApiVersion = 21;
constexpr const char* kOldestRelease = "1.21";

/// The runtime of some releases reports on itself: a device's number and a database in the user's cache
/// folder, a thread, name look-ups some seconds later. It looks here before it makes its environment, and its
/// own call to stop that comes too late. Not for the user to leave on: this host has a feed to follow.
void forbid_telemetry() {
  constexpr const char* kName = "ORT_DISABLE_TELEMETRY";
  const char* const value = std::getenv(kName);
  if (value == nullptr || std::string_view(value) != "1") ::setenv(kName, "1", 1);
}

OrtRuntime open(const std::string& resolved) {
  forbid_telemetry();
  // NOW: a library that lacks something is an error here, not in the middle of a run.
  void* handle = ::dlopen(resolved.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    throw SetupError("ONNX Runtime library " + resolved, "a library that can be loaded", ::dlerror());
  }
  void* symbol = ::dlsym(handle, "OrtGetApiBase");
  if (symbol == nullptr) {
    throw SetupError("ONNX Runtime library " + resolved, "a library with OrtGetApiBase", "none in it");
  }
  using GetApiBase = const OrtApiBase*(ORT_API_CALL*)() noexcept;
  const OrtApiBase* base = reinterpret_cast<GetApiBase>(symbol)();
  const OrtApi* api = base->GetApi(kApiVersion);
  if (api == nullptr) {
    throw SetupError("ONNX Runtime library " + resolved,
                     std::string("version ") + kOldestRelease + " or newer", base->GetVersionString());
  }
  return {api, base->GetVersionString(), resolved};
}

}  // namespace

const OrtRuntime& open_ort(const std::string& library) {
  static std::mutex mutex;
  // Never destroyed: a session may be released by a static destructor that runs after ours would.
  static OrtRuntime* runtime = nullptr;

  std::error_code error;
  const std::filesystem::path resolved = std::filesystem::canonical(library, error);
  if (error) {
    throw SetupError(
        "ONNX Runtime library",
        "libonnxruntime.so of an installed onnxruntime " + std::string(kOldestRelease) + " or newer",
        library.empty() ? "no path" : library + " (" + error.message() + ")");
  }
  const std::lock_guard lock(mutex);
  if (runtime == nullptr) {
    runtime = new OrtRuntime(open(resolved.string()));
  } else if (runtime->library != resolved.string()) {
    throw SetupError("ONNX Runtime library", "the one that this process has open, " + runtime->library,
                     resolved.string());
  }
  return *runtime;
}

}  // namespace tickwire::infer

/// An ONNX Runtime that claims to have CUDA and TensorRT: the functions of the library in
/// TICKWIRE_ORT_LIBRARY, but for those below. What it is asked for it writes down, a line each.

#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <cstdlib>
#include <string>

namespace {

std::string notes;
const OrtApi* real = nullptr;

void note(const std::string& line) { notes += line + "\n"; }

/// Our own behind both kinds of opaque options.
struct Options {};

template <typename Handle>
OrtStatus* ORT_API_CALL create(Handle** out) noexcept {
  *out = reinterpret_cast<Handle*>(new Options);
  return nullptr;
}
template <typename Handle>
void ORT_API_CALL release(Handle* handle) noexcept {
  delete reinterpret_cast<Options*>(handle);
}
template <typename Handle>
OrtStatus* ORT_API_CALL update(Handle*, const char* const* keys, const char* const* values,
                               std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) note(std::string(keys[i]) + "=" + values[i]);
  return nullptr;
}
OrtStatus* append(const char* name) noexcept {
  if (std::getenv("TICKWIRE_STAND_IN_FAILS") != nullptr) {
    return real->CreateStatus(ORT_FAIL, "CUDA failure 35: CUDA driver version is insufficient");
  }
  note(std::string("append ") + name);
  return nullptr;
}
OrtStatus* ORT_API_CALL append_cuda(OrtSessionOptions*, const OrtCUDAProviderOptionsV2*) noexcept {
  return append("cuda");
}
OrtStatus* ORT_API_CALL append_tensorrt(OrtSessionOptions*, const OrtTensorRTProviderOptionsV2*) noexcept {
  return append("tensorrt");
}

OrtStatus* ORT_API_CALL get_available(char*** out, int* count) noexcept {
  static char names[3][32] = {"TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"};
  static char* list[3] = {names[0], names[1], names[2]};
  *out = list;
  *count = 3;
  return nullptr;
}
OrtStatus* ORT_API_CALL release_available(char**, int) noexcept { return nullptr; }

OrtStatus* ORT_API_CALL add_config(OrtSessionOptions* options, const char* key, const char* value) noexcept {
  note(std::string(key) + "=" + value);
  // There is only the CPU to run on.
  if (std::string(key) == "session.disable_cpu_ep_fallback") return nullptr;
  return real->AddSessionConfigEntry(options, key, value);
}
OrtStatus* ORT_API_CALL bind_input(OrtIoBinding* binding, const char* name, const OrtValue* value) noexcept {
  note("bind input");
  return real->BindInput(binding, name, value);
}
OrtStatus* ORT_API_CALL run_with_binding(OrtSession* session, const OrtRunOptions* options,
                                         const OrtIoBinding* binding) noexcept {
  note("run with binding");
  return real->RunWithBinding(session, options, binding);
}

const OrtApiBase* base() {
  static const OrtApiBase* const found = [] {
    void* handle = ::dlopen(std::getenv("TICKWIRE_ORT_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
    using GetApiBase = const OrtApiBase*(ORT_API_CALL*)() noexcept;
    return reinterpret_cast<GetApiBase>(::dlsym(handle, "OrtGetApiBase"))();
  }();
  return found;
}

const OrtApi* ORT_API_CALL get_api(uint32_t version) noexcept {
  static OrtApi ours;
  real = base()->GetApi(version);
  // The table only ever grows: what we were compiled for is its beginning.
  ours = *real;
  ours.GetAvailableProviders = get_available;
  ours.ReleaseAvailableProviders = release_available;
  ours.CreateCUDAProviderOptions = create<OrtCUDAProviderOptionsV2>;
  ours.UpdateCUDAProviderOptions = update<OrtCUDAProviderOptionsV2>;
  ours.ReleaseCUDAProviderOptions = release<OrtCUDAProviderOptionsV2>;
  ours.SessionOptionsAppendExecutionProvider_CUDA_V2 = append_cuda;
  ours.CreateTensorRTProviderOptions = create<OrtTensorRTProviderOptionsV2>;
  ours.UpdateTensorRTProviderOptions = update<OrtTensorRTProviderOptionsV2>;
  ours.ReleaseTensorRTProviderOptions = release<OrtTensorRTProviderOptionsV2>;
  ours.SessionOptionsAppendExecutionProvider_TensorRT_V2 = append_tensorrt;
  ours.AddSessionConfigEntry = add_config;
  ours.BindInput = bind_input;
  ours.RunWithBinding = run_with_binding;
  return &ours;
}
const char* ORT_API_CALL get_version() noexcept { return base()->GetVersionString(); }

}  // namespace

extern "C" __attribute__((visibility("default"))) const OrtApiBase* ORT_API_CALL OrtGetApiBase() noexcept {
  static const OrtApiBase ours{get_api, get_version};
  return &ours;
}

/// What was noted since the last call.
extern "C" __attribute__((visibility("default"))) const char* tickwire_stand_in_notes() noexcept {
  static std::string taken;
  taken.swap(notes);
  notes.clear();
  return taken.c_str();
}

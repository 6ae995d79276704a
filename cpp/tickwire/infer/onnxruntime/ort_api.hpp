#pragma once

/// Opens ONNX Runtime's shared library at run time.
///
/// The library is the one inside the installed wheel, whose path the control plane hands down, so
/// another wheel (a newer one, onnxruntime-gpu) needs no rebuild of ours. Nothing is linked: the
/// functions come from the table that the library gives for the version of its interface we ask for.
///
/// Setup only; any thread. One library a process, never closed: sessions, and threads of its own it
/// may have, outlive any point at which we could know that it is unused. The wheel's Python module
/// has its own copy of the runtime inside; RTLD_LOCAL keeps the two apart, in either order of loading.

#include <string>

struct OrtApi;

namespace tickwire::infer {

/// ONNX Runtime as opened.
struct OrtRuntime {
  const OrtApi* api;
  std::string version;  // "1.32.0"
  std::string library;  // As resolved: no symbolic links.
};

/// The same runtime at each call with the same library. Throws SetupError when the file is missing, is
/// not ONNX Runtime, is older than 1.21, or when the process has opened another one before.
const OrtRuntime& open_ort(const std::string& library);

}  // namespace tickwire::infer

#pragma once

/// Where the tests of this folder find ONNX Runtime and the model files of tests/data/models.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <string>

#include "tickwire/core/error.hpp"
#include "tickwire/infer/loader.hpp"

namespace tickwire::infer::testing {

inline std::filesystem::path repository() {
  return std::filesystem::path(__FILE__).parent_path().parent_path().parent_path().parent_path();
}

inline std::string model_file(const std::string& name) {
  return (repository() / "tests" / "data" / "models" / (name + ".onnx")).string();
}

/// TICKWIRE_ORT_LIBRARY, else the library of the wheel in .venv; empty where there is neither.
inline std::string ort_library() {
  if (const char* path = std::getenv("TICKWIRE_ORT_LIBRARY")) return path;
  std::error_code none;
  for (const auto& python : std::filesystem::directory_iterator(repository() / ".venv" / "lib", none)) {
    const auto capi = python.path() / "site-packages" / "onnxruntime" / "capi";
    for (const auto& file : std::filesystem::directory_iterator(capi, none)) {
      if (file.path().filename().string().starts_with("libonnxruntime.so")) return file.path().string();
    }
  }
  return {};
}

/// One file, with what is installed.
inline ModelSource source(const std::string& path, int fd = -1, const std::string& provider = "cpu") {
  return {.members = {{.path = path, .weight = 1.0, .fd = fd}},
          .library = ort_library(),
          .provider = provider,
          .cache_dir = ""};
}

inline std::unique_ptr<Model> load_file(const std::string& path, std::size_t rows, std::size_t features,
                                        std::size_t max_batch = 1) {
  return load_model(source(path), {.rows = rows, .features = features, .max_batch = max_batch});
}

/// The message of the SetupError that `call` throws; empty when it throws none.
template <typename Call>
std::string setup_error(Call&& call) {
  try {
    call();
  } catch (const SetupError& error) {
    return error.what();
  }
  return {};
}

inline ::testing::AssertionResult has(const std::string& text, std::initializer_list<std::string> parts) {
  for (const std::string& part : parts) {
    if (text.find(part) == std::string::npos) {
      return ::testing::AssertionFailure() << "\"" << part << "\" is not in \"" << text << "\"";
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace tickwire::infer::testing

/// Skips the test where no onnxruntime wheel is installed.
#define TICKWIRE_NEEDS_ORT()                             \
  if (::tickwire::infer::testing::ort_library().empty()) \
  GTEST_SKIP() << "no ONNX Runtime: neither TICKWIRE_ORT_LIBRARY nor the onnxruntime wheel in .venv"

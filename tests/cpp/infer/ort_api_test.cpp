#include "tickwire/infer/onnxruntime/ort_api.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "infer/model_files.hpp"

namespace tickwire::infer {
namespace {

using testing::has;
using testing::ort_library;
using testing::setup_error;

TEST(OrtApi, RefusesAMissingLibrary) {
  EXPECT_TRUE(has(setup_error([] { open_ort("/nowhere/libonnxruntime.so"); }),
                  {"expected libonnxruntime.so of an installed onnxruntime 1.21 or newer",
                   "found /nowhere/libonnxruntime.so (No such file"}));
  EXPECT_TRUE(has(setup_error([] { open_ort(""); }), {"found no path"}));
}

TEST(OrtApi, GivesTheSameRuntimeForTheSameLibrary) {
  TICKWIRE_NEEDS_ORT();
  const OrtRuntime& first = open_ort(ort_library());
  EXPECT_NE(first.api, nullptr);
  EXPECT_EQ(first.version.substr(0, 2), "1.");
  EXPECT_EQ(&open_ort(ort_library()), &first);

  const std::filesystem::path link = std::filesystem::path(::testing::TempDir()) / "tickwire_ort_link.so";
  std::filesystem::remove(link);
  std::filesystem::create_symlink(ort_library(), link);
  EXPECT_EQ(&open_ort(link.string()), &first) << "a link to it is the same library";
  std::filesystem::remove(link);
}

TEST(OrtApi, RefusesASecondLibrary) {
  TICKWIRE_NEEDS_ORT();
  const OrtRuntime& first = open_ort(ort_library());
  const std::string other = ::testing::TempDir() + "tickwire_other_ort.so";
  std::ofstream(other) << "not a library";
  EXPECT_TRUE(has(setup_error([&] { open_ort(other); }),
                  {"expected the one that this process has open, " + first.library, "found " + other}));
  std::filesystem::remove(other);
}

// Each in a process of its own, because the first library that opens stays.
TEST(OrtApiDeathTest, RefusesAFileThatIsNoLibrary) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const std::string path = ::testing::TempDir() + "tickwire_no_library.so";
  std::ofstream(path) << "not a library";
  EXPECT_EXIT(
      {
        std::fputs(setup_error([&] { open_ort(path); }).c_str(), stderr);
        std::exit(0);
      },
      ::testing::ExitedWithCode(0), "expected a library that can be loaded, found .*tickwire_no_library.so");
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace tickwire::infer

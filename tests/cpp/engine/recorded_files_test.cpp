#include "tickwire/engine/record/recorded_files.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "tickwire/metrics/stat_file.hpp"

namespace tickwire::engine {
namespace {

namespace fs = std::filesystem;

std::string content(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

/// What a shell says of a file, which shares nothing with the recorder.
std::string sha256_of(const fs::path& file) {
  const std::string command = "sha256sum " + file.string();
  std::FILE* const pipe = ::popen(command.c_str(), "r");
  char digits[65] = {};
  const bool read = std::fread(digits, 1, 64, pipe) == 64;
  ::pclose(pipe);
  return read ? digits : "";
}

/// A disk that does as it is told, one call after another; without a word, as it should.
struct Disk {
  std::deque<int> errors;  // Of the next writes; 0: it is taken.
  std::size_t torn = 0;    // Before an error so many bytes are taken.
  int sync_error = 0;
  bool uncuttable = false;
  int cuts = 0;
  int syncs = 0;

  DiskCalls calls() {
    return {.write = [this](int fd, const char* bytes, std::size_t count, off_t offset) -> ssize_t {
              const int error = errors.empty() ? 0 : errors.front();
              if (error == 0) {
                if (!errors.empty()) errors.pop_front();
                return ::pwrite(fd, bytes, count, offset);
              }
              if (const std::size_t some = std::min(std::exchange(torn, 0), count); some != 0) {
                return ::pwrite(fd, bytes, some, offset);
              }
              errors.pop_front();
              errno = error;
              return -1;
            },
            .truncate =
                [this](int fd, off_t bytes) {
                  ++cuts;
                  return uncuttable ? -1 : ::ftruncate(fd, bytes);
                },
            .sync =
                [this](int) {
                  ++syncs;
                  errno = sync_error;
                  return sync_error == 0 ? 0 : -1;
                }};
  }
};

class RecordedFilesTest : public testing::Test {
 protected:
  RecordedFilesTest() {
    fs::path name = fs::temp_directory_path() / "recorded.XXXXXX";
    std::string text = name.string();
    folder_ = ::mkdtemp(text.data());
    stats_ = metrics::StatFile::create("", {.counters = 8, .histograms = 1, .error_logs = 2});
    shared_ =
        std::make_unique<RecordingDisk>(RecordingDisk{.run_dir = folder_.string(),
                                                      .calls = disk_.calls(),
                                                      .sync = nullptr,
                                                      .finished = finished_,
                                                      .lost = stats_->counter("recorder", "disk_lost"),
                                                      .bytes_written = stats_->counter("recorder", "bytes"),
                                                      .errors = stats_->error_log("recorder"),
                                                      .retry_ns = 50'000'000});
  }
  ~RecordedFilesTest() override { fs::remove_all(folder_); }

  [[nodiscard]] std::int64_t lost() const { return shared_->lost.value(); }
  [[nodiscard]] fs::path file(int number) const {
    return folder_ / "rows" / "a" / ("00000" + std::to_string(number) + ".bin");
  }
  /// Until the pause after a failure is over.
  static void flush_again(RecordedFiles& files) {
    ::usleep(60'000);
    files.flush();
  }

  fs::path folder_;
  Disk disk_;
  FinishedFiles finished_;
  std::unique_ptr<metrics::StatFile> stats_;
  std::unique_ptr<RecordingDisk> shared_;
};

TEST_F(RecordedFilesTest, FinishedFileIsNamedWithItsLengthAndHash) {
  RecordedFiles files("rows/a", ".bin", "head", *shared_);
  files.append("one");
  files.flush();
  files.append("two");
  files.flush();
  EXPECT_TRUE(finished_.take().empty());
  files.finish();
  EXPECT_EQ(content(file(1)), "headonetwo");
  const std::vector<RecordedFile> done = finished_.take();
  ASSERT_EQ(done.size(), 1U);
  EXPECT_EQ(done[0].file, "rows/a/000001.bin");
  EXPECT_EQ(done[0].bytes, 10U);
  EXPECT_EQ(done[0].sha256, sha256_of(file(1)));
}

TEST_F(RecordedFilesTest, FullDiskLosesNothingOnceThereIsRoomAgain) {
  RecordedFiles files("rows/a", ".bin", "", *shared_);
  files.append("before ");
  files.flush();
  disk_.errors = {ENOSPC, EDQUOT};
  disk_.torn = 3;
  files.append("while ");
  files.flush();
  EXPECT_EQ(content(file(1)), "before ");  // What had been written of it is cut off.
  EXPECT_EQ(disk_.cuts, 1);
  files.append("it is full ");
  files.flush();  // Not yet tried again.
  EXPECT_EQ(disk_.cuts, 1);
  flush_again(files);
  EXPECT_EQ(disk_.cuts, 2);
  flush_again(files);
  files.finish();
  EXPECT_EQ(content(file(1)), "before while it is full ");
  EXPECT_FALSE(fs::exists(file(2)));
  EXPECT_EQ(lost(), 0);
  const std::vector<RecordedFile> done = finished_.take();
  ASSERT_EQ(done.size(), 1U);
  EXPECT_EQ(done[0].sha256, sha256_of(file(1)));
}

TEST_F(RecordedFilesTest, BrokenFileIsLeftWholeAndTheNextGoesOn) {
  RecordedFiles files("rows/a", ".bin", "", *shared_);
  files.append("good");
  files.flush();
  disk_.errors = {EIO};
  disk_.torn = 2;
  files.append("torn");
  files.flush();
  flush_again(files);
  files.append("more");
  files.flush();
  files.finish();
  EXPECT_EQ(content(file(1)), "good");
  EXPECT_EQ(content(file(2)), "tornmore");
  EXPECT_EQ(lost(), 0);
  const std::vector<RecordedFile> done = finished_.take();
  ASSERT_EQ(done.size(), 2U);
  EXPECT_EQ(done[0].sha256, sha256_of(file(1)));
  EXPECT_EQ(done[1].sha256, sha256_of(file(2)));
}

TEST_F(RecordedFilesTest, EachFileOfAStreamBeginsWithItsHead) {
  RecordedFiles files("rows/a", ".bin", "head", *shared_);
  files.append("good");
  files.flush();
  disk_.errors = {EIO};
  disk_.torn = 2;
  files.append("torn");
  files.flush();  // Left as it is: this one goes into the next file.
  flush_again(files);
  files.append("more");
  files.flush();
  files.finish();
  EXPECT_EQ(content(file(1)), "headgood");
  EXPECT_EQ(content(file(2)), "headtornmore");
  EXPECT_EQ(lost(), 0);
  EXPECT_EQ(shared_->bytes_written.value(), 4 + 4 + 4 + 4 + 4);
  const std::vector<RecordedFile> done = finished_.take();
  ASSERT_EQ(done.size(), 2U);
  EXPECT_EQ(done[1].bytes, 12U);
  EXPECT_EQ(done[1].sha256, sha256_of(file(2)));
}

TEST_F(RecordedFilesTest, AHeadThatIsNotTakenIsTriedAgainBeforeAnythingBehindIt) {
  disk_.errors = {ENOSPC, EIO};
  disk_.torn = 1;
  RecordedFiles files("rows/a", ".bin", "head", *shared_);
  EXPECT_EQ(content(file(1)), "");
  files.append("one");
  files.flush();  // Not yet.
  EXPECT_EQ(content(file(1)), "");
  flush_again(files);  // It fails otherwise: a file that is as empty as the next would be is kept.
  flush_again(files);
  files.finish();
  EXPECT_EQ(content(file(1)), "headone");
  EXPECT_FALSE(fs::exists(file(2)));
}

TEST_F(RecordedFilesTest, SaysWhatFailedAndWhetherATailIsTorn) {
  const auto texts = [this] {
    std::string all;
    for (const metrics::ErrorEntry& entry : shared_->errors.entries()) {
      all += entry.text + (entry.count == 1 ? "" : " | " + entry.newest);
    }
    return all;
  };
  const std::string where = "recorder_disk: " + (folder_ / "rows" / "a").string() + ": ";
  RecordedFiles files("rows/a", ".bin", "", *shared_);
  disk_.errors = {ENOSPC, EIO};
  files.append("x");
  files.flush();
  EXPECT_EQ(texts(), where + "write failed (No space left on device)");
  disk_.uncuttable = true;
  flush_again(files);
  EXPECT_EQ(texts(), where + "write failed (No space left on device) | " + where +
                         "write failed, and its tail is torn (Input/output error)");
}

TEST_F(RecordedFilesTest, DiskThatTakesNothingMakesNoMoreFiles) {
  RecordedFiles files("rows/a", ".bin", "", *shared_);
  disk_.errors = {EIO, EIO};
  files.append("x");
  files.flush();
  flush_again(files);
  EXPECT_FALSE(fs::exists(file(2)));
  flush_again(files);
  EXPECT_EQ(content(file(1)), "x");
}

TEST_F(RecordedFilesTest, WhatWaitsHasABoundAndIsCountedAtTheEnd) {
  RecordedFiles files("rows/a", ".bin", "", *shared_);
  disk_.errors = std::deque<int>(1000, ENOSPC);
  const std::string unit(1U << 16U, 'u');
  std::int64_t taken = 0;
  while (files.takes() && taken < 1000) {
    files.append(unit);
    ++taken;
  }
  EXPECT_EQ(taken, 16);  // A megabyte; the rest waits in the ring of whoever writes.
  EXPECT_EQ(lost(), 0);
  files.give_up();
  EXPECT_EQ(lost(), 16);
  EXPECT_TRUE(files.takes());
  files.append(unit);
  EXPECT_EQ(lost(), 17);
}

TEST_F(RecordedFilesTest, SyncsWhatIsNewAndCountsWhatMayNotHaveCome) {
  DiskSync sync(disk_.calls());
  shared_->sync = &sync;
  RecordedFiles files("rows/a", ".bin", "", *shared_);
  files.append("one");
  files.sync();
  sync.on_close();
  EXPECT_EQ(disk_.syncs, 1);
  files.sync();  // Nothing is new.
  sync.on_close();
  EXPECT_EQ(disk_.syncs, 1);
  disk_.sync_error = EIO;
  files.append("two");
  files.append("three");
  files.sync();
  sync.on_close();
  files.sync();
  EXPECT_EQ(disk_.syncs, 2);
  EXPECT_EQ(lost(), 2);  // Of "two" and "three" nobody knows.
  disk_.sync_error = 0;
  files.append("four");
  flush_again(files);
  files.finish();
  EXPECT_EQ(content(file(1)), "onetwothree");
  EXPECT_EQ(content(file(2)), "four");
}

}  // namespace
}  // namespace tickwire::engine

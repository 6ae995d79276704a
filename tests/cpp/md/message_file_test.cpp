#include "tickwire/md/message_file.hpp"

#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "tickwire/core/error.hpp"

namespace tickwire::md {
namespace {

class MessageFileTest : public ::testing::Test {
 protected:
  MessageFileTest()
      : folder_(std::filesystem::temp_directory_path() / ("message_file_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~MessageFileTest() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& bytes) const {
    const std::string path = (folder_ / name).string();
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  std::string write_gzip(const std::string& name, const std::string& bytes) const {
    const std::string path = (folder_ / name).string();
    gzFile file = gzopen(path.c_str(), "wb");
    gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
    gzclose(file);
    return path;
  }

  const std::filesystem::path folder_;
};

std::string framed(const std::vector<std::string>& messages) {
  std::string bytes;
  for (const std::string& message : messages) {
    bytes += static_cast<char>(message.size() >> 8U);
    bytes += static_cast<char>(message.size() & 0xFFU);
    bytes += message;
  }
  return bytes;
}

std::vector<std::string> all_of(MessageFile& file) {
  std::vector<std::string> messages;
  std::span<const std::byte> message;
  while (file.next(message)) {
    messages.emplace_back(reinterpret_cast<const char*>(message.data()), message.size());
  }
  return messages;
}

TEST_F(MessageFileTest, GivesTheSameMessagesWhateverTheBlock) {
  std::mt19937_64 random(3);
  std::vector<std::string> messages;
  for (int i = 0; i < 300; ++i) messages.emplace_back(1 + random() % 60, static_cast<char>(i));
  messages.emplace_back(65'535, 'x');
  const std::string bytes = framed(messages);
  const std::string plain = write("plain", bytes);
  const std::string gzip = write_gzip("day.gz", bytes);
  for (const std::size_t block :
       {std::size_t{1}, std::size_t{7}, std::size_t{4096}, MessageFile::kBlockBytes}) {
    for (const std::string& path : {plain, gzip}) {
      MessageFile file({path}, block);
      EXPECT_EQ(all_of(file), messages) << block << ' ' << path;
      EXPECT_FALSE(file.truncated()) << file.error();
    }
  }
}

TEST_F(MessageFileTest, NumbersMessagesInEachFile) {
  const std::string first = write("first", framed({"a", "bb"}));
  const std::string second = write("second", framed({"ccc"}));
  MessageFile file({first, second});
  std::span<const std::byte> message;
  std::vector<std::pair<std::size_t, std::uint64_t>> places;
  while (file.next(message)) places.emplace_back(file.file(), file.number());
  EXPECT_EQ(places, (std::vector<std::pair<std::size_t, std::uint64_t>>{{0, 1}, {0, 2}, {1, 1}}));
}

TEST_F(MessageFileTest, ReportsACutTailAndGoesOn) {
  const std::string bytes = framed({"first", "second"});
  const std::string next = write("next", framed({"third"}));
  for (std::size_t cut = 1; cut <= 8; ++cut) {
    const std::string path = write("cut", bytes.substr(0, bytes.size() - cut));
    MessageFile file({path, next});
    // Of eight bytes all belong to the second message: that file ends properly.
    EXPECT_EQ(all_of(file), (std::vector<std::string>{"first", "third"}));
    EXPECT_EQ(file.truncated(), cut < 8) << cut;
    if (cut < 8) {
      EXPECT_EQ(file.error(), path + ": message 2, at byte 7: the file ends in the middle of a message");
    }
  }
}

TEST_F(MessageFileTest, ALengthOfZeroEndsAFileAndIsReportedWithItsPlace) {
  const std::string next = write("next", framed({"third"}));
  const std::string path = write("zero", framed({"first", "", "second"}));
  for (const std::size_t block : {std::size_t{1}, MessageFile::kBlockBytes}) {
    MessageFile file({path, next}, block);
    EXPECT_EQ(all_of(file), (std::vector<std::string>{"first", "third"}));
    EXPECT_TRUE(file.truncated());
    EXPECT_EQ(file.error(),
              path +
                  ": message 2, at byte 7: a length of zero, expected 1 to 65535; what follows is "
                  "not read");
  }
}

TEST_F(MessageFileTest, LeavesAFileThatIsGivenUp) {
  const std::string path = write("damaged", framed({"first", "second"}));
  MessageFile file({path, write("next", framed({"third"}))});
  std::span<const std::byte> message;
  ASSERT_TRUE(file.next(message));
  file.give_up("nobody can read this");
  EXPECT_EQ(all_of(file), (std::vector<std::string>{"third"}));
  EXPECT_EQ(file.error(), path + ": nobody can read this");
}

TEST_F(MessageFileTest, ReportsACutGzipStream) {
  const std::string path = write_gzip("whole.gz", framed(std::vector<std::string>(500, "message")));
  const auto size = std::filesystem::file_size(path);
  std::filesystem::resize_file(path, size - 9);
  MessageFile file({path});
  EXPECT_GT(all_of(file).size(), 0U);
  EXPECT_TRUE(file.truncated());
  EXPECT_NE(file.error().find("the gzip stream is cut"), std::string::npos) << file.error();
}

TEST_F(MessageFileTest, RefusesWhatIsNoFile) {
  EXPECT_THROW(MessageFile({(folder_ / "none").string()}), SetupError);
  EXPECT_THROW(MessageFile({folder_.string()}), SetupError);
}

}  // namespace
}  // namespace tickwire::md

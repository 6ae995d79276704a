/// Files that are no day of ITCH, and what is said of them.

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "net/mold_packets.hpp"
#include "tickwire/core/arena.hpp"
#include "tickwire/core/error.hpp"
#include "tickwire/venue/itch/replay_source.hpp"
#include "venue/itch_bytes.hpp"

namespace tickwire::venue::itch {
namespace {

using net::test::big_endian;

class ItchFilesTest : public testing::Test {
 protected:
  ItchFilesTest() {
    folder_ = std::filesystem::temp_directory_path() /
              ("itch_files_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) +
               "_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  ~ItchFilesTest() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& bytes, const std::string& name) const {
    const std::string path = folder_ / name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  std::filesystem::path folder_;
};

std::string why_no_day(const std::string& path) {
  try {
    check_day_file(path);
  } catch (const SetupError& error) {
    return error.what();
  }
  return "";
}

TEST_F(ItchFilesTest, ADayFileThatIsNoneIsRefusedByWhatItLooksLike) {
  const auto framed = [](const std::string& message) { return big_endian(message.size(), 2) + message; };
  const std::string event = bytes::system_event(7, 'O');
  const std::string begin = "input " + (folder_ / "day").string() +
                            ": expected a day file: messages of ITCH 5.0, each behind its length in two "
                            "bytes, found ";
  EXPECT_EQ(why_no_day(write(framed("?") + framed(event), "day")), "") << "one that fits is enough";
  EXPECT_EQ(why_no_day(write(framed("S" + event), "day")), begin + "packets of SoupBinTCP");
  EXPECT_EQ(why_no_day(write("time,price\n1,2\n3,4\n and so on for a while", "day")),
            begin + "text, which begins \"time,price 1,2 3,4  and \"");
  std::string other;
  for (int i = 0; i < 3; ++i) other += framed(std::string(5, '\x81'));
  EXPECT_EQ(why_no_day(write(other, "day")), begin + "that none of its 3 has the length of its type");
  for (int i = 0; i < 100; ++i) other += framed(std::string(5, '\x81'));
  EXPECT_EQ(why_no_day(write(other, "day")), begin + "that none of the first 64 has the length of its type");
}

TEST_F(ItchFilesTest, AnEmptyInputIsNoneAndOneBesideOthersIsTold) {
  Arena arena;
  const auto open = [&](std::vector<std::string> files) {
    ReplayConfig config{.files = std::move(files), .midnights = {}, .mold = {}};
    config.midnights.assign(config.files.size(), 0);
    return std::make_unique<ReplaySource>(config, "feeds[0]", arena);
  };
  const std::string empty = write("", "empty");
  try {
    (void)open({empty});
    ADD_FAILURE() << "an empty file was taken";
  } catch (const SetupError& error) {
    EXPECT_EQ(std::string(error.what()), "input " + empty +
                                             ": expected messages of ITCH 5.0, or a capture of MoldUDP64, "
                                             "found an empty file");
  }
  const std::string event = bytes::system_event(7, 'O');
  const auto source = open({empty, write(big_endian(event.size(), 2) + event, "day")});
  EXPECT_TRUE(source->truncated());
  EXPECT_EQ(source->error(), empty + ": the file is empty");
  ReplayItem item{};
  EXPECT_TRUE(source->next(item));
  EXPECT_EQ(item.ts_recv, 7);
  EXPECT_FALSE(source->next(item));
  EXPECT_EQ(source->lines(), 0U);
  EXPECT_EQ(source->sequencer(), nullptr);
}

}  // namespace
}  // namespace tickwire::venue::itch

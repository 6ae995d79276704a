#include "tickwire/metrics/stat_file.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "tickwire/core/error.hpp"
#include "tickwire/core/time.hpp"

namespace tickwire::metrics {
namespace {

namespace fs = std::filesystem;

/// A directory of this test's own, gone with it.
class StatFileTest : public testing::Test {
 protected:
  StatFileTest() {
    std::string name = testing::TempDir() + "tickwire-stat-XXXXXX";
    directory_ = ::mkdtemp(name.data());
  }
  ~StatFileTest() override { fs::remove_all(directory_); }

  std::string path(const std::string& name = "engine.stat") const { return directory_ / name; }

  fs::path directory_;
};

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_bytes(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string refusal(const std::string& path) {
  try {
    const StatReader reader(path);
  } catch (const SetupError& error) {
    return error.what();
  }
  return "";
}

/// What the golden file holds; py's reader checks the same in tests/py/test_stat_file.py.
void fill(StatFile& file) {
  Counter& events = file.counter("binance_spot", "events");
  Counter& depth = file.counter("binance_spot:BTCUSDT", "book_depth");
  file.counter("engine", "untouched");
  Histogram& decode = file.histogram("binance_spot", "decode");
  Histogram& model = file.histogram("inference-0", "model");
  ErrorLog& errors = file.error_log("ingest-0");
  file.error_log("inference-0");
  file.publish();
  events.add(7);
  events.add(93'951);
  depth.set(-3);
  for (std::int64_t ns = 1; ns <= 1000; ++ns) decode.record(ns * ns);
  model.record(-1);
  model.record(3'700);
  model.record(Buckets::kEnd + 5);
  errors.report(2, "gap: expected 17, found 19", 1'700'000'000'000'000'001);
  errors.report(2, "gap: expected 30, found 40", 1'700'000'000'000'000'009);
  errors.report(31, "préfixe \xE2\x82\xAC", 1'700'000'000'000'000'005);
  errors.report(99, "no room", 1'700'000'000'000'000'006);
  file.heartbeat(1'700'000'000'500'000'000);
  file.end(1'700'000'001'000'000'000);
}

void expect_filled(const StatReader& reader, const char* newest = "gap: expected 30, found 40") {
  const std::vector<CounterReading> counters = reader.counters();
  ASSERT_EQ(counters.size(), 3U);
  EXPECT_EQ(counters[0].scope, "binance_spot");
  EXPECT_EQ(counters[0].name, "events");
  EXPECT_EQ(counters[0].value, 93'958);
  EXPECT_EQ(counters[1].scope, "binance_spot:BTCUSDT");
  EXPECT_EQ(counters[1].value, -3);
  EXPECT_EQ(counters[2].value, 0);

  const std::vector<HistogramReading> histograms = reader.histograms();
  ASSERT_EQ(histograms.size(), 2U);
  EXPECT_EQ(histograms[0].scope, "binance_spot");
  EXPECT_EQ(histograms[0].stage, "decode");
  EXPECT_EQ(histograms[0].snapshot.count(), 1000U);
  EXPECT_EQ(histograms[0].snapshot.sum, 333'833'500U);
  EXPECT_EQ(histograms[0].snapshot.max, 1'000'000);
  EXPECT_EQ(histograms[0].snapshot.percentile(50), Buckets::high(Buckets::of(500 * 500)));
  EXPECT_EQ(histograms[1].snapshot.count(), 2U);
  EXPECT_EQ(histograms[1].snapshot.underflow, 1U);
  EXPECT_EQ(histograms[1].snapshot.overflow, 1U);
  EXPECT_EQ(histograms[1].snapshot.max, Buckets::kEnd + 5);

  const std::vector<ErrorReading> logs = reader.error_logs();
  ASSERT_EQ(logs.size(), 2U);
  EXPECT_EQ(logs[0].scope, "ingest-0");
  EXPECT_EQ(logs[0].lost, 1U);
  ASSERT_EQ(logs[0].entries.size(), 2U);
  EXPECT_EQ(logs[0].entries[0].kind, 2U);
  EXPECT_EQ(logs[0].entries[0].text, "gap: expected 17, found 19");
  EXPECT_EQ(logs[0].entries[0].newest, newest);
  EXPECT_EQ(logs[0].entries[0].first_ts, 1'700'000'000'000'000'001);
  EXPECT_EQ(logs[0].entries[0].last_ts, 1'700'000'000'000'000'009);
  EXPECT_EQ(logs[0].entries[0].count, 2U);
  EXPECT_EQ(logs[0].entries[1].text, "préfixe \xE2\x82\xAC");
  EXPECT_TRUE(logs[1].entries.empty());
  EXPECT_EQ(reader.heartbeat_ts(), 1'700'000'000'500'000'000);
  EXPECT_EQ(reader.end_ts(), 1'700'000'001'000'000'000);
}

constexpr StatCapacity kCapacity{.counters = 4, .histograms = 2, .error_logs = 2};

TEST_F(StatFileTest, IsReadFromOutsideAsItWasWritten) {
  const TsNs before = read_utc();
  const auto file = StatFile::create(path(), kCapacity);
  fill(*file);
  const StatReader reader(path());
  expect_filled(reader);
  EXPECT_EQ(reader.pid(), ::getpid());
  EXPECT_TRUE(reader.writer_alive());
  EXPECT_GE(reader.start_ts(), before);
  EXPECT_LE(reader.start_ts(), read_utc());
}

TEST_F(StatFileTest, ReaderSeesLaterValuesInTheSameMapping) {
  const auto file = StatFile::create(path(), kCapacity);
  Counter& counter = file->counter("a", "b");
  Histogram& histogram = file->histogram("a", "h");
  file->publish();
  const StatReader reader(path());
  EXPECT_EQ(reader.counters()[0].value, 0);
  const HistogramSnapshot before = reader.histograms()[0].snapshot;
  counter.add(5);
  histogram.record(77);
  EXPECT_EQ(reader.counters()[0].value, 5);
  EXPECT_EQ(reader.histograms()[0].snapshot.since(before).percentile(50), 77);
}

TEST_F(StatFileTest, IsTheGoldenFileExceptForProcessAndTime) {
  const fs::path golden = fs::path(__FILE__).parent_path() / "../../data/stat_file_v2.stat";
  expect_filled(StatReader(golden));
  {
    const auto file = StatFile::create(path(), kCapacity);
    fill(*file);
  }
  std::string expected = bytes_of(golden);
  std::string found = bytes_of(path());
  for (std::string* bytes : {&expected, &found}) {
    bytes->replace(24, 4, 4, '\0');    // pid
    bytes->replace(32, 16, 16, '\0');  // pid_start, start_ts
  }
  ASSERT_EQ(expected.size(), found.size());
  EXPECT_TRUE(expected == found) << "the layout moved: it needs a new version, and older ones stay readable";
}

TEST_F(StatFileTest, ReadsTheFirstVersionAndWritesNoMoreOfIt) {
  const fs::path old = fs::path(__FILE__).parent_path() / "../../data/stat_file_v1.stat";
  expect_filled(StatReader(old), "gap: expected 17, found 19");
  fs::copy_file(old, path());
  EXPECT_THROW((void)StatFile::attach(path()), SetupError);
}

TEST_F(StatFileTest, IsPrivateAndComplete) {
  const std::string inner = directory_ / "new" / "engine.stat";
  const auto file = StatFile::create(inner, kCapacity);
  struct stat info{};
  ASSERT_EQ(::stat((directory_ / "new").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0700U);
  EXPECT_FALSE(fs::exists(inner)) << "not before publish()";
  file->publish();
  ASSERT_EQ(::stat(inner.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_ / "new"), fs::directory_iterator()), 1);
  EXPECT_TRUE(file->report_line().starts_with("stat file: " + inner)) << file->report_line();
}

TEST_F(StatFileTest, LeavesNothingWhenItWasNeverPublished) {
  StatFile::create(path(), kCapacity).reset();
  EXPECT_TRUE(fs::is_empty(directory_));
}

TEST_F(StatFileTest, RefusesADirectoryThatOthersWrite) {
  fs::permissions(directory_, fs::perms::all);
  try {
    StatFile::create(path(), kCapacity);
    FAIL() << "no error";
  } catch (const SetupError& error) {
    EXPECT_NE(std::string(error.what()).find("chmod go-w"), std::string::npos) << error.what();
  }
  EXPECT_TRUE(fs::is_empty(directory_));
}

TEST_F(StatFileTest, RefusesToReplaceWhatIsNoStatFile) {
  write_bytes(path(), "my thesis");
  EXPECT_THROW(StatFile::create(path(), kCapacity), SetupError);
  fs::create_symlink(path(), path("link"));
  EXPECT_THROW(StatFile::create(path("link"), kCapacity), SetupError);
  EXPECT_EQ(bytes_of(path()), "my thesis");
}

TEST_F(StatFileTest, RefusesThePathOfARunningEngineAndTakesADeadOnes) {
  auto first = StatFile::create(path(), kCapacity);
  first->counter("run", "number").set(1);
  first->publish();
  const StatReader old(path());
  try {
    StatFile::create(path(), kCapacity);
    FAIL() << "no error";
  } catch (const SetupError& error) {
    EXPECT_NE(std::string(error.what()).find("in use by pid " + std::to_string(::getpid())),
              std::string::npos)
        << error.what();
  }
  first.reset();
  EXPECT_TRUE(fs::exists(path()));  // It stays for whoever wants to know how it ended.

  const auto second = StatFile::create(path(), kCapacity);
  second->counter("run", "number").set(2);
  second->publish();
  EXPECT_EQ(StatReader(path()).counters()[0].value, 2);
  EXPECT_EQ(old.counters()[0].value, 1);  // A reader keeps what it opened.
}

TEST_F(StatFileTest, RemovesItsOwnFileOnly) {
  const auto first = StatFile::create(path(), kCapacity);
  first->publish();
  fs::remove(path());
  write_bytes(path(), "another's");
  first->remove();
  EXPECT_TRUE(fs::exists(path()));
  fs::remove(path());
  const auto second = StatFile::create(path(), kCapacity);
  second->remove();
  second->publish();
  second->remove();
  EXPECT_FALSE(fs::exists(path()));
}

TEST_F(StatFileTest, BoundsWhatSetupMayAsk) {
  const auto file = StatFile::create("", {.counters = 2, .histograms = 1, .error_logs = 1});
  file->counter("a", "b");
  EXPECT_THROW(file->counter("a", "b"), std::logic_error);
  EXPECT_THROW(file->counter(std::string(kMaxLabel + 1, 'x'), "b"), SetupError);
  EXPECT_THROW(file->counter(std::string("a\0c", 3), "b"), SetupError);
  file->counter(std::string(kMaxLabel, 'x'), std::string(kMaxLabel, 'y'));
  EXPECT_THROW(file->counter("a", "c"), std::logic_error);
  file->histogram("a", "b");
  EXPECT_THROW(file->histogram("a", "c"), std::logic_error);
  file->error_log("a");
  EXPECT_THROW(file->error_log("b"), std::logic_error);
  file->publish();
  EXPECT_THROW(file->counter("a", "d"), std::logic_error);
  EXPECT_THROW(file->publish(), std::logic_error);
}

TEST_F(StatFileTest, WorksInMemoryOfItsOwn) {
  const auto file = StatFile::create("", kCapacity);
  fill(*file);
  EXPECT_NE(file->report_line().find("in memory"), std::string::npos);
  file->remove();
  expect_filled(StatReader(file->path()));
}

TEST_F(StatFileTest, TellsAPathThatARunningEngineHolds) {
  EXPECT_FALSE(StatFile::in_use(path()));
  auto file = StatFile::create(path(), kCapacity);
  file->publish();
  EXPECT_TRUE(StatFile::in_use(path()));
  file.reset();
  EXPECT_TRUE(fs::exists(path()));
  EXPECT_FALSE(StatFile::in_use(path()));
}

TEST_F(StatFileTest, ClearsWhatKilledEnginesLeftAndNothingElse) {
  const auto name = [&](const char* file) { return (directory_ / file).string(); };
  const auto living = StatFile::create(name("engine-1-1.stat"), kCapacity);
  living->publish();
  const auto beginning = StatFile::create(name("engine-2-1.stat"), kCapacity);  // Not published yet.
  StatFile::create(name("engine-3-1.stat"), kCapacity)->publish();              // Stays, as after a kill.
  write_bytes(name("engine-4-1.stat"), "");                                     // Killed while it was made.
  write_bytes(name("engine-4-2.stat.a1B2c3"), std::string(100, 'x'));
  // Of others, of tools and of users.
  for (const char* other : {"jitter.stat", "engine-x-1.stat", "engine-5.stat", "engine-6-1.statx", "notes"}) {
    write_bytes(name(other), "x");
  }
  fs::create_symlink(name("notes"), name("engine-7-1.stat"));
  ASSERT_EQ(::mkfifo(name("engine-8-1.stat").c_str(), 0600), 0);
  // Sockets: of the living, of one that was killed, of one that listens without a file.
  const auto bind_to = [&](const char* file) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::snprintf(address.sun_path, sizeof address.sun_path, "%s", name(file).c_str());
    EXPECT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return fd;
  };
  ::close(bind_to("engine-1-1.stat.control"));  // It does not listen just now, but its engine lives.
  ::close(bind_to("engine-3-1.stat.control"));
  ::close(bind_to("engine-9-1.stat.control"));
  const int listening = bind_to("engine-9-2.stat.control");
  ASSERT_EQ(::listen(listening, 1), 0);

  remove_dead_stat_files(directory_.string());

  std::set<std::string> left;
  for (const auto& entry : fs::directory_iterator(directory_)) left.insert(entry.path().filename());
  const std::string making = fs::path(*std::find_if(left.begin(), left.end(), [](const std::string& file) {
                               return file.starts_with("engine-2-1.stat.");
                             })).string();
  EXPECT_EQ(left, (std::set<std::string>{"engine-1-1.stat", "engine-1-1.stat.control", making, "jitter.stat",
                                         "engine-x-1.stat", "engine-5.stat", "engine-6-1.statx", "notes",
                                         "engine-7-1.stat", "engine-8-1.stat", "engine-9-2.stat.control"}));
  beginning->publish();
  EXPECT_TRUE(fs::exists(name("engine-2-1.stat")));
  ::close(listening);
  remove_dead_stat_files((directory_ / "nowhere").string());
}

TEST_F(StatFileTest, ReaderSaysWhatIsWrong) {
  EXPECT_NE(refusal(path()).find("No such file"), std::string::npos);
  EXPECT_NE(refusal(directory_).find("regular file"), std::string::npos);
  write_bytes(path(), "short");
  EXPECT_NE(refusal(path()).find("5 bytes"), std::string::npos);
  write_bytes(path(), std::string(4096, 'x'));
  EXPECT_NE(refusal(path()).find("another file"), std::string::npos);

  fs::remove(path());
  StatFile::create(path(), kCapacity)->publish();
  const std::string good = bytes_of(path());
  std::string bytes = good;
  bytes[8] = 0;
  write_bytes(path(), bytes);
  EXPECT_NE(refusal(path()).find("still being made"), std::string::npos);
  bytes[8] = 3;
  write_bytes(path(), bytes);
  EXPECT_NE(refusal(path()).find("expected version 2, found version 3"), std::string::npos);
  write_bytes(path(), good.substr(0, good.size() - 1));
  EXPECT_NE(refusal(path()).find("damaged"), std::string::npos);
}

TEST_F(StatFileTest, ReaderOfAFileThatIsCutShortSaysSoAndLives) {
  for (const std::uintmax_t left : {std::uintmax_t{0}, std::uintmax_t{600}, std::uintmax_t{20'000}}) {
    fs::remove(path());
    const auto file = StatFile::create(path(), kCapacity);
    fill(*file);
    const StatReader reader(path());
    ASSERT_EQ(reader.counters().size(), 3U);
    const std::uintmax_t whole = fs::file_size(path());
    fs::resize_file(path(), left);
    const auto refused = [&](const auto& look) {
      try {
        look();
      } catch (const SetupError& error) {
        return std::string(error.what());
      }
      return std::string();
    };
    const std::string expected = "stat file " + path() + ": expected the " + std::to_string(whole) +
                                 " bytes that it had, found " + std::to_string(left) +
                                 ": somebody has cut it short";
    EXPECT_EQ(refused([&] { (void)reader.counters(); }), expected);
    EXPECT_EQ(refused([&] { (void)reader.histograms(); }), expected);
    EXPECT_EQ(refused([&] { (void)reader.error_logs(); }), expected);
    (void)reader.pid();
    EXPECT_FALSE(left == 0 && reader.writer_alive());
    file->remove();
  }
}

TEST_F(StatFileTest, ReaderSurvivesADamagedHeader) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  {
    const auto file = StatFile::create(path(), kCapacity);
    fill(*file);
  }
  const std::string good = bytes_of(path());
  int opened = 0;
  for (int i = 0; i < 300; ++i) {
    std::string bytes = good;
    for (int n = 0; n < 2; ++n) bytes[random() % 512] = static_cast<char>(random());
    // The error log's lengths and the labels, which a reader must not trust either.
    std::memset(bytes.data() + bytes.size() - 256 - (random() % 8) * 256 + 24,
                static_cast<int>(random() % 256), 4);
    std::memset(bytes.data() + 512, 'L', 128);
    write_bytes(path(), bytes);
    try {
      const StatReader reader(path());
      ++opened;
      for (const CounterReading& reading : reader.counters()) EXPECT_LE(reading.scope.size(), kMaxLabel);
      reader.histograms();
      for (const ErrorReading& log : reader.error_logs()) {
        for (const ErrorEntry& entry : log.entries) EXPECT_LE(entry.text.size(), ErrorLog::kMaxText);
      }
      reader.writer_alive();
    } catch (const SetupError&) {
    }
  }
  EXPECT_GT(opened, 0);
}

TEST_F(StatFileTest, AWriterThatAttachesGoesOnFromTheValuesThere) {
  const auto file = StatFile::create(path(), {.counters = 2, .histograms = 1, .error_logs = 1});
  file->counter("a", "other").add(1);
  Counter& made = file->counter("a", "rows");
  file->histogram("a", "model").record(5);
  file->error_log("a").report(1, "first", 10);
  EXPECT_THROW((void)StatFile::attach(path()), SetupError) << "not published";
  file->publish();
  made.add(40);
  {
    const auto there = StatFile::attach(path());
    there->counter("a", "rows").add(2);
    there->counter("a", "rows").add(3);  // Found, not made: as often as asked for.
    there->histogram("a", "model").record(7);
    there->error_log("a").report(1, "second", 20);
    EXPECT_THROW((void)there->counter("a", "rows_"), SetupError);
    EXPECT_THROW((void)there->counter("b", "rows"), SetupError);
    EXPECT_THROW((void)there->histogram("a", "rows"), SetupError);
  }
  EXPECT_EQ(made.value(), 45);
  const StatReader reader(path());
  EXPECT_EQ(reader.counters().size(), 2U);
  EXPECT_EQ(reader.histograms().at(0).snapshot.count(), 2U);
  EXPECT_EQ(reader.error_logs().at(0).entries.at(0).text, "first");
  EXPECT_EQ(reader.error_logs().at(0).entries.at(0).count, 2U);
}

TEST(StatDirectory, IsThisUsersRuntimeDirectoryWhereThereIsOne) {
  const char* const set = std::getenv("XDG_RUNTIME_DIR");
  const std::string before = set == nullptr ? "" : set;
  std::string name = testing::TempDir() + "tickwire-run-XXXXXX";
  const std::string runtime = ::mkdtemp(name.data());
  const std::string fallback = "/dev/shm/tickwire-" + std::to_string(::geteuid());
  ::setenv("XDG_RUNTIME_DIR", runtime.c_str(), 1);
  EXPECT_EQ(default_stat_directory(), runtime + "/tickwire");
  ::setenv("XDG_RUNTIME_DIR", "/nonexistent", 1);
  EXPECT_EQ(default_stat_directory(), fallback);
  ::setenv("XDG_RUNTIME_DIR", "relative", 1);
  EXPECT_EQ(default_stat_directory(), fallback);
  ::unsetenv("XDG_RUNTIME_DIR");
  EXPECT_EQ(default_stat_directory(), fallback);
  if (set != nullptr) ::setenv("XDG_RUNTIME_DIR", before.c_str(), 1);
  fs::remove(runtime);
}

}  // namespace
}  // namespace tickwire::metrics

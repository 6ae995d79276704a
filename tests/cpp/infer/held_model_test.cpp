/// A model whose bytes are held already, and what ends a run of one.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "infer/model_files.hpp"
#include "tickwire/core/shared_region.hpp"
#include "tickwire/infer/ensemble.hpp"
#include "tickwire/infer/loader.hpp"
#include "tickwire/infer/model_timer.hpp"

namespace tickwire::infer {
namespace {

using testing::has;
using testing::model_file;
using testing::setup_error;

std::unique_ptr<Model> load(const std::string& path, int fd = -1) {
  return load_model(testing::source(path, fd), {.rows = 1, .features = 4, .max_batch = 1});
}

/// A descriptor of the test's.
struct Held {
  explicit Held(int fd_) : fd(fd_) {}
  ~Held() { ::close(fd); }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  const int fd;
};

TEST(HeldModel, ScoresAsTheFileThatItIsOf) {
  TICKWIRE_NEEDS_ORT();
  const std::string path = model_file("good_free_batch");
  const Held held(copy_to_memory(path));
  ASSERT_EQ(::lseek(held.fd, 17, SEEK_SET), 17) << "where its place is does not matter, and stays";
  const auto of_file = load(path);
  const auto of_memory = load("/nowhere/at/all.onnx", held.fd);
  EXPECT_EQ(::lseek(held.fd, 0, SEEK_CUR), 17);
  EXPECT_EQ(of_memory->info().score_names, of_file->info().score_names);
  EXPECT_EQ(of_memory->info().executor, of_file->info().executor);
  alignas(64) const float input[4] = {0.25F, -1.5F, 3.0F, 0.125F};
  const std::size_t scores = of_file->info().score_names.size();
  std::vector<float> one(scores);
  std::vector<float> other(scores);
  ASSERT_TRUE(of_file->run_batch(of_file->bind(input), 1, one));
  ASSERT_TRUE(of_memory->run_batch(of_memory->bind(input), 1, other));
  EXPECT_EQ(std::memcmp(one.data(), other.data(), scores * sizeof(float)), 0);
}

TEST(HeldModel, ADescriptorThatHoldsNothingIsRefusedByTheNameOfItsFile) {
  TICKWIRE_NEEDS_ORT();
  const Held empty(::memfd_create("empty", MFD_CLOEXEC));
  EXPECT_TRUE(has(setup_error([&] { (void)load("m.onnx", empty.fd); }),
                  {"m.onnx", "an ONNX model", "nothing at the descriptor that holds it"}));
  EXPECT_TRUE(has(setup_error([] { (void)load("m.onnx", 1'000'000); }),
                  {"m.onnx", "nothing at the descriptor that holds it"}));
  const Held writing(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  EXPECT_TRUE(has(setup_error([&] { (void)load("m.onnx", writing.fd); }), {"m.onnx"}));
  const std::string path = model_file("good_free_batch");
  const Held unreadable(::memfd_create("unreadable", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(unreadable.fd, 100), 0);
  const Held write_only(
      ::open(("/proc/self/fd/" + std::to_string(unreadable.fd)).c_str(), O_WRONLY | O_CLOEXEC));
  EXPECT_TRUE(has(setup_error([&] { (void)load("m.onnx", write_only.fd); }),
                  {"m.onnx", "a file that cannot be read whole"}));
}

TEST(HeldModel, ARunThatIsInterruptedFailsAndSaysSo) {
  TICKWIRE_NEEDS_ORT();
  const auto model = load(model_file("good_free_batch"));
  alignas(64) const float input[4] = {};
  const std::size_t handle = model->bind(input);
  std::vector<float> scores(model->info().score_names.size());
  ASSERT_TRUE(model->run_batch(handle, 1, scores));
  model->interrupt();
  EXPECT_FALSE(model->run_batch(handle, 1, scores)) << "this one and all that come";
  EXPECT_FALSE(model->last_error().empty());
}

TEST(HeldModel, ABatchOfNoRowsIsRefused) {
  TICKWIRE_NEEDS_ORT();
  EXPECT_TRUE(has(setup_error([] { (void)testing::load_file(model_file("good_free_batch"), 1, 4, 0); }),
                  {"max_batch", "1 or more"}));
}

TEST(HeldModel, OnlyWhatCanBeWrittenIsOptimised) {
  TICKWIRE_NEEDS_ORT();
  const std::string path = model_file("good_free_batch");
  EXPECT_TRUE(has(setup_error([&] { optimize_model(testing::source(path), "/tmp/never", "pickle"); }),
                  {"format", "onnx or ort", "pickle"}));
  const ModelSource tensorrt = testing::source(path, -1, "tensorrt");
  EXPECT_TRUE(has(setup_error([&] { optimize_model(tensorrt, "/tmp/never", "onnx"); }),
                  {"provider", "cpu or cuda", "tensorrt"}));
}

/// Counts who tells it to end.
class Counted final : public Model {
 public:
  explicit Counted(int& interrupts) : interrupts_(interrupts) {
    info_.rows = 1;
    info_.features = 2;
    info_.max_batch = 3;
    info_.score_names = {"y"};
  }
  std::size_t warm_up(std::size_t, std::int64_t) override { return 0; }
  bool run_batch(std::size_t, std::size_t, std::span<float> scores) noexcept override {
    scores[0] = 0;
    return true;
  }
  void interrupt() noexcept override { ++interrupts_; }
  std::string_view last_error() const noexcept override { return ""; }

 protected:
  std::size_t add_binding(const float*, std::span<float>) override { return 0; }

 private:
  int& interrupts_;
};

TEST(HeldModel, AnEnsembleInterruptsEachOfItsMembers) {
  int first = 0;
  int second = 0;
  std::vector<std::unique_ptr<Model>> members;
  members.push_back(std::make_unique<Counted>(first));
  members.push_back(std::make_unique<Counted>(second));
  const std::unique_ptr<Model> both = make_ensemble(std::move(members), {1.0, 3.0});
  both->interrupt();
  EXPECT_EQ(first, 1);
  EXPECT_EQ(second, 1);
}

/// That runs come and are counted, on the host's own clock; never how long they take.
TEST(HeldModel, ATimerGivesATimeForEachRowThatArrived) {
  int interrupts = 0;
  Counted model(interrupts);
  const std::vector<std::int64_t> times = ModelTimer(model).time(
      {.rows = 4, .interval_ns = 1'000, .total_ns = 10'000, .sleep = false, .cold = false});
  ASSERT_FALSE(times.empty());
  EXPECT_EQ(times.size() % 4, 0U) << "four arrive at once";
  EXPECT_TRUE(std::all_of(times.begin(), times.end(), [](std::int64_t ns) { return ns >= 0; }));
}

/// On the host's own clock: that runs come and are counted, never how long they take.
TEST(HeldModel, TheHostsClockMovesOnAndIsWaitedFor) {
  LoadClock clock;
  const std::int64_t begin = clock.now();
  clock.spin_until(begin + 100'000);
  const std::int64_t spun = clock.now();
  EXPECT_GE(spun, begin + 100'000);
  clock.sleep_until(spun + 1'000'000);
  EXPECT_GE(clock.now(), spun + 900'000);
}

}  // namespace
}  // namespace tickwire::infer

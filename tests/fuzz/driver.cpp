// Runs a fuzz target as a plain test, with any compiler: the inputs of its corpus as they are, then
// mutations of them. A target that finds a fault aborts; the input is then kept in a file and named,
// with the seed.
//
// TICKWIRE_FUZZ_SEED repeats a run, TICKWIRE_FUZZ_RUNS makes it longer or shorter.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
// Of a sanitizer, where there is one: called when it is about to end the program.
extern "C" [[gnu::weak]] void __sanitizer_set_death_callback(void (*callback)());

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kRuns = TICKWIRE_FUZZ_MUTATIONS;
constexpr std::size_t kMaxInputBytes = 16384;

// What runs now, for the end of the program.
std::string g_input;
std::string g_what;
std::string g_kept;

/// May run in a signal handler: no allocation, no stream.
void keep_input() {
  const int fd = ::open(g_kept.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  bool kept = fd >= 0 && ::write(fd, g_input.data(), g_input.size()) == static_cast<ssize_t>(g_input.size());
  for (const std::string* text : {&g_what, &g_kept}) {
    kept = ::write(STDERR_FILENO, text->data(), text->size()) >= 0 && kept;
  }
  (void)!::write(STDERR_FILENO, kept ? "\n" : " (not kept)\n", kept ? 1 : 12);
}

void on_fault(int signal) {
  keep_input();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

class Fuzz : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::signal(SIGABRT, on_fault);
    if (__sanitizer_set_death_callback != nullptr) {
      __sanitizer_set_death_callback(keep_input);
    } else {
      std::signal(SIGSEGV, on_fault);
      std::signal(SIGBUS, on_fault);
    }
    g_kept = (fs::temp_directory_path() / ("fuzz-" + fs::path(TICKWIRE_FUZZ_CORPUS).filename().string() +
                                           '-' + std::to_string(::getpid())))
                 .string();
  }

  Fuzz() {
    // In the order of their names: a seed repeats a run on any machine.
    for (const fs::directory_entry& entry : fs::directory_iterator(TICKWIRE_FUZZ_CORPUS))
      paths_.push_back(entry);
    std::sort(paths_.begin(), paths_.end());
    for (const fs::path& path : paths_) corpus_.push_back(read_file(path));
  }

  /// A copy in memory of its exact size: a sanitizer sees the first byte too far.
  static void run(const std::string& input) {
    const std::vector<std::uint8_t> bytes(input.begin(), input.end());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }

  std::vector<fs::path> paths_;
  std::vector<std::string> corpus_;
};

/// Changes as a fuzzer makes them; pieces of other inputs bring in what the format is made of.
void mutate(std::string& input, const std::vector<std::string>& corpus, std::mt19937_64& random) {
  const auto below = [&random](std::size_t bound) { return static_cast<std::size_t>(random() % bound); };
  const std::size_t at = below(input.size() + 1);
  const std::size_t rest = input.size() - at;
  const std::size_t longest = below(4) == 0 ? 64 : 4;
  switch (below(6)) {
    case 0:
      if (rest != 0) input[at] = static_cast<char>(input[at] ^ (1U << below(8)));
      break;
    case 1:
      if (rest != 0) input[at] = static_cast<char>(random());
      break;
    case 2: input.erase(at, 1 + below(longest)); break;
    case 3: input.insert(at, 1 + below(longest), static_cast<char>(random())); break;
    case 4: {
      const std::string& other = corpus[below(corpus.size())];
      const std::size_t from = below(other.size() + 1);
      const std::string piece = other.substr(from, 1 + below(longest));
      if (below(2) == 0) input.erase(at, piece.size());
      input.insert(at, piece);
      break;
    }
    default:
      if (below(8) == 0) input.resize(at);
      break;
  }
}

TEST_F(Fuzz, HoldsOverItsCorpus) {
  ASSERT_FALSE(corpus_.empty()) << TICKWIRE_FUZZ_CORPUS;
  for (std::size_t i = 0; i < corpus_.size(); ++i) {
    g_what = "fuzz: fault in " + paths_[i].string() + ", copied to ";
    g_input = corpus_[i];
    run(g_input);
  }
  run("");
}

TEST_F(Fuzz, HoldsOverSeededMutations) {
  ASSERT_FALSE(corpus_.empty()) << TICKWIRE_FUZZ_CORPUS;
  const std::uint64_t seed = from_environment("TICKWIRE_FUZZ_SEED", std::random_device{}());
  const std::uint64_t runs = from_environment("TICKWIRE_FUZZ_RUNS", kRuns);
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (std::uint64_t i = 0; i < runs; ++i) {
    g_what =
        "fuzz: fault in mutation " + std::to_string(i) + " of seed " + std::to_string(seed) + ", kept in ";
    g_input = corpus_[random() % corpus_.size()];
    if (random() % 8 == 0) g_input += corpus_[random() % corpus_.size()];
    for (auto changes = 1 + random() % 4; changes-- > 0;) mutate(g_input, corpus_, random);
    if (g_input.size() > kMaxInputBytes) g_input.resize(kMaxInputBytes);
    run(g_input);
  }
}

}  // namespace

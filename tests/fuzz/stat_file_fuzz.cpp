// Fuzz target of the reader of stat files, and of a worker's attaching to one: whatever a file holds, it is
// refused in words, or gives as many records as it says that it has, each of them from within the file.
// CMakeLists.txt says how it is run.
//
// Input: one byte. Where it is even, the rest is the file. Else a small sound file is damaged: steps of a
// place (2 bytes), a number of bytes and these; a number of 0 cuts the file there.
//
// Covers: metrics/stat_file.cpp metrics/error_log.cpp metrics/histogram.cpp

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tickwire/core/error.hpp"
#include "tickwire/metrics/stat_file.hpp"

namespace stat_file_fuzz {

using namespace tickwire;
using namespace tickwire::metrics;

inline void require(bool held) {
  if (!held) std::abort();
}

inline const std::vector<char>& sound_file() {
  static const std::vector<char> bytes = [] {
    const std::unique_ptr<StatFile> file =
        StatFile::create("", {.counters = 3, .histograms = 1, .error_logs = 1});
    file->counter("engine", "rows").add(7);
    file->counter("feed", "messages").add(11);
    Histogram& histogram = file->histogram("engine", "decode");
    for (const std::int64_t ns : {0, 1, 130, 5000, 1'000'000'000}) histogram.record(ns);
    ErrorLog& log = file->error_log("engine");
    log.report(0, "first of its kind", 5);
    log.report(0, "the last", 6);
    log.report(63, std::string(300, 'x'), 7);
    file->publish();
    const auto view = file->view();
    const char* const begin = reinterpret_cast<const char*>(view.data());
    return std::vector<char>(begin, begin + view.size());
  }();
  return bytes;
}

/// The file in memory that the input describes.
inline std::vector<char> file_of(const std::uint8_t* data, std::size_t size) {
  if (data[0] % 2 == 0) return {data + 1, data + size};
  std::vector<char> file = sound_file();
  for (std::size_t at = 1; at + 3 <= size;) {
    const std::size_t place = data[at] * 256U + data[at + 1];
    const std::size_t count = std::min<std::size_t>(data[at + 2] % 32U, size - at - 3);
    at += 3;
    if (count == 0) {
      if (place < file.size()) file.resize(place);
    } else if (place + count <= file.size()) {
      std::memcpy(file.data() + place, data + at, count);
    }
    at += count;
  }
  return file;
}

inline std::uint32_t count_of(const std::vector<char>& file, std::size_t section) {
  std::uint32_t count = 0;
  std::memcpy(&count, file.data() + 64 + 16 * section + 12, sizeof count);
  return count;
}

inline void read(const std::string& path, const std::vector<char>& file) {
  const StatReader reader(path);
  // It was not refused, so these stand where they should.
  const auto counters = reader.counters();
  const auto histograms = reader.histograms();
  const auto logs = reader.error_logs();
  require(counters.size() == count_of(file, 0) && histograms.size() == count_of(file, 1) &&
          logs.size() == count_of(file, 2));
  for (const CounterReading& counter : counters) {
    require(counter.scope.size() <= kMaxLabel && counter.name.size() <= kMaxLabel);
  }
  for (const HistogramReading& histogram : histograms) {
    require(histogram.scope.size() <= kMaxLabel);
    for (const double q : {0.0, 50.0, 99.9, 100.0}) (void)histogram.snapshot.percentile(q);
  }
  for (const ErrorReading& log : logs) {
    require(log.entries.size() <= ErrorLog::kKinds);
    for (const ErrorEntry& entry : log.entries) require(entry.text.size() <= 224 && entry.count != 0);
  }
  (void)(reader.pid() + reader.start_ts() % 2 + reader.heartbeat_ts() % 2 + reader.end_ts() % 2);
  (void)reader.writer_alive();
}

inline void attach(const std::string& path) {
  const std::unique_ptr<StatFile> writer = StatFile::attach(path);
  for (const char* const name : {"rows", "messages", "nobody's"}) {
    try {
      writer->counter(name[0] == 'm' ? "feed" : "engine", name).add(1);
    } catch (const SetupError&) {  // Not in this file.
    }
  }
  try {
    writer->histogram("engine", "decode").record(130);
  } catch (const SetupError&) {
  }
  try {
    writer->error_log("engine").report(1, "from a worker", 9);
  } catch (const SetupError&) {
  }
  require(writer->bytes_missing() == 0);
}

}  // namespace stat_file_fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace stat_file_fuzz;
  if (size == 0) return 0;
  const std::vector<char> file = file_of(data, size);
  const int fd = ::memfd_create("stat-file-fuzz", MFD_CLOEXEC);
  require(fd >= 0 && ::write(fd, file.data(), file.size()) == static_cast<ssize_t>(file.size()));
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  try {
    read(path, file);
    attach(path);
  } catch (const SetupError& error) {
    require(std::string(error.what()).starts_with("stat file "));
  }
  ::close(fd);
  return 0;
}

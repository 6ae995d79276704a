#pragma once

/// Counts heap allocations by thread and by who asked for them. This program's malloc family and
/// operator new stand in front of the C library's; whoever calls them from a watched thread is
/// ONNX Runtime, OpenSSL, or, for want of any other explanation, us.

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace tickwire::alloc_test {

struct Counts {
  std::uint64_t ours = 0;          // By watched threads, from anywhere but the two below.
  std::uint64_t onnx_runtime = 0;  // By watched threads, from inside libonnxruntime.
  std::uint64_t openssl = 0;       // By watched threads, from inside libssl and libcrypto.
  std::uint64_t other_threads = 0;
};

/// From now on, these threads are watched. Call it once everything that will be opened has been.
void start_counting(const std::vector<pid_t>& watched);
Counts stop_counting();

/// Where our first allocations came from, one a line, for a failure's message.
std::string first_callers();

}  // namespace tickwire::alloc_test

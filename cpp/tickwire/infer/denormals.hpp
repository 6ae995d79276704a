#pragma once

/// Floating-point state around a model's run.
///
/// Denormals cost a hundred cycles each on some CPUs and carry no information in a score, so they are
/// flushed while a model runs. Flushing is a property of the thread, and in the inline layout that
/// thread also computes features, which must come out the same in every layout: so the state is set
/// around the run alone and put back after it, two register writes, and never left set on a thread.
/// The whole word is set, not a bit added, so a score does not depend on what the caller's thread
/// had (rounding mode, say).

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "tickwire/core/hot.hpp"

namespace tickwire::infer {

class FlushDenormals {
 public:
  FlushDenormals() noexcept TICKWIRE_HOT : saved_(read()) { write(kFlushing); }
  ~FlushDenormals() TICKWIRE_HOT { write(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__x86_64__)
  // MXCSR: the default (every exception masked, round to nearest), flush-to-zero, denormals-are-zero.
  static constexpr std::uint64_t kFlushing = 0x1f80U | 0x8000U | 0x0040U;
  static std::uint64_t read() noexcept TICKWIRE_HOT { return _mm_getcsr(); }
  static void write(std::uint64_t word) noexcept TICKWIRE_HOT { _mm_setcsr(static_cast<unsigned int>(word)); }
#elif defined(__aarch64__)
  // FPCR: the default and FZ, which flushes inputs as well as results.
  static constexpr std::uint64_t kFlushing = std::uint64_t{1} << 24U;
  static std::uint64_t read() noexcept TICKWIRE_HOT {
    std::uint64_t word;
    asm volatile("mrs %0, fpcr" : "=r"(word));
    return word;
  }
  static void write(std::uint64_t word) noexcept TICKWIRE_HOT { asm volatile("msr fpcr, %0" : : "r"(word)); }
#else
#error "FlushDenormals: expected x86-64 or AArch64; say here how this CPU flushes denormals"
#endif

  std::uint64_t saved_;
};

}  // namespace tickwire::infer

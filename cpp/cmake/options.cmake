# Warnings and code generation shared by every target of the project, carried by the interface target tickwire_options.

add_library(tickwire_options INTERFACE)
target_compile_options(tickwire_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor -Wold-style-cast
  # Parity between machines: one rounding per operation, never a fused multiply-add that another
  # compiler or CPU would not make.
  -ffp-contract=off
  -fno-math-errno
  -fvisibility=hidden)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # gnu::nonblocking through a marker that g++ does not know, see core/hot.hpp.
  target_compile_options(tickwire_options INTERFACE -Wno-unknown-attributes)
endif()

if(TICKWIRE_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "TICKWIRE_FUZZ: expected clang, which has libFuzzer, found ${CMAKE_CXX_COMPILER}")
  endif()
  # A fault that no sanitizer sees may pass unnoticed.
  set(TICKWIRE_SANITIZE address-undefined)
  target_compile_options(tickwire_options INTERFACE
    -fsanitize=fuzzer-no-link -fprofile-instr-generate -fcoverage-mapping)
  target_link_options(tickwire_options INTERFACE -fprofile-instr-generate)
endif()

# Of one test, in seconds. Unoptimised code that counts, beside other tests, takes several times as long.
set(TICKWIRE_TEST_TIMEOUT 120)
if(TICKWIRE_COVERAGE)
  set(TICKWIRE_TEST_TIMEOUT 600)
  # Counts that several threads write, kept whole: -fprofile-update=atomic.
  target_compile_options(tickwire_options INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(tickwire_options INTERFACE --coverage)
endif()

if(TICKWIRE_SANITIZE STREQUAL "address-undefined")
  target_compile_options(tickwire_options INTERFACE
    -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  target_link_options(tickwire_options INTERFACE -fsanitize=address,undefined)
elseif(TICKWIRE_SANITIZE STREQUAL "thread")
  # g++ expands a memcpy of known size after the sanitizer's pass and so hides it: a row copied into a
  # ring without synchronisation passed. As a plain call it is intercepted.
  target_compile_options(tickwire_options INTERFACE
    -fsanitize=thread -fno-omit-frame-pointer -fno-builtin-memcpy -fno-builtin-memmove -fno-builtin-memset)
  target_link_options(tickwire_options INTERFACE -fsanitize=thread)
elseif(NOT TICKWIRE_SANITIZE STREQUAL "")
  message(FATAL_ERROR
    "TICKWIRE_SANITIZE: expected empty, address-undefined or thread, found ${TICKWIRE_SANITIZE}")
endif()

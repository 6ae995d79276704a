# What makes a fault in our code harder to use for somebody else, carried by tickwire_options as all flags are.
#
# All of the code: tables of addresses that are bound at the start and read-only from then on, no executable
# stack, programs that lie at another address each time, large frames that touch each page of theirs, C library
# calls that know the size of their target (where the compiler optimises: they need it to), return addresses
# that a shadow stack may hold against, and a canary in each frame that has a buffer.
#
# Code off the hot path besides: a canary in each frame whose address is taken, landing marks for indirect
# calls, and the assertions of the standard library. A message to a row costs 3,748 instructions with one level
# a side (valgrind counts them); the canaries add 1.25 % to that and the marks 0.75 %, which is more than they
# are worth there, and no kernel checks the marks of a process yet. What is hot says so: a source is where it,
# or its header, has a function marked TICKWIRE_HOT.
#
# Sanitizers do more than all of this, and some of it would be in their way.

include(CheckPIESupported)
check_pie_supported(LANGUAGES CXX)

option(TICKWIRE_HARDEN "Compile and link with what makes a fault harder to use" ON)

add_library(tickwire_cold_options INTERFACE)
set(tickwire_cold_flags "")

if(TICKWIRE_HARDEN AND TICKWIRE_SANITIZE STREQUAL "")
  set(tickwire_cold_flags -fstack-protector-strong)
  target_compile_options(tickwire_options INTERFACE
    -fstack-protector -fstack-clash-protection
    $<$<CONFIG:Release,RelWithDebInfo,MinSizeRel>:-U_FORTIFY_SOURCE>
    $<$<CONFIG:Release,RelWithDebInfo,MinSizeRel>:-D_FORTIFY_SOURCE=3>)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|i.86)$")
    target_compile_options(tickwire_options INTERFACE -fcf-protection=return)
    list(APPEND tickwire_cold_flags -fcf-protection=full)
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
    target_compile_options(tickwire_options INTERFACE -mbranch-protection=pac-ret)
    list(APPEND tickwire_cold_flags -mbranch-protection=standard)
  endif()
  target_link_options(tickwire_options INTERFACE -Wl,-z,relro,-z,now,-z,noexecstack)
  # A flag that stands later is the one that holds.
  list(APPEND tickwire_cold_flags -D_GLIBCXX_ASSERTIONS)
  target_compile_options(tickwire_cold_options INTERFACE ${tickwire_cold_flags})
endif()

# tickwire_harden_cold(SOURCE ...): those of the sources that are off the hot path.
function(tickwire_harden_cold)
  foreach(source IN LISTS ARGN)
    cmake_path(REPLACE_EXTENSION source hpp OUTPUT_VARIABLE header)
    set(marked "")
    foreach(file IN ITEMS "${source}" "${header}")
      if(EXISTS "${file}")
        file(STRINGS "${file}" lines REGEX "TICKWIRE_HOT" LIMIT_COUNT 1)
        list(APPEND marked ${lines})
      endif()
    endforeach()
    if(NOT marked)
      set_source_files_properties("${source}" PROPERTIES COMPILE_OPTIONS "${tickwire_cold_flags}")
    endif()
  endforeach()
endfunction()

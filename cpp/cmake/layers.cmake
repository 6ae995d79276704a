# One CMake target a layer. The DEPENDS lists below are the only place where the arrows between
# layers are written down: the compiler gets them as link dependencies, and
# tools/check_layering.py reads them and compares them with the include graph.

# tickwire_add_layer(NAME [DEPENDS layer ...] [LIBRARIES target ...])
#
# Collects every .cpp below cpp/tickwire/NAME. DEPENDS names other layers, LIBRARIES external targets.
# When TICKWIRE_TESTS is on, tests/cpp/NAME/*_test.cpp become the test program NAME_test, and its tests
# carry the layer's name as their label. When TICKWIRE_BENCH is on, tests/bench/NAME/*_bench.cpp become the
# benchmark program NAME_bench.
function(tickwire_add_layer name)
  cmake_parse_arguments(arg "" "" "DEPENDS;LIBRARIES" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cpp/tickwire/${name}/*.cpp")
  if(sources)
    add_library(tickwire_${name} STATIC ${sources})
    set(scope PUBLIC)
    target_link_libraries(tickwire_${name} PRIVATE tickwire_options)
    tickwire_harden_cold(${sources})
  else()
    add_library(tickwire_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(tickwire_${name} ${scope} "${PROJECT_SOURCE_DIR}/cpp")
  target_compile_features(tickwire_${name} ${scope} cxx_std_20)
  foreach(layer IN LISTS arg_DEPENDS)
    target_link_libraries(tickwire_${name} ${scope} tickwire_${layer})
  endforeach()
  target_link_libraries(tickwire_${name} ${scope} ${arg_LIBRARIES})

  if(TICKWIRE_TESTS)
    file(GLOB tests CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/cpp/${name}/*_test.cpp")
    if(tests)
      add_executable(${name}_test ${tests})
      target_link_libraries(${name}_test PRIVATE tickwire_${name} tickwire_options GTest::gtest_main)
      target_include_directories(${name}_test PRIVATE "${PROJECT_SOURCE_DIR}/tests/cpp")
      gtest_discover_tests(${name}_test DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60 NO_PRETTY_VALUES
                           PROPERTIES TIMEOUT ${TICKWIRE_TEST_TIMEOUT} LABELS ${name})
    endif()
  endif()

  if(TICKWIRE_BENCH)
    file(GLOB benches CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/bench/${name}/*_bench.cpp")
    if(benches)
      add_executable(${name}_bench ${benches})
      target_link_libraries(${name}_bench PRIVATE tickwire_${name} tickwire_options benchmark::benchmark_main)
    endif()
  endif()
endfunction()

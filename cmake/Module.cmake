# ollama_module(NAME
#   SOURCES ...        the module's library, ollama_NAME ('/' in NAME becomes '_')
#   PCH kind           the precompiled header: json or asio instead of the plain one
#   HOT ...            those of the sources that are worth -O3
#   ALONE ...          those of the sources that share no translation unit with others (OLLAMA_UNITY)
#   DEPS ...           other modules, by name, and imported targets, by their full name (Foo::bar)
#   TESTS ...          *_test.cpp, one executable NAME_test, run by ctest
#   DEVICE_TESTS ...   as TESTS, with two software GPUs in sight: one executable NAME_device_test
#   TEST_DEPS ...      what only the tests need
#   BENCHES ...        *_bench.cpp, one executable each, run by the target `bench`
#   FUZZERS ...        *_fuzz.cpp, one executable each, with OLLAMA_FUZZERS
# )
# Arrows go down only: a module may depend on the modules below it in docs/architecture.md.

set_property(GLOBAL PROPERTY OLLAMA_BENCHES "")

function(ollama_link target visibility)
  foreach(dep IN LISTS ARGN)
    if(TARGET "${dep}")
      target_link_libraries(${target} ${visibility} "${dep}")
    else()
      string(REPLACE "/" "_" dep "${dep}")
      target_link_libraries(${target} ${visibility} "ollama_${dep}")
    endif()
  endforeach()
endfunction()

find_program(OLLAMA_ENV env REQUIRED)

# An executable of GoogleTest's, whose tests ctest finds: ollama_test(TARGET PREFIX ENVIRONMENT LIBRARIES SOURCE...)
function(ollama_test target prefix environment libraries)
  add_executable(${target} ${ARGN})
  target_link_libraries(${target} PRIVATE GTest::gtest GTest::gmock GTest::gtest_main "${RAPIDCHECK_LIBRARY}")
  ollama_link(${target} PRIVATE ${libraries})
  target_compile_options(${target} PRIVATE ${OLLAMA_TEST_OPTIONS})
  ollama_use_pch(${target} test)
  target_compile_definitions(${target} PRIVATE
    "OLLAMA_TEST_DATA=\"${CMAKE_SOURCE_DIR}/tests/data\"" "OLLAMA_SOURCE_DIR=\"${CMAKE_SOURCE_DIR}\"")
  ollama_use_unity(${target})
  # Not by the property ENVIRONMENT: a list of several is lost on its way through the discovery of tests.
  set_target_properties(${target} PROPERTIES CROSSCOMPILING_EMULATOR "${OLLAMA_ENV};${environment}")
  gtest_discover_tests(${target} DISCOVERY_TIMEOUT 120 DISCOVERY_MODE PRE_TEST
    TEST_PREFIX "${prefix}" PROPERTIES TIMEOUT 600)
endfunction()

function(ollama_module name)
  cmake_parse_arguments(PARSE_ARGV 1 M "" "PCH" "HOT;ALONE;SOURCES;DEPS;TESTS;DEVICE_TESTS;TEST_DEPS;BENCHES;FUZZERS")
  string(REPLACE "/" "_" target "${name}")
  set(library "ollama_${target}")
  if(NOT M_SOURCES)
    add_library(${library} INTERFACE)
    target_include_directories(${library} INTERFACE "${CMAKE_SOURCE_DIR}/src")
    ollama_link(${library} INTERFACE ${M_DEPS})
  else()
    add_library(${library} STATIC ${M_SOURCES})
    target_include_directories(${library} PUBLIC "${CMAKE_SOURCE_DIR}/src")
    ollama_link(${library} PUBLIC ${M_DEPS})
    ollama_use_pch(${library} ${M_PCH})
    # A precompiled header serves one set of flags only.
    set_source_files_properties(${M_HOT} PROPERTIES
      COMPILE_OPTIONS "$<$<CONFIG:Release>:-O3>" SKIP_PRECOMPILE_HEADERS ON)
    set_source_files_properties(${M_ALONE} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    ollama_use_unity(${library})
  endif()

  if(OLLAMA_TESTS AND M_TESTS)
    ollama_test(${target}_test "${name}." "${OLLAMA_TEST_ENVIRONMENT}" "${library};${M_TEST_DEPS}" ${M_TESTS})
  endif()
  if(OLLAMA_TESTS AND M_DEVICE_TESTS)
    # Vulkan devices that are CPUs are offered only when they are named.
    ollama_test(${target}_device_test "${name}." "${OLLAMA_TEST_ENVIRONMENT};GGML_VK_VISIBLE_DEVICES=0,0"
      "${library};${M_TEST_DEPS}" ${M_DEVICE_TESTS})
  endif()

  if(OLLAMA_BENCHMARKS)
    foreach(source IN LISTS M_BENCHES)
      get_filename_component(bench "${source}" NAME_WE)
      add_executable(${bench} ${source})
      target_link_libraries(${bench} PRIVATE ${library} benchmark::benchmark)
      ollama_link(${bench} PRIVATE ${M_TEST_DEPS})
      set_source_files_properties(${source} PROPERTIES COMPILE_DEFINITIONS
        "OLLAMA_TEST_DATA=\"${CMAKE_SOURCE_DIR}/tests/data\"")
      set_property(GLOBAL APPEND PROPERTY OLLAMA_BENCHES ${bench})
    endforeach()
  endif()

  if(OLLAMA_FUZZERS)
    foreach(source IN LISTS M_FUZZERS)
      get_filename_component(fuzzer "${source}" NAME_WE)
      add_executable(${fuzzer} ${source})
      target_link_libraries(${fuzzer} PRIVATE ${library})
      target_link_options(${fuzzer} PRIVATE -fsanitize=fuzzer)
    endforeach()
  endif()
endfunction()

# With OLLAMA_UNITY a few sources are compiled as one: a third of the work.
function(ollama_use_unity target)
  set_target_properties(${target} PROPERTIES
    UNITY_BUILD ${OLLAMA_UNITY} UNITY_BUILD_BATCH_SIZE 8 UNITY_BUILD_UNIQUE_ID OLLAMA_UNITY_ID)
endfunction()

# Precompiled headers, each compiled once: src/pch.h for every module, and those that add to it.
# ollama_use_pch(TARGET [json|asio|test])
function(ollama_use_pch target)
  set(kind "${ARGN}")
  set(carrier ollama_pch)
  set(header pch.h)
  if(kind)
    set(carrier ollama_pch_${kind})
    set(header pch_${kind}.h)
  endif()
  if(NOT TARGET ${carrier})
    file(GENERATE OUTPUT "${CMAKE_BINARY_DIR}/pch/${carrier}.cpp" CONTENT "// The carrier of src/${header}.\n")
    add_library(${carrier} OBJECT "${CMAKE_BINARY_DIR}/pch/${carrier}.cpp")
    target_include_directories(${carrier} PRIVATE "${CMAKE_SOURCE_DIR}/src")
    target_precompile_headers(${carrier} PRIVATE "${CMAKE_SOURCE_DIR}/src/${header}")
    if(kind STREQUAL "test")
      target_link_libraries(${carrier} PRIVATE GTest::gtest GTest::gmock)
      # As executables are compiled.
      set_target_properties(${carrier} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
      target_compile_options(${carrier} PRIVATE -fPIE ${OLLAMA_TEST_OPTIONS})
    elseif(kind)
      target_link_libraries(${carrier} PRIVATE Boost::json)
    endif()
    if(kind STREQUAL "asio")
      target_compile_definitions(${carrier} PRIVATE ${OLLAMA_ASIO_DEFINITIONS})
    endif()
  endif()
  target_precompile_headers(${target} REUSE_FROM ${carrier})
endfunction()

# Tests need not be fast, the build does.
set(OLLAMA_TEST_OPTIONS $<$<CONFIG:Release>:-O0>)

# Asio is compiled once (runner/asio.cpp), without its older forms.
set(OLLAMA_ASIO_DEFINITIONS BOOST_ASIO_SEPARATE_COMPILATION BOOST_ASIO_NO_DEPRECATED)

# GGML and libgomp are not instrumented: what the sanitizers say of them is suppressed, by name.
set(OLLAMA_TEST_ENVIRONMENT
  "TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/tsan.supp:halt_on_error=1"
  "LSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/lsan.supp:print_suppressions=0"
  "UBSAN_OPTIONS=print_stacktrace=1"
  # Test processes share the cores with one another: waiting threads must not spin.
  "GOMP_SPINCOUNT=1000"
  # The CPU's results are tested: GPUs are for those that name them.
  "CUDA_VISIBLE_DEVICES=-1" "HIP_VISIBLE_DEVICES=-1" "ROCR_VISIBLE_DEVICES=-1" "GGML_VK_VISIBLE_DEVICES="
  "ASAN_OPTIONS=detect_odr_violation=0")

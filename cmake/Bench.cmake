# `bench`: runs every module's benchmarks and writes their table into docs/performance.md.
if(OLLAMA_BENCHMARKS)
  get_property(benches GLOBAL PROPERTY OLLAMA_BENCHES)
  set(programs "")
  foreach(bench IN LISTS benches)
    list(APPEND programs "$<TARGET_FILE:${bench}>")
  endforeach()
  add_custom_target(bench
    COMMAND "${CMAKE_SOURCE_DIR}/scripts/bench" ${programs}
    WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}"
    USES_TERMINAL
    COMMENT "Running the benchmarks")
  if(benches)
    add_dependencies(bench ${benches})
  endif()
endif()

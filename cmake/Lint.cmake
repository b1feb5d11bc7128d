# `lint`: formatting and clang-tidy over the whole tree. `scripts/lint` does the work, so that it can
# be run on changed files alone.
add_custom_target(lint
  COMMAND "${CMAKE_SOURCE_DIR}/scripts/lint" --all --build "${CMAKE_BINARY_DIR}"
  WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}"
  USES_TERMINAL
  COMMENT "clang-format and clang-tidy")

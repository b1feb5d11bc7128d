# Flags that every target shares. They are the same everywhere so that one precompiled header serves all.

add_compile_options(-Wall -Wextra -Wpedantic -Wconversion -Wno-psabi)
# Designated initialisers leave the other members at their defaults on purpose.
add_compile_options(-Wno-missing-field-initializers)
if(OLLAMA_UNITY AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # It takes a source within a group for a header.
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wno-subobject-linkage>)
endif()
if(OLLAMA_WERROR)
  add_compile_options(-Werror)
endif()
add_compile_options($<$<NOT:$<CONFIG:Debug>>:-fno-plt> -fstack-protector-strong)

# What -O3 would add matters in few files (they ask for it themselves) and costs a quarter of the build.
foreach(flags IN ITEMS CMAKE_CXX_FLAGS_RELEASE CMAKE_C_FLAGS_RELEASE)
  string(REPLACE "-O3" "-O2" ${flags} "${${flags}}")
endforeach()

if(OLLAMA_SANITIZE)
  add_compile_options(-fsanitize=${OLLAMA_SANITIZE} -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${OLLAMA_SANITIZE})
  if(OLLAMA_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
  # GCC's false positives multiply under the sanitizers' instrumentation.
  add_compile_options(-Wno-maybe-uninitialized)
  if(OLLAMA_SANITIZE MATCHES "thread")
    add_compile_options(-Wno-tsan)
  endif()
endif()
if(OLLAMA_FEW_VECTOR_TARGETS)
  add_compile_definitions(OLLAMA_FEW_VECTOR_TARGETS)
endif()
if(OLLAMA_FUZZERS)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

find_program(OLLAMA_CCACHE ccache)
if(OLLAMA_CCACHE)
  # The settings let ccache serve compilations that use a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env
    CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime "${OLLAMA_CCACHE}")
  add_compile_options($<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
endif()

# The bundled model lies beside the executable in the build tree as it does when installed:
# bin/ollama and share/ollama.cpp/models.
file(COPY "${CMAKE_SOURCE_DIR}/models/stories260K-f16.gguf"
  DESTINATION "${CMAKE_BINARY_DIR}/share/ollama.cpp/models")

# The bundled model lies beside the executable in the build tree as it does when installed:
# bin/ollama and share/ollama.cpp/models.
set(OLLAMA_BUNDLED_MODELS "${CMAKE_SOURCE_DIR}/models/stories260K-f16.gguf")
file(COPY ${OLLAMA_BUNDLED_MODELS} DESTINATION "${CMAKE_BINARY_DIR}/share/ollama.cpp/models")

if(TARGET ollama)
  install(TARGETS ollama RUNTIME)
endif()
install(FILES ${OLLAMA_BUNDLED_MODELS} DESTINATION "${CMAKE_INSTALL_DATADIR}/ollama.cpp/models")
install(FILES packaging/man/ollama.1 DESTINATION "${CMAKE_INSTALL_MANDIR}/man1")
install(FILES packaging/completions/ollama.bash RENAME ollama
  DESTINATION "${CMAKE_INSTALL_DATADIR}/bash-completion/completions")
install(FILES packaging/completions/_ollama
  DESTINATION "${CMAKE_INSTALL_DATADIR}/zsh/site-functions")
install(FILES packaging/completions/ollama.fish
  DESTINATION "${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d")

# The unit names the executable by its absolute path, which `cmake --install --prefix` can still change.
install(CODE "
  set(OLLAMA_EXECUTABLE \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_BINDIR}/ollama\")
  configure_file(\"${CMAKE_SOURCE_DIR}/packaging/systemd/ollama.service.in\"
    \"${CMAKE_BINARY_DIR}/packaging/ollama.service\" @ONLY)")
install(FILES "${CMAKE_BINARY_DIR}/packaging/ollama.service" DESTINATION lib/systemd/system)

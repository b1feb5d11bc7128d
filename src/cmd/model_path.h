// Which file a `--model` means.
#pragma once

#include <filesystem>
#include <string>

#include "base/error.h"
#include "envconfig/config.h"

namespace ollama::cmd {

// Whether `model` means a file rather than a name: it says so ("./x", "/x", "~/x"), or it is one
// and ends in .gguf.
bool is_model_file(const std::string& model);
// With ~ replaced by the home folder.
std::filesystem::path expand_home(const std::string& path);

// The .gguf file of a path or of a model's name in the local store (the bundled model's too).
// Errors: kNotFound.
Result<std::filesystem::path> resolve_model(const std::string& model,
                                            const envconfig::Config& config);

}  // namespace ollama::cmd

// Modelfiles: the text that `ollama create -f` reads and `ollama show --modelfile` prints.
//
//   FROM ./model.gguf
//   PARAMETER temperature 0.7
//   SYSTEM """several
//   lines"""
//   MESSAGE user Hello
//
// A value ends with its line, unless it begins with " or """: then it ends with the line that ends
// with the same quotes. Lines that begin with # are comments. Commands are read in any case.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "api/types.h"
#include "base/error.h"

namespace ollama::store {

struct Command {
  std::string name;   // in small letters: from, parameter, template, system, adapter, license,
                      // message, renderer, parser, requires, draft
  std::string key;    // a parameter's name, a message's role
  std::string value;  // without its quotes
  int line = 0;       // where it begins, from 1

  // The line is not part of what a command says.
  bool operator==(const Command& other) const {
    return name == other.name && key == other.key && value == other.value;
  }
};

struct Modelfile {
  std::vector<Command> commands;

  bool operator==(const Modelfile&) const = default;
};

// UTF-8, or UTF-16 that begins with its mark. Errors: kInvalidArgument "(line 3): ...".
Result<Modelfile> parse_modelfile(std::string_view text);
// Reads back as the same commands if `modelfile` came from parse_modelfile. (A value with a line
// end after quotes cannot be written in this format.)
std::string to_text(const Modelfile& modelfile);

// What a Modelfile asks for: a request to create a model, and the local files that it needs.
struct CreatePlan {
  api::CreateRequest request;                        // `from`, where FROM names a model
  std::vector<std::filesystem::path> model_files;    // where FROM names a file
  std::filesystem::path model_folder;                // where FROM names a folder
  std::vector<std::filesystem::path> adapter_files;  // ADAPTER
  std::vector<std::filesystem::path> draft_files;    // DRAFT
};

// Relative files are taken from `directory`, "~/" from `home`. A FROM that exists as a file or as a
// checkpoint's folder, or looks like one (begins with '.', '/' or '~', or ends with .gguf), is a
// file; others are model names. Errors: kInvalidArgument with the line; kNotFound for files that do
// not exist.
Result<CreatePlan> plan_create(const Modelfile& modelfile, const std::filesystem::path& directory,
                               const std::filesystem::path& home = {});

// A version as REQUIRES names it ("0.14.0", "v1.2", "1.0.0-rc1"), without the "v".
// kInvalidArgument for what is none.
Result<std::string> parse_version(std::string_view text);
// By their numbers; what comes after those is not looked at. False for what is no version.
bool is_newer(std::string_view version, std::string_view than);

}  // namespace ollama::store

// Makes a model file (GGUF) of a checkpoint as Hugging Face publishes them: config.json, weights in
// safetensors (one file, or shards with an index), a tokenizer. Names, layouts and keys of the
// result are llama.cpp's; matrices keep their type, vectors become f32.
//
//   OLLAMA_TRY(convert::to_gguf("Llama-3.2-1B", "llama.gguf"));
//
// Everything in these files is untrusted. Weights are copied in pieces, so that memory does not
// grow with the model; what grows is the tokenizer, which is bounded. Meant for a child process all
// the same, as everything that reads what strangers wrote.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace ollama::convert {

// A file of a checkpoint: what it is called there, and where it is (a blob, for example).
struct NamedFile {
  std::string name;
  std::filesystem::path path;
};

// Bytes of weights written so far, and in all; returning false cancels (kCancelled).
using Progress = std::function<bool(std::uint64_t done, std::uint64_t total)>;

// The families that can be converted, as Hugging Face calls them: "llama", "mistral", ...
std::span<const std::string_view> families();

// Whether to_gguf reads a file of this name. Clients that upload a checkpoint need no others.
bool is_source_file(std::string_view name);

// The files of a folder that to_gguf reads, sorted. Errors: kNotFound (no folder, or no weights in
// it), kUnsupported (weights in another format), kPermission (a link that leads out of the folder).
Result<std::vector<NamedFile>> find_files(const std::filesystem::path& directory);

// Writes the model file; nothing is left behind under any name when it fails. Files that
// is_source_file() refuses are ignored. Errors: kUnsupported (an architecture, a tokenizer or a
// type of weights that cannot be converted; the message names it), kCorrupt (a file that breaks its
// format, a tensor that is missing or has another shape; the message names it), kInvalidArgument
// (names that are no plain file names), kNotFound, kCancelled, kIo.
Result<> to_gguf(std::span<const NamedFile> files, const std::filesystem::path& output,
                 const Progress& progress = {});
// find_files() and the above. The folder's name becomes the model's where the files name none.
Result<> to_gguf(const std::filesystem::path& directory, const std::filesystem::path& output,
                 const Progress& progress = {});

}  // namespace ollama::convert

#include "convert/convert.h"

#include <algorithm>
#include <format>

#include "convert/architecture.h"
#include "convert/checkpoint.h"
#include "convert/config.h"
#include "convert/metadata.h"
#include "convert/plan.h"
#include "convert/source.h"
#include "convert/transfer.h"
#include "convert/vocabulary.h"
#include "gguf/parse.h"
#include "gguf/writer.h"

namespace ollama::convert {
namespace {

Result<const Family*> family_of(const Config& config) {
  if (const Family* family = find_family(config.architecture())) return family;
  std::string known;
  for (const std::string_view name : families()) {
    known += known.empty() ? "" : ", ";
    known += name;
  }
  return fail(ErrorCode::kUnsupported,
              "models of the architecture '{}' cannot be converted, only those of {}",
              gguf::printable(config.architecture()), known);
}

// Readers take it from a Phi 3's name that blanks behind its special tokens belong to them.
std::string with_phi3(std::string name) {
  std::string lower = name;
  std::ranges::transform(lower, lower.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return lower.contains("phi-3") || lower.contains("phi3") ? name : std::format("phi-3 {}", name);
}

std::string model_name(const Config& config, const Family& family, const Vocabulary& vocabulary,
                       std::string_view folder) {
  std::string name = config.name();
  if (name.empty()) name = folder;
  if (name.empty()) name = family.name;
  if (family.name == "phi3" && vocabulary.strips_right) return with_phi3(std::move(name));
  // What the family is called must not say so where they do not.
  return name == "phi3" ? "phi" : name;
}

Result<> convert(std::span<const NamedFile> files, const std::filesystem::path& output,
                 const Progress& progress, std::string_view folder) {
  OLLAMA_ASSIGN(const Source source, Source::create(files));
  OLLAMA_ASSIGN(Config config, Config::read(source));
  OLLAMA_ASSIGN(const Family* family, family_of(config));
  OLLAMA_ASSIGN(Hyperparameters hyper, read_hyperparameters(config, *family));
  OLLAMA_ASSIGN(const Checkpoint checkpoint, Checkpoint::open(source));
  OLLAMA_ASSIGN(const std::vector<Move> moves,
                plan(checkpoint, *family, config.classifies(), hyper));

  gguf::Writer writer;
  OLLAMA_TRY(write_metadata(writer, config, source, *family, hyper));
  writer.set_u32("general.file_type", file_type_of(moves));
  {
    // What a tokenizer takes in memory is let go of before the weights' turn.
    OLLAMA_ASSIGN(const TokenizerFiles tokenizer, TokenizerFiles::read(source));
    OLLAMA_ASSIGN(const Vocabulary vocabulary,
                  read_vocabulary(source, tokenizer, static_cast<std::size_t>(hyper.vocabulary)));
    writer.set_string("general.name", model_name(config, *family, vocabulary, folder));
    OLLAMA_TRY(write_vocabulary(writer, vocabulary, source, tokenizer, config));
  }
  for (const Move& move : moves) {
    std::vector<std::int64_t> shape{move.columns};
    if (move.rows > 0) shape.push_back(move.rows);
    OLLAMA_TRY(writer.add_tensor(move.name, move.type, shape));
  }
  OLLAMA_TRY(writer.begin(output));
  OLLAMA_TRY(transfer(checkpoint, moves, writer, progress));
  return writer.finish();
}

}  // namespace

Result<> to_gguf(std::span<const NamedFile> files, const std::filesystem::path& output,
                 const Progress& progress) {
  return convert(files, output, progress, {});
}

Result<> to_gguf(const std::filesystem::path& directory, const std::filesystem::path& output,
                 const Progress& progress) {
  OLLAMA_ASSIGN(const std::vector<NamedFile> files, find_files(directory));
  std::error_code error;
  const auto folder = std::filesystem::canonical(directory, error).filename().string();
  return convert(files, output, progress, folder);
}

}  // namespace ollama::convert

#include <fstream>
#include <iostream>
#include <iterator>
#include <print>

#include "api/types.h"
#include "cmd/commands.h"
#include "cmd/json_array.h"
#include "cmd/model_path.h"
#include "gguf/file.h"
#include "tokenizer/tokenizer.h"

namespace ollama::cmd {
namespace {

// Between the texts of a batch.
constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";

std::string read_all(std::istream& stream) { return {std::istreambuf_iterator<char>(stream), {}}; }

Result<> tokenize_batch(const std::string& path, const tokenizer::Tokenizer& tokenizer,
                        tokenizer::EncodeOptions options) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(ErrorCode::kNotFound, "{}: cannot be read", path);
  const std::string texts = read_all(file);
  std::string_view rest = texts;
  while (!rest.empty()) {
    const std::size_t end = rest.find(kSeparator);
    std::println("{}", api::to_string(array_of(tokenizer.encode(rest.substr(0, end), options))));
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + kSeparator.size());
  }
  return {};
}

Result<std::string> read_text(const Arguments& arguments) {
  const bool from_stdin = (arguments.size() > 0 && arguments[0] == "-") ||
                          (arguments.given("text") && arguments.text("text") == "-");
  if (from_stdin) return read_all(std::cin);
  if (arguments.given("text")) return arguments.text("text");
  return fail(ErrorCode::kInvalidArgument,
              "--text TEXT, --batch FILE, or - for standard input is needed");
}

// A piece on one line, with what would break it escaped.
std::string quote(std::string_view piece) { return api::to_string(api::Json(piece)); }

Result<int> tokenize(const envconfig::Config& config, const Arguments& arguments) {
  if (arguments.text("model").empty()) {
    return fail(ErrorCode::kInvalidArgument, "--model is needed: a model's name or a .gguf file");
  }
  OLLAMA_ASSIGN(const auto path, resolve_model(arguments.text("model"), config));
  OLLAMA_ASSIGN(const gguf::File file, gguf::File::open(path));
  OLLAMA_ASSIGN(const auto tokenizer, tokenizer::load(file, {.pre = arguments.text("pre")}));
  const tokenizer::EncodeOptions options{.add_special = arguments.boolean("add-special"),
                                         .parse_special = arguments.boolean("parse-special")};
  if (arguments.given("batch")) {
    OLLAMA_TRY(tokenize_batch(arguments.text("batch"), *tokenizer, options));
    return 0;
  }
  OLLAMA_ASSIGN(const std::string text, read_text(arguments));
  const std::vector<tokenizer::Token> tokens = tokenizer->encode(text, options);
  if (arguments.boolean("json")) {
    std::println("{}", api::to_string(api::JsonObject{{"tokens", array_of(tokens)}}));
    return 0;
  }
  for (const tokenizer::Token token : tokens) {
    std::println("{:>7}  {}", token, quote(tokenizer->piece(token, true)));
  }
  return 0;
}

}  // namespace

Command debug_tokenize_command(const envconfig::Config& config) {
  return {.name = "tokenize",
          .usage = "--model MODEL (--text TEXT | --batch FILE | -)",
          .summary = "Print the tokens of a text",
          .max_arguments = 1,
          .flags = {{.name = "model",
                     .letter = 'm',
                     .kind = FlagKind::kString,
                     .help = "Name of a model, or a .gguf file"},
                    {.name = "text", .kind = FlagKind::kString, .help = "The text"},
                    {.name = "batch",
                     .kind = FlagKind::kString,
                     .help = "A file of texts, each ended by a line __ggml_vocab_test__; prints "
                             "one JSON array for each"},
                    {.name = "pre",
                     .kind = FlagKind::kString,
                     .help = "Pre-tokenizer, instead of the model's"},
                    {.name = "add-special", .help = "Add the tokens that begin and end a text"},
                    {.name = "parse-special",
                     .help = "Take the texts of control tokens as those tokens"},
                    {.name = "json", .help = "Print a JSON object"}},
          .environment = {"OLLAMA_MODELS"},
          .run = [&config](const Arguments& arguments) { return tokenize(config, arguments); }};
}

}  // namespace ollama::cmd

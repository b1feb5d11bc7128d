#include "chat/builtin.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <format>
#include <utility>

#include "chat/builtin_texts.h"

namespace ollama::chat {
namespace {

using std::string_view;

struct RendererRow {
  string_view name;
  string_view text;           // a file of builtin/
  string_view settings = {};  // what tells it from others with the same text
  string_view macros = {};    // a file that stands before it
};

constexpr RendererRow kRenderers[] = {
    {.name = "cogito", .text = "cogito"},
    {.name = "cohere", .text = "cohere"},
    {.name = "deepseek3.1", .text = "deepseek3_1"},
    {.name = "functiongemma", .text = "functiongemma"},
    {.name = "gemma4", .text = "gemma4"},
    {.name = "gemma4-large", .text = "gemma4", .settings = "{% set marks_silence = true %}"},
    {.name = "gemma4-small", .text = "gemma4"},
    {.name = "glm-4.6", .text = "glm", .settings = "{% set lines = true %}"},
    {.name = "glm-4.7", .text = "glm"},
    {.name = "glm-ocr", .text = "glm_ocr"},
    {.name = "harmony", .text = "harmony"},
    {.name = "lfm2", .text = "lfm2"},
    {.name = "lfm2-thinking", .text = "lfm2", .settings = "{% set thinks = true %}"},
    {.name = "ministral", .text = "ministral"},
    {.name = "nemotron-3-nano", .text = "nemotron_3_nano", .macros = "coder_tools"},
    {.name = "olmo3",
     .text = "olmo3",
     .settings = "{% set default_system = 'You are a helpful function-calling AI assistant. ' %}"},
    {.name = "olmo3-32b-think",
     .text = "olmo3_think",
     .settings = "{% set default_system = 'You are a helpful AI assistant.' %}"},
    {.name = "olmo3-think",
     .text = "olmo3_think",
     .settings = "{% set default_system = 'You are Olmo, a helpful AI assistant built by Ai2. Your "
                 "date cutoff is December 2024, and your model weights are available at "
                 "https://huggingface.co/allenai.' %}"},
    {.name = "olmo3.1",
     .text = "olmo3",
     .settings = "{% set default_system = 'You are Olmo, a helpful AI assistant built by Ai2. Your "
                 "date cutoff is December 2024, and your model weights are available at "
                 "https://huggingface.co/allenai. ' %}"},
    {.name = "qwen3-coder", .text = "qwen3_coder", .macros = "coder_tools"},
    {.name = "qwen3-vl-instruct",
     .text = "qwen3_vl",
     .settings = "{% set thinks_by_default = false %}"},
    {.name = "qwen3-vl-thinking",
     .text = "qwen3_vl",
     .settings = "{% set thinks_by_default = true %}"},
    {.name = "qwen3.5", .text = "qwen3_5", .macros = "coder_tools"},
};

enum class Marks : std::uint8_t { kNone, kThink, kBrackets, kCohere, kGemma };

struct ParserRow {
  string_view name;
  ToolSyntax syntax;
  Marks marks;
  bool thinking;
};

constexpr ParserRow kParsers[] = {
    {"cogito", ToolSyntax::kDeepSeek, Marks::kThink, true},
    {"cohere", ToolSyntax::kCommandR, Marks::kCohere, true},
    {"deepseek3", ToolSyntax::kDeepSeek, Marks::kThink, true},
    {"functiongemma", ToolSyntax::kFunctionGemma, Marks::kNone, false},
    {"gemma4", ToolSyntax::kGemma, Marks::kGemma, true},
    {"gemma4-no-thinking", ToolSyntax::kGemma, Marks::kGemma, false},
    {"glm-4.6", ToolSyntax::kGlm, Marks::kThink, true},
    {"glm-4.7", ToolSyntax::kGlm, Marks::kThink, true},
    {"glm-ocr", ToolSyntax::kGlm, Marks::kThink, true},
    {"harmony", ToolSyntax::kHarmony, Marks::kNone, true},
    {"lfm2", ToolSyntax::kLfm, Marks::kNone, false},
    {"lfm2-thinking", ToolSyntax::kLfm, Marks::kThink, true},
    {"ministral", ToolSyntax::kMistral, Marks::kBrackets, false},
    {"nemotron-3-nano", ToolSyntax::kQwenCoder, Marks::kThink, true},
    {"olmo3", ToolSyntax::kOlmo, Marks::kNone, false},
    {"olmo3-think", ToolSyntax::kNone, Marks::kThink, true},
    {"passthrough", ToolSyntax::kNone, Marks::kNone, false},
    {"qwen3", ToolSyntax::kHermes, Marks::kThink, false},
    {"qwen3-coder", ToolSyntax::kQwenCoder, Marks::kNone, false},
    {"qwen3-thinking", ToolSyntax::kHermes, Marks::kThink, true},
    {"qwen3-vl-instruct", ToolSyntax::kHermes, Marks::kThink, false},
    {"qwen3-vl-thinking", ToolSyntax::kHermes, Marks::kThink, true},
    {"qwen3.5", ToolSyntax::kQwenCoder, Marks::kThink, true},
};

std::pair<string_view, string_view> thinking_marks(Marks marks) {
  switch (marks) {
    case Marks::kThink:
      return {"<think>", "</think>"};
    case Marks::kBrackets:
      return {"[THINK]", "[/THINK]"};
    case Marks::kCohere:
      return {"<|START_THINKING|>", "<|END_THINKING|>"};
    case Marks::kGemma:
      return {"<|channel>thought", "<channel|>"};
    case Marks::kNone:
      break;
  }
  return {};
}

AnswerFormat format_of(const ParserRow& parser) {
  const auto [open, close] = thinking_marks(parser.marks);
  const ToolSyntax as_said[] = {ToolSyntax::kCommandR, ToolSyntax::kFunctionGemma,
                                ToolSyntax::kOlmo};
  return {.syntax = parser.syntax,
          .think_open = std::string(open),
          .think_close = std::string(close),
          .trims_text = !std::ranges::contains(as_said, parser.syntax),
          .hides_thinking = parser.marks == Marks::kGemma || parser.marks == Marks::kBrackets,
          .calls_end_thinking = parser.name.starts_with("qwen3")};
}

template <typename Row, std::size_t N>
const Row* find_row(const Row (&rows)[N], string_view name) {
  const auto* found = std::ranges::find(rows, name, &Row::name);
  return found == std::end(rows) ? nullptr : found;
}

template <typename Row, std::size_t N>
Result<> check_name(const Row (&rows)[N], string_view kind, string_view name) {
  if (name.empty() || find_row(rows, name) != nullptr) return {};
  std::string known;
  for (const Row& row : rows) known += std::format("{}{}", known.empty() ? "" : ", ", row.name);
  return fail(ErrorCode::kInvalidArgument,
              "the built-in {} \"{}\" is not known; those that are: {}", kind, name, known);
}

// "11.9B" or "270M"; 0 where it is neither.
double billions(string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end + 1 != text.data() + text.size()) return 0;
  return *end == 'B' ? number : *end == 'T' ? number * 1000 : 0;
}

}  // namespace

std::optional<std::string> builtin_template(string_view renderer) {
  const RendererRow* row = find_row(kRenderers, renderer);
  if (row == nullptr) return std::nullopt;
  std::string text(row->settings);
  if (!text.empty()) text += '\n';
  if (!row->macros.empty()) text += builtin_text(row->macros);
  text += builtin_text(row->text);
  return text;
}

std::optional<BuiltinParser> builtin_parser(string_view parser) {
  const ParserRow* row = find_row(kParsers, parser);
  if (row == nullptr) return std::nullopt;
  return BuiltinParser{.format = format_of(*row),
                       .tools = row->syntax != ToolSyntax::kNone,
                       .thinking = row->thinking};
}

Result<> check_builtin(string_view renderer, string_view parser) {
  OLLAMA_TRY(check_name(kRenderers, "renderer", renderer));
  return check_name(kParsers, "parser", parser);
}

string_view resolve_renderer(string_view renderer, string_view model, string_view parameters) {
  if (renderer != "gemma4") return renderer;
  std::string name(model);
  std::ranges::transform(name, name.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto names = [&](std::initializer_list<string_view> sizes) {
    return std::ranges::any_of(sizes, [&](string_view size) { return name.contains(size); });
  };
  if (names({"e2b", "e4b"})) return "gemma4-small";
  constexpr double kLarge = 12;
  const bool large = names({"12b", "26b", "31b"}) || billions(parameters) >= kLarge;
  return large ? "gemma4-large" : "gemma4-small";
}

}  // namespace ollama::chat

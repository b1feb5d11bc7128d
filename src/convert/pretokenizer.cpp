#include "convert/pretokenizer.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <format>
#include <vector>

#include "convert/source.h"
#include "gguf/parse.h"

namespace ollama::convert {
namespace {

// Steps are written as text: "split PATTERN", "digits one" (each digit alone) or "digits all",
// "bytes" (no cut) or "bytes gpt-2" (GPT-2's pattern), "punctuation". Line ends within patterns are
// written as escapes.
constexpr std::string_view kLlama3Split =
    R"(split (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Split =
    R"(split (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen35Split =
    R"(split (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N})"
    R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kSeedCoderSplit =
    R"(split (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1})"
    R"(| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kBailingSplit =
    R"(split '(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kTekkenSplit =
    R"(split [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4oSplit =
    R"(split [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kThreeNumbers = R"(split \p{N}{1,3})";
constexpr std::string_view kHanKana = "split [\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+";
constexpr std::string_view kDeepseekV3Split =
    R"(split [!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)"
    R"(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLineEnds = R"(split [\r\n])";
// A long list of cased letters follows; nothing else begins like this.
constexpr std::string_view kDeepseekCased = "split \\s?[A-Za-z\u00B5\u00C0-\u00D6\u00D8-*";
constexpr std::string_view kDeepseekPunctuation =
    "split \\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+";
constexpr std::string_view kBlanksAtEnd = R"(split \s+$)";
constexpr std::string_view kDeepseekCjk = "split [\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+";
constexpr std::string_view kBytes = "bytes", kGpt2Bytes = "bytes gpt-2";
constexpr std::string_view kOneDigit = "digits one", kAllDigits = "digits all";

struct Known {
  std::vector<std::string_view> steps;
  std::string_view name;
  std::string_view merged;  // without whole words, where that has another name
};

const std::vector<Known>& known_pretokenizers() {
  static const std::vector<Known> kKnown{
      {{kLlama3Split, kBytes}, "llama-bpe", "dbrx"},
      {{kQwen2Split, kBytes}, "qwen2", {}},
      {{kQwen35Split, kBytes}, "qwen35", {}},
      {{kTekkenSplit, kBytes}, "tekken", {}},
      {{kGpt4oSplit, kBytes}, "gpt-4o", {}},
      {{kSeedCoderSplit, kBytes}, "seed-coder", {}},
      {{kBailingSplit, kBytes}, "bailingmoe", {}},
      {{kGpt2Bytes}, "gpt-2", {}},
      {{kOneDigit, kGpt2Bytes}, "smollm", {}},
      {{kThreeNumbers, kHanKana, kDeepseekV3Split, kBytes}, "deepseek-v3", {}},
      {{kLineEnds, kDeepseekCased, kDeepseekPunctuation, kBlanksAtEnd, kDeepseekCjk, kOneDigit,
        kBytes},
       "deepseek-llm",
       {}},
      {{kLineEnds, R"(split \s?\p{L}+)", R"(split \s?\p{P}+)", kDeepseekCjk, kOneDigit, kBytes},
       "deepseek-coder",
       {}},
      {{"punctuation", kGpt2Bytes, kAllDigits, "split [0-9][0-9][0-9]"}, "falcon", {}},
  };
  return kKnown;
}

// A step that ends with '*' stands for all that begin like it.
bool matches(std::string_view known, std::string_view step) {
  return known.ends_with('*') ? step.starts_with(known.substr(0, known.size() - 1)) : step == known;
}

// Some files have the characters themselves where others have "\r" and "\n".
std::string escaped(std::string_view pattern) {
  std::string text;
  for (const char c : pattern) {
    if (c == '\r') {
      text += "\\r";
    } else if (c == '\n') {
      text += "\\n";
    } else {
      text += c;
    }
  }
  return text;
}

std::string split_text(const api::JsonObject& step) {
  const auto* pattern = object_member(step, "pattern");
  const auto regex = pattern == nullptr ? std::nullopt : string_member(*pattern, "Regex");
  const auto behavior = string_member(step, "behavior").value_or("");
  const bool inverted = bool_member(step, "invert").value_or(false);
  // Matches and what lies between them are pieces, or only matches are, which leave nothing out.
  const bool plain = (behavior == "Isolated" && !inverted) || (behavior == "Removed" && inverted);
  if (!regex || !plain) return std::format("split in the manner '{}'", gguf::printable(behavior));
  return std::format("split {}", escaped(*regex));
}

std::string step_text(const api::JsonObject& step) {
  const auto type = string_member(step, "type").value_or("");
  if (type == "Split") return split_text(step);
  if (type == "ByteLevel") {
    if (bool_member(step, "add_prefix_space").value_or(false)) return "bytes with a blank before";
    return std::string(bool_member(step, "use_regex").value_or(true) ? kGpt2Bytes : kBytes);
  }
  if (type == "Digits") {
    return std::string(bool_member(step, "individual_digits").value_or(false) ? kOneDigit
                                                                              : kAllDigits);
  }
  if (type == "Punctuation" && string_member(step, "behavior") == "Contiguous") {
    return "punctuation";
  }
  return std::string(type);
}

}  // namespace

Result<std::string> identify_pretokenizer(const api::JsonObject* pre_tokenizer, bool whole_words) {
  std::vector<std::string> steps;
  const auto* list =
      pre_tokenizer == nullptr ? nullptr : array_member(*pre_tokenizer, "pretokenizers");
  if (list != nullptr) {
    for (const api::Json& item : *list) {
      if (const auto* step = item.if_object()) steps.push_back(step_text(*step));
    }
  } else if (pre_tokenizer != nullptr) {
    steps.push_back(step_text(*pre_tokenizer));
  }
  for (const Known& known : known_pretokenizers()) {
    if (!std::ranges::equal(known.steps, steps, matches)) continue;
    const bool merged = !whole_words && !known.merged.empty();
    return std::string(merged ? known.merged : known.name);
  }
  std::string text;
  for (const std::string& step : steps) {
    text += text.empty() ? "" : ", then ";
    text += gguf::printable(step);
  }
  return fail(ErrorCode::kUnsupported,
              "tokenizer.json: this program does not know a pre-tokenizer of these steps: {}",
              text.empty() ? "none" : text);
}

}  // namespace ollama::convert

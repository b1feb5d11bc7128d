// tokenizer.json, the form of Hugging Face's tokenizers library.
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <format>

#include "api/types.h"
#include "convert/pretokenizer.h"
#include "convert/vocabulary.h"
#include "gguf/parse.h"

namespace ollama::convert {
namespace {

constexpr std::string_view kContinuation = "##";

std::unexpected<Error> bad_tokenizer(std::string_view why) {
  return fail(ErrorCode::kCorrupt, "tokenizer.json: {}", why);
}

// Calls visit(object) for a part of the pipeline and the parts that it is a sequence of, if it is
// one.
template <typename F>
void each_part(const api::JsonObject* part, std::string_view list, F&& visit) {
  if (part == nullptr) return;
  const auto* parts = array_member(*part, list);
  if (parts == nullptr) return visit(*part);
  for (const api::Json& one : *parts) {
    if (const auto* object = one.if_object()) visit(*object);
  }
}

bool has_part(const api::JsonObject& tokenizer, std::string_view stage, std::string_view list,
              std::string_view type) {
  bool found = false;
  each_part(object_member(tokenizer, stage), list,
            [&](const api::JsonObject& part) { found |= string_member(part, "type") == type; });
  return found;
}

// "<0x0A>"
bool is_byte_token(std::string_view text) {
  return text.size() == 6 && text.starts_with("<0x") && text.ends_with('>') &&
         text.substr(3, 2).find_first_not_of("0123456789ABCDEFabcdef") == std::string_view::npos;
}

// Calls add(id, text) for every token of model.vocab; ids beyond the embedding are left out.
template <typename F>
Result<> each_token(const api::JsonObject& model, std::size_t rows, F&& add) {
  const auto* vocabulary = object_member(model, "vocab");
  if (vocabulary == nullptr) return bad_tokenizer("model.vocab must be an object");
  std::vector<bool> seen(rows);
  for (const auto& [text, value] : *vocabulary) {
    const auto id = integer_of(value);
    if (!id || *id < 0) return bad_tokenizer("model.vocab must hold ids from 0");
    const auto index = static_cast<std::uint64_t>(*id);
    if (index >= rows) continue;
    if (seen[index]) return bad_tokenizer(std::format("two tokens have the id {}", index));
    seen[index] = true;
    add(static_cast<std::size_t>(index), std::string_view(text));
  }
  return {};
}

// Calls add(left, right) for every merge, best first: "a b" or ["a", "b"].
template <typename F>
Result<> each_merge(const api::JsonObject& model, F&& add) {
  const auto* merges = array_member(model, "merges");
  if (merges == nullptr) return bad_tokenizer("model.merges must be a list");
  for (const api::Json& merge : *merges) {
    std::string_view left, right;
    if (const auto* text = merge.if_string()) {
      const std::string_view line = view_of(*text);
      const std::size_t blank = line.find(' ', 1);
      if (blank != std::string_view::npos) {
        left = line.substr(0, blank);
        right = line.substr(blank + 1);
      }
    } else if (const auto* pair = merge.if_array(); pair != nullptr && pair->size() == 2) {
      const auto* first = (*pair)[0].if_string();
      const auto* second = (*pair)[1].if_string();
      if (first != nullptr) left = view_of(*first);
      if (second != nullptr) right = view_of(*second);
    }
    if (left.empty() || right.empty())
      return bad_tokenizer("model.merges must hold pairs of texts");
    add(left, right);
  }
  return {};
}

Result<Vocabulary> parse_byte_level(const api::JsonObject& tokenizer, const api::JsonObject& model,
                                    std::size_t rows) {
  Vocabulary vocabulary{.model = "gpt2"};
  const bool whole_words = bool_member(model, "ignore_merges").value_or(false);
  OLLAMA_ASSIGN(vocabulary.pre,
                identify_pretokenizer(object_member(tokenizer, "pre_tokenizer"), whole_words));
  OLLAMA_TRY(each_token(model, rows, [&](std::size_t id, std::string_view text) {
    vocabulary.set(id, std::string(text), TokenType::kNormal);
  }));
  OLLAMA_TRY(each_merge(model, [&](std::string_view left, std::string_view right) {
    vocabulary.merges.push_back(std::format("{} {}", left, right));
  }));
  return vocabulary;
}

// Whether a text gets a blank in front.
bool adds_prefix(const api::JsonObject& tokenizer) {
  bool adds = false;
  each_part(object_member(tokenizer, "normalizer"), "normalizers",
            [&](const api::JsonObject& part) { adds |= string_member(part, "type") == "Prepend"; });
  each_part(
      object_member(tokenizer, "pre_tokenizer"), "pretokenizers", [&](const api::JsonObject& part) {
        if (string_member(part, "type") != "Metaspace") return;
        const auto scheme = string_member(part, "prepend_scheme");
        adds |= scheme ? *scheme != "never" : bool_member(part, "add_prefix_space").value_or(true);
      });
  return adds;
}

// A SentencePiece vocabulary in another form. A token's score is the rank of the first merge that
// makes it: the order in which merges happen is the same.
Result<Vocabulary> parse_byte_fallback(const api::JsonObject& tokenizer,
                                       const api::JsonObject& model, std::size_t rows) {
  Vocabulary vocabulary{.model = "llama", .pre = "default"};
  vocabulary.add_space_prefix = adds_prefix(tokenizer);
  const auto unknown = string_member(model, "unk_token");
  OLLAMA_TRY(each_token(model, rows, [&](std::size_t id, std::string_view text) {
    const TokenType type = text == unknown       ? TokenType::kUnknown
                           : is_byte_token(text) ? TokenType::kByte
                                                 : TokenType::kNormal;
    vocabulary.set(id, std::string(text), type);
  }));
  const api::JsonObject& ids = *object_member(model, "vocab");
  std::vector<bool> merged(vocabulary.size());
  std::size_t rank = 0;
  OLLAMA_TRY(each_merge(model, [&](std::string_view left, std::string_view right) {
    const auto* value = ids.if_contains(std::format("{}{}", left, right));
    const auto id = value == nullptr ? std::nullopt : integer_of(*value);
    if (id && static_cast<std::uint64_t>(*id) < merged.size() &&
        !merged[static_cast<std::size_t>(*id)]) {
      merged[static_cast<std::size_t>(*id)] = true;
      vocabulary.scores[static_cast<std::size_t>(*id)] = -static_cast<float>(rank);
    }
    ++rank;
  }));
  for (std::size_t id = 0; id < merged.size(); ++id) {
    if (!merged[id] && vocabulary.types[id] == TokenType::kNormal) {
      vocabulary.scores[id] = -static_cast<float>(rank);
    }
  }
  return vocabulary;
}

// Model files mark the tokens that begin a word, not those that go on with it.
std::string word_piece(std::string_view text) {
  if (text.starts_with('[') && text.ends_with(']')) return std::string(text);
  if (text.starts_with(kContinuation)) return std::string(text.substr(kContinuation.size()));
  return std::format("{}{}", kBlankSymbol, text);
}

Result<Vocabulary> parse_word_piece(const api::JsonObject& tokenizer, const api::JsonObject& model,
                                    std::size_t rows) {
  if (string_member(model, "continuing_subword_prefix").value_or(kContinuation) != kContinuation) {
    return fail(ErrorCode::kUnsupported, "tokenizer.json: continuing_subword_prefix must be '{}'",
                kContinuation);
  }
  Vocabulary vocabulary{.model = "bert", .pre = "default"};
  each_part(object_member(tokenizer, "normalizer"), "normalizers",
            [&](const api::JsonObject& part) {
              if (string_member(part, "type") != "BertNormalizer") return;
              vocabulary.lowercase = bool_member(part, "lowercase").value_or(true);
              vocabulary.strip_accents =
                  bool_member(part, "strip_accents").value_or(*vocabulary.lowercase);
            });
  OLLAMA_TRY(each_token(model, rows, [&](std::size_t id, std::string_view text) {
    vocabulary.set(id, word_piece(text), TokenType::kNormal);
  }));
  return vocabulary;
}

// Texts are normalised by SentencePiece's rules, or not at all; what blanks become is a flag.
Result<> read_normalizer(const api::JsonObject& tokenizer, Vocabulary& vocabulary) {
  std::optional<std::string> refused;
  std::string_view rules;
  each_part(
      object_member(tokenizer, "normalizer"), "normalizers", [&](const api::JsonObject& part) {
        const std::string_view type = string_member(part, "type").value_or("");
        const auto* pattern = object_member(part, "pattern");
        const auto regex = pattern == nullptr ? std::nullopt : string_member(*pattern, "Regex");
        if (type == "Precompiled") {
          rules = string_member(part, "precompiled_charsmap").value_or("");
        } else if (type == "Replace" && regex == " {2,}") {
          vocabulary.merges_blanks = true;
        } else if (type != "Strip") {
          refused = type;
        }
      });
  if (refused) {
    return fail(ErrorCode::kUnsupported,
                "tokenizer.json: a Unigram vocabulary with the normalizer {} cannot be converted",
                gguf::printable(*refused));
  }
  auto decoded = api::decode_base64(rules);
  if (!decoded) return bad_tokenizer("precompiled_charsmap is no base64");
  vocabulary.charsmap = std::move(*decoded);
  return {};
}

Result<Vocabulary> parse_unigram(const api::JsonObject& tokenizer, const api::JsonObject& model,
                                 std::size_t rows) {
  if (bool_member(model, "byte_fallback").value_or(false)) {
    return fail(ErrorCode::kUnsupported,
                "tokenizer.json: a Unigram vocabulary with byte_fallback cannot be converted");
  }
  Vocabulary vocabulary{.model = "t5", .pre = "default"};
  vocabulary.add_space_prefix = adds_prefix(tokenizer);
  vocabulary.merges_blanks =
      has_part(tokenizer, "pre_tokenizer", "pretokenizers", "WhitespaceSplit");
  OLLAMA_TRY(read_normalizer(tokenizer, vocabulary));
  const auto* tokens = array_member(model, "vocab");
  if (tokens == nullptr) return bad_tokenizer("model.vocab must be a list");
  const api::Json* unknown = member(model, "unk_id");
  const auto unknown_id = unknown == nullptr ? std::nullopt : integer_of(*unknown);
  for (const api::Json& item : *tokens) {
    if (vocabulary.size() == rows) break;
    const auto* entry = item.if_array();
    const bool pair = entry != nullptr && entry->size() == 2;
    const auto* text = pair ? (*entry)[0].if_string() : nullptr;
    const auto score = pair ? number_of((*entry)[1]) : std::nullopt;
    if (text == nullptr || !score) {
      return bad_tokenizer("model.vocab must hold texts with scores");
    }
    const std::size_t id = vocabulary.size();
    const bool is_unknown = unknown_id == static_cast<std::int64_t>(id);
    vocabulary.set(id, std::string(view_of(*text)),
                   is_unknown ? TokenType::kUnknown : TokenType::kNormal,
                   static_cast<float>(*score));
  }
  return vocabulary;
}

// How many tokens with a role come between the texts of a pair.
std::size_t separators_of(const boost::json::array& pair) {
  std::size_t count = 0;
  std::size_t texts = 0;
  for (const api::Json& item : pair) {
    const auto* object = item.if_object();
    if (object == nullptr) continue;
    if (object->contains("Sequence")) ++texts;
    if (object->contains("SpecialToken") && texts == 1) ++count;
  }
  return texts == 2 ? count : 0;
}

// Whether a template puts this role's token at the front or the back of a text.
void read_template(const api::JsonObject& tokenizer, Vocabulary& vocabulary) {
  each_part(object_member(tokenizer, "post_processor"), "processors",
            [&](const api::JsonObject& part) {
              if (string_member(part, "type") != "TemplateProcessing") return;
              const auto* items = array_member(part, "single");
              if (items == nullptr || items->empty()) return;
              const auto is_special = [](const api::Json& item) {
                const auto* object = item.if_object();
                return object != nullptr && object->contains("SpecialToken");
              };
              vocabulary.add_bos = is_special(items->front());
              vocabulary.add_eos = items->size() > 1 && is_special(items->back());
              if (const auto* pair = array_member(part, "pair")) {
                vocabulary.add_separator = separators_of(*pair) > 1;
              }
            });
}

}  // namespace

TokenizerKind kind_of(const api::JsonObject& tokenizer) {
  if (tokenizer.empty()) return TokenizerKind::kNone;
  const auto* model = object_member(tokenizer, "model");
  if (model == nullptr) return TokenizerKind::kOther;
  const auto type = string_member(*model, "type");
  if (type == "WordPiece") return TokenizerKind::kWordPiece;
  if (type == "Unigram") return TokenizerKind::kUnigram;
  // Old files do not name the type.
  if (type ? *type != "BPE" : !model->contains("merges")) return TokenizerKind::kOther;
  if (has_part(tokenizer, "pre_tokenizer", "pretokenizers", "ByteLevel")) {
    return TokenizerKind::kByteLevel;
  }
  return bool_member(*model, "byte_fallback").value_or(false) ? TokenizerKind::kByteFallback
                                                              : TokenizerKind::kOther;
}

Result<Vocabulary> parse_tokenizer_json(const api::JsonObject& tokenizer, TokenizerKind kind,
                                        std::size_t rows) {
  const auto* model = object_member(tokenizer, "model");
  if (model == nullptr) return bad_tokenizer("model must be an object");
  auto vocabulary = kind == TokenizerKind::kByteLevel ? parse_byte_level(tokenizer, *model, rows)
                    : kind == TokenizerKind::kByteFallback
                        ? parse_byte_fallback(tokenizer, *model, rows)
                    : kind == TokenizerKind::kUnigram ? parse_unigram(tokenizer, *model, rows)
                                                      : parse_word_piece(tokenizer, *model, rows);
  if (!vocabulary) return vocabulary;
  if (vocabulary->size() == 0) return bad_tokenizer("there are no tokens");
  read_template(tokenizer, *vocabulary);
  return vocabulary;
}

Result<Vocabulary> parse_word_list(std::string_view text, std::size_t rows) {
  Vocabulary vocabulary{.model = "bert", .pre = "default"};
  while (!text.empty() && vocabulary.size() < rows) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    vocabulary.set(vocabulary.size(), word_piece(line), TokenType::kNormal);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  if (vocabulary.size() == 0) return fail(ErrorCode::kCorrupt, "vocab.txt is empty");
  return vocabulary;
}

}  // namespace ollama::convert

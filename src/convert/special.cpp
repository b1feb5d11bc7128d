// Added tokens, tokens with a role, chat templates.
#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <format>
#include <unordered_map>

#include "base/units.h"
#include "convert/vocabulary.h"

namespace ollama::convert {
namespace {

constexpr std::string_view kTemplateKey = "tokenizer.chat_template";
constexpr std::size_t kMaxTemplates = 64;

struct Role {
  std::string_view name;     // "bos": bos_token, bos_token_id
  std::string_view key;      // tokenizer.ggml.KEY; the misspelling is the format's own
  std::string_view bert;     // what BERT calls it where nothing is said
  std::string_view roberta;  // what XLM-RoBERTa does
};
constexpr std::array<Role, 7> kRoles{{{"bos", "bos_token_id", "", "<s>"},
                                      {"eos", "eos_token_id", "", "</s>"},
                                      {"unk", "unknown_token_id", "[UNK]", "<unk>"},
                                      {"sep", "seperator_token_id", "[SEP]", "</s>"},
                                      {"pad", "padding_token_id", "[PAD]", "<pad>"},
                                      {"cls", "cls_token_id", "[CLS]", "<s>"},
                                      {"mask", "mask_token_id", "[MASK]", "<mask>"}}};

// Some added tokens that ought to be special are not marked so (deepseek-coder, gemma).
bool looks_special(std::string_view text) {
  const auto between = [&](std::string_view begin, std::string_view end) {
    return text.starts_with(begin) && text.ends_with(end) &&
           text.size() >= begin.size() + end.size();
  };
  return text == "<pad>" || text == "<mask>" || text == "<2mass>" || text == "[@BOS@]" ||
         between("<|", "|>") || between("<\uFF5C", "\uFF5C>") || between("<unused", ">");
}

std::string with_blanks(std::string_view text) {
  std::string result(text);
  for (std::size_t at = 0; (at = result.find(kBlankSymbol, at)) != std::string::npos; ++at) {
    result.replace(at, kBlankSymbol.size(), " ");
  }
  return result;
}

// {"content": "<s>", "special": true, ...} under an id.
void add_token(std::uint64_t id, const api::JsonObject& token, std::size_t rows,
               Vocabulary& vocabulary) {
  const auto text = string_member(token, "content");
  if (!text || id >= rows) return;
  const bool special = bool_member(token, "special").value_or(false) || looks_special(*text);
  vocabulary.strips_right |= bool_member(token, "rstrip").value_or(false);
  const auto index = static_cast<std::size_t>(id);
  const bool known = index < vocabulary.size();
  // An unknown token is one, and a byte a byte, whatever else they are called.
  if (known && (vocabulary.types[index] == TokenType::kUnknown ||
                vocabulary.types[index] == TokenType::kByte)) {
    return;
  }
  const float score = known ? vocabulary.scores[index] : 0.0F;
  vocabulary.set(index, std::string(*text), special ? TokenType::kControl : TokenType::kUserDefined,
                 score);
}

// A token's text: "<s>" or {"content": "<s>"}.
std::optional<std::string_view> token_text(const api::JsonObject& object, std::string_view key) {
  if (const auto text = string_member(object, key)) return text;
  const auto* token = object_member(object, key);
  return token == nullptr ? std::nullopt : string_member(*token, "content");
}

// One id or a list of them.
std::vector<std::int64_t> ids_of(const api::JsonObject& object, std::string_view key) {
  std::vector<std::int64_t> ids;
  const api::Json* value = member(object, key);
  if (value == nullptr) return ids;
  if (const auto id = integer_of(*value)) ids.push_back(*id);
  if (const auto* list = value->if_array()) {
    for (const api::Json& item : *list) {
      if (const auto id = integer_of(item)) ids.push_back(*id);
    }
  }
  return ids;
}

class Roles {
 public:
  Roles(const Vocabulary& vocabulary, const TokenizerFiles& files, const Config& config)
      : vocabulary_(vocabulary), files_(files), config_(config) {
    for (std::size_t id = 0; id < vocabulary.size(); ++id) {
      const bool special = vocabulary.types[id] == TokenType::kControl ||
                           vocabulary.types[id] == TokenType::kUnknown;
      // A special token goes before an ordinary one of the same text.
      if (special)
        ids_.insert_or_assign(vocabulary.tokens[id], id);
      else
        ids_.emplace(vocabulary.tokens[id], id);
    }
  }

  // What the tokenizer's files say by text goes before what the model's say by number.
  std::optional<std::uint32_t> find(const Role& role) const {
    const std::string key = std::format("{}_token", role.name);
    for (const api::JsonObject* object : {&files_.config, &files_.special_tokens}) {
      const auto text = token_text(*object, key);
      const auto found = text ? ids_.find(*text) : ids_.end();
      if (found != ids_.end()) return static_cast<std::uint32_t>(found->second);
    }
    for (const api::JsonObject* object : {&config_.json(), &files_.generation}) {
      for (const std::int64_t id : ids_of(*object, key + "_id")) {
        if (in_range(id)) return static_cast<std::uint32_t>(id);
      }
    }
    const std::string_view fallback = vocabulary_.model == "bert" ? role.bert
                                      : vocabulary_.model == "t5" ? role.roberta
                                                                  : std::string_view();
    if (fallback.empty()) return std::nullopt;
    const auto found = ids_.find(fallback);
    return found == ids_.end() ? std::nullopt
                               : std::optional(static_cast<std::uint32_t>(found->second));
  }

  // All that end an answer, besides `first`.
  std::vector<std::int32_t> ends(std::optional<std::uint32_t> first) const {
    std::vector<std::int32_t> ends;
    const auto add = [&](std::int64_t id) {
      const auto token = static_cast<std::int32_t>(id);
      if (!std::ranges::contains(ends, token)) ends.push_back(token);
    };
    if (first) add(*first);
    for (const api::JsonObject* object : {&config_.json(), &files_.generation}) {
      for (const std::int64_t id : ids_of(*object, "eos_token_id")) {
        if (in_range(id)) add(id);
      }
    }
    return ends;
  }

 private:
  bool in_range(std::int64_t id) const {
    return id >= 0 && static_cast<std::uint64_t>(id) < vocabulary_.size();
  }

  const Vocabulary& vocabulary_;
  const TokenizerFiles& files_;
  const Config& config_;
  std::unordered_map<std::string_view, std::size_t> ids_;
};

// The default template, and those with names of their own.
void write_templates(gguf::Writer& writer, const boost::json::array& templates) {
  std::vector<std::string> names;
  for (const api::Json& item : templates) {
    const auto* entry = item.if_object();
    const auto name = entry == nullptr ? std::nullopt : string_member(*entry, "name");
    const auto text = entry == nullptr ? std::nullopt : string_member(*entry, "template");
    if (!name || !text || names.size() >= kMaxTemplates) continue;
    if (*name == "default") {
      writer.set_string(kTemplateKey, *text);
    } else if (!name->empty() && name->size() < 64 &&
               name->find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") ==
                   std::string_view::npos) {
      writer.set_string(std::format("{}.{}", kTemplateKey, *name), *text);
      names.emplace_back(*name);
    }
  }
  if (!names.empty()) writer.set_strings("tokenizer.chat_templates", std::move(names));
}

bool write_template_of(gguf::Writer& writer, const api::JsonObject& object) {
  if (const auto text = string_member(object, "chat_template")) {
    writer.set_string(kTemplateKey, *text);
    return true;
  }
  const auto* list = array_member(object, "chat_template");
  if (list != nullptr) write_templates(writer, *list);
  return list != nullptr;
}

}  // namespace

void add_added_tokens(const TokenizerFiles& files, std::size_t rows, Vocabulary& vocabulary) {
  for (const auto& [text, value] : files.added_tokens) {
    const auto id = integer_of(value);
    if (id && *id >= 0) {
      add_token(static_cast<std::uint64_t>(*id), {{"content", text}}, rows, vocabulary);
    }
  }
  if (const auto* list = array_member(files.tokenizer, "added_tokens")) {
    for (const api::Json& item : *list) {
      const auto* token = item.if_object();
      const api::Json* value = token == nullptr ? nullptr : member(*token, "id");
      const auto id = value == nullptr ? std::nullopt : integer_of(*value);
      if (id && *id >= 0) add_token(static_cast<std::uint64_t>(*id), *token, rows, vocabulary);
    }
  }
  if (const auto* decoder = object_member(files.config, "added_tokens_decoder")) {
    for (const auto& [key, value] : *decoder) {
      const auto id = parse_number<std::uint64_t>(key);
      const auto* token = value.if_object();
      if (id && token != nullptr) add_token(*id, *token, rows, vocabulary);
    }
  }
  if (vocabulary.model != "llama") return;
  // These are looked for in texts as they are, before blanks become symbols.
  for (std::size_t id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.types[id] == TokenType::kUserDefined) {
      vocabulary.tokens[id] = with_blanks(vocabulary.tokens[id]);
    }
  }
}

void write_special_tokens(gguf::Writer& writer, const Vocabulary& vocabulary,
                          const TokenizerFiles& files, const Config& config) {
  const Roles roles(vocabulary, files, config);
  std::optional<std::uint32_t> eos;
  const bool bert = vocabulary.model == "bert";
  for (const Role& role : kRoles) {
    const auto id = roles.find(role);
    if (!id) continue;
    writer.set_u32(std::format("tokenizer.ggml.{}", role.key), *id);
    if (role.name == "eos") eos = id;
    // Readers that know no CLS take the token that begins a text.
    if (role.name == "cls" && bert) writer.set_u32("tokenizer.ggml.bos_token_id", *id);
  }
  if (bert && config.classifies()) {
    // How llama.cpp joins a pair: "[CLS] a [SEP] b [SEP]" needs an EOS that is SEP.
    const auto separator = roles.find({"sep", "", "[SEP]", ""});
    if (separator) writer.set_u32("tokenizer.ggml.eos_token_id", *separator);
    writer.set_bool("tokenizer.ggml.add_bos_token", true);
    writer.set_bool("tokenizer.ggml.add_eos_token", separator.has_value());
    writer.set_bool("tokenizer.ggml.add_sep_token", false);
  }
  if (bert) return;
  const auto ends = roles.ends(eos);
  if (ends.size() > 1) writer.set_i32s("tokenizer.ggml.eos_token_ids", ends);
  // Llama's own tokenizer begins texts with BOS where nothing is said; XLM-RoBERTa's is
  // "<s> a </s>", and "<s> a </s></s> b </s>" for a pair.
  const bool roberta = vocabulary.model == "t5";
  const bool usual = vocabulary.add_bos.value_or(vocabulary.model == "llama" || roberta);
  writer.set_bool("tokenizer.ggml.add_bos_token",
                  bool_member(files.config, "add_bos_token").value_or(usual));
  writer.set_bool(
      "tokenizer.ggml.add_eos_token",
      bool_member(files.config, "add_eos_token").value_or(vocabulary.add_eos.value_or(roberta)));
  if (roberta) {
    writer.set_bool("tokenizer.ggml.add_sep_token", vocabulary.add_separator.value_or(true));
  }
}

Result<> write_chat_template(gguf::Writer& writer, const Source& source,
                             const TokenizerFiles& files) {
  if (source.has("chat_template.jinja")) {
    OLLAMA_ASSIGN(const std::string text, source.text("chat_template.jinja"));
    writer.set_string(kTemplateKey, text);
    return {};
  }
  if (write_template_of(writer, files.config)) return {};
  OLLAMA_ASSIGN(const api::JsonObject own, source.json("chat_template.json"));
  write_template_of(writer, own);
  return {};
}

}  // namespace ollama::convert

#include "tokenizer/special.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/log.h"
#include "tokenizer/tables.h"

namespace ollama::tokenizer {
namespace {

enum class Role : std::uint8_t {
  kNothing,
  kEndOfTurn,
  kEndOfMessage,
  kFimPrefix,
  kFimSuffix,
  kFimMiddle,
  kFimPadding,
  kFimRepository,
  kFimFile,
  kCount,
};

struct KnownName {
  std::string_view text;
  Role role;
  bool end;
};

// Names that models give to these tokens; of two for one role the first in this list is taken.
constexpr KnownName kKnownNames[] = {
    {"<|eot_id|>", Role::kEndOfTurn, true},
    {"<|im_end|>", Role::kEndOfTurn, true},
    {"<|end|>", Role::kEndOfTurn, true},
    {"<end_of_turn>", Role::kEndOfTurn, true},
    {"<|endoftext|>", Role::kEndOfTurn, true},
    {"<|end_of_text|>", Role::kEndOfTurn, true},
    {"<EOT>", Role::kEndOfTurn, true},
    {"_<EOT>", Role::kEndOfTurn, true},
    {"[EOT]", Role::kEndOfTurn, true},
    {"<｜end▁of▁sentence｜>", Role::kEndOfTurn, true},
    {"<end_of_utterance>", Role::kEndOfTurn, true},
    {"<|eom_id|>", Role::kEndOfMessage, true},
    {"<|return|>", Role::kNothing, true},
    {"<|call|>", Role::kNothing, true},
    {"<|flush|>", Role::kNothing, true},
    {"<|calls|>", Role::kNothing, true},
    {"</s>", Role::kNothing, true},
    {"[EOS]", Role::kNothing, true},
    {"<eos>", Role::kNothing, true},
    {"<turn|>", Role::kNothing, true},
    {"<|tool_response>", Role::kNothing, true},
    {"[e~[", Role::kNothing, true},
    {"<|fim_prefix|>", Role::kFimPrefix, false},
    {"<fim-prefix>", Role::kFimPrefix, false},
    {"<fim_prefix>", Role::kFimPrefix, false},
    {"<｜fim▁begin｜>", Role::kFimPrefix, false},
    {"<PRE>", Role::kFimPrefix, false},
    {"▁<PRE>", Role::kFimPrefix, false},
    {"<|code_prefix|>", Role::kFimPrefix, false},
    {"<|prefix|>", Role::kFimPrefix, false},
    {"<|fim_suffix|>", Role::kFimSuffix, false},
    {"<fim-suffix>", Role::kFimSuffix, false},
    {"<fim_suffix>", Role::kFimSuffix, false},
    {"<｜fim▁hole｜>", Role::kFimSuffix, false},
    {"<SUF>", Role::kFimSuffix, false},
    {"▁<SUF>", Role::kFimSuffix, false},
    {"<|code_suffix|>", Role::kFimSuffix, false},
    {"<|suffix|>", Role::kFimSuffix, false},
    {"<|fim_middle|>", Role::kFimMiddle, false},
    {"<fim-middle>", Role::kFimMiddle, false},
    {"<fim_middle>", Role::kFimMiddle, false},
    {"<｜fim▁end｜>", Role::kFimMiddle, false},
    {"<MID>", Role::kFimMiddle, false},
    {"▁<MID>", Role::kFimMiddle, false},
    {"<|code_middle|>", Role::kFimMiddle, false},
    {"<|middle|>", Role::kFimMiddle, false},
    {"<|fim_pad|>", Role::kFimPadding, false},
    {"<fim-pad>", Role::kFimPadding, false},
    {"<fim_pad>", Role::kFimPadding, false},
    {"<PAD>", Role::kFimPadding, false},
    {"[PAD]", Role::kFimPadding, false},
    {"<|fim_repo|>", Role::kFimRepository, false},
    {"<|repo_name|>", Role::kFimRepository, false},
    {"<fim-repo>", Role::kFimRepository, false},
    {"<REPO>", Role::kFimRepository, false},
    {"<reponame>", Role::kFimRepository, false},
    {"<|file_sep|>", Role::kFimFile, false},
};

// gpt-oss's markers are part of what it says.
constexpr std::string_view kShownNames[] = {"<|channel|>", "<|message|>", "<|start|>",
                                            "<|constrain|>"};

// Longer ones are not looked for, so that a hostile vocabulary cannot make each position expensive.
constexpr std::size_t kMaxSpecialLength = 256;

constexpr std::uint16_t kTypes =
    kNormal | kUnknown | kControl | kUserDefined | kUnused | kByte | kUndefined;

void set_type(std::uint16_t& attributes, std::uint16_t type) {
  attributes = static_cast<std::uint16_t>((attributes & ~kTypes) | type);
}
void set_flag(std::uint16_t& attributes, std::uint16_t flag, bool value) {
  attributes =
      static_cast<std::uint16_t>(value ? (attributes | flag) : (attributes & ~unsigned{flag}));
}

bool contains_any(std::string_view text, std::initializer_list<std::string_view> parts) {
  return std::ranges::any_of(parts, [&](std::string_view part) { return text.contains(part); });
}

// Blanks around some tokens belong to them; files do not say so.
void assign_stripping(const gguf::File& file, std::string_view pre,
                      std::span<const std::string> texts, std::span<std::uint16_t> attributes) {
  std::string name(file.string("general.name").value_or(""));
  std::ranges::transform(name, name.begin(), [](char c) {
    return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  });
  const bool masks = contains_any(pre, {"jina-v2-de", "jina-v2-es", "jina-v2-code"}) ||
                     contains_any(file.architecture(), {"nomic-bert-moe", "jina-bert-v3"});
  const bool phi3 = !masks && contains_any(name, {"phi-3", "phi3"});
  const bool modern_bert = !masks && !phi3 && name.contains("modern-bert");
  if (!masks && !phi3 && !modern_bert) return;
  for (std::size_t id = 0; id < texts.size(); ++id) {
    const std::string_view text = texts[id];
    if (phi3) {
      const bool special = (attributes[id] & (kControl | kUserDefined | kUnknown)) != 0;
      if (special || text == "</s>") set_flag(attributes[id], kStripRight, true);
      if (text == "<unk>" || text == "<s>" || text == "<|endoftext|>") {
        set_flag(attributes[id], kStripRight, false);
      }
    } else if (text == (masks ? "<mask>" : "[MASK]")) {
      set_flag(attributes[id], kStripLeft, true);
    }
  }
}

}  // namespace

std::uint16_t attribute_of_type(std::int32_t type) {
  switch (type) {
    case 1:
      return kNormal;
    case 2:
      return kUnknown;
    case 3:
      return kControl;
    case 4:
      return kUserDefined;
    case 5:
      return kUnused;
    case 6:
      return kByte;
    default:
      return kUndefined;
  }
}

void Roles::assign(const gguf::File& file, std::string_view pre, std::span<const std::string> texts,
                   std::span<std::uint16_t> attributes) {
  const auto in_range = [&](std::int64_t id) {
    return id >= 0 && static_cast<std::uint64_t>(id) < texts.size();
  };
  const auto read = [&](Token& token, std::initializer_list<const char*> keys) {
    if (!in_range(token)) token = kNoToken;
    for (const char* key : keys) {
      const auto id = file.i64(std::string("tokenizer.ggml.") + key);
      if (!id) continue;
      if (in_range(*id)) {
        token = static_cast<Token>(*id);
        return;
      }
      log::warn("tokenizer.ggml.{} is {}, outside the vocabulary of {}: ignored", key, *id,
                texts.size());
    }
  };
  std::array<Token, static_cast<std::size_t>(Role::kCount)> by_role;
  by_role.fill(kNoToken);
  const auto role = [&](Role which) -> Token& { return by_role[static_cast<std::size_t>(which)]; };
  read(tokens.bos, {"bos_token_id", "cls_token_id"});
  read(tokens.eos, {"eos_token_id"});
  read(role(Role::kEndOfTurn), {"eot_token_id"});
  read(role(Role::kEndOfMessage), {"eom_token_id"});
  read(tokens.unknown, {"unknown_token_id"});
  // The misspelling is the format's own.
  read(tokens.separator, {"seperator_token_id", "separator_token_id"});
  read(tokens.padding, {"padding_token_id"});
  read(tokens.mask, {"mask_token_id"});
  read(role(Role::kFimPrefix), {"fim_pre_token_id", "prefix_token_id"});
  read(role(Role::kFimSuffix), {"fim_suf_token_id", "suffix_token_id"});
  read(role(Role::kFimMiddle), {"fim_mid_token_id", "middle_token_id"});
  read(role(Role::kFimPadding), {"fim_pad_token_id"});
  read(role(Role::kFimRepository), {"fim_rep_token_id"});
  read(role(Role::kFimFile), {"fim_sep_token_id"});
  tokens.add_bos = file.boolean("tokenizer.ggml.add_bos_token").value_or(tokens.add_bos);
  tokens.add_eos = file.boolean("tokenizer.ggml.add_eos_token").value_or(tokens.add_eos);
  if (tokens.bos == kNoToken) tokens.add_bos = false;
  if (tokens.eos == kNoToken) tokens.add_eos = false;
  tokens.add_separator =
      file.boolean("tokenizer.ggml.add_sep_token").value_or(tokens.add_separator) &&
      tokens.separator != kNoToken;

  // The token of every well-known name.
  StringTable names;
  std::size_t bytes = 0;
  for (const KnownName& known : kKnownNames) bytes += known.text.size();
  names.reserve(std::size(kKnownNames), bytes);
  for (std::uint32_t i = 0; i < std::size(kKnownNames); ++i) names.set(kKnownNames[i].text, i);
  std::array<Token, std::size(kKnownNames)> by_name;
  by_name.fill(kNoToken);
  for (std::size_t id = 0; id < texts.size(); ++id) {
    if (const std::uint32_t name = names.find(texts[id]); name != kNone) {
      by_name[name] = static_cast<Token>(id);
    }
    if (std::ranges::contains(kShownNames, std::string_view(texts[id]))) {
      set_type(attributes[id], kUserDefined);
    }
  }
  const auto attributes_of = [&](Token token) -> std::uint16_t& {
    return attributes[static_cast<std::size_t>(token)];
  };
  for (std::size_t i = 0; i < by_name.size(); ++i) {
    const KnownName& known = kKnownNames[i];
    if (by_name[i] == kNoToken) continue;
    if (known.end) {
      set_flag(attributes_of(by_name[i]), kControl | kEnd, true);
    }
    if (known.role != Role::kNothing && role(known.role) == kNoToken) {
      role(known.role) = by_name[i];
      set_flag(attributes_of(by_name[i]), kControl, true);
    }
  }
  for (const Token token :
       {tokens.eos, role(Role::kEndOfTurn), role(Role::kEndOfMessage), role(Role::kFimPadding),
        role(Role::kFimRepository), role(Role::kFimFile)}) {
    if (token != kNoToken) set_flag(attributes_of(token), kEnd, true);
  }

  // Some names end an answer in one model and not in another.
  const auto named_end = [&](std::string_view text) {
    const Token token = by_name[names.find(text)];
    return token != kNoToken && (attributes_of(token) & kEnd) != 0 ? token : kNoToken;
  };
  const auto revoke = [&](Token token, std::uint16_t type) {
    set_type(attributes_of(token), type);
    set_flag(attributes_of(token), kEnd, false);
    if (role(Role::kEndOfTurn) == token) role(Role::kEndOfTurn) = kNoToken;
  };
  const bool calls = named_end("<|call|>") != kNoToken || named_end("<|calls|>") != kNoToken;
  if (const Token end = named_end("<|end|>");
      end != kNoToken && calls &&
      (named_end("<|return|>") != kNoToken || named_end("<|flush|>") != kNoToken)) {
    revoke(end, kUserDefined);
  }
  if (const Token end = named_end("</s>");
      end != kNoToken && named_end("<|tool_response>") != kNoToken) {
    revoke(end, kNormal);
  }
  for (const std::int32_t id : file.i32s("tokenizer.ggml.eos_token_ids")) {
    if (in_range(id)) set_flag(attributes_of(id), kEnd, true);
  }

  tokens.eot = role(Role::kEndOfTurn);
  tokens.fim_prefix = role(Role::kFimPrefix);
  tokens.fim_suffix = role(Role::kFimSuffix);
  tokens.fim_middle = role(Role::kFimMiddle);
  assign_stripping(file, pre, texts, attributes);
}

struct SpecialMatcher::State {
  struct Entry {
    Token token = kNoToken;
    std::uint32_t length = 0;
    bool always = false;  // also without parse_special
    bool strip_left = false;
    bool strip_right = false;
  };
  std::vector<Entry> entries;  // longest first
  Trie trie;                   // texts to indices into entries
  std::array<bool, 256> starts{};
  std::array<bool, 256> starts_always{};
  bool any_always = false;
};

SpecialMatcher::SpecialMatcher(std::span<const std::string> texts,
                               std::span<const std::uint16_t> attributes) {
  auto state = std::make_unique<State>();
  for (std::size_t id = 0; id < texts.size(); ++id) {
    const std::uint16_t attribute = attributes[id];
    if ((attribute & (kControl | kUserDefined | kUnknown)) == 0) continue;
    if (texts[id].empty() || texts[id].size() > kMaxSpecialLength) continue;
    state->entries.push_back({
        .token = static_cast<Token>(id),
        .length = static_cast<std::uint32_t>(texts[id].size()),
        .always = (attribute & (kControl | kUnknown)) == 0,
        .strip_left = (attribute & kStripLeft) != 0,
        .strip_right = (attribute & kStripRight) != 0,
    });
  }
  std::ranges::stable_sort(state->entries, std::greater{}, &State::Entry::length);
  for (std::uint32_t i = 0; i < state->entries.size(); ++i) {
    const State::Entry& entry = state->entries[i];
    const std::string& text = texts[static_cast<std::size_t>(entry.token)];
    state->trie.set(text, i);
    const auto first = static_cast<unsigned char>(text[0]);
    state->starts[first] = true;
    if (entry.always) {
      state->starts_always[first] = true;
      state->any_always = true;
    }
  }
  state_ = std::move(state);
}

SpecialMatcher::~SpecialMatcher() = default;

std::vector<Fragment> SpecialMatcher::split(std::string_view text, bool parse_special) const {
  std::vector<Fragment> fragments;
  if (text.empty()) return fragments;
  struct Match {
    std::uint32_t entry = 0;
    std::size_t begin = 0;
    auto operator<=>(const Match&) const = default;
  };
  std::vector<Match> matches;
  if (parse_special ? !state_->entries.empty() : state_->any_always) {
    const auto& starts = parse_special ? state_->starts : state_->starts_always;
    for (std::size_t begin = 0; begin < text.size(); ++begin) {
      if (!starts[static_cast<unsigned char>(text[begin])]) continue;
      std::uint32_t node = Trie::kRoot;
      for (std::size_t at = begin; at < text.size(); ++at) {
        node = state_->trie.step(node, text[at]);
        if (node == kNone) break;
        const std::uint32_t entry = state_->trie.value(node);
        if (entry != kNone && (parse_special || state_->entries[entry].always)) {
          matches.push_back({entry, begin});
        }
      }
    }
  }
  if (matches.empty()) {
    fragments.push_back({kNoToken, 0, text.size()});
    return fragments;
  }
  std::ranges::sort(matches);

  // 0 is text, 1 is taken by a token or stripped.
  std::string taken(text.size(), '\0');
  const auto is_blank = [&](std::size_t at) {
    return std::isspace(static_cast<unsigned char>(text[at])) != 0;
  };
  for (const Match& match : matches) {
    const State::Entry& entry = state_->entries[match.entry];
    std::size_t end = match.begin + entry.length;
    if (std::string_view(taken).substr(match.begin, entry.length).contains('\1')) continue;
    fragments.push_back({entry.token, match.begin, end});
    std::size_t begin = match.begin;
    if (entry.strip_left) {
      while (begin > 0 && taken[begin - 1] == '\0' && is_blank(begin - 1)) --begin;
    }
    if (entry.strip_right) {
      while (end < text.size() && taken[end] == '\0' && is_blank(end)) ++end;
    }
    std::fill(taken.begin() + static_cast<std::ptrdiff_t>(begin),
              taken.begin() + static_cast<std::ptrdiff_t>(end), '\1');
  }
  for (std::size_t begin = 0; begin < text.size();) {
    if (taken[begin] != '\0') {
      const std::size_t next = taken.find('\0', begin);
      begin = std::min(next, text.size());
      continue;
    }
    const std::size_t end = std::min(taken.find('\1', begin), text.size());
    fragments.push_back({kNoToken, begin, end});
    begin = end;
  }
  std::ranges::sort(fragments, {}, &Fragment::begin);
  return fragments;
}

}  // namespace ollama::tokenizer

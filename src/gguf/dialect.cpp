#include "gguf/dialect.h"

#include <algorithm>
#include <array>
#include <format>
#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

namespace ollama::gguf {
namespace {

// What the rules below are written in.
class Edit {
 public:
  explicit Edit(Header& header) : header_(header) {}

  std::string architecture() const {
    const auto* name = get<std::string>("general.architecture");
    return name ? *name : "";
  }

  // nullptr when the key is missing or of another type.
  template <typename T>
  const T* get(std::string_view key) const {
    const auto found = header_.metadata.find(key);
    return found == header_.metadata.end() ? nullptr : std::get_if<T>(&found->second);
  }
  bool has(std::string_view key) const { return header_.metadata.contains(key); }
  bool has_prefix(std::string_view prefix) const {
    const auto found = header_.metadata.lower_bound(prefix);
    return found != header_.metadata.end() && found->first.starts_with(prefix);
  }
  void set(std::string_view key, Value value, gguf_type type) {
    header_.metadata.insert_or_assign(std::string(key), std::move(value));
    header_.types.insert_or_assign(std::string(key), ValueType{.type = type});
  }
  void set_missing(std::string_view key, Value value, gguf_type type) {
    if (!has(key)) set(key, std::move(value), type);
  }

  // A key that already has llama.cpp's name wins over one that would get it.
  void rename_key(const std::string& from, const std::string& to) {
    auto value = header_.metadata.extract(from);
    auto type = header_.types.extract(from);
    if (value.empty()) return;
    value.key() = to;
    type.key() = to;
    header_.metadata.insert(std::move(value));
    header_.types.insert(std::move(type));
  }

  // Gives the model another architecture, in its name and in the prefix of its keys.
  void rename_architecture(std::string_view to) {
    const std::string old = architecture() + ".";
    std::vector<std::string> keys;
    for (auto at = header_.metadata.lower_bound(old);
         at != header_.metadata.end() && at->first.starts_with(old); ++at)
      keys.push_back(at->first);
    for (const std::string& key : keys)
      rename_key(key, std::format("{}.{}", to, key.substr(old.size())));
    set("general.architecture", std::string(to), GGUF_TYPE_STRING);
  }

  const TensorInfo* tensor(std::string_view name) const {
    const auto found = std::ranges::find(header_.tensors, name, &TensorInfo::name);
    return found == header_.tensors.end() ? nullptr : &*found;
  }
  bool has_tensors(std::initializer_list<std::string_view> prefixes) const {
    return std::ranges::any_of(header_.tensors, [prefixes](const TensorInfo& tensor) {
      return starts_with_any(tensor.name, prefixes);
    });
  }
  void drop_tensors(std::initializer_list<std::string_view> prefixes) {
    std::erase_if(header_.tensors, [prefixes](const TensorInfo& tensor) {
      return starts_with_any(tensor.name, prefixes);
    });
  }
  // Renames one component of the tensors' dotted names, with what follows it: ("attn_out",
  // "attn_output") turns blk.0.attn_out.bias into blk.0.attn_output.bias.
  void rename_tensors(std::string_view component, std::string_view to) {
    for (TensorInfo& tensor : header_.tensors) {
      const std::string dotted = std::format(".{}.", tensor.name);
      const auto at = dotted.find(std::format(".{}.", component));
      if (at != std::string::npos) tensor.name.replace(at, component.size(), to);
    }
  }

  // Shortens a metadata array of any type.
  void cut_array(std::string_view key, std::size_t size) {
    const auto found = header_.metadata.find(key);
    if (found == header_.metadata.end()) return;
    if (auto* array = std::get_if<Array>(&found->second)) {
      std::visit([size](auto& elements) { elements.resize(std::min(elements.size(), size)); },
                 *array);
    }
  }
  std::size_t vocabulary_size() const {
    const auto* array = get<Array>("tokenizer.ggml.tokens");
    const auto* tokens = array ? std::get_if<std::vector<std::string>>(array) : nullptr;
    return tokens ? tokens->size() : 0;
  }

  Result<> check_names() const {
    std::unordered_set<std::string_view> names;
    for (const TensorInfo& tensor : header_.tensors) {
      if (!names.insert(tensor.name).second)
        return fail(ErrorCode::kCorrupt, "{}: two tensors mean the same", printable(tensor.name));
      if (tensor.name.size() > kMaxNameBytes)
        return fail(ErrorCode::kCorrupt, "{}: this tensor's name is too long",
                    printable(tensor.name));
    }
    return {};
  }

 private:
  static bool starts_with_any(std::string_view name,
                              std::initializer_list<std::string_view> prefixes) {
    return std::ranges::any_of(
        prefixes, [name](std::string_view prefix) { return name.starts_with(prefix); });
  }

  Header& header_;
};

constexpr std::string_view kPre = "tokenizer.ggml.pre";

void translate_gpt_oss(Edit& edit) {
  edit.rename_architecture("gpt-oss");
  edit.rename_tensors("attn_out", "attn_output");
  // First the plain name, so that a file which has the suffix already gets no second one.
  edit.rename_tensors("attn_sinks.weight", "attn_sinks");
  edit.rename_tensors("attn_sinks", "attn_sinks.weight");
  edit.rename_tensors("ffn_norm", "post_attention_norm");
  if (const TensorInfo* gate = edit.tensor("blk.0.ffn_gate_exps.weight"))
    edit.set_missing("gpt-oss.expert_feed_forward_length", gate->shape[1], GGUF_TYPE_UINT32);
  edit.set_missing("gpt-oss.rope.scaling.type", std::string("yarn"), GGUF_TYPE_STRING);
  edit.set(kPre, std::string("gpt-4o"), GGUF_TYPE_STRING);
}

void translate_gemma3(Edit& edit) {
  const bool embedder = edit.tensor("dense.0.weight") != nullptr;
  edit.drop_tensors({"v.", "mm."});

  edit.rename_key("gemma3.rope.global.freq_base", "gemma3.rope.freq_base");
  edit.rename_key("gemma3.rope.local.freq_base", "gemma3.rope.freq_base_swa");
  edit.set_missing("gemma3.rope.freq_base", 1e6, GGUF_TYPE_FLOAT32);
  edit.set_missing("gemma3.rope.freq_base_swa", 1e4, GGUF_TYPE_FLOAT32);
  edit.set_missing("gemma3.attention.layer_norm_rms_epsilon", double{1e-6F}, GGUF_TYPE_FLOAT32);
  // Read with the long context's scaling, which these files take for granted.
  const auto* context = edit.get<std::int64_t>("gemma3.context_length");
  if (context && *context >= 131072 && !edit.has_prefix("gemma3.rope.scaling.")) {
    edit.set("gemma3.rope.scaling.type", std::string("linear"), GGUF_TYPE_STRING);
    edit.set("gemma3.rope.scaling.factor", 8.0, GGUF_TYPE_FLOAT32);
  }
  const TensorInfo* embedding = edit.tensor("token_embd.weight");
  if (embedding && embedding->n_dims == 2) {
    for (const std::string_view key :
         {"tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"})
      edit.cut_array(key, static_cast<std::size_t>(embedding->shape[1]));
  }

  if (!embedder) return;
  edit.rename_architecture("gemma-embedding");
  edit.set("gemma-embedding.attention.causal", false, GGUF_TYPE_BOOL);
  constexpr std::int64_t kMeanPooling = 1;
  edit.set("gemma-embedding.pooling_type", kMeanPooling, GGUF_TYPE_UINT32);
  edit.rename_tensors("dense.0", "dense_2");
  edit.rename_tensors("dense.1", "dense_3");
  edit.rename_tensors("norm", "output_norm");
}

// The first Llama 3 files were converted before their pre-tokenizer had a name.
void translate_llama3(Edit& edit) {
  edit.set(kPre, std::string("llama-bpe"), GGUF_TYPE_STRING);
  constexpr std::int64_t kEndOfText = 128001, kEndOfTurn = 128009;
  const auto* eos = edit.get<std::int64_t>("tokenizer.ggml.eos_token_id");
  const auto* eot = edit.get<std::int64_t>("tokenizer.ggml.eot_token_id");
  if (eot ? *eot == kEndOfText : eos && *eos == kEndOfText)
    edit.set("tokenizer.ggml.eot_token_id", kEndOfTurn, GGUF_TYPE_UINT32);
}

bool is_early_llama3(const Edit& edit) {
  const auto* pre = edit.get<std::string>(kPre);
  return edit.vocabulary_size() == 128256 && (!edit.has(kPre) || (pre && *pre == "default"));
}

void translate_lfm2(Edit& edit) {
  edit.rename_tensors("output_norm", "token_embd_norm");
  edit.set(kPre, std::string("lfm2"), GGUF_TYPE_STRING);
  if (const TensorInfo* gate = edit.tensor("blk.0.ffn_gate.weight"))
    edit.set("lfm2.feed_forward_length", gate->shape[1], GGUF_TYPE_UINT32);
}

bool is_text_with_more(std::string_view architecture) {
  return std::ranges::contains(
      std::to_array<std::string_view>(
          {"mistral3", "llama4", "qwen35", "qwen35moe", "qwen3vl", "qwen3vlmoe", "qwen25vl"}),
      architecture);
}

}  // namespace

Result<> translate_dialect(Header& header) {
  Edit edit(header);
  const std::string architecture = edit.architecture();
  if (architecture == "gptoss") {
    translate_gpt_oss(edit);
  } else if (architecture == "gemma3") {
    if (edit.has_tensors({"v.", "mm.", "dense.0."}) ||
        !edit.has("gemma3.attention.layer_norm_rms_epsilon"))
      translate_gemma3(edit);
  } else if (architecture == "llama") {
    if (is_early_llama3(edit)) translate_llama3(edit);
  } else if (architecture == "lfm2") {
    if (edit.tensor("output_norm.weight")) translate_lfm2(edit);
  } else if (is_text_with_more(architecture)) {
    edit.drop_tensors({"v.", "mm.", "mtp.", "a."});
    if (architecture == "qwen25vl") edit.rename_architecture("qwen2vl");
  }
  return edit.check_names();
}

void reorder_mxfp4(std::span<const std::byte> from, std::span<std::byte> to) {
  constexpr std::size_t kNibbles = 16;  // bytes of them, behind a byte of scale
  constexpr std::size_t kBlock = 1 + kNibbles;
  constexpr std::byte kLow{0x0F};
  for (std::size_t at = 0; at + kBlock <= std::min(from.size(), to.size()); at += kBlock) {
    std::array<std::byte, kBlock> block;
    std::ranges::copy(from.subspan(at, kBlock), block.begin());
    to[at] = block[0];
    // Elements 2i and 2i + 1 of the block's halves, which GGML keeps as low and high nibbles.
    for (std::size_t i = 0; i < kNibbles / 2; ++i) {
      const std::byte first = block[1 + i];
      const std::byte second = block[1 + i + kNibbles / 2];
      to[at + 1 + 2 * i] = (first & kLow) | (second << 4);
      to[at + 2 + 2 * i] = (first >> 4) | (second & ~kLow);
    }
  }
}

}  // namespace ollama::gguf

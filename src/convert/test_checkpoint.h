// Checkpoints for tests: what Hugging Face's programs would have saved, written from a model file
// by rules of their own and not by those of the converter turned around.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <bit>
#include <boost/json.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "api/types.h"
#include "gguf/file.h"

namespace ollama::convert::testing {
namespace fs = std::filesystem;

// A folder that goes away with the test.
class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "convert-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }

  const fs::path& path() const { return path_; }
  fs::path operator/(std::string_view name) const { return path_ / name; }
  void write(std::string_view name, std::string_view content) const {
    fs::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << content;
  }
  void write_json(std::string_view name, const boost::json::value& json) const {
    write(name, boost::json::serialize(json));
  }
  std::set<std::string> names() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(path_)) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }

 private:
  fs::path path_;
};

inline gguf::File open_model(const fs::path& path) {
  auto file = gguf::File::open(path);
  if (!file) throw std::runtime_error(std::string(file.error().message()));
  return std::move(*file);
}
// One of tests/data/arch.
inline gguf::File open_fixture(std::string_view name) {
  return open_model(fs::path(OLLAMA_TEST_DATA) / "arch" / std::format("{}.gguf", name));
}

struct HfTensor {
  std::string name;
  std::string dtype = "F32";
  std::vector<std::int64_t> shape;  // slowest first
  std::string bytes;
};

inline std::string safetensors(std::span<const HfTensor> tensors) {
  boost::json::object header{{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const HfTensor& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", boost::json::value_from(tensor.shape)},
                           {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  std::string json = boost::json::serialize(header);
  json.resize((json.size() + 7) / 8 * 8, ' ');
  const std::uint64_t size = json.size();
  std::string file(reinterpret_cast<const char*>(&size), sizeof size);
  return file + json + data;
}

// ---- protocol buffers ----

inline std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}
inline std::string proto_integer(unsigned field, std::uint64_t value) {
  return varint(field << 3) + varint(value);
}
inline std::string proto_bytes(unsigned field, std::string_view bytes) {
  return varint(field << 3 | 2) + varint(bytes.size()) + std::string(bytes);
}
inline std::string proto_float(unsigned field, float value) {
  return varint(field << 3 | 5) + std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

// ---- tokenizers ----

// A vocabulary out of a model file.
struct Tokens {
  std::vector<std::string> texts;
  std::vector<float> scores;
  std::vector<std::int32_t> types;
  std::vector<std::string> merges;

  explicit Tokens(const gguf::File& file)
      : scores(file.f32s("tokenizer.ggml.scores")), types(file.i32s("tokenizer.ggml.token_type")) {
    for (const std::string& text : file.strings("tokenizer.ggml.tokens")) texts.push_back(text);
    for (const std::string& text : file.strings("tokenizer.ggml.merges")) merges.push_back(text);
  }
};

// tokenizer.model, as SentencePiece trains it.
inline std::string sentencepiece_model(const Tokens& tokens, bool dummy_prefix = true) {
  std::string model;
  for (std::size_t i = 0; i < tokens.texts.size(); ++i) {
    std::string piece = proto_bytes(1, tokens.texts[i]) + proto_float(2, tokens.scores[i]);
    if (tokens.types[i] != 1) piece += proto_integer(3, static_cast<unsigned>(tokens.types[i]));
    model += proto_bytes(1, piece);
  }
  model += proto_bytes(2, proto_bytes(1, "corpus.txt") + proto_integer(3, 2));
  return model + proto_bytes(3, proto_bytes(1, "identity") + proto_integer(3, dummy_prefix));
}

inline boost::json::array added_tokens(const Tokens& tokens) {
  boost::json::array added;
  for (std::size_t i = 0; i < tokens.texts.size(); ++i) {
    if (tokens.types[i] < 2 || tokens.types[i] > 4) continue;
    added.push_back({{"id", i},
                     {"content", tokens.texts[i]},
                     {"special", tokens.types[i] != 4},
                     {"normalized", false}});
  }
  return added;
}

// tokenizer.json of a WordPiece vocabulary.
inline boost::json::object wordpiece_json(const Tokens& tokens) {
  constexpr std::string_view kStart = "\u2581";
  boost::json::object vocabulary;
  for (std::size_t i = 0; i < tokens.texts.size(); ++i) {
    const std::string& text = tokens.texts[i];
    const bool is_name = text.starts_with('[') && text.ends_with(']') && text.size() > 2;
    vocabulary[is_name                    ? text
               : text.starts_with(kStart) ? text.substr(kStart.size())
                                          : "##" + text] = i;
  }
  return {
      {"added_tokens", added_tokens(tokens)},
      {"normalizer", {{"type", "BertNormalizer"}, {"lowercase", true}, {"strip_accents", nullptr}}},
      {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
      {"model",
       {{"type", "WordPiece"},
        {"unk_token", "[UNK]"},
        {"continuing_subword_prefix", "##"},
        {"vocab", std::move(vocabulary)}}}};
}

// tokenizer.json of a Unigram vocabulary, as XLM-RoBERTa has it: unused tokens at its end are not
// in it.
inline boost::json::object unigram_json(const gguf::File& file) {
  const Tokens tokens(file);
  boost::json::array vocabulary;
  std::optional<std::size_t> unknown;
  for (std::size_t i = 0; i < tokens.texts.size() && tokens.types[i] != 5; ++i) {
    if (tokens.types[i] == 2) unknown = i;
    vocabulary.push_back(boost::json::array{tokens.texts[i], tokens.scores[i]});
  }
  std::string rules;
  for (const std::int32_t byte : file.i32s("tokenizer.ggml.precompiled_charsmap")) {
    rules.push_back(static_cast<char>(byte));
  }
  auto json = boost::json::parse(R"({
    "normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Precompiled"},
      {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
    "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}},
                 {"SpecialToken": {"id": "</s>"}}],
      "pair": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}},
               {"SpecialToken": {"id": "</s>"}}, {"SpecialToken": {"id": "</s>"}},
               {"Sequence": {"id": "B"}}, {"SpecialToken": {"id": "</s>"}}]}})");
  json.at_pointer("/normalizer/normalizers/0").as_object()["precompiled_charsmap"] =
      api::encode_base64(rules);
  json.as_object()["added_tokens"] = added_tokens(tokens);
  json.as_object()["model"] = {{"type", "Unigram"}, {"vocab", std::move(vocabulary)}};
  if (unknown) json.at("model").as_object()["unk_id"] = *unknown;
  return json.as_object();
}

// ---- models ----

// Encoders, which have names of their own.
inline bool is_bert(std::string_view family) { return family == "bert" || family == "xlm-roberta"; }

// Rows of each head: the first of every pair, then the second of every pair, as Hugging Face's code
// rotates them.
inline std::string halves_of(std::string_view rows, std::size_t row, std::size_t head) {
  std::string out;
  for (std::size_t start = 0; start < rows.size(); start += head * row) {
    for (const std::size_t parity : {0, 1}) {
      for (std::size_t i = parity; i < head; i += 2) out += rows.substr(start + i * row, row);
    }
  }
  return out;
}

inline std::string to_bf16(std::string_view bytes) {
  std::string out;
  for (std::size_t i = 0; i + 4 <= bytes.size(); i += 4) out += bytes.substr(i + 2, 2);
  return out;
}

inline std::string to_f16(std::string_view bytes) {
  std::string out;
  for (std::size_t i = 0; i + 4 <= bytes.size(); i += 4) {
    float value = 0;
    std::memcpy(&value, &bytes[i], sizeof value);
    const ggml_fp16_t half = ggml_fp32_to_fp16(value);
    out.append(reinterpret_cast<const char*>(&half), sizeof half);
  }
  return out;
}

// What a tensor of a decoder, or of BERT, is called in a checkpoint; "" for what is computed.
std::string hf_name(std::string_view family, std::string_view name);

// The tensors of a model file as a checkpoint of `family` has them.
inline std::vector<HfTensor> hf_tensors(const gguf::File& file, std::string_view family) {
  std::vector<HfTensor> tensors;
  const std::size_t head = file.u32(".attention.key_length").value_or(0);
  for (const gguf::TensorInfo& info : file.tensors()) {
    const auto bytes = *file.data(info);
    HfTensor tensor{.name = hf_name(family, info.name),
                    .dtype = info.type == GGML_TYPE_F16 ? "F16" : "F32",
                    .shape = {info.shape.begin(), info.shape.begin() + info.n_dims},
                    .bytes = {reinterpret_cast<const char*>(bytes.data()), bytes.size()}};
    std::ranges::reverse(tensor.shape);
    if (tensor.name.empty()) continue;
    if (family == "xlm-roberta" && info.name == "position_embd.weight") {
      // What padding tokens of the id 0 have, which nothing reads.
      const std::size_t row = tensor.bytes.size() / static_cast<std::size_t>(tensor.shape[0]);
      tensor.bytes.insert(0, std::string(row, '\x33'));
      ++tensor.shape[0];
    }
    const bool rotated = info.name.contains("attn_q.") || info.name.contains("attn_k.");
    if (rotated && (family == "llama" || family == "mistral")) {
      const auto rows = static_cast<std::size_t>(tensor.shape[0]);
      tensor.bytes = halves_of(tensor.bytes, tensor.bytes.size() / rows, head);
    }
    if (family.starts_with("gemma") && info.name.contains("norm")) {
      for (std::size_t i = 0; i < tensor.bytes.size(); i += sizeof(float)) {
        float value = 0;
        std::memcpy(&value, &tensor.bytes[i], sizeof value);
        value -= 1;
        std::memcpy(&tensor.bytes[i], &value, sizeof value);
      }
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

inline std::string hf_name(std::string_view family, std::string_view name) {
  static const std::map<std::string_view, std::string_view> kWhole{
      {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};
  static const std::map<std::string_view, std::string_view> kPart{
      {"attn_q", "self_attn.q_proj"},
      {"attn_k", "self_attn.k_proj"},
      {"attn_v", "self_attn.v_proj"},
      {"attn_output", "self_attn.o_proj"},
      {"attn_qkv", "self_attn.qkv_proj"},
      {"attn_q_norm", "self_attn.q_norm"},
      {"attn_k_norm", "self_attn.k_norm"},
      {"attn_norm", "input_layernorm"},
      {"ffn_norm", "post_attention_layernorm"},
      {"ffn_gate", "mlp.gate_proj"},
      {"ffn_up", "mlp.up_proj"},
      {"ffn_down", "mlp.down_proj"}};
  static const std::map<std::string_view, std::string_view> kGemma{
      {"post_attention_norm", "post_attention_layernorm"},
      {"ffn_norm", "pre_feedforward_layernorm"},
      {"post_ffw_norm", "post_feedforward_layernorm"}};
  static const std::map<std::string_view, std::string_view> kBertWhole{
      {"token_embd", "embeddings.word_embeddings"},
      {"position_embd", "embeddings.position_embeddings"},
      {"token_types", "embeddings.token_type_embeddings"},
      {"token_embd_norm", "embeddings.LayerNorm"}};
  static const std::map<std::string_view, std::string_view> kBertPart{
      {"attn_q", "attention.self.query"},
      {"attn_k", "attention.self.key"},
      {"attn_v", "attention.self.value"},
      {"attn_output", "attention.output.dense"},
      {"attn_output_norm", "attention.output.LayerNorm"},
      {"ffn_up", "intermediate.dense"},
      {"ffn_down", "output.dense"},
      {"layer_output_norm", "output.LayerNorm"}};
  const std::size_t dot = name.find_last_of('.');
  const std::string_view ending = name.substr(dot);
  std::string_view part = name.substr(0, dot);
  const bool bert = is_bert(family);
  if (!part.starts_with("blk.")) {
    const auto& table = bert ? kBertWhole : kWhole;
    const auto found = table.find(part);
    return found == table.end() ? "" : std::format("{}{}", found->second, ending);
  }
  part.remove_prefix(4);
  const std::size_t layer_end = part.find('.');
  const std::string_view layer = part.substr(0, layer_end);
  part.remove_prefix(layer_end + 1);
  if (bert) return std::format("encoder.layer.{}.{}{}", layer, kBertPart.at(part), ending);
  if (family == "phi3" && part == "ffn_up") {
    return std::format("model.layers.{}.mlp.gate_up_proj{}", layer, ending);
  }
  const bool gemma = family.starts_with("gemma") && kGemma.contains(part);
  return std::format("model.layers.{}.{}{}", layer, gemma ? kGemma.at(part) : kPart.at(part),
                     ending);
}

// config.json for it.
inline boost::json::object hf_config(const gguf::File& file, std::string_view family) {
  static const std::map<std::string_view, std::string_view> kClasses{
      {"llama", "LlamaForCausalLM"},     {"mistral", "MistralForCausalLM"},
      {"qwen2", "Qwen2ForCausalLM"},     {"qwen3", "Qwen3ForCausalLM"},
      {"gemma2", "Gemma2ForCausalLM"},   {"gemma3", "Gemma3ForCausalLM"},
      {"phi3", "Phi3ForCausalLM"},       {"bert", "BertModel"},
      {"xlm-roberta", "XLMRobertaModel"}};
  const bool gemma = family.starts_with("gemma");
  boost::json::object config{{"architectures", boost::json::array{kClasses.at(family)}},
                             {"model_type", family == "gemma3" ? "gemma3_text" : family},
                             {"num_hidden_layers", *file.u32(".block_count")},
                             {"max_position_embeddings", *file.u32(".context_length")},
                             {"hidden_size", *file.u32(".embedding_length")},
                             {"intermediate_size", *file.u32(".feed_forward_length")},
                             {"num_attention_heads", *file.u32(".attention.head_count")},
                             {"vocab_size", file.strings("tokenizer.ggml.tokens").size()}};
  if (is_bert(family)) {
    if (family == "xlm-roberta") {
      config["max_position_embeddings"] = *file.u32(".context_length") + 1;
      config["pad_token_id"] = 0;
    }
    config["hidden_act"] = "gelu";
    config["layer_norm_eps"] = 1e-12;
    config["type_vocab_size"] = 2;
    config["position_embedding_type"] = "absolute";
    return config;
  }
  const char* const activation = gemma ? "hidden_activation" : "hidden_act";
  config[activation] = gemma ? "gelu_pytorch_tanh" : "silu";
  config["num_key_value_heads"] = *file.u32(".attention.head_count_kv");
  config["head_dim"] = *file.u32(".attention.key_length");
  config["rms_norm_eps"] = gemma ? 1e-6 : 1e-5;
  config["rope_theta"] = file.f32(".rope.freq_base").value_or(10000.0F);
  config["tie_word_embeddings"] = file.find_tensor("output.weight") == nullptr;
  config["bos_token_id"] = 1;
  config["eos_token_id"] = 2;
  if (gemma) {
    config["sliding_window"] = 16;
    config["query_pre_attn_scalar"] = 32;
    config["attn_logit_softcapping"] = family == "gemma2" ? boost::json::value(50.0) : nullptr;
    config["final_logit_softcapping"] = family == "gemma2" ? boost::json::value(30.0) : nullptr;
  }
  if (family == "phi3") {
    config["original_max_position_embeddings"] = *file.u32(".context_length");
    config["sliding_window"] = nullptr;
  }
  return config;
}

// The whole checkpoint, weights in one file.
inline void write_checkpoint(const Folder& folder, const gguf::File& file,
                             std::string_view family) {
  const Tokens tokens(file);
  folder.write_json("config.json", hf_config(file, family));
  folder.write("model.safetensors", safetensors(hf_tensors(file, family)));
  if (is_bert(family)) {
    folder.write_json("tokenizer.json", wordpiece_json(tokens));
    return;
  }
  folder.write("tokenizer.model", sentencepiece_model(tokens));
  folder.write_json("tokenizer_config.json", {{"bos_token", "<s>"},
                                              {"eos_token", {{"content", "</s>"}}},
                                              {"unk_token", "<unk>"},
                                              {"add_bos_token", true},
                                              {"add_eos_token", false}});
}

}  // namespace ollama::convert::testing

// For tests: model files in the shapes of real models (memory/shapes.h) with everything but the
// weights, which are a hole in the file. They take no room, and are placed and measured as the real
// ones would be.
#pragma once

#include <ggml-cpp.h>
#include <ggml.h>
#include <gguf.h>

#include <filesystem>
#include <format>
#include <initializer_list>
#include <string>
#include <string_view>

#include "gguf/quant_mix.h"
#include "memory/shapes.h"

namespace ollama::engine {

class HollowModel {
 public:
  explicit HollowModel(const memory::Shape& shape) : shape_(shape) {
    add_metadata();
    const memory::Shape& s = shape_;
    add("token_embd.weight", {s.hidden, s.vocabulary});
    add("output_norm.weight", {s.hidden});
    if (!s.tied) add("output.weight", {s.hidden, s.vocabulary});
    if (is("llama")) add("rope_freqs.weight", {s.head_dim / 2});
    for (layer_ = 0; layer_ < s.layers; ++layer_) {
      add_norms();
      s.latent == 0 ? add_attention() : add_latent_attention();
      const bool dense = s.experts == 1 || (layer_ == 0 && s.first_ffn != 0);
      dense ? add_feed_forward("", s.experts == 1 ? s.ffn : s.first_ffn) : add_experts();
    }
  }

  bool write(const std::filesystem::path& path) const {
    if (!gguf_write_to_file(file_.get(), path.c_str(), true)) return false;
    std::error_code error;
    std::filesystem::resize_file(path, gguf_get_meta_size(file_.get()) + data_, error);
    return !error;
  }

 private:
  bool is(std::string_view architecture) const { return shape_.architecture == architecture; }

  void set(std::string_view key, std::uint64_t value) {
    gguf_set_val_u32(file_.get(), std::format("{}.{}", shape_.architecture, key).c_str(),
                     static_cast<std::uint32_t>(value));
  }
  void add_metadata() {
    const memory::Shape& s = shape_;
    gguf_set_val_str(file_.get(), "general.architecture", std::string(s.architecture).c_str());
    gguf_set_val_f32(file_.get(),
                     std::format("{}.attention.layer_norm_rms_epsilon", s.architecture).c_str(),
                     1e-6F);
    set("block_count", s.layers);
    set("context_length", 131072);
    set("embedding_length", s.hidden);
    set("attention.head_count", s.heads);
    set("feed_forward_length", s.first_ffn != 0 ? s.first_ffn : s.ffn);
    if (s.window != 0) set("attention.sliding_window", static_cast<std::uint64_t>(s.window));
    if (s.experts > 1) {
      set("expert_count", s.experts);
      set("expert_used_count", s.chosen);
      set("expert_feed_forward_length", s.ffn);
      set("expert_shared_count", s.more_experts);
    }
    if (s.first_ffn != 0) set("leading_dense_block_count", 1);
    if (s.latent == 0) {
      set("attention.head_count_kv", s.kv_heads);
      set("attention.key_length", s.head_dim);
      set("attention.value_length", s.head_dim);
      return;
    }
    set("attention.head_count_kv", 1);
    set("attention.kv_lora_rank", s.latent);
    set("attention.key_length", s.latent + s.rope);
    set("attention.value_length", s.latent);
    set("attention.key_length_mla", s.head_dim + s.rope);
    set("attention.value_length_mla", s.head_dim);
    set("rope.dimension_count", s.rope);
  }

  void add(const std::string& name, std::initializer_list<std::uint64_t> dimensions) {
    std::vector<std::int64_t> shape(dimensions.begin(), dimensions.end());
    const auto& mix = *gguf::find_quant_mix(is("gpt-oss") ? "MXFP4" : "Q4_K_M");
    const ggml_type type = gguf::choose_type(
        mix,
        {.layers = static_cast<std::uint32_t>(shape_.layers),
         .heads_per_kv_head =
             static_cast<std::uint32_t>(shape_.heads / std::max<std::uint64_t>(shape_.kv_heads, 1)),
         .experts = static_cast<std::uint32_t>(shape_.experts),
         .tied_output = shape_.tied},
        name, shape);
    ggml_tensor* const tensor =
        ggml_new_tensor(tensors_.get(), type, static_cast<int>(shape.size()), shape.data());
    ggml_set_name(tensor, name.c_str());
    gguf_add_tensor(file_.get(), tensor);
    data_ += GGML_PAD(ggml_nbytes(tensor), GGUF_DEFAULT_ALIGNMENT);
  }
  void add_to_layer(std::string_view name, std::initializer_list<std::uint64_t> dimensions) {
    add(std::format("blk.{}.{}", layer_, name), dimensions);
  }
  void add_with_bias(std::string_view name, std::uint64_t in, std::uint64_t out) {
    add_to_layer(std::format("{}.weight", name), {in, out});
    if (is("gpt-oss")) add_to_layer(std::format("{}.bias", name), {out});
  }

  void add_norms() {
    const std::uint64_t width = shape_.hidden;
    add_to_layer("attn_norm.weight", {width});
    if (!is("gpt-oss")) add_to_layer("ffn_norm.weight", {width});
    if (is("gpt-oss") || is("gemma3")) add_to_layer("post_attention_norm.weight", {width});
    if (is("gemma3")) add_to_layer("post_ffw_norm.weight", {width});
    if (is("gemma3") || is("qwen3moe")) {
      add_to_layer("attn_q_norm.weight", {shape_.head_dim});
      add_to_layer("attn_k_norm.weight", {shape_.head_dim});
    }
  }
  void add_attention() {
    const memory::Shape& s = shape_;
    add_with_bias("attn_q", s.hidden, s.heads * s.head_dim);
    add_with_bias("attn_k", s.hidden, s.kv_heads * s.head_dim);
    add_with_bias("attn_v", s.hidden, s.kv_heads * s.head_dim);
    add_with_bias("attn_output", s.heads * s.head_dim, s.hidden);
    if (is("gpt-oss")) add_to_layer("attn_sinks.weight", {s.heads});
  }
  void add_latent_attention() {
    const memory::Shape& s = shape_;
    add_to_layer("attn_q.weight", {s.hidden, s.heads * (s.head_dim + s.rope)});
    add_to_layer("attn_kv_a_mqa.weight", {s.hidden, s.latent + s.rope});
    add_to_layer("attn_kv_a_norm.weight", {s.latent});
    add_to_layer("attn_k_b.weight", {s.head_dim, s.latent, s.heads});
    add_to_layer("attn_v_b.weight", {s.latent, s.head_dim, s.heads});
    add_to_layer("attn_output.weight", {s.heads * s.head_dim, s.hidden});
  }
  void add_feed_forward(std::string_view suffix, std::uint64_t inside) {
    add_to_layer(std::format("ffn_gate{}.weight", suffix), {shape_.hidden, inside});
    add_to_layer(std::format("ffn_up{}.weight", suffix), {shape_.hidden, inside});
    add_to_layer(std::format("ffn_down{}.weight", suffix), {inside, shape_.hidden});
  }
  void add_experts() {
    const memory::Shape& s = shape_;
    add_with_bias("ffn_gate_inp", s.hidden, s.experts);
    add_to_layer("ffn_gate_exps.weight", {s.hidden, s.ffn, s.experts});
    add_to_layer("ffn_up_exps.weight", {s.hidden, s.ffn, s.experts});
    add_to_layer("ffn_down_exps.weight", {s.ffn, s.hidden, s.experts});
    if (is("gpt-oss")) {
      add_to_layer("ffn_gate_exps.bias", {s.ffn, s.experts});
      add_to_layer("ffn_up_exps.bias", {s.ffn, s.experts});
      add_to_layer("ffn_down_exps.bias", {s.hidden, s.experts});
    }
    if (s.more_experts > 0) add_feed_forward("_shexp", s.ffn * s.more_experts);
  }

  const memory::Shape& shape_;
  gguf_context_ptr file_{gguf_init_empty()};
  // For the tensors' names, types and shapes alone.
  ggml_context_ptr tensors_{
      ggml_init({.mem_size = 16 << 20, .mem_buffer = nullptr, .no_alloc = true})};
  std::uint64_t layer_ = 0;
  std::uint64_t data_ = 0;
};

}  // namespace ollama::engine

// DeepSeek V2 and V3: keys and values of all heads come from one compressed row a token, which is
// all that is cached; experts are chosen by sigmoid gates with a selection bias. Source:
// DeepSeek-AI 2024. The up-projections of keys and values are absorbed into queries and outputs.
#include <cmath>

#include "model/arch/architectures.h"
#include "model/decoder.h"

namespace ollama::model {
namespace {

struct Layer {
  nn::RmsNorm attention_norm;
  nn::Linear q_a, q_b;  // q_b alone where queries are not compressed
  nn::RmsNorm q_a_norm;
  nn::Linear kv_a;
  nn::RmsNorm kv_a_norm;
  Tensor k_b;  // [nope, rank, heads]
  Tensor v_b;  // [rank, head_dim_v, heads]
  nn::Linear output;
  nn::Rope rope;
  nn::RmsNorm feed_forward_norm;
  nn::FeedForward feed_forward;
};

struct Sizes {
  std::int64_t q_rank = 0;  // 0: queries are not compressed
  std::int64_t kv_rank = 0;
  std::int64_t head_k = 0;  // of a head before compression, rotated part included
  std::int64_t head_v = 0;
  std::int64_t dense_layers = 0;
  std::int64_t shared_experts = 0;
  std::int64_t gating = 0;
};

class Deepseek2 final : public Decoder {
 public:
  Deepseek2(const gguf::File& file, Config config, const Sizes& sizes, Binder& binder)
      : Decoder(std::move(config), binder), sizes_(sizes) {
    const Config& c = config_;
    const std::int64_t width = c.embedding_length;
    const std::int64_t rotated = c.rope.dimensions;
    for (std::int64_t i = 0; i < c.layers; ++i) {
      const auto name = [i](std::string_view part) { return layer_name(i, part); };
      Layer& layer = layers_.emplace_back();
      layer.attention_norm = binder.rms_norm(name("attn_norm"), width, c.norm_epsilon);
      const std::int64_t queries = c.heads * sizes.head_k;
      if (sizes.q_rank > 0) {
        layer.q_a = binder.linear(name("attn_q_a"), width, sizes.q_rank);
        layer.q_a_norm = binder.rms_norm(name("attn_q_a_norm"), sizes.q_rank, c.norm_epsilon);
        layer.q_b = binder.linear(name("attn_q_b"), sizes.q_rank, queries);
      } else {
        layer.q_b = binder.linear(name("attn_q"), width, queries);
      }
      layer.kv_a = binder.linear(name("attn_kv_a_mqa"), width, sizes.kv_rank + rotated);
      layer.kv_a_norm = binder.rms_norm(name("attn_kv_a_norm"), sizes.kv_rank, c.norm_epsilon);
      layer.k_b = binder.require(name("attn_k_b.weight"),
                                 {sizes.head_k - rotated, sizes.kv_rank, c.heads, 1});
      layer.v_b =
          binder.require(name("attn_v_b.weight"), {sizes.kv_rank, sizes.head_v, c.heads, 1});
      layer.output = binder.linear(name("attn_output"), c.heads * sizes.head_v, width);
      layer.rope = {.options = c.rope};
      layer.feed_forward_norm = binder.rms_norm(name("ffn_norm"), width, c.norm_epsilon);
      if (i < sizes.dense_layers) {
        layer.feed_forward.mlp = bind_mlp(binder, i, c.feed_forward_length);
      } else {
        layer.feed_forward.moe = bind_experts(file, binder, i);
      }
    }
  }

  std::vector<kvcache::LayerSpec> cache_layers() const override {
    return std::vector<kvcache::LayerSpec>(
        static_cast<std::size_t>(config_.layers),
        {.head_dim_k = static_cast<std::int32_t>(sizes_.kv_rank + config_.rope.dimensions),
         .head_dim_v = static_cast<std::int32_t>(sizes_.kv_rank),
         .kv_heads = 1,
         .values_in_keys = true});
  }

 protected:
  Result<Tensor> block(Step& step, int index, Tensor x) const override {
    ml::Context& ctx = step.ctx;
    const Layer& layer = layers_[static_cast<std::size_t>(index)];
    const Tensor h = ctx.named(layer.attention_norm.forward(ctx, x), "attn_norm", index);
    OLLAMA_ASSIGN(Tensor attended, latent_attention(step, index, h));
    keep_wanted(step, index, x, attended);
    x = ctx.add(x, attended);
    const Tensor f = ctx.named(layer.feed_forward_norm.forward(ctx, x), "ffn_norm", index);
    return ctx.add(x, layer.feed_forward.forward(ctx, f));
  }

 private:
  nn::Moe bind_experts(const gguf::File& file, Binder& binder, std::int64_t i) const {
    const Config& c = config_;
    nn::Moe moe = bind_moe(binder, i, c.experts, c.experts_used, c.expert_feed_forward_length);
    moe.selection_bias = binder.optional(layer_name(i, "exp_probs_b.bias"), {c.experts, 1, 1, 1});
    moe.gating = sizes_.gating == 2 ? nn::Moe::Gating::kSigmoid : nn::Moe::Gating::kSoftmax;
    moe.normalize = file.boolean(".expert_weights_norm").value_or(false);
    moe.scale = file.f32(".expert_weights_scale").value_or(1.0F);
    if (sizes_.shared_experts > 0) {
      const std::int64_t inside = sizes_.shared_experts * c.expert_feed_forward_length;
      const std::int64_t width = c.embedding_length;
      moe.shared = {.gate = binder.linear(layer_name(i, "ffn_gate_shexp"), width, inside),
                    .up = binder.linear(layer_name(i, "ffn_up_shexp"), width, inside),
                    .down = binder.linear(layer_name(i, "ffn_down_shexp"), inside, width)};
    }
    return moe;
  }

  Result<Tensor> latent_attention(Step& step, int index, Tensor x) const {
    ml::Context& ctx = step.ctx;
    const Layer& layer = layers_[static_cast<std::size_t>(index)];
    const std::int64_t heads = config_.heads;
    const std::int64_t rotated = config_.rope.dimensions;
    const std::int64_t plain = sizes_.head_k - rotated;
    const std::int64_t tokens = x.dim(1);

    Tensor q = x;
    if (sizes_.q_rank > 0) q = layer.q_a_norm.forward(ctx, layer.q_a.forward(ctx, q));
    q = nn::split_heads(ctx, layer.q_b.forward(ctx, q), sizes_.head_k, heads);
    const Tensor q_rotated =
        layer.rope.forward(ctx, ctx.contiguous(ctx.slice(q, 0, plain, rotated)), step.positions);
    // Each head's plain part goes into the compressed space: [rank, heads, tokens].
    const Tensor q_plain = ctx.permute(ctx.slice(q, 0, 0, plain), {0, 2, 1, 3});
    const Tensor absorbed =
        ctx.contiguous(ctx.permute(ctx.mul_mat(layer.k_b, ctx.contiguous(q_plain)), {0, 2, 1, 3}));
    q = ctx.concat(absorbed, q_rotated, 0);

    const Tensor kv = layer.kv_a.forward(ctx, x);
    const Tensor compressed =
        layer.kv_a_norm.forward(ctx, ctx.contiguous(ctx.slice(kv, 0, 0, sizes_.kv_rank)));
    const Tensor k_rotated =
        layer.rope.forward(ctx,
                           ctx.reshape(ctx.contiguous(ctx.slice(kv, 0, sizes_.kv_rank, rotated)),
                                       {rotated, 1, tokens, 1}),
                           step.positions);
    const Tensor k =
        ctx.concat(ctx.reshape(compressed, {sizes_.kv_rank, 1, tokens, 1}), k_rotated, 0);

    const auto cached = step.cache->update(ctx, step.cache_inputs, index, k, {});
    OLLAMA_ASSIGN(Tensor attended, nn::attention(ctx, step.attention, q, cached,
                                                 {.scale = config_.attention_scale}));
    // Out of the compressed space: [rank, tokens, heads] to [head_v * heads, tokens].
    attended = ctx.permute(ctx.reshape(attended, {sizes_.kv_rank, heads, tokens, 1}), {0, 2, 1, 3});
    attended = ctx.mul_mat(layer.v_b, ctx.contiguous(attended));
    attended = ctx.contiguous(ctx.permute(attended, {0, 2, 1, 3}));
    return layer.output.forward(ctx, ctx.reshape(attended, {sizes_.head_v * heads, tokens, 1, 1}));
  }

  Sizes sizes_;
  std::vector<Layer> layers_;
};

}  // namespace

Result<std::unique_ptr<Model>> new_deepseek2(const gguf::File& file, Config config,
                                             Binder& binder) {
  constexpr std::int64_t kMax = 1 << 16;
  Sizes s;
  OLLAMA_ASSIGN(s.q_rank, read_bounded(file, ".attention.q_lora_rank", 0, 0, kMax));
  OLLAMA_ASSIGN(s.kv_rank, read_bounded(file, ".attention.kv_lora_rank", std::nullopt, 1, kMax));
  OLLAMA_ASSIGN(s.head_k, read_bounded(file, ".attention.key_length_mla", std::nullopt,
                                       config.rope.dimensions + 1, kMax));
  OLLAMA_ASSIGN(s.head_v, read_bounded(file, ".attention.value_length_mla", std::nullopt, 1, kMax));
  OLLAMA_ASSIGN(s.dense_layers,
                read_bounded(file, ".leading_dense_block_count", 0, 0, config.layers));
  OLLAMA_ASSIGN(s.shared_experts, read_bounded(file, ".expert_shared_count", 0, 0, kMax));
  OLLAMA_ASSIGN(s.gating, read_bounded(file, ".expert_gating_func", 1, 0, 3));
  config.attention_scale = 1.0F / std::sqrt(static_cast<float>(s.head_k));
  if (config.rope.extrapolation != 0.0F) {
    // YaRN's growth of the logits is applied to all of a head, not to its rotated part alone.
    const float growth = -std::log(config.rope.scale);
    const float per_growth = file.f32(".rope.scaling.yarn_log_multiplier").value_or(0.0F);
    const float magnitude = config.rope.attention_factor * (1.0F + per_growth * growth);
    config.attention_scale *= magnitude * magnitude;
    config.rope.attention_factor = 1.0F / (1.0F + 0.1F * growth);
  }
  return std::make_unique<Deepseek2>(file, std::move(config), s, binder);
}

}  // namespace ollama::model

// Phi 3 and 4: Llama's block with one matrix for queries, keys and values and one for gate and up;
// long contexts rotate by factors of their own. Source: Abdin et al. 2024 (LongRoPE: Ding et al.
// 2024).
#include "model/arch/architectures.h"
#include "model/decoder.h"

namespace ollama::model {
namespace {

struct Layer {
  nn::RmsNorm attention_norm;
  nn::Linear qkv;
  nn::SelfAttention attention;  // without projections of its own for q, k and v
  nn::RmsNorm feed_forward_norm;
  nn::FusedMlp mlp;
};

class Phi3 final : public Decoder {
 public:
  Phi3(Config config, Binder& binder) : Decoder(std::move(config), binder) {
    const Config& c = config_;
    const std::int64_t width = c.embedding_length;
    const ml::Shape factor_shape{c.rope.dimensions / 2, 1, 1, 1};
    const bool is_long = c.context_length > c.rope.original_context;
    const Tensor factors = binder.optional(
        is_long ? "rope_factors_long.weight" : "rope_factors_short.weight", factor_shape);
    for (std::int64_t i = 0; i < c.layers; ++i) {
      const auto name = [i](std::string_view part) { return layer_name(i, part); };
      Layer& layer = layers_.emplace_back();
      layer.attention_norm = binder.rms_norm(name("attn_norm"), width, c.norm_epsilon);
      layer.qkv =
          binder.linear(name("attn_qkv"), width,
                        c.heads * c.head_dim_k + c.kv_heads * (c.head_dim_k + c.head_dim_v));
      layer.attention = {
          .heads = c.heads,
          .kv_heads = c.kv_heads,
          .head_dim_k = c.head_dim_k,
          .head_dim_v = c.head_dim_v,
          .output = binder.linear(name("attn_output"), c.heads * c.head_dim_v, width),
          .rope = {.options = c.rope, .factors = factors},
          .options = {.scale = c.attention_scale}};
      layer.attention.rope.options.neox = true;
      layer.feed_forward_norm = binder.rms_norm(name("ffn_norm"), width, c.norm_epsilon);
      layer.mlp.gate_up = binder.linear(name("ffn_up"), width, 2 * c.feed_forward_length);
      layer.mlp.down = binder.linear(name("ffn_down"), c.feed_forward_length, width);
    }
  }

  const nn::SelfAttention* attention(int layer) const override {
    return &layers_[static_cast<std::size_t>(layer)].attention;
  }

 protected:
  Result<Tensor> block(Step& step, int index, Tensor x) const override {
    ml::Context& ctx = step.ctx;
    const Config& c = config_;
    const Layer& layer = layers_[static_cast<std::size_t>(index)];
    const Tensor h = ctx.named(layer.attention_norm.forward(ctx, x), "attn_norm", index);
    const Tensor qkv = layer.qkv.forward(ctx, h);
    std::int64_t start = 0;
    const auto part = [&](std::int64_t length) {
      const Tensor view = ctx.slice(qkv, 0, start, length);
      start += length;
      return ctx.contiguous(view);
    };
    const Tensor q = part(c.heads * c.head_dim_k);
    const Tensor k = part(c.kv_heads * c.head_dim_k);
    const Tensor v = part(c.kv_heads * c.head_dim_v);
    OLLAMA_ASSIGN(Tensor attended, layer.attention.attend(step, index, q, k, v));
    keep_wanted(step, index, x, attended);
    x = ctx.add(x, attended);
    const Tensor f = ctx.named(layer.feed_forward_norm.forward(ctx, x), "ffn_norm", index);
    return ctx.add(x, layer.mlp.forward(ctx, f));
  }

 private:
  std::vector<Layer> layers_;
};

}  // namespace

Result<std::unique_ptr<Model>> new_phi3(const gguf::File& /*file*/, Config config, Binder& binder) {
  return std::make_unique<Phi3>(std::move(config), binder);
}

}  // namespace ollama::model

// Llama and its relatives: pre-normalised blocks of grouped-query attention with rotary positions
// and a gated feed-forward network. Source: Touvron et al. 2023; Llama 3's frequency factors come
// as the tensor rope_freqs.weight.
#include "model/arch/architectures.h"

namespace ollama::model {
namespace {

using ml::Tensor;

struct Layer {
  nn::RmsNorm attention_norm;
  nn::Linear q, k, v, output;
  nn::Rope rope;
  nn::RmsNorm feed_forward_norm;
  nn::Mlp mlp;
};

class Llama final : public Model {
 public:
  Llama(Config config, Binder& binder) : Model(std::move(config)) {
    const Config& c = config_;
    const std::int64_t width = c.embedding_length;
    embedding_ = binder.embedding("token_embd.weight", width, c.vocab_size);
    const Tensor factors = binder.optional("rope_freqs.weight", {c.rope.dimensions / 2, 1, 1, 1});
    for (std::int64_t i = 0; i < c.layers; ++i) {
      const auto name = [i](std::string_view part) { return layer_name(i, part); };
      Layer& layer = layers_.emplace_back();
      layer.attention_norm = binder.rms_norm(name("attn_norm"), width, c.norm_epsilon);
      layer.q = binder.linear(name("attn_q"), width, c.heads * c.head_dim_k);
      layer.k = binder.linear(name("attn_k"), width, c.kv_heads * c.head_dim_k);
      layer.v = binder.linear(name("attn_v"), width, c.kv_heads * c.head_dim_v);
      layer.output = binder.linear(name("attn_output"), c.heads * c.head_dim_v, width);
      layer.rope = {.options = c.rope, .factors = factors};
      layer.feed_forward_norm = binder.rms_norm(name("ffn_norm"), width, c.norm_epsilon);
      layer.mlp = {.gate = binder.linear(name("ffn_gate"), width, c.feed_forward_length),
                   .up = binder.linear(name("ffn_up"), width, c.feed_forward_length),
                   .down = binder.linear(name("ffn_down"), c.feed_forward_length, width)};
    }
    output_norm_ = binder.rms_norm("output_norm", width, c.norm_epsilon);
    output_ = binder.optional_linear("output", width, c.vocab_size);
    if (!output_.weight) output_.weight = embedding_.weight;
  }

  Result<Tensor> hidden_states(Step& step) const override {
    Tensor x = embedding_.forward(step.ctx, step.tokens);
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      OLLAMA_ASSIGN(x, block(step, static_cast<int>(i), x));
    }
    return output_norm_.forward(step.ctx, x);
  }

  Result<Tensor> forward(Step& step) const override {
    OLLAMA_ASSIGN(const Tensor x, hidden_states(step));
    return output_.forward(step.ctx, x);
  }

 private:
  Result<Tensor> block(Step& step, int index, Tensor x) const {
    ml::Context& ctx = step.ctx;
    const Layer& layer = layers_[static_cast<std::size_t>(index)];
    ctx.set_layer(index);

    Tensor h = ctx.named(layer.attention_norm.forward(ctx, x), "attn_norm", index);
    Tensor q = nn::split_heads(ctx, layer.q.forward(ctx, h), config_.head_dim_k, config_.heads);
    Tensor k = nn::split_heads(ctx, layer.k.forward(ctx, h), config_.head_dim_k, config_.kv_heads);
    Tensor v = nn::split_heads(ctx, layer.v.forward(ctx, h), config_.head_dim_v, config_.kv_heads);
    q = ctx.named(layer.rope.forward(ctx, q, step.positions), "q", index);
    k = ctx.named(layer.rope.forward(ctx, k, step.positions), "k", index);
    const auto kv = step.cache->update(ctx, step.cache_inputs, index, k, ctx.named(v, "v", index));
    OLLAMA_ASSIGN(Tensor attended,
                  nn::attention(ctx, step.attention, q, kv, {.scale = config_.attention_scale}));
    Tensor y = layer.output.forward(ctx, ctx.named(attended, "attn", index));
    // After the last attention only the wanted rows go on.
    if (static_cast<std::size_t>(index) + 1 == layers_.size()) {
      y = ctx.get_rows(y, step.output_rows);
      x = ctx.get_rows(x, step.output_rows);
    }
    x = ctx.add(x, y);
    h = ctx.named(layer.feed_forward_norm.forward(ctx, x), "ffn_norm", index);
    return ctx.named(ctx.add(x, layer.mlp.forward(ctx, h)), "layer_out", index);
  }

  nn::Embedding embedding_;
  std::vector<Layer> layers_;
  nn::RmsNorm output_norm_;
  nn::Linear output_;
};

}  // namespace

Result<std::unique_ptr<Model>> new_llama(const gguf::File& /*file*/, Config config,
                                         Binder& binder) {
  return std::make_unique<Llama>(std::move(config), binder);
}

}  // namespace ollama::model

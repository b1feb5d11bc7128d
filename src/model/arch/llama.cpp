// Llama and its relatives: pre-normalised blocks of grouped-query attention with rotary positions
// and a gated feed-forward network, or a mixture of such (Mixtral). Source: Touvron et al. 2023;
// Llama 3's frequency factors come as the tensor rope_freqs.weight. Granite scales embeddings,
// residuals and logits besides.
#include "model/arch/architectures.h"
#include "model/decoder.h"

namespace ollama::model {
namespace {

struct Layer {
  nn::RmsNorm attention_norm;
  nn::SelfAttention attention;
  nn::RmsNorm feed_forward_norm;
  nn::FeedForward feed_forward;
};

class Llama final : public Decoder {
 public:
  Llama(const gguf::File& file, Config config, Binder& binder)
      : Decoder(std::move(config), binder),
        embedding_scale_(file.f32(".embedding_scale").value_or(1.0F)),
        residual_scale_(file.f32(".residual_scale").value_or(1.0F)),
        logit_scale_(file.f32(".logit_scale").value_or(1.0F)) {
    const Config& c = config_;
    const Tensor factors = binder.optional("rope_freqs.weight", {c.rope.dimensions / 2, 1, 1, 1});
    for (std::int64_t i = 0; i < c.layers; ++i) {
      const auto norm = [&](std::string_view part) {
        return binder.rms_norm(layer_name(i, part), c.embedding_length, c.norm_epsilon);
      };
      Layer& layer = layers_.emplace_back();
      layer.attention_norm = norm("attn_norm");
      layer.attention = bind_attention(binder, i);
      layer.attention.rope.factors = factors;
      layer.feed_forward_norm = norm("ffn_norm");
      if (c.experts == 0) {
        layer.feed_forward.mlp = bind_mlp(binder, i, c.feed_forward_length);
      } else {
        layer.feed_forward.moe =
            bind_moe(binder, i, c.experts, c.experts_used, c.feed_forward_length);
      }
    }
  }

  const nn::SelfAttention* attention(int layer) const override {
    return &layers_[static_cast<std::size_t>(layer)].attention;
  }

 protected:
  Tensor embed(Step& step) const override {
    return scaled(step, Decoder::embed(step), embedding_scale_);
  }

  Result<Tensor> block(Step& step, int index, Tensor x) const override {
    ml::Context& ctx = step.ctx;
    const Layer& layer = layers_[static_cast<std::size_t>(index)];
    const Tensor h = ctx.named(layer.attention_norm.forward(ctx, x), "attn_norm", index);
    OLLAMA_ASSIGN(Tensor attended, layer.attention.forward(step, index, h));
    keep_wanted(step, index, x, attended);
    x = ctx.add(x, scaled(step, attended, residual_scale_));
    const Tensor f = ctx.named(layer.feed_forward_norm.forward(ctx, x), "ffn_norm", index);
    const Tensor y = layer.feed_forward.forward(ctx, f);
    return ctx.add(x, scaled(step, y, residual_scale_));
  }

  Tensor finish_logits(Step& step, Tensor logits) const override {
    return scaled(step, logits, 1.0F / logit_scale_);
  }

 private:
  static Tensor scaled(Step& step, Tensor x, float factor) {
    return factor == 1.0F ? x : step.ctx.scale(x, factor);
  }

  std::vector<Layer> layers_;
  float embedding_scale_;
  float residual_scale_;
  float logit_scale_;
};

}  // namespace

Result<std::unique_ptr<Model>> new_llama(const gguf::File& file, Config config, Binder& binder) {
  return std::make_unique<Llama>(file, std::move(config), binder);
}

}  // namespace ollama::model

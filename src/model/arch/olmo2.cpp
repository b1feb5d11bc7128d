// OLMo 2: norms after each part of a block instead of before it, queries and keys normalised over
// all their heads at once. Source: OLMo Team 2025.
#include "model/arch/architectures.h"
#include "model/decoder.h"

namespace ollama::model {
namespace {

struct Layer {
  nn::SelfAttention attention;
  nn::RmsNorm post_attention_norm;
  nn::Mlp mlp;
  nn::RmsNorm post_feed_forward_norm;
};

class Olmo2 final : public Decoder {
 public:
  Olmo2(Config config, Binder& binder) : Decoder(std::move(config), binder) {
    const Config& c = config_;
    for (std::int64_t i = 0; i < c.layers; ++i) {
      const auto norm = [&](std::string_view part, std::int64_t width) {
        return binder.rms_norm(layer_name(i, part), width, c.norm_epsilon);
      };
      Layer& layer = layers_.emplace_back();
      layer.attention = bind_attention(binder, i);
      layer.attention.rope.options.neox = true;
      layer.attention.q_norm = norm("attn_q_norm", c.heads * c.head_dim_k);
      layer.attention.k_norm = norm("attn_k_norm", c.kv_heads * c.head_dim_k);
      layer.post_attention_norm = norm("post_attention_norm", c.embedding_length);
      layer.mlp = bind_mlp(binder, i, c.feed_forward_length);
      layer.post_feed_forward_norm = norm("post_ffw_norm", c.embedding_length);
    }
  }

  const nn::SelfAttention* attention(int layer) const override {
    return &layers_[static_cast<std::size_t>(layer)].attention;
  }

 protected:
  Result<Tensor> block(Step& step, int index, Tensor x) const override {
    ml::Context& ctx = step.ctx;
    const Layer& layer = layers_[static_cast<std::size_t>(index)];
    OLLAMA_ASSIGN(Tensor attended, layer.attention.forward(step, index, x));
    keep_wanted(step, index, x, attended);
    x = ctx.add(x, layer.post_attention_norm.forward(ctx, attended));
    return ctx.add(x, layer.post_feed_forward_norm.forward(ctx, layer.mlp.forward(ctx, x)));
  }

 private:
  std::vector<Layer> layers_;
};

}  // namespace

Result<std::unique_ptr<Model>> new_olmo2(const gguf::File& /*file*/, Config config,
                                         Binder& binder) {
  return std::make_unique<Olmo2>(std::move(config), binder);
}

}  // namespace ollama::model

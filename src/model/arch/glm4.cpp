// GLM-4: norms before and after each part of a block, rotation of half of each head, gate and up in
// one matrix. Source: GLM Team 2024.
#include "model/arch/architectures.h"
#include "model/decoder.h"

namespace ollama::model {
namespace {

struct Layer {
  nn::RmsNorm attention_norm, post_attention_norm;
  nn::SelfAttention attention;
  nn::RmsNorm feed_forward_norm, post_feed_forward_norm;
  nn::FusedMlp mlp;
};

class Glm4 final : public Decoder {
 public:
  Glm4(Config config, Binder& binder) : Decoder(std::move(config), binder) {
    const Config& c = config_;
    for (std::int64_t i = 0; i < c.layers; ++i) {
      const auto norm = [&](std::string_view part) {
        return binder.rms_norm(layer_name(i, part), c.embedding_length, c.norm_epsilon);
      };
      Layer& layer = layers_.emplace_back();
      layer.attention_norm = norm("attn_norm");
      layer.attention = bind_attention(binder, i);
      layer.post_attention_norm = norm("post_attention_norm");
      layer.feed_forward_norm = norm("ffn_norm");
      layer.mlp.gate_up =
          binder.linear(layer_name(i, "ffn_up"), c.embedding_length, 2 * c.feed_forward_length);
      layer.mlp.down =
          binder.linear(layer_name(i, "ffn_down"), c.feed_forward_length, c.embedding_length);
      layer.post_feed_forward_norm = norm("post_ffw_norm");
    }
  }

  const nn::SelfAttention* attention(int layer) const override {
    return &layers_[static_cast<std::size_t>(layer)].attention;
  }

 protected:
  Result<Tensor> block(Step& step, int index, Tensor x) const override {
    ml::Context& ctx = step.ctx;
    const Layer& layer = layers_[static_cast<std::size_t>(index)];
    const Tensor h = ctx.named(layer.attention_norm.forward(ctx, x), "attn_norm", index);
    OLLAMA_ASSIGN(Tensor attended, layer.attention.forward(step, index, h));
    keep_wanted(step, index, x, attended);
    x = ctx.add(x, layer.post_attention_norm.forward(ctx, attended));
    const Tensor f = ctx.named(layer.feed_forward_norm.forward(ctx, x), "ffn_norm", index);
    return ctx.add(x, layer.post_feed_forward_norm.forward(ctx, layer.mlp.forward(ctx, f)));
  }

 private:
  std::vector<Layer> layers_;
};

}  // namespace

Result<std::unique_ptr<Model>> new_glm4(const gguf::File& /*file*/, Config config, Binder& binder) {
  return std::make_unique<Glm4>(std::move(config), binder);
}

}  // namespace ollama::model

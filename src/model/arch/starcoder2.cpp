// StarCoder2: layer norms and biases throughout, a plain GELU network. Source: Lozhkov et al. 2024.
#include "model/arch/architectures.h"
#include "model/decoder.h"

namespace ollama::model {
namespace {

struct Layer {
  nn::LayerNorm attention_norm;
  nn::SelfAttention attention;
  nn::LayerNorm feed_forward_norm;
  nn::Mlp mlp;
};

class Starcoder2 final : public Decoder {
 public:
  Starcoder2(Config config, Binder& binder) : Decoder(std::move(config), binder, FinalNorm::kOwn) {
    const Config& c = config_;
    const std::int64_t width = c.embedding_length;
    for (std::int64_t i = 0; i < c.layers; ++i) {
      Layer& layer = layers_.emplace_back();
      layer.attention_norm = binder.layer_norm(layer_name(i, "attn_norm"), width, c.norm_epsilon);
      layer.attention = bind_attention(binder, i);
      layer.attention.rope.options.neox = true;
      layer.feed_forward_norm = binder.layer_norm(layer_name(i, "ffn_norm"), width, c.norm_epsilon);
      layer.mlp = {.up = binder.linear(layer_name(i, "ffn_up"), width, c.feed_forward_length),
                   .down = binder.linear(layer_name(i, "ffn_down"), c.feed_forward_length, width),
                   .activation = ml::Activation::kGelu};
    }
    final_ = binder.layer_norm("output_norm", width, c.norm_epsilon);
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
    x = ctx.add(x, attended);
    const Tensor f = ctx.named(layer.feed_forward_norm.forward(ctx, x), "ffn_norm", index);
    return ctx.add(x, layer.mlp.forward(ctx, f));
  }

  Tensor final_norm(Step& step, Tensor x) const override { return final_.forward(step.ctx, x); }

 private:
  std::vector<Layer> layers_;
  nn::LayerNorm final_;
};

}  // namespace

Result<std::unique_ptr<Model>> new_starcoder2(const gguf::File& /*file*/, Config config,
                                              Binder& binder) {
  return std::make_unique<Starcoder2>(std::move(config), binder);
}

}  // namespace ollama::model

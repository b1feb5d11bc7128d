// Command R: attention and feed-forward network side by side on one layer norm without bias, tied
// and scaled output. Source: Cohere 2024.
#include "model/arch/architectures.h"
#include "model/decoder.h"

namespace ollama::model {
namespace {

struct Layer {
  nn::LayerNorm norm;
  nn::SelfAttention attention;
  nn::Mlp mlp;
};

class CommandR final : public Decoder {
 public:
  CommandR(const gguf::File& file, Config config, Binder& binder)
      : Decoder(std::move(config), binder, FinalNorm::kOwn),
        logit_scale_(file.f32(".logit_scale").value_or(1.0F)) {
    const Config& c = config_;
    const ml::Shape width{c.embedding_length, 1, 1, 1};
    for (std::int64_t i = 0; i < c.layers; ++i) {
      Layer& layer = layers_.emplace_back();
      layer.norm = {.weight = binder.require(layer_name(i, "attn_norm.weight"), width),
                    .epsilon = c.norm_epsilon};
      layer.attention = bind_attention(binder, i);
      layer.mlp = bind_mlp(binder, i, c.feed_forward_length);
    }
    final_ = {.weight = binder.require("output_norm.weight", width), .epsilon = c.norm_epsilon};
  }

  const nn::SelfAttention* attention(int layer) const override {
    return &layers_[static_cast<std::size_t>(layer)].attention;
  }

 protected:
  Result<Tensor> block(Step& step, int index, Tensor x) const override {
    ml::Context& ctx = step.ctx;
    const Layer& layer = layers_[static_cast<std::size_t>(index)];
    Tensor h = ctx.named(layer.norm.forward(ctx, x), "attn_norm", index);
    OLLAMA_ASSIGN(Tensor attended, layer.attention.forward(step, index, h));
    keep_wanted(step, index, x, attended);
    if (h.dim(1) != x.dim(1)) h = ctx.get_rows(h, step.output_rows);
    return ctx.add(ctx.add(x, attended), layer.mlp.forward(ctx, h));
  }

  Tensor final_norm(Step& step, Tensor x) const override { return final_.forward(step.ctx, x); }

  Tensor finish_logits(Step& step, Tensor logits) const override {
    return step.ctx.scale(logits, logit_scale_);
  }

 private:
  std::vector<Layer> layers_;
  nn::LayerNorm final_;
  float logit_scale_;
};

}  // namespace

Result<std::unique_ptr<Model>> new_command_r(const gguf::File& file, Config config,
                                             Binder& binder) {
  return std::make_unique<CommandR>(file, std::move(config), binder);
}

}  // namespace ollama::model

// Qwen 2, 2.5 and 3: Llama's block with biased projections (2) or normalised queries and keys (3),
// and a mixture of experts in every block (qwen3moe). Source: Yang et al. 2024 and 2025.
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

class Qwen final : public Decoder {
 public:
  Qwen(Config config, Binder& binder) : Decoder(std::move(config), binder) {
    const Config& c = config_;
    for (std::int64_t i = 0; i < c.layers; ++i) {
      const auto head_norm = [&](std::string_view part) {
        return binder.optional_rms_norm(layer_name(i, part), c.head_dim_k, c.norm_epsilon);
      };
      Layer& layer = layers_.emplace_back();
      layer.attention_norm =
          binder.rms_norm(layer_name(i, "attn_norm"), c.embedding_length, c.norm_epsilon);
      layer.attention = bind_attention(binder, i);
      layer.attention.rope.options.neox = true;
      layer.attention.q_norm = head_norm("attn_q_norm");
      layer.attention.k_norm = head_norm("attn_k_norm");
      layer.feed_forward_norm =
          binder.rms_norm(layer_name(i, "ffn_norm"), c.embedding_length, c.norm_epsilon);
      if (c.experts == 0) {
        layer.feed_forward.mlp = bind_mlp(binder, i, c.feed_forward_length);
      } else {
        layer.feed_forward.moe =
            bind_moe(binder, i, c.experts, c.experts_used, c.expert_feed_forward_length);
      }
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
    x = ctx.add(x, attended);
    const Tensor f = ctx.named(layer.feed_forward_norm.forward(ctx, x), "ffn_norm", index);
    return ctx.add(x, layer.feed_forward.forward(ctx, f));
  }

 private:
  std::vector<Layer> layers_;
};

}  // namespace

Result<std::unique_ptr<Model>> new_qwen(const gguf::File& /*file*/, Config config, Binder& binder) {
  return std::make_unique<Qwen>(std::move(config), binder);
}

}  // namespace ollama::model

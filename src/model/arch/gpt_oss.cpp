// gpt-oss: attention with a learned sink a head, every other layer windowed, and a mixture of
// biased experts with a clamped gate. Source: OpenAI 2025; YaRN comes from the metadata.
#include "model/arch/architectures.h"
#include "model/decoder.h"

namespace ollama::model {
namespace {

struct Layer {
  nn::RmsNorm attention_norm;
  nn::SelfAttention attention;
  nn::RmsNorm feed_forward_norm;
  nn::Moe moe;
};

class GptOss final : public Decoder {
 public:
  GptOss(Config config, Binder& binder) : Decoder(std::move(config), binder) {
    const Config& c = config_;
    for (std::int64_t i = 0; i < c.layers; ++i) {
      const auto norm = [&](std::string_view part) {
        return binder.rms_norm(layer_name(i, part), c.embedding_length, c.norm_epsilon);
      };
      Layer& layer = layers_.emplace_back();
      layer.attention_norm = norm("attn_norm");
      layer.attention = bind_attention(binder, i);
      layer.attention.rope.options.neox = true;
      layer.attention.options.sinks =
          binder.optional(layer_name(i, "attn_sinks.weight"), {c.heads, 1, 1, 1});
      layer.feed_forward_norm = norm("post_attention_norm");
      layer.moe = bind_moe(binder, i, c.experts, c.experts_used, c.expert_feed_forward_length);
      layer.moe.gating = nn::Moe::Gating::kSoftmaxOfChosen;
      layer.moe.oai = true;
    }
  }

  std::vector<kvcache::LayerSpec> cache_layers() const override {
    std::vector<kvcache::LayerSpec> specs = Model::cache_layers();
    for (std::size_t i = 0; i < specs.size(); i += 2) {
      specs[i].window = static_cast<std::int32_t>(config_.sliding_window);
    }
    return specs;
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
    return ctx.add(x, layer.moe.forward(ctx, f));
  }

 private:
  std::vector<Layer> layers_;
};

}  // namespace

Result<std::unique_ptr<Model>> new_gpt_oss(const gguf::File& /*file*/, Config config,
                                           Binder& binder) {
  if (config.experts == 0) return fail(ErrorCode::kCorrupt, "gpt-oss.expert_count is missing");
  return std::make_unique<GptOss>(std::move(config), binder);
}

}  // namespace ollama::model

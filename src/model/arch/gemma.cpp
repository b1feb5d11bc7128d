// Gemma 2 and 3: norms before and after each part of a block, scaled embeddings, most layers see a
// sliding window only. Gemma 2 caps attention and output logits; Gemma 3 normalises queries and
// keys and rotates windowed layers by a base of their own. Source: Gemma Team 2024 and 2025.
#include <cmath>

#include "model/arch/architectures.h"
#include "model/decoder.h"

namespace ollama::model {
namespace {

struct Variant {
  int window_period;        // every n-th layer sees everything
  bool window_base;         // windowed layers rotate by a base of their own
  std::int64_t big_layers;  // the size whose queries are scaled by width / heads instead
};
constexpr Variant kGemma2{.window_period = 2, .window_base = false, .big_layers = 46};
constexpr Variant kGemma3{.window_period = 6, .window_base = true, .big_layers = 62};

struct Layer {
  nn::RmsNorm attention_norm, post_attention_norm;
  nn::SelfAttention attention;
  nn::RmsNorm feed_forward_norm, post_feed_forward_norm;
  nn::Mlp mlp;
};

class Gemma final : public Decoder {
 public:
  Gemma(const gguf::File& file, Config config, Binder& binder, Variant variant)
      : Decoder(std::move(config), binder),
        variant_(variant),
        output_cap_(file.f32(".final_logit_softcapping").value_or(0.0F)) {
    const Config& c = config_;
    const float attention_cap = file.f32(".attn_logit_softcapping").value_or(0.0F);
    const float window_base = file.f32(".rope.freq_base_swa").value_or(10000.0F);
    for (std::int64_t i = 0; i < c.layers; ++i) {
      const auto norm = [&](std::string_view part) {
        return binder.rms_norm(layer_name(i, part), c.embedding_length, c.norm_epsilon);
      };
      const auto head_norm = [&](std::string_view part) {
        return binder.optional_rms_norm(layer_name(i, part), c.head_dim_k, c.norm_epsilon);
      };
      Layer& layer = layers_.emplace_back();
      layer.attention_norm = norm("attn_norm");
      layer.attention = bind_attention(binder, i);
      layer.attention.q_norm = head_norm("attn_q_norm");
      layer.attention.k_norm = head_norm("attn_k_norm");
      layer.attention.rope.options.neox = true;
      if (variant_.window_base && is_windowed(i)) {
        layer.attention.rope.options.base = window_base;
        layer.attention.rope.options.scale = 1.0F;
      }
      layer.attention.options.soft_cap = attention_cap;
      if (c.layers == variant_.big_layers) {
        const std::int64_t share = c.embedding_length / c.heads;  // not the size of a head
        layer.attention.options.scale = 1.0F / std::sqrt(static_cast<float>(share));
      }
      layer.post_attention_norm = norm("post_attention_norm");
      layer.feed_forward_norm = norm("ffn_norm");
      layer.mlp = bind_mlp(binder, i, c.feed_forward_length);
      layer.mlp.activation = ml::Activation::kGelu;
      layer.post_feed_forward_norm = norm("post_ffw_norm");
    }
  }

  std::vector<kvcache::LayerSpec> cache_layers() const override {
    std::vector<kvcache::LayerSpec> specs = Model::cache_layers();
    for (std::size_t i = 0; i < specs.size(); ++i) {
      if (is_windowed(static_cast<std::int64_t>(i))) {
        specs[i].window = static_cast<std::int32_t>(config_.sliding_window);
      }
    }
    return specs;
  }

  const nn::SelfAttention* attention(int layer) const override {
    return &layers_[static_cast<std::size_t>(layer)].attention;
  }

 protected:
  Tensor embed(Step& step) const override {
    return step.ctx.scale(Decoder::embed(step),
                          std::sqrt(static_cast<float>(config_.embedding_length)));
  }

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

  Tensor finish_logits(Step& step, Tensor logits) const override {
    return output_cap_ > 0.0F ? nn::soft_capped(step.ctx, logits, 1.0F, output_cap_) : logits;
  }

 private:
  bool is_windowed(std::int64_t layer) const {
    return config_.sliding_window > 0 &&
           layer % variant_.window_period < variant_.window_period - 1;
  }

  Variant variant_;
  std::vector<Layer> layers_;
  float output_cap_;
};

}  // namespace

Result<std::unique_ptr<Model>> new_gemma2(const gguf::File& file, Config config, Binder& binder) {
  return std::make_unique<Gemma>(file, std::move(config), binder, kGemma2);
}
Result<std::unique_ptr<Model>> new_gemma3(const gguf::File& file, Config config, Binder& binder) {
  return std::make_unique<Gemma>(file, std::move(config), binder, kGemma3);
}

}  // namespace ollama::model

// BERT: an encoder. Every token sees all others, positions are learned, and norms come after each
// half of a block. Source: Devlin et al. 2018. A cross-encoder (Nogueira & Cho 2019) reads two
// texts at once, and a classifier scores the pair by the first token's state.
#include "model/arch/architectures.h"
#include "model/decoder.h"

namespace ollama::model {
namespace {

struct Layer {
  nn::SelfAttention attention;
  nn::LayerNorm attention_norm;
  nn::Mlp mlp;
  nn::LayerNorm output_norm;
};

// The dense layer has a tanh behind it; files have both layers, or either.
struct Classifier {
  nn::Linear dense;
  nn::Linear output;

  Classifier() = default;
  Classifier(Binder& binder, std::int64_t width) {
    const Tensor first = binder.find("cls.weight");
    const Tensor last = binder.find("cls.output.weight");
    if (first) dense = binder.linear("cls", width, last ? width : first.dim(1));
    if (last || !first) output = binder.linear("cls.output", width, last ? last.dim(1) : 1);
  }

  std::int64_t labels() const { return (output.weight ? output : dense).weight.dim(1); }

  Tensor forward(ml::Context& ctx, Tensor x) const {
    if (dense.weight) x = ctx.activate(dense.forward(ctx, x), ml::Activation::kTanh);
    return output.weight ? output.forward(ctx, x) : x;
  }
};

class Bert final : public Decoder {
 public:
  Bert(Config config, Binder& binder) : Decoder(std::move(config), binder, FinalNorm::kOwn) {
    const Config& c = config_;
    const std::int64_t width = c.embedding_length;
    positions_ = binder.embedding("position_embd.weight", width, c.context_length);
    // One row a segment. A text is one, the first; a pair has two, where there are two rows.
    if (const Tensor types = binder.find("token_types.weight")) {
      types_ = binder.require("token_types.weight", {width, types.dim(1), 1, 1});
    }
    embedding_norm_ = binder.layer_norm("token_embd_norm", width, c.norm_epsilon);
    for (std::int64_t i = 0; i < c.layers; ++i) {
      Layer& layer = layers_.emplace_back();
      layer.attention = bind_attention(binder, i);
      layer.attention.rope.options.dimensions = 0;
      layer.attention_norm =
          binder.layer_norm(layer_name(i, "attn_output_norm"), width, c.norm_epsilon);
      layer.mlp = {.up = binder.linear(layer_name(i, "ffn_up"), width, c.feed_forward_length),
                   .down = binder.linear(layer_name(i, "ffn_down"), c.feed_forward_length, width),
                   .activation = ml::Activation::kGelu};
      layer.output_norm =
          binder.layer_norm(layer_name(i, "layer_output_norm"), width, c.norm_epsilon);
    }
    if (ranks()) classifier_ = Classifier(binder, width);
  }

  Result<Tensor> forward(Step& step) const override {
    if (!ranks()) return Decoder::forward(step);
    OLLAMA_ASSIGN(const Tensor x, hidden_states(step));
    return step.ctx.named(classifier_.forward(step.ctx, x), "scores");
  }
  std::int64_t output_width() const override {
    return ranks() ? classifier_.labels() : Decoder::output_width();
  }
  bool reads_segments() const override { return ranks() && types_ && types_.dim(1) > 1; }

 protected:
  Tensor embed(Step& step) const override {
    ml::Context& ctx = step.ctx;
    Tensor x =
        ctx.add(embedding_.forward(ctx, step.tokens), positions_.forward(ctx, step.positions));
    if (step.segments) {
      x = ctx.add(x, ctx.get_rows(types_, step.segments));
    } else if (types_) {
      x = ctx.add(x, ctx.cast(ctx.slice(types_, 1, 0, 1), ml::DType::kF32));
    }
    return embedding_norm_.forward(ctx, x);
  }

  Result<Tensor> block(Step& step, int index, Tensor x) const override {
    ml::Context& ctx = step.ctx;
    const Layer& layer = layers_[static_cast<std::size_t>(index)];
    OLLAMA_ASSIGN(Tensor attended, layer.attention.forward(step, index, x));
    keep_wanted(step, index, x, attended);
    x = layer.attention_norm.forward(ctx, ctx.add(x, attended));
    return layer.output_norm.forward(ctx, ctx.add(x, layer.mlp.forward(ctx, x)));
  }

 private:
  bool ranks() const { return config_.pooling == Pooling::kRank; }

  nn::Embedding positions_;
  Tensor types_;
  nn::LayerNorm embedding_norm_;
  std::vector<Layer> layers_;
  Classifier classifier_;
};

}  // namespace

Result<std::unique_ptr<Model>> new_bert(const gguf::File& /*file*/, Config config, Binder& binder) {
  return std::make_unique<Bert>(std::move(config), binder);
}

}  // namespace ollama::model

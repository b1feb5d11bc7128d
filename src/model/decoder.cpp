#include "model/decoder.h"

namespace ollama::model {

Decoder::Decoder(Config config, Binder& binder, FinalNorm final_norm) : Model(std::move(config)) {
  const Config& c = config_;
  embedding_ = binder.embedding("token_embd.weight", c.embedding_length, c.vocab_size);
  if (final_norm == FinalNorm::kRms) {
    output_norm_ = binder.rms_norm("output_norm", c.embedding_length, c.norm_epsilon);
  }
  output_ = binder.optional_linear("output", c.embedding_length, c.vocab_size);
  if (!output_.weight) output_.weight = embedding_.weight;
}

Result<Tensor> Decoder::hidden_states(Step& step) const {
  Tensor x = embed(step);
  for (int i = 0; i < static_cast<int>(config_.layers); ++i) {
    step.ctx.set_layer(i);
    OLLAMA_ASSIGN(x, block(step, i, x));
    x = step.ctx.named(x, "layer_out", i);
  }
  step.ctx.set_layer(static_cast<int>(config_.layers));
  return step.ctx.named(final_norm(step, x), "output_norm", -1);
}

Result<Tensor> Decoder::forward(Step& step) const {
  OLLAMA_ASSIGN(const Tensor x, hidden_states(step));
  return finish_logits(step, output_.forward(step.ctx, x));
}

Tensor Decoder::embed(Step& step) const { return embedding_.forward(step.ctx, step.tokens); }

Tensor Decoder::final_norm(Step& step, Tensor x) const { return output_norm_.forward(step.ctx, x); }

Tensor Decoder::finish_logits(Step& /*step*/, Tensor logits) const { return logits; }

void Decoder::keep_wanted(Step& step, int layer, Tensor& x, Tensor& y) const {
  if (layer + 1 != static_cast<int>(config_.layers)) return;
  x = step.ctx.get_rows(x, step.output_rows);
  y = step.ctx.get_rows(y, step.output_rows);
}

nn::SelfAttention Decoder::bind_attention(Binder& binder, std::int64_t layer) const {
  const Config& c = config_;
  const auto name = [layer](std::string_view part) { return layer_name(layer, part); };
  return {.heads = c.heads,
          .kv_heads = c.kv_heads,
          .head_dim_k = c.head_dim_k,
          .head_dim_v = c.head_dim_v,
          .q = binder.linear(name("attn_q"), c.embedding_length, c.heads * c.head_dim_k),
          .k = binder.linear(name("attn_k"), c.embedding_length, c.kv_heads * c.head_dim_k),
          .v = binder.linear(name("attn_v"), c.embedding_length, c.kv_heads * c.head_dim_v),
          .output = binder.linear(name("attn_output"), c.heads * c.head_dim_v, c.embedding_length),
          .rope = {.options = c.rope},
          .options = {.scale = c.attention_scale}};
}

nn::Mlp Decoder::bind_mlp(Binder& binder, std::int64_t layer, std::int64_t inside) const {
  const std::int64_t width = config_.embedding_length;
  return {.gate = binder.linear(layer_name(layer, "ffn_gate"), width, inside),
          .up = binder.linear(layer_name(layer, "ffn_up"), width, inside),
          .down = binder.linear(layer_name(layer, "ffn_down"), inside, width)};
}

nn::Moe Decoder::bind_moe(Binder& binder, std::int64_t layer, std::int64_t experts,
                          std::int64_t used, std::int64_t inside) const {
  const std::int64_t width = config_.embedding_length;
  const auto name = [layer](std::string_view part) { return layer_name(layer, part); };
  return {.router = binder.linear(name("ffn_gate_inp"), width, experts),
          .gate = binder.require(name("ffn_gate_exps.weight"), {width, inside, experts, 1}),
          .up = binder.require(name("ffn_up_exps.weight"), {width, inside, experts, 1}),
          .down = binder.require(name("ffn_down_exps.weight"), {inside, width, experts, 1}),
          .gate_bias = binder.optional(name("ffn_gate_exps.bias"), {inside, experts, 1, 1}),
          .up_bias = binder.optional(name("ffn_up_exps.bias"), {inside, experts, 1, 1}),
          .down_bias = binder.optional(name("ffn_down_exps.bias"), {width, experts, 1, 1}),
          .used = used};
}

}  // namespace ollama::model

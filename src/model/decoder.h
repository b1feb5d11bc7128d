// What autoregressive transformers share: an embedding, a stack of blocks, a norm and an output
// matrix that may be the embedding's. An architecture defines its block, and whatever else it does
// differently.
#pragma once

#include "model/model.h"
#include "nn/moe.h"
#include "nn/self_attention.h"

namespace ollama::model {

using ml::Tensor;

class Decoder : public Model {
 public:
  Result<Tensor> hidden_states(Step& step) const override;
  Result<Tensor> forward(Step& step) const override;

 protected:
  enum class FinalNorm : std::uint8_t { kRms, kOwn };

  // Binds token_embd, output (tied where it is missing) and output_norm, an RMS norm; kOwn: an
  // architecture that overrides final_norm, or has none, sees to it itself.
  Decoder(Config config, Binder& binder, FinalNorm final_norm = FinalNorm::kRms);

  // Adds block `layer` to the graph: x [embedding_length, tokens]. The last block goes on with the
  // wanted rows only: see keep_wanted.
  virtual Result<Tensor> block(Step& step, int layer, Tensor x) const = 0;
  // The first block's input; the embedding unless overridden.
  virtual Tensor embed(Step& step) const;
  virtual Tensor final_norm(Step& step, Tensor x) const;
  // From the output matrix's result to logits (scaling, capping); nothing unless overridden.
  virtual Tensor finish_logits(Step& step, Tensor logits) const;

  // In the last block, cuts x and y down to the rows whose results are wanted.
  void keep_wanted(Step& step, int layer, Tensor& x, Tensor& y) const;

  // Heads, sizes, rope and projections "blk.LAYER.attn_{q,k,v,output}" as most models have them.
  nn::SelfAttention bind_attention(Binder& binder, std::int64_t layer) const;
  // "blk.LAYER.ffn_{gate,up,down}", of this width inside.
  nn::Mlp bind_mlp(Binder& binder, std::int64_t layer, std::int64_t inside) const;
  // "blk.LAYER.ffn_{gate_inp,gate_exps,up_exps,down_exps}", biases where the file has them.
  nn::Moe bind_moe(Binder& binder, std::int64_t layer, std::int64_t experts, std::int64_t used,
                   std::int64_t inside) const;

  nn::Embedding embedding_;
  nn::RmsNorm output_norm_;
  nn::Linear output_;
};

}  // namespace ollama::model

// A mixture of experts: a router picks a few feed-forward networks for each token and mixes what
// they give. Source: Shazeer et al. 2017; sigmoid gates with a selection bias: DeepSeek-V3, 2024.
#pragma once

#include "nn/layers.h"

namespace ollama::nn {

struct Moe {
  enum class Gating : std::uint8_t {
    kSoftmax,          // probabilities over all experts
    kSigmoid,          // each expert's own
    kSoftmaxOfChosen,  // softmax over the chosen experts' logits
  };

  Linear router;                         // [width, experts]
  Tensor selection_bias;                 // [experts]: added for the choice only; or none
  Tensor gate, up, down;                 // [in, out, experts]
  Tensor gate_bias, up_bias, down_bias;  // [out, experts], or none
  std::int64_t used = 0;                 // experts a token
  Gating gating = Gating::kSoftmax;
  bool normalize = true;  // the chosen weights sum to one
  float scale = 1.0F;     // of the weights
  bool oai = false;       // gpt-oss's clamped gate instead of silu
  Mlp shared;             // for every token; or none

  // x [width, tokens] to [width, tokens].
  Tensor forward(Context& ctx, Tensor x) const;

 private:
  Tensor weights(Context& ctx, Tensor logits, Tensor* chosen) const;
};

// The second half of a block: one network, or a mixture where the model has experts.
struct FeedForward {
  Mlp mlp;
  Moe moe;
  Tensor forward(Context& ctx, Tensor x) const {
    return moe.used > 0 ? moe.forward(ctx, x) : mlp.forward(ctx, x);
  }
};

}  // namespace ollama::nn

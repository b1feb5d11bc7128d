// One forward pass being built: the graph, the cache, and the inputs that every block reads.
#pragma once

#include <span>

#include "kvcache/cache.h"
#include "ml/context.h"
#include "nn/attention.h"

namespace ollama::nn {

struct Step {
  ml::Context& ctx;
  AttentionSupport& attention;
  const kvcache::Cache* cache = nullptr;  // none for models that see their whole input at once
  std::span<const kvcache::Inputs> cache_inputs;
  ml::Tensor tokens;       // i32 [tokens]
  ml::Tensor positions;    // i32 [tokens]
  ml::Tensor output_rows;  // i32 [outputs]: tokens whose results are wanted
  ml::Tensor mask;         // without a cache: [tokens, tokens], who sees whom
  ml::Tensor segments;     // i32 [tokens]: 0 or 1, which text of a pair; models that read it only
};

}  // namespace ollama::nn

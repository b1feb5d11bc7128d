// A request's options as a runner is told them.
#pragma once

#include "api/types.h"
#include "runner/protocol.h"

namespace ollama::runner {

// What is set in `options` replaces what `generate` has; its logit_bias has been checked
// (api::parse_logit_bias).
void apply_options(const api::Options& options, Generate& generate);
// The same of what is loaded, but for num_ctx and num_batch, whose bounds are the caller's. No more
// threads than the process may use: they would only wait for each other.
void apply_options(const api::Options& options, engine::LoadOptions& load);

}  // namespace ollama::runner

// What `ollama show MODEL` and `/show info` print.
#pragma once

#include <string>

#include "api/types.h"

namespace ollama::cmd {

// Boxes of a title and an indented table: Model, Capabilities, Projector, Parameters, System,
// License; verbose adds Metadata and Tensors.
std::string format_model(const api::ShowResponse& model, bool verbose);

// What `ollama show --plan MODEL` prints: a row a device, and what other settings would change.
std::string format_plan(const api::MemoryPlan& plan);

}  // namespace ollama::cmd

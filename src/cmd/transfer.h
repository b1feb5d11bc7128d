// Pulling a model, for `pull` and for a `run` of one that is not there.
#pragma once

#include <string>

#include "api/client.h"
#include "base/error.h"
#include "cmd/progress.h"

namespace ollama::cmd {

// Shows one line of a create's, pull's or push's progress. `verb` stands before a blob's digest
// where the server sent no words for it: "pulling 6a0746a1ec1a:".
void show_progress(Progress& progress, const api::ProgressResponse& response,
                   std::string_view verb);

Result<> pull_model(api::Client& client, const std::string& model, bool insecure);

}  // namespace ollama::cmd

// The architectures, one function each; the files beside this one define them.
#pragma once

#include <memory>

#include "model/model.h"

namespace ollama::model {

using NewModel = Result<std::unique_ptr<Model>> (*)(const gguf::File& file, Config config,
                                                    Binder& binder);

Result<std::unique_ptr<Model>> new_llama(const gguf::File& file, Config config, Binder& binder);

}  // namespace ollama::model

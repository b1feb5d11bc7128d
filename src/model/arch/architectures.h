// The architectures, one function each; the files beside this one define them.
#pragma once

#include <memory>

#include "model/model.h"

namespace ollama::model {

// Binds an architecture's tensors; the binder keeps what is missing or has another shape.
using NewModel = Result<std::unique_ptr<Model>> (*)(const gguf::File& file, Config config,
                                                    Binder& binder);

Result<std::unique_ptr<Model>> new_bert(const gguf::File& file, Config config, Binder& binder);
Result<std::unique_ptr<Model>> new_command_r(const gguf::File& file, Config config, Binder& binder);
Result<std::unique_ptr<Model>> new_deepseek2(const gguf::File& file, Config config, Binder& binder);
Result<std::unique_ptr<Model>> new_gemma2(const gguf::File& file, Config config, Binder& binder);
Result<std::unique_ptr<Model>> new_gemma3(const gguf::File& file, Config config, Binder& binder);
Result<std::unique_ptr<Model>> new_glm4(const gguf::File& file, Config config, Binder& binder);
Result<std::unique_ptr<Model>> new_gpt_oss(const gguf::File& file, Config config, Binder& binder);
Result<std::unique_ptr<Model>> new_llama(const gguf::File& file, Config config, Binder& binder);
Result<std::unique_ptr<Model>> new_olmo2(const gguf::File& file, Config config, Binder& binder);
Result<std::unique_ptr<Model>> new_phi3(const gguf::File& file, Config config, Binder& binder);
Result<std::unique_ptr<Model>> new_qwen(const gguf::File& file, Config config, Binder& binder);
Result<std::unique_ptr<Model>> new_starcoder2(const gguf::File& file, Config config,
                                              Binder& binder);

}  // namespace ollama::model

// Models that Ollama stored, with weights in its own dialects, answer as llama.cpp does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/draft.h"
#include "engine/fixture.h"
#include "store/fixture.h"
#include "store/store.h"

namespace ollama::server {
namespace {

namespace fs = std::filesystem;
using engine::fixture::Draft;
using store::fixture::message_of;
using store::fixture::OllamaFolder;

// gpt-oss as Ollama's own converter names its parts.
Draft gpt_oss() {
  Draft draft(engine::fixture::model("gpt-oss"));
  draft.set_architecture("gptoss");
  draft.rename_tensors("attn_output", "attn_out");
  draft.rename_tensors("attn_sinks.weight", "attn_sinks");
  draft.rename_tensors("post_attention_norm", "ffn_norm");
  draft.remove("gptoss.expert_feed_forward_length");
  draft.remove("gptoss.rope.scaling.type");
  return draft;
}
// gemma3 with the picture part in the same file, and what Ollama takes for granted left out.
Draft gemma3() {
  Draft draft(engine::fixture::model("gemma3"));
  draft.remove("gemma3.attention.layer_norm_rms_epsilon");
  draft.remove("gemma3.rope.freq_base");
  draft.add_tensors({"v.blk.0.attn_k.weight", "mm.mm_input_projection.weight"});
  return draft;
}

TEST(OllamaFolder, ItsModelsRun) {
  const fs::path folder = fs::path(testing::TempDir()) / std::format("ollama_run_{}", ::getpid());
  const OllamaFolder ollama(folder);
  const auto add = [&](std::string_view family, const Draft& draft) {
    fs::create_directories(folder);
    draft.write(folder / "draft.gguf");
    const std::string config =
        std::format(R"({{"model_format":"gguf","model_family":"{0}","model_families":["{0}"],)"
                    R"("model_type":"1M","file_type":"F32"}})",
                    family);
    const std::string manifest = OllamaFolder::manifest(
        ollama.layer(store::kConfigType, config),
        {ollama.layer(store::kModelLayer, store::fixture::read(folder / "draft.gguf")),
         ollama.layer(store::kTemplateLayer, "{{ .Prompt }}")});
    ollama.add(std::format("registry.ollama.ai/library/{}/latest", family), manifest);
    ollama.add_linked(std::format("ollama.com/library/{}-linked/latest", family), manifest);
  };
  add("gptoss", gpt_oss());
  add("gemma3", gemma3());

  const store::Store models({folder, {}, true});
  EXPECT_EQ(models.list()->models.size(), 4U);
  for (const auto& [name, fixture] : {std::pair("gptoss", "gpt-oss"),
                                      {"gptoss-linked", "gpt-oss"},
                                      {"gemma3", "gemma3"},
                                      {"gemma3-linked", "gemma3"}}) {
    SCOPED_TRACE(name);
    const auto model = models.resolve(name);
    ASSERT_TRUE(model) << message_of(model);
    EXPECT_TRUE(models.show({.model = name}));
    engine::fixture::expect_matches(model->weights, fixture, {.name = name});
  }
  fs::remove_all(folder);
}

}  // namespace
}  // namespace ollama::server

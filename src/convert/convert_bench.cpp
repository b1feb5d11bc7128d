// Converting a checkpoint of some size, per byte of weights, beside a plain copy of its file by the
// same calls. Files lie in the folder for temporary ones: what is measured is the copying, not the
// disk, where that is memory.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <filesystem>
#include <format>
#include <fstream>
#include <string>
#include <vector>

#include "convert/convert.h"

namespace {

using namespace ollama;
namespace fs = std::filesystem;

constexpr int kWidth = 2048, kInner = 5632, kHeads = 32, kKeyHeads = 8, kVocabulary = 4096;
constexpr int kLayers = 4;

// A Llama of random size with weights of zeros in bf16.
class LlamaCheckpoint {
 public:
  LlamaCheckpoint()
      : folder_(fs::temp_directory_path() / std::format("convert-bench-{}", ::getpid())) {
    fs::create_directory(folder_);
    write("config.json",
          std::format(R"({{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": {},
              "max_position_embeddings": 2048, "hidden_size": {}, "intermediate_size": {},
              "num_attention_heads": {}, "num_key_value_heads": {}, "rms_norm_eps": 1e-5,
              "tie_word_embeddings": true}})",
                      kLayers, kWidth, kInner, kHeads, kKeyHeads));
    write("vocab.txt", "a\nb\n");
    add("model.embed_tokens", {kVocabulary, kWidth});
    add("model.norm", {kWidth});
    for (int layer = 0; layer < kLayers; ++layer) {
      const auto part = [&](std::string_view name, std::vector<int> shape) {
        add(std::format("model.layers.{}.{}", layer, name), shape);
      };
      const int keys = kWidth / kHeads * kKeyHeads;
      part("self_attn.q_proj", {kWidth, kWidth});
      part("self_attn.k_proj", {keys, kWidth});
      part("self_attn.v_proj", {keys, kWidth});
      part("self_attn.o_proj", {kWidth, kWidth});
      part("mlp.gate_proj", {kInner, kWidth});
      part("mlp.up_proj", {kInner, kWidth});
      part("mlp.down_proj", {kWidth, kInner});
      part("input_layernorm", {kWidth});
      part("post_attention_layernorm", {kWidth});
    }
    header_ += "}";
    const std::uint64_t size = header_.size();
    write("model.safetensors", std::string(reinterpret_cast<const char*>(&size), sizeof size) +
                                   header_ + std::string(data_size_, '\0'));
  }
  LlamaCheckpoint(const LlamaCheckpoint&) = delete;
  LlamaCheckpoint& operator=(const LlamaCheckpoint&) = delete;
  ~LlamaCheckpoint() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  const fs::path& folder() const { return folder_; }
  std::size_t data_size() const { return data_size_; }

 private:
  void write(std::string_view name, std::string_view content) const {
    std::ofstream(folder_ / name, std::ios::binary) << content;
  }
  void add(std::string_view name, const std::vector<int>& shape) {
    std::size_t size = 2;
    std::string text;
    for (const int length : shape) {
      size *= static_cast<std::size_t>(length);
      text += (text.empty() ? "" : ",") + std::to_string(length);
    }
    header_ +=
        std::format(R"({}"{}.weight":{{"dtype":"BF16","shape":[{}],"data_offsets":[{},{}]}})",
                    header_.size() > 1 ? "," : "", name, text, data_size_, data_size_ + size);
    data_size_ += size;
  }

  fs::path folder_;
  std::string header_ = "{";
  std::size_t data_size_ = 0;
};

void convert_llama(benchmark::State& state) {
  const LlamaCheckpoint checkpoint;
  const fs::path output = checkpoint.folder() / "model.gguf";
  for (auto _ : state) {
    const auto result = convert::to_gguf(checkpoint.folder(), output);
    if (!result) return state.SkipWithError(std::string(result.error().message()));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(checkpoint.data_size()));
}
BENCHMARK(convert_llama)->Unit(benchmark::kMillisecond)->UseRealTime();

void copy_file(benchmark::State& state) {
  const LlamaCheckpoint checkpoint;
  const fs::path output = checkpoint.folder() / "copy";
  std::vector<char> piece(1U << 20);
  for (auto _ : state) {
    std::ifstream in(checkpoint.folder() / "model.safetensors", std::ios::binary);
    std::ofstream out(output, std::ios::binary);
    in.rdbuf()->pubsetbuf(nullptr, 0);
    out.rdbuf()->pubsetbuf(nullptr, 0);
    while (in.read(piece.data(), std::ssize(piece)) || in.gcount() > 0) {
      out.write(piece.data(), in.gcount());
    }
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(checkpoint.data_size()));
}
BENCHMARK(copy_file)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();

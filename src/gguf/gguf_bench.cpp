// Opening a model file: ours (values checked and converted) beside GGML's reader.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <filesystem>

#include "gguf/writer.h"

namespace {

using namespace ollama;

// A file with the metadata of a large vocabulary: 128,000 tokens, 256,000 merges.
class VocabularyFile {
 public:
  VocabularyFile()
      : path_(std::filesystem::temp_directory_path() / std::format("bench-{}.gguf", ::getpid())) {
    std::vector<std::string> tokens, merges;
    for (int i = 0; i < 128000; ++i) tokens.push_back(std::format("token{}", i * 7919 % 128000));
    for (int i = 0; i < 256000; ++i) merges.push_back(std::format("left{} right{}", i, i / 3));
    gguf::Writer writer;
    writer.set_strings("tokenizer.ggml.tokens", std::move(tokens));
    writer.set_strings("tokenizer.ggml.merges", std::move(merges));
    writer.set_i32s("tokenizer.ggml.token_type", std::vector<std::int32_t>(128000, 1));
    ok_ = writer.begin(path_) && writer.finish();
  }
  VocabularyFile(const VocabularyFile&) = delete;
  VocabularyFile& operator=(const VocabularyFile&) = delete;
  ~VocabularyFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  bool ok() const { return ok_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  bool ok_ = false;
};

void open_ours(benchmark::State& state) {
  const VocabularyFile vocabulary;
  if (!vocabulary.ok()) return state.SkipWithError("cannot write the file");
  for (auto _ : state) {
    auto file = gguf::File::open(vocabulary.path());
    if (!file) return state.SkipWithError("cannot open the file");
    benchmark::DoNotOptimize(file->metadata().size());
  }
}
BENCHMARK(open_ours)->Unit(benchmark::kMillisecond);

void open_ggml(benchmark::State& state) {
  const VocabularyFile vocabulary;
  if (!vocabulary.ok()) return state.SkipWithError("cannot write the file");
  for (auto _ : state) {
    gguf_context* file =
        gguf_init_from_file(vocabulary.path().c_str(), {.no_alloc = true, .ctx = nullptr});
    if (!file) return state.SkipWithError("cannot open the file");
    benchmark::DoNotOptimize(gguf_get_n_kv(file));
    gguf_free(file);
  }
}
BENCHMARK(open_ggml)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();

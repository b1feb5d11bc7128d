// Quantising: GGML's routine beside ours on blocks in memory, and a whole file, which is read,
// checked, written and synced, by one thread.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <random>

#include "convert/blocks.h"
#include "convert/quantise.h"
#include "gguf/writer.h"

namespace {

using namespace ollama;
namespace fs = std::filesystem;

constexpr std::int64_t kColumns = 2048;
constexpr std::int64_t kRows = 4096;
constexpr std::int64_t kWeights = kColumns * kRows;

std::vector<float> weights() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0F, 0.02F);
  std::vector<float> values(kWeights);
  for (float& value : values) value = normal(random);
  return values;
}

void ggml_alone(benchmark::State& state, std::string_view mix_name) {
  const auto type = gguf::find_quant_mix(mix_name)->type;
  const std::vector<float> values = weights();
  std::vector<std::byte> out(ggml_row_size(type, kWeights));
  for (auto _ : state) {
    ggml_quantize_chunk(type, values.data(), out.data(), 0, kRows, kColumns, nullptr);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * kWeights);
}

void our_blocks(benchmark::State& state, std::string_view mix_name) {
  const auto type = gguf::find_quant_mix(mix_name)->type;
  const std::vector<float> values = weights();
  std::vector<std::byte> out(ggml_row_size(type, kWeights));
  for (auto _ : state) {
    convert::quantise_blocks(type, values, out);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * kWeights);
}

void whole_file(benchmark::State& state, std::string_view mix_name) {
  const fs::path folder = fs::temp_directory_path() / std::format("bench-{}", ::getpid());
  fs::create_directories(folder);
  {
    gguf::Writer writer;
    writer.set_string("general.architecture", "llama");
    writer.set_u32("llama.block_count", 16);
    const std::array<std::int64_t, 2> shape = {kColumns, kRows};
    const auto index = writer.add_tensor("blk.5.attn_q.weight", GGML_TYPE_F16, shape);
    const std::vector<float> values = weights();
    std::vector<ggml_fp16_t> halves(kWeights);
    ggml_fp32_to_fp16_row(values.data(), halves.data(), kWeights);
    if (!index || !writer.begin(folder / "in.gguf") ||
        !writer.write(*index, 0, std::as_bytes(std::span(halves))) || !writer.finish())
      return state.SkipWithError("cannot write the file");
  }
  const auto source = gguf::File::open(folder / "in.gguf");
  for (auto _ : state) {
    if (!convert::quantise(*source, *gguf::find_quant_mix(mix_name), folder / "out.gguf", 1))
      return state.SkipWithError("cannot quantise");
  }
  state.SetItemsProcessed(state.iterations() * kWeights);
  fs::remove_all(folder);
}

#define QUANTISE_BENCH(mix)                                                \
  BENCHMARK_CAPTURE(ggml_alone, mix, #mix)->Unit(benchmark::kMillisecond); \
  BENCHMARK_CAPTURE(our_blocks, mix, #mix)->Unit(benchmark::kMillisecond); \
  BENCHMARK_CAPTURE(whole_file, mix, #mix)->Unit(benchmark::kMillisecond)->UseRealTime()

QUANTISE_BENCH(Q8_0);
QUANTISE_BENCH(Q4_K_M);
QUANTISE_BENCH(Q5_K_M);
QUANTISE_BENCH(Q6_K);

}  // namespace

BENCHMARK_MAIN();

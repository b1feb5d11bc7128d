#include "convert/quantise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <limits>
#include <random>

#include "base/units.h"
#include "gguf/synthetic.h"
#include "gguf/writer.h"

namespace ollama::convert {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class Quantise : public ::testing::Test {
 protected:
  Quantise() : folder_(fs::temp_directory_path() / std::format("quantise-{}", ::getpid())) {
    fs::create_directories(folder_);
  }
  ~Quantise() override { fs::remove_all(folder_); }

  fs::path path(std::string_view name) const { return folder_ / name; }
  std::size_t files() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  // The tiny Llama that `debug make-model` makes.
  gguf::File tiny(std::string_view type) const {
    const fs::path out = path(std::format("tiny-{}.gguf", type));
    EXPECT_TRUE(gguf::make_model({.shape = "tiny", .type = std::string(type), .out = out}));
    return gguf::File::open(out).value();
  }
  Result<> run(const gguf::File& source, std::string_view mix, std::uint32_t threads = 2,
               const Progress& progress = {}) const {
    return quantise(source, *gguf::find_quant_mix(mix), path("out.gguf"), threads, progress);
  }

 private:
  fs::path folder_;
};

// A model file of any tensors.
struct Maker {
  explicit Maker(std::uint64_t alignment = GGUF_DEFAULT_ALIGNMENT) : writer(alignment) {
    writer.set_string("general.architecture", "llama");
    writer.set_u32("llama.block_count", 4);
    writer.set_u32("general.file_type", 1);
  }
  void add(std::string_view name, ggml_type type, std::vector<std::int64_t> shape) {
    const auto index = writer.add_tensor(name, type, shape);
    ASSERT_TRUE(index) << index.error().message();
    std::size_t count = 1;
    for (const auto length : shape) count *= static_cast<std::size_t>(length);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random);
    data.emplace_back(writer.tensor_size(*index));
    if (type == GGML_TYPE_I32) return;
    ggml_quantize_chunk(type, values.data(), data.back().data(), 0,
                        static_cast<std::int64_t>(count) / shape[0], shape[0], nullptr);
  }
  gguf::File write(const fs::path& path) {
    EXPECT_TRUE(writer.begin(path));
    for (std::size_t i = 0; i < data.size(); ++i) EXPECT_TRUE(writer.write(i, 0, data[i]));
    EXPECT_TRUE(writer.finish());
    return gguf::File::open(path).value();
  }

  gguf::Writer writer;
  std::vector<std::vector<std::byte>> data;
  std::mt19937 random{1};
  std::normal_distribution<float> normal{0.0F, 0.02F};
};

// A tensor as the plainest use of GGML makes it: all of it at once, row by row, on one thread.
std::vector<std::byte> plainly(const gguf::File& file, const gguf::TensorInfo& tensor,
                               ggml_type type) {
  const auto bytes = file.data(tensor).value();
  if (type == tensor.type) return {bytes.begin(), bytes.end()};
  const auto count = static_cast<std::int64_t>(tensor.elements());
  std::vector<float> values(tensor.elements());
  if (tensor.type == GGML_TYPE_F32) {
    std::memcpy(values.data(), bytes.data(), bytes.size());
  } else {
    ggml_get_type_traits(tensor.type)->to_float(bytes.data(), values.data(), count);
  }
  std::vector<std::byte> out(ggml_row_size(type, tensor.shape[0]) * tensor.elements() /
                             static_cast<std::size_t>(tensor.shape[0]));
  ggml_quantize_chunk(type, values.data(), out.data(), 0, count / tensor.shape[0], tensor.shape[0],
                      nullptr);
  return out;
}

// Everything in `made` is what `mix` makes of `source`.
void expect_quantised(const gguf::File& source, std::string_view mix_name, const fs::path& made) {
  const gguf::QuantMix& mix = *gguf::find_quant_mix(mix_name);
  const auto file = gguf::File::open(made);
  ASSERT_TRUE(file) << file.error().message();
  auto expected = source.metadata();
  expected.insert_or_assign("general.file_type", std::int64_t{mix.file_type});
  expected.insert_or_assign("general.quantization_version", std::int64_t{2});
  EXPECT_EQ(file->metadata(), expected);
  for (const auto& [key, value] : source.metadata())
    EXPECT_EQ(file->value_type(key), source.value_type(key)) << key;
  ASSERT_EQ(file->tensors().size(), source.tensors().size());
  const gguf::MixModel model = gguf::mix_model_of(source);
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    const gguf::TensorInfo& from = source.tensors()[i];
    const gguf::TensorInfo& to = file->tensors()[i];
    const auto shape = std::span(from.shape).first(static_cast<std::size_t>(from.n_dims));
    const bool changes = gguf::is_quantisable(from.name, shape) && from.type != GGML_TYPE_MXFP4;
    EXPECT_EQ(to.name, from.name);
    EXPECT_EQ(to.shape, from.shape);
    EXPECT_EQ(to.n_dims, from.n_dims);
    ASSERT_EQ(to.type, changes ? choose_type(mix, model, from.name, shape) : from.type)
        << from.name;
    EXPECT_TRUE(std::ranges::equal(file->data(to).value(), plainly(source, from, to.type)))
        << from.name << " as " << ggml_type_name(to.type);
  }
}

TEST_F(Quantise, MakesOfEveryMixTheBytesThatGgmlMakesOnOneThread) {
  const gguf::File source = tiny("f32");
  for (const gguf::QuantMix& mix : gguf::quant_mixes()) {
    SCOPED_TRACE(mix.name);
    ASSERT_TRUE(run(source, mix.name));
    expect_quantised(source, mix.name, path("out.gguf"));
    EXPECT_EQ(gguf::file_type_name(gguf::File::open(path("out.gguf")).value()), mix.name);
  }
}

TEST_F(Quantise, ReadsHalfPrecisionOfBothKinds) {
  for (const std::string_view type : {"f16", "bf16"}) {
    SCOPED_TRACE(type);
    const gguf::File source = tiny(type);
    for (const std::string_view mix : {"Q4_K_M", "Q8_0", "F32", "F16", "BF16"}) {
      ASSERT_TRUE(run(source, mix));
      expect_quantised(source, mix, path("out.gguf"));
    }
  }
}

TEST_F(Quantise, NumberOfThreadsChangesNothing) {
  Maker maker;
  // Several pieces, the last of them short.
  maker.add("token_embd.weight", GGML_TYPE_F16, {512, 700});
  const gguf::File source = maker.write(path("in.gguf"));
  for (const std::uint32_t threads : {0U, 1U, 3U, 64U}) {
    ASSERT_TRUE(run(source, "Q4_K_M", threads));
    expect_quantised(source, "Q4_K_M", path("out.gguf"));
  }
}

TEST_F(Quantise, RowsThatFitNoBlocksFallBack) {
  Maker maker(64);
  maker.add("token_embd.weight", GGML_TYPE_F32, {96, 11});
  maker.add("output.weight", GGML_TYPE_F32, {96, 11});
  maker.add("blk.0.attn_q.weight", GGML_TYPE_F16, {96, 5});
  maker.add("blk.0.attn_k.weight", GGML_TYPE_F16, {40, 7});
  maker.add("blk.0.ffn_gate_exps.weight", GGML_TYPE_F16, {256, 3, 5});
  maker.add("blk.0.ffn_up.weight", GGML_TYPE_BF16, {1, 33});
  const gguf::File source = maker.write(path("in.gguf"));
  ASSERT_TRUE(run(source, "q4_k_m"));
  expect_quantised(source, "q4_k_m", path("out.gguf"));
  const auto made = gguf::File::open(path("out.gguf")).value();
  const auto type = [&](std::string_view name) { return made.find_tensor(name)->type; };
  EXPECT_EQ(type("token_embd.weight"), GGML_TYPE_Q5_0);
  EXPECT_EQ(type("output.weight"), GGML_TYPE_Q8_0);
  EXPECT_EQ(type("blk.0.attn_q.weight"), GGML_TYPE_Q5_0);
  EXPECT_EQ(type("blk.0.attn_k.weight"), GGML_TYPE_F16);
  EXPECT_EQ(type("blk.0.ffn_gate_exps.weight"), GGML_TYPE_Q4_K);
  EXPECT_EQ(type("blk.0.ffn_up.weight"), GGML_TYPE_BF16);  // a vector, whatever its shape says
}

TEST_F(Quantise, WhatIsNotQuantisedKeepsItsBytes) {
  Maker maker;
  maker.add("blk.0.attn_norm.weight", GGML_TYPE_F16, {256});
  maker.add("blk.0.ffn_gate_inp.weight", GGML_TYPE_F16, {256, 8});
  maker.add("blk.0.ffn_up.bias", GGML_TYPE_BF16, {256, 2});
  maker.add("v.patch_embd.weight", GGML_TYPE_F16, {256, 4});
  maker.add("mm.0.weight", GGML_TYPE_BF16, {256, 4});
  maker.add("position_embd.weight", GGML_TYPE_F16, {256, 4});
  maker.add("blk.0.ffn_up_exps.weight", GGML_TYPE_MXFP4, {256, 4, 2});
  maker.add("blk.0.table", GGML_TYPE_I32, {16, 2});
  maker.add("blk.0.attn_q.weight", GGML_TYPE_F16, {256, 4});
  const gguf::File source = maker.write(path("in.gguf"));
  ASSERT_TRUE(run(source, "Q4_0"));
  expect_quantised(source, "Q4_0", path("out.gguf"));
  const auto made = gguf::File::open(path("out.gguf")).value();
  for (const gguf::TensorInfo& tensor : source.tensors()) {
    const bool changes = tensor.name == "blk.0.attn_q.weight";
    EXPECT_EQ(made.find_tensor(tensor.name)->type == tensor.type, !changes) << tensor.name;
  }
}

TEST_F(Quantise, SourcesThatAreQuantisedAlreadyAreRefused) {
  const gguf::File source = tiny("q8_0");
  const auto result = run(source, "Q4_0");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(std::string(result.error().message()),
              HasSubstr("quantization is only supported for F16, BF16 and F32 models"));
  EXPECT_EQ(files(), 1U);
}

TEST_F(Quantise, OnePartOfSeveralIsRefused) {
  Maker maker;
  maker.writer.set("split.count", std::int64_t{3}, {.type = GGUF_TYPE_UINT16});
  maker.add("blk.0.attn_q.weight", GGML_TYPE_F16, {256, 4});
  const auto result = run(maker.write(path("in.gguf")), "Q4_0");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kUnsupported);
}

TEST_F(Quantise, WeightsThatAreNoNumbersAreNamed) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    Maker maker;
    maker.add("blk.0.attn_q.weight", GGML_TYPE_F32, {256, 4});
    maker.add("blk.1.attn_q.weight", GGML_TYPE_F32, {256, 4});
    std::memcpy(maker.data[1].data() + 4 * 777, &bad, sizeof bad);
    const auto result = run(maker.write(path("in.gguf")), "Q4_K_M");
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code(), ErrorCode::kCorrupt);
    EXPECT_THAT(std::string(result.error().message()), HasSubstr("blk.1.attn_q.weight"));
    EXPECT_EQ(files(), 1U) << "something partial is left";
  }
}

TEST_F(Quantise, WeightsBeyondTheTypesRangeAreNamed) {
  Maker maker;
  maker.add("blk.0.attn_q.weight", GGML_TYPE_F32, {256, 4});
  const float large = 1e30F;
  std::memcpy(maker.data[0].data() + 4 * 100, &large, sizeof large);
  const gguf::File source = maker.write(path("in.gguf"));
  for (const std::string_view mix : {"F16", "Q4_0", "Q4_K_M"}) {
    const auto result = run(source, mix);
    ASSERT_FALSE(result) << mix;
    EXPECT_THAT(std::string(result.error().message()), HasSubstr("too large for")) << mix;
  }
  EXPECT_TRUE(run(source, "BF16"));
}

TEST_F(Quantise, CancellingLeavesNothing) {
  const gguf::File source = tiny("f16");
  const auto result = run(source, "Q4_K_M", 2, [](std::uint64_t, std::uint64_t) { return false; });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kCancelled);
  EXPECT_EQ(files(), 1U);
}

TEST_F(Quantise, ProgressEndsWithEverything) {
  const gguf::File source = tiny("f16");
  std::uint64_t size = 0;
  for (const gguf::TensorInfo& tensor : source.tensors()) size += tensor.size;
  std::uint64_t last = 0;
  ASSERT_TRUE(run(source, "Q4_K_M", 2, [&](std::uint64_t done, std::uint64_t total) {
    EXPECT_GE(done, last);
    EXPECT_EQ(total, size);
    last = done;
    return true;
  }));
  EXPECT_EQ(last, size);
}

TEST_F(Quantise, NoRoomForTheFileIsAnError) {
  const gguf::File source = tiny("f16");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit little = before;
  little.rlim_cur = 100'000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &little), 0);
  const auto result = run(source, "Q8_0");
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kIo);
  EXPECT_EQ(files(), 1U);
}

TEST_F(Quantise, AFolderThatDoesNotExistIsAnError) {
  const gguf::File source = tiny("f16");
  const auto result = quantise(source, *gguf::find_quant_mix("Q8_0"), path("no/out.gguf"), 2);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kNotFound);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
std::uint64_t memory(std::string_view field) {
  std::ifstream status("/proc/self/status");
  std::string name;
  for (std::uint64_t value = 0; status >> name;) {
    if (name == field && status >> value) return value * kKiB;
  }
  return 0;
}

// With the source's mapped pages: what is read is let go.
TEST_F(Quantise, MemoryStaysSmallWhateverTheSize) {
  Maker maker;
  constexpr std::int64_t kRows = 16384;
  ASSERT_TRUE(maker.writer.add_tensor("token_embd.weight", GGML_TYPE_F16,
                                      std::array<std::int64_t, 2>{2048, kRows}));
  ASSERT_TRUE(maker.writer.begin(path("in.gguf")));
  const std::vector<std::byte> row(4096);
  for (std::uint64_t i = 0; i < kRows; ++i) ASSERT_TRUE(maker.writer.write(0, i * 4096, row));
  ASSERT_TRUE(maker.writer.finish());
  const gguf::File source = gguf::File::open(path("in.gguf")).value();
  ASSERT_GE(source.file_size(), 64 * kMiB);

  std::ofstream("/proc/self/clear_refs") << 5;  // the peak begins anew
  const std::uint64_t before = memory("VmHWM:");
  if (before == 0) GTEST_SKIP() << "the system does not tell";
  ASSERT_TRUE(run(source, "Q8_0"));
  EXPECT_LT(memory("VmHWM:") - before, 16 * kMiB);
}
#endif

}  // namespace
}  // namespace ollama::convert

#include "gguf/writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <set>

#include "gguf/quant_mix.h"
#include "gguf/synthetic.h"

namespace ollama::gguf {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A folder that goes away with the test.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "gguf_test_XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_))
      names.push_back(entry.path().filename());
    return names;
  }

 private:
  std::filesystem::path path_;
};

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

Result<std::size_t> add(Writer& writer, std::string_view name, ggml_type type,
                        std::vector<std::int64_t> shape) {
  return writer.add_tensor(name, type, shape);
}

// Fails when a model file that is read and written again loses a key, a type, or a byte of data.
TEST(Writer, CopiesAModelByteForByteInMeaning) {
  const Folder folder;
  const auto source = File::open(std::string(OLLAMA_TEST_DATA) + "/arch/llama.gguf");
  ASSERT_TRUE(source) << source.error().message();
  Writer writer;
  for (const auto& [key, value] : source->metadata())
    writer.set(key, value, *source->value_type(key));
  for (const TensorInfo& tensor : source->tensors())
    ASSERT_TRUE(add(writer, tensor.name, tensor.type,
                    {tensor.shape.begin(), tensor.shape.begin() + tensor.n_dims}));
  const auto path = folder / "copy.gguf";
  ASSERT_TRUE(writer.begin(path));
  // Any order will do.
  for (std::size_t i = source->tensors().size(); i-- > 0;)
    ASSERT_TRUE(writer.write(i, 0, *source->data(source->tensors()[i])));
  ASSERT_TRUE(writer.finish());
  EXPECT_THAT(folder.names(), ElementsAre("copy.gguf"));

  const auto copy = File::open(path);
  ASSERT_TRUE(copy) << copy.error().message();
  EXPECT_EQ(copy->metadata(), source->metadata());
  for (const auto& [key, value] : source->metadata())
    EXPECT_EQ(copy->value_type(key), source->value_type(key)) << key;
  ASSERT_EQ(copy->tensors().size(), source->tensors().size());
  for (const TensorInfo& tensor : source->tensors()) {
    const TensorInfo* other = copy->find_tensor(tensor.name);
    ASSERT_TRUE(other) << tensor.name;
    EXPECT_EQ(other->type, tensor.type);
    EXPECT_EQ(other->shape, tensor.shape);
    EXPECT_TRUE(std::ranges::equal(*copy->data(*other), *source->data(tensor))) << tensor.name;
  }
  gguf_context* ggml = gguf_init_from_file(path.c_str(), {.no_alloc = true, .ctx = nullptr});
  EXPECT_TRUE(ggml) << "GGML cannot read what we wrote";
  gguf_free(ggml);
}

// Fails when a value type or the alignment is written otherwise than it is read.
TEST(Writer, WritesEveryValueType) {
  const Folder folder;
  const std::vector<std::pair<gguf_type, Value>> values = {
      {GGUF_TYPE_UINT8, std::int64_t{255}},
      {GGUF_TYPE_INT8, std::int64_t{-128}},
      {GGUF_TYPE_UINT16, std::int64_t{65535}},
      {GGUF_TYPE_INT16, std::int64_t{-1}},
      {GGUF_TYPE_UINT32, std::int64_t{1} << 31},
      {GGUF_TYPE_INT32, std::int64_t{-7}},
      {GGUF_TYPE_UINT64, ~std::uint64_t{0}},
      {GGUF_TYPE_INT64, std::int64_t{INT64_MIN}},
      {GGUF_TYPE_FLOAT32, 0.5},
      {GGUF_TYPE_FLOAT64, 1e300},
      {GGUF_TYPE_BOOL, true},
      {GGUF_TYPE_STRING, std::string("a\0b", 3)}};
  Writer writer(64);
  writer.set_u32("gone", 1);
  for (const auto& [type, value] : values)
    writer.set(std::format("key.{}", static_cast<int>(type)), value, {.type = type});
  writer.set("bools", Array(std::vector<bool>{true, false}),
             {.type = GGUF_TYPE_ARRAY, .element = GGUF_TYPE_BOOL});
  writer.remove("gone");
  ASSERT_TRUE(add(writer, "a", GGML_TYPE_F32, {3}));
  ASSERT_TRUE(add(writer, "b", GGML_TYPE_F32, {1}));
  const auto path = folder / "m.gguf";
  ASSERT_TRUE(writer.begin(path));
  ASSERT_TRUE(writer.write(0, 0, std::vector<std::byte>(12)));
  ASSERT_TRUE(writer.write(1, 0, std::vector<std::byte>(4)));
  ASSERT_TRUE(writer.finish());
  const auto file = File::open(path);
  ASSERT_TRUE(file) << file.error().message();
  for (const auto& [type, value] : values) {
    const std::string key = std::format("key.{}", static_cast<int>(type));
    ASSERT_TRUE(file->find(key)) << key;
    EXPECT_EQ(*file->find(key), value) << key;
    EXPECT_EQ(file->value_type(key)->type, type);
  }
  EXPECT_EQ(file->bools("bools"), (std::vector<bool>{true, false}));
  EXPECT_EQ(file->find("gone"), nullptr);
  EXPECT_EQ(file->find_tensor("b")->offset % 64, 0U);
  EXPECT_EQ(file->find_tensor("b")->offset - file->find_tensor("a")->offset, 64U);
}

// Fails when an unfinished or failed file is left behind, under its name or another, or when it
// replaces the file that was there.
TEST(Writer, LeavesNothingBehindUntilItIsComplete) {
  const Folder folder;
  const auto path = folder / "m.gguf";
  {
    Writer writer;
    ASSERT_TRUE(add(writer, "w", GGML_TYPE_F32, {8}));
    ASSERT_TRUE(writer.begin(path));
    ASSERT_TRUE(writer.write(0, 0, std::vector<std::byte>(16)));
    EXPECT_FALSE(std::filesystem::exists(path));
    const auto finished = writer.finish();
    ASSERT_FALSE(finished);
    EXPECT_THAT(std::string(finished.error().message()), HasSubstr("16 of 32 bytes"));
  }
  EXPECT_THAT(folder.names(), IsEmpty());
}

TEST(Writer, RefusesWhatWouldNotBeReadBack) {
  const Folder folder;
  Writer writer;
  EXPECT_FALSE(add(writer, "", GGML_TYPE_F32, {1}));
  EXPECT_FALSE(add(writer, std::string(64, 'n'), GGML_TYPE_F32, {1}));
  EXPECT_FALSE(add(writer, "w", GGML_TYPE_F32, {}));
  EXPECT_FALSE(add(writer, "w", GGML_TYPE_F32, {1, 1, 1, 1, 1}));
  EXPECT_FALSE(add(writer, "w", GGML_TYPE_F32, {0}));
  EXPECT_FALSE(add(writer, "w", GGML_TYPE_Q4_K, {32}));
  EXPECT_FALSE(add(writer, "w", GGML_TYPE_COUNT, {32}));
  ASSERT_TRUE(add(writer, "w", GGML_TYPE_F32, {2}));
  const auto twice = add(writer, "w", GGML_TYPE_F32, {2});
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_FALSE(writer.write(0, 0, std::vector<std::byte>(8))) << "before begin()";
  writer.set("k", std::int64_t{256}, {.type = GGUF_TYPE_UINT8});
  const auto begun = writer.begin(folder / "m.gguf");
  ASSERT_FALSE(begun);
  EXPECT_THAT(std::string(begun.error().message()), HasSubstr("k: the value does not fit"));
  writer.remove("k");
  EXPECT_EQ(writer.begin(folder / "no/m.gguf").error().code(), ErrorCode::kNotFound);
  ASSERT_TRUE(writer.begin(folder / "m.gguf"));
  EXPECT_FALSE(writer.write(0, 4, std::vector<std::byte>(8))) << "beyond the tensor";
  EXPECT_FALSE(writer.write(0, ~0ULL, std::vector<std::byte>(8)));
  EXPECT_FALSE(writer.write(1, 0, std::vector<std::byte>(1)));
  EXPECT_FALSE(add(writer, "late", GGML_TYPE_F32, {2}));
}

// Fails when the mix of types differs from the one people know as Q4_K_M.
TEST(QuantMix, ChoosesTypesAsLlamaCppDoes) {
  const QuantMix* mix = find_quant_mix("q4_k_m");
  ASSERT_TRUE(mix);
  EXPECT_EQ(mix->file_type, 15U);
  EXPECT_EQ(find_quant_mix("Q4_K"), mix);
  EXPECT_EQ(find_quant_mix("q4_k_x"), nullptr);
  EXPECT_EQ(find_quant_mix(""), nullptr);
  MixModel model{.layers = 16, .heads_per_kv_head = 4, .tied_output = true};
  const auto type = [&](std::string_view tensor, std::int64_t columns = 2048) {
    return choose_type(*mix, model, tensor, std::array<std::int64_t, 2>{columns, 512});
  };
  std::vector<int> precise;
  for (int layer = 0; layer < 16; ++layer) {
    const auto v = type(std::format("blk.{}.attn_v.weight", layer));
    EXPECT_EQ(type(std::format("blk.{}.ffn_down.weight", layer)), v);
    EXPECT_EQ(type(std::format("blk.{}.attn_q.weight", layer)), GGML_TYPE_Q4_K);
    if (v == GGML_TYPE_Q6_K) precise.push_back(layer);
  }
  EXPECT_THAT(precise, ElementsAre(0, 1, 4, 7, 10, 13, 14, 15));
  EXPECT_EQ(type("token_embd.weight"), GGML_TYPE_Q6_K);
  EXPECT_EQ(type("blk.0.attn_v.weight", 64), GGML_TYPE_Q8_0) << "no whole number of blocks";
  EXPECT_EQ(type("blk.0.attn_q.weight", 64), GGML_TYPE_Q5_0);
  EXPECT_EQ(type("blk.0.attn_q.weight", 33), GGML_TYPE_F16);
  EXPECT_EQ(type("blk.0.attn_norm.weight"), GGML_TYPE_F32);
  model.tied_output = false;
  EXPECT_EQ(type("token_embd.weight"), GGML_TYPE_Q4_K);
  EXPECT_EQ(type("output.weight"), GGML_TYPE_Q6_K);
  mix = find_quant_mix("q8_0");
  EXPECT_EQ(type("output.weight"), GGML_TYPE_Q8_0);
  mix = find_quant_mix("BF16");
  EXPECT_EQ(type("output.weight"), GGML_TYPE_BF16);
  EXPECT_EQ(choose_type(*mix, model, "blk.0.attn_q.bias", std::array<std::int64_t, 1>{64}),
            GGML_TYPE_F32);
}

class Synthetic : public ::testing::TestWithParam<std::string> {};

// Fails when a random model of one of the types cannot be read, or its weights are not sane.
TEST_P(Synthetic, MakesReadableModels) {
  const Folder folder;
  const auto path = folder / "m.gguf";
  std::uint64_t last = 0, total = 0;
  const auto made = make_model({.shape = "tiny", .type = GetParam(), .out = path},
                               [&](std::uint64_t done, std::uint64_t all) {
                                 EXPECT_GE(done, last);
                                 last = done;
                                 total = all;
                               });
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_GT(total, 0U);
  EXPECT_EQ(last, total);
  const auto file = File::open(path);
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_EQ(file->architecture(), "llama");
  EXPECT_EQ(file_type_name(*file), find_quant_mix(GetParam())->name);
  EXPECT_EQ(file->strings("tokenizer.ggml.tokens").size(), 512U);
  const std::set<std::string> distinct(file->strings("tokenizer.ggml.tokens").begin(),
                                       file->strings("tokenizer.ggml.tokens").end());
  EXPECT_EQ(distinct.size(), 512U);
  EXPECT_EQ(file->f32s("tokenizer.ggml.scores").size(), 512U);
  std::set<std::string> contents;
  for (const TensorInfo& tensor : file->tensors()) {
    const auto data = *file->data(tensor);
    EXPECT_TRUE(contents.emplace(reinterpret_cast<const char*>(data.data()), data.size()).second)
        << tensor.name << " is the same as another";
    EXPECT_TRUE(ggml_validate_row_data(tensor.type, data.data(), data.size())) << tensor.name;
    if (tensor.n_dims < 2 || tensor.type == GGML_TYPE_F32) continue;
    std::vector<float> values(tensor.elements());
    ggml_get_type_traits(tensor.type)
        ->to_float(data.data(), values.data(), static_cast<std::int64_t>(values.size()));
    double sum = 0, squares = 0;
    for (const float value : values) {
      sum += value;
      squares += double{value} * value;
    }
    const double count = static_cast<double>(values.size());
    EXPECT_NEAR(sum / count, 0, 0.002) << tensor.name;
    EXPECT_NEAR(std::sqrt(squares / count * static_cast<double>(tensor.shape[0])), 1, 0.06)
        << tensor.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Synthetic,
                         ::testing::Values("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0",
                                           "q5_1", "q4_k_s", "q4_k_m", "q5_k_m", "q6_k"),
                         [](const auto& param) { return param.param; });

TEST(Synthetic, DependsOnItsSeedOnly) {
  const Folder folder;
  const auto make = [&](std::uint64_t seed) {
    EXPECT_TRUE(make_model({.shape = "tiny", .type = "q4_0", .out = folder / "m", .seed = seed}));
    return read_file(folder / "m");
  };
  const std::string first = make(7);
  EXPECT_EQ(first, make(7));
  EXPECT_NE(first, make(8));
}

TEST(Synthetic, NamesWhatItKnows) {
  auto made = make_model({.shape = "giant", .type = "f16", .out = "/tmp/none"});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().message(), "unknown shape 'giant'; there are llama-1b, qwen3-0.6b, tiny");
  made = make_model({.shape = "tiny", .type = "q9", .out = "/tmp/none"});
  ASSERT_FALSE(made);
  EXPECT_THAT(std::string(made.error().message()),
              HasSubstr("unknown type 'q9'; there are F32, F16"));
}

}  // namespace
}  // namespace ollama::gguf

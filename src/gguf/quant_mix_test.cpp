// The mixes against those of llama.cpp, which wrote tests/data/quant_mixes.txt.
#include "gguf/quant_mix.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "gguf/writer.h"

namespace ollama::gguf {
namespace {

namespace fs = std::filesystem;

struct Mixes {
  std::string mix;
  std::vector<std::pair<std::string, std::string>> types;  // of a tensor, a letter for each layer
};

struct Case {
  std::string name, architecture;
  std::uint32_t layers = 0, heads = 0, kv_heads = 0, experts = 0;
  std::map<std::string, std::vector<std::int64_t>> shapes;
  std::vector<Mixes> mixes;
};

std::vector<std::int64_t> parse_shape(const std::string& text) {
  std::vector<std::int64_t> shape;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, 'x');) shape.push_back(std::stoll(part));
  return shape;
}

std::vector<Case> read_cases() {
  std::vector<Case> cases;
  std::ifstream file(OLLAMA_TEST_DATA "/quant_mixes.txt");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string word, name, value;
    words >> word;
    if (word == "#" || word.empty()) continue;
    if (word == "model") {
      cases.emplace_back().name = line.substr(6);
    } else if (word == "architecture") {
      words >> cases.back().architecture;
    } else if (word == "layers") {
      words >> cases.back().layers;
    } else if (word == "heads") {
      words >> cases.back().heads >> cases.back().kv_heads;
    } else if (word == "experts") {
      words >> cases.back().experts;
    } else if (word == "tensor") {
      words >> name >> value;
      cases.back().shapes[name] = parse_shape(value);
    } else if (word == "mix") {
      words >> cases.back().mixes.emplace_back().mix;
    } else {
      words >> value;
      cases.back().mixes.back().types.emplace_back(word, value);
    }
  }
  return cases;
}

// The tensors of a case by their full names: those outside the layers first.
std::vector<std::pair<std::string, std::vector<std::int64_t>>> tensors_of(const Case& model) {
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> result;
  for (const auto& [name, letters] : model.mixes.front().types) {
    const auto& shape = model.shapes.at(name);
    if (name.starts_with("token_") || name.starts_with("output") || name.starts_with("position_")) {
      result.emplace_back(name, shape);
      continue;
    }
    for (std::uint32_t layer = 0; layer < model.layers; ++layer) {
      if (letters.size() == 1 || letters[layer] != '.')
        result.emplace_back(std::format("blk.{}.{}", layer, name), shape);
    }
  }
  return result;
}

File write(const Case& model) {
  Writer writer;
  writer.set_string("general.architecture", model.architecture);
  const auto key = [&](std::string_view name) {
    return std::format("{}.{}", model.architecture, name);
  };
  writer.set_u32(key("block_count"), model.layers);
  writer.set_u32(key("attention.head_count"), model.heads);
  writer.set_u32(key("attention.head_count_kv"), model.kv_heads);
  if (model.experts > 0) writer.set_u32(key("expert_count"), model.experts);
  const auto tensors = tensors_of(model);
  for (const auto& [name, shape] : tensors)
    EXPECT_TRUE(writer.add_tensor(name, shape.size() > 1 ? GGML_TYPE_F16 : GGML_TYPE_F32, shape));
  const fs::path path = fs::temp_directory_path() / std::format("mix-{}.gguf", ::getpid());
  EXPECT_TRUE(writer.begin(path));
  for (std::size_t i = 0; i < tensors.size(); ++i)
    EXPECT_TRUE(writer.write(i, 0, std::vector<std::byte>(writer.tensor_size(i))));
  EXPECT_TRUE(writer.finish());
  auto file = File::open(path).value();
  fs::remove(path);
  return file;
}

char letter_of(ggml_type type) {
  static const std::map<ggml_type, char> kLetters = {
      {GGML_TYPE_F32, 'f'},  {GGML_TYPE_F16, 'h'},    {GGML_TYPE_BF16, 'b'},
      {GGML_TYPE_Q4_0, 'a'}, {GGML_TYPE_Q4_1, 'e'},   {GGML_TYPE_Q5_0, 'c'},
      {GGML_TYPE_Q5_1, 'd'}, {GGML_TYPE_Q8_0, '8'},   {GGML_TYPE_Q2_K, '2'},
      {GGML_TYPE_Q3_K, '3'}, {GGML_TYPE_Q4_K, '4'},   {GGML_TYPE_Q5_K, '5'},
      {GGML_TYPE_Q6_K, '6'}, {GGML_TYPE_IQ4_NL, 'n'}, {GGML_TYPE_IQ4_XS, 'x'},
      {GGML_TYPE_MXFP4, 'm'}};
  return kLetters.at(type);
}

TEST(QuantMix, TensorsGetTheTypesThatLlamaCppGivesThem) {
  const std::vector<Case> cases = read_cases();
  ASSERT_GE(cases.size(), 15U);
  for (const Case& model : cases) {
    const File file = write(model);
    const MixModel mix_model = mix_model_of(file);
    for (const Mixes& mixes : model.mixes) {
      const QuantMix* mix = find_quant_mix(mixes.mix);
      ASSERT_NE(mix, nullptr) << mixes.mix;
      for (const auto& [suffix, letters] : mixes.types) {
        std::string chosen;
        for (const TensorInfo& tensor : file.tensors()) {
          const auto layer = layer_of(tensor.name);
          if (tensor.name != (layer ? std::format("blk.{}.{}", *layer, suffix) : suffix)) continue;
          const auto shape = std::span(tensor.shape).first(static_cast<std::size_t>(tensor.n_dims));
          const bool changes = is_quantisable(tensor.name, shape);
          if (layer) chosen.resize(*layer, '.');
          chosen +=
              letter_of(changes ? choose_type(*mix, mix_model, tensor.name, shape) : tensor.type);
        }
        if (letters.size() == 1) {
          EXPECT_EQ(chosen.find_first_not_of(letters), std::string::npos)
              << model.name << ' ' << mixes.mix << ' ' << suffix << ": " << chosen << ", not "
              << letters;
        } else {
          chosen.resize(model.layers, '.');
          EXPECT_EQ(chosen, letters) << model.name << ' ' << mixes.mix << ' ' << suffix;
        }
      }
    }
  }
}

TEST(QuantMix, IsFoundByNameInAnyCase) {
  EXPECT_EQ(find_quant_mix("q4_k_m")->name, "Q4_K_M");
  EXPECT_EQ(find_quant_mix("q4_K")->name, "Q4_K_M");
  EXPECT_EQ(find_quant_mix("bf16")->name, "BF16");
  EXPECT_EQ(find_quant_mix("q9"), nullptr);
  EXPECT_EQ(find_quant_mix(""), nullptr);
}

}  // namespace
}  // namespace ollama::gguf

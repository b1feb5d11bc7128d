// Checkpoints that nobody vouches for: each is refused with a message that names what is wrong, and
// nothing is left behind.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cmath>

#include "convert/convert.h"
#include "convert/rope.h"
#include "convert/safetensors.h"
#include "convert/source.h"
#include "convert/test_checkpoint.h"

namespace ollama::convert {
namespace {

using ::testing::ElementsAre;
using testing::Folder;
using ::testing::HasSubstr;
using testing::HfTensor;

constexpr std::string_view kWeights = "model.safetensors";

class HostileTest : public ::testing::Test {
 protected:
  HostileTest()
      : file_(testing::open_fixture("llama")), tensors_(testing::hf_tensors(file_, "llama")) {
    testing::write_checkpoint(folder_, file_, "llama");
    config_ = testing::hf_config(file_, "llama");
  }

  // Converts; nothing may be left of a conversion that fails. Gives the error's message.
  std::string error(ErrorCode code) {
    const Folder out;
    const auto result = to_gguf(folder_.path(), out / "model.gguf");
    if (result) return "converted";
    EXPECT_EQ(result.error().code(), code) << result.error().message();
    EXPECT_TRUE(out.names().empty());
    return std::string(result.error().message());
  }
  std::string with_config(ErrorCode code, std::string_view key, const boost::json::value& value) {
    auto config = config_;
    config[key] = value;
    folder_.write_json("config.json", config);
    return error(code);
  }
  std::string with_tensors(ErrorCode code) {
    folder_.write(kWeights, testing::safetensors(tensors_));
    return error(code);
  }
  HfTensor& tensor(std::string_view name) {
    return *std::ranges::find(tensors_, name, &HfTensor::name);
  }

  gguf::File file_;
  Folder folder_;
  std::vector<HfTensor> tensors_;
  boost::json::object config_;
};

TEST_F(HostileTest, UnharmedItConverts) { EXPECT_EQ(error(ErrorCode::kIo), "converted"); }

// ---- configurations ----

TEST_F(HostileTest, Architectures) {
  const auto message =
      with_config(ErrorCode::kUnsupported, "architectures", boost::json::array{"MambaForCausalLM"});
  EXPECT_THAT(message, HasSubstr("'MambaForCausalLM'"));
  EXPECT_THAT(message, HasSubstr("llama, mistral, qwen2, qwen3, gemma2, gemma3, phi3, bert"));
  EXPECT_THAT(with_config(ErrorCode::kUnsupported, "architectures", boost::json::array{"\x1b[2J"}),
              HasSubstr("\\x1b"));
}

TEST_F(HostileTest, Configurations) {
  const auto corrupt = [&](std::string_view key, const boost::json::value& value) {
    return with_config(ErrorCode::kCorrupt, key, value);
  };
  EXPECT_THAT(corrupt("num_hidden_layers", nullptr), HasSubstr("num_hidden_layers is missing"));
  EXPECT_THAT(corrupt("num_hidden_layers", 1000000), HasSubstr("from 1 to 4096"));
  EXPECT_THAT(corrupt("hidden_size", -64), HasSubstr("hidden_size"));
  EXPECT_THAT(corrupt("hidden_size", "64"), HasSubstr("hidden_size"));
  EXPECT_THAT(corrupt("hidden_size", 64.5), HasSubstr("hidden_size"));
  EXPECT_THAT(corrupt("num_attention_heads", 1e300), HasSubstr("num_attention_heads"));
  EXPECT_THAT(corrupt("num_attention_heads", 3), HasSubstr("no multiple"));
  EXPECT_THAT(corrupt("rms_norm_eps", "small"), HasSubstr("rms_norm_eps"));
  EXPECT_THAT(corrupt("tie_word_embeddings", 1), HasSubstr("tie_word_embeddings"));
  EXPECT_THAT(corrupt("head_dim", 16), HasSubstr("q_proj.weight has the shape [128, 64]"));
  const auto unsupported = [&](std::string_view key, const boost::json::value& value) {
    return with_config(ErrorCode::kUnsupported, key, value);
  };
  EXPECT_THAT(unsupported("hidden_act", "relu"), HasSubstr("'relu'"));
  EXPECT_THAT(unsupported("head_dim", 31), HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(unsupported("partial_rotary_factor", 0.5), HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(unsupported("quantization_config", {{"quant_method", "gptq"}}),
              HasSubstr("quantised already"));
  EXPECT_THAT(unsupported("rope_scaling", {{"rope_type", "mystery"}}), HasSubstr("'mystery'"));
  EXPECT_THAT(unsupported("rope_scaling", {{"type", "longrope"}}), HasSubstr("longrope"));
  EXPECT_THAT(corrupt("rope_scaling", {{"type", "linear"}, {"factor", 0}}), HasSubstr("factor"));
  EXPECT_THAT(corrupt("rope_scaling", {{"type", "llama3"}, {"factor", 8}}),
              HasSubstr("low_freq_factor"));
  folder_.write("config.json", "{\"architectures\": ");
  EXPECT_THAT(error(ErrorCode::kCorrupt), HasSubstr("config.json"));
  std::filesystem::remove(folder_ / "config.json");
  EXPECT_THAT(error(ErrorCode::kNotFound), HasSubstr("config.json is missing"));
}

// Fails when a Gemma whose layers take turns otherwise is run as if they did not.
TEST_F(HostileTest, WindowsThatAModelFileCannotSay) {
  const auto gemma = testing::open_fixture("gemma3");
  testing::write_checkpoint(folder_, gemma, "gemma3");
  config_ = testing::hf_config(gemma, "gemma3");
  boost::json::array types(6, "sliding_attention");
  EXPECT_THAT(with_config(ErrorCode::kUnsupported, "layer_types", types), HasSubstr("layer_types"));
  EXPECT_THAT(with_config(ErrorCode::kUnsupported, "sliding_window_pattern", 4),
              HasSubstr("sliding_window_pattern must be 6"));
  types.back() = "full_attention";
  EXPECT_EQ(with_config(ErrorCode::kIo, "layer_types", types), "converted");
}

// ---- tensors ----

TEST_F(HostileTest, TensorsThatAreMissingOrTooMany) {
  std::erase_if(tensors_,
                [](const HfTensor& t) { return t.name == "model.layers.1.mlp.up_proj.weight"; });
  EXPECT_THAT(with_tensors(ErrorCode::kCorrupt),
              HasSubstr("tensor model.layers.1.mlp.up_proj.weight is missing"));
  tensors_ = testing::hf_tensors(file_, "llama");
  tensors_.push_back({.name = "model.layers.0.self_attn.sinks", .shape = {1}, .bytes = "1234"});
  EXPECT_THAT(with_tensors(ErrorCode::kUnsupported),
              HasSubstr("tensor model.layers.0.self_attn.sinks is none that"));
  tensors_.back() = tensors_.front();
  tensors_.back().name = "language_model." + tensors_.front().name;
  EXPECT_THAT(with_tensors(ErrorCode::kCorrupt), HasSubstr("twice"));
  tensors_ = testing::hf_tensors(file_, "llama");
  tensors_.push_back({.name = "model.norm.bias", .shape = {64}, .bytes = std::string(256, 'x')});
  EXPECT_THAT(with_tensors(ErrorCode::kUnsupported), HasSubstr("tensor model.norm.bias is none"));
  tensors_.pop_back();
  std::erase_if(tensors_, [](const HfTensor& t) { return t.name == "lm_head.weight"; });
  EXPECT_THAT(with_tensors(ErrorCode::kCorrupt), HasSubstr("lm_head.weight is missing"));
  // A model that has no head at all is another matter.
  EXPECT_EQ(with_config(ErrorCode::kIo, "architectures", boost::json::array{"LlamaModel"}),
            "converted");

  const auto qwen = testing::open_fixture("qwen2");
  testing::write_checkpoint(folder_, qwen, "qwen2");
  tensors_ = testing::hf_tensors(qwen, "qwen2");
  std::erase_if(tensors_, [](const HfTensor& t) { return t.name.ends_with("k_proj.bias"); });
  EXPECT_THAT(with_tensors(ErrorCode::kCorrupt), HasSubstr("self_attn.k_proj.bias is missing"));
}

TEST_F(HostileTest, ShapesAndTypes) {
  HfTensor& norm = tensor("model.norm.weight");
  norm.shape = {8, 8};
  EXPECT_THAT(with_tensors(ErrorCode::kCorrupt),
              HasSubstr("tensor model.norm.weight has the shape [8, 8], expected [64]"));
  norm.shape = {64};
  HfTensor& up = tensor("model.layers.0.mlp.up_proj.weight");
  up.dtype = "I32";
  EXPECT_THAT(with_tensors(ErrorCode::kUnsupported),
              HasSubstr("up_proj.weight is of the type I32"));
  up.dtype = "F4_NEW";
  EXPECT_THAT(with_tensors(ErrorCode::kUnsupported), HasSubstr("F4_NEW"));
  up.dtype = "F16";
  EXPECT_THAT(with_tensors(ErrorCode::kCorrupt), HasSubstr("its type and shape need"));
  up.dtype = "F32";
  up.shape = {0x7FFFFFFFFFFFFFFF, 0x7FFFFFFFFFFFFFFF};
  EXPECT_THAT(with_tensors(ErrorCode::kCorrupt), HasSubstr("too large"));
  HfTensor& table = tensor("model.embed_tokens.weight");
  up.shape = {128, 64};
  table.shape = {0, 64};
  table.bytes.clear();
  EXPECT_THAT(with_tensors(ErrorCode::kCorrupt), HasSubstr("model.embed_tokens.weight"));
}

// ---- safetensors ----

std::string header_file(std::string_view json, std::size_t data = 64) {
  const std::uint64_t size = json.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + std::string(json) +
         std::string(data, 'x');
}

TEST_F(HostileTest, SafetensorsHeaders) {
  const auto corrupt = [&](std::string_view file) {
    folder_.write(kWeights, file);
    return error(ErrorCode::kCorrupt);
  };
  EXPECT_THAT(corrupt(""), HasSubstr("model.safetensors"));
  EXPECT_THAT(corrupt("1234567"), HasSubstr("model.safetensors"));
  EXPECT_THAT(corrupt(std::string(8, '\xFF')), HasSubstr("claims to have"));
  EXPECT_THAT(corrupt(std::string("\x09\0\0\0\0\0\0\0{}", 10)), HasSubstr("claims to have 9"));
  EXPECT_THAT(corrupt(header_file("{")), HasSubstr("invalid JSON"));
  EXPECT_THAT(corrupt(header_file(std::string(200000, '['))), HasSubstr("invalid JSON"));
  EXPECT_THAT(corrupt(header_file("[]")), HasSubstr("no JSON object"));
  EXPECT_THAT(corrupt(header_file(R"({"a": 1})")), HasSubstr("tensor a"));
  const auto entry = [](std::string_view shape, std::string_view offsets,
                        std::string_view dtype = R"("F32")") {
    return std::format(R"({{"dtype": {}, "shape": {}, "data_offsets": {}}})", dtype, shape,
                       offsets);
  };
  const auto one = [&](const std::string& fields) {
    return corrupt(header_file(std::format(R"({{"a": {}}})", fields)));
  };
  EXPECT_THAT(one(entry("[1]", "[0, 4]", "7")), HasSubstr("no dtype"));
  EXPECT_THAT(one(entry("[-1]", "[0, 4]")), HasSubstr("integers from 0"));
  EXPECT_THAT(one(entry("[1.5]", "[0, 4]")), HasSubstr("integers from 0"));
  EXPECT_THAT(one(entry("[1,1,1,1,1,1,1,1,1]", "[0, 4]")), HasSubstr("short list"));
  EXPECT_THAT(one(entry("[1]", "[4, 0]")), HasSubstr("begin and end"));
  EXPECT_THAT(one(entry("[1]", "[0]")), HasSubstr("begin and end"));
  EXPECT_THAT(one(entry("[1]", "[64, 68]")), HasSubstr("beyond the 64 bytes"));
  EXPECT_THAT(one(entry("[1]", "[0, 9223372036854775807]")), HasSubstr("beyond"));
  EXPECT_THAT(one(entry("[2]", "[0, 4]")), HasSubstr("need 8"));
  EXPECT_THAT(corrupt(header_file(std::format(R"({{"a": {}, "b": {}}})", entry("[2]", "[0, 8]"),
                                              entry("[2]", "[4, 12]")))),
              HasSubstr("tensor b: its data overlaps that of a"));
}

// Fails when a length beyond the file's end is believed.
TEST_F(HostileTest, CutOffFiles) {
  const std::string whole = testing::safetensors(tensors_);
  for (std::size_t size = 0; size < whole.size(); size += whole.size() / 50) {
    folder_.write(kWeights, std::string_view(whole).substr(0, size));
    EXPECT_NE(error(ErrorCode::kCorrupt), "converted") << size;
  }
}

// A header of this many bytes is refused before memory is taken for it, though the file has them.
TEST_F(HostileTest, HugeSparseFiles) {
  folder_.write(kWeights, header_file("", 0));
  const std::uint64_t size = 1ULL << 40;
  {
    std::fstream file(folder_ / kWeights, std::ios::in | std::ios::out | std::ios::binary);
    file.write(reinterpret_cast<const char*>(&size), sizeof size);
  }
  std::filesystem::resize_file(folder_ / kWeights, size + 8);
  EXPECT_THAT(error(ErrorCode::kCorrupt), HasSubstr("claims to have"));
  testing::write_checkpoint(folder_, file_, "llama");
  std::filesystem::resize_file(folder_ / "config.json", size);
  EXPECT_THAT(error(ErrorCode::kCorrupt), HasSubstr("more than any such file needs"));
}

// ---- files ----

TEST_F(HostileTest, ShardsThatLeadElsewhere) {
  std::filesystem::remove(folder_ / kWeights);
  folder_.write("model-00001-of-00001.safetensors", testing::safetensors(tensors_));
  const auto with_shard = [&](std::string_view name, ErrorCode code) {
    folder_.write_json("model.safetensors.index.json",
                       {{"weight_map", {{"model.norm.weight", name}}}});
    return error(code);
  };
  for (const std::string_view name : {"../model.safetensors", "/etc/passwd", "a/b.safetensors",
                                      "..", "", "config.json", "model\\x.safetensors"}) {
    EXPECT_THAT(with_shard(name, ErrorCode::kCorrupt), HasSubstr("model.norm.weight")) << name;
  }
  folder_.write("model.safetensors.index.json", R"({"weight_map": {"model.norm.weight": 7}})");
  EXPECT_THAT(error(ErrorCode::kCorrupt), HasSubstr("model.norm.weight"));
  EXPECT_THAT(with_shard("model-00009.safetensors", ErrorCode::kNotFound),
              HasSubstr("model-00009.safetensors is missing"));
  EXPECT_EQ(with_shard("model-00001-of-00001.safetensors", ErrorCode::kIo), "converted");
  folder_.write("model.safetensors.index.json", "{}");
  EXPECT_THAT(error(ErrorCode::kCorrupt), HasSubstr("no weight_map"));
  folder_.write("model.safetensors.index.json", R"({"weight_map": {}})");
  EXPECT_THAT(error(ErrorCode::kCorrupt), HasSubstr("lists no tensors"));
}

TEST_F(HostileTest, TheSameTensorInTwoShards) {
  folder_.write("model-1.safetensors", testing::safetensors(tensors_));
  std::filesystem::rename(folder_ / kWeights, folder_ / "model-2.safetensors");
  EXPECT_THAT(error(ErrorCode::kCorrupt), HasSubstr("is in two files"));
}

// Fails when a checkpoint can make us read a file of somebody else's.
TEST_F(HostileTest, LinksThatLeadOutOfTheFolder) {
  const Folder elsewhere;
  elsewhere.write("secret.json", "{}");
  std::filesystem::remove(folder_ / "tokenizer_config.json");
  std::filesystem::create_symlink(elsewhere / "secret.json", folder_ / "tokenizer_config.json");
  EXPECT_THAT(error(ErrorCode::kPermission), HasSubstr("tokenizer_config.json is a link"));
  std::filesystem::remove(folder_ / "tokenizer_config.json");
  std::filesystem::create_symlink("nowhere", folder_ / "tokenizer_config.json");
  EXPECT_THAT(error(ErrorCode::kPermission), HasSubstr("tokenizer_config.json"));
  // Links within the folder are as good as files.
  std::filesystem::remove(folder_ / "tokenizer_config.json");
  folder_.write("real.json", "{}");
  std::filesystem::create_symlink("real.json", folder_ / "tokenizer_config.json");
  EXPECT_EQ(error(ErrorCode::kIo), "converted");
  std::filesystem::create_symlink(elsewhere.path(), folder_ / "1_Pooling");
  std::filesystem::create_symlink(elsewhere / "secret.json", elsewhere / "config.json");
  EXPECT_THAT(error(ErrorCode::kPermission), HasSubstr("1_Pooling"));
}

// Fails when a pipe makes the conversion wait for ever.
TEST_F(HostileTest, WhatIsNoPlainFile) {
  std::filesystem::remove(folder_ / "tokenizer_config.json");
  ASSERT_EQ(::mkfifo((folder_ / "tokenizer_config.json").c_str(), 0600), 0);
  EXPECT_THAT(error(ErrorCode::kInvalidArgument), HasSubstr("no plain file"));
  std::filesystem::remove(folder_ / "tokenizer_config.json");
  std::filesystem::create_directory(folder_ / "tokenizer_config.json");
  EXPECT_THAT(error(ErrorCode::kInvalidArgument), HasSubstr("no plain file"));
}

TEST_F(HostileTest, WeightsInOtherFormats) {
  std::filesystem::remove(folder_ / kWeights);
  EXPECT_THAT(error(ErrorCode::kNotFound), HasSubstr("no weights"));
  folder_.write("pytorch_model.bin", "pickled");
  EXPECT_THAT(error(ErrorCode::kUnsupported), HasSubstr("can run code"));
  folder_.write("consolidated.safetensors", "");
  EXPECT_THAT(error(ErrorCode::kUnsupported), HasSubstr("other layouts"));
  folder_.write("adapter_model.safetensors", "");
  EXPECT_THAT(error(ErrorCode::kUnsupported), HasSubstr("an adapter"));
  const auto missing = to_gguf("/nonexistent/folder", folder_ / "out.gguf");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), ErrorCode::kNotFound);
}

TEST_F(HostileTest, NamesOfFilesThatWereSent) {
  const auto refused = [&](std::string name) {
    const NamedFile files[] = {{std::move(name), folder_ / "config.json"}};
    const auto result = to_gguf(files, folder_ / "out.gguf");
    return !result && result.error().code() == ErrorCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused("../config.json"));
  EXPECT_TRUE(refused("/config.json"));
  EXPECT_TRUE(refused("a/config.json"));
  EXPECT_TRUE(refused(""));
  EXPECT_TRUE(refused(".."));
  EXPECT_TRUE(refused(std::string("config.json\0", 12)));
  EXPECT_TRUE(refused(std::string(300, 'a')));
  const NamedFile twice[] = {{"config.json", folder_ / "config.json"},
                             {"config.json", folder_ / "tokenizer.model"}};
  const auto result = to_gguf(twice, folder_ / "out.gguf");
  ASSERT_FALSE(result);
  EXPECT_THAT(std::string(result.error().message()), HasSubstr("two files named config.json"));
  const NamedFile pickle[] = {{"config.json", folder_ / "config.json"},
                              {"pytorch_model.bin", folder_ / "config.json"}};
  const auto pickled = to_gguf(pickle, folder_ / "out.gguf");
  ASSERT_FALSE(pickled);
  EXPECT_THAT(std::string(pickled.error().message()), HasSubstr("can run code"));
}

// The files of /api/create: names, and blobs that are called otherwise.
TEST_F(HostileTest, FilesByNameAndPath) {
  std::filesystem::create_directory(folder_ / "blobs");
  std::vector<NamedFile> files;
  for (const std::string_view name :
       {"config.json", "model.safetensors", "tokenizer.model", "tokenizer_config.json"}) {
    const auto blob = folder_ / std::format("blobs/sha256-{}", files.size());
    std::filesystem::rename(folder_ / name, blob);
    files.push_back({std::string(name), blob});
  }
  files.push_back({"README.md", folder_ / "is not read"});
  const auto result = to_gguf(files, folder_ / "out.gguf");
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_EQ(gguf::File::open(folder_ / "out.gguf")->string("general.name"), "llama");
}

// ---- progress ----

TEST_F(HostileTest, ProgressAndCancelling) {
  const Folder out;
  std::uint64_t last = 0, all = 0;
  const auto watch = [&](std::uint64_t done, std::uint64_t total) {
    EXPECT_GE(done, last);
    last = done;
    all = total;
    return true;
  };
  ASSERT_TRUE(to_gguf(folder_.path(), out / "model.gguf", watch));
  EXPECT_EQ(last, all);
  EXPECT_GT(all, 600000U);
  std::filesystem::remove(out / "model.gguf");
  const auto result =
      to_gguf(folder_.path(), out / "model.gguf",
              [](std::uint64_t done, std::uint64_t total) { return done < total / 2; });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kCancelled);
  EXPECT_TRUE(out.names().empty()) << "something was left behind";
}

TEST_F(HostileTest, AnEarlierFileStaysWhenConvertingFails) {
  const Folder out;
  out.write("model.gguf", "as it was");
  tensors_.pop_back();
  folder_.write(kWeights, testing::safetensors(tensors_));
  EXPECT_FALSE(to_gguf(folder_.path(), out / "model.gguf"));
  EXPECT_THAT(out.names(), ElementsAre("model.gguf"));
  EXPECT_EQ(std::filesystem::file_size(out / "model.gguf"), 9U);
}

// ---- rope ----

// Llama 3.1's, as its authors' code computes the frequencies. Fails when long contexts are rotated
// by other angles than the model was trained with.
TEST(Rope, Llama3Factors) {
  constexpr double kBase = 500000, kFactor = 8, kLow = 1, kHigh = 4, kContext = 8192;
  const auto factors = llama3_factors(kBase, 128, kFactor, kLow, kHigh, kContext);
  ASSERT_EQ(factors.size(), 64U);
  for (std::size_t i = 0; i < 64; ++i) {
    const double frequency = 1 / std::pow(kBase, static_cast<double>(2 * i) / 128);
    const double length = 2 * 3.14159265358979323846 / frequency;
    double scaled = frequency;
    if (length > kContext / kLow) {
      scaled = frequency / kFactor;
    } else if (length > kContext / kHigh) {
      const double smooth = (kContext / length - kLow) / (kHigh - kLow);
      scaled = (1 - smooth) * frequency / kFactor + smooth * frequency;
    }
    EXPECT_NEAR(static_cast<double>(factors[i]), frequency / scaled, 1e-6) << i;
  }
  EXPECT_EQ(factors.front(), 1.0F);
  EXPECT_EQ(factors.back(), 8.0F);
}

class RopeTest : public HostileTest {
 protected:
  // The model file of the checkpoint with this scaling.
  gguf::File convert(std::string_view key, std::string_view json) {
    config_[key] = boost::json::parse(json);
    folder_.write_json("config.json", config_);
    const auto result = to_gguf(folder_.path(), folder_ / "model.gguf");
    EXPECT_TRUE(result) << result.error().message();
    return *gguf::File::open(folder_ / "model.gguf");
  }
};

TEST_F(RopeTest, OfLlama3) {
  const auto file = convert("rope_scaling", R"({"rope_type": "llama3", "factor": 32,
      "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8192})");
  const auto* tensor = file.find_tensor("rope_freqs.weight");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->shape[0], 16);
  const auto expected = llama3_factors(10000, 32, 32, 1, 4, 8192);
  EXPECT_TRUE(std::ranges::equal(*file.data(*tensor), std::as_bytes(std::span(expected))));
  EXPECT_EQ(file.find(".rope.scaling.type"), nullptr);
}

TEST_F(RopeTest, LinearYarnAndTheirLaterForm) {
  const auto linear = convert("rope_scaling", R"({"type": "linear", "factor": 4.0})");
  EXPECT_EQ(linear.string(".rope.scaling.type"), "linear");
  EXPECT_EQ(linear.f32(".rope.scaling.factor"), 4.0F);
  config_.erase("rope_scaling");
  const auto yarn = convert("rope_parameters", R"({"rope_type": "yarn", "rope_theta": 5e5,
      "factor": 4, "beta_fast": 16, "original_max_position_embeddings": 512})");
  EXPECT_EQ(yarn.f32(".rope.freq_base"), 5e5F);
  EXPECT_EQ(yarn.string(".rope.scaling.type"), "yarn");
  EXPECT_EQ(yarn.u32(".rope.scaling.original_context_length"), 512U);
  EXPECT_EQ(yarn.f32(".rope.scaling.yarn_beta_fast"), 16.0F);
  EXPECT_EQ(yarn.find(".rope.scaling.yarn_beta_slow"), nullptr);
}

TEST_F(RopeTest, OfPhi3WithLongContext) {
  const auto phi = testing::open_fixture("phi3");
  testing::write_checkpoint(folder_, phi, "phi3");
  config_ = testing::hf_config(phi, "phi3");
  config_["original_max_position_embeddings"] = 512;
  boost::json::array factors(16, 1.5);
  const auto file = convert("rope_scaling", boost::json::serialize(boost::json::object{
                                                {"type", "longrope"},
                                                {"long_factor", factors},
                                                {"short_factor", boost::json::array(16, 1)}}));
  ASSERT_NE(file.find_tensor("rope_factors_long.weight"), nullptr);
  ASSERT_NE(file.find_tensor("rope_factors_short.weight"), nullptr);
  EXPECT_EQ(file.u32(".rope.scaling.original_context_length"), 512U);
  EXPECT_NEAR(file.f32(".rope.scaling.attn_factor").value_or(0),
              std::sqrt(1 + std::log(4.0) / std::log(512.0)), 1e-6);
  factors.pop_back();
  config_["rope_scaling"].as_object()["long_factor"] = factors;
  folder_.write_json("config.json", config_);
  EXPECT_THAT(error(ErrorCode::kCorrupt), HasSubstr("long_factor"));
}

TEST_F(RopeTest, OfGemma3InItsLaterForm) {
  const auto gemma = testing::open_fixture("gemma3");
  testing::write_checkpoint(folder_, gemma, "gemma3");
  config_ = testing::hf_config(gemma, "gemma3");
  config_.erase("rope_theta");
  const auto file = convert("rope_parameters", R"({
      "full_attention": {"rope_type": "linear", "factor": 8, "rope_theta": 2e6},
      "sliding_attention": {"rope_type": "default", "rope_theta": 2e4}})");
  EXPECT_EQ(file.f32(".rope.freq_base"), 2e6F);
  EXPECT_EQ(file.f32(".rope.freq_base_swa"), 2e4F);
  EXPECT_EQ(file.f32(".rope.scaling.factor"), 8.0F);
}

}  // namespace
}  // namespace ollama::convert

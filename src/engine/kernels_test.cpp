// Our own kernels in whole models: what they give is near to what GGML's give, and the same bit for
// bit whoever shares the batch.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "engine/draft.h"
#include "engine/executor.h"
#include "engine/fixture.h"
#include "gguf/synthetic.h"

namespace ollama::engine {
namespace {

using ml::DType;

std::filesystem::path tiny_model(const std::string& type) {
  const auto path = std::filesystem::path(testing::TempDir()) /
                    std::format("kernels-{}-{}.gguf", type, ::getpid());
  EXPECT_TRUE(gguf::make_model({.shape = "tiny", .type = type, .out = path}));
  return path;
}

std::vector<Token> words(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<Token> tokens(count);
  for (Token& token : tokens) token = static_cast<Token>(3 + random() % 250);
  return tokens;
}

// A sequence that is evaluated a few tokens at a time.
struct Stream {
  kvcache::Sequence sequence;
  std::vector<Token> tokens;
  std::size_t done = 0;

  void add(StepBatch& batch, std::size_t count, bool outputs) {
    for (; count > 0 && done < tokens.size(); --count, ++done) {
      batch.add(tokens[done], static_cast<kvcache::Position>(done), sequence, outputs);
    }
  }
};

using Logits = std::vector<std::vector<float>>;  // of each token

struct Settings {
  std::uint32_t threads = 1;
  std::size_t chunk = 0;  // tokens a step; 0: at random
  unsigned company = 0;   // sequences beside it
};

Logits logits_of(const std::filesystem::path& path, DType kv_type, const std::vector<Token>& tokens,
                 const Settings& settings) {
  const auto executor = Executor::load(path,
                                       {.context = 256,
                                        .batch = 96,
                                        .parallel = settings.company + 1,
                                        .threads = settings.threads,
                                        .kv_type = kv_type},
                                       {});
  EXPECT_TRUE(executor) << executor.error().message();
  if (!executor) return {};
  std::mt19937 random(settings.company + settings.threads);
  std::vector<Stream> others;
  for (unsigned i = 0; i < settings.company; ++i) {
    others.push_back({i < 3 ? i : i + 1, words(160 + 7 * i, 100 + i)});
  }
  Stream own{3, tokens};
  Logits result;
  const std::size_t vocabulary = (*executor)->info().vocab_size;
  while (own.done < tokens.size()) {
    StepBatch batch;
    const std::size_t before = own.done;
    // Somebody before it, somebody after it: one token, or a part of a prompt.
    for (std::size_t i = 0; i < others.size(); ++i) {
      if (i == others.size() / 2)
        own.add(batch, settings.chunk > 0 ? settings.chunk : 1 + random() % 9, true);
      others[i].add(batch, random() % 3 == 0 ? random() % 9 : 1, false);
    }
    if (others.empty())
      own.add(batch, settings.chunk > 0 ? settings.chunk : 1 + random() % 9, true);
    const auto rows = (*executor)->run(batch);
    EXPECT_TRUE(rows) << rows.error().message();
    if (!rows) return {};
    for (std::size_t i = 0; i < own.done - before; ++i) {
      const auto row = rows->subspan(i * vocabulary, vocabulary);
      result.emplace_back(row.begin(), row.end());
    }
  }
  return result;
}

void expect_same_bits(const Logits& got, const Logits& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::memcmp(got[i].data(), want[i].data(), got[i].size() * sizeof(float)), 0)
        << what << ": token " << i;
  }
}

void expect_reproducible(const std::filesystem::path& path, DType kv_type) {
  const std::vector<Token> tokens = words(90, 1);
  const Logits want = logits_of(path, kv_type, tokens, {.chunk = 90});
  ASSERT_EQ(want.size(), tokens.size());
  expect_same_bits(logits_of(path, kv_type, tokens, {.chunk = 1}), want, "token by token");
  expect_same_bits(logits_of(path, kv_type, tokens, {.threads = 2}), want, "two threads, in parts");
  expect_same_bits(logits_of(path, kv_type, tokens, {.threads = 3, .chunk = 90}), want,
                   "three threads");
  expect_same_bits(logits_of(path, kv_type, tokens, {.threads = 2, .company = 7}), want,
                   "among seven others");
}

class Types : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Kernels, Types,
                         testing::Values("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k_m", "q5_k_m",
                                         "q6_k", "iq4_nl", "mxfp4", "f16", "bf16", "f32"),
                         [](const auto& info) { return info.param; });

TEST_P(Types, GiveTheSameBitsInAnyCompany) {
  const std::filesystem::path path = tiny_model(GetParam());
  expect_reproducible(path, DType::kF16);
  std::filesystem::remove(path);
}

TEST_P(Types, AreNearGgmls) {
  const std::filesystem::path path = tiny_model(GetParam());
  for (const DType kv_type : {DType::kF16, DType::kQ8_0}) {
    const auto divergence = compare_kernels(path, {.tokens = words(64, 2), .kv_type = kv_type});
    ASSERT_TRUE(divergence) << divergence.error().message();
    EXPECT_LT(divergence->mean, 1e-3);
    EXPECT_GT(divergence->same_best, 0.9);
  }
  std::filesystem::remove(path);
}

// Windows, sinks, soft caps, experts, latent attention; and what becomes of the cache's types.
class Models : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Kernels, Models,
                         testing::Values("llama", "llama-moe", "qwen3moe", "gemma2", "gemma3",
                                         "gpt-oss", "deepseek2", "phi3"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST_P(Models, GiveTheSameBitsInAnyCompany) {
  expect_reproducible(fixture::model(GetParam()), DType::kF32);
}

class CacheTypes : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Kernels, CacheTypes, testing::Values("f32", "f16", "bf16", "q8_0", "q4_0"),
                         [](const auto& info) { return info.param; });

TEST_P(CacheTypes, GiveTheSameBitsInAnyCompany) {
  const std::filesystem::path path = tiny_model("q8_0");
  expect_reproducible(path, *ml::parse_dtype(GetParam()));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace ollama::engine

#include "ml/kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

// clang-format off
#include "ml/kernels/targets.h"
#include "hwy/highway.h"
#include "hwy/targets.h"
// clang-format on

namespace ollama::ml::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::int64_t kBlock = 32;

std::uint16_t half_bits(float value) {
  return std::bit_cast<std::uint16_t>(hwy::F16FromF32(value));
}
double rounded_to_bf16(double value) {
  return static_cast<double>(hwy::F32FromBF16(hwy::BF16FromF32(static_cast<float>(value))));
}
float half_value(std::uint16_t bits) {
  return hwy::F32FromF16(std::bit_cast<hwy::float16_t>(bits));
}

std::int64_t bytes_of(DType type, std::int64_t elements) {
  switch (type) {
    case DType::kF32:
      return 4 * elements;
    case DType::kQ8_0:
      return elements / kBlock * 34;
    case DType::kQ4_0:
      return elements / kBlock * 18;
    default:
      return 2 * elements;
  }
}

template <typename T>
void put(std::byte* to, std::int64_t index, T value) {
  std::memcpy(to + index * static_cast<std::int64_t>(sizeof(T)), &value, sizeof(T));
}

// Writes a row in the type and gives back what it stands for.
std::vector<float> encode(DType type, const std::vector<float>& row, std::byte* to) {
  std::vector<float> result = row;
  const auto count = static_cast<std::int64_t>(row.size());
  if (type == DType::kQ8_0 || type == DType::kQ4_0) {
    const float levels = type == DType::kQ8_0 ? 127.0F : 7.0F;
    for (std::int64_t b = 0; b < count; b += kBlock, to += bytes_of(type, kBlock)) {
      float largest = 0.0F;
      for (std::int64_t i = 0; i < kBlock; ++i) {
        largest = std::max(largest, std::abs(row[static_cast<std::size_t>(b + i)]));
      }
      const std::uint16_t scale = half_bits(largest / levels + 1e-6F);
      put(to, 0, scale);
      for (std::int64_t i = 0; i < kBlock; ++i) {
        const auto index = static_cast<std::size_t>(b + i);
        const float quant = std::clamp(std::round(row[index] / half_value(scale)), -levels, levels);
        result[index] = quant * half_value(scale);
        if (type == DType::kQ8_0) {
          put(to + 2, i, static_cast<std::int8_t>(quant));
        } else {
          const std::int64_t byte = i % (kBlock / 2);
          const auto nibble = static_cast<unsigned>(quant + 8.0F);
          const unsigned before = i < kBlock / 2 ? 0U : std::to_integer<unsigned>(to[2 + byte]);
          to[2 + byte] = static_cast<std::byte>(before | nibble << (i < kBlock / 2 ? 0 : 4));
        }
      }
    }
    return result;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    float& value = result[static_cast<std::size_t>(i)];
    if (type == DType::kF32) {
      put(to, i, value);
    } else if (type == DType::kF16) {
      const std::uint16_t half = half_bits(value);
      put(to, i, half);
      value = half_value(half);
    } else {
      const auto bits = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
      put(to, i, bits);
      value = std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
    }
  }
  return result;
}

struct Cell {
  unsigned sequences = 0;  // bits; 0: garbage
  std::int32_t position = 0;
  std::uint32_t content = 0;  // seed
  bool overflown = false;     // values are infinite
};
struct Query {
  int sequence = 0;
  std::int32_t position = 0;  // -1: sees nothing
  std::uint32_t content = 0;
};

struct Problem {
  AttentionShape shape;  // tokens and cells follow from what is below
  DType k_type = DType::kF16;
  DType v_type = DType::kF16;
  DType mask_type = DType::kF16;
  std::vector<Cell> cells;
  std::vector<Query> queries;
  std::int32_t window = 1 << 30;
  bool causal = true;
  bool positions = true;
  bool sinks = false;
  bool latent = false;  // values are a prefix of keys
  float scale = 0.1F;
  float soft_cap = 0.0F;
  float magnitude = 1.0F;  // of queries
  std::int64_t threads = 1;
  bool all_partials = true;
  bool bf16_products = false;

  bool sees(const Query& query, const Cell& cell) const {
    return query.position >= 0 && ((cell.sequences >> query.sequence) & 1U) != 0 &&
           (!causal || cell.position <= query.position) && cell.position > query.position - window;
  }
};

// A hash of seed and index: the library's distributions take a logarithm for every number, which
// was most of what these tests did.
std::vector<float> random_row(std::uint32_t seed, std::int64_t count, float magnitude) {
  std::vector<float> row(static_cast<std::size_t>(count));
  std::uint32_t next = seed * 0x9E3779B9U;
  for (float& value : row) {
    std::uint32_t bits = next++;
    bits = (bits ^ bits >> 16) * 0x7FEB352DU;
    bits = (bits ^ bits >> 15) * 0x846CA68BU;
    value = static_cast<float>(static_cast<std::int32_t>(bits ^ bits >> 16)) * 0x1p-31F * magnitude;
  }
  return row;
}

std::unique_ptr<std::byte[]> aligned(std::size_t bytes, std::byte*& data) {
  auto memory = std::make_unique<std::byte[]>(bytes + kAttentionAlignment);
  void* begin = memory.get();
  std::size_t space = bytes + kAttentionAlignment;
  data = static_cast<std::byte*>(std::align(kAttentionAlignment, bytes, begin, space));
  return memory;
}

// Evaluates the problem with the kernels; `expected`, where asked for, receives a plain evaluation
// in double precision, of what is rounded where products of bf16 are asked for (but the weights).
std::vector<float> evaluate(const Problem& problem, std::vector<double>* expected = nullptr) {
  AttentionShape shape = problem.shape;
  shape.tokens = static_cast<std::int64_t>(problem.queries.size());
  shape.cells = static_cast<std::int64_t>(problem.cells.size());
  const auto cells = problem.cells.size();
  const auto size = [](std::int64_t value) { return static_cast<std::size_t>(value); };

  const std::int64_t k_bytes = bytes_of(problem.k_type, shape.head_dim_k);
  const std::int64_t v_bytes = bytes_of(problem.v_type, shape.head_dim_v);
  std::vector<std::byte> k(cells * size(k_bytes * shape.kv_heads), std::byte{0xFF});  // NaN
  std::vector<std::byte> v(cells * size(v_bytes * shape.kv_heads), std::byte{0xFF});
  std::vector<std::vector<float>> k_rows(cells * size(shape.kv_heads));
  auto v_rows = k_rows;
  for (std::size_t c = 0; c < cells; ++c) {
    if (problem.cells[c].sequences == 0) continue;
    for (std::size_t h = 0; h < size(shape.kv_heads); ++h) {
      const std::size_t row = c * size(shape.kv_heads) + h;
      const auto seed = problem.cells[c].content * 64U + static_cast<std::uint32_t>(h);
      k_rows[row] = encode(problem.k_type, random_row(seed, shape.head_dim_k, 1.0F),
                           k.data() + row * size(k_bytes));
      auto values = random_row(~seed, shape.head_dim_v, 1.0F);
      if (problem.cells[c].overflown) std::ranges::fill(values, kInfinity);
      v_rows[row] = problem.latent ? k_rows[row]
                                   : encode(problem.v_type, values, v.data() + row * size(v_bytes));
    }
  }

  std::vector<float> q;
  std::vector<std::int32_t> positions(cells);
  const std::size_t mask_size = problem.mask_type == DType::kF16 ? 2 : 4;
  std::vector<std::byte> mask(problem.queries.size() * cells * mask_size);
  for (std::size_t t = 0; t < problem.queries.size(); ++t) {
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      const auto row = random_row(problem.queries[t].content * 512U + static_cast<unsigned>(h),
                                  shape.head_dim_k, problem.magnitude);
      q.insert(q.end(), row.begin(), row.end());
    }
    for (std::size_t c = 0; c < cells; ++c) {
      positions[c] = problem.cells[c].sequences == 0 ? -7 : problem.cells[c].position;
      const bool visible = problem.sees(problem.queries[t], problem.cells[c]);
      const auto index = static_cast<std::int64_t>(t * cells + c);
      with_mask_values(problem.mask_type, [&](auto shown, auto hidden) {
        put(mask.data(), index, visible ? shown : hidden);
      });
    }
  }
  std::vector<float> sinks(size(shape.heads));
  for (std::size_t h = 0; h < sinks.size(); ++h) sinks[h] = static_cast<float>(h) * 0.5F - 1.0F;

  AttentionArgs args;
  args.shape = shape;
  args.q = q.data();
  args.q_head_stride = size(shape.head_dim_k) * sizeof(float);
  args.q_token_stride = args.q_head_stride * size(shape.heads);
  args.k = {problem.k_type, k.data(), size(k_bytes), size(k_bytes * shape.kv_heads)};
  args.v = {problem.v_type, v.data(), size(v_bytes), size(v_bytes * shape.kv_heads)};
  if (problem.latent) args.v = args.k;
  args.mask = {problem.mask_type, mask.data(), cells * mask_size,
               problem.positions ? positions.data() : nullptr};
  args.sinks = problem.sinks ? sinks.data() : nullptr;
  args.scale = problem.scale;
  args.soft_cap = problem.soft_cap;
  args.bf16_products = problem.bf16_products;
  std::vector<float> output(size(shape.head_dim_v * shape.heads * shape.tokens), NAN);
  args.output = output.data();

  std::byte* plan = nullptr;
  const std::size_t plan_bytes = attention_plan_bytes(shape.tokens, shape.cells);
  const auto plan_memory = aligned(plan_bytes, plan);
  plan_attention(args.mask, shape.tokens, shape.cells,
                 problem.all_partials ? attention_partials(shape) : 0, {plan, plan_bytes});
  args.plan = plan;
  const auto partials = aligned(attention_partials_bytes(shape), args.partials);
  const auto compute = [&](std::atomic<std::int64_t>* next) {
    std::vector<std::jthread> workers;
    for (std::int64_t i = 0; i < problem.threads; ++i) {
      workers.emplace_back([&args, i, &problem, next] {
        std::byte* scratch = nullptr;
        const std::size_t bytes = attention_scratch_bytes(args.shape);
        const auto memory = aligned(bytes, scratch);
        std::memset(scratch, 0xFF, bytes);
        attend(args, i, problem.threads, {scratch, bytes}, next);
      });
    }
    workers.clear();
    for (std::int64_t i = 0; i < problem.threads; ++i) merge_attention(args, i, problem.threads);
  };
  std::atomic<std::int64_t> next = 0;
  compute(&next);
  const std::vector<float> shared = std::exchange(output, std::vector<float>(output.size(), NAN));
  args.output = output.data();
  compute(nullptr);
  EXPECT_EQ(std::memcmp(shared.data(), output.data(), output.size() * sizeof(float)), 0)
      << "who takes a task changes its result";

  if (expected == nullptr) return output;
  const auto rounds = [&](DType type) { return problem.bf16_products && type == DType::kBF16; };
  const auto rounded = [](double value, bool round) {
    return round ? rounded_to_bf16(value) : value;
  };
  const bool round_k = rounds(problem.k_type);
  const bool round_v = rounds(args.v.type);
  const auto scale = static_cast<double>(problem.scale);
  expected->clear();
  for (std::size_t t = 0; t < problem.queries.size(); ++t) {
    for (std::size_t h = 0; h < size(shape.heads); ++h) {
      const float* query = q.data() + (t * size(shape.heads) + h) * size(shape.head_dim_k);
      const std::size_t kv_head = h / size(shape.heads / shape.kv_heads);
      std::vector<std::pair<double, std::size_t>> scores;
      double max = problem.sinks ? static_cast<double>(sinks[h]) : -1e300;
      for (std::size_t c = 0; c < cells; ++c) {
        if (!problem.sees(problem.queries[t], problem.cells[c])) continue;
        const std::vector<float>& key = k_rows[c * size(shape.kv_heads) + kv_head];
        double score = 0.0;
        for (std::size_t i = 0; i < key.size(); ++i) {
          score += rounded(static_cast<double>(query[i]) * scale, round_k) *
                   rounded(static_cast<double>(key[i]), round_k);
        }
        const auto cap = static_cast<double>(problem.soft_cap);
        if (cap != 0.0) score = cap * std::tanh(score / cap);
        scores.emplace_back(score, c);
        max = std::max(max, score);
      }
      double sum = problem.sinks ? std::exp(static_cast<double>(sinks[h]) - max) : 0.0;
      std::vector<double> row(size(shape.head_dim_v), 0.0);
      for (const auto& [score, c] : scores) {
        const double weight = std::exp(score - max);
        sum += weight;
        for (std::size_t i = 0; i < row.size(); ++i) {
          const float value = v_rows[c * size(shape.kv_heads) + kv_head][i];
          row[i] += weight * rounded(static_cast<double>(value), round_v);
        }
      }
      for (double& value : row) expected->push_back(sum > 0.0 ? value / sum : 0.0);
    }
  }
  return output;
}

void expect_right(const Problem& problem) {
  // Rounded weights are off by 2^-8 of themselves, at most.
  const double tolerance = problem.bf16_products ? 0x1p-8 : 2e-5;
  std::vector<double> expected;
  const std::vector<float> output = evaluate(problem, &expected);
  ASSERT_EQ(output.size(), expected.size());
  double worst = 0.0;
  for (std::size_t i = 0; i < output.size(); ++i) {
    const double error = std::abs(static_cast<double>(output[i]) - expected[i]);
    worst = std::isnan(error) ? 1e9 : std::max(worst, error);
  }
  EXPECT_LE(worst, tolerance);
}

void shuffle_cells(Problem& problem, unsigned seed) {
  std::shuffle(problem.cells.begin(), problem.cells.end(), std::mt19937(seed));
}

// Sequences of `length` positions that share the first `shared` and query the last `queries` of
// theirs, their cells shuffled among some that hold garbage.
Problem sequences(const AttentionShape& shape, int count, std::int32_t length, std::int32_t shared,
                  std::int32_t queries, std::int32_t start = 0) {
  Problem problem;
  problem.shape = shape;
  std::uint32_t content = 1;
  for (std::int32_t p = 0; p < length; ++p) {
    if (p < shared) {
      problem.cells.push_back({(1U << count) - 1, start + p, content++});
      continue;
    }
    for (int s = 0; s < count; ++s) problem.cells.push_back({1U << s, start + p, content++});
  }
  for (std::int32_t i = 0; i < 5 + length / 8; ++i) problem.cells.push_back({});
  for (int s = 0; s < count; ++s) {
    for (std::int32_t p = length - queries; p < length; ++p) {
      problem.queries.push_back({s, start + p, content++});
    }
  }
  shuffle_cells(problem, 1);
  return problem;
}

// Every token alone, elsewhere in the cache and on other threads gives the same bits.
void expect_reproducible(const Problem& problem) {
  const std::vector<float> together = evaluate(problem);
  const auto row = together.size() / problem.queries.size();
  const auto same = [](const float* a, const float* b, std::size_t count) {
    return std::memcmp(a, b, count * sizeof(float)) == 0;
  };
  for (const std::int64_t threads : {2, 3, 7}) {
    Problem other = problem;
    other.threads = threads;
    EXPECT_TRUE(same(together.data(), evaluate(other).data(), together.size())) << threads;
  }
  Problem other = problem;
  other.all_partials = false;
  EXPECT_TRUE(same(together.data(), evaluate(other).data(), together.size())) << "as a long run";
  if (problem.positions) {
    other = problem;
    shuffle_cells(other, 2);
    other.cells.insert(other.cells.begin(), 77, Cell{});
    EXPECT_TRUE(same(together.data(), evaluate(other).data(), together.size())) << "moved";
  }
  const std::size_t step = std::max<std::size_t>(1, problem.queries.size() / 12);
  for (std::size_t t = 0; t < problem.queries.size(); t += step) {
    other = problem;
    other.queries = {problem.queries[t]};
    if (problem.positions && problem.causal) {
      // As if the tokens behind it had not been evaluated yet.
      std::erase_if(other.cells,
                    [&](const Cell& cell) { return !problem.sees(problem.queries[t], cell); });
    }
    if (other.cells.empty()) continue;
    EXPECT_TRUE(same(together.data() + t * row, evaluate(other).data(), row)) << "token " << t;
  }
  for (const std::size_t length : {2UL, 9UL, 40UL}) {  // in chunks
    for (std::size_t t = 0; t < problem.queries.size(); t += length) {
      other = problem;
      const auto count = std::min(length, problem.queries.size() - t);
      other.queries.assign(problem.queries.begin() + static_cast<std::ptrdiff_t>(t),
                           problem.queries.begin() + static_cast<std::ptrdiff_t>(t + count));
      EXPECT_TRUE(same(together.data() + t * row, evaluate(other).data(), count * row))
          << "chunk of " << length << " at " << t;
    }
  }
}

// On each target, with products of f32 and of bf16.
class AttentionTest : public testing::TestWithParam<std::tuple<std::int64_t, bool>> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(std::get<0>(GetParam())); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
  static bool slow() { return std::get<0>(GetParam()) == HWY_EMU128; }

  static Problem sequences(const AttentionShape& shape, int count, std::int32_t length,
                           std::int32_t shared, std::int32_t queries, std::int32_t start = 0) {
    Problem problem = kernels::sequences(shape, count, length, shared, queries, start);
    if (std::get<1>(GetParam())) {
      problem.bf16_products = true;
      problem.k_type = problem.v_type = DType::kBF16;
    }
    return problem;
  }
};

INSTANTIATE_TEST_SUITE_P(Targets, AttentionTest,
                         testing::Combine(testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                                          testing::Bool()),
                         [](const auto& info) {
                           const bool bf16 = std::get<1>(info.param);
                           return std::string(bf16 ? "BF16_" : "") +
                                  hwy::TargetName(std::get<0>(info.param));
                         });

TEST_P(AttentionTest, EveryPairOfTypes) {
  const DType types[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0};
  for (const DType k : types) {
    for (const DType v : types) {
      SCOPED_TRACE(std::to_string(static_cast<int>(k)) + " " + std::to_string(static_cast<int>(v)));
      Problem problem = sequences({64, 32, 4, 2, 0, 0}, 1, 90, 0, 11);
      problem.k_type = k;
      problem.v_type = v;
      expect_right(problem);
      problem.queries.resize(1);
      expect_right(problem);
    }
  }
}

TEST_P(AttentionTest, HeadSizes) {
  const std::pair<int, int> sizes[] = {{1, 1},     {8, 8},     {16, 16},   {7, 9},     {24, 40},
                                       {80, 80},   {96, 96},   {128, 128}, {192, 128}, {256, 256},
                                       {576, 512}, {100, 100}, {33, 65}};
  for (const auto& [k, v] : sizes) {
    SCOPED_TRACE(std::to_string(k) + "/" + std::to_string(v));
    expect_right(sequences({k, v, 4, 2, 0, 0}, 1, 70, 0, 12));
    expect_right(sequences({k, v, 4, 2, 0, 0}, 1, 70, 0, 2));
  }
}

TEST_P(AttentionTest, LatentAttentionSharesItsCache) {
  Problem problem = sequences({96, 64, 5, 1, 0, 0}, 1, 300, 0, 20);
  problem.latent = true;
  expect_right(problem);
  expect_reproducible(problem);
}

TEST_P(AttentionTest, GroupsAndCounts) {
  for (const auto& [heads, kv_heads] : {std::pair{1, 1}, {3, 3}, {6, 2}, {7, 1}, {20, 1}}) {
    for (const int tokens : {1, 3, 8, 9, 33}) {
      SCOPED_TRACE(std::to_string(heads) + " heads, " + std::to_string(tokens) + " tokens");
      Problem problem = sequences({16, 16, heads, kv_heads, 0, 0}, 1, 64 + tokens, 0, tokens);
      problem.threads = 2;
      expect_right(problem);
      problem.mask_type = DType::kF32;
      problem.positions = false;
      expect_right(problem);
    }
  }
}

TEST_P(AttentionTest, DoesNotDependOnBatchPlaceOrThreads) {
  const int length = slow() ? 300 : 700;
  for (const int queries : {1, 4, 70}) {
    for (const int start : {0, 37, 1000}) {
      SCOPED_TRACE(std::to_string(queries) + " queries at " + std::to_string(start));
      Problem problem = sequences({32, 32, 4, 2, 0, 0}, 1, length, 0, queries, start);
      expect_right(problem);
      expect_reproducible(problem);
      problem.window = 100;
      problem.sinks = true;
      expect_right(problem);
      expect_reproducible(problem);
    }
  }
}

// So many splits and heads that a task has a few of each, whose rows are read beside each other.
TEST_P(AttentionTest, ManyHeads) {
  for (const int queries : {1, 3}) {
    Problem problem = sequences({33, 24, 16, 8, 0, 0}, 1, slow() ? 300 : 700, 0, queries, 5);
    problem.soft_cap = 3.0F;
    problem.scale = 1.0F;
    expect_right(problem);
    expect_reproducible(problem);
    problem.v_type = DType::kF32;
    problem.window = 99;
    expect_right(problem);
    expect_reproducible(problem);
  }
}

TEST_P(AttentionTest, SequencesThatShareAPrefix) {
  for (const int queries : {1, 2, 20}) {
    Problem problem = sequences({24, 40, 4, 2, 0, 0}, 5, 150, 90, queries, 10);
    problem.k_type = DType::kF32;
    problem.v_type = DType::kBF16;
    expect_right(problem);
    expect_reproducible(problem);
    std::shuffle(problem.queries.begin(), problem.queries.end(), std::mt19937(3));
    expect_right(problem);
    expect_reproducible(problem);
  }
}

TEST_P(AttentionTest, QuantizedCacheIsReproducible) {
  Problem problem = sequences({64, 64, 4, 2, 0, 0}, 2, 200, 20, 30);
  problem.k_type = DType::kQ8_0;
  problem.v_type = DType::kQ4_0;
  problem.soft_cap = 3.0F;
  problem.scale = 1.0F;
  expect_right(problem);
  expect_reproducible(problem);
}

TEST_P(AttentionTest, TokensThatSeeNothing) {
  for (const bool sinks : {false, true}) {
    Problem problem = sequences({16, 24, 4, 2, 0, 0}, 1, 100, 0, 30);
    problem.sinks = sinks;
    problem.queries[0].position = -1;
    problem.queries[7].position = -1;
    problem.queries[29].position = -1;
    expect_right(problem);
    expect_reproducible(problem);
    problem.queries = {{0, -1, 1}};
    expect_right(problem);
  }
}

TEST_P(AttentionTest, AllTokensSeeEachOther) {
  Problem problem = sequences({16, 16, 2, 1, 0, 0}, 2, 100, 10, 40);
  problem.causal = false;
  expect_right(problem);
  expect_reproducible(problem);
}

// Masks without any order: each token sees its own random cells.
TEST_P(AttentionTest, RandomMasks) {
  std::mt19937 random(5);
  for (int round = 0; round < 6; ++round) {
    Problem problem = sequences({16, 16, 4, 2, 0, 0}, 8, 60, 20, round < 3 ? 3 : 12, 200 * round);
    for (Cell& cell : problem.cells) {
      if (cell.sequences != 0) cell.sequences = static_cast<unsigned>(random()) & 0xFFU;
      if (round % 2 == 1) cell.position = static_cast<std::int32_t>(random() % 70);  // twice
    }
    problem.causal = round % 3 != 2;
    problem.threads = 3;
    expect_right(problem);
  }
}

TEST_P(AttentionTest, PositionsFarApart) {
  Problem problem = sequences({16, 16, 4, 2, 0, 0}, 2, 100, 10, 20);
  for (Cell& cell : problem.cells) cell.position *= 1'000'000;
  for (Query& query : problem.queries) query.position *= 1'000'000;
  problem.threads = 2;
  expect_right(problem);
  problem.window = 10'000'000;
  expect_right(problem);
}

// More runs than the plan has lists for, each of the longest kind.
TEST_P(AttentionTest, MoreSequencesThanLists) {
  Problem problem = sequences({8, 8, 2, 1, 0, 0}, 1, 600, 0, 1);
  const std::uint32_t content = 100'000;
  for (std::uint32_t i = 0; i < 100; ++i) problem.queries.push_back({0, 500 - int(i), content + i});
  expect_right(problem);
  expect_reproducible(problem);
}

// A later token's values that have overflown must not reach those before it.
TEST_P(AttentionTest, InfiniteValuesStayWithThoseWhoSeeThem) {
  for (const int queries : {3, 30}) {
    Problem problem = sequences({16, 40, 4, 2, 0, 0}, 1, 150, 0, queries);
    // The emulation knows no infinite f16.
    problem.v_type = problem.bf16_products ? DType::kBF16 : DType::kF32;
    const std::vector<float> before = evaluate(problem);
    const std::size_t row = before.size() / problem.queries.size();
    // Beside a position that others see, before and after it.
    for (const int overflown : {148, 149}) {
      for (Cell& cell : problem.cells) {
        cell.overflown = cell.sequences != 0 && cell.position == overflown;
      }
      const std::vector<float> after = evaluate(problem);
      const std::size_t untouched = before.size() - static_cast<std::size_t>(150 - overflown) * row;
      EXPECT_EQ(std::memcmp(before.data(), after.data(), untouched * sizeof(float)), 0);
      EXPECT_FALSE(std::isfinite(after[untouched]));
    }
  }
  // No longer seen by the last token, in a window that begins with the other of its pair.
  Problem problem = sequences({16, 40, 4, 2, 0, 0}, 1, 150, 0, 30);
  problem.v_type = problem.bf16_products ? DType::kBF16 : DType::kF32;
  problem.window = 21;  // of position 149: from 129 on
  const std::vector<float> before = evaluate(problem);
  for (Cell& cell : problem.cells) cell.overflown = cell.sequences != 0 && cell.position == 128;
  const std::vector<float> after = evaluate(problem);
  const std::size_t last = before.size() - before.size() / problem.queries.size();
  EXPECT_EQ(std::memcmp(&before[last], &after[last], (before.size() - last) * sizeof(float)), 0);
  EXPECT_FALSE(std::isfinite(after[last - 1]));
}

TEST_P(AttentionTest, HugeScores) {
  Problem problem = sequences({16, 16, 4, 2, 0, 0}, 1, 300, 0, 12);
  problem.k_type = DType::kF32;
  problem.scale = 1.0F;
  for (const float magnitude : {1e4F, 1e20F, 1e37F}) {
    problem.magnitude = magnitude;
    for (const float value : evaluate(problem)) ASSERT_LE(std::abs(value), 1.0F);
    expect_reproducible(problem);
  }
  problem.soft_cap = 30.0F;
  for (const float value : evaluate(problem)) ASSERT_LE(std::abs(value), 1.0F);
  problem.sinks = true;
  problem.magnitude = 1e-30F;
  expect_right(problem);
}

}  // namespace
}  // namespace ollama::ml::kernels

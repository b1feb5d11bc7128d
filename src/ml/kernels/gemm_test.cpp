#include "ml/kernels/gemm.h"

#include <ggml.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "ml/kernels/targets.h"
// After it.
#include <hwy/targets.h>

namespace ollama::ml::kernels {
namespace {

constexpr DType kTypes[] = {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,   DType::kQ8_0,
                            DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kMXFP4,
                            DType::kF16,  DType::kBF16, DType::kF32};

// Weights in a type, as GGML quantises them.
struct Matrix {
  DType type;
  std::int64_t k;
  std::int64_t m;
  std::vector<std::byte> plain;
  std::vector<std::byte> packed;
  std::vector<float> values;  // what `plain` stands for

  Matrix(DType t, std::int64_t columns, std::int64_t rows, std::span<const float> from)
      : type(t),
        k(columns),
        m(rows),
        plain(row_size(t, columns) * static_cast<std::size_t>(rows)),
        packed(packed_size(t, columns, rows)),
        values(from.size()) {
    const auto raw = static_cast<ggml_type>(type);
    ggml_quantize_chunk(raw, from.data(), plain.data(), 0, m, k, nullptr);
    if (type == DType::kF32) {
      std::memcpy(values.data(), plain.data(), plain.size());
    } else {
      ggml_get_type_traits(raw)->to_float(plain.data(), values.data(), k * m);
    }
    // In two parts, as two threads do it.
    const std::int64_t groups = view().groups();
    pack_weights(type, k, m, plain, packed.data(), groups / 2, groups);
    pack_weights(type, k, m, plain, packed.data(), 0, groups / 2);
  }
  PackedWeights view() const { return {.type = type, .k = k, .m = m, .data = packed.data()}; }
};

std::vector<float> normal(std::size_t count, unsigned seed, float scale = 1.0F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution(0.0F, scale);
  std::vector<float> values(count);
  for (float& value : values) value = distribution(random);
  return values;
}

std::vector<std::byte> packed_columns(DType type, std::int64_t k, std::int64_t n,
                                      const Columns& columns) {
  const ActivationKind kind = activation_kind(type);
  std::vector<std::byte> packed(activation_size(kind, k, n));
  const std::int64_t tiles = (n + kTileColumns - 1) / kTileColumns;
  pack_activations(kind, k, n, columns, packed.data(), tiles / 2, tiles);
  pack_activations(kind, k, n, columns, packed.data(), 0, tiles / 2);
  return packed;
}

// The product, dealt out to `threads` one after the other.
std::vector<float> product(const Matrix& w, const std::vector<float>& x, std::int64_t n,
                           std::int64_t threads = 1) {
  const auto activations = packed_columns(w.type, w.k, n, {.data = x.data(), .stride = w.k});
  // What is not written stays NaN.
  std::vector<float> c(static_cast<std::size_t>(w.m * n), NAN);
  const std::int64_t groups = w.view().groups();
  for (std::int64_t i = 0; i < threads; ++i) {
    gemm({.weights = w.view(),
          .activations = activations.data(),
          .n = n,
          .c = c.data(),
          .c_stride = w.m},
         groups * i / threads, groups * (i + 1) / threads);
  }
  return c;
}

std::vector<double> exact(const Matrix& w, std::span<const float> x, std::int64_t n) {
  std::vector<double> c;
  for (std::int64_t j = 0; j < n; ++j) {
    for (std::int64_t i = 0; i < w.m; ++i) {
      double sum = 0;
      for (std::int64_t l = 0; l < w.k; ++l) {
        sum += double{w.values[static_cast<std::size_t>(i * w.k + l)]} *
               double{x[static_cast<std::size_t>(j * w.k + l)]};
      }
      c.push_back(sum);
    }
  }
  return c;
}

double distance(std::span<const float> a, std::span<const double> b) {
  double error = 0;
  double size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(error / size);
}

double length(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += double{value} * double{value};
  return std::sqrt(sum);
}

// GGML's own dot products, as its CPU kernels quantise their activations.
double ggml_distance(const Matrix& w, std::span<const float> x, std::int64_t n,
                     std::span<const double> want) {
  // Q8_0, or Q8_K for K-quants; f16 and bf16 round activations to their own type.
  const auto rounded = [&](std::span<const float> column, std::vector<float>& to) {
    ggml_type type = GGML_TYPE_Q8_0;
    if (w.type == DType::kF16 || w.type == DType::kBF16 || w.type == DType::kF32) {
      type = static_cast<ggml_type>(w.type);
    }
    std::vector<std::byte> bytes(ggml_row_size(type, w.k));
    ggml_quantize_chunk(type, column.data(), bytes.data(), 0, 1, w.k, nullptr);
    to.assign(column.begin(), column.end());
    if (type != GGML_TYPE_F32) ggml_get_type_traits(type)->to_float(bytes.data(), to.data(), w.k);
  };
  std::vector<float> c;
  std::vector<float> column;
  for (std::int64_t j = 0; j < n; ++j) {
    rounded(x.subspan(static_cast<std::size_t>(j * w.k), static_cast<std::size_t>(w.k)), column);
    for (std::int64_t i = 0; i < w.m; ++i) {
      // 32 sums, as registers have them.
      float sums[32] = {};
      for (std::int64_t l = 0; l < w.k; ++l) {
        sums[l % 32] = std::fma(w.values[static_cast<std::size_t>(i * w.k + l)],
                                column[static_cast<std::size_t>(l)], sums[l % 32]);
      }
      float sum = 0;
      for (const float part : sums) sum += part;
      c.push_back(sum);
    }
  }
  return distance(c, want);
}

class OnTarget : public testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};

std::vector<std::int64_t> targets() { return hwy::SupportedAndGeneratedTargets(); }
INSTANTIATE_TEST_SUITE_P(Gemm, OnTarget, testing::ValuesIn(targets()),
                         [](const auto& info) { return std::string(hwy::TargetName(info.param)); });

TEST_P(OnTarget, IsTheProduct) {
  for (const DType type : kTypes) {
    for (const auto& [k, m, n] : {std::array<std::int64_t, 3>{256, 1, 1},
                                  {512, 33, 3},
                                  {1280, 16, 9},
                                  {256, 47, 21},
                                  {256, 20, 131}}) {
      SCOPED_TRACE(std::string(dtype_name(type)) + " " + std::to_string(k) + " " +
                   std::to_string(m) + " " + std::to_string(n));
      const Matrix w(type, k, m, normal(static_cast<std::size_t>(k * m), 1));
      const std::vector<float> x = normal(static_cast<std::size_t>(k * n), 2, 3.0F);
      const std::vector<float> got = product(w, x, n);
      const std::vector<double> want = exact(w, x, n);
      const bool rounds = activation_kind(type) == ActivationKind::kInt8;
      // An activation is off by at most half of a 127th of its block's largest. A dot product may
      // be near zero by chance: what counts is the vectors' size.
      for (std::size_t i = 0; i < got.size(); ++i) {
        const auto row = i % static_cast<std::size_t>(m) * static_cast<std::size_t>(k);
        const auto column = i / static_cast<std::size_t>(m) * static_cast<std::size_t>(k);
        const double size = length(std::span(w.values).subspan(row, static_cast<std::size_t>(k))) *
                            length(std::span(x).subspan(column, static_cast<std::size_t>(k)));
        ASSERT_NEAR(got[i], want[i], size * (rounds ? 0.004 : 1e-6));
      }
    }
  }
}

// Weights whose dot products with quantised activations are known exactly: integers.
TEST_P(OnTarget, TakesTheWidestQuants) {
  for (const DType type : kTypes) {
    constexpr std::int64_t kK = 512;
    constexpr std::int64_t kM = 17;
    for (const float sign : {1.0F, -1.0F}) {
      std::vector<float> from(kK * kM);
      std::vector<float> x(kK);
      // All at the ends of the range, so that sums are the largest there can be.
      for (std::size_t i = 0; i < from.size(); ++i) from[i] = i % 32 == 7 ? -1.0F : 0.99F;
      for (float& value : x) value = sign;
      const Matrix w(type, kK, kM, from);
      const std::vector<float> got = product(w, x, 1);
      EXPECT_LT(distance(got, exact(w, x, 1)), 1e-5) << dtype_name(type) << sign;
    }
  }
}

// A file may have a byte that quantising never writes, whose pairs of products only just fit into
// 16 bits.
TEST_P(OnTarget, TakesTheSmallestByte) {
  constexpr std::int64_t kK = 64;
  constexpr std::int64_t kM = 17;
  Matrix w(DType::kQ8_0, kK, kM, normal(kK * kM, 12));
  const std::size_t block = row_size(DType::kQ8_0, kBlock);
  for (std::size_t i = 0; i < w.plain.size(); ++i) {
    if (i % block >= 2) w.plain[i] = std::byte{0x80};
  }
  ggml_get_type_traits(GGML_TYPE_Q8_0)->to_float(w.plain.data(), w.values.data(), kK * kM);
  pack_weights(w.type, kK, kM, w.plain, w.packed.data(), 0, w.view().groups());
  for (const float sign : {1.0F, -1.0F}) {
    const std::vector<float> x(kK, sign);
    EXPECT_LT(distance(product(w, x, 1), exact(w, x, 1)), 1e-5) << sign;
  }
}

TEST_P(OnTarget, IsNoLessAccurateThanGgml) {
  for (const DType type : kTypes) {
    constexpr std::int64_t kK = 2048;
    constexpr std::int64_t kM = 64;
    const std::int64_t n = 8;
    const Matrix w(type, kK, kM, normal(kK * kM, 3));
    const std::vector<float> x = normal(static_cast<std::size_t>(kK * n), 4);
    const std::vector<double> want = exact(w, x, n);
    // A tenth for chance where both do the same.
    EXPECT_LE(distance(product(w, x, n), want), 1.1 * ggml_distance(w, x, n, want))
        << dtype_name(type);
  }
}

TEST_P(OnTarget, GivesAColumnTheSameBitsInAnyCompany) {
  for (const DType type : kTypes) {
    constexpr std::int64_t kK = 2304;  // more than a panel, and not a whole number of them
    constexpr std::int64_t kM = 40;
    constexpr std::int64_t kN = 19;
    const Matrix w(type, kK, kM, normal(kK * kM, 5));
    const std::vector<float> x = normal(kK * kN, 6);
    const std::vector<float> all = product(w, x, kN);
    EXPECT_EQ(product(w, x, kN, 3), all) << dtype_name(type);
    for (const std::int64_t n : {1, 2, 3, 4, 5, 8, 11}) {
      for (const std::int64_t from : {0, 6}) {
        const std::vector<float> some(x.begin() + from * kK, x.begin() + (from + n) * kK);
        const std::vector<float> expected(all.begin() + from * kM, all.begin() + (from + n) * kM);
        EXPECT_EQ(product(w, some, n), expected) << dtype_name(type) << " " << n;
      }
    }
  }
}

TEST_P(OnTarget, GathersAndScattersColumns) {
  constexpr std::int64_t kK = 256;
  constexpr std::int64_t kM = 24;
  const Matrix w(DType::kQ4_K, kK, kM, normal(kK * kM, 7));
  const std::vector<float> x = normal(kK * 3, 8);
  const std::vector<float> all = product(w, x, 3);
  // Slots of pairs: each column of x serves two of the result.
  const std::vector<std::int32_t> order = {5, 0, 3, 1, 4};
  const auto activations = packed_columns(
      w.type, kK, 5, {.data = x.data(), .stride = kK, .order = order.data(), .divisor = 2});
  std::vector<float> c(kM * 6, -1.0F);
  gemm({.weights = w.view(),
        .activations = activations.data(),
        .n = 5,
        .c = c.data(),
        .c_stride = kM,
        .order = order.data()},
       0, w.view().groups());
  for (std::int64_t slot = 0; slot < 6; ++slot) {
    for (std::int64_t i = 0; i < kM; ++i) {
      const float want = slot == 2 ? -1.0F : all[static_cast<std::size_t>(slot / 2 * kM + i)];
      EXPECT_EQ(c[static_cast<std::size_t>(slot * kM + i)], want) << slot;
    }
  }
}

TEST_P(OnTarget, TakesZerosAndSparseActivations) {
  for (const DType type : kTypes) {
    const Matrix w(type, 256, 16, normal(256 * 16, 9));
    std::vector<float> x(512, 0.0F);
    x[256 + 40] = 1e-30F;  // alone in its block
    const std::vector<float> got = product(w, x, 2);
    for (std::size_t i = 0; i < 16; ++i) {
      EXPECT_EQ(got[i], 0.0F) << dtype_name(type);
      EXPECT_NEAR(got[16 + i], w.values[i * 256 + 40] * 1e-30F, 1e-35F) << dtype_name(type);
    }
  }
}

TEST(Packed, TakesNoMoreRoomThanTheFile) {
  for (const DType type : kTypes) {
    EXPECT_EQ(packed_size(type, 2048, 4096), row_size(type, 2048) * 4096) << dtype_name(type);
  }
}

TEST(Packed, SaysWhatItCannotPack) {
  EXPECT_FALSE(can_pack(DType::kQ2_K, 256));
  EXPECT_FALSE(can_pack(DType::kI32, 256));
  EXPECT_FALSE(can_pack(DType::kQ4_K, 128));
  EXPECT_FALSE(can_pack(DType::kQ4_0, 40));
  EXPECT_FALSE(can_pack(DType::kF32, 0));
  for (const DType type : kTypes) EXPECT_TRUE(can_pack(type, 512));
  EXPECT_TRUE(can_pack(DType::kF16, 7));
}

// Every bit of a file's blocks counts, also where quantising would not put it.
TEST_P(OnTarget, ReadsEveryBitOfABlock) {
  for (const DType type : kTypes) {
    if (activation_kind(type) == ActivationKind::kFloat) continue;
    constexpr std::int64_t kK = 512;
    constexpr std::int64_t kM = 20;
    Matrix w(type, kK, kM, normal(kK * kM, 10));
    // Random blocks between the scales, which stay finite.
    std::mt19937 random(11);
    const std::size_t block = row_size(type, block_size(type));
    const std::size_t begin = type == DType::kMXFP4 || type == DType::kQ6_K
                                  ? (type == DType::kQ6_K ? 0 : 1)
                              : type == DType::kQ4_K || type == DType::kQ5_K ||
                                      type == DType::kQ4_1 || type == DType::kQ5_1
                                  ? 4
                                  : 2;
    const std::size_t end = type == DType::kQ6_K ? block - 2 : block;
    for (std::size_t at = 0; at < w.plain.size(); at += block) {
      for (std::size_t i = begin; i < end; ++i) w.plain[at + i] = static_cast<std::byte>(random());
    }
    ggml_get_type_traits(static_cast<ggml_type>(type))
        ->to_float(w.plain.data(), w.values.data(), kK * kM);
    pack_weights(type, kK, kM, w.plain, w.packed.data(), 0, w.view().groups());
    // One element a block is one, the others are zero: the product is the weight itself.
    for (std::int64_t at = 0; at < kBlock; ++at) {
      std::vector<float> x(kK, 0.0F);
      const std::int64_t only = (at * 7 % (kK / kBlock)) * kBlock + at;
      x[static_cast<std::size_t>(only)] = 1.0F;
      const std::vector<float> got = product(w, x, 1);
      for (std::int64_t row = 0; row < kM; ++row) {
        const float want = w.values[static_cast<std::size_t>(row * kK + only)];
        // The offset's product is subtracted again: what is left of it is rounding.
        EXPECT_NEAR(got[static_cast<std::size_t>(row)], want, 1e-5F * (std::abs(want) + 1.0F))
            << dtype_name(type) << " row " << row << " element " << only;
      }
    }
  }
}

}  // namespace
}  // namespace ollama::ml::kernels

#include "ml/reference/operations.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <vector>

namespace ollama::ml::reference {
namespace {

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// Towards zero; 0 for what no integer stands for.
std::int64_t truncated(float value) {
  constexpr float kLimit = 9.0e18F;
  return std::abs(value) < kLimit ? static_cast<std::int64_t>(value) : 0;
}

// The index of a row that the graph was given as data.
Result<std::int64_t> row_index(std::int64_t index, std::int64_t rows) {
  if (index < 0 || index >= rows)
    return fail(ErrorCode::kInternal, "row {} of {} rows", index, rows);
  return index;
}

// The sum of w's row and x's row, multiplied.
double dot(const Node& w, std::size_t w_row, const Node& x, std::size_t x_row) {
  const float* const a = w.buffer->floats.data() + w_row;
  const float* const b = x.buffer->floats.data() + x_row;
  double sum = 0.0;
  for (std::int64_t i = 0; i < w.shape[0]; ++i)
    sum += static_cast<double>(a[i * w.strides[0]]) * static_cast<double>(b[i * x.strides[0]]);
  return sum;
}

// Writes row into the row of `out`, as its type keeps it.
void store_row(const Node& out, std::vector<float>& row, std::int64_t i1, std::int64_t i2,
               std::int64_t i3) {
  round_row(out.dtype, row);
  for (std::int64_t i0 = 0; i0 < out.shape[0]; ++i0)
    out.at(i0, i1, i2, i3) = row[static_cast<std::size_t>(i0)];
}

// --- YaRN (Peng et al. 2023, section 3.2), as ggml_rope_ext parametrises it ---

// The pair (a fraction of one, too) whose wave makes `rotations` turns within the original context.
double pair_of_rotations(double rotations, const RopeOptions& options) {
  return options.dimensions *
         std::log(options.original_context / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(static_cast<double>(options.base)));
}

// How much of a pair is extrapolated: all of it below `low`, nothing above `high`.
struct Ramp {
  double low = 0.0;
  double high = 0.0;
  double of_pair(std::int64_t pair) const {
    const double y = (static_cast<double>(pair) - low) / std::max(0.001, high - low);
    return 1.0 - std::clamp(y, 0.0, 1.0);
  }
};

}  // namespace

float activated(float value, Activation activation) {
  const double x = static_cast<double>(value);
  double y = 0.0;
  switch (activation) {
    case Activation::kSilu:
      y = x * sigmoid(x);
      break;
    case Activation::kGelu:  // Hendrycks and Gimpel 2016, by tanh
      y = 0.5 * x *
          (1.0 + std::tanh(std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
      break;
    case Activation::kGeluQuick:
      y = x * sigmoid(1.702 * x);
      break;
    case Activation::kGeluErf:
      y = 0.5 * x * (1.0 + std::erf(x / std::numbers::sqrt2));
      break;
    case Activation::kRelu:
      y = std::max(x, 0.0);
      break;
    case Activation::kTanh:
      y = std::tanh(x);
      break;
    case Activation::kSigmoid:
      y = sigmoid(x);
      break;
    case Activation::kSoftplus:
      y = std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
      break;
  }
  return static_cast<float>(y);
}

void sum_rows(const Node& out, const Node& a) {
  for_rows(a.shape, [&](auto i1, auto i2, auto i3) {
    double sum = 0.0;
    for (std::int64_t i = 0; i < a.shape[0]; ++i) sum += static_cast<double>(a.at(i, i1, i2, i3));
    out.at(0, i1, i2, i3) = static_cast<float>(sum);
  });
}

void rms_norm(const Node& out, const Node& a, float epsilon) {
  const std::int64_t n = a.shape[0];
  for_rows(a.shape, [&](auto i1, auto i2, auto i3) {
    double squares = 0.0;
    for (std::int64_t i = 0; i < n; ++i)
      squares += std::pow(static_cast<double>(a.at(i, i1, i2, i3)), 2);
    const double factor =
        1.0 / std::sqrt(squares / static_cast<double>(n) + static_cast<double>(epsilon));
    for (std::int64_t i = 0; i < n; ++i)
      out.at(i, i1, i2, i3) = static_cast<float>(static_cast<double>(a.at(i, i1, i2, i3)) * factor);
  });
}

void layer_norm(const Node& out, const Node& a, float epsilon) {
  const std::int64_t n = a.shape[0];
  for_rows(a.shape, [&](auto i1, auto i2, auto i3) {
    double mean = 0.0;
    for (std::int64_t i = 0; i < n; ++i) mean += static_cast<double>(a.at(i, i1, i2, i3));
    mean /= static_cast<double>(n);
    double squares = 0.0;
    for (std::int64_t i = 0; i < n; ++i)
      squares += std::pow(static_cast<double>(a.at(i, i1, i2, i3)) - mean, 2);
    const double factor =
        1.0 / std::sqrt(squares / static_cast<double>(n) + static_cast<double>(epsilon));
    for (std::int64_t i = 0; i < n; ++i)
      out.at(i, i1, i2, i3) =
          static_cast<float>((static_cast<double>(a.at(i, i1, i2, i3)) - mean) * factor);
  });
}

void softmax(const Node& out, const Node& a, const Node* mask, const Node* sinks, float scale) {
  constexpr double kNothing = -std::numeric_limits<double>::infinity();
  std::vector<double> logits(static_cast<std::size_t>(a.shape[0]));
  for_rows(a.shape, [&](auto i1, auto i2, auto i3) {
    double largest = sinks != nullptr ? static_cast<double>(sinks->at(i2, 0)) : kNothing;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const auto i0 = static_cast<std::int64_t>(i);
      logits[i] = static_cast<double>(a.at(i0, i1, i2, i3)) * static_cast<double>(scale);
      if (mask != nullptr)
        logits[i] +=
            static_cast<double>(mask->at(i0, i1, i2 % mask->shape[2], i3 % mask->shape[3]));
      largest = std::max(largest, logits[i]);
    }
    // exp(-inf - -inf) would be NaN: a row with nothing in it weighs nothing.
    const auto weight = [&](double logit) {
      return logit == kNothing ? 0.0 : std::exp(logit - largest);
    };
    double sum = sinks != nullptr ? weight(static_cast<double>(sinks->at(i2, 0))) : 0.0;
    for (const double logit : logits) sum += weight(logit);
    for (std::size_t i = 0; i < logits.size(); ++i)
      out.at(static_cast<std::int64_t>(i), i1, i2, i3) =
          sum == 0.0 ? 0.0F : static_cast<float>(weight(logits[i]) / sum);
  });
}

void rope(const Node& out, const Node& x, const Node& positions, const Node* factors,
          const RopeOptions& options) {
  const bool yarn = options.extrapolation != 0.0F;
  const double frequency_scale = static_cast<double>(options.scale);
  double magnitude = static_cast<double>(options.attention_factor);
  Ramp ramp;
  if (yarn) {
    ramp.low = std::max(
        0.0, std::floor(pair_of_rotations(static_cast<double>(options.beta_fast), options)));
    ramp.high =
        std::min(options.dimensions - 1.0,
                 std::ceil(pair_of_rotations(static_cast<double>(options.beta_slow), options)));
    // The paper's temperature; GGML applies it on top of the factor that it is given.
    magnitude *= 1.0 + 0.1 * std::log(1.0 / frequency_scale);
  }

  const std::int64_t pairs = options.dimensions / 2;
  for_rows(x.shape, [&](auto head, auto token, auto i3) {
    for (std::int64_t i = 0; i < x.shape[0]; ++i)
      out.at(i, head, token, i3) = x.at(i, head, token, i3);
    for (std::int64_t pair = 0; pair < pairs; ++pair) {
      double extrapolated = static_cast<double>(positions.integer_at(token, 0)) *
                            std::pow(static_cast<double>(options.base),
                                     -2.0 * static_cast<double>(pair) / options.dimensions);
      if (factors != nullptr) extrapolated /= static_cast<double>(factors->at(pair, 0));
      const double mix = yarn ? ramp.of_pair(pair) * static_cast<double>(options.extrapolation) : 0;
      const double angle = frequency_scale * extrapolated * (1.0 - mix) + extrapolated * mix;
      const double cosine = std::cos(angle) * magnitude;
      const double sine = std::sin(angle) * magnitude;
      const std::int64_t first = options.neox ? pair : 2 * pair;
      const std::int64_t second = options.neox ? pair + pairs : 2 * pair + 1;
      const double a = static_cast<double>(x.at(first, head, token, i3));
      const double b = static_cast<double>(x.at(second, head, token, i3));
      out.at(first, head, token, i3) = static_cast<float>(a * cosine - b * sine);
      out.at(second, head, token, i3) = static_cast<float>(a * sine + b * cosine);
    }
  });
}

void mul_mat(const Node& out, const Node& w, const Node& x) {
  for_elements(out.shape, [&](auto row, auto column, auto i2, auto i3) {
    const std::int64_t w2 = i2 / (x.shape[2] / w.shape[2]);
    const std::int64_t w3 = i3 / (x.shape[3] / w.shape[3]);
    out.at(row, column, i2, i3) =
        static_cast<float>(dot(w, w.index(0, row, w2, w3), x, x.index(0, column, i2, i3)));
  });
}

Result<> mul_mat_id(const Node& out, const Node& w, const Node& x, const Node& ids) {
  for (std::int64_t token = 0; token < out.shape[2]; ++token) {
    for (std::int64_t used = 0; used < out.shape[1]; ++used) {
      OLLAMA_ASSIGN(const auto expert, row_index(ids.integer_at(used, token), w.shape[2]));
      const std::size_t column = x.index(0, used % x.shape[1], token, 0);
      for (std::int64_t row = 0; row < out.shape[0]; ++row)
        out.at(row, used, token) =
            static_cast<float>(dot(w, w.index(0, row, expert, 0), x, column));
    }
  }
  return {};
}

Result<> add_id(const Node& out, const Node& a, const Node& b, const Node& ids) {
  for (std::int64_t token = 0; token < out.shape[2]; ++token) {
    for (std::int64_t used = 0; used < out.shape[1]; ++used) {
      OLLAMA_ASSIGN(const auto row, row_index(ids.integer_at(used, token), b.shape[1]));
      for (std::int64_t i = 0; i < out.shape[0]; ++i)
        out.at(i, used, token) = a.at(i, used, token) + b.at(i, row);
    }
  }
  return {};
}

void top_k(const Node& out, const Node& a) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(a.shape[0]));
  for_rows(a.shape, [&](auto i1, auto i2, auto i3) {
    // NaN has no order, so it is the least.
    const auto rank = [&](std::int64_t i) {
      const float value = a.at(i, i1, i2, i3);
      return std::isnan(value) ? -std::numeric_limits<float>::infinity() : value;
    };
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, std::greater<>{}, rank);
    for (std::int64_t i = 0; i < out.shape[0]; ++i)
      out.integer_at(i, i1, i2, i3) = order[static_cast<std::size_t>(i)];
  });
}

Result<> get_rows(const Node& out, const Node& a, const Node& ids) {
  for (std::int64_t i3 = 0; i3 < out.shape[3]; ++i3) {
    for (std::int64_t i2 = 0; i2 < out.shape[2]; ++i2) {
      for (std::int64_t i1 = 0; i1 < out.shape[1]; ++i1) {
        OLLAMA_ASSIGN(const auto row, row_index(ids.integer_at(i1, i2, i3), a.shape[1]));
        for (std::int64_t i = 0; i < out.shape[0]; ++i) {
          if (a.is_integer()) {
            out.integer_at(i, i1, i2, i3) = a.integer_at(i, row, i2, i3);
          } else {
            out.at(i, i1, i2, i3) = a.at(i, row, i2, i3);
          }
        }
      }
    }
  }
  return {};
}

Result<> set_rows(const Node& out, const Node& src, const Node& ids) {
  std::vector<float> row(static_cast<std::size_t>(src.shape[0]));
  for (std::int64_t i1 = 0; i1 < src.shape[1]; ++i1) {
    OLLAMA_ASSIGN(const auto to, row_index(ids.integer_at(i1, 0), out.shape[1]));
    for (std::int64_t i = 0; i < src.shape[0]; ++i)
      row[static_cast<std::size_t>(i)] = src.at(i, i1);
    store_row(out, row, to, 0, 0);
  }
  return {};
}

void concat(const Node& out, const Node& a, const Node& b, int dim) {
  const auto d = static_cast<std::size_t>(dim);
  for_elements(out.shape, [&](auto i0, auto i1, auto i2, auto i3) {
    Shape from{i0, i1, i2, i3};
    const bool in_a = from[d] < a.shape[d];
    if (!in_a) from[d] -= a.shape[d];
    const Node& source = in_a ? a : b;
    if (out.is_integer()) {
      out.integer_at(i0, i1, i2, i3) = source.integer_at(from[0], from[1], from[2], from[3]);
    } else {
      out.at(i0, i1, i2, i3) = source.at(from[0], from[1], from[2], from[3]);
    }
  });
}

void repeat(const Node& out, const Node& a) {
  const Shape& n = a.shape;
  for_elements(out.shape, [&](auto i0, auto i1, auto i2, auto i3) {
    out.at(i0, i1, i2, i3) = a.at(i0 % n[0], i1 % n[1], i2 % n[2], i3 % n[3]);
  });
}

void copy_values(const Node& out, const Node& src) {
  // Read all before writing any: out may be a view of what src is a view of.
  std::vector<float> floats;
  std::vector<std::int64_t> integers;
  for_elements(src.shape, [&](auto i0, auto i1, auto i2, auto i3) {
    if (src.is_integer()) {
      integers.push_back(src.integer_at(i0, i1, i2, i3));
    } else {
      floats.push_back(src.at(i0, i1, i2, i3));
    }
  });
  std::size_t next = 0;
  if (out.is_integer()) {
    for_elements(out.shape, [&](auto i0, auto i1, auto i2, auto i3) {
      out.integer_at(i0, i1, i2, i3) = src.is_integer() ? integers[next] : truncated(floats[next]);
      ++next;
    });
    return;
  }
  for_elements(out.shape, [&](auto i0, auto i1, auto i2, auto i3) {
    out.at(i0, i1, i2, i3) = src.is_integer() ? static_cast<float>(integers[next]) : floats[next];
    ++next;
  });
}

void round_values(const Node& out) {
  if (out.is_integer() || out.dtype == DType::kF32) return;
  std::vector<float> row(static_cast<std::size_t>(out.shape[0]));
  for_rows(out.shape, [&](auto i1, auto i2, auto i3) {
    for (std::int64_t i0 = 0; i0 < out.shape[0]; ++i0)
      row[static_cast<std::size_t>(i0)] = out.at(i0, i1, i2, i3);
    store_row(out, row, i1, i2, i3);
  });
}

}  // namespace ollama::ml::reference

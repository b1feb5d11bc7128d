#include "convert/plan.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>

#include "gguf/parse.h"

namespace ollama::convert {
namespace {

constexpr std::int64_t kMaxVocabulary = 1 << 22;
constexpr std::int64_t kMaxLabels = 1 << 16;

// A tensor's name as the family's own class saves it: classes around it prefix it, classes inside
// it lack a prefix.
std::string own_name(const Family& family, std::string_view name) {
  const auto drop = [&](std::string_view prefix) {
    if (!name.starts_with(prefix)) return false;
    name.remove_prefix(prefix.size());
    return true;
  };
  if (family.encoder) {
    drop(family.padded_positions ? "roberta." : "bert.");
    std::string result(name);
    // Names of TensorFlow's that old checkpoints have.
    if (result.ends_with("LayerNorm.gamma")) result.replace(result.size() - 5, 5, "weight");
    if (result.ends_with("LayerNorm.beta")) result.replace(result.size() - 4, 4, "bias");
    return result;
  }
  if (drop("language_model.")) return std::string(name);
  if (drop("model.language_model.")) return std::format("model.{}", name);
  for (const std::string_view part : {"embed_tokens.", "layers.", "norm."}) {
    if (name.starts_with(part)) return std::format("model.{}", name);
  }
  return std::string(name);
}

std::string of_layer(std::string_view pattern, std::int64_t layer) {
  const std::size_t at = pattern.find("{}");
  if (at == std::string_view::npos) return std::string(pattern);
  return std::format("{}{}{}", pattern.substr(0, at), layer, pattern.substr(at + 2));
}

std::optional<ggml_type> type_of(std::string_view dtype) {
  if (dtype == "F32") return GGML_TYPE_F32;
  if (dtype == "F16") return GGML_TYPE_F16;
  if (dtype == "BF16") return GGML_TYPE_BF16;
  return std::nullopt;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (const std::int64_t length : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(length);
  }
  return text + "]";
}

class Planner {
 public:
  Planner(const Checkpoint& checkpoint, const Family& family, Hyperparameters& hyper)
      : family_(family), hyper_(hyper) {
    for (const StoredTensor& tensor : checkpoint.tensors()) {
      const auto [entry, added] = tensors_.emplace(own_name(family, tensor.name), &tensor);
      if (!added) twin_ = tensor.name;
    }
  }

  Result<std::vector<Move>> run(bool classifies) {
    if (!twin_.empty()) {
      return fail(ErrorCode::kCorrupt, "tensor {} is there twice, under two names",
                  gguf::printable(twin_));
    }
    OLLAMA_ASSIGN(hyper_.vocabulary, rows_of(family_.tensors.front(), kMaxVocabulary));
    for (const TensorRule& rule : family_.tensors) {
      if (!rule.from.contains("{}")) OLLAMA_TRY(apply(rule, 0));
    }
    if (classifies) {
      OLLAMA_ASSIGN(hyper_.labels, rows_of(family_.classifier.back(), kMaxLabels));
      for (const TensorRule& rule : family_.classifier) OLLAMA_TRY(apply(rule, 0));
    }
    add_factors("rope_freqs.weight", hyper_.rope.factors);
    add_factors("rope_factors_long.weight", hyper_.rope.long_factors);
    add_factors("rope_factors_short.weight", hyper_.rope.short_factors);
    for (std::int64_t layer = 0; layer < hyper_.layers; ++layer) {
      for (const TensorRule& rule : family_.tensors) {
        if (rule.from.contains("{}")) OLLAMA_TRY(apply(rule, layer));
      }
    }
    OLLAMA_TRY(check_rest());
    return std::move(moves_);
  }

 private:
  const StoredTensor* find(const std::string& name) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : found->second;
  }

  // A matrix is the truth about how many rows it has: the embedding of the vocabulary's size.
  Result<std::int64_t> rows_of(const TensorRule& rule, std::int64_t most) const {
    const std::string name = std::string(rule.from) + ".weight";
    const StoredTensor* table = find(name);
    if (table == nullptr) return fail(ErrorCode::kCorrupt, "tensor {} is missing", name);
    if (table->shape.size() != 2 || table->shape[0] < 1 || table->shape[0] > most) {
      return fail(ErrorCode::kCorrupt, "tensor {} has the shape {}", name,
                  shape_text(table->shape));
    }
    return table->shape[0];
  }

  Result<> apply(const TensorRule& rule, std::int64_t layer) {
    const std::string from = of_layer(rule.from, layer);
    const std::string to = of_layer(rule.to, layer);
    const StoredTensor* weight = find(from + ".weight");
    const bool is_output = rule.to == "output";
    if (is_output && hyper_.tied.value_or(weight == nullptr)) {
      used_.insert(from + ".weight");
      return {};
    }
    if (weight == nullptr) {
      return fail(ErrorCode::kCorrupt, "tensor {}.weight is missing", from);
    }
    OLLAMA_TRY(add(rule, from + ".weight", *weight, to + ".weight", false));
    if (rule.bias == Bias::kNone) return {};
    const StoredTensor* bias = find(from + ".bias");
    if (bias != nullptr) return add(rule, from + ".bias", *bias, to + ".bias", true);
    if (rule.bias == Bias::kOptional) return {};
    return fail(ErrorCode::kCorrupt, "tensor {}.bias is missing", from);
  }

  Result<> add(const TensorRule& rule, const std::string& name, const StoredTensor& tensor,
               std::string to, bool bias) {
    Move move;
    move.name = std::move(to);
    move.from = &tensor;
    const std::int64_t rows = hyper_.length(rule.rows);
    const std::int64_t columns = hyper_.length(rule.columns);
    move.rows = bias ? 0 : rows;
    move.columns = bias && rows > 0 ? rows : columns;
    const std::int64_t skipped = rule.rows == Length::kPositions ? hyper_.padding : 0;
    std::vector<std::int64_t> shape{move.columns};
    if (move.rows > 0) shape.insert(shape.begin(), move.rows + skipped);
    if (tensor.shape != shape) {
      return fail(ErrorCode::kCorrupt, "tensor {} has the shape {}, expected {}",
                  gguf::printable(name), shape_text(tensor.shape), shape_text(shape));
    }
    const auto type = type_of(tensor.dtype);
    if (!type) {
      return fail(ErrorCode::kUnsupported,
                  "tensor {} is of the type {}: only F32, F16 and BF16 can be converted",
                  gguf::printable(name), gguf::printable(tensor.dtype));
    }
    move.stored = *type;
    move.skip = static_cast<std::uint64_t>(skipped * move.columns) * ggml_type_size(*type);
    move.type = move.rows == 0 || rule.change == Change::kFloat ? GGML_TYPE_F32 : *type;
    move.plus_one = rule.change == Change::kPlusOne;
    if (rule.change == Change::kTurned) move.turned_head = hyper_.head;
    used_.insert(name);
    moves_.push_back(std::move(move));
    return {};
  }

  void add_factors(std::string_view name, const std::vector<float>& values) {
    if (values.empty()) return;
    Move move;
    move.name = name;
    move.values = values;
    move.columns = std::ssize(values);
    moves_.push_back(std::move(move));
  }

  // A tensor that nobody asked for would change what the model computes.
  Result<> check_rest() const {
    for (const auto& [name, tensor] : tensors_) {
      if (used_.contains(name) || is_ignored(family_, name)) continue;
      return fail(ErrorCode::kUnsupported, "tensor {} is none that a {} model of {} layers has",
                  gguf::printable(tensor->name), family_.name, hyper_.layers);
    }
    return {};
  }

  const Family& family_;
  Hyperparameters& hyper_;
  std::map<std::string, const StoredTensor*, std::less<>> tensors_;
  std::set<std::string, std::less<>> used_;
  std::string twin_;  // a tensor whose own name another one has
  std::vector<Move> moves_;
};

}  // namespace

Result<std::vector<Move>> plan(const Checkpoint& checkpoint, const Family& family, bool classifies,
                               Hyperparameters& hyper) {
  return Planner(checkpoint, family, hyper).run(classifies);
}

std::uint32_t file_type_of(const std::vector<Move>& moves) {
  struct Type {
    ggml_type type;
    std::uint32_t number;  // llama.cpp's
    std::uint64_t bytes = 0;
  };
  std::array<Type, 3> types{{{GGML_TYPE_BF16, 32}, {GGML_TYPE_F16, 1}, {GGML_TYPE_F32, 0}}};
  for (const Move& move : moves) {
    if (move.rows > 0) std::ranges::find(types, move.type, &Type::type)->bytes += move.from->size;
  }
  return std::ranges::max_element(types, {}, &Type::bytes)->number;
}

}  // namespace ollama::convert

// Internal to convert: the families of models, each a table of the tensors it has there and here.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "convert/rope.h"

namespace ollama::convert {

// A length that follows from the configuration.
enum class Length : std::uint8_t {
  kNone,  // the tensor has no such dimension
  kWidth,
  kVocabulary,
  kQueries,    // heads x head size
  kKeys,       // key heads x head size
  kQkv,        // queries, keys and values
  kHead,       // of a head
  kInner,      // of the feed-forward network
  kGateAndUp,  // twice that
  kPositions,
  kSegments,
  kLabels,  // of a classifier
};

// What becomes of a tensor's values.
enum class Change : std::uint8_t {
  kNone,
  kFloat,    // made f32 though it is a matrix
  kPlusOne,  // norms that are stored as their difference from 1
  kTurned,   // rows of each head in the order that rotates neighbours instead of halves
};

enum class Bias : std::uint8_t { kNone, kOptional, kRequired };

// A tensor, or one of every layer: "{}" in its names stands for the layer. Names are without
// ".weight" and ".bias".
struct TensorRule {
  std::string_view from;
  std::string_view to;
  Length rows = Length::kNone;  // kNone: a vector
  Length columns = Length::kWidth;
  Change change = Change::kNone;
  Bias bias = Bias::kNone;
};

struct Family {
  std::string_view name;                      // as Hugging Face calls it: model_type
  std::string_view architecture;              // as the model file calls it
  std::span<const std::string_view> classes;  // values of "architectures"
  std::span<const TensorRule> tensors;
  std::span<const TensorRule> classifier = {};  // more of them, where pairs of texts are ranked
  std::string_view activation;                  // the only one that the program computes for it
  double default_epsilon = 1e-6;
  std::int64_t default_head = 0;  // 0: width / heads
  bool tied = false;              // output matrix is the embedding where nothing is said
  bool encoder = false;
  // The first positions belong to padding: as many as the padding token's id, and one. Model files
  // do without them.
  bool padded_positions = false;
  bool windowed = false;  // gemma's: some layers see a sliding window
  RopeRules rope;
};

// nullptr for an architecture (a class, or a model_type) that is not known.
const Family* find_family(std::string_view architecture);

// Whether a tensor can be left out: it is computed anew, or of a part that text does not need.
bool is_ignored(const Family& family, std::string_view tensor);

}  // namespace ollama::convert

// Internal to convert: which tensor of a checkpoint becomes which tensor of the model file, and
// how.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "convert/architecture.h"
#include "convert/checkpoint.h"
#include "convert/metadata.h"
#include "gguf/writer.h"

namespace ollama::convert {

struct Move {
  std::string name;                    // in the model file
  const StoredTensor* from = nullptr;  // null: `values`
  std::vector<float> values;           // computed from the configuration
  ggml_type type = GGML_TYPE_F32;      // in the model file
  ggml_type stored = GGML_TYPE_F32;    // in the checkpoint
  std::int64_t rows = 0;               // 0: a vector
  std::int64_t columns = 0;
  std::uint64_t skip = 0;  // bytes at the front that are left out
  bool plus_one = false;
  std::int64_t turned_head = 0;  // rows of a head whose halves are interleaved; 0: none
};

// All tensors, in the order of the model file; `classifies`: with the classifier's. Sets
// `hyper.vocabulary` and `hyper.labels` from them. Points into `checkpoint`. Errors: kCorrupt
// (missing, or of another shape), kUnsupported (of another type or unknown); each names the tensor.
Result<std::vector<Move>> plan(const Checkpoint& checkpoint, const Family& family, bool classifies,
                               Hyperparameters& hyper);

// general.file_type: the type that most of the matrices' bytes have.
std::uint32_t file_type_of(const std::vector<Move>& moves);

}  // namespace ollama::convert

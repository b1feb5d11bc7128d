#include "gguf/synthetic.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <span>
#include <unordered_set>

#include "gguf/quant_mix.h"
#include "gguf/writer.h"

namespace ollama::gguf {
namespace {

struct Shape {
  std::string_view name, title, architecture;
  std::uint32_t vocabulary, embedding, layers, heads, kv_heads, head_size, feed_forward, context;
  float rope_base, epsilon;
  bool byte_level;  // a gpt2 vocabulary, else a llama one
  bool qk_norms;
};

constexpr std::array<Shape, 3> kShapes = {{
    {"llama-1b", "Random Llama 1B", "llama", 32000, 2048, 16, 32, 8, 64, 8192, 131072, 500000.0F,
     1e-5F, false, false},
    {"qwen3-0.6b", "Random Qwen3 0.6B", "qwen3", 102400, 1024, 28, 16, 8, 128, 3072, 40960,
     1000000.0F, 1e-6F, true, true},
    {"tiny", "Random tiny Llama", "llama", 512, 256, 2, 4, 2, 64, 256, 2048, 10000.0F, 1e-5F, false,
     false},
}};

// splitmix64: small, seedable, the same everywhere.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  // Below `bound`, which is far below 2^32.
  std::uint32_t below(std::size_t bound) {
    return static_cast<std::uint32_t>(((next() >> 32) * bound) >> 32);
  }
  // Near enough to a standard normal: twelve uniform numbers summed. No libm, so that files are the
  // same on every machine.
  float normal() {
    std::uint32_t sum = 0;
    for (int i = 0; i < 3; ++i) {
      for (std::uint64_t bits = next(), j = 0; j < 4; ++j, bits >>= 16) sum += bits & 0xffff;
    }
    return static_cast<float>(sum) / 65536.0F - 6.0F;
  }

 private:
  std::uint64_t state_;
};

// ---- vocabularies

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types;
  std::vector<std::string> merges;
};

constexpr std::int32_t kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6;

void append_utf8(std::string& out, unsigned code) {  // below 0x800
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else {
    out += static_cast<char>(0xc0 | (code >> 6));
    out += static_cast<char>(0x80 | (code & 0x3f));
  }
}

// Grows the vocabulary to `size` with words, each the join of two pieces that are there already, so
// that a tokenizer which joins pairs can reach every one. Half of them begin with `space`, the mark
// of a word's beginning.
void add_words(Vocabulary& vocabulary, std::size_t size, std::string_view space, Random& random) {
  std::vector<std::string> inner, initial = {std::string(space)};
  for (char c = 'a'; c <= 'z'; ++c) inner.emplace_back(1, c);
  std::unordered_set<std::string> seen(vocabulary.tokens.begin(), vocabulary.tokens.end());
  while (vocabulary.tokens.size() < size) {
    std::vector<std::string>& group = random.below(2) == 0 ? initial : inner;
    const std::string& left = group[random.below(group.size())];
    const std::string& right = inner[random.below(inner.size())];
    std::string word = left + right;
    if (word.size() > 14 || !seen.insert(word).second) continue;
    vocabulary.merges.push_back(std::format("{} {}", left, right));
    vocabulary.tokens.push_back(word);
    vocabulary.types.push_back(kNormal);
    group.push_back(std::move(word));
  }
}

Vocabulary llama_vocabulary(std::size_t size, Random& random) {
  Vocabulary out{{"<unk>", "<s>", "</s>"}, {kUnknown, kControl, kControl}, {}};
  for (int byte = 0; byte < 256; ++byte) {
    out.tokens.push_back(std::format("<0x{:02X}>", byte));
    out.types.push_back(kByte);
  }
  const std::string_view space = "\u2581";
  out.tokens.emplace_back(space);
  for (char c = '!'; c <= '~'; ++c) out.tokens.emplace_back(1, c);
  out.types.resize(out.tokens.size(), kNormal);
  add_words(out, size, space, random);
  return out;
}

Vocabulary byte_level_vocabulary(std::size_t size, Random& random) {
  constexpr std::array<std::string_view, 3> kSpecial = {"<|endoftext|>", "<|im_start|>",
                                                        "<|im_end|>"};
  Vocabulary out;
  // GPT-2 writes a byte as itself where that is printable and as one of U+0100... elsewhere.
  unsigned next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
    append_utf8(out.tokens.emplace_back(), printable ? byte : next++);
  }
  out.types.assign(256, kNormal);
  add_words(out, size - kSpecial.size(), "\u0120", random);
  for (const std::string_view token : kSpecial) {
    out.tokens.emplace_back(token);
    out.types.push_back(kControl);
  }
  return out;
}

void set_vocabulary(Writer& writer, const Shape& shape, Random& random) {
  if (shape.byte_level) {
    Vocabulary vocabulary = byte_level_vocabulary(shape.vocabulary, random);
    writer.set_string("tokenizer.ggml.model", "gpt2");
    writer.set_string("tokenizer.ggml.pre", "qwen2");
    writer.set_strings("tokenizer.ggml.tokens", std::move(vocabulary.tokens));
    writer.set_i32s("tokenizer.ggml.token_type", vocabulary.types);
    writer.set_strings("tokenizer.ggml.merges", std::move(vocabulary.merges));
    writer.set_u32("tokenizer.ggml.eos_token_id", shape.vocabulary - 1);
    writer.set_u32("tokenizer.ggml.padding_token_id", shape.vocabulary - 3);
    writer.set_bool("tokenizer.ggml.add_bos_token", false);
    return;
  }
  Vocabulary vocabulary = llama_vocabulary(shape.vocabulary, random);
  // Earlier words are joined first, as in a trained vocabulary.
  std::vector<float> scores(vocabulary.tokens.size());
  for (std::size_t i = 259; i < scores.size(); ++i) scores[i] = -static_cast<float>(i - 259);
  writer.set_string("tokenizer.ggml.model", "llama");
  writer.set_string("tokenizer.ggml.pre", "default");
  writer.set_strings("tokenizer.ggml.tokens", std::move(vocabulary.tokens));
  writer.set_f32s("tokenizer.ggml.scores", scores);
  writer.set_i32s("tokenizer.ggml.token_type", vocabulary.types);
  writer.set_u32("tokenizer.ggml.bos_token_id", 1);
  writer.set_u32("tokenizer.ggml.eos_token_id", 2);
  writer.set_u32("tokenizer.ggml.unknown_token_id", 0);
  writer.set_bool("tokenizer.ggml.add_bos_token", true);
  writer.set_bool("tokenizer.ggml.add_eos_token", false);
}

// ---- metadata and tensors

void set_metadata(Writer& writer, const Shape& shape, const QuantMix& mix) {
  const auto key = [&shape](std::string_view name) {
    return std::format("{}.{}", shape.architecture, name);
  };
  writer.set_string("general.architecture", shape.architecture);
  writer.set_string("general.type", "model");
  writer.set_string("general.name", shape.title);
  writer.set_u32("general.file_type", mix.file_type);
  writer.set_u32("general.quantization_version", 2);
  writer.set_u32(key("block_count"), shape.layers);
  writer.set_u32(key("context_length"), shape.context);
  writer.set_u32(key("embedding_length"), shape.embedding);
  writer.set_u32(key("feed_forward_length"), shape.feed_forward);
  writer.set_u32(key("attention.head_count"), shape.heads);
  writer.set_u32(key("attention.head_count_kv"), shape.kv_heads);
  writer.set_u32(key("attention.key_length"), shape.head_size);
  writer.set_u32(key("attention.value_length"), shape.head_size);
  writer.set_f32(key("attention.layer_norm_rms_epsilon"), shape.epsilon);
  writer.set_u32(key("rope.dimension_count"), shape.head_size);
  writer.set_f32(key("rope.freq_base"), shape.rope_base);
  writer.set_u32(key("vocab_size"), shape.vocabulary);
}

struct Plan {
  std::size_t index;
  ggml_type type;
  std::array<std::int64_t, 2> shape;
  bool norm;
};

Result<std::vector<Plan>> add_tensors(Writer& writer, const Shape& shape, const QuantMix& mix) {
  const MixModel model{.layers = shape.layers,
                       .heads_per_kv_head = shape.heads / shape.kv_heads,
                       .tied_output = true};
  std::vector<Plan> plans;
  const auto add = [&](const std::string& name, std::int64_t columns,
                       std::int64_t rows = 0) -> Result<> {
    const bool norm = rows == 0;
    const std::array<std::int64_t, 2> dims = {columns, norm ? 1 : rows};
    const auto used = std::span(dims).first(norm ? 1 : 2);
    const ggml_type type = choose_type(mix, model, name, used);
    OLLAMA_ASSIGN(const std::size_t index, writer.add_tensor(name, type, used));
    plans.push_back({index, type, dims, norm});
    return {};
  };
  const std::int64_t width = shape.embedding, hidden = shape.feed_forward;
  const std::int64_t q = std::int64_t{shape.heads} * shape.head_size;
  const std::int64_t kv = std::int64_t{shape.kv_heads} * shape.head_size;
  OLLAMA_TRY(add("token_embd.weight", width, shape.vocabulary));
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
    const auto name = [layer](std::string_view tensor) {
      return std::format("blk.{}.{}.weight", layer, tensor);
    };
    OLLAMA_TRY(add(name("attn_norm"), width));
    OLLAMA_TRY(add(name("attn_q"), width, q));
    OLLAMA_TRY(add(name("attn_k"), width, kv));
    OLLAMA_TRY(add(name("attn_v"), width, kv));
    if (shape.qk_norms) {
      OLLAMA_TRY(add(name("attn_q_norm"), shape.head_size));
      OLLAMA_TRY(add(name("attn_k_norm"), shape.head_size));
    }
    OLLAMA_TRY(add(name("attn_output"), q, width));
    OLLAMA_TRY(add(name("ffn_norm"), width));
    OLLAMA_TRY(add(name("ffn_gate"), width, hidden));
    OLLAMA_TRY(add(name("ffn_up"), width, hidden));
    OLLAMA_TRY(add(name("ffn_down"), hidden, width));
  }
  OLLAMA_TRY(add("output_norm.weight", width));
  return plans;
}

// ---- weights

// Quantising a thousand million weights takes minutes, so a pool of them is quantised once for each
// type and row length, and a tensor is a random sequence of the pool's pieces.
class Pool {
 public:
  static constexpr std::int64_t kWeights = 1 << 20;

  Pool(ggml_type type, std::int64_t columns, std::uint64_t seed)
      : piece_(std::gcd(columns, std::int64_t{256})), pieces_(kWeights / piece_) {
    Random random(seed);
    // Products of normalised inputs keep their size.
    const float scale = 1.0F / std::sqrt(static_cast<float>(columns));
    std::vector<float> weights(kWeights);
    for (float& weight : weights) weight = scale * random.normal();
    bytes_.resize(static_cast<std::size_t>(pieces_) * piece_bytes(type));
    ggml_quantize_chunk(type, weights.data(), bytes_.data(), 0, pieces_, piece_, nullptr);
    piece_bytes_ = piece_bytes(type);
  }

  std::size_t piece_bytes() const { return piece_bytes_; }
  // Fills `out`, a whole number of pieces.
  void fill(std::span<std::byte> out, Random& random) const {
    for (std::size_t at = 0; at < out.size(); at += piece_bytes_) {
      const std::size_t piece = random.below(static_cast<std::size_t>(pieces_));
      std::memcpy(out.data() + at, bytes_.data() + piece * piece_bytes_, piece_bytes_);
    }
  }

 private:
  std::size_t piece_bytes(ggml_type type) const { return ggml_row_size(type, piece_); }

  std::int64_t piece_, pieces_;  // weights in a piece, pieces in the pool
  std::size_t piece_bytes_ = 0;
  std::vector<std::byte> bytes_;
};

Result<> write_norm(Writer& writer, const Plan& plan, Random& random) {
  std::vector<float> values(static_cast<std::size_t>(plan.shape[0]));
  for (float& value : values) value = 1.0F + 0.05F * random.normal();
  return writer.write(plan.index, 0, std::as_bytes(std::span(values)));
}

Result<> write_matrix(Writer& writer, const Plan& plan, const Pool& pool, Random& random,
                      const std::function<void(std::uint64_t)>& wrote) {
  constexpr std::size_t kBuffer = 4 << 20;
  const std::size_t whole = kBuffer / pool.piece_bytes() * pool.piece_bytes();
  std::vector<std::byte> buffer(whole);
  const std::uint64_t size = writer.tensor_size(plan.index);
  for (std::uint64_t at = 0; at < size;) {
    const auto part = std::span(buffer).first(std::min<std::uint64_t>(whole, size - at));
    pool.fill(part, random);
    OLLAMA_TRY(writer.write(plan.index, at, part));
    at += part.size();
    wrote(part.size());
  }
  return {};
}

template <typename Names>
std::string joined(const Names& names) {
  std::string out;
  for (const std::string_view name : names) out += (out.empty() ? "" : ", ") + std::string(name);
  return out;
}

}  // namespace

std::vector<std::string_view> synthetic_shapes() {
  std::vector<std::string_view> names;
  for (const Shape& shape : kShapes) names.push_back(shape.name);
  return names;
}

Result<> make_model(const SyntheticOptions& options, const SyntheticProgress& progress) {
  const auto shape = std::ranges::find(kShapes, options.shape, &Shape::name);
  if (shape == kShapes.end())
    return fail(ErrorCode::kInvalidArgument, "unknown shape '{}'; there are {}", options.shape,
                joined(synthetic_shapes()));
  const QuantMix* mix = find_quant_mix(options.type);
  if (!mix) {
    std::vector<std::string_view> names;
    for (const QuantMix& known : quant_mixes()) names.push_back(known.name);
    return fail(ErrorCode::kInvalidArgument, "unknown type '{}'; there are {}", options.type,
                joined(names));
  }

  Writer writer;
  Random random(options.seed);
  set_metadata(writer, *shape, *mix);
  set_vocabulary(writer, *shape, random);
  OLLAMA_ASSIGN(const std::vector<Plan> plans, add_tensors(writer, *shape, *mix));
  OLLAMA_TRY(writer.begin(options.out));
  const std::uint64_t total = writer.data_size();
  std::uint64_t done = 0;
  const auto wrote = [&](std::uint64_t bytes) {
    done += bytes;
    if (progress) progress(done, total);
  };
  std::map<std::pair<ggml_type, std::int64_t>, Pool> pools;
  for (const Plan& plan : plans) {
    if (plan.norm) {
      OLLAMA_TRY(write_norm(writer, plan, random));
      wrote(writer.tensor_size(plan.index));
      continue;
    }
    const auto [pool, added] =
        pools.try_emplace({plan.type, plan.shape[0]}, plan.type, plan.shape[0], random.next());
    OLLAMA_TRY(write_matrix(writer, plan, pool->second, random, wrote));
  }
  return writer.finish();
}

}  // namespace ollama::gguf

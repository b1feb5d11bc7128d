#include "convert/architecture.h"

#include <algorithm>
#include <array>

#include "convert/convert.h"

namespace ollama::convert {
namespace {

using L = Length;
using C = Change;

constexpr TensorRule changed(TensorRule rule, Change change) {
  rule.change = change;
  return rule;
}
constexpr TensorRule biased(TensorRule rule, Bias bias = Bias::kRequired) {
  rule.bias = bias;
  return rule;
}
// A matrix that may have a bias.
constexpr TensorRule linear(std::string_view from, std::string_view to, Length rows,
                            Length columns = L::kWidth) {
  return {.from = from, .to = to, .rows = rows, .columns = columns, .bias = Bias::kOptional};
}

constexpr TensorRule kEmbedding{"model.embed_tokens", "token_embd", L::kVocabulary};
constexpr TensorRule kOutputNorm{"model.norm", "output_norm"};
constexpr TensorRule kOutput{"lm_head", "output", L::kVocabulary};
constexpr TensorRule kQ = linear("model.layers.{}.self_attn.q_proj", "blk.{}.attn_q", L::kQueries);
constexpr TensorRule kK = linear("model.layers.{}.self_attn.k_proj", "blk.{}.attn_k", L::kKeys);
constexpr TensorRule kV = linear("model.layers.{}.self_attn.v_proj", "blk.{}.attn_v", L::kKeys);
constexpr TensorRule kAttentionOutput =
    linear("model.layers.{}.self_attn.o_proj", "blk.{}.attn_output", L::kWidth, L::kQueries);
constexpr TensorRule kAttentionNorm{"model.layers.{}.input_layernorm", "blk.{}.attn_norm"};
constexpr TensorRule kFfnNorm{"model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"};
constexpr TensorRule kGate = linear("model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate", L::kInner);
constexpr TensorRule kUp = linear("model.layers.{}.mlp.up_proj", "blk.{}.ffn_up", L::kInner);
constexpr TensorRule kDown =
    linear("model.layers.{}.mlp.down_proj", "blk.{}.ffn_down", L::kWidth, L::kInner);

constexpr std::array kLlama{kEmbedding,
                            kOutputNorm,
                            kOutput,
                            changed(kQ, C::kTurned),
                            changed(kK, C::kTurned),
                            kV,
                            kAttentionOutput,
                            kAttentionNorm,
                            kFfnNorm,
                            kGate,
                            kUp,
                            kDown};
constexpr std::array kQwen2{
    kEmbedding,       kOutputNorm,    kOutput,  biased(kQ), biased(kK), biased(kV),
    kAttentionOutput, kAttentionNorm, kFfnNorm, kGate,      kUp,        kDown};
constexpr TensorRule kQNorm{"model.layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm", L::kNone,
                            L::kHead};
constexpr TensorRule kKNorm{"model.layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm", L::kNone,
                            L::kHead};
constexpr std::array kQwen3{
    kEmbedding, kOutputNorm, kOutput,        kQ,       kK,    kV,  kAttentionOutput,
    kQNorm,     kKNorm,      kAttentionNorm, kFfnNorm, kGate, kUp, kDown};

constexpr TensorRule kPostAttentionNorm{"model.layers.{}.post_attention_layernorm",
                                        "blk.{}.post_attention_norm", L::kNone, L::kWidth,
                                        C::kPlusOne};
constexpr TensorRule kPreFfnNorm{"model.layers.{}.pre_feedforward_layernorm", "blk.{}.ffn_norm",
                                 L::kNone, L::kWidth, C::kPlusOne};
constexpr TensorRule kPostFfnNorm{"model.layers.{}.post_feedforward_layernorm",
                                  "blk.{}.post_ffw_norm", L::kNone, L::kWidth, C::kPlusOne};
constexpr std::array kGemma2{kEmbedding,
                             changed(kOutputNorm, C::kPlusOne),
                             kOutput,
                             kQ,
                             kK,
                             kV,
                             kAttentionOutput,
                             changed(kAttentionNorm, C::kPlusOne),
                             kPostAttentionNorm,
                             kPreFfnNorm,
                             kPostFfnNorm,
                             kGate,
                             kUp,
                             kDown};
constexpr std::array kGemma3{kEmbedding,
                             changed(kOutputNorm, C::kPlusOne),
                             kOutput,
                             kQ,
                             kK,
                             kV,
                             kAttentionOutput,
                             changed(kQNorm, C::kPlusOne),
                             changed(kKNorm, C::kPlusOne),
                             changed(kAttentionNorm, C::kPlusOne),
                             kPostAttentionNorm,
                             kPreFfnNorm,
                             kPostFfnNorm,
                             kGate,
                             kUp,
                             kDown};

constexpr std::array kPhi3{
    kEmbedding,
    kOutputNorm,
    kOutput,
    linear("model.layers.{}.self_attn.qkv_proj", "blk.{}.attn_qkv", L::kQkv),
    kAttentionOutput,
    kAttentionNorm,
    kFfnNorm,
    linear("model.layers.{}.mlp.gate_up_proj", "blk.{}.ffn_up", L::kGateAndUp),
    kDown};

constexpr std::array kBert{
    TensorRule{"embeddings.word_embeddings", "token_embd", L::kVocabulary},
    TensorRule{"embeddings.position_embeddings", "position_embd", L::kPositions, L::kWidth,
               C::kFloat},
    TensorRule{"embeddings.token_type_embeddings", "token_types", L::kSegments, L::kWidth,
               C::kFloat},
    biased({"embeddings.LayerNorm", "token_embd_norm"}),
    biased({"encoder.layer.{}.attention.self.query", "blk.{}.attn_q", L::kQueries}),
    biased({"encoder.layer.{}.attention.self.key", "blk.{}.attn_k", L::kKeys}),
    biased({"encoder.layer.{}.attention.self.value", "blk.{}.attn_v", L::kKeys}),
    biased(
        {"encoder.layer.{}.attention.output.dense", "blk.{}.attn_output", L::kWidth, L::kQueries}),
    biased({"encoder.layer.{}.attention.output.LayerNorm", "blk.{}.attn_output_norm"}),
    biased({"encoder.layer.{}.intermediate.dense", "blk.{}.ffn_up", L::kInner}),
    biased({"encoder.layer.{}.output.dense", "blk.{}.ffn_down", L::kWidth, L::kInner}),
    biased({"encoder.layer.{}.output.LayerNorm", "blk.{}.layer_output_norm"})};

// The pooler, which embeddings do without, is a dense layer with a tanh: what the classifier of a
// model file begins with.
constexpr std::array kBertClassifier{
    biased({"pooler.dense", "cls", L::kWidth}),
    TensorRule{"classifier", "cls.output", L::kLabels, L::kWidth, C::kNone, Bias::kOptional}};

constexpr std::array kRobertaClassifier{biased({"classifier.dense", "cls", L::kWidth}),
                                        TensorRule{"classifier.out_proj", "cls.output", L::kLabels,
                                                   L::kWidth, C::kNone, Bias::kOptional}};

constexpr std::string_view kLlamaClasses[] = {"LlamaForCausalLM", "LlamaModel"};
constexpr std::string_view kMistralClasses[] = {"MistralForCausalLM", "MistralModel"};
constexpr std::string_view kQwen2Classes[] = {"Qwen2ForCausalLM", "Qwen2Model"};
constexpr std::string_view kQwen3Classes[] = {"Qwen3ForCausalLM", "Qwen3Model"};
constexpr std::string_view kGemma2Classes[] = {"Gemma2ForCausalLM", "Gemma2Model"};
constexpr std::string_view kGemma3Classes[] = {"Gemma3ForCausalLM",
                                               "Gemma3ForConditionalGeneration", "gemma3_text"};
constexpr std::string_view kPhi3Classes[] = {"Phi3ForCausalLM", "Phi3Model"};
constexpr std::string_view kBertClasses[] = {"BertModel", "BertForMaskedLM", "BertForPreTraining",
                                             "BertForSequenceClassification"};
constexpr std::string_view kXlmRobertaClasses[] = {"XLMRobertaModel", "XLMRobertaForMaskedLM",
                                                   "XLMRobertaForSequenceClassification"};

constexpr std::array<Family, 9> kFamilies{{
    {.name = "llama",
     .architecture = "llama",
     .classes = kLlamaClasses,
     .tensors = kLlama,
     .activation = "silu",
     .rope = {.llama3 = true}},
    {.name = "mistral",
     .architecture = "llama",
     .classes = kMistralClasses,
     .tensors = kLlama,
     .activation = "silu",
     .rope = {.llama3 = true}},
    {.name = "qwen2",
     .architecture = "qwen2",
     .classes = kQwen2Classes,
     .tensors = kQwen2,
     .activation = "silu"},
    {.name = "qwen3",
     .architecture = "qwen3",
     .classes = kQwen3Classes,
     .tensors = kQwen3,
     .activation = "silu",
     .default_head = 128},
    {.name = "gemma2",
     .architecture = "gemma2",
     .classes = kGemma2Classes,
     .tensors = kGemma2,
     .activation = "gelu_pytorch_tanh",
     .default_head = 256,
     .tied = true,
     .windowed = true},
    {.name = "gemma3",
     .architecture = "gemma3",
     .classes = kGemma3Classes,
     .tensors = kGemma3,
     .activation = "gelu_pytorch_tanh",
     .default_head = 256,
     .tied = true,
     .windowed = true,
     .rope = {.default_base = 1e6}},
    {.name = "phi3",
     .architecture = "phi3",
     .classes = kPhi3Classes,
     .tensors = kPhi3,
     .activation = "silu",
     .default_epsilon = 1e-5,
     .rope = {.longrope = true}},
    {.name = "bert",
     .architecture = "bert",
     .classes = kBertClasses,
     .tensors = kBert,
     .classifier = kBertClassifier,
     .activation = "gelu",
     .default_epsilon = 1e-12,
     .encoder = true},
    {.name = "xlm-roberta",
     .architecture = "bert",
     .classes = kXlmRobertaClasses,
     .tensors = kBert,
     .classifier = kRobertaClassifier,
     .activation = "gelu",
     .default_epsilon = 1e-12,
     .encoder = true,
     .padded_positions = true},
}};

constexpr auto kNames = [] {
  std::array<std::string_view, kFamilies.size()> names{};
  for (std::size_t i = 0; i < names.size(); ++i) names[i] = kFamilies[i].name;
  return names;
}();

}  // namespace

std::span<const std::string_view> families() { return kNames; }

const Family* find_family(std::string_view architecture) {
  const auto* const found = std::ranges::find_if(kFamilies, [&](const Family& family) {
    return family.name == architecture || std::ranges::contains(family.classes, architecture);
  });
  return found == kFamilies.end() ? nullptr : found;
}

bool is_ignored(const Family& family, std::string_view tensor) {
  if (tensor.ends_with("rotary_emb.inv_freq")) return true;
  if (family.encoder) {
    return tensor == "embeddings.position_ids" || tensor.starts_with("pooler.") ||
           tensor.starts_with("cls.") || tensor.starts_with("lm_head.");
  }
  return tensor.starts_with("vision_tower.") || tensor.starts_with("multi_modal_projector.") ||
         tensor.starts_with("model.vision_tower.") ||
         tensor.starts_with("model.multi_modal_projector.");
}

}  // namespace ollama::convert

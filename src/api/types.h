// The wire types of Ollama's native HTTP API, and their JSON.
//
// Requests are parsed strictly in type and leniently in shape: null counts as missing, unknown
// fields are ignored, a field of the wrong type is kInvalidArgument with its name. Responses are
// written with Ollama's fields, in Ollama's order, leaving out what it leaves out.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace ollama::api {

// The level of Ollama's API that is spoken here: what clients and REQUIRES compare.
inline constexpr std::string_view kApiLevel = "0.33.0";

using Json = boost::json::value;
using JsonObject = boost::json::object;
using Duration = std::chrono::nanoseconds;
// A point in time; the epoch stands for "not set" and is written as Go's zero time.
using Time = std::chrono::sys_time<std::chrono::nanoseconds>;

Time now();
// RFC 3339 with as many digits of the second's fraction as needed:
// "2026-11-23T09:30:00.123456789Z".
std::string format_time(Time time);
// Any offset is accepted.
Result<Time> parse_time(std::string_view text);

// ---- Options
// -------------------------------------------------------------------------------------

// A request's or model's options; what is not set is left to the model, then to the defaults.
struct Options {
  // Of the loaded model: a change of these reloads it.
  std::optional<std::int32_t> num_ctx;
  std::optional<std::int32_t> num_batch;
  std::optional<std::int32_t> num_gpu;
  std::optional<std::int32_t> main_gpu;
  std::optional<bool> use_mmap;
  std::optional<std::int32_t> num_thread;
  std::optional<std::int32_t> draft_num_predict;
  // Of one request.
  std::optional<std::int32_t> num_keep;
  std::optional<std::int64_t> seed;
  std::optional<std::int32_t> num_predict;
  std::optional<std::int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> typical_p;
  std::optional<std::int32_t> repeat_last_n;
  std::optional<float> temperature;
  std::optional<float> repeat_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::optional<std::int32_t> mirostat;
  std::optional<float> mirostat_tau;
  std::optional<float> mirostat_eta;
  // Ours, with llama.cpp's names.
  std::optional<float> dynatemp_range;
  std::optional<float> dynatemp_exponent;
  std::optional<float> xtc_probability;
  std::optional<float> xtc_threshold;
  std::optional<float> dry_multiplier;
  std::optional<float> dry_base;
  std::optional<std::int32_t> dry_allowed_length;
  std::optional<std::int32_t> dry_penalty_last_n;
  std::optional<std::vector<std::string>> dry_sequence_breakers;
  std::optional<std::vector<std::string>> stop;
  // {"token id": bias}, -100 to 100, of our own: added to the logits.
  std::optional<JsonObject> logit_bias;

  bool operator==(const Options&) const = default;
};

// `over` where it has a value, else `base`.
Options merge(const Options& base, const Options& over);
// Errors as Ollama's: `option "temperature" must be of type float32`. Unknown options are named in
// `unknown` (they are only worth a warning), null ones are skipped.
Result<Options> parse_options(const JsonObject& object,
                              std::vector<std::string>* unknown = nullptr);
JsonObject to_json(const Options& options);
// A logit_bias as it may be sent. kInvalidArgument says which entry is wrong.
Result<std::vector<std::pair<std::int32_t, float>>> parse_logit_bias(const JsonObject& object);
// A Modelfile's or `/set parameter`'s texts as the JSON value an option has; several for `stop`.
// kInvalidArgument: "unknown parameter 'x'", "invalid float value [x]".
Result<Json> parse_parameter(std::string_view name, const std::vector<std::string>& values);
// Every option's name, sorted.
std::vector<std::string_view> option_names();

// ---- Requests
// ------------------------------------------------------------------------------------

// `think`: true, false or a level.
struct Think {
  bool enabled = false;
  std::string level;  // "low", "medium", "high", "max" or empty

  bool operator==(const Think&) const = default;
};

struct ToolCall {
  std::string id;
  std::int32_t index = 0;
  std::string name;
  JsonObject arguments;  // order kept

  bool operator==(const ToolCall&) const = default;
};

struct Message {
  std::string role;  // lower case
  std::string content;
  std::string thinking;
  std::vector<std::string> images;  // decoded bytes; base64 on the wire
  std::vector<ToolCall> tool_calls;
  std::string tool_name;
  std::string tool_call_id;

  bool operator==(const Message&) const = default;
};

// Tools' answers that name only the call are given the tool's name, which templates show.
void name_answers(std::vector<Message>& messages);

// What /api/generate and /api/chat share.
struct InferenceRequest {
  std::string model;
  std::string template_text;   // "template"
  std::optional<bool> stream;  // unset: true
  Json format;                 // null, "json" or a JSON schema
  // How long the model stays loaded afterwards; negative values were made Duration::max().
  std::optional<Duration> keep_alive;
  JsonObject options;      // as sent
  Options parsed_options;  // the same, checked
  std::optional<Think> think;
  // A model that cannot think answers without: other APIs' clients ask all models the same way.
  bool may_not_think = false;
  std::optional<bool> truncate;  // unset: true
  std::optional<bool> shift;     // unset: true
  bool logprobs = false;
  std::int32_t top_logprobs = 0;   // 0 to 20
  bool text_logprobs = false;      // ours: of the text's tokens alone, not of thinking and calls
  bool debug_render_only = false;  // "_debug_render_only"

  bool streaming() const { return stream.value_or(true); }
};

struct GenerateRequest : InferenceRequest {
  std::string prompt;
  std::string suffix;
  std::string system;
  std::vector<std::int32_t> context;  // of an earlier response
  bool raw = false;
  std::vector<std::string> images;  // decoded bytes
};

struct ChatRequest : InferenceRequest {
  std::vector<Message> messages;
  Json tools;        // null or an array, as sent
  Json tool_choice;  // ours: null, "auto", "none", "required" or a function, in OpenAI's form
};

struct EmbedRequest {
  std::string model;
  std::vector<std::string> input;
  bool single_input = false;  // a string was sent, not an array
  std::optional<Duration> keep_alive;
  std::optional<bool> truncate;  // unset: true
  std::int32_t dimensions = 0;   // 0: all
  JsonObject options;
  Options parsed_options;
};

// The older /api/embeddings.
struct EmbeddingsRequest {
  std::string model;
  std::string prompt;
  std::optional<Duration> keep_alive;
  JsonObject options;
  Options parsed_options;
};

struct ShowRequest {
  std::string model;  // "model", or the older "name"
  std::string system;
  std::string template_text;
  bool verbose = false;
  bool plan = false;  // ours: also where the model would be loaded with these options
  JsonObject options;
};

struct File {
  std::string name;
  std::string digest;  // "sha256:..."

  bool operator==(const File&) const = default;
};

struct CreateRequest {
  std::string model;
  std::optional<bool> stream;
  std::string quantize;
  std::string from;
  std::vector<File> files;  // {"name": "digest"}, order kept
  std::vector<File> adapters;
  std::vector<File> draft_files;
  std::string template_text;
  std::vector<std::string> license;  // a string or an array on the wire
  std::string system;
  JsonObject parameters;
  std::vector<Message> messages;
  std::string renderer;
  std::string parser;
  std::string requires_version;  // "requires"

  bool streaming() const { return stream.value_or(true); }
};

struct CopyRequest {
  std::string source;
  std::string destination;
};

struct DeleteRequest {
  std::string model;
};

// Pull and push.
struct TransferRequest {
  std::string model;
  bool insecure = false;
  std::optional<bool> stream;

  bool streaming() const { return stream.value_or(true); }
};
using PullRequest = TransferRequest;
using PushRequest = TransferRequest;

Result<GenerateRequest> parse_generate_request(const Json& json);
Result<ChatRequest> parse_chat_request(const Json& json);
Result<EmbedRequest> parse_embed_request(const Json& json);
Result<EmbeddingsRequest> parse_embeddings_request(const Json& json);
Result<ShowRequest> parse_show_request(const Json& json);
Result<CreateRequest> parse_create_request(const Json& json);
Result<CopyRequest> parse_copy_request(const Json& json);
Result<DeleteRequest> parse_delete_request(const Json& json);
Result<TransferRequest> parse_transfer_request(const Json& json);
Result<Message> parse_message(const Json& json);
Result<ToolCall> parse_tool_call(const Json& json);
Result<Options> parse_options_value(const Json& json);

JsonObject to_json(const GenerateRequest& request);
JsonObject to_json(const ChatRequest& request);
JsonObject to_json(const EmbedRequest& request);
JsonObject to_json(const EmbeddingsRequest& request);
JsonObject to_json(const ShowRequest& request);
JsonObject to_json(const CreateRequest& request);
JsonObject to_json(const CopyRequest& request);
JsonObject to_json(const DeleteRequest& request);
JsonObject to_json(const TransferRequest& request);
JsonObject to_json(const Message& message);

// ---- Responses
// -----------------------------------------------------------------------------------

struct Metrics {
  Duration total_duration{};
  Duration load_duration{};
  std::int64_t prompt_eval_count = 0;
  std::int64_t prompt_eval_cached_count = 0;
  Duration prompt_eval_duration{};
  std::int64_t eval_count = 0;
  Duration eval_duration{};
  std::int64_t thinking_eval_count = 0;  // of eval_count; told by OpenAI's API alone

  bool operator==(const Metrics&) const = default;
};

struct TokenLogprob {
  std::string token;
  double logprob = 0;
  std::vector<std::int32_t> bytes;
};
struct Logprob : TokenLogprob {
  std::vector<TokenLogprob> top;  // "top_logprobs"
};

struct DebugInfo {
  std::string rendered_template;
  std::int64_t image_count = 0;
};

struct GenerateResponse {
  std::string model;
  Time created_at{};
  std::string response;
  std::string thinking;
  bool done = false;
  std::string done_reason;
  std::vector<std::int32_t> context;
  Metrics metrics;
  std::vector<ToolCall> tool_calls;
  std::optional<DebugInfo> debug_info;
  std::vector<Logprob> logprobs;
};

struct ChatResponse {
  std::string model;
  Time created_at{};
  Message message;
  bool done = false;
  std::string done_reason;
  std::string stopped_by;  // the text of `stop` that ended it, if one did; other APIs tell it
  std::optional<DebugInfo> debug_info;
  std::vector<Logprob> logprobs;
  Metrics metrics;
};

struct EmbedResponse {
  std::string model;
  std::vector<std::vector<float>> embeddings;
  Duration total_duration{};
  Duration load_duration{};
  std::int64_t prompt_eval_count = 0;
};

struct EmbeddingsResponse {
  std::vector<double> embedding;
};

struct ModelDetails {
  std::string parent_model;
  std::string format;  // "gguf"
  std::string family;
  std::vector<std::string> families;
  std::string parameter_size;      // "1.2B"
  std::string quantization_level;  // "Q4_K_M"
  // Of listed models; 0: not told.
  std::uint32_t context_length = 0;
  std::uint32_t embedding_length = 0;

  bool operator==(const ModelDetails&) const = default;
};

struct ListModel {
  std::string name;   // "llama3.2:latest"
  std::string model;  // the same
  Time modified_at{};
  std::uint64_t size = 0;  // bytes
  std::string digest;      // hex, without "sha256:"
  ModelDetails details;
  std::vector<std::string> capabilities;  // empty: not told
};
struct ListResponse {
  std::vector<ListModel> models;
};

struct ProcessModel {
  std::string name;
  std::string model;
  std::uint64_t size = 0;  // bytes in memory, all devices
  std::string digest;
  ModelDetails details;
  Time expires_at{};
  std::uint64_t size_vram = 0;  // of these, on GPUs
  std::uint32_t context_length = 0;
  double loading = 1;  // ours: how far loading is, below 1 while it lasts
};
struct ProcessResponse {
  std::vector<ProcessModel> models;
};

struct Tensor {
  std::string name;
  std::string type;  // "Q4_K"
  std::vector<std::uint64_t> shape;
};

// What one device would hold of a model, in bytes.
struct PlannedDevice {
  std::string name;
  std::string description;
  std::string library;
  std::uint32_t layers = 0;
  bool output = false;
  std::uint64_t weights = 0;
  std::uint64_t cache = 0;
  std::uint64_t graph = 0;
  std::uint64_t free = 0;
  std::uint64_t kept_free = 0;
  std::string reason;  // why it has no more

  bool operator==(const PlannedDevice&) const = default;
};

// Where a model would be loaded, and why: what `ollama show --plan` prints.
struct MemoryPlan {
  std::uint32_t context_length = 0;
  std::uint32_t num_parallel = 0;
  std::string kv_cache_type;
  std::uint32_t layers_on_gpu = 0;  // the output counts as one
  std::uint32_t layers = 0;
  std::vector<PlannedDevice> devices;
  std::vector<std::string> gains;  // what other settings would change, a sentence each

  bool operator==(const MemoryPlan&) const = default;
};

struct ShowResponse {
  std::string license;
  std::string modelfile;
  std::string parameters;  // "temperature    0.7\n..."
  std::string template_text;
  std::string system;
  std::string renderer;
  std::string parser;
  ModelDetails details;
  std::vector<Message> messages;
  JsonObject model_info;
  JsonObject projector_info;
  std::vector<Tensor> tensors;
  std::vector<std::string> capabilities;
  Time modified_at{};
  std::string requires_version;
  std::optional<MemoryPlan> plan;  // where it was asked for
};

// One line of the progress of create, pull and push.
struct ProgressResponse {
  std::string status;
  std::string digest;
  std::uint64_t total = 0;
  std::uint64_t completed = 0;

  bool operator==(const ProgressResponse&) const = default;
};

struct VersionResponse {
  std::string version;
};

JsonObject to_json(const GenerateResponse& response);
JsonObject to_json(const ChatResponse& response);
JsonObject to_json(const EmbedResponse& response);
// As an array of the shortest digits of the floats, not those of the doubles they become.
Json embedding_json(const std::vector<float>& embedding);
JsonObject to_json(const EmbeddingsResponse& response);
JsonObject to_json(const ModelDetails& details);
JsonObject to_json(const ListResponse& response);
JsonObject to_json(const ProcessResponse& response);
JsonObject to_json(const ShowResponse& response);
JsonObject to_json(const MemoryPlan& plan);
JsonObject to_json(const ProgressResponse& response);
JsonObject to_json(const VersionResponse& response);
JsonObject to_json(const ToolCall& call);

Result<GenerateResponse> parse_generate_response(const Json& json);
Result<ChatResponse> parse_chat_response(const Json& json);
Result<EmbedResponse> parse_embed_response(const Json& json);
Result<EmbeddingsResponse> parse_embeddings_response(const Json& json);
Result<ListResponse> parse_list_response(const Json& json);
Result<ProcessResponse> parse_process_response(const Json& json);
Result<MemoryPlan> parse_memory_plan(const Json& json);
Result<ShowResponse> parse_show_response(const Json& json);
Result<ProgressResponse> parse_progress_response(const Json& json);
Result<VersionResponse> parse_version_response(const Json& json);

// ---- Errors and text
// -----------------------------------------------------------------------------

// An HTTP error of the server: the body is {"error": message}.
struct StatusError {
  int status = 500;
  std::string message;
};
JsonObject to_json(const StatusError& error);
// The status that Ollama answers an error with: kNotFound 404, kInvalidArgument 400, ...
int status_of(ErrorCode code);
StatusError status_error(const Error& error);

// Text as JSON; kInvalidArgument says where it breaks. Depth and size are bounded.
Result<Json> parse_json(std::string_view text);
// Without blanks.
std::string to_string(const Json& json);
std::string to_string(const JsonObject& object);

// Standard base64, padded; line breaks are skipped.
Result<std::string> decode_base64(std::string_view text);
std::string encode_base64(std::string_view bytes);

}  // namespace ollama::api

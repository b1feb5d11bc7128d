#include "runner/protocol.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <limits>
#include <type_traits>

#include "runner/frame.h"

namespace ollama::runner {

namespace {

namespace json = boost::json;

// ---- One list of fields for each struct, for both directions

template <typename Archive>
void fields(Archive& a, sample::TokenBias& b) {
  a("token", b.token);
  a("bias", b.bias);
}
template <typename Archive>
void fields(Archive& a, sample::Options& o) {
  a("temperature", o.temperature);
  a("top_k", o.top_k);
  a("top_p", o.top_p);
  a("min_p", o.min_p);
  a("typical_p", o.typical_p);
  a("repeat_last_n", o.repeat_last_n);
  a("repeat_penalty", o.repeat_penalty);
  a("presence_penalty", o.presence_penalty);
  a("frequency_penalty", o.frequency_penalty);
  a("seed", o.seed);
  a("logit_bias", o.logit_bias);
  a("dynatemp_range", o.dynatemp_range);
  a("dynatemp_exponent", o.dynatemp_exponent);
  a("xtc_probability", o.xtc_probability);
  a("xtc_threshold", o.xtc_threshold);
  a("dry_multiplier", o.dry_multiplier);
  a("dry_base", o.dry_base);
  a("dry_allowed_length", o.dry_allowed_length);
  a("dry_penalty_last_n", o.dry_penalty_last_n);
  a("dry_sequence_breakers", o.dry_sequence_breakers);
  a("mirostat", o.mirostat);
  a("mirostat_tau", o.mirostat_tau);
  a("mirostat_eta", o.mirostat_eta);
  a("logprobs", o.logprobs);
}
template <typename Archive>
void fields(Archive& a, ml::DeviceOptions& o) {
  a("library", o.library);
  a("vulkan", o.vulkan);
  a("integrated", o.integrated);
  a("rpc_servers", o.rpc_servers);
}
template <typename Archive>
void fields(Archive& a, ml::Device& d) {
  a("name", d.name);
  a("description", d.description);
  a("library", d.library);
  a("id", d.id);
  a("kind", d.kind);
  a("total_bytes", d.total_bytes);
  a("free_bytes", d.free_bytes);
}
template <typename Archive>
void fields(Archive& a, engine::ModelInfo::OnDevice& d) {
  a("name", d.name);
  a("bytes", d.bytes);
  a("gpu", d.gpu);
  a("remote", d.remote);
}
template <typename Archive>
void fields(Archive& a, engine::LoadOptions& o) {
  a("context", o.context);
  a("batch", o.batch);
  a("parallel", o.parallel);
  a("gpu_layers", o.gpu_layers);
  a("main_gpu", o.main_gpu);
  a("spread", o.spread);
  a("vram_min_free", o.vram_min_free);
  a("gpu_overhead", o.gpu_overhead);
  a("whole", o.whole);
  a("devices", o.devices);
  a("threads", o.threads);
  a("kv_type", o.kv_type);
  a("flash_attention", o.flash_attention);
  a("backend", o.backend);
  a("kernels", o.kernels);
  a("use_mmap", o.use_mmap);
  a("validation", o.validation);
}
template <typename Archive>
void fields(Archive& a, engine::ModelInfo& i) {
  a("architecture", i.architecture);
  a("context", i.context);
  a("train_context", i.train_context);
  a("embedding_length", i.embedding_length);
  a("layers", i.layers);
  a("vocab_size", i.vocab_size);
  a("is_embedding", i.is_embedding);
  a("ranks", i.ranks);
  a("weight_bytes", i.weight_bytes);
  a("cache_bytes", i.cache_bytes);
  a("graph_bytes", i.graph_bytes);
  a("device_bytes", i.device_bytes);
  a("gpu_layers", i.gpu_layers);
  a("devices", i.devices);
}
template <typename Archive>
void fields(Archive& a, engine::Stats& s) {
  a("prompt_tokens", s.prompt_tokens);
  a("cached_tokens", s.cached_tokens);
  a("generated_tokens", s.generated_tokens);
  a("prompt_ns", s.prompt_ns);
  a("generate_ns", s.generate_ns);
  a("stopped_by", s.stopped_by);
}
template <typename Archive>
void fields(Archive& a, Load& m) {
  a("path", m.path);
  a("options", m.options);
}
template <typename Archive>
void fields(Archive& a, api::Think& t) {
  a("enabled", t.enabled);
  a("level", t.level);
}
template <typename Archive>
void fields(Archive& a, Generate& m) {
  a("id", m.id);
  a("prompt", m.prompt);
  a("messages", m.messages);
  a("template", m.template_text);
  a("renderer", m.renderer);
  a("parser", m.parser);
  a("tools", m.tools);
  a("think", m.think);
  a("plain_calls", m.plain_calls);
  a("take_apart", m.take_apart);
  a("suffix", m.suffix);
  a("raw", m.raw);
  a("tokens", m.tokens);
  a("context", m.context);
  a("want_context", m.want_context);
  a("want_begun", m.want_begun);
  a("render_only", m.render_only);
  a("sampling", m.sampling);
  a("text_logprobs", m.text_logprobs);
  a("num_predict", m.num_predict);
  a("num_keep", m.num_keep);
  a("shift", m.shift);
  a("truncate", m.truncate);
  a("ignore_end", m.ignore_end);
  a("stop", m.stop);
  a("format", m.format);
}
template <typename Archive>
void fields(Archive& a, Cancel& m) {
  a("id", m.id);
}
template <typename Archive>
void fields(Archive& a, Embed& m) {
  a("id", m.id);
  a("text", m.text);
  a("tokens", m.tokens);
  a("truncate", m.truncate);
}
template <typename Archive>
void fields(Archive& a, Rank& m) {
  a("id", m.id);
  a("query", m.query);
  a("documents", m.documents);
}
template <typename Archive>
void fields(Archive& a, Tokenize& m) {
  a("id", m.id);
  a("text", m.text);
  a("add_special", m.add_special);
  a("parse_special", m.parse_special);
}
template <typename Archive>
void fields(Archive& a, Detokenize& m) {
  a("id", m.id);
  a("tokens", m.tokens);
}
template <typename Archive>
void fields(Archive& /*a*/, Shutdown& /*m*/) {}
template <typename Archive>
void fields(Archive& a, Explain& m) {
  a("load", m.load);
}
template <typename Archive>
void fields(Archive& a, ListDevices& m) {
  a("options", m.options);
}
template <typename Archive>
void fields(Archive& a, Explained& m) {
  a("plan", m.plan);
}
template <typename Archive>
void fields(Archive& a, Devices& m) {
  a("devices", m.devices);
}
template <typename Archive>
void fields(Archive& a, Progress& m) {
  a("fraction", m.fraction);
}
template <typename Archive>
void fields(Archive& a, Ready& m) {
  a("info", m.info);
}
template <typename Archive>
void fields(Archive& a, LoadFailed& m) {
  a("code", m.code);
  a("message", m.message);
}
template <typename Archive>
void fields(Archive& a, api::TokenLogprob& l) {
  a("token", l.token);
  a("logprob", l.logprob);
  a("bytes", l.bytes);
}
template <typename Archive>
void fields(Archive& a, api::Logprob& l) {
  fields(a, static_cast<api::TokenLogprob&>(l));
  a("top", l.top);
}
template <typename Archive>
void fields(Archive& a, Begun& m) {
  a("id", m.id);
  a("prompt_tokens", m.prompt_tokens);
  a("cached_tokens", m.cached_tokens);
}
template <typename Archive>
void fields(Archive& a, Piece& m) {
  a("id", m.id);
  a("text", m.text);
  a("thinking", m.thinking);
  a("calls", m.calls);
  a("tokens", m.tokens);
  a("logprobs", m.logprobs);
}
template <typename Archive>
void fields(Archive& a, Done& m) {
  a("id", m.id);
  a("reason", m.reason);
  a("stats", m.stats);
  a("context", m.context);
  a("thinking_tokens", m.thinking_tokens);
}
template <typename Archive>
void fields(Archive& a, Failed& m) {
  a("id", m.id);
  a("code", m.code);
  a("message", m.message);
}
template <typename Archive>
void fields(Archive& a, Embedded& m) {
  a("id", m.id);
  a("values", m.values);
  a("tokens", m.tokens);
}
template <typename Archive>
void fields(Archive& a, Tokens& m) {
  a("id", m.id);
  a("tokens", m.tokens);
}
template <typename Archive>
void fields(Archive& a, Text& m) {
  a("id", m.id);
  a("text", m.text);
  a("images", m.images);
}
template <typename Archive>
void fields(Archive& a, ConvertFile& f) {
  a("name", f.name);
  a("path", f.path);
}
template <typename Archive>
void fields(Archive& a, Convert& m) {
  a("checkpoint", m.checkpoint);
  a("model", m.model);
  a("mix", m.mix);
  a("output", m.output);
}
template <typename Archive>
void fields(Archive& a, Converting& m) {
  a("done", m.done);
  a("total", m.total);
}
template <typename Archive>
void fields(Archive& /*a*/, Converted& /*m*/) {}
template <typename Archive>
void fields(Archive& a, ConvertFailed& m) {
  a("code", m.code);
  a("message", m.message);
}

// The highest value of each enum that travels.
constexpr std::int64_t last_of(nn::Validation) {
  return static_cast<std::int64_t>(nn::Validation::kOff);
}
constexpr std::int64_t last_of(ErrorCode) {
  return static_cast<std::int64_t>(ErrorCode::kInternal);
}
constexpr std::int64_t last_of(engine::DoneReason) {
  return static_cast<std::int64_t>(engine::DoneReason::kCancelled);
}
constexpr std::int64_t last_of(ml::FlashAttention) {
  return static_cast<std::int64_t>(ml::FlashAttention::kOff);
}
constexpr std::int64_t last_of(ml::CpuKernels) {
  return static_cast<std::int64_t>(ml::CpuKernels::kGgml);
}
constexpr std::int64_t last_of(ml::BackendKind) {
  return static_cast<std::int64_t>(ml::BackendKind::kReference);
}
constexpr std::int64_t last_of(ml::DeviceKind) {
  return static_cast<std::int64_t>(ml::DeviceKind::kIntegratedGpu);
}
constexpr std::int64_t last_of(ml::DType) { return static_cast<std::int64_t>(ml::DType::kMXFP4); }

// ---- Writing

class Writer {
 public:
  template <typename T>
  void operator()(std::string_view name, T& value) {
    object_[name] = write(value);
  }
  json::object take() { return std::move(object_); }

  template <typename T>
  static json::value write(T& value) {
    using Plain = std::remove_const_t<T>;
    if constexpr (std::is_enum_v<Plain>) {
      return static_cast<std::int64_t>(value);
    } else if constexpr (std::is_arithmetic_v<Plain>) {
      return json::value(value);
    } else if constexpr (std::is_same_v<Plain, std::string>) {
      return json::value(json::string(value));
    } else if constexpr (std::is_same_v<Plain, api::Json>) {
      return value;
    } else if constexpr (std::is_same_v<Plain, api::Message> ||
                         std::is_same_v<Plain, api::ToolCall> ||
                         std::is_same_v<Plain, api::MemoryPlan>) {
      return api::to_json(value);
    } else if constexpr (requires { value.has_value(); }) {
      return value ? write(*value) : json::value(nullptr);
    } else if constexpr (requires { value.begin(); }) {
      json::array array;
      array.reserve(value.size());
      for (auto& item : value) array.push_back(write(item));
      return array;
    } else {
      Writer writer;
      fields(writer, value);
      return writer.take();
    }
  }

 private:
  json::object object_;
};

// ---- Reading

class Reader {
 public:
  Reader(const json::object& object, std::string path) : object_(object), path_(std::move(path)) {}

  template <typename T>
  void operator()(std::string_view name, T& value) {
    if (failed_) return;
    const json::value* found = object_.if_contains(name);
    if (found == nullptr || !read(*found, value, name)) {
      if (!failed_) failed_ = std::format("{}.{} is missing or of the wrong type", path_, name);
    }
  }
  Result<> result() const {
    if (failed_) return fail(ErrorCode::kCorrupt, "{}", *failed_);
    return {};
  }

 private:
  template <typename T>
  bool read(const json::value& json, T& value, std::string_view name) {
    if constexpr (std::is_same_v<T, bool>) {
      if (!json.is_bool()) return false;
      value = json.get_bool();
      return true;
    } else if constexpr (std::is_enum_v<T>) {
      if (!json.is_int64() || json.get_int64() < 0 || json.get_int64() > last_of(T{})) return false;
      value = static_cast<T>(json.get_int64());
      return true;
    } else if constexpr (std::is_arithmetic_v<T>) {
      const auto number = json.try_to_number<T>();
      if (!number) return false;
      value = *number;
      return true;
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!json.is_string()) return false;
      value = json.get_string();
      return true;
    } else if constexpr (std::is_same_v<T, api::Json>) {
      value = json;
      return true;
    } else if constexpr (std::is_same_v<T, api::ToolCall>) {
      auto call = api::parse_tool_call(json);
      if (!call) return false;
      value = std::move(*call);
      return true;
    } else if constexpr (std::is_same_v<T, api::Message>) {
      auto message = api::parse_message(json);
      if (!message) return false;
      value = std::move(*message);
      return true;
    } else if constexpr (std::is_same_v<T, api::MemoryPlan>) {
      auto plan = api::parse_memory_plan(json);
      if (!plan) return false;
      value = std::move(*plan);
      return true;
    } else if constexpr (requires { value.has_value(); }) {
      value.reset();
      return json.is_null() || read(json, value.emplace(), name);
    } else if constexpr (requires { value.push_back(value[0]); }) {
      if (!json.is_array()) return false;
      value.clear();
      value.reserve(json.get_array().size());
      for (const json::value& item : json.get_array()) {
        if (!read(item, value.emplace_back(), name)) return false;
      }
      return true;
    } else {
      if (!json.is_object()) return false;
      Reader reader(json.get_object(), std::format("{}.{}", path_, name));
      fields(reader, value);
      failed_ = std::move(reader.failed_);
      return !failed_;
    }
  }

  const json::object& object_;
  std::string path_;
  std::optional<std::string> failed_;
};

// ---- Messages: {"type": fields}

constexpr std::array<std::string_view, std::variant_size_v<ToRunner>> kToNames{
    "load",       "generate", "cancel",  "embed",        "tokenize",
    "detokenize", "shutdown", "explain", "list_devices", "rank"};
constexpr std::array<std::string_view, std::variant_size_v<FromRunner>> kFromNames{
    "progress", "ready",  "load_failed", "piece",     "done",    "failed",
    "embedded", "tokens", "text",        "explained", "devices", "begun"};
constexpr std::array<std::string_view, std::variant_size_v<ToConverter>> kToConverterNames{
    "convert"};
constexpr std::array<std::string_view, std::variant_size_v<FromConverter>> kFromConverterNames{
    "converting", "converted", "convert_failed"};

template <typename Variant>
std::string encode_message(const Variant& message, std::string_view name) {
  return std::visit(
      [&](const auto& value) {
        json::object object;
        // Only `fields` needs it mutable, so that one list serves both directions.
        object[name] = Writer::write(const_cast<std::remove_cvref_t<decltype(value)>&>(value));
        json::serialize_options options;
        options.allow_infinity_and_nan = true;
        return make_frame(json::serialize(object, options));
      },
      message);
}

template <typename Variant, std::size_t Index = 0>
Result<Variant> decode_fields(std::size_t index, const json::object& object,
                              std::string_view name) {
  if constexpr (Index < std::variant_size_v<Variant>) {
    if (index != Index) return decode_fields<Variant, Index + 1>(index, object, name);
    std::variant_alternative_t<Index, Variant> value;
    Reader reader(object, std::string(name));
    fields(reader, value);
    OLLAMA_TRY(reader.result());
    return Variant(std::move(value));
  } else {
    return fail(ErrorCode::kInternal, "no message of index {}", index);
  }
}

template <typename Variant, std::size_t Count>
Result<Variant> decode_message(std::string_view payload,
                               const std::array<std::string_view, Count>& names) {
  json::parse_options options;
  options.allow_invalid_utf8 = true;
  options.allow_infinity_and_nan = true;
  options.max_depth = 300;  // tools come as deep as the API takes them
  boost::system::error_code error;
  const json::value json = json::parse(payload, error, {}, options);
  if (error) return fail(ErrorCode::kCorrupt, "a message is not JSON: {}", error.message());
  if (!json.is_object() || json.get_object().size() != 1) {
    return fail(ErrorCode::kCorrupt, "a message is not an object of one member");
  }
  const auto& [key, value] = *json.get_object().begin();
  const std::string_view name(key.data(), key.size());
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) {
    return fail(ErrorCode::kCorrupt, "unknown message '{}'", name.substr(0, 40));
  }
  if (!value.is_object()) return fail(ErrorCode::kCorrupt, "{} is not an object", name);
  return decode_fields<Variant>(static_cast<std::size_t>(found - names.begin()), value.get_object(),
                                name);
}

}  // namespace

std::string encode(const ToRunner& message) {
  return encode_message(message, kToNames[message.index()]);
}
std::string encode(const FromRunner& message) {
  return encode_message(message, kFromNames[message.index()]);
}
Result<ToRunner> decode_to_runner(std::string_view payload) {
  return decode_message<ToRunner>(payload, kToNames);
}
Result<FromRunner> decode_from_runner(std::string_view payload) {
  return decode_message<FromRunner>(payload, kFromNames);
}

std::string encode(const ToConverter& message) {
  return encode_message(message, kToConverterNames[message.index()]);
}
std::string encode(const FromConverter& message) {
  return encode_message(message, kFromConverterNames[message.index()]);
}
Result<ToConverter> decode_to_converter(std::string_view payload) {
  return decode_message<ToConverter>(payload, kToConverterNames);
}
Result<FromConverter> decode_from_converter(std::string_view payload) {
  return decode_message<FromConverter>(payload, kFromConverterNames);
}

api::Metrics metrics_of(const Done& done) {
  api::Metrics metrics;
  metrics.prompt_eval_count = done.stats.prompt_tokens;
  metrics.prompt_eval_cached_count = done.stats.cached_tokens;
  metrics.prompt_eval_duration = api::Duration(done.stats.prompt_ns);
  metrics.eval_count = done.stats.generated_tokens;
  metrics.eval_duration = api::Duration(done.stats.generate_ns);
  metrics.thinking_eval_count = done.thinking_tokens;
  return metrics;
}

}  // namespace ollama::runner

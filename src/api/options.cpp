#include <algorithm>
#include <boost/json/array.hpp>
#include <cmath>
#include <format>
#include <type_traits>

#include "api/fields.h"
#include "api/types.h"
#include "base/units.h"

namespace ollama::api {
namespace {

// Every option: f(name, pointer to member). The one list that the functions below walk.
template <typename F>
void each_option(F&& f) {
  f("num_ctx", &Options::num_ctx);
  f("num_batch", &Options::num_batch);
  f("num_gpu", &Options::num_gpu);
  f("main_gpu", &Options::main_gpu);
  f("use_mmap", &Options::use_mmap);
  f("num_thread", &Options::num_thread);
  f("draft_num_predict", &Options::draft_num_predict);
  f("num_keep", &Options::num_keep);
  f("seed", &Options::seed);
  f("num_predict", &Options::num_predict);
  f("top_k", &Options::top_k);
  f("top_p", &Options::top_p);
  f("min_p", &Options::min_p);
  f("typical_p", &Options::typical_p);
  f("repeat_last_n", &Options::repeat_last_n);
  f("temperature", &Options::temperature);
  f("repeat_penalty", &Options::repeat_penalty);
  f("presence_penalty", &Options::presence_penalty);
  f("frequency_penalty", &Options::frequency_penalty);
  f("mirostat", &Options::mirostat);
  f("mirostat_tau", &Options::mirostat_tau);
  f("mirostat_eta", &Options::mirostat_eta);
  f("dynatemp_range", &Options::dynatemp_range);
  f("dynatemp_exponent", &Options::dynatemp_exponent);
  f("xtc_probability", &Options::xtc_probability);
  f("xtc_threshold", &Options::xtc_threshold);
  f("dry_multiplier", &Options::dry_multiplier);
  f("dry_base", &Options::dry_base);
  f("dry_allowed_length", &Options::dry_allowed_length);
  f("dry_penalty_last_n", &Options::dry_penalty_last_n);
  f("dry_sequence_breakers", &Options::dry_sequence_breakers);
  f("stop", &Options::stop);
  f("logit_bias", &Options::logit_bias);
}

template <typename... Args>
std::unexpected<Error> invalid(std::format_string<Args...> format, Args&&... args) {
  return fail(ErrorCode::kInvalidArgument, format, std::forward<Args>(args)...);
}

Result<> set(std::string_view name, const Json& value, std::optional<float>& out) {
  const auto number = number_of(value);
  if (!number) return invalid("option \"{}\" must be of type float32", name);
  const auto narrow = static_cast<float>(*number);
  if (!std::isfinite(narrow)) return invalid("option \"{}\" is out of range", name);
  out = narrow;
  return {};
}

template <std::integral T>
  requires(!std::same_as<T, bool>)
Result<> set(std::string_view name, const Json& value, std::optional<T>& out) {
  if (!value.is_number()) return invalid("option \"{}\" must be of type integer", name);
  // Ollama cuts fractions off, in options only.
  const auto number =
      integer_of<T>(value.is_double() ? Json(std::trunc(value.get_double())) : value);
  if (!number) return invalid("option \"{}\" is out of range", name);
  out = *number;
  return {};
}

Result<> set(std::string_view name, const Json& value, std::optional<bool>& out) {
  if (!value.is_bool()) return invalid("option \"{}\" must be of type boolean", name);
  out = value.get_bool();
  return {};
}

Result<> set(std::string_view name, const Json& value,
             std::optional<std::vector<std::string>>& out) {
  const auto* array = value.if_array();
  if (array == nullptr) return invalid("option \"{}\" must be of type array", name);
  std::vector<std::string> items;
  for (const Json& item : *array) {
    const auto* text = item.if_string();
    if (text == nullptr) return invalid("option \"{}\" must be of an array of strings", name);
    items.emplace_back(text->data(), text->size());
  }
  out = std::move(items);
  return {};
}

Result<> set(std::string_view name, const Json& value, std::optional<JsonObject>& out) {
  const auto* object = value.if_object();
  if (object == nullptr) return invalid("option \"{}\" must be an object", name);
  OLLAMA_TRY(parse_logit_bias(*object));
  out = *object;
  return {};
}

// The double with the fewest digits that is this float: 0.7F is written 0.7.
double widen(float value) {
  return parse_number<double>(std::format("{}", value)).value_or(static_cast<double>(value));
}

Json json_of(float value) { return widen(value); }
Json json_of(bool value) { return value; }
Json json_of(std::int32_t value) { return value; }
Json json_of(std::int64_t value) { return value; }
Json json_of(const JsonObject& value) { return value; }
Json json_of(const std::vector<std::string>& value) {
  boost::json::array array;
  for (const std::string& item : value) array.emplace_back(item);
  return array;
}

// strconv.ParseBool's spellings.
std::optional<bool> bool_of(std::string_view text) {
  for (const std::string_view yes : {"1", "t", "T", "true", "TRUE", "True"}) {
    if (text == yes) return true;
  }
  for (const std::string_view no : {"0", "f", "F", "false", "FALSE", "False"}) {
    if (text == no) return false;
  }
  return std::nullopt;
}

template <typename T>
Result<Json> json_of_text(const std::vector<std::string>& values) {
  const std::string& text = values.front();
  if constexpr (std::same_as<T, float>) {
    const auto number = parse_number<double>(text);
    if (!number || !std::isfinite(static_cast<float>(*number))) {
      return invalid("invalid float value [{}]", text);
    }
    return Json(*number);
  } else if constexpr (std::same_as<T, bool>) {
    const auto flag = bool_of(text);
    if (!flag) return invalid("invalid bool value [{}]", text);
    return Json(*flag);
  } else if constexpr (std::integral<T>) {
    const auto number = parse_number<T>(text);
    if (!number) return invalid("invalid int value [{}]", text);
    return Json(*number);
  } else if constexpr (std::same_as<T, JsonObject>) {
    OLLAMA_ASSIGN(Json json, parse_json(text));
    std::optional<JsonObject> checked;
    OLLAMA_TRY(set("logit_bias", json, checked));
    return json;
  } else {
    return json_of(values);
  }
}

}  // namespace

Options merge(const Options& base, const Options& over) {
  Options result = base;
  each_option([&](std::string_view, auto member) {
    if (over.*member) result.*member = over.*member;
  });
  return result;
}

Result<Options> parse_options(const JsonObject& object, std::vector<std::string>* unknown) {
  Options options;
  for (const auto& [key, value] : object) {
    const std::string_view name(key);
    bool known = false;
    Result<> result;
    each_option([&](std::string_view option, auto member) {
      if (option != name) return;
      known = true;
      if (!value.is_null()) result = set(name, value, options.*member);
    });
    if (!result) return fail(std::move(result));
    if (!known && unknown != nullptr) unknown->emplace_back(name);
  }
  return options;
}

Result<Options> parse_options_value(const Json& json) {
  const auto* object = json.if_object();
  if (object == nullptr) return invalid("\"options\" must be an object, not {}", kind_text(json));
  return parse_options(*object);
}

Result<std::vector<std::pair<std::int32_t, float>>> parse_logit_bias(const JsonObject& object) {
  constexpr double kMost = 100;
  std::vector<std::pair<std::int32_t, float>> biases;
  biases.reserve(object.size());
  for (const auto& [key, value] : object) {
    const auto token = parse_number<std::int32_t>(key);
    const auto bias = number_of(value);
    if (!token || *token < 0 || !bias) {
      return invalid("option \"logit_bias\" must map token ids to numbers");
    }
    // Another spelling of a token that is there would be added to its bias.
    if (std::string_view(key) != std::to_string(*token)) {
      return invalid("option \"logit_bias\" must name token {0} as \"{0}\"", *token);
    }
    if (!(std::abs(*bias) <= kMost)) {
      return invalid("option \"logit_bias\" must hold numbers of -{0} to {0}", kMost);
    }
    biases.emplace_back(*token, static_cast<float>(*bias));
  }
  return biases;
}

JsonObject to_json(const Options& options) {
  JsonObject object;
  each_option([&](std::string_view name, auto member) {
    if (options.*member) object.emplace(name, json_of(*(options.*member)));
  });
  return object;
}

Result<Json> parse_parameter(std::string_view name, const std::vector<std::string>& values) {
  if (values.empty()) return invalid("parameter '{}' needs a value", name);
  std::optional<Result<Json>> result;
  each_option([&](std::string_view option, auto member) {
    using Value = std::remove_cvref_t<decltype(*(Options{}.*member))>;
    if (option == name) result = json_of_text<Value>(values);
  });
  if (!result) return invalid("unknown parameter '{}'", name);
  return std::move(*result);
}

std::vector<std::string_view> option_names() {
  std::vector<std::string_view> names;
  each_option([&](std::string_view name, auto) { names.push_back(name); });
  std::ranges::sort(names);
  return names;
}

}  // namespace ollama::api

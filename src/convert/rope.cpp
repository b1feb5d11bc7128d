#include "convert/rope.h"

#include <boost/json/array.hpp>
#include <cmath>
#include <format>
#include <numbers>

#include "gguf/parse.h"

namespace ollama::convert {
namespace {

// What one kind of layers does: {"rope_type": "linear", "factor": 8, ...}.
class Scaling {
 public:
  Scaling(Config& config, const api::JsonObject* json) : config_(config), json_(json) {}

  std::string type() const {
    if (json_ == nullptr) return {};
    const auto type = string_member(*json_, "rope_type");
    return std::string(type ? *type : string_member(*json_, "type").value_or(""));
  }
  std::optional<double> find(std::string_view key) const {
    return json_ == nullptr ? std::nullopt : number_member(*json_, key);
  }
  // A number above 0; an error where it is missing or something else.
  double require(std::string_view key) {
    const auto value = find(key);
    if (value && std::isfinite(*value) && *value > 0) return *value;
    config_.fail_with(ErrorCode::kCorrupt,
                      std::format("config.json: {} of the rope scaling must be above 0", key));
    return 1;
  }
  std::vector<float> list(std::string_view key, std::int64_t length) {
    const auto* array = json_ == nullptr ? nullptr : array_member(*json_, key);
    std::vector<float> values;
    if (array != nullptr && std::ssize(*array) == length) {
      for (const api::Json& value : *array) {
        if (const auto number = number_of(value)) values.push_back(static_cast<float>(*number));
      }
    }
    if (std::ssize(values) != length) {
      config_.fail_with(
          ErrorCode::kCorrupt,
          std::format("config.json: {} of the rope scaling must be {} numbers", key, length));
    }
    return values;
  }

 private:
  Config& config_;
  const api::JsonObject* json_;
};

void read_yarn(Scaling& scaling, Rope& rope) {
  rope.scaling = "yarn";
  rope.factor = scaling.require("factor");
  rope.beta_fast = scaling.find("beta_fast").value_or(0);
  rope.beta_slow = scaling.find("beta_slow").value_or(0);
  // The reader multiplies by what the method suggests; here is what the model wants in all.
  if (const auto wanted = scaling.find("attention_factor"); wanted && rope.factor > 1) {
    rope.attention_factor = *wanted / (0.1 * std::log(rope.factor) + 1.0);
  }
}

void read_longrope(Scaling& scaling, Rope& rope, std::int64_t dimensions, std::int64_t context) {
  rope.long_factors = scaling.list("long_factor", dimensions / 2);
  rope.short_factors = scaling.list("short_factor", dimensions / 2);
  const auto original = static_cast<double>(rope.original_context);
  const double scale = static_cast<double>(context) / original;
  const double usual =
      scale > 1 && original > 1 ? std::sqrt(1 + std::log(scale) / std::log(original)) : 1;
  rope.attention_factor = scaling.find("attention_factor").value_or(usual);
}

}  // namespace

std::vector<float> llama3_factors(double base, std::int64_t dimensions, double factor, double low,
                                  double high, double original_context) {
  std::vector<float> factors;
  for (std::int64_t i = 0; i < dimensions; i += 2) {
    const double share = static_cast<double>(i) / static_cast<double>(dimensions);
    // Turns within the original context: fast ones stay, slow ones are slowed down.
    const double turns = original_context / (2 * std::numbers::pi * std::pow(base, share));
    const double smooth = (turns - low) / (high - low);
    const double value = turns > high  ? 1
                         : turns < low ? factor
                                       : 1 / ((1 - smooth) / factor + smooth);
    factors.push_back(static_cast<float>(value));
  }
  return factors;
}

Rope read_rope(Config& config, const RopeRules& rules, std::int64_t dimensions,
               std::int64_t context) {
  Rope rope;
  rope.base = config.number("rope_theta", rules.default_base);
  rope.local_base = config.number("rope_local_base_freq", rules.default_local_base);
  const api::JsonObject* parameters = object_member(config.json(), "rope_parameters");
  const api::JsonObject* scaled = object_member(config.json(), "rope_scaling");
  if (parameters != nullptr) {
    // One set for each kind of layers, or one for all.
    if (const auto* local = object_member(*parameters, "sliding_attention")) {
      rope.local_base = number_member(*local, "rope_theta").value_or(rope.local_base);
    }
    const auto* full = object_member(*parameters, "full_attention");
    scaled = full != nullptr ? full : parameters;
    rope.base = number_member(*scaled, "rope_theta").value_or(rope.base);
  }
  Scaling scaling(config, scaled);
  const std::string type = scaling.type();
  const auto original = scaling.find("original_max_position_embeddings");
  const bool plausible = original && *original >= 1 && *original < 0x1p31;
  rope.original_context =
      plausible ? static_cast<std::int64_t>(*original)
                : config.integer("original_max_position_embeddings", context, 1, 0x7FFFFFFF);
  if (type.empty() || type == "default" || type == "dynamic") {
    // Dynamic scaling changes nothing within the model's own context.
  } else if (type == "linear") {
    rope.scaling = type;
    rope.factor = scaling.require("factor");
  } else if (type == "yarn") {
    read_yarn(scaling, rope);
  } else if (type == "llama3" && rules.llama3) {
    const double low = scaling.require("low_freq_factor");
    const double high = scaling.require("high_freq_factor");
    const double factor = scaling.require("factor");
    if (low >= high) {
      config.fail_with(ErrorCode::kCorrupt,
                       "config.json: low_freq_factor of the rope scaling must "
                       "be below high_freq_factor");
    }
    rope.factors = llama3_factors(rope.base, dimensions, factor, low, high,
                                  static_cast<double>(rope.original_context));
  } else if ((type == "longrope" || type == "su") && rules.longrope) {
    read_longrope(scaling, rope, dimensions, context);
  } else {
    config.fail_with(ErrorCode::kUnsupported,
                     std::format("config.json: rope scaling of the type '{}' cannot be converted "
                                 "for this architecture",
                                 gguf::printable(type)));
  }
  return rope;
}

}  // namespace ollama::convert

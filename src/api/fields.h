// For parsers of requests: reading a JSON object field by field. The first error is kept, and the
// reads after it do nothing, so that a parser is a plain list of fields.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/types.h"

namespace ollama::api {

// "a string", "a number", ...: what a value is, for messages.
std::string_view kind_text(const Json& value);
inline bool has_fraction(const Json& value) {
  const auto* number = value.if_double();
  return number != nullptr && std::trunc(*number) != *number;
}
// A number without a fraction that fits T; JSON writes 3.0 for 3 at times.
template <std::integral T>
std::optional<T> integer_of(const Json& value) {
  constexpr T kLowest = std::numeric_limits<T>::lowest();
  constexpr T kHighest = std::numeric_limits<T>::max();
  if (const auto* number = value.if_int64()) {
    return std::in_range<T>(*number) ? std::optional(static_cast<T>(*number)) : std::nullopt;
  }
  if (const auto* number = value.if_uint64()) {
    return std::in_range<T>(*number) ? std::optional(static_cast<T>(*number)) : std::nullopt;
  }
  if (const auto* number = value.if_double()) {
    // The upper bound is exclusive: the highest value itself need not be a double.
    if (*number >= static_cast<double>(kLowest) && *number < static_cast<double>(kHighest) &&
        !has_fraction(value)) {
      return static_cast<T>(*number);
    }
  }
  return std::nullopt;
}
std::optional<double> number_of(const Json& value);

// How many numbers of an embedding are wanted.
inline Result<> check_dimensions(std::int32_t dimensions) {
  if (dimensions >= 0) return {};
  return fail(ErrorCode::kInvalidArgument, "\"dimensions\" must be 1 or more, or 0 for all, not {}",
              dimensions);
}

class Fields {
 public:
  // `what` it is, for the message where it is no object.
  explicit Fields(const Json& json, std::string_view what = "the body")
      : object_(json.if_object()) {
    if (object_ == nullptr) refuse(what, json);
  }
  explicit Fields(const JsonObject& object) : object_(&object) {}

  // The field, unless it is missing or null.
  const Json* find(std::string_view name) const {
    if (error_ || object_ == nullptr) return nullptr;
    const Json* value = object_->if_contains(name);
    return value == nullptr || value->is_null() ? nullptr : value;
  }

  void read(std::string_view name, std::string& out);
  void read(std::string_view name, bool& out);
  void read(std::string_view name, std::optional<bool>& out);
  void read(std::string_view name, double& out);
  template <std::integral T>
  void read(std::string_view name, T& out) {
    const Json* value = find(name);
    if (value == nullptr) return;
    if (const auto number = integer_of<T>(*value)) {
      out = *number;
    } else {
      set_number(name, *value);
    }
  }
  void read(std::string_view name, std::vector<std::string>& out);
  void read(std::string_view name, JsonObject& out);
  template <std::integral T>
  void read(std::string_view name, std::vector<T>& out) {
    each(name, [&](const Json& item) -> Result<> {
      const auto number = integer_of<T>(item);
      if (!number) return fail(ErrorCode::kInvalidArgument, "\"{}\" must hold integers", name);
      out.push_back(*number);
      return {};
    });
  }
  // A raw value, as it is.
  void read_any(std::string_view name, Json& out) {
    if (const Json* value = find(name)) out = *value;
  }
  // Nanoseconds.
  void read(std::string_view name, Duration& out) {
    std::int64_t count = out.count();
    read(name, count);
    out = Duration(count);
  }
  void read_time(std::string_view name, Time& out);
  // A message's "role", in lower case.
  void read_role(std::string& out);
  // Calls item(Json) -> Result<> for every element of an array.
  template <typename F>
  void each(std::string_view name, F&& item) {
    const Json* value = find(name);
    if (value == nullptr) return;
    const auto* array = value->if_array();
    if (array == nullptr) return set(name, "an array", *value);
    for (const Json& element : *array) {
      if (auto result = item(element); !result) {
        error_ = std::move(result).error();
        return;
      }
    }
  }
  // A field that has a parser of its own, T parse(Json) -> Result<T>.
  template <typename T, typename F>
  void read_with(std::string_view name, T& out, F&& parse) {
    const Json* value = find(name);
    if (value == nullptr) return;
    auto result = parse(*value);
    if (result) {
      out = std::move(*result);
    } else {
      error_ = std::move(result).error();
    }
  }

  // The error so far.
  Result<> check() const { return error_ ? Result<>(std::unexpected(*error_)) : Result<>(); }
  template <typename T>
  Result<T> finish(T value) && {
    if (error_) return std::unexpected(std::move(*error_));
    return value;
  }

 private:
  void set(std::string_view name, std::string_view expected, const Json& value);
  void set_number(std::string_view name, const Json& value);
  void refuse(std::string_view what, const Json& value);

  const JsonObject* object_;
  std::optional<Error> error_;
};

}  // namespace ollama::api

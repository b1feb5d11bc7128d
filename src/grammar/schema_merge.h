// Schemas that must all hold, as one. Internal to grammar.
#pragma once

#include <cstddef>
#include <set>
#include <span>
#include <string>

#include "api/types.h"
#include "base/error.h"

namespace ollama::grammar {

// What the copies of parts of a schema, and looking at the same part again and again, may cost
// together. Errors: kInvalidArgument, too large.
class CopyBudget {
 public:
  Result<> take(std::size_t units);
  // Counts what is about to be copied: its values, and its text.
  Result<> take(const api::Json& value);
  Result<> take(const api::JsonObject& object);

 private:
  static constexpr std::size_t kMost = 2'000'000;
  std::size_t left_ = kMost;
};

// The elements of an array; of anything else that itself.
std::span<const api::Json> as_list(const api::Json& value);

// Values of a list, equal as they are to JSON Schema: 1 and 1.0 are.
class Values {
 public:
  Values() = default;
  explicit Values(std::span<const api::Json> list) {
    for (const api::Json& value : list) add(value);
  }
  bool contains(const api::Json& value) const { return keys_.contains(key_of(value)); }
  // Whether it is a new one.
  bool add(const api::Json& value) { return keys_.insert(key_of(value)).second; }

 private:
  static std::string key_of(const api::Json& value);

  std::set<std::string> keys_;
};

// The keywords of both, for schemas without $ref, allOf, anyOf, oneOf and const. Errors:
// kInvalidArgument names the keyword that cannot be enforced twice; those of `copies`.
Result<api::JsonObject> merge_schemas(const api::JsonObject& a, const api::JsonObject& b,
                                      CopyBudget& copies);

}  // namespace ollama::grammar

// Whatever the schema and whatever the model says: an answer that ends is JSON that validates.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <random>

#include "grammar/constraint.h"
#include "grammar/validator.h"

namespace ollama::grammar {
namespace {

using api::Json;
using api::JsonObject;
using JsonArray = boost::json::array;

// Random schemas of all that is supported; some cannot be met.
class SchemaMaker {
 public:
  explicit SchemaMaker(std::uint64_t seed) : random_(seed) {}

  Json root() {
    JsonObject definitions;
    for (const char* name : {"a", "b"}) definitions[name] = schema(2);
    Json top = schema(3);
    if (top.is_bool()) top = JsonObject();
    top.get_object()["$defs"] = std::move(definitions);
    return top;
  }

 private:
  int below(int n) { return static_cast<int>(random_() % static_cast<std::uint64_t>(n)); }
  bool chance(int percent) { return below(100) < percent; }

  Json schema(int depth) {
    const int kind = below(depth > 0 ? 14 : 7);
    switch (kind) {
      case 0:
        return number("integer");
      case 1:
        return number("number");
      case 2:
        return string();
      case 3:
        return enumeration();
      case 4:
        return JsonObject{{"type", chance(50) ? "boolean" : "null"}};
      case 5:
        return JsonObject{{"type", JsonArray{"string", "integer"}}};
      case 6:
        return chance(70) ? Json(JsonObject{{"$ref", chance(50) ? "#/$defs/a" : "#/$defs/b"}})
                          : Json(chance(80));
      case 7:
      case 8:
        return array(depth);
      case 9:
        return JsonObject{
            {chance(50) ? "anyOf" : "oneOf", JsonArray{schema(depth - 1), schema(depth - 1)}}};
      case 10:
        return all_of(depth);
      default:
        return object(depth);
    }
  }

  Json number(const char* type) {
    JsonObject schema{{"type", type}};
    const auto bound = [&]() -> Json {
      if (chance(50)) return below(2000) - 1000;
      return static_cast<double>(below(200'000) - 100'000) / (chance(50) ? 100 : 10'000);
    };
    if (chance(50)) schema[chance(50) ? "minimum" : "exclusiveMinimum"] = bound();
    if (chance(50)) schema[chance(50) ? "maximum" : "exclusiveMaximum"] = bound();
    static const Json factors[] = {1, 2, 5, 7, 60, 0.5, 2.5};
    if (chance(20)) schema["multipleOf"] = factors[below(std::size(factors))];
    return schema;
  }
  Json string() {
    static constexpr const char* kPatterns[] = {"^[a-c]+$",
                                                "x|y",
                                                "^\\d{2,4}-?[a-z]*$",
                                                "^(ab|c){1,3}",
                                                "^[^a]{3}$",
                                                "\\\\|\"",
                                                "^$",
                                                "^\\w+\\s\\w+$",
                                                "^[^\\s]{2}$",
                                                "^.{2,4}$",
                                                "^(?=.*b)(?!.*c)[a-e]+$",
                                                "(^a+$|^b-?)",
                                                "^[a-z]+-\\d*$"};
    static constexpr const char* kFormats[] = {"date", "uuid",    "ipv4", "email",
                                               "time", "unknown", "uri"};
    JsonObject schema{{"type", "string"}};
    switch (below(7)) {
      case 5:
        schema["format"] = kFormats[below(std::size(kFormats))];
        schema["maxLength"] = 4 + below(60);
        break;
      case 6:
        schema["minLength"] = below(4);
        schema["maxLength"] = 2 + below(8);
        [[fallthrough]];
      case 0:
        schema["pattern"] = kPatterns[below(std::size(kPatterns))];
        break;
      case 1:
        schema["format"] = kFormats[below(std::size(kFormats))];
        break;
      case 2:
        schema["minLength"] = below(6);
        [[fallthrough]];
      case 3:
        schema["maxLength"] = 3 + below(8);
        break;
      default:
        break;
    }
    return schema;
  }
  Json enumeration() {
    static const Json given[] = {
        1, "one", "o", "ö\"\n", nullptr, true, 2.5, JsonArray{1, "x"}, JsonObject{{"k", 1}}, ""};
    if (chance(30)) return JsonObject{{"const", given[below(std::size(given))]}};
    JsonArray values;
    for (int i = 0; i < 3; ++i) values.push_back(given[below(std::size(given))]);
    JsonObject schema{{"enum", values}};
    if (chance(20)) schema["type"] = "string";
    if (chance(15)) schema["pattern"] = "^o";
    if (chance(15)) schema["minimum"] = 2;
    return schema;
  }
  Json array(int depth) {
    JsonObject made{{"type", "array"}};
    if (chance(80)) made["items"] = schema(depth - 1);
    if (chance(25)) made["prefixItems"] = JsonArray{schema(depth - 1), schema(depth - 1)};
    if (chance(40)) made["minItems"] = below(4);
    if (chance(50)) made["maxItems"] = below(5);
    if (chance(15)) {
      made = JsonObject{{"items", enumeration()}, {"uniqueItems", true}};
      if (chance(40)) made["maxItems"] = below(3);
    }
    return made;
  }
  Json object(int depth) {
    JsonObject made{{"type", "object"}};
    static constexpr const char* kNames[] = {"a", "ab", "b", "ä", "q\"", "long name", ""};
    JsonObject properties;
    JsonArray required;
    for (const char* name : kNames) {
      if (!chance(40)) continue;
      properties[name] = schema(depth - 1);
      if (chance(50)) required.push_back(name);
    }
    if (chance(5)) required.push_back("extra");
    if (chance(90)) made["properties"] = std::move(properties);
    if (!required.empty() || chance(10)) made["required"] = std::move(required);
    if (chance(40))
      made["additionalProperties"] = chance(50) ? Json(chance(50)) : schema(depth - 1);
    if (chance(15)) {
      made["patternProperties"] = JsonObject{{"^a", schema(depth - 1)}, {"b$", schema(depth - 1)}};
    }
    if (chance(10)) made["propertyNames"] = JsonObject{{"pattern", "^[a-z\\x22]*$"}};
    if (chance(10)) made["unevaluatedProperties"] = false;
    if (chance(15)) made["minProperties"] = below(4);
    if (chance(15)) made["maxProperties"] = 1 + below(5);
    return made;
  }
  Json all_of(int depth) {
    if (chance(50)) return JsonObject{{"allOf", JsonArray{object(depth - 1), object(depth - 1)}}};
    if (chance(50)) return JsonObject{{"allOf", JsonArray{number("number"), number("integer")}}};
    JsonObject made = object(depth).get_object();
    made["anyOf"] = JsonArray{object(depth - 1), schema(depth - 1)};
    return made;
  }

  std::mt19937_64 random_;
};

std::shared_ptr<const Vocabulary> vocabulary() {
  static const auto made = [] {
    static std::vector<std::string> pieces{"</s>"};
    for (int i = 0; i < 256; ++i) pieces.emplace_back(1, static_cast<char>(i));
    for (const char* text : {"{\"",  "\":",    "\": ",   "\",\"", "\"}",   "}}",       "],",  "[\"",
                             "\\\"", "\\u00",  "\\n",    "true",  "false", "null",     "12",  "-3.",
                             "e1",   ",\"",    "\"",     "\"",    "\"",    "}",        "]",   "}",
                             "]",    "\"a\":", "\"b\":", "ab",    "é",     "\xE6\x97", "\n  "}) {
      pieces.emplace_back(text);
    }
    const std::vector<std::string_view> views(pieces.begin(), pieces.end());
    return std::make_shared<const Vocabulary>(views, std::vector<Token>{0});
  }();
  return made;
}

struct Answer {
  std::string text;
  bool ended = false;
};

// What a model of random logits says. It tends to end what it has begun, for answers to be whole.
Answer say(Automaton& automaton, std::shared_ptr<Automaton> shared, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0F, 2.0F);
  const Vocabulary& words = automaton.vocabulary();
  Constraint constraint(std::move(shared));
  std::vector<float> logits(words.size());
  Answer answer;
  for (int step = 0; step < 600; ++step) {
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const std::string_view piece = words.piece(static_cast<Token>(i));
      logits[i] = normal(random);
      if (piece.contains('"') || piece.contains('}') || piece.contains(']')) logits[i] += 4;
      if (piece.contains('[') || piece.contains('{') || piece == "\\") logits[i] -= 3;
    }
    logits[0] += 2;
    if (constraint.first_allowed() == tokenizer::kNoToken) {
      ADD_FAILURE() << "nothing may follow " << answer.text;
      return answer;
    }
    const auto mask = constraint.mask();
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (!has_bit(mask, static_cast<Token>(i))) logits[i] = -1e9F;
    }
    const auto token = static_cast<Token>(std::ranges::max_element(logits) - logits.begin());
    EXPECT_TRUE(constraint.accept(token));
    if (token == 0) {
      answer.ended = true;
      return answer;
    }
    answer.text += words.piece(token);
  }
  return answer;
}

struct Totals {
  int schemas = 0;
  int refused = 0;
  int answers = 0;
  int ended = 0;
};

void check_schema(std::uint64_t seed, Totals& totals) {
  const Json schema = SchemaMaker(seed).root();
  const auto grammar = compile_schema(schema);
  ++totals.schemas;
  if (!grammar) {
    ++totals.refused;
    RC_ASSERT(grammar.error().code() == ErrorCode::kInvalidArgument);
    return;
  }
  const auto automaton = std::make_shared<Automaton>(*grammar, vocabulary());
  for (std::uint64_t i = 0; i < 4; ++i) {
    const Answer answer = say(*automaton, automaton, seed + i);
    ++totals.answers;
    if (!answer.ended) continue;
    ++totals.ended;
    const auto value = api::parse_json(answer.text);
    if (!value || !Validator(schema).valid(*value)) {
      RC_FAIL(api::to_string(schema) + "\n" + answer.text);
    }
  }
}

TEST(SchemaProperty, WhatEndsIsValid) {
  Totals totals;
  const bool passed = rc::check("answers validate", [&](std::uint64_t seed) {
    for (std::uint64_t i = 0; i < 6; ++i) check_schema(seed * 1000 + i, totals);
  });
  EXPECT_TRUE(passed);
  // The property says something: most schemas can be met and most answers end.
  EXPECT_LT(totals.refused * 2, totals.schemas) << totals.refused << " of " << totals.schemas;
  EXPECT_GT(totals.ended * 2, totals.answers) << totals.ended << " of " << totals.answers;
}

}  // namespace
}  // namespace ollama::grammar

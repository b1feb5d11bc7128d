#include "chat/jinja/template.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace ollama::chat::jinja {
namespace {

JinjaOptions at_fixture_time() {
  using namespace std::chrono;
  return {.now = local_days(year(2026) / November / 23) + hours(9) + minutes(30)};
}

api::Json read_json(const char* name) {
  std::ifstream file(std::filesystem::path(OLLAMA_TEST_DATA) / "chat" / name);
  std::stringstream text;
  text << file.rdbuf();
  return api::parse_json(text.str()).value();
}

Result<std::string> try_render(std::string_view text, const api::JsonObject& context = {},
                               const JinjaOptions& options = at_fixture_time()) {
  OLLAMA_ASSIGN(const JinjaTemplate parsed, JinjaTemplate::parse(text));
  return parsed.render(context, options);
}

std::string error_of(std::string_view text) {
  const auto result = try_render(text);
  return result ? "no error: " + *result : std::string(result.error().message());
}

std::string repeated(std::string_view text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

// What models' files carry must give what Jinja2 makes of it, to the byte: a model that gets
// another prompt than it was trained on answers worse, and nobody sees why.
TEST(JinjaFixture, ModelsTemplates) {
  const api::Json fixture = read_json("jinja.json");
  std::size_t cases = 0;
  for (const auto& model : fixture.as_object()) {
    const api::JsonObject& entry = model.value().as_object();
    const auto parsed = JinjaTemplate::parse(entry.at("template").as_string());
    ASSERT_TRUE(parsed) << model.key() << ": " << parsed.error().message();
    for (const api::Json& each : entry.at("cases").as_array()) {
      const api::JsonObject& one = each.as_object();
      const std::string name =
          std::string(model.key()) + ", " + std::string(one.at("name").as_string());
      const auto text = parsed->render(one.at("context").as_object(), at_fixture_time());
      ++cases;
      if (one.contains("error")) {
        EXPECT_FALSE(text) << name << " must fail: " << one.at("error").as_string();
      } else if (!text) {
        ADD_FAILURE() << name << ": " << text.error().message();
      } else {
        EXPECT_EQ(*text, one.at("expected").as_string()) << name;
      }
    }
  }
  EXPECT_EQ(cases, 26U * 9U);
}

// Small templates of every feature, with what Jinja2 3.1 makes of them.
TEST(JinjaFixture, Semantics) {
  const api::Json fixture = read_json("jinja-semantics.json");
  const api::JsonObject& context = fixture.at("context").as_object();
  for (const api::Json& each : fixture.at("cases").as_array()) {
    const std::string_view text = each.at("template").as_string();
    const auto result = try_render(text, context);
    if (!each.as_object().contains("expected")) {
      EXPECT_FALSE(result) << text << " must fail, but gives " << *result;
    } else if (!result) {
      ADD_FAILURE() << text << ": " << result.error().message();
    } else {
      EXPECT_EQ(*result, each.at("expected").as_string()) << text;
    }
  }
}

// Where this engine differs from Jinja2 on purpose.
TEST(Jinja, Differences) {
  EXPECT_EQ(error_of("{{ 9223372036854775807 + 1 }}"),
            "line 1, column 24: an integer is beyond 64 bits");
  EXPECT_EQ(error_of("a\n{% include 'x' %}"),
            "line 2, column 4: 'include' is not supported: a model's template stands alone");
  EXPECT_EQ(
      error_of("{{ [1] | random }}"),
      "line 1, column 10: 'random' is not supported: the same conversation must give the same "
      "prompt");
  // Numbers of the context that no value can hold pass through as JSON.
  const api::Json context =
      api::parse_json(R"({"tools": {"maximum": 18446744073709551615}})").value();
  EXPECT_EQ(try_render("{{ tools | tojson }}", context.as_object()).value(),
            "{\"maximum\": 18446744073709551615}");
  // Marks where an answer stands, which only training needs.
  EXPECT_EQ(try_render("{% generation %}a{% endgeneration %}").value(), "a");
}

TEST(Jinja, ErrorsSayWhere) {
  EXPECT_EQ(error_of("a\n  {{ b.c }}"), "line 2, column 7: 'b' is undefined");
  EXPECT_EQ(error_of("{{ {}.b.c }}"), "line 1, column 8: 'dict object' has no attribute 'b'");
  EXPECT_EQ(error_of("\n\n{{ raise_exception('bad ' ~ 'role') }}"), "line 3, column 19: bad role");
  EXPECT_EQ(error_of("{{ [].append(1) }}"),
            "line 1, column 13: access to attribute 'append' of 'list' object is unsafe");
  EXPECT_EQ(error_of("{{ 1 | nosuch }}"), "line 1, column 8: there is no filter named 'nosuch'");
  EXPECT_EQ(error_of("{% nosuch %}"), "line 1, column 4: unknown statement 'nosuch'");
  EXPECT_EQ(error_of("{% if x %}\na"),
            "line 2, column 2: expected '{% endif %}', got the template's end");
  EXPECT_EQ(error_of("{{ a"), "line 1, column 1: a tag is not closed by '}}'");
  EXPECT_EQ(error_of("{{ 'a }}"), "line 1, column 4: a string is not closed by '");
  EXPECT_EQ(error_of("{# a"), "line 1, column 1: a comment is not closed by '#}'");
}

// Templates come from whoever made the model file: each of these must end soon, and with an error.
TEST(Jinja, HostileRenderings) {
  const std::string macros = [] {
    std::string text = "{% macro m0() %}xxxxxxxxxx{% endmacro %}";
    for (int i = 1; i < 20; ++i) {
      text += std::format("{{% macro m{}() %}}{}{{% endmacro %}}", i,
                          repeated(std::format("{{{{ m{}() }}}}", i - 1), 10));
    }
    return text + "{{ m19() }}";
  }();
  const std::string nested =
      "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor "
      "%}";
  const std::string doubled =
      "{% set ns = namespace(x=['x']) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
      "{% endfor %}";
  const std::string templates[] = {
      "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
      "{% for i in range(99999) %}{{ range(99999) | list | length }}{% endfor %}",
      "{% for i in range(99999) %}{{ range(99999) | sum }}{% endfor %}",
      macros,
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{{ 'a' * 1000000000 }}",
      "{{ [1] * 1000000000 }}",
      "{{ 'a'.center(1000000000) }}",
      "{{ 'a'.zfill(1000000000) }}",
      "{{ 'a' | indent(1000000000, true) }}",
      "{{ '%1000000000d' % 1 }}",
      "{{ '{:1000000000}'.format(1) }}",
      "{{ 10 ** 1000000000 }}",
      "{{ range(1000000000) | list }}",
      "{{ [1] | batch(1000000000, 1) | list }}",
      "{{ [1] | slice(1000000000) | list }}",
      "{% set ns = namespace(x='x') %}{% for i in range(99999) %}{% set ns.x = ns.x ~ ns.x %}"
      "{% endfor %}",
      "{{ ('a' * 100000) | replace('', 'b' * 100000) }}",
      "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
      "{{ ('b' * 10000).join('a' * 100000) }}",
      "{{ ('a' * 8000000).rfind('b' ~ 'a' * 4000000) }}",
      "{{ ('a' * 8000000).strip('b' * 1000000 ~ 'a') }}",
      nested + "{{ ns.x }}",
      nested + "{{ ns.x | tojson }}",
      nested + "{{ ns.x == [ns.x] }}",
      nested + "{{ ns.x < [ns.x] }}",
      "{% set ns = namespace(x=()) %}{% for i in range(90000) %}{% set ns.x = (ns.x,) %}{% endfor "
      "%}"
      "{{ {ns.x: 1} }}",
      doubled + "{{ ns.x }}",
      doubled + "{{ ns.x | tojson }}",
      doubled + "{{ ns.x == ns.x | list }}",
      "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
  };
  JinjaOptions options = at_fixture_time();
  options.limits.memory = 64UL * 1024 * 1024;
  options.limits.output = 4UL * 1024 * 1024;
  options.limits.steps = 1'000'000;
  // Not what should end any of these: time is for what is slow beyond its count of steps.
  options.limits.time = std::chrono::minutes(5);
  for (const std::string& text : templates) {
    const auto result = try_render(text, {}, options);
    EXPECT_FALSE(result) << text.substr(0, 200);
    if (!result) {
      EXPECT_TRUE(result.error().message().starts_with("line ")) << result.error().message();
    }
  }
}

TEST(Jinja, EachLimitHasItsError) {
  JinjaOptions options = at_fixture_time();
  const auto code = [&](std::string_view text) {
    return try_render(text, {}, options).error().code();
  };
  options.limits = {.steps = 1000};
  EXPECT_EQ(code("{% for i in range(9999) %}{% endfor %}"), ErrorCode::kTimeout);
  options.limits = {.time = std::chrono::milliseconds(0)};
  EXPECT_EQ(code("{% for i in range(9999) %}{% endfor %}"), ErrorCode::kTimeout);
  options.limits = {.memory = 100'000};
  EXPECT_EQ(code("{{ 'a' * 200000 }}"), ErrorCode::kOutOfMemory);
  options.limits = {.output = 1000};
  EXPECT_EQ(code("{% for i in range(999) %}aa{% endfor %}"), ErrorCode::kOutOfMemory);
  options.limits = {.depth = 10};
  EXPECT_EQ(code("{{ [[[[[[[[[[[[1]]]]]]]]]]]] }}"), ErrorCode::kInvalidArgument);
}

TEST(Jinja, HostileTexts) {
  const std::string texts[] = {
      "{{ " + repeated("(", 100'000),
      "{{ " + repeated("[", 100'000) + repeated("]", 100'000) + " }}",
      "{{ " + repeated("{1:", 100'000),
      "{{ " + repeated("not ", 100'000) + "1 }}",
      "{{ " + repeated("-", 100'000) + "1 }}",
      "{{ 1" + repeated("+1", 100'000) + " }}",
      "{{ 1" + repeated(" and 1", 100'000) + " }}",
      "{{ 1" + repeated(" if 1", 100'000) + " }}",
      "{{ 1" + repeated(" if 1 else 1", 100'000) + " }}",
      "{{ a" + repeated(".a", 100'000) + " }}",
      "{{ a" + repeated("[a", 100'000),
      "{{ a" + repeated("(a", 100'000),
      "{{ 1" + repeated("|abs", 100'000) + " }}",
      "{{ 1" + repeated(" is odd", 100'000) + " }}",
      "{% set " + repeated("(", 100'000),
      repeated("{% if 1 %}", 100'000),
      repeated("{% for a in b %}", 100'000),
      "{% set x" + repeated("|abs", 100'000) + " %}{% endset %}",
      std::string(JinjaTemplate::kMaxBytes + 1, 'a'),
  };
  for (const std::string& text : texts) {
    EXPECT_FALSE(try_render(text)) << text.substr(0, 50);
  }
}

// Whatever the bytes are, there is a text or an error with a place.
TEST(Jinja, ArbitraryTexts) {
  rc::check([] {
    static const std::vector<std::string> kPieces{
        "{{",  "}}",   "{%",    "%}",     "{#",   "#}", "-",   "+",  " ",      "\n",   "if ",
        "for", " in ", "endif", "endfor", "set ", "x",  "=",   "(",  ")",      "[",    "]",
        "{",   "}",    ".",     ",",      ":",    "|",  "'a'", "1",  "macro ", "raw",  "else",
        "is ", "not ", "loop",  "~",      "\xff", "ü",  "**",  "//", "endset", "call", "upper"};
    const auto indices = *rc::gen::container<std::vector<unsigned>>(rc::gen::inRange(0U, 44U));
    std::string text;
    for (const unsigned index : indices) text += kPieces[index % kPieces.size()];
    const auto result = try_render(text, {{"x", "ü"}});
    if (!result) RC_ASSERT(result.error().message().starts_with("line "));
  });
  rc::check([](const std::string& text) { (void)try_render("{{" + text); });
}

// Text without tags comes out as it is, but for the last line break; a string in a tag too.
TEST(Jinja, PlainTexts) {
  rc::check([] {
    auto text = *rc::gen::container<std::string>(rc::gen::inRange(' ', '~'));
    std::erase(text, '{');
    RC_ASSERT(try_render(text).value() == text);
    RC_ASSERT(try_render("{{ x }}", {{"x", text}}).value() == text);
    RC_ASSERT(try_render("{{ x[::-1][::-1] }}", {{"x", text}}).value() == text);
    RC_ASSERT(try_render("{{ x.split(' ') | join(' ') }}", {{"x", text}}).value() == text);
    RC_ASSERT(try_render("{{ x | list | join }}", {{"x", text}}).value() == text);
  });
}

// A runner's requests share a template.
TEST(Jinja, RendersOnSeveralThreads) {
  const auto parsed = JinjaTemplate::parse(
      "{% macro f(a) %}{{ a }}{% endmacro %}{% set ns = namespace(s=0) %}"
      "{% for i in range(n) %}{% set ns.s = ns.s + i %}{% endfor %}{{ f(ns.s) }}");
  ASSERT_TRUE(parsed);
  std::vector<std::string> results(4);
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < results.size(); ++i) {
      threads.emplace_back([&, i] { results[i] = parsed->render({{"n", i * 100}}).value(); });
    }
  }
  EXPECT_EQ(results, (std::vector<std::string>{"0", "4950", "19900", "44850"}));
}

TEST(Jinja, Mentions) {
  const auto parsed =
      JinjaTemplate::parse(
          "{% if tools %}{{ message['reasoning_content'] }}{{ a.b }}{% endif %}other")
          .value();
  for (const char* name : {"tools", "reasoning_content", "message", "a", "b"}) {
    EXPECT_TRUE(parsed.mentions(name)) << name;
  }
  EXPECT_FALSE(parsed.mentions("other"));
}

}  // namespace
}  // namespace ollama::chat::jinja

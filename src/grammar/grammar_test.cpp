// What grammars take and refuse, text by text; masks against asking token by token.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "grammar/code_set.h"
#include "grammar/constraint.h"
#include "tokenizer/utf8.h"

namespace ollama::grammar {
namespace {

using testing::HasSubstr;

// A vocabulary of single bytes, and token 256 for the end.
std::shared_ptr<const Vocabulary> byte_vocabulary() {
  static std::string bytes;
  if (bytes.empty()) {
    for (int i = 0; i < 256; ++i) bytes.push_back(static_cast<char>(i));
  }
  std::vector<std::string_view> pieces;
  for (std::size_t i = 0; i < 256; ++i) pieces.push_back(std::string_view(bytes).substr(i, 1));
  pieces.emplace_back("</s>");
  return std::make_shared<const Vocabulary>(pieces, std::vector<Token>{256});
}

class Matcher {
 public:
  explicit Matcher(const GrammarPtr& grammar) : automaton_(grammar, byte_vocabulary()) {}
  // Whether `text` is whole.
  bool matches(std::string_view text) {
    const State state = automaton_.next(automaton_.start(), text);
    return state != kDead && automaton_.accepts(state);
  }
  bool begins(std::string_view text) { return automaton_.next(automaton_.start(), text) != kDead; }

 private:
  Automaton automaton_;
};

api::Json parse(std::string_view text) {
  auto json = api::parse_json(text);
  EXPECT_TRUE(json) << text;
  return json ? std::move(*json) : api::Json();
}

std::string refusal(const Result<GrammarPtr>& result) {
  return result ? "accepted" : std::string(result.error().message());
}

// `count` times what `make` makes of 0, 1, ..., with `between` between.
template <typename Make>
std::string joined(int count, std::string_view between, Make make) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    if (i > 0) text += between;
    text += make(i);
  }
  return text;
}

struct Case {
  std::string_view grammar;
  std::vector<std::string_view> taken;
  std::vector<std::string_view> refused;
};

void check(const Result<GrammarPtr>& grammar, const Case& test) {
  ASSERT_TRUE(grammar) << test.grammar << "\n" << refusal(grammar);
  Matcher matcher(*grammar);
  for (const auto text : test.taken) {
    EXPECT_TRUE(matcher.matches(text)) << test.grammar << " must take " << text;
  }
  for (const auto text : test.refused) {
    EXPECT_FALSE(matcher.matches(text)) << test.grammar << " must refuse " << text;
  }
}

// ---- Characters

TEST(CodeSet, TakesExactlyItsCharactersInUtf8) {
  // Ranges that begin and end within, at and across every boundary of lengths and bytes.
  const std::vector<char32_t> edges{0x00,   0x41,    0x7F,    0x80,    0x81,    0xBF,    0xC0,
                                    0x7FF,  0x800,   0x801,   0xFFF,   0x1000,  0xD7FF,  0xE000,
                                    0xFFFF, 0x10000, 0x10001, 0x1F600, 0x3FFFF, 0x40000, 0x10FFFF};
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const auto edge = [&] { return edges[random() % edges.size()]; };
    std::vector<CodeRange> ranges;
    for (int i = 0; i < 3; ++i) {
      const char32_t a = edge();
      const char32_t b = edge();
      ranges.push_back({std::min(a, b), std::max(a, b)});
    }
    const CodeSet set(ranges);
    std::vector<ByteSequence> sequences;
    for (const CodeRange& range : set.ranges()) append_utf8_sequences(range, sequences);
    const auto takes = [&](std::string_view bytes) {
      return std::ranges::any_of(sequences, [&](const ByteSequence& s) {
        if (s.size != bytes.size()) return false;
        for (std::size_t i = 0; i < s.size; ++i) {
          const auto byte = static_cast<std::uint8_t>(bytes[i]);
          if (byte < s.ranges[i].first || byte > s.ranges[i].last) return false;
        }
        return true;
      });
    };
    for (const char32_t base : edges) {
      for (const char32_t code : {base, static_cast<char32_t>(base + 1),
                                  static_cast<char32_t>(base == 0 ? base : base - 1)}) {
        if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) continue;
        std::string bytes;
        tokenizer::utf8::append(bytes, code);
        ASSERT_EQ(takes(bytes), set.contains(code)) << std::hex << static_cast<unsigned>(code);
        ASSERT_EQ(set.contains(code), !set.complement().contains(code));
      }
    }
    EXPECT_FALSE(takes("\xED\xA0\x80")) << "a surrogate";
    EXPECT_FALSE(takes("\xC0\x80")) << "overlong";
  }
}

// ---- GBNF

TEST(Gbnf, TakesWhatItsRulesSay) {
  const Case cases[] = {
      {R"(root ::= "yes" | "no")", {"yes", "no"}, {"", "y", "yesno", "maybe"}},
      {"root ::= a b\na ::= \"x\"*\nb ::= [0-9]+", {"1", "xx12"}, {"x", "", "1x"}},
      {R"(root ::= "a"{2,3} "b"?)", {"aa", "aaab"}, {"a", "aaaa", "ab"}},
      {R"(root ::= "a"{3})", {"aaa"}, {"aa", "aaaa"}},
      {R"(root ::= "a"{2,})", {"aa", "aaaaaaa"}, {"a"}},
      {R"(root ::= "a"{0,1000000} "b")", {"b", "aaab"}, {"", "a"}},
      {R"(root ::= ("ab" | "c"){2,4})", {"abc", "cccc", "abababab"}, {"ab", "ccccc"}},
      {R"(root ::= [^a-c\]"\\] .)", {"dé", "é\n", "日本"}, {"ax", "]x", "\\x", "d"}},
      {R"(root ::= "\x41\u00e9\U0001F600\n\"")", {"Aé😀\n\""}, {"A"}},
      {"root ::= [a-] [-b]  # blanks\n", {"a-", "-b", "--"}, {"b-"}},
      // To the right, and in the middle.
      {"root ::= \"(\" root \")\" | \"\"", {"", "()", "((()))"}, {"(", "())"}},
      {"root ::= \"a\" root | \"b\"", {"b", "aaab"}, {"a", "ba"}},
      // More than one way to read the same.
      {R"(root ::= ("a" | "a" "a" | "a"*) "b")", {"b", "aab", "aaaaab"}, {"aac"}},
      {R"(root ::= ("a"?){3} "b")", {"b", "ab", "aaab"}, {"aaaab"}},
      {R"(root ::= (("a"*)*)* "b")", {"b", "aaab"}, {"aa"}},
      {"root ::= (\"a\"\n  | \"b\"  # second\n  )+\n", {"a", "abba"}, {""}},
      {"root ::= x y\nx ::= \"1\"|\n  \"2\"\ny ::= \"3\"", {"13", "23"}, {"1"}},
      {"root ::= expr\nexpr ::= term ((\"+\" | \"-\") term)*\nterm ::= [0-9]+ | \"(\" expr \")\"",
       {"1", "1+(2-33)"},
       {"1+", "(1"}},
  };
  for (const Case& test : cases) check(compile_gbnf(test.grammar), test);
}

TEST(Gbnf, SaysWhatIsWrongAndWhere) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"", "there is no rule 'root'"},
      {"a ::= \"x\"", "there is no rule 'root'"},
      {"root ::= missing", "the rule 'missing' is not defined"},
      {"root ::= \"a\nb\"", "line 1, column 12: a text is not closed"},
      {"root ::= \"a\"\n  ) ", "line 2, column 3: this belongs to no rule"},
      {"root ::= (\"a\"", "a parenthesis is not closed"},
      {"root ::= [a", "a class is not closed"},
      {"root ::= [z-a]", "a range goes from one character to a later one"},
      {"root ::= \"\\q\"", "this escape is not known"},
      {"root ::= \"\\uD800\"", "names no character"},
      {"root ::= \"a\"{2,1}", "a repeat is"},
      {"root ::= \"a\"{}", "a repeat is"},
      {"root ::= \"a\"{9999999}", "a repeat is"},
      {"root ::= (\"a\"?){100}", "can be empty is repeated more than 64 times"},
      {"root ::= \"a\"\nroot ::= \"b\"", "this rule is defined already"},
      {"root \"a\"", "::= follows"},
      {"root ::= <token>", "is expected"},
      // Nothing would be read.
      {"root ::= root \"a\" | \"b\"", "left recursion"},
      {"root ::= a\na ::= \"x\"? b\nb ::= a \"y\"", "left recursion"},
      {"root ::= (root)*", "left recursion"},
      {"root ::= \"a\" root", "nothing finite can be said"},
      {"root ::= []", "nothing finite can be said"},
  };
  for (const auto& [text, message] : cases) {
    EXPECT_THAT(refusal(compile_gbnf(text)), HasSubstr(message)) << text;
  }
}

TEST(Gbnf, RunsOfCharactersAreFoundAmongFewChoices) {
  const auto looping = [](int choices) {
    const auto grammar =
        compile_gbnf("root ::= (" + joined(choices, "|", [](int) { return "[a-z]"; }) + ")*");
    EXPECT_TRUE(grammar) << refusal(grammar);
    return std::ranges::count(grammar.value()->characters, true, &Grammar::Characters::loops);
  };
  EXPECT_EQ(looping(100), 100);
  EXPECT_EQ(looping(300), 0) << "too many to look through";
  EXPECT_EQ(looping(100'000), 0) << "nor is it tried for ever";
  const auto counted = [](int choices) {
    const auto grammar =
        compile_gbnf("root ::= (" + joined(choices, "|", [](int) { return "[a-z]"; }) + "){2,9}");
    EXPECT_TRUE(grammar) << refusal(grammar);
    return std::ranges::count_if(grammar.value()->characters,
                                 [](const auto& c) { return c.turn_of != 0; });
  };
  EXPECT_EQ(counted(100), 100);
  EXPECT_EQ(counted(300), 0);
}

TEST(Gbnf, ManyRulesThatCallOneAnother) {
  constexpr int kRules = 30'000;
  const auto grammar = compile_gbnf(
      "root ::= " + joined(kRules, "|", [](int i) { return std::format("a{}", i); }) + "\n" +
      joined(kRules, "\n", [](int i) { return std::format("a{}::=a{}", i, i + 1); }) +
      std::format("\na{}::=\"x\"?", kRules));
  ASSERT_TRUE(grammar) << refusal(grammar);
  EXPECT_EQ((*grammar)->need[(*grammar)->start()], 0) << "last calls go no deeper";
}

TEST(Gbnf, HostileOnesAreRefused) {
  // Each pair of parentheses copies what begins inside it.
  std::string nested = joined(20'000, "|", [](int) { return "\"a\""; });
  for (int i = 0; i < 90; ++i) nested = "(" + nested + "|\"b\")";
  EXPECT_THAT(refusal(compile_gbnf("root ::= " + nested)), HasSubstr("too large"));
  // A class of which no two characters are neighbours, spelled twice.
  std::string wide;
  for (char32_t code = 0x20000; code < 0xA0000; code += 2) tokenizer::utf8::append(wide, code);
  EXPECT_THAT(refusal(compile_gbnf("root ::= [" + wide + "] [" + wide + "]")),
              HasSubstr("too large"));
  // Messages do not repeat what is long.
  const std::string name(100'000, 'n');
  EXPECT_LT(refusal(compile_gbnf("root ::= " + name)).size(), 200U);
  EXPECT_LT(refusal(compile_gbnf("root ::= " + name + "\n" + name + " ::= root")).size(), 200U);
}

// ---- JSON

TEST(Json, AnyObject) {
  const auto grammar = compile_json();
  check(
      grammar,
      {"json",
       {R"({})", R"({ })", R"({"a":1})", R"({"a": [1, -2.5e3, "x", true, false, null, {}]})",
        "{\n  \"a\": \"b\",\n  \"c\": [\n    1,\n    2\n  ]\n}", R"({"\u00e9\n\"":"\ud83d\ude00"})",
        "{\"é😀\":\"\x7F\"}", R"({"a":[[[[]]]]})", R"({"a":0.5,"b":-0,"c":1E+5})"},
       {"",
        "[]",
        "1",
        R"({"a"})",
        R"({"a":})",
        R"({"a":1,})",
        R"({a:1})",
        R"({"a":01})",
        R"({"a":1.})",
        R"({"a":.5})",
        R"({"a":"\x"})",
        R"({"a":"\ud83d"})",
        R"({"a":"\ude00"})",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\xFF\"}",
        "{\"a\":\"\xED\xA0\x80\"}",
        R"({} )",
        R"({}{})",
        R"({"a":tru})",
        R"({"a":1}})"}});
}

TEST(Json, NestsAsDeepAsItMayAndNoDeeper) {
  Matcher matcher(*compile_json());
  const auto nested = [](std::size_t depth) {
    return "{\"a\":" + std::string(depth, '[') + std::string(depth, ']') + "}";
  };
  EXPECT_TRUE(matcher.matches(nested(100)));
  EXPECT_TRUE(api::parse_json(nested(kMaxDepth))) << "whatever is said can be parsed";
  EXPECT_FALSE(matcher.begins("{\"a\":" + std::string(kMaxDepth + 1, '[')));
  // At the deepest, what has been begun can be ended.
  std::string text = "{\"a\":";
  while (matcher.begins(text + '[')) text += '[';
  const std::size_t depth = text.size() - 5;
  EXPECT_GT(depth, 150U);
  EXPECT_TRUE(matcher.matches(text + std::string(depth, ']') + "}"));
}

TEST(Schema, TakesWhatIsValidAndRefusesTheRest) {
  const Case cases[] = {
      {R"({"type":"boolean"})", {"true", "false"}, {"null", "1"}},
      {R"({"type":["string","null"]})", {"null", "\"x\""}, {"1", "true"}},
      {R"({"enum":["a","ab","b",1,null,{"x":[1]}]})",
       {"\"a\"", "\"ab\"", "1", "null", R"({"x":[1]})"},
       {"\"c\"", "\"abb\"", "2"}},
      {R"({"const":"é\n"})", {"\"é\\n\""}, {"\"e\"", "null"}},
      {R"({"type":"integer","enum":[1,"a",2.5,3.0]})", {"1", "3"}, {"\"a\"", "2.5"}},
      {R"({"type":"string","maxLength":1,"enum":["a","bb","é"]})", {"\"a\"", "\"é\""}, {"\"bb\""}},
      {R"({"enum":[1,5,9],"minimum":2,"exclusiveMaximum":9})", {"5"}, {"1", "9"}},
      {R"(true)", {"1", "{}", "[null]", "\"\""}, {"", "x"}},
      {R"({"description":"anything","title":"t"})", {"1", "{}"}, {"x"}},
      // Numbers.
      {R"({"type":"integer"})", {"0", "-1", "123456"}, {"01", "1.0", "-0", "1e3", "-"}},
      {R"({"type":"number"})", {"0", "-0.5", "1e10", "12.25E-2"}, {"1.", "+1", "Infinity", "0x1"}},
      {R"({"type":"integer","minimum":3,"maximum":12})",
       {"3", "9", "10", "12"},
       {"2", "13", "-3", "30", "1", "03"}},
      {R"({"type":"integer","minimum":-5,"maximum":105})",
       {"-5", "-1", "0", "7", "99", "100", "105"},
       {"-6", "106", "-05", "-0", "200", "1000"}},
      {R"({"type":"integer","exclusiveMinimum":0})", {"1", "10", "987654321"}, {"0", "-1"}},
      {R"({"type":"integer","exclusiveMaximum":-10})", {"-11", "-100"}, {"-10", "-9", "0", "5"}},
      {R"({"type":"integer","minimum":5.5,"maximum":6.5})", {"6"}, {"5", "7"}},
      {R"({"type":"number","minimum":0,"maximum":1})",
       {"0", "1", "0.5", "0.001", "1.0", "1.000"},
       {"1.1", "1.001", "-0.1", "2", "0.", "1e0"}},
      {R"({"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1})",
       {"0.5", "0.001", "0.99"},
       {"0", "0.0", "1", "1.0", "0."}},
      {R"({"type":"number","minimum":-1.25,"maximum":2.5})",
       {"-1.25", "-1.2", "-1", "-0.5", "0", "2.5", "2.50", "2.49"},
       {"-1.26", "2.51", "-2", "3", "-1.3"}},
      {R"({"type":"number","exclusiveMaximum":-0.5})",
       {"-0.51", "-1", "-7.5"},
       {"-0.5", "-0.4", "0"}},
      {R"({"type":"integer","minimum":-9007199254740991,"maximum":9007199254740991})",
       {"0", "-5", "123456789012345"},
       {"1.5"}},
      {R"({"type":"number","minimum":1e3})", {"1000", "1000.5", "20000"}, {"999", "1"}},
      {R"({"type":"integer"})",
       {"12345678901234567890", "-123456789012345678901234567890"},
       {"123456789012345678901234567890123"}},
      {R"({"type":"number"})", {"1.12345678901234567890", "1e200", "-2.5E-9"}, {"1e309", "1e400"}},
      {R"({"type":"integer","minimum":0})", {"12345678901234567890"}, {"-1"}},
      {R"({"type":"integer","minimum":-9223372036854775808,"maximum":9223372036854775807})",
       {"9223372036854775807", "-9223372036854775808", "9007199254740993"},
       {"9223372036854775808", "-9223372036854775809", "10000000000000000000"}},
      // A double takes the last one below an exclusive bound of so many digits for the bound.
      {R"({"type":"integer","exclusiveMinimum":9000000000000000000})",
       {"9100000000000000000", "10000000000000000000"},
       {"9000000000000000000", "9000000000000000001", "5"}},
      {R"({"type":"integer","multipleOf":5})", {"0", "-15", "100", "12345"}, {"1", "-7", "05"}},
      {R"({"type":"integer","multipleOf":7,"minimum":8,"exclusiveMaximum":28})",
       {"14", "21"},
       {"7", "28", "15", "-14"}},
      {R"({"type":"integer","multipleOf":1})", {"3", "-20"}, {"3.0"}},
      {R"({"type":"integer","multipleOf":1000})", {"0", "5000", "-21000"}, {"500", "100"}},
      {R"({"type":"integer","multipleOf":0.5})", {"3"}, {"3.5"}},
      {R"({"type":"number","multipleOf":0.01})",
       {"0.07", "-12.5", "3", "1.100"},
       {"0.001", "1.005", "1e2"}},
      {R"({"type":"number","multipleOf":0.25,"minimum":-1})",
       {"0.25", "7.50", "-1", "-0.75"},
       {"0.1", "0.255", "-1.25"}},
      {R"({"type":"number","multipleOf":2.5})", {"2.5", "5", "10.0"}, {"2", "1.25"}},
      {R"({"allOf":[{"multipleOf":4},{"type":"integer","multipleOf":6}]})", {"12"}, {"4", "6"}},
      // Strings.
      {R"({"type":"string","minLength":2,"maxLength":3})",
       {"\"ab\"", "\"日本語\"", R"("a\n")", R"("\ud83d\ude00b")"},
       {"\"a\"", "\"abcd\"", "\"\""}},
      {R"({"type":"string","maxLength":1000000})", {"\"\"", "\"x\""}, {"x"}},
      {R"({"type":"string","pattern":"^[a-z]{2,4}$"})",
       {"\"ab\"", "\"abcd\""},
       {"\"a\"", "\"AB\""}},
      {R"({"type":"string","pattern":"b+"})", {"\"b\"", "\"abbc\"", "\"éb\""}, {"\"\"", "\"ac\""}},
      {R"({"type":"string","pattern":"^a|b$"})",
       {"\"a\"", "\"ax\"", "\"xb\""},
       {"\"xa\"", "\"bx\""}},
      {R"({"type":"string","pattern":"^(?:\\d{3}-)?\\d+\\.\\w$"})",
       {"\"123-4.x\"", "\"1._\""},
       {"\"12-4.x\"", "\"1.-\""}},
      {R"({"type":"string","pattern":"^[\"\\\\/\\t]$"})",
       {R"("\"")", R"("\\")", "\"/\"", R"("\t")"},
       {"\"\"\"", "\"\t\""}},
      {R"({"type":"string","pattern":"^[^a-c]$"})",
       {"\"d\"", "\"é\"", R"("\"")"},
       {"\"a\"", "\"\"\""}},
      {R"({"type":"string","pattern":"^[a-z]+$","minLength":2,"maxLength":3})",
       {"\"ab\"", "\"abc\""},
       {"\"a\"", "\"abcd\""}},
      {R"({"type":"string","pattern":"^(a|bc)*?$"})", {"\"\"", "\"abca\""}, {"\"b\""}},
      // White space is not the same for everyone: neither side takes what may be.
      {R"({"type":"string","pattern":"^[^\\s]$"})", {"\"a\"", "\"é\""}, {"\"\u00A0\"", "\" \""}},
      {R"({"type":"string","pattern":"^[^\\S]$"})", {"\" \"", "\"\\t\""}, {"\"\u3000\"", "\"a\""}},
      {R"({"type":"string","pattern":"^[\\s\\S]$"})",
       {"\"\u00A0\"", "\" \"", "\"\\n\""},
       {"\"ab\""}},
      {R"({"type":"string","pattern":"^[^\\da]$"})", {"\"b\""}, {"\"1\"", "\"a\""}},
      {R"({"type":"string","pattern":"^[^\\D]$"})", {"\"7\""}, {"\"a\""}},
      {R"({"type":"string","pattern":"^[^\\W_]$"})", {"\"a\"", "\"7\""}, {"\"_\"", "\"-\""}},
      // What stands escaped in JSON.
      {R"({"type":"string","pattern":"^.{1,3}$"})",
       {R"("\"\\\t")", "\"x\""},
       {R"("\n")", R"("\r")", "\"\"\"", R"("\"\\\tx")"}},
      {R"({"type":"string","pattern":"hi"})", {R"("\"\nhi\u00e9")", "\"hi\""}, {R"("h\ni")"}},
      {R"({"additionalProperties":{"const":1},"properties":{"a\"":{"const":2}}})",
       {R"({"a\"":2,"a":1,"\\":1,"a\"b":1,"x\u00e9":1})"},
       {R"({"a\"":1})", R"({"x":1,"a\"":1})"}},
      // Lookahead, anchors within, lengths and formats beside a pattern.
      {R"({"type":"string","pattern":"^(?=.*[A-Z])(?=.*\\d)(?!.*x).{4,}$"})",
       {"\"aB1c\"", "\"1234A\""},
       {"\"ab1c\"", "\"aBcd\"", "\"aBx1\"", "\"B1\""}},
      {R"#({"type":"string","pattern":"(^a$|^b$)"})#", {"\"a\"", "\"b\""}, {"\"ab\"", "\"xa\""}},
      {R"({"type":"string","pattern":"(^|,)x"})", {"\"x\"", "\"a,x\""}, {"\"ax\""}},
      {R"({"type":"string","pattern":"^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$"})",
       {"\"1.5\"", "\"-00.1\"", "\"7\""},
       {"\"\"", "\"-\"", "\".\"", "\"1.5.\""}},
      {R"({"type":"string","pattern":"^A(?!00)\\d\\d$"})", {"\"A01\""}, {"\"A00\""}},
      {R"({"type":"string","pattern":"^[a-z]+-\\d+$","minLength":5,"maxLength":8})",
       {"\"abc-1\"", "\"a-123456\""},
       {"\"ab-1\"", "\"abc-12345\"", "\"abcde\""}},
      {R"({"type":"string","pattern":"^[a-zA-Z][a-zA-Z0-9_]*$","minLength":1,"maxLength":3})",
       {"\"a\"", "\"a_9\""},
       {"\"\"", "\"a_99\"", "\"9\""}},
      {R"({"type":"string","pattern":"b","maxLength":3})", {"\"b\"", "\"abc\""}, {"\"aabc\""}},
      {R"({"type":"string","pattern":"^a+b$","maxLength":3})", {"\"ab\"", "\"aab\""}, {"\"aaab\""}},
      {R"({"type":"string","pattern":"^20","format":"date"})",
       {"\"2024-02-29\""},
       {"\"1999-01-01\"", "\"20\"", "\"2023-02-29\""}},
      {R"({"allOf":[{"pattern":"a"},{"pattern":"b"},{"maxLength":2}]})",
       {"\"ab\"", "\"ba\""},
       {"\"a\"", "\"b\"", "\"abc\""}},
      {R"({"type":"string","format":"uri","minLength":1,"maxLength":2083})",
       {"\"https://example.com/a?b=%20#c\""},
       {"\"\"", "\"a\""}},
      {R"({"type":"string","format":"email","maxLength":12})",
       {"\"a.b@c.de\""},
       {"\"abcdef@gh.org\""}},
      {R"({"type":"string","format":"date"})",
       {"\"2026-11-26\"", "\"2024-02-28\"", "\"2024-02-29\"", "\"2000-02-29\"", "\"0001-01-01\""},
       {"\"1900-02-29\"", "\"2023-02-29\"", "\"0000-01-01\"", "\"2026-13-01\"", "\"2026-02-30\"",
        "\"2026-04-31\"", "\"26-1-1\""}},
      {R"({"type":"string","format":"time"})",
       {"\"23:59:00Z\"", "\"00:00:00.5+01:30\"", "\"23:59:60Z\""},
       {"\"24:00:00Z\"", "\"1:00:00Z\"", "\"22:59:60Z\""}},
      {R"({"type":"string","format":"date-time"})",
       {"\"2026-11-26T17:00:00Z\"", "\"2024-02-29T00:00:00.123456-05:30\"",
        "\"2016-12-31T23:59:60Z\""},
       {"\"2026-11-26 17:00:00\"", "\"2016-12-30T23:59:60Z\"", "\"2026-11-26T17:00:00\""}},
      {R"({"type":"string","format":"uuid"})",
       {"\"123e4567-e89b-12d3-a456-426614174000\"", "\"550E8400-E29B-41D4-A716-446655440000\""},
       {"\"123e4567e89b12d3a456426614174000\""}},
      {R"({"type":"string","format":"email"})",
       {"\"a.b+c@example.org\"", "\"customer_service_department_of_europe@mail.example.co.uk\"",
        "\"first.middle.last.extra@b.co\"", "\"o'neil@b.co\""},
       {"\"a@b\"", "\"@x.org\"", "\"a..b@x.org\"", "\".a@x.org\"", "\"a@-x.org\""}},
      {R"({"type":"string","format":"ipv4"})",
       {"\"192.168.0.255\""},
       {"\"1.2.3\"", "\"1.2.3.256\"", "\"01.2.3.4\""}},
      {R"({"type":"string","format":"ipv6"})",
       {"\"::\"", "\"::1\"", "\"fe80::1:2\"", "\"1:2:3:4:5:6:7:8\"", "\"1::\"",
        "\"::ffff:192.168.0.1\"", "\"1:2:3:4:5:6:1.2.3.4\"", "\"1:2:3:4:5:6:7::\"",
        "\"1::1.2.3.4\""},
       {"\"::1.2.3.256\"", "\"1:2:3:4:5:6:7:1.2.3.4\"", "\"1:2:3::4:5:6:7:8\"", "\"1:2:3\"",
        "\"1::2::3\"", "\"1:2:3:4:5:6:7:8:9\"", "\"12345::\""}},
      {R"({"type":"string","format":"hostname"})",
       {"\"a-b.example\"",
        "\"averyveryveryveryveryveryveryveryveryverylonglabelof55letters.example.com\""},
       {"\"-a\"", "\"a..b\"", "\"a-\""}},
      {R"({"type":"string","format":"uri"})",
       {"\"https://a.org/b%20c?d=e#f\"", "\"http://localhost:11434/api\"",
        "\"https://user@example.com/x\"", "\"mailto:a@b.example\"", "\"http://[::1]:80/\"",
        "\"https://a.b.c.d.e.f.g.example.com/\"",
        "\"https://en.wikipedia.org/wiki/Llama_(animal)?x=1\"", "\"urn:isbn:0451450523\"",
        "\"file:///etc/hosts\"", "\"http://192.168.0.1:8080\""},
       {"\"a.org\"", "\"http://a b\"", "\"http://a.org:65536/\"", "\"http://[::1\"",
        "\"http://a.org/%2\"", "\"http://a#b#c\"", "\"http://999.1.1.1/\""}},
      {R"({"type":"string","format":"uri-reference"})",
       {"\"/a/b\"", "\"../x?y#z\"", "\"#top\"", "\"\"", "\"//a.org/b\"", "\"https://a.org\"",
        "\"?q=1\""},
       {"\"a b\"", "\"%\""}},
      {R"({"type":"string","format":"duration"})",
       {"\"P1DT2H\"", "\"PT5M\"", "\"P1Y2M3DT4H5M6S\"", "\"P1DT2H30M\"", "\"P2W\"", "\"P1M\"",
        "\"PT36H\""},
       {"\"P\"", "\"1D\"", "\"PT\"", "\"P1DT\"", "\"P1W1D\"", "\"PT1H30S\""}},
      {R"({"type":"string","format":"of my own"})", {"\"anything\""}, {"1"}},
      // Arrays.
      {R"({"type":"array","items":{"type":"integer"}})",
       {"[]", "[1]", "[1, 2,3]"},
       {"[1,]", "[,]", "[\"a\"]"}},
      {R"({"type":"array"})", {"[]", R"([1,"a",[]])"}, {"{}"}},
      {R"({"type":"array","items":{"type":"boolean"},"minItems":2,"maxItems":3})",
       {"[true,false]", "[true, true, true]"},
       {"[]", "[true]", "[true,true,true,true]"}},
      {R"({"type":"array","items":{"const":1},"maxItems":0})", {"[]"}, {"[1]"}},
      {R"({"type":"array","items":false})", {"[]"}, {"[1]"}},
      {R"({"prefixItems":[{"type":"integer"},{"type":"string"}],"items":false})",
       {"[]", "[1]", "[1,\"a\"]"},
       {"[\"a\"]", "[1,\"a\",2]"}},
      {R"({"prefixItems":[{"const":1},{"const":2}],"items":{"const":3},"minItems":2,"maxItems":4})",
       {"[1,2]", "[1, 2, 3]", "[1,2,3,3]"},
       {"[1]", "[1,2,3,3,3]", "[1,3]"}},
      {R"({"items":[{"const":1}],"additionalItems":{"const":2}})", {"[]", "[1,2,2]"}, {"[2]"}},
      {R"({"items":{"enum":["a","b","c"]},"uniqueItems":true})",
       {"[]", "[\"b\"]", "[\"c\", \"a\"]", "[\"b\",\"a\",\"c\"]"},
       {"[\"a\",\"a\"]", "[\"a\",\"b\",\"a\"]", "[\"d\"]", "[\"a\",]"}},
      {R"({"items":{"$ref":"#/$defs/c"},"$defs":{"c":{"enum":[1,2,1.0]}},"uniqueItems":true,"minItems":1})",
       {"[1]", "[2,1]"},
       {"[]", "[1,1]", "[1,2,1]"}},
      {R"({"type":"array","items":{"type":"boolean"},"uniqueItems":true,"maxItems":1})",
       {"[]", "[true]"},
       {"[true,false]"}},
      {R"({"type":"array","uniqueItems":true,"maxItems":1})", {"[]", "[{}]"}, {"[1,2]"}},
      {R"({"type":"array","prefixItems":[{"const":1}],"unevaluatedItems":false})",
       {"[]", "[1]"},
       {"[1,2]"}},
      // Objects.
      {R"({"type":"object","additionalProperties":{"type":"number"},"propertyNames":{"type":"string"}})",
       {"{}", R"({"a":1,"b":2.5})"},
       {R"({"a":"x"})"}},
      {R"({"additionalProperties":{"const":1},"propertyNames":{"pattern":"^[a-c]+$","maxLength":2}})",
       {"{}", R"({"ab":1,"c":1})"},
       {R"({"d":1})", R"({"abc":1})"}},
      {R"({"additionalProperties":{"const":1},"propertyNames":{"enum":["x","y"]},"required":["x"]})",
       {R"({"x":1})", R"({"x":1,"y":1})"},
       {"{}", R"({"y":1})", R"({"x":1,"z":1})"}},
      {R"({"patternProperties":{"^a":{"const":1},"b$":{"type":"integer"}}})",
       {"{}", R"({"a":1,"ab":1,"xb":7})"},
       {R"({"ab":7})", R"({"x":1})", R"({"a":2})"}},
      {R"({"patternProperties":{"^a":{"minimum":3}},"properties":{"ab":{"maximum":5},"c":{"const":0}},
           "additionalProperties":{"const":null}})",
       {R"({"ab":4,"c":0,"ax":9,"z":null})"},
       {R"({"ab":2})", R"({"ab":6})", R"({"ax":1})", R"({"z":1})"}},
      {R"({"patternProperties":{"^\\d{2}$":{"const":1}},"additionalProperties":false,"minProperties":1})",
       {R"({"12":1})"},
       {"{}", R"({"1":1})"}},
      {R"({"properties":{"a":{"const":1}},"patternProperties":{},"dependentRequired":{},
           "dependentSchemas":{},"unevaluatedProperties":false,"if":true,"not":false,"minContains":1})",
       {"{}", R"({"a":1})"},
       {R"({"b":1})"}},
      {R"({"type":"object","unevaluatedProperties":false})", {"{}"}, {R"({"a":1})"}},
      {R"({"allOf":[{"properties":{"a":{"const":1}}},{"properties":{"b":{"const":2}}}],
           "unevaluatedProperties":false})",
       {R"({"a":1,"b":2})"},
       {R"({"c":1})"}},
      {R"({"anyOf":[{"type":"integer"},{"not":{}}]})", {"1"}, {"\"a\""}},
      // Values of an enum are held against what stands beside it.
      {R"({"enum":["ab","b","ad"],"pattern":"^a"})", {"\"ab\"", "\"ad\""}, {"\"b\""}},
      {R"({"enum":["2024-02-29","x"],"format":"date"})", {"\"2024-02-29\""}, {"\"x\""}},
      {R"({"enum":[3,4,6,9],"multipleOf":3,"maximum":6})", {"3", "6"}, {"4", "9"}},
      {R"({"enum":[{"x":1},{"x":"a"},{"y":1}],"properties":{"x":{"type":"integer"}},"required":["x"]})",
       {R"({"x":1})"},
       {R"({"x":"a"})", R"({"y":1})"}},
      {R"({"enum":[{"x":1},{"x":"a"}],"properties":{"x":{"$ref":"#/$defs/a%20b"}},
           "$defs":{"a b":{"type":"integer"}}})",
       {R"({"x":1})"},
       {R"({"x":"a"})"}},
      {R"({"enum":[[1,1],[1,2]],"uniqueItems":true})", {"[1,2]"}, {"[1,1]"}},
      {R"({"type":"object"})", {"{}", R"({"a":1,"b":[]})"}, {"[]"}},
      {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["a","b"]})",
       {R"({"a":1,"b":"x"})", R"({ "a": 1, "b": "x" })", "{\n\t\"a\": 1,\n\t\"b\": \"x\"\n}"},
       {"{}", R"({"a":1})", R"({"b":"x","a":1})", R"({"a":1,"b":"x","c":1})",
        R"({"a":1 "b":"x"})"}},
      {R"({"properties":{"a":{"const":1},"b":{"const":2},"c":{"const":3}},"required":["b"]})",
       {R"({"b":2})", R"({"a":1,"b":2})", R"({"b":2,"c":3})", R"({"a":1,"b":2,"c":3})"},
       {"{}", R"({"a":1})", R"({"a":1,"c":3})", R"({"c":3,"b":2})", R"({"b":2,})", R"({,"b":2})"}},
      {R"({"properties":{"a":{"const":1},"b":{"const":2}}})",
       {"{}", R"({"a":1})", R"({"b":2})", R"({"a":1,"b":2})"},
       {R"({"c":1})", R"({"b":2,"a":1})", R"({"a":1,})"}},
      {R"({"properties":{"ab":{"const":1}},"additionalProperties":{"type":"boolean"}})",
       {"{}", R"({"ab":1})", R"({"ab":1,"a":true,"abc":false,"":true,"b":true})", R"({"x":true})"},
       {R"({"ab":true})", R"({"x":1})", R"({"x":true,"ab":true})", R"({"x":true,"ab":1})"}},
      {R"({"properties":{"é":{"const":1}},"additionalProperties":true})",
       {R"({"é":1,"è":{}})", R"({"éé":2})"},
       {R"({"é":2})", R"({"x":0,"é":2})"}},
      {R"({"additionalProperties":{"type":"integer"},"minProperties":1,"maxProperties":2})",
       {R"({"a":1})", R"({"a":1,"b":2})"},
       {"{}", R"({"a":1,"b":2,"c":3})", R"({"a":"x"})"}},
      {R"({"type":"object","required":["x"]})", {R"({"x":[]})"}, {"{}", R"({"y":1})"}},
      {R"({"properties":{"a":true,"b":true},"minProperties":1,"additionalProperties":false})",
       {R"({"a":1})", R"({"a":1,"b":2})"},
       {"{}"}},
      {R"({"properties":{"a":false,"b":{"const":1}}})", {"{}", R"({"b":1})"}, {R"({"a":1})"}},
      {R"({"properties":{"a\"b":{"const":1}}})", {R"({"a\"b":1})"}, {R"({"ab":1})"}},
      // Several at once.
      {R"({"anyOf":[{"type":"integer"},{"type":"string"}]})", {"1", "\"a\""}, {"null"}},
      {R"({"oneOf":[{"const":1},{"const":2}]})", {"1", "2"}, {"3"}},
      {R"({"allOf":[{"type":"integer"},{"minimum":2},{"maximum":5}]})",
       {"2", "5"},
       {"1", "6", "2.5"}},
      {R"({"allOf":[{"properties":{"a":{"type":"integer"}},"required":["a"]},
                    {"properties":{"b":{"const":1},"a":{"minimum":3}},"required":["b"]}]})",
       {R"({"a":3,"b":1})"},
       {R"({"a":2,"b":1})", R"({"a":3})"}},
      {R"({"type":"object","properties":{"k":{"type":"string"}},"required":["k"],
           "anyOf":[{"properties":{"a":{"const":1}},"required":["a"]},
                    {"properties":{"b":{"const":2}},"required":["b"]}]})",
       {R"({"k":"","a":1})", R"({"k":"","b":2})"},
       {R"({"k":""})", R"({"a":1})"}},
      {R"({"allOf":[{"anyOf":[{"const":1},{"const":2}]},{"anyOf":[{"const":2},{"const":3}]}]})",
       {"2"},
       {"1", "3"}},
      {R"({"type":"string","nullable":true})", {"\"a\"", "null"}, {"1"}},
      // References.
      {R"({"$ref":"#/$defs/n","$defs":{"n":{"type":"null"}}})", {"null"}, {"1"}},
      {R"({"$defs":{"n":{"type":"integer"}},"$ref":"#/$defs/n","minimum":5})", {"5"}, {"4"}},
      {R"({"type":"object","properties":{"v":{"type":"integer"},"next":{"$ref":"#"}},"required":["v"]})",
       {R"({"v":1})", R"({"v":1,"next":{"v":2,"next":{"v":3}}})"},
       {R"({"next":{"v":1}})", R"({"v":1,"next":{}})"}},
      {R"({"$ref":"#/definitions/a~1b%20c","definitions":{"a/b c":{"const":1}}})", {"1"}, {"2"}},
      {R"({"$defs":{"tree":{"anyOf":[{"type":"null"},{"type":"array","items":{"$ref":"#/$defs/tree"},
           "minItems":2,"maxItems":2}]}},"$ref":"#/$defs/tree"})",
       {"null", "[null,null]", "[[null,null],null]"},
       {"[null]", "[]"}},
  };
  for (const Case& test : cases) check(compile_schema(parse(test.grammar)), test);
}

TEST(Schema, SaysWhyItIsRefused) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {R"(1)", "a schema is an object"},
      {R"(false)", "false is what no value meets"},
      {R"({"enum":[]})", "enum has no value"},
      {R"({"type":"text"})", "\"text\" is no type; types are object"},
      {R"({"type":"integer","minimum":3,"maximum":2})",
       "no integer is within its minimum and maximum"},
      {R"({"type":"integer","exclusiveMinimum":3,"exclusiveMaximum":4})", "no integer is within"},
      {R"({"type":"number","exclusiveMinimum":3,"maximum":3})", "no number is within"},
      {R"({"type":"number","minimum":0.12345678901234567})", "more than 15 digits"},
      {R"({"type":"string","minLength":3,"maxLength":2})", "minLength 3 is above maxLength 2"},
      {R"({"type":"string","minLength":-1})", "\"minLength\" is a whole number"},
      {R"({"type":"array","minItems":3,"maxItems":2})", "minItems 3 is above maxItems 2"},
      {R"({"type":"array","items":false,"minItems":1})", "at #/items: false"},
      {R"({"type":"array","items":{"type":"string"},"uniqueItems":true})",
       "\"uniqueItems\" is enforced only where"},
      {R"({"items":{"enum":[1,2]},"uniqueItems":true,"minItems":3})",
       "the number of different values"},
      {R"({"type":"integer","minimum":1e40})",
       "\"minimum\" allows only numbers of more than 32 digits"},
      {R"({"$ref":"#/$defs/x"})", "$ref \"#/$defs/x\" leads nowhere"},
      {R"({"$ref":"other.json#/x"})", "$ref \"other.json#/x\" leads nowhere"},
      {R"({"$ref":"#"})", "leads back to itself"},
      {R"({"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"})",
       "leads back to itself"},
      {R"({"type":"object","properties":{"next":{"$ref":"#"}},"required":["next"]})",
       "nothing finite can be said"},
      {R"({"$ref":"#","minimum":1})", "leads back to itself"},
      {R"({"properties":{"a":true},"required":["b"],"additionalProperties":false})",
       "the property \"b\" is required, and additionalProperties forbids it"},
      {R"({"properties":{"a":{"type":"integer","minimum":2,"maximum":1}},"required":["a"]})",
       "at #/properties/a: no integer"},
      {R"({"properties":{"a":true},"additionalProperties":false,"minProperties":2})",
       "\"minProperties\": 2"},
      {R"({"allOf":[{"type":"string"},{"type":"null"}]})", "no type is left"},
      {R"({"allOf":[{"pattern":"^a"},{"pattern":"^b"}]})",
       R"(no string meets "pattern": "^a", "pattern": "^b")"},
      {R"({"allOf":[{"patternProperties":{"a":true}},{"properties":{"b":true}}]})",
       "\"patternProperties\" and the \"properties\" of another schema"},
      {R"({"additionalProperties":true,"minProperties":2})",
       "\"minProperties\" cannot be enforced"},
      {R"({"anyOf":[]})", "there is no alternative"},
      {R"({"anyOf":1})", "\"anyOf\" is an array"},
      {R"({"not":{}})", "false is what no value meets"},
      {R"({"not":{"type":"string"}})", "\"not\" is not supported"},
      {R"({"properties":{"x":{"multipleOf":0}}})",
       "#/properties/x: \"multipleOf\" is a number above 0"},
      {R"({"multipleOf":7919})", "\"multipleOf\" is too large"},
      {R"({"type":"integer","multipleOf":7,"minimum":1,"maximum":6})", "and a multiple"},
      {R"({"patternProperties":{"(":true}})", "a group is not closed"},
      {R"({"properties":{"a":true},"required":["a"],"propertyNames":{"maxLength":0}})",
       "the property \"a\" is required, and propertyNames forbids it"},
      {R"({"if":{},"then":{}})", "\"if\" is not supported"},
      {R"({"allOf":[{"$ref":"#/$defs/a","unevaluatedProperties":false}],"$defs":{"a":{}}})",
       "\"unevaluatedProperties\" is not supported"},
      {R"#({"type":"string","pattern":"(?<=a)b"})#", "lookbehind is not supported"},
      {R"#({"type":"string","pattern":"(?i)b"})#", "flags are not supported"},
      {R"#({"type":"string","pattern":"^((?=a).)*$"})#", "cannot be in what is repeated"},
      {R"({"type":"string","pattern":"^[^\\s\\S]+$"})", "no string meets \"pattern\""},
      {R"({"type":"string","pattern":"^(a|b)+c$","maxLength":100000})",
       R"("pattern": "^(a|b)+c$", "maxLength": 100000: together they make too large a grammar)"},
      {R"({"type":"string","format":"ipv4","maxLength":6})",
       R"(no string meets "format": "ipv4", "maxLength": 6)"},
      {R"({"type":"string","pattern":"(a)\\1"})", "this escape is not supported"},
      {R"({"type":"string","pattern":"\\ba"})", "word boundaries"},
      {R"({"type":"string","pattern":"a^b"})", "no string meets"},
      {R"({"type":"string","pattern":"(a"})", "a group is not closed"},
      {R"#({"type":"string","pattern":"a)"})#", "nothing for this to close"},
      {R"({"type":"string","pattern":"*a"})", "nothing to repeat"},
      {R"({"type":"string","pattern":"a{3,2}"})", "a repeat is"},
      {R"({"type":"string","pattern":"[z-a]"})", "a range goes from"},
      {R"({"type":"string","pattern":"a","format":"date"})",
       R"(no string meets "format": "date", "pattern": "a")"},
      {R"({"enum":["a"],"pattern":"b"})", "no value of enum meets"},
      {R"({"enum":["a"],"format":"date"})", "no value of enum meets"},
      {R"({"properties":[]})", "\"properties\" is an object"},
      {R"({"properties":{"a":7}})", "#/properties/a: a schema is an object"},
      {R"({"required":"a"})", "\"required\" is an array"},
  };
  for (const auto& [schema, message] : cases) {
    EXPECT_THAT(refusal(compile_schema(parse(schema))), HasSubstr(message)) << schema;
  }
}

TEST(Schema, HostileOnesAreRefusedOrStaySmall) {
  // Alternatives that multiply.
  std::string all;
  for (int i = 0; i < 30; ++i) {
    all += std::format(R"({}{{"anyOf":[{{"minimum":{}}},{{"maximum":{}}}]}})", i == 0 ? "" : ",", i,
                       i);
  }
  EXPECT_THAT(refusal(compile_schema(parse("{\"allOf\":[" + all + "]}"))), HasSubstr("too large"));
  // Objects inside objects: each is in the program once.
  std::string nested = R"({"type":"integer"})";
  for (int i = 0; i < 50; ++i) nested = R"({"properties":{"a":)" + nested + R"(,"b":{"const":1}}})";
  const auto grammar = compile_schema(parse(nested));
  ASSERT_TRUE(grammar) << refusal(grammar);
  EXPECT_LT((*grammar)->nodes.size(), 10'000U);
  for (int i = 0; i < 20; ++i) nested = R"({"properties":{"a":)" + nested + "}}";
  EXPECT_THAT(refusal(compile_schema(parse(nested))), HasSubstr("inside one another"));
  // Many properties that may all be left out.
  std::string many;
  for (int i = 0; i < 3000; ++i) {
    many += std::format(R"({}"p{}":{{"type":"integer"}})", i == 0 ? "" : ",", i);
  }
  const auto wide = compile_schema(parse("{\"properties\":{" + many + "}}"));
  ASSERT_TRUE(wide) << refusal(wide);
  EXPECT_TRUE(Matcher(*wide).matches(R"({"p1":1,"p2999":2})"));
  EXPECT_FALSE(Matcher(*wide).matches(R"({"p2999":1,"p1":2})"));
  // A text that is too large a grammar.
  std::string huge;
  for (int i = 0; i < 60'000; ++i) huge += std::format("{}\"{}\"", i == 0 ? "" : ",", i * 7919);
  EXPECT_THAT(refusal(compile_schema(parse("{\"enum\":[" + huge + "]}"))), HasSubstr("too large"));
  // Patterns of more states than there is room for, one by one and together.
  const std::string_view doubling = R"#("pattern":"^(?=.*c)(a|b|c)*a(a|b|c){40}$")#";
  EXPECT_THAT(refusal(compile_schema(parse(std::format("{{{}}}", doubling)))),
              HasSubstr("together they make too large a grammar"));
  std::string patterns;
  for (int i = 0; i < 500; ++i) {
    patterns += std::format(R"#({}"p{}":{{"pattern":"^(?=.*c)[ab]{{{}}}c*$"}})#", i == 0 ? "" : ",",
                            i, i * 10);
  }
  EXPECT_THAT(refusal(compile_schema(parse("{\"properties\":{" + patterns + "}}"))),
              HasSubstr("together they make too large a grammar"));
  // The same one in many places is written once.
  std::string same;
  for (int i = 0; i < 500; ++i) {
    same +=
        std::format(R"#({}"p{}":{{"pattern":"^(?=.*c)[ab]{{1000}}c*$"}})#", i == 0 ? "" : ",", i);
  }
  const auto once = compile_schema(parse("{\"properties\":{" + same + "}}"));
  ASSERT_TRUE(once) << refusal(once);
  EXPECT_LT((*once)->nodes.size(), 60'000U);
  // Counts that multiply cost nothing.
  const auto counted = compile_gbnf(R"(root ::= (("a"{1,1000000} "b"){1,1000000} "c"){1,1000000})");
  ASSERT_TRUE(counted) << refusal(counted);
  EXPECT_TRUE(Matcher(*counted).matches("aabcabaabc"));
}

TEST(Schema, NamesOfRulesAreShortWhereThoseOfPropertiesAreLong) {
  const std::string properties =
      joined(500, ",", [](int i) { return std::format("\"p{}\":{{\"type\":\"number\"}}", i); });
  const auto grammar = compile_schema(parse(R"({"properties":{")" + std::string(40'000, 'x') +
                                            R"(":{"properties":{)" + properties + "}}}}"));
  ASSERT_TRUE(grammar) << refusal(grammar);
  for (const Grammar::Rule& rule : (*grammar)->rules) ASSERT_LT(rule.name.size(), 100U);
  // Paths in messages say where without all of it, and with whole characters.
  const std::string long_name(100'000, 'x');
  for (const std::string& schema :
       {R"({"properties":{")" + long_name + R"(":{"type":1}}})",
        R"({"required":[")" + long_name + R"("],"additionalProperties":false})",
        R"({"$ref":"#/)" + long_name + R"("})", R"({"$ref":"#/)" + long_name + R"(","minItems":1})",
        R"({"type":")" + long_name + R"("})", R"({"pattern":")" + long_name + "(\"}"}) {
    EXPECT_LT(refusal(compile_schema(parse(schema))).size(), 300U) << schema.substr(0, 40);
  }
  EXPECT_LT(refusal(compile_format(api::Json(long_name))).size(), 200U);
  std::string umlauts = "x";
  for (int i = 0; i < 100; ++i) umlauts += "ä";
  EXPECT_THAT(refusal(compile_schema(parse(R"({"properties":{")" + umlauts + R"(":1}})"))),
              HasSubstr("ä...: a schema is an object"));
}

TEST(Schema, WhatIsCopiedOrLookedAtAgainAndAgainIsLimited) {
  const auto names = [](int count, std::string_view of_each) {
    return joined(count, ",", [&](int i) { return std::format("\"n{}\"{}", i, of_each); });
  };
  const std::string numbers = joined(3000, ",", [](int i) { return std::to_string(i); });
  const std::string text(300'000, 'x');
  const std::string schemas[] = {
      // Beside each property that the other schema does not name.
      R"({"allOf":[{"properties":{)" + names(3000, ":{}") +
          R"(}},{"additionalProperties":{"enum":[)" + numbers + "]}}]}",
      // For each name that is required.
      R"({"additionalProperties":{"enum":[)" + numbers + R"(]},"required":[)" + names(3000, "") +
          "]}",
      R"({"additionalProperties":{"properties":{")" + text + R"(":false}},"required":[)" +
          names(3000, "") + "]}",
      R"({"additionalProperties":{"pattern":"^[)" + text.substr(0, 40'000) +
          R"(]$"},"required":[)" + names(3000, "") + "]}",
      // For each reference that has something beside it.
      R"({"$defs":{"e":{},"l":{"enum":[)" + numbers + R"(]}},"properties":{)" +
          names(3000, R"(:{"allOf":[{"$ref":"#/$defs/e"},{"$ref":"#/$defs/l"}]})") + "}}",
      R"({"$defs":{"e":{},"l":{"$ref":"#/)" + text + R"("}},"properties":{)" +
          names(3000,
                R"(:{"allOf":[{"$ref":"#/$defs/e"},{"anyOf":[{"$ref":"#/$defs/l"},true]}]})") +
          "}}",
      // For each alternative.
      R"({"description":"-","properties":{)" + names(3000, ":{}") + R"(},"anyOf":[)" +
          joined(1000, ",", [](int i) { return std::format(R"({{"required":["n{}"]}})", i); }) +
          "]}",
  };
  for (const std::string& schema : schemas) {
    EXPECT_THAT(refusal(compile_schema(parse(schema))), HasSubstr("too large"))
        << schema.substr(0, 60);
  }
  // Alternatives of one list do not pay for those of another.
  const auto large =
      R"({"enum":[)" + joined(10'000, ",", [](int i) { return std::to_string(i); }) + "]}";
  const auto choices = compile_schema(
      parse(R"({"allOf":[{"anyOf":[)" +
            joined(20, ",", [](int i) { return std::format(R"({{"maximum":{}}})", i); }) +
            R"(]},{"anyOf":[{"type":"null"},)" + large + "]}]}"));
  ASSERT_TRUE(choices) << refusal(choices);
  check(choices, {"choices", {"0", "19"}, {"20", "9999"}});
  // Nor does what nests pay for each level that it lies in.
  std::string nested = large;
  for (int i = 0; i < 50; ++i) nested = R"({"properties":{"a":)" + nested + "}}";
  const auto deep = compile_schema(parse(nested));
  EXPECT_TRUE(deep) << refusal(deep);
}

TEST(Schema, WhatPatternsAndEnumsAreHeldAgainstIsLimited) {
  // Each of these leads to two more.
  const std::string defs = joined(25, ",", [](int i) {
    return std::format(
        R"("a{0}":{{"anyOf":[{{"$ref":"#/$defs/a{1}"}},{{"$ref":"#/$defs/a{1}"}}]}})", i, i + 1);
  });
  const std::string text(1'000'000, 'x');
  const std::string names =
      joined(500, ",", [](int i) { return std::format("\"abc{}\":{{}}", i); });
  const std::string numbers = joined(5000, ",", [](int i) { return std::to_string(i); });
  const std::string schemas[] = {
      R"({"$defs":{)" + defs + R"(,"a25":{"type":"string"}},"enum":[{"x":1}],)" +
          R"("properties":{"x":{"$ref":"#/$defs/a0"}}})",
      R"({"pattern":"^)" + text + R"($"})",
      R"({"pattern":"^()" + std::string(1'000'000, '|') + R"()$"})",
      R"({"patternProperties":{")" + text + R"(":{}}})",
      // What several patterns say of a name is copied for each of them.
      R"({"patternProperties":{"a":{"enum":[)" + numbers + R"(]},"b":{"enum":[)" + numbers +
          R"(]}},"properties":{)" + names + "}}",
      // 2^64 remainders, and more.
      R"({"allOf":[)" +
          joined(64, ",", [](int i) { return std::format(R"({{"multipleOf":{}}})", 4 * i + 4); }) +
          "]}",
      R"({"allOf":[)" +
          joined(3000, ",", [](int i) { return std::format(R"({{"pattern":"a{}"}})", i); }) + "]}",
  };
  for (const std::string& schema : schemas) {
    EXPECT_THAT(refusal(compile_schema(parse(schema))), HasSubstr("too large"))
        << schema.substr(0, 60);
  }
  // Messages do not repeat what is long.
  const std::string two = R"({"pattern":")" + text.substr(0, 1500) + R"((?=b)$","maxLength":9})";
  EXPECT_LT(refusal(compile_schema(parse(two))).size(), 300U);
  // Nesting costs nothing, nor do formats that come again and again.
  std::string nested = R"({"enum":[)" + numbers + "]}";
  for (int i = 0; i < 40; ++i) {
    nested = R"({"properties":{"a":)" + nested + R"(},"patternProperties":{"^b":true}})";
  }
  const auto deep = compile_schema(parse(nested));
  EXPECT_TRUE(deep) << refusal(deep);
  const auto times = compile_schema(
      parse(R"({"properties":{)" +
            joined(2000, ",", [](int i) { return std::format(R"("t{}":{{"format":"uri"}})", i); }) +
            "}}"));
  EXPECT_TRUE(times) << refusal(times);
  const auto listed = compile_schema(parse(
      R"({"format":"uri","enum":[)" +
      joined(5000, ",", [](int i) { return std::format(R"("http://a.b/{}")", i); }) + R"(,"-"]})"));
  check(listed, {"enum", {R"("http://a.b/4999")"}, {R"("-")"}});
}

TEST(Schema, ListsThatMeetAreComparedAsSets) {
  check(compile_schema(parse(R"({"allOf":[{"enum":[1,"a",{"x":1,"y":[2]},-0.0,null,"b"]},
                                         {"enum":[{"y":[2],"x":1},1.0,"a",0,true]}]})")),
        {"enums", {"1", "\"a\"", R"({"x":1,"y":[2]})"}, {"null", "\"b\"", "true"}});
  check(compile_schema(parse(R"({"allOf":[{"type":["integer","string","null"]},
                                         {"type":["number","boolean","string","string"]}]})")),
        {"types", {"1", "\"a\""}, {"1.5", "null", "true"}});
  const auto list = [](int from, int to) {
    return joined(to - from, ",", [&](int i) { return std::format("\"n{}\"", from + i); });
  };
  const auto required = compile_schema(parse(R"({"allOf":[{"required":[)" + list(0, 1500) +
                                             R"(]},{"required":[)" + list(1000, 2500) + "]}]}"));
  ASSERT_TRUE(required) << refusal(required);
  const auto object = [](int count) {
    return "{" + joined(count, ",", [](int i) { return std::format("\"n{}\":0", i); }) + "}";
  };
  EXPECT_TRUE(Matcher(*required).matches(object(2500)));
  EXPECT_FALSE(Matcher(*required).matches(object(2499)));
}

TEST(Schema, OptionalPropertiesPastTheMaximumAreLeftOutFromTheEnd) {
  check(compile_schema(parse(R"({"properties":{"a":true,"b":true,"c":true,"d":true,"e":true},
                                "required":["b","e"],"maxProperties":3})")),
        {"maxProperties",
         {R"({"a":0,"b":0,"e":0})", R"({"b":0,"e":0})"},
         {R"({"a":0,"b":0,"c":0,"e":0})", R"({"b":0,"c":0,"e":0})", R"({"a":0,"b":0})"}});
}

TEST(Format, IsJsonASchemaOrAGrammar) {
  EXPECT_TRUE(compile_format("json"));
  EXPECT_TRUE(compile_format("root ::= \"a\""));
  EXPECT_TRUE(compile_format(parse(R"({"type":"null"})")));
  EXPECT_THAT(refusal(compile_format("xml")), HasSubstr("invalid format: \"xml\""));
  EXPECT_THAT(refusal(compile_format(parse("[1]"))), HasSubstr("invalid format"));
  EXPECT_EQ(compile_format("xml").error().code(), ErrorCode::kInvalidArgument);
}

// ---- Masks

// Pieces as vocabularies have them: words, JSON's punctuation joined in all ways, parts of
// characters, long runs, duplicates, nothing at all.
std::vector<std::string> sample_pieces() {
  std::vector<std::string> pieces{"", "</s>", "<eot>"};
  for (int i = 0; i < 256; ++i) pieces.emplace_back(1, static_cast<char>(i));
  for (const char* text : {"hello",
                           " hello",
                           "é",
                           "\xC3",
                           "\xA9x",
                           "日本",
                           "日\xE6",
                           "\xE6\x97",
                           "\xA5\"",
                           "😀",
                           "\xF0\x9F",
                           "{\"",
                           "\":",
                           "\": ",
                           "\":\"",
                           "\",\"",
                           "\"}",
                           "\"}]",
                           "}}",
                           "]]",
                           "],",
                           "},{",
                           "[{\"",
                           "\\\"",
                           "\\n",
                           "\\u00",
                           "\\ud83d\\ude",
                           "\\u",
                           "true",
                           "false",
                           "null",
                           "tr",
                           "ue",
                           ",true",
                           "12",
                           "123",
                           "-1",
                           ".5",
                           "1e5",
                           "0.25",
                           "\n",
                           "\n  ",
                           "  ",
                           "\t",
                           " ",
                           "a\"",
                           "ab\":1",
                           "\"a\":",
                           "name",
                           "\"name\":\"",
                           "age",
                           "a",
                           "a",
                           "aa",
                           "aaaa",
                           "aaaaaaaaaaaaaaaaaaaaaaaa",
                           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                           "éééééé",
                           "a\\",
                           "word\n",
                           "x{1,2}",
                           "aB",
                           "Ab1_",
                           "ABC",
                           "a1",
                           "the ",
                           "the,",
                           "ab",
                           "abc",
                           "abcd",
                           "abcdefghijklmnopqrstuvwxyz"}) {
    pieces.emplace_back(text);
  }
  // A branch of the tree of tokens with many below it.
  for (std::size_t length = 1; length <= 11; ++length) {
    pieces.push_back(" " + std::string(length, 'b'));
  }
  return pieces;
}

TEST(Mask, IsWhatAskingEachTokenGives) {
  const std::vector<std::string> pieces = sample_pieces();
  const std::vector<std::string_view> views(pieces.begin(), pieces.end());
  const auto vocabulary = std::make_shared<const Vocabulary>(views, std::vector<Token>{1, 2});
  const Result<GrammarPtr> grammars[] = {
      compile_json(),
      compile_schema(parse(
          R"({"properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":150},
        "tags":{"type":"array","items":{"type":"string","maxLength":6},"maxItems":3}},"required":["name"]})")),
      compile_schema(parse(R"({"type":"string","minLength":3,"maxLength":25})")),
      compile_schema(parse(R"({"type":"string","minLength":30})")),
      compile_schema(parse(R"({"type":"string","pattern":"^a*é+.b?$"})")),
      compile_schema(
          parse(R"({"additionalProperties":{"type":"number"},"properties":{"a":{},"ab":{}}})")),
      compile_gbnf(R"(root ::= [^\x00-\x1F"\\]{0,9} "a"{0,40} ("x" | "\n")*)"),
      compile_gbnf(R"(root ::= .{2,12} | [^"]* "b")"),
      compile_gbnf(R"(root ::= ([a-z]{1,9} [ ,]?)+)"),
      compile_gbnf(R"(root ::= [A-Za-z0-9_]{3,12} [ab] [a-z0-9]{0,20} [A-Z]*)"),
      compile_gbnf(R"(root ::= [^"\\\x00-\x1F]{2} [^"\\\x00-\x1F]{3} "!"?)"),
      // What one turn of a repeat finds serves the others, but near its bounds.
      compile_gbnf(R"(root ::= [a-z.]{20,45} [ ,])"),
      compile_gbnf(R"(root ::= [a-z ]{1,25} "!")"),
      compile_gbnf(R"(root ::= ([a-z]{1,40} [-.]){2,6})"),
      compile_gbnf(R"(root ::= ("ab" | "a" | "e" | " "){5,30} [a-z] "!"?)"),
      compile_gbnf(R"(root ::= ([a-z] [a-z ]?){4,20} | [ae]{0,25} "b"*)"),
      compile_gbnf(R"(root ::= (("a" | "é"){3,8} [ -]?){2,12})"),
      compile_schema(parse(R"({"type":"string","format":"email"})")),
      compile_schema(
          parse(R"({"type":"string","pattern":"^(?=.*1)(?!.*aa)[^b]*$","maxLength":9})")),
      compile_schema(parse(R"({"type":"string","pattern":"^a.*","format":"uri"})")),
      compile_schema(parse(R"({"type":"number","multipleOf":2.5})")),
      compile_schema(parse(R"({"patternProperties":{"^a":{"const":1},"b":{"type":"string"}},
          "additionalProperties":{"type":"null"}})")),
      compile_schema(parse(R"({"items":{"enum":["a","ab",1]},"uniqueItems":true})")),
      compile_schema(parse(R"({"properties":{"a":{"type":"integer"},"ab":{"type":"string"},"b":{}},
          "additionalProperties":{"type":"string","maxLength":20},"required":["b"]})")),
  };
  std::mt19937 random(7);
  for (const auto& grammar : grammars) {
    ASSERT_TRUE(grammar) << refusal(grammar);
    auto automaton = std::make_shared<Automaton>(*grammar, vocabulary);
    for (int walk = 0; walk < 30; ++walk) {
      Constraint constraint(automaton);
      std::string text;
      for (int step = 0; step < 40; ++step) {
        const auto mask = constraint.mask();
        ASSERT_FALSE(mask.empty());
        const std::vector<std::uint64_t> found(mask.begin(), mask.end());
        std::vector<Token> allowed;
        for (Token token = 0; token < static_cast<Token>(pieces.size()); ++token) {
          const bool allows = constraint.allows(token);
          ASSERT_EQ(has_bit(found, token), allows)
              << "token " << token << " '" << pieces[static_cast<std::size_t>(token)] << "' after '"
              << text << "'";
          if (allows && token > 2) allowed.push_back(token);
          if (token <= 2) {
            ASSERT_EQ(allows, token != 0 && constraint.can_stop()) << token;
          }
        }
        if (allowed.empty()) {
          ASSERT_TRUE(constraint.can_stop()) << "stuck after '" << text << "'";
          break;
        }
        const Token next = allowed[random() % allowed.size()];
        ASSERT_TRUE(constraint.accept(next));
        text += pieces[static_cast<std::size_t>(next)];
      }
    }
  }
}

TEST(Constraint, KnowsWhatMayComeAndWhenToStop) {
  const auto vocabulary = byte_vocabulary();
  auto automaton = std::make_shared<Automaton>(*compile_gbnf(R"(root ::= "ab"?)"), vocabulary);
  Constraint constraint(automaton);
  for (Token token = 0; token <= 256; ++token) {
    EXPECT_EQ(has_bit(constraint.mask(), token), token == 'a' || token == 256) << token;
  }
  EXPECT_EQ(constraint.first_allowed(), 'a');
  EXPECT_FALSE(constraint.accept('b'));
  EXPECT_TRUE(constraint.accept('a'));
  EXPECT_FALSE(constraint.can_stop());
  EXPECT_FALSE(constraint.allows(256));
  EXPECT_TRUE(constraint.accept('b'));
  EXPECT_TRUE(constraint.can_stop());
  EXPECT_TRUE(constraint.accept(256));
  EXPECT_FALSE(constraint.allows('a'));
  EXPECT_FALSE(constraint.allows(-1));
  EXPECT_FALSE(constraint.allows(300));
  // Others with the same grammar stand where they stood.
  Constraint other(automaton);
  EXPECT_TRUE(other.allows('a'));
}

TEST(Automaton, ForgetsWhatItHasSeenAndKeepsWhereItStands) {
  // Every count is a state of its own.
  auto automaton = std::make_shared<Automaton>(
      *compile_gbnf(R"#(root ::= ("a"{0,100000} "b" | "(" root ")"){1,5})#"), byte_vocabulary());
  Constraint early(automaton);
  ASSERT_TRUE(early.accept('('));
  ASSERT_TRUE(early.accept('a'));
  Constraint constraint(automaton);
  for (int i = 0; i < 50'000; ++i) ASSERT_TRUE(constraint.accept('a')) << i;
  EXPECT_LT(automaton->state_count(), 20'000U);
  EXPECT_TRUE(constraint.accept('b'));
  EXPECT_TRUE(constraint.can_stop());
  EXPECT_TRUE(early.accept('b'));
  EXPECT_FALSE(early.can_stop());
  EXPECT_TRUE(early.accept(')'));
  EXPECT_TRUE(early.can_stop());
}

TEST(Automaton, AmbiguityHasALimit) {
  // The number of readings doubles with every byte, if equal ones were not one; these are not
  // equal.
  std::string text = "root ::= r0\n";
  for (int i = 0; i < 14; ++i) {
    text += std::format("r{0} ::= \"a\" r{1} \"b{0}\" | \"a\" r{1} \"c{0}\" | \"x\"\n", i, i + 1);
  }
  text += "r14 ::= \"x\"";
  const auto grammar = compile_gbnf(text);
  ASSERT_TRUE(grammar) << refusal(grammar);
  Automaton automaton(*grammar, byte_vocabulary());
  State state = automaton.start();
  for (int i = 0; i < 12; ++i) state = automaton.next(state, 'a');
  EXPECT_NE(state, kDead) << "4096 readings are served";
  EXPECT_EQ(automaton.next(state, 'a'), kDead) << "8192 are too many";
}

// Rules each of which begins with two calls of the next, so that the calls' frames double.
std::string doubling_rules(int rules, std::string_view before, std::string_view last) {
  return "root ::= r0 \"!\"\n" +
         joined(rules, "\n",
                [&](int i) {
                  return std::format("r{0} ::= {1} r{2} x | {1} r{2} y", i, before, i + 1);
                }) +
         std::format("\nx ::= \"\" | \"x\"\ny ::= \"\" | \"y\"\nr{} ::= {}", rules, last);
}

TEST(Automaton, WaysThatReadNothingHaveALimit) {
  const auto few = compile_gbnf(doubling_rules(10, "", "\"\""));
  ASSERT_TRUE(few) << refusal(few);
  EXPECT_TRUE(Matcher(*few).matches("xy!"));
  const auto many = compile_gbnf(doubling_rules(100, "", "\"\""));
  ASSERT_TRUE(many) << refusal(many);
  const auto automaton = std::make_shared<Automaton>(*many, byte_vocabulary());
  EXPECT_EQ(automaton->start(), kDead);
  EXPECT_EQ(Constraint(automaton).first_allowed(), tokenizer::kNoToken);
}

TEST(Automaton, WhatIsAllowedFirstIsAccepted) {
  // Of the 13 letters, the last makes too many readings.
  std::vector<std::string> pieces{"</s>"};
  for (char c = 'a'; c <= 'h'; ++c) pieces.push_back(std::string(12, 'a') + c);
  pieces.emplace_back("ab");
  const std::vector<std::string_view> views(pieces.begin(), pieces.end());
  const auto grammar = compile_gbnf(doubling_rules(14, "[a-z]", "\"-\""));
  ASSERT_TRUE(grammar) << refusal(grammar);
  Constraint constraint(std::make_shared<Automaton>(
      *grammar, std::make_shared<const Vocabulary>(views, std::vector<Token>{0})));
  const Token first = constraint.first_allowed();
  EXPECT_EQ(first, static_cast<Token>(pieces.size() - 1));
  EXPECT_TRUE(constraint.accept(first));
}

// Where in the text an "a" was, of its last so many letters: states of many readings.
GrammarPtr places_of_a(int letters) {
  const auto grammar =
      compile_gbnf("root ::= [ab]* \"a\" " + joined(letters, " ", [](int) { return "[ab]"; }));
  EXPECT_TRUE(grammar) << refusal(grammar);
  return *grammar;
}

TEST(Automaton, ForgetsReadingsToo) {
  constexpr int kTokens = 2000;
  auto automaton = std::make_shared<Automaton>(places_of_a(3000), byte_vocabulary());
  Constraint constraint(automaton);
  std::mt19937 random(1);
  for (int i = 0; i < kTokens; ++i) ASSERT_TRUE(constraint.accept(random() % 2 == 0 ? 'a' : 'b'));
  EXPECT_LT(automaton->state_count(), kTokens / 2U) << "all are states of their own";
  EXPECT_TRUE(constraint.allows('a'));
}

TEST(Automaton, OneTextTakesNoLongerThanAMask) {
  std::mt19937 random(1);
  std::string text;
  for (int i = 0; i < 4000; ++i) text += random() % 2 == 0 ? 'a' : 'b';
  const std::array<std::string_view, 3> pieces{"</s>", text, std::string_view(text).substr(0, 500)};
  Constraint constraint(std::make_shared<Automaton>(
      places_of_a(4000), std::make_shared<const Vocabulary>(pieces, std::vector<Token>{0})));
  EXPECT_TRUE(constraint.allows(2));
  EXPECT_FALSE(constraint.allows(1));
  EXPECT_TRUE(constraint.accept(2));
}

TEST(Automaton, AMaskOfTooManyStatesIsNone) {
  // Every letter is a call to return from, and every token a state of its own.
  const auto letter = [](int i) { return static_cast<char>(i < 26 ? 'a' + i : 'A' + i - 26); };
  const auto vocabulary_of = [&](int letters) {
    std::vector<std::string> pieces{"</s>"};
    for (int i = 0; i < letters * letters * letters; ++i) {
      pieces.push_back(
          {letter(i % letters), letter(i / letters % letters), letter(i / letters / letters)});
    }
    const std::vector<std::string_view> views(pieces.begin(), pieces.end());
    return std::make_shared<const Vocabulary>(views, std::vector<Token>{0});
  };
  const auto grammar = compile_gbnf("root ::= \".\" | " + joined(45, " | ", [&](int i) {
                                      return std::format("\"{}\" root \"{}\"", letter(i), i);
                                    }));
  ASSERT_TRUE(grammar) << refusal(grammar);
  Automaton few(*grammar, vocabulary_of(30));
  EXPECT_FALSE(few.mask(few.start()).empty());
  Automaton automaton(*grammar, vocabulary_of(45));
  EXPECT_TRUE(automaton.mask(automaton.start()).empty());
  EXPECT_LT(automaton.state_count(), 70'000U);
}

}  // namespace
}  // namespace ollama::grammar

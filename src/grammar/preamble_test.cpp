#include "grammar/preamble.h"

#include <gtest/gtest.h>

namespace ollama::grammar {
namespace {

using Verdict = Preamble::Verdict;

Preamble thinking(bool begun) {
  return Preamble(
      {.open = "<think>", .close = {"</think>"}, .ending = "\n</think>", .begun = begun});
}

// Says the tokens, all of which must be free.
void say(Preamble& preamble, std::initializer_list<std::string_view> tokens) {
  for (const std::string_view token : tokens) {
    ASSERT_EQ(preamble.judge(token, false), Verdict::kTake) << token;
    preamble.take(token);
  }
}

TEST(Preamble, GoesFromTheOpeningMarkToTheEmptyLineBehindTheClosingOne) {
  Preamble preamble = thinking(false);
  say(preamble, {"\n", "<think>", "\n", "So", " {", "</thin", "g", "</", "think", ">"});
  EXPECT_FALSE(preamble.over());
  say(preamble, {"\n\n"});
  EXPECT_TRUE(preamble.over());
  EXPECT_EQ(preamble.judge("x", false), Verdict::kBind);
}

TEST(Preamble, TheEmptyLineMayBeMissingOrComeWithTheMark) {
  Preamble missing = thinking(true);
  say(missing, {"So", "</think>"});
  EXPECT_EQ(missing.judge("{", false), Verdict::kBind);
  EXPECT_EQ(missing.judge("", true), Verdict::kBind) << "the end is the grammar's too";

  Preamble joined = thinking(true);
  say(joined, {"So", "</think", ">\n\n"});
  EXPECT_TRUE(joined.over());
}

TEST(Preamble, AnAnswerThatBeginsOtherwiseHasNone) {
  EXPECT_EQ(thinking(false).judge("Hello", false), Verdict::kBind);
  EXPECT_EQ(thinking(false).judge("<p>", false), Verdict::kBind);
  EXPECT_EQ(thinking(false).judge("", true), Verdict::kBind);
  Preamble blank = thinking(false);
  say(blank, {" ", "\n"});
  EXPECT_EQ(blank.judge("x", false), Verdict::kBind);
}

// A token that may become the mark or not would have been said before that is known.
TEST(Preamble, AMarkInPiecesIsSaidWhole) {
  Preamble preamble = thinking(false);
  ASSERT_EQ(preamble.judge("<", false), Verdict::kSay);
  EXPECT_EQ(preamble.to_say(), "<think>");
  preamble.take("<th");
  preamble.take("ink>");
  say(preamble, {"So"});
  ASSERT_EQ(preamble.judge("</think>{", false), Verdict::kSay) << "the text begins in the token";
  EXPECT_EQ(preamble.to_say(), "\n</think>");
}

TEST(Preamble, WhereTheModelWouldEndItsEndIsSaid) {
  Preamble preamble = thinking(true);
  say(preamble, {"So", "</th"});
  ASSERT_EQ(preamble.judge("</s>", true), Verdict::kSay);
  for (const char* piece : {"\n", "</think>"}) preamble.take(piece);
  EXPECT_EQ(preamble.judge("{", false), Verdict::kBind);
}

// Which is none of the preamble's business where tools may be called.
TEST(Preamble, TheAnswerMayEndInside) {
  Preamble preamble({.open = "<think>",
                     .close = {"</think>"},
                     .ending = "\n</think>",
                     .may_end = true,
                     .begun = true});
  say(preamble, {"So", "<call/>"});
  EXPECT_EQ(preamble.judge("</s>", true), Verdict::kTake);
}

TEST(Preamble, BlanksAloneAreNone) {
  Preamble preamble = thinking(false);
  for (int i = 0; i < 4; ++i) say(preamble, {"\n\n"});
  EXPECT_EQ(preamble.judge("\n\n", false), Verdict::kBind);
}

// What a vocabulary has no words for is not asked for again.
TEST(Preamble, WhatCannotBeSaidBinds) {
  Preamble preamble = thinking(true);
  say(preamble, {"So"});
  ASSERT_EQ(preamble.judge("", true), Verdict::kSay);
  preamble.take("?");
  EXPECT_EQ(preamble.judge("", true), Verdict::kBind);
}

TEST(Preamble, SeveralMarksComeOneAfterTheOther) {
  Preamble preamble({.open = {},
                     .close = {"<|channel|>final", "<|message|>"},
                     .ending = "<|end|><|start|>assistant<|channel|>final<|message|>",
                     .begun = true});
  say(preamble, {"<|channel|>", "analysis", "<|message|>", "The", " final", " word", "<|end|>",
                 "<|start|>", "assistant", "<|channel|>", "final", " ", "<|constrain|>", "json"});
  EXPECT_EQ(preamble.judge("\n", false), Verdict::kTake);
  say(preamble, {"<|message|>"});
  EXPECT_EQ(preamble.judge("{", false), Verdict::kBind);
}

}  // namespace
}  // namespace ollama::grammar

// What holds for every text: nothing is lost, nothing is invented, no half characters are shown.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <filesystem>
#include <map>

#include "tokenizer/merge.h"
#include "tokenizer/special.h"
#include "tokenizer/test_vocabulary.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace ollama::tokenizer {
namespace {

const Tokenizer& fixture(const char* name) {
  static std::map<std::string_view, std::unique_ptr<Tokenizer>> loaded;
  auto& tokenizer = loaded[name];
  if (!tokenizer) {
    const auto file =
        gguf::File::open(std::filesystem::path(OLLAMA_TEST_DATA) / "tokenizers" / name);
    tokenizer = load(file.value()).value();
  }
  return *tokenizer;
}

// Characters of every UTF-8 length, with those that pre-tokenizers care about more often.
std::string valid_text() {
  const auto code = rc::gen::oneOf(
      rc::gen::elementOf(std::u32string(U" \n\t'.,~!0159aeiostASTxz\u00A0\u2581\u3000é中한🦙")),
      rc::gen::cast<char32_t>(rc::gen::inRange<std::uint32_t>(0, 0x80)),
      rc::gen::suchThat(rc::gen::cast<char32_t>(rc::gen::inRange<std::uint32_t>(0x80, 0x110000)),
                        [](char32_t c) { return c < 0xD800 || c > 0xDFFF; }));
  std::string text;
  for (const char32_t c : *rc::gen::container<std::vector<char32_t>>(code)) utf8::append(text, c);
  return text;
}

std::string any_bytes() {
  const auto byte =
      rc::gen::oneOf(rc::gen::elementOf(std::string(" a'\n\xC3\xA9\xE2\x96\x81\xF0\x9F")),
                     rc::gen::cast<char>(rc::gen::inRange(0, 256)));
  return *rc::gen::container<std::string>(byte);
}

void check(bool passed) { EXPECT_TRUE(passed); }

TEST(Property, BpeRoundTrip) {
  check(rc::check("decode(encode(text)) is the text", [] {
    const std::string text = valid_text();
    // Vocabularies that have all bytes; llama.cpp drops those that one lacks.
    for (const char* name : {"gpt-2.gguf", "deepseek-llm.gguf"}) {
      const Tokenizer& tokenizer = fixture(name);
      RC_ASSERT(tokenizer.decode(tokenizer.encode(text)) == text);
    }
  }));
  check(rc::check("of any bytes it is their lenient reading", [] {
    const std::string text = any_bytes();
    const Tokenizer& tokenizer = fixture("gpt-2.gguf");
    RC_ASSERT(tokenizer.decode(tokenizer.encode(text)) == utf8::CleanText(text).bytes());
  }));
}

TEST(Property, SentencePieceRoundTrip) {
  check(rc::check("decode(encode(bytes)) is the bytes", [] {
    std::string text = any_bytes();
    const Tokenizer& tokenizer = fixture("llama-spm.gguf");
    const std::string decoded = tokenizer.decode(tokenizer.encode(text));
    // The vocabulary's sign for a blank is a blank afterwards.
    for (std::size_t at = 0; (at = text.find(utf8::kBlankSymbol, at)) != std::string::npos;) {
      text.replace(at, utf8::kBlankSymbol.size(), " ");
    }
    RC_ASSERT(decoded == text);
  }));
}

TEST(Property, WordPieceTakesAnything) {
  check(rc::check("every token is in the vocabulary", [] {
    const Tokenizer& tokenizer = fixture("bert-bge.gguf");
    for (const Token token : tokenizer.encode(any_bytes(), {.add_special = true})) {
      RC_ASSERT(token >= 0);
      RC_ASSERT(static_cast<std::size_t>(token) < tokenizer.vocab_size());
    }
  }));
}

TEST(Property, UnigramTakesAnything) {
  check(rc::check("every token is in the vocabulary, and a second time the same", [] {
    const Tokenizer& tokenizer = fixture("unigram.gguf");
    const std::string text = any_bytes();
    const auto tokens = tokenizer.encode(text, {.add_special = true});
    for (const Token token : tokens) {
      RC_ASSERT(token >= 0);
      RC_ASSERT(static_cast<std::size_t>(token) < tokenizer.vocab_size());
    }
    RC_ASSERT(tokenizer.encode(text, {.add_special = true}) == tokens);
  }));
}

// Cutting before words, and remembering them, must not cost the best sum: it is what a plain search
// over all the text finds.
TEST(Property, UnigramFindsTheBestSum) {
  check(rc::check("the sum of scores is the best of all", [] {
    const auto letter = rc::gen::element<std::string>("a", "b", "c", "▁");
    const auto words = *rc::gen::unique<std::vector<std::vector<std::string>>>(rc::gen::resize(
        4, rc::gen::nonEmpty(rc::gen::container<std::vector<std::string>>(letter))));
    test::Builder builder = test::Builder::unigram();
    std::map<std::string, double> scores;
    const auto add = [&](const std::string& word) {
      const auto score = static_cast<float>(*rc::gen::inRange(-40, -4)) / 4;
      if (scores.emplace(word, score).second) builder.token(word, 1, score);
    };
    for (const char* one : {"a", "b", "c", "▁"}) add(one);
    for (const auto& word : words) {
      std::string text;
      for (const std::string& part : word) text += part;
      add(text);
    }
    const auto tokenizer = builder.load("").value();
    std::string text;
    for (const std::string& part : *rc::gen::container<std::vector<std::string>>(letter)) {
      text += part;
    }
    std::vector<double> best(text.size() + 1, -1e9);
    best[0] = 0;
    for (std::size_t end = 1; end <= text.size(); ++end) {
      for (const auto& [word, score] : scores) {
        if (!std::string_view(text).substr(0, end).ends_with(word)) continue;
        best[end] = std::max(best[end], best[end - word.size()] + score);
      }
    }
    for (int time = 0; time < 2; ++time) {
      double sum = 0;
      std::string joined;
      for (const Token token : tokenizer->encode(text)) {
        std::string piece(tokenizer->piece(token));
        for (std::size_t at = 0; (at = piece.find(' ', at)) != std::string::npos; ++at) {
          piece.replace(at, 1, utf8::kBlankSymbol);
        }
        sum += scores.at(piece);
        joined += piece;
      }
      RC_ASSERT(joined == text);
      RC_ASSERT(sum == best.back());
    }
  }));
}

TEST(Property, StreamIsTheSameHoweverItIsCut) {
  check(rc::check("any cut gives the same text", [] {
    const std::string bytes = any_bytes() + valid_text();
    StreamDecoder at_once;
    std::string expected;
    at_once.push(bytes, expected);
    at_once.flush(expected);

    StreamDecoder decoder;
    std::string out;
    for (std::size_t at = 0; at < bytes.size();) {
      const auto length = *rc::gen::inRange<std::size_t>(1, 6);
      decoder.push(std::string_view(bytes).substr(at, length), out);
      at += length;
      // What is out is whole characters.
      for (std::size_t i = 0; i < out.size();) {
        const utf8::Step step = utf8::scan_strict(std::string_view(out).substr(i));
        RC_ASSERT(step.status == utf8::Status::kComplete);
        i += step.length;
      }
    }
    decoder.flush(out);
    RC_ASSERT(out == expected);
  }));
  check(rc::check("valid text comes through unchanged", [] {
    const std::string text = valid_text();
    StreamDecoder decoder;
    std::string out;
    for (const char c : text) decoder.push(std::string_view(&c, 1), out);
    RC_ASSERT(out == text);
  }));
}

// The words that the memory of whole words answers must be what merging gives.
TEST(Property, SecondEncodingIsTheFirst) {
  check(rc::check("encoding again gives the same tokens", [] {
    const std::string text = valid_text();
    for (const char* name : {"gpt-2.gguf", "llama-spm.gguf"}) {
      const Tokenizer& tokenizer = fixture(name);
      RC_ASSERT(tokenizer.encode(text) == tokenizer.encode(text));
    }
  }));
}

// Merging, as it is defined: the best pair anywhere, the leftmost of equals, until none is left.
std::vector<std::uint32_t> merge_naively(std::vector<std::uint32_t> ids, const PairTable& merges) {
  for (;;) {
    PairTable::Value best;
    std::size_t where = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const PairTable::Value value = merges.find(ids[i], ids[i + 1]);
      if (value.first < best.first) {
        best = value;
        where = i;
      }
    }
    if (best.first == kNone) return ids;
    ids[where] = best.second;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(where) + 1);
  }
}

TEST(Property, MergingIsByRankThenFromTheLeft) {
  check(rc::check("short and long words merge as defined", [] {
    PairTable merges;
    const auto symbol = rc::gen::inRange<std::uint32_t>(0, 6);
    const auto count = *rc::gen::inRange<std::uint32_t>(0, 20);
    for (std::uint32_t rank = 0; rank < count; ++rank) {
      merges.add(*symbol, *symbol, {rank, *rc::gen::inRange<std::uint32_t>(0, 6)});
    }
    const auto length = *rc::gen::inRange<std::size_t>(1, 200);
    const auto ids = *rc::gen::container<std::vector<std::uint32_t>>(
        length, rc::gen::inRange<std::uint32_t>(0, 6));
    std::vector<Symbol> symbols;
    for (std::uint32_t i = 0; i < ids.size(); ++i) symbols.push_back({ids[i], i});
    Merger merger;
    merger.run(symbols, static_cast<std::uint32_t>(ids.size()),
               [&](const Symbol& left, const Symbol& right, std::uint32_t) {
                 const PairTable::Value value = merges.find(left.id, right.id);
                 return Merge{value.first, value.second};
               });
    std::vector<std::uint32_t> result;
    for (const Symbol& s : symbols) result.push_back(s.id);
    RC_ASSERT(result == merge_naively(ids, merges));
  }));
}

// Special tokens as llama.cpp looks for them: one token after the other, the longest first, in what
// is still text.
std::vector<Fragment> split_naively(std::string_view text, std::span<const std::string> tokens) {
  std::vector<std::size_t> order(tokens.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::stable_sort(order, std::greater{}, [&](std::size_t i) { return tokens[i].size(); });
  std::vector<Fragment> fragments;
  if (!text.empty()) fragments.push_back({kNoToken, 0, text.size()});
  for (const std::size_t id : order) {
    std::vector<Fragment> next;
    for (const Fragment& fragment : fragments) {
      std::size_t begin = fragment.begin;
      while (fragment.token == kNoToken) {
        const std::size_t found = text.substr(0, fragment.end).find(tokens[id], begin);
        if (found == std::string_view::npos) break;
        if (found > begin) next.push_back({kNoToken, begin, found});
        begin = found + tokens[id].size();
        next.push_back({static_cast<Token>(id), found, begin});
      }
      if (fragment.token != kNoToken)
        next.push_back(fragment);
      else if (begin < fragment.end)
        next.push_back({kNoToken, begin, fragment.end});
    }
    fragments = std::move(next);
  }
  return fragments;
}

TEST(Property, SpecialTokensAreFoundInOrderOfLength) {
  check(rc::check("the matcher agrees with looking for one after the other", [] {
    const auto letter = rc::gen::elementOf(std::string("ab<>"));
    const auto word = rc::gen::nonEmpty(rc::gen::container<std::string>(letter));
    auto tokens = *rc::gen::unique<std::vector<std::string>>(
        rc::gen::suchThat(word, [](const std::string& w) { return w.size() < 5; }));
    const std::vector<std::uint16_t> attributes(tokens.size(), kControl);
    const auto text = *rc::gen::container<std::string>(letter);
    const SpecialMatcher matcher(tokens, attributes);
    const auto found = matcher.split(text, true);
    const auto expected = split_naively(text, tokens);
    RC_ASSERT(found.size() == expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      RC_ASSERT(found[i].token == expected[i].token);
      RC_ASSERT(found[i].begin == expected[i].begin);
      RC_ASSERT(found[i].end == expected[i].end);
    }
    RC_ASSERT(matcher.split(text, false).size() == (text.empty() ? 0U : 1U));
  }));
}

}  // namespace
}  // namespace ollama::tokenizer

#include "grammar/code_set.h"

#include <algorithm>

#include "tokenizer/utf8.h"

namespace ollama::grammar {
namespace {

constexpr char32_t kLastCode = 0x10FFFF;
constexpr CodeRange kSurrogates{0xD800, 0xDFFF};

// Sorted and merged, surrogates and what lies beyond Unicode cut out.
std::vector<CodeRange> normalised(std::span<const CodeRange> ranges) {
  std::vector<CodeRange> valid;
  for (const auto& [first, last] : ranges) {
    const char32_t end = std::min(last, kLastCode);
    if (first > end) continue;
    if (first < kSurrogates.first)
      valid.push_back({first, std::min<char32_t>(end, kSurrogates.first - 1)});
    if (end > kSurrogates.last)
      valid.push_back({std::max<char32_t>(first, kSurrogates.last + 1), end});
  }
  std::ranges::sort(valid, {}, &CodeRange::first);
  std::vector<CodeRange> merged;
  for (const CodeRange& range : valid) {
    if (!merged.empty() && range.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, range.last);
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

// Encodes both ends of a range whose sequences differ in ranges of bytes only.
ByteSequence sequence_of(CodeRange range) {
  std::string first;
  std::string last;
  tokenizer::utf8::append(first, range.first);
  tokenizer::utf8::append(last, range.last);
  ByteSequence sequence;
  sequence.size = first.size();
  for (std::size_t i = 0; i < first.size(); ++i) {
    sequence.ranges[i] = {static_cast<std::uint8_t>(first[i]), static_cast<std::uint8_t>(last[i])};
  }
  return sequence;
}

}  // namespace

CodeSet::CodeSet(std::span<const CodeRange> ranges) : ranges_(normalised(ranges)) {}

CodeSet CodeSet::complement() const {
  std::vector<CodeRange> gaps;
  char32_t next = 0;
  for (const auto& [first, last] : ranges_) {
    if (first > next) gaps.push_back({next, first - 1});
    next = last + 1;
  }
  if (next <= kLastCode) gaps.push_back({next, kLastCode});
  return CodeSet(gaps);
}

CodeSet CodeSet::intersect(const CodeSet& other) const {
  std::vector<CodeRange> common;
  for (auto a = ranges_.begin(), b = other.ranges_.begin();
       a != ranges_.end() && b != other.ranges_.end();) {
    const CodeRange both{std::max(a->first, b->first), std::min(a->last, b->last)};
    if (both.first <= both.last) common.push_back(both);
    if (a->last < b->last) {
      ++a;
    } else {
      ++b;
    }
  }
  return CodeSet(common);
}

CodeSet CodeSet::unite(const CodeSet& other) const {
  std::vector<CodeRange> all = ranges_;
  all.insert(all.end(), other.ranges_.begin(), other.ranges_.end());
  return CodeSet(all);
}

bool CodeSet::contains(char32_t code) const {
  const auto found = std::ranges::lower_bound(ranges_, code, {}, &CodeRange::last);
  return found != ranges_.end() && found->first <= code;
}

const CodeSet& characters_of(Text text) {
  static const std::array<CodeSet, kTexts.size()> sets{
      CodeSet{{'a', 'z'}}, CodeSet{{'A', 'Z'}, {'a', 'z'}, {'0', '9'}},
      CodeSet{{'A', 'Z'}, {'a', 'z'}, {'0', '9'}, {'_', '_'}},
      CodeSet{{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}.complement()};
  return sets[static_cast<std::size_t>(text)];
}

void append_utf8_sequences(CodeRange range, std::vector<ByteSequence>& out) {
  std::vector<CodeRange> todo{range};
  const auto split_after = [&](CodeRange part, char32_t last) {
    todo.push_back({last + 1, part.last});
    todo.push_back({part.first, last});
  };
  const auto split = [&](CodeRange part) {
    for (const char32_t length_end : {char32_t{0x7F}, char32_t{0x7FF}, char32_t{0xFFFF}}) {
      if (part.first <= length_end && part.last > length_end) {
        split_after(part, length_end);
        return true;
      }
    }
    // A range of trailing bytes must be whole wherever a byte before it differs.
    for (const unsigned bits : {6U, 12U, 18U}) {
      const char32_t low = (char32_t{1} << bits) - 1;
      if (part.last <= 0x7F || (part.first & ~low) == (part.last & ~low)) continue;
      if ((part.first & low) != 0) {
        split_after(part, part.first | low);
        return true;
      }
      if ((part.last & low) != low) {
        split_after(part, (part.last & ~low) - 1);
        return true;
      }
    }
    return false;
  };
  while (!todo.empty()) {
    const CodeRange part = todo.back();
    todo.pop_back();
    if (!split(part)) out.push_back(sequence_of(part));
  }
}

}  // namespace ollama::grammar

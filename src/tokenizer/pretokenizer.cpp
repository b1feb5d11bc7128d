#include "tokenizer/pretokenizer.h"

#include <utf8proc.h>

#include <string>

#include "tokenizer/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace ollama::tokenizer {
namespace {

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* pointer) const {
    kFree(pointer);
  }
};
using Code = std::unique_ptr<pcre2_code, Free<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;

bool is_number(char32_t code) {
  if (code < 0x80) return code >= '0' && code <= '9';
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO;
}

// llama.cpp's way: the text before a run of numbers stays with the run's first group.
void cut_numbers(std::string_view piece, std::size_t base, std::vector<std::size_t>& ends) {
  std::vector<std::size_t> run;  // the end of every number in the run
  std::size_t cut = 0;
  const auto finish = [&] {
    for (std::size_t i = run.size() % 3; i <= run.size(); i += 3) {
      if (i == 0) continue;
      cut = run[i - 1];
      ends.push_back(base + cut);
    }
    run.clear();
  };
  for (std::size_t at = 0; at < piece.size();) {
    const utf8::Character c = utf8::decode_lenient(piece.substr(at));
    at += c.length;
    if (is_number(c.code)) {
      run.push_back(at);
    } else if (!run.empty()) {
      finish();
    }
  }
  finish();
  if (cut < piece.size()) ends.push_back(base + piece.size());
}

void cut_digits(std::string_view piece, std::size_t base, std::vector<std::size_t>& ends) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  for (std::size_t at = 0; at < piece.size();) {
    if (!is_digit(piece[at])) {
      ++at;
      continue;
    }
    std::size_t end = at;
    while (end < piece.size() && is_digit(piece[end])) ++end;
    for (std::size_t cut = at + (end - at) % 3; cut < end; cut += 3) {
      if (cut > 0) ends.push_back(base + cut);
    }
    at = end;
  }
  ends.push_back(base + piece.size());
}

}  // namespace

struct Pretokenizer::Compiled {
  SplitStep::Kind kind = SplitStep::Kind::kPattern;
  Code code;
  bool jit = false;

  // pcre2_match's result for `piece` from `start` on.
  int match(std::string_view piece, std::size_t start, pcre2_match_data* data) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(piece.data());
    if (jit) {
      const int found = pcre2_jit_match(code.get(), subject, piece.size(), start,
                                        PCRE2_NO_UTF_CHECK, data, nullptr);
      if (found != PCRE2_ERROR_JIT_STACKLIMIT) return found;
    }
    return pcre2_match(code.get(), subject, piece.size(), start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                       data, nullptr);
  }

  void cut_matches(std::string_view piece, std::size_t base, pcre2_match_data* data,
                   std::vector<std::size_t>& ends) const {
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data);
    std::size_t done = 0;  // where the last piece ended
    for (std::size_t start = 0; start < piece.size();) {
      // An error (a limit of PCRE2) leaves the rest in one piece, as no match does.
      if (match(piece, start, data) < 0) break;
      if (bounds[1] == bounds[0]) {
        start =
            bounds[1] + (bounds[1] < piece.size() ? utf8::announced_length(piece[bounds[1]]) : 1);
        continue;
      }
      if (bounds[0] > done) ends.push_back(base + bounds[0]);
      done = start = bounds[1];
      ends.push_back(base + done);
    }
    if (done < piece.size()) ends.push_back(base + piece.size());
  }
};

Pretokenizer::Pretokenizer(std::vector<Compiled> steps) : steps_(std::move(steps)) {}
Pretokenizer::Pretokenizer(Pretokenizer&&) noexcept = default;
Pretokenizer& Pretokenizer::operator=(Pretokenizer&&) noexcept = default;
Pretokenizer::~Pretokenizer() = default;

Result<Pretokenizer> Pretokenizer::create(std::span<const SplitStep> steps) {
  std::vector<Compiled> compiled;
  for (const SplitStep& step : steps) {
    Compiled& target = compiled.emplace_back();
    target.kind = step.kind;
    if (step.kind != SplitStep::Kind::kPattern) continue;
    std::string pattern;
    for (const std::string_view part : step.parts) pattern += part;
    int error = 0;
    PCRE2_SIZE offset = 0;
    target.code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                    PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
    if (!target.code) {
      return fail(ErrorCode::kInternal, "pre-tokenizer pattern: PCRE2 error {} at {} in {}", error,
                  offset, pattern);
    }
    // Without JIT (a kernel that forbids it) the interpreter gives the same matches.
    target.jit = pcre2_jit_compile(target.code.get(), PCRE2_JIT_COMPLETE) == 0;
  }
  return Pretokenizer(std::move(compiled));
}

void Pretokenizer::split(std::string_view subject, std::vector<std::size_t>& ends) const {
  ends.clear();
  if (subject.empty()) return;
  ends.push_back(subject.size());
  std::vector<std::size_t> pieces;
  const MatchData data(pcre2_match_data_create(1, nullptr));
  if (!data) return;
  for (const Compiled& step : steps_) {
    pieces.swap(ends);
    ends.clear();
    std::size_t begin = 0;
    for (const std::size_t end : pieces) {
      const std::string_view piece = subject.substr(begin, end - begin);
      switch (step.kind) {
        case SplitStep::Kind::kPattern:
          step.cut_matches(piece, begin, data.get(), ends);
          break;
        case SplitStep::Kind::kNumbersInThrees:
          cut_numbers(piece, begin, ends);
          break;
        case SplitStep::Kind::kDigitsInThrees:
          cut_digits(piece, begin, ends);
          break;
      }
      begin = end;
    }
  }
}

}  // namespace ollama::tokenizer

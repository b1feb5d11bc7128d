#include "tokenizer/utf8.h"

#include <algorithm>
#include <cstring>

namespace ollama::tokenizer::utf8 {
namespace {

constexpr std::string_view kPrivate = "\xEE\x80\x80";  // U+E000

bool needs_mask(char32_t code) { return (code >= 0xD800 && code <= 0xDFFF) || code == 0x180E; }

}  // namespace

void append_with_blanks(std::string_view text, std::string& out) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t symbol = std::min(text.find(kBlankSymbol, at), text.size());
    out.append(text.substr(at, symbol - at));
    at = symbol;
    if (at == text.size()) break;
    out.push_back(' ');
    at += kBlankSymbol.size();
  }
}

Character decode_lenient(std::string_view text) {
  const auto byte = [&](std::size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[i]));
  };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1, true};
  if (lead < 0xC0 || lead >= 0xF8) return {};
  const std::size_t length = announced_length(text[0]);
  if (text.size() < length) return {};
  char32_t code = lead & (0xFFU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if (!is_continuation(text[i])) return {};
    code = (code << 6) | (byte(i) & 0x3F);
  }
  if (code > 0x10FFFF) return {};
  return {code, static_cast<std::uint32_t>(length), true};
}

Step scan_strict(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {Status::kComplete, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Status::kInvalid, 1};
  const auto length = static_cast<std::uint32_t>(announced_length(text[0]));
  // The second byte's range excludes overlong forms, surrogates and what is beyond U+10FFFF.
  unsigned low = 0x80;
  unsigned high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (std::uint32_t i = 1; i < length; ++i) {
    if (i >= text.size()) return {Status::kUnfinished, i};
    if (byte(i) < low || byte(i) > high) return {Status::kInvalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Status::kComplete, length};
}

void append(std::string& out, char32_t code) {
  const auto put = [&](char32_t value) { out.push_back(static_cast<char>(value)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

std::size_t ascii_prefix(std::string_view text) {
  std::size_t at = 0;
  for (; at + sizeof(std::uint64_t) <= text.size(); at += sizeof(std::uint64_t)) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data() + at, sizeof(word));
    if ((word & 0x8080808080808080U) != 0) break;
  }
  while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80) ++at;
  return at;
}

CleanText::CleanText(std::string_view text) : bytes_(text) {
  bool rewrite = false;
  bool mask = false;
  for (std::size_t at = 0; at < text.size();) {
    at += ascii_prefix(text.substr(at));
    if (at == text.size()) break;
    const Character c = decode_lenient(text.substr(at));
    if (needs_mask(c.code)) mask = true;
    if (scan_strict(text.substr(at)).status != Status::kComplete && !needs_mask(c.code)) {
      rewrite = true;
    }
    // An overlong form may spell a character that is masked.
    if (c.code == 0x180E && c.length != 3) rewrite = true;
    if (c.code >= 0xD800 && c.code <= 0xDFFF && c.length != 3) rewrite = true;
    at += c.length;
  }
  if (rewrite) {
    clean_.reserve(text.size() + text.size() / 8);
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t plain = ascii_prefix(text.substr(at));
      clean_.append(text.substr(at, plain));
      at += plain;
      if (at == text.size()) break;
      const Character c = decode_lenient(text.substr(at));
      append(clean_, c.code);
      at += c.length;
    }
    bytes_ = clean_;
  }
  subject_ = bytes_;
  if (mask) {
    masked_ = bytes_;
    for (std::size_t at = 0; at < masked_.size();) {
      const Character c = decode_lenient(std::string_view(masked_).substr(at));
      if (needs_mask(c.code)) std::ranges::copy(kPrivate, masked_.begin() + std::ptrdiff_t(at));
      at += c.length;
    }
    subject_ = masked_;
  }
}

}  // namespace ollama::tokenizer::utf8

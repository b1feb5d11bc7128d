#include "chat/jinja/unicode.h"

#include <string.h>
#include <utf8proc.h>

#include <algorithm>

namespace ollama::chat::jinja {

namespace {

utf8proc_category_t category_of(char32_t code) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

bool is_cased(char32_t code) {
  const auto category = category_of(code);
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
         category == UTF8PROC_CATEGORY_LT;
}

void append_case(std::string& out, std::string_view character, Case to) {
  const char32_t code = character_code(character);
  if (code < 0x80) {
    const auto byte = static_cast<char>(code);
    const bool upper = byte >= 'A' && byte <= 'Z';
    const bool lower = byte >= 'a' && byte <= 'z';
    const bool flip = to == Case::kLower ? upper : lower;
    out += flip ? static_cast<char>(byte ^ 0x20) : byte;
    return;
  }
  if (code == 0xDF && to != Case::kLower) {  // ß, whose capital is two letters
    out += to == Case::kUpper ? "SS" : "Ss";
    return;
  }
  if (code == tokenizer::utf8::kReplacement) {
    out += character;
    return;
  }
  const auto point = static_cast<utf8proc_int32_t>(code);
  const utf8proc_int32_t mapped = to == Case::kLower   ? utf8proc_tolower(point)
                                  : to == Case::kUpper ? utf8proc_toupper(point)
                                                       : utf8proc_totitle(point);
  tokenizer::utf8::append(out, static_cast<char32_t>(mapped));
}

bool in_set(std::string_view character, std::optional<std::string_view> set) {
  if (!set) return is_space(character_code(character));
  for (std::string_view rest = *set; !rest.empty();) {
    const std::size_t length = character_length(rest);
    if (rest.substr(0, length) == character) return true;
    rest.remove_prefix(length);
  }
  return false;
}

}  // namespace

std::size_t last_character_length(std::string_view text) {
  for (std::size_t length = 1; length <= std::min<std::size_t>(4, text.size()); ++length) {
    const std::string_view tail = text.substr(text.size() - length);
    if (tokenizer::utf8::is_continuation(tail.front())) continue;
    return character_length(tail) == length ? length : 1;
  }
  return 1;
}

char32_t character_code(std::string_view character) {
  const auto lead = static_cast<unsigned char>(character.front());
  if (lead < 0x80) return lead;
  const auto step = tokenizer::utf8::scan_strict(character);
  if (step.status != tokenizer::utf8::Status::kComplete) return tokenizer::utf8::kReplacement;
  return tokenizer::utf8::decode_lenient(character).code;
}

bool is_ascii(std::string_view text) { return tokenizer::utf8::ascii_prefix(text) == text.size(); }

std::size_t count_characters(std::string_view text) {
  std::size_t count = tokenizer::utf8::ascii_prefix(text);
  for (text.remove_prefix(count); !text.empty(); ++count) {
    text.remove_prefix(character_length(text));
  }
  return count;
}

std::size_t byte_of(std::string_view text, std::size_t index) {
  const std::size_t plain = tokenizer::utf8::ascii_prefix(text);
  if (index <= plain) return index;
  std::size_t at = plain;
  for (std::size_t left = index - plain; left > 0 && at < text.size(); --left) {
    at += character_length(text.substr(at));
  }
  return at;
}

bool is_space(char32_t code) {
  if (code < 0x80)
    return code == ' ' || (code >= 9 && code <= 13) || (code >= 0x1C && code <= 0x1F);
  if (code == 0x85) return true;
  const auto category = category_of(code);
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
         category == UTF8PROC_CATEGORY_ZP;
}
bool is_alpha(char32_t code) {
  const auto category = category_of(code);
  return is_cased(code) || category == UTF8PROC_CATEGORY_LM || category == UTF8PROC_CATEGORY_LO;
}
bool is_digit(char32_t code) {
  if (code < 0x80) return code >= '0' && code <= '9';
  return category_of(code) == UTF8PROC_CATEGORY_ND;
}
bool is_upper(char32_t code) { return category_of(code) == UTF8PROC_CATEGORY_LU; }
bool is_lower(char32_t code) { return category_of(code) == UTF8PROC_CATEGORY_LL; }
bool is_printable(char32_t code) {
  if (code < 0x80) return code >= 0x20 && code < 0x7F;
  switch (category_of(code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    default:
      return true;
  }
}

std::string convert_case(std::string_view text, Case to) {
  std::string out;
  out.reserve(text.size());
  bool begins = true;
  while (!text.empty()) {
    const std::string_view character = text.substr(0, character_length(text));
    const char32_t code = character_code(character);
    if (to == Case::kTitle || to == Case::kCapital) {
      append_case(out, character, begins ? Case::kTitle : Case::kLower);
      begins = to == Case::kTitle && !is_cased(code);
    } else if (to == Case::kSwapped) {
      append_case(out, character, is_upper(code) ? Case::kLower : Case::kUpper);
    } else {
      append_case(out, character, to);
    }
    text.remove_prefix(character.size());
  }
  return out;
}

std::string_view strip_left(std::string_view text, std::optional<std::string_view> set) {
  while (!text.empty()) {
    const std::size_t length = character_length(text);
    if (!in_set(text.substr(0, length), set)) break;
    text.remove_prefix(length);
  }
  return text;
}
std::string_view strip_right(std::string_view text, std::optional<std::string_view> set) {
  while (!text.empty()) {
    const std::size_t length = last_character_length(text);
    if (!in_set(text.substr(text.size() - length), set)) break;
    text.remove_suffix(length);
  }
  return text;
}
std::string_view strip(std::string_view text, std::optional<std::string_view> set) {
  return strip_right(strip_left(text, set), set);
}

std::size_t find_text(std::string_view text, std::string_view needle, std::size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  if (needle.size() > text.size() - from) return std::string_view::npos;
  // glibc's memmem takes linear time at worst; std::string_view::find does not.
  const void* found =
      ::memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
}

}  // namespace ollama::chat::jinja

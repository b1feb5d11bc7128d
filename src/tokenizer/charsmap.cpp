#include "tokenizer/charsmap.h"

#include <algorithm>

namespace ollama::tokenizer {
namespace {

// A unit: the byte that leads to it, whether a rule ends behind it, and how far its children are.
// The unit at the base of a state where a rule ends is that rule's replacement.
constexpr std::uint32_t kIsValue = 1U << 31;
constexpr std::uint32_t kHasValue = 1U << 8;
constexpr std::uint32_t kFar = 1U << 9;

std::uint32_t label(std::uint32_t unit) { return unit & (kIsValue | 0xFF); }
std::uint32_t offset(std::uint32_t unit) { return (unit >> 10) << ((unit & kFar) >> 6); }
std::uint32_t value(std::uint32_t unit) { return unit & ~kIsValue; }

std::uint32_t little_endian(std::string_view bytes) {
  std::uint32_t number = 0;
  for (std::size_t i = 4; i-- > 0;) {
    number = (number << 8) | static_cast<unsigned char>(bytes[i]);
  }
  return number;
}

std::unexpected<Error> damaged(std::string_view why) {
  return fail(ErrorCode::kCorrupt, "tokenizer.ggml.precompiled_charsmap is damaged: {}", why);
}

}  // namespace

Result<Charsmap> Charsmap::parse(std::string_view bytes) {
  if (bytes.size() < 4) return damaged("it has no header");
  if (bytes.size() > kLargest) return damaged("it is too large");
  const std::size_t size = little_endian(bytes);
  bytes.remove_prefix(4);
  if (size % 4 != 0 || size >= bytes.size()) return damaged("its table is cut off");
  Charsmap map;
  map.units_.reserve(size / 4);
  for (std::size_t at = 0; at < size; at += 4) {
    map.units_.push_back(little_endian(bytes.substr(at)));
  }
  map.replacements_ = bytes.substr(size);
  if (map.replacements_.back() != '\0') return damaged("its last text is cut off");
  OLLAMA_TRY(map.check());
  return map;
}

// Visits every state that a text could lead to.
Result<> Charsmap::check() const {
  if (units_.empty()) return {};
  std::vector<bool> seen(units_.size());
  std::vector<std::uint32_t> open;
  const auto visit = [&](std::uint32_t base) -> bool {
    if ((base | 0xFF) >= units_.size()) return false;
    if (!seen[base]) open.push_back(base);
    seen[base] = true;
    return true;
  };
  if (!visit(offset(units_[0]))) return damaged("a state lies outside its table");
  while (!open.empty()) {
    const std::uint32_t base = open.back();
    open.pop_back();
    for (std::uint32_t byte = 1; byte < 256; ++byte) {
      const std::uint32_t child = base ^ byte;
      const std::uint32_t unit = units_[child];
      if (label(unit) != byte) continue;
      const std::uint32_t next = child ^ offset(unit);
      if (!visit(next)) return damaged("a state lies outside its table");
      if ((unit & kHasValue) == 0) continue;
      const std::uint32_t text = value(units_[next]);
      if (text >= replacements_.size()) return damaged("a text lies outside its texts");
      if (replacements_.find('\0', text) - text > kLongestReplacement) {
        return damaged("a text is too long");
      }
    }
  }
  return {};
}

Charsmap::Rule Charsmap::find(std::string_view text) const {
  Rule rule;
  if (units_.empty()) return rule;
  std::uint32_t base = offset(units_[0]);
  std::uint32_t found = 0;
  // A hostile table may lead in circles.
  const std::size_t end = std::min(text.size(), kLongest);
  for (std::size_t i = 0; i < end; ++i) {
    const std::uint32_t byte = static_cast<unsigned char>(text[i]);
    const std::uint32_t child = base ^ byte;
    const std::uint32_t unit = units_[child];
    if (byte == 0 || label(unit) != byte) break;
    base = child ^ offset(unit);
    if ((unit & kHasValue) != 0) {
      rule.length = i + 1;
      found = value(units_[base]);
    }
  }
  if (rule.length > 0) rule.replacement = replacements_.data() + found;
  return rule;
}

}  // namespace ollama::tokenizer

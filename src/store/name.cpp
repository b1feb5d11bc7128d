#include "store/name.h"

#include <algorithm>
#include <cctype>

namespace ollama::store {
namespace {

enum class Part { kHost, kNamespace, kModel, kTag };

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

bool is_valid(Part part, std::string_view text) {
  const std::size_t limit = part == Part::kHost ? 350 : 80;
  if (text.empty() || text.size() > limit || !is_word(text.front())) return false;
  return std::ranges::all_of(text, [part](char c) {
    if (c == '.') return part != Part::kNamespace;
    if (c == ':') return part == Part::kHost;
    return c == '-' || is_word(c);
  });
}

std::unexpected<Error> invalid(std::string_view text) {
  // It may come from anywhere and go to a terminal.
  std::string shown(text.substr(0, 100));
  std::ranges::replace_if(shown, [](char c) { return c < 0x20 || c == 0x7f; }, '?');
  return fail(ErrorCode::kInvalidArgument,
              "invalid model name \"{}{}\": a name is [host/][namespace/]model[:tag], of letters, "
              "digits, '_', '-' and '.'",
              shown, text.size() > 100 ? "..." : "");
}

bool same_letters(std::string_view a, std::string_view b) {
  return std::ranges::equal(
      a, b, {}, [](unsigned char c) { return std::tolower(c); },
      [](unsigned char c) { return std::tolower(c); });
}

// The part after the last separator is taken off `text`; nullopt when there is no separator.
std::optional<std::string_view> take_last(std::string_view& text, char separator) {
  const std::size_t at = text.rfind(separator);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view last = text.substr(at + 1);
  text = text.substr(0, at);
  return last;
}

}  // namespace

Result<Name> Name::parse(std::string_view text) {
  const std::string_view whole = text;
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (text.starts_with(scheme)) text.remove_prefix(scheme.size());
  }

  Name name;
  name.tag_ = kDefaultTag;
  // A colon before the last slash belongs to the host's port.
  const std::size_t colon = text.rfind(':');
  const std::size_t slash = text.rfind('/');
  if (colon != std::string_view::npos && (slash == std::string_view::npos || colon > slash)) {
    name.tag_ = text.substr(colon + 1);
    text = text.substr(0, colon);
  }
  name.host_ = kDefaultHost;
  name.namespace_ = kDefaultNamespace;
  if (const auto model = take_last(text, '/')) {
    name.model_ = *model;
    if (const auto name_space = take_last(text, '/')) {
      name.namespace_ = *name_space;
      name.host_ = text;
    } else {
      name.namespace_ = text;
    }
  } else {
    name.model_ = text;
  }

  if (!is_valid(Part::kHost, name.host_) || !is_valid(Part::kNamespace, name.namespace_) ||
      !is_valid(Part::kModel, name.model_) || !is_valid(Part::kTag, name.tag_)) {
    return invalid(whole);
  }
  return name;
}

Result<Name> Name::parse_path(const std::filesystem::path& path) {
  std::vector<std::string> parts;
  for (const auto& part : path) parts.push_back(part.string());
  if (parts.size() != 4 || !is_valid(Part::kHost, parts[0]) ||
      !is_valid(Part::kNamespace, parts[1]) || !is_valid(Part::kModel, parts[2]) ||
      !is_valid(Part::kTag, parts[3])) {
    return invalid(path.string());
  }
  Name name;
  name.host_ = parts[0];
  name.namespace_ = parts[1];
  name.model_ = parts[2];
  name.tag_ = parts[3];
  return name;
}

std::string Name::full() const { return host_ + "/" + namespace_ + "/" + model_ + ":" + tag_; }

std::string Name::display() const {
  const std::string tail = model_ + ":" + tag_;
  if (!same_letters(host_, kDefaultHost)) return host_ + "/" + namespace_ + "/" + tail;
  if (!same_letters(namespace_, kDefaultNamespace)) return namespace_ + "/" + tail;
  return tail;
}

std::filesystem::path Name::path() const {
  return std::filesystem::path(host_) / namespace_ / model_ / tag_;
}

bool Name::same_as(const Name& other) const { return same_letters(full(), other.full()); }

}  // namespace ollama::store

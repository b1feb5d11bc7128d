#include "grammar/formats.h"

#include <format>

namespace ollama::grammar {
namespace {

// Days that exist in every year.
constexpr std::string_view kDate =
    "[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|"
    "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))";
constexpr std::string_view kClock = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:[.][0-9]{1,9})?";
constexpr std::string_view kOffset = "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
constexpr std::string_view kDuration =
    "P(?:[0-9]{1,4}W|[0-9]{1,4}D(?:T[0-9]{1,4}[HMS])?|[0-9]{1,4}Y(?:[0-9]{1,4}M(?:[0-9]{1,4}D)?)?|"
    "[0-9]{1,4}M(?:[0-9]{1,4}D)?|T(?:[0-9]{1,4}H(?:[0-9]{1,4}M(?:[0-9]{1,4}S)?)?|"
    "[0-9]{1,4}M(?:[0-9]{1,4}S)?|[0-9]{1,4}S))";
constexpr std::string_view kLabel = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?";
constexpr std::string_view kByte = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";

std::string hostname() { return std::format("{0}(?:[.]{0}){{0,5}}", kLabel); }

std::string email() {
  constexpr std::string_view kAtom = "[A-Za-z0-9_+-]{1,20}";
  return std::format("{0}(?:[.]{0}){{0,2}}@{1}(?:[.]{1}){{1,4}}", kAtom, kLabel);
}

std::string uri() {
  constexpr std::string_view kPathCharacter = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})";
  return std::format(
      "[A-Za-z][A-Za-z0-9+.-]{{0,15}}://{0}(?::[0-9]{{1,4}})?(?:/{1}*)*(?:[?](?:{1}|[/?])*)?"
      "(?:#(?:{1}|[/?])*)?",
      hostname(), kPathCharacter);
}

// All eight groups, or :: for two or more of them.
std::string ipv6() {
  constexpr std::string_view kGroup = "[0-9A-Fa-f]{1,4}";
  std::string pattern = std::format("(?:(?:{0}:){{7}}{0}|::(?:{0}(?::{0}){{0,5}})?", kGroup);
  for (int before = 1; before <= 6; ++before) {
    pattern += std::format("|{0}(?::{0}){{{1}}}::", kGroup, before - 1);
    const int after = 6 - before;
    if (after > 0) pattern += std::format("(?:{0}(?::{0}){{0,{1}}})?", kGroup, after - 1);
  }
  return pattern + ")";
}

}  // namespace

std::optional<std::string> format_pattern(std::string_view format) {
  const auto whole = [](std::string_view pattern) { return std::format("^{}$", pattern); };
  if (format == "date") return whole(kDate);
  if (format == "time") return whole(std::format("{}{}", kClock, kOffset));
  if (format == "date-time") return whole(std::format("{}T{}{}", kDate, kClock, kOffset));
  if (format == "duration") return whole(kDuration);
  if (format == "uuid") {
    return whole("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}");
  }
  if (format == "email" || format == "idn-email") return whole(email());
  if (format == "hostname" || format == "idn-hostname") return whole(hostname());
  if (format == "ipv4") return whole(std::format("{0}(?:[.]{0}){{3}}", kByte));
  if (format == "ipv6") return whole(ipv6());
  if (format == "uri" || format == "iri" || format == "uri-reference" ||
      format == "iri-reference") {
    return whole(uri());
  }
  return std::nullopt;
}

}  // namespace ollama::grammar

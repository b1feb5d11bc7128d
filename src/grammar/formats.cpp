#include "grammar/formats.h"

#include <algorithm>
#include <format>

#include "grammar/grammar.h"

namespace ollama::grammar {
namespace {

// ---- Dates and times (RFC 3339)

// 0000 is no year to most libraries.
constexpr std::string_view kYear = "(?:[1-9][0-9]{3}|0(?:[1-9][0-9]{2}|0(?:[1-9][0-9]|0[1-9])))";
constexpr std::string_view kLeapYear =
    "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)";
constexpr std::string_view kDay =
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|"
    "02-(?:0[1-9]|1[0-9]|2[0-8]))";
constexpr std::string_view kClock = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]";
constexpr std::string_view kLeapSecond = "23:59:60";
constexpr std::string_view kFraction = "(?:[.][0-9]{1,9})?";
constexpr std::string_view kOffset = "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";

std::string date() { return std::format("(?:{}-{}|{}-02-29)", kYear, kDay, kLeapYear); }

std::string time() {
  return std::format("(?:{0}{2}{3}|{1}{2}Z)", kClock, kLeapSecond, kFraction, kOffset);
}

// Seconds are added at the end of half a year only.
std::string date_time() {
  return std::format("(?:{0}T{1}{3}{4}|{5}-(?:06-30|12-31)T{2}{3}Z)", date(), kClock, kLeapSecond,
                     kFraction, kOffset, kYear);
}

std::string duration() {
  constexpr std::string_view kNumber = "[0-9]{1,9}";
  const std::string seconds = std::format("{}S", kNumber);
  const std::string minutes = std::format("{}M(?:{})?", kNumber, seconds);
  const std::string hours = std::format("{}H(?:{})?", kNumber, minutes);
  const std::string days = std::format("{}D", kNumber);
  const std::string months = std::format("{}M(?:{})?", kNumber, days);
  const std::string years = std::format("{}Y(?:{})?", kNumber, months);
  const std::string time = std::format("T(?:{}|{}|{})", hours, minutes, seconds);
  return std::format("P(?:(?:{0}|{1}|{2})(?:{3})?|{3}|{4}W)", days, months, years, time, kNumber);
}

// ---- Hosts

// What follows the first character of a label of at most `most`.
std::string more_of_label(std::uint32_t most) {
  return most < 2 ? "" : std::format("(?:[A-Za-z0-9-]{{0,{}}}[A-Za-z0-9])?", most - 2);
}
std::string label(std::uint32_t most) { return "[A-Za-z0-9]" + more_of_label(most); }
// Not to be taken for a part of a number.
std::string last_label(std::uint32_t most) { return "[A-Za-z]" + more_of_label(most); }

constexpr std::uint32_t kLongestLabel = 63;
constexpr std::uint32_t kLongestHost = 253;
// A short text has no label and no local part that is too long, so none is counted.
constexpr std::uint32_t kUncounted = kShortText;

// At least `least` labels and a last one, which `last` writes, so that the whole has at most `most`
// characters: few long ones, or more that are shorter.
std::string labels(std::uint32_t least, std::uint32_t most, std::uint32_t longest_last,
                   std::string_view last) {
  const auto share = [&](std::uint32_t count) {
    return label(std::clamp<std::uint32_t>((most - longest_last) / count, 2, kLongestLabel + 1) -
                 1);
  };
  return std::format("(?:(?:{}[.]){{{},3}}|(?:{}[.]){{4,9}}){}", share(3), least, share(9), last);
}

std::string uncounted_labels(std::uint32_t least, std::string_view last) {
  return std::format("(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?[.]){{{},}}{}", least, last);
}

constexpr std::string_view kUncountedLast = "[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?";

std::string hostname(std::uint32_t max) {
  if (max <= kUncounted) return uncounted_labels(0, "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?");
  const std::uint32_t most = std::min(max, kLongestHost);
  const std::uint32_t last = std::min<std::uint32_t>(61, most / 4);
  return labels(0, most, last, label(last));
}

std::string email(std::uint32_t max) {
  constexpr std::string_view kAtom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]";
  if (max <= kUncounted) {
    return std::format("{0}+(?:[.]{0}+)*@{1}", kAtom, uncounted_labels(1, kUncountedLast));
  }
  // RFC 5321's limits: 64 for the local part and 254 for the whole.
  const std::uint32_t most = std::min<std::uint32_t>(max, 254);
  const std::uint32_t local = std::min<std::uint32_t>(64, most / 3);
  const std::uint32_t domain = most - local - 1;
  // One atom, or several that are shorter.
  return std::format("(?:{0}{{1,{1}}}|{0}{{1,{2}}}(?:[.]{0}{{1,{3}}}){{1,3}})@{4}(?:[.]{4}){{1,4}}",
                     kAtom, local, local * 15 / 32 - 2, local * 5 / 32, label((domain - 4) / 5));
}

constexpr std::string_view kByte = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";

std::string ipv4() { return std::format("{0}(?:[.]{0}){{3}}", kByte); }

// All eight groups, or :: for some of them; the last two may be those of an IPv4 address.
std::string ipv6() {
  constexpr std::string_view kGroup = "[0-9A-Fa-f]{1,4}";
  const std::string tail = ipv4();
  std::string pattern = std::format("(?:(?:{0}:){{7}}{0}|(?:{0}:){{6}}{1}", kGroup, tail);
  for (int before = 0; before <= 7; ++before) {
    pattern += "|";
    if (before > 0) pattern += std::format("{0}(?::{0}){{{1}}}", kGroup, before - 1);
    pattern += "::";
    const int after = 7 - before;
    if (after == 0) continue;
    pattern += std::format("(?:{0}(?::{0}){{0,{1}}}", kGroup, after - 1);
    if (after >= 2) pattern += std::format("|(?:{0}:){{0,{1}}}{2}", kGroup, after - 2, tail);
    pattern += ")?";
  }
  return pattern + ")";
}

// ---- Addresses of resources (RFC 3986)

struct UriParts {
  std::string scheme;
  std::string authority;
  std::string character;  // of a path
  std::string segment;    // some of them
  std::string tail;       // what may follow the authority
  std::string fragment;
  std::string rest;  // what may follow a character of the path
};

// Parts that have at most `max` characters together.
UriParts uri_parts(std::uint32_t max, bool international) {
  const bool short_one = max < 200;  // without user names and numbers for hosts
  const bool counted = max > kUncounted && max != kUnbounded;
  const std::string_view wide =
      international ? "\\u00A1-\\u1FFF\\u2100-\\uD7FF\\uF900-\\uFDCF\\uFDF0-\\uFFEF" : "";
  constexpr std::string_view kEscape = "%[0-9A-Fa-f]{2}";
  constexpr std::string_view kPort =
      "(?::(?:[0-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6(?:[0-4][0-9]{3}|5(?:[0-4][0-9]{2}|"
      "5(?:[0-2][0-9]|3[0-5])))))?";
  const std::uint32_t scheme = short_one ? 8 : 16;
  const std::uint32_t user = short_one ? 0 : 65;
  const std::uint32_t host = std::clamp<std::uint32_t>(max / 3, 28, counted ? 150 : kLongestHost);
  // With the punctuation between the parts, a port, and an escape that ends one.
  const std::uint32_t fixed = scheme + user + host + 20;
  const std::uint32_t room = counted ? std::min<std::uint32_t>(max - fixed, 100'000) : 0;

  UriParts parts;
  parts.scheme = std::format("[A-Za-z][A-Za-z0-9+.-]{{0,{}}}:", scheme - 1);
  const std::uint32_t last = host / 4;
  parts.authority = max <= kUncounted ? uncounted_labels(0, kUncountedLast)
                                      : labels(0, host, last, last_label(last));
  parts.authority = std::format("(?:{}|{}", parts.authority, ipv4());
  if (!short_one) {
    parts.authority = std::format("(?:[A-Za-z0-9._~!$&'()*+,;=:-]{{1,{}}}@)?{}|\\[{}\\]", user - 1,
                                  parts.authority, ipv6());
  }
  parts.authority += std::format("){}", kPort);
  parts.character = std::format("(?:[A-Za-z0-9._~!$&'()*+,;=:@{}-]|{})", wide, kEscape);
  parts.segment = parts.character + (counted ? "{1,8}" : "+");
  // The characters of a path and a query, or of a fragment; an escape counts three times.
  const auto some = [&](std::uint32_t most) {
    const std::string one = std::format("[A-Za-z0-9._~!$&'()*+,;=:@/?{}-]", wide);
    if (!counted) return std::format("(?:{}|{})*", one, kEscape);
    return std::format("(?:{0}{{0,{2}}}|(?:{0}|{1}){{0,{3}}})", one, kEscape, most, most / 3);
  };
  const std::string path = some(room * 3 / 4);
  parts.fragment = some(room / 4);
  parts.rest = std::format("{}(?:#{})?", path, parts.fragment);
  parts.tail = std::format("(?:[/?]{})?(?:#{})?", path, parts.fragment);
  return parts;
}

std::string uri(const UriParts& parts) {
  // With an authority; a path alone, as of mailto: and urn:; a file.
  return std::format("(?:{0}(?://{1}{2}|/?{3}{4})|file:///{4})", parts.scheme, parts.authority,
                     parts.tail, parts.character, parts.rest);
}

// Also relative to another: with an authority, from the root, from a path, a query or fragment.
std::string uri_reference(const UriParts& parts) {
  std::string first = parts.segment;  // a colon would end a scheme
  first.erase(first.find(":@"), 1);
  const std::string query = std::format("(?:[?]{}|#{})", parts.rest, parts.fragment);
  return std::format("(?:{0}|//{1}{2}|/(?:{3}{4}|{6})?|{5}(?:/{4})?{6}?|{6}?)", uri(parts),
                     parts.authority, parts.tail, parts.character, parts.rest, first, query);
}

}  // namespace

std::optional<std::string> format_pattern(std::string_view format, std::uint32_t max) {
  const auto whole = [](std::string_view pattern) { return std::format("^{}$", pattern); };
  if (format == "date") return whole(date());
  if (format == "time") return whole(time());
  if (format == "date-time") return whole(date_time());
  if (format == "duration") return whole(duration());
  if (format == "uuid") {
    return whole("[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}");
  }
  if (format == "email" || format == "idn-email") return whole(email(max));
  if (format == "hostname" || format == "idn-hostname") return whole(hostname(max));
  if (format == "ipv4") return whole(ipv4());
  if (format == "ipv6") return whole(ipv6());
  const bool international = format.starts_with("iri");
  if (format == "uri" || format == "iri") return whole(uri(uri_parts(max, international)));
  if (format == "uri-reference" || format == "iri-reference") {
    return whole(uri_reference(uri_parts(max, international)));
  }
  return std::nullopt;
}

}  // namespace ollama::grammar

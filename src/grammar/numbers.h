// Numbers within bounds, as grammars of their decimal digits. Internal to grammar.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "api/types.h"
#include "base/error.h"
#include "grammar/builder.h"
#include "grammar/language.h"

namespace ollama::grammar {

// A bound, exactly: its sign, and its digits before and after the point, without needless zeros.
struct Decimal {
  bool negative = false;
  std::string whole = "0";
  std::string fraction;

  // Numbers of so many digits are different doubles where they are different, in the same order.
  static constexpr std::size_t kMostDigits = 15;

  // Errors: kInvalidArgument (more digits, some of them after the point).
  static Result<Decimal> parse(const api::Json& number);
  // Beyond every number that is written.
  static constexpr std::size_t kMostWhole = 32;
  bool huge() const { return whole.size() > kMostWhole; }
  bool zero() const { return whole == "0" && fraction.empty(); }
  Decimal negated() const { return {zero() ? false : !negative, whole, fraction}; }
};
// Negative, 0, positive: as a is below, equal to or above b.
int compare(const Decimal& a, const Decimal& b);

struct Bound {
  Decimal value;
  bool exclusive = false;

  // The same, or where its digits are too many for a double to tell numbers from their neighbours,
  // a bound of less digits a little within it. `low`: it is a lower one.
  Bound inclusive(bool low) const;
};

struct NumberRange {
  std::optional<Bound> low;
  std::optional<Bound> high;
  bool integer = false;
  std::size_t most_digits = Decimal::kMostWhole;  // before the point
};

// Every number of the range, without exponent; with a fraction at most Decimal::kMostDigits digits.
// never() where there is none. The bounds are not huge().
Expression bounded_number(const NumberRange& range, Builder& builder);
Term bounded_number(const NumberRange& range, Language& language);

}  // namespace ollama::grammar

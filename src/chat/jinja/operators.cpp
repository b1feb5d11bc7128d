#include "chat/jinja/operators.h"

#include <algorithm>
#include <cmath>

#include "chat/jinja/format.h"
#include "chat/jinja/unicode.h"

namespace ollama::chat::jinja {

namespace {

bool is_sequence(const Value& value) { return value.list() || value.is(Kind::kTuple); }

std::size_t sequence_size(const Value& value) {
  return value.is(Kind::kJsonArray) ? value.json_array().size() : value.as_list().items.size();
}
Value sequence_item(const Value& value, std::size_t index) {
  return value.is(Kind::kJsonArray) ? from_json(value.json_array()[index])
                                    : value.as_list().items[index];
}

bool equal_sequences(Runtime& run, const Value& left, const Value& right) {
  if (left.is(Kind::kTuple) != right.is(Kind::kTuple)) return false;
  const std::size_t size = sequence_size(left);
  if (size != sequence_size(right)) return false;
  const Nested nested(run);
  for (std::size_t i = 0; i < size; ++i) {
    if (!equal(run, sequence_item(left, i), sequence_item(right, i))) return false;
  }
  return true;
}

bool equal_dicts(Runtime& run, const Value& left, const Value& right) {
  if (dict_size(left) != dict_size(right)) return false;
  const Nested nested(run);
  Walk walk(run, left);
  Value key;
  Value value;
  while (walk.next_pair(key, value)) {
    const Value other = dict_find(run, right, key);
    if (other.missing() || !equal(run, value, other)) return false;
  }
  return true;
}

int order(double left, double right) {
  if (std::isnan(left) || std::isnan(right)) return 2;
  return left < right ? -1 : left > right ? 1 : 0;
}

[[noreturn]] void raise_operands(std::string_view op, const Value& left, const Value& right) {
  require_defined(left);
  require_defined(right);
  raise("unsupported operand type(s) for {}: '{}' and '{}'", op, type_name(left.kind()),
        type_name(right.kind()));
}

// By reference: `result` is often set by what `overflow` is computed from.
std::int64_t checked(bool overflow, const std::int64_t& result) {
  if (overflow) raise("an integer is beyond 64 bits");
  return result;
}

std::int64_t integer_power(std::int64_t base, std::int64_t exponent) {
  std::int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0)
      result = checked(__builtin_mul_overflow(result, base, &result), result);
    exponent >>= 1;
    if (exponent > 0) base = checked(__builtin_mul_overflow(base, base, &base), base);
  }
  return result;
}

Value power(const Value& left, const Value& right) {
  if (left.integral() && right.integral() && right.integer() >= 0) {
    const std::int64_t base = left.integer();
    if (base >= -1 && base <= 1) {
      return Value(base == -1 && right.integer() % 2 == 0 ? std::int64_t{1}
                   : right.integer() == 0                 ? std::int64_t{1}
                                                          : base);
    }
    return Value(integer_power(base, right.integer()));
  }
  if (left.real() == 0 && right.real() < 0) raise("zero cannot be raised to a negative power");
  const double result = std::pow(left.real(), right.real());
  if (std::isnan(result) && !std::isnan(left.real()) && !std::isnan(right.real())) {
    raise("complex numbers are not supported");
  }
  if (std::isinf(result) && std::isfinite(left.real()) && std::isfinite(right.real())) {
    raise("numerical result out of range");
  }
  return Value(result);
}

Value floor_divide(const Value& left, const Value& right, bool modulo) {
  if (right.real() == 0) raise("division by zero");
  if (left.integral() && right.integral()) {
    const std::int64_t a = left.integer();
    const std::int64_t b = right.integer();
    if (b == -1) return Value(modulo ? std::int64_t{0} : negate(left).integer());
    const bool adjust = a % b != 0 && ((a < 0) != (b < 0));
    return Value(modulo ? a % b + (adjust ? b : 0) : a / b - (adjust ? 1 : 0));
  }
  const double a = left.real();
  const double b = right.real();
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  if (modulo) return Value(remainder == 0 ? std::copysign(0.0, b) : remainder);
  return Value(std::round((a - remainder) / b));
}

Value arithmetic(BinaryOp op, const Value& left, const Value& right) {
  switch (op) {
    case BinaryOp::kDivide:
      if (right.real() == 0) raise("division by zero");
      return Value(left.real() / right.real());
    case BinaryOp::kFloorDivide:
      return floor_divide(left, right, false);
    case BinaryOp::kModulo:
      return floor_divide(left, right, true);
    case BinaryOp::kPower:
      return power(left, right);
    default:
      break;
  }
  if (!left.integral() || !right.integral()) {
    const double a = left.real();
    const double b = right.real();
    return Value(op == BinaryOp::kAdd ? a + b : op == BinaryOp::kSubtract ? a - b : a * b);
  }
  const std::int64_t a = left.integer();
  const std::int64_t b = right.integer();
  std::int64_t result = 0;
  const bool overflow = op == BinaryOp::kAdd        ? __builtin_add_overflow(a, b, &result)
                        : op == BinaryOp::kSubtract ? __builtin_sub_overflow(a, b, &result)
                                                    : __builtin_mul_overflow(a, b, &result);
  return Value(checked(overflow, result));
}

Value repeat(Runtime& run, const Value& value, std::int64_t times) {
  if (value.string()) {
    const std::string_view text = value.text();
    if (times <= 0 || text.empty()) return Value(std::string_view());
    // The arena's limit is below what a multiplication of these could overflow.
    if (std::cmp_greater(times, UINT32_MAX / text.size())) raise("a text is too long");
    const std::size_t size = text.size() * static_cast<std::size_t>(times);
    run.charge_bytes(size);
    char* const to = run.arena.bytes(size);
    for (std::size_t at = 0; at < size; at += text.size()) {
      std::memcpy(to + at, text.data(), text.size());
    }
    return value.is_safe() ? Value::safe({to, size}) : Value(std::string_view(to, size));
  }
  const std::span<const Value> items = to_items(run, value);
  const Kind kind = value.is(Kind::kTuple) ? Kind::kTuple : Kind::kList;
  if (times <= 0 || items.empty()) return wrap_list(run, {}, kind);
  if (std::cmp_greater(times, UINT32_MAX / items.size())) raise("a list is too long");
  run.charge(items.size() * static_cast<std::size_t>(times));
  const std::span<Value> all =
      run.arena.array<Value>(items.size() * static_cast<std::size_t>(times));
  for (std::size_t at = 0; at < all.size(); ++at) all[at] = items[at % items.size()];
  return wrap_list(run, all, kind);
}

Value add(Runtime& run, const Value& left, const Value& right) {
  if (left.string() && right.string()) {
    run.charge_bytes(left.text().size() + right.text().size());
    if (left.is_safe() || right.is_safe()) {
      const std::string a = left.is_safe() ? std::string(left.text()) : escape_html(left.text());
      const std::string b = right.is_safe() ? std::string(right.text()) : escape_html(right.text());
      return Value::safe(run.arena.copy(a + b));
    }
    return Value(run.arena.join(left.text(), right.text()));
  }
  if (is_sequence(left) && is_sequence(right) && left.is(Kind::kTuple) == right.is(Kind::kTuple)) {
    const std::span<const Value> a = to_items(run, left);
    const std::span<const Value> b = to_items(run, right);
    run.charge(a.size() + b.size());
    const std::span<Value> all = run.arena.array<Value>(a.size() + b.size());
    std::ranges::copy(a, all.begin());
    std::ranges::copy(b, all.begin() + static_cast<std::ptrdiff_t>(a.size()));
    return wrap_list(run, all, left.is(Kind::kTuple) ? Kind::kTuple : Kind::kList);
  }
  raise_operands("+", left, right);
}

std::string_view symbol(BinaryOp op) {
  constexpr std::string_view kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};
  return kSymbols[static_cast<std::size_t>(op)];
}

struct Bounds {
  std::int64_t start = 0;
  std::int64_t stop = 0;
  std::int64_t step = 1;
  std::int64_t count = 0;
};

std::int64_t slice_integer(const Value& value) {
  if (!value.integral()) {
    require_defined(value);
    raise("slice indices must be integers or None");
  }
  return value.integer();
}

Bounds slice_bounds(std::int64_t size, const Value& start, const Value& stop, const Value& step) {
  const auto given = [](const Value& value) { return !value.missing() && !value.is_none(); };
  Bounds bounds{.step = given(step) ? slice_integer(step) : 1};
  if (bounds.step == 0) raise("slice step cannot be zero");
  const bool down = bounds.step < 0;
  const std::int64_t least = down ? -1 : 0;
  const std::int64_t most = down ? size - 1 : size;
  const auto place = [&](const Value& value, std::int64_t otherwise) {
    if (!given(value)) return otherwise;
    const std::int64_t at = slice_integer(value);
    return std::clamp(at < 0 ? std::max(at, -size - 1) + size : at, least, most);
  };
  bounds.start = place(start, down ? most : least);
  bounds.stop = place(stop, down ? least : most);
  const std::int64_t distance = down ? bounds.start - bounds.stop : bounds.stop - bounds.start;
  const std::uint64_t stride =
      down ? 0 - static_cast<std::uint64_t>(bounds.step) : static_cast<std::uint64_t>(bounds.step);
  if (distance > 0) {
    bounds.count =
        static_cast<std::int64_t>((static_cast<std::uint64_t>(distance) - 1) / stride + 1);
  }
  return bounds;
}

Value slice_text(Runtime& run, const Value& object, const Value& start, const Value& stop,
                 const Value& step) {
  const std::string_view text = object.text();
  run.charge_bytes(text.size());
  const Bounds bounds =
      slice_bounds(static_cast<std::int64_t>(count_characters(text)), start, stop, step);
  const auto made = [&](std::string_view part) {
    return object.is_safe() ? Value::safe(part) : Value(part);
  };
  if (bounds.count == 0) return made({});
  if (bounds.step == 1) {
    const std::size_t from = byte_of(text, static_cast<std::size_t>(bounds.start));
    const std::string_view rest = text.substr(from);
    return made(rest.substr(0, byte_of(rest, static_cast<std::size_t>(bounds.count))));
  }
  const std::span<const Value> characters = to_items(run, object);
  std::string out;
  for (std::int64_t i = 0; i < bounds.count; ++i) {
    out += characters[static_cast<std::size_t>(bounds.start + i * bounds.step)].text();
  }
  return made(run.arena.copy(out));
}

bool hashable(const Value& key) {
  return !key.list() && !key.dict() && !key.is(Kind::kView) && !key.is(Kind::kTuple);
}

}  // namespace

bool equal(Runtime& run, const Value& left, const Value& right) {
  run.charge(1);
  if (left.string() && right.string()) {
    if (left.text().size() != right.text().size()) return false;
    run.charge_bytes(left.text().size());
    return left.text() == right.text();
  }
  if (left.number() && right.number()) {
    if (left.integral() && right.integral()) return left.integer() == right.integer();
    return left.real() == right.real();
  }
  if (is_sequence(left) && is_sequence(right)) return equal_sequences(run, left, right);
  if (left.dict() && right.dict()) return equal_dicts(run, left, right);
  if (left.kind() != right.kind()) return false;
  switch (left.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kRange: {
      const Range& a = left.as<Range>();
      const Range& b = right.as<Range>();
      return a.size == b.size &&
             (a.size == 0 || (a.start == b.start && (a.size == 1 || a.step == b.step)));
    }
    case Kind::kGlobal:
      return left.global_id() == right.global_id();
    default:
      return left.pointer() == right.pointer();
  }
}

int compare(Runtime& run, const Value& left, const Value& right, std::string_view op) {
  run.charge(1);
  if (left.string() && right.string()) {
    const int sign = left.text().compare(right.text());
    return sign < 0 ? -1 : sign > 0 ? 1 : 0;
  }
  if (left.number() && right.number()) {
    if (!left.integral() || !right.integral()) return order(left.real(), right.real());
    return left.integer() < right.integer() ? -1 : left.integer() > right.integer() ? 1 : 0;
  }
  if (is_sequence(left) && is_sequence(right) && left.is(Kind::kTuple) == right.is(Kind::kTuple)) {
    const Nested nested(run);
    const std::size_t a = sequence_size(left);
    const std::size_t b = sequence_size(right);
    for (std::size_t i = 0; i < std::min(a, b); ++i) {
      const Value x = sequence_item(left, i);
      const Value y = sequence_item(right, i);
      if (!equal(run, x, y)) return compare(run, x, y, op);
    }
    return a < b ? -1 : a > b ? 1 : 0;
  }
  require_defined(left);
  require_defined(right);
  raise("'{}' not supported between instances of '{}' and '{}'", op, type_name(left.kind()),
        type_name(right.kind()));
}

bool contains(Runtime& run, const Value& container, const Value& item) {
  if (container.string()) {
    require_defined(item);
    if (!item.string()) {
      raise("'in <string>' requires string as left operand, not {}", type_name(item.kind()));
    }
    run.charge_bytes(container.text().size());
    return find_text(container.text(), item.text()) != std::string_view::npos;
  }
  if (container.dict()) return !dict_find(run, container, item).missing();
  if (container.is(Kind::kInt) || container.is(Kind::kFloat) || container.is(Kind::kBool) ||
      container.is_none()) {
    raise("argument of type '{}' is not iterable", type_name(container.kind()));
  }
  Walk walk(run, container);
  Value each;
  while (walk.next(run, each)) {
    if (equal(run, each, item)) return true;
  }
  return false;
}

bool compare(Runtime& run, CompareOp op, const Value& left, const Value& right) {
  switch (op) {
    case CompareOp::kEqual:
      return equal(run, left, right);
    case CompareOp::kNotEqual:
      return !equal(run, left, right);
    case CompareOp::kIn:
      return contains(run, right, left);
    case CompareOp::kNotIn:
      return !contains(run, right, left);
    case CompareOp::kLess:
      return compare(run, left, right, "<") == -1;
    case CompareOp::kLessEqual:
      return compare(run, left, right, "<=") <= 0;
    case CompareOp::kGreater:
      return compare(run, left, right, ">") == 1;
    case CompareOp::kGreaterEqual: {
      const int sign = compare(run, left, right, ">=");
      return sign == 0 || sign == 1;
    }
  }
  return false;
}

Value binary(Runtime& run, BinaryOp op, const Value& left, const Value& right) {
  if (left.number() && right.number()) return arithmetic(op, left, right);
  if (op == BinaryOp::kAdd) return add(run, left, right);
  if (op == BinaryOp::kModulo && left.string()) {
    return Value(run.arena.copy(percent_format(run, left.text(), right)));
  }
  if (op == BinaryOp::kMultiply) {
    const auto repeatable = [](const Value& value) { return value.string() || is_sequence(value); };
    if (repeatable(left) && right.integral()) return repeat(run, left, right.integer());
    if (repeatable(right) && left.integral()) return repeat(run, right, left.integer());
  }
  raise_operands(symbol(op), left, right);
}

Value negate(const Value& value) {
  if (value.is(Kind::kFloat)) return Value(-value.real());
  require_defined(value);
  if (!value.integral()) raise("bad operand type for unary -: '{}'", type_name(value.kind()));
  std::int64_t result = 0;
  return Value(checked(__builtin_sub_overflow(std::int64_t{0}, value.integer(), &result), result));
}

Value absolute(const Value& value) {
  if (value.is(Kind::kFloat)) return Value(std::fabs(value.real()));
  require_defined(value);
  if (!value.integral()) raise("bad operand type for abs(): '{}'", type_name(value.kind()));
  return value.integer() < 0 ? negate(value) : Value(value.integer());
}

Value find_item(Runtime& run, const Value& object, const Value& key) {
  require_defined(object);
  if (object.dict()) {
    if (!key.is(Kind::kTuple) && !hashable(key)) return {};
    return dict_find(run, object, key);
  }
  if (object.is(Kind::kNamespace))
    return key.string() ? dict_find(Value::of(Kind::kDict, object.pointer()), key.text()) : Value();
  if (!key.integral()) return {};
  std::int64_t at = key.integer();
  if (object.string()) {
    const std::string_view text = object.text();
    run.charge_bytes(text.size());
    const auto size = static_cast<std::int64_t>(count_characters(text));
    if (at < 0) at += size;
    if (at < 0 || at >= size) return {};
    const std::string_view rest = text.substr(byte_of(text, static_cast<std::size_t>(at)));
    const std::string_view character = rest.substr(0, character_length(rest));
    return object.is_safe() ? Value::safe(character) : Value(character);
  }
  if (object.is(Kind::kRange)) {
    const Range& range = object.as<Range>();
    if (at < 0) at += range.size;
    return at < 0 || at >= range.size ? Value() : Value(range.start + at * range.step);
  }
  if (!is_sequence(object)) return {};
  const auto size = static_cast<std::int64_t>(sequence_size(object));
  if (at < 0) at += size;
  if (at < 0 || at >= size) return {};
  return sequence_item(object, static_cast<std::size_t>(at));
}

Value slice(Runtime& run, const Value& object, const Value& start, const Value& stop,
            const Value& step) {
  require_defined(object);
  if (object.string()) return slice_text(run, object, start, stop, step);
  if (!is_sequence(object) && !object.is(Kind::kRange)) {
    raise("'{}' object cannot be sliced", type_name(object.kind()));
  }
  const std::size_t size = length(run, object);
  const Bounds bounds = slice_bounds(static_cast<std::int64_t>(size), start, stop, step);
  if (object.is(Kind::kRange)) {
    const Range& of = object.as<Range>();
    Range part{.step = of.step, .size = bounds.count};
    const auto place = [&](std::int64_t index) {  // one beyond the last may not fit into 64 bits
      return static_cast<std::int64_t>(static_cast<std::uint64_t>(of.start) +
                                       static_cast<std::uint64_t>(index) *
                                           static_cast<std::uint64_t>(of.step));
    };
    part.start = place(bounds.start);
    part.stop = place(bounds.stop);
    // Of a single number the step would only overflow.
    if (bounds.count > 1) part.step = of.step * bounds.step;
    return Value::of(Kind::kRange, run.arena.make<Range>(part));
  }
  run.charge(static_cast<std::uint64_t>(bounds.count));
  const Kind kind = object.is(Kind::kTuple) ? Kind::kTuple : Kind::kList;
  if (bounds.step == 1 && !object.is(Kind::kJsonArray)) {
    return wrap_list(run,
                     object.as_list().items.subspan(
                         bounds.count == 0 ? 0 : static_cast<std::size_t>(bounds.start),
                         static_cast<std::size_t>(bounds.count)),
                     kind);
  }
  const std::span<Value> items = run.arena.array<Value>(static_cast<std::size_t>(bounds.count));
  for (std::size_t i = 0; i < items.size(); ++i) {
    items[i] = sequence_item(
        object,
        static_cast<std::size_t>(bounds.start + static_cast<std::int64_t>(i) * bounds.step));
  }
  return wrap_list(run, items, kind);
}

}  // namespace ollama::chat::jinja

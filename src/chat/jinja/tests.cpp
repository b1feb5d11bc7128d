// Tests: what follows `is`.
#include <algorithm>

#include "chat/jinja/builtins.h"
#include "chat/jinja/interpreter.h"
#include "chat/jinja/operators.h"

namespace ollama::chat::jinja {

namespace {

template <auto kPredicate>
bool test_kind(Interpreter&, const Value& value, const Call& call) {
  expect_no_arguments(call);
  return kPredicate(value);
}

template <CompareOp kOp>
bool test_compare(Interpreter& in, const Value& value, const Call& call) {
  const auto [other] = parameters(call, {"other"}, 1);
  return compare(in, kOp, value, other);
}

template <MethodId kMethod>
bool test_case(Interpreter& in, const Value& value, const Call& call) {
  expect_no_arguments(call);
  return truthy(call_string_method(in, Value(to_text(in, value)), kMethod, {}));
}

Value remainder(Interpreter& in, const Value& value, const Value& by) {
  return binary(in, BinaryOp::kModulo, value, by);
}

template <std::int64_t kRemainder>
bool test_parity(Interpreter& in, const Value& value, const Call& call) {
  expect_no_arguments(call);
  return equal(in, remainder(in, value, Value(std::int64_t{2})), Value(kRemainder));
}

bool test_divisibleby(Interpreter& in, const Value& value, const Call& call) {
  const auto [by] = parameters(call, {"num"}, 1);
  return equal(in, remainder(in, value, by), Value(std::int64_t{0}));
}

bool test_sameas(Interpreter& in, const Value& value, const Call& call) {
  const auto [other] = parameters(call, {"other"}, 1);
  if (value.kind() != other.kind()) return false;
  if (value.number() || value.string() || value.is_none()) return equal(in, value, other);
  return value.pointer() == other.pointer();
}

bool test_filter(Interpreter& in, const Value& value, const Call& call) {
  expect_no_arguments(call);
  return find_filter(to_text(in, value)) != nullptr;
}
bool test_test(Interpreter& in, const Value& value, const Call& call) {
  expect_no_arguments(call);
  return find_test(to_text(in, value)) != nullptr;
}

bool is_sequence_value(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kString:
    case Kind::kList:
    case Kind::kJsonArray:
    case Kind::kTuple:
    case Kind::kDict:
    case Kind::kJsonObject:
    case Kind::kRange:
      return true;
    default:
      return false;
  }
}
bool is_iterable(const Value& value) {
  return is_sequence_value(value) || value.is(Kind::kGenerator) || value.is(Kind::kView) ||
         value.is(Kind::kLoop);
}
bool is_callable(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kMacro:
    case Kind::kGlobal:
    case Kind::kMethod:
    case Kind::kLoop:
    case Kind::kJoiner:
      return true;
    default:
      return false;
  }
}

struct TestName {
  std::string_view name;
  TestFunction function;
};
constexpr TestName kTests[] = {
    {"!=", test_compare<CompareOp::kNotEqual>},
    {"<", test_compare<CompareOp::kLess>},
    {"<=", test_compare<CompareOp::kLessEqual>},
    {"==", test_compare<CompareOp::kEqual>},
    {">", test_compare<CompareOp::kGreater>},
    {">=", test_compare<CompareOp::kGreaterEqual>},
    {"boolean", test_kind<[](const Value& v) { return v.is(Kind::kBool); }>},
    {"callable", test_kind<is_callable>},
    {"defined", test_kind<[](const Value& v) { return !v.undefined(); }>},
    {"divisibleby", test_divisibleby},
    {"eq", test_compare<CompareOp::kEqual>},
    {"equalto", test_compare<CompareOp::kEqual>},
    {"escaped", test_kind<[](const Value& v) { return v.is_safe(); }>},
    {"even", test_parity<0>},
    {"false", test_kind<[](const Value& v) { return v.is(Kind::kBool) && !v.boolean(); }>},
    {"filter", test_filter},
    {"float", test_kind<[](const Value& v) { return v.is(Kind::kFloat); }>},
    {"ge", test_compare<CompareOp::kGreaterEqual>},
    {"greaterthan", test_compare<CompareOp::kGreater>},
    {"gt", test_compare<CompareOp::kGreater>},
    {"in", test_compare<CompareOp::kIn>},
    {"integer", test_kind<[](const Value& v) { return v.is(Kind::kInt); }>},
    {"iterable", test_kind<is_iterable>},
    {"le", test_compare<CompareOp::kLessEqual>},
    {"lessthan", test_compare<CompareOp::kLess>},
    {"lower", test_case<MethodId::kIslower>},
    {"lt", test_compare<CompareOp::kLess>},
    {"mapping", test_kind<[](const Value& v) { return v.dict(); }>},
    {"ne", test_compare<CompareOp::kNotEqual>},
    {"none", test_kind<[](const Value& v) { return v.is_none(); }>},
    {"number", test_kind<[](const Value& v) { return v.number(); }>},
    {"odd", test_parity<1>},
    {"sameas", test_sameas},
    {"sequence", test_kind<is_sequence_value>},
    {"string", test_kind<[](const Value& v) { return v.string(); }>},
    {"test", test_test},
    {"true", test_kind<[](const Value& v) { return v.is(Kind::kBool) && v.boolean(); }>},
    {"undefined", test_kind<[](const Value& v) { return v.undefined(); }>},
    {"upper", test_case<MethodId::kIsupper>},
};

}  // namespace

TestFunction find_test(std::string_view name) {
  const auto* const at = std::ranges::find(kTests, name, &TestName::name);
  return at == std::end(kTests) ? nullptr : at->function;
}

}  // namespace ollama::chat::jinja

// Expressions.
#include <algorithm>

#include "chat/jinja/interpreter.h"

namespace ollama::chat::jinja {

Value Interpreter::find_variable(std::string_view name) const {
  if (const auto* const found = context_.if_contains(name)) return from_json(*found);
  const Value global = find_global(name);
  return global.missing() ? Value::undefined(Why::kName, name) : global;
}

Value Interpreter::eval_name(const NameExpr& expr) {
  Frame* frame = frame_;
  for (std::uint32_t i = 0; i < expr.depth; ++i) frame = frame->parent;
  Value& slot = frame->slots[expr.slot];
  if (slot.missing()) {
    if (frame != &root_) return Value::undefined(Why::kName, expr.name);
    slot = find_variable(expr.name);
  }
  return slot;
}

Value Interpreter::eval(const Expr& expr) {
  charge(1);
  // What has no parts needs no guard.
  if (expr.kind == ExprKind::kConstant) return static_cast<const ConstantExpr&>(expr).value;
  if (expr.kind == ExprKind::kName) return eval_name(static_cast<const NameExpr&>(expr));
  const Nested nested(*this);
  return eval_nested(expr);
}

Value Interpreter::eval_nested(const Expr& expr) {
  switch (expr.kind) {
    case ExprKind::kConstant:
    case ExprKind::kName:
      break;
    case ExprKind::kList:
      return eval_list(static_cast<const ListExpr&>(expr), Kind::kList);
    case ExprKind::kTuple:
      return eval_list(static_cast<const ListExpr&>(expr), Kind::kTuple);
    case ExprKind::kDict:
      return eval_dict(static_cast<const DictExpr&>(expr));
    case ExprKind::kAttribute:
      return eval_attribute(static_cast<const AttributeExpr&>(expr));
    case ExprKind::kItem:
      return eval_item(static_cast<const ItemExpr&>(expr));
    case ExprKind::kSlice:
      return eval_slice(static_cast<const SliceExpr&>(expr));
    case ExprKind::kCall:
      return eval_call(static_cast<const CallExpr&>(expr));
    case ExprKind::kFilter:
      return eval_filter(static_cast<const FilterExpr&>(expr));
    case ExprKind::kTest:
      return Value(eval_test(static_cast<const TestExpr&>(expr)));
    case ExprKind::kNot:
      return Value(!condition(*static_cast<const UnaryExpr&>(expr).operand));
    case ExprKind::kNegative: {
      const Value value = eval(*static_cast<const UnaryExpr&>(expr).operand);
      at_ = expr.at;
      return negate(value);
    }
    case ExprKind::kPositive: {
      const Value value = eval(*static_cast<const UnaryExpr&>(expr).operand);
      at_ = expr.at;
      if (value.is(Kind::kFloat)) return value;
      return negate(negate(value));
    }
    case ExprKind::kBinary:
      return eval_binary(static_cast<const BinaryExpr&>(expr));
    case ExprKind::kAnd: {
      const auto& both = static_cast<const BinaryExpr&>(expr);
      const Value left = eval(*both.left);
      return truthy(left) ? eval(*both.right) : left;
    }
    case ExprKind::kOr: {
      const auto& either = static_cast<const BinaryExpr&>(expr);
      const Value left = eval(*either.left);
      return truthy(left) ? left : eval(*either.right);
    }
    case ExprKind::kConcat:
      return eval_concat(static_cast<const ListExpr&>(expr));
    case ExprKind::kCompare:
      return Value(eval_compare(static_cast<const CompareExpr&>(expr)));
    case ExprKind::kConditional: {
      const auto& choice = static_cast<const ConditionalExpr&>(expr);
      if (condition(*choice.test)) return eval(*choice.then);
      if (choice.otherwise != nullptr) return eval(*choice.otherwise);
      return Value::undefined(
          Why::kNothing,
          "the inline if-expression evaluated to false and no else section was defined");
    }
  }
  return {};
}

bool Interpreter::condition(const Expr& expr) { return truthy(eval(expr)); }

Value Interpreter::eval_list(const ListExpr& expr, Kind kind) {
  const std::span<Value> items = arena.array<Value>(expr.items.size());
  for (std::size_t i = 0; i < items.size(); ++i) items[i] = eval(*expr.items[i]);
  return wrap_list(*this, items, kind);
}

Value Interpreter::eval_dict(const DictExpr& expr) {
  auto* const dict = arena.make<Dict>();
  for (std::size_t i = 0; i < expr.keys.size(); ++i) {
    const Value key = eval(*expr.keys[i]);
    const Value value = eval(*expr.values[i]);
    at_ = expr.at;
    dict_set(*this, *dict, key, value);
  }
  return Value::of(Kind::kDict, dict);
}

// ---- Attributes and items

Value Interpreter::attribute(const Value& object, std::string_view name, MethodId method) {
  require_defined(object);
  if (method != MethodId::kNone && has_method(object.kind(), method)) {
    if (is_refused(object.kind(), method)) {
      return Value::undefined(Why::kUnsafe, name, object.kind());
    }
    return Value::of(Kind::kMethod, arena.make<Method>(object, method));
  }
  if (name.starts_with("__")) return Value::undefined(Why::kUnsafe, name, object.kind());
  Value value;
  if (object.dict()) {
    value = dict_find(object, name);
  } else if (object.is(Kind::kNamespace)) {
    value = dict_find(Value::of(Kind::kDict, object.pointer()), name);
  } else if (object.is(Kind::kLoop)) {
    value = loop_attribute(object.as<LoopState>(), name);
  } else if (object.is(Kind::kMacro) && name == "name") {
    value = Value(macro_name(object));
  } else if (object.is(Kind::kTuple) && object.as_list().group) {
    if (name == "grouper") value = object.as_list().items[0];
    if (name == "list") value = object.as_list().items[1];
  } else if (object.is(Kind::kCycler) && name == "current") {
    const auto& cycler = object.as<Cycler>();
    value = cycler.items[cycler.next];
  }
  return value.missing() ? Value::undefined(Why::kAttribute, name, object.kind()) : value;
}

Value Interpreter::item(const Value& object, const Value& key) {
  const Value value = find_item(*this, object, key);
  if (!value.missing()) return value;
  if (key.string()) {
    if (!object.dict() || find_method(key.text()) != MethodId::kNone) {
      return attribute(object, key.text(), find_method(key.text()));
    }
    return Value::undefined(Why::kAttribute, key.text(), object.kind());
  }
  return Value::undefined(Why::kElement, to_text(*this, key), object.kind());
}

Value Interpreter::eval_attribute(const AttributeExpr& expr) {
  const Value object = eval(*expr.object);
  at_ = expr.at;
  return attribute(object, expr.name, expr.method);
}

Value Interpreter::eval_item(const ItemExpr& expr) {
  const Value object = eval(*expr.object);
  const Value key = eval(*expr.index);
  at_ = expr.at;
  return item(object, key);
}

Value Interpreter::eval_slice(const SliceExpr& expr) {
  const auto bound = [&](const Expr* part) { return part == nullptr ? Value() : eval(*part); };
  const Value object = eval(*expr.object);
  const Value start = bound(expr.start);
  const Value stop = bound(expr.stop);
  const Value step = bound(expr.step);
  at_ = expr.at;
  return slice(*this, object, start, stop, step);
}

// ---- Operators

Value Interpreter::eval_binary(const BinaryExpr& expr) {
  const Value left = eval(*expr.left);
  const Value right = eval(*expr.right);
  at_ = expr.at;
  return binary(*this, expr.op, left, right);
}

Value Interpreter::eval_concat(const ListExpr& expr) {
  std::string_view all = to_text(*this, eval(*expr.items.front()));
  for (const Expr* each : expr.items.subspan(1)) {
    const std::string_view text = to_text(*this, eval(*each));
    at_ = expr.at;
    charge_bytes(text.size() + all.size());
    all = arena.join(all, text);
  }
  return Value(all);
}

bool Interpreter::eval_compare(const CompareExpr& expr) {
  Value left = eval(*expr.first);
  for (const Comparison& each : expr.rest) {
    const Value right = eval(*each.right);
    at_ = expr.at;
    if (!compare(*this, each.op, left, right)) return false;
    left = right;
  }
  return true;
}

// ---- Calls

Call Interpreter::eval_arguments(const ArgumentExprs& arguments, const Value* caller) {
  if (arguments.star != nullptr || arguments.star_star != nullptr || caller != nullptr) {
    return eval_unpacked(arguments, caller);
  }
  const std::span<Value> positional = arena.array<Value>(arguments.positional.size());
  for (std::size_t i = 0; i < positional.size(); ++i)
    positional[i] = eval(*arguments.positional[i]);
  const std::span<Argument> named = arena.array<Argument>(arguments.named.size());
  for (std::size_t i = 0; i < named.size(); ++i) {
    named[i] = {.name = arguments.named[i].name, .value = eval(*arguments.named[i].value)};
  }
  return {.positional = positional, .named = named};
}

Call Interpreter::eval_unpacked(const ArgumentExprs& arguments, const Value* caller) {
  std::vector<Value> positional;
  std::vector<Argument> named;
  for (const Expr* each : arguments.positional) positional.push_back(eval(*each));
  if (arguments.star != nullptr) {
    const std::span<const Value> items = to_items(*this, eval(*arguments.star));
    positional.insert(positional.end(), items.begin(), items.end());
  }
  for (const NamedExpr& each : arguments.named) {
    named.push_back({.name = each.name, .value = eval(*each.value)});
  }
  if (arguments.star_star != nullptr) {
    const Value values = eval(*arguments.star_star);
    if (!values.dict())
      raise("argument after ** must be a mapping, not {}", type_name(values.kind()));
    Walk walk(*this, values);
    Value key;
    for (Argument each; walk.next_pair(key, each.value); named.push_back(each)) {
      if (!key.string()) raise("keywords must be strings");
      each.name = key.text();
      charge(1);
    }
  }
  if (caller != nullptr) named.push_back({.name = "caller", .value = *caller});
  return {.positional = arena.copy(positional), .named = arena.copy(named)};
}

Value Interpreter::eval_call(const CallExpr& expr, const Value* caller) {
  if (expr.callee->kind == ExprKind::kAttribute) {
    // A method is called without making a value of it first.
    const auto& callee = static_cast<const AttributeExpr&>(*expr.callee);
    const Value object = eval(*callee.object);
    at_ = callee.at;
    const bool direct = callee.method != MethodId::kNone &&
                        has_method(object.kind(), callee.method) &&
                        !is_refused(object.kind(), callee.method);
    const Value function = direct ? Value() : attribute(object, callee.name, callee.method);
    const Call arguments = eval_arguments(expr.arguments, caller);
    at_ = expr.at;
    return direct ? call_method(*this, object, callee.method, arguments)
                  : call(function, arguments);
  }
  const Value function = eval(*expr.callee);
  at_ = expr.at;
  require_defined(function);
  const Call arguments = eval_arguments(expr.arguments, caller);
  at_ = expr.at;
  return call(function, arguments);
}

Value Interpreter::call(const Value& callee, const Call& call) {
  charge(1);
  switch (callee.kind()) {
    case Kind::kMacro:
      return call_macro(callee.as<Macro>(), call);
    case Kind::kGlobal:
      return call_global(*this, callee.global_id(), call);
    case Kind::kMethod:
      return call_method(*this, callee.as<Method>().object, callee.as<Method>().id, call);
    case Kind::kLoop:
      return call_loop(callee.as<LoopState>(), call);
    case Kind::kJoiner: {
      expect_no_arguments(call);
      auto& joiner = callee.as<Joiner>();
      return std::exchange(joiner.used, true) ? joiner.separator : Value(std::string_view());
    }
    default:
      require_defined(callee);
      raise("'{}' object is not callable", type_name(callee.kind()));
  }
}

std::string_view macro_name(const Value& macro) { return macro.as<Macro>().definition->name; }

Value Interpreter::call_macro(const Macro& macro, const Call& call) {
  const Nested nested(*this);
  const MacroDefinition& definition = *macro.definition;
  auto* const frame = arena.make<Frame>(macro.frame, arena.array<Value>(definition.slots));
  Frame* const saved = std::exchange(frame_, frame);
  bind_macro(definition, *frame, call);
  const std::size_t mark = out_.size();
  run_scope(definition.body);
  frame_ = saved;
  return take_output(mark);
}

void Interpreter::bind_macro(const MacroDefinition& definition, Frame& frame, const Call& call) {
  const std::size_t given = std::min(call.positional.size(), definition.parameters.size());
  for (std::size_t i = 0; i < given; ++i) {
    frame.slots[definition.parameters[i].slot] = call.positional[i];
  }
  auto* const others = arena.make<Dict>();
  for (const Argument& argument : call.named) {
    const auto at =
        std::ranges::find(definition.parameters.subspan(given), argument.name, &Parameter::name);
    if (at != definition.parameters.end()) {
      frame.slots[at->slot] = argument.value;
    } else if (argument.name == "caller" && definition.caller_slot != kNoSlot) {
      frame.slots[definition.caller_slot] = argument.value;
    } else if (definition.kwargs_slot != kNoSlot) {
      dict_set(*this, *others, Value(argument.name), argument.value);
    } else {
      raise("macro '{}' takes no keyword argument '{}'", definition.name, argument.name);
    }
  }
  if (definition.varargs_slot != kNoSlot) {
    frame.slots[definition.varargs_slot] =
        wrap_list(*this, call.positional.subspan(given), Kind::kTuple);
  } else if (given < call.positional.size()) {
    raise("macro '{}' takes not more than {} argument(s)", definition.name, given);
  }
  if (definition.kwargs_slot != kNoSlot) {
    frame.slots[definition.kwargs_slot] = Value::of(Kind::kDict, others);
  }
  if (definition.caller_slot != kNoSlot && frame.slots[definition.caller_slot].missing()) {
    frame.slots[definition.caller_slot] = Value::undefined(Why::kNothing, "no caller defined");
  }
  for (const Parameter& parameter : definition.parameters) {
    Value& slot = frame.slots[parameter.slot];
    if (!slot.missing()) continue;
    slot = parameter.otherwise != nullptr ? eval(*parameter.otherwise)
                                          : Value::undefined(Why::kParameter, parameter.name);
  }
}

// ---- Filters and tests

Value Interpreter::eval_filter(const FilterExpr& expr, const Value* input) {
  const Value value = input != nullptr ? *input : eval(*expr.input);
  const Call arguments = eval_arguments(expr.arguments);
  at_ = expr.at;
  if (expr.function == nullptr) raise("there is no filter named '{}'", expr.name);
  return expr.function(*this, value, arguments);
}

bool Interpreter::eval_test(const TestExpr& expr) {
  const Value value = eval(*expr.input);
  const Call arguments = eval_arguments(expr.arguments);
  at_ = expr.at;
  if (expr.function == nullptr) raise("there is no test named '{}'", expr.name);
  return expr.function(*this, value, arguments);
}

Value Interpreter::apply_filters(const Expr* filter, const Value& input) {
  if (filter == nullptr) return input;
  const Nested nested(*this);
  const auto& expr = static_cast<const FilterExpr&>(*filter);
  const Value inner = apply_filters(expr.input, input);
  return eval_filter(expr, &inner);
}

}  // namespace ollama::chat::jinja

#include "chat/jinja/expression_parser.h"

#include "chat/jinja/builtins.h"

namespace ollama::chat::jinja {

namespace {

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kText:
      return "text";
    case TokenKind::kVariableBegin:
      return "'{{'";
    case TokenKind::kVariableEnd:
      return "'}}'";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return "a number";
    case TokenKind::kEnd:
      return "the template's end";
    default:
      return std::format("'{}'", token.text.substr(0, 100));
  }
}

}  // namespace

// ---- Tokens

bool ExpressionParser::skip_name(std::string_view name) {
  if (!at_name(name)) return false;
  take();
  return true;
}
bool ExpressionParser::skip_operator(std::string_view op) {
  if (!at_operator(op)) return false;
  take();
  return true;
}
void ExpressionParser::expect_operator(std::string_view op) {
  if (!skip_operator(op)) unexpected(std::format("'{}'", op));
}
const Token& ExpressionParser::expect_name() {
  if (!at(TokenKind::kName)) unexpected("a name");
  return take();
}
void ExpressionParser::unexpected(std::string_view expected) const {
  raise_at(current().at, "expected {}, got {}", expected, describe(current()));
}

NameExpr* ExpressionParser::make_name(std::string_view name, Position at) {
  auto* const node = make<NameExpr>(ExprKind::kName, at);
  node->name = name;
  names_.push_back(name);
  return node;
}

// ---- Tuples, conditions, logic

Expr* ExpressionParser::parse_tuple(bool conditionals, std::string_view ends_at, bool empty) {
  const Position begin = current().at;
  std::vector<Expr*> items;
  bool tuple = false;
  for (;;) {
    if (at(TokenKind::kVariableEnd) || at(TokenKind::kBlockEnd) || at_operator(")")) break;
    if (!ends_at.empty() && at_name(ends_at)) break;
    items.push_back(parse_expression(conditionals));
    if (!skip_operator(",")) break;
    tuple = true;
  }
  if (!tuple && !items.empty()) return items.front();
  if (!tuple && !empty) unexpected("an expression");
  auto* const node = make<ListExpr>(ExprKind::kTuple, begin);
  node->items = arena_.copy(items);
  return node;
}

Expr* ExpressionParser::parse_expression(bool conditionals) {
  const Level level(*this);
  const Position begin = current().at;
  Expr* node = parse_or();
  while (conditionals && skip_name("if")) {
    auto* const choice = make<ConditionalExpr>(ExprKind::kConditional, begin);
    choice->then = node;
    choice->test = parse_or();
    if (skip_name("else")) choice->otherwise = parse_expression();
    node = choice;
  }
  return node;
}

Expr* ExpressionParser::make_binary(ExprKind kind, BinaryOp op, Expr* left, Expr* right,
                                    Position at) {
  auto* const node = make<BinaryExpr>(kind, at);
  node->op = op;
  node->left = left;
  node->right = right;
  return node;
}

Expr* ExpressionParser::parse_or() {
  Expr* left = parse_and();
  while (at_name("or")) {
    const Position at = take().at;
    left = make_binary(ExprKind::kOr, {}, left, parse_and(), at);
  }
  return left;
}

Expr* ExpressionParser::parse_and() {
  Expr* left = parse_not();
  while (at_name("and")) {
    const Position at = take().at;
    left = make_binary(ExprKind::kAnd, {}, left, parse_not(), at);
  }
  return left;
}

Expr* ExpressionParser::parse_not() {
  if (!at_name("not")) return parse_compare();
  const Level level(*this);
  auto* const node = make<UnaryExpr>(ExprKind::kNot, take().at);
  node->operand = parse_not();
  return node;
}

bool ExpressionParser::take_comparison(CompareOp& op) {
  static constexpr std::pair<std::string_view, CompareOp> kOperators[] = {
      {"==", CompareOp::kEqual},  {"!=", CompareOp::kNotEqual},
      {"<", CompareOp::kLess},    {"<=", CompareOp::kLessEqual},
      {">", CompareOp::kGreater}, {">=", CompareOp::kGreaterEqual}};
  for (const auto& [text, value] : kOperators) {
    if (!skip_operator(text)) continue;
    op = value;
    return true;
  }
  if (skip_name("in")) {
    op = CompareOp::kIn;
    return true;
  }
  if (at_name("not") && ahead().kind == TokenKind::kName && ahead().text == "in") {
    take();
    take();
    op = CompareOp::kNotIn;
    return true;
  }
  return false;
}

Expr* ExpressionParser::parse_compare() {
  Expr* const first = parse_sum();
  std::vector<Comparison> rest;
  Position at = current().at;
  for (Comparison comparison; take_comparison(comparison.op);) {
    comparison.right = parse_sum();
    rest.push_back(comparison);
  }
  if (rest.empty()) return first;
  auto* const node = make<CompareExpr>(ExprKind::kCompare, at);
  node->first = first;
  node->rest = arena_.copy(rest);
  return node;
}

// ---- Arithmetic

Expr* ExpressionParser::parse_sum() {
  Expr* left = parse_concat();
  while (at_operator("+") || at_operator("-")) {
    const Token& token = take();
    const BinaryOp op = token.text == "+" ? BinaryOp::kAdd : BinaryOp::kSubtract;
    left = make_binary(ExprKind::kBinary, op, left, parse_concat(), token.at);
  }
  return left;
}

Expr* ExpressionParser::parse_concat() {
  Expr* const first = parse_product();
  if (!at_operator("~")) return first;
  std::vector<Expr*> items{first};
  const Position at = current().at;
  while (skip_operator("~")) items.push_back(parse_product());
  auto* const node = make<ListExpr>(ExprKind::kConcat, at);
  node->items = arena_.copy(items);
  return node;
}

Expr* ExpressionParser::parse_product() {
  static constexpr std::pair<std::string_view, BinaryOp> kOperators[] = {
      {"*", BinaryOp::kMultiply},
      {"/", BinaryOp::kDivide},
      {"//", BinaryOp::kFloorDivide},
      {"%", BinaryOp::kModulo}};
  Expr* left = parse_power();
  for (bool more = true; more;) {
    more = false;
    for (const auto& [text, op] : kOperators) {
      if (!at_operator(text)) continue;
      const Position at = take().at;
      left = make_binary(ExprKind::kBinary, op, left, parse_power(), at);
      more = true;
      break;
    }
  }
  return left;
}

Expr* ExpressionParser::parse_power() {
  Expr* left = parse_unary();
  while (at_operator("**")) {
    const Position at = take().at;
    left = make_binary(ExprKind::kBinary, BinaryOp::kPower, left, parse_unary(), at);
  }
  return left;
}

Expr* ExpressionParser::parse_unary(bool filters) {
  const Level level(*this);
  Expr* node = nullptr;
  if (at_operator("-") || at_operator("+")) {
    const Token& token = take();
    auto* const unary =
        make<UnaryExpr>(token.text == "-" ? ExprKind::kNegative : ExprKind::kPositive, token.at);
    unary->operand = parse_unary(false);
    node = unary;
  } else {
    node = parse_primary();
  }
  node = parse_postfix(node);
  return filters ? parse_filter_or_test(node) : node;
}

// ---- Primaries

Expr* ExpressionParser::parse_primary() {
  const Token& token = current();
  switch (token.kind) {
    case TokenKind::kName:
      return parse_name();
    case TokenKind::kString:
      return parse_string();
    case TokenKind::kInteger:
    case TokenKind::kFloat: {
      auto* const node = make<ConstantExpr>(ExprKind::kConstant, token.at);
      node->value = token.kind == TokenKind::kFloat ? Value(token.real) : Value(token.integer);
      take();
      return node;
    }
    default:
      break;
  }
  if (skip_operator("(")) {
    Expr* const node = parse_tuple(true, {}, true);
    expect_operator(")");
    return node;
  }
  if (at_operator("[")) return parse_list();
  if (at_operator("{")) return parse_dict();
  unexpected("an expression");
}

Expr* ExpressionParser::parse_name() {
  const Token& token = take();
  const bool is_true = token.text == "true" || token.text == "True";
  const bool is_false = token.text == "false" || token.text == "False";
  if (!is_true && !is_false && token.text != "none" && token.text != "None") {
    return make_name(token.text, token.at);
  }
  auto* const node = make<ConstantExpr>(ExprKind::kConstant, token.at);
  node->value = is_true || is_false ? Value(is_true) : Value::none();
  return node;
}

Expr* ExpressionParser::parse_string() {
  auto* const node = make<ConstantExpr>(ExprKind::kConstant, current().at);
  std::string_view text = take().text;
  if (at(TokenKind::kString)) {  // neighbours are one
    std::string all(text);
    while (at(TokenKind::kString)) all += take().text;
    text = arena_.copy(all);
  }
  node->value = Value(text);
  if (text.size() <= kMaxNamed) names_.push_back(text);
  return node;
}

Expr* ExpressionParser::parse_list() {
  auto* const node = make<ListExpr>(ExprKind::kList, take().at);
  std::vector<Expr*> items;
  while (!at_operator("]")) {
    items.push_back(parse_expression());
    if (!skip_operator(",")) break;
  }
  expect_operator("]");
  node->items = arena_.copy(items);
  return node;
}

Expr* ExpressionParser::parse_dict() {
  auto* const node = make<DictExpr>(ExprKind::kDict, take().at);
  std::vector<Expr*> keys;
  std::vector<Expr*> values;
  while (!at_operator("}")) {
    keys.push_back(parse_expression());
    expect_operator(":");
    values.push_back(parse_expression());
    if (!skip_operator(",")) break;
  }
  expect_operator("}");
  node->keys = arena_.copy(keys);
  node->values = arena_.copy(values);
  return node;
}

// ---- What follows a primary

Expr* ExpressionParser::parse_postfix(Expr* node) {
  for (;;) {
    if (at_operator(".")) {
      node = parse_attribute(node);
    } else if (at_operator("[")) {
      node = parse_subscript(node);
    } else if (at_operator("(")) {
      node = parse_call(node);
    } else {
      return node;
    }
  }
}

Expr* ExpressionParser::parse_attribute(Expr* object) {
  const Position at = take().at;
  if (this->at(TokenKind::kInteger)) {
    auto* const index = make<ConstantExpr>(ExprKind::kConstant, current().at);
    index->value = Value(take().integer);
    auto* const node = make<ItemExpr>(ExprKind::kItem, at);
    node->object = object;
    node->index = index;
    return node;
  }
  auto* const node = make<AttributeExpr>(ExprKind::kAttribute, at);
  node->object = object;
  node->name = expect_name().text;
  node->method = find_method(node->name);
  names_.push_back(node->name);
  return node;
}

Expr* ExpressionParser::parse_subscript(Expr* object) {
  const Position at = take().at;
  std::vector<Expr*> items;
  while (!at_operator("]")) {
    if (!items.empty()) expect_operator(",");
    items.push_back(parse_subscribed(object));
  }
  expect_operator("]");
  if (items.size() == 1 && items.front()->kind == ExprKind::kSlice) return items.front();
  auto* const node = make<ItemExpr>(ExprKind::kItem, at);
  node->object = object;
  if (items.size() == 1) {
    node->index = items.front();
    return node;
  }
  for (const Expr* item : items) {
    if (item->kind == ExprKind::kSlice) raise_at(item->at, "a slice among several subscripts");
  }
  auto* const tuple = make<ListExpr>(ExprKind::kTuple, at);
  tuple->items = arena_.copy(items);
  node->index = tuple;
  return node;
}

// What stands between brackets: an index, or a slice of `object`.
Expr* ExpressionParser::parse_subscribed(Expr* object) {
  const Position begin = current().at;
  Expr* start = nullptr;
  if (!at_operator(":")) {
    start = parse_expression();
    if (!at_operator(":")) return start;
  }
  take();
  auto* const node = make<SliceExpr>(ExprKind::kSlice, begin);
  node->object = object;
  node->start = start;
  const auto ends = [&] { return at_operator("]") || at_operator(","); };
  if (!at_operator(":") && !ends()) node->stop = parse_expression();
  if (skip_operator(":") && !ends()) node->step = parse_expression();
  return node;
}

Expr* ExpressionParser::parse_call(Expr* callee) {
  auto* const node = make<CallExpr>(ExprKind::kCall, current().at);
  node->callee = callee;
  node->arguments = parse_arguments();
  return node;
}

ArgumentExprs ExpressionParser::parse_arguments() {
  const Level level(*this);
  expect_operator("(");
  ArgumentExprs arguments;
  std::vector<Expr*> positional;
  std::vector<NamedExpr> named;
  while (!at_operator(")")) {
    parse_argument(arguments, positional, named);
    if (!skip_operator(",")) break;
  }
  expect_operator(")");
  arguments.positional = arena_.copy(positional);
  arguments.named = arena_.copy(named);
  return arguments;
}

void ExpressionParser::parse_argument(ArgumentExprs& arguments, std::vector<Expr*>& positional,
                                      std::vector<NamedExpr>& named) {
  const auto ensure = [&](bool good) {
    if (!good) raise_at(current().at, "arguments of a call in a wrong order");
  };
  if (skip_operator("*")) {
    ensure(arguments.star == nullptr && arguments.star_star == nullptr);
    arguments.star = parse_expression();
  } else if (skip_operator("**")) {
    ensure(arguments.star_star == nullptr);
    arguments.star_star = parse_expression();
  } else if (at(TokenKind::kName) && ahead().kind == TokenKind::kOperator && ahead().text == "=") {
    ensure(arguments.star_star == nullptr);
    const std::string_view name = take().text;
    take();
    for (const NamedExpr& other : named) {
      if (other.name == name) raise_at(current().at, "argument '{}' is given twice", name);
    }
    named.push_back({.name = name, .value = parse_expression()});
  } else {
    ensure(arguments.star == nullptr && arguments.star_star == nullptr && named.empty());
    positional.push_back(parse_expression());
  }
}

Expr* ExpressionParser::parse_filter_or_test(Expr* node) {
  for (;;) {
    if (at_operator("|")) {
      node = parse_filters(node);
    } else if (at_name("is")) {
      node = parse_test(node);
    } else if (at_operator("(")) {
      node = parse_call(node);
    } else {
      return node;
    }
  }
}

Expr* ExpressionParser::parse_filters(Expr* input, bool inline_start) {
  Expr* node = input;
  if (inline_start) node = parse_filter(node);
  while (skip_operator("|")) node = parse_filter(node);
  return node;
}

Expr* ExpressionParser::parse_filter(Expr* input) {
  const Token& token = expect_name();
  auto* const node = make<FilterExpr>(ExprKind::kFilter, token.at);
  node->input = input;
  node->name = token.text;
  while (skip_operator(".")) {
    node->name = arena_.copy(std::format("{}.{}", node->name, expect_name().text));
  }
  node->function = find_filter(node->name);
  if (at_operator("(")) node->arguments = parse_arguments();
  return node;
}

Expr* ExpressionParser::parse_test(Expr* input) {
  const Position at = take().at;
  const bool negated = skip_name("not");
  auto* const node = make<TestExpr>(ExprKind::kTest, at);
  node->input = input;
  node->name = expect_name().text;
  node->function = find_test(node->name);
  if (at_operator("(")) {
    node->arguments = parse_arguments();
  } else if ((this->at(TokenKind::kName) && !at_name("else") && !at_name("or") &&
              !at_name("and")) ||
             this->at(TokenKind::kString) || this->at(TokenKind::kInteger) ||
             this->at(TokenKind::kFloat) || at_operator("[") || at_operator("{")) {
    if (at_name("is")) raise_at(current().at, "tests cannot be chained with 'is'");
    const Level level(*this);
    node->arguments.positional = arena_.copy(std::vector{parse_postfix(parse_primary())});
  }
  if (!negated) return node;
  auto* const opposite = make<UnaryExpr>(ExprKind::kNot, at);
  opposite->operand = node;
  return opposite;
}

void ExpressionParser::parse_parameters(std::vector<Parameter>& parameters) {
  expect_operator("(");
  while (!at_operator(")")) {
    const Token& token = expect_name();
    Parameter parameter{.name = token.text};
    for (const Parameter& other : parameters) {
      if (other.name == token.text) raise_at(token.at, "parameter '{}' is named twice", token.text);
    }
    if (skip_operator("=")) {
      parameter.otherwise = parse_expression();
    } else if (!parameters.empty() && parameters.back().otherwise != nullptr) {
      raise_at(token.at, "parameter '{}' without a default follows one with a default", token.text);
    }
    parameters.push_back(parameter);
    if (!skip_operator(",")) break;
  }
  expect_operator(")");
}

}  // namespace ollama::chat::jinja

// The grammar of statements.
#include "chat/jinja/parser.h"

#include <algorithm>
#include <initializer_list>

#include "chat/jinja/expression_parser.h"

namespace ollama::chat::jinja {

namespace {

constexpr std::size_t kMaxProgramBytes = 256UL * 1024 * 1024;

class StatementParser {
 public:
  StatementParser(std::vector<Token> tokens, Program& program)
      : in_(std::move(tokens), program.arena), program_(program) {}

  void run() {
    program_.body = parse_body({});
    program_.names = in_.names();
    std::ranges::sort(program_.names);
    const auto [first, last] = std::ranges::unique(program_.names);
    program_.names.erase(first, last);
  }

 private:
  using Words = std::initializer_list<std::string_view>;

  template <typename T>
  T* make(StmtKind kind, Position at) {
    T* node = in_.arena().make<T>();
    node->kind = kind;
    node->at = at;
    return node;
  }

  // Statements up to a block that begins with one of `ends`, whose word is left to be taken.
  Body parse_body(Words ends) {
    const ExpressionParser::Level level(in_);
    std::vector<Stmt*> body;
    while (!in_.at(TokenKind::kEnd)) {
      const Token& token = in_.take();
      if (token.kind == TokenKind::kText) {
        auto* const text = make<TextStmt>(StmtKind::kText, token.at);
        text->text = token.text;
        body.push_back(text);
      } else if (token.kind == TokenKind::kVariableBegin) {
        auto* const output = make<OutputStmt>(StmtKind::kOutput, token.at);
        output->value = in_.parse_tuple();
        if (!in_.at(TokenKind::kVariableEnd)) in_.unexpected("'}}'");
        in_.take();
        body.push_back(output);
      } else {
        if (std::ranges::any_of(ends, [&](std::string_view end) { return in_.at_name(end); })) {
          return in_.arena().copy(body);
        }
        parse_statement(body);
        expect_block_end();
      }
    }
    if (ends.size() > 0)
      in_.unexpected(std::format("'{{% {} %}}'", std::data(ends)[ends.size() - 1]));
    return in_.arena().copy(body);
  }

  void expect_block_end() {
    if (!in_.at(TokenKind::kBlockEnd)) in_.unexpected("'%}'");
    in_.take();
  }

  // The body of a statement whose first block is at its end.
  Body parse_block_body(Words ends) {
    in_.skip_operator(":");
    expect_block_end();
    return parse_body(ends);
  }
  // The same with one possible end, which is taken.
  Body parse_whole_body(std::string_view end) {
    const Body body = parse_block_body({end});
    in_.take();
    return body;
  }

  void parse_statement(std::vector<Stmt*>& body) {
    if (!in_.at(TokenKind::kName)) in_.unexpected("a statement");
    const Token& token = in_.take();
    const std::string_view word = token.text;
    if (word == "if") return body.push_back(parse_if(token.at));
    if (word == "for") return body.push_back(parse_for(token.at));
    if (word == "set") return body.push_back(parse_set(token.at));
    if (word == "macro") return body.push_back(parse_macro(token.at));
    if (word == "call") return body.push_back(parse_call_block(token.at));
    if (word == "filter") return body.push_back(parse_filter_block(token.at));
    if (word == "with") return body.push_back(parse_with(token.at));
    if (word == "print") return parse_print(body, token.at);
    if (word == "break" || word == "continue") {
      if (loops_ == 0) raise_at(token.at, "'{}' outside of a loop", word);
      return body.push_back(
          make<Stmt>(word == "break" ? StmtKind::kBreak : StmtKind::kContinue, token.at));
    }
    if (word == "block") return body.push_back(parse_named_block(token.at));
    if (word == "generation") return body.push_back(parse_scope(token.at, "endgeneration"));
    if (word == "autoescape") return body.push_back(parse_autoescape(token.at));
    if (word == "include" || word == "import" || word == "from" || word == "extends") {
      raise_at(token.at, "'{}' is not supported: a model's template stands alone", word);
    }
    raise_at(token.at, "unknown statement '{}'", word.substr(0, 100));
  }

  Stmt* parse_if(Position at) {
    auto* const node = make<IfStmt>(StmtKind::kIf, at);
    std::vector<Branch> branches;
    for (;;) {
      Branch branch{.test = in_.parse_tuple(false)};
      branch.body = parse_block_body({"elif", "else", "endif"});
      branches.push_back(branch);
      const std::string_view word = in_.take().text;
      if (word == "elif") continue;
      if (word == "else") node->otherwise = parse_whole_body("endif");
      break;
    }
    node->branches = in_.arena().copy(branches);
    return node;
  }

  Stmt* parse_for(Position at) {
    auto* const node = make<ForStmt>(StmtKind::kFor, at);
    node->target = parse_targets(false, "in");
    node->filter_target = clone(node->target);
    if (!in_.skip_name("in")) in_.unexpected("'in'");
    node->iterable = in_.parse_tuple(false, "recursive");
    if (in_.skip_name("if")) node->condition = in_.parse_expression();
    node->recursive = in_.skip_name("recursive");
    ++loops_;
    node->body.body = parse_block_body({"else", "endfor"});
    --loops_;
    node->has_otherwise = in_.take().text == "else";
    if (node->has_otherwise) node->otherwise.body = parse_whole_body("endfor");
    return node;
  }

  Target clone(const Target& target) {
    Target copy = target;
    copy.items = in_.arena().copy(std::vector(target.items.begin(), target.items.end()));
    for (Target& item : copy.items) item = clone(item);
    return copy;
  }

  // One target, or several with commas between them.
  Target parse_targets(bool namespaces, std::string_view ends_at = {}) {
    const ExpressionParser::Level level(in_);
    const Position at = in_.current().at;
    std::vector<Target> items;
    bool tuple = false;
    for (;;) {
      if (!items.empty() && (in_.at(TokenKind::kBlockEnd) || in_.at_operator(")") ||
                             in_.at_operator("=") || (!ends_at.empty() && in_.at_name(ends_at)))) {
        break;
      }
      items.push_back(parse_target(namespaces));
      if (!in_.skip_operator(",")) break;
      tuple = true;
    }
    if (!tuple) return items.front();
    return {.kind = Target::Kind::kTuple, .at = at, .items = in_.arena().copy(items)};
  }

  Target parse_target(bool namespaces) {
    if (in_.skip_operator("(")) {
      Target target = parse_targets(namespaces);
      if (!in_.skip_operator(")")) in_.unexpected("')'");
      return target;
    }
    const Token& token = in_.expect_name();
    for (const std::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
      if (token.text == constant) raise_at(token.at, "cannot assign to '{}'", token.text);
    }
    Target target{.at = token.at, .name = token.text};
    if (namespaces && in_.skip_operator(".")) {
      target.kind = Target::Kind::kNamespace;
      target.object = in_.make_name(token.text, token.at);
      target.name = in_.expect_name().text;
    }
    return target;
  }

  Stmt* parse_set(Position at) {
    const Target target = parse_targets(true);
    if (in_.skip_operator("=")) {
      auto* const node = make<SetStmt>(StmtKind::kSet, at);
      node->target = target;
      node->value = in_.parse_tuple();
      return node;
    }
    auto* const node = make<SetBlockStmt>(StmtKind::kSetBlock, at);
    node->target = target;
    node->filter = in_.parse_filters(nullptr);
    node->body.body = parse_whole_body("endset");
    return node;
  }

  // A body that is rendered elsewhere: loops around it cannot be left from inside.
  Body parse_function_body(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    const Body body = parse_whole_body(end);
    loops_ = loops;
    return body;
  }

  Stmt* parse_macro(Position at) {
    auto* const node = make<MacroStmt>(StmtKind::kMacro, at);
    node->macro.name = in_.expect_name().text;
    std::vector<Parameter> parameters;
    in_.parse_parameters(parameters);
    node->macro.parameters = in_.arena().copy(parameters);
    node->macro.body.body = parse_function_body("endmacro");
    return node;
  }

  Stmt* parse_call_block(Position at) {
    auto* const node = make<CallBlockStmt>(StmtKind::kCallBlock, at);
    node->caller.name = "caller";
    std::vector<Parameter> parameters;
    if (in_.at_operator("(")) in_.parse_parameters(parameters);
    node->caller.parameters = in_.arena().copy(parameters);
    Expr* const call = in_.parse_expression();
    if (call->kind != ExprKind::kCall) raise_at(call->at, "expected a call");
    node->call = static_cast<CallExpr*>(call);
    node->caller.body.body = parse_function_body("endcall");
    return node;
  }

  Stmt* parse_filter_block(Position at) {
    auto* const node = make<FilterBlockStmt>(StmtKind::kFilterBlock, at);
    node->filter = in_.parse_filters(nullptr, true);
    node->body.body = parse_whole_body("endfilter");
    return node;
  }

  Stmt* parse_with(Position at) {
    auto* const node = make<WithStmt>(StmtKind::kWith, at);
    std::vector<Target> targets;
    std::vector<Expr*> values;
    while (!in_.at(TokenKind::kBlockEnd)) {
      if (!targets.empty()) in_.expect_operator(",");
      targets.push_back(parse_target(false));
      in_.expect_operator("=");
      values.push_back(in_.parse_expression());
    }
    node->targets = in_.arena().copy(targets);
    node->values = in_.arena().copy(values);
    node->body.body = parse_whole_body("endwith");
    return node;
  }

  void parse_print(std::vector<Stmt*>& body, Position at) {
    for (bool first = true; !in_.at(TokenKind::kBlockEnd); first = false) {
      if (!first) in_.expect_operator(",");
      auto* const node = make<OutputStmt>(StmtKind::kOutput, at);
      node->value = in_.parse_expression();
      body.push_back(node);
    }
  }

  Stmt* parse_scope(Position at, std::string_view end) {
    auto* const node = make<ScopeStmt>(StmtKind::kScope, at);
    node->body.body = parse_whole_body(end);
    return node;
  }

  // Without inheritance a block is rendered where it stands.
  Stmt* parse_named_block(Position at) {
    const std::string_view name = in_.expect_name().text;
    while (in_.at_name("scoped") || in_.at_name("required")) in_.take();
    auto* const node = make<ScopeStmt>(StmtKind::kScope, at);
    const int loops = std::exchange(loops_, 0);
    node->body.body = parse_block_body({"endblock"});
    loops_ = loops;
    in_.take();
    in_.skip_name(name);
    return node;
  }

  Stmt* parse_autoescape(Position at) {
    const Expr* const flag = in_.parse_expression();
    if (flag->kind != ExprKind::kConstant ||
        truthy(static_cast<const ConstantExpr*>(flag)->value)) {
      raise_at(flag->at, "escaping is not supported: only 'autoescape false' is");
    }
    return parse_scope(at, "endautoescape");
  }

  ExpressionParser in_;
  Program& program_;
  int loops_ = 0;
};

}  // namespace

std::shared_ptr<const Program> parse_program(std::string_view text) {
  auto program = std::make_shared<Program>(kMaxProgramBytes);
  StatementParser(tokenize(text, program->arena), *program).run();
  resolve(*program);
  return program;
}

}  // namespace ollama::chat::jinja

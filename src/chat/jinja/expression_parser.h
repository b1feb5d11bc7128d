// The grammar of expressions, and the tokens that the grammar of statements shares with it.
#pragma once

#include <string_view>
#include <vector>

#include "chat/jinja/ast.h"
#include "chat/jinja/lexer.h"

namespace ollama::chat::jinja {

class ExpressionParser {
 public:
  ExpressionParser(std::vector<Token> tokens, Arena& arena)
      : arena_(arena), tokens_(std::move(tokens)) {}

  // ---- Tokens
  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool at(TokenKind kind) const { return current().kind == kind; }
  bool at_name(std::string_view name) const {
    return at(TokenKind::kName) && current().text == name;
  }
  bool at_operator(std::string_view op) const {
    return at(TokenKind::kOperator) && current().text == op;
  }
  bool skip_name(std::string_view name);
  bool skip_operator(std::string_view op);
  void expect_operator(std::string_view op);
  const Token& expect_name();
  [[noreturn]] void unexpected(std::string_view expected) const;

  // ---- Expressions
  // Several with commas between them are a tuple. `ends_at` is a word that may follow a comma.
  Expr* parse_tuple(bool conditionals = true, std::string_view ends_at = {}, bool empty = false);
  Expr* parse_expression(bool conditionals = true);
  // A chain of filters; with `inline_start` the first has no '|' before it. nullptr: there is none.
  Expr* parse_filters(Expr* input, bool inline_start = false);
  void parse_parameters(std::vector<Parameter>& parameters);

  template <typename T>
  T* make(ExprKind kind, Position at) {
    T* node = arena_.make<T>();
    node->kind = kind;
    node->at = at;
    return node;
  }
  NameExpr* make_name(std::string_view name, Position at);

  Arena& arena() { return arena_; }
  const std::vector<std::string_view>& names() const { return names_; }

  // A level of nesting; deeper than is sensible fails.
  class Level {
   public:
    explicit Level(ExpressionParser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxDepth) {
        raise_at(parser_.current().at, "nested more than {} deep", kMaxDepth);
      }
    }
    ~Level() { --parser_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    ExpressionParser& parser_;
  };

 private:
  static constexpr int kMaxDepth = 200;
  static constexpr std::size_t kMaxNamed = 32;  // strings that may be keys

  Expr* parse_or();
  Expr* parse_and();
  Expr* parse_not();
  Expr* parse_compare();
  bool take_comparison(CompareOp& op);
  Expr* parse_sum();
  Expr* parse_concat();
  Expr* parse_product();
  Expr* parse_power();
  Expr* parse_unary(bool filters = true);
  Expr* parse_primary();
  Expr* parse_name();
  Expr* parse_string();
  Expr* parse_list();
  Expr* parse_dict();
  Expr* parse_postfix(Expr* node);
  Expr* parse_attribute(Expr* node);
  Expr* parse_subscript(Expr* node);
  Expr* parse_subscribed(Expr* object);
  Expr* parse_call(Expr* node);
  Expr* parse_filter_or_test(Expr* node);
  Expr* parse_test(Expr* node);
  Expr* parse_filter(Expr* input);
  ArgumentExprs parse_arguments();
  void parse_argument(ArgumentExprs& arguments, std::vector<Expr*>& positional,
                      std::vector<NamedExpr>& named);
  Expr* make_binary(ExprKind kind, BinaryOp op, Expr* left, Expr* right, Position at);

  Arena& arena_;
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int depth_ = 0;
  std::vector<std::string_view> names_;
};

}  // namespace ollama::chat::jinja

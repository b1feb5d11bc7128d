#include "chat/go/parser.h"

#include <algorithm>
#include <format>

#include "chat/go/lexer.h"
#include "chat/go/literal.h"

namespace ollama::chat::go {
namespace {

class Parser {
 public:
  Parser(Program& program, std::vector<Token> tokens)
      : program_(program), tokens_(std::move(tokens)) {}

  Result<> run() {
    program_.definitions.push_back({.name = {}});
    variables_.emplace_back("$");
    OLLAMA_ASSIGN(const Body body, list(true));
    if (body.end.kind != TokenKind::kEnd) return unexpected(body.end, "outside a block");
    program_.definitions.front().body = body.nodes;
    program_.definitions.front().slots = slots_;
    return {};
  }

 private:
  // A list of nodes and the keyword that ended it: end, else, or the template's end.
  struct Body {
    Run nodes;
    Token end;
  };

  // ---- Tokens

  const Token& peek() const { return tokens_[at_]; }
  Token next() {
    const Token token = tokens_[at_];
    if (token.kind != TokenKind::kEnd) ++at_;
    return token;
  }
  const Token& peek_word() {
    while (peek().kind == TokenKind::kSpace) ++at_;
    return peek();
  }
  Token next_word() {
    peek_word();
    return next();
  }

  std::unexpected<Error> fail_at_token(const Token& token, std::string_view message) const {
    return fail_at(program_.source, token.position, message);
  }
  std::unexpected<Error> unexpected(const Token& token, std::string_view where) const {
    if (token.kind == TokenKind::kEnd) {
      return fail_at_token(token, "the template ends where {{end}} is missing");
    }
    return fail_at_token(token, std::format("unexpected {} {}", excerpt(token.text), where));
  }
  Result<Token> expect(TokenKind kind, std::string_view where) {
    const Token token = next_word();
    if (token.kind != kind) return unexpected(token, where);
    return token;
  }

  // As long as it lives, one level deeper.
  class Nesting {
   public:
    explicit Nesting(int& depth) : depth_(depth) { ++depth_; }
    ~Nesting() { --depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    int& depth_;
  };
  Result<> check_depth(const Token& token) const {
    if (depth_ > kMaxNesting) {
      return fail_at_token(token, std::format("nested deeper than {} levels", kMaxNesting));
    }
    return {};
  }

  // ---- Nodes

  Result<Body> list(bool top = false) {
    const Nesting nesting(depth_);
    OLLAMA_TRY(check_depth(peek()));
    std::vector<std::uint32_t> nodes;
    while (true) {
      const Token token = next();
      if (token.kind == TokenKind::kEnd) return Body{.nodes = keep(nodes), .end = token};
      if (token.kind == TokenKind::kText) {
        nodes.push_back(
            add({.kind = Node::Kind::kText, .position = token.position, .text = token.text}));
        continue;
      }
      const Token word = peek_word();
      if (word.kind == TokenKind::kEndKeyword || word.kind == TokenKind::kElse) {
        next();
        return Body{.nodes = keep(nodes), .end = word};
      }
      if (word.kind == TokenKind::kDefine && top) {
        next();
        OLLAMA_TRY(define());
        continue;
      }
      OLLAMA_ASSIGN(const std::uint32_t node, action(token));
      nodes.push_back(node);
    }
  }
  std::uint32_t add(const Node& node) {
    program_.nodes.push_back(node);
    return static_cast<std::uint32_t>(program_.nodes.size() - 1);
  }
  Run keep(const std::vector<std::uint32_t>& nodes) { return append(program_.lists, nodes); }
  template <typename T>
  static Run append(std::vector<T>& to, const std::vector<T>& items) {
    const Run run{.first = static_cast<std::uint32_t>(to.size()),
                  .count = static_cast<std::uint32_t>(items.size())};
    to.insert(to.end(), items.begin(), items.end());
    return run;
  }

  // What stands between `open` and its }}, with what belongs to it.
  Result<std::uint32_t> action(const Token& open) {
    const Token word = peek();
    switch (word.kind) {
      case TokenKind::kIf:
        next();
        return control(open, Node::Kind::kIf);
      case TokenKind::kRange:
        next();
        return control(open, Node::Kind::kRange);
      case TokenKind::kWith:
        next();
        return control(open, Node::Kind::kWith);
      case TokenKind::kBlock:
        next();
        return block(open);
      case TokenKind::kTemplate:
        next();
        return invocation(open);
      case TokenKind::kBreak:
        return jump(open, Node::Kind::kBreak);
      case TokenKind::kContinue:
        return jump(open, Node::Kind::kContinue);
      default:
        break;
    }
    Node node{.kind = Node::Kind::kAction, .position = open.position};
    OLLAMA_ASSIGN(node.pipeline, pipeline("in an action", TokenKind::kClose));
    return add(node);
  }

  Result<std::uint32_t> jump(const Token& open, Node::Kind kind) {
    const Token word = next();
    OLLAMA_TRY(expect(TokenKind::kClose, std::format("after {}", word.text)));
    if (range_depth_ == 0) {
      return fail_at_token(word, std::format("{{{{{}}}}} outside {{{{range}}}}", word.text));
    }
    return add({.kind = kind, .position = open.position});
  }

  // if, range and with, up to their end.
  Result<std::uint32_t> control(const Token& open, Node::Kind kind) {
    const Nesting nesting(depth_);
    OLLAMA_TRY(check_depth(open));
    const std::size_t outer = variables_.size();
    Node node{.kind = kind, .position = open.position};
    const bool range = kind == Node::Kind::kRange;
    OLLAMA_ASSIGN(node.pipeline,
                  pipeline(range ? "in a range" : "in a condition", TokenKind::kClose, range));
    range_depth_ += range ? 1 : 0;
    auto body = list();
    range_depth_ -= range ? 1 : 0;
    if (!body) return fail(std::move(body));
    node.body = body->nodes;
    if (body->end.kind == TokenKind::kElse) {
      OLLAMA_ASSIGN(node.otherwise, otherwise(body->end, kind));
    } else {
      OLLAMA_TRY(finish(body->end));
    }
    variables_.resize(outer);
    return add(node);
  }
  // After the keyword `end`.
  Result<> finish(const Token& end) {
    if (end.kind != TokenKind::kEndKeyword) return unexpected(end, "where {{end}} belongs");
    OLLAMA_TRY(expect(TokenKind::kClose, "after end"));
    return {};
  }

  // After the keyword `else`: "else if" and "else with" are controls of their own that share the
  // end.
  Result<Run> otherwise(const Token& word, Node::Kind kind) {
    const Token after = peek_word();
    if ((kind == Node::Kind::kIf && after.kind == TokenKind::kIf) ||
        (kind == Node::Kind::kWith && after.kind == TokenKind::kWith)) {
      next();
      OLLAMA_ASSIGN(const std::uint32_t inner, control(word, kind));
      return keep({inner});
    }
    OLLAMA_TRY(expect(TokenKind::kClose, "after else"));
    OLLAMA_ASSIGN(const Body body, list());
    if (body.end.kind == TokenKind::kElse) return unexpected(body.end, "after another else");
    OLLAMA_TRY(finish(body.end));
    return body.nodes;
  }

  Result<std::string_view> template_name(std::string_view where) {
    const Token token = next_word();
    if (token.kind == TokenKind::kRawString) return token.text.substr(1, token.text.size() - 2);
    if (token.kind != TokenKind::kString) return unexpected(token, where);
    return string_of(token);
  }

  Result<std::uint32_t> invocation(const Token& open) {
    Node node{.kind = Node::Kind::kTemplate, .position = open.position};
    OLLAMA_ASSIGN(node.text, template_name("where a template's name belongs"));
    if (peek_word().kind == TokenKind::kClose) {
      next();
    } else {
      OLLAMA_ASSIGN(node.pipeline, pipeline("after a template's name", TokenKind::kClose));
    }
    return add(node);
  }

  Result<std::uint32_t> block(const Token& open) {
    Node node{.kind = Node::Kind::kTemplate, .position = open.position};
    OLLAMA_ASSIGN(node.text, template_name("where a block's name belongs"));
    OLLAMA_ASSIGN(node.pipeline, pipeline("after a block's name", TokenKind::kClose));
    OLLAMA_TRY(definition(node.text));
    return add(node);
  }

  Result<> define() {
    OLLAMA_ASSIGN(const std::string_view name, template_name("where a template's name belongs"));
    OLLAMA_TRY(expect(TokenKind::kClose, "after a template's name"));
    return definition(name);
  }

  // A template's body up to its end; its variables are its own.
  Result<> definition(std::string_view name) {
    const Token start = peek();
    std::vector<std::string_view> outer_variables{"$"};
    outer_variables.swap(variables_);
    const std::uint32_t outer_slots = std::exchange(slots_, 1);
    const int outer_range = std::exchange(range_depth_, 0);
    OLLAMA_ASSIGN(const Body body, list());
    if (body.end.kind == TokenKind::kElse)
      return unexpected(body.end, "in a template's definition");
    OLLAMA_TRY(finish(body.end));
    OLLAMA_TRY(define_as({.name = name, .body = body.nodes, .slots = slots_}, start));
    variables_.swap(outer_variables);
    slots_ = outer_slots;
    range_depth_ = outer_range;
    return {};
  }
  // A definition without content gives way to one that has some.
  Result<> define_as(const Definition& definition, const Token& at) {
    const auto found = std::find_if(program_.definitions.begin() + 1, program_.definitions.end(),
                                    [&](const auto& d) { return d.name == definition.name; });
    if (found == program_.definitions.end()) {
      program_.definitions.push_back(definition);
    } else if (is_empty(*found)) {
      *found = definition;
    } else if (!is_empty(definition)) {
      return fail_at_token(
          at, std::format("the template {} is defined twice", excerpt(definition.name)));
    }
    return {};
  }
  bool is_empty(const Definition& definition) const {
    return std::ranges::all_of(program_.nodes_of(definition.body), [this](std::uint32_t id) {
      const Node& node = program_.nodes[id];
      return node.kind == Node::Kind::kText &&
             node.text.find_first_not_of(" \t\r\n") == std::string_view::npos;
    });
  }

  // ---- Pipelines

  // Up to and with the token `end`.
  Result<std::uint32_t> pipeline(std::string_view where, TokenKind end, bool range = false) {
    Pipeline result{.position = peek_word().position};
    std::vector<std::string_view> declared;
    bool declares = false;
    OLLAMA_TRY(targets(where, range, declared, declares));
    result.targets = static_cast<std::uint32_t>(declared.size());
    std::vector<Command> commands;
    while (true) {
      const Token token = peek_word();
      if (token.kind == end) {
        next();
        break;
      }
      OLLAMA_ASSIGN(const Command command, this->command(where));
      commands.push_back(command);
    }
    OLLAMA_TRY(check(commands, result.position, where));
    result.commands = append(program_.commands, commands);
    // Known only from here on: `$x := $x` reads the outer one.
    for (std::size_t i = 0; i < declared.size(); ++i) {
      OLLAMA_ASSIGN(result.slots[i],
                    declares ? declare(declared[i]) : slot_of(declared[i], result.position));
    }
    program_.pipelines.push_back(result);
    return static_cast<std::uint32_t>(program_.pipelines.size() - 1);
  }

  // "$a :=", "$a =", in a range also "$a, $b :=".
  Result<> targets(std::string_view where, bool range, std::vector<std::string_view>& names,
                   bool& declares) {
    while (peek_word().kind == TokenKind::kVariable) {
      const std::size_t before = at_;
      const Token variable = next();
      const Token sign = peek_word();
      if (sign.kind == TokenKind::kComma && range && names.empty()) {
        next();
        names.push_back(variable.text);
        if (peek_word().kind != TokenKind::kVariable) {
          return fail_at_token(peek(), "a range can only set variables");
        }
        continue;
      }
      if (sign.kind == TokenKind::kComma) {
        return fail_at_token(sign, std::format("too many variables {}", where));
      }
      if (sign.kind != TokenKind::kDeclare && sign.kind != TokenKind::kAssign) {
        if (!names.empty()) return unexpected(sign, "where := belongs");
        at_ = before;  // an operand
        return {};
      }
      next();
      names.push_back(variable.text);
      declares = sign.kind == TokenKind::kDeclare;
      return {};
    }
    return {};
  }
  std::uint32_t declare(std::string_view name) {
    variables_.push_back(name);
    slots_ = std::max(slots_, static_cast<std::uint32_t>(variables_.size()));
    return static_cast<std::uint32_t>(variables_.size() - 1);
  }
  Result<std::uint32_t> slot_of(std::string_view name, std::uint32_t position) const {
    const auto found = std::ranges::find(variables_.rbegin(), variables_.rend(), name);
    if (found == variables_.rend()) {
      return fail_at(program_.source, position,
                     std::format("undefined variable {}", excerpt(name)));
    }
    return static_cast<std::uint32_t>(variables_.rend() - found - 1);
  }

  // Only functions, fields and variables can take what a pipe brings.
  Result<> check(const std::vector<Command>& commands, std::uint32_t position,
                 std::string_view where) const {
    if (commands.empty()) {
      return fail_at(program_.source, position, std::format("a value is missing {}", where));
    }
    for (const Command& command : std::span(commands).subspan(1)) {
      const Operand& first = program_.operands[command.operands.first];
      switch (first.kind) {
        case Operand::Kind::kDot:
        case Operand::Kind::kNil:
        case Operand::Kind::kBool:
        case Operand::Kind::kInt:
        case Operand::Kind::kFloat:
        case Operand::Kind::kString:
          return fail_at(program_.source, first.position, "what follows | must be a function");
        default:
          break;
      }
    }
    return {};
  }

  // Up to a pipe, which is taken, or the pipeline's end, which is not.
  Result<Command> command(std::string_view where) {
    std::vector<Operand> operands;
    while (true) {
      const Token token = peek_word();
      if (token.kind != TokenKind::kPipe && token.kind != TokenKind::kClose &&
          token.kind != TokenKind::kCloseParen) {
        OLLAMA_ASSIGN(const Operand operand, this->operand(where));
        operands.push_back(operand);
        const TokenKind after = peek().kind;
        if (after == TokenKind::kSpace) continue;
        if (after != TokenKind::kPipe && after != TokenKind::kClose &&
            after != TokenKind::kCloseParen) {
          return unexpected(peek(), "after an operand: a blank is missing");
        }
        continue;
      }
      if (operands.empty())
        return fail_at_token(token, std::format("a value is missing {}", where));
      if (token.kind == TokenKind::kPipe) next();  // nothing need follow
      return Command{.operands = append(program_.operands, operands)};
    }
  }

  // ---- Operands

  Result<Operand> operand(std::string_view where) {
    OLLAMA_ASSIGN(Operand result, term(where));
    if (peek().kind != TokenKind::kField) return result;
    if (result.kind == Operand::Kind::kFunction || result.kind == Operand::Kind::kPipeline) {
      // The chain's base is a pipeline.
      if (result.kind == Operand::Kind::kFunction) result.reference = pipeline_of(result);
      result.kind = Operand::Kind::kChain;
    } else if (result.kind != Operand::Kind::kField && result.kind != Operand::Kind::kVariable) {
      return unexpected(peek(), "after a value that has no fields");
    }
    std::vector<std::string_view> names(program_.names_of(result).begin(),
                                        program_.names_of(result).end());
    while (peek().kind == TokenKind::kField) names.push_back(next().text.substr(1));
    result.names = append(program_.names, names);
    return result;
  }
  std::uint32_t pipeline_of(const Operand& operand) {
    const Command command{.operands = append(program_.operands, std::vector{operand})};
    program_.pipelines.push_back({.position = operand.position,
                                  .commands = append(program_.commands, std::vector{command})});
    return static_cast<std::uint32_t>(program_.pipelines.size() - 1);
  }

  Result<Operand> term(std::string_view where) {
    const Token token = next_word();
    Operand result{.position = token.position};
    switch (token.kind) {
      case TokenKind::kDot:
        return result;
      case TokenKind::kNil:
        result.kind = Operand::Kind::kNil;
        return result;
      case TokenKind::kBool:
        result.kind = Operand::Kind::kBool;
        result.boolean = token.text == "true";
        return result;
      case TokenKind::kField:
        result.kind = Operand::Kind::kField;
        result.names = append(program_.names, std::vector{token.text.substr(1)});
        return result;
      case TokenKind::kVariable:
        result.kind = Operand::Kind::kVariable;
        result.text = token.text;
        OLLAMA_TRY(set_slot(result));
        return result;
      case TokenKind::kIdentifier:
        return function(token, result);
      case TokenKind::kNumber:
        return number(token, result);
      case TokenKind::kChar: {
        const auto code = parse_char(token.text);
        if (!code) return fail_at_token(token, "malformed character constant");
        result.kind = Operand::Kind::kInt;
        result.integer = *code;
        return result;
      }
      case TokenKind::kString:
      case TokenKind::kRawString:
        return string(token, result);
      case TokenKind::kOpenParen: {
        const Nesting nesting(depth_);
        OLLAMA_TRY(check_depth(token));
        result.kind = Operand::Kind::kPipeline;
        OLLAMA_ASSIGN(result.reference, pipeline("in parentheses", TokenKind::kCloseParen));
        return result;
      }
      default:
        return unexpected(token, where);
    }
  }
  Result<> set_slot(Operand& variable) const {
    OLLAMA_ASSIGN(variable.reference, slot_of(variable.text, variable.position));
    return {};
  }
  Result<Operand> function(const Token& token, Operand result) const {
    const auto found = find_function(token.text);
    if (!found) {
      return fail_at_token(token, std::format("there is no function {}", excerpt(token.text)));
    }
    result.kind = Operand::Kind::kFunction;
    result.function = *found;
    result.text = token.text;
    return result;
  }
  Result<Operand> string(const Token& token, Operand result) {
    result.kind = Operand::Kind::kString;
    result.text = token.text.substr(1, token.text.size() - 2);
    if (token.kind == TokenKind::kString) OLLAMA_TRY(set_text(result, token));
    return result;
  }
  Result<> set_text(Operand& result, const Token& token) {
    OLLAMA_ASSIGN(result.text, string_of(token));
    return {};
  }
  Result<Operand> number(const Token& token, Operand result) const {
    const auto value = parse_number(token.text);
    if (!value) {
      return fail_at_token(token, std::format("{} is not a number", excerpt(token.text)));
    }
    if (const auto* integer = std::get_if<std::int64_t>(&*value)) {
      result.kind = Operand::Kind::kInt;
      result.integer = *integer;
    } else {
      result.kind = Operand::Kind::kFloat;
      result.number = std::get<double>(*value);
    }
    return result;
  }
  Result<std::string_view> string_of(const Token& token) {
    const std::string_view inside = token.text.substr(1, token.text.size() - 2);
    if (!inside.contains('\\')) return inside;
    auto text = parse_string(token.text);
    if (!text) return fail_at_token(token, "an escape is not one of Go's");
    return program_.strings.emplace_back(std::move(*text));
  }

  Program& program_;
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int depth_ = 0;
  int range_depth_ = 0;
  std::vector<std::string_view> variables_;  // in sight; the index is the slot
  std::uint32_t slots_ = 1;                  // the most there were in this template
};

}  // namespace

Result<std::unique_ptr<const Program>> parse_program(std::string source) {
  if (source.size() > kMaxSource) {
    return fail(ErrorCode::kInvalidArgument, "the template is longer than {} bytes", kMaxSource);
  }
  auto program = std::make_unique<Program>();
  program->source = std::move(source);
  OLLAMA_ASSIGN(std::vector<Token> tokens, tokenize(program->source));
  OLLAMA_TRY(Parser(*program, std::move(tokens)).run());
  return program;
}

}  // namespace ollama::chat::go

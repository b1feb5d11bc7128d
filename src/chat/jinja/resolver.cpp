// Gives every variable its place: how many functions further out, and which slot there. Jinja's
// scopes are known from the text: a body of a loop, macro, block and so on has its own variables,
// one of an `if` has not.
#include <unordered_map>

#include "chat/jinja/expression_parser.h"
#include "chat/jinja/parser.h"

namespace ollama::chat::jinja {

namespace {

constexpr int kMaxDepth = 1000;

struct Function {
  std::uint32_t depth = 0;
  std::uint32_t slots = 0;
};

struct Names {
  Names* parent = nullptr;
  Function* function = nullptr;
  std::unordered_map<std::string_view, std::uint32_t> slots{};
  ForStmt* loop = nullptr;           // whose body it is
  MacroDefinition* macro = nullptr;  // whose body it is

  std::uint32_t declare(std::string_view name) {
    const auto [at, added] = slots.try_emplace(name, function->slots);
    if (added) ++function->slots;
    return at->second;
  }
};

class Resolver {
 public:
  explicit Resolver(Program& program) : program_(program) {}

  void run() {
    Function root;
    Names names{.function = &root};
    declare_stored(names, program_.body, nullptr);
    body(names, program_.body);
    program_.slots = root.slots;
  }

 private:
  class Level {
   public:
    Level(int& depth, Position at) : depth_(depth) {
      if (++depth_ > kMaxDepth) raise_at(at, "an expression of too many parts");
    }
    ~Level() { --depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    int& depth_;
  };

  // ---- Names

  void find(Names& from, NameExpr& name) {
    Names* names = &from;
    for (;; names = names->parent) {
      const auto found = names->slots.find(name.name);
      if (found != names->slots.end()) {
        if (names->loop != nullptr && name.name == "loop") names->loop->uses_loop = true;
        name.slot = found->second;
        break;
      }
      if (names->macro != nullptr && declare_special(*names, name)) break;
      if (names->parent == nullptr) {  // the context's
        name.slot = names->declare(name.name);
        break;
      }
    }
    name.depth = from.function->depth - names->function->depth;
  }

  // What a macro is given besides its parameters, if its body asks for it.
  static bool declare_special(Names& names, NameExpr& name) {
    std::uint32_t* const slot = name.name == "caller"    ? &names.macro->caller_slot
                                : name.name == "varargs" ? &names.macro->varargs_slot
                                : name.name == "kwargs"  ? &names.macro->kwargs_slot
                                                         : nullptr;
    if (slot == nullptr) return false;
    *slot = name.slot = names.declare(name.name);
    return true;
  }

  void declare_target(Names& names, Target& target) {
    if (target.kind == Target::Kind::kName) target.slot = names.declare(target.name);
    for (Target& item : target.items) declare_target(names, item);
  }

  void store(Names& names, std::string_view name, Position at, std::vector<Inherited>* inherited) {
    if (names.slots.contains(name)) return;
    NameExpr outer{{.kind = ExprKind::kName, .at = at}, name};
    if (inherited != nullptr) find(names, outer);
    // A macro's own special names are no one else's.
    if (names.slots.contains(name)) return;
    const std::uint32_t slot = names.declare(name);
    if (inherited != nullptr) inherited->push_back({.slot = slot, .outer = outer});
  }
  void store(Names& names, const Target& target, std::vector<Inherited>* inherited) {
    if (target.kind == Target::Kind::kName) store(names, target.name, target.at, inherited);
    for (const Target& item : target.items) store(names, item, inherited);
  }

  // The variables that a body sets in its own scope.
  void declare_stored(Names& names, Body statements, std::vector<Inherited>* inherited) {
    for (Stmt* const statement : statements) {
      switch (statement->kind) {
        case StmtKind::kSet:
          store(names, static_cast<SetStmt*>(statement)->target, inherited);
          break;
        case StmtKind::kSetBlock:
          store(names, static_cast<SetBlockStmt*>(statement)->target, inherited);
          break;
        case StmtKind::kMacro:
          store(names, static_cast<MacroStmt*>(statement)->macro.name, statement->at, inherited);
          break;
        case StmtKind::kIf: {
          auto* const node = static_cast<IfStmt*>(statement);
          for (const Branch& branch : node->branches) {
            declare_stored(names, branch.body, inherited);
          }
          declare_stored(names, node->otherwise, inherited);
          break;
        }
        default:
          break;
      }
    }
  }

  // A scope whose own names (parameters, targets) are declared already.
  void scope(Names& names, Scope& scope) {
    std::vector<Inherited> inherited;
    declare_stored(names, scope.body, &inherited);
    scope.inherited = program_.arena.copy(inherited);
    body(names, scope.body);
  }
  void inner_scope(Names& outer, Scope& inner) {
    Names names{.parent = &outer, .function = outer.function};
    scope(names, inner);
  }

  // ---- Statements

  void body(Names& names, Body statements) {
    for (Stmt* const each : statements) statement(names, *each);
  }

  void statement(Names& names, Stmt& node) {
    const Level level(depth_, node.at);
    switch (node.kind) {
      case StmtKind::kText:
      case StmtKind::kBreak:
      case StmtKind::kContinue:
        return;
      case StmtKind::kOutput:
        return expression(names, static_cast<OutputStmt&>(node).value);
      case StmtKind::kIf:
        return if_(names, static_cast<IfStmt&>(node));
      case StmtKind::kFor:
        return for_(names, static_cast<ForStmt&>(node));
      case StmtKind::kSet:
        expression(names, static_cast<SetStmt&>(node).value);
        return target(names, static_cast<SetStmt&>(node).target);
      case StmtKind::kSetBlock: {
        auto& set = static_cast<SetBlockStmt&>(node);
        inner_scope(names, set.body);
        expression(names, set.filter);
        return target(names, set.target);
      }
      case StmtKind::kMacro:
        static_cast<MacroStmt&>(node).slot =
            names.declare(static_cast<MacroStmt&>(node).macro.name);
        return macro(names, static_cast<MacroStmt&>(node).macro);
      case StmtKind::kCallBlock:
        expression(names, static_cast<CallBlockStmt&>(node).call);
        return macro(names, static_cast<CallBlockStmt&>(node).caller);
      case StmtKind::kFilterBlock:
        expression(names, static_cast<FilterBlockStmt&>(node).filter);
        return inner_scope(names, static_cast<FilterBlockStmt&>(node).body);
      case StmtKind::kWith:
        return with(names, static_cast<WithStmt&>(node));
      case StmtKind::kScope:
        return inner_scope(names, static_cast<ScopeStmt&>(node).body);
    }
  }

  // A target whose names are declared.
  void target(Names& names, Target& node) {
    if (node.kind == Target::Kind::kName) node.slot = names.slots.at(node.name);
    if (node.kind == Target::Kind::kNamespace) find(names, *node.object);
    for (Target& item : node.items) target(names, item);
  }

  void if_(Names& names, IfStmt& node) {
    for (Branch& branch : node.branches) {
      expression(names, branch.test);
      body(names, branch.body);
    }
    body(names, node.otherwise);
  }

  void for_(Names& outer, ForStmt& node) {
    expression(outer, node.iterable);
    Function function{.depth = outer.function->depth + 1};
    Function* const own = node.recursive ? &function : outer.function;
    if (node.condition != nullptr) {
      Names names{.parent = &outer, .function = own};
      declare_target(names, node.filter_target);
      expression(names, node.condition);
    }
    Names names{.parent = &outer, .function = own, .loop = &node};
    declare_target(names, node.target);
    node.loop_slot = names.declare("loop");
    scope(names, node.body);
    if (node.has_otherwise) {
      Names others{.parent = &outer, .function = own};
      scope(others, node.otherwise);
    }
    if (node.recursive) node.uses_loop = true;
    node.slots = function.slots;
  }

  void macro(Names& outer, MacroDefinition& node) {
    Function function{.depth = outer.function->depth + 1};
    Names names{.parent = &outer, .function = &function, .macro = &node};
    for (Parameter& parameter : node.parameters) parameter.slot = names.declare(parameter.name);
    for (const Parameter& parameter : node.parameters) expression(names, parameter.otherwise);
    scope(names, node.body);
    node.slots = function.slots;
  }

  void with(Names& outer, WithStmt& node) {
    for (Expr* const value : node.values) expression(outer, value);
    Names names{.parent = &outer, .function = outer.function};
    for (Target& target : node.targets) declare_target(names, target);
    scope(names, node.body);
  }

  // ---- Expressions

  void expressions(Names& names, std::span<Expr*> nodes) {
    for (Expr* const node : nodes) expression(names, node);
  }

  void arguments(Names& names, ArgumentExprs& node) {
    expressions(names, node.positional);
    for (const NamedExpr& each : node.named) expression(names, each.value);
    expression(names, node.star);
    expression(names, node.star_star);
  }

  void expression(Names& names, Expr* node) {
    if (node == nullptr) return;
    const Level level(depth_, node->at);
    switch (node->kind) {
      case ExprKind::kConstant:
        return;
      case ExprKind::kName:
        return find(names, *static_cast<NameExpr*>(node));
      case ExprKind::kList:
      case ExprKind::kTuple:
      case ExprKind::kConcat:
        return expressions(names, static_cast<ListExpr*>(node)->items);
      case ExprKind::kDict:
        expressions(names, static_cast<DictExpr*>(node)->keys);
        return expressions(names, static_cast<DictExpr*>(node)->values);
      case ExprKind::kAttribute:
        return expression(names, static_cast<AttributeExpr*>(node)->object);
      case ExprKind::kItem:
        expression(names, static_cast<ItemExpr*>(node)->object);
        return expression(names, static_cast<ItemExpr*>(node)->index);
      case ExprKind::kSlice: {
        auto* const slice = static_cast<SliceExpr*>(node);
        for (Expr* const part : {slice->object, slice->start, slice->stop, slice->step}) {
          expression(names, part);
        }
        return;
      }
      case ExprKind::kCall:
        expression(names, static_cast<CallExpr*>(node)->callee);
        return arguments(names, static_cast<CallExpr*>(node)->arguments);
      case ExprKind::kFilter:
        expression(names, static_cast<FilterExpr*>(node)->input);
        return arguments(names, static_cast<FilterExpr*>(node)->arguments);
      case ExprKind::kTest:
        expression(names, static_cast<TestExpr*>(node)->input);
        return arguments(names, static_cast<TestExpr*>(node)->arguments);
      case ExprKind::kNot:
      case ExprKind::kNegative:
      case ExprKind::kPositive:
        return expression(names, static_cast<UnaryExpr*>(node)->operand);
      case ExprKind::kBinary:
      case ExprKind::kAnd:
      case ExprKind::kOr:
        expression(names, static_cast<BinaryExpr*>(node)->left);
        return expression(names, static_cast<BinaryExpr*>(node)->right);
      case ExprKind::kCompare:
        expression(names, static_cast<CompareExpr*>(node)->first);
        for (const Comparison& each : static_cast<CompareExpr*>(node)->rest) {
          expression(names, each.right);
        }
        return;
      case ExprKind::kConditional: {
        auto* const choice = static_cast<ConditionalExpr*>(node);
        for (Expr* const part : {choice->test, choice->then, choice->otherwise}) {
          expression(names, part);
        }
        return;
      }
    }
  }

  Program& program_;
  int depth_ = 0;
};

}  // namespace

void resolve(Program& program) { Resolver(program).run(); }

}  // namespace ollama::chat::jinja

// A parsed template. Nodes lie in the program's arena, are never destroyed one by one, and do not
// change after parsing.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "chat/jinja/operators.h"
#include "chat/jinja/value.h"

namespace ollama::chat::jinja {

class Interpreter;
struct Call;
enum class MethodId : std::uint8_t;

using FilterFunction = Value (*)(Interpreter&, const Value& input, const Call& call);
using TestFunction = bool (*)(Interpreter&, const Value& input, const Call& call);

// ---- Expressions

enum class ExprKind : std::uint8_t {
  kConstant,
  kName,
  kList,
  kTuple,
  kDict,
  kAttribute,
  kItem,
  kSlice,
  kCall,
  kFilter,
  kTest,
  kNot,
  kNegative,
  kPositive,
  kBinary,
  kAnd,
  kOr,
  kConcat,
  kCompare,
  kConditional
};

struct Expr {
  ExprKind kind;
  Position at;
};

struct ConstantExpr : Expr {
  Value value;
};

// A variable: `depth` functions (macros, call blocks, recursive loops) further out, place `slot`.
struct NameExpr : Expr {
  std::string_view name;
  std::uint32_t depth = 0;
  std::uint32_t slot = 0;
};

struct ListExpr : Expr {  // also kTuple and kConcat
  std::span<Expr*> items;
};

struct DictExpr : Expr {
  std::span<Expr*> keys;
  std::span<Expr*> values;
};

struct AttributeExpr : Expr {
  Expr* object = nullptr;
  std::string_view name;
  MethodId method{};  // what the name means where the object has methods
};

struct ItemExpr : Expr {
  Expr* object = nullptr;
  Expr* index = nullptr;
};

struct SliceExpr : Expr {
  Expr* object = nullptr;
  Expr* start = nullptr;
  Expr* stop = nullptr;
  Expr* step = nullptr;
};

struct NamedExpr {
  std::string_view name;
  Expr* value = nullptr;
};
struct ArgumentExprs {
  std::span<Expr*> positional;
  std::span<NamedExpr> named;
  Expr* star = nullptr;       // *args
  Expr* star_star = nullptr;  // **kwargs
};

struct CallExpr : Expr {
  Expr* callee = nullptr;
  ArgumentExprs arguments;
};

struct FilterExpr : Expr {
  Expr* input = nullptr;  // nullptr: what a filter block or a set block made
  std::string_view name;
  FilterFunction function = nullptr;  // nullptr: there is none of that name
  ArgumentExprs arguments;
};

struct TestExpr : Expr {
  Expr* input = nullptr;
  std::string_view name;
  TestFunction function = nullptr;
  ArgumentExprs arguments;
};

struct UnaryExpr : Expr {
  Expr* operand = nullptr;
};

struct BinaryExpr : Expr {  // also kAnd, kOr
  BinaryOp op{};
  Expr* left = nullptr;
  Expr* right = nullptr;
};

struct Comparison {
  CompareOp op{};
  Expr* right = nullptr;
};
struct CompareExpr : Expr {
  Expr* first = nullptr;
  std::span<Comparison> rest;
};

struct ConditionalExpr : Expr {
  Expr* test = nullptr;
  Expr* then = nullptr;
  Expr* otherwise = nullptr;  // nullptr: undefined
};

// ---- Statements

enum class StmtKind : std::uint8_t {
  kText,
  kOutput,
  kIf,
  kFor,
  kSet,
  kSetBlock,
  kMacro,
  kCallBlock,
  kFilterBlock,
  kWith,
  kScope,
  kBreak,
  kContinue
};

struct Stmt {
  StmtKind kind;
  Position at;
};
using Body = std::span<Stmt*>;

// Variables of a scope that hide others of the same name: they begin with those's values.
struct Inherited {
  std::uint32_t slot = 0;
  NameExpr outer{};
};
struct Scope {
  Body body;
  std::span<Inherited> inherited;
};

struct Target {
  enum class Kind : std::uint8_t { kName, kTuple, kNamespace };
  Kind kind = Kind::kName;
  Position at;
  std::string_view name;
  std::uint32_t slot = 0;      // of kName
  std::span<Target> items;     // of kTuple
  NameExpr* object = nullptr;  // of kNamespace, with `name` as attribute
};

struct TextStmt : Stmt {
  std::string_view text;
};
struct OutputStmt : Stmt {
  Expr* value = nullptr;
};
struct Branch {
  Expr* test = nullptr;
  Body body;
};
struct IfStmt : Stmt {
  std::span<Branch> branches;
  Body otherwise;
};
struct ForStmt : Stmt {
  Target target;
  Target filter_target;  // the same in the condition's own scope
  Expr* iterable = nullptr;
  Expr* condition = nullptr;
  bool recursive = false;
  bool uses_loop = false;
  std::uint32_t loop_slot = 0;
  std::uint32_t slots = 0;  // of the function that the body of a recursive loop is
  Scope body;
  Scope otherwise;
  bool has_otherwise = false;
};
struct SetStmt : Stmt {
  Target target;
  Expr* value = nullptr;
};
struct SetBlockStmt : Stmt {
  Target target;
  Expr* filter = nullptr;
  Scope body;
};

struct Parameter {
  std::string_view name;
  std::uint32_t slot = 0;
  Expr* otherwise = nullptr;
};
inline constexpr std::uint32_t kNoSlot = UINT32_MAX;
struct MacroDefinition {
  std::string_view name;
  std::span<Parameter> parameters;
  Scope body;
  std::uint32_t slots = 0;
  // Where the body uses these.
  std::uint32_t caller_slot = kNoSlot;
  std::uint32_t varargs_slot = kNoSlot;
  std::uint32_t kwargs_slot = kNoSlot;
};
struct MacroStmt : Stmt {
  MacroDefinition macro;
  std::uint32_t slot = 0;
};
struct CallBlockStmt : Stmt {
  MacroDefinition caller;
  CallExpr* call = nullptr;
};
struct FilterBlockStmt : Stmt {
  Expr* filter = nullptr;
  Scope body;
};
struct WithStmt : Stmt {
  std::span<Target> targets;
  std::span<Expr*> values;
  Scope body;
};
struct ScopeStmt : Stmt {
  Scope body;
};

struct Program {
  explicit Program(std::size_t limit) : arena(limit) {}

  Arena arena;
  Body body;
  std::uint32_t slots = 0;                // of the outermost scope
  std::vector<std::string_view> names{};  // variables and attributes, sorted
};

}  // namespace ollama::chat::jinja

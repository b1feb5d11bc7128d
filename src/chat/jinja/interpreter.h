// Runs a program once.
#pragma once

#include <string>
#include <string_view>

#include "chat/jinja/ast.h"
#include "chat/jinja/builtins.h"
#include "chat/jinja/value.h"

namespace ollama::chat::jinja {

// The variables of one call of a function; the outermost one is the template's own.
struct Frame {
  Frame* parent = nullptr;
  std::span<Value> slots;
};

// A macro, or the body of a call block, with the variables around it.
struct Macro {
  const MacroDefinition* definition = nullptr;
  Frame* frame = nullptr;
};
std::string_view macro_name(const Value& macro);

struct Method {
  Value object;
  MethodId id{};
};

// A loop that is running, as `loop` shows it.
struct LoopState {
  const ForStmt* statement = nullptr;
  Frame* frame = nullptr;  // of the body
  Frame* outer = nullptr;  // where the loop stands
  Walk walk;
  std::span<const Value> ready{};  // items that passed the condition already, if `collected`
  std::size_t next_ready = 0;
  bool collected = false;
  std::int64_t index0 = -1;
  std::int64_t depth0 = 0;
  Value current{};
  Value before{};
  Value after{};
  enum class Ahead : std::uint8_t { kUnknown, kItem, kEnd } ahead = Ahead::kUnknown;
  Value changed{};
};

class Interpreter : public Runtime {
 public:
  Interpreter(const Program& program, const api::JsonObject& context, const JinjaOptions& options);

  // The rendering; failures are thrown.
  std::string run();
  // The last place that was evaluated.
  Position where() const { return at_; }

  Value call(const Value& callee, const Call& call);
  // object.name, methods first, and object[key], items first; undefined where there is nothing.
  Value attribute(const Value& object, std::string_view name, MethodId method);
  Value item(const Value& object, const Value& key);

  Value loop_attribute(LoopState& loop, std::string_view name);
  Value call_loop(LoopState& loop, const Call& call);
  Value call_loop_method(LoopState& loop, MethodId method, const Call& call);

 private:
  enum class Flow : std::uint8_t { kOn, kBreak, kContinue };

  // ---- Statements
  Flow run_body(Body body);
  Flow run_statement(const Stmt& statement);
  Flow run_scope(const Scope& scope);
  Flow run_if(const IfStmt& statement);
  Flow run_with(const WithStmt& statement);
  Flow run_set_block(const SetBlockStmt& statement);
  Flow run_filter_block(const FilterBlockStmt& statement);
  Flow run_for(const ForStmt& statement);
  Flow run_loop(const ForStmt& statement, const Value& iterable, Frame* outer, std::int64_t depth0);
  bool run_pairs(const ForStmt& statement, Walk& walk, bool& any);
  void run_call_block(const CallBlockStmt& statement);
  void assign(const Target& target, const Value& value);
  void assign_items(const Target& target, const Value& value);
  void write(const Value& value);
  // What was written since `mark`, taken back.
  Value take_output(std::size_t mark);

  // ---- Loops
  bool fetch(LoopState& loop, Value& item);
  bool advance(LoopState& loop);
  bool peek(LoopState& loop);
  std::int64_t loop_length(LoopState& loop);

  // ---- Expressions
  Value eval(const Expr& expr);
  Value eval_nested(const Expr& expr);
  Value eval_name(const NameExpr& expr);
  Value eval_list(const ListExpr& expr, Kind kind);
  Value eval_dict(const DictExpr& expr);
  Value eval_attribute(const AttributeExpr& expr);
  Value eval_item(const ItemExpr& expr);
  Value eval_slice(const SliceExpr& expr);
  Value eval_call(const CallExpr& expr, const Value* caller = nullptr);
  Value eval_filter(const FilterExpr& expr, const Value* input = nullptr);
  bool eval_test(const TestExpr& expr);
  Value eval_binary(const BinaryExpr& expr);
  Value eval_concat(const ListExpr& expr);
  bool eval_compare(const CompareExpr& expr);
  bool condition(const Expr& expr);
  Call eval_arguments(const ArgumentExprs& arguments, const Value* caller = nullptr);
  Call eval_unpacked(const ArgumentExprs& arguments, const Value* caller);
  // A chain of filters whose innermost input is `input`.
  Value apply_filters(const Expr* filter, const Value& input);

  Value call_macro(const Macro& macro, const Call& call);
  void bind_macro(const MacroDefinition& definition, Frame& frame, const Call& call);
  Value find_variable(std::string_view name) const;

  const Program& program_;
  const api::JsonObject& context_;
  Frame root_;
  Frame* frame_ = &root_;
  std::string out_;
  Position at_{};
};

}  // namespace ollama::chat::jinja

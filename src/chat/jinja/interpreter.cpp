// Statements.
#include "chat/jinja/interpreter.h"

#include <algorithm>

namespace ollama::chat::jinja {

Interpreter::Interpreter(const Program& program, const api::JsonObject& context,
                         const JinjaOptions& options)
    : Runtime(options), program_(program), context_(context) {
  root_.slots = arena.array<Value>(program.slots);
}

std::string Interpreter::run() {
  out_.reserve(4096);
  run_body(program_.body);
  return std::move(out_);
}

Interpreter::Flow Interpreter::run_body(Body body) {
  for (const Stmt* statement : body) {
    if (const Flow flow = run_statement(*statement); flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

Interpreter::Flow Interpreter::run_statement(const Stmt& statement) {
  charge(1);
  switch (statement.kind) {
    case StmtKind::kText: {
      const std::string_view text = static_cast<const TextStmt&>(statement).text;
      at_ = statement.at;
      check_size(out_.size() + text.size());
      out_ += text;
      return Flow::kOn;
    }
    case StmtKind::kOutput:
      write(eval(*static_cast<const OutputStmt&>(statement).value));
      return Flow::kOn;
    case StmtKind::kSet: {
      const auto& set = static_cast<const SetStmt&>(statement);
      assign(set.target, eval(*set.value));
      return Flow::kOn;
    }
    case StmtKind::kIf:
      return run_if(static_cast<const IfStmt&>(statement));
    case StmtKind::kFor:
      return run_for(static_cast<const ForStmt&>(statement));
    case StmtKind::kSetBlock:
      return run_set_block(static_cast<const SetBlockStmt&>(statement));
    case StmtKind::kMacro: {
      const auto& node = static_cast<const MacroStmt&>(statement);
      frame_->slots[node.slot] = Value::of(Kind::kMacro, arena.make<Macro>(&node.macro, frame_));
      return Flow::kOn;
    }
    case StmtKind::kCallBlock:
      run_call_block(static_cast<const CallBlockStmt&>(statement));
      return Flow::kOn;
    case StmtKind::kFilterBlock:
      return run_filter_block(static_cast<const FilterBlockStmt&>(statement));
    case StmtKind::kWith:
      return run_with(static_cast<const WithStmt&>(statement));
    case StmtKind::kScope: {
      const Nested nested(*this);
      return run_scope(static_cast<const ScopeStmt&>(statement).body);
    }
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kOn;
}

Interpreter::Flow Interpreter::run_scope(const Scope& scope) {
  for (const Inherited& each : scope.inherited) frame_->slots[each.slot] = eval_name(each.outer);
  return run_body(scope.body);
}

Interpreter::Flow Interpreter::run_if(const IfStmt& statement) {
  const Nested nested(*this);
  for (const Branch& branch : statement.branches) {
    if (condition(*branch.test)) return run_body(branch.body);
  }
  return run_body(statement.otherwise);
}

Interpreter::Flow Interpreter::run_with(const WithStmt& statement) {
  const Nested nested(*this);
  const std::span<Value> values = arena.array<Value>(statement.values.size());
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = eval(*statement.values[i]);
  for (std::size_t i = 0; i < values.size(); ++i) assign(statement.targets[i], values[i]);
  return run_scope(statement.body);
}

Interpreter::Flow Interpreter::run_set_block(const SetBlockStmt& statement) {
  const Nested nested(*this);
  const std::size_t mark = out_.size();
  const Flow flow = run_scope(statement.body);
  const Value text = take_output(mark);
  if (flow == Flow::kOn) assign(statement.target, apply_filters(statement.filter, text));
  return flow;
}

Interpreter::Flow Interpreter::run_filter_block(const FilterBlockStmt& statement) {
  const Nested nested(*this);
  const std::size_t mark = out_.size();
  const Flow flow = run_scope(statement.body);
  const Value text = take_output(mark);
  if (flow == Flow::kOn) write(apply_filters(statement.filter, text));
  return flow;
}

void Interpreter::run_call_block(const CallBlockStmt& statement) {
  const Nested nested(*this);
  const Value caller = Value::of(Kind::kMacro, arena.make<Macro>(&statement.caller, frame_));
  write(eval_call(*statement.call, &caller));
}

void Interpreter::write(const Value& value) { append_text(*this, out_, value); }

Value Interpreter::take_output(std::size_t mark) {
  charge_bytes(out_.size() - mark);
  const Value text(arena.copy(std::string_view(out_).substr(mark)));
  out_.resize(mark);
  return text;
}

void Interpreter::assign(const Target& target, const Value& value) {
  switch (target.kind) {
    case Target::Kind::kName:
      frame_->slots[target.slot] = value;
      return;
    case Target::Kind::kTuple:
      assign_items(target, value);
      return;
    case Target::Kind::kNamespace: {
      const Value object = eval_name(*target.object);
      at_ = target.at;
      if (!object.is(Kind::kNamespace)) raise("cannot assign attribute on non-namespace object");
      dict_set(*this, object.as_namespace(), Value(target.name), value);
      return;
    }
  }
}

void Interpreter::assign_items(const Target& target, const Value& value) {
  at_ = target.at;
  require_defined(value);
  Walk walk(*this, value);
  if (walk.size() != target.items.size()) {
    raise("cannot unpack {} values into {} names", walk.size(), target.items.size());
  }
  Value item;
  for (const Target& each : target.items) {
    walk.next(*this, item);
    assign(each, item);
  }
}

// ---- Loops

Interpreter::Flow Interpreter::run_for(const ForStmt& statement) {
  const Value iterable = eval(*statement.iterable);
  at_ = statement.at;
  return run_loop(statement, iterable, frame_, 0);
}

// A dict's items straight into two variables; false where the loop needs more.
bool Interpreter::run_pairs(const ForStmt& statement, Walk& walk, bool& any) {
  const std::span<Target> items = statement.target.items;
  if (!walk.pairs() || statement.uses_loop || statement.condition != nullptr || items.size() != 2 ||
      items[0].kind != Target::Kind::kName || items[1].kind != Target::Kind::kName) {
    return false;
  }
  while (walk.next_pair(frame_->slots[items[0].slot], frame_->slots[items[1].slot])) {
    any = true;
    charge(1);
    if (run_scope(statement.body) == Flow::kBreak) break;
  }
  return true;
}

// The flow is that of an `else`, which may leave a loop further out.
Interpreter::Flow Interpreter::run_loop(const ForStmt& statement, const Value& iterable,
                                        Frame* outer, std::int64_t depth0) {
  const Nested nested(*this);
  Frame* const saved = frame_;
  frame_ = outer;
  if (statement.recursive) {
    frame_ = arena.make<Frame>(outer, arena.array<Value>(statement.slots));
  }
  LoopState local{.statement = &statement,
                  .frame = frame_,
                  .outer = outer,
                  .walk = Walk(*this, iterable),
                  .depth0 = depth0};
  bool any = false;
  if (!run_pairs(statement, local.walk, any)) {
    // What `loop` refers to may be kept longer than the loop runs.
    LoopState* const loop = statement.uses_loop ? arena.make<LoopState>(local) : &local;
    while (advance(*loop)) {
      any = true;
      charge(1);
      assign(statement.target, loop->current);
      if (statement.uses_loop) frame_->slots[statement.loop_slot] = Value::of(Kind::kLoop, loop);
      if (run_scope(statement.body) == Flow::kBreak) break;
    }
  }
  Flow flow = Flow::kOn;
  if (!any && statement.has_otherwise) flow = run_scope(statement.otherwise);
  frame_ = saved;
  return flow;
}

// The next item that passes the condition.
bool Interpreter::fetch(LoopState& loop, Value& item) {
  if (loop.collected) {
    if (loop.next_ready == loop.ready.size()) return false;
    item = loop.ready[loop.next_ready++];
    return true;
  }
  const ForStmt& statement = *loop.statement;
  while (loop.walk.next(*this, item)) {
    if (statement.condition == nullptr) return true;
    charge(1);
    Frame* const saved = std::exchange(frame_, loop.frame);
    assign(statement.filter_target, item);
    const bool passes = condition(*statement.condition);
    frame_ = saved;
    if (passes) return true;
  }
  return false;
}

bool Interpreter::peek(LoopState& loop) {
  if (loop.ahead == LoopState::Ahead::kUnknown) {
    loop.ahead = fetch(loop, loop.after) ? LoopState::Ahead::kItem : LoopState::Ahead::kEnd;
  }
  return loop.ahead == LoopState::Ahead::kItem;
}

bool Interpreter::advance(LoopState& loop) {
  Value item;
  if (loop.ahead == LoopState::Ahead::kEnd) return false;
  if (loop.ahead == LoopState::Ahead::kItem) {
    item = loop.after;
    loop.ahead = LoopState::Ahead::kUnknown;
  } else if (!fetch(loop, item)) {
    return false;
  }
  ++loop.index0;
  loop.before = loop.current;
  loop.current = item;
  return true;
}

std::int64_t Interpreter::loop_length(LoopState& loop) {
  if (loop.statement->condition == nullptr) return static_cast<std::int64_t>(loop.walk.size());
  if (!loop.collected) {
    std::vector<Value> rest;
    for (Value item; fetch(loop, item);) rest.push_back(item);
    loop.ready = arena.copy(rest);
    loop.collected = true;
  }
  const bool ahead = loop.ahead == LoopState::Ahead::kItem;
  return loop.index0 + 1 + (ahead ? 1 : 0) +
         static_cast<std::int64_t>(loop.ready.size() - loop.next_ready);
}

Value Interpreter::loop_attribute(LoopState& loop, std::string_view name) {
  if (name == "index") return Value(loop.index0 + 1);
  if (name == "index0") return Value(loop.index0);
  if (name == "first") return Value(loop.index0 == 0);
  if (name == "last") return Value(!peek(loop));
  if (name == "length") return Value(loop_length(loop));
  if (name == "revindex") return Value(loop_length(loop) - loop.index0);
  if (name == "revindex0") return Value(loop_length(loop) - loop.index0 - 1);
  if (name == "depth") return Value(loop.depth0 + 1);
  if (name == "depth0") return Value(loop.depth0);
  if (name == "previtem") {
    if (loop.index0 > 0) return loop.before;
    return Value::undefined(Why::kNothing, "there is no previous item");
  }
  if (name == "nextitem") {
    if (peek(loop)) return loop.after;
    return Value::undefined(Why::kNothing, "there is no next item");
  }
  return {};
}

Value Interpreter::call_loop(LoopState& loop, const Call& call) {
  if (!loop.statement->recursive) {
    raise("the loop must have the 'recursive' marker to be called recursively");
  }
  const auto [iterable] = parameters(call, {"iterable"}, 1);
  const std::size_t mark = out_.size();
  run_loop(*loop.statement, iterable, loop.outer, loop.depth0 + 1);
  return take_output(mark);
}

Value Interpreter::call_loop_method(LoopState& loop, MethodId method, const Call& call) {
  if (!call.named.empty()) raise("named arguments are not understood");
  if (method == MethodId::kCycle) {
    if (call.positional.empty()) raise("no items for cycling given");
    return call.positional[static_cast<std::size_t>(loop.index0) % call.positional.size()];
  }
  const Value now = wrap_list(*this, call.positional, Kind::kTuple);
  if (!loop.changed.missing() && equal(*this, loop.changed, now)) return Value(false);
  loop.changed = now;
  return Value(true);
}

}  // namespace ollama::chat::jinja

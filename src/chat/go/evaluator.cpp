#include "chat/go/evaluator.h"

#include <deque>
#include <format>
#include <vector>

#include "chat/go/analysis.h"
#include "chat/go/format.h"
#include "chat/go/lexer.h"
#include "chat/go/typescript.h"

namespace ollama::chat::go {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kStepsBetweenClocks = 1024;

// How a list of nodes ended.
enum class Flow : std::uint8_t { kOn, kBreak, kContinue };

class Evaluator final : public Host {
 public:
  Evaluator(const Program& program, const RenderOptions& options)
      : program_(program),
        options_(options),
        out_(options.limits.output),
        deadline_(Clock::now() + options.limits.time) {}

  Result<std::string> run(const Value& dot, Extent extent) {
    if (extent == Extent::kUntilResponse) last_position_ = response_position(program_);
    OLLAMA_TRY(invoke(program_.main(), dot, 0));
    return out_.take();
  }

  // ---- Host
  std::chrono::local_seconds now() const override {
    return options_.now ? *options_.now : local_now();
  }
  std::size_t room() const override { return options_.limits.scratch - scratch_; }
  Result<std::string_view> keep(std::string text) override {
    if (text.size() > room()) {
      return fail(ErrorCode::kInvalidArgument, "the template's functions make more than {} bytes",
                  options_.limits.scratch);
    }
    scratch_ += text.size();
    return kept_.emplace_back(std::move(text));
  }

 private:
  // The variables of one invocation of a template.
  struct Frame {
    std::size_t base = 0;
    bool main = false;
  };

  std::unexpected<Error> fail_here(std::uint32_t position, std::string_view message) const {
    return fail_at(program_.source, position, message);
  }

  Result<> step(std::uint32_t position) {
    if (++steps_ > options_.limits.steps) {
      return fail_here(position,
                       std::format("the template takes more than {} steps", options_.limits.steps));
    }
    if (steps_ % kStepsBetweenClocks == 0 && Clock::now() > deadline_) {
      return fail_here(position, std::format("the template takes longer than {} ms",
                                             options_.limits.time.count()));
    }
    if (out_.full()) {
      return fail_here(
          position, std::format("the template makes more than {} bytes", options_.limits.output));
    }
    return {};
  }

  class Nesting {
   public:
    explicit Nesting(int& depth) : depth_(depth) { ++depth_; }
    ~Nesting() { --depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    int& depth_;
  };
  Result<> check_depth(std::uint32_t position) const {
    if (depth_ > options_.limits.depth) {
      return fail_here(position, std::format("the template's parts are nested deeper than {}",
                                             options_.limits.depth));
    }
    return {};
  }

  // ---- Nodes

  Result<> invoke(const Definition& definition, const Value& dot, std::uint32_t position) {
    const Nesting nesting(depth_);
    OLLAMA_TRY(check_depth(position));
    const Frame outer = std::exchange(
        frame_, Frame{.base = slots_.size(), .main = &definition == &program_.main()});
    slots_.resize(frame_.base + definition.slots);
    slots_[frame_.base] = dot;
    auto flow = list(definition.body, dot);
    slots_.resize(frame_.base);
    frame_ = outer;
    if (!flow) return fail(std::move(flow));
    return {};
  }

  Result<Flow> list(Run nodes, const Value& dot) {
    const Nesting nesting(depth_);
    for (const std::uint32_t id : program_.nodes_of(nodes)) {
      const Node& node = program_.nodes[id];
      if (frame_.main && node.position > last_position_) break;
      OLLAMA_TRY(step(node.position));
      OLLAMA_ASSIGN(const Flow flow, this->node(node, dot));
      if (flow != Flow::kOn) return flow;
    }
    return Flow::kOn;
  }

  Result<Flow> node(const Node& node, const Value& dot) {
    switch (node.kind) {
      case Node::Kind::kText:
        out_.add(node.text);
        return Flow::kOn;
      case Node::Kind::kAction: {
        const Pipeline& pipeline = program_.pipelines[node.pipeline];
        OLLAMA_ASSIGN(const Value value, this->pipeline(pipeline, dot));
        if (pipeline.targets == 0) print_action(out_, value);
        return Flow::kOn;
      }
      case Node::Kind::kIf:
      case Node::Kind::kWith: {
        OLLAMA_TRY(check_depth(node.position));
        OLLAMA_ASSIGN(const Value value, pipeline(program_.pipelines[node.pipeline], dot));
        const bool with = node.kind == Node::Kind::kWith;
        return value.truth() ? list(node.body, with ? value : dot) : list(node.otherwise, dot);
      }
      case Node::Kind::kRange:
        return range(node, dot);
      case Node::Kind::kTemplate:
        return invocation(node, dot);
      case Node::Kind::kBreak:
        return Flow::kBreak;
      case Node::Kind::kContinue:
        return Flow::kContinue;
    }
    return Flow::kOn;
  }

  Result<Flow> invocation(const Node& node, const Value& dot) {
    const Definition* definition = program_.find(node.text);
    if (definition == nullptr || node.text.empty()) {
      return fail_here(node.position, std::format("there is no template {}", excerpt(node.text)));
    }
    Value argument;
    if (node.pipeline != kNone) {
      OLLAMA_ASSIGN(argument, pipeline(program_.pipelines[node.pipeline], dot));
    }
    OLLAMA_TRY(invoke(*definition, argument, node.position));
    return Flow::kOn;
  }

  // ---- Ranges

  Result<Flow> range(const Node& node, const Value& dot) {
    OLLAMA_TRY(check_depth(node.position));
    const Pipeline& over = program_.pipelines[node.pipeline];
    OLLAMA_ASSIGN(const Value value, commands(over, dot));
    if (value.is(Value::Kind::kInt)) return count_to(node, value.integer(), dot);
    if (value.is(Value::Kind::kList)) return each(node, value.list(), dot);
    if (value.is_map() && value.length() >= 0) return each_member(node, value, dot);
    if (value.is_nil()) return list(node.otherwise, dot);
    return fail_here(over.position, std::format("a range over {}: lists, maps and integers can be "
                                                "ranged over",
                                                value.type_name()));
  }

  // One round; false when it was the last.
  Result<bool> round(const Node& node, const Value& key, const Value& element) {
    OLLAMA_TRY(step(node.position));
    const Pipeline& over = program_.pipelines[node.pipeline];
    if (over.targets == 1) variable(over.slots[0]) = element;
    if (over.targets == 2) {
      variable(over.slots[0]) = key;
      variable(over.slots[1]) = element;
    }
    OLLAMA_ASSIGN(const Flow flow, list(node.body, element));
    return flow != Flow::kBreak;
  }

  Result<Flow> count_to(const Node& node, std::int64_t end, const Value& dot) {
    const Pipeline& over = program_.pipelines[node.pipeline];
    if (over.targets == 2) {
      return fail_here(over.position, "a range over an integer has one variable");
    }
    if (end <= 0) return list(node.otherwise, dot);
    for (std::int64_t i = 0; i < end; ++i) {
      OLLAMA_ASSIGN(const bool on, round(node, Value(i), Value(i)));
      if (!on) break;
    }
    return Flow::kOn;
  }
  Result<Flow> each(const Node& node, const Elements& elements, const Value& dot) {
    if (elements.size() == 0) return list(node.otherwise, dot);
    for (std::size_t i = 0; i < elements.size(); ++i) {
      OLLAMA_ASSIGN(const bool on, round(node, Value(static_cast<std::int64_t>(i)), elements[i]));
      if (!on) break;
    }
    return Flow::kOn;
  }
  Result<Flow> each_member(const Node& node, const Value& map, const Value& dot) {
    if (!map.truth()) return list(node.otherwise, dot);
    if (map.is(Value::Kind::kObject)) {
      for (const Field& field : map.object().fields) {
        OLLAMA_ASSIGN(const bool on, round(node, Value(field.name), field.value));
        if (!on) break;
      }
      return Flow::kOn;
    }
    for (const auto* member : sorted_members(map.map())) {
      OLLAMA_ASSIGN(const bool on, round(node, Value(std::string_view(member->key())),
                                         Value::of(member->value())));
      if (!on) break;
    }
    return Flow::kOn;
  }

  // ---- Pipelines

  Value& variable(std::uint32_t slot) { return slots_[frame_.base + slot]; }

  Result<Value> pipeline(const Pipeline& pipeline, const Value& dot) {
    OLLAMA_ASSIGN(const Value value, commands(pipeline, dot));
    if (pipeline.targets > 0) variable(pipeline.slots[0]) = value;
    return value;
  }

  // Without setting variables.
  Result<Value> commands(const Pipeline& pipeline, const Value& dot) {
    std::optional<Value> piped;
    for (const Command& command : program_.commands_of(pipeline)) {
      OLLAMA_ASSIGN(piped, this->command(command, piped, dot));
    }
    return piped.value_or(Value());
  }

  Result<Value> command(const Command& command, const std::optional<Value>& piped,
                        const Value& dot) {
    const auto operands = program_.operands_of(command);
    const Operand& first = operands.front();
    OLLAMA_TRY(step(first.position));
    if (first.kind == Operand::Kind::kFunction) {
      return function(first, operands.subspan(1), piped, dot);
    }
    if (operands.size() > 1 || piped) {
      return fail_here(first.position, "only a function takes arguments");
    }
    if (first.kind == Operand::Kind::kNil) return fail_here(first.position, "nil is not a command");
    return operand(first, dot);
  }

  Result<Value> operand(const Operand& operand, const Value& dot) {
    switch (operand.kind) {
      case Operand::Kind::kDot:
        return dot;
      case Operand::Kind::kNil:
        return Value::nil();
      case Operand::Kind::kBool:
        return Value(operand.boolean);
      case Operand::Kind::kInt:
        return Value(operand.integer);
      case Operand::Kind::kFloat:
        return Value(operand.number);
      case Operand::Kind::kString:
        return Value(operand.text);
      case Operand::Kind::kField:
        return fields(operand, dot);
      case Operand::Kind::kVariable:
        return fields(operand, variable(operand.reference));
      case Operand::Kind::kFunction:
        return function(operand, {}, std::nullopt, dot);
      case Operand::Kind::kChain:
      case Operand::Kind::kPipeline: {
        const Nesting nesting(depth_);
        OLLAMA_TRY(check_depth(operand.position));
        OLLAMA_ASSIGN(const Value value, pipeline(program_.pipelines[operand.reference], dot));
        return fields(operand, value);
      }
    }
    return Value();
  }

  // ".A.B" of a value: what a missing member has is missing too.
  Result<Value> fields(const Operand& operand, Value value) {
    for (const std::string_view name : program_.names_of(operand)) {
      if (value.is(Value::Kind::kMissing)) return value;
      if (const auto method = this->method(value, name)) {
        OLLAMA_ASSIGN(value, located(*method, operand.position));
        continue;
      }
      if (!value.is_map()) {
        return fail_here(operand.position, std::format("{} of {}: only maps have fields",
                                                       excerpt(name), value.type_name()));
      }
      value = value.member(name);
    }
    return value;
  }
  // The methods that Ollama's own types have.
  std::optional<Result<Value>> method(const Value& value, std::string_view name) {
    std::string text;
    if (name == "String" && value.prints_json()) {
      Sink sink(room());
      write_json(sink, value);
      text = sink.take();
    } else if (name == "ToTypeScriptType" && value.is(Value::Kind::kObject)) {
      text = typescript_type(value);
    } else {
      return std::nullopt;
    }
    auto kept = keep(std::move(text));
    if (!kept) return fail(std::move(kept));
    return Value(*kept);
  }

  // ---- Functions

  template <typename T>
  Result<T> located(Result<T> result, std::uint32_t position, std::string_view what = {}) const {
    if (result) return result;
    const std::string_view message = result.error().message();
    return fail_here(position,
                     what.empty() ? std::string(message) : std::format("{}: {}", what, message));
  }

  Result<Value> function(const Operand& name, std::span<const Operand> operands,
                         const std::optional<Value>& piped, const Value& dot) {
    const std::size_t count = operands.size() + (piped ? 1 : 0);
    const Arity arity = arity_of(name.function);
    if (count < arity.least || count > arity.most) {
      return fail_here(name.position,
                       std::format("wrong number of arguments for {}: {}", name.text, count));
    }
    if (name.function == Function::kAnd || name.function == Function::kOr) {
      return choice(name.function == Function::kAnd, operands, piped, dot);
    }
    // On a stack of all calls' arguments, so that a call allocates nothing.
    const std::size_t base = arguments_.size();
    for (const Operand& operand : operands) {
      auto value = this->operand(operand, dot);
      if (!value) return fail(std::move(value));
      arguments_.push_back(*value);
    }
    if (piped) arguments_.push_back(*piped);
    auto result = located(call(name.function, std::span(arguments_).subspan(base), *this),
                          name.position, name.text);
    arguments_.resize(base);
    return result;
  }

  // `and` and `or`: the first value that decides, or the last.
  Result<Value> choice(bool all, std::span<const Operand> operands,
                       const std::optional<Value>& piped, const Value& dot) {
    Value value;
    for (const Operand& operand : operands) {
      OLLAMA_ASSIGN(value, this->operand(operand, dot));
      if (value.truth() != all) return value;
    }
    return piped ? *piped : value;
  }

  const Program& program_;
  const RenderOptions& options_;
  Sink out_;
  Clock::time_point deadline_;
  std::uint64_t steps_ = 0;
  int depth_ = 0;
  std::uint32_t last_position_ = kNone;  // of the main template's nodes that are rendered
  Frame frame_;
  std::vector<Value> slots_;
  std::vector<Value> arguments_;
  std::deque<std::string> kept_;
  std::size_t scratch_ = 0;
};

}  // namespace

Result<std::string> evaluate(const Program& program, const Value& dot, const RenderOptions& options,
                             Extent extent) {
  return Evaluator(program, options).run(dot, extent);
}

}  // namespace ollama::chat::go

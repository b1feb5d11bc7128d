// Arguments, methods by name, and functions.
#include "chat/jinja/builtins.h"

#include <algorithm>

#include "chat/jinja/interpreter.h"
#include "chat/jinja/operators.h"
#include "chat/render_options.h"

namespace ollama::chat::jinja {

void bind_arguments(const Call& call, std::span<const std::string_view> names, std::size_t required,
                    std::span<Value> values) {
  if (call.positional.size() > names.size()) {
    raise("{} arguments where at most {} are taken", call.positional.size(), names.size());
  }
  std::ranges::copy(call.positional, values.begin());
  for (const Argument& argument : call.named) {
    const auto at = std::ranges::find(names, argument.name);
    if (at == names.end()) raise("there is no parameter '{}'", argument.name);
    Value& value = values[static_cast<std::size_t>(at - names.begin())];
    if (!value.missing()) raise("parameter '{}' is given twice", argument.name);
    value = argument.value;
  }
  for (std::size_t i = 0; i < required; ++i) {
    if (values[i].missing()) raise("parameter '{}' is missing", names[i]);
  }
}

void expect_no_arguments(const Call& call) {
  if (!call.positional.empty() || !call.named.empty()) raise("no arguments are taken");
}

std::int64_t integer_argument(const Value& value, std::string_view name, std::int64_t otherwise) {
  if (value.missing() || value.is_none()) return otherwise;
  require_defined(value);
  if (!value.integral()) raise("'{}' must be an integer, not {}", name, type_name(value.kind()));
  return value.integer();
}

std::string_view text_argument(const Value& value, std::string_view name) {
  require_defined(value);
  if (!value.string()) raise("'{}' must be a string, not {}", name, type_name(value.kind()));
  return value.text();
}

// ---- Methods

namespace {

struct MethodName {
  std::string_view name;
  MethodId id;
};
constexpr MethodName kMethods[] = {
    {"append", MethodId::kAppend},
    {"capitalize", MethodId::kCapitalize},
    {"casefold", MethodId::kCasefold},
    {"center", MethodId::kCenter},
    {"changed", MethodId::kChanged},
    {"clear", MethodId::kClear},
    {"copy", MethodId::kCopy},
    {"count", MethodId::kCount},
    {"cycle", MethodId::kCycle},
    {"endswith", MethodId::kEndswith},
    {"expandtabs", MethodId::kExpandtabs},
    {"extend", MethodId::kExtend},
    {"find", MethodId::kFind},
    {"format", MethodId::kFormat},
    {"format_map", MethodId::kFormatMap},
    {"get", MethodId::kGet},
    {"index", MethodId::kIndex},
    {"insert", MethodId::kInsert},
    {"isalnum", MethodId::kIsalnum},
    {"isalpha", MethodId::kIsalpha},
    {"isascii", MethodId::kIsascii},
    {"isdecimal", MethodId::kIsdecimal},
    {"isdigit", MethodId::kIsdigit},
    {"isidentifier", MethodId::kIsidentifier},
    {"islower", MethodId::kIslower},
    {"isnumeric", MethodId::kIsnumeric},
    {"isprintable", MethodId::kIsprintable},
    {"isspace", MethodId::kIsspace},
    {"istitle", MethodId::kIstitle},
    {"isupper", MethodId::kIsupper},
    {"items", MethodId::kItems},
    {"join", MethodId::kJoin},
    {"keys", MethodId::kKeys},
    {"ljust", MethodId::kLjust},
    {"lower", MethodId::kLower},
    {"lstrip", MethodId::kLstrip},
    {"next", MethodId::kNext},
    {"partition", MethodId::kPartition},
    {"pop", MethodId::kPop},
    {"popitem", MethodId::kPopitem},
    {"remove", MethodId::kRemove},
    {"removeprefix", MethodId::kRemoveprefix},
    {"removesuffix", MethodId::kRemovesuffix},
    {"replace", MethodId::kReplace},
    {"reset", MethodId::kReset},
    {"reverse", MethodId::kReverse},
    {"rfind", MethodId::kRfind},
    {"rindex", MethodId::kRindex},
    {"rjust", MethodId::kRjust},
    {"rpartition", MethodId::kRpartition},
    {"rsplit", MethodId::kRsplit},
    {"rstrip", MethodId::kRstrip},
    {"setdefault", MethodId::kSetdefault},
    {"sort", MethodId::kSort},
    {"split", MethodId::kSplit},
    {"splitlines", MethodId::kSplitlines},
    {"startswith", MethodId::kStartswith},
    {"strip", MethodId::kStrip},
    {"swapcase", MethodId::kSwapcase},
    {"title", MethodId::kTitle},
    {"update", MethodId::kUpdate},
    {"upper", MethodId::kUpper},
    {"values", MethodId::kValues},
    {"zfill", MethodId::kZfill},
};
static_assert(std::ranges::is_sorted(kMethods, {}, &MethodName::name));

bool is_any(MethodId method, std::initializer_list<MethodId> of) {
  return std::ranges::find(of, method) != of.end();
}

Value make_view(Interpreter& in, const Value& dict, ViewKind kind) {
  return Value::of(Kind::kView, in.arena.make<View>(dict, kind));
}

Value copy_dict(Runtime& run, const Value& dict) {
  auto* const copy = run.arena.make<Dict>();
  Walk walk(run, dict);
  for (Entry entry; walk.next_pair(entry.key, entry.value);) {
    dict_set(run, *copy, entry.key, entry.value);
  }
  return Value::of(Kind::kDict, copy);
}

Value call_dict_method(Interpreter& in, const Value& object, MethodId method, const Call& call) {
  if (method == MethodId::kGet) {
    const auto [key, otherwise] = parameters(call, {"key", "default"}, 1);
    const Value found = dict_find(in, object, key);
    if (!found.missing()) return found;
    return otherwise.missing() ? Value::none() : otherwise;
  }
  expect_no_arguments(call);
  switch (method) {
    case MethodId::kItems:
      return make_view(in, object, ViewKind::kItems);
    case MethodId::kKeys:
      return make_view(in, object, ViewKind::kKeys);
    case MethodId::kValues:
      return make_view(in, object, ViewKind::kValues);
    default:
      return copy_dict(in, object);
  }
}

Value call_list_method(Interpreter& in, const Value& object, MethodId method, const Call& call) {
  if (method == MethodId::kCopy) {
    expect_no_arguments(call);
    return make_list(in, to_items(in, object));
  }
  const auto [wanted] = parameters(call, {"value"}, 1);
  std::int64_t count = 0;
  std::int64_t index = 0;
  Walk walk(in, object);
  for (Value item; walk.next(in, item); ++index) {
    if (!equal(in, item, wanted)) continue;
    if (method == MethodId::kIndex) return Value(index);
    ++count;
  }
  if (method == MethodId::kIndex) raise("the value is not in the list");
  return Value(count);
}

Value call_cycler_method(Cycler& cycler, MethodId method, const Call& call) {
  expect_no_arguments(call);
  if (method == MethodId::kReset) {
    cycler.next = 0;
    return Value::none();
  }
  const Value item = cycler.items[cycler.next];
  cycler.next = (cycler.next + 1) % cycler.items.size();
  return item;
}

}  // namespace

MethodId find_method(std::string_view name) {
  const auto* const at = std::ranges::lower_bound(kMethods, name, {}, &MethodName::name);
  return at != std::end(kMethods) && at->name == name ? at->id : MethodId::kNone;
}

bool is_refused(Kind kind, MethodId method) {
  if (kind == Kind::kList || kind == Kind::kJsonArray) {
    return is_any(method,
                  {MethodId::kAppend, MethodId::kClear, MethodId::kExtend, MethodId::kInsert,
                   MethodId::kPop, MethodId::kRemove, MethodId::kReverse, MethodId::kSort});
  }
  if (kind == Kind::kDict || kind == Kind::kJsonObject) {
    return is_any(method, {MethodId::kClear, MethodId::kPop, MethodId::kPopitem,
                           MethodId::kSetdefault, MethodId::kUpdate});
  }
  return false;
}

bool has_method(Kind kind, MethodId method) {
  switch (kind) {
    case Kind::kString:
      return method >= MethodId::kCapitalize && method <= MethodId::kZfill;
    case Kind::kList:
    case Kind::kJsonArray:
      return is_any(method, {MethodId::kCount, MethodId::kIndex, MethodId::kCopy}) ||
             is_refused(kind, method);
    case Kind::kTuple:
    case Kind::kRange:
      return is_any(method, {MethodId::kCount, MethodId::kIndex});
    case Kind::kDict:
    case Kind::kJsonObject:
      return (method >= MethodId::kGet && method <= MethodId::kCopy) || is_refused(kind, method);
    case Kind::kLoop:
      return is_any(method, {MethodId::kCycle, MethodId::kChanged});
    case Kind::kCycler:
      return is_any(method, {MethodId::kNext, MethodId::kReset});
    default:
      return false;
  }
}

Value call_method(Interpreter& in, const Value& object, MethodId method, const Call& call) {
  in.charge(1);
  switch (object.kind()) {
    case Kind::kString:
      return call_string_method(in, object, method, call);
    case Kind::kDict:
    case Kind::kJsonObject:
      return call_dict_method(in, object, method, call);
    case Kind::kLoop:
      return in.call_loop_method(object.as<LoopState>(), method, call);
    case Kind::kCycler:
      return call_cycler_method(object.as<Cycler>(), method, call);
    default:
      return call_list_method(in, object, method, call);
  }
}

// ---- Functions

namespace {

constexpr std::int64_t kMaxRange = 100'000;  // as the sandbox has it

Value make_range(Interpreter& in, const Call& call) {
  if (!call.named.empty()) raise("range() takes no keyword arguments");
  if (call.positional.empty() || call.positional.size() > 3)
    raise("range() takes 1 to 3 arguments");
  const auto at = [&](std::size_t i) {
    if (call.positional[i].is_none())
      raise("'NoneType' object cannot be interpreted as an integer");
    return integer_argument(call.positional[i], "range", 0);
  };
  Range range;
  std::int64_t stop = at(0);
  if (call.positional.size() > 1) {
    range.start = stop;
    stop = at(1);
  }
  if (call.positional.size() > 2) range.step = at(2);
  if (range.step == 0) raise("range() arg 3 must not be zero");
  range.stop = stop;
  const bool down = range.step < 0;
  if (down ? stop < range.start : stop > range.start) {
    const auto distance =
        down ? static_cast<std::uint64_t>(range.start) - static_cast<std::uint64_t>(stop)
             : static_cast<std::uint64_t>(stop) - static_cast<std::uint64_t>(range.start);
    const std::uint64_t stride =
        down ? 0 - static_cast<std::uint64_t>(range.step) : static_cast<std::uint64_t>(range.step);
    const std::uint64_t count = (distance - 1) / stride + 1;
    if (count > kMaxRange) raise("range too big: more than {} numbers", kMaxRange);
    range.size = static_cast<std::int64_t>(count);
  }
  return Value::of(Kind::kRange, in.arena.make<Range>(range));
}

// dict() and namespace(): a dict or pairs, then names.
Dict* make_dict(Interpreter& in, const Call& call) {
  auto* const dict = in.arena.make<Dict>();
  if (call.positional.size() > 1) raise("at most 1 argument without a name is taken");
  if (!call.positional.empty()) {
    const Value& from = call.positional.front();
    Walk walk(in, from);
    if (from.dict()) {
      for (Entry entry; walk.next_pair(entry.key, entry.value);) {
        dict_set(in, *dict, entry.key, entry.value);
      }
    } else {
      for (Value item; walk.next(in, item);) {
        const std::span<const Value> pair = to_items(in, item);
        if (pair.size() != 2) raise("a dict is made of pairs, not of {} values", pair.size());
        dict_set(in, *dict, pair[0], pair[1]);
      }
    }
  }
  for (const Argument& argument : call.named) {
    dict_set(in, *dict, Value(argument.name), argument.value);
  }
  return dict;
}

Value make_cycler(Interpreter& in, const Call& call) {
  if (call.positional.empty() || !call.named.empty()) raise("a cycler needs items");
  return Value::of(Kind::kCycler, in.arena.make<Cycler>(call.positional));
}

struct GlobalName {
  std::string_view name;
  GlobalId id;
};
constexpr GlobalName kGlobals[] = {
    {"range", GlobalId::kRange},
    {"namespace", GlobalId::kNamespace},
    {"dict", GlobalId::kDict},
    {"cycler", GlobalId::kCycler},
    {"joiner", GlobalId::kJoiner},
    {"raise_exception", GlobalId::kRaiseException},
    {"strftime_now", GlobalId::kStrftimeNow},
};

}  // namespace

Value find_global(std::string_view name) {
  const auto* const at = std::ranges::find(kGlobals, name, &GlobalName::name);
  return at == std::end(kGlobals) ? Value() : Value::global(at->id);
}

Value call_global(Interpreter& in, GlobalId id, const Call& call) {
  switch (id) {
    case GlobalId::kRange:
      return make_range(in, call);
    case GlobalId::kNamespace:
      return Value::of(Kind::kNamespace, make_dict(in, call));
    case GlobalId::kDict:
      return Value::of(Kind::kDict, make_dict(in, call));
    case GlobalId::kCycler:
      return make_cycler(in, call);
    case GlobalId::kJoiner: {
      const auto [separator] = parameters(call, {"sep"});
      const Value text = separator.missing() ? Value(std::string_view(", ")) : separator;
      return Value::of(Kind::kJoiner, in.arena.make<Joiner>(text));
    }
    case GlobalId::kRaiseException: {
      const auto [message] = parameters(call, {"message"}, 1);
      raise("{}", to_text(in, message));
    }
    case GlobalId::kStrftimeNow: {
      const auto [format] = parameters(call, {"format"}, 1);
      return make_string(
          in, format_date(text_argument(format, "format"), in.now ? *in.now : local_now()));
    }
  }
  return {};
}

}  // namespace ollama::chat::jinja

// Filters on sequences.
#include <algorithm>

#include "base/units.h"
#include "chat/jinja/builtins.h"
#include "chat/jinja/filters.h"
#include "chat/jinja/interpreter.h"
#include "chat/jinja/operators.h"
#include "chat/jinja/unicode.h"

namespace ollama::chat::jinja {

namespace {

// "a.b.0" of an item, or several such with commas between them.
class Getter {
 public:
  Getter(Interpreter& in, const Value& attribute, const Value& otherwise = {})
      : in_(in), otherwise_(otherwise) {
    if (attribute.missing() || attribute.is_none()) return;
    given_ = true;
    if (attribute.string()) {
      std::string_view rest = attribute.text();
      for (;;) {
        const std::size_t comma = rest.find(',');
        paths_.push_back(path(rest.substr(0, comma)));
        if (comma == std::string_view::npos) break;
        rest.remove_prefix(comma + 1);
      }
    } else {
      paths_.push_back({attribute});
    }
  }

  bool given() const { return given_; }

  Value operator()(const Value& item) const {
    if (!given_) return item;
    if (paths_.size() == 1) return follow(item, paths_.front());
    std::vector<Value> values;
    for (const std::vector<Value>& path : paths_) values.push_back(follow(item, path));
    return make_list(in_, values);
  }

 private:
  static std::vector<Value> path(std::string_view text) {
    std::vector<Value> parts;
    for (;;) {
      const std::size_t dot = text.find('.');
      const std::string_view part = text.substr(0, dot);
      const auto index = parse_number<std::int64_t>(part);
      parts.push_back(index && *index >= 0 ? Value(*index) : Value(part));
      if (dot == std::string_view::npos) return parts;
      text.remove_prefix(dot + 1);
    }
  }

  Value follow(Value item, const std::vector<Value>& path) const {
    for (const Value& part : path) {
      in_.charge(1);
      item = in_.item(item, part);
      if (item.undefined() && !otherwise_.missing()) item = otherwise_;
    }
    return item;
  }

  Interpreter& in_;
  Value otherwise_;
  bool given_ = false;
  std::vector<std::vector<Value>> paths_;
};

// What is compared when case does not count.
Value fold(Interpreter& in, const Value& value, bool case_sensitive) {
  if (case_sensitive) return value;
  if (value.string()) {
    in.charge_bytes(value.text().size() * 4);
    return make_string(in, convert_case(value.text(), Case::kLower));
  }
  if (!value.is(Kind::kList)) return value;
  std::vector<Value> items;
  for (const Value& item : value.as_list().items) items.push_back(fold(in, item, false));
  return make_list(in, items);
}

struct Keyed {
  Value key;
  Value item;
};

std::vector<Keyed> keyed(Interpreter& in, const Value& input, const Getter& get, bool sensitive) {
  std::vector<Keyed> all;
  Walk walk(in, input);
  for (Value item; walk.next(in, item);) {
    in.charge(1);
    all.push_back({.key = fold(in, get(item), sensitive), .item = item});
  }
  return all;
}

// A merge sort of our own would do no better: std::stable_sort stands an order that is none (NaN).
void sort_keyed(Interpreter& in, std::vector<Keyed>& all, bool reverse) {
  // With `reverse` equal items keep their order, as in Python.
  std::ranges::stable_sort(all, [&](const Keyed& a, const Keyed& b) {
    return (reverse ? compare(in, b.key, a.key) : compare(in, a.key, b.key)) == -1;
  });
}

Value items_of(Interpreter& in, const std::vector<Keyed>& all, Kind kind = Kind::kList) {
  const std::span<Value> items = in.arena.array<Value>(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) items[i] = all[i].item;
  return wrap_list(in, items, kind);
}

Value generator(Interpreter& in, const std::vector<Value>& items) {
  return wrap_list(in, in.arena.copy(items), Kind::kGenerator);
}

// ---- Ends and order

Value filter_first(Interpreter& in, const Value& input, const Call& call) {
  expect_no_arguments(call);
  Walk walk(in, input);
  Value item;
  if (walk.next(in, item)) return item;
  return Value::undefined(Why::kNothing, "no first item, the sequence was empty");
}

Value filter_last(Interpreter& in, const Value& input, const Call& call) {
  expect_no_arguments(call);
  if (input.is(Kind::kGenerator)) raise("'generator' object is not reversible");
  Walk walk(in, input);
  if (walk.size() == 0)
    return Value::undefined(Why::kNothing, "no last item, the sequence was empty");
  if (input.string() || input.list() || input.is(Kind::kTuple) || input.is(Kind::kRange)) {
    return find_item(in, input, Value(std::int64_t{-1}));
  }
  return to_items(in, input).back();
}

Value filter_reverse(Interpreter& in, const Value& input, const Call& call) {
  expect_no_arguments(call);
  if (input.string()) return slice(in, input, Value(), Value(), Value(std::int64_t{-1}));
  const std::span<const Value> items = to_items(in, input);
  std::vector<Value> reversed(items.rbegin(), items.rend());
  return input.is(Kind::kGenerator) ? make_list(in, reversed) : generator(in, reversed);
}

Value filter_sort(Interpreter& in, const Value& input, const Call& call) {
  const auto [reverse, sensitive, attribute] =
      parameters(call, {"reverse", "case_sensitive", "attribute"});
  std::vector<Keyed> all = keyed(in, input, Getter(in, attribute), truthy(sensitive));
  sort_keyed(in, all, truthy(reverse));
  return items_of(in, all);
}

Value filter_dictsort(Interpreter& in, const Value& input, const Call& call) {
  const auto [sensitive, by, reverse] = parameters(call, {"case_sensitive", "by", "reverse"});
  require_defined(input);
  if (!input.dict()) raise("'{}' object has no attribute 'items'", type_name(input.kind()));
  const std::string_view side = by.missing() ? "key" : text_argument(by, "by");
  if (side != "key" && side != "value") raise("you can only sort by either \"key\" or \"value\"");
  std::vector<Keyed> all;
  Walk walk(in, input);
  for (Entry entry; walk.next_pair(entry.key, entry.value);) {
    const Value& key = side == "key" ? entry.key : entry.value;
    all.push_back({.key = fold(in, key, truthy(sensitive)),
                   .item = make_list(in, {entry.key, entry.value}, Kind::kTuple)});
  }
  sort_keyed(in, all, truthy(reverse));
  return items_of(in, all);
}

template <bool kLargest>
Value filter_extreme(Interpreter& in, const Value& input, const Call& call) {
  const auto [sensitive, attribute] = parameters(call, {"case_sensitive", "attribute"});
  const std::vector<Keyed> all = keyed(in, input, Getter(in, attribute), truthy(sensitive));
  if (all.empty())
    return Value::undefined(Why::kNothing, "no aggregated item, the sequence was empty");
  const Keyed* best = &all.front();
  for (const Keyed& each : all) {
    if (compare(in, each.key, best->key) == (kLargest ? 1 : -1)) best = &each;
  }
  return best->item;
}

Value filter_unique(Interpreter& in, const Value& input, const Call& call) {
  const auto [sensitive, attribute] = parameters(call, {"case_sensitive", "attribute"});
  Dict seen;
  std::vector<Value> items;
  for (const Keyed& each : keyed(in, input, Getter(in, attribute), truthy(sensitive))) {
    const std::uint32_t before = seen.size;
    dict_set(in, seen, each.key, Value(true));
    if (seen.size > before) items.push_back(each.item);
  }
  return generator(in, items);
}

Value filter_groupby(Interpreter& in, const Value& input, const Call& call) {
  const auto [attribute, otherwise, sensitive] =
      parameters(call, {"attribute", "default", "case_sensitive"}, 1);
  const Getter get(in, attribute, otherwise);
  std::vector<Keyed> all = keyed(in, input, get, truthy(sensitive));
  sort_keyed(in, all, false);
  std::vector<Value> groups;
  for (std::size_t at = 0; at < all.size();) {
    std::vector<Value> members;
    const Keyed& first = all[at];
    for (; at < all.size() && equal(in, all[at].key, first.key); ++at)
      members.push_back(all[at].item);
    if (members.empty()) members.push_back(all[at++].item);  // a key that is not equal to itself
    groups.push_back(make_list(in, {get(first.item), make_list(in, members)}, Kind::kTuple));
    groups.back().as<List>().group = true;
  }
  return make_list(in, groups);
}

// ---- Parts

Value filter_list(Interpreter& in, const Value& input, const Call& call) {
  expect_no_arguments(call);
  return wrap_list(in, to_items(in, input));
}

Value filter_items(Interpreter& in, const Value& input, const Call& call) {
  expect_no_arguments(call);
  if (input.undefined()) return generator(in, {});
  if (!input.dict()) raise("can only get item pairs from a mapping");
  std::vector<Value> items;
  Walk walk(in, input);
  for (Entry entry; walk.next_pair(entry.key, entry.value);) {
    items.push_back(make_list(in, {entry.key, entry.value}, Kind::kTuple));
  }
  return generator(in, items);
}

Value filter_batch(Interpreter& in, const Value& input, const Call& call) {
  const auto [count, fill] = parameters(call, {"linecount", "fill_with"}, 1);
  const std::int64_t size = integer_argument(count, "linecount", 1);
  if (size < 1) raise("'linecount' must be at least 1");
  std::vector<Value> rows;
  std::vector<Value> row;
  const auto finish = [&] { rows.push_back(make_list(in, std::exchange(row, {}))); };
  for (const Value& item : to_items(in, input)) {
    if (std::cmp_equal(row.size(), size)) finish();
    row.push_back(item);
  }
  if (row.empty()) return generator(in, rows);
  if (!fill.missing() && !fill.is_none()) {
    in.charge(static_cast<std::uint64_t>(size));
    while (std::cmp_less(row.size(), size)) row.push_back(fill);
  }
  finish();
  return generator(in, rows);
}

Value filter_slice(Interpreter& in, const Value& input, const Call& call) {
  const auto [count, fill] = parameters(call, {"slices", "fill_with"}, 1);
  const std::int64_t slices = integer_argument(count, "slices", 1);
  if (slices < 1) raise("'slices' must be at least 1");
  const std::span<const Value> items = to_items(in, input);
  const auto parts = static_cast<std::size_t>(slices);
  in.charge(parts);
  const std::size_t each = items.size() / parts;
  const std::size_t longer = items.size() % parts;
  std::vector<Value> columns;
  std::size_t at = 0;
  for (std::size_t i = 0; i < parts; ++i) {
    in.charge(1);
    const std::size_t size = each + (i < longer ? 1 : 0);
    std::vector<Value> column(items.begin() + static_cast<std::ptrdiff_t>(at),
                              items.begin() + static_cast<std::ptrdiff_t>(at + size));
    if (!fill.missing() && !fill.is_none() && i >= longer) column.push_back(fill);
    columns.push_back(make_list(in, column));
    at += size;
  }
  return generator(in, columns);
}

Value filter_join(Interpreter& in, const Value& input, const Call& call) {
  const auto [separator, attribute] = parameters(call, {"d", "attribute"});
  const std::string_view between =
      separator.missing() ? std::string_view() : to_text(in, separator);
  const Getter get(in, attribute);
  std::string out;
  Walk walk(in, input);
  bool first = true;
  for (Value item; walk.next(in, item); first = false) {
    in.charge(1);
    if (!first) out += between;
    append_text(in, out, get.given() ? get(item) : item);
  }
  return make_string(in, out);
}

Value filter_sum(Interpreter& in, const Value& input, const Call& call) {
  const auto [attribute, start] = parameters(call, {"attribute", "start"});
  const Getter get(in, attribute);
  Value total = start.missing() ? Value(std::int64_t{0}) : start;
  if (total.string()) raise("sum() can't sum strings");
  Walk walk(in, input);
  for (Value item; walk.next(in, item);) {
    total = binary(in, BinaryOp::kAdd, total, get(item));
  }
  return total;
}

// ---- By another filter or test

Value filter_map(Interpreter& in, const Value& input, const Call& call) {
  std::vector<Value> items;
  if (!truthy(input)) return generator(in, items);  // none, too
  Walk walk(in, input);
  if (call.positional.empty()) {
    const auto [attribute, otherwise] = parameters(call, {"attribute", "default"}, 1);
    const Getter get(in, attribute, otherwise);
    for (Value item; walk.next(in, item);) items.push_back(get(item));
    return generator(in, items);
  }
  const std::string_view name = text_argument(call.positional.front(), "filter");
  const FilterFunction filter = find_filter(name);
  if (filter == nullptr) raise("there is no filter named '{}'", name);
  const Call rest{.positional = call.positional.subspan(1), .named = call.named};
  for (Value item; walk.next(in, item);) {
    in.charge(1);
    items.push_back(filter(in, item, rest));
  }
  return generator(in, items);
}

// Items by whether a test, or their truth, is `kWanted`; of an attribute where `kAttribute`.
template <bool kWanted, bool kAttribute>
Value filter_select(Interpreter& in, const Value& input, const Call& call) {
  const std::size_t skip = kAttribute ? 1 : 0;
  if (call.positional.size() < skip) raise("the name of an attribute is missing");
  const Getter get(in, kAttribute ? call.positional.front() : Value());
  TestFunction test = nullptr;
  Call rest;
  if (call.positional.size() > skip) {
    const std::string_view name = text_argument(call.positional[skip], "test");
    test = find_test(name);
    if (test == nullptr) raise("there is no test named '{}'", name);
    rest = {.positional = call.positional.subspan(skip + 1), .named = call.named};
  }
  std::vector<Value> items;
  if (!truthy(input)) return generator(in, items);  // none, too
  Walk walk(in, input);
  for (Value item; walk.next(in, item);) {
    in.charge(1);
    const Value value = get(item);
    if ((test != nullptr ? test(in, value, rest) : truthy(value)) == kWanted) items.push_back(item);
  }
  return generator(in, items);
}

constexpr FilterName kSequenceFilters[] = {
    {"batch", filter_batch},
    {"dictsort", filter_dictsort},
    {"first", filter_first},
    {"groupby", filter_groupby},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last},
    {"list", filter_list},
    {"map", filter_map},
    {"max", filter_extreme<true>},
    {"min", filter_extreme<false>},
    {"reject", filter_select<false, false>},
    {"rejectattr", filter_select<false, true>},
    {"reverse", filter_reverse},
    {"select", filter_select<true, false>},
    {"selectattr", filter_select<true, true>},
    {"slice", filter_slice},
    {"sort", filter_sort},
    {"sum", filter_sum},
    {"unique", filter_unique},
};

}  // namespace

std::span<const FilterName> sequence_filters() { return kSequenceFilters; }

}  // namespace ollama::chat::jinja

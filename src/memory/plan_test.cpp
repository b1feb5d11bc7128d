#include "memory/plan.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <limits>

#include "memory/shapes.h"

namespace ollama::memory {
namespace {

using enum ml::DType;
using ml::DeviceKind;

// ---- What models need

TEST(Demand, CountsEveryTensorOnce) {
  // An output matrix of its own; the table as the output's matrix; no output at all.
  for (const std::string_view name : {"llama", "gemma3", "bert"}) {
    SCOPED_TRACE(name);
    const auto file = gguf::File::open(std::format("{}/arch/{}.gguf", OLLAMA_TEST_DATA, name));
    ASSERT_TRUE(file);
    const std::vector<kvcache::LayerSpec> layers(file->u32(".block_count").value());
    const Demand need = demand(*file, layers, {.cells = 512});
    std::uint64_t all = 0;
    std::uint64_t first_layer = 0;
    std::uint64_t output = 0;
    for (const auto& tensor : file->tensors()) {
      all += tensor.size;
      if (tensor.name.starts_with("blk.0.")) first_layer += tensor.size;
      if (tensor.name == "output.weight" || tensor.name == "output_norm.weight") {
        output += tensor.size;
      }
    }
    EXPECT_EQ(need.total_weights(), all);
    EXPECT_GT(first_layer, 0U);
    EXPECT_EQ(need.weights.at(0), first_layer);
    EXPECT_EQ(need.output_weights, output);
    EXPECT_EQ(output == 0, name == "bert");
    EXPECT_GE(need.table_weights, file->find_tensor("token_embd.weight")->size);
    EXPECT_EQ(need.output_copy, name == "gemma3" ? need.table_weights : 0);
    EXPECT_EQ(need.units(), layers.size() + 1);
    EXPECT_EQ(need.total_cache(), 0U) << "layers without heads keep nothing";
  }
}

TEST(Demand, WindowsAndLatentKeysCostLess) {
  const kvcache::CacheOptions options{.cells = 65536, .parallel = 2, .max_batch = 512};
  const std::vector<kvcache::LayerSpec> layers{
      {.head_dim_k = 64, .head_dim_v = 64, .kv_heads = 2},
      {.head_dim_k = 64, .head_dim_v = 64, .kv_heads = 2, .window = 1024},
      {.head_dim_k = 64, .head_dim_v = 32, .kv_heads = 2, .values_in_keys = true}};
  const Demand need = demand(stories(), layers, options);
  EXPECT_EQ(need.cache[0], 65536U * 2 * 64 * 2 * 2);
  EXPECT_EQ(need.cache[1], (1024U + 512) * 2 * 2 * 64 * 2 * 2);
  EXPECT_EQ(need.cache[2], need.cache[0] / 2);
}

// A state is as large for a long text as for a short one, and each sequence has its own.
TEST(Demand, RecurrentLayersKeepTheirState) {
  const std::vector<kvcache::LayerSpec> layers{
      {.head_dim_k = 64, .head_dim_v = 64, .kv_heads = 2}, {.state = 524'288}, {.state = 524'288}};
  for (const std::uint32_t cells : {512U, 65536U}) {
    const Demand need = demand(stories(), layers, {.cells = cells, .parallel = 4});
    EXPECT_EQ(need.cache[0], std::uint64_t{cells} * 2 * 64 * 2 * 2);
    EXPECT_EQ(need.cache[1], 524'288U * 4 * 4);
    EXPECT_EQ(need.cache[2], need.cache[1]);
  }
}

TEST(Demand, CellsArePadded) {
  kvcache::CacheOptions options{.cells = 1000, .max_batch = 512};
  const std::vector<kvcache::LayerSpec> layers{{.head_dim_k = 64, .head_dim_v = 64, .kv_heads = 1}};
  EXPECT_EQ(demand(stories(), layers, options).cache[0], 1024U * 64 * 2 * 2);
  options.k_type = options.v_type = kQ8_0;  // 34 bytes hold 32 values
  EXPECT_EQ(demand(stories(), layers, options).cache[0], 1024U * 68 * 2);
  options.config.cache_padding = 0;
  EXPECT_EQ(demand(stories(), layers, options).cache[0], 1000U * 68 * 2);
}

// ---- Plans for real shapes on made-up devices

struct Row {
  std::string_view model;
  std::string_view machine;
  Setting setting;
  std::string_view expected;
};

// Each can be checked by hand: a GPU has its memory less 457 MiB and the graph; the output goes
// there first, then layers from the last back. In MiB, with an f16 cache of 16384 positions (the
// graph of a part is the one where not everything fits beside the other; with 32768 positions both
// are a seventh of the way to what they are with 131072, which is the second number):
//                   whole      part       output    layer  cache
//   llama-1b          79  191    95  399   205.5     35.2   32     16 layers
//   llama-8b         129  241   142  674   411      126.1   64     32
//   llama-70b        219  349   289  725   822      494.7   64     80
//   qwen3-30b-a3b     94  206   267  475   243.4    360.1   32     48
//   gemma3-27b       166  278   221 1187  1102.5    238.7   12     62, every sixth with 128
//   gpt-oss-20b       97  209   226  413   586.8    475.7    1.25  24, every other with 32
//   deepseek2-lite    89  201   274  517   164.1    338.1   18     27, the first 46.8 and 18
TEST(Plan, PlacesRealShapes) {
  const std::vector<Row> rows{
      {"llama-1b", "no GPU", {}, "CPU 16+output"},
      {"llama-1b", "8 GiB", {}, "GPU0 16+output, CPU 0"},
      {"llama-8b", "8 GiB", {}, "GPU0 32+output, CPU 0"},
      // (8192 - 457 - 218 - 411) / (126.1 + 128) = 27.97
      {"llama-8b", "8 GiB", {.context = 32768}, "GPU0 27+output, CPU 5"},
      {"llama-8b", "8 GiB", {.parallel = 2}, "GPU0 27+output, CPU 5"},
      // (8192 - 457 - 145 - 411) / (126.1 + 68) = 37.0
      {"llama-8b", "8 GiB", {.context = 32768, .kv_type = kQ8_0}, "GPU0 32+output, CPU 0"},
      // 6650 / (126.1 + 512) = 10.4, 6650 / (126.1 + 144) = 24.6
      {"llama-8b", "8 GiB", {.context = 131072}, "GPU0 10+output, CPU 22"},
      {"llama-8b", "8 GiB", {.context = 131072, .kv_type = kQ4_0}, "GPU0 24+output, CPU 8"},
      // 7562 / 254.1 = 29.8, 6082 / 254.1 = 23.9
      {"llama-8b",
       "8 GiB",
       {.context = 32768, .limits = {.min_free = kMiB}},
       "GPU0 29+output, CPU 3"},
      {"llama-8b",
       "8 GiB",
       {.context = 32768, .limits = {.overhead = 1024 * kMiB}},
       "GPU0 23+output, CPU 9"},
      {"llama-8b", "8 GiB", {.limits = {.gpu_layers = 0}}, "CPU 32+output"},
      {"llama-8b", "8 GiB", {.limits = {.gpu_layers = 1}}, "GPU0 0+output, CPU 32"},
      {"llama-8b", "8 GiB", {.limits = {.gpu_layers = 10}}, "GPU0 9+output, CPU 23"},
      {"llama-8b", "8 GiB", {.limits = {.gpu_layers = 1000}}, "GPU0 32+output, CPU 0"},
      {"llama-8b",
       "8 GiB",
       {.limits = {.withheld = {{"GPU0", 3 * kGiB}}}},  // (8192 - 457 - 3072 - 142 - 411) / 190.1
       "GPU0 21+output, CPU 11"},
      // One GPU is enough: the one with the most room, or the one that is asked for.
      {"llama-8b", "2x24", {}, "GPU0 32+output, CPU 0"},
      {"llama-8b", "2x24", {.limits = {.main_gpu = 1}}, "GPU1 32+output, CPU 0"},
      {"llama-8b", "2x24", {.limits = {.spread = true}}, "GPU0 15+output, GPU1 17, CPU 0"},
      {"llama-8b", "mixed", {}, "GPU1 32+output, CPU 0"},
      {"llama-8b", "mixed", {.limits = {.main_gpu = 0}}, "GPU0 32+output, CPU 0"},
      {"llama-8b", "mixed", {.limits = {.main_gpu = 2}}, "GPU2 32+output, CPU 0"},
      // (24576 - 457 - 289 - 822) / 558.7 = 41.2; on two evenly: (822 + 80 * 558.7) / 2 = 22759
      {"llama-70b", "24 GiB", {}, "GPU0 41+output, CPU 39"},
      {"llama-70b", "2x24", {}, "GPU0 39+output, GPU1 41, CPU 0"},
      {"llama-70b", "80 GiB", {}, "GPU0 80+output, CPU 0"},
      {"llama-70b", "80 GiB", {.context = 131072}, "GPU0 79+output, CPU 1"},
      {"qwen3-30b-a3b", "8 GiB", {}, "GPU0 18+output, CPU 30"},
      {"qwen3-30b-a3b", "12 GiB", {}, "GPU0 28+output, CPU 20"},
      {"qwen3-30b-a3b", "24 GiB", {}, "GPU0 48+output, CPU 0"},
      {"gemma3-27b", "8 GiB", {}, "GPU0 23+output, CPU 39"},
      {"gemma3-27b", "12 GiB", {}, "GPU0 38+output, CPU 24"},
      {"gemma3-27b", "24 GiB", {}, "GPU0 62+output, CPU 0"},
      {"gpt-oss-20b", "8 GiB", {}, "GPU0 14+output, CPU 10"},
      {"gpt-oss-20b", "12 GiB", {}, "GPU0 22+output, CPU 2"},
      {"deepseek2-lite", "8 GiB", {}, "GPU0 20+output, CPU 7"},
      {"deepseek2-lite", "12 GiB", {}, "GPU0 27+output, CPU 0"}};
  for (const Row& row : rows) {
    const Result<Plan> result =
        settle(shape_named(row.model), row.setting, machine_named(row.machine));
    EXPECT_EQ(describe(result), row.expected)
        << row.model << " on " << row.machine << ", context " << row.setting.context;
  }
}

struct Variable {
  std::string_view name;
  std::vector<std::int64_t> values;
  void (*set)(Setting&, std::int64_t);
  bool costs_more = true;  // each value at least as much as the one before: never more is placed
};

TEST(Plan, HoldsUnderEveryVariable) {
  constexpr auto kM = static_cast<std::int64_t>(kMiB);
  const std::vector<Variable> variables{
      {"min_free",
       {0, kM, 457 * kM, 1024 * kM, 9000 * kM, 100'000 * kM},
       [](Setting& s, std::int64_t v) { s.limits.min_free = static_cast<std::uint64_t>(v); }},
      {"overhead",
       {0, 256 * kM, 4096 * kM, 100'000 * kM},
       [](Setting& s, std::int64_t v) { s.limits.overhead = static_cast<std::uint64_t>(v); }},
      {"withheld of GPU0",
       {0, 512 * kM, 4096 * kM, 100'000 * kM},
       [](Setting& s, std::int64_t v) {
         s.limits.withheld["GPU0"] = static_cast<std::uint64_t>(v);
       }},
      {"context",
       {512, 2048, 8192, 16384, 32768, 65536, 131072},
       [](Setting& s, std::int64_t v) { s.context = static_cast<std::uint32_t>(v); }},
      {"parallel",
       {1, 2, 3, 4, 8, 16},
       [](Setting& s, std::int64_t v) { s.parallel = static_cast<std::uint32_t>(v); }},
      {"kv type",
       {static_cast<int>(kQ4_0), static_cast<int>(kQ8_0), static_cast<int>(kF16)},
       [](Setting& s, std::int64_t v) { s.kv_type = static_cast<ml::DType>(v); }},
      {"num_gpu",
       {-1, 0, 1, 2, 9, 30, 1000, INT32_MAX},
       [](Setting& s, std::int64_t v) { s.limits.gpu_layers = static_cast<std::int32_t>(v); },
       false},
      {"main_gpu",
       {-1, 0, 1, 2},
       [](Setting& s, std::int64_t v) { s.limits.main_gpu = static_cast<std::int32_t>(v); },
       false}};
  for (const Shape& shape : real_shapes()) {
    for (const Machine& machine : machines()) {
      const auto gpus = static_cast<std::int64_t>(machine.devices.size()) - 1;
      for (const Variable& variable : variables) {
        for (const bool spread : {false, true}) {
          std::uint32_t before = std::numeric_limits<std::uint32_t>::max();
          for (const std::int64_t value : variable.values) {
            SCOPED_TRACE(std::format("{} on {}, {} = {}, spread = {}", shape.name, machine.name,
                                     variable.name, value, spread));
            Setting setting{.limits = {.spread = spread}};
            variable.set(setting, value);
            const Demand need = demand_of(shape, setting);
            const auto result = plan(need, machine.devices, setting.limits);
            if (variable.name == "main_gpu" && gpus > 0 && value >= gpus) {
              ASSERT_FALSE(result);
              EXPECT_EQ(result.error().code(), ErrorCode::kInvalidArgument);
              continue;
            }
            ASSERT_EQ(flaw(result, need, machine.devices, setting.limits), "");
            if (!variable.costs_more) continue;
            EXPECT_LE(result->placed, before) << "more is placed than with less";
            before = result->placed;
          }
        }
      }
    }
  }
}

// ---- What holds of any model on any devices

// Room is counted in steps of a MiB, so that parts often fit exactly.
std::uint64_t mib(int from, int to) {
  return static_cast<std::uint64_t>(*rc::gen::inRange(from, to + 1)) * kMiB;
}

struct Case {
  Demand need;
  Devices devices;
  Limits limits;
};

Case any_case(std::size_t most_gpus) {
  Case any;
  const auto layers = *rc::gen::inRange<std::size_t>(1, 15);
  for (std::size_t i = 0; i < layers; ++i) {
    any.need.weights.push_back(mib(1, 40));
    any.need.cache.push_back(mib(0, 20));
  }
  any.need.output_weights = mib(1, 60);
  any.need.table_weights = mib(0, 60);
  any.need.output_copy = *rc::gen::element(std::uint64_t{0}, any.need.table_weights);
  const auto gpus = *rc::gen::inRange<std::size_t>(0, most_gpus + 1);
  for (std::size_t i = 0; i < gpus; ++i) {
    Device& device = any.devices.emplace_back(gpu(i, mib(0, 500)));
    device.kind = *rc::gen::element(DeviceKind::kGpu, DeviceKind::kIntegratedGpu);
    device.library = *rc::gen::element<std::string>("cuda", "rpc");
    any.need.graph[device.name] = mib(0, 30);
    any.limits.withheld[device.name] = mib(0, 20);
  }
  any.devices.push_back(cpu(kGiB));
  any.limits.min_free = mib(0, 50);
  any.limits.overhead = mib(0, 20);
  any.limits.spread = *rc::gen::arbitrary<bool>();
  any.limits.main_gpu = *rc::gen::inRange(-1, std::max(static_cast<int>(gpus), 1));
  return any;
}

Result<Plan> plan(const Case& any) { return plan(any.need, any.devices, any.limits); }

TEST(Plan, NeverGoesOverBudgetNorLeavesOutWhatFits) {
  EXPECT_TRUE(rc::check("any limits", [] {
    Case any = any_case(6);
    any.limits.gpu_layers = *rc::gen::inRange(-1, 18);
    RC_ASSERT(flaw(plan(any), any.need, any.devices, any.limits) == "");
  }));
}

TEST(Plan, MoreMemoryNeverPlacesLess) {
  EXPECT_TRUE(rc::check("more free, or less to be kept free", [] {
    Case any = any_case(6);
    const std::uint32_t before = plan(any)->placed;
    switch (*rc::gen::inRange(0, 4)) {
      case 0:
        if (any.devices.size() > 1) {
          any.devices[*rc::gen::inRange<std::size_t>(0, any.devices.size() - 1)].free_bytes +=
              mib(1, 300);
        }
        break;
      case 1:
        any.limits.min_free -= std::min(any.limits.min_free, mib(1, 50));
        break;
      case 2:
        any.limits.overhead = 0;
        break;
      default:
        any.limits.withheld.clear();
    }
    RC_ASSERT(plan(any)->placed >= before);
  }));
}

TEST(Plan, PlacesExactlyWhatIsDemandedOrSaysWhatFits) {
  EXPECT_TRUE(rc::check("num_gpu", [] {
    Case any = any_case(6);
    const std::uint32_t most = plan(any)->placed;
    any.limits.gpu_layers = *rc::gen::inRange(0, 18);
    const auto wanted = static_cast<std::uint32_t>(wanted_units(any.need, any.limits));
    const Result<Plan> result = plan(any);
    if (wanted <= most) {
      RC_ASSERT(result.has_value());
      RC_ASSERT(result->placed == wanted);
      return;
    }
    RC_ASSERT(!result.has_value());
    RC_ASSERT(result.error().code() == ErrorCode::kOutOfMemory);
    if (any.devices.size() == 1) return;
    const std::string advice = std::format("{} layers fit: use num_gpu {}, or -1", most, most);
    RC_ASSERT(result.error().message().ends_with(advice));
  }));
}

// The one that was asked for, else of those that are large enough the nearest, of its own memory,
// with the most room.
TEST(Plan, UsesOneGpuWhereOneIsEnough) {
  EXPECT_TRUE(rc::check("one GPU", [] {
    Case any = any_case(6);
    any.limits.spread = false;
    any.limits.gpu_layers = *rc::gen::inRange(-1, 18);
    const std::size_t wanted = wanted_units(any.need, any.limits);
    const std::vector<std::uint64_t> rooms = rooms_of(any.need, any.devices, any.limits);
    using Rank = std::tuple<bool, bool, bool, std::uint64_t>;
    std::vector<std::pair<Rank, std::string>> enough;
    for (std::size_t i = 0; i < rooms.size(); ++i) {
      if (with_one_more(any.need, 0, wanted, rooms[i]) < wanted) continue;
      const Device& device = any.devices[i];
      const Rank rank(std::cmp_equal(i, any.limits.main_gpu), !device.is_remote(),
                      device.kind == DeviceKind::kGpu, rooms[i]);
      enough.emplace_back(rank, device.name);
    }
    if (wanted == 0 || enough.empty()) return;
    const auto first = std::ranges::max_element(enough, {}, &decltype(enough)::value_type::first);
    RC_ASSERT(plan(any)->gpus() == std::vector{first->second});
  }));
}

// Parts are whole layers, so that not every GPU need have one: what holds is that the fullest GPU
// could not be any emptier (to 1/256 of its room).
TEST(Plan, SpreadsEvenly) {
  EXPECT_TRUE(rc::check("no fewer GPUs than without", [] {
    Case any = any_case(5);
    any.limits.spread = false;
    const Result<Plan> alone = plan(any);
    any.limits.spread = true;
    const Result<Plan> spread = plan(any);
    RC_ASSERT(spread->placed == alone->placed);
    RC_ASSERT(spread->gpus().size() >= alone->gpus().size());
  }));
  EXPECT_TRUE(rc::check("equal layers on equal GPUs", [] {
    const auto gpus = *rc::gen::inRange<std::size_t>(1, 7);
    const auto units = *rc::gen::inRange<std::size_t>(gpus, 100);
    const std::uint64_t room = *rc::gen::inRange<std::uint64_t>(units, 2 * units) * kMiB;
    const Demand need{.weights = std::vector(units - 1, kMiB),
                      .cache = std::vector(units - 1, std::uint64_t{0}),
                      .output_weights = kMiB};
    Devices devices;
    for (std::size_t i = 0; i < gpus; ++i) devices.push_back(gpu(i, room));
    devices.push_back(cpu(kGiB));
    const Result<Plan> result = plan(need, devices, {.spread = true, .min_free = 0});
    RC_ASSERT(result->gpus().size() == gpus);
    for (std::size_t i = 0; i < gpus; ++i) {
      RC_ASSERT(result->shares[i].weights / kMiB <= (units + gpus - 1) / gpus);
    }
  }));
}

TEST(Demand, NeverFallsWithMoreParallelSequences) {
  EXPECT_TRUE(rc::check("parallel", [] {
    std::vector<kvcache::LayerSpec> layers;
    const auto count = *rc::gen::inRange<std::size_t>(1, 8);
    for (std::size_t i = 0; i < count; ++i) {
      layers.push_back({.head_dim_k = *rc::gen::element(64, 128, 576),
                        .head_dim_v = *rc::gen::element(64, 128, 512),
                        .kv_heads = *rc::gen::inRange(0, 9),
                        .window = *rc::gen::element(0, 1, 128, 1024, 100'000),
                        .values_in_keys = *rc::gen::arbitrary<bool>(),
                        .state = *rc::gen::element<std::int64_t>(0, 0, 65536)});
    }
    const auto context = *rc::gen::inRange<std::uint32_t>(1, 200'000);
    const auto batch = *rc::gen::inRange<std::uint32_t>(1, 4096);
    const ml::DType type = *rc::gen::element(kF16, kQ8_0, kQ4_0);
    std::vector<std::uint64_t> before(count, 0);
    for (std::uint32_t parallel = 1; parallel <= 64; parallel *= 2) {
      const Demand need = demand(stories(), layers,
                                 {.cells = context * parallel,
                                  .parallel = parallel,
                                  .max_batch = batch,
                                  .k_type = type,
                                  .v_type = type,
                                  .config = {}});
      for (std::size_t i = 0; i < count; ++i) RC_ASSERT(need.cache[i] >= before[i]);
      before = need.cache;
    }
  }));
}

// ---- Errors, reasons, withheld memory

void expect_error(const Result<Plan>& result, ErrorCode code, std::string_view message) {
  ASSERT_FALSE(result) << "expected: " << message << "\nplanned: " << describe(result);
  EXPECT_EQ(result.error().code(), code) << message;
  EXPECT_EQ(result.error().message(), message);
}

TEST(Plan, SaysWhatIsMissingForTheLayersThatAreDemanded) {
  const Demand need = demand_of(shape_named("llama-8b"), {.context = 32768});
  // 411 + 32 * 254.1 MiB, where 8192 - 457 - 218 are.
  expect_error(plan(need, machine_named("8 GiB"), {.gpu_layers = 33}), ErrorCode::kOutOfMemory,
               "num_gpu 33: 8.3 GiB of GPU memory are needed for these layers and 218.0 MiB for "
               "graphs; at least 1.0 GiB more than is free. 28 layers fit: use num_gpu 28, or -1");
  EXPECT_EQ(describe(plan(need, machine_named("8 GiB"), {.gpu_layers = 28})),
            "GPU0 27+output, CPU 5");
  expect_error(plan(need, machine_named("no GPU"), {.gpu_layers = 1}), ErrorCode::kOutOfMemory,
               "num_gpu 1 asks for layers on a GPU, and there is none: use num_gpu 0 or -1");
}

TEST(Plan, RefusesNumbersThatMeanNothing) {
  const Demand need = demand_of(shape_named("llama-1b"), {});
  expect_error(plan(need, machine_named("8 GiB"), {.gpu_layers = -2}), ErrorCode::kInvalidArgument,
               "num_gpu -2 is no number of layers: use -1 for as many as fit");
  expect_error(plan(need, machine_named("8 GiB"), {.main_gpu = 1}), ErrorCode::kInvalidArgument,
               "main_gpu 1 is not there: this machine has 1 GPU");
  expect_error(plan(need, machine_named("2x24"), {.main_gpu = 2}), ErrorCode::kInvalidArgument,
               "main_gpu 2 is not there: this machine has 2 GPUs");
  EXPECT_TRUE(plan(need, machine_named("no GPU"), {.main_gpu = 0})) << "the first of none";
  EXPECT_EQ(plan(need, Devices{gpu(0, kGiB)}, {}).error().code(), ErrorCode::kUnsupported);
}

TEST(Plan, RefusesWeightsThatTheMachineDoesNotHold) {
  const Demand need{.weights = {100, 200}, .cache = {1000, 1000}, .output_weights = 50};
  const auto with = [](std::uint64_t total) { return Devices{cpu(total)}; };
  EXPECT_EQ(describe(plan(need, with(350), {})), "CPU 2+output") << "the cache is not counted";
  EXPECT_EQ(describe(plan(need, with(0), {})), "CPU 2+output") << "unknown";
  expect_error(plan(need, with(349), {}), ErrorCode::kOutOfMemory,
               "model requires more system memory (350 B) than is available (349 B)");

  const Demand large = demand_of(shape_named("llama-70b"), {});
  Devices devices{cpu(32 * kGiB)};
  expect_error(plan(large, devices, {}), ErrorCode::kOutOfMemory,
               "model requires more system memory (40.0 GiB) than is available (32.0 GiB)");
  devices.insert(devices.begin(), gpu(0, 24 * kGiB));
  EXPECT_EQ(describe(plan(large, devices, {})), "GPU0 41+output, CPU 39");
}

TEST(Plan, TakesAllOrNothingBesideOthers) {
  Setting setting{.context = 32768, .limits = {.whole = true}};
  const Demand need = demand_of(shape_named("llama-8b"), setting);
  expect_error(plan(need, machine_named("8 GiB"), setting.limits), ErrorCode::kNoRoom,
               "28 of 33 layers fit beside the models that are loaded");
  EXPECT_EQ(describe(plan(need, machine_named("12 GiB"), setting.limits)), "GPU0 32+output, CPU 0");
  Devices devices = machine({});
  EXPECT_EQ(describe(plan(need, devices, setting.limits)), "CPU 32+output");
  devices[0].free_bytes = 6 * kGiB;  // for the weights alone: here the cache counts
  expect_error(plan(need, devices, setting.limits), ErrorCode::kNoRoom,
               "the model needs 8.7 GiB of system memory beside those that are loaded, and 6.0 GiB "
               "is free");
  setting.limits.whole = false;
  EXPECT_TRUE(plan(need, devices, setting.limits)) << "what is used can be paged out";
}

TEST(Plan, LeavesWithheldMemoryAlone) {
  Setting setting{.context = 32768};
  const Demand need = demand_of(shape_named("llama-8b"), setting);
  std::string expected = "GPU0 27+output, CPU 5";
  // 3.9 layers of 254.1 MiB for each GiB: (7106 - 1024 * i) / 254.1.
  for (const char* next : {"GPU0 23+output, CPU 9", "GPU0 19+output, CPU 13",
                           "GPU0 15+output, CPU 17", "GPU0 11+output, CPU 21",
                           "GPU0 7+output, CPU 25", "GPU0 3+output, CPU 29", "CPU 32+output"}) {
    EXPECT_EQ(describe(plan(need, machine_named("8 GiB"), setting.limits)), expected);
    setting.limits.withheld["GPU0"] += kGiB;
    expected = next;
  }
  EXPECT_EQ(describe(plan(need, machine_named("8 GiB"), setting.limits)), expected);
  setting.limits.withheld["GPU0"] = 1000 * kGiB;
  EXPECT_EQ(describe(plan(need, machine_named("8 GiB"), setting.limits)), expected);
  EXPECT_EQ(describe(plan(need, machine_named("2x24"), setting.limits)), "GPU1 32+output, CPU 0")
      << "the other GPU is as it was";
}

TEST(Plan, LeavesOutWhatIsUnfit) {
  const Demand need = demand_of(shape_named("llama-8b"), {});
  Limits limits{.unfit = {{"GPU0", "it is of another kind"}}};
  const auto other = plan(need, machine_named("2x24"), limits);
  EXPECT_EQ(describe(other), "GPU1 32+output, CPU 0");
  EXPECT_EQ(other->unused.at(0).reason, "it is of another kind");
  limits.main_gpu = 0;
  EXPECT_EQ(describe(plan(need, machine_named("2x24"), limits)), "GPU1 32+output, CPU 0");
  EXPECT_EQ(describe(plan(need, machine_named("8 GiB"), limits)), "CPU 32+output");
  limits.gpu_layers = 3;
  EXPECT_FALSE(plan(need, machine_named("8 GiB"), limits)) << "these are demanded";
}

TEST(Plan, SaysWhyADeviceHasNoMore) {
  const Demand small = demand_of(shape_named("llama-8b"), {});
  const Demand large = demand_of(shape_named("llama-8b"), {.context = 32768});
  const auto planned = [](const Demand& need, std::string_view machine, const Limits& limits) {
    return *plan(need, machine_named(machine), limits);
  };
  EXPECT_EQ(planned(small, "no GPU", {}).cpu().reason, "there is no GPU");
  const Plan one = planned(small, "2x24", {});
  EXPECT_EQ(one.shares[0].reason, "everything is placed");
  EXPECT_EQ(one.unused.at(0).reason, "not needed");
  EXPECT_EQ(one.cpu().reason, "input tables alone");
  const Plan part = planned(large, "8 GiB", {});
  EXPECT_EQ(part.shares[0].reason, "the next layer needs 254.1 MiB, and 245.3 MiB is left");
  EXPECT_EQ(part.cpu().reason, "what is on no GPU");
  EXPECT_EQ(planned(small, "8 GiB", {.gpu_layers = 0}).unused.at(0).reason, "num_gpu is 0");
  EXPECT_EQ(planned(small, "8 GiB", {.gpu_layers = 5}).shares[0].reason, "num_gpu is 5");
  EXPECT_EQ(part.shares[0].kept_free, 457 * kMiB);
  EXPECT_EQ(part.shares[0].budget(), (8192 - 457) * kMiB);
}

// ---- What another setting gains

std::optional<std::string> gain_of(const Shape& shape, const Devices& devices,
                                   const Setting& setting, const Setting& other) {
  const Demand need = demand_of(shape, setting);
  const Demand other_need = demand_of(shape, other);
  return gain(*plan(need, devices, setting.limits), need, plan(other_need, devices, other.limits),
              other_need);
}

TEST(Gain, KeepingLessFreePlacesWhatTheDefaultLeavesOut) {
  struct Pair {
    std::string_view model;
    std::string_view machine;
    std::uint32_t context;
    std::string_view expected;  // "": nothing
  };
  const std::vector<Pair> pairs{
      // 456 MiB more: 1.8 of llama-8b's layers.
      {"llama-8b", "8 GiB", 32768, "would place 2 more layers on GPUs (30 of 33)"},
      {"llama-8b", "8 GiB", 16384, ""},
      {"llama-70b", "12 GiB", 16384, "would place 1 more layer on GPUs (21 of 81)"},
      {"llama-70b", "80 GiB", 131072, ""},  // a layer takes 1006.7 MiB, 386.7 + 456 are there
      {"llama-70b", "no GPU", 131072, ""},
      {"qwen3-30b-a3b", "8 GiB", 16384, "would place 1 more layer on GPUs (20 of 49)"},
      {"gemma3-27b", "12 GiB", 32768, "would place 2 more layers on GPUs (38 of 63)"},
      {"gpt-oss-20b", "12 GiB", 16384, "would place 1 more layer on GPUs (24 of 25)"},
      {"deepseek2-lite", "8 GiB", 16384, "would place 1 more layer on GPUs (22 of 28)"}};
  for (const Pair& pair : pairs) {
    const Setting setting{.context = pair.context};
    Setting other = setting;
    other.limits.min_free = 1048576;
    const Shape& shape = shape_named(pair.model);
    const Devices& devices = machine_named(pair.machine);
    EXPECT_EQ(gain_of(shape, devices, setting, other).value_or(""), pair.expected)
        << pair.model << " on " << pair.machine << ", context " << pair.context;
  }
}

TEST(Gain, ASmallerCacheGainsLayersOrMemory) {
  const Shape& shape = shape_named("llama-8b");
  const Devices& devices = machine_named("8 GiB");
  const Setting f16{.context = 32768};
  const Setting q8{.context = 32768, .kv_type = kQ8_0};
  EXPECT_EQ(gain_of(shape, devices, f16, q8), "would place 5 more layers on GPUs (33 of 33)");
  // 32 layers of 64 MiB, of which 30 of 64 bytes go.
  EXPECT_EQ(gain_of(shape, devices, {}, {.kv_type = kQ8_0}),
            "would take 960.0 MiB less for the cache");
  EXPECT_EQ(gain_of(shape, machine_named("no GPU"), f16, q8),
            "would take 1.9 GiB less for the cache");
  EXPECT_EQ(gain_of(shape, devices, q8, f16), std::nullopt) << "a larger cache";
  EXPECT_EQ(gain_of(shape, devices, f16, f16), std::nullopt) << "the same";
  EXPECT_EQ(gain_of(shape, devices, f16, {.kv_type = kQ8_0, .limits = {.gpu_layers = -2}}),
            std::nullopt)
      << "what cannot be planned gains nothing";
}

// ---- What once went wrong

// Not the whole next layer is missing where part of its room is there.
TEST(Plan, SaysNoMoreIsMissingThanIs) {
  const Demand need{.weights = {100, 100}, .cache = {0, 0}, .output_weights = 100};
  const auto result = plan(need, Devices{gpu(0, 290), cpu(1000)}, {.gpu_layers = 3, .min_free = 0});
  ASSERT_FALSE(result);
  EXPECT_TRUE(result.error().message().contains("at least 10 B more")) << result.error().message();
}

// A BERT's output takes nothing, and "fits" where no room is: its graph does not.
TEST(Plan, AFullGpuGetsNothingThoughItTakesNothing) {
  const Demand need{
      .weights = {7 * kMiB, 7 * kMiB}, .cache = {0, 0}, .graph = {{"GPU0", 50 * kMiB}}};
  const Result<Plan> result = plan(need, Devices{gpu(0, 100 * kMiB), cpu(kGiB)}, {});
  EXPECT_EQ(describe(result), "CPU 2+output");
}

// What is to be kept free may be more than 64 bits hold.
TEST(Plan, AllMemoryCanBeKeptFree) {
  const Demand need = demand_of(shape_named("llama-1b"), {});
  const Limits limits{.overhead = std::numeric_limits<std::uint64_t>::max()};
  EXPECT_EQ(describe(plan(need, machine_named("8 GiB"), limits)), "CPU 16+output");
}

// The layers that are demanded would fit if the others went: that is kNoRoom, not kOutOfMemory.
TEST(Plan, DemandedLayersThatFitWithoutOthersHaveNoRoom) {
  const Demand need = demand_of(shape_named("llama-8b"), {});
  Devices devices = machine({8});
  devices[0].free_bytes = 4 * kGiB;
  const auto result = plan(need, devices, {.gpu_layers = 33, .whole = true});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kNoRoom) << result.error().message();
}

// In another order of GPUs more may fit.
TEST(Plan, SpreadingPlacesNoLess) {
  const Demand need = demand_of(shape_named("llama-70b"), {.context = 131072});
  const auto alone = plan(need, machine_named("mixed"), {.min_free = kMiB});
  const auto spread = plan(need, machine_named("mixed"), {.spread = true, .min_free = kMiB});
  EXPECT_GE(spread->placed, alone->placed) << describe(spread) << " and not " << describe(alone);
}

// Filled to an equal share one after the other, the first of these would have none, as the output
// takes more than its share, and of eight equal ones the last.
TEST(Plan, SpreadingUsesEveryGpu) {
  const Demand need = demand_of(shape_named("llama-1b"), {.context = 2048});
  const auto result = plan(need, machine_named("mixed"), {.spread = true});
  EXPECT_EQ(result->gpus().size(), 3U) << describe(result);

  const Demand equal{.weights = std::vector(32, kMiB),
                     .cache = std::vector(32, std::uint64_t{0}),
                     .output_weights = kMiB};
  Devices eight;
  for (std::size_t i = 0; i < 8; ++i) eight.push_back(gpu(i, 100 * kMiB));
  eight.push_back(cpu(kGiB));
  const auto eighth = plan(equal, eight, {.spread = true, .min_free = 0});
  EXPECT_EQ(eighth->gpus().size(), 8U) << describe(eighth);
}

// What one GPU could not hold another may have taken: the CPU's next layer is no reason.
TEST(Plan, ReasonsAreReasons) {
  const Demand need{
      .weights = {10 * kMiB, 60 * kMiB}, .cache = {0, 0}, .output_weights = 80 * kMiB};
  const Devices devices{gpu(0, 100 * kMiB), gpu(1, 60 * kMiB), cpu(kGiB)};
  const Result<Plan> result = plan(need, devices, {.min_free = 0});
  EXPECT_EQ(describe(result), "GPU0 0+output, GPU1 1, CPU 1");
  EXPECT_NE(result->shares[0].reason, "the next layer needs 10.0 MiB, and 20.0 MiB is left");
}

// With num_gpu 0 no GPU is listed (engine/placing.cpp), whatever main_gpu says.
TEST(Plan, MainGpuDoesNotMatterWithoutLayersOnGpus) {
  const Demand need = demand_of(shape_named("llama-1b"), {});
  EXPECT_TRUE(plan(need, machine_named("no GPU"), {.gpu_layers = 0, .main_gpu = 1}));
}

}  // namespace
}  // namespace ollama::memory

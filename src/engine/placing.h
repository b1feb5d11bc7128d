// Where a model goes: what it needs, as its file says and its graphs are measured, against what the
// devices have.
#pragma once

#include <memory>

#include "engine/engine.h"
#include "gguf/file.h"
#include "memory/plan.h"
#include "model/model.h"

namespace ollama::engine {

// What options ask of a model, within what it can.
struct Sizes {
  std::uint32_t context = 0;  // tokens of a sequence
  std::uint32_t batch = 0;    // tokens of a step
};
Sizes sizes_of(const model::Config& config, const LoadOptions& options);
// The cache of a model; `config` is the backend's to say.
kvcache::CacheOptions cache_options(const Sizes& sizes, const LoadOptions& options);

class Placing {
 public:
  // Errors: kInvalidArgument (parallel), those of reading the file.
  static Result<Placing> begin(std::shared_ptr<const gguf::File> file, const LoadOptions& options);

  // A plan whose graphs have been measured. Errors: those of memory::plan.
  Result<memory::Plan> plan();
  // Memory was missing in spite of that plan, on one device or nobody knows where: the next plan
  // asks for less there, at last for nothing.
  void refused(const memory::Plan& plan, const std::optional<ml::Shortage>& shortage);
  // Says so in the log where a context beyond what models had for long keeps layers off the GPUs.
  void warn_if_crowded(const memory::Plan& plan) const;
  // That plan for people.
  api::MemoryPlan explain(const memory::Plan& plan) const;

 private:
  Placing(std::shared_ptr<const gguf::File> file, const LoadOptions& options);
  memory::Demand demand_with(const LoadOptions& options) const;
  // A plan of so many layers (see memory::Limits) that is made again until its graphs are known.
  Result<memory::Plan> settle(std::int32_t gpu_layers);
  enum class Known : std::uint8_t { kAll, kMore, kUnfit };
  // Whether the graphs of that plan need more than was known, or one of its GPUs cannot serve it.
  Result<Known> measure_graphs(const memory::Plan& plan);

  std::shared_ptr<const gguf::File> file_;
  LoadOptions options_;
  memory::Limits limits_;
  memory::Demand demand_;
  std::vector<ml::Device> devices_;
  std::vector<kvcache::LayerSpec> layers_;
  model::Config config_;
  std::uint32_t cache_padding_ = 1;
  std::uint32_t refusals_ = 0;
};

}  // namespace ollama::engine

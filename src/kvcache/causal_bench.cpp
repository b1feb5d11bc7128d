// The bookkeeping of a KV cache, the old way beside ours. Old: a vector of sequence ids in every
// cell, and a look at all cells for whatever is wanted. Every benchmark has two arguments, cells
// and sequences. items_per_second counts single operations where an iteration does many.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "kvcache/causal.h"
#include "kvcache/cells.h"
#include "kvcache/free_list.h"

namespace {

using ollama::kvcache::Causal;
using ollama::kvcache::Cells;
using ollama::kvcache::FreeList;
using ollama::kvcache::kNoCell;
using ollama::kvcache::LayerSpec;
using ollama::kvcache::Run;

struct OldCells {
  struct Cell {
    std::int32_t position = -1;
    std::vector<int> sequences;
    bool has(int sequence) const {
      return std::ranges::find(sequences, sequence) != sequences.end();
    }
  };
  std::vector<Cell> cells;

  void set(std::uint32_t cell, int sequence) {
    if (!cells[cell].has(sequence)) cells[cell].sequences.push_back(sequence);
  }
  void clear(std::uint32_t cell, int sequence) { std::erase(cells[cell].sequences, sequence); }
  void remove(int sequence, std::int32_t first, std::int32_t end) {
    for (Cell& cell : cells) {
      if (cell.position >= first && cell.position < end) std::erase(cell.sequences, sequence);
    }
  }
  std::uint32_t find_free() const {
    for (std::uint32_t cell = 0; cell < cells.size(); ++cell) {
      if (cells[cell].sequences.empty()) return cell;
    }
    return kNoCell;
  }
  // The smallest run of free cells that holds `count`.
  Run find_best(std::uint32_t count) const {
    Run best;
    for (std::uint32_t cell = 0; cell < cells.size(); ++cell) {
      Run run{cell, 0};
      while (run.end() < cells.size() && cells[run.end()].sequences.empty()) ++run.length;
      if (run.length >= count && (best.length == 0 || run.length < best.length)) best = run;
      cell = run.end();
    }
    return best;
  }
};

// Nine tenths of the cells in use, each sequence with a stretch of its own behind a tenth that all
// share.
struct Filled {
  std::uint32_t size;
  std::uint32_t sequences;
  std::uint32_t shared;
  std::uint32_t each;
  Cells cells;
  FreeList free;
  OldCells old;

  explicit Filled(const benchmark::State& state)
      : size(static_cast<std::uint32_t>(state.range(0))),
        sequences(static_cast<std::uint32_t>(state.range(1))),
        shared(size / 10),
        each(size * 8 / 10 / sequences),
        cells(*Cells::create(size, sequences)),
        free(size) {
    old.cells.resize(size);
    std::vector<Run> runs;
    benchmark::DoNotOptimize(free.allocate(shared + each * sequences, runs));
    for (std::uint32_t cell = 0; cell < runs[0].length; ++cell) {
      const std::uint32_t owner = cell < shared ? 0 : (cell - shared) / each;
      const std::uint32_t position = cell < shared ? cell : shared + (cell - shared) % each;
      cells.occupy(cell, owner, static_cast<std::int32_t>(position));
      old.cells[cell] = {static_cast<std::int32_t>(position), {static_cast<int>(owner)}};
      for (std::uint32_t other = 1; cell < shared && other < sequences; ++other) {
        cells.set(cell, other);
        old.set(cell, static_cast<int>(other));
      }
    }
  }
  std::int32_t end() const { return static_cast<std::int32_t>(shared + each); }
};

std::vector<std::uint32_t> random_cells(std::uint32_t size) {
  std::minstd_rand random(1);
  std::vector<std::uint32_t> cells(4096);
  for (std::uint32_t& cell : cells) cell = static_cast<std::uint32_t>(random() % size);
  return cells;
}

// --- one cell ---

void has_old(benchmark::State& state) {
  const Filled filled(state);
  const auto picks = random_cells(filled.size);
  const int sequence = static_cast<int>(filled.sequences) - 1;
  for (auto _ : state) {
    std::uint32_t count = 0;
    for (const std::uint32_t cell : picks) count += filled.old.cells[cell].has(sequence) ? 1 : 0;
    benchmark::DoNotOptimize(count);
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(picks.size()));
}
void has_new(benchmark::State& state) {
  const Filled filled(state);
  const auto picks = random_cells(filled.size);
  for (auto _ : state) {
    std::uint32_t count = 0;
    for (const std::uint32_t cell : picks) {
      count += filled.cells.has(cell, filled.sequences - 1) ? 1 : 0;
    }
    benchmark::DoNotOptimize(count);
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(picks.size()));
}

// A sequence joins a prefix of 1,024 cells, in the shared part, and leaves them.
constexpr std::uint32_t kJoined = 1024;

void set_clear_old(benchmark::State& state) {
  Filled filled(state);
  const int sequence = static_cast<int>(filled.sequences) - 1;
  for (auto _ : state) {
    for (std::uint32_t cell = 0; cell < kJoined; ++cell) filled.old.clear(cell, sequence);
    for (std::uint32_t cell = 0; cell < kJoined; ++cell) filled.old.set(cell, sequence);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * kJoined * 2);
}
void set_clear_new(benchmark::State& state) {
  Filled filled(state);
  // One more member, so that no cell gets free.
  Cells cells = *Cells::create(filled.size, 64);
  for (std::uint32_t cell = 0; cell < kJoined; ++cell) {
    cells.occupy(cell, 63, static_cast<std::int32_t>(cell));
  }
  for (auto _ : state) {
    for (std::uint32_t cell = 0; cell < kJoined; ++cell) cells.set(cell, 0);
    for (std::uint32_t cell = 0; cell < kJoined; ++cell) cells.clear(cell, 0);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * kJoined * 2);
}
void set_new(benchmark::State& state) {
  Cells cells = *Cells::create(static_cast<std::uint32_t>(state.range(0)), 64);
  FreeList free(cells.size());
  for (std::uint32_t cell = 0; cell < kJoined; ++cell) {
    cells.occupy(cell, 63, static_cast<std::int32_t>(cell));
  }
  for (auto _ : state) {
    for (std::uint32_t cell = 0; cell < kJoined; ++cell) cells.set(cell, 0);
    state.PauseTiming();
    cells.remove_all(0, free);
    state.ResumeTiming();
  }
  state.SetItemsProcessed(state.iterations() * kJoined);
}

// --- one sequence ---

// The cells that a new token of one sequence sees.
void visible_old(benchmark::State& state) {
  const Filled filled(state);
  const int sequence = static_cast<int>(filled.sequences) - 1;
  for (auto _ : state) {
    std::uint64_t sum = 0;
    for (std::uint32_t cell = 0; cell < filled.size; ++cell) {
      if (filled.old.cells[cell].has(sequence)) sum += cell;
    }
    benchmark::DoNotOptimize(sum);
  }
}
void visible_new(benchmark::State& state) {
  const Filled filled(state);
  for (auto _ : state) {
    std::uint64_t sum = 0;
    filled.cells.for_each_cell(filled.sequences - 1, [&](std::uint32_t cell) { sum += cell; });
    benchmark::DoNotOptimize(sum);
  }
}

// The last token is taken back and evaluated again.
void remove_last_old(benchmark::State& state) {
  Filled filled(state);
  const int sequence = static_cast<int>(filled.sequences) - 1;
  const std::uint32_t cell = filled.shared + filled.each * filled.sequences - 1;
  for (auto _ : state) {
    filled.old.remove(sequence, filled.end() - 1, filled.end());
    filled.old.set(cell, sequence);
  }
}
void remove_last_new(benchmark::State& state) {
  Filled filled(state);
  const std::uint32_t sequence = filled.sequences - 1;
  const std::uint32_t last = filled.shared + filled.each * filled.sequences - 1;
  std::vector<Run> runs;
  for (auto _ : state) {
    filled.cells.remove(sequence, filled.end() - 1, filled.end(), filled.free);
    benchmark::DoNotOptimize(filled.free.allocate(1, runs, last - 1));
    filled.cells.occupy(runs[0].start, sequence, filled.end() - 1);
  }
}

// The shared prefix goes to a sequence, and is taken from it again.
void copy_prefix_old(benchmark::State& state) {
  Filled filled(state);
  const int to = static_cast<int>(filled.sequences);
  const auto end = static_cast<std::int32_t>(filled.shared);
  for (auto _ : state) {
    for (std::uint32_t cell = 0; cell < filled.size; ++cell) {
      if (filled.old.cells[cell].position < end && filled.old.cells[cell].has(0)) {
        filled.old.set(cell, to);
      }
    }
    filled.old.remove(to, 0, end);
  }
}
void copy_prefix_new(benchmark::State& state) {
  Filled filled(state);
  const std::uint32_t to = filled.sequences == 1 ? 1 : filled.sequences - 1;
  if (filled.sequences == 1) {
    filled.cells = *Cells::create(filled.size, 2);
    for (std::uint32_t cell = 0; cell < filled.shared + filled.each; ++cell) {
      filled.cells.occupy(cell, 0, static_cast<std::int32_t>(cell));
    }
  } else {
    filled.cells.remove_all(to, filled.free);
  }
  for (auto _ : state) {
    filled.cells.copy_prefix(0, to, static_cast<std::int32_t>(filled.shared));
    filled.cells.remove_all(to, filled.free);
  }
}

// --- free cells ---

// The next token's cell, taken and given back.
void next_cell_old(benchmark::State& state) {
  Filled filled(state);
  for (auto _ : state) {
    const std::uint32_t cell = filled.old.find_free();
    filled.old.set(cell, 0);
    filled.old.clear(cell, 0);
  }
}
void next_cell_new(benchmark::State& state) {
  Filled filled(state);
  const std::uint32_t last = filled.shared + filled.each * filled.sequences - 1;
  std::vector<Run> runs;
  for (auto _ : state) {
    benchmark::DoNotOptimize(filled.free.allocate(1, runs, last));
    filled.free.release(runs[0]);
  }
}

// A block for 64 tokens in a cache that has been in use for long: runs of 1 to 128 cells are free,
// between others that are not. About one run for 130 cells.
std::vector<Run> fragments(std::uint32_t size) {
  std::minstd_rand random(2);
  std::vector<Run> runs;
  for (std::uint32_t at = 0;;) {
    const Run run{at + 1 + static_cast<std::uint32_t>(random() % 128),
                  1 + static_cast<std::uint32_t>(random() % 128)};
    if (run.end() >= size) return runs;
    runs.push_back(run);
    at = run.end();
  }
}
constexpr std::uint32_t kBlock = 64;

void block_old(benchmark::State& state) {
  OldCells old;
  old.cells.resize(static_cast<std::size_t>(state.range(0)));
  for (auto& cell : old.cells) cell.sequences = {0};
  for (const Run& run : fragments(static_cast<std::uint32_t>(state.range(0)))) {
    for (std::uint32_t cell = run.start; cell < run.end(); ++cell)
      old.cells[cell].sequences.clear();
  }
  for (auto _ : state) benchmark::DoNotOptimize(old.find_best(kBlock));
}
// Runs in one vector, sorted by address: what a free list without an index by length would be.
void block_flat(benchmark::State& state) {
  auto runs = fragments(static_cast<std::uint32_t>(state.range(0)));
  for (auto _ : state) {
    std::size_t best = runs.size();
    for (std::size_t i = 0; i < runs.size(); ++i) {
      if (runs[i].length >= kBlock && (best == runs.size() || runs[i].length < runs[best].length)) {
        best = i;
      }
    }
    const Run taken{runs[best].start, kBlock};
    if (runs[best].length == kBlock) {
      runs.erase(runs.begin() + static_cast<std::ptrdiff_t>(best));
    } else {
      runs[best] = {runs[best].start + kBlock, runs[best].length - kBlock};
    }
    benchmark::ClobberMemory();
    const auto next = std::ranges::lower_bound(runs, taken.start, {}, &Run::start);
    if (next != runs.end() && next->start == taken.end()) {
      *next = {taken.start, taken.length + next->length};
    } else {
      runs.insert(next, taken);
    }
  }
}
void block_new(benchmark::State& state) {
  const auto size = static_cast<std::uint32_t>(state.range(0));
  FreeList free(size);
  std::vector<Run> runs;
  benchmark::DoNotOptimize(free.allocate(size, runs));
  for (const Run& run : fragments(size)) free.release(run);
  for (auto _ : state) {
    benchmark::DoNotOptimize(free.allocate(kBlock, runs));
    free.release(runs[0]);
  }
  state.counters["runs"] = free.run_count();
}

// A decoding step of all sequences, each with nine tenths of its share cached: cells found, mask
// written, what goes up collected.
constexpr std::int32_t kStepsBetween = 200;

void decode_step_new(benchmark::State& state) {
  const auto size = static_cast<std::uint32_t>(state.range(0));
  const auto sequences = static_cast<std::uint32_t>(state.range(1));
  const auto backend = ollama::ml::new_backend(ollama::ml::BackendKind::kReference, {}).value();
  const std::vector<LayerSpec> layers{{8, 8, 1}};
  const std::unique_ptr<Causal> cache =
      Causal::create(*backend, layers, 0,
                     {.cells = size,
                      .sequences = sequences,
                      .parallel = sequences,
                      .max_batch = 4096,
                      .k_type = ollama::ml::DType::kF16,
                      .v_type = ollama::ml::DType::kF16,
                      .config = {.mask_dtype = ollama::ml::DType::kF16}},
                     {})
          .value();
  const auto cached = static_cast<std::int32_t>(size / sequences) * 9 / 10 - kStepsBetween;
  std::vector<std::int32_t> positions;
  std::vector<std::uint32_t> owners;
  const auto begin = [&] {
    if (const auto begun = cache->begin({.positions = positions, .sequences = owners}); !begun) {
      state.SkipWithError("the cache is full");
    }
  };
  for (std::uint32_t s = 0; s < sequences; ++s) {
    for (std::int32_t p = 0; p < cached; p += 4096) {
      positions.clear();
      for (std::int32_t i = p; i < std::min(cached, p + 4096); ++i) positions.push_back(i);
      owners.assign(positions.size(), s);
      begin();
    }
  }
  owners.clear();
  for (std::uint32_t s = 0; s < sequences; ++s) owners.push_back(s);
  const std::vector<ollama::kvcache::Inputs> inputs(1);
  std::vector<ollama::ml::Upload> uploads;
  std::int32_t steps = 0;
  for (auto _ : state) {
    if (steps == kStepsBetween) {
      state.PauseTiming();
      for (std::uint32_t s = 0; s < sequences; ++s) {
        cache->remove(s, cached, ollama::kvcache::kNoEnd);
      }
      steps = 0;
      state.ResumeTiming();
    }
    positions.assign(sequences, cached + steps);
    begin();
    uploads.clear();
    cache->collect_uploads(inputs, steps > 0, uploads);
    benchmark::DoNotOptimize(uploads.data());
    ++steps;
  }
}

// Looks at all cells for a free one and for what each token sees, in a mask that is new each time.
void decode_step_old(benchmark::State& state) {
  const auto size = static_cast<std::uint32_t>(state.range(0));
  const auto sequences = static_cast<std::uint32_t>(state.range(1));
  OldCells old;
  old.cells.resize(size);
  const std::uint32_t cached = size / sequences * 9 / 10;
  for (std::uint32_t s = 0; s < sequences; ++s) {
    for (std::uint32_t p = 0; p < cached; ++p) {
      const std::uint32_t cell = s * cached + p;
      old.cells[cell].position = static_cast<std::int32_t>(p);
      old.set(cell, static_cast<int>(s));
    }
  }
  for (auto _ : state) {
    std::vector<std::uint16_t> mask(std::size_t{size} * sequences, 0xFC00);
    for (std::uint32_t s = 0; s < sequences; ++s) {
      benchmark::DoNotOptimize(old.find_free());
      for (std::uint32_t cell = 0; cell < size; ++cell) {
        const OldCells::Cell& held = old.cells[cell];
        if (held.has(static_cast<int>(s)) && held.position <= static_cast<std::int32_t>(cached)) {
          mask[std::size_t{s} * size + cell] = 0;
        }
      }
    }
    benchmark::DoNotOptimize(mask.data());
  }
}

void sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"cells", "sequences"})->ArgsProduct({{16'384, 131'072}, {1, 8, 64}});
}
void cells_only(benchmark::internal::Benchmark* bench) {
  bench->ArgName("cells")->Arg(16'384)->Arg(131'072);
}

BENCHMARK(has_old)->Apply(sizes);
BENCHMARK(has_new)->Apply(sizes);
BENCHMARK(set_clear_old)->Apply(sizes);
BENCHMARK(set_clear_new)->Apply(sizes);
BENCHMARK(set_new)->Apply(cells_only);
BENCHMARK(visible_old)->Apply(sizes);
BENCHMARK(visible_new)->Apply(sizes);
BENCHMARK(remove_last_old)->Apply(sizes);
BENCHMARK(remove_last_new)->Apply(sizes);
BENCHMARK(copy_prefix_old)->Apply(sizes);
BENCHMARK(copy_prefix_new)->Apply(sizes);
BENCHMARK(next_cell_old)->Apply(sizes);
BENCHMARK(next_cell_new)->Apply(sizes);
BENCHMARK(block_old)->Apply(cells_only);
BENCHMARK(block_flat)->Apply(cells_only);
BENCHMARK(block_new)->Apply(cells_only);
BENCHMARK(decode_step_old)->Apply(sizes);
BENCHMARK(decode_step_new)->Apply(sizes);

}  // namespace

BENCHMARK_MAIN();

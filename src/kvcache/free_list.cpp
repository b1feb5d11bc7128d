#include "kvcache/free_list.h"

#include <bit>
#include <boost/intrusive/set.hpp>
#include <cassert>

namespace ollama::kvcache {

namespace intrusive = boost::intrusive;

// Free runs never touch, so that their starts differ by two at least: start / 2 names a run, and so
// does last / 2. That makes a table of runs for half the cells enough.
struct FreeList::State {
  struct Node : intrusive::set_base_hook<intrusive::optimize_size<true>,
                                         intrusive::link_mode<intrusive::normal_link>> {
    Run run;
    bool operator<(const Node& other) const {
      if (run.length != other.run.length) return run.length < other.run.length;
      return run.start < other.run.start;
    }
  };

  std::uint32_t size;
  std::uint32_t free_cells = 0;
  std::vector<Node> nodes;              // by start / 2
  std::vector<std::uint32_t> start_of;  // by last / 2: the run's start
  std::vector<std::uint64_t> free;      // bits by cell
  intrusive::set<Node> by_length;       // then by address

  explicit State(std::uint32_t cells)
      : size(cells), nodes(cells / 2 + 1), start_of(cells / 2 + 1), free(cells / 64 + 1) {}

  bool is_free(std::uint32_t cell) const {
    return cell < size && (free[cell / 64] >> (cell % 64) & 1U) != 0;
  }

  void mark(Run run, bool value) {
    for (std::uint32_t cell = run.start; cell < run.end();) {
      const std::uint32_t bits = std::min(64 - cell % 64, run.end() - cell);
      const std::uint64_t mask = (~std::uint64_t{0} >> (64 - bits)) << (cell % 64);
      free[cell / 64] = value ? free[cell / 64] | mask : free[cell / 64] & ~mask;
      cell += bits;
    }
  }

  // A run enters or leaves the tables; the bits are not touched.
  void insert(Run run) {
    Node& node = nodes[run.start / 2];
    node.run = run;
    start_of[(run.end() - 1) / 2] = run.start;
    by_length.insert(node);
  }
  void erase(Run run) { by_length.erase(by_length.iterator_to(nodes[run.start / 2])); }

  // The first `count` cells of a free run.
  Run take(Run run, std::uint32_t count) {
    erase(run);
    if (count < run.length) insert({run.start + count, run.length - count});
    const Run taken{run.start, count};
    mark(taken, false);
    free_cells -= count;
    return taken;
  }

  // The smallest run of at least `length` cells, the lowest among equals; length 0 where none is.
  Run best_fit(std::uint32_t length) const {
    Node key;
    key.run = {0, length};
    const auto found = by_length.lower_bound(key);
    return found == by_length.end() ? Run{} : found->run;
  }

  std::uint32_t largest() const { return by_length.empty() ? 0 : by_length.rbegin()->run.length; }
};

FreeList::FreeList(std::uint32_t cells) : state_(std::make_unique<State>(cells)) { reset(); }
FreeList::FreeList(FreeList&&) noexcept = default;
FreeList& FreeList::operator=(FreeList&&) noexcept = default;
FreeList::~FreeList() = default;

std::uint32_t FreeList::size() const { return state_->size; }
std::uint32_t FreeList::free_cells() const { return state_->free_cells; }
std::uint32_t FreeList::run_count() const {
  return static_cast<std::uint32_t>(state_->by_length.size());
}
std::uint32_t FreeList::largest_run() const { return state_->largest(); }
bool FreeList::is_free(std::uint32_t cell) const { return state_->is_free(cell); }

Result<> FreeList::allocate(std::uint32_t count, std::vector<Run>& runs, std::uint32_t hint) {
  runs.clear();
  State& state = *state_;
  if (count > state.free_cells) return fail(kCacheFull);
  if (count == 0) return {};

  // A run starts right after the hint when the hint itself is in use and the next cell is not.
  if (hint < state.size && !state.is_free(hint) && state.is_free(hint + 1)) {
    const Run next = state.nodes[(hint + 1) / 2].run;
    if (next.length >= count) {
      runs.push_back(state.take(next, count));
      return {};
    }
  }
  while (count != 0) {
    Run run = state.best_fit(count);
    if (run.length == 0) run = state.best_fit(state.largest());
    runs.push_back(state.take(run, std::min(run.length, count)));
    count -= runs.back().length;
  }
  return {};
}

void FreeList::release(Run run) {
  State& state = *state_;
  assert(run.end() <= state.size);
  if (run.length == 0) return;
  state.mark(run, true);
  state.free_cells += run.length;
  if (run.start != 0 && state.is_free(run.start - 1)) {
    const Run before = state.nodes[state.start_of[(run.start - 1) / 2] / 2].run;
    state.erase(before);
    run = {before.start, before.length + run.length};
  }
  if (state.is_free(run.end())) {
    const Run after = state.nodes[run.end() / 2].run;
    state.erase(after);
    run.length += after.length;
  }
  state.insert(run);
}

void FreeList::reset() {
  state_->by_length.clear();
  std::ranges::fill(state_->free, 0);
  state_->free_cells = 0;
  release({0, state_->size});
}

std::vector<Run> FreeList::runs() const {
  std::vector<Run> result;
  for (std::uint32_t cell = 0; cell < state_->size;) {
    if (state_->free[cell / 64] >> (cell % 64) == 0) {
      cell += 64 - cell % 64;
    } else if (!state_->is_free(cell)) {
      ++cell;
    } else {
      result.push_back(state_->nodes[cell / 2].run);
      cell = result.back().end();
    }
  }
  return result;
}

}  // namespace ollama::kvcache

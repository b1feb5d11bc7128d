// Pair merging, as byte-level BPE and SentencePiece-style tokenizers share it: of all neighbours
// that can merge, the pair of lowest priority (the leftmost of equals) becomes one symbol, until
// none can. Private to this module's sources.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <queue>
#include <span>
#include <vector>

#include "tokenizer/tables.h"

namespace ollama::tokenizer {

// A part of a word: what it is so far (kNone: a character that is no token), and where it begins.
struct Symbol {
  std::uint32_t id = kNone;
  std::uint32_t begin = 0;
};

// What two neighbours become; no merge where `priority` is kNone.
struct Merge {
  std::uint32_t priority = kNone;
  std::uint32_t id = kNone;
};

class Merger {
 public:
  // Merges `symbols` in place; the last one ends at `end`. `find(left, right, right_end)` gives the
  // Merge of two neighbours.
  template <typename Find>
  void run(std::vector<Symbol>& symbols, std::uint32_t end, Find&& find) {
    if (symbols.size() <= kShort) {
      run_short(symbols, end, find);
    } else {
      run_long(symbols, end, find);
    }
  }

 private:
  // Up to this many symbols, looking at every pair is faster than keeping a heap.
  static constexpr std::size_t kShort = 40;

  template <typename Find>
  void run_short(std::vector<Symbol>& symbols, std::uint32_t end, Find&& find) {
    std::size_t count = symbols.size();
    const auto end_of = [&](std::size_t i) { return i + 1 < count ? symbols[i + 1].begin : end; };
    merges_.resize(count);
    for (std::size_t i = 0; i + 1 < count; ++i) {
      merges_[i] = find(symbols[i], symbols[i + 1], end_of(i + 1));
    }
    while (count > 1) {
      std::size_t best = 0;
      for (std::size_t i = 1; i + 1 < count; ++i) {
        if (merges_[i].priority < merges_[best].priority) best = i;
      }
      if (merges_[best].priority == kNone) break;
      symbols[best].id = merges_[best].id;
      --count;
      for (std::size_t i = best + 1; i < count; ++i) {
        symbols[i] = symbols[i + 1];
        merges_[i - 1] = merges_[i];
      }
      if (best > 0) merges_[best - 1] = find(symbols[best - 1], symbols[best], end_of(best));
      if (best + 1 < count) {
        merges_[best] = find(symbols[best], symbols[best + 1], end_of(best + 1));
      }
    }
    symbols.resize(count);
  }

  struct Node {
    std::uint32_t previous = kNone;
    std::uint32_t next = kNone;
    Merge merge;  // with the next
    bool alive = true;
  };

  template <typename Find>
  void run_long(std::vector<Symbol>& symbols, std::uint32_t end, Find&& find) {
    const auto count = static_cast<std::uint32_t>(symbols.size());
    nodes_.assign(count, {});
    std::vector<std::uint64_t> heap;
    const auto update = [&](std::uint32_t left) {
      Node& node = nodes_[left];
      node.merge = {};
      if (node.next == kNone) return false;
      const std::uint32_t after = nodes_[node.next].next;
      node.merge =
          find(symbols[left], symbols[node.next], after == kNone ? end : symbols[after].begin);
      return node.merge.priority != kNone;
    };
    // An entry is priority and position; it is out of date when its node's merge has another
    // priority by now.
    const auto entry = [&](std::uint32_t left) {
      return (std::uint64_t{nodes_[left].merge.priority} << 32) | left;
    };
    for (std::uint32_t i = 0; i < count; ++i) {
      nodes_[i].previous = i == 0 ? kNone : i - 1;
      nodes_[i].next = i + 1 == count ? kNone : i + 1;
    }
    for (std::uint32_t i = 0; i < count; ++i) {
      if (update(i)) heap.push_back(entry(i));
    }
    std::priority_queue queue(std::greater{}, std::move(heap));
    while (!queue.empty()) {
      const std::uint64_t top = queue.top();
      queue.pop();
      const auto left = static_cast<std::uint32_t>(top);
      Node& node = nodes_[left];
      if (!node.alive || node.merge.priority != top >> 32) continue;
      const std::uint32_t right = node.next;
      symbols[left].id = node.merge.id;
      nodes_[right].alive = false;
      node.next = nodes_[right].next;
      if (node.next != kNone) nodes_[node.next].previous = left;
      if (update(left)) queue.push(entry(left));
      if (node.previous != kNone && update(node.previous)) queue.push(entry(node.previous));
    }
    std::uint32_t kept = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
      if (nodes_[i].alive) symbols[kept++] = symbols[i];
    }
    symbols.resize(kept);
  }

  std::vector<Merge> merges_;
  std::vector<Node> nodes_;
};

}  // namespace ollama::tokenizer

// Lookup tables of the tokenizers. Private to this module's sources.
#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace ollama::tokenizer {

inline constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

// Strings to numbers. Keys are copied into one block that must be sized first.
class StringTable {
 public:
  // Room for keys of `bytes` in all. Views of keys would dangle beyond it: more is not accepted.
  void reserve(std::size_t count, std::size_t bytes) {
    keys_.reserve(bytes);
    map_.reserve(count);
  }
  // Later values replace earlier ones.
  void set(std::string_view key, std::uint32_t value) {
    if (const auto found = map_.find(key); found != map_.end()) {
      found->second = value;
      return;
    }
    if (keys_.capacity() - keys_.size() < key.size()) return;
    const std::size_t at = keys_.size();
    keys_.append(key);
    map_.emplace(std::string_view(keys_).substr(at), value);
    longest_ = std::max(longest_, key.size());
  }
  std::uint32_t find(std::string_view key) const {
    if (key.size() > longest_) return kNone;
    const auto found = map_.find(key);
    return found == map_.end() ? kNone : found->second;
  }
  std::size_t longest() const { return longest_; }

  StringTable() = default;
  StringTable(const StringTable&) = delete;
  StringTable& operator=(const StringTable&) = delete;

 private:
  std::string keys_;
  boost::unordered_flat_map<std::string_view, std::uint32_t> map_;
  std::size_t longest_ = 0;
};

// Pairs of numbers to pairs of numbers.
class PairTable {
 public:
  struct Value {
    std::uint32_t first = kNone;
    std::uint32_t second = kNone;
  };
  void reserve(std::size_t count) { map_.reserve(count); }
  // Keeps the value of the first call for a key.
  bool add(std::uint32_t left, std::uint32_t right, Value value) {
    return map_.emplace(key(left, right), value).second;
  }
  Value find(std::uint32_t left, std::uint32_t right) const {
    const auto found = map_.find(key(left, right));
    return found == map_.end() ? Value{} : found->second;
  }

 private:
  static std::uint64_t key(std::uint32_t left, std::uint32_t right) {
    return (std::uint64_t{left} << 32) | right;
  }
  boost::unordered_flat_map<std::uint64_t, Value> map_;
};

// Strings to numbers, walked byte by byte.
class Trie {
 public:
  static constexpr std::uint32_t kRoot = 0;

  void set(std::string_view key, std::uint32_t value) {
    std::uint32_t node = kRoot;
    for (const char c : key) {
      const auto [at, added] =
          edges_.emplace((std::uint64_t{node} << 8) | static_cast<unsigned char>(c), nodes());
      node = at->second;
      if (added) values_.push_back(kNone);
    }
    values_[node] = value;
  }
  // The node behind `c`, or kNone.
  std::uint32_t step(std::uint32_t node, char c) const {
    const auto found = edges_.find((std::uint64_t{node} << 8) | static_cast<unsigned char>(c));
    return found == edges_.end() ? kNone : found->second;
  }
  std::uint32_t value(std::uint32_t node) const { return values_[node]; }

 private:
  std::uint32_t nodes() const { return static_cast<std::uint32_t>(values_.size()); }
  boost::unordered_flat_map<std::uint64_t, std::uint32_t> edges_;
  std::vector<std::uint32_t> values_{kNone};  // of every node
};

}  // namespace ollama::tokenizer

// Lookup tables of the tokenizers. Private to this module's sources.
#pragma once

#include <algorithm>
#include <bit>
#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace ollama::tokenizer {

inline constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

// Strings to numbers. Keys of up to 15 bytes, nearly all, are held in the table itself; longer ones
// are copied into one block that must be sized first.
class StringTable {
 public:
  // Room for keys of `bytes` in all. Views of keys would dangle beyond it: more is not accepted.
  void reserve(std::size_t count, std::size_t bytes) {
    keys_.reserve(bytes);
    short_.reserve(count);
  }
  // Later values replace earlier ones.
  void set(std::string_view key, std::uint32_t value) {
    longest_ = std::max(longest_, key.size());
    if (key.size() <= kShort) {
      short_.insert_or_assign(pack(key), value);
      return;
    }
    if (const auto found = long_.find(key); found != long_.end()) {
      found->second = value;
      return;
    }
    if (keys_.capacity() - keys_.size() < key.size()) return;
    const std::size_t at = keys_.size();
    keys_.append(key);
    long_.emplace(std::string_view(keys_).substr(at), value);
  }
  std::uint32_t find(std::string_view key) const {
    if (key.size() <= kShort) {
      const auto found = short_.find(pack(key));
      return found == short_.end() ? kNone : found->second;
    }
    if (key.size() > longest_) return kNone;
    const auto found = long_.find(key);
    return found == long_.end() ? kNone : found->second;
  }

  StringTable() = default;
  StringTable(const StringTable&) = delete;
  StringTable& operator=(const StringTable&) = delete;

 private:
  static constexpr std::size_t kShort = 15;

  // The bytes of a key, zeros, and its length.
  struct Packed {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    bool operator==(const Packed&) const = default;
  };
  struct Hash {
    using is_avalanching = void;  // NOLINT(readability-identifier-naming): Boost looks for it
    std::size_t operator()(const Packed& key) const {
      std::uint64_t mixed = (key.low ^ (key.high * 0x9E3779B97F4A7C15U)) * 0xD6E8FEB86659FD93U;
      mixed ^= mixed >> 32;
      return mixed * 0xD6E8FEB86659FD93U;
    }
  };

  template <typename T>
  static std::uint64_t load(const char* from) {
    T value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  static Packed pack(std::string_view key) {
    const char* const data = key.data();
    const std::size_t size = key.size();
    Packed packed;
    if constexpr (std::endian::native != std::endian::little) {
      std::memcpy(&packed, data, size);
    } else if (size > 8) {  // two loads that overlap
      packed.low = load<std::uint64_t>(data);
      packed.high = load<std::uint64_t>(data + size - 8) >> (8 * (16 - size));
    } else if (size == 8) {
      packed.low = load<std::uint64_t>(data);
    } else if (size >= 4) {
      packed.low =
          load<std::uint32_t>(data) | (load<std::uint32_t>(data + size - 4) << (8 * (size - 4)));
    } else if (size > 0) {
      packed.low = load<unsigned char>(data) |
                   (load<unsigned char>(data + size / 2) << (8 * (size / 2))) |
                   (load<unsigned char>(data + size - 1) << (8 * (size - 1)));
    }
    if constexpr (std::endian::native == std::endian::little) {
      packed.high |= std::uint64_t{size} << 56;
    } else {
      packed.high |= size;
    }
    return packed;
  }

  boost::unordered_flat_map<Packed, std::uint32_t, Hash> short_;
  std::string keys_;
  boost::unordered_flat_map<std::string_view, std::uint32_t> long_;
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

// The scores of one query's documents, which come one by one from the engine's thread, or at once
// from the caller's where a pair cannot be queued.
#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"

namespace ollama::runner {

class Ranking {
 public:
  // Called once, with the last of `count` scores, at least one: all of them, or the first error.
  using Done = std::function<void(Result<std::vector<float>>)>;
  Ranking(std::size_t count, Done done) : scores_(count), left_(count), done_(std::move(done)) {}

  // Once for each document.
  void settle(std::size_t document, Result<float> score) {
    {
      const std::scoped_lock lock(mutex_);
      if (score) {
        scores_[document] = *score;
      } else if (!error_) {
        error_ = std::move(score).error();
      }
      if (--left_ > 0) return;
    }
    done_(error_ ? Result<std::vector<float>>(std::unexpected(std::move(*error_)))
                 : std::move(scores_));
  }

 private:
  std::mutex mutex_;
  std::vector<float> scores_;
  std::size_t left_;
  std::optional<Error> error_;
  Done done_;
};

}  // namespace ollama::runner

// Internal to store: where model files are made before they become blobs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/unique_fd.h"
#include "gguf/quant_mix.h"
#include "store/converter.h"
#include "store/folder.h"

namespace ollama::store {

// A hidden folder for files that are being made. It goes with the object; after a crash it is known
// for abandoned by its lock.
class WorkFolder {
 public:
  // Makes `parent` if need be.
  static Result<WorkFolder> create(const std::filesystem::path& parent);
  WorkFolder(WorkFolder&& other) noexcept;
  WorkFolder& operator=(WorkFolder&& other) noexcept;
  ~WorkFolder();

  const std::filesystem::path& path() const { return path_; }

  // Removes those in `parent` that nobody uses any more; returns the bytes freed.
  static std::uint64_t remove_abandoned(const std::filesystem::path& parent);

 private:
  WorkFolder() = default;
  void discard();

  UniqueFd lock_;
  std::filesystem::path path_;
};

// Converts and quantises, one after the other, and makes a blob of what comes out.
class Workshop {
 public:
  Workshop(Folder& folder, const Progress& progress) : folder_(folder), progress_(progress) {}

  // What was made last; empty before.
  const std::filesystem::path& made() const { return made_; }

  Result<> convert(std::vector<SourceFile> checkpoint);
  // Gives `source`, which may be made(), the types of a mix.
  Result<> quantise(const std::filesystem::path& source, const gguf::QuantMix& mix);
  // Moves made() to its blob, pinned before it is visible.
  Result<Digest> publish(Pins& pins);

 private:
  Result<> run(Conversion conversion, const std::string& status);

  Folder& folder_;
  const Progress& progress_;
  std::optional<WorkFolder> work_;
  std::filesystem::path made_;
};

}  // namespace ollama::store

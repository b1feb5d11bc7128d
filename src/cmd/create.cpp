#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>

#include "cmd/commands.h"
#include "cmd/connect.h"
#include "cmd/progress.h"
#include "cmd/transfer.h"
#include "convert/convert.h"
#include "store/digest.h"
#include "store/modelfile.h"

namespace ollama::cmd {
namespace {

struct ModelfileText {
  std::string text;
  std::filesystem::path directory;  // what relative paths in it are relative to
};

Result<ModelfileText> read_modelfile(const Arguments& arguments) {
  const std::string name = arguments.given("file") ? arguments.text("file") : "Modelfile";
  std::error_code error;
  if (name == "-") {
    return ModelfileText{{std::istreambuf_iterator<char>(std::cin), {}},
                         std::filesystem::current_path(error)};
  }
  const std::filesystem::path path = std::filesystem::absolute(name, error);
  if (!std::filesystem::exists(path, error)) {
    // What lies in this folder, as Ollama takes it.
    if (!arguments.given("file")) return ModelfileText{"FROM .\n", path.parent_path()};
    return fail(ErrorCode::kNotFound, "specified Modelfile wasn't found");
  }
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path, error)) {
    return fail(ErrorCode::kIo, "{}: cannot be read", name);
  }
  return ModelfileText{{std::istreambuf_iterator<char>(file), {}}, path.parent_path()};
}

using convert::NamedFile;

std::vector<NamedFile> named(const std::vector<std::filesystem::path>& paths) {
  std::vector<NamedFile> files;
  for (const auto& path : paths) files.push_back({.name = path.filename().string(), .path = path});
  return files;
}

// What of a folder makes a model: a checkpoint, or its model files.
Result<std::vector<NamedFile>> files_of(const std::filesystem::path& folder) {
  auto checkpoint = convert::find_files(folder);
  if (checkpoint || checkpoint.error().code() != ErrorCode::kNotFound) return checkpoint;
  std::vector<std::filesystem::path> models;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().extension() == ".gguf") models.push_back(it->path());
  }
  if (!models.empty()) return named(models);
  return fail(ErrorCode::kNotFound, "{} has neither *.safetensors nor *.gguf files",
              folder.string());
}

// Makes blobs of local files on the server, which may be another machine.
Result<std::vector<api::File>> upload(api::Client& client, Progress& progress,
                                      const std::vector<NamedFile>& sources) {
  std::vector<api::File> files;
  for (const auto& [name, path] : sources) {
    OLLAMA_ASSIGN(const store::Digest digest, store::digest_of_file(path));
    OLLAMA_ASSIGN(const bool there, client.has_blob(digest.text()));
    if (!there) {
      const std::string message = "copying file " + name;
      OLLAMA_TRY(client.upload_blob(
          digest.text(), path.string(), [&](const api::ProgressResponse& response) {
            progress.bar(digest.text(), message, response.completed, response.total);
            return true;
          }));
    }
    // The server knows them by their names.
    std::string unique = name;
    if (std::ranges::contains(files, unique, &api::File::name)) {
      unique = std::format("{}-{}", files.size(), name);
    }
    files.push_back({.name = std::move(unique), .digest = digest.text()});
  }
  return files;
}

Result<> create(api::Client& client, Progress& progress, const Arguments& arguments,
                const ModelfileText& modelfile) {
  progress.status("gathering model components");
  const char* home = std::getenv("HOME");
  OLLAMA_ASSIGN(const store::Modelfile parsed, store::parse_modelfile(modelfile.text));
  OLLAMA_ASSIGN(store::CreatePlan plan,
                store::plan_create(parsed, modelfile.directory, home == nullptr ? "" : home));
  plan.request.model = arguments[0];
  if (arguments.given("quantize")) plan.request.quantize = arguments.text("quantize");
  std::vector<NamedFile> models = named(plan.model_files);
  if (!plan.model_folder.empty()) {
    OLLAMA_ASSIGN(models, files_of(plan.model_folder));
  }
  OLLAMA_ASSIGN(plan.request.files, upload(client, progress, models));
  OLLAMA_ASSIGN(plan.request.adapters, upload(client, progress, named(plan.adapter_files)));
  OLLAMA_ASSIGN(plan.request.draft_files, upload(client, progress, named(plan.draft_files)));
  return client.create_model(plan.request, [&](const api::ProgressResponse& response) {
    show_progress(progress, response, "creating");
    return true;
  });
}

Result<int> run_create(const envconfig::Config& config, const Arguments& arguments) {
  OLLAMA_ASSIGN(const ModelfileText modelfile, read_modelfile(arguments));
  OLLAMA_ASSIGN(api::Client client, connect(config));
  Progress progress;
  const auto created = create(client, progress, arguments, modelfile);
  progress.stop();
  if (!created) return fail(created);
  return 0;
}

}  // namespace

Command create_command(const envconfig::Config& config) {
  return {.name = "create",
          .usage = "MODEL",
          .summary = "Create a model",
          .min_arguments = 1,
          .max_arguments = 1,
          .flags = {{.name = "file",
                     .letter = 'f',
                     .kind = FlagKind::kString,
                     .help = "Name of the Modelfile, - for standard input (default \"Modelfile\")"},
                    {.name = "quantize",
                     .letter = 'q',
                     .kind = FlagKind::kString,
                     .help = "Quantize model to this level (e.g. q4_K_M)"}},
          .environment = {"OLLAMA_HOST"},
          .run = [&config](const Arguments& arguments) { return run_create(config, arguments); }};
}

}  // namespace ollama::cmd

#include "cmd/transfer.h"

#include <format>
#include <print>

#include "cmd/commands.h"
#include "cmd/connect.h"
#include "store/name.h"

namespace ollama::cmd {
namespace {

std::string short_digest(std::string_view digest) {
  if (digest.starts_with("sha256:")) return std::string(digest.substr(7, 12));
  return std::string(digest);
}

// Errors within a stream have no status: the registry's own words tell.
bool is_denied(const Error& error) {
  return error.code() == ErrorCode::kPermission || error.message().contains("access denied") ||
         error.message().contains("unauthorized");
}

// Where a model that was pushed can be seen.
std::string address_of(const std::string& model) {
  const auto name = store::Name::parse(model);
  if (!name) return model;
  if (name->host() != store::kDefaultHost) return name->display();
  std::string shown = std::format("{}/{}", name->name_space(), name->model());
  if (name->tag() != store::kDefaultTag) shown += ":" + name->tag();
  return "https://ollama.com/" + shown;
}

Result<int> pull(const envconfig::Config& config, const Arguments& arguments) {
  OLLAMA_ASSIGN(api::Client client, connect(config));
  OLLAMA_TRY(pull_model(client, arguments[0], arguments.boolean("insecure")));
  return 0;
}

Result<int> push(const envconfig::Config& config, const Arguments& arguments) {
  OLLAMA_ASSIGN(api::Client client, connect(config));
  Progress progress;
  api::PushRequest request;
  request.model = arguments[0];
  request.insecure = arguments.boolean("insecure");
  const auto pushed = client.push(request, [&](const api::ProgressResponse& response) {
    show_progress(progress, response, "pushing");
    return true;
  });
  progress.stop();
  if (pushed) {
    std::print("\nYou can find your model at:\n\n\t{}\n", address_of(arguments[0]));
    return 0;
  }
  if (is_denied(pushed.error())) {
    return fail(ErrorCode::kPermission,
                "you are not authorized to push to this namespace, create the model under a "
                "namespace you own");
  }
  return fail(pushed);
}

const Flag kInsecure{.name = "insecure", .help = "Use an insecure registry"};

}  // namespace

void show_progress(Progress& progress, const api::ProgressResponse& response,
                   std::string_view verb) {
  if (response.digest.empty()) {
    progress.status(response.status);
    return;
  }
  if (response.completed == 0) return;  // queued: a bar appears when bytes move
  const bool named = !response.status.empty() && !response.status.starts_with(verb);
  progress.bar(response.digest,
               named ? response.status : std::format("{} {}:", verb, short_digest(response.digest)),
               response.completed, response.total);
}

Result<> pull_model(api::Client& client, const std::string& model, bool insecure) {
  Progress progress;
  api::PullRequest request;
  request.model = model;
  request.insecure = insecure;
  const auto pulled = client.pull(request, [&](const api::ProgressResponse& response) {
    show_progress(progress, response, "pulling");
    return true;
  });
  progress.stop();
  return pulled;
}

Command pull_command(const envconfig::Config& config) {
  return {.name = "pull",
          .usage = "MODEL",
          .summary = "Pull a model from a registry",
          .min_arguments = 1,
          .max_arguments = 1,
          .flags = {kInsecure},
          .environment = {"OLLAMA_HOST"},
          .run = [&config](const Arguments& arguments) { return pull(config, arguments); }};
}

Command push_command(const envconfig::Config& config) {
  return {.name = "push",
          .usage = "MODEL",
          .summary = "Push a model to a registry",
          .min_arguments = 1,
          .max_arguments = 1,
          .flags = {kInsecure},
          .environment = {"OLLAMA_HOST"},
          .run = [&config](const Arguments& arguments) { return push(config, arguments); }};
}

}  // namespace ollama::cmd

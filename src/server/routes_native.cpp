// Ollama's own API: /api/...
#include <boost/json/serialize.hpp>

#include "base/log.h"
#include "server/inference.h"
#include "server/long_work.h"
#include "store/digest.h"
#include "store/name.h"

namespace ollama::server {

namespace {

using api::Duration;

class Native {
 public:
  Native(Services& services, Inference& inference) : services_(services), inference_(inference) {}

  std::vector<Route> routes(const std::shared_ptr<Native>& self);

 private:
  // ---- General

  static Task<> root(Exchange& x) { co_await x.respond(200, kText, "Ollama is running"); }
  static Task<> version(Exchange& x) {
    co_await x.respond_json(
        200, api::to_json(api::VersionResponse{.version = std::string(api::kApiLevel)}));
  }
  static Task<> status(Exchange& x) {
    co_await x.respond_json(200, {{"cloud", {{"disabled", true}, {"source", "none"}}}});
  }
  static Task<> no_cloud(Exchange& x) {
    co_await x.respond_error(501,
                             "this server has no connection to Ollama's cloud: signing in, "
                             "remote models and web search are not available");
  }

  // ---- Models

  Task<> tags(Exchange& x) {
    auto list = co_await services_.blocking.run([this] { return services_.store.list(); });
    if (!list) {
      co_await x.respond_error(list.error());
      co_return;
    }
    for (api::ListModel& model : list->models) co_await inference_.describe(model);
    co_await x.respond_json(200, api::to_json(*list));
  }

  Task<> show(Exchange& x) {
    auto request = co_await parse_body(services_, x.request(), api::parse_show_request);
    if (request && request->model.empty()) {
      request = fail(ErrorCode::kInvalidArgument, "model is required");
    }
    if (!request) {
      co_await x.respond_error(request.error());
      co_return;
    }
    auto shown = co_await services_.blocking.run(
        [this, &request = *request] { return services_.store.show(request); });
    if (shown && request->plan) {
      auto plan = co_await plan_of(x, *request);
      if (!plan) {
        shown = fail(plan);
      } else {
        shown->plan = std::move(*plan);
      }
    }
    if (!shown) {
      co_await x.respond_error(shown.error());
    } else {
      co_await x.respond_json(200, api::to_json(*shown));
    }
  }

  // As long as it lives, one more.
  class Counted {
   public:
    explicit Counted(int& count) : count_(count) { ++count_; }
    ~Counted() { --count_; }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;

   private:
    int& count_;
  };

  // Where the model would be loaded with the request's options, beside what is loaded now. A
  // process of its own finds out: drivers are not this one's to load.
  Task<Result<api::MemoryPlan>> plan_of(Exchange& x, const api::ShowRequest& request) {
    auto model =
        co_await services_.reading.run([&] { return services_.store.resolve(request.model); });
    if (!model) co_return fail(model);
    const auto options = api::parse_options(request.options);
    if (!options) co_return fail(options);
    if (plans_ == kMostPlans) co_return fail(sched::kQueueFull);
    const Counted counted(plans_);
    auto runner = services_.runners.start();
    if (!runner) co_return fail(runner);
    sched::Model wanted = to_load(services_, *model, merged_options(*model, *options));
    std::erase_if(wanted.options.devices.rpc_servers,
                  [held = services_.scheduler.remote_in_use()](const std::string& server) {
                    return held.contains(server);
                  });
    using Answer = Result<api::MemoryPlan>;
    auto box = std::make_shared<Mailbox<Answer>>(services_.blocking.loop());
    x.on_disconnect([box] { box->push(fail(ErrorCode::kCancelled, "nobody waits for it")); });
    (*runner)->explain({.path = wanted.path, .options = wanted.options},
                       [box](Answer plan) { box->push(std::move(plan)); });
    boost::asio::steady_timer timer(services_.blocking.loop(), kLongestPlan);
    timer.async_wait([box](const boost::system::error_code& stopped) {
      if (!stopped) box->push(fail(ErrorCode::kTimeout, "the devices do not answer"));
    });
    co_return co_await box->pop();
  }

  Task<> copy(Exchange& x) {
    auto request = co_await parse_body(services_, x.request(), api::parse_copy_request);
    if (!request) {
      co_await x.respond_error(request.error());
      co_return;
    }
    for (const auto& [what, name] :
         {std::pair("source", &request->source), std::pair("destination", &request->destination)}) {
      if (!store::Name::parse(*name)) {
        co_await x.respond_error(400, std::format("{} {} is invalid", what, json_quoted(*name)));
        co_return;
      }
    }
    auto done = co_await services_.blocking.run([this, &request = *request] {
      return services_.store.copy(request.source, request.destination);
    });
    if (!done && done.error().code() == ErrorCode::kNotFound) {
      const std::string not_found = std::format("model {} not found", json_quoted(request->source));
      co_await x.respond_error(404, missing_text(done.error(), request->source, not_found));
    } else if (!done) {
      co_await x.respond_error(done.error());
    } else {
      co_await x.respond(200, {}, {});
    }
  }

  Task<> remove(Exchange& x) {
    auto request = co_await parse_body(services_, x.request(), api::parse_delete_request);
    if (!request) {
      co_await x.respond_error(request.error());
      co_return;
    }
    if (!store::Name::parse(request->model)) {
      co_await x.respond_error(400, std::format("name {} is invalid", json_quoted(request->model)));
      co_return;
    }
    auto done = co_await services_.blocking.run(
        [this, &request = *request] { return services_.store.remove(request.model); });
    if (!done && done.error().code() == ErrorCode::kNotFound) {
      co_await x.respond_error(404, std::format("model '{}' not found", request->model));
    } else if (!done) {
      co_await x.respond_error(done.error());
    } else {
      co_await x.respond(200, {}, {});
    }
  }

  Task<> create(Exchange& x) {
    auto request = co_await parse_body(services_, x.request(), api::parse_create_request);
    if (request && request->model.empty()) {
      request = fail(ErrorCode::kInvalidArgument, "model is required");
    }
    if (!request) {
      co_await x.respond_error(request.error());
      co_return;
    }
    if (makes_ == kMostMakes) {
      co_await x.respond_error(503, "too many models are being made; try again later");
      co_return;
    }
    const Counted counted(makes_);
    const auto work = std::make_shared<LongWork>(
        services_.blocking.loop(),
        [this, request = *request](const store::Progress& progress, const std::stop_token&) {
          return services_.store.create(request, progress);
        });
    services_.making.start([work] { LongWork::run(work); });
    co_await work->tell(x, request->streaming());
  }

  // ---- Blobs

  Task<> head_blob(Exchange& x) {
    const std::string& digest = x.request().parameters.at("digest");
    auto found = co_await services_.blocking.run([&] { return services_.store.has_blob(digest); });
    if (!found) {
      co_await x.respond_error(found.error());
    } else if (!*found) {
      co_await x.respond_error(404, std::format("blob {} not found", json_quoted(digest)));
    } else {
      co_await x.respond(200, {}, {});
    }
  }

  Task<> create_blob(Exchange& x) {
    const std::string text = x.request().parameters.at("digest");
    auto digest = store::Digest::parse(text);
    if (!digest) {
      co_await x.respond_error(digest.error());
      co_return;
    }
    const auto found =
        co_await services_.blocking.run([&] { return services_.store.has_blob(text); });
    if (found && *found) {
      co_await x.respond(200, {}, {});
      co_return;
    }
    if (const auto length = x.content_length()) {
      const auto free =
          co_await services_.blocking.run([this] { return services_.store.free_space(); });
      if (free && *free < *length) {
        co_await x.respond_error(
            507, std::format("the blob of {} bytes does not fit on the disk of {}, which has {} "
                             "bytes free",
                             *length, services_.store.directory().string(), *free));
        co_return;
      }
    }
    auto writer =
        co_await services_.blocking.run([&] { return services_.store.begin_blob(*digest); });
    if (!writer) {
      co_await x.respond_error(writer.error());
      co_return;
    }
    std::vector<char> buffer(1U << 20);
    while (true) {
      // As much as fits is hashed and written at once, off the loop.
      std::size_t filled = 0;
      while (filled < buffer.size()) {
        auto got = co_await x.read_body(std::span(buffer).subspan(filled));
        if (!got) {
          co_await x.respond_error(400, got.error().message());
          co_return;
        }
        if (*got == 0) break;
        filled += *got;
      }
      if (filled == 0) break;
      auto appended = co_await services_.blocking.run([&writer, &buffer, filled] {
        return writer->append(std::string_view(buffer.data(), filled));
      });
      if (!appended) {
        co_await x.respond_error(appended.error());
        co_return;
      }
    }
    auto committed = co_await services_.blocking.run([&writer] { return writer->commit(); });
    if (!committed) {
      co_await x.respond_error(committed.error());
    } else {
      co_await x.respond(201, {}, {});
    }
  }

  Task<> metrics(Exchange& x) {
    co_await x.respond(200, "text/plain; version=0.0.4; charset=utf-8",
                       services_.metrics.text(services_.scheduler));
  }

  // ---- Running models

  Task<> ps(Exchange& x) {
    api::ProcessResponse response;
    for (const sched::Loaded& loaded : services_.scheduler.loaded()) {
      api::ProcessModel model;
      model.name = model.model = loaded.model.name;
      model.digest = loaded.model.digest;
      model.details = loaded.model.details;
      model.size = loaded.info.weight_bytes + loaded.info.cache_bytes + loaded.info.graph_bytes;
      model.size_vram = loaded.info.device_bytes;
      // With every layer on GPUs the CPU only looks up rows of tables, in the mapped file.
      if (loaded.info.gpu_layers == loaded.info.layers + 1) model.size = model.size_vram;
      model.context_length = loaded.info.context;
      // Far enough for "forever", which Ollama shows from about a century on.
      const Duration left = loaded.expires_in.value_or(std::chrono::years(200));
      model.expires_at = api::now() + left;
      if (loaded.loading) {
        // All that is known yet.
        std::error_code error;
        const auto size = co_await services_.blocking.run(
            [&] { return std::filesystem::file_size(loaded.model.path, error); });
        if (!error) model.size = size;
        model.loading = std::min(static_cast<double>(loaded.progress), 0.999);
      }
      response.models.push_back(std::move(model));
    }
    co_await x.respond_json(200, api::to_json(response));
  }

  // ---- Answers

  Task<> generate(Exchange& x) {
    auto request = co_await parse_body(services_, x.request(), api::parse_generate_request);
    if (!request) {
      co_await x.respond_error(request.error());
    } else {
      co_await inference_.generate(x, std::move(*request));
    }
  }

  Task<> chat(Exchange& x) {
    auto request = co_await parse_body(services_, x.request(), api::parse_chat_request);
    if (!request) {
      co_await x.respond_error(request.error());
      co_return;
    }
    api::ForeignChat chat;
    chat.request = std::move(*request);
    chat.format = api::native_format();
    co_await inference_.chat(x, std::move(chat));
  }

  // ---- Embeddings

  static std::vector<runner::Embed> inputs_of(const std::vector<std::string>& texts,
                                              bool truncate) {
    std::vector<runner::Embed> inputs;
    for (const std::string& text : texts) {
      inputs.push_back({.id = 0, .text = text, .tokens = {}, .truncate = truncate});
    }
    return inputs;
  }

  Task<> embed(Exchange& x) {
    auto parsed = co_await parse_body(services_, x.request(), api::parse_embed_request);
    if (!parsed) {
      co_await x.respond_error(parsed.error());
      co_return;
    }
    const api::EmbedRequest request = std::move(*parsed);
    const auto model = co_await inference_.find_model(
        x, request.model, {404, "model '' not found"},
        std::format("model {} not found, try pulling it first", json_quoted(request.model)));
    if (!model) co_return;
    std::vector<std::string> input = request.input;
    if (request.single_input && input.size() == 1 && input[0].empty()) input.clear();
    const auto response = co_await inference_.embeddings(
        x, *model, request, inputs_of(input, request.truncate.value_or(true)));
    if (response) co_await x.respond_json(200, api::to_json(*response));
  }

  Task<> embeddings(Exchange& x) {
    auto parsed = co_await parse_body(services_, x.request(), api::parse_embeddings_request);
    if (!parsed) {
      co_await x.respond_error(parsed.error());
      co_return;
    }
    const api::EmbeddingsRequest request = std::move(*parsed);
    const auto model = co_await inference_.find_model(
        x, request.model, {400, "model is required"},
        std::format("model {} not found, try pulling it first", json_quoted(request.model)));
    if (!model) co_return;
    const api::Options options = merged_options(*model, request.parsed_options);
    const auto granted = co_await inference_.lease(x, *model, options, request.keep_alive);
    if (!granted) co_return;
    std::vector<std::string> input;
    if (!request.prompt.empty()) input.push_back(request.prompt);
    const auto embedded = co_await inference_.embed(x, *granted, inputs_of(input, true));
    if (!embedded) co_return;
    api::EmbeddingsResponse response;
    for (const runner::Embedded& one : *embedded) {
      response.embedding.assign(one.values.begin(), one.values.end());
    }
    co_await x.respond_json(200, api::to_json(response));
  }

  static constexpr int kMostPlans = 4;  // processes that make one
  static constexpr std::chrono::seconds kLongestPlan{60};
  int plans_ = 0;
  static constexpr int kMostMakes = 64;  // models that are being made, or wait for their turn
  int makes_ = 0;
  Services& services_;
  Inference& inference_;
};

std::vector<Route> Native::routes(const std::shared_ptr<Native>& self) {
  const auto bind = [&self](Task<> (Native::*method)(Exchange&)) -> Handler {
    return [self, method](Exchange& x) { return (*self.*method)(x); };
  };
  std::vector<Route> routes;
  const auto add = [&](std::string_view method, std::string_view pattern, Handler handler,
                       Body body = Body::kWhole) {
    routes.push_back({.method = std::string(method),
                      .pattern = std::string(pattern),
                      .handler = std::move(handler),
                      .body = body});
  };
  for (const char* method : {"GET", "HEAD"}) {
    add(method, "/", root);
    add(method, "/api/version", version);
    add(method, "/api/tags", bind(&Native::tags));
  }
  add("GET", "/api/status", status);
  add("GET", "/metrics", bind(&Native::metrics));
  add("GET", "/api/ps", bind(&Native::ps));
  add("POST", "/api/show", bind(&Native::show));
  add("POST", "/api/generate", bind(&Native::generate));
  add("POST", "/api/chat", bind(&Native::chat));
  add("POST", "/api/embed", bind(&Native::embed));
  add("POST", "/api/embeddings", bind(&Native::embeddings));
  add("POST", "/api/create", bind(&Native::create));
  add("POST", "/api/copy", bind(&Native::copy));
  add("DELETE", "/api/delete", bind(&Native::remove));
  add("HEAD", "/api/blobs/:digest", bind(&Native::head_blob));
  add("POST", "/api/blobs/:digest", bind(&Native::create_blob), Body::kPieces);
  add("POST", "/api/me", no_cloud);
  add("POST", "/api/signout", no_cloud);
  add("DELETE", "/api/user/keys/:key", no_cloud);
  add("POST", "/api/experimental/web_search", no_cloud);
  add("POST", "/api/experimental/web_fetch", no_cloud);
  add("POST", "/api/web_search", no_cloud);
  add("POST", "/api/web_fetch", no_cloud);
  return routes;
}

}  // namespace

std::vector<Route> native_routes(Services& services, Inference& inference) {
  const auto native = std::make_shared<Native>(services, inference);
  return native->routes(native);
}

}  // namespace ollama::server

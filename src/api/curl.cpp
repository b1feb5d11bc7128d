#include "api/curl.h"

#include <dlfcn.h>

namespace ollama::api {
namespace {

// By its name only, so that the system's own search finds it, as it would when linked.
constexpr const char* kLibrary = "libcurl.so.4";

Result<Curl> load() {
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);  // until the process ends
  if (library == nullptr) {
    return fail(ErrorCode::kUnsupported, "{} cannot be loaded: install libcurl ({})", kLibrary,
                dlerror());
  }
  Curl curl{};
  const char* missing = nullptr;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr) missing = name;
  };
  find(curl.global_init, "curl_global_init");
  find(curl.easy_init, "curl_easy_init");
  find(curl.easy_cleanup, "curl_easy_cleanup");
  find(curl.easy_reset, "curl_easy_reset");
  find(curl.easy_setopt, "curl_easy_setopt");
  find(curl.easy_getinfo, "curl_easy_getinfo");
  find(curl.easy_strerror, "curl_easy_strerror");
  find(curl.multi_init, "curl_multi_init");
  find(curl.multi_cleanup, "curl_multi_cleanup");
  find(curl.multi_add_handle, "curl_multi_add_handle");
  find(curl.multi_remove_handle, "curl_multi_remove_handle");
  find(curl.multi_perform, "curl_multi_perform");
  find(curl.multi_poll, "curl_multi_poll");
  find(curl.multi_wakeup, "curl_multi_wakeup");
  find(curl.multi_info_read, "curl_multi_info_read");
  find(curl.multi_strerror, "curl_multi_strerror");
  find(curl.slist_append, "curl_slist_append");
  find(curl.slist_free_all, "curl_slist_free_all");
  if (missing != nullptr) {
    return fail(ErrorCode::kUnsupported, "{} is too old: it has no {}", kLibrary, missing);
  }
  // Here, once: not every version may do so on several threads.
  if (curl.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
    return fail(ErrorCode::kUnsupported, "{} cannot be initialised", kLibrary);
  }
  return curl;
}

const Result<Curl>& loaded() {
  static const Result<Curl> instance = load();
  return instance;
}

}  // namespace

Result<> load_curl() {
  if (!loaded()) return std::unexpected(loaded().error());
  return {};
}

const Curl& curl() { return *loaded(); }

void append(CurlList& list, const std::string& line) {
  curl_slist* longer = curl().slist_append(list.get(), line.c_str());
  if (longer == nullptr) return;
  (void)list.release();
  list.reset(longer);
}

}  // namespace ollama::api

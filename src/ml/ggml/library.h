// GGML's backend libraries, loaded by absolute path from GGML's own backend folder. Never through
// ggml_backend_load_all(), which also runs libraries that it finds in the current directory.
#pragma once

#include <ggml-backend.h>

#include <string_view>

#include "base/error.h"

namespace ollama::ml::ggml {

// The CPU device, from the variant that scores best on this machine; loads it at the first call.
// Thread-safe. Errors: kUnsupported (no variant can be loaded; the message says from where).
Result<ggml_backend_dev_t> cpu_device();

// The backend of one GPU library ("vulkan"), loaded at the first call; null where it is not
// installed or finds no driver. Thread-safe.
ggml_backend_reg_t load_library(std::string_view name);

// A function of that library's own, or null. F is its type.
template <typename F>
F* library_function(std::string_view library, const char* name) {
  ggml_backend_reg_t registry = load_library(library);
  return registry == nullptr
             ? nullptr
             : reinterpret_cast<F*>(ggml_backend_reg_get_proc_address(registry, name));
}

}  // namespace ollama::ml::ggml

// Put before GGML's libraries, makes devices refuse buffers of more than REFUSE_ABOVE bytes: what a
// full GPU does in spite of what it said was free. See devices.sh.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>

#include <ggml-backend.h>

ggml_backend_buffer_t ggml_backend_buft_alloc_buffer(ggml_backend_buffer_type_t type, size_t size) {
  static ggml_backend_buffer_t (*next)(ggml_backend_buffer_type_t, size_t);
  if (!next) *(void**)&next = dlsym(RTLD_NEXT, "ggml_backend_buft_alloc_buffer");
  const char* limit = getenv("REFUSE_ABOVE");
  if (limit && !ggml_backend_buft_is_host(type) && size > strtoull(limit, NULL, 10)) return NULL;
  return next(type, size);
}

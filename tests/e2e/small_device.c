// Put before GGML's libraries, makes GPUs small: they refuse buffers of more than REFUSE_ABOVE bytes,
// which is what a full one does in spite of what it said was free, or say that FREE_BYTES are free.
// See devices.sh.
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

void ggml_backend_dev_get_props(ggml_backend_dev_t device, struct ggml_backend_dev_props* props) {
  static void (*next)(ggml_backend_dev_t, struct ggml_backend_dev_props*);
  if (!next) *(void**)&next = dlsym(RTLD_NEXT, "ggml_backend_dev_get_props");
  next(device, props);
  const char* free_bytes = getenv("FREE_BYTES");
  if (free_bytes && props->type != GGML_BACKEND_DEVICE_TYPE_CPU) {
    props->memory_free = strtoull(free_bytes, NULL, 10);
  }
}

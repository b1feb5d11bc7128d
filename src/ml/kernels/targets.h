// Which instruction sets the kernels are compiled for; to be included before any header of Highway.
// AVX2; AVX-512 with VNNI, without and with BF16; NEON. Elsewhere Highway's emulation runs, which
// tests use too and which is slower than GGML (see available.h). Where threads are checked or
// inputs made up, AVX2 and the emulation are enough (OLLAMA_FEW_VECTOR_TARGETS): instrumented, each
// set of instructions takes minutes to compile.
#pragma once

#ifdef OLLAMA_FEW_VECTOR_TARGETS
#define OLLAMA_UNUSED_TARGETS (HWY_AVX3_DL | HWY_AVX3_ZEN4)
#else
#define HWY_WANT_AVX3_DL 1
#define OLLAMA_UNUSED_TARGETS 0
#endif
#define HWY_DISABLED_TARGETS                                                              \
  (HWY_SSE2 | HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_SPR | HWY_SCALAR | HWY_ALL_SVE | \
   OLLAMA_UNUSED_TARGETS)

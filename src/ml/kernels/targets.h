// Which instruction sets the kernels are compiled for; to be included before any header of Highway.
// AVX2; AVX-512 with VNNI, without and with BF16; NEON. Elsewhere Highway's emulation runs, which
// tests use too and which is slower than GGML (see available.h).
#pragma once

#define HWY_WANT_AVX3_DL 1
#define HWY_DISABLED_TARGETS \
  (HWY_SSE2 | HWY_SSSE3 | HWY_SSE4 | HWY_AVX3 | HWY_AVX3_SPR | HWY_SCALAR | HWY_ALL_SVE)

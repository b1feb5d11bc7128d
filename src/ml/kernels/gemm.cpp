#include "ml/kernels/gemm.h"

#include <algorithm>
#include <cstring>

#include "ml/kernels/layout.h"
#include "ml/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ml/kernels/gemm.cpp"
#include "hwy/foreach_target.h"
// After it.
#include "hwy/highway.h"
#include "ml/kernels/gemm-inl.h"

#if HWY_ONCE
namespace ollama::ml::kernels {

HWY_EXPORT(gemm_rows);
HWY_EXPORT(pack_tiles);

void gemm(const GemmArguments& arguments, std::int64_t first, std::int64_t last) {
  HWY_DYNAMIC_DISPATCH(gemm_rows)(arguments, first, last);
}

void pack_activations(ActivationKind kind, std::int64_t k, std::int64_t n, const Columns& columns,
                      std::byte* packed, std::int64_t first, std::int64_t last) {
  HWY_DYNAMIC_DISPATCH(pack_tiles)(kind, k, n, columns, packed, first, last);
}

}  // namespace ollama::ml::kernels
#endif  // HWY_ONCE

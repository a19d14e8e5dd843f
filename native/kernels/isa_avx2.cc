// The kernels for AVX2 with FMA.
#include "kernels/isa.h"
#include "kernels/prelude.h"

#if RSKIP_X86
#include <immintrin.h>

#define RSKIP_ISA avx2
#define RSKIP_TILE_BLOCKS 1
RSKIP_TARGET_BEGIN("avx2,fma")
#include "simd/vec_avx2-inl.h"
// Keep the order: kernels are written on the vector type.
#include "kernels/all-inl.h"
RSKIP_TARGET_END

namespace rskip {
const KernelTable* avx2_table() {
  static const KernelTable table = avx2::make_table(Isa::kAvx2, "avx2");
  return &table;
}
}  // namespace rskip
#else
namespace rskip {
const KernelTable* avx2_table() { return nullptr; }
}  // namespace rskip
#endif

// The kernels for AVX2 with FMA.
#include "kernels/isa/isa.h"
#include "kernels/prelude.h"

#if RSKIP_X86
#include <immintrin.h>

#define RSKIP_ISA avx2
#define RSKIP_TILE_BLOCKS 1
RSKIP_TARGET_BEGIN("avx2,fma")
#include "simd/vec_avx2-inl.h"
// Keep the order: kernels are written on the vector type.
#include "kernels/isa/all-inl.h"
RSKIP_TARGET_END

namespace rskip {
bool avx2_kernels(KernelTable& table) {
  avx2::set_kernels(table);
  return true;
}
}  // namespace rskip
#else
namespace rskip {
bool avx2_kernels(KernelTable&) { return false; }
}  // namespace rskip
#endif

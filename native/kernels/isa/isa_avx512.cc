// The kernels for AVX-512 (F, BW, DQ, VL).
#include "kernels/isa/isa.h"
#include "kernels/prelude.h"

#if RSKIP_X86
#include <immintrin.h>

#define RSKIP_ISA avx512
#define RSKIP_TILE_BLOCKS 2
RSKIP_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include "simd/vec_avx512-inl.h"
// Keep the order: kernels are written on the vector type.
#include "kernels/isa/all-inl.h"
RSKIP_TARGET_END

namespace rskip {
bool avx512_kernels(KernelTable& table) {
  avx512::set_kernels(table);
  return true;
}
}  // namespace rskip
#else
namespace rskip {
bool avx512_kernels(KernelTable&) { return false; }
}  // namespace rskip
#endif

// The kernels on 8-bit numbers for AVX-512 (F, BW, DQ, VL).
#include "kernels/isa/isa.h"
#include "kernels/int8/pack8.h"
#include "kernels/prelude.h"

#if RSKIP_X86
#include <immintrin.h>

#define RSKIP_ISA avx512
#define RSKIP_DOT 0
#define RSKIP_MATRIX 0
#define RSKIP_TILE_BLOCKS 2
RSKIP_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include "simd/vec8_avx512-inl.h"
// Keep the order: kernels are written on the vector type.
#include "kernels/int8/all8-inl.h"
RSKIP_TARGET_END

namespace rskip {
bool avx512_kernels8(KernelTable& table) {
  avx512::set_kernels8(table);
  return true;
}
}  // namespace rskip
#else
namespace rskip {
bool avx512_kernels8(KernelTable&) { return false; }
}  // namespace rskip
#endif

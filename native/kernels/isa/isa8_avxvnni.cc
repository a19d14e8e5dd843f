// The kernels on 8-bit numbers for AVX2 with FMA and dot products (AVX-VNNI).
#include "kernels/isa/isa.h"
#include "kernels/int8/pack8.h"
#include "kernels/prelude.h"

#if RSKIP_X86
#include <immintrin.h>

#define RSKIP_ISA avxvnni
#define RSKIP_DOT 1
#define RSKIP_MATRIX 0
#define RSKIP_TILE_BLOCKS 1
RSKIP_TARGET_BEGIN("avx2,fma,avxvnni")
#include "simd/vec8_avx2-inl.h"
// Keep the order: kernels are written on the vector type.
#include "kernels/int8/all8-inl.h"
RSKIP_TARGET_END

namespace rskip {
bool avxvnni_kernels8(KernelTable& table) {
  avxvnni::set_kernels8(table);
  return true;
}
}  // namespace rskip
#else
namespace rskip {
bool avxvnni_kernels8(KernelTable&) { return false; }
}  // namespace rskip
#endif

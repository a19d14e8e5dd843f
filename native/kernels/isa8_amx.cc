// The kernels on 8-bit numbers for AVX-512 (F, BW, DQ, VL) with dot products (AVX512_VNNI) and products of matrices (AMX-INT8).
#include "kernels/isa.h"
#include "kernels/pack8.h"
#include "kernels/prelude.h"

#if RSKIP_X86
#include <immintrin.h>

#define RSKIP_ISA amx
#define RSKIP_DOT 1
#define RSKIP_MATRIX 1
#define RSKIP_TILE_BLOCKS 2
RSKIP_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512vnni,amx-tile,amx-int8")
#include "simd/matrix_amx-inl.h"
// Keep the order: kernels are written on the vector type.
#include "kernels/all8-inl.h"
RSKIP_TARGET_END

namespace rskip {
bool amx_kernels8(KernelTable& table) {
  amx::set_kernels8(table);
  table.dot_burst = &amx::matrix_burst;
  return true;
}
}  // namespace rskip
#else
namespace rskip {
bool amx_kernels8(KernelTable&) { return false; }
}  // namespace rskip
#endif

// The kernels on 8-bit numbers for AVX-512 (F, BW, DQ, VL) with dot products (AVX512_VNNI) and products of matrices (AMX-INT8):
// those that multiply matrices; the others are avx512vnni's.
#include "kernels/isa/isa.h"
#include "kernels/int8/pack8.h"
#include "kernels/prelude.h"

#if RSKIP_X86
#include <immintrin.h>

#define RSKIP_ISA amx
#define RSKIP_BASE avx512
#define RSKIP_DOT 1
#define RSKIP_MATRIX 1
#define RSKIP_TILE_BLOCKS 2
RSKIP_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512vnni,amx-tile,amx-int8")
// Keep the order: kernels are written on the vector type.
#include "simd/vec8_avx512-inl.h"
#include "simd/matrix_amx-inl.h"
#include "kernels/int8/conv8_matrix-inl.h"
#include "kernels/int8/gemm8-inl.h"

namespace rskip::amx {

// That of avx512vnni, for convolutions that matrices don't suit. The table is made once.
inline decltype(KernelTable::conv8) other_conv8 = nullptr;

inline void conv8(const ConvArgs8& args, int part, int parts) {
  matrices_suit(*args.conv) ? conv8_matrix(args, part, parts) : other_conv8(args, part, parts);
}

}  // namespace rskip::amx
RSKIP_TARGET_END

namespace rskip {
bool amx_kernels8(KernelTable& table) {
  if (!avx512vnni_kernels8(table)) return false;
  amx::other_conv8 = table.conv8;
  table.conv8 = &amx::conv8;
  table.gemm8 = &amx::gemm8;
  table.products8 = &amx::products8;
  table.dot_burst = &amx::matrix_burst;
  return true;
}
}  // namespace rskip
#else
namespace rskip {
bool amx_kernels8(KernelTable&) { return false; }
}  // namespace rskip
#endif

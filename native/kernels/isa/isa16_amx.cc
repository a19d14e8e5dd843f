// The kernels on bfloat16 in the order of AMX for processors that multiply matrices of them (AMX-BF16, with AVX512_BF16).
#include "kernels/bfloat16/pack16.h"
#include "kernels/isa/isa.h"
#include "kernels/prelude.h"

#if RSKIP_X86
#include <immintrin.h>

#define RSKIP_ISA amx16
#define RSKIP_BASE avx512
#define RSKIP_TILE_BLOCKS 2
RSKIP_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16,amx-tile,amx-bf16")
// Keep the order: kernels are written on the vector type.
#include "simd/vec_avx512-inl.h"
#include "simd/pairs_avx512-inl.h"
#include "kernels/bfloat16/tiles16_amx-inl.h"
#include "kernels/bfloat16/attention16-inl.h"
RSKIP_TARGET_END

namespace rskip {
bool amx_kernels16(KernelTable& table) {
  table.conv16_amx = &amx16::conv16_by<amx16::Tiles16Amx>;
  table.gemm16_amx = &amx16::gemm16_by<amx16::Tiles16Amx>;
  table.attention16_amx = &amx16::attention16_by<amx16::Tiles16Amx>;
  return true;
}
}  // namespace rskip
#else
namespace rskip {
bool amx_kernels16(KernelTable&) { return false; }
}  // namespace rskip
#endif

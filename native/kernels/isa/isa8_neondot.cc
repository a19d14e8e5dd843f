// The kernels on 8-bit numbers for NEON with dot products (FEAT_DotProd).
#include "kernels/isa/isa.h"
#include "kernels/int8/pack8.h"
#include "kernels/prelude.h"

#if RSKIP_ARM64
#include <arm_neon.h>

#define RSKIP_ISA neondot
#define RSKIP_DOT 1
#define RSKIP_MATRIX 0
// The two compilers write it differently.
#if defined(__clang__)
#define RSKIP_DOTPROD "dotprod"
#else
#define RSKIP_DOTPROD "+dotprod"
#endif
#define RSKIP_TILE_BLOCKS 1
RSKIP_TARGET_BEGIN(RSKIP_DOTPROD)
#include "simd/vec8_neon-inl.h"
// Keep the order: kernels are written on the vector type.
#include "kernels/int8/all8-inl.h"
RSKIP_TARGET_END

namespace rskip {
bool neondot_kernels8(KernelTable& table) {
  neondot::set_kernels8(table);
  return true;
}
}  // namespace rskip
#else
namespace rskip {
bool neondot_kernels8(KernelTable&) { return false; }
}  // namespace rskip
#endif

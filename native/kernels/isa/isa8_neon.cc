// The kernels on 8-bit numbers for NEON (64-bit ARM).
#include "kernels/isa/isa.h"
#include "kernels/int8/pack8.h"
#include "kernels/prelude.h"

#if RSKIP_ARM64
#include <arm_neon.h>

#define RSKIP_ISA neon
#define RSKIP_DOT 0
#define RSKIP_MATRIX 0
#define RSKIP_TILE_BLOCKS 1
#include "simd/vec8_neon-inl.h"
// Keep the order: kernels are written on the vector type.
#include "kernels/int8/all8-inl.h"

namespace rskip {
bool neon_kernels8(KernelTable& table) {
  neon::set_kernels8(table);
  return true;
}
}  // namespace rskip
#else
namespace rskip {
bool neon_kernels8(KernelTable&) { return false; }
}  // namespace rskip
#endif

// The kernels for NEON (64-bit ARM).
#include "kernels/isa/isa.h"
#include "kernels/prelude.h"

#if RSKIP_ARM64
#include <arm_neon.h>

#define RSKIP_ISA neon
#define RSKIP_TILE_BLOCKS 1
#include "simd/vec_neon-inl.h"
// Keep the order: kernels are written on the vector type.
#include "kernels/isa/all-inl.h"

namespace rskip {
bool neon_kernels(KernelTable& table) {
  neon::set_kernels(table);
  return true;
}
}  // namespace rskip
#else
namespace rskip {
bool neon_kernels(KernelTable&) { return false; }
}  // namespace rskip
#endif

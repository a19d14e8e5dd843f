// The kernels for NEON (64-bit ARM).
#include "kernels/isa.h"
#include "kernels/prelude.h"

#if RSKIP_ARM64
#include <arm_neon.h>

#define RSKIP_ISA neon
#define RSKIP_TILE_BLOCKS 1
#include "simd/vec_neon-inl.h"
// Keep the order: kernels are written on the vector type.
#include "kernels/all-inl.h"

namespace rskip {
const KernelTable* neon_table() {
  static const KernelTable table = neon::make_table(Isa::kNeon, "neon");
  return &table;
}
}  // namespace rskip
#else
namespace rskip {
const KernelTable* neon_table() { return nullptr; }
}  // namespace rskip
#endif

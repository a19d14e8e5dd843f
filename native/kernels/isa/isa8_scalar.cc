// The kernels on 8-bit numbers in plain C++, for any machine.
#define RSKIP_UNROLL(n)
#define RSKIP_INLINE inline

#include "kernels/isa/isa.h"
#include "kernels/int8/pack8.h"
#include "kernels/prelude.h"

#define RSKIP_ISA scalar
#define RSKIP_DOT 0
#define RSKIP_MATRIX 0
#define RSKIP_TILE_BLOCKS 1
#include "simd/vec8_scalar-inl.h"
// Keep the order: kernels are written on the vector type.
#include "kernels/int8/all8-inl.h"

namespace rskip {
bool scalar_kernels8(KernelTable& table) {
  scalar::set_kernels8(table);
  return true;
}
}  // namespace rskip

// The kernels in plain C++, for any machine, and the scalar entry point to the project's own functions.
// Nothing is gained by unrolling calls of std::fma, and compile time is lost.
#define RSKIP_UNROLL(n)
#define RSKIP_INLINE inline

#define RSKIP_ISA scalar
#define RSKIP_MACHINE 1
#define RSKIP_VECTOR "simd/vec_scalar-inl.h"
#define RSKIP_TILE_BLOCKS 1
#include "kernels/isa/kernels-inl.h"
#include "kernels/scalar_math.h"

namespace rskip {
float scalar_activation(float x, const Activation& act) {
  return scalar::activate(scalar::Lanes<1>{{x}}, act).v[0];
}
}  // namespace rskip

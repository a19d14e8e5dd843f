// The kernels in plain C++, for any machine, and the scalar entry points to the project's own functions.
// Nothing is gained by unrolling calls of std::fma, and compile time is lost.
#define RSKIP_UNROLL(n)
#define RSKIP_INLINE inline

#include "kernels/isa/isa.h"
#include "kernels/prelude.h"
#include "kernels/scalar_math.h"

#define RSKIP_ISA scalar
#define RSKIP_TILE_BLOCKS 1
#include "simd/vec_scalar-inl.h"
// Keep the order: kernels are written on the vector type.
#include "kernels/isa/all-inl.h"

namespace rskip {
bool scalar_kernels(KernelTable& table) {
  scalar::set_kernels(table);
  return true;
}

float scalar_exp(float x) { return scalar::exp(scalar::Lanes<1>{{x}}).v[0]; }
float scalar_log(float x) { return scalar::log(scalar::Lanes<1>{{x}}).v[0]; }
float scalar_activation(float x, const Activation& act) {
  return scalar::activate(scalar::Lanes<1>{{x}}, act).v[0];
}
}  // namespace rskip

// The kernels in plain C++, for any machine, and the scalar entry point to the project's own functions.
#include "kernels/isa/scalar-inl.h"

#define RSKIP_VECTOR "simd/vec_scalar-inl.h"
#include "kernels/isa/kernels-inl.h"

namespace rskip {
float scalar_activation(float x, const Activation& act) {
  return scalar::activate(scalar::Lanes<1>{{x}}, act).v[0];
}
}  // namespace rskip
RSKIP_SCALAR_END

// The kernels in plain C++, for any machine, and the scalar entry point to the project's own functions.
// Nothing is gained by unrolling calls of std::fma, and compile time is lost. Clang, which compiles the published addons, makes them
// small rather than fast: few processors lack AVX2, and the addons would be 0.2 MB larger.
#define RSKIP_UNROLL(n)
#define RSKIP_INLINE inline

#include "kernels/bfloat16/pack16.h"
#include "kernels/int8/pack8.h"
#include "kernels/isa/isa.h"
#include "kernels/prelude.h"
#include "kernels/scalar_math.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((minsize)), apply_to = function)
#endif

#define RSKIP_ISA scalar
#define RSKIP_MACHINE 1
#define RSKIP_VECTOR "simd/vec_scalar-inl.h"
#define RSKIP_TILE_BLOCKS 1
#include "kernels/isa/kernels-inl.h"

namespace rskip {
float scalar_activation(float x, const Activation& act) {
  return scalar::activate(scalar::Lanes<1>{{x}}, act).v[0];
}
}  // namespace rskip
#if defined(__clang__)
#pragma clang attribute pop
#endif

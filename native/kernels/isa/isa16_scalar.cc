// The kernels on bfloat16 in plain C++, for any machine.
#include "kernels/isa/scalar-inl.h"

#define RSKIP_VECTOR "simd/vec_scalar-inl.h"
#define RSKIP_PAIRS "simd/pairs_scalar-inl.h"
#include "kernels/isa/kernels-inl.h"
RSKIP_SCALAR_END

// The kernels on 8-bit numbers in plain C++, for any machine.
#include "kernels/isa/scalar-inl.h"

#define RSKIP_VECTOR "simd/vec8_scalar-inl.h"
#define RSKIP_DOT 0
#include "kernels/isa/kernels-inl.h"
RSKIP_SCALAR_END

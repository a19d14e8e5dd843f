// The kernels on bfloat16 in plain C++, for any machine.
#define RSKIP_UNROLL(n)
#define RSKIP_INLINE inline

#define RSKIP_ISA scalar
#define RSKIP_MACHINE 1
#define RSKIP_VECTOR "simd/vec_scalar-inl.h"
#define RSKIP_PAIRS "simd/pairs_scalar-inl.h"
#define RSKIP_TILE_BLOCKS 1
#include "kernels/isa/kernels-inl.h"

// The kernels on 8-bit numbers in plain C++, for any machine.
#define RSKIP_UNROLL(n)
#define RSKIP_INLINE inline

#define RSKIP_ISA scalar
#define RSKIP_MACHINE 1
#define RSKIP_VECTOR "simd/vec8_scalar-inl.h"
#define RSKIP_TILE_BLOCKS 1
#define RSKIP_DOT 0
#include "kernels/isa/kernels-inl.h"
